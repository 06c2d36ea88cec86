//! Whether the log still has what a gateway has seen of it. A broker that was restored from an
//! older copy must tell nothing to a gateway that has seen more: what it then told would go on
//! from another past, and revocations would be missing from it.

use std::time::Duration;

use dayfly_agent::errors::NextAction;
use dayfly_verifier::feed::{Head, SignedHead};
use dayfly_verifier::id::Seq;
use tokio::time::timeout;
use tonic::{Code, Status};

use super::feed::Hub;
use super::instances::TooMany;
use crate::api::status;
use crate::journal::JournalError;

/// How long looking that up may take, with catching up: less than a gateway waits for an answer.
const LOOK: Duration = Duration::from_millis(1_500);

/// Why a gateway instance is not told the feed.
#[derive(Debug, thiserror::Error)]
pub enum NotTold {
    /// Too many follow.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// The gateway has seen a head of this epoch that the log does not have.
    #[error("the log does not have what the gateway has seen up to {0}")]
    Lost(Seq),
    /// The journal does not say whether it has it, or this broker has not caught up.
    #[error("it cannot be told now whether the log has what the gateway has seen")]
    Unknown,
}

impl From<NotTold> for Status {
    fn from(error: NotTold) -> Self {
        let (code, reason, next) = match &error {
            NotTold::TooMany(_) => (Code::ResourceExhausted, "BUSY", NextAction::Retry),
            NotTold::Lost(_) => (Code::DataLoss, "LOST", NextAction::None),
            NotTold::Unknown => (Code::Unavailable, "UNAVAILABLE", NextAction::Retry),
        };
        status::undecided(code, reason, next, error.to_string())
    }
}

impl Hub {
    /// Whether the log has the head that a gateway has seen; the tip has reached it then. A head
    /// that no feed key of the trust statement signed, or one of another epoch, says nothing.
    pub async fn has(&self, seen: &SignedHead) -> Result<(), NotTold> {
        let Some(seen) = self.believes(seen) else { return Ok(()) };
        let looked = timeout(LOOK, self.look(&seen)).await;
        let Ok(Ok(has)) = looked else { return Err(NotTold::Unknown) };
        if !has {
            return Err(NotTold::Lost(seen.seq));
        }
        Ok(())
    }

    async fn look(&self, seen: &Head) -> Result<bool, JournalError> {
        let has = || async {
            let there = self.journal().head_at(seen.seq).await?;
            Ok::<_, JournalError>(there.is_some_and(|there| there.hash == seen.journal))
        };
        if !has().await? {
            // Another broker may have appended it since.
            let end = self.journal().confirm().await?;
            if end.epoch != seen.epoch {
                return Ok(true);
            }
            if !has().await? {
                return Ok(false);
            }
        }
        let mut casts = self.listen();
        while self.tip().head.seq < seen.seq {
            self.want_beat();
            // What was cast does not matter, nor how much of it was missed.
            let _ = casts.recv().await;
        }
        Ok(true)
    }
}
