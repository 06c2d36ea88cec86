//! Refusals and faults as gRPC statuses: one closed set of reasons, each with what to do next, in
//! `google.rpc.ErrorInfo`. "Denied" and "could not ask" never have the same code. No fault says
//! more than an incident id: the rest goes to the log under it.

use std::fmt::Display;

use dayfly_agent::errors::{DOMAIN, NextAction, Reason, Refusal, metadata};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::proof::ProofFault;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::core::denial::Denial;
use crate::random::{Random as _, SystemRandom};
use crate::sequencer::{Failure, Fault};

/// Why a client hears that it is refused; `None` for what is no answer to it.
///
/// What a caller may not do looks to it like what is not there.
#[must_use]
pub const fn reason(denial: &Denial) -> Option<Reason> {
    Some(match denial {
        Denial::NotReady | Denial::Reevaluate => return None,
        Denial::NotAllowed | Denial::NotFound => Reason::NotFound,
        Denial::IdReused => Reason::IdReused,
        Denial::HolderMismatch => Reason::HolderMismatch,
        Denial::NotYetApproved => Reason::NotYetApproved,
        Denial::Denied => Reason::Denied,
        Denial::Expired => Reason::Expired,
        Denial::Cancelled => Reason::Cancelled,
        Denial::Completed => Reason::Completed,
        Denial::Revoked => Reason::Revoked,
        Denial::Drifted(_) => Reason::Drifted,
        Denial::Lapsed => Reason::Lapsed,
        Denial::AlreadyDecided => Reason::AlreadyDecided,
        Denial::UsesExhausted => Reason::UsesExhausted,
        Denial::StaleId => Reason::StaleId,
        Denial::OwnRequest => Reason::OwnRequest,
        Denial::NotApprover => Reason::NotApprover,
        Denial::DigestMismatch => Reason::DigestMismatch,
        Denial::UnknownKey => Reason::UnknownKey,
        Denial::DecisionTime => Reason::DecisionTime,
        Denial::Invalid(_) => Reason::Invalid,
        Denial::UnsignedBundle => Reason::UnsignedBundle,
        Denial::Locked(..) => Reason::Locked,
        Denial::PolicyRefused(_) => Reason::PolicyRefused,
        Denial::LimitReached(_) => Reason::LimitReached,
    })
}

/// A refusal by the rules.
#[must_use]
pub fn denial(denial: &Denial) -> Status {
    // Not even the sentence tells what is not there from what is not shown.
    let hidden = *denial == Denial::NotAllowed;
    let message = if hidden { Denial::NotFound.to_string() } else { denial.to_string() };
    let more = if let Denial::Invalid(invalid) = denial {
        Some(("field", invalid.field.to_string()))
    } else if let Denial::PolicyRefused(refusal) | Denial::Drifted(refusal) = denial {
        Some(("policy", refusal.policy.clone()))
    } else if let Denial::Locked(lock, _) = denial {
        Some(("lock", lock.to_string()))
    } else {
        None
    };
    match reason(denial) {
        Some(reason) => Refusal::new(reason, message).to_status(more),
        None if *denial == Denial::Reevaluate => {
            status(Code::Aborted, "REEVALUATE", NextAction::Retry, message, more)
        }
        None => status(Code::Unavailable, "NOT_READY", NextAction::Retry, message, more),
    }
}

/// A value in a message that is not what it should be.
#[must_use]
pub fn invalid(invalid: &Invalid) -> Status {
    denial(&Denial::Invalid(invalid.clone()))
}

/// A proof that does not count.
#[must_use]
pub fn proof(fault: ProofFault) -> Status {
    if fault != ProofFault::Time {
        return denial(&Denial::HolderMismatch);
    }
    Refusal::new(Reason::ProofTime, fault.to_string()).to_status(None)
}

/// What came of a command that was not done: a refusal, or a fault under an incident id.
#[must_use]
pub fn failure(failure: &Failure) -> Status {
    match failure {
        Failure::Denied(refused) => denial(refused),
        Failure::Fault(fault) => self::fault(*fault),
    }
}

