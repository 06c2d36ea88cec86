//! One step of one open case: every pair of stage and event, the impossible ones too.
//!
//! What takes away is appended at whatever the head is, so it may come too late: then it changes
//! nothing. Everything else was decided at the head it follows, and cannot come too late.

use std::sync::Arc;

use dayfly_verifier::claims::Record;
use dayfly_verifier::request::Request;
use dayfly_verifier::time::Timestamp;

use super::case::{Case, Closed, Grant, How, Issue, Minted, Stage};
use super::event::{Answer, End, Event, Target};

/// Whether the event only ever takes away.
pub(super) const fn takes_away(event: &Event) -> bool {
    match event {
        Event::DecisionRecorded { decision, .. } => matches!(decision.answer, Answer::Deny),
        Event::DecisionWithdrawn { .. }
        | Event::Ended { .. }
        | Event::Revoked { .. }
        | Event::Locked { .. } => true,
        Event::EpochOpened { .. }
        | Event::BundleApplied { .. }
        | Event::KeyAdded { .. }
        | Event::KeyRetired { .. }
        | Event::RequestFiled { .. }
        | Event::RequestRefused { .. }
        | Event::RequirementChanged { .. }
        | Event::Granted { .. }
        | Event::TokenRecorded { .. }
        | Event::ExchangeAnswered { .. }
        | Event::UseRedeemed { .. }
        | Event::UsesReported(_)
        | Event::SnapshotTaken(_)
        | Event::IdentityChanged { .. }
        | Event::Unlocked { .. }
        | Event::OptedOut { .. } => false,
    }
}

/// What `event`, at `at` and recorded at `record`, makes of a `case` that is open: `None` for
/// nothing, an error for what cannot have happened.
pub(super) fn step(
    case: &Case,
    event: &Event,
    at: Timestamp,
    record: Record,
) -> Result<Option<Case>, &'static str> {
    let closed = |how| {
        let grant = case.grant().cloned();
        Some(Case { stage: Stage::Closed(Box::new(Closed { at, how, grant })), ..case.clone() })
    };
    match &case.stage {
        Stage::Pending { .. } => pending(case, event, closed),
        Stage::Granted(grant) => granted(case, grant, event, record, closed),
        Stage::Closed(_) => Err("the case has ended"),
    }
}

fn pending(
    case: &Case,
    event: &Event,
    closed: impl Fn(How) -> Option<Case>,
) -> Result<Option<Case>, &'static str> {
    let mut new = case.clone();
    match event {
        Event::RequirementChanged { requirement, .. } => {
            let requirement = requirement.clone();
            new.request = Arc::new(Request { requirement, ..Request::clone(&case.request) });
            new.digest = new.request.digest();
            new.approvals.clear();
        }
        Event::DecisionRecorded { decision, .. } => match &decision.answer {
            Answer::Approve(_) if decision.digest != case.digest => {
                return Err("the approval is of another form of the request");
            }
            Answer::Approve(_) => {
                new.approvals.insert(decision.person.clone(), decision.clone());
            }
            Answer::Deny => return Ok(closed(How::Denied(decision.clone()))),
        },
        Event::DecisionWithdrawn { person, .. } => {
            new.approvals.remove(person);
        }
        Event::Granted { terms, .. } => new.stage = Stage::Granted(Grant::new(terms.clone())),
        Event::Ended { end: End::Cancelled, .. } => return Ok(closed(How::Cancelled)),
        Event::Ended { end: End::Drifted(refusal), .. } => {
            return Ok(closed(How::Drifted(refusal.clone())));
        }
        // A task is not done that was not begun.
        Event::Ended { end: End::Completed(_), .. }
        | Event::Revoked { target: Target::Token(_), .. } => return Ok(None),
        Event::Revoked { .. } => return Ok(closed(How::Revoked)),
        Event::TokenRecorded { .. }
        | Event::ExchangeAnswered { .. }
        | Event::UseRedeemed { .. } => return Err("nothing is granted yet"),
        Event::EpochOpened { .. }
        | Event::BundleApplied { .. }
        | Event::KeyAdded { .. }
        | Event::KeyRetired { .. }
        | Event::RequestFiled { .. }
        | Event::RequestRefused { .. }
        | Event::UsesReported(_)
        | Event::SnapshotTaken(_)
        | Event::IdentityChanged { .. }
        | Event::Locked { .. }
        | Event::Unlocked { .. }
        | Event::OptedOut { .. } => return Err("the event is not about an open case"),
    }
    Ok(Some(new))
}

fn granted(
    case: &Case,
    grant: &Grant,
    event: &Event,
    record: Record,
    closed: impl Fn(How) -> Option<Case>,
) -> Result<Option<Case>, &'static str> {
    let mut grant = grant.clone();
    match event {
        Event::TokenRecorded { claims, .. } => {
            let granted =
                Issue::of(claims).claims(case.grant_id(), &case.request, case.digest, &grant.terms);
            if *claims != granted {
                return Err("the token says something else than what was granted");
            }
            grant.record(Minted { claims: granted, record });
        }
        Event::ExchangeAnswered { exchange, token, .. } => grant.answer(*exchange, *token)?,
        Event::UseRedeemed { token, use_id, .. } => grant.redeem(*use_id, *token)?,
        Event::Revoked { target: Target::Token(token), .. } => {
            if !grant.revoke(token) {
                return Ok(None);
            }
        }
        Event::Revoked { .. } => return Ok(closed(How::Revoked)),
        Event::Ended { end, .. } => {
            return Ok(closed(match end {
                End::Cancelled => How::Cancelled,
                End::Completed(outcome) => How::Completed(*outcome),
                End::Drifted(refusal) => How::Drifted(refusal.clone()),
            }));
        }
        // Too late to take anything away.
        Event::DecisionWithdrawn { .. } => return Ok(None),
        Event::DecisionRecorded { decision, .. } => {
            return match &decision.answer {
                Answer::Deny => Ok(None),
                Answer::Approve(_) => Err("it is granted already"),
            };
        }
        Event::RequirementChanged { .. } | Event::Granted { .. } => {
            return Err("it is granted already");
        }
        Event::EpochOpened { .. }
        | Event::BundleApplied { .. }
        | Event::KeyAdded { .. }
        | Event::KeyRetired { .. }
        | Event::RequestFiled { .. }
        | Event::RequestRefused { .. }
        | Event::UsesReported(_)
        | Event::SnapshotTaken(_)
        | Event::IdentityChanged { .. }
        | Event::Locked { .. }
        | Event::Unlocked { .. }
        | Event::OptedOut { .. } => return Err("the event is not about an open case"),
    }
    Ok(Some(Case { stage: Stage::Granted(grant), ..case.clone() }))
}
