//! Everything that can happen. Variants are only ever added.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use dayfly_verifier::claims::Claims;
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::{
    BatchDigest, BundleDigest, ChainHash, Epoch, ExchangeId, GrantId, InstanceId, KeyId, LockId,
    PersonId, RequestDigest, Seq, SnapshotDigest, TextDigest, TokenId, UseId,
};
pub use dayfly_verifier::request::Answer;
use dayfly_verifier::request::{Request, Requirement, SignerKey};
pub use dayfly_verifier::revocations::{Lock, Target};
use dayfly_verifier::scope::Scope;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use dayfly_verifier::uses::Batch;

use super::directory::Directory;
use super::verdict::Refusal;

/// The end of the log. Two heads are the same only if all three parts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Head {
    /// The epoch of the log.
    pub epoch: Epoch,
    /// The place of its last entry; 0 before the first.
    pub seq: Seq,
    /// The hash chain over all its entries.
    pub hash: ChainHash,
}

impl Head {
    /// The end of a log without entries.
    pub const ORIGIN: Self =
        Self { epoch: Epoch::new([0; 16]), seq: Seq(0), hash: ChainHash::new([0; 32]) };
}

/// What happened, who did it, when it was decided, under which policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who did it.
    pub by: Actor,
    /// When it was decided. Never earlier than the entry before.
    pub at: Timestamp,
    /// The bundle in force; `None` before the first.
    pub policy: Option<BundleDigest>,
    /// What happened.
    pub event: Event,
}

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A workload, by its authenticated ID.
    Workload(SpiffeId),
    /// A person, by name and by the ID that they came with.
    Person(PersonId, SpiffeId),
    /// A gateway, by its authenticated ID.
    Gateway(SpiffeId),
    /// The broker itself, by its ID.
    Broker(SpiffeId),
    /// Whoever ran a command on the broker's host: `init`.
    Host,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The log begins, or goes on after a restore.
    EpochOpened {
        /// The new epoch.
        epoch: Epoch,
        /// The head after which it goes on; `None` for a new log.
        parent: Option<Head>,
        /// The keys of the founding policy admins.
        founders: BTreeSet<SignerKey>,
        /// The version of the entry format that brokers may write.
        format: u32,
    },
    /// A policy bundle came into force.
    BundleApplied {
        /// Its content address.
        bundle: BundleDigest,
        /// Who is who, as it says.
        directory: Directory,
        /// The keys that signed it.
        signers: BTreeSet<SignerKey>,
    },
    /// A token-signing key may be used.
    KeyAdded {
        /// Its number.
        key: KeyId,
        /// Its public half.
        public: HolderKey,
        /// From when on it signs nothing and nothing that it signed is accepted.
        not_after: Timestamp,
    },
    /// A token-signing key signs nothing any more; what it signed stays good.
    KeyRetired {
        /// Its number.
        key: KeyId,
    },
    /// A request came in that policy may permit.
    RequestFiled {
        /// The request.
        request: Request,
        /// The justification, kept aside.
        justification: Option<TextDigest>,
        /// From when on it has expired unanswered.
        until: Timestamp,
    },
    /// A request came in that policy refused.
    RequestRefused {
        /// The request. Its requirement is empty.
        request: Request,
        /// The justification, kept aside.
        justification: Option<TextDigest>,
        /// Why.
        refusal: Refusal,
    },
    /// A new bundle demands something else of a pending request: its digest changes, and the
    /// decisions on it so far fall.
    RequirementChanged {
        /// The request.
        grant: GrantId,
        /// What is demanded now.
        requirement: Requirement,
    },
    /// A person decided.
    DecisionRecorded {
        /// The request.
        grant: GrantId,
        /// The decision.
        decision: Decision,
    },
    /// A person took an approval back before the grant.
    DecisionWithdrawn {
        /// The request.
        grant: GrantId,
        /// The person.
        person: PersonId,
    },
    /// The requirement is met: the lease starts.
    Granted {
        /// The request that became it.
        grant: GrantId,
        /// What it gives.
        terms: Terms,
    },
    /// A token may be signed.
    TokenRecorded {
        /// The exchange that asked for it.
        exchange: ExchangeId,
        /// What it will say.
        claims: Claims,
    },
    /// An exchange was answered with the token that the grant had, and always will be.
    ExchangeAnswered {
        /// The grant.
        grant: GrantId,
        /// The exchange.
        exchange: ExchangeId,
        /// The token.
        token: TokenId,
    },
    /// A use of a counted grant was redeemed.
    UseRedeemed {
        /// The grant.
        grant: GrantId,
        /// The token that was used.
        token: TokenId,
        /// The use, drawn by the client.
        use_id: UseId,
    },
    /// A request or grant came to its end by other ways than a decision or a revocation.
    Ended {
        /// The request or grant.
        grant: GrantId,
        /// How.
        end: End,
    },
    /// Something became of an identity that the embedded authority gives.
    IdentityChanged {
        /// Whose it is.
        id: SpiffeId,
        /// What.
        change: IdentityChange,
    },
    /// Something was taken back.
    Revoked {
        /// What.
        target: Target,
        /// The reason, kept aside.
        reason: Option<TextDigest>,
    },
    /// A lock was set, or its end put off.
    Locked {
        /// What it refuses.
        lock: Lock,
        /// Its end.
        until: Timestamp,
        /// The reason, kept aside.
        reason: Option<TextDigest>,
    },
    /// A lock was lifted.
    Unlocked {
        /// Its id.
        lock: LockId,
    },
    /// A gateway's instance follows that does not refuse when it hears nothing.
    OptedOut {
        /// The process.
        instance: InstanceId,
    },
    /// A gateway told what was done with tokens, counted.
    UsesReported(Report),
    /// A broker keeps a snapshot of the fold, to start from.
    SnapshotTaken(Snapshot),
}

