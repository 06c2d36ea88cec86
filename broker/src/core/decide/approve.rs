//! Decisions of people: yes, no, and taking a yes back.

use dayfly_verifier::id::{GrantId, PersonId};

use super::{Asked, Decided, bundle, current, grounds, invalid};
use crate::core::case::{Case, Standing};
use crate::core::denial::{Denial, Limited};
use crate::core::event::{Answer, Decision, Event, Terms};
use crate::core::limits::DECISION_WINDOW;
use crate::core::quorum;
use crate::core::verdict::{Outcome, Verdict};

pub(super) fn approve(
    asked: &Asked<'_>,
    grant: &GrantId,
    decision: &Decision,
    verdict: &Verdict,
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
    let terms = terms_with(asked, case, decision)?;
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
    let others = grounds::approvals(directory, case).map(|other| &other.person);
    if quorum::met(required, directory, others.chain([name])) {
        let held = asked.state.tally(&case.request.workload, asked.now);
        if held.live >= asked.state.limits.live_grants {
            return Err(Denial::LimitReached(Limited::LiveGrants));
        }
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
    in_time(asked, decision)?;
    if decision.answer != Answer::Deny {
        return Err(invalid("decision", "must be a denial"));
    }
    Ok((actor, vec![Event::DecisionRecorded { grant: *grant, decision: decision.clone() }]))
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

/// What the request would give with this approval and those before it.
fn terms_with(asked: &Asked<'_>, case: &Case, decision: &Decision) -> Result<Terms, Denial> {
    let Answer::Approve(narrowing) = &decision.answer else {
        return Err(invalid("decision", "must be an approval"));
    };
    quorum::check(&case.request, narrowing).map_err(Denial::Invalid)?;
    let others = grounds::approvals(&asked.state.directory, case);
    let others = others.filter(|other| other.person != decision.person);
    quorum::terms(&case.request, others.chain([decision]), asked.now).map_err(Denial::Invalid)
}
