//! A person's statement about one request, and its signature.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::form::{self, ConstraintForm, RightForm, Text};
use super::sshsig::{BadSignature, verify_sshsig};
use crate::id::{GrantId, PersonId, RequestDigest, TextDigest};
use crate::invalid::Invalid;
use crate::request::{Answer, Narrowing, SignerKey};
use crate::scope::{Constraint, MAX_CONSTRAINTS, MAX_RIGHTS, Right};
use crate::time::Timestamp;

/// The namespace in which statements are signed: `ssh-keygen -Y sign -n decision.v1@dayfly`.
pub const DECISION_NAMESPACE: &str = "decision.v1@dayfly";

/// The longest statement, in bytes.
pub const MAX_STATEMENT_BYTES: usize = 32 * 1024;

/// What a person signs: their answer to one request in one form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The request, by the id of the grant that it may become.
    pub grant: GrantId,
    /// The digest of the request as it was shown.
    pub digest: RequestDigest,
    /// Who says so.
    pub person: PersonId,
    /// Yes, to how much; or no.
    pub answer: Answer,
    /// The salted digest of the reason.
    pub reason: Option<TextDigest>,
    /// When, by the clock of the one who says so.
    pub at: Timestamp,
}

/// Why a signed statement does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// Its signature does not hold.
    #[error("{0}")]
    Signature(BadSignature),
    /// It is not a statement in canonical form.
    #[error("{0}")]
    Statement(Invalid),
    /// It is about another request.
    #[error("the statement is about another request")]
    OtherRequest,
    /// It is about another form of the request.
    #[error("the statement is about another form of the request")]
    OtherDigest,
}

/// A statement whose signature holds. Only [`verify_decision`] makes one.
///
/// ```compile_fail,E0451
/// # use dayfly_verifier::{dossier::*, request::SignerKey};
/// # fn f(statement: Statement, key: SignerKey) {
/// let forged = VerifiedStatement { statement, key, presence: true };
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedStatement {
    statement: Statement,
    key: SignerKey,
    presence: bool,
}

impl VerifiedStatement {
    /// What was signed.
    #[must_use]
    pub const fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The key that signed it. Whether it is one of the person's is not checked here.
    #[must_use]
    pub const fn key(&self) -> &SignerKey {
        &self.key
    }

    /// Whether the key stands on a FIDO token that somebody touched for this signature.
    #[must_use]
    pub const fn shows_presence(&self) -> bool {
        self.presence
    }
}