/// What identifies a snapshot of the fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// The end of what was folded.
    pub of: Head,
    /// The version of the fold.
    pub fold: u32,
    /// Of its content.
    pub digest: SnapshotDigest,
}

/// What a gateway counted, as far as it is about grants of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The batch, without the counts that follow in `unplaced`.
    pub batch: Batch,
    /// How many uses were of grants that are not known here, or not any more.
    pub unplaced: u64,
    /// The seal of the batch as the gateway sent it.
    pub digest: BatchDigest,
}

impl Event {
    /// The epoch that begins with it, if one does.
    #[must_use]
    pub const fn opens(&self) -> Option<Epoch> {
        if let Self::EpochOpened { epoch, .. } = self { Some(*epoch) } else { None }
    }

    /// The free text that stands beside the log for it, if it names one.
    #[must_use]
    pub const fn text(&self) -> Option<&TextDigest> {
        match self {
            Self::RequestFiled { justification: text, .. }
            | Self::RequestRefused { justification: text, .. }
            | Self::DecisionRecorded { decision: Decision { reason: text, .. }, .. }
            | Self::Revoked { reason: text, .. }
            | Self::Locked { reason: text, .. } => text.as_ref(),
            Self::EpochOpened { .. }
            | Self::BundleApplied { .. }
            | Self::KeyAdded { .. }
            | Self::KeyRetired { .. }
            | Self::RequirementChanged { .. }
            | Self::DecisionWithdrawn { .. }
            | Self::Granted { .. }
            | Self::TokenRecorded { .. }
            | Self::ExchangeAnswered { .. }
            | Self::UseRedeemed { .. }
            | Self::Ended { .. }
            | Self::UsesReported(_)
            | Self::SnapshotTaken(_)
            | Self::IdentityChanged { .. }
            | Self::Unlocked { .. }
            | Self::OptedOut { .. } => None,
        }
    }
}

/// A person's signed decision on one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Who decided.
    pub person: PersonId,
    /// What they decided on.
    pub digest: RequestDigest,
    /// Yes or no.
    pub answer: Answer,
    /// The reason, kept aside.
    pub reason: Option<TextDigest>,
    /// When, by the clock of the one who signed; when it was recorded, where nobody did.
    pub at: Timestamp,
    /// What makes it theirs; `None` for a denial, which mutual TLS alone may carry.
    pub evidence: Option<Evidence>,
}

/// A statement as it was signed, and its signature: evidence that needs no trust in the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The key that signed.
    pub key: SignerKey,
    /// The statement, byte for byte.
    pub statement: Vec<u8>,
    /// The armoured SSHSIG over it.
    pub signature: String,
}

/// What a grant gives: the intersection of the request and all narrowings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// When the lease starts.
    pub from: Timestamp,
    /// From when on nothing is allowed any more.
    pub until: Timestamp,
    /// What is allowed.
    pub scope: Scope,
    /// How many uses; `None` for any number within the lease.
    pub uses: Option<NonZeroU32>,
    /// Whether each use is evaluated by the broker.
    pub online: bool,
}

/// What became of an identity. Renewals are no events: they give nobody anything new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityChange {
    /// Whoever gets the join string may join as it, once.
    Invited,
    /// Somebody joined as it, by an invitation; if it was locked, it is not any more.
    Joined {
        /// Which one of its certificates they got.
        generation: u64,
    },
    /// One of its certificates was renewed twice: it is locked until somebody joins as it anew.
    Locked,
}

/// How a request or grant came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Its holder took the request, or what was left of the grant, back.
    Cancelled,
    /// Its holder is done.
    Completed(TaskOutcome),
    /// Policy would not grant it any more.
    Drifted(Refusal),
}

/// How the task ended, in the words of the holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskOutcome {
    /// It did what it set out to do.
    Succeeded,
    /// It did not.
    Failed,
}
