//! What can be asked of the core. Parsed and authenticated, but not yet allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::{
    BundleDigest, ExchangeId, GrantId, InstanceId, KeyId, LockId, PersonId, Purpose, RequestId,
    TaskId, TextDigest, TokenId, UseId,
};
use dayfly_verifier::request::{ConfirmBy, SignerKey};
use dayfly_verifier::scope::Scope;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use dayfly_verifier::uses::Batch;

use super::directory::Directory;
use super::event::{Decision, IdentityChange, Lock, Snapshot, Target, TaskOutcome, Terms};
use super::verdict::{Outcome, Verdict};

/// Who asks, as authenticated at the edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Their SPIFFE ID.
    pub id: SpiffeId,
    /// When the certificate that they came with ends: no token outlives it.
    pub until: Timestamp,
}

impl Caller {
    /// A process that acts as the broker itself: it has no certificate that ends.
    #[must_use]
    pub fn itself(broker: SpiffeId) -> Self {
        Self { id: broker, until: Timestamp::default().plus(Duration::MAX) }
    }
}

/// What is asked.
#[derive(Debug, Clone)]
pub enum Command {
    /// File a request. Policy has been asked.
    File(Filing, Verdict),
    /// Record an approval, whose signature has been verified. Policy has been asked anew; where
    /// something was narrowed, also about what would be given.
    Approve(GrantId, Decision, Verdict, Option<Foreseen>),
    /// Record a denial.
    Deny(GrantId, Decision),
    /// Take one's approval back.
    Withdraw(GrantId),
    /// Exchange a grant for a token. Policy has been asked anew.
    Exchange(Exchange, Verdict),
    /// Redeem one use of a counted grant; asked by the token's gateway.
    Redeem(TokenId, UseId),
    /// Allow one use of an online grant, which is not recorded; asked by the token's gateway.
    /// Policy has been asked anew.
    Reevaluate(TokenId, Verdict),
    /// Record what a gateway counted; asked by that gateway.
    Report(Batch),
    /// End a grant, done. The proof by this holder key has been verified.
    Complete(RequestId, HolderKey, TaskOutcome),
    /// Take a request back, or end a grant, undone. The proof by this holder key has been verified.
    Cancel(RequestId, HolderKey),
    /// Put down what becomes of an identity: an invitation by an operator or on the host, and
    /// what the broker itself saw.
    Identity(SpiffeId, IdentityChange),
    /// Revoke.
    Revoke(Target, Option<TextDigest>),
    /// Set a lock until this end, or put its end off.
    Lock(Lock, Timestamp, Option<TextDigest>),
    /// Lift a lock.
    Unlock(LockId),
    /// Follow the feed as this instance, which does not refuse when it hears nothing; its gateway
    /// asks.
    OptOut(InstanceId),
    /// Put a policy bundle into force.
    Apply(Application),
    /// List a token-signing key of this broker's, which the trust root has listed: its signature
    /// has been verified. The broker itself asks for it.
    AddKey {
        /// Its number.
        key: KeyId,
        /// Its public half.
        public: HolderKey,
        /// Its end.
        not_after: Timestamp,
    },
    /// Let a token-signing key sign nothing more. What it signed lives out.
    RetireKey(KeyId),
    /// Put down that a snapshot of the fold is kept. The broker itself asks for it.
    Snapshot(Snapshot),
}

impl Command {
    /// Whether it only takes away: such commands come first in every batch, and are decided even
    /// when the clock is off.
    #[must_use]
    pub const fn takes_away(&self) -> bool {
        match self {
            Self::Deny(..)
            | Self::Withdraw(..)
            | Self::Complete(..)
            | Self::Cancel(..)
            | Self::Revoke(..)
            | Self::Lock(..)
            | Self::Identity(_, IdentityChange::Locked) => true,
            Self::File(..)
            | Self::Approve(..)
            | Self::Exchange(..)
            | Self::Redeem(..)
            | Self::Reevaluate(..)
            | Self::Unlock(..)
            | Self::OptOut(..)
            | Self::Report(..)
            | Self::Apply(..)
            | Self::Identity(_, IdentityChange::Invited | IdentityChange::Joined { .. })
            | Self::AddKey { .. }
            | Self::RetireKey(_)
            | Self::Snapshot(_) => false,
        }
    }
}

/// What an approval would give, and what policy says of that: narrowed, it may be a matter of
/// other policies than the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreseen {
    /// What would be given.
    pub terms: Terms,
    /// What policy says of it.
    pub outcome: Outcome,
}

/// A request as its workload filed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filing {
    /// Its id, drawn by the workload.
    pub id: RequestId,
    /// On whose behalf.
    pub principal: Option<PersonId>,
    /// The key that proves every later step; its proof over the filing has been verified.
    pub holder_key: HolderKey,
    /// What a use of the token must prove.
    pub confirmation: ConfirmBy,
    /// The one gateway for which it is.
    pub audience: SpiffeId,
    /// What is to be allowed.
    pub scope: Scope,
    /// For which task.
    pub task: TaskId,
    /// Why.
    pub purpose: Purpose,
    /// The lease that is asked for, whole seconds; `None` for the default.
    pub lifetime: Option<Duration>,
    /// The number of uses; `None` for the default.
    pub uses: Option<NonZeroU32>,
    /// That default, by the bundle that was asked; `None` for any number within the lease.
    pub default_uses: Option<NonZeroU32>,
    /// The justification, kept aside.
    pub justification: Option<TextDigest>,
}

/// An exchange of a grant for a token. The proof by the holder key has been verified against the
/// key named here; `decide` compares it with the request's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The request that became the grant.
    pub request: RequestId,
    /// This exchange, drawn by the workload.
    pub id: ExchangeId,
    /// The key that proved it.
    pub holder_key: HolderKey,
    /// The key that would sign, and its end.
    pub signing_key: (KeyId, Timestamp),
}

/// A policy bundle, validated, and what it says of all that is open.
#[derive(Debug, Clone)]
pub struct Application {
    /// Its content address.
    pub bundle: BundleDigest,
    /// Who is who, as it says.
    pub directory: Directory,
    /// The keys whose signatures over it have been verified.
    pub signers: BTreeSet<SignerKey>,
    /// The bundle that it replaces; another one in force means `Reevaluate`.
    pub replaces: Option<BundleDigest>,
    /// What it says of each pending request and live grant. One that is missing, or was about
    /// another state, means `Reevaluate`.
    pub verdicts: BTreeMap<GrantId, Verdict>,
}
