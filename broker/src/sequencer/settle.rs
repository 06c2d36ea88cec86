//! How a batch comes to its end: tried until it is durable, refused by the log itself, or too late.
//! Among brokers that overtake each other, what gives waits its turn; what takes away never waits
//! for another broker to decide.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::pace::SKEW;
use super::{BATCH, Decided, Deciding, Fault, Waiting};
use crate::journal::JournalError;

/// How long a batch is tried.
pub(super) const GIVE_UP: Duration = Duration::from_secs(2);
/// How long to wait before a store that failed is tried again.
const PAUSE: Duration = Duration::from_millis(20);
/// After how many conflicts what gives waits its turn.
const CONFLICTS: u32 = 2;
/// How often it is looked whether the turn has come.
const LOOK: Duration = Duration::from_millis(2);

/// A batch on its way.
pub(super) struct Effort {
    /// What takes away stands before what does not.
    pub(super) batch: Vec<Waiting>,
    /// A decision of which it is not known whether it stands.
    pub(super) doubt: Option<Decided>,
    started: Instant,
    conflicts: u32,
    /// Whether a turn was asked for and is not over.
    in_turn: bool,
}

impl Effort {
    fn new(batch: Vec<Waiting>) -> Self {
        let (doubt, started) = (None, Instant::now());
        Self { batch, doubt, started, conflicts: 0, in_turn: false }
    }

    fn left(&self) -> Duration {
        GIVE_UP.saturating_sub(self.started.elapsed())
    }

    /// After a conflict what takes away goes on by itself.
    fn part(&mut self) -> Option<Vec<Waiting>> {
        let takes = self.batch.iter().take_while(|waiting| waiting.takes_away()).count();
        if self.conflicts == 0 || takes == 0 || takes == self.batch.len() {
            return None;
        }
        let gives = self.batch.split_off(takes);
        Some(std::mem::replace(&mut self.batch, gives))
    }

    /// Not while a decision is in doubt: whether it stands is found out on the state that it was
    /// made on.
    fn wants_turn(&self) -> bool {
        let gives = self.batch.last().is_some_and(|waiting| !waiting.takes_away());
        gives && self.conflicts >= CONFLICTS && self.doubt.is_none()
    }

    fn answer(&mut self, fault: Fault) {
        self.batch.drain(..).for_each(|waiting| waiting.answer(Err(fault.into())));
    }
}

impl Deciding {
    /// Decides a batch until it is durable or the time is up, then answers, never before.
    pub(super) async fn settle(&mut self, mut batch: Vec<Waiting>) -> Result<(), JournalError> {
        let (now, off) = self.pace.read();
        if off || now.plus(SKEW) < self.base.time {
            let off = batch.extract_if(.., |waiting| !waiting.takes_away());
            off.for_each(|waiting| waiting.answer(Err(Fault::ClockOff.into())));
        }
        let mut effort = Effort::new(batch);
        while !self.step(&mut effort).await? {
            if let Some(taking) = effort.part() {
                self.take_away(taking).await?;
            }
            if effort.wants_turn() {
                self.wait_for_turn(&mut effort).await?;
            }
        }
        if effort.in_turn {
            let passed = timeout(GIVE_UP, self.journal.pass_turn()).await;
            if let Err(error) = passed.unwrap_or_else(|late| Err(timed_out(late))) {
                // The others wait it out.
                tracing::warn!(%error, "a turn was not passed on");
            }
        }
        Ok(())
    }

    /// The same for what only takes away.
    async fn take_away(&mut self, batch: Vec<Waiting>) -> Result<(), JournalError> {
        let mut effort = Effort::new(batch);
        while !self.step(&mut effort).await? {}
        Ok(())
    }

    /// Waits until it is this broker's turn, or the batch is too late, and takes away meanwhile
    /// what is to be taken away.
    async fn wait_for_turn(&mut self, effort: &mut Effort) -> Result<(), JournalError> {
        effort.in_turn = true;
        while !effort.left().is_zero() {
            match timeout(effort.left(), self.journal.turn()).await {
                Ok(Ok(true)) => return self.look_around().await,
                Ok(Err(error)) if error.is_fatal() => {
                    effort.answer(Fault::Stopped);
                    return Err(error);
                }
                Ok(Ok(false) | Err(_)) | Err(_) => {}
            }
            let mut taking = Vec::new();
            while taking.len() < BATCH
                && let Ok(waiting) = self.taking.try_recv()
            {
                taking.push(waiting);
            }
            match taking.is_empty() {
                true => tokio::time::sleep(LOOK).await,
                false => self.take_away(taking).await?,
            }
        }
        Ok(())
    }

    /// Tries once; says whether the batch has come to its end.
    async fn step(&mut self, effort: &mut Effort) -> Result<bool, JournalError> {
        // Nobody waits for these any more, and nothing was promised.
        if effort.doubt.is_none() {
            effort.batch.retain(|waiting| !waiting.answer.is_closed());
        }
        if effort.batch.is_empty() {
            return Ok(true);
        }
        let attempt = timeout(effort.left(), self.attempt(effort)).await;
        let error = match attempt.unwrap_or_else(|late| Err(timed_out(late))) {
            Ok(outcomes) => {
                for (waiting, outcome) in effort.batch.drain(..).zip(outcomes) {
                    waiting.answer(outcome.map(|made| (self.base.clone(), made)));
                }
                return Ok(true);
            }
            Err(error) => error,
        };
        if error.is_fatal() {
            effort.answer(Fault::Stopped);
            return Err(error);
        }
        if effort.left().is_zero() {
            tracing::warn!(%error, commands = effort.batch.len(), "a batch was given up");
            effort.answer(Fault::Unavailable);
            return Ok(true);
        }
        if error == JournalError::Conflict {
            effort.conflicts = effort.conflicts.saturating_add(1);
        } else {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(false)
    }
}

fn timed_out(late: tokio::time::error::Elapsed) -> JournalError {
    JournalError::Unknown(format!("the store did not answer in time: {late}"))
}
