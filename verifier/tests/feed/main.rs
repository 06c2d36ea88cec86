//! What a gateway must not believe of a feed, and what it must.
#![expect(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "a test may panic")]

use std::time::Duration;

use dayfly_verifier::feed::{
    Follower, Head, Message, Profile, Refused, Remedy, SignedHead, Source, feed_start, fold_hash,
    snapshot_digest,
};
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::{ChainHash, Epoch, FeedHash, FeedId, GrantId, KeyId, Seq};
use dayfly_verifier::revocations::{FeedEntry, Kind, Target};
use dayfly_verifier::time::Timestamp;
use dayfly_verifier::trust::{ListedKey, Signed, Statement};
use ed25519_dalek::SigningKey;

mod fork;
mod keys;
mod orders;
mod parts;

const FEED: FeedId = FeedId::new([7; 16]);
const START_MS: u64 = 1_700_000_000_000;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_ms(START_MS + ms).unwrap()
}

fn up(ms: u64) -> Duration {
    Duration::from_millis(1_000_000 + ms)
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(seed: u8) -> HolderKey {
    HolderKey::from_slice(key(seed).verifying_key().as_bytes()).unwrap()
}

const ROOT: u8 = 1;
const FEED_KEY: u8 = 2;

fn statement(version: u64, epoch: u8) -> Statement {
    let listed = |seed| ListedKey { public: public(seed), not_after: at(1_000_000_000) };
    Statement {
        version,
        feed: FEED,
        epoch: Epoch::new([epoch; 16]),
        token_keys: [(KeyId(1), listed(9))].into(),
        feed_keys: [(KeyId(1), listed(FEED_KEY))].into(),
    }
}

fn trust(version: u64, epoch: u8) -> Signed {
    statement(version, epoch).sign(&key(ROOT)).unwrap()
}

fn grant(n: u64) -> GrantId {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&n.to_be_bytes());
    GrantId::new(id)
}

/// A broker's side of the feed, written anew for the tests.
#[derive(Clone)]
struct Log {
    epoch: u8,
    seq: u64,
    hash: FeedHash,
    entries: Vec<Vec<u8>>,
    time: Timestamp,
}

impl Log {
    fn new(epoch: u8) -> Self {
        let hash = feed_start(&Epoch::new([epoch; 16]));
        Self { epoch, seq: 0, hash, entries: Vec::new(), time: at(0) }
    }

    /// Something that concerns no gateway.
    fn pass(&mut self) {
        self.seq += 1;
    }

    /// Revokes a grant: the bytes of the entry.
    fn revoke(&mut self, n: u64, lapses_in_ms: u64) -> Vec<u8> {
        self.seq += 1;
        let kind = Kind::Revoked(Target::Grant(grant(n)));
        let entry = FeedEntry { seq: Seq(self.seq), lapses_at: at(lapses_in_ms), kind };
        self.push(entry.to_bytes())
    }

    fn push(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        self.hash = fold_hash(&self.hash, &bytes);
        self.entries.push(bytes.clone());
        bytes
    }

    fn head(&self) -> Head {
        let mut journal = [self.epoch; 32];
        journal[..8].copy_from_slice(&self.seq.to_be_bytes());
        Head {
            feed: FEED,
            epoch: Epoch::new([self.epoch; 16]),
            seq: Seq(self.seq),
            journal: ChainHash::new(journal),
            hash: self.hash,
            time: self.time,
            key: KeyId(1),
            snapshot: None,
        }
    }

    fn signed(&self) -> SignedHead {
        self.head().sign(&key(FEED_KEY))
    }

    fn snapshot(&self) -> Message<Vec<u8>> {
        let digest = snapshot_digest(self.entries.iter().map(Vec::as_slice));
        let head = Head { snapshot: Some(digest), ..self.head() };
        Message::Snapshot(self.entries.clone(), Some(head.sign(&key(FEED_KEY))))
    }

    fn delta(&self, entries: Vec<Vec<u8>>) -> Message<Vec<u8>> {
        Message::Delta(entries, self.signed())
    }

    fn beat(&self, challenge: [u8; 16]) -> Message<Vec<u8>> {
        Message::Heartbeat(self.signed(), challenge.to_vec())
    }
}

