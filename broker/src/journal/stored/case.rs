//! A case as a snapshot keeps it. Another form is another version of the fold.

use std::collections::BTreeMap;
use std::sync::Arc;

use dayfly_verifier::claims::Record;
use dayfly_verifier::id::{
    ExchangeId, GrantId, KeyId, PersonId, RequestDigest, Seq, TextDigest, TokenId, UseId,
};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::request::Request;
use dayfly_verifier::time::Timestamp;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::alike::Alike;
use super::fixed::Fixed;
use super::parts::{DecisionV1, RefusalV1, TaskOutcomeV1, TermsV1};
use super::request::RequestV1;
use super::{Text, texts, untexts};
use crate::core::case::{Case, Closed, Grant, How, Issue, Kin, Minted, Stage, Token};
use crate::core::event::{Decision, Terms};

/// A case. Its id is derived.
#[derive(Serialize, Deserialize)]
pub(in crate::journal) struct CaseV1 {
    request: RequestV1,
    digest: Fixed<RequestDigest>,
    justification: Option<Fixed<TextDigest>>,
    seq: u64,
    owners: Vec<Text<PersonId>>,
    responsible: Vec<Text<PersonId>>,
    approvals: Vec<DecisionV1>,
    stage: StageV1,
}

#[derive(Serialize, Deserialize)]
enum StageV1 {
    Pending { until_ms: u64 },
    Granted(GrantV1),
    Closed(Box<ClosedV1>),
}

#[derive(Serialize, Deserialize)]
struct ClosedV1 {
    at_ms: u64,
    how: HowV1,
    grant: Option<GrantV1>,
}

#[derive(Serialize, Deserialize)]
struct GrantV1 {
    terms: TermsV1,
    /// The one recorded last at the end.
    tokens: Vec<TokenV1>,
    others: Vec<(Fixed<ExchangeId>, Fixed<TokenId>)>,
    uses: Vec<(Fixed<UseId>, Fixed<TokenId>, u32)>,
}

/// A token. All else that it says is what was asked and granted.
#[derive(Serialize, Deserialize)]
struct TokenV1 {
    id: Fixed<TokenId>,
    issued_at_ms: u64,
    expires_at_ms: u64,
    key: u32,
    seq: u64,
    revoked: bool,
    answers: u32,
}

#[derive(Serialize, Deserialize)]
enum HowV1 {
    Refused(RefusalV1),
    Denied(DecisionV1),
    Cancelled,
    Completed(TaskOutcomeV1),
    Revoked,
    Drifted(RefusalV1),
}

/// What a case is about, for what is made of it.
struct Asked<'a> {
    grant: GrantId,
    request: &'a Request,
    digest: RequestDigest,
}

impl From<&Case> for CaseV1 {
    fn from(case: &Case) -> Self {
        let Case { request, digest, justification, seq, kin, approvals, stage } = case;
        let Kin { owners, responsible } = &**kin;
        Self {
            request: (&**request).into(),
            digest: digest.into(),
            justification: justification.map(Fixed),
            seq: seq.0,
            owners: texts(owners),
            responsible: texts(responsible),
            approvals: approvals.values().map(Into::into).collect(),
            stage: stage.into(),
        }
    }
}

impl CaseV1 {
    /// The case under its id; it holds what earlier ones hold where it is `alike`.
    pub(in crate::journal) fn read(self, alike: &mut Alike) -> Result<(GrantId, Case), Invalid> {
        let Self { request, digest: Fixed(digest), justification, seq, owners, .. } = self;
        let kin = Kin { owners: untexts(owners), responsible: untexts(self.responsible) };
        let mut approvals = BTreeMap::new();
        for decision in self.approvals {
            let decision: Decision = decision.try_into()?;
            approvals.insert(decision.person.clone(), decision);
        }
        let request = alike.request(request.try_into()?);
        let asked = Asked { grant: request.grant_id(), request: &request, digest };
        let (grant, stage) = (asked.grant, self.stage.read(&asked, alike)?);
        let case = Case {
            request: Arc::new(request),
            digest,
            justification: justification.map(|text| text.0),
            seq: Seq(seq),
            kin: alike.kin(kin),
            approvals,
            stage,
        };
        Ok((grant, case))
    }
}

impl From<&Stage> for StageV1 {
    fn from(stage: &Stage) -> Self {
        match stage {
            Stage::Pending { until } => Self::Pending { until_ms: until.as_ms() },
            Stage::Granted(grant) => Self::Granted(grant.into()),
            Stage::Closed(closed) => {
                let Closed { at, how, grant } = &**closed;
                let grant = grant.as_ref().map(Into::into);
                Self::Closed(Box::new(ClosedV1 { at_ms: at.as_ms(), how: how.into(), grant }))
            }
        }
    }
}

