//! Why a token does not clear an attempt. One closed set, in the order in which it is found out.
//!
//! The caller learns the class, the sentence and, where a request could cure it, what to ask for;
//! the log learns the reason. Neither carries text that a holder wrote, nor a token, key or proof.

use crate::id::{KeyId, LockId, ReasonCode};
use crate::proof::ProofFault;
use crate::replay::NotAdmitted;
use crate::revocations::Revoked;
use crate::scope::{ArgName, OutOfScope};
use crate::wire::{BadSignature, Malformed};

/// A refusal: the first reason, in the order of the variants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// No token was sent.
    #[error("no token was sent")]
    NoToken,
    /// A header that must stand once stands twice, or is not visible ASCII.
    #[error("a header is repeated or unreadable")]
    Ambiguous,
    /// Too long, of another shape, or outside of the closed profile.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The gateway has not heard from the revocation feed within its bound, or not at all yet.
    #[error("the gateway does not know what is revoked at present")]
    Stale,
    /// The token, or what it rests on, was taken back.
    #[error("the token was taken back")]
    Revoked(Revoked),
    /// No key of that number is trusted for tokens.
    #[error("the token is signed with a key that is not trusted")]
    UnknownKey(KeyId),
    /// A signature is not good.
    #[error("a signature of the token is not good")]
    BadSignature(BadSignature),
    /// It was issued in another epoch of the log.
    #[error("the token is of another epoch")]
    OtherEpoch,
    /// It was issued more than 2 s ahead of the gateway's clock.
    #[error("the token was issued in the future")]
    NotYet,
    /// Its life is over.
    #[error("the token has expired")]
    Expired,
    /// It is for another gateway.
    #[error("the token is for another gateway")]
    OtherAudience,
    /// Nothing was shown that could prove its holder: neither a proof nor a client certificate.
    #[error("a proof of possession is required")]
    NoProof,
    /// The connection is not authenticated as the one to whom the token is bound.
    #[error("the connection is not that of the token's holder")]
    OtherPeer,
    /// The proof does not count.
    #[error(transparent)]
    Proof(#[from] ProofFault),
    /// The proof was used before, or the guard against that has no room.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// A lock refuses the use until it is lifted.
    #[error("the use is locked until an operator lifts the lock")]
    Locked(LockId),
    /// No right of the token has this operation on this resource.
    #[error("the token does not allow this operation on this resource")]
    OutOfScope,
    /// A constrained argument is absent, or is not what its constraint demands.
    #[error("the token does not allow this value of the argument `{0}`")]
    Argument(ArgName),
    /// A caveat that a holder added does not hold: its place among the token's caveats.
    #[error("a restriction that a holder added does not hold")]
    Caveat(usize),
    /// A counted right was used without a use id, or with one that was not drawn just now.
    #[error("each use of this token needs a use id of its own, drawn just now")]
    NoUseId,
    /// Policy would not grant the right any more, or the grant has ended: each use is evaluated.
    #[error("policy does not allow this use at present")]
    Drifted,
    /// The use id was spent before.
    #[error("the use id was spent before")]
    UseRepeated,
    /// No use is left, or the grant has ended.
    #[error("no use of the grant is left")]
    Spent,
    /// The broker, who must be asked about each use, did not answer.
    #[error("the broker could not be asked")]
    Unanswered,
}

/// What the caller learns of a [`Reject`] beside the sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// The token is no token of this gateway's.
    Token,
    /// The gateway cannot tell at present. Never an allowance.
    Unavailable,
    /// Taken back.
    Revoked,
    /// Over.
    Expired,
    /// The holder is not proven.
    Proof,
    /// The token is good, and does not allow this.
    Forbidden,
}

impl Class {
    /// Its name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Unavailable => "unavailable",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Proof => "proof",
            Self::Forbidden => "forbidden",
        }
    }

    /// Its HTTP status: RFC 6750, section 3.1, and 503 for what the gateway cannot tell.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Token | Self::Revoked | Self::Expired | Self::Proof => 401,
            Self::Forbidden => 403,
            Self::Unavailable => 503,
        }
    }

    /// Its gRPC status: `UNAUTHENTICATED`, `PERMISSION_DENIED`, `UNAVAILABLE`.
    #[must_use]
    pub const fn grpc_status(self) -> u8 {
        match self {
            Self::Token | Self::Revoked | Self::Expired | Self::Proof => 16,
            Self::Forbidden => 7,
            Self::Unavailable => 14,
        }
    }
}

/// What the caller can do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Next {
    /// Ask for a grant, or exchange it for a new token.
    Request,
    /// Wait until somebody changes something.
    Wait,
    /// Try again, with a new proof.
    Retry,
    /// Nothing that the gateway knows of.
    Nothing,
}

impl Next {
    /// Its name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Wait => "wait",
            Self::Retry => "retry",
            Self::Nothing => "none",
        }
    }
}

impl From<OutOfScope> for Reject {
    fn from(out: OutOfScope) -> Self {
        match out {
            OutOfScope::Right => Self::OutOfScope,
            OutOfScope::Argument(name) => Self::Argument(name),
        }
    }
}

