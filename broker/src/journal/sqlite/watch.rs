//! Watches what others append to the file: SQLite tells nobody, so a thread looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use dayfly_verifier::id::Seq;
use rusqlite::Connection;
use tokio::sync::watch::{Receiver, Sender};

use super::super::JournalError;
use super::{failed, head_row, thread};

/// How often the file is looked at: what another broker appended is known that much later at most.
const LOOK: Duration = Duration::from_millis(10);

/// Knows of every append, of this process and of others. Its thread ends when it is dropped.
pub(super) struct Watch {
    moved: Sender<()>,
    /// The place of the last entry that was told of.
    known: Arc<AtomicU64>,
    _alive: SyncSender<()>,
}

impl Watch {
    pub(super) fn start(connection: Connection) -> Result<Self, JournalError> {
        let known = Arc::new(AtomicU64::new(head_row(&connection)?.seq.0));
        let (alive, ended) = sync_channel(1);
        let watch = Self { moved: Sender::new(()), known: known.clone(), _alive: alive };
        let moved = watch.moved.clone();
        thread::spawn("journal-watch", move || {
            let mut version = None;
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                // What cannot be looked at now is looked at later.
                let Ok(now) = data_version(&connection) else { continue };
                if version.replace(now) == Some(now) {
                    continue;
                }
                let Ok(head) = head_row(&connection) else { continue };
                // Less than was known is news, too: the log went back.
                if known.swap(head.seq.0, Ordering::SeqCst) != head.seq.0 {
                    moved.send_replace(());
                }
            }
        })?;
        Ok(watch)
    }

    /// This process appended up to `seq`.
    pub(super) fn appended(&self, seq: Seq) {
        self.known.store(seq.0, Ordering::SeqCst);
        self.moved.send_replace(());
    }

    pub(super) fn moved(&self) -> Receiver<()> {
        self.moved.subscribe()
    }
}

/// Changes whenever another connection commits.
fn data_version(connection: &Connection) -> Result<i64, JournalError> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0)).map_err(failed)
}