fn profile(source: Source) -> Profile {
    Profile::new(public(ROOT), Duration::from_secs(5), source).unwrap()
}

/// A follower that trusts epoch 1, and one that holds the snapshot of `log` and is fresh at 0.
fn trusting() -> Follower {
    let mut follower = Follower::new(profile(Source::Direct), None);
    assert!(follower.trust(&trust(1, 1)).unwrap());
    follower
}

fn following(log: &Log) -> Follower {
    let mut follower = trusting();
    follower.subscribe();
    follower.challenge([1; 16], up(0));
    assert!(follower.receive(&log.snapshot(), at(0), up(0)).unwrap());
    assert!(follower.receive(&log.beat([1; 16]), at(0), up(0)).unwrap());
    assert!(fresh(&follower, 0));
    follower
}

fn fresh(follower: &Follower, ms: u64) -> bool {
    follower.view().is_some_and(|view| view.is_fresh(up(ms)))
}

fn refuses(follower: &mut Follower, message: &Message<Vec<u8>>) -> Refused {
    follower.receive(message, at(0), up(0)).unwrap_err()
}

#[test]
fn nothing_is_fresh_before_keys_snapshot_and_echo() {
    let mut log = Log::new(1);
    log.revoke(1, 60_000);
    let mut follower = Follower::new(profile(Source::Direct), None);
    assert!(follower.view().is_none());
    assert_eq!(refuses(&mut follower, &log.snapshot()), Refused::NoTrust);
    let mut follower = trusting();
    follower.challenge([1; 16], up(0));
    assert_eq!(refuses(&mut follower, &log.beat([1; 16])), Refused::NoSnapshot);
    assert_eq!(refuses(&mut follower, &log.delta(vec![])), Refused::NoSnapshot);
    let Message::Snapshot(entries, head) = log.snapshot() else { panic!() };
    let part = Message::Snapshot(entries, None);
    assert!(!follower.receive(&part, at(0), up(0)).unwrap());
    assert!(!fresh(&follower, 0), "a part is not a snapshot");
    assert!(follower.receive(&Message::<Vec<u8>>::Snapshot(vec![], head), at(0), up(0)).unwrap());
    assert!(!fresh(&follower, 0), "no challenge was echoed");
    assert_eq!(follower.enforced(), Seq(1));
    assert!(follower.receive(&log.beat([2; 16]), at(0), up(0)).unwrap());
    assert!(!fresh(&follower, 0), "another challenge was echoed");
    assert!(follower.receive(&log.beat([1; 16]), at(0), up(0)).unwrap());
    assert!(fresh(&follower, 0));
}

#[test]
fn a20_age_counts_from_the_sending_of_the_echoed_challenge() {
    let mut follower = following(&Log::new(1));
    follower.challenge([2; 16], up(1_000));
    follower.challenge([3; 16], up(2_000));
    assert!(follower.receive(&Log::new(1).beat([2; 16]), at(4_900), up(4_900)).unwrap());
    assert!(fresh(&follower, 6_000) && !fresh(&follower, 6_001), "not from its arrival");
    let again = Log::new(1).beat([1; 16]);
    assert!(follower.receive(&again, at(5_000), up(5_000)).unwrap());
    assert!(!fresh(&follower, 6_001), "an echo counts once");
}

#[test]
fn a20_a_relay_that_replays_late_keeps_nothing_fresh() {
    let log = Log::new(1);
    let mut follower = Follower::new(profile(Source::Relayed), None);
    follower.trust(&trust(1, 1)).unwrap();
    let hour = 3_600_000;
    assert!(follower.receive(&log.snapshot(), at(hour), up(hour)).unwrap());
    assert!(follower.receive(&log.beat([0; 16]), at(hour), up(hour)).unwrap());
    assert!(!fresh(&follower, hour));
    let mut later = log;
    later.time = at(hour);
    assert!(follower.receive(&later.beat([0; 16]), at(hour + 1_000), up(hour)).unwrap());
    assert!(fresh(&follower, hour + 4_000) && !fresh(&follower, hour + 4_001));
}

