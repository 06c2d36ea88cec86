//! Writes the high-water mark behind what is in force: enforcing never waits for a disk.
//!
//! What is believed is in force at once, and acknowledged; the mark follows, always the newest one.
//! A process that dies before the write forgets what it adopted in that moment, and no more: the
//! next one starts from the mark before, denies until it has a whole snapshot, and then knows
//! everything that the log has. Only a *new epoch* waits for the disk. Until then everything is
//! denied anyway; and who entered it and forgot would take the tokens of the old one again.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::mark::{Mark, Store};

/// How long after a failed write it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The way to the task that writes. When it is dropped, the task writes what is left, and ends.
#[derive(Debug)]
pub(super) struct Keeper {
    newest: watch::Sender<Mark>,
    /// The highest version of a trust statement that the disk knows of.
    trust: watch::Receiver<u64>,
}

impl Keeper {
    /// Keeps marks in `store`, which holds `mark` already.
    pub(super) fn start(store: Store, mark: Mark) -> Self {
        let (kept, trust) = watch::channel(mark.trust);
        let (newest, marks) = watch::channel(mark);
        tokio::spawn(write(store, marks, kept));
        Self { newest, trust }
    }

    /// Has `mark` written, soon.
    pub(super) fn keep(&self, mark: &Mark) {
        self.newest.send_if_modified(|newest| {
            let news = newest != mark;
            if news {
                newest.clone_from(mark);
            }
            news
        });
    }

    /// Waits until the disk knows of this version of the trust statement.
    pub(super) async fn has_trust(&mut self, version: u64) {
        // Without the task it never will: whoever waits has a bound.
        if self.trust.wait_for(|kept| *kept >= version).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn write(store: Store, mut marks: watch::Receiver<Mark>, kept: watch::Sender<u64>) {
    let mut failing = false;
    while marks.changed().await.is_ok() {
        loop {
            let mark = marks.borrow_and_update().clone();
            let (store, trust) = (store.clone(), mark.trust);
            let saved = tokio::task::spawn_blocking(move || store.save(&mark)).await;
            if let Ok(Ok(())) = saved {
                kept.send_replace(trust);
                failing = false;
                break;
            }
            if !std::mem::replace(&mut failing, true) {
                tracing::error!(
                    "the high-water mark of the feed cannot be written: a restart \
                                 would forget how far the feed was believed"
                );
            }
            // Whoever keeps marks has gone: there is nobody to try again for.
            if marks.has_changed().is_err() {
                return;
            }
            sleep(AGAIN).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(trust: u64) -> Mark {
        Mark { trust, ..Mark::default() }
    }

    async fn patiently(mut so: impl FnMut() -> bool) {
        for _ in 0..3_000 {
            if so() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("not within half a minute");
    }

    #[tokio::test]
    async fn the_newest_mark_is_written_though_its_keeper_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut keeper = Keeper::start(store.clone(), Mark::default());
        (1..=50).for_each(|trust| keeper.keep(&mark(trust)));
        keeper.has_trust(50).await;
        assert_eq!(store.load().unwrap(), Some(mark(50)), "it is there when it is said to be");
        keeper.keep(&mark(51));
        drop(keeper);
        patiently(|| store.load().unwrap() == Some(mark(51))).await;
    }

    #[tokio::test]
    async fn a_disk_that_fails_is_tried_again_and_nothing_is_claimed_before() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("marks");
        let store = Store::open(&inner).unwrap();
        std::fs::remove_dir(&inner).unwrap();
        let mut keeper = Keeper::start(store.clone(), Mark::default());
        keeper.keep(&mark(1));
        let soon = Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, keeper.has_trust(1)).await.is_err());
        std::fs::create_dir(&inner).unwrap();
        keeper.has_trust(1).await;
        assert_eq!(store.load().unwrap(), Some(mark(1)));
    }
}
