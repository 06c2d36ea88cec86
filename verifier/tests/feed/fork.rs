//! A log that is not the one that was adopted is not believed, however far it grows.

use dayfly_verifier::feed::{Follower, Mark, Refused, Remedy, Source, Store};
use dayfly_verifier::id::{Epoch, Seq};
use dayfly_verifier::trust::Untrusted;

use super::{Log, at, following, fresh, profile, refuses, trust, up};

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
