//! The one task of a broker that decides: takes waiting commands, decides them in order, appends
//! what they make happen as one batch, then publishes the new state. Must never let an answer out
//! before the batch that it belongs to is durable, refusals and repeats included.

mod decided;
mod failure;
mod pace;
mod settle;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use dayfly_verifier::id::Seq;
use dayfly_verifier::time::{Clock, Timestamp};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout};

use decided::{Decided, Outcomes};
pub use failure::{Failure, Fault};
use pace::Pace;
use settle::{Effort, GIVE_UP};
use waiting::{Asked, Waiting};

use crate::core::command::{Caller, Command};
use crate::core::decide::decide;
use crate::core::event::Head;
use crate::core::limits::Limits;
use crate::core::state::State;
use crate::journal::{
    FreeText, Journal, JournalError, NotThatHead, Recorded, Replay, Store, snapshot,
};

/// The most commands that are decided and made durable together.
const BATCH: usize = 256;
/// How much of a batch is left to what gives, if that much of it waits.
const SHARE: usize = BATCH / 4;
/// How many commands may wait, in each lane.
const QUEUE: usize = 4096;
/// How many places of either lane no workload can fill.
const KEPT: usize = QUEUE / 4;
/// How many of these, in the lane that takes away, nobody but operators can fill.
const OPERATORS: usize = KEPT / 2;
/// How many entries are read at once.
const CHUNK: usize = 1024;
/// How long is folded before what was folded is published, where there is more.
const PROGRESS: Duration = Duration::from_millis(250);
/// How often the log is looked at without a hint.
const POLL: Duration = Duration::from_millis(200);

/// The way to the task that decides, and to what it has published. Clones lead to the same task.
#[derive(Clone)]
pub struct Sequencer {
    giving: mpsc::Sender<Waiting>,
    taking: mpsc::Sender<Waiting>,
    published: Arc<ArcSwap<Recorded<Arc<State>>>>,
    moved: watch::Receiver<Head>,
    clock_off: Arc<AtomicBool>,
}

/// The task that decides. Run it; it ends when no [`Sequencer`] is left, or with what stopped it.
pub struct Deciding {
    journal: Arc<dyn Journal>,
    pace: Pace,
    giving: mpsc::Receiver<Waiting>,
    taking: mpsc::Receiver<Waiting>,
    hint: watch::Receiver<()>,
    published: Arc<ArcSwap<Recorded<Arc<State>>>>,
    heads: watch::Sender<Head>,
    /// The newest durable state.
    base: Recorded<Arc<State>>,
}

/// Makes a command of a state, and the time at which it is decided.
pub type Remake = Box<dyn FnMut(&State, Timestamp) -> Command + Send>;

/// A durable state that has what a command made happen, and whether it made anything happen: if
/// not, it had happened already.
type Done = (Recorded<Arc<State>>, bool);

