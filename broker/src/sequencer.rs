//! The one task of a broker that decides: takes waiting commands, decides them in order, appends
//! what they make happen as one batch, then publishes the new state. Must never let an answer out
//! before the batch that it belongs to is durable, refusals and repeats included.

mod decided;
mod failure;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use dayfly_verifier::time::Clock;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout};

use decided::{Decided, Outcomes};
pub use failure::{Failure, Fault};

use crate::core::command::{Caller, Command};
use crate::core::decide::decide;
use crate::core::event::Head;
use crate::core::limits::Limits;
use crate::core::state::State;
use crate::journal::{FreeText, Journal, JournalError, NotThatHead, Recorded, Replay};

/// The most commands that are decided and made durable together.
const BATCH: usize = 256;
/// How many commands may wait, in each lane.
const QUEUE: usize = 4096;
/// How many entries are read at once.
const CHUNK: usize = 1024;
/// How long a batch is tried.
const GIVE_UP: Duration = Duration::from_secs(2);
/// How long to wait before a store that failed is tried again.
const PAUSE: Duration = Duration::from_millis(20);
/// How often the log is looked at without a hint.
const POLL: Duration = Duration::from_millis(200);
/// How far the clock may be behind the log.
const SKEW: Duration = Duration::from_secs(2);

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
    text: Option<FreeText>,
    answer: oneshot::Sender<Result<Done, Failure>>,
}

/// The task that decides. Run it; it ends when no [`Sequencer`] is left, or with what stopped it.
pub struct Deciding {
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    giving: mpsc::Receiver<Waiting>,
    taking: mpsc::Receiver<Waiting>,
    hint: watch::Receiver<()>,
    published: Arc<ArcSwap<Recorded<Arc<State>>>>,
    heads: watch::Sender<Head>,
    /// The newest durable state.
    base: Recorded<Arc<State>>,
}

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
        let base = Recorded::nothing(limits);
        let published = Arc::new(ArcSwap::from_pointee(base.clone()));
        let (heads, moved) = watch::channel(base.head);
        let (to_giving, giving) = mpsc::channel(QUEUE);
        let (to_taking, taking) = mpsc::channel(QUEUE);
        let hint = journal.moved();
        let sequencer =
            Self { giving: to_giving, taking: to_taking, published: Arc::clone(&published), moved };
        let mut deciding =
            Deciding { journal, clock, giving, taking, hint, published, heads, base };
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
        self.send(command, caller, None).await
    }

    /// The same for a command that names a free text: it is kept with the entry that names it, and
    /// not at all if the command makes no such entry.
    pub async fn submit_with(
        &self,
        command: Command,
        caller: Caller,
        text: Option<FreeText>,
    ) -> Result<Recorded<Arc<State>>, Failure> {
        self.send(command, caller, text).await.map(|(state, _)| state)
    }

    async fn send(
        &self,
        command: Command,
        caller: Caller,
        text: Option<FreeText>,
    ) -> Result<Done, Failure> {
        let lane = if command.takes_away() { &self.taking } else { &self.giving };
        let (answer, answered) = oneshot::channel();
        lane.try_send(Waiting { command, caller, text, answer }).map_err(
            |refused| match refused {
                TrySendError::Full(_) => Fault::Busy,
                TrySendError::Closed(_) => Fault::Stopped,
            },
        )?;
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

    /// Folds what other brokers appended. A store that cannot be read now is read later.
    async fn look_around(&mut self) -> Result<(), JournalError> {
        match self.follow(None).await {
            Err(error) if !error.is_fatal() => {
                tracing::warn!(%error, "the journal cannot be read");
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// `first` and what else waits, what takes away before what does not. `first` itself gives
    /// only where nothing waited to take away.
    fn fill(&mut self, first: Waiting) -> Vec<Waiting> {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(waiting) = self.taking.try_recv()
        {
            batch.push(waiting);
        }
        while batch.len() < BATCH
            && let Ok(waiting) = self.giving.try_recv()
        {
            batch.push(waiting);
        }
        batch
    }

    /// Decides a batch until it is durable or the time is up, then answers, never before.
    async fn settle(&mut self, mut batch: Vec<Waiting>) -> Result<(), JournalError> {
        // Nobody waits for these any more, and nothing was promised.
        batch.retain(|waiting| !waiting.answer.is_closed());
        if self.clock.now().plus(SKEW) < self.base.time {
            let off = batch.extract_if(.., |waiting| !waiting.command.takes_away());
            off.for_each(|waiting| waiting.answer(Err(Fault::ClockOff.into())));
        }
        if batch.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let mut doubt = None;
        loop {
            let attempt = timeout(
                GIVE_UP.saturating_sub(started.elapsed()),
                self.attempt(&batch, &mut doubt),
            )
            .await;
            let error = match attempt.unwrap_or_else(|late| Err(timed_out(late))) {
                Ok(outcomes) => {
                    for (waiting, outcome) in batch.into_iter().zip(outcomes) {
                        waiting.answer(outcome.map(|made| (self.base.clone(), made)));
                    }
                    return Ok(());
                }
                Err(error) => error,
            };
            if error.is_fatal() {
                batch.into_iter().for_each(|waiting| waiting.answer(Err(Fault::Stopped.into())));
                return Err(error);
            }
            if started.elapsed() >= GIVE_UP {
                tracing::warn!(%error, commands = batch.len(), "a batch was given up");
                let unavailable = |waiting: Waiting| waiting.answer(Err(Fault::Unavailable.into()));
                batch.into_iter().for_each(unavailable);
                return Ok(());
            }
            if error != JournalError::Conflict {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Decides the batch on the newest state and makes it durable, once. `doubt` holds an earlier
    /// decision of which it is not known whether it stands: that is found out first.
    async fn attempt(
        &mut self,
        batch: &[Waiting],
        doubt: &mut Option<Decided>,
    ) -> Result<Outcomes, JournalError> {
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
        match self.journal.append(&self.base.head, &decided.entries).await {
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
    fn decide(&self, batch: &[Waiting]) -> Result<Decided, JournalError> {
        let now = self.clock.now().max(self.base.time);
        let mut decided = Decided::on(State::clone(&self.base));
        for Waiting { command, caller, text, .. } in batch {
            let outcome = match decide(&decided.state, command, caller, now) {
                Ok((by, events)) => decided.record(&by, now, events, text.as_ref())?,
                Err(denial) => Err(denial.into()),
            };
            decided.outcomes.push(outcome);
        }
        Ok(decided)
    }

    /// Folds all that the log has beyond the published state, and says whether `sought` was in it.
    async fn follow(&mut self, sought: Option<Head>) -> Result<bool, JournalError> {
        let mut replay = Replay::from(State::clone(&self.base));
        let (mut found, mut receipt) = (false, None);
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

impl Waiting {
    fn answer(self, answer: Result<Done, Failure>) {
        // The client may have gone.
        let _ = self.answer.send(answer);
    }
}

fn timed_out(late: tokio::time::error::Elapsed) -> JournalError {
    JournalError::Unknown(format!("the store did not answer in time: {late}"))
}

#[cfg(test)]
mod doubles;
#[cfg(test)]
mod tests;
