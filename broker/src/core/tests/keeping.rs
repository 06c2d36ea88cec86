//! Who may say that a snapshot is kept; and logs for those who keep them.

use dayfly_verifier::id::{LockId, SnapshotDigest};
use dayfly_verifier::request::Narrowing;
use dayfly_verifier::uses::Batch;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

use super::model::{Model, draws};
use super::world::*;
use crate::core::command::Command;
use crate::core::denial::Denial;
use crate::core::event::*;
use crate::core::state::FOLD;
use crate::journal::snapshot::copy;

/// A log after which there is a case at each stage, and something in all that a state is made of.
pub(crate) fn story() -> Vec<Entry> {
    let mut world = World::new();
    let invited = Command::Identity(id("agent/a"), IdentityChange::Invited);
    world.run("person/ops", invited).unwrap();
    let (filing, grant) = world.pending(&[("dba", 1), ("security", 1)]);
    world.approve("ann", &grant).unwrap();
    let narrowing = Narrowing { uses: 3.try_into().ok(), ..Narrowing::default() };
    world.approve_narrowed("sue", &grant, narrowing).unwrap();
    let token = world.token(&filing);
    let again = world.exchanging(&filing);
    world.exchange(&again).unwrap();
    let use_id = world.use_id();
    world.run("gateway/orders", Command::Redeem(token, use_id)).unwrap();
    let (_, denied) = world.pending(&[("dba", 1)]);
    world.deny("ann", &denied).unwrap();
    let (cancelled, _) = world.pending(&[("dba", 1)]);
    world.run("agent/a", Command::Cancel(cancelled.id, holder(1))).unwrap();
    for end in [TaskOutcome::Succeeded, TaskOutcome::Failed] {
        let filing = world.filing();
        world.granted(&filing);
        world.token(&filing);
        world.run("agent/a", Command::Complete(filing.id, holder(1), end)).unwrap();
    }
    let filing = world.filing();
    let revoked = world.granted(&filing);
    world.token(&filing);
    world.revoke(Target::Grant(revoked)).unwrap();
    let (from, until) = (world.now, world.now.plus(secs(1)));
    let instance = "one".parse().unwrap();
    let batch = Batch { instance, number: 1, from, until, counts: Vec::new(), missed: 2 };
    world.run("gateway/orders", Command::Report(batch)).unwrap();
    for n in [1, 2] {
        let lock = Lock {
            id: LockId::new([n; 16]),
            workload: Some(id("agent/b")),
            task: None,
            prefix: Some("db/prod".parse().unwrap()),
            person: None,
        };
        let until = world.now.plus(secs(3600));
        world.run("person/ops", Command::Lock(lock, until, None)).unwrap();
    }
    world.run("person/ops", Command::Unlock(LockId::new([2; 16]))).unwrap();
    let opted_out = Event::OptedOut { instance: "two".parse().unwrap() };
    world.record(Actor::Gateway(id("gateway/mail")), [opted_out]);
    let filing = world.filing();
    let drifting = world.granted(&filing);
    let ended = Event::Ended { grant: drifting, end: End::Drifted(refusal()) };
    world.record(Actor::Broker(id("dayfly/broker")), [ended]);
    let lapsing = world.filing();
    world.granted(&lapsing);
    world.pass(secs(400));
    world.pending(&[("dba", 1), ("security", 1)]);
    let filing = world.filing();
    world.granted(&filing);
    entries(world)
}

/// A log of what random callers did.
pub(crate) fn random() -> Vec<Entry> {
    let mut runner = TestRunner::deterministic();
    let mut model = Model::new();
    for _ in 0..20 {
        let draws = draws().new_tree(&mut runner).unwrap().current();
        draws.into_iter().for_each(|draw| model.play(draw));
    }
    entries(model.world)
}

fn entries(world: World) -> Vec<Entry> {
    world.log.into_iter().map(|(_, entry)| entry).collect()
}

/// At the very moment of its end a case has ended, in look-ups that were kept up and in those that
/// are made at once.
#[test]
fn what_ends_with_the_last_entry_has_ended_for_whoever_takes_it_up() {
    let millisecond = std::time::Duration::from_millis(1);
    for early in [millisecond, secs(0)] {
        let mut world = World::new();
        let filing = world.filing();
        let (_, pending) = world.pending(&[("dba", 1)]);
        let granted = world.granted(&filing);
        for grant in [pending, granted] {
            let due = world.state.case(&grant).unwrap().due().unwrap();
            world.pass(due.since(world.now) - early);
            let invited = Command::Identity(id("agent/b"), IdentityChange::Invited);
            world.run("person/ops", invited).unwrap();
            assert_eq!(world.state.time, world.now);
            assert_eq!(copy(&world.state).unwrap(), world.state);
        }
    }
}

#[test]
fn only_a_broker_says_that_a_snapshot_is_kept_and_only_of_its_log() {
    let mut world = World::new();
    let end = world.state.head;
    let kept =
        |of| Command::Snapshot(Snapshot { of, fold: FOLD, digest: SnapshotDigest::new([1; 32]) });
    for stranger in ["person/ops", "agent/a", "gateway/orders", "nobody/x"] {
        assert_eq!(world.run(stranger, kept(end)), Err(Denial::NotAllowed), "{stranger}");
    }
    let ahead = Head { seq: end.seq.next(), ..end };
    let elsewhere = Head { epoch: Head::ORIGIN.epoch, ..end };
    for head in [ahead, elsewhere] {
        let refused = world.run("dayfly/broker", kept(head));
        assert!(matches!(refused, Err(Denial::Invalid(_))), "{refused:?}");
    }
    let events = world.run("dayfly/broker/b", kept(end)).unwrap();
    assert!(matches!(&events[..], [Event::SnapshotTaken(taken)] if taken.of == end));
    assert_eq!(world.state.snapshot, end.seq);
    // Another broker was later: a later snapshot stays the last one.
    assert_eq!(world.run("dayfly/broker", kept(end)), Ok(Vec::new()));
}
