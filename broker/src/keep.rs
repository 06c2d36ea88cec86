//! Keeps a snapshot of the fold, so that no start has much to fold. In the background: what decides
//! hands out its states anyway, and waits for nothing here.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use dayfly_verifier::id::Seq;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::core::command::{Caller, Command};
use crate::core::event::Snapshot;
use crate::core::state::{FOLD, State};
use crate::journal::{Recorded, Store, snapshot};
use crate::sequencer::Sequencer;

/// A snapshot costs what there is to keep: it is taken when the log has grown by this part of it.
const PART: u64 = 32;
/// How long it is left alone when one could not be taken.
const PAUSE: Duration = Duration::from_secs(60);

/// Takes a snapshot now and then.
pub struct Keeper {
    /// Publishes the states, and puts down that one is kept.
    pub sequencer: Sequencer,
    /// Where it is kept.
    pub store: Arc<dyn Store>,
    /// The broker, as itself.
    pub itself: Caller,
    /// How many entries must have come since the last one, at least.
    pub every: u64,
    /// The place of the snapshot that this process was started from; 0 for none.
    pub started_from: Seq,
}

impl Keeper {
    /// Takes them until it is dropped, or until nothing decides any more.
    pub async fn run(self) {
        let mut moved = self.sequencer.moved();
        // Where the last one could not be taken up, it is time for another.
        let mut lost = self.started_from < self.sequencer.state().snapshot;
        loop {
            moved.mark_unchanged();
            let state = self.sequencer.state();
            if lost || self.is_due(&state) {
                match self.take(state).await {
                    Ok(()) => lost = false,
                    Err(error) => {
                        tracing::error!(%error, "no snapshot was kept");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
            if moved.changed().await.is_err() {
                return;
            }
        }
    }

    fn is_due(&self, state: &State) -> bool {
        let grown = state.head.seq.0.saturating_sub(state.snapshot.0);
        let cases = u64::try_from(state.size()).unwrap_or(u64::MAX);
        grown >= self.every.max(cases / PART)
    }

    /// Keeps a snapshot of `state`, puts that down, and forgets those before it.
    async fn take(&self, state: Recorded<Arc<State>>) -> io::Result<()> {
        let of = state.head;
        let end = CancellationToken::new();
        // The thread that writes ends with this.
        let _end = end.clone().drop_guard();
        let store = self.store.clone();
        let write = move || snapshot::keep(&*store, &state, &|| end.is_cancelled());
        let digest = spawn_blocking(write).await.map_err(io::Error::other)??;
        let taken = Command::Snapshot(Snapshot { of, fold: FOLD, digest });
        let taken = self.sequencer.submit(taken, self.itself.clone()).await;
        let last = taken.map_err(io::Error::other)?.snapshot;
        let store = self.store.clone();
        let forget = move || store.forget_snapshots(last);
        spawn_blocking(forget).await.map_err(io::Error::other)??;
        tracing::info!(seq = %of.seq, "kept a snapshot");
        Ok(())
    }
}

#[cfg(test)]
mod tests;
