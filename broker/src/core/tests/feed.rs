//! What the feed tells, against what the log says: for every token that is alive, a gateway that
//! folds the feed refuses it if and only if it was taken back.

use dayfly_verifier::claims::{Claims, Record};
use dayfly_verifier::feed::{feed_start, fold_hash};
use dayfly_verifier::id::{FeedHash, Seq};
use dayfly_verifier::revocations::{FeedEntry, Revocations, Revoked};
use dayfly_verifier::time::Timestamp;
use dayfly_verifier::wire::{BlockId, Content};
use proptest::prelude::*;

use super::model::{Model, draws};
use super::world::*;
use crate::core::event::{End, Entry, Event, Head, Target, TaskOutcome};
use crate::core::state::State;

/// A gateway that hears everything as it happens.
struct Replica {
    seq: Seq,
    hash: FeedHash,
    revocations: Revocations,
}

impl Replica {
    fn new(state: &State) -> Self {
        let hash = feed_start(&state.head.epoch);
        Self { seq: Seq(0), hash, revocations: Revocations::default() }
    }

    fn hear(&mut self, state: &State) {
        for bytes in state.feed.after(self.seq).unwrap() {
            self.hash = fold_hash(&self.hash, bytes);
            let entry = FeedEntry::from_bytes(bytes).unwrap();
            assert!(entry.seq > self.seq && entry.seq <= state.head.seq);
            self.seq = entry.seq;
            self.revocations.fold(&entry);
        }
        assert_eq!(self.hash, state.feed.hash());
        self.revocations.prune(state.time);
    }
}

/// A gateway that comes now.
fn newcomer(state: &State, now: Timestamp) -> Revocations {
    let mut revocations = Revocations::default();
    for bytes in state.feed.in_force(now) {
        revocations.fold(&FeedEntry::from_bytes(bytes).unwrap());
    }
    revocations
}

/// Tokens alive at `now`, with whether the log takes them back, read entry by entry.
fn tokens(log: &[(Head, Entry)], now: Timestamp) -> Vec<(Content, bool)> {
    let mut tokens = Vec::new();
    for (place, (head, entry)) in log.iter().enumerate() {
        let Event::TokenRecorded { claims, .. } = &entry.event else { continue };
        let mut later = log.iter().skip(place).map(|(_, entry)| &entry.event);
        let killed = log.iter().any(|(_, entry)| kills_key(&entry.event, claims));
        let taken = killed || later.any(|event| takes(event, claims));
        let record = Record { epoch: head.epoch, seq: head.seq };
        let authority = BlockId([0; 64]);
        let content = Content { claims: claims.clone(), record, authority, links: Vec::new() };
        if claims.expires_at > now {
            tokens.push((content, taken));
        }
    }
    tokens
}

fn kills_key(event: &Event, claims: &Claims) -> bool {
    matches!(event, Event::Revoked { target: Target::Key(key), .. } if *key == claims.key)
}

fn takes(event: &Event, claims: &Claims) -> bool {
    if let Event::Ended { grant, .. } = event {
        return *grant == claims.grant;
    }
    let Event::Revoked { target, .. } = event else { return false };
    match target {
        Target::Grant(grant) => *grant == claims.grant,
        Target::Token(token) => *token == claims.token,
        Target::Workload(workload) => *workload == claims.subject,
        Target::Task(task) => *task == claims.task,
        // The prefixes that the model draws reach every request that it draws.
        Target::Prefix(_) => true,
        Target::Key(_) | Target::Block(_) | Target::Delegate(..) => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..Default::default()
    })]

    /// I8: nothing that is alive and was taken back is ever accepted, whoever follows from the
    /// start or comes at any moment; and nothing else is refused.
    #[test]
    fn i08_the_feed_takes_back_what_the_log_does_and_nothing_else(draws in draws()) {
        let mut model = Model::new();
        let mut replica = Replica::new(&model.world.state);
        for draw in draws {
            model.play(draw);
            let state = &model.world.state;
            replica.hear(state);
            let now = model.world.now.max(state.time);
            let newcomer = newcomer(state, now);
            for (content, taken) in tokens(&model.world.log, now) {
                let told = replica.revocations.revoked(&content);
                prop_assert_eq!(told.is_some(), taken, "told {:?}", told);
                prop_assert_eq!(newcomer.revoked(&content).is_some(), taken);
            }
        }
    }
}

