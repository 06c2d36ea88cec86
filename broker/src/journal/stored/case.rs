//! A case as a snapshot keeps it. Another form is another version of the fold.

use std::collections::BTreeMap;
use std::sync::Arc;

use dayfly_verifier::claims::Record;
use dayfly_verifier::id::{
    Epoch, ExchangeId, PersonId, RequestDigest, Seq, TextDigest, TokenId, UseId,
};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::parts::{DecisionV1, RefusalV1, TaskOutcomeV1, TermsV1};
use super::request::{ClaimsV1, RequestV1};
use super::{Text, texts, untexts};
use crate::core::case::{Case, Closed, Grant, How, Kin, Minted, Stage, Token};
use crate::core::event::Decision;

/// A case. Its id is derived.
#[derive(Serialize, Deserialize)]
pub(in crate::journal) struct CaseV1 {
    request: RequestV1,
    digest: Text<RequestDigest>,
    justification: Option<Text<TextDigest>>,
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
    tokens: Vec<TokenV1>,
    exchanges: Vec<(Text<ExchangeId>, Text<TokenId>)>,
    latest: Option<Text<TokenId>>,
    uses: Vec<(Text<UseId>, Text<TokenId>, u32)>,
}

#[derive(Serialize, Deserialize)]
struct TokenV1 {
    claims: ClaimsV1,
    epoch: Text<Epoch>,
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

impl From<&Case> for CaseV1 {
    fn from(case: &Case) -> Self {
        let Case { request, digest, justification, seq, kin, approvals, stage } = case;
        let Kin { owners, responsible } = &**kin;
        Self {
            request: (&**request).into(),
            digest: digest.into(),
            justification: justification.map(Text),
            seq: seq.0,
            owners: texts(owners),
            responsible: texts(responsible),
            approvals: approvals.values().map(Into::into).collect(),
            stage: stage.into(),
        }
    }
}

impl TryFrom<CaseV1> for Case {
    type Error = Invalid;

    fn try_from(stored: CaseV1) -> Result<Self, Invalid> {
        let CaseV1 { request, digest, justification, seq, owners, responsible, .. } = stored;
        let kin = Kin { owners: untexts(owners), responsible: untexts(responsible) };
        let mut approvals = BTreeMap::new();
        for decision in stored.approvals {
            let decision: Decision = decision.try_into()?;
            approvals.insert(decision.person.clone(), decision);
        }
        Ok(Self {
            request: Arc::new(request.try_into()?),
            digest: digest.0,
            justification: justification.map(|text| text.0),
            seq: Seq(seq),
            kin: Arc::new(kin),
            approvals,
            stage: stored.stage.try_into()?,
        })
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

impl TryFrom<StageV1> for Stage {
    type Error = Invalid;

    fn try_from(stored: StageV1) -> Result<Self, Invalid> {
        Ok(match stored {
            StageV1::Pending { until_ms } => Self::Pending { until: Timestamp::from_ms(until_ms)? },
            StageV1::Granted(grant) => Self::Granted(grant.try_into()?),
            StageV1::Closed(closed) => {
                let ClosedV1 { at_ms, how, grant } = *closed;
                Self::Closed(Box::new(Closed {
                    at: Timestamp::from_ms(at_ms)?,
                    how: how.try_into()?,
                    grant: grant.map(TryInto::try_into).transpose()?,
                }))
            }
        })
    }
}

impl From<&Grant> for GrantV1 {
    fn from(Grant { terms, tokens, exchanges, latest, uses }: &Grant) -> Self {
        let used =
            |(id, (token, left)): (&UseId, &(TokenId, u32))| (Text(*id), Text(*token), *left);
        Self {
            terms: terms.into(),
            tokens: tokens.values().map(Into::into).collect(),
            exchanges: exchanges.iter().map(|(id, token)| (Text(*id), Text(*token))).collect(),
            latest: latest.map(Text),
            uses: uses.iter().map(used).collect(),
        }
    }
}

impl TryFrom<GrantV1> for Grant {
    type Error = Invalid;

    fn try_from(stored: GrantV1) -> Result<Self, Invalid> {
        let GrantV1 { terms, tokens, exchanges, latest, uses } = stored;
        let token = |token: TokenV1| {
            let token = Token::try_from(token)?;
            Ok((token.minted.claims.token, token))
        };
        Ok(Self {
            terms: terms.try_into()?,
            tokens: tokens.into_iter().map(token).collect::<Result<_, Invalid>>()?,
            exchanges: exchanges.into_iter().map(|(id, token)| (id.0, token.0)).collect(),
            latest: latest.map(|token| token.0),
            uses: uses.into_iter().map(|(id, token, left)| (id.0, (token.0, left))).collect(),
        })
    }
}

impl From<&Token> for TokenV1 {
    fn from(Token { minted, revoked, answers }: &Token) -> Self {
        let Minted { claims, record: Record { epoch, seq } } = minted;
        let (epoch, seq) = (epoch.into(), seq.0);
        Self { claims: claims.into(), epoch, seq, revoked: *revoked, answers: *answers }
    }
}

impl TryFrom<TokenV1> for Token {
    type Error = Invalid;

    fn try_from(stored: TokenV1) -> Result<Self, Invalid> {
        let TokenV1 { claims, epoch, seq, revoked, answers } = stored;
        let record = Record { epoch: epoch.0, seq: Seq(seq) };
        Ok(Self { minted: Minted { claims: claims.try_into()?, record }, revoked, answers })
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
