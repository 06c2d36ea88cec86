//! How long to go on while nobody answers, and how long to pause in between.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;

use crate::errors::Error;
use crate::ticket::fill;

/// The pauses between attempts: from this, doubled each time, up to that.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How long nobody has answered, and why the last attempt failed.
#[derive(Default)]
pub(super) struct Silence {
    since: Option<Instant>,
    pauses: u32,
    /// Why the last attempt failed; none where somebody answered since.
    pub(super) why: Option<Error>,
}

impl Silence {
    /// Somebody answered.
    pub(super) fn ends(&mut self) {
        self.since = None;
        self.why = None;
    }

    /// Somebody answered, and had something new to say.
    pub(super) fn is_broken(&mut self) {
        *self = Self::default();
    }

    /// Pauses before the next attempt; gives `failed` back where that would outlast `patience`.
    pub(super) async fn pause(&mut self, patience: Duration, failed: Error) -> Result<(), Error> {
        let pause = pause_after(self.pauses);
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed().saturating_add(pause) > patience {
            return Err(failed);
        }
        self.why = Some(failed);
        self.pauses = self.pauses.saturating_add(1);
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Half of the pause is by chance, so that those who lost a broker together do not come back
/// together.
fn pause_after(pauses: u32) -> Duration {
    let (first, longest) = PAUSE;
    let pause = first.saturating_mul(1 << pauses.min(10)).min(longest);
    let mut chance = [u8::MAX];
    // Without chance the pause is the full one.
    let _filled = fill(&mut chance);
    let [chance] = chance;
    let parts = u32::from(u8::MAX);
    let half = pause.checked_div(2).unwrap_or_default();
    let by_chance = half.saturating_mul(chance.into()).checked_div(parts).unwrap_or_default();
    half.saturating_add(by_chance)
}

/// Nobody answered in time.
pub(crate) fn timed_out() -> Error {
    Status::deadline_exceeded("the broker did not answer in time").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        let (first, longest) = PAUSE;
        assert!((0..99).all(|_| pause_after(0) >= first / 2 && pause_after(0) <= first));
        assert!((0..99).all(|n| pause_after(n) <= longest));
        assert!((0..99).all(|_| pause_after(u32::MAX) >= longest / 2));
        let some = pause_after(9);
        assert!((0..99).any(|_| pause_after(9) != some), "everybody comes back at once");
    }
}
