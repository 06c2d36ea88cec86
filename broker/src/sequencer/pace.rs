//! The time to decide by. A clock that was set must not get into the log, where a time once written
//! holds for all that comes: it is held against the time that this host has counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dayfly_verifier::time::{Clock, Timestamp};

/// How far a clock may be off.
pub(super) const SKEW: Duration = Duration::from_secs(2);
/// For how long a clock that was set must go on evenly until it is believed again.
const SETTLED: Duration = Duration::from_secs(60);

/// The clock of this broker, as far as it is believed.
pub(super) struct Pace {
    clock: Arc<dyn Clock>,
    believed: Reading,
    /// What it showed when it was found to be off.
    set: Option<Reading>,
    /// Whether it was off when it was read last.
    off: Arc<AtomicBool>,
}

/// What the clock showed, and when that was by the time that the host counts.
#[derive(Clone, Copy)]
struct Reading {
    now: Timestamp,
    uptime: Duration,
}

impl Reading {
    fn of(clock: &dyn Clock) -> Self {
        Self { now: clock.now(), uptime: clock.uptime() }
    }

    /// What a clock that showed this shows at `uptime`.
    fn at(&self, uptime: Duration) -> Timestamp {
        self.now.plus(uptime.saturating_sub(self.uptime))
    }

    fn leads_to(&self, later: &Self) -> bool {
        let due = self.at(later.uptime);
        due.since(later.now).max(later.now.since(due)) <= SKEW
    }
}

impl Pace {
    /// Believes `clock` as it is.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let believed = Reading::of(&*clock);
        Self { clock, believed, set: None, off: Arc::default() }
    }

    /// Whether the clock was off when it was read last, for those who do not read it.
    pub(super) fn off(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.off)
    }

    /// The time, and whether the clock is off: then it is the time that the host has counted.
    pub(super) fn read(&mut self) -> (Timestamp, bool) {
        let (now, off) = self.judge();
        self.off.store(off, Ordering::SeqCst);
        (now, off)
    }

    fn judge(&mut self) -> (Timestamp, bool) {
        let here = Reading::of(&*self.clock);
        if self.believed.leads_to(&here) {
            self.set = None;
            return (here.now, false);
        }
        match self.set.filter(|set| set.leads_to(&here)) {
            None => {
                let due = self.believed.at(here.uptime);
                tracing::error!(clock = %here.now, %due, "the clock was set: nothing is given now");
                self.set = Some(here);
            }
            Some(set) if here.uptime.saturating_sub(set.uptime) < SETTLED => {}
            Some(_) => {
                tracing::warn!(clock = %here.now, "the clock goes evenly again: it is believed");
                (self.believed, self.set) = (here, None);
                return (here.now, false);
            }
        }
        (self.believed.at(here.uptime), true)
    }
}
