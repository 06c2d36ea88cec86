//! Keeps a log readable under a flood: of each kind the first few of an interval are told in full,
//! and of the rest their number. Nothing is left uncounted.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How many of a kind are told in full within an interval.
const IN_FULL: u64 = 5;
/// How long an interval is.
const INTERVAL: Duration = Duration::from_secs(10);

/// Counts what happens, by kind. Kinds are words of the program, so there are few of them.
#[derive(Default)]
pub struct Throttle {
    kinds: Mutex<BTreeMap<&'static str, Window>>,
}

/// An interval that began with the first of its kind.
struct Window {
    since: Duration,
    count: u64,
}

/// What is to be told when something happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Whether it is told in full.
    pub in_full: bool,
    /// Of each kind whose interval is over: how many were not told in full.
    pub held_back: Vec<(&'static str, u64)>,
}

impl Throttle {
    /// Something of `kind` happened at `uptime`, by [`crate::time::Clock::uptime`]. What was held
    /// back is told when anything happens after the interval.
    pub fn hear(&self, kind: &'static str, uptime: Duration) -> Told {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |window: &Window| uptime >= window.since.saturating_add(INTERVAL);
        let ended = kinds.extract_if(.., |_, window| over(window));
        let counted = ended.map(|(kind, window)| (kind, window.count.saturating_sub(IN_FULL)));
        let held_back = counted.filter(|(_, count)| *count > 0).collect();
        let window = kinds.entry(kind).or_insert(Window { since: uptime, count: 0 });
        window.count = window.count.saturating_add(1);
        Told { in_full: window.count <= IN_FULL, held_back }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Duration {
        Duration::from_secs(1_000_u64.saturating_add(secs))
    }

    #[test]
    fn a_flood_is_told_by_its_number_and_every_kind_by_itself() {
        let throttle = Throttle::default();
        let in_full = (0..1_000).filter(|_| throttle.hear("expired", at(0)).in_full).count();
        assert_eq!(in_full, 5);
        let other = throttle.hear("stale", at(9));
        assert_eq!(other, Told { in_full: true, held_back: vec![] }, "another kind is loud");
        assert!(!throttle.hear("expired", at(9)).in_full);
        let next = throttle.hear("stale", at(10));
        assert_eq!(next, Told { in_full: true, held_back: vec![("expired", 996)] });
        let again = throttle.hear("expired", at(10));
        assert_eq!(again, Told { in_full: true, held_back: vec![] }, "told once");
        assert_eq!(throttle.hear("expired", at(30)).held_back, vec![], "nothing was held back");
    }
}
