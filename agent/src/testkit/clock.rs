//! A clock that is moved by hand.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dayfly_verifier::time::{Clock, SystemClock, Timestamp};

/// A clock that stands still until it is moved; time of day and uptime move together.
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

    /// Moves it to this time, if that is not past.
    pub fn forward_to(&self, time: Timestamp) {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        *moved = time.since(self.began).max(*moved);
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
