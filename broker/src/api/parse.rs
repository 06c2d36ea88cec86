//! What came over the wire, as domain values. After this no string means anything.
//!
//! Every message is taken apart whole, so that a field that nobody reads does not compile; every
//! refusal names the field as the proto does.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use dayfly_proto::v1;
use dayfly_verifier::dossier::MAX_FREE_TEXT_BYTES;
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::{ExchangeId, RequestId, TaskId};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::proof::HolderProof;
use dayfly_verifier::request::ConfirmBy;
use dayfly_verifier::scope::{Constraint, Limit, Right, Scope, Value};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::core::case::Case;
use crate::core::command::Filing;
use crate::core::event::{Target, TaskOutcome};
use crate::core::limits::{MAX_LEASE, MAX_USES};

/// A request as it was filed, with what must be looked at before it is decided.
#[derive(Clone)]
pub struct Filed {
    /// The filing, still without its justification.
    pub filing: Filing,
    /// The justification: free text. It must not be logged.
    pub justification: Option<String>,
    /// The proof by the holder key.
    pub proof: HolderProof,
    /// SHA-256 over the message without its proof: what the proof is over.
    pub digest: [u8; 32],
}

/// A filing.
pub fn filed(message: v1::RequestAccessRequest) -> Result<Filed, Invalid> {
    let unproven = v1::RequestAccessRequest { proof: None, ..message.clone() };
    let digest = Sha256::digest(unproven.encode_to_vec()).into();
    let v1::RequestAccessRequest {
        request_id,
        principal,
        holder_key,
        confirm_by_identity,
        audience,
        scope,
        task,
        purpose,
        justification,
        lifetime_seconds,
        uses,
        proof,
    } = message;
    let filing = Filing {
        default_uses: None,
        id: text("request_id", &request_id)?,
        principal: optional("principal", &principal)?,
        holder_key: HolderKey::from_slice(&holder_key)?,
        confirmation: if confirm_by_identity { ConfirmBy::Identity } else { ConfirmBy::Key },
        audience: text("audience", &audience)?,
        scope: self::scope(scope)?,
        task: text("task", &task)?,
        purpose: text("purpose", &purpose)?,
        lifetime: lifetime(lifetime_seconds)?,
        uses: self::uses(uses)?,
        justification: None,
    };
    let justification = free_text("justification", justification)?;
    Ok(Filed { filing, justification, proof: self::proof(proof)?, digest })
}

fn uses(uses: u32) -> Result<Option<NonZeroU32>, Invalid> {
    if uses > MAX_USES {
        return Err(Invalid::new("uses", format!("must be at most {MAX_USES}")));
    }
    Ok(NonZeroU32::new(uses))
}

/// A call about one request of the caller: its id and the proof by its holder key.
#[derive(Clone)]
pub struct Held {
    /// The request.
    pub request: RequestId,
    /// The proof.
    pub proof: HolderProof,
}

fn held(request_id: &str, proof: Option<v1::HolderProof>) -> Result<Held, Invalid> {
    Ok(Held { request: text("request_id", request_id)?, proof: self::proof(proof)? })
}

/// What to watch.
pub fn watch(message: v1::WatchRequestRequest) -> Result<Held, Invalid> {
    let v1::WatchRequestRequest { request_id, proof } = message;
    held(&request_id, proof)
}

/// What to exchange, under which id.
pub fn exchange(message: v1::ExchangeRequest) -> Result<(Held, ExchangeId), Invalid> {
    let v1::ExchangeRequest { request_id, exchange_id, proof } = message;
    Ok((held(&request_id, proof)?, text("exchange_id", &exchange_id)?))
}

