//! The closed set of reasons that brokers give, and what each comes with: one table for both sides
//! of the wire.

use std::fmt;
use std::str::FromStr;

use dayfly_verifier::invalid::Invalid;
use serde::Serialize;
use tonic::Code;

/// The `domain` of the `google.rpc.ErrorInfo` in every refusal of a broker.
pub const DOMAIN: &str = "dayfly.v1";

/// Defines the reasons: the name on the wire, the gRPC code, and what a refused caller may do.
macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident = $name:literal, $code:ident, $next:ident;)*) => {
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

            /// The gRPC code with which it is sent.
            #[must_use]
            pub const fn code(self) -> Code {
                match self { $(Self::$reason => Code::$code),* }
            }

            /// What a caller that is refused for it may do.
            #[must_use]
            pub const fn next(self) -> NextAction {
                match self { $(Self::$reason => NextAction::$next),* }
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
    NotAllowed = "NOT_ALLOWED", PermissionDenied, None;
    /// There is no such thing, or the caller may not know of it.
    NotFound = "NOT_FOUND", NotFound, None;
    /// The same id came with other content before.
    IdReused = "ID_REUSED", AlreadyExists, Request;
    /// The proof is by another key than the request's holder key.
    HolderMismatch = "HOLDER_MISMATCH", PermissionDenied, None;
    /// Nobody has granted it yet.
    NotYetApproved = "NOT_YET_APPROVED", FailedPrecondition, Wait;
    /// A person denied it.
    Denied = "DENIED", PermissionDenied, None;
    /// Nobody granted it in time.
    Expired = "EXPIRED", FailedPrecondition, Request;
    /// Its holder took it back.
    Cancelled = "CANCELLED", FailedPrecondition, Request;
    /// Its holder completed it.
    Completed = "COMPLETED", FailedPrecondition, Request;
    /// It was revoked.
    Revoked = "REVOKED", PermissionDenied, None;
    /// Policy would not grant it any more.
    Drifted = "DRIFTED", PermissionDenied, Request;
    /// Its lease ended.
    Lapsed = "LAPSED", FailedPrecondition, Request;
    /// The decision is no longer possible.
    AlreadyDecided = "ALREADY_DECIDED", FailedPrecondition, None;
    /// All its uses are spent.
    UsesExhausted = "USES_EXHAUSTED", FailedPrecondition, Request;
    /// The id was drawn too far from now.
    StaleId = "STALE_ID", InvalidArgument, Request;
    /// Nobody decides on what is their own.
    OwnRequest = "OWN_REQUEST", PermissionDenied, None;
    /// The requirement does not need this person.
    NotApprover = "NOT_APPROVER", PermissionDenied, None;
    /// The request changed since it was signed.
    DigestMismatch = "DIGEST_MISMATCH", FailedPrecondition, Retry;
    /// The person has no such key.
    UnknownKey = "UNKNOWN_KEY", PermissionDenied, None;
    /// The decision's time is too far from now.
    DecisionTime = "DECISION_TIME", InvalidArgument, Retry;
    /// A value is not what it should be.
    Invalid = "INVALID", InvalidArgument, None;
    /// The bundle lacks signatures.
    UnsignedBundle = "UNSIGNED_BUNDLE", PermissionDenied, None;
    /// A lock refuses it until it is lifted, or its end.
    Locked = "LOCKED", PermissionDenied, Wait;
    /// Policy refuses.
    PolicyRefused = "POLICY_REFUSED", PermissionDenied, None;
    /// There is as much as there may be.
    LimitReached = "LIMIT_REACHED", ResourceExhausted, Wait;
    /// The proof was made at a time that is too far from the broker's.
    ProofTime = "PROOF_TIME", Unauthenticated, Retry;
}

/// What a refused caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NextAction {
    /// File a new request.
    Request,
    /// Wait for the decision.
    Wait,
    /// Send the same again: proven or signed anew, where the refusal is for proof or signature.
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

    /// Whether the same call may be allowed later, as it is or proven or signed anew.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::Wait | Self::Retry => true,
            Self::Request | Self::None => false,
        }
    }

    pub(super) fn read(text: Option<&String>) -> Self {
        let all = [Self::Request, Self::Wait, Self::Retry];
        let named = |action: &Self| text.is_some_and(|text| text == action.as_str());
        all.into_iter().find(named).unwrap_or(Self::None)
    }
}

impl fmt::Display for Reason {
    /// Its name on the wire.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
