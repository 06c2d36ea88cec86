//! A log that is not the one that was adopted is not believed, however far it grows.

use dayfly_verifier::feed::{Follower, Head, Mark, Message, Refused, Remedy, Source, Store};
use dayfly_verifier::id::{ChainHash, Epoch, FeedId, Seq};
use dayfly_verifier::revocations::{FeedEntry, Kind, Target};
use dayfly_verifier::trust::{Statement, Untrusted};

use super::{
    FEED_KEY, Log, ROOT, at, following, fresh, key, profile, refuses, statement, trust, up,
};

/// A log, and another that differs from it in its last entry.
fn forked() -> (Log, Log) {
    let mut log = Log::new(1);
    log.pass();
    let mut fork = log.clone();
    log.revoke(1, 60_000);
    fork.revoke(2, 60_000);
    (log, fork)
}

#[test]
fn a22_a_fork_is_never_adopted() {
    let (mut log, mut fork) = forked();
    for message in [fork.snapshot(), fork.delta(vec![]), fork.beat([0; 16])] {
        let mut follower = following(&log);
        assert_eq!(refuses(&mut follower, &message), Refused::Beside);
        assert_eq!(Refused::Beside.remedy(), Remedy::OtherBroker);
        assert!(!fresh(&follower, 0));
        let (mut log, mut fork) = (log.clone(), fork.clone());
        log.revoke(4, 60_000);
        fork.revoke(3, 60_000);
        for grown in [fork.snapshot(), log.snapshot(), fork.beat([0; 16])] {
            follower.subscribe();
            follower.challenge([2; 16], up(0));
            assert_eq!(refuses(&mut follower, &grown), Refused::Beside, "it has grown");
            assert!(!fresh(&follower, 0));
            assert_eq!(follower.enforced(), Seq(0));
        }
    }
    let mut follower = following(&log);
    let next = fork.revoke(3, 60_000);
    assert_eq!(refuses(&mut follower, &fork.delta(vec![next])), Refused::Gap);
    log.revoke(4, 60_000);
    assert!(follower.receive(&log.snapshot(), at(0), up(0)).unwrap(), "a gap is healed");
}

#[test]
fn a22_a_first_delta_that_does_not_follow_on_what_was_named_is_of_a_fork() {
    let (log, mut fork) = forked();
    let next = fork.revoke(3, 60_000);
    for answer in [fork.delta(vec![next.clone()]), fork.beat([0; 16])] {
        let mut follower = following(&log);
        let wants = follower.subscribe();
        assert!(!wants.snapshot && wants.last.is_some());
        assert_eq!(refuses(&mut follower, &answer), Refused::Beside);
        assert_eq!(refuses(&mut follower, &fork.snapshot()), Refused::Beside);
    }
    let mut follower = following(&log);
    follower.subscribe();
    assert!(follower.receive(&log.delta(vec![]), at(0), up(0)).unwrap());
    assert_eq!(refuses(&mut follower, &fork.delta(vec![next])), Refused::Gap, "not the first");
}

#[test]
fn a22_a_fork_is_remembered_until_the_root_names_another_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (log, mut fork) = forked();
    let mut follower = following(&log);
    assert_eq!(refuses(&mut follower, &fork.snapshot()), Refused::Beside);
    store.save(follower.mark()).unwrap();
    fork.revoke(3, 60_000);

    let mark = store.load().unwrap().unwrap();
    assert_eq!(&mark, follower.mark());
    let mut follower = Follower::new(profile(Source::Direct), Some(mark));
    follower.trust(&trust(2, 1)).unwrap();
    assert_eq!(refuses(&mut follower, &fork.snapshot()), Refused::Beside);
    follower.trust(&trust(3, 2)).unwrap();
    let mut next = Log::new(2);
    next.revoke(5, 60_000);
    assert!(follower.receive(&next.snapshot(), at(0), up(0)).unwrap());
    assert_eq!(follower.view().unwrap().epoch(), Epoch::new([2; 16]));
}

#[test]
fn a22_the_head_of_the_mark_is_shown_to_every_broker() {
    let mut log = Log::new(1);
    let mut follower = following(&log);
    log.revoke(1, 60_000);
    assert!(follower.receive(&log.snapshot(), at(0), up(0)).unwrap());
    let seen = follower.mark().head.clone();
    assert!(seen.is_some());
    log.time = at(1);
    assert!(follower.receive(&log.beat([0; 16]), at(1), up(1)).unwrap());
    assert_eq!(follower.mark().head, seen, "the time alone is not written");
    log.seq = 0;
    refuses(&mut follower, &log.snapshot());
    let wants = follower.subscribe();
    assert!(wants.snapshot);
    assert_eq!(wants.last, seen);
    let mut anew = Follower::new(profile(Source::Direct), Some(follower.mark().clone()));
    assert_eq!(anew.subscribe(), wants);
}

#[test]
fn a_mark_of_an_earlier_version_is_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (id, hash) = ("07".repeat(16), "01".repeat(32));
    let end =
        format!(r#"{{"feed":"{id}","epoch":"{id}","seq":3,"journal":"{hash}","hash":"{hash}"}}"#);
    let file = dir.path().join("feed-mark.json");
    std::fs::write(file, format!(r#"{{"trust":2,"end":{end}}}"#)).unwrap();
    let mark = store.load().unwrap().unwrap();
    assert_eq!((mark.trust, mark.end.unwrap().seq), (2, Seq(3)));
    assert_eq!((mark.head, mark.forked), (None, None));
}

#[test]
fn a22_the_mark_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.load().unwrap(), None);
    let mut log = Log::new(1);
    let old = log.clone();
    log.revoke(1, 60_000);
    let mut follower = following(&log);
    follower.trust(&trust(4, 1)).unwrap();
    store.save(follower.mark()).unwrap();

    let mark: Mark = store.load().unwrap().unwrap();
    let mut follower = Follower::new(profile(Source::Direct), Some(mark));
    let older = follower.trust(&trust(3, 1)).unwrap_err();
    assert_eq!(older, Untrusted::Older { given: 3, known: 4 });
    follower.trust(&trust(4, 1)).unwrap();
    assert!(!fresh(&follower, 0));
    assert_eq!(refuses(&mut follower, &old.snapshot()), Refused::Behind);
    assert!(follower.receive(&log.snapshot(), at(0), up(0)).unwrap());

    std::fs::write(dir.path().join("feed-mark.json"), b"{").unwrap();
    assert!(store.load().is_err(), "a damaged mark is not no mark");
}

