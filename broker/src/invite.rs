//! Inviting on the broker's host, with the broker's own files, whether it runs or not.
//!
//! Whoever can read those files acts as the broker. People are invited in no other way: an
//! operator who could invite as a person over the network could be that person.

use std::sync::Arc;

use dayfly_agent::join::JoinString;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;

use crate::authority::{Authority, AuthorityError};
use crate::config::Config;
use crate::core::command::{Caller, Command};
use crate::core::event::IdentityChange;
use crate::journal::{JournalError, Sqlite};
use crate::sequencer::{Failure, Fault, Sequencer};
use crate::serve::Host;

/// Why nobody was invited.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// The authority gives no such ID, or cannot be used.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The invitation cannot be put on record.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// It was not put on record.
    #[error("the invitation is not on record: {0}")]
    Failed(Failure),
}

/// Puts on record that somebody is invited to join as `id`, then makes the join string: good for
/// one join, until the time that is given back.
pub async fn on_this_host(
    config: &Config,
    host: &Host,
    id: &SpiffeId,
) -> Result<(JoinString, Timestamp), InviteError> {
    let store = Arc::new(Sqlite::open(&config.journal())?);
    let (keys, random) = (config.keys(), host.random.clone());
    let authority = Authority::open(&config.trust_domain, &keys, store.clone(), random).await?;
    authority.may_invite(id).map_err(AuthorityError::from)?;
    let (sequencer, deciding, _) =
        Sequencer::open(store, host.clock.clone(), config.limits).await?;
    let command = Command::Identity(id.clone(), IdentityChange::Invited);
    let recorded = tokio::select! {
        recorded = sequencer.submit(command, Caller::itself(config.id.clone())) => recorded,
        ended = deciding.run() => {
            ended?;
            Err(Fault::Stopped.into())
        }
    };
    recorded.map_err(InviteError::Failed)?;
    Ok(authority.invite(id, host.clock.now()).await?)
}