impl Sequencer {
    /// Folds the whole log of `journal`. Any error of the log itself means: do not serve.
    pub async fn start(
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Result<(Self, Deciding), JournalError> {
        Self::start_on(journal, clock, Recorded::nothing(limits)).await
    }

    /// The same from the newest snapshot that `store` keeps and the log vouches for, if there is
    /// one, and the entries since. Says the place of the last entry that it had; 0 without one.
    pub async fn open(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Result<(Self, Deciding, Seq), JournalError> {
        let base = snapshot::newest(&store, limits).await;
        let base = base.unwrap_or_else(|| Recorded::nothing(limits));
        let from = base.head.seq;
        let (sequencer, deciding) = Self::start_on(store, clock, base).await?;
        Ok((sequencer, deciding, from))
    }

    async fn start_on(
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
        base: Recorded<Arc<State>>,
    ) -> Result<(Self, Deciding), JournalError> {
        let published = Arc::new(ArcSwap::from_pointee(base.clone()));
        let (heads, moved) = watch::channel(base.head);
        let (to_giving, giving) = mpsc::channel(QUEUE);
        let (to_taking, taking) = mpsc::channel(QUEUE);
        let hint = journal.moved();
        let pace = Pace::new(clock);
        let sequencer = Self {
            giving: to_giving,
            taking: to_taking,
            published: Arc::clone(&published),
            moved,
            clock_off: pace.off(),
        };
        let mut deciding = Deciding { journal, pace, giving, taking, hint, published, heads, base };
        deciding.follow(None).await?;
        Ok((sequencer, deciding))
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

    /// Whether this broker's clock was off when it was read last, a moment ago: then nothing is
    /// given that does not go through the log either.
    #[must_use]
    pub fn clock_is_off(&self) -> bool {
        self.clock_off.load(Ordering::SeqCst)
    }

    /// Decides `command` of `caller`. Returns once what it made happen is durable, with a state
    /// that has it: take the answer from there.
    ///
    /// `Denial::Reevaluate` means that policy was asked about another state than the present
    /// one: ask it about [`Self::state`] and submit again. A caller that stops waiting may find
    /// its command done or not.
    pub async fn submit(
        &self,
        command: Command,
        caller: Caller,
    ) -> Result<Recorded<Arc<State>>, Failure> {
        self.submit_with(command, caller, None).await
    }

    /// The same, and whether it was this very command that made it happen. Where it cannot be told
    /// any more, it was not: good for what must count at most once.
    pub async fn submit_once(&self, command: Command, caller: Caller) -> Result<Done, Failure> {
        self.wait(Some(Asked::new(command, caller, None))).await
    }

    /// The same for a command that names a free text: it is kept with the entry that names it, and
    /// not at all if the command makes no such entry.
    pub async fn submit_with(
        &self,
        command: Command,
        caller: Caller,
        text: Option<FreeText>,
    ) -> Result<Recorded<Arc<State>>, Failure> {
        self.wait(Some(Asked::new(command, caller, text))).await.map(|(state, _)| state)
    }

    /// The same for a command that is made anew of the very state that it is decided on: good for
    /// what rests on more of it than stays the same for long, and for whoever has to see that
    /// state. The last state that `remake` is given is the one that counts. All that is decided
    /// waits for `remake`: what takes long in it is to be prepared before.
    pub async fn submit_remade(
        &self,
        command: Command,
        remake: Remake,
        caller: Caller,
        text: Option<FreeText>,
    ) -> Result<Recorded<Arc<State>>, Failure> {
        let asked = Asked { remake: Some(remake), ..Asked::new(command, caller, text) };
        self.wait(Some(asked)).await.map(|(state, _)| state)
    }

    /// The state as of a moment after this call began, whichever broker appended to the log. What
    /// [`Self::state`] does not have, another broker may just have recorded.
    pub async fn current(&self) -> Result<Recorded<Arc<State>>, Failure> {
        self.wait(None).await.map(|(state, _)| state)
    }

    async fn wait(&self, what: Option<Asked>) -> Result<Done, Failure> {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { what, answer };
        let lane = if waiting.takes_away() { &self.taking } else { &self.giving };
        if waiting.leaves().is_some_and(|left| lane.capacity() <= left) {
            return Err(Fault::Busy.into());
        }
        lane.try_send(waiting).map_err(|refused| match refused {
            TrySendError::Full(_) => Fault::Busy,
            TrySendError::Closed(_) => Fault::Stopped,
        })?;
        answered.await.map_err(|_| Fault::Stopped)?
    }
}

impl Deciding {
    /// Decides until no [`Sequencer`] is left, or until the log turns out to be one that this
    /// broker must not go on from.
    pub async fn run(mut self) -> Result<(), JournalError> {
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let first = tokio::select! {
                biased;
                first = self.taking.recv() => Some(first),
                first = self.giving.recv() => Some(first),
                Ok(()) = self.hint.changed() => None,
                _ = poll.tick() => None,
            };
            match first {
                Some(Some(first)) => {
                    let batch = self.fill(first);
                    self.settle(batch).await?;
                }
                Some(None) => return Ok(()),
                None => self.look_around().await?,
            }
        }
    }

    /// Folds what other brokers appended, and looks at the clock. A store that cannot be read now
    /// is read later: what waits to be decided is not kept waiting for it.
    async fn look_around(&mut self) -> Result<(), JournalError> {
        self.pace.read();
        match timeout(GIVE_UP, self.follow(None)).await {
            Ok(Err(error)) if !error.is_fatal() => {
                tracing::warn!(%error, "the journal cannot be read");
            }
            Ok(followed) => return followed.map(drop),
            Err(_) => tracing::warn!("the journal was not read to its end in time"),
        }
        Ok(())
    }

    /// `first` and what else waits, what takes away before what does not. However much is to be
    /// taken away, what gives is not shut out.
    fn fill(&mut self, first: Waiting) -> Vec<Waiting> {
        let mut batch = vec![first];
        let most = BATCH.saturating_sub(self.giving.len().min(SHARE));
        while batch.len() < most
            && let Ok(waiting) = self.taking.try_recv()
        {
            batch.push(waiting);
        }
        // What is to be taken away may have come right after `first`, which gives, was taken.
        batch.sort_by_key(|waiting| !waiting.takes_away());
        while batch.len() < BATCH
            && let Ok(waiting) = self.giving.try_recv()
        {
            batch.push(waiting);
        }
        batch
    }

    /// Decides the batch on the newest state and makes it durable, once. Of an earlier decision in
    /// doubt it is found out first whether it stands.
    async fn attempt(&mut self, effort: &mut Effort) -> Result<Outcomes, JournalError> {
        let Effort { batch, doubt, .. } = effort;
        if let Some(doubted) = &*doubt {
            self.journal.confirm().await?;
            let stands = self.follow(Some(doubted.state.head)).await?;
            if let Some(doubted) = doubt.take().filter(|_| stands) {
                return Ok(doubted.outcomes);
            }
        }
        let decided = self.decide(batch)?;
        if decided.entries.is_empty() {
            // Repeats and refusals are answers too: they must not come from a state that another
            // broker has moved on from.
            let head = self.journal.confirm().await?;
            if *head == self.base.head {
                return Ok(decided.outcomes);
            }
            self.follow(None).await?;
            return Err(JournalError::Conflict);
        }
        let (after, entries) = (&self.base.head, &decided.entries);
        let takes_away = batch.iter().all(Waiting::takes_away);
        let appended = match takes_away {
            true => self.journal.append(after, entries).await,
            false => self.journal.append_in_turn(after, entries).await,
        };
        match appended {
            Ok(receipt) => {
                self.hint.mark_unchanged();
                self.publish(&receipt, decided.state)?;
                Ok(decided.outcomes)
            }
            Err(JournalError::Conflict) => {
                self.follow(None).await?;
                Err(JournalError::Conflict)
            }
            Err(JournalError::Unknown(why)) => {
                *doubt = Some(decided);
                Err(JournalError::Unknown(why))
            }
            Err(error) => Err(error),
        }
    }

    /// Decides the batch in order, each command on what the ones before it made happen.
    fn decide(&mut self, batch: &mut [Waiting]) -> Result<Decided, JournalError> {
        let now = self.pace.read().0.max(self.base.time);
        let mut decided = Decided::on(State::clone(&self.base));
        for Waiting { what, .. } in batch {
            let Some(Asked { command, remake, caller, text }) = what else {
                decided.outcomes.push(Ok(false));
                continue;
            };
            if let Some(remake) = remake {
                *command = remake(&decided.state, now);
            }
            let outcome = match decide(&decided.state, command, caller, now) {
                Ok((by, events)) => decided.record(&by, now, events, text.as_ref())?,
                Err(denial) => Err(denial.into()),
            };
            decided.outcomes.push(outcome);
        }
        Ok(decided)
    }

    /// Folds all that the log has beyond the published state, and says whether `sought` was in it.
    /// Whoever is cut off on the way goes on from what was published; but what is sought is sought
    /// from where it was decided.
    async fn follow(&mut self, sought: Option<Head>) -> Result<bool, JournalError> {
        let mut replay = Replay::from(State::clone(&self.base));
        let (mut found, mut receipt) = (false, None);
        let mut published = Instant::now();
        loop {
            let entries = self.journal.read(&replay.state().head, CHUNK).await?;
            for stored in &entries {
                replay.push_stored(stored)?;
                found |= sought == Some(*stored.head());
            }
            receipt = entries.last().and_then(|last| last.project(|e| Some(e.head()))).or(receipt);
            if entries.len() < CHUNK {
                break;
            }
            if sought.is_none()
                && published.elapsed() >= PROGRESS
                && let Some(receipt) = receipt.take()
            {
                self.publish(&receipt, replay.state().clone())?;
                published = Instant::now();
            }
        }
        if let Some(receipt) = receipt {
            self.publish(&receipt, replay.into_state())?;
        }
        Ok(found)
    }

    fn publish(&mut self, receipt: &Recorded<Head>, state: State) -> Result<(), JournalError> {
        self.base = Recorded::at(receipt, Arc::new(state)).map_err(|e: NotThatHead| {
            JournalError::Corrupt { seq: receipt.seq, rule: e.to_string() }
        })?;
        self.published.store(Arc::new(self.base.clone()));
        self.heads.send_replace(self.base.head);
        Ok(())
    }
}

#[cfg(test)]
mod doubles;
#[cfg(test)]
mod history;
#[cfg(test)]
mod lanes;
#[cfg(test)]
mod many;
#[cfg(test)]
mod tests;
