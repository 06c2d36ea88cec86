//! How long a gateway waits for a broker before it asks another one.

use std::time::Duration;

use tokio::time::Instant;

/// Within what time a broker tells everything. Nobody holds a gateway up by dripping it.
const WHOLE: Duration = Duration::from_secs(60);

/// Until when something must be heard of a broker.
pub(super) struct Patience {
    silence: Duration,
    pub(super) due: Instant,
    /// Until when it must have told everything, where it is telling that.
    whole_by: Instant,
}

impl Patience {
    pub(super) fn new(min_staleness: Duration, now: Instant) -> Self {
        // Three of the five heartbeats that a bound has; the rest is for another broker.
        let silence = min_staleness.mul_f32(0.6);
        Self { silence, due: after(now, silence), whole_by: after(now, WHOLE) }
    }

    /// A message came. It refreshed what is held, or everything was held before it came.
    pub(super) fn heard(&mut self, refreshed: bool, whole: bool, now: Instant) {
        if whole {
            self.whole_by = after(now, WHOLE);
        }
        // Once everything is held, messages alone do not count as being heard.
        if refreshed || !whole {
            self.due = after(now, self.silence).min(self.whole_by);
        }
    }
}

/// The moment that comes so long after `now`.
fn after(now: Instant, span: Duration) -> Instant {
    now.checked_add(span).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_drips_everything_is_left_after_a_minute() {
        let start = Instant::now();
        let at = |ms: u64| after(start, Duration::from_millis(ms));
        let mut patience = Patience::new(Duration::from_secs(5), start);
        assert_eq!(patience.due, at(3_000));
        for ms in (0..=120_000).step_by(500) {
            patience.heard(ms % 1_000 == 0, false, at(ms));
            assert_eq!(patience.due, at((ms + 3_000).min(60_000)), "heard at {ms}");
        }
        // Who holds everything follows for ever; and may be told everything anew.
        patience.heard(true, true, at(200_000));
        assert_eq!(patience.due, at(203_000));
        patience.heard(false, true, at(201_000));
        assert_eq!(patience.due, at(203_000), "nothing fresh");
        patience.heard(false, false, at(202_000));
        assert_eq!(patience.due, at(205_000));
        patience.heard(false, false, at(260_000));
        assert_eq!(patience.due, at(261_000));
    }
}
