//! What is a no, and what is not known.

use super::*;

#[test]
fn no_and_could_not_ask_are_never_the_same() {
    for code in (0..=16).map(Code::from) {
        let answered =
            matches!(code, Code::PermissionDenied | Code::NotFound | Code::InvalidArgument);
        let error = Error::from(Status::new(code, "x"));
        assert_eq!(matches!(error, Error::Refused(_)), answered, "{code:?}");
        assert_eq!(matches!(error, Error::CouldNotAsk(_)), !answered, "{code:?}");
    }
}

fn with_reason(reason: &str, domain: &str, more: &[(&str, &str)]) -> Error {
    let metadata = [("retryable", "true"), ("next_action", "wait")];
    let metadata = metadata.iter().chain(more);
    let metadata: HashMap<_, _> =
        metadata.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let details = ErrorDetails::with_error_info(reason, domain, metadata);
    Status::with_error_details(Code::PermissionDenied, "said so", details).into()
}

#[test]
fn a_reason_is_taken_from_the_broker_alone() {
    for reason in Reason::ALL {
        assert_eq!(reason.as_str().parse(), Ok(*reason));
        let Error::Refused(refusal) = with_reason(reason.as_str(), DOMAIN, &[]) else {
            panic!("{reason:?} is a refusal");
        };
        assert!(refusal.reason == *reason && refusal.retryable);
        assert_eq!(refusal.next, NextAction::Wait);
    }
    for error in [
        with_reason("DENIED", "elsewhere", &[]),
        with_reason("NEW_REASON", DOMAIN, &[]),
        with_reason("DENIED", DOMAIN, &[("incident", "00")]),
    ] {
        assert!(matches!(error, Error::CouldNotAsk(_)));
    }
}

fn every_error() -> Vec<Error> {
    let standings = [
        Standing::RefusedByPolicy,
        Standing::Denied,
        Standing::Expired,
        Standing::Cancelled,
        Standing::Completed,
        Standing::Revoked,
        Standing::Drifted,
        Standing::Lapsed,
    ];
    let ended = standings.map(|standing| Error::Ended(Ended { standing, because: "so".into() }));
    let refused = Reason::ALL.iter().map(|reason| Error::Refused(Refusal::new(*reason, "so")));
    let io = || Arc::new(std::io::Error::other("10.1.2.3 /etc/keys"));
    let path = "/etc/keys/ticket".into();
    let file = FileError::Refused { path, rule: "it is too large" };
    let unreachable = OpenError::Unreachable("10.1.2.3:7443".into(), io());
    refused
        .chain(ended)
        .chain([Error::StillPending, Error::CouldNotAsk(unreachable), Error::from(file)])
        .chain([Error::answer("it is odd"), Error::from(Invalid::new("x", "must be y"))])
        .collect()
}

#[test]
fn advice_is_safe_to_show_and_tells_no_from_unknown() {
    for error in every_error() {
        let advice = error.advice();
        assert!(!advice.message.contains("10.1.2.3"), "{advice:?}");
        assert!(!advice.message.contains("/etc"), "{advice:?}");
        let unknown = matches!(error, Error::CouldNotAsk(_));
        assert_eq!(advice.code == "COULD_NOT_ASK", unknown, "{advice:?}");
        assert_eq!(error.reason().is_none(), unknown || matches!(error, Error::File(_)));
        assert_eq!(advice.retryable, advice.next_action.is_retryable());
        if let Error::Ended(_) = error {
            assert!(!advice.retryable, "an end is an end: {advice:?}");
        }
    }
    let told = Refusal::new(Reason::Denied, format!("no\u{202e}\n\x1b[2J{}", "x".repeat(9999)));
    let told = Error::Refused(told).advice().message;
    assert!(told.is_ascii() && told.len() <= 400, "{told}");
    let json = serde_json::to_value(Error::StillPending.advice()).unwrap();
    let mut keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["code", "message", "next_action", "retryable"]);
    assert_eq!(
        (json["code"].as_str(), json["next_action"].as_str()),
        (Some("NOT_YET_APPROVED"), Some("wait"))
    );
}

#[test]
fn only_what_is_over_or_wrong_for_good_is_not_said_again() {
    for error in every_error() {
        let passes = match error.reason() {
            Some(Reason::Locked | Reason::LimitReached | Reason::ProofTime) => true,
            Some(Reason::NotYetApproved) => matches!(error, Error::Refused(_)),
            Some(Reason::DigestMismatch | Reason::DecisionTime) => true,
            Some(_) => false,
            None => matches!(error, Error::CouldNotAsk(_)),
        };
        assert_eq!(error.may_be_heard_later(), passes, "{error:?}");
    }
}

#[test]
fn what_a_broker_sends_is_what_a_client_reads() {
    for reason in Reason::ALL {
        let refusal = Refusal::new(*reason, "said so");
        let read = Error::from(refusal.to_status(Some(("policy", "p".into()))));
        assert!(matches!(read, Error::Refused(read) if read == refusal), "{reason}");
    }
}
