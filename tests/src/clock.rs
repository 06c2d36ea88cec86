//! A clock that is moved by hand, and randomness from a seed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dayfly_broker::random::Random;
use dayfly_verifier::time::{Clock, SystemClock, Timestamp};
use sha2::{Digest as _, Sha256};

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ByHand {
    began: Timestamp,
    moved: Mutex<Duration>,
}

impl ByHand {
    /// One that stands at a fixed time.
    #[must_use]
    pub fn at(began: Timestamp) -> Self {
        Self { began, moved: Mutex::default() }
    }

    /// Moves it.
    pub fn forward(&self, by: Duration) {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        *moved = moved.saturating_add(by);
    }

    fn moved(&self) -> Duration {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ByHand {
    /// One that stands at the time of day: other processes may look at what it makes.
    fn default() -> Self {
        Self::at(SystemClock.now())
    }
}

impl Clock for ByHand {
    fn now(&self) -> Timestamp {
        self.began.plus(self.moved())
    }

    fn uptime(&self) -> Duration {
        self.moved()
    }
}

/// The same bytes for the same seed, in the order in which they are asked for. Not random at all.
#[derive(Debug)]
pub struct Seeded {
    seed: u64,
    drawn: Mutex<u64>,
}

impl Seeded {
    /// Bytes from this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, drawn: Mutex::default() }
    }
}

impl Random for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in bytes.chunks_mut(32) {
            *drawn = drawn.saturating_add(1);
            let block = Sha256::new()
                .chain_update(self.seed.to_be_bytes())
                .chain_update(drawn.to_be_bytes())
                .finalize();
            chunk.iter_mut().zip(block).for_each(|(to, from)| *to = from);
        }
    }
}
