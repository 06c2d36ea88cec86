//! Remembers the proofs that were accepted, so that none is accepted twice.
//!
//! Never forgets a proof that could still be accepted, and never grows without bound: when it is
//! full it refuses. A holder and all to whom it handed a token on share one allowance, so that
//! nobody makes room for itself by delegating, nor fills the memory for others. What it knows is
//! lost with the process, so that for the first minute, and after the clock was set back, a nonce
//! of this process must stand in the proof.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::holder::HolderKey;
use crate::proof::{Jti, PROOF_WINDOW};
use crate::time::Timestamp;

/// How long a proof is remembered by the clock that never goes back: it may have been made 30 s
/// ahead, and is accepted until 30 s after it was made.
const MEMORY: Duration = Duration::from_secs(2 * PROOF_WINDOW.as_secs() + 1);
/// A clock that goes back by more than this, in one step or in several, makes old proofs acceptable
/// again.
const CLOCK_SLACK: Duration = Duration::from_secs(1);
/// The number of parts that the guard is split into, each with a lock of its own.
const SHARDS: usize = 64;

/// How much the guard may remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayLimits {
    /// The most proofs of one first holder and its delegates within a minute: well below `total`.
    pub per_holder: usize,
    /// The most proofs of all holders within a minute.
    pub total: usize,
}

impl Default for ReplayLimits {
    fn default() -> Self {
        Self { per_holder: 4096, total: 1 << 20 }
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

/// The proofs accepted of late, by the key of the proof and `jti`.
///
/// A proof names its token, and a token has one first holder: the same proof always comes to the
/// same shard.
pub struct ReplayGuard {
    shards: Vec<Mutex<Shard>>,
    limits: ReplayLimits,
    /// How many are remembered in all.
    held: AtomicUsize,
    /// How far the time of day was ahead of uptime at most, in milliseconds: only where the clock
    /// is set does that change.
    ahead_ms: AtomicI64,
    /// The uptime since which the memory is complete, in milliseconds.
    since_ms: AtomicU64,
}

#[derive(Default)]
struct Shard {
    seen: HashSet<(KeyBytes, Jti)>,
    /// How many each first holder and its delegates have here.
    per_holder: HashMap<KeyBytes, usize>,
    /// In the order in which they are forgotten.
    order: VecDeque<Remembered>,
}

/// A key as it is remembered: its bytes, without the point that they stand for.
type KeyBytes = [u8; 32];

struct Remembered {
    until: Duration,
    first: KeyBytes,
    proof: (KeyBytes, Jti),
}

impl ReplayGuard {
    /// An empty guard, started at `uptime`, when the time of day was `now`.
    #[must_use]
    pub fn new(limits: ReplayLimits, now: Timestamp, uptime: Duration) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        let (ahead_ms, since_ms) = (ahead_ms(now, uptime).into(), ms(uptime).into());
        Self { shards, limits, held: AtomicUsize::new(0), ahead_ms, since_ms }
    }

    /// The uptime after which a nonce must have been given out, for as long as the memory does not
    /// reach back over every proof that the time of day would let pass; `None` once it does.
    pub fn nonce_since(&self, now: Timestamp, uptime: Duration) -> Option<Duration> {
        // Every use reads this: only who sees the clock further ahead writes it.
        let is_ms = ahead_ms(now, uptime);
        let mut most_ms = self.ahead_ms.load(Ordering::Acquire);
        if most_ms < is_ms {
            most_ms = self.ahead_ms.fetch_max(is_ms, Ordering::AcqRel);
        }
        if is_ms.saturating_add_unsigned(ms(CLOCK_SLACK)) < most_ms {
            self.since_ms.store(ms(uptime), Ordering::Release);
            self.ahead_ms.store(is_ms, Ordering::Release);
        }
        let since = Duration::from_millis(self.since_ms.load(Ordering::Acquire));
        (uptime.saturating_sub(since) <= MEMORY).then_some(since)
    }

    /// Admits the proof `jti` by `key`, once: looks and remembers in one step. `first` is the
    /// holder that the token was issued to, whose allowance it takes from.
    pub fn admit(
        &self,
        first: &HolderKey,
        key: &HolderKey,
        jti: Jti,
        uptime: Duration,
    ) -> Result<(), NotAdmitted> {
        if self.held.load(Ordering::Acquire) >= self.limits.total {
            self.shards.iter().for_each(|shard| drop(self.open(shard, uptime)));
        }
        let first = *first.as_bytes();
        let shard = self.shards.get(place(&first)).ok_or(NotAdmitted::Full)?;
        let mut shard = self.open(shard, uptime);
        let proof = (*key.as_bytes(), jti);
        if shard.seen.contains(&proof) {
            return Err(NotAdmitted::Replayed);
        }
        let count = shard.per_holder.get(&first).copied().unwrap_or_default();
        if count >= self.limits.per_holder {
            return Err(NotAdmitted::Full);
        }
        let more = |held: usize| (held < self.limits.total).then(|| held.saturating_add(1));
        let taken = self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        taken.map_err(|_| NotAdmitted::Full)?;
        shard.per_holder.insert(first, count.saturating_add(1));
        shard.seen.insert(proof);
        let until = uptime.saturating_add(MEMORY);
        shard.order.push_back(Remembered { until, first, proof });
        Ok(())
    }

    /// A shard without what is forgotten by now. No thread ever holds two.
    fn open<'a>(&self, shard: &'a Mutex<Shard>, uptime: Duration) -> MutexGuard<'a, Shard> {
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let forgotten = shard.forget(uptime);
        if forgotten > 0 {
            self.held.fetch_sub(forgotten, Ordering::AcqRel);
        }
        shard
    }
}