#[test]
fn a16_a_head_from_the_future_keeps_nothing_fresh_and_forgets_nothing() {
    let mut log = Log::new(1);
    log.revoke(1, 60_000);
    let mut follower = following(&log);
    follower.challenge([2; 16], up(4_000));
    log.time = at(100_000_000);
    assert!(follower.receive(&log.beat([2; 16]), at(4_000), up(4_000)).unwrap());
    assert!(fresh(&follower, 5_000) && !fresh(&follower, 5_001));
    assert_eq!(follower.view().unwrap().revocations().len(), 1);
}

#[test]
fn a21_heartbeats_that_pass_while_a_delta_is_held_back_are_a_gap() {
    let mut log = Log::new(1);
    let mut follower = following(&log);
    log.pass();
    assert!(follower.receive(&log.beat([0; 16]), at(0), up(0)).unwrap(), "nothing is missing");
    log.revoke(1, 60_000);
    assert_eq!(refuses(&mut follower, &log.beat([0; 16])), Refused::Gap);
    assert!(!fresh(&follower, 0));
    assert!(follower.subscribe().snapshot, "it asks for everything");
    assert!(follower.receive(&log.snapshot(), at(0), up(0)).unwrap());
}

/// A delta may be too long for any message, and would be again.
#[test]
fn who_cannot_read_what_came_asks_for_everything_and_goes_on_until_then() {
    let mut log = Log::new(1);
    let mut follower = following(&log);
    assert!(!follower.subscribe().snapshot);
    follower.ask_for_all();
    assert!(follower.subscribe().snapshot && fresh(&follower, 0));
    assert!(follower.holds() && !follower.is_whole(), "it waits for all parts");
    log.revoke(1, 60_000);
    assert!(follower.receive(&log.snapshot(), at(0), up(0)).unwrap());
    assert!(follower.is_whole() && !follower.subscribe().snapshot);
    // It may be told everything though it did not ask.
    log.revoke(2, 60_000);
    let Message::Snapshot(entries, _) = log.snapshot() else { panic!() };
    assert!(!follower.receive(&Message::Snapshot(entries, None), at(0), up(0)).unwrap());
    assert!(follower.holds() && !follower.is_whole());
}

#[test]
fn a22_what_goes_back_is_never_adopted() {
    let mut log = Log::new(1);
    let old = log.clone();
    log.revoke(1, 60_000);
    for message in [old.snapshot(), old.delta(vec![]), old.beat([0; 16])] {
        let mut follower = following(&log);
        assert_eq!(refuses(&mut follower, &message), Refused::Behind);
        assert_eq!(Refused::Behind.remedy(), Remedy::OtherBroker);
        assert!(!fresh(&follower, 0), "it denies");
        assert_eq!(follower.enforced(), Seq(0));
        assert_eq!(refuses(&mut follower, &old.snapshot()), Refused::Behind);
        assert!(follower.receive(&log.snapshot(), at(0), up(0)).unwrap(), "another broker");
    }
}

#[test]
fn a22_missing_added_swapped_and_changed_entries_are_a_gap() {
    let mut log = Log::new(1);
    log.revoke(1, 60_000);
    let before = log.clone();
    let (a, b) = (log.revoke(2, 60_000), log.revoke(3, 60_000));
    let mut changed = b.clone();
    *changed.last_mut().unwrap() ^= 1;
    let bad = [
        vec![],
        vec![a.clone()],
        vec![b.clone()],
        vec![b.clone(), a.clone()],
        vec![a.clone(), b.clone(), b.clone()],
        vec![a.clone(), changed],
    ];
    for entries in bad {
        let mut follower = following(&before);
        assert_eq!(refuses(&mut follower, &log.delta(entries)), Refused::Gap);
        assert_eq!(follower.view().unwrap().revocations().len(), 1);
    }
    let mut follower = following(&before);
    assert!(follower.receive(&log.delta(vec![a, b]), at(0), up(0)).unwrap());
    assert_eq!(follower.enforced(), Seq(3));
    let Message::Snapshot(mut entries, head) = log.snapshot() else { panic!() };
    entries.pop();
    let short = Message::Snapshot(entries, head);
    assert_eq!(refuses(&mut follower, &short), Refused::SnapshotDigest);
}