/// The feed of both logs is the same so far: nothing that concerns a gateway tells them apart.
#[test]
fn a22_another_log_is_told_from_the_one_that_was_adopted_by_its_chain_alone() {
    let mut log = Log::new(1);
    log.pass();
    let head = Head { journal: ChainHash::new([9; 32]), ..log.head() };
    let beat = Message::Heartbeat(head.sign(&key(FEED_KEY)), vec![]);
    assert_eq!(refuses(&mut following(&log), &beat), Refused::Beside);
}

#[test]
fn a22_of_two_statements_of_one_version_the_first_is_believed() {
    let mut follower = following(&Log::new(1));
    let other = Statement { token_keys: Default::default(), ..statement(1, 1) };
    let forked = follower.trust(&other.sign(&key(ROOT)).unwrap());
    assert_eq!(forked, Err(Untrusted::Forked(1)));
    assert!(fresh(&follower, 0));
    assert_eq!(follower.trust(&trust(1, 1)), Ok(false));
}

#[test]
fn a22_with_another_epoch_or_feed_nothing_is_held_any_more() {
    let feed = Statement { feed: FeedId::new([9; 16]), ..statement(2, 1) };
    for other in [statement(2, 2), feed] {
        let mut follower = following(&Log::new(1));
        assert_eq!(follower.trust(&other.sign(&key(ROOT)).unwrap()), Ok(true));
        assert!(!fresh(&follower, 0) && !follower.holds());
        assert_eq!(follower.enforced(), Seq(0));
    }
    // The same place under another statement is held on to.
    let mut follower = following(&Log::new(1));
    assert_eq!(follower.trust(&trust(2, 1)), Ok(true));
    assert!(fresh(&follower, 0) && follower.holds());
}

#[test]
fn a20_no_head_from_the_future_and_no_challenge_of_another_stream_keeps_anything_fresh() {
    let mut log = Log::new(1);
    let mut follower = Follower::new(profile(Source::Relayed), None);
    follower.trust(&trust(1, 1)).unwrap();
    for (ahead, counts) in [(2_001, false), (2_000, true)] {
        log.time = at(ahead);
        assert!(follower.receive(&log.snapshot(), at(0), up(0)).unwrap());
        assert_eq!(fresh(&follower, 0), counts, "{ahead}");
    }
    let mut follower = following(&Log::new(1));
    follower.challenge([2; 16], up(4_000));
    follower.subscribe();
    assert!(follower.receive(&Log::new(1).beat([2; 16]), at(4_000), up(4_000)).unwrap());
    assert!(fresh(&follower, 5_000) && !fresh(&follower, 5_001));
}

/// What a relay sends beside the signed head is its own word.
#[test]
fn a20_a_relay_that_echoes_keeps_nothing_fresh() {
    let (log, hour) = (Log::new(1), 3_600_000);
    let mut follower = Follower::new(profile(Source::Relayed), None);
    follower.trust(&trust(1, 1)).unwrap();
    follower.challenge([1; 16], up(hour));
    for message in [log.snapshot(), log.beat([1; 16])] {
        assert!(follower.receive(&message, at(hour), up(hour)).unwrap());
        assert!(!fresh(&follower, hour));
    }
}

#[test]
fn a22_entries_out_of_order_are_refused_whoever_signed_them() {
    let mut log = Log::new(1);
    log.revoke(1, 60_000);
    log.revoke(2, 60_000);
    log.entries.reverse();
    let mut follower = following(&Log::new(1));
    assert_eq!(refuses(&mut follower, &log.snapshot()), Refused::Malformed);
    assert!(follower.subscribe().snapshot, "it asks for everything anew");
    log.entries.reverse();
    // What an earlier stream sent of a snapshot is no part of this one.
    let Message::Snapshot(entries, _) = log.snapshot() else { panic!() };
    assert!(!follower.receive(&Message::Snapshot(entries, None), at(0), up(0)).unwrap());
    follower.subscribe();
    assert!(follower.receive(&log.snapshot(), at(0), up(0)).unwrap());
}

/// Places of two epochs do not compare: what swept the old one catches nothing of the new one.
#[test]
fn a22_of_an_epoch_that_is_over_only_what_names_a_thing_is_kept() {
    let mut log = Log::new(1);
    log.revoke(1, 60_000);
    log.seq = 1_000;
    let kind = Kind::Revoked(Target::Task("task-1".parse().unwrap()));
    let entry = FeedEntry { seq: Seq(1_000), lapses_at: at(60_000), kind };
    log.push(entry.to_bytes());
    let mut follower = following(&log);
    assert_eq!(follower.view().unwrap().revocations().len(), 2);
    follower.trust(&trust(2, 2)).unwrap();
    assert!(follower.receive(&Log::new(2).snapshot(), at(0), up(0)).unwrap());
    assert_eq!(follower.view().unwrap().revocations().len(), 1);
}
