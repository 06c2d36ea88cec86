//! One durable grouped append: the least that any answer of a broker could cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dayfly_broker::core::event::{Entry, Head};
use dayfly_broker::journal::{Journal as _, Sqlite, StoredEntry, chain};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

/// The way to the task that appends for all who wait.
#[derive(Clone)]
pub(crate) struct Appends {
    waiting: mpsc::Sender<oneshot::Sender<()>>,
    count: Arc<AtomicUsize>,
}

impl Appends {
    /// The way, and the task.
    pub(crate) fn start(store: Sqlite, entry: Entry) -> (Self, impl Future<Output = ()>) {
        let (waiting, mut queue) = mpsc::channel::<oneshot::Sender<()>>(4096);
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let committing = async move {
            let (mut head, mut batch) = (Head::ORIGIN, Vec::new());
            while queue.recv_many(&mut batch, 256).await > 0 {
                let Some(entries) = copies(&head, &entry, batch.len()) else { return };
                let Ok(receipt) = store.append(&head, &entries).await else { return };
                head = *receipt;
                counted.fetch_add(1, Ordering::Relaxed);
                for answer in batch.drain(..) {
                    // The caller may have gone.
                    let _ = answer.send(());
                }
            }
        };
        (Self { waiting, count }, committing)
    }

    /// How many appends there were.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Appends once more, in a batch with whoever else waits.
    pub(crate) async fn append(&self) -> Result<(), Status> {
        let gone = || Status::unavailable("the store has ended");
        let (answer, answered) = oneshot::channel();
        self.waiting.send(answer).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }
}

/// Chains copies of an entry.
fn copies(after: &Head, entry: &Entry, count: usize) -> Option<Vec<StoredEntry>> {
    let entries: Vec<Entry> = std::iter::repeat_n(entry.clone(), count).collect();
    chain(after, &entries).ok()
}
