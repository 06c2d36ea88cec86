//! The one task of a broker that decides: takes waiting commands, decides them in order, appends
//! what they make happen as one batch, then publishes the new state. Must never let an answer out
//! before the batch that it belongs to is durable, refusals and repeats included.

use std::sync::Arc;

use arc_swap::ArcSwap;
use dayfly_verifier::time::{Clock, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};

use crate::core::command::{Caller, Command};
use crate::core::denial::Denial;
use crate::core::event::Head;
use crate::core::state::State;
use crate::journal::{Journal, JournalError, Recorded};

/// Why a command was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The rules refuse it.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// The world failed. Whether it was done may be unknown: asking the same again is safe.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// What in the world failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// More commands wait than are taken.
    #[error("too many commands are waiting")]
    Busy,
    /// The journal could not be written in time.
    #[error("the journal is unavailable")]
    Unavailable,
    /// This broker's clock is behind the log by more than two seconds.
    #[error("the clock of this broker is off")]
    ClockOff,
    /// This broker has stopped deciding.
    #[error("this broker has stopped")]
    Stopped,
}

/// The way to the task that decides, and to what it has published. Clones lead to the same task.
#[derive(Clone)]
pub struct Sequencer {
    giving: mpsc::Sender<Waiting>,
    taking: mpsc::Sender<Waiting>,
    published: Arc<ArcSwap<Recorded<Arc<State>>>>,
    moved: watch::Receiver<Head>,
}

/// A command that waits for its decision.
struct Waiting {
    command: Command,
    caller: Caller,
    answer: oneshot::Sender<Result<Recorded<Arc<State>>, Failure>>,
}

/// The task that decides. Run it; it ends when no [`Sequencer`] is left, or with what stopped it.
pub struct Deciding {
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    last_at: Timestamp,
}

impl Sequencer {
    /// Folds the whole log of `journal`. Any error of the log itself means: do not serve.
    pub async fn start(
        _journal: Arc<dyn Journal>,
        _clock: Arc<dyn Clock>,
    ) -> Result<(Self, Deciding), JournalError> {
        Err(JournalError::Unavailable("not written yet".into()))
    }

    /// The newest durable state. Never waits.
    #[must_use]
    pub fn state(&self) -> Recorded<Arc<State>> {
        Recorded::clone(&self.published.load())
    }

    /// The head of the newest durable state, and when it moves.
    #[must_use]
    pub fn moved(&self) -> watch::Receiver<Head> {
        self.moved.clone()
    }

    /// Decides `command` of `caller`. Returns once what it made happen is durable, with a state
    /// that has it: take the answer from there.
    ///
    /// [`Denial::Reevaluate`] means that policy was asked about another state than the present
    /// one: ask it about [`Self::state`] and submit again.
    pub async fn submit(
        &self,
        command: Command,
        caller: Caller,
    ) -> Result<Recorded<Arc<State>>, Failure> {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { command, caller, answer };
        self.giving.try_send(waiting).map_err(|_| Fault::Busy)?;
        answered.await.map_err(|_| Fault::Stopped)?
    }
}

impl Deciding {
    /// Decides until no [`Sequencer`] is left, or until the log turns out to be one that this
    /// broker must not go on from.
    pub async fn run(self) -> Result<(), JournalError> {
        let Self { journal, clock, last_at } = self;
        let _ = (journal, clock.now().max(last_at));
        Ok(())
    }
}
