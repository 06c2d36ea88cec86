//! Locks: set, put off their end, lifted.

use dayfly_verifier::id::{LockId, TextDigest};
use dayfly_verifier::revocations::Lock;
use dayfly_verifier::time::Timestamp;

use super::{Asked, Decided, invalid};
use crate::core::denial::{Denial, Limited};
use crate::core::event::Event;
use crate::core::limits::{MAX_LOCK_LIFE, MAX_LOCKS, MAX_LOCKS_REMEMBERED};

/// Sets a lock. The same one again with a later end puts its end off; an end never comes nearer,
/// so that no gateway that hears less than another forgets a lock later than it.
pub(super) fn lock(
    asked: &Asked<'_>,
    lock: &Lock,
    until: Timestamp,
    reason: Option<TextDigest>,
) -> Decided {
    let actor = asked.operator()?;
    let (state, now) = (asked.state, asked.now);
    if let Some(lifted) = state.lifted_lock(&lock.id, now) {
        let same = lifted.lock == *lock && lifted.until == until;
        return if same { Ok((actor, Vec::new())) } else { Err(Denial::IdReused) };
    }
    let known = state.lock(&lock.id, now);
    if let Some(set) = known {
        if set.lock != *lock {
            return Err(Denial::IdReused);
        }
        if set.until == until {
            return Ok((actor, Vec::new()));
        }
        if until < set.until {
            return Err(invalid("until", "must not come nearer; unlock, and lock anew"));
        }
    }
    if until <= now || until > now.plus(MAX_LOCK_LIFE) {
        return Err(invalid("until", "must lie ahead, by 30 days at most"));
    }
    let full = state.locks(now).count() >= MAX_LOCKS;
    if known.is_none() && (full || state.locks_remembered(now) >= MAX_LOCKS_REMEMBERED) {
        return Err(Denial::LimitReached(Limited::Locks));
    }
    Ok((actor, vec![Event::Locked { lock: lock.clone(), until, reason }]))
}

/// Lifts a lock. Whoever is locked themselves lifts none.
pub(super) fn unlock(asked: &Asked<'_>, id: &LockId) -> Decided {
    let actor = asked.operator()?;
    if asked.state.lifted_lock(id, asked.now).is_some() {
        return Ok((actor, Vec::new()));
    }
    asked.state.lock(id, asked.now).ok_or(Denial::NotFound)?;
    asked.unlocked_person()?;
    Ok((actor, vec![Event::Unlocked { lock: *id }]))
}
