//! Feed keys come and go by the trust statement alone.

use dayfly_verifier::feed::{Follower, Head, Message, Refused, Remedy, snapshot_digest};
use dayfly_verifier::id::KeyId;
use dayfly_verifier::trust::{ListedKey, Statement};

use super::{FEED_KEY, Log, ROOT, at, following, fresh, key, public, refuses, statement, up};

const NEXT_KEY: u8 = 3;

/// Has the trust root list these feed keys, by number and seed, in `version`.
fn lists(follower: &mut Follower, version: u64, keys: &[(u32, u8)]) {
    let listed = |seed| ListedKey { public: public(seed), not_after: at(1_000_000_000) };
    let feed_keys = keys.iter().map(|(number, seed)| (KeyId(*number), listed(*seed))).collect();
    let statement = Statement { feed_keys, ..statement(version, 1) };
    assert!(follower.trust(&statement.sign(&key(ROOT)).unwrap()).unwrap());
}

/// Every kind of message, with a head by the key of this number and seed.
fn told(log: &Log, number: u32, seed: u8) -> [Message<Vec<u8>>; 3] {
    let by = |head: Head| Head { key: KeyId(number), ..head }.sign(&key(seed));
    let digest = snapshot_digest(log.entries.iter().map(Vec::as_slice));
    let whole = Head { snapshot: Some(digest), ..log.head() };
    [
        Message::Heartbeat(by(log.head()), vec![1; 16]),
        Message::Delta(vec![], by(log.head())),
        Message::Snapshot(log.entries.clone(), Some(by(whole))),
    ]
}

#[test]
fn a_head_by_a_feed_key_counts_from_the_statement_that_lists_it_to_the_one_that_does_not() {
    let mut log = Log::new(1);
    log.revoke(1, 60_000);
    let mut follower = following(&log);
    for message in told(&log, 2, NEXT_KEY) {
        assert_eq!(refuses(&mut follower, &message), Refused::Unsigned, "not listed yet");
    }
    assert_eq!(Refused::Unsigned.remedy(), Remedy::FetchTrust);
    assert!(fresh(&follower, 4_999), "what was believed before holds for its bound");
    lists(&mut follower, 2, &[(1, FEED_KEY), (2, NEXT_KEY)]);
    for message in told(&log, 1, FEED_KEY).into_iter().chain(told(&log, 2, NEXT_KEY)) {
        assert!(follower.receive(&message, at(0), up(0)).unwrap());
    }
    let swapped = told(&log, 1, NEXT_KEY).into_iter().chain(told(&log, 2, FEED_KEY));
    for message in swapped {
        assert_eq!(refuses(&mut follower, &message), Refused::Unsigned, "under another number");
    }
    lists(&mut follower, 3, &[(2, NEXT_KEY)]);
    for message in told(&log, 1, FEED_KEY) {
        assert_eq!(refuses(&mut follower, &message), Refused::Unsigned, "it was dropped");
    }
    follower.subscribe();
    for message in told(&log, 2, NEXT_KEY) {
        assert!(follower.receive(&message, at(0), up(0)).unwrap());
    }
    // What a dropped key signed makes nothing fresh, whatever it echoes.
    follower.challenge([1; 16], up(9_000));
    for message in told(&log, 1, FEED_KEY) {
        follower.receive(&message, at(9_000), up(9_000)).unwrap_err();
    }
    assert!(!fresh(&follower, 9_000));
    let [beat, ..] = told(&log, 2, NEXT_KEY);
    assert!(follower.receive(&beat, at(9_000), up(9_000)).unwrap() && fresh(&follower, 13_999));
}
