//! What events are made of: decisions, terms, ends, targets.

use std::num::NonZeroU32;

use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::{
    ChainHash, Epoch, GrantId, KeyId, LockId, PersonId, RequestDigest, Seq, SnapshotDigest, TaskId,
    TextDigest, TokenId,
};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::request::SignerKey;
use dayfly_verifier::resource::Resource;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::request::{NarrowingV1, ScopeV1};
use super::{Bytes, Text, some};
use crate::core::event::{
    Answer, Decision, End, Evidence, Head, IdentityChange, Lock, Snapshot, Target, TaskOutcome,
    Terms,
};
use crate::core::verdict::Refusal;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeadV1 {
    epoch: Text<Epoch>,
    seq: u64,
    hash: Text<ChainHash>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SnapshotV1 {
    of: HeadV1,
    fold: u32,
    digest: Text<SnapshotDigest>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RefusalV1 {
    policy: String,
    reason: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DecisionV1 {
    person: Text<PersonId>,
    digest: Text<RequestDigest>,
    answer: AnswerV1,
    reason: Option<Text<TextDigest>>,
    at_ms: u64,
    evidence: Option<EvidenceV1>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AnswerV1 {
    Approve(NarrowingV1),
    Deny,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EvidenceV1 {
    key: Text<SignerKey>,
    statement: Bytes,
    signature: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TermsV1 {
    from_ms: u64,
    until_ms: u64,
    scope: ScopeV1,
    uses: Option<u32>,
    online: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EndV1 {
    Cancelled,
    Completed(TaskOutcomeV1),
    Drifted(RefusalV1),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TaskOutcomeV1 {
    Succeeded,
    Failed,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum IdentityChangeV1 {
    Invited,
    Joined { generation: u64 },
    Locked,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum TargetV1 {
    Grant(Text<GrantId>),
    Token(Text<TokenId>),
    Block(Bytes),
    Delegate { grant: Text<GrantId>, key: Text<HolderKey> },
    Workload(Text<SpiffeId>),
    Task(Text<TaskId>),
    Prefix(Text<Resource>),
    Key(u32),
}

impl From<IdentityChange> for IdentityChangeV1 {
    fn from(change: IdentityChange) -> Self {
        match change {
            IdentityChange::Invited => Self::Invited,
            IdentityChange::Joined { generation } => Self::Joined { generation },
            IdentityChange::Locked => Self::Locked,
        }
    }
}

impl From<IdentityChangeV1> for IdentityChange {
    fn from(stored: IdentityChangeV1) -> Self {
        match stored {
            IdentityChangeV1::Invited => Self::Invited,
            IdentityChangeV1::Joined { generation } => Self::Joined { generation },
            IdentityChangeV1::Locked => Self::Locked,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LockV1 {
    id: Text<LockId>,
    workload: Option<Text<SpiffeId>>,
    task: Option<Text<TaskId>>,
    prefix: Option<Text<Resource>>,
    person: Option<Text<PersonId>>,
}

impl From<&Head> for HeadV1 {
    fn from(Head { epoch, seq, hash }: &Head) -> Self {
        Self { epoch: epoch.into(), seq: seq.0, hash: hash.into() }
    }
}

impl From<&HeadV1> for Head {
    fn from(HeadV1 { epoch, seq, hash }: &HeadV1) -> Self {
        Self { epoch: epoch.0, seq: Seq(*seq), hash: hash.0 }
    }
}

impl From<HeadV1> for Head {
    fn from(stored: HeadV1) -> Self {
        Self::from(&stored)
    }
}

impl From<&Snapshot> for SnapshotV1 {
    fn from(Snapshot { of, fold, digest }: &Snapshot) -> Self {
        Self { of: of.into(), fold: *fold, digest: digest.into() }
    }
}

impl From<SnapshotV1> for Snapshot {
    fn from(SnapshotV1 { of, fold, digest }: SnapshotV1) -> Self {
        Self { of: of.into(), fold, digest: digest.0 }
    }
}

impl From<&Refusal> for RefusalV1 {
    fn from(Refusal { policy, reason }: &Refusal) -> Self {
        Self { policy: policy.clone(), reason: reason.clone() }
    }
}

impl From<RefusalV1> for Refusal {
    fn from(RefusalV1 { policy, reason }: RefusalV1) -> Self {
        Self { policy, reason }
    }
}

impl From<&Decision> for DecisionV1 {
    fn from(decision: &Decision) -> Self {
        let Decision { person, digest, answer, reason, at, evidence } = decision;
        Self {
            person: person.into(),
            digest: digest.into(),
            answer: match answer {
                Answer::Approve(narrowing) => AnswerV1::Approve(narrowing.into()),
                Answer::Deny => AnswerV1::Deny,
            },
            reason: reason.map(Text),
            at_ms: at.as_ms(),
            evidence: evidence.as_ref().map(|Evidence { key, statement, signature }| EvidenceV1 {
                key: key.into(),
                statement: Bytes(statement.clone()),
                signature: signature.clone(),
            }),
        }
    }
}

impl TryFrom<DecisionV1> for Decision {
    type Error = Invalid;

    fn try_from(stored: DecisionV1) -> Result<Self, Invalid> {
        let DecisionV1 { person, digest, answer, reason, at_ms, evidence } = stored;
        Ok(Self {
            person: person.0,
            digest: digest.0,
            answer: match answer {
                AnswerV1::Approve(narrowing) => Answer::Approve(narrowing.try_into()?),
                AnswerV1::Deny => Answer::Deny,
            },
            reason: reason.map(|text| text.0),
            at: Timestamp::from_ms(at_ms)?,
            evidence: evidence.map(|EvidenceV1 { key, statement, signature }| Evidence {
                key: key.0,
                statement: statement.0,
                signature,
            }),
        })
    }
}

impl From<&Terms> for TermsV1 {
    fn from(Terms { from, until, scope, uses, online }: &Terms) -> Self {
        Self {
            from_ms: from.as_ms(),
            until_ms: until.as_ms(),
            scope: scope.into(),
            uses: uses.map(NonZeroU32::get),
            online: *online,
        }
    }
}

impl TryFrom<TermsV1> for Terms {
    type Error = Invalid;

    fn try_from(stored: TermsV1) -> Result<Self, Invalid> {
        let TermsV1 { from_ms, until_ms, scope, uses, online } = stored;
        Ok(Self {
            from: Timestamp::from_ms(from_ms)?,
            until: Timestamp::from_ms(until_ms)?,
            scope: scope.try_into()?,
            uses: uses.map(some).transpose()?,
            online,
        })
    }
}

impl From<TaskOutcome> for TaskOutcomeV1 {
    fn from(outcome: TaskOutcome) -> Self {
        match outcome {
            TaskOutcome::Succeeded => Self::Succeeded,
            TaskOutcome::Failed => Self::Failed,
        }
    }
}

impl From<TaskOutcomeV1> for TaskOutcome {
    fn from(stored: TaskOutcomeV1) -> Self {
        match stored {
            TaskOutcomeV1::Succeeded => Self::Succeeded,
            TaskOutcomeV1::Failed => Self::Failed,
        }
    }
}

impl From<&End> for EndV1 {
    fn from(end: &End) -> Self {
        match end {
            End::Cancelled => Self::Cancelled,
            End::Completed(outcome) => Self::Completed((*outcome).into()),
            End::Drifted(refusal) => Self::Drifted(refusal.into()),
        }
    }
}

impl From<EndV1> for End {
    fn from(stored: EndV1) -> Self {
        match stored {
            EndV1::Cancelled => Self::Cancelled,
            EndV1::Completed(outcome) => Self::Completed(outcome.into()),
            EndV1::Drifted(refusal) => Self::Drifted(refusal.into()),
        }
    }
}

impl From<&Target> for TargetV1 {
    fn from(target: &Target) -> Self {
        match target {
            Target::Grant(grant) => Self::Grant(grant.into()),
            Target::Token(token) => Self::Token(token.into()),
            Target::Block(block) => Self::Block(Bytes(block.clone())),
            Target::Delegate(grant, key) => Self::Delegate { grant: grant.into(), key: key.into() },
            Target::Workload(id) => Self::Workload(id.into()),
            Target::Task(task) => Self::Task(task.into()),
            Target::Prefix(resource) => Self::Prefix(resource.into()),
            Target::Key(key) => Self::Key(key.0),
        }
    }
}

impl From<TargetV1> for Target {
    fn from(stored: TargetV1) -> Self {
        match stored {
            TargetV1::Grant(grant) => Self::Grant(grant.0),
            TargetV1::Token(token) => Self::Token(token.0),
            TargetV1::Block(block) => Self::Block(block.0),
            TargetV1::Delegate { grant, key } => Self::Delegate(grant.0, key.0),
            TargetV1::Workload(id) => Self::Workload(id.0),
            TargetV1::Task(task) => Self::Task(task.0),
            TargetV1::Prefix(resource) => Self::Prefix(resource.0),
            TargetV1::Key(key) => Self::Key(KeyId(key)),
        }
    }
}

impl From<&Lock> for LockV1 {
    fn from(Lock { id, workload, task, prefix, person }: &Lock) -> Self {
        Self {
            id: id.into(),
            workload: workload.as_ref().map(Into::into),
            task: task.as_ref().map(Into::into),
            prefix: prefix.as_ref().map(Into::into),
            person: person.as_ref().map(Into::into),
        }
    }
}

impl From<LockV1> for Lock {
    fn from(LockV1 { id, workload, task, prefix, person }: LockV1) -> Self {
        Self {
            id: id.0,
            workload: workload.map(|id| id.0),
            task: task.map(|id| id.0),
            prefix: prefix.map(|prefix| prefix.0),
            person: person.map(|name| name.0),
        }
    }
}