fn fault(fault: Fault) -> Status {
    let (code, reason, next) = match fault {
        Fault::Busy => (Code::ResourceExhausted, "BUSY", NextAction::Retry),
        Fault::Unavailable => (Code::Unavailable, "UNAVAILABLE", NextAction::Retry),
        Fault::ClockOff => (Code::Unavailable, "CLOCK_OFF", NextAction::Retry),
        Fault::Impossible => (Code::Internal, "IMPOSSIBLE", NextAction::None),
        Fault::Stopped => (Code::Unavailable, "STOPPED", NextAction::Retry),
    };
    let incident = incident();
    match fault {
        // What is too much is refused by design, as often as it comes.
        Fault::Busy => tracing::info!(incident, error = %fault, "a call failed"),
        Fault::Unavailable | Fault::ClockOff | Fault::Impossible | Fault::Stopped => {
            tracing::warn!(incident, error = %fault, "a call failed");
        }
    }
    let message = format!("{fault}; incident {incident}");
    status(code, reason, next, message, Some(("incident", incident)))
}

/// Whether a status is a refusal by the rules, and not a fault that leaves it open.
#[must_use]
pub fn is_refusal(status: &Status) -> bool {
    let fault = status
        .get_error_details()
        .error_info()
        .is_none_or(|info| info.metadata.contains_key("incident"));
    !fault
}

/// Something that the broker needs failed: it could not be asked. What it was goes to the log.
#[must_use]
pub fn unavailable(error: &dyn Display) -> Status {
    let incident = incident();
    tracing::error!(incident, %error, "a call failed");
    let message = format!("the broker cannot do this now; incident {incident}");
    let incident = Some(("incident", incident));
    status(Code::Unavailable, "UNAVAILABLE", NextAction::Retry, message, incident)
}

/// A call took too long; whether it was done is not known.
#[must_use]
pub fn too_late() -> Status {
    let incident = incident();
    tracing::warn!(incident, "a call took too long");
    let message = format!("the broker did not answer in time; incident {incident}");
    let incident = Some(("incident", incident));
    status(Code::DeadlineExceeded, "TOO_LATE", NextAction::Retry, message, incident)
}

/// Nothing was decided, for a reason that is no secret: a client takes it for "could not ask".
#[must_use]
pub fn undecided(
    code: Code,
    reason: &'static str,
    next: NextAction,
    message: impl Into<String>,
) -> Status {
    status(code, reason, next, message.into(), None)
}

/// Names one failure, to the client and in the log.
fn incident() -> String {
    let mut bytes = [0; 8];
    SystemRandom.fill(&mut bytes);
    hex::encode(bytes)
}

