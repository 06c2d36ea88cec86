//! The stored form of what gateways counted.

use dayfly_verifier::id::{BatchDigest, GrantId, InstanceId, ReasonCode, TokenId};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::resource::Operation;
use dayfly_verifier::time::Timestamp;
use dayfly_verifier::uses::{About, Batch, Line, Seen};
use serde::{Deserialize, Serialize};

use super::Text;
use crate::core::event::Report;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReportV1 {
    instance: Text<InstanceId>,
    number: u64,
    from_ms: u64,
    until_ms: u64,
    counts: Vec<CountV1>,
    unplaced: u64,
    missed: u64,
    digest: Text<BatchDigest>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CountV1 {
    about: Option<AboutV1>,
    operation: Option<Text<Operation>>,
    seen: SeenV1,
    count: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AboutV1 {
    grant: Text<GrantId>,
    token: Text<TokenId>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum SeenV1 {
    Allowed,
    Refused(Text<ReasonCode>),
    LetPass(Text<ReasonCode>),
    Cut(Text<ReasonCode>),
}

impl From<&Report> for ReportV1 {
    fn from(Report { batch, unplaced, digest }: &Report) -> Self {
        let Batch { instance, number, from, until, counts, missed } = batch;
        Self {
            instance: instance.into(),
            number: *number,
            from_ms: from.as_ms(),
            until_ms: until.as_ms(),
            counts: counts.iter().map(Into::into).collect(),
            unplaced: *unplaced,
            missed: *missed,
            digest: digest.into(),
        }
    }
}

impl TryFrom<ReportV1> for Report {
    type Error = Invalid;

    fn try_from(stored: ReportV1) -> Result<Self, Invalid> {
        let ReportV1 { instance, number, from_ms, until_ms, counts, unplaced, missed, digest } =
            stored;
        let batch = Batch {
            instance: instance.0,
            number,
            from: Timestamp::from_ms(from_ms)?,
            until: Timestamp::from_ms(until_ms)?,
            counts: counts.into_iter().map(Into::into).collect(),
            missed,
        };
        Ok(Self { batch, unplaced, digest: digest.0 })
    }
}

impl From<&(Line, u64)> for CountV1 {
    fn from((Line { about, operation, seen }, count): &(Line, u64)) -> Self {
        let named =
            |About { grant, token }: &About| AboutV1 { grant: grant.into(), token: token.into() };
        Self {
            about: about.as_ref().map(named),
            operation: operation.as_ref().map(Into::into),
            seen: seen.into(),
            count: *count,
        }
    }
}

impl From<CountV1> for (Line, u64) {
    fn from(CountV1 { about, operation, seen, count }: CountV1) -> Self {
        let about = about.map(|AboutV1 { grant, token }| About { grant: grant.0, token: token.0 });
        let operation = operation.map(|operation| operation.0);
        (Line { about, operation, seen: seen.into() }, count)
    }
}

impl From<&Seen> for SeenV1 {
    fn from(seen: &Seen) -> Self {
        match seen {
            Seen::Allowed => Self::Allowed,
            Seen::Refused(reason) => Self::Refused(reason.into()),
            Seen::LetPass(reason) => Self::LetPass(reason.into()),
            Seen::Cut(reason) => Self::Cut(reason.into()),
        }
    }
}

impl From<SeenV1> for Seen {
    fn from(seen: SeenV1) -> Self {
        match seen {
            SeenV1::Allowed => Self::Allowed,
            SeenV1::Refused(reason) => Self::Refused(reason.0),
            SeenV1::LetPass(reason) => Self::LetPass(reason.0),
            SeenV1::Cut(reason) => Self::Cut(reason.0),
        }
    }
}
