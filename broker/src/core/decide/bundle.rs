//! Putting a policy bundle into force, with all that follows for what is open: nothing stays
//! granted that it would not grant.

use std::sync::Arc;

use dayfly_verifier::request::Request;

use super::exchange::holdable;
use super::{Asked, Decided, current, grounds};
use crate::core::case::{Case, Stage};
use crate::core::command::Application;
use crate::core::denial::Denial;
use crate::core::directory::{Directory, Role};
use crate::core::event::{End, Event};
use crate::core::quorum;
use crate::core::verdict::{Basis, Outcome, Refusal};

pub(super) fn apply(asked: &Asked<'_>, application: &Application) -> Decided {
    let actor = asked.operator()?;
    let Application { bundle, directory, signers, replaces, verdicts } = application;
    if asked.state.bundle == Some(*bundle) {
        return Ok((actor, Vec::new()));
    }
    directory.operable().map_err(Denial::Invalid)?;
    let admins = asked.state.directory.people.iter().filter(|(name, person)| {
        person.roles.contains(&Role::PolicyAdmin)
            && !person.keys.is_disjoint(signers)
            && asked.state.lock_naming(name, asked.now).is_none()
    });
    let signed = u32::try_from(admins.count()).unwrap_or(u32::MAX);
    if signed < asked.state.directory.bundle_signatures {
        return Err(Denial::UnsignedBundle);
    }
    asked.unlocked_person()?;
    if *replaces != asked.state.bundle {
        return Err(Denial::Reevaluate);
    }
    let applied = Event::BundleApplied {
        bundle: *bundle,
        directory: directory.clone(),
        signers: signers.clone(),
    };
    let mut events = vec![applied];
    for case in asked.state.open(asked.now) {
        let verdict = verdicts.get(&case.grant_id()).ok_or(Denial::Reevaluate)?;
        let basis = asked.basis_of(case).map(|basis| Basis { bundle: *bundle, ..basis });
        current(verdict, basis)?;
        events.extend(reconsider(asked, directory, case, &verdict.outcome));
    }
    Ok((actor, events))
}

/// What becomes of an open case when `directory` and the outcome of policy are another.
pub(super) fn reconsider(
    asked: &Asked<'_>,
    directory: &Directory,
    case: &Case,
    outcome: &Outcome,
) -> Vec<Event> {
    let grant = case.grant_id();
    let drifted = |refusal: Refusal| vec![Event::Ended { grant, end: End::Drifted(refusal) }];
    if let Stage::Granted(granted) = &case.stage {
        return grounds::drift(directory, case, granted, outcome).map_or_else(Vec::new, drifted);
    }
    let required = match (grounds::missing(directory, &case.request), outcome) {
        (Some(refusal), _) => return drifted(refusal),
        (None, Outcome::Refused(refusal)) => return drifted(refusal.clone()),
        (None, Outcome::Permitted(required)) => required,
    };
    let (mut case, mut events) = (case.clone(), Vec::new());
    if required != case.requirement() {
        let requirement = required.clone();
        events.push(Event::RequirementChanged { grant, requirement: requirement.clone() });
        case.request = Arc::new(Request { requirement, ..Request::clone(&case.request) });
        case.approvals.clear();
    }
    if let Some(refusal) = grounds::unfillable(directory, &case) {
        return drifted(refusal);
    }
    let void = case.approvals.values().filter(|one| !quorum::counts(directory, &case, one));
    events.extend(void.map(|one| Event::DecisionWithdrawn { grant, person: one.person.clone() }));
    events.extend(grant_now(asked, directory, &case));
    events
}

/// The grant, where what policy demands is met by now: it may have come to demand nobody.
fn grant_now(asked: &Asked<'_>, directory: &Directory, case: &Case) -> Option<Event> {
    let held = asked.state.tally(&case.request.workload, asked.now);
    // All that are pending may be granted at once.
    let room = held.live.saturating_add(held.pending) <= asked.state.limits.live_grants;
    let people = asked.free_approvals(directory, case).map(|one| &one.person);
    let met = quorum::met(case.requirement(), directory, people);
    let approvals = grounds::approvals(directory, case);
    let terms = quorum::terms(&case.request, approvals, asked.now).ok()?;
    holdable(&case.request, &terms.scope).ok()?;
    let locked = asked.state.lock_on(&case.request, &terms.scope, asked.now).is_some();
    (room && met && !locked).then(|| Event::Granted { grant: case.grant_id(), terms })
}