fn status(
    code: Code,
    reason: &str,
    next: NextAction,
    message: String,
    more: Option<(&str, String)>,
) -> Status {
    let details = ErrorDetails::with_error_info(reason, DOMAIN, metadata(next, more));
    Status::with_error_details(code, message, details)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use dayfly_verifier::id::LockId;
    use dayfly_verifier::time::Timestamp;

    use super::*;
    use crate::core::denial::Limited;
    use crate::core::verdict::Refusal as Grounds;

    fn info(status: &Status) -> (String, HashMap<String, String>) {
        let info = status.get_error_details().error_info().cloned().unwrap();
        assert_eq!(info.domain, DOMAIN);
        (info.reason, info.metadata)
    }

    #[test]
    fn absent_and_forbidden_are_the_same_bytes() {
        let (absent, forbidden) = (denial(&Denial::NotFound), denial(&Denial::NotAllowed));
        assert_eq!(absent.code(), Code::NotFound);
        assert_eq!(
            (absent.code(), absent.message(), info(&absent)),
            (forbidden.code(), forbidden.message(), info(&forbidden))
        );
    }

    #[test]
    fn a_fault_is_never_taken_for_a_denial_and_says_only_its_incident() {
        for fault in [Fault::Busy, Fault::Unavailable, Fault::ClockOff, Fault::Stopped] {
            let status = failure(&Failure::Fault(fault));
            assert!(matches!(status.code(), Code::Unavailable | Code::ResourceExhausted));
            assert_eq!(info(&status).1["retryable"], "true");
            assert_eq!(info(&status).1["incident"].len(), 16);
        }
        let secret = "disk /var/secret is gone";
        let status = unavailable(&secret);
        assert!(!format!("{status:?}").contains("secret"));
        assert_eq!(info(&status).0, "UNAVAILABLE");
    }

    #[test]
    fn what_was_not_decided_has_a_reason_that_clients_take_for_no_refusal() {
        let early = undecided(Code::FailedPrecondition, "TOO_EARLY", NextAction::Retry, "early");
        let (reason, metadata) = info(&early);
        assert_eq!((reason.as_str(), metadata["next_action"].as_str()), ("TOO_EARLY", "retry"));
        assert!(matches!(early.into(), dayfly_agent::errors::Error::CouldNotAsk(_)));
    }

    #[test]
    fn clients_know_every_reason_that_is_a_no() {
        let known = |denial| reason(&denial).is_some();
        assert!(known(Denial::Denied) && known(Denial::Lapsed) && known(Denial::StaleId));
        // These are no answer: the client must take them for "could not ask".
        assert!(!known(Denial::NotReady) && !known(Denial::Reevaluate));
    }

    /// One of each.
    fn denials() -> [Denial; 27] {
        let grounds = || Grounds { policy: "no-cards".into(), reason: "no cards".into() };
        [
            Denial::NotReady,
            Denial::NotAllowed,
            Denial::NotFound,
            Denial::IdReused,
            Denial::HolderMismatch,
            Denial::NotYetApproved,
            Denial::Denied,
            Denial::Expired,
            Denial::Cancelled,
            Denial::Completed,
            Denial::Revoked,
            Denial::Drifted(grounds()),
            Denial::Lapsed,
            Denial::AlreadyDecided,
            Denial::UsesExhausted,
            Denial::StaleId,
            Denial::OwnRequest,
            Denial::NotApprover,
            Denial::DigestMismatch,
            Denial::UnknownKey,
            Denial::DecisionTime,
            Denial::Invalid(Invalid::new("task", "must be there")),
            Denial::UnsignedBundle,
            Denial::Locked(LockId::new([7; 16]), Timestamp::default()),
            Denial::Reevaluate,
            Denial::PolicyRefused(grounds()),
            Denial::LimitReached(Limited::Locks),
        ]
    }

    #[test]
    fn rules_and_answers_agree_on_what_may_be_tried_again() {
        let mut told: BTreeSet<Reason> = [Reason::NotAllowed, Reason::ProofTime].into();
        for denied in denials() {
            told.extend(reason(&denied));
            let retryable = info(&denial(&denied)).1["retryable"] == "true";
            assert_eq!(denied.retryable(), retryable, "{denied:?}");
        }
        // What was left out above.
        assert!(Reason::ALL.iter().all(|reason| told.contains(reason)));
    }

    #[test]
    fn a_refusal_names_its_policy_and_a_bad_value_its_field() {
        let refusal = Grounds { policy: "no-cards".into(), reason: "no cards".into() };
        let (reason, metadata) = info(&denial(&Denial::PolicyRefused(refusal)));
        assert_eq!((reason.as_str(), metadata["policy"].as_str()), ("POLICY_REFUSED", "no-cards"));
        assert_eq!(
            (metadata["retryable"].as_str(), metadata["next_action"].as_str()),
            ("false", "none")
        );
        let status = invalid(&Invalid::new("scope.rights[2].resource", "must not be empty"));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(info(&status).1["field"], "scope.rights[2].resource");
        assert_eq!(info(&proof(ProofFault::Signature)).0, "HOLDER_MISMATCH");
        assert_eq!(info(&proof(ProofFault::Time)).1["next_action"], "retry");
    }
}
