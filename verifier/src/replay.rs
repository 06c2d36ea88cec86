//! Remembers the proofs that were accepted, so that none is accepted twice.
//!
//! Never forgets a proof that could still be accepted, and never grows without bound: when it is
//! full it refuses. What it knows is lost with the process, so that for the first minute, and
//! after the clock was set back, a nonce of this process must stand in the proof.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::holder::HolderKey;
use crate::proof::{Jti, PROOF_WINDOW};
use crate::time::Timestamp;

/// How long a proof is remembered by the clock that never goes back: it may have been made 30 s
/// ahead, and is accepted until 30 s after it was made.
const MEMORY: Duration = Duration::from_secs(2 * PROOF_WINDOW.as_secs() + 1);
/// A clock that goes back by more than this makes old proofs acceptable again.
const CLOCK_SLACK: Duration = Duration::from_secs(1);
/// The number of parts that the guard is split into, each with a lock of its own.
const SHARDS: usize = 64;

/// How much the guard may remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayLimits {
    /// The most proofs of one holder within a minute.
    pub per_holder: usize,
    /// The most proofs of all holders within a minute.
    pub total: usize,
}

impl Default for ReplayLimits {
    fn default() -> Self {
        Self { per_holder: 16_384, total: 1 << 20 }
    }
}

/// Why a proof was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotAdmitted {
    /// It was accepted before.
    #[error("the proof was used before")]
    Replayed,
    /// The holder, or everybody, used as many proofs as the guard can remember.
    #[error("too many proofs within a minute")]
    Full,
}

/// The proofs accepted of late, by holder key and `jti`.
pub struct ReplayGuard {
    shards: Vec<Mutex<Shard>>,
    limits: ReplayLimits,
    /// The latest time of day that was seen, in milliseconds.
    latest_ms: AtomicU64,
    /// The uptime since which the memory is complete, in milliseconds.
    since_ms: AtomicU64,
}

#[derive(Default)]
struct Shard {
    seen: HashSet<(HolderKey, Jti)>,
    per_holder: HashMap<HolderKey, usize>,
    /// In the order in which they are forgotten.
    order: VecDeque<(Duration, HolderKey, Jti)>,
}

impl ReplayGuard {
    /// An empty guard, started at `uptime`, when the time of day was `now`.
    #[must_use]
    pub fn new(limits: ReplayLimits, now: Timestamp, uptime: Duration) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        let (latest_ms, since_ms) = (now.as_ms().into(), ms(uptime).into());
        Self { shards, limits, latest_ms, since_ms }
    }

    /// The uptime after which a nonce must have been given out, for as long as the memory does not
    /// reach back over every proof that the time of day would let pass; `None` once it does.
    pub fn nonce_since(&self, now: Timestamp, uptime: Duration) -> Option<Duration> {
        let latest_ms = self.latest_ms.fetch_max(now.as_ms(), Ordering::AcqRel);
        if now.plus(CLOCK_SLACK).as_ms() < latest_ms {
            self.since_ms.store(ms(uptime), Ordering::Release);
            self.latest_ms.store(now.as_ms(), Ordering::Release);
        }
        let since = Duration::from_millis(self.since_ms.load(Ordering::Acquire));
        (uptime.saturating_sub(since) <= MEMORY).then_some(since)
    }

    /// Admits the proof `jti` of `key`, once: looks and remembers in one step.
    pub fn admit(&self, key: &HolderKey, jti: Jti, uptime: Duration) -> Result<(), NotAdmitted> {
        let bytes = key.as_bytes();
        let at = bytes.iter().fold(0usize, |sum, byte| sum.wrapping_add(usize::from(*byte)));
        let Some(shard) = self.shards.get(at & (SHARDS - 1)) else { return Err(NotAdmitted::Full) };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        shard.forget(uptime);
        if shard.seen.contains(&(*key, jti)) {
            return Err(NotAdmitted::Replayed);
        }
        let full = shard.order.len() >= self.limits.total / SHARDS;
        let count = shard.per_holder.entry(*key).or_default();
        if *count >= self.limits.per_holder || full {
            return Err(NotAdmitted::Full);
        }
        *count = count.saturating_add(1);
        shard.seen.insert((*key, jti));
        shard.order.push_back((uptime.saturating_add(MEMORY), *key, jti));
        Ok(())
    }
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Shard {
    fn forget(&mut self, uptime: Duration) {
        while let Some((_, key, jti)) = self.order.pop_front_if(|(until, ..)| *until < uptime) {
            self.seen.remove(&(key, jti));
            if let Some(count) = self.per_holder.get_mut(&key) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.per_holder.remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> HolderKey {
        let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
        HolderKey::from_slice(key.verifying_key().as_bytes()).unwrap()
    }

    fn jti(n: u32) -> Jti {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        Jti(bytes)
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs).unwrap()
    }

    fn guard(per_holder: usize, total: usize) -> ReplayGuard {
        ReplayGuard::new(ReplayLimits { per_holder, total }, at(1000), secs(0))
    }

    #[test]
    fn a02_a_proof_is_admitted_once_by_each_key() {
        let guard = guard(10, 1000);
        assert_eq!(guard.admit(&key(1), jti(1), secs(0)), Ok(()));
        assert_eq!(guard.admit(&key(1), jti(1), secs(61)), Err(NotAdmitted::Replayed));
        assert_eq!(guard.admit(&key(2), jti(1), secs(61)), Ok(()));
        assert_eq!(guard.admit(&key(1), jti(1), secs(62)), Ok(()), "out of every window by now");
    }

    #[test]
    fn a02_only_one_of_many_threads_is_admitted() {
        let guard = guard(10, 1000);
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| guard.admit(&key(1), jti(7), secs(1)).is_ok()))
                .collect();
            threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
        });
        assert_eq!(admitted, 1);
    }

    #[test]
    fn full_refuses_and_one_holder_cannot_fill_it_for_another() {
        let guard = guard(3, 64 * 5);
        for n in 0..3 {
            assert_eq!(guard.admit(&key(1), jti(n), secs(0)), Ok(()));
        }
        assert_eq!(guard.admit(&key(1), jti(3), secs(0)), Err(NotAdmitted::Full));
        assert_eq!(guard.admit(&key(2), jti(3), secs(0)), Ok(()));
        assert_eq!(guard.admit(&key(1), jti(3), secs(62)), Ok(()), "room after they are forgotten");
        let guard = self::guard(100, 64 * 2);
        for n in 0..2 {
            assert_eq!(guard.admit(&key(1), jti(n), secs(0)), Ok(()));
        }
        assert_eq!(guard.admit(&key(1), jti(9), secs(0)), Err(NotAdmitted::Full));
    }

    #[test]
    fn a_nonce_is_demanded_after_start_and_after_the_clock_went_back() {
        let guard = guard(10, 1000);
        assert_eq!(guard.nonce_since(at(1000), secs(0)), Some(secs(0)));
        assert_eq!(guard.nonce_since(at(1061), secs(61)), Some(secs(0)));
        assert_eq!(guard.nonce_since(at(1062), secs(62)), None);
        assert_eq!(guard.nonce_since(at(1061), secs(63)), None, "a second is slack");
        assert_eq!(guard.nonce_since(at(1000), secs(64)), Some(secs(64)), "an hour set back");
        assert_eq!(guard.nonce_since(at(1062), secs(126)), None);
    }
}
