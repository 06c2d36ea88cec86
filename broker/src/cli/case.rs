//! A request as its workload sees it, and how a command ends that it did not go well for.

use dayfly_agent::case::{Case, Standing};
use dayfly_agent::errors::{Ended, Error, NextAction, Reason, Refusal};
use dayfly_agent::render::visible;
use dayfly_agent::session::OpenError;
use serde_json::{Value as Json, json};

use super::Context;
use super::console::{GOOD, STRONG, WAITING};
use super::exit::{Exit, Refused};
use super::when::time;

/// Shows how a request stands.
pub(super) fn show(context: &Context, case: &Case) {
    context.console.result(|| text(case), || to_json(case));
}

pub(super) fn text(case: &Case) -> String {
    let colour = if case.standing == Standing::Granted { GOOD } else { WAITING };
    let mut lines = vec![
        format!("{STRONG}request{STRONG:#}  {}", case.request),
        format!("grant    {}", case.grant),
        format!("standing {colour}{}{colour:#}", case.standing),
    ];
    if !case.because.is_empty() {
        lines.push(format!("because  {}", visible(&case.because, false)));
    }
    if case.standing == Standing::Pending {
        lines.push(format!("asks for {}", approvals(case)));
        lines.push(format!("expires  {}", time(case.pending_until)));
    }
    if let Some(terms) = &case.terms {
        lines.push(format!("lease    {} to {}", time(terms.from), time(terms.until)));
        lines.extend(terms.scope.rights().map(|right| format!("allows   {right}")));
        lines.extend(terms.scope.constraints().map(|limit| format!("where    {limit}")));
        lines.extend(terms.uses.map(|uses| format!("uses     {uses}")));
    }
    lines.join("\n")
}

/// `dba: 1, security: 1; approved by alice`.
pub(super) fn approvals(case: &Case) -> String {
    let required: Vec<String> =
        case.required.iter().map(|(group, count)| format!("{group}: {count}")).collect();
    let approved: Vec<String> = case.approved_by.iter().map(|name| visible(name, false)).collect();
    let approved = match approved.as_slice() {
        [] => "nobody approved yet".to_owned(),
        names => format!("approved by {}", names.join(", ")),
    };
    format!("{}; {approved}", visible(&required.join(", "), false))
}

pub(super) fn to_json(case: &Case) -> Json {
    let list = |items: Vec<String>| Json::from(items);
    let terms = case.terms.as_ref().map(|terms| {
        json!({
            "from": terms.from.to_string(),
            "until": terms.until.to_string(),
            "rights": list(terms.scope.rights().map(ToString::to_string).collect()),
            "constraints": list(terms.scope.constraints().map(ToString::to_string).collect()),
            "uses": terms.uses,
        })
    });
    let required: serde_json::Map<String, Json> =
        case.required.iter().map(|(group, count)| (group.clone(), (*count).into())).collect();
    json!({
        "request_id": case.request.to_string(),
        "grant_id": case.grant.to_string(),
        "digest": case.digest.to_string(),
        "standing": case.standing.as_str(),
        "because": case.because,
        "required": required,
        "approved_by": case.approved_by,
        "pending_until": case.pending_until.to_string(),
        "terms": terms,
    })
}

/// Granted is done; anything else has its exit code.
pub(super) fn end_of(context: &Context, case: &Case) -> Result<(), Refused> {
    match case.standing {
        Standing::Granted => Ok(()),
        Standing::Pending => {
            Err(refused(context, Error::StillPending).next(format!("dayfly wait {}", case.request)))
        }
        standing @ (Standing::RefusedByPolicy
        | Standing::Denied
        | Standing::Expired
        | Standing::Cancelled
        | Standing::Completed
        | Standing::Revoked
        | Standing::Drifted
        | Standing::Lapsed) => {
            let ended = Ended { standing, because: visible(&case.because, false) };
            Err(refused(context, Error::Ended(ended)))
        }
    }
}

/// How a command ends that the agent library could not do.
pub(super) fn refused(context: &Context, error: Error) -> Refused {
    let exit = match &error {
        Error::CouldNotAsk(OpenError::Status(_)) => Exit::Unavailable,
        Error::CouldNotAsk(open) => return context.refused(open.clone()),
        Error::Refused(Refusal { reason, .. }) => exit_of(*reason),
        Error::Ended(ended) => match ended.standing {
            Standing::Pending | Standing::Granted => Exit::Failed,
            Standing::RefusedByPolicy | Standing::Denied => Exit::Denied,
            Standing::Expired | Standing::Lapsed => Exit::Expired,
            Standing::Cancelled | Standing::Completed => Exit::Expired,
            Standing::Revoked | Standing::Drifted => Exit::Revoked,
        },
        Error::StillPending => Exit::Pending,
        Error::Invalid(_) => Exit::Usage,
        Error::File(_) => Exit::Config,
    };
    let next = match &error {
        Error::Refused(refusal) => match refusal.next {
            NextAction::Request => Some("file a new request"),
            NextAction::Wait => Some("wait, then try again"),
            NextAction::Retry => Some("try again"),
            NextAction::None => None,
        },
        Error::Ended(_) | Error::StillPending | Error::CouldNotAsk(_) => None,
        Error::Invalid(_) | Error::File(_) => None,
    };
    let refused = Refused::new(exit, error);
    match next {
        Some(next) => refused.next(next),
        None => refused,
    }
}

const fn exit_of(reason: Reason) -> Exit {
    match reason {
        Reason::NotYetApproved => Exit::Pending,
        Reason::Expired | Reason::Lapsed | Reason::Cancelled | Reason::Completed => Exit::Expired,
        Reason::UsesExhausted => Exit::Expired,
        Reason::Revoked | Reason::Drifted => Exit::Revoked,
        Reason::Invalid | Reason::IdReused | Reason::StaleId => Exit::Usage,
        Reason::NotAllowed
        | Reason::NotFound
        | Reason::HolderMismatch
        | Reason::Denied
        | Reason::AlreadyDecided
        | Reason::OwnRequest
        | Reason::NotApprover
        | Reason::DigestMismatch
        | Reason::UnknownKey
        | Reason::DecisionTime
        | Reason::ProofTime
        | Reason::UnsignedBundle
        | Reason::Locked
        | Reason::PolicyRefused
        | Reason::LimitReached => Exit::Denied,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_refusal_ends_like_success_or_like_an_unasked_question() {
        for reason in Reason::ALL {
            assert!(!matches!(exit_of(*reason), Exit::Unavailable | Exit::Failed), "{reason:?}");
            assert_ne!(exit_of(*reason).code(), 0);
        }
    }
}
