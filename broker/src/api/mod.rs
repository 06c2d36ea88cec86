//! The gRPC services: one file a service.
//!
//! A handler parses what came into domain values, asks the sequencer, and renders the answer. It
//! decides nothing by itself, and holds no lock.

pub mod parse;
mod query;
pub mod render;
mod report;
pub mod status;

mod apply;
pub mod ask;
pub(crate) mod enforcement;
pub mod keys;
mod lock;
mod watch;

pub mod access;
pub mod approval;
pub mod audit;
pub mod gateway;
pub mod identity;
pub mod operator;

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use dayfly_agent::tls::Live;
use dayfly_verifier::id::BundleDigest;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::{Clock, Timestamp};
use tonic::Status;

use crate::authority::Authority;
use crate::config::Peer;
use crate::follow::feed::Hub;
use crate::journal::{JournalError, Store};
use crate::policy::bundle::Bundle;
use crate::policy::files::BundleFiles;
use crate::random::Random;
use crate::sequencer::Sequencer;
use crate::shutdown::Shutdown;
use crate::signer::Signer;

/// What the handlers of all services work with.
pub struct Broker {
    /// This broker's own SPIFFE ID.
    pub id: SpiffeId,
    /// Where the broker serves everything but joining, as it tells those who join: `host:port`.
    pub address: String,
    /// The other brokers of the same journal.
    pub peers: Vec<Peer>,
    /// Decides, and publishes the newest durable state.
    pub sequencer: Sequencer,
    /// The journal and what is kept beside it.
    pub store: Arc<dyn Store>,
    /// Signs tokens that are recorded.
    pub signer: Signer,
    /// Gives SVIDs.
    pub authority: Arc<Authority>,
    /// Its own one.
    pub live: Live,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Salts, and ids that the broker draws.
    pub random: Arc<dyn Random>,
    /// The end: streams end themselves when it begins.
    pub shutdown: Shutdown,
    /// When this process began to serve.
    pub started_at: Timestamp,
    /// The bundle that was asked for last.
    pub bundles: LoadedBundle,
    /// Tells gateways what is taken back.
    pub hub: Arc<Hub>,
    /// The directory where new statements of the trust root are found.
    pub dir: PathBuf,
    /// The directory where new keys are found.
    pub keys: PathBuf,
}

/// Why a bundle cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// What is kept of it cannot be reached.
    #[error(transparent)]
    Store(#[from] JournalError),
    /// It is not kept, or not what its digest names, or this version does not understand it.
    #[error("the files of bundle {0} are lost or refused: {1}")]
    Lost(BundleDigest, String),
}

/// The bundle in force, read once.
#[derive(Default)]
pub struct LoadedBundle(ArcSwapOption<Bundle>);

impl LoadedBundle {
    /// The bundle of this digest: the one that was asked for last, or else from the store.
    pub async fn get(
        &self,
        digest: BundleDigest,
        store: &dyn Store,
    ) -> Result<Arc<Bundle>, BundleError> {
        if let Some(bundle) = self.0.load_full()
            && bundle.digest() == digest
        {
            return Ok(bundle);
        }
        let lost = |why: &str| BundleError::Lost(digest, why.to_owned());
        let content = store.bundle(&digest).await?.ok_or_else(|| lost("they are not kept"))?;
        let files = BundleFiles::from_bytes(&content).map_err(|_| lost("they were changed"))?;
        if files.digest() != digest {
            return Err(lost("they were changed"));
        }
        let loaded = Bundle::load(&files).map_err(|problems| {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            lost(&problems.join("; "))
        })?;
        let loaded = Arc::new(loaded);
        self.0.store(Some(loaded.clone()));
        Ok(loaded)
    }
}

impl Broker {
    /// The bundle of this digest, to be asked. It is loaded before the broker serves, so that
    /// this fails only where the store does.
    pub async fn bundle(&self, digest: BundleDigest) -> Result<Arc<Bundle>, Status> {
        let bundle = self.bundles.get(digest, &*self.store).await;
        bundle.map_err(|error| status::unavailable(&error))
    }
}

#[cfg(test)]
mod tests;
