//! What a grant rests on besides what policy says: facts of the directory and the approvals,
//! looked at again wherever policy is asked again. No policy switches them off.

use dayfly_verifier::request::{ConfirmBy, Request};

use crate::core::case::{Case, Grant};
use crate::core::directory::Directory;
use crate::core::event::Decision;
use crate::core::quorum;
use crate::core::verdict::{Outcome, Refusal};

/// A refusal that no policy of the bundle pronounced.
fn refusal(policy: &str, reason: &str) -> Refusal {
    Refusal { policy: policy.into(), reason: reason.into() }
}

/// Why nothing can be granted on `request` by `directory`, if so.
pub(super) fn missing(directory: &Directory, request: &Request) -> Option<Refusal> {
    if !directory.is_workload(&request.workload) {
        return Some(refusal("workload", "the workload is not listed any more"));
    }
    if !directory.gateways.contains(&request.audience) {
        return Some(refusal("audience", "the audience is not a gateway any more"));
    }
    if request.principal.as_ref().is_some_and(|name| !directory.people.contains_key(name)) {
        return Some(refusal("principal", "the principal is not listed any more"));
    }
    if request.confirmation == ConfirmBy::Identity && !directory.is_exclusive(&request.workload) {
        return Some(refusal("exclusive", "the ID of the workload is not exclusive any more"));
    }
    None
}

/// Why the approvals that `case` needs can never come, if so.
pub(super) fn unfillable(directory: &Directory, case: &Case) -> Option<Refusal> {
    let approvers = directory.people.keys().filter(|name| !case.is_own(name, directory));
    let fillable = quorum::met(case.requirement(), directory, approvers);
    let reason = "too few people are in the groups whose approval it needs and may give it";
    (!fillable).then(|| refusal("approvals", reason))
}

/// The approvals of `case` that still count by `directory`.
pub(super) fn approvals<'a>(
    directory: &'a Directory,
    case: &'a Case,
) -> impl Iterator<Item = &'a Decision> {
    case.approvals.values().filter(move |approval| quorum::counts(directory, case, approval))
}

/// Why `directory` and the outcome of policy would not grant what `grant` gives, if so.
pub(super) fn drift(
    directory: &Directory,
    case: &Case,
    grant: &Grant,
    outcome: &Outcome,
) -> Option<Refusal> {
    let required = match outcome {
        Outcome::Refused(refusal) => return Some(refusal.clone()),
        Outcome::Permitted(required) => required,
    };
    if let Some(refusal) = missing(directory, &case.request) {
        return Some(refusal);
    }
    let people = approvals(directory, case).map(|approval| &approval.person);
    let terms = &grant.terms;
    let (policy, reason) = if !quorum::met(required, directory, people) {
        ("approvals", "policy demands other approvals than were given")
    } else if terms.until > terms.from.plus(required.max_lifetime) {
        ("max_ttl", "policy allows only a shorter lease")
    } else if required.max_uses.is_some_and(|most| terms.uses.is_none_or(|uses| uses > most)) {
        ("max_uses", "policy allows only fewer uses")
    } else if required.online && !terms.online {
        ("online", "policy wants each use to be evaluated")
    } else {
        return None;
    };
    Some(refusal(policy, reason))
}
