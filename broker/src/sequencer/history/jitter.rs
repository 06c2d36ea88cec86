//! Chance from a seed, and a store whose answers come late by it.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use dayfly_verifier::id::Seq;
use tokio::sync::watch;

use crate::core::event::Head;
use crate::journal::{Journal, JournalError, Memory, Recorded, StoredEntry};

/// The same numbers for the same seed, in the order in which they are asked for.
#[derive(Clone)]
pub(super) struct Chance(Arc<Mutex<u64>>);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed | 1)))
    }

    /// A number below `end`.
    pub(super) fn below(&self, end: u64) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // xorshift64*
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }

    pub(super) fn index(&self, len: usize) -> usize {
        usize::try_from(self.below(u64::try_from(len).unwrap())).unwrap()
    }

    pub(super) fn bytes(&self) -> [u8; 10] {
        std::array::from_fn(|_| u8::try_from(self.below(256)).unwrap())
    }
}

/// Lets others go on, now and then, before and after each operation.
pub(super) struct Jitter {
    pub(super) inner: Memory,
    pub(super) chance: Chance,
}

impl Jitter {
    async fn wait(&self) {
        for _ in 0..self.chance.below(4) {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl Journal for Jitter {
    async fn append(
        &self,
        after: &Head,
        entries: &[StoredEntry],
    ) -> Result<Recorded<Head>, JournalError> {
        self.wait().await;
        let appended = self.inner.append(after, entries).await;
        self.wait().await;
        appended
    }

    async fn append_in_turn(
        &self,
        after: &Head,
        entries: &[StoredEntry],
    ) -> Result<Recorded<Head>, JournalError> {
        self.wait().await;
        let appended = self.inner.append_in_turn(after, entries).await;
        self.wait().await;
        appended
    }

    async fn turn(&self) -> Result<bool, JournalError> {
        self.wait().await;
        self.inner.turn().await
    }

    async fn pass_turn(&self) -> Result<(), JournalError> {
        self.wait().await;
        self.inner.pass_turn().await
    }

    async fn read(
        &self,
        after: &Head,
        limit: usize,
    ) -> Result<Vec<Recorded<StoredEntry>>, JournalError> {
        self.wait().await;
        let read = self.inner.read(after, limit).await;
        self.wait().await;
        read
    }

    async fn head_at(&self, seq: Seq) -> Result<Option<Recorded<Head>>, JournalError> {
        self.inner.head_at(seq).await
    }

    async fn confirm(&self) -> Result<Recorded<Head>, JournalError> {
        self.wait().await;
        let confirmed = self.inner.confirm().await;
        self.wait().await;
        confirmed
    }

    fn moved(&self) -> watch::Receiver<()> {
        self.inner.moved()
    }
}
