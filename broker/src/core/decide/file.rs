//! Filing a request.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use dayfly_verifier::dossier::MAX_CANONICAL_BYTES;
use dayfly_verifier::request::{ConfirmBy, Request, Requirement};
use dayfly_verifier::time::Timestamp;

use super::exchange::holdable;
use super::{Asked, Decided, current, grounds, invalid};
use crate::core::case::{Case, Stage};
use crate::core::command::Filing;
use crate::core::denial::{Denial, Limited};
use crate::core::event::Event;
use crate::core::limits::{MAX_LEASE, MAX_PENDING_LIFE, MAX_REQUESTS};
use crate::core::quorum;
use crate::core::verdict::{Outcome, Refusal, Verdict};

pub(super) fn file(asked: &Asked<'_>, filing: &Filing, verdict: &Verdict) -> Decided {
    let actor = asked.workload()?;
    if let Some(case) = asked.state.own(asked.caller, &filing.id) {
        let same = is_repeat(asked, filing, &case.request);
        return if same { Ok((actor, Vec::new())) } else { Err(Denial::IdReused) };
    }
    asked.fresh(filing.id.drawn_at())?;
    check(asked, filing)?;
    let bare = request(asked, filing, nothing(asked, filing));
    asked.unlocked(asked.state.lock_on(&bare, &bare.scope, asked.now))?;
    current(verdict, asked.state.basis(asked.caller, &filing.task, None, asked.now))?;

    let (required, refusal) = match &verdict.outcome {
        Outcome::Permitted(required) => (required.clone(), None),
        Outcome::Refused(refusal) => (nothing(asked, filing), Some(refusal.clone())),
    };
    let request = request(asked, filing, required);
    // These bound what is recorded, so they hold for what is refused as well.
    if request.canonical().len() > MAX_CANONICAL_BYTES {
        return Err(invalid("request", "is too long to be shown in full"));
    }
    holdable(&request, &request.scope)?;
    if asked.state.remembered(asked.caller, asked.now) >= MAX_REQUESTS {
        return Err(Denial::LimitReached(Limited::Requests));
    }
    if let Some(refusal) = refusal {
        return Ok((actor, refused(asked, filing, refusal)));
    }
    let until = asked.now.plus(asked.state.limits.pending_life.min(MAX_PENDING_LIFE));
    let case = pending(asked, request, until);
    if let Some(refusal) = grounds::unfillable(&asked.state.directory, &case) {
        return Ok((actor, refused(asked, filing, refusal)));
    }
    Ok((actor, filed(asked, filing, &case, until)?))
}

/// Whether `filing` says what `request` says. The text of a justification is no part of what is
/// decided about, and what number of uses the default is has been settled the first time.
fn is_repeat(asked: &Asked<'_>, filing: &Filing, request: &Request) -> bool {
    let Request { epoch, filed_at, requirement, .. } = request;
    let default_uses = request.uses.filter(|uses| *uses == NonZeroU32::MIN);
    let filing = Filing { default_uses, ..filing.clone() };
    let again = self::request(asked, &filing, requirement.clone());
    Request { epoch: *epoch, filed_at: *filed_at, ..again } == *request
}

fn check(asked: &Asked<'_>, filing: &Filing) -> Result<(), Denial> {
    let directory = &asked.state.directory;
    if !directory.gateways.contains(&filing.audience) {
        return Err(invalid("audience", "must be a gateway that the policy bundle lists"));
    }
    if filing.principal.as_ref().is_some_and(|name| !directory.people.contains_key(name)) {
        return Err(invalid("principal", "must be a person whom the policy bundle lists"));
    }
    if filing.confirmation == ConfirmBy::Identity && !directory.is_exclusive(asked.caller) {
        return Err(invalid("confirm_by_identity", "the policy bundle must mark the ID exclusive"));
    }
    let whole = filing.lifetime.is_none_or(|life| life.subsec_nanos() == 0);
    if !whole || filing.lifetime.is_some_and(|life| life.is_zero() || life > MAX_LEASE) {
        return Err(invalid("lifetime", "must be 1 second to 12 hours, in whole seconds"));
    }
    Ok(())
}

fn request(asked: &Asked<'_>, filing: &Filing, requirement: Requirement) -> Request {
    Request {
        epoch: asked.state.head.epoch,
        id: filing.id,
        filed_at: asked.now,
        workload: asked.caller.clone(),
        principal: filing.principal.clone(),
        holder_key: filing.holder_key,
        confirmation: filing.confirmation,
        audience: filing.audience.clone(),
        scope: filing.scope.clone(),
        task: filing.task.clone(),
        purpose: filing.purpose.clone(),
        lifetime: filing.lifetime.unwrap_or(asked.state.limits.default_lease).min(MAX_LEASE),
        uses: filing.uses.or(filing.default_uses),
        requirement,
    }
}

/// The case that `request` would make.
fn pending(asked: &Asked<'_>, request: Request, until: Timestamp) -> Case {
    Case {
        digest: request.digest(),
        justification: None,
        seq: asked.state.head.seq.next(),
        kin: Arc::new(asked.state.kin(&request.workload)),
        approvals: BTreeMap::new(),
        stage: Stage::Pending { until },
        request: Arc::new(request),
    }
}

/// The requirement of what is refused.
fn nothing(asked: &Asked<'_>, filing: &Filing) -> Requirement {
    Requirement {
        approvals: BTreeMap::new(),
        max_lifetime: filing.lifetime.unwrap_or(asked.state.limits.default_lease),
        max_uses: None,
        online: false,
        evidence: false,
        presence: false,
    }
}

/// A refusal is an entry too. Its requirement is empty.
fn refused(asked: &Asked<'_>, filing: &Filing, refusal: Refusal) -> Vec<Event> {
    let request = request(asked, filing, nothing(asked, filing));
    vec![Event::RequestRefused { request, justification: filing.justification, refusal }]
}

/// Filed; and granted at once where nobody needs to approve.
fn filed(
    asked: &Asked<'_>,
    filing: &Filing,
    case: &Case,
    until: Timestamp,
) -> Result<Vec<Event>, Denial> {
    let held = asked.state.tally(asked.caller, asked.now);
    if held.live >= asked.state.limits.live_grants {
        return Err(Denial::LimitReached(Limited::LiveGrants));
    }
    let request = Request::clone(&case.request);
    let mut events =
        vec![Event::RequestFiled { request, justification: filing.justification, until }];
    if case.requirement().approvals.is_empty() {
        let terms = quorum::terms(&case.request, [], asked.now).map_err(Denial::Invalid)?;
        events.push(Event::Granted { grant: case.grant_id(), terms });
    } else if held.pending >= asked.state.limits.pending_requests {
        return Err(Denial::LimitReached(Limited::PendingRequests));
    }
    Ok(events)
}
