//! Why the rules refuse a command: one closed list. Which is given where several apply, each
//! command of [`super::decide`] says, read from its top.

use dayfly_verifier::id::LockId;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::time::Timestamp;

use super::verdict::Refusal;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The log is not open yet, no bundle is in force, or no key may sign.
    #[error("the broker has no policy bundle in force, or no key that may sign")]
    NotReady,
    /// The caller's role does not allow the command.
    #[error("this caller may not do this")]
    NotAllowed,
    /// There is no such thing, or the caller may not know of it. The log keeps the difference.
    #[error("there is no such request or grant")]
    NotFound,
    /// The same id came with other content before.
    #[error("the id was used before with other content")]
    IdReused,
    /// The proof was made by another key than the request's holder key.
    #[error("the proof is by another key than the holder key of the request")]
    HolderMismatch,
    /// Nobody has granted it yet.
    #[error("the request is still waiting for approval")]
    NotYetApproved,
    /// A person denied the request.
    #[error("the request was denied by an approver")]
    Denied,
    /// Nobody granted it in time.
    #[error("the request expired unanswered")]
    Expired,
    /// Its holder took it back.
    #[error("the request was cancelled by its holder")]
    Cancelled,
    /// Its holder completed it.
    #[error("the grant was completed by its holder")]
    Completed,
    /// It was revoked.
    #[error("the grant was revoked")]
    Revoked,
    /// Policy would not grant it any more.
    #[error("the grant has drifted: policy `{}` refuses: {}", .0.policy, .0.reason)]
    Drifted(Refusal),
    /// Its lease ended.
    #[error("the lease of the grant has ended")]
    Lapsed,
    /// The decision is no longer possible.
    #[error("the request is no longer pending")]
    AlreadyDecided,
    /// All its uses are spent.
    #[error("all uses of the grant are spent")]
    UsesExhausted,
    /// The id was drawn too far from now to be remembered safely.
    #[error("the id was not drawn within the last minutes; draw a new one")]
    StaleId,
    /// Nobody decides on a request of their own, of a workload they are responsible for, or made
    /// on their behalf.
    #[error("nobody decides on their own request, or on one of a workload that is theirs")]
    OwnRequest,
    /// The requirement names no group that the person is in.
    #[error("the request does not need an approval of this person")]
    NotApprover,
    /// The decision is about another form of the request.
    #[error("the request has changed since it was signed; look at it again")]
    DigestMismatch,
    /// The person has no such key in the bundle in force.
    #[error("the key is not listed for this person")]
    UnknownKey,
    /// The decision's time is too far from now.
    #[error("the decision was made more than two minutes from now")]
    DecisionTime,
    /// A value is not what it should be.
    #[error("{0}")]
    Invalid(Invalid),
    /// Too few policy admins signed the bundle.
    #[error("the bundle lacks signatures of policy admins")]
    UnsignedBundle,
    /// A lock refuses it until this end, whatever policy says.
    #[error("a lock refuses this until {1}, unless an operator lifts it (lock {0})")]
    Locked(LockId, Timestamp),
    /// The verdict was about another state; ask policy again. Never leaves the broker.
    #[error("policy must be asked again")]
    Reevaluate,
    /// Policy refuses.
    #[error("policy `{}` refuses: {}", .0.policy, .0.reason)]
    PolicyRefused(Refusal),
    /// The workload holds, awaits or has filed as much as it may, or the gateway reports too often.
    #[error("too many {0} at once")]
    LimitReached(Limited),
}

impl Denial {
    /// Whether the same command may be allowed later, as it is or signed anew. What clients are
    /// told says the same.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::NotReady
            | Self::NotYetApproved
            | Self::DigestMismatch
            | Self::DecisionTime
            | Self::Locked(..)
            | Self::Reevaluate
            | Self::LimitReached(_) => true,
            Self::NotAllowed
            | Self::NotFound
            | Self::IdReused
            | Self::HolderMismatch
            | Self::Denied
            | Self::Expired
            | Self::Cancelled
            | Self::Completed
            | Self::Revoked
            | Self::Drifted(_)
            | Self::Lapsed
            | Self::AlreadyDecided
            | Self::UsesExhausted
            | Self::StaleId
            | Self::OwnRequest
            | Self::NotApprover
            | Self::UnknownKey
            | Self::Invalid(_)
            | Self::UnsignedBundle
            | Self::PolicyRefused(_) => false,
        }
    }
}

/// What there can be too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// Live grants.
    LiveGrants,
    /// Pending requests.
    PendingRequests,
    /// Requests that are remembered, however they ended.
    Requests,
    /// Exchanges that were answered with the same token.
    Exchanges,
    /// Batches of uses of one gateway instance.
    Reports,
    /// Locks in force.
    Locks,
    /// Instances of a gateway that opted out of refusing.
    Unbounded,
}

impl std::fmt::Display for Limited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::LiveGrants => "live grants",
            Self::PendingRequests => "pending requests",
            Self::Requests => "remembered requests",
            Self::Exchanges => "exchanges for one token",
            Self::Reports => "batches of uses",
            Self::Locks => "locks",
            Self::Unbounded => "instances that opted out",
        })
    }
}
