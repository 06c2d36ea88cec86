//! What an entry catches, and for how long.
#![expect(clippy::arithmetic_side_effects, reason = "a test may panic")]

use super::*;
use crate::id::Epoch;
use crate::scope::{Right, Scope};
use crate::verify::tests::world::{at, claims};

const NOW: u64 = 1_800_000_000;

/// A token with a right on `pattern`, recorded at `seq`.
fn token(pattern: &str, seq: u64) -> Content {
    let right = Right { operation: "refund".parse().unwrap(), resource: pattern.parse().unwrap() };
    let claims = Claims { scope: Scope::new([right], []).unwrap(), ..claims() };
    let record = crate::claims::Record { epoch: Epoch::new([1; 16]), seq: Seq(seq) };
    Content { claims, record, authority: BlockId([0; 64]), links: Vec::new() }
}

fn entry(seq: u64, lapses: u64, target: Target) -> FeedEntry {
    FeedEntry { seq: Seq(seq), lapses_at: at(NOW + lapses), kind: Kind::Revoked(target) }
}

fn told(entries: impl IntoIterator<Item = FeedEntry>) -> Revocations {
    let mut revocations = Revocations::default();
    entries.into_iter().for_each(|entry| revocations.fold(&entry));
    revocations
}

#[test]
fn what_sweeps_takes_back_what_came_before_it_and_nothing_later() {
    let claims = claims();
    let prefix = "orders/prod".parse().unwrap();
    for target in [
        Target::Workload(claims.subject.clone()),
        Target::Task(claims.task.clone()),
        Target::Prefix(prefix),
    ] {
        let revocations = told([entry(10, 60, target.clone())]);
        for (seq, revoked) in [(9, true), (10, false), (11, false)] {
            let found = revocations.revoked(&token("orders/prod/**", seq));
            assert_eq!(found.is_some(), revoked, "{target:?} {seq}");
        }
    }
    // What names one thing asks for no place.
    for target in
        [Target::Grant(claims.grant), Target::Token(claims.token), Target::Key(claims.key)]
    {
        let revocations = told([entry(10, 60, target)]);
        assert!(revocations.revoked(&token("orders/prod/**", 99)).is_some());
    }
}

#[test]
fn neither_an_older_entry_nor_a_shorter_one_takes_away() {
    let target = || Target::Workload(claims().subject);
    let (early, late) = (entry(5, 600, target()), entry(20, 60, target()));
    for order in [[early.clone(), late.clone()], [late, early]] {
        let mut revocations = told(order);
        let revoked = |revocations: &Revocations, seq| {
            revocations.revoked(&token("orders/prod/**", seq)).is_some()
        };
        assert!(revoked(&revocations, 19) && !revoked(&revocations, 20));
        revocations.prune(at(NOW + 60));
        assert!(revoked(&revocations, 4), "the longer one has not lapsed");
        revocations.prune(at(NOW + 600));
        assert!(!revoked(&revocations, 4) && revocations.is_empty());
    }
}

#[test]
fn a_prefix_catches_every_right_that_reaches_it_or_lies_below_it() {
    for (pattern, prefix, caught) in [
        ("orders/prod/**", "orders", true),
        ("orders/prod/**", "orders/prod", true),
        ("orders/prod/**", "orders/prod/o-17/items", true),
        ("orders/prod/**", "orders/production", false),
        ("orders/prod/**", "orders/staging", false),
        ("orders/prod", "orders/prod", true),
        ("orders/prod", "orders", true),
        ("orders/prod", "orders/prod/o-17", false),
        ("orders/prod", "order", false),
    ] {
        let revocations = told([entry(10, 60, Target::Prefix(prefix.parse().unwrap()))]);
        let found = revocations.revoked(&token(pattern, 1));
        assert_eq!(found, caught.then_some(Revoked::Prefix), "{pattern} {prefix}");
    }
}

#[test]
fn a_lock_refuses_what_matches_all_that_it_says() {
    let id = LockId::new([7; 16]);
    let bare = Lock { id, workload: None, task: None, prefix: None, person: None };
    let pat = || Some("pat".parse().unwrap());
    let (ours, other) = (Some(claims().subject), Some("spiffe://a.test/b".parse().unwrap()));
    let (task, prod) = (Some(claims().task), Some("orders/prod".parse().unwrap()));
    let (elsewhere, fun) = (Some("orders/staging".parse().unwrap()), Some("fun".parse().unwrap()));
    let all = Lock { workload: ours.clone(), task: task.clone(), prefix: prod, person: pat(), id };
    for (lock, for_pat, for_nobody) in [
        (bare.clone(), true, true),
        (Lock { person: pat(), ..bare.clone() }, true, false),
        (Lock { person: Some("eve".parse().unwrap()), ..bare.clone() }, false, false),
        (Lock { workload: ours, ..bare.clone() }, true, true),
        (Lock { workload: other.clone(), ..bare.clone() }, false, false),
        (Lock { task, ..bare.clone() }, true, true),
        (Lock { task: fun, ..bare.clone() }, false, false),
        (Lock { prefix: elsewhere, ..bare }, false, false),
        (all.clone(), true, false),
        (Lock { workload: other, ..all }, false, false),
    ] {
        let mut revocations = Revocations::default();
        let kind = Kind::Locked(lock.clone());
        revocations.fold(&FeedEntry { seq: Seq(1), lapses_at: at(NOW + 60), kind });
        let resource = "orders/prod/o-17".parse().unwrap();
        let locked = |principal| {
            let claims = Claims { principal, ..claims() };
            revocations.locked(&claims, &resource).is_some()
        };
        assert_eq!([locked(pat()), locked(None)], [for_pat, for_nobody], "{lock:?}");
    }
}