/// What is complete, and how it went.
pub fn complete(message: v1::CompleteRequest) -> Result<(Held, TaskOutcome), Invalid> {
    use v1::complete_request::Outcome;
    let v1::CompleteRequest { request_id, outcome, proof } = message;
    let outcome = match Outcome::try_from(outcome) {
        Ok(Outcome::Succeeded) => TaskOutcome::Succeeded,
        Ok(Outcome::Failed) => TaskOutcome::Failed,
        Ok(Outcome::Unspecified) | Err(_) => {
            return Err(Invalid::new("outcome", "must be succeeded or failed"));
        }
    };
    Ok((held(&request_id, proof)?, outcome))
}

/// What to take back.
pub fn cancel(message: v1::CancelRequest) -> Result<Held, Invalid> {
    let v1::CancelRequest { request_id, proof } = message;
    held(&request_id, proof)
}

/// Whose dossier to give.
pub fn dossier(message: v1::GetDossierRequest) -> Result<Held, Invalid> {
    let v1::GetDossierRequest { request_id, proof } = message;
    held(&request_id, proof)
}

fn proof(message: Option<v1::HolderProof>) -> Result<HolderProof, Invalid> {
    let message = message.ok_or_else(|| Invalid::new("proof", "must be there"))?;
    let v1::HolderProof { at_ms, signature } = message;
    let signature = signature.as_ref().try_into();
    let signature =
        signature.map_err(|_| Invalid::new("proof.signature", "must be 64 bytes long"))?;
    Ok(HolderProof { at: time("proof.at_ms", at_ms)?, signature })
}

/// A time in milliseconds.
pub fn time(field: &'static str, ms: i64) -> Result<Timestamp, Invalid> {
    let ms = u64::try_from(ms).map_err(|_| Invalid::new(field, "must not lie before 1970"))?;
    Timestamp::from_ms(ms).map_err(|invalid| invalid.of(field))
}

/// A lease: whole seconds, at most twelve hours; 0 for the default.
fn lifetime(seconds: u64) -> Result<Option<Duration>, Invalid> {
    if seconds > MAX_LEASE.as_secs() {
        return Err(Invalid::new("lifetime_seconds", "must be at most 43200 (12 hours)"));
    }
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}