/// Verifies that `armoured` signs `statement`, and that it is about `grant` as `digest` names it.
///
/// The signature is verified before anything is read.
pub fn verify_decision(
    statement: &[u8],
    armoured: &str,
    grant: &GrantId,
    digest: &RequestDigest,
) -> Result<VerifiedStatement, Unverified> {
    if statement.len() > MAX_STATEMENT_BYTES {
        let rule = format!("must not be longer than {MAX_STATEMENT_BYTES} bytes");
        return Err(Unverified::Statement(Invalid::new("statement", rule)));
    }
    let signed =
        verify_sshsig(DECISION_NAMESPACE, statement, armoured).map_err(Unverified::Signature)?;
    let statement = Statement::parse(statement).map_err(Unverified::Statement)?;
    if statement.grant != *grant {
        return Err(Unverified::OtherRequest);
    }
    if statement.digest != *digest {
        return Err(Unverified::OtherDigest);
    }
    Ok(VerifiedStatement { statement, key: signed.key, presence: signed.presence })
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatementForm {
    grant: Text<GrantId>,
    digest: Text<RequestDigest>,
    person: Text<PersonId>,
    decision: DecisionForm,
    #[serde(skip_serializing_if = "Option::is_none")]
    narrowing: Option<NarrowingForm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Text<TextDigest>>,
    at_ms: Text<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DecisionForm {
    Approve,
    Deny,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NarrowingForm {
    #[serde(skip_serializing_if = "Option::is_none")]
    lifetime_seconds: Option<Text<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uses: Option<Text<NonZeroU32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rights: Option<Vec<RightForm>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    constraints: Vec<ConstraintForm>,
}

impl Statement {
    /// Its one form in bytes: RFC 8785 JSON, specified in `FORMAT.md`.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        form::write(&StatementForm::from(self))
    }

    /// Reads a statement. Refuses every other form of the same statement, unknown, repeated and
    /// missing members, and a denial that narrows. Says nothing about who made it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Invalid> {
        let form: StatementForm = form::read(bytes, MAX_STATEMENT_BYTES, "statement")?;
        let statement = Self::try_from(form).map_err(|invalid| invalid.within("statement"))?;
        // Repeated members, other spellings, `null` and an empty narrowing show here.
        if statement.to_bytes() == bytes {
            Ok(statement)
        } else {
            Err(Invalid::new("statement", "must be in its canonical form"))
        }
    }
}

impl From<&Statement> for StatementForm {
    fn from(statement: &Statement) -> Self {
        let Statement { grant, digest, person, answer, reason, at } = statement;
        let (decision, narrowing) = match answer {
            Answer::Approve(narrowing) if *narrowing == Narrowing::default() => {
                (DecisionForm::Approve, None)
            }
            Answer::Approve(narrowing) => (DecisionForm::Approve, Some(narrowing.into())),
            Answer::Deny => (DecisionForm::Deny, None),
        };
        Self {
            grant: Text(*grant),
            digest: Text(*digest),
            person: Text(person.clone()),
            decision,
            narrowing,
            reason: reason.map(Text),
            at_ms: Text(at.as_ms()),
        }
    }
}

impl TryFrom<StatementForm> for Statement {
    type Error = Invalid;

    fn try_from(form: StatementForm) -> Result<Self, Invalid> {
        let answer = match (form.decision, form.narrowing) {
            (DecisionForm::Approve, None) => Answer::Approve(Narrowing::default()),
            (DecisionForm::Approve, Some(narrowing)) => Answer::Approve(narrowing.try_into()?),
            (DecisionForm::Deny, None) => Answer::Deny,
            (DecisionForm::Deny, Some(_)) => {
                return Err(Invalid::new("narrowing", "must not stand in a denial"));
            }
        };
        Ok(Self {
            grant: form.grant.0,
            digest: form.digest.0,
            person: form.person.0,
            answer,
            reason: form.reason.map(|text| text.0),
            at: Timestamp::from_ms(form.at_ms.0)?,
        })
    }
}

impl From<&Narrowing> for NarrowingForm {
    fn from(Narrowing { lifetime, uses, rights, constraints }: &Narrowing) -> Self {
        Self {
            lifetime_seconds: lifetime.map(|lifetime| Text(lifetime.as_secs())),
            uses: uses.map(Text),
            rights: rights.as_ref().map(form::set),
            constraints: form::set(constraints),
        }
    }
}

impl TryFrom<NarrowingForm> for Narrowing {
    type Error = Invalid;

    fn try_from(form: NarrowingForm) -> Result<Self, Invalid> {
        let rights: Option<BTreeSet<_>> =
            form.rights.map(|rights| rights.into_iter().map(Right::from).collect());
        if rights.as_ref().is_some_and(|rights| rights.is_empty() || rights.len() > MAX_RIGHTS) {
            return Err(Invalid::new("rights", "must be 1 to 16"));
        }
        let constraints = form.constraints.into_iter().map(Constraint::try_from);
        let constraints = constraints.collect::<Result<BTreeSet<_>, _>>()?;
        if constraints.len() > MAX_CONSTRAINTS {
            return Err(Invalid::new("constraints", "must be at most 16"));
        }
        let lifetime = form.lifetime_seconds.map(|text| Duration::from_secs(text.0));
        if lifetime == Some(Duration::ZERO) {
            return Err(Invalid::new("lifetime_seconds", "must be at least 1"));
        }
        Ok(Self { lifetime, uses: form.uses.map(|text| text.0), rights, constraints })
    }
}