impl Reject {
    /// Class, next action and reason code, row by row: the page that a reviewer reads.
    const fn row(&self) -> (Class, Next, &'static str) {
        match self {
            Self::NoToken => (Class::Token, Next::Request, "no_token"),
            Self::Ambiguous => (Class::Token, Next::Nothing, "ambiguous"),
            Self::Malformed(_) => (Class::Token, Next::Nothing, "malformed"),
            Self::Stale => (Class::Unavailable, Next::Retry, "stale"),
            Self::Revoked(_) => (Class::Revoked, Next::Request, "revoked"),
            Self::UnknownKey(_) => (Class::Token, Next::Request, "unknown_key"),
            Self::BadSignature(_) => (Class::Token, Next::Nothing, "bad_signature"),
            Self::OtherEpoch => (Class::Expired, Next::Request, "other_epoch"),
            Self::NotYet => (Class::Token, Next::Retry, "not_yet"),
            Self::Expired => (Class::Expired, Next::Request, "expired"),
            Self::OtherAudience => (Class::Token, Next::Request, "other_audience"),
            Self::NoProof => (Class::Proof, Next::Retry, "no_proof"),
            Self::OtherPeer => (Class::Proof, Next::Nothing, "other_peer"),
            Self::Proof(ProofFault::Nonce) => (Class::Proof, Next::Retry, "nonce"),
            Self::Proof(ProofFault::Time) => (Class::Proof, Next::Retry, "proof_time"),
            Self::Proof(_) => (Class::Proof, Next::Nothing, "bad_proof"),
            Self::NotAdmitted(NotAdmitted::Replayed) => (Class::Proof, Next::Retry, "replayed"),
            Self::NotAdmitted(NotAdmitted::Full) => (Class::Unavailable, Next::Retry, "crowded"),
            Self::Locked(_) => (Class::Forbidden, Next::Wait, "locked"),
            Self::OutOfScope => (Class::Forbidden, Next::Request, "out_of_scope"),
            Self::Argument(_) => (Class::Forbidden, Next::Request, "argument"),
            Self::Caveat(_) => (Class::Forbidden, Next::Request, "caveat"),
            Self::NoUseId => (Class::Forbidden, Next::Retry, "no_use_id"),
            Self::Drifted => (Class::Forbidden, Next::Request, "drifted"),
            Self::UseRepeated => (Class::Forbidden, Next::Nothing, "use_repeated"),
            Self::Spent => (Class::Forbidden, Next::Request, "spent"),
            Self::Unanswered => (Class::Unavailable, Next::Retry, "unanswered"),
        }
    }

    /// What the caller learns.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.row().0
    }

    /// What the caller can do next.
    #[must_use]
    pub const fn next(&self) -> Next {
        self.row().1
    }

    /// A fixed word for the reason, for logs, metrics and machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.row().2
    }

    /// The same word, for the record.
    #[must_use]
    pub fn reason(&self) -> ReasonCode {
        ReasonCode::fixed(self.code())
    }

    /// Whether it was found out of a token whose signatures are good, or may be: only then is it
    /// worth looking which one it is.
    #[cfg(feature = "tower")]
    pub(crate) const fn names_token(&self) -> bool {
        let before = matches!(self, Self::NoToken | Self::Ambiguous | Self::Malformed(_));
        !before && !matches!(self, Self::UnknownKey(_) | Self::BadSignature(_))
    }

    /// Its place in the order in which reasons are found out, from 0.
    #[must_use]
    pub const fn place(&self) -> u8 {
        match self {
            Self::NoToken => 0,
            Self::Ambiguous => 1,
            Self::Malformed(_) => 2,
            Self::Stale => 3,
            Self::Revoked(_) => 4,
            Self::UnknownKey(_) => 5,
            Self::BadSignature(_) => 6,
            Self::OtherEpoch => 7,
            Self::NotYet => 8,
            Self::Expired => 9,
            Self::OtherAudience => 10,
            Self::NoProof => 11,
            Self::OtherPeer => 12,
            Self::Proof(_) => 13,
            Self::NotAdmitted(_) => 14,
            Self::Locked(_) => 15,
            Self::OutOfScope => 16,
            Self::Argument(_) => 17,
            Self::Caveat(_) => 18,
            Self::NoUseId => 19,
            Self::Drifted => 20,
            Self::UseRepeated => 21,
            Self::Spent => 22,
            Self::Unanswered => 23,
        }
    }

    /// The `error` of RFC 6750 and RFC 9449 in the challenge; none where no token was sent, and
    /// none where the gateway cannot tell.
    #[must_use]
    pub const fn oauth_error(&self) -> Option<&'static str> {
        if matches!(self, Self::NoToken) {
            return None;
        }
        match self.class() {
            Class::Unavailable => None,
            Class::Proof if matches!(self, Self::Proof(ProofFault::Nonce)) => {
                Some("use_dpop_nonce")
            }
            Class::Proof => Some("invalid_dpop_proof"),
            Class::Forbidden => Some("insufficient_scope"),
            Class::Token | Class::Revoked | Class::Expired => Some("invalid_token"),
        }
    }
}
