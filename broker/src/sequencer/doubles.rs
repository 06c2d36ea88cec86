//! A clock and a store for tests, both moved by hand.
#![expect(clippy::arithmetic_side_effects, reason = "a test may overflow and fail")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dayfly_verifier::id::Seq;
use dayfly_verifier::time::{Clock, Timestamp};
use tokio::sync::{Semaphore, watch};

use crate::core::event::Head;
use crate::journal::samples::time;
use crate::journal::{Journal, JournalError, Memory, Recorded, StoredEntry};

/// A clock that is moved by hand, in milliseconds.
pub(super) struct Hand {
    pub(super) now: AtomicU64,
    pub(super) uptime: AtomicU64,
}

impl Hand {
    pub(super) fn at(now: u64) -> Arc<Self> {
        Arc::new(Self { now: now.into(), uptime: 0.into() })
    }

    /// Lets time pass.
    pub(super) fn pass(&self, ms: u64) {
        self.now.fetch_add(ms, Ordering::SeqCst);
        self.uptime.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        time(self.now.load(Ordering::SeqCst))
    }

    fn uptime(&self) -> Duration {
        Duration::from_millis(self.uptime.load(Ordering::SeqCst))
    }
}

/// A store whose appends and confirmations wait to be let through, and which can be swapped.
pub(super) struct Gate {
    pub(super) inner: Mutex<Arc<Memory>>,
    pub(super) open: Semaphore,
    pub(super) knocks: watch::Sender<u64>,
}

impl Gate {
    pub(super) fn new(inner: Memory) -> Arc<Self> {
        let (open, knocks) = (Semaphore::new(0), watch::Sender::new(0));
        Arc::new(Self { inner: Mutex::new(Arc::new(inner)), open, knocks })
    }

    fn inner(&self) -> Arc<Memory> {
        Arc::clone(&self.inner.lock().unwrap())
    }

    async fn pass(&self) {
        self.knocks.send_modify(|knocks| *knocks += 1);
        self.open.acquire().await.unwrap().forget();
    }
}

#[async_trait]
impl Journal for Gate {
    async fn append(
        &self,
        after: &Head,
        entries: &[StoredEntry],
    ) -> Result<Recorded<Head>, JournalError> {
        self.pass().await;
        self.inner().append(after, entries).await
    }

    async fn append_in_turn(
        &self,
        after: &Head,
        entries: &[StoredEntry],
    ) -> Result<Recorded<Head>, JournalError> {
        self.pass().await;
        self.inner().append_in_turn(after, entries).await
    }

    async fn turn(&self) -> Result<bool, JournalError> {
        self.inner().turn().await
    }

    async fn pass_turn(&self) -> Result<(), JournalError> {
        self.inner().pass_turn().await
    }

    async fn read(
        &self,
        after: &Head,
        limit: usize,
    ) -> Result<Vec<Recorded<StoredEntry>>, JournalError> {
        self.inner().read(after, limit).await
    }

    async fn head_at(&self, seq: Seq) -> Result<Option<Recorded<Head>>, JournalError> {
        self.inner().head_at(seq).await
    }

    async fn confirm(&self) -> Result<Recorded<Head>, JournalError> {
        self.pass().await;
        self.inner().confirm().await
    }

    fn moved(&self) -> watch::Receiver<()> {
        self.inner().moved()
    }
}

/// The way to a store from afar: every answer takes its time.
pub(super) struct Far {
    inner: Memory,
    delay: Duration,
    /// The same for what is read.
    reading: Duration,
    /// How often an append came too late.
    pub(super) overtaken: AtomicU64,
}

impl Far {
    pub(super) fn new(memory: &Memory, delay: Duration, reading: Duration) -> Self {
        Self { inner: memory.clone(), delay, reading, overtaken: AtomicU64::new(0) }
    }

    fn count(&self, error: &JournalError) {
        if *error == JournalError::Conflict {
            self.overtaken.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[async_trait]
impl Journal for Far {
    async fn append(
        &self,
        after: &Head,
        entries: &[StoredEntry],
    ) -> Result<Recorded<Head>, JournalError> {
        tokio::time::sleep(self.delay).await;
        self.inner.append(after, entries).await.inspect_err(|error| self.count(error))
    }

    async fn append_in_turn(
        &self,
        after: &Head,
        entries: &[StoredEntry],
    ) -> Result<Recorded<Head>, JournalError> {
        tokio::time::sleep(self.delay).await;
        self.inner.append_in_turn(after, entries).await.inspect_err(|error| self.count(error))
    }

    async fn turn(&self) -> Result<bool, JournalError> {
        self.inner.turn().await
    }

    async fn pass_turn(&self) -> Result<(), JournalError> {
        self.inner.pass_turn().await
    }

    async fn read(
        &self,
        after: &Head,
        limit: usize,
    ) -> Result<Vec<Recorded<StoredEntry>>, JournalError> {
        if !self.reading.is_zero() {
            tokio::time::sleep(self.reading).await;
        }
        self.inner.read(after, limit).await
    }

    async fn head_at(&self, seq: Seq) -> Result<Option<Recorded<Head>>, JournalError> {
        self.inner.head_at(seq).await
    }

    async fn confirm(&self) -> Result<Recorded<Head>, JournalError> {
        tokio::time::sleep(self.delay).await;
        self.inner.confirm().await
    }

    fn moved(&self) -> watch::Receiver<()> {
        self.inner.moved()
    }
}
