//! A clock that is moved by hand, and randomness from a seed.

use std::sync::{Mutex, PoisonError};

pub use dayfly_agent::testkit::ByHand;
use dayfly_broker::random::Random;
use sha2::{Digest as _, Sha256};

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