/// A world with a grant of one token: the world, the grant, the token's content.
fn with_token() -> (World, Content) {
    let mut world = World::new();
    let filing = world.filing();
    world.granted(&filing);
    world.token(&filing);
    let (content, taken) = tokens(&world.log, world.now).remove(0);
    assert!(!taken);
    (world, content)
}

#[test]
fn an_entry_outlives_its_last_victim_by_the_largest_staleness_and_then_leaves() {
    let (mut world, content) = with_token();
    world.revoke(Target::Grant(content.claims.grant)).unwrap();
    let death = content.claims.expires_at;
    let until = death.plus(secs(62));
    assert_eq!(world.state.feed.in_force(until.minus(secs(1))).count(), 1);
    assert_eq!(world.state.feed.in_force(until).count(), 0);
    let before = world.state.head.seq;
    let told: Vec<_> = world.state.feed.after(Seq(0)).unwrap().cloned().collect();
    let long = told.iter().map(|entry| entry.len()).sum::<usize>();
    assert_eq!(world.state.feed.after_within(Seq(0), long), Some(told));
    assert_eq!(world.state.feed.after_within(Seq(0), long.saturating_sub(1)), None);
    world.now = until;
    let filing = world.filing();
    world.granted(&filing);
    assert!(world.state.feed.after(Seq(0)).is_none(), "what came before is forgotten");
    assert_eq!(world.state.feed.after(before).unwrap().count(), 0);
}

#[test]
fn what_never_had_a_living_token_is_not_told() {
    let mut world = World::new();
    let (_, pending) = world.pending(&[("dba", 1)]);
    let filing = world.filing();
    let granted = world.granted(&filing);
    world.revoke(Target::Grant(pending)).unwrap();
    world.revoke(Target::Grant(granted)).unwrap();
    assert_eq!(world.state.feed.in_force(world.now).count(), 0);
}

#[test]
fn ends_and_each_kind_of_revocation_are_told_by_what_they_name() {
    let (world, content) = with_token();
    let claims = &content.claims;
    let prefix = |text: &str| Target::Prefix(text.parse().unwrap());
    let told = [
        (Target::Grant(claims.grant), Some(Revoked::Grant)),
        (Target::Token(claims.token), Some(Revoked::Token)),
        (Target::Block(vec![0; 64]), Some(Revoked::Block)),
        (Target::Workload(claims.subject.clone()), Some(Revoked::Workload)),
        (Target::Task(claims.task.clone()), Some(Revoked::Task)),
        (prefix("db"), Some(Revoked::Prefix)),
        (prefix("db/prod/orders/7"), Some(Revoked::Prefix)),
        (Target::Key(KEY), Some(Revoked::Key)),
        (Target::Workload(id("agent/b")), None),
        (Target::Task("task-2".parse().unwrap()), None),
        (prefix("db/production"), None),
        (Target::Block(vec![1; 64]), None),
        (Target::Delegate(claims.grant, holder(5)), None),
    ];
    for (target, expected) in told {
        let mut world = world.clone();
        let event = Event::Revoked { target: target.clone(), reason: None };
        world.record(crate::core::event::Actor::Host, [event]);
        let told = newcomer(&world.state, world.now);
        assert_eq!(told.len(), 1);
        assert_eq!(told.revoked(&content), expected, "{target:?}");
    }
    for end in [End::Cancelled, End::Completed(TaskOutcome::Succeeded)] {
        let mut world = world.clone();
        let event = Event::Ended { grant: claims.grant, end };
        world.record(crate::core::event::Actor::Host, [event]);
        let told = newcomer(&world.state, world.now);
        assert_eq!(told.revoked(&content), Some(Revoked::Grant));
    }
}

/// Whoever stole a key could date a token as late as the key itself ends.
#[test]
fn a26_a_killed_key_stays_in_the_feed_until_the_key_itself_has_ended() {
    let (mut world, content) = with_token();
    let end = world.state.keys[&KEY].not_after;
    world.revoke(Target::Key(KEY)).unwrap();
    for passed in [secs(0), secs(15 * 60 + 63), end.since(world.now)] {
        let told = newcomer(&world.state, world.now.plus(passed));
        assert_eq!(told.revoked(&content), Some(Revoked::Key), "{passed:?}");
    }
    assert_eq!(world.state.feed.in_force(end.plus(secs(62))).count(), 0);
}