#[test]
fn a22_fast_forward_is_healed_by_a_new_epoch_that_the_root_names_and_by_nothing_else() {
    let mut log = Log::new(1);
    log.revoke(1, 60_000);
    let mut follower = following(&log);
    let mut far = log.clone();
    far.seq = u64::MAX;
    assert!(follower.receive(&far.beat([0; 16]), at(0), up(0)).unwrap(), "by a stolen feed key");
    assert_eq!(refuses(&mut follower, &log.snapshot()), Refused::Behind);
    let mut next = Log::new(2);
    next.revoke(5, 60_000);
    assert_eq!(refuses(&mut follower, &next.snapshot()), Refused::OtherEpoch);
    assert!(follower.trust(&trust(2, 2)).unwrap());
    assert!(!fresh(&follower, 0), "nothing is known of the new epoch");
    assert_eq!(refuses(&mut follower, &far.beat([0; 16])), Refused::OtherEpoch);
    assert!(follower.receive(&next.snapshot(), at(0), up(0)).unwrap());
    let view = follower.view().unwrap();
    assert_eq!(view.epoch(), Epoch::new([2; 16]));
    assert_eq!(view.revocations().len(), 2, "the union with what it knew");
}

#[test]
fn heads_by_other_keys_feeds_and_purposes_are_not_believed() {
    let log = Log::new(1);
    let beat = |head: Head, seed| Message::Heartbeat(head.sign(&key(seed)), vec![]);
    let mut follower = following(&log);
    let head = log.head();
    let unsigned = Refused::Unsigned;
    assert_eq!(refuses(&mut follower, &beat(head, 9)), unsigned, "a token key");
    assert_eq!(refuses(&mut follower, &beat(head, ROOT)), unsigned, "the trust root");
    assert_eq!(refuses(&mut follower, &beat(Head { key: KeyId(2), ..head }, FEED_KEY)), unsigned);
    let other = Head { feed: FeedId::new([8; 16]), ..head };
    assert_eq!(refuses(&mut follower, &beat(other, FEED_KEY)), Refused::OtherFeed);
    let SignedHead { head, signature } = log.signed();
    for place in 0..head.len() {
        let mut head = head.clone();
        head[place] ^= 1;
        let message = Message::Heartbeat(SignedHead { head, signature }, vec![]);
        assert_eq!(refuses(&mut follower, &message), unsigned, "byte {place}");
    }
    let ended = at(2_000_000_000);
    let late = follower.receive(&log.beat([0; 16]), ended, up(0)).unwrap_err();
    assert_eq!(late, unsigned, "a feed key has an end");
}

#[test]
fn what_is_not_understood_matches_everything_until_it_lapses() {
    let mut log = Log::new(1);
    let known = log.revoke(1, 60_000);
    let mut odd = known.clone();
    odd.extend([0x32, 0x00]);
    let future = FeedEntry::from_bytes(&odd).unwrap();
    assert_eq!((future.seq, future.kind), (Seq(1), Kind::Unknown));
    for bad in [
        vec![],
        vec![0xff],
        FeedEntry { seq: Seq(0), ..FeedEntry::from_bytes(&known).unwrap() }.to_bytes(),
    ] {
        assert!(FeedEntry::from_bytes(&bad).is_err());
    }
}

#[test]
fn best_effort_outlives_staleness_and_nothing_else() {
    let mut log = Log::new(1);
    let old = log.clone();
    log.revoke(1, 60_000);
    let profile = profile(Source::Direct).best_effort();
    let mut follower = Follower::new(profile, None);
    follower.trust(&trust(1, 1)).unwrap();
    assert!(!fresh(&follower, 0));
    follower.challenge([1; 16], up(0));
    follower.receive(&log.snapshot(), at(0), up(0)).unwrap();
    follower.receive(&log.beat([1; 16]), at(0), up(0)).unwrap();
    assert!(fresh(&follower, 10_000_000));
    refuses(&mut follower, &old.snapshot());
    assert!(!fresh(&follower, 0));
}
