//! Decisions of people: yes, no, and taking a yes back.

use dayfly_verifier::id::{GrantId, PersonId};
use dayfly_verifier::time::Timestamp;

use super::exchange::holdable;
use super::{Asked, Decided, bundle, current, grounds, invalid};
use crate::core::case::{Case, Grant, Standing};
use crate::core::command::Foreseen;
use crate::core::denial::{Denial, Limited};
use crate::core::directory::Directory;
use crate::core::event::{Answer, Decision, Event, Terms};
use crate::core::limits::DECISION_WINDOW;
use crate::core::quorum;
use crate::core::state::State;
use crate::core::verdict::{Outcome, Verdict};

pub(super) fn approve(
    asked: &Asked<'_>,
    grant: &GrantId,
    decision: &Decision,
    verdict: &Verdict,
    foreseen: Option<&Foreseen>,
) -> Decided {
    let (name, person, actor) = asked.person()?;
    let case = asked.seen_by(name, grant)?;
    let repeat = case.approvals.get(name) == Some(decision);
    if repeat && case.standing(asked.now).end().is_none() {
        return Ok((actor, Vec::new()));
    }
    may_decide(asked, case, name, decision)?;
    let key = decision.evidence.as_ref().map(|evidence| &evidence.key);
    if !key.is_some_and(|key| person.keys.contains(key)) {
        return Err(Denial::UnknownKey);
    }
    in_time(asked, decision)?;
    let terms = terms_with(&asked.state.directory, case, decision, asked.now)?;
    holdable(&case.request, &terms.scope)?;
    asked.unlocked(asked.state.lock_on_decider(name, &case.request, asked.now))?;
    current(verdict, asked.basis_of(case))?;

    let directory = &asked.state.directory;
    let required = match (grounds::missing(directory, &case.request), &verdict.outcome) {
        (Some(refusal), _) => return Err(Denial::PolicyRefused(refusal)),
        (None, Outcome::Refused(refusal)) => return Err(Denial::PolicyRefused(refusal.clone())),
        (None, Outcome::Permitted(required)) => required,
    };
    if required != case.requirement() {
        // Policy demands something else by now: whoever decided must look again.
        return Ok((actor, bundle::reconsider(asked, directory, case, &verdict.outcome)));
    }
    let grant = *grant;
    let mut events = vec![Event::DecisionRecorded { grant, decision: decision.clone() }];
    let others = asked.free_approvals(directory, case).map(|other| &other.person);
    if quorum::met(required, directory, others.chain([name])) {
        asked.unlocked(asked.state.lock_on(&case.request, &terms.scope, asked.now))?;
        let held = asked.state.tally(&case.request.workload, asked.now);
        if held.live >= asked.state.limits.live_grants {
            return Err(Denial::LimitReached(Limited::LiveGrants));
        }
        allowed(asked, case, decision, &terms, foreseen)?;
        events.push(Event::Granted { grant, terms });
    }
    Ok((actor, events))
}

pub(super) fn deny(asked: &Asked<'_>, grant: &GrantId, decision: &Decision) -> Decided {
    let (name, _, actor) = asked.person()?;
    let case = asked.seen_by(name, grant)?;
    if matches!(case.standing(asked.now), Standing::Denied(denied) if denied.person == *name) {
        return Ok((actor, Vec::new()));
    }
    may_decide(asked, case, name, decision)?;
    let mut decision = decision.clone();
    match decision.evidence {
        // The broker gave it its time, by a clock that may be off: it must not stand in the way.
        None => decision.at = asked.now,
        Some(_) => in_time(asked, &decision)?,
    }
    if decision.answer != Answer::Deny {
        return Err(invalid("decision", "must be a denial"));
    }
    asked.unlocked(asked.state.lock_on_decider(name, &case.request, asked.now))?;
    Ok((actor, vec![Event::DecisionRecorded { grant: *grant, decision }]))
}

pub(super) fn withdraw(asked: &Asked<'_>, grant: &GrantId) -> Decided {
    let (name, _, actor) = asked.person()?;
    let case = asked.seen_by(name, grant)?;
    still_pending(asked, case)?;
    if !case.approvals.contains_key(name) {
        return Ok((actor, Vec::new()));
    }
    Ok((actor, vec![Event::DecisionWithdrawn { grant: *grant, person: name.clone() }]))
}

fn still_pending(asked: &Asked<'_>, case: &Case) -> Result<(), Denial> {
    let standing = case.standing(asked.now);
    if standing == Standing::Pending {
        return Ok(());
    }
    Err(standing.end().unwrap_or(Denial::AlreadyDecided))
}

/// Whether `name` may decide on this form of this request, either way.
fn may_decide(
    asked: &Asked<'_>,
    case: &Case,
    name: &PersonId,
    decision: &Decision,
) -> Result<(), Denial> {
    still_pending(asked, case)?;
    if case.is_own(name, &asked.state.directory) {
        return Err(Denial::OwnRequest);
    }
    // A decision in somebody else's name is none of this person's.
    if !asked.state.is_asked(name, case) || decision.person != *name {
        return Err(Denial::NotApprover);
    }
    if decision.digest != case.digest {
        return Err(Denial::DigestMismatch);
    }
    Ok(())
}

fn in_time(asked: &Asked<'_>, decision: &Decision) -> Result<(), Denial> {
    let apart = asked.now.since(decision.at).max(decision.at.since(asked.now));
    if apart <= DECISION_WINDOW { Ok(()) } else { Err(Denial::DecisionTime) }
}

/// Refuses to give what policy would refuse to exchange: what was narrowed may be a matter of other
/// policies, which demand other approvals, than what was asked for.
fn allowed(
    asked: &Asked<'_>,
    case: &Case,
    decision: &Decision,
    terms: &Terms,
    foreseen: Option<&Foreseen>,
) -> Result<(), Denial> {
    let whole = quorum::terms(&case.request, [], asked.now).map_err(Denial::Invalid)?;
    if same(&whole, terms) {
        return Ok(());
    }
    let foreseen = foreseen.filter(|foreseen| same(&foreseen.terms, terms));
    let outcome = &foreseen.ok_or(Denial::Reevaluate)?.outcome;
    let mut case = case.clone();
    case.approvals.insert(decision.person.clone(), decision.clone());
    let grant = Grant::new(terms.clone());
    let drift = grounds::drift(&asked.state.directory, &case, &grant, outcome);
    drift.map_or(Ok(()), |refusal| Err(Denial::PolicyRefused(refusal)))
}

/// Whether both give the same, from whatever moment on.
fn same(one: &Terms, other: &Terms) -> bool {
    let (from, until) = (other.from, other.from.plus(one.until.since(one.from)));
    Terms { from, until, ..one.clone() } == *other
}

/// What `decision`, an approval of `case`, would give at `now` together with those before it.
pub fn foresee(
    state: &State,
    case: &Case,
    decision: &Decision,
    now: Timestamp,
) -> Result<Terms, Denial> {
    terms_with(&state.directory, case, decision, now.max(state.time))
}

fn terms_with(
    directory: &Directory,
    case: &Case,
    decision: &Decision,
    now: Timestamp,
) -> Result<Terms, Denial> {
    let Answer::Approve(narrowing) = &decision.answer else {
        return Err(invalid("decision", "must be an approval"));
    };
    quorum::check(&case.request, narrowing).map_err(Denial::Invalid)?;
    let others = grounds::approvals(directory, case);
    let others = others.filter(|other| other.person != decision.person);
    quorum::terms(&case.request, others.chain([decision]), now).map_err(Denial::Invalid)
}
