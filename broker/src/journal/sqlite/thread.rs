//! A thread with a connection of its own: SQLite blocks, tasks must not. What the log waits for
//! goes before what is kept beside it, and neither queue grows without end.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::super::JournalError;

/// How many jobs may wait, in each lane.
pub(super) const QUEUE: usize = 256;

type Job = Box<dyn FnOnce(&mut Connection, &mut usize) + Send>;

/// Which jobs go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// The log itself: every decision and every heartbeat waits for it.
    Log,
    /// What is kept beside it.
    Side,
}

/// The way to a thread; it ends when this is dropped and its work is done.
pub(super) struct Thread(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queues: Mutex<Queues>,
    work: Condvar,
}

#[derive(Default)]
struct Queues {
    log: VecDeque<Job>,
    side: VecDeque<Job>,
    ended: bool,
}

impl Shared {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        // Nothing panics while it holds the lock.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job, once there is one; `None` when there will be no more.
    fn next(&self) -> Option<Job> {
        let mut queues = self.queues();
        loop {
            if let Some(job) = queues.log.pop_front().or_else(|| queues.side.pop_front()) {
                return Some(job);
            }
            if queues.ended {
                return None;
            }
            queues = self.work.wait(queues).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Thread {
    pub(super) fn start(name: &str, mut connection: Connection) -> Result<Self, JournalError> {
        let shared = Arc::<Shared>::default();
        let jobs = shared.clone();
        spawn(name, move || {
            let mut count = 0;
            while let Some(job) = jobs.next() {
                job(&mut connection, &mut count);
            }
        })?;
        Ok(Self(shared))
    }

    /// Runs `work` after all of its lane that was handed in before, with a count that the thread
    /// keeps. Once begun it runs to its end; it never begins if the caller stopped waiting.
    /// Refuses, with nothing done, when too much of its lane waits.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce(&mut Connection, &mut usize) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (done, waiting) = oneshot::channel();
        let job = move |connection: &mut Connection, count: &mut usize| {
            if !done.is_closed() {
                // The caller may have stopped waiting meanwhile.
                let _ = done.send(work(connection, count));
            }
        };
        self.queue(lane, Box::new(job))?;
        let ended = || JournalError::Unknown("the thread of the store has ended".into());
        waiting.await.map_err(|_| ended())?
    }

    fn queue(&self, lane: Lane, job: Job) -> Result<(), JournalError> {
        let mut queues = self.0.queues();
        let queue = match lane {
            Lane::Log => &mut queues.log,
            Lane::Side => &mut queues.side,
        };
        if queue.len() >= QUEUE {
            return Err(JournalError::Unavailable("too much waits for the store".into()));
        }
        queue.push_back(job);
        self.0.work.notify_one();
        Ok(())
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.0.queues().ended = true;
        self.0.work.notify_one();
    }
}

pub(super) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), JournalError> {
    let spawned = std::thread::Builder::new().name(name.into()).spawn(body);
    spawned.map(drop).map_err(|e| JournalError::Unavailable(format!("no thread: {e}")))
}