/// A free text, which may be empty.
pub fn free_text(field: &'static str, text: String) -> Result<Option<String>, Invalid> {
    if text.len() > MAX_FREE_TEXT_BYTES {
        return Err(Invalid::new(field, "must not be longer than 2048 bytes"));
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// A value that its own type reads from text, refused under the name of the field.
pub fn text<T: FromStr<Err = Invalid>>(field: &'static str, text: &str) -> Result<T, Invalid> {
    text.parse().map_err(|invalid: Invalid| invalid.of(field))
}

/// The same, where empty text is none.
pub fn optional<T: FromStr<Err = Invalid>>(
    field: &'static str,
    value: &str,
) -> Result<Option<T>, Invalid> {
    if value.is_empty() { Ok(None) } else { text(field, value).map(Some) }
}

/// A scope.
pub fn scope(message: Option<v1::Scope>) -> Result<Scope, Invalid> {
    let message = message.ok_or_else(|| Invalid::new("scope", "must be there"))?;
    let v1::Scope { rights, constraints } = message;
    let rights = each("scope.rights", rights, right)?;
    let constraints = each("scope.constraints", constraints, constraint)?;
    Scope::new(rights, constraints).map_err(|invalid| invalid.within("scope"))
}

fn each<T, U>(
    field: &str,
    items: Vec<T>,
    parse: impl Fn(T) -> Result<U, Invalid>,
) -> Result<Vec<U>, Invalid> {
    let one = |(n, item)| parse(item).map_err(|invalid| invalid.within(&format!("{field}[{n}]")));
    items.into_iter().enumerate().map(one).collect()
}

/// A right.
pub fn right(message: v1::Right) -> Result<Right, Invalid> {
    let v1::Right { operation, resource } = message;
    Ok(Right { operation: operation.parse()?, resource: text("resource", &resource)? })
}

/// A constraint.
pub fn constraint(message: v1::Constraint) -> Result<Constraint, Invalid> {
    use v1::constraint::Limit as Wire;
    let v1::Constraint { argument, limit } = message;
    let limit = match limit.ok_or_else(|| Invalid::new("limit", "must be there"))? {
        Wire::Equals(equal) => Limit::Equals(value(equal)?),
        Wire::OneOf(v1::Values { values }) => {
            let count = values.len();
            let set: BTreeSet<Value> = each("one_of", values, value)?.into_iter().collect();
            if set.len() != count {
                return Err(Invalid::new("one_of", "must not hold the same value twice"));
            }
            Limit::OneOf(set)
        }
        Wire::AtMost(most) => Limit::AtMost(most),
        Wire::AtLeast(least) => Limit::AtLeast(least),
    };
    limit.check()?;
    Ok(Constraint { argument: text("argument", &argument)?, limit })
}

/// The value of an argument.
pub fn value(message: v1::Value) -> Result<Value, Invalid> {
    use v1::value::Kind;
    match message.kind.ok_or_else(|| Invalid::new("value", "must be there"))? {
        Kind::Int(int) => Ok(Value::Int(int)),
        Kind::Text(text) => Value::text(&text),
        Kind::Bool(bool) => Ok(Value::Bool(bool)),
        // No bundle can say yet which arguments are sensitive: policy could not look at it.
        Kind::Hidden(_) => Err(Invalid::new("value", "must not be hidden: bundles hide none yet")),
    }
}

/// Which requests and grants to list.
#[derive(Debug, Clone)]
pub struct Filter {
    standings: Vec<v1::Standing>,
    workload: Option<SpiffeId>,
    task: Option<TaskId>,
}

impl Filter {
    /// Whether to list `case`, wherever it stands.
    #[must_use]
    pub fn admits(&self, case: &Case) -> bool {
        self.workload.as_ref().is_none_or(|workload| *workload == case.request.workload)
            && self.task.as_ref().is_none_or(|task| *task == case.request.task)
    }

    /// Whether to list what stands so.
    #[must_use]
    pub fn shows(&self, standing: v1::Standing) -> bool {
        self.standings.is_empty() || self.standings.contains(&standing)
    }
}

/// Which requests and grants to list.
pub fn list_grants(message: v1::ListGrantsRequest) -> Result<Filter, Invalid> {
    let v1::ListGrantsRequest { standings, workload, task } = message;
    let standing = |standing| match v1::Standing::try_from(standing) {
        Ok(v1::Standing::Unspecified) | Err(_) => {
            Err(Invalid::new("standings", "must be standings that there are"))
        }
        Ok(standing) => Ok(standing),
    };
    Ok(Filter {
        standings: standings.into_iter().map(standing).collect::<Result<_, _>>()?,
        workload: optional("workload", &workload)?,
        task: optional("task", &task)?,
    })
}

/// What a revocation takes back.
pub fn target(message: Option<v1::RevocationTarget>) -> Result<Target, Invalid> {
    use v1::revocation_target::Target as Wire;
    let target = message.and_then(|v1::RevocationTarget { target }| target);
    Ok(match target.ok_or_else(|| Invalid::new("target", "must be there"))? {
        Wire::Grant(grant) => Target::Grant(text("target.grant", &grant)?),
        Wire::Token(token) => Target::Token(text("target.token", &token)?),
        Wire::Block(block) if block.len() == 64 => Target::Block(block.to_vec()),
        Wire::Block(_) => return Err(Invalid::new("target.block", "must be 64 bytes long")),
        Wire::Delegate(v1::Delegate { grant, holder_key }) => Target::Delegate(
            text("target.delegate.grant", &grant)?,
            text("target.delegate.holder_key", &holder_key)?,
        ),
        Wire::Workload(id) => Target::Workload(text("target.workload", &id)?),
        Wire::Task(task) => Target::Task(text("target.task", &task)?),
        Wire::ResourcePrefix(prefix) => Target::Prefix(text("target.resource_prefix", &prefix)?),
        Wire::Key(key) => Target::Key(dayfly_verifier::id::KeyId(key)),
    })
}
