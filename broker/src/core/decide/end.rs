//! Ends that the holder brings about. They only take away, so nothing is asked here of the bundle:
//! a workload that it lists no more holds nothing by then, and is refused at the door.

use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::RequestId;

use super::{Asked, Decided};
use crate::core::case::{Case, Standing};
use crate::core::denial::Denial;
use crate::core::event::{Actor, End, Event, TaskOutcome};

pub(super) fn complete(
    asked: &Asked<'_>,
    request: &RequestId,
    key: &HolderKey,
    outcome: TaskOutcome,
) -> Decided {
    let case = held(asked, request, key)?;
    let standing = case.standing(asked.now);
    if standing == Standing::Completed(outcome) {
        return done(asked, None);
    }
    match standing.end() {
        Some(end) => Err(end),
        None if standing == Standing::Pending => Err(Denial::NotYetApproved),
        None => done(asked, Some((case, End::Completed(outcome)))),
    }
}

pub(super) fn cancel(asked: &Asked<'_>, request: &RequestId, key: &HolderKey) -> Decided {
    let case = held(asked, request, key)?;
    let standing = case.standing(asked.now);
    if standing == Standing::Cancelled {
        return done(asked, None);
    }
    match standing.end() {
        Some(end) => Err(end),
        None => done(asked, Some((case, End::Cancelled))),
    }
}

/// The caller's own request, if `key` is the one that proves every step of it.
fn held<'a>(asked: &Asked<'a>, request: &RequestId, key: &HolderKey) -> Result<&'a Case, Denial> {
    let case = asked.state.own(asked.caller, request).ok_or(Denial::NotFound)?;
    if case.request.holder_key == *key { Ok(case) } else { Err(Denial::HolderMismatch) }
}

fn done(asked: &Asked<'_>, end: Option<(&Case, End)>) -> Decided {
    let event = end.map(|(case, end)| Event::Ended { grant: case.grant_id(), end });
    Ok((Actor::Workload(asked.caller.clone()), event.into_iter().collect()))
}