impl StageV1 {
    /// The stage of what was asked.
    fn read(self, asked: &Asked<'_>, alike: &mut Alike) -> Result<Stage, Invalid> {
        let mut granted = |grant: GrantV1| grant.read(asked, alike);
        Ok(match self {
            Self::Pending { until_ms } => Stage::Pending { until: Timestamp::from_ms(until_ms)? },
            Self::Granted(grant) => Stage::Granted(granted(grant)?),
            Self::Closed(closed) => {
                let ClosedV1 { at_ms, how, grant } = *closed;
                Stage::Closed(Box::new(Closed {
                    at: Timestamp::from_ms(at_ms)?,
                    how: how.try_into()?,
                    grant: grant.map(granted).transpose()?,
                }))
            }
        })
    }
}

impl From<&Grant> for GrantV1 {
    fn from(grant: &Grant) -> Self {
        let Grant { terms, latest: _, earlier: _, others, uses } = grant;
        let used =
            |(id, (token, left)): (&UseId, &(TokenId, u32))| (Fixed(*id), Fixed(*token), *left);
        Self {
            terms: terms.into(),
            tokens: grant.tokens().map(Into::into).collect(),
            others: others.iter().map(|(id, token)| (Fixed(*id), Fixed(*token))).collect(),
            uses: uses.iter().map(used).collect(),
        }
    }
}

impl GrantV1 {
    /// The grant that was asked for.
    fn read(self, asked: &Asked<'_>, alike: &mut Alike) -> Result<Grant, Invalid> {
        let Self { terms, tokens, others, uses } = self;
        let terms = Terms::try_from(terms)?;
        let terms = Terms { scope: alike.scope(terms.scope), ..terms };
        let (mut latest, mut earlier) = (None, OrdMap::new());
        for token in tokens {
            let token = Arc::new(token.read(asked, &terms)?);
            if let Some(before) = latest.replace(token) {
                earlier.insert(before.id(), before);
            }
        }
        let others = others.into_iter().map(|(id, token)| (id.0, token.0)).collect();
        let uses = uses.into_iter().map(|(id, token, left)| (id.0, (token.0, left))).collect();
        Ok(Grant { terms, latest, earlier, others, uses })
    }
}

impl From<&Token> for TokenV1 {
    fn from(Token { minted, revoked, answers }: &Token) -> Self {
        let Minted { claims, record } = minted;
        let Issue { token, issued_at, expires_at, key } = Issue::of(claims);
        Self {
            id: Fixed(token),
            issued_at_ms: issued_at.as_ms(),
            expires_at_ms: expires_at.as_ms(),
            key: key.0,
            seq: record.seq.0,
            revoked: *revoked,
            answers: *answers,
        }
    }
}

impl TokenV1 {
    /// The token of what was asked, as it was granted on `terms`.
    fn read(self, asked: &Asked<'_>, terms: &Terms) -> Result<Token, Invalid> {
        let Self { id, issued_at_ms, expires_at_ms, key, seq, revoked, answers } = self;
        let issue = Issue {
            token: id.0,
            issued_at: Timestamp::from_ms(issued_at_ms)?,
            expires_at: Timestamp::from_ms(expires_at_ms)?,
            key: KeyId(key),
        };
        let Asked { grant, request, digest } = *asked;
        let record = Record { epoch: request.epoch, seq: Seq(seq) };
        let minted = Minted { claims: issue.claims(grant, request, digest, terms), record };
        Ok(Token { minted, revoked, answers })
    }
}

impl From<&How> for HowV1 {
    fn from(how: &How) -> Self {
        match how {
            How::Refused(refusal) => Self::Refused(refusal.into()),
            How::Denied(decision) => Self::Denied(decision.into()),
            How::Cancelled => Self::Cancelled,
            How::Completed(outcome) => Self::Completed((*outcome).into()),
            How::Revoked => Self::Revoked,
            How::Drifted(refusal) => Self::Drifted(refusal.into()),
        }
    }
}

impl TryFrom<HowV1> for How {
    type Error = Invalid;

    fn try_from(stored: HowV1) -> Result<Self, Invalid> {
        Ok(match stored {
            HowV1::Refused(refusal) => Self::Refused(refusal.into()),
            HowV1::Denied(decision) => Self::Denied(decision.try_into()?),
            HowV1::Cancelled => Self::Cancelled,
            HowV1::Completed(outcome) => Self::Completed(outcome.into()),
            HowV1::Revoked => Self::Revoked,
            HowV1::Drifted(refusal) => Self::Drifted(refusal.into()),
        })
    }
}
