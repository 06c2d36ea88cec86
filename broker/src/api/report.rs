//! What a gateway reports, from its messages: a batch that is whole, in its one form, and sealed.

use dayfly_proto::v1::{self, UseOutcome};
use dayfly_verifier::id::BatchDigest;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use dayfly_verifier::uses::{About, Batch, Line, MAX_BATCH_LINES, Seen};

/// The largest number that stands in the record: every reader of JSON reads it as it is written.
const MOST: u64 = 9_007_199_254_740_991;

/// The batch that `gateway` sent.
pub(super) fn batch(gateway: &SpiffeId, sent: v1::ReportUseRequest) -> Result<Batch, Invalid> {
    let v1::ReportUseRequest { instance, number, from_ms, until_ms, counts, missed, digest } = sent;
    let time = |field: &'static str, ms: i64| {
        let ms = u64::try_from(ms).ok().and_then(|ms| Timestamp::from_ms(ms).ok());
        ms.ok_or_else(|| Invalid::new(field, "must be a time in milliseconds"))
    };
    if counts.len() > MAX_BATCH_LINES {
        return Err(Invalid::new("counts", "must be at most 256"));
    }
    let counts = counts.into_iter().map(count).collect::<Result<Vec<_>, _>>()?;
    if !counts.is_sorted_by(|(before, _), (after, _)| before < after) {
        return Err(Invalid::new("counts", "must be in order, each line once"));
    }
    let (from, until) = (time("from_ms", from_ms)?, time("until_ms", until_ms)?);
    let batch = Batch { instance: instance.parse()?, number, from, until, counts, missed };
    if from > until || number == 0 || batch.total() == 0 {
        return Err(Invalid::new("number", "must be that of a batch with uses of a span of time"));
    }
    if number > MOST || batch.total() > MOST {
        return Err(Invalid::new("number", "must be below 2^53, and so must all its uses"));
    }
    if BatchDigest::from_slice(&digest)? != batch.digest(gateway) {
        return Err(Invalid::new("digest", "must be the seal of the batch"));
    }
    Ok(batch)
}

fn count(sent: v1::UseCount) -> Result<(Line, u64), Invalid> {
    let outcome = sent.outcome();
    let v1::UseCount { grant_id, token_id, operation, outcome: _, reason, count } = sent;
    let about = match (grant_id.as_str(), token_id.as_str()) {
        ("", "") => None,
        (grant, token) => Some(About { grant: grant.parse()?, token: token.parse()? }),
    };
    let operation = (!operation.is_empty()).then(|| operation.parse()).transpose()?;
    let seen = match outcome {
        UseOutcome::Unspecified => {
            return Err(Invalid::new("outcome", "must be one that this version knows"));
        }
        UseOutcome::Allowed if reason.is_empty() => Seen::Allowed,
        UseOutcome::Allowed => {
            return Err(Invalid::new("reason", "must be empty for what was allowed"));
        }
        UseOutcome::Refused => Seen::Refused(reason.parse()?),
        UseOutcome::LetPass => Seen::LetPass(reason.parse()?),
        UseOutcome::Cut => Seen::Cut(reason.parse()?),
    };
    if count == 0 {
        return Err(Invalid::new("count", "must be at least 1"));
    }
    Ok((Line { about, operation, seen }, count))
}
