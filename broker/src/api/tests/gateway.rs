//! What a gateway says, at the bounds of what it may say.

use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::uses::{Batch, Line, MAX_BATCH_LINES, Seen};

use super::*;
use crate::api::gateway::parse;
use crate::api::report;

fn gateway() -> SpiffeId {
    "spiffe://shop.test/gateway/orders".parse().unwrap()
}

fn field<T>(result: Result<T, Invalid>) -> String {
    result.err().map_or_else(|| "nothing".into(), |invalid| invalid.field.into_owned())
}

#[test]
fn a_subscription_declares_a_staleness_within_the_bounds() {
    let parsed = |max_staleness_ms, min_staleness_ms| {
        let instance = "one".to_owned();
        let subscribe =
            v1::Subscribe { instance, max_staleness_ms, min_staleness_ms, ..Default::default() };
        parse(gateway(), subscribe).map(|(terms, _)| (terms.min_staleness, terms.max_staleness))
    };
    let secs = |n| Duration::from_secs(n);
    for (max, min, expected) in [
        (1_000, 0, (secs(1), secs(1))),
        (60_000, 0, (secs(60), secs(60))),
        (60_000, 1_000, (secs(1), secs(60))),
        (5_000, 5_000, (secs(5), secs(5))),
    ] {
        assert_eq!(parsed(max, min), Ok(expected));
    }
    for max in [0, 999, 60_001, u64::MAX] {
        assert_eq!(field(parsed(max, 0)), "max_staleness_ms", "{max}");
    }
    for min in [1, 999, 5_001, u64::MAX] {
        assert_eq!(field(parsed(5_000, min)), "min_staleness_ms", "{min}");
    }
    let odd = |challenge: &'static [u8], last| {
        let (instance, max_staleness_ms) = ("one".to_owned(), 5_000);
        let challenge = challenge.into();
        let subscribe =
            v1::Subscribe { instance, max_staleness_ms, challenge, last, ..Default::default() };
        field(parse(gateway(), subscribe))
    };
    assert_eq!([odd(&[7; 16], None), odd(&[], None)], ["nothing", "nothing"]);
    assert_eq!([odd(&[7; 15], None), odd(&[7; 17], None)], ["challenge", "challenge"]);
    assert_eq!(odd(&[], Some(v1::SignedHead::default())), "last");
}

/// A sealed batch of `lines` different lines, one use each, and `missed` more.
fn sealed(lines: usize, missed: u64) -> v1::ReportUseRequest {
    let seen = |n: usize| Seen::Refused(format!("reason_{n:03}").parse().unwrap());
    let line = |n| (Line { about: None, operation: None, seen: seen(n) }, 1);
    let (instance, at) = ("one".parse().unwrap(), Timestamp::from_ms(START_MS).unwrap());
    let counts: Vec<_> = (0..lines).map(line).collect();
    let batch = Batch { instance, number: 1, from: at, until: at, counts, missed };
    let count = |n| v1::UseCount {
        outcome: v1::UseOutcome::Refused.into(),
        reason: format!("reason_{n:03}"),
        count: 1,
        ..Default::default()
    };
    v1::ReportUseRequest {
        instance: "one".into(),
        number: 1,
        from_ms: render::ms(at),
        until_ms: render::ms(at),
        counts: (0..lines).map(count).collect(),
        missed,
        digest: batch.digest(&gateway()).as_bytes().to_vec().into(),
    }
}

#[test]
fn a_batch_of_uses_is_whole_bounded_and_sealed() {
    let refused = |sent| field(report::batch(&gateway(), sent));
    for whole in [sealed(1, 0), sealed(0, 1), sealed(MAX_BATCH_LINES, 7)] {
        assert_eq!(refused(whole), "nothing");
    }
    assert_eq!(refused(sealed(MAX_BATCH_LINES + 1, 0)), "counts");
    assert_eq!(refused(sealed(0, 0)), "number", "there is nothing in it");
    const MOST: u64 = (1 << 53) - 1;
    assert_eq!(refused(sealed(0, MOST)), "nothing");
    for too_many in [sealed(1, MOST), sealed(0, u64::MAX)] {
        assert_eq!(refused(too_many), "number", "others would read another one");
    }
    type Change = fn(&mut v1::ReportUseRequest);
    let changes: [(&str, Change); 11] = [
        ("digest", |sent| sent.missed = 9),
        ("digest", |sent| sent.number = 2),
        ("digest", |sent| sent.counts[0].count = 2),
        ("digest", |sent| sent.instance = "two".into()),
        ("number", |sent| sent.number = 0),
        ("number", |sent| sent.from_ms += 1),
        ("from_ms", |sent| sent.from_ms = -1),
        ("counts", |sent| sent.counts.swap(0, 1)),
        ("counts", |sent| sent.counts[1] = sent.counts[0].clone()),
        ("count", |sent| sent.counts[0].count = 0),
        ("outcome", |sent| sent.counts[0].outcome = 0),
    ];
    for (expected, change) in changes {
        let mut sent = sealed(2, 3);
        change(&mut sent);
        assert_eq!(refused(sent), expected);
    }
    // What one gateway sealed is no other's.
    let other = "spiffe://shop.test/gateway/exports".parse().unwrap();
    assert_eq!(field(report::batch(&other, sealed(1, 0))), "digest");
    let mut allowed = sealed(1, 0);
    allowed.counts[0].outcome = v1::UseOutcome::Allowed.into();
    assert_eq!(refused(allowed), "reason", "what was allowed has no reason");
}
