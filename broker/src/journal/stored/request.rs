//! Requests, what is demanded of them, and what tokens say.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use dayfly_verifier::claims::Claims;
use dayfly_verifier::holder::{Confirmation, HolderKey};
use dayfly_verifier::id::{
    Epoch, GrantId, GroupId, KeyId, PersonId, Purpose, RequestDigest, RequestId, TaskId, TokenId,
};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::request::{ConfirmBy, Narrowing, Request, Requirement};
use dayfly_verifier::resource::{Operation, ResourcePattern};
use dayfly_verifier::scope::{ArgName, Constraint, Limit, Right, Scope, Value};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::fixed::Fixed;
use super::{Bytes, Text, seconds, some};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestV1 {
    epoch: Fixed<Epoch>,
    id: Fixed<RequestId>,
    filed_at_ms: u64,
    workload: Text<SpiffeId>,
    principal: Option<Text<PersonId>>,
    holder_key: Fixed<HolderKey>,
    confirm_by: ConfirmByV1,
    audience: Text<SpiffeId>,
    scope: ScopeV1,
    task: Text<TaskId>,
    purpose: Text<Purpose>,
    lifetime_s: u64,
    uses: Option<u32>,
    requirement: RequirementV1,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ConfirmByV1 {
    Key,
    Identity,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequirementV1 {
    approvals: BTreeMap<Text<GroupId>, u32>,
    max_lifetime_s: u64,
    max_uses: Option<u32>,
    online: bool,
    evidence: bool,
    presence: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NarrowingV1 {
    lifetime_s: Option<u64>,
    uses: Option<u32>,
    rights: Option<Vec<RightV1>>,
    constraints: Vec<ConstraintV1>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScopeV1 {
    rights: Vec<RightV1>,
    constraints: Vec<ConstraintV1>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RightV1 {
    operation: Text<Operation>,
    resource: Text<ResourcePattern>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConstraintV1 {
    argument: Text<ArgName>,
    limit: LimitV1,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LimitV1 {
    Equals(ValueV1),
    OneOf(Vec<ValueV1>),
    AtMost(Text<i64>),
    AtLeast(Text<i64>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ValueV1 {
    Int(Text<i64>),
    Text(String),
    Bool(bool),
    Hidden(Bytes),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClaimsV1 {
    token: Fixed<TokenId>,
    grant: Fixed<GrantId>,
    request: Fixed<RequestDigest>,
    task: Text<TaskId>,
    subject: Text<SpiffeId>,
    principal: Option<Text<PersonId>>,
    audience: Text<SpiffeId>,
    scope: ScopeV1,
    holder: ConfirmationV1,
    issued_at_ms: u64,
    expires_at_ms: u64,
    online: bool,
    counted: bool,
    key: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ConfirmationV1 {
    Key(Fixed<HolderKey>),
    Identity,
}

impl From<&Request> for RequestV1 {
    fn from(request: &Request) -> Self {
        let Request { epoch, id, filed_at, workload, principal, holder_key, .. } = request;
        let Request { confirmation, audience, scope, task, purpose, .. } = request;
        let Request { lifetime, uses, requirement, .. } = request;
        Self {
            epoch: epoch.into(),
            id: id.into(),
            filed_at_ms: filed_at.as_ms(),
            workload: workload.into(),
            principal: principal.as_ref().map(Text::from),
            holder_key: holder_key.into(),
            confirm_by: match confirmation {
                ConfirmBy::Key => ConfirmByV1::Key,
                ConfirmBy::Identity => ConfirmByV1::Identity,
            },
            audience: audience.into(),
            scope: scope.into(),
            task: task.into(),
            purpose: purpose.into(),
            lifetime_s: seconds(lifetime),
            uses: uses.map(NonZeroU32::get),
            requirement: requirement.into(),
        }
    }
}

impl TryFrom<RequestV1> for Request {
    type Error = Invalid;

    fn try_from(stored: RequestV1) -> Result<Self, Invalid> {
        Ok(Self {
            epoch: stored.epoch.0,
            id: stored.id.0,
            filed_at: Timestamp::from_ms(stored.filed_at_ms)?,
            workload: stored.workload.0,
            principal: stored.principal.map(|person| person.0),
            holder_key: stored.holder_key.0,
            confirmation: match stored.confirm_by {
                ConfirmByV1::Key => ConfirmBy::Key,
                ConfirmByV1::Identity => ConfirmBy::Identity,
            },
            audience: stored.audience.0,
            scope: stored.scope.try_into()?,
            task: stored.task.0,
            purpose: stored.purpose.0,
            lifetime: Duration::from_secs(stored.lifetime_s),
            uses: stored.uses.map(some).transpose()?,
            requirement: stored.requirement.try_into()?,
        })
    }
}

impl From<&Requirement> for RequirementV1 {
    fn from(requirement: &Requirement) -> Self {
        let Requirement { approvals, max_lifetime, max_uses, online, evidence, presence } =
            requirement;
        Self {
            approvals: approvals.iter().map(|(group, n)| (group.into(), n.get())).collect(),
            max_lifetime_s: seconds(max_lifetime),
            max_uses: max_uses.map(NonZeroU32::get),
            online: *online,
            evidence: *evidence,
            presence: *presence,
        }
    }
}

impl TryFrom<RequirementV1> for Requirement {
    type Error = Invalid;

    fn try_from(stored: RequirementV1) -> Result<Self, Invalid> {
        let RequirementV1 { approvals, max_lifetime_s, max_uses, online, evidence, presence } =
            stored;
        let approvals = approvals.into_iter().map(|(group, count)| Ok((group.0, some(count)?)));
        Ok(Self {
            approvals: approvals.collect::<Result<_, Invalid>>()?,
            max_lifetime: Duration::from_secs(max_lifetime_s),
            max_uses: max_uses.map(some).transpose()?,
            online,
            evidence,
            presence,
        })
    }
}

impl From<&Narrowing> for NarrowingV1 {
    fn from(narrowing: &Narrowing) -> Self {
        let Narrowing { lifetime, uses, rights, constraints } = narrowing;
        Self {
            lifetime_s: lifetime.as_ref().map(seconds),
            uses: uses.map(NonZeroU32::get),
            rights: rights.as_ref().map(|rights| rights.iter().map(Into::into).collect()),
            constraints: constraints.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<NarrowingV1> for Narrowing {
    type Error = Invalid;

    fn try_from(stored: NarrowingV1) -> Result<Self, Invalid> {
        let NarrowingV1 { lifetime_s, uses, rights, constraints } = stored;
        Ok(Self {
            lifetime: lifetime_s.map(Duration::from_secs),
            uses: uses.map(some).transpose()?,
            rights: rights.map(|rights| rights.into_iter().map(Into::into).collect()),
            constraints: constraints
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Scope> for ScopeV1 {
    fn from(scope: &Scope) -> Self {
        Self {
            rights: scope.rights().map(Into::into).collect(),
            constraints: scope.constraints().map(Into::into).collect(),
        }
    }
}

impl TryFrom<ScopeV1> for Scope {
    type Error = Invalid;

    fn try_from(ScopeV1 { rights, constraints }: ScopeV1) -> Result<Self, Invalid> {
        let constraints: Vec<Constraint> =
            constraints.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        Self::new(rights.into_iter().map(Right::from), constraints)
    }
}

impl From<&Right> for RightV1 {
    fn from(Right { operation, resource }: &Right) -> Self {
        Self { operation: operation.into(), resource: resource.into() }
    }
}

impl From<RightV1> for Right {
    fn from(RightV1 { operation, resource }: RightV1) -> Self {
        Self { operation: operation.0, resource: resource.0 }
    }
}

impl From<&Constraint> for ConstraintV1 {
    fn from(Constraint { argument, limit }: &Constraint) -> Self {
        let limit = match limit {
            Limit::Equals(value) => LimitV1::Equals(value.into()),
            Limit::OneOf(values) => LimitV1::OneOf(values.iter().map(Into::into).collect()),
            Limit::AtMost(most) => LimitV1::AtMost(Text(*most)),
            Limit::AtLeast(least) => LimitV1::AtLeast(Text(*least)),
        };
        Self { argument: argument.into(), limit }
    }
}

impl TryFrom<ConstraintV1> for Constraint {
    type Error = Invalid;

    fn try_from(ConstraintV1 { argument, limit }: ConstraintV1) -> Result<Self, Invalid> {
        let limit = match limit {
            LimitV1::Equals(value) => Limit::Equals(value.try_into()?),
            LimitV1::OneOf(values) => Limit::OneOf(
                values.into_iter().map(TryInto::try_into).collect::<Result<_, Invalid>>()?,
            ),
            LimitV1::AtMost(most) => Limit::AtMost(most.0),
            LimitV1::AtLeast(least) => Limit::AtLeast(least.0),
        };
        Ok(Self { argument: argument.0, limit })
    }
}

impl From<&Value> for ValueV1 {
    fn from(value: &Value) -> Self {
        match value {
            Value::Int(int) => Self::Int(Text(*int)),
            Value::Text(text) => Self::Text(text.to_string()),
            Value::Bool(bool) => Self::Bool(*bool),
            Value::Hidden(digest) => Self::Hidden(Bytes(digest.to_vec())),
        }
    }
}

impl TryFrom<ValueV1> for Value {
    type Error = Invalid;

    fn try_from(stored: ValueV1) -> Result<Self, Invalid> {
        match stored {
            ValueV1::Int(int) => Ok(Self::Int(int.0)),
            ValueV1::Text(text) => Self::text(&text),
            ValueV1::Bool(bool) => Ok(Self::Bool(bool)),
            ValueV1::Hidden(Bytes(bytes)) => bytes
                .try_into()
                .map(Self::Hidden)
                .map_err(|_| Invalid::new("value", "a commitment must be 32 bytes long")),
        }
    }
}

impl From<&Claims> for ClaimsV1 {
    fn from(claims: &Claims) -> Self {
        let Claims { token, grant, request, task, subject, principal, audience, .. } = claims;
        let Claims { scope, holder, issued_at, expires_at, online, counted, key, .. } = claims;
        Self {
            token: token.into(),
            grant: grant.into(),
            request: request.into(),
            task: task.into(),
            subject: subject.into(),
            principal: principal.as_ref().map(Text::from),
            audience: audience.into(),
            scope: scope.into(),
            holder: match holder {
                Confirmation::Key(key) => ConfirmationV1::Key(key.into()),
                Confirmation::Identity => ConfirmationV1::Identity,
            },
            issued_at_ms: issued_at.as_ms(),
            expires_at_ms: expires_at.as_ms(),
            online: *online,
            counted: *counted,
            key: key.0,
        }
    }
}

impl TryFrom<ClaimsV1> for Claims {
    type Error = Invalid;

    fn try_from(stored: ClaimsV1) -> Result<Self, Invalid> {
        Ok(Self {
            token: stored.token.0,
            grant: stored.grant.0,
            request: stored.request.0,
            task: stored.task.0,
            subject: stored.subject.0,
            principal: stored.principal.map(|person| person.0),
            audience: stored.audience.0,
            scope: stored.scope.try_into()?,
            holder: match stored.holder {
                ConfirmationV1::Key(key) => Confirmation::Key(key.0),
                ConfirmationV1::Identity => Confirmation::Identity,
            },
            issued_at: Timestamp::from_ms(stored.issued_at_ms)?,
            expires_at: Timestamp::from_ms(stored.expires_at_ms)?,
            online: stored.online,
            counted: stored.counted,
            key: KeyId(stored.key),
        })
    }
}