/// The shard of a first holder.
fn place(first: &KeyBytes) -> usize {
    first.iter().fold(0usize, |sum, byte| sum.wrapping_add(usize::from(*byte))) & (SHARDS - 1)
}

/// How far the time of day is ahead of uptime.
fn ahead_ms(now: Timestamp, uptime: Duration) -> i64 {
    i64::try_from(now.as_ms()).unwrap_or(i64::MAX).saturating_sub_unsigned(ms(uptime))
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Shard {
    /// Forgets what no clock would let pass any more, and says how much that was.
    fn forget(&mut self, uptime: Duration) -> usize {
        let mut forgotten = 0usize;
        while let Some(old) = self.order.pop_front_if(|old| old.until < uptime) {
            forgotten = forgotten.saturating_add(1);
            self.seen.remove(&old.proof);
            if let Some(count) = self.per_holder.get_mut(&old.first) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.per_holder.remove(&old.first);
                }
            }
        }
        forgotten
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
        assert_eq!(guard.admit(&key(1), &key(1), jti(1), secs(0)), Ok(()));
        assert_eq!(guard.admit(&key(1), &key(1), jti(1), secs(61)), Err(NotAdmitted::Replayed));
        assert_eq!(guard.admit(&key(2), &key(2), jti(1), secs(61)), Ok(()));
        assert_eq!(
            guard.admit(&key(1), &key(1), jti(1), secs(62)),
            Ok(()),
            "out of every window by now"
        );
    }

    #[test]
    fn a02_only_one_of_many_threads_is_admitted() {
        let guard = guard(10, 1000);
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| guard.admit(&key(1), &key(1), jti(7), secs(1)).is_ok()))
                .collect();
            threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
        });
        assert_eq!(admitted, 1);
    }

    #[test]
    fn full_refuses_and_one_holder_cannot_fill_it_for_another() {
        let guard = guard(3, 64 * 5);
        for n in 0..3 {
            assert_eq!(guard.admit(&key(1), &key(1), jti(n), secs(0)), Ok(()));
        }
        assert_eq!(guard.admit(&key(1), &key(1), jti(3), secs(0)), Err(NotAdmitted::Full));
        assert_eq!(guard.admit(&key(2), &key(2), jti(3), secs(0)), Ok(()));
        assert_eq!(
            guard.admit(&key(1), &key(1), jti(3), secs(62)),
            Ok(()),
            "room after they are forgotten"
        );
    }

    #[test]
    fn delegates_share_the_allowance_of_the_first_holder() {
        let first = key(1);
        let here = place(first.as_bytes());
        let beside = (2..=255).map(key).find(|key| place(key.as_bytes()) == here).unwrap();
        let guard = guard(4, 1000);
        for (seed, n) in [(1, 0), (2, 0), (3, 0), (3, 1)] {
            assert_eq!(guard.admit(&first, &key(seed), jti(n), secs(0)), Ok(()));
        }
        for seed in 1..=9 {
            assert_eq!(guard.admit(&first, &key(seed), jti(7), secs(0)), Err(NotAdmitted::Full));
        }
        assert_eq!(guard.admit(&first, &key(3), jti(1), secs(0)), Err(NotAdmitted::Replayed));
        assert_eq!(guard.admit(&beside, &beside, jti(7), secs(0)), Ok(()), "in the same shard");
    }

    #[test]
    fn the_total_is_one_for_all_shards_and_comes_back() {
        let guard = guard(100, 100);
        for n in 0..100 {
            assert_eq!(guard.admit(&key(1), &key(1), jti(n), secs(0)), Ok(()), "in one shard");
        }
        let other = key(2);
        assert_ne!(place(other.as_bytes()), place(key(1).as_bytes()));
        assert_eq!(guard.admit(&other, &other, jti(0), secs(61)), Err(NotAdmitted::Full));
        assert_eq!(guard.admit(&other, &other, jti(0), secs(62)), Ok(()), "wherever room is made");
        assert_eq!(guard.held.load(Ordering::Acquire), 1);
    }

    #[test]
    fn a_holder_by_default_has_a_small_part_of_the_whole() {
        let ReplayLimits { per_holder, total } = ReplayLimits::default();
        assert!(per_holder * SHARDS * 4 <= total);
    }

    #[test]
    fn a_nonce_is_demanded_after_start_and_after_the_clock_went_back() {
        let guard = guard(10, 1000);
        assert_eq!(guard.nonce_since(at(1000), secs(0)), Some(secs(0)));
        assert_eq!(guard.nonce_since(at(1061), secs(61)), Some(secs(0)));
        assert_eq!(guard.nonce_since(at(1062), secs(62)), None);
        assert_eq!(guard.nonce_since(at(1062), secs(63)), None, "a second is slack");
        assert_eq!(guard.nonce_since(at(1000), secs(64)), Some(secs(64)), "a minute set back");
        assert_eq!(guard.nonce_since(at(1062), secs(126)), None);
    }

    #[test]
    fn a02_a_clock_that_goes_back_in_small_steps_goes_back_all_the_same() {
        let guard = guard(10, 1000);
        assert_eq!(guard.nonce_since(at(1062), secs(62)), None);
        // It is back by 0.6 s more every two seconds, and never shows an earlier time than before.
        let back = |steps: u64, uptime: u64| {
            let now = at(1000 + uptime).minus(Duration::from_millis(600 * steps));
            guard.nonce_since(now, secs(uptime))
        };
        assert_eq!(back(1, 64), None);
        assert_eq!(back(2, 66), Some(secs(66)));
        assert_eq!(back(2, 127), Some(secs(66)));
        assert_eq!(back(2, 128), None);
        assert_eq!(guard.nonce_since(at(1000 + 9000), secs(9000)), None, "ahead again");
        assert_eq!(back(1, 9001), None, "by less than the slack");
    }
}
