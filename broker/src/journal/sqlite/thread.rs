//! A thread with a connection of its own: SQLite blocks, tasks must not.

use std::sync::mpsc::{Sender, channel};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::super::JournalError;

type Job = Box<dyn FnOnce(&mut Connection, &mut usize) + Send>;

/// The way to a thread; it ends when this is dropped and its work is done.
pub(super) struct Thread(Sender<Job>);

impl Thread {
    pub(super) fn start(name: &str, mut connection: Connection) -> Result<Self, JournalError> {
        let (jobs, waiting) = channel::<Job>();
        spawn(name, move || {
            let mut count = 0;
            for job in waiting {
                job(&mut connection, &mut count);
            }
        })?;
        Ok(Self(jobs))
    }

    /// Runs `work` after all that was handed in before, with a count that the thread keeps. It
    /// runs to its end even if the caller stops waiting.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection, &mut usize) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (done, waiting) = oneshot::channel();
        let job = move |connection: &mut Connection, count: &mut usize| {
            // The caller may have stopped waiting.
            let _ = done.send(work(connection, count));
        };
        let ended = "the thread of the store has ended";
        self.0.send(Box::new(job)).map_err(|_| JournalError::Unavailable(ended.into()))?;
        waiting.await.map_err(|_| JournalError::Unknown(ended.into()))?
    }
}

pub(super) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), JournalError> {
    let spawned = std::thread::Builder::new().name(name.into()).spawn(body);
    spawned.map(drop).map_err(|e| JournalError::Unavailable(format!("no thread: {e}")))
}
