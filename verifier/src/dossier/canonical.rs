//! The canonical form of a request: the bytes that its digest is taken over, that approvers'
//! clients show, and that travel in a dossier.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::form::{self, ConstraintForm, RightForm, Text};
use crate::holder::HolderKey;
use crate::id::{Epoch, GroupId, PersonId, Purpose, RequestDigest, RequestId, TaskId};
use crate::invalid::Invalid;
use crate::request::{ConfirmBy, Request, Requirement};
use crate::scope::{Constraint, Right, Scope};
use crate::spiffe::SpiffeId;
use crate::time::Timestamp;

/// The longest canonical request, in bytes. A longer one could not be shown to a person in full.
pub const MAX_CANONICAL_BYTES: usize = 32 * 1024;

/// What stands before the canonical request when it is hashed, with a zero byte after it.
const DIGEST_DOMAIN: &[u8] = b"dayfly.request.v1\0";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestForm {
    epoch: Text<Epoch>,
    request_id: Text<RequestId>,
    filed_at_ms: Text<u64>,
    workload: Text<SpiffeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<Text<PersonId>>,
    holder_key: Text<HolderKey>,
    confirmation: ConfirmForm,
    audience: Text<SpiffeId>,
    scope: ScopeForm,
    task: Text<TaskId>,
    purpose: Text<Purpose>,
    lifetime_seconds: Text<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uses: Option<Text<NonZeroU32>>,
    requirement: RequirementForm,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ConfirmForm {
    Key,
    Identity,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeForm {
    rights: Vec<RightForm>,
    constraints: Vec<ConstraintForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequirementForm {
    approvals: BTreeMap<String, Text<NonZeroU32>>,
    max_lifetime_seconds: Text<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_uses: Option<Text<NonZeroU32>>,
    online: bool,
    evidence: bool,
    presence: bool,
}

impl Request {
    /// Its canonical form: RFC 8785 JSON, specified in `FORMAT.md`. [`parse_canonical`] is the
    /// inverse, for requests whose form is not longer than [`MAX_CANONICAL_BYTES`].
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        form::write(&RequestForm::from(self))
    }

    /// SHA-256 over `dayfly.request.v1`, a zero byte, and the canonical form.
    #[must_use]
    pub fn digest(&self) -> RequestDigest {
        let hash = Sha256::new_with_prefix(DIGEST_DOMAIN).chain_update(self.canonical());
        RequestDigest::new(hash.finalize().into())
    }
}

/// Reads a canonical request. Refuses every other form of the same request, unknown, repeated and
/// missing members, and what no request can hold.
pub fn parse_canonical(bytes: &[u8]) -> Result<Request, Invalid> {
    let form: RequestForm = form::read(bytes, MAX_CANONICAL_BYTES, "canonical_request")?;
    let request = Request::try_from(form).map_err(|invalid| invalid.within("canonical_request"))?;
    // Repeated members, other spellings, `null` and the order of sets show here.
    if request.canonical() == bytes {
        Ok(request)
    } else {
        Err(Invalid::new("canonical_request", "must be in its canonical form"))
    }
}

impl From<&Request> for RequestForm {
    fn from(request: &Request) -> Self {
        let Request {
            epoch,
            id,
            filed_at,
            workload,
            principal,
            holder_key,
            confirmation,
            audience,
            scope,
            task,
            purpose,
            lifetime,
            uses,
            requirement,
        } = request;
        Self {
            epoch: Text(*epoch),
            request_id: Text(*id),
            filed_at_ms: Text(filed_at.as_ms()),
            workload: Text(workload.clone()),
            principal: principal.clone().map(Text),
            holder_key: Text(*holder_key),
            confirmation: match confirmation {
                ConfirmBy::Key => ConfirmForm::Key,
                ConfirmBy::Identity => ConfirmForm::Identity,
            },
            audience: Text(audience.clone()),
            scope: ScopeForm {
                rights: form::set(scope.rights()),
                constraints: form::set(scope.constraints()),
            },
            task: Text(task.clone()),
            purpose: Text(purpose.clone()),
            lifetime_seconds: Text(lifetime.as_secs()),
            uses: uses.map(Text),
            requirement: requirement.into(),
        }
    }
}

impl From<&Requirement> for RequirementForm {
    fn from(requirement: &Requirement) -> Self {
        let Requirement { approvals, max_lifetime, max_uses, online, evidence, presence } =
            requirement;
        let count = |(group, count): (&GroupId, &NonZeroU32)| (group.to_string(), Text(*count));
        Self {
            approvals: approvals.iter().map(count).collect(),
            max_lifetime_seconds: Text(max_lifetime.as_secs()),
            max_uses: max_uses.map(Text),
            online: *online,
            evidence: *evidence,
            presence: *presence,
        }
    }
}

impl TryFrom<RequestForm> for Request {
    type Error = Invalid;

    fn try_from(form: RequestForm) -> Result<Self, Invalid> {
        let ScopeForm { rights, constraints } = form.scope;
        let constraints = constraints
            .into_iter()
            .map(Constraint::try_from)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|invalid| invalid.within("scope"))?;
        Ok(Self {
            epoch: form.epoch.0,
            id: form.request_id.0,
            filed_at: Timestamp::from_ms(form.filed_at_ms.0)?,
            workload: form.workload.0,
            principal: form.principal.map(|text| text.0),
            holder_key: form.holder_key.0,
            confirmation: match form.confirmation {
                ConfirmForm::Key => ConfirmBy::Key,
                ConfirmForm::Identity => ConfirmBy::Identity,
            },
            audience: form.audience.0,
            scope: Scope::new(rights.into_iter().map(Right::from), constraints)?,
            task: form.task.0,
            purpose: form.purpose.0,
            lifetime: Duration::from_secs(form.lifetime_seconds.0),
            uses: form.uses.map(|text| text.0),
            requirement: form.requirement.try_into()?,
        })
    }
}

impl TryFrom<RequirementForm> for Requirement {
    type Error = Invalid;

    fn try_from(form: RequirementForm) -> Result<Self, Invalid> {
        let mut approvals = BTreeMap::new();
        for (group, Text(count)) in form.approvals {
            approvals.insert(group.parse::<GroupId>()?, count);
        }
        Ok(Self {
            approvals,
            max_lifetime: Duration::from_secs(form.max_lifetime_seconds.0),
            max_uses: form.max_uses.map(|text| text.0),
            online: form.online,
            evidence: form.evidence,
            presence: form.presence,
        })
    }
}
