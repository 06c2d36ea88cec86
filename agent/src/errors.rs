//! Why something was not done. Two things are never the same: *no*, which somebody said, and *could
//! not ask*, after which nothing is known. Whoever cannot tell must not act.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::wire::Malformed;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::case::Standing;
use crate::files::FileError;
use crate::session::OpenError;

/// The `domain` of the `google.rpc.ErrorInfo` in every refusal of a broker.
pub const DOMAIN: &str = "dayfly.v1";
/// The member of the metadata of an `ErrorInfo` that marks a fault.
const INCIDENT: &str = "incident";

/// Defines the reasons that a broker gives, each by its name on the wire.
macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident = $name:literal,)*) => {
        /// Why a broker refuses: the closed set of reasons of `dayfly.v1`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $reason,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$reason),*];

            /// Its name on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$reason => $name),* }
            }
        }

        impl FromStr for Reason {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                match text {
                    $($name => Ok(Self::$reason),)*
                    _ => Err(Invalid::new("reason", "must be a reason of dayfly.v1")),
                }
            }
        }
    };
}

reasons! {
    /// The caller's role does not allow the call.
    NotAllowed = "NOT_ALLOWED",
    /// There is no such thing, or the caller may not know of it.
    NotFound = "NOT_FOUND",
    /// The same id came with other content before.
    IdReused = "ID_REUSED",
    /// The proof is by another key than the request's holder key.
    HolderMismatch = "HOLDER_MISMATCH",
    /// Nobody has granted it yet.
    NotYetApproved = "NOT_YET_APPROVED",
    /// A person denied it.
    Denied = "DENIED",
    /// Nobody granted it in time.
    Expired = "EXPIRED",
    /// Its holder took it back.
    Cancelled = "CANCELLED",
    /// Its holder completed it.
    Completed = "COMPLETED",
    /// It was revoked.
    Revoked = "REVOKED",
    /// Policy would not grant it any more.
    Drifted = "DRIFTED",
    /// Its lease ended.
    Lapsed = "LAPSED",
    /// The decision is no longer possible.
    AlreadyDecided = "ALREADY_DECIDED",
    /// All its uses are spent.
    UsesExhausted = "USES_EXHAUSTED",
    /// The id was drawn too far from now.
    StaleId = "STALE_ID",
    /// Nobody decides on what is their own.
    OwnRequest = "OWN_REQUEST",
    /// The requirement does not need this person.
    NotApprover = "NOT_APPROVER",
    /// The request changed since it was signed.
    DigestMismatch = "DIGEST_MISMATCH",
    /// The person has no such key.
    UnknownKey = "UNKNOWN_KEY",
    /// The decision's time is too far from now.
    DecisionTime = "DECISION_TIME",
    /// A value is not what it should be.
    Invalid = "INVALID",
    /// The bundle lacks signatures.
    UnsignedBundle = "UNSIGNED_BUNDLE",
    /// Policy refuses.
    PolicyRefused = "POLICY_REFUSED",
    /// There is as much as there may be.
    LimitReached = "LIMIT_REACHED",
    /// The proof was made at a time that is too far from the broker's.
    ProofTime = "PROOF_TIME",
}

/// What a refused caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextAction {
    /// File a new request.
    Request,
    /// Wait for the decision.
    Wait,
    /// Send the same again.
    Retry,
    /// Nothing.
    None,
}

impl NextAction {
    /// Its name on the wire: the value of `next_action` in the metadata of the `ErrorInfo`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Wait => "wait",
            Self::Retry => "retry",
            Self::None => "none",
        }
    }

    fn read(text: Option<&String>) -> Self {
        let all = [Self::Request, Self::Wait, Self::Retry];
        let named = |action: &Self| text.is_some_and(|text| text == action.as_str());
        all.into_iter().find(named).unwrap_or(Self::None)
    }
}

/// A broker's no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// A sentence that is safe to show to anybody, a model included.
    pub message: String,
    /// Whether the same call may be allowed later, without anything being changed.
    pub retryable: bool,
    /// What may be done about it.
    pub next: NextAction,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// How a request or grant ended without being, or staying, granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How. Neither pending nor granted.
    pub standing: Standing,
    /// What there is to say about it: the policy's reason, the person who denied.
    pub because: String,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.because.as_str() {
            "" => write!(f, "the request {}", self.standing),
            because => write!(f, "the request {}: {because}", self.standing),
        }
    }
}

/// Why a call did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The broker said no.
    #[error("{0}")]
    Refused(Refusal),
    /// The request or grant has ended.
    #[error("{0}")]
    Ended(Ended),
    /// The time for waiting is over, and nobody has decided yet.
    #[error("the request is still waiting for approval")]
    StillPending,
    /// Nobody could be asked, or no answer came that makes sense: nothing is known, and nothing may
    /// be done on the strength of it.
    #[error("could not ask: {0}")]
    CouldNotAsk(OpenError),
    /// What was to be asked is not a request.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A ticket's file cannot be used.
    #[error(transparent)]
    File(Arc<FileError>),
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        Self::File(Arc::new(error))
    }
}

impl From<Malformed> for Error {
    fn from(_: Malformed) -> Self {
        Self::answer("its token is not one of this format")
    }
}

impl From<Status> for Error {
    /// A refusal is one only if the broker says so in its own words, or with a code that nothing
    /// between it and us would make up.
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let Some(info) = details.error_info() else { return without_reason(status) };
        // What carries an incident is a fault of the broker, which leaves everything open.
        let fault = info.domain != DOMAIN || info.metadata.contains_key(INCIDENT);
        let reason = info.reason.parse().ok().filter(|_| !fault);
        let Some(reason) = reason else {
            return Self::CouldNotAsk(OpenError::from_status(status));
        };
        Self::Refused(Refusal {
            reason,
            message: status.message().to_owned(),
            retryable: info.metadata.get("retryable").is_some_and(|retryable| retryable == "true"),
            next: NextAction::read(info.metadata.get("next_action")),
        })
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whatever is not clearly a no is unknown")]
fn without_reason(status: Status) -> Error {
    let reason = match status.code() {
        Code::PermissionDenied => Reason::NotAllowed,
        Code::NotFound => Reason::NotFound,
        Code::InvalidArgument => Reason::Invalid,
        _ => return Error::CouldNotAsk(OpenError::from_status(status)),
    };
    let message = status.message().to_owned();
    Error::Refused(Refusal { reason, message, retryable: false, next: NextAction::None })
}

impl Error {
    /// An answer that makes no sense.
    pub(crate) const fn answer(rule: &'static str) -> Self {
        Self::CouldNotAsk(OpenError::Answer(rule))
    }

    /// Whether the same call, sent again soon, may get an answer.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::CouldNotAsk(OpenError::Unreachable(..) | OpenError::Status(_)) => true,
            Self::CouldNotAsk(
                OpenError::Identity(_)
                | OpenError::Ended(..)
                | OpenError::NotOurBroker(..)
                | OpenError::Refused(..)
                | OpenError::Tls(..)
                | OpenError::Answer(_),
            ) => false,
            Self::Refused(_)
            | Self::Ended(_)
            | Self::StillPending
            | Self::Invalid(_)
            | Self::File(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

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
}
