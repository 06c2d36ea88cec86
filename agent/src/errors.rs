//! Why something was not done. Two things are never the same: *no*, which somebody said, and *could
//! not ask*, after which nothing is known. Whoever cannot tell must not act.
//!
//! A program branches on [`Error`]; a model, or a log, gets [`Error::advice`].

mod reason;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::wire::{IssueError, Malformed};
pub use reason::{DOMAIN, NextAction, Reason};
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::case::Standing;
use crate::files::FileError;
use crate::render::visible;
use crate::session::OpenError;

/// The member of the metadata of an `ErrorInfo` that marks a fault.
const INCIDENT: &str = "incident";

/// The most characters of a broker's sentence that are passed on.
const MAX_SENTENCE: usize = 400;

/// A broker's no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The broker's sentence about it.
    pub message: String,
    /// Whether the same call may be allowed later, as it is or proven or signed anew.
    pub retryable: bool,
    /// What may be done about it.
    pub next: NextAction,
}

impl Refusal {
    /// The refusal for `reason`, as the table of [`Reason`] has it.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let next = reason.next();
        Self { reason, message: message.into(), retryable: next.is_retryable(), next }
    }

    /// As a broker sends it, with one more member of the metadata where there is one.
    #[must_use]
    pub fn to_status(&self, more: Option<(&str, String)>) -> Status {
        let metadata = metadata(self.next, more);
        let details = ErrorDetails::with_error_info(self.reason.as_str(), DOMAIN, metadata);
        Status::with_error_details(self.reason.code(), &self.message, details)
    }
}

/// The metadata of an `ErrorInfo`: what may be done next, and one more member.
#[must_use]
pub fn metadata(next: NextAction, more: Option<(&str, String)>) -> HashMap<String, String> {
    let always =
        [("retryable", next.is_retryable().to_string()), ("next_action", next.as_str().to_owned())];
    let all = always.into_iter().chain(more);
    all.map(|(name, value)| (name.to_owned(), value)).collect()
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

impl From<IssueError> for Error {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Invalid(invalid) => Self::Invalid(invalid),
            IssueError::Malformed(shape) => Invalid::new("token", shape.to_string()).into(),
            IssueError::Signer(signer) => Invalid::new("key", signer.to_string()).into(),
        }
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
    Error::Refused(Refusal::new(reason, status.message()))
}

/// What an error comes to: fit for a log, a program in another language, or a model, to which it
/// may be shown as it is. It holds no address, no path, and nothing invisible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// A [`Reason`] by its name, or `COULD_NOT_ASK`, or `UNUSABLE_FILE`.
    pub code: &'static str,
    /// Whether the same may be allowed later, as it is or proven or signed anew.
    pub retryable: bool,
    /// What may be done about it.
    pub next_action: NextAction,
    /// A sentence.
    pub message: String,
}

impl Error {
    /// An answer that makes no sense.
    pub(crate) const fn answer(rule: &'static str) -> Self {
        Self::CouldNotAsk(OpenError::Answer(rule))
    }

    /// Why it was refused, or how it ended; `None` if nobody said no.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused(refusal) => Some(refusal.reason),
            Self::Ended(ended) => ended.standing.reason(),
            Self::StillPending => Some(Reason::NotYetApproved),
            Self::Invalid(_) => Some(Reason::Invalid),
            Self::CouldNotAsk(_) | Self::File(_) => None,
        }
    }

    /// What it comes to, in words that may be shown to a model.
    #[must_use]
    pub fn advice(&self) -> Advice {
        let (code, next_action, message) = match self {
            Self::Refused(refusal) => (refusal.reason.as_str(), refusal.next, self.to_string()),
            Self::Ended(_) | Self::StillPending | Self::Invalid(_) => {
                let reason = self.reason().unwrap_or(Reason::AlreadyDecided);
                (reason.as_str(), reason.next(), self.to_string())
            }
            Self::CouldNotAsk(_) => {
                let next = if self.is_passing() { NextAction::Retry } else { NextAction::None };
                let message = "nobody could be asked; nothing was allowed, and nothing was done";
                ("COULD_NOT_ASK", next, message.to_owned())
            }
            Self::File(_) => {
                let message = "a file that belongs to the request cannot be used";
                ("UNUSABLE_FILE", NextAction::None, message.to_owned())
            }
        };
        let message: String = visible(&message, false).chars().take(MAX_SENTENCE).collect();
        Advice { code, retryable: next_action.is_retryable(), next_action, message }
    }

    /// Whether the request or grant is over for good.
    pub(crate) const fn is_end(&self) -> bool {
        matches!(
            self.reason(),
            Some(
                Reason::Denied
                    | Reason::Expired
                    | Reason::Cancelled
                    | Reason::Completed
                    | Reason::Revoked
                    | Reason::Drifted
                    | Reason::Lapsed
                    | Reason::UsesExhausted
            )
        )
    }

    /// Whether the same, said again later, may be taken: nobody has heard it, or it was refused for
    /// what may pass.
    pub(crate) const fn may_be_heard_later(&self) -> bool {
        match self {
            Self::CouldNotAsk(_) => true,
            Self::Refused(refusal) => refusal.retryable,
            Self::Ended(_) | Self::StillPending | Self::Invalid(_) | Self::File(_) => false,
        }
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
mod tests;
