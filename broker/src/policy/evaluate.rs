//! What a bundle says of one request.

use std::num::NonZeroU32;
use std::time::Duration;

use dayfly_verifier::id::{PersonId, Purpose, TaskId};
use dayfly_verifier::request::Request;
use dayfly_verifier::scope::Scope;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;

use crate::core::command::Filing;
use crate::core::verdict::{Basis, Holdings, Outcome, Refusal, Verdict};

use super::bundle::Bundle;

/// What is asked of a bundle: one request, at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who asks.
    pub workload: &'a SpiffeId,
    /// On whose behalf.
    pub principal: Option<&'a PersonId>,
    /// For which gateway.
    pub audience: &'a SpiffeId,
    /// What is to be allowed.
    pub scope: &'a Scope,
    /// For which task.
    pub task: &'a TaskId,
    /// Why.
    pub purpose: &'a Purpose,
    /// The lease that is asked for; `None` for the default, cut to what policy allows.
    pub lifetime: Option<Duration>,
    /// The number of uses that is asked for; `None` for what policy allows.
    pub uses: Option<NonZeroU32>,
    /// The time of the decision.
    pub now: Timestamp,
}

impl<'a> Question<'a> {
    /// About a request as it is being filed by `workload`.
    #[must_use]
    pub fn of_filing(filing: &'a Filing, workload: &'a SpiffeId, now: Timestamp) -> Self {
        let Filing { principal, audience, scope, task, purpose, lifetime, uses, .. } = filing;
        Self {
            workload,
            principal: principal.as_ref(),
            audience,
            scope,
            task,
            purpose,
            lifetime: *lifetime,
            uses: *uses,
            now,
        }
    }

    /// About a request that was filed, or the grant that it became: before an approval, at an
    /// exchange, and when a new bundle comes.
    #[must_use]
    pub fn of_request(request: &'a Request, now: Timestamp) -> Self {
        Self {
            workload: &request.workload,
            principal: request.principal.as_ref(),
            audience: &request.audience,
            scope: &request.scope,
            task: &request.task,
            purpose: &request.purpose,
            lifetime: Some(request.lifetime),
            uses: request.uses,
            now,
        }
    }
}

/// What `bundle` says, given what is held live and the version of the environment facts.
#[must_use]
pub fn evaluate(
    bundle: &Bundle,
    _question: &Question<'_>,
    holdings: Holdings,
    environment: u64,
) -> Verdict {
    let basis = Basis { bundle: bundle.digest(), environment, holdings };
    let refusal = Refusal { policy: "default".into(), reason: "no policy permits it".into() };
    Verdict { basis, outcome: Outcome::Refused(refusal) }
}
