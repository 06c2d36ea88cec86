//! A gateway instance that opts out of refusing when it hears nothing: on record before it is told
//! anything.

use dayfly_verifier::id::InstanceId;

use super::{Asked, Decided};
use crate::core::denial::{Denial, Limited};
use crate::core::event::{Actor, Event};
use crate::core::unbounded::{MAX_UNBOUNDED, RECENT};

pub(super) fn opt_out(asked: &Asked<'_>, instance: &InstanceId) -> Decided {
    if !asked.state.directory.gateways.contains(asked.caller) {
        return Err(Denial::NotAllowed);
    }
    let actor = Actor::Gateway(asked.caller.clone());
    let own = || asked.state.unbounded(asked.now).filter(|(of, ..)| *of == asked.caller);
    let known = own().find(|(_, known, _)| *known == instance).map(|(.., at)| at);
    match known {
        Some(at) if asked.now.since(at) < RECENT => Ok((actor, Vec::new())),
        None if own().count() >= MAX_UNBOUNDED => Err(Denial::LimitReached(Limited::Unbounded)),
        Some(_) | None => Ok((actor, vec![Event::OptedOut { instance: instance.clone() }])),
    }
}
