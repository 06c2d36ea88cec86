//! Domain values as messages.

pub use dayfly_agent::convert::scope_to_wire as scope;
use dayfly_proto::v1;
use dayfly_verifier::request::{ConfirmBy, Request, Requirement};
use dayfly_verifier::time::Timestamp;

use crate::core::case::{Case, Grant, Stage, Standing};
use crate::core::event::{Evidence, Head, Terms};

/// A request or grant as it stands at `now`.
#[must_use]
pub fn case(case: &Case, now: Timestamp) -> v1::AccessRequest {
    let Request {
        epoch: _,
        id,
        filed_at,
        workload,
        principal,
        holder_key,
        confirmation,
        audience,
        scope: asked,
        task,
        purpose,
        lifetime,
        uses,
        requirement: demanded,
    } = &*case.request;
    let pending_until = match &case.stage {
        Stage::Pending { until } => ms(*until),
        Stage::Granted(_) | Stage::Closed(_) => 0,
    };
    let (standing, because) = standing(&case.standing(now));
    v1::AccessRequest {
        request_id: id.to_string(),
        grant_id: case.grant_id().to_string(),
        workload: workload.to_string(),
        principal: principal.as_ref().map(ToString::to_string).unwrap_or_default(),
        holder_key: holder_key.to_string(),
        audience: audience.to_string(),
        scope: Some(scope(asked)),
        task: task.to_string(),
        purpose: purpose.to_string(),
        lifetime_seconds: lifetime.as_secs(),
        uses: uses.map_or(0, Into::into),
        requirement: Some(requirement(demanded)),
        filed_at_ms: ms(*filed_at),
        pending_until_ms: pending_until,
        standing: standing.into(),
        because,
        approved_by: case.approvals.keys().map(ToString::to_string).collect(),
        terms: case.grant().map(terms),
        digest: case.digest.to_string(),
        confirm_by_identity: *confirmation == ConfirmBy::Identity,
    }
}

/// Where a request or grant stands, and why where there is more to say.
#[must_use]
pub fn standing(standing: &Standing<'_>) -> (v1::Standing, String) {
    let refused = |refusal: &crate::core::verdict::Refusal| {
        format!("policy `{}`: {}", refusal.policy, refusal.reason)
    };
    match standing {
        Standing::Pending => (v1::Standing::Pending, String::new()),
        Standing::Granted(_) => (v1::Standing::Granted, String::new()),
        Standing::Refused(refusal) => (v1::Standing::RefusedByPolicy, refused(refusal)),
        Standing::Denied(decision) => {
            (v1::Standing::Denied, format!("denied by {}", decision.person))
        }
        Standing::Expired => (v1::Standing::Expired, String::new()),
        Standing::Cancelled => (v1::Standing::Cancelled, String::new()),
        Standing::Completed(_) => (v1::Standing::Completed, String::new()),
        Standing::Revoked => (v1::Standing::Revoked, String::new()),
        Standing::Drifted(refusal) => (v1::Standing::Drifted, refused(refusal)),
        Standing::Lapsed => (v1::Standing::Lapsed, String::new()),
    }
}

fn terms(grant: &Grant) -> v1::Terms {
    let Terms { from, until, scope: allowed, uses, online } = &grant.terms;
    v1::Terms {
        from_ms: ms(*from),
        until_ms: ms(*until),
        scope: Some(scope(allowed)),
        uses: uses.map_or(0, Into::into),
        uses_spent: grant.uses_spent(),
        online: *online,
    }
}

/// The dossier: the canonical request, and the signed approvals on its present form.
#[must_use]
pub fn dossier(case: &Case) -> v1::Dossier {
    let evidence = case.approvals.values().filter_map(|decision| decision.evidence.as_ref());
    let signed = |Evidence { key: _, statement, signature }: &Evidence| v1::SignedDecision {
        statement: statement.clone().into(),
        signature: signature.clone(),
    };
    v1::Dossier {
        canonical_request: case.request.canonical().into(),
        decisions: evidence.map(signed).collect(),
    }
}

/// A requirement.
#[must_use]
pub fn requirement(requirement: &Requirement) -> v1::Requirement {
    let Requirement { approvals, max_lifetime, max_uses, online, evidence, presence } = requirement;
    v1::Requirement {
        approvals: approvals.iter().map(|(group, n)| (group.to_string(), n.get())).collect(),
        max_lifetime_seconds: max_lifetime.as_secs(),
        max_uses: max_uses.map_or(0, Into::into),
        online: *online,
        evidence: *evidence,
        presence: *presence,
    }
}

/// The end of the journal.
#[must_use]
pub fn head(head: &Head) -> v1::Head {
    v1::Head { epoch: head.epoch.to_string(), seq: head.seq.0, hash: head.hash.to_string() }
}

/// Milliseconds on the wire.
#[must_use]
pub fn ms(at: Timestamp) -> i64 {
    i64::try_from(at.as_ms()).unwrap_or(i64::MAX)
}
