//! What operators do besides bundles, take back and retire keys, and what the broker does for
//! itself: list keys, and say that a snapshot is kept.

use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::{GrantId, KeyId, TextDigest};
use dayfly_verifier::time::Timestamp;

use super::{Asked, Decided, invalid};
use crate::core::denial::Denial;
use crate::core::event::{Actor, Event, Snapshot, Target};

pub(super) fn revoke(asked: &Asked<'_>, target: &Target, reason: Option<TextDigest>) -> Decided {
    let actor = asked.operator()?;
    let state = asked.state;
    let is_over = |grant: &GrantId| {
        let case = state.case(grant).ok_or(Denial::NotFound)?;
        Ok(case.standing(asked.now).end().is_some())
    };
    let needless = match target {
        Target::Grant(grant) | Target::Delegate(grant, _) => is_over(grant)?,
        Target::Token(token) => {
            let (case, token) = state.token(token).ok_or(Denial::NotFound)?;
            is_over(&case.grant_id())? || !state.is_good(token, asked.now)
        }
        Target::Key(key) if !state.keys.contains_key(key) => return Err(Denial::NotFound),
        Target::Key(_)
        | Target::Block(_)
        | Target::Workload(_)
        | Target::Task(_)
        | Target::Prefix(_) => false,
    };
    let event = Event::Revoked { target: target.clone(), reason };
    Ok((actor, Some(event).filter(|_| !needless).into_iter().collect()))
}

pub(super) fn add_key(
    asked: &Asked<'_>,
    key: KeyId,
    public: HolderKey,
    not_after: Timestamp,
) -> Decided {
    if !asked.caller.is_broker() {
        return Err(Denial::NotAllowed);
    }
    let actor = Actor::Broker(asked.caller.clone());
    if let Some(listed) = asked.state.keys.get(&key) {
        let same = listed.public == public && listed.not_after == not_after;
        return if same { Ok((actor, Vec::new())) } else { Err(Denial::IdReused) };
    }
    if not_after <= asked.now {
        return Err(invalid("not_after", "must lie ahead"));
    }
    Ok((actor, vec![Event::KeyAdded { key, public, not_after }]))
}

/// The last key that signs is not retired: to have none is not what rotating is for, and to end
/// what a stolen key signs is to revoke it.
pub(super) fn retire_key(asked: &Asked<'_>, key: KeyId) -> Decided {
    let actor = asked.operator()?;
    let listed = asked.state.keys.get(&key).ok_or(Denial::NotFound)?;
    if !listed.signs(asked.now) {
        return Ok((actor, Vec::new()));
    }
    let mut others = asked.state.keys.iter().filter(|(other, _)| **other != key);
    if !others.any(|(_, other)| other.used && other.signs(asked.now)) {
        return Err(invalid("key", "must not be the only one in use; rotate first"));
    }
    Ok((actor, vec![Event::KeyRetired { key }]))
}

/// Where another broker has put down a later one, there is nothing to put down.
pub(super) fn snapshot(asked: &Asked<'_>, taken: Snapshot) -> Decided {
    if !asked.caller.is_broker() {
        return Err(Denial::NotAllowed);
    }
    let (state, of) = (asked.state, taken.of);
    if of.epoch != state.head.epoch || of.seq > state.head.seq {
        return Err(invalid("of", "must be an end that this log had"));
    }
    let later = of.seq > state.snapshot;
    let event = later.then_some(Event::SnapshotTaken(taken));
    Ok((Actor::Broker(asked.caller.clone()), event.into_iter().collect()))
}
