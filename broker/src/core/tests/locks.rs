//! Locks: what they refuse, who sets and lifts them, and how long they last.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use dayfly_verifier::id::{BundleDigest, LockId};
use dayfly_verifier::request::{Narrowing, Requirement};
use dayfly_verifier::revocations::{FeedEntry, Kind};

use super::world::*;
use crate::core::case::Standing;
use crate::core::command::{Application, Command};
use crate::core::denial::{Denial, Limited};
use crate::core::directory::Directory;
use crate::core::event::{Event, IdentityChange, Lock, Target, TaskOutcome};
use crate::core::verdict::Outcome;

fn bare(n: u8) -> Lock {
    Lock { id: LockId::new([n; 16]), workload: None, task: None, prefix: None, person: None }
}

/// One on each thing by which the request of `World::filing` can be locked.
fn locks() -> [Lock; 5] {
    [
        Lock { workload: Some(id("agent/a")), ..bare(1) },
        Lock { task: Some("task-1".parse().unwrap()), ..bare(1) },
        Lock { prefix: Some("db/prod/a/b".parse().unwrap()), ..bare(1) },
        Lock { prefix: Some("db".parse().unwrap()), ..bare(1) },
        Lock { person: Some(person("pat")), ..bare(1) },
    ]
}

impl World {
    fn lock(&mut self, lock: &Lock, secs_ahead: u64) -> Result<Vec<Event>, Denial> {
        let until = self.now.plus(secs(secs_ahead));
        self.run("person/ops", Command::Lock(lock.clone(), until, None))
    }

    fn unlock(&mut self, n: u8) -> Result<Vec<Event>, Denial> {
        self.run("person/ops", Command::Unlock(LockId::new([n; 16])))
    }

    /// What a gateway hears of a use of an online right, granted before `lock` and used under it.
    fn evaluate(&mut self, lock: &Lock) -> Result<Vec<Event>, Denial> {
        self.unlock(1).unwrap();
        let mut filing = self.filing();
        filing.principal = Some(person("pat"));
        let required = Requirement { online: true, ..requirement(&[]) };
        let grant = self.file("agent/a", &filing, &required).unwrap();
        let token = self.token(&filing);
        let ask = |world: &Self| Command::Reevaluate(token, world.same(&grant));
        self.run("gateway/orders", ask(self)).unwrap();
        self.pass(secs(100));
        self.lock(lock, 10).unwrap();
        self.run("gateway/orders", ask(self))
    }

    /// The locks that a gateway holds which comes now.
    fn told(&self) -> Vec<LockId> {
        let mut ids = BTreeSet::new();
        for bytes in self.state.feed.in_force(self.now) {
            match FeedEntry::from_bytes(bytes).unwrap().kind {
                Kind::Locked(lock) => drop(ids.insert(lock.id)),
                Kind::Unlocked(id) => drop(ids.remove(&id)),
                Kind::Revoked(_) | Kind::Unknown => {}
            }
        }
        ids.into_iter().collect()
    }
}

fn is_locked<T: std::fmt::Debug>(result: Result<T, Denial>, what: &str) {
    match result {
        Err(Denial::Locked(id, _)) => assert_eq!(id, LockId::new([1; 16]), "{what}"),
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn a_lock_refuses_requests_grants_exchanges_and_uses_until_it_is_lifted() {
    for lock in locks() {
        let mut world = World::new();
        let mut filing = world.filing();
        (filing.principal, filing.uses) = (Some(person("pat")), NonZeroU32::new(3));
        world.granted(&filing);
        let token = world.token(&filing);
        let mut waiting = world.filing();
        waiting.principal = Some(person("pat"));
        let required = requirement(&[("dba", 1)]);
        let grant = world.file("agent/a", &waiting, &required).unwrap();

        world.lock(&lock, 100).unwrap();
        let what = format!("{lock:?}");
        let mut another = world.filing();
        another.principal = Some(person("pat"));
        is_locked(world.file("agent/a", &another, &required), &what);
        is_locked(world.approve("ann", &grant), &what);
        let exchange = world.exchanging(&filing);
        is_locked(world.exchange(&exchange), &what);
        let use_id = world.use_id();
        is_locked(world.run("gateway/orders", Command::Redeem(token, use_id)), &what);
        let evaluated = world.clone().evaluate(&lock);
        is_locked(evaluated, &what);

        world.unlock(1).unwrap();
        world.file("agent/a", &another, &required).unwrap();
        world.approve("ann", &grant).unwrap();
        world.exchange(&exchange).unwrap();
        world.run("gateway/orders", Command::Redeem(token, use_id)).unwrap();
    }
}

#[test]
fn a_lock_refuses_what_matches_all_of_it_and_nothing_else() {
    let task_2 = || Some("task-2".parse().unwrap());
    let others = [
        Lock { workload: Some(id("agent/b")), ..bare(1) },
        Lock { task: task_2(), ..bare(1) },
        Lock { prefix: Some("db/prodigy".parse().unwrap()), ..bare(1) },
        Lock { person: Some(person("pat")), ..bare(1) },
        Lock { workload: Some(id("agent/a")), task: task_2(), ..bare(1) },
    ];
    for lock in others {
        let mut world = World::new();
        world.lock(&lock, 100).unwrap();
        let filing = world.filing();
        world.granted(&filing);
        world.token(&filing);
    }
}

#[test]
fn a_locked_person_decides_on_nothing() {
    let mut world = World::new();
    let (_, grant) = world.pending(&[("dba", 1)]);
    world.lock(&Lock { person: Some(person("ann")), ..bare(1) }, 100).unwrap();
    is_locked(world.approve("ann", &grant), "approves");
    is_locked(world.deny("ann", &grant), "denies");
    world.approve("abe", &grant).unwrap();
}

#[test]
fn an_approval_from_before_counts_again_when_its_person_is_free() {
    let mut world = World::new();
    let (_, grant) = world.pending(&[("dba", 2)]);
    world.approve("ann", &grant).unwrap();
    world.lock(&Lock { person: Some(person("ann")), ..bare(1) }, 100).unwrap();
    world.approve("abe", &grant).unwrap();
    assert_eq!(world.state.case(&grant).unwrap().standing(world.now), Standing::Pending);
    // Nor does it when a new bundle looks at what waits.
    let permitted = |required: &_| Outcome::Permitted(Clone::clone(required));
    world.apply(2, &directory(), permitted).unwrap();
    assert_eq!(world.state.case(&grant).unwrap().standing(world.now), Standing::Pending);
    let mut free = world.clone();
    free.unlock(1).unwrap();
    free.pass(secs(1));
    free.approve("abe", &grant).unwrap();
    assert!(matches!(free.state.case(&grant).unwrap().standing(free.now), Standing::Granted(_)));
    world.approve("max", &grant).unwrap();
    assert!(matches!(world.state.case(&grant).unwrap().standing(world.now), Standing::Granted(_)));
}

/// What gives, or lets go, is refused to an operator or admin whom a lock names; what takes away
/// is not.
#[test]
fn a_locked_operator_lifts_invites_and_applies_nothing() {
    let mut world = World::new();
    let task = Some("task-9".parse().unwrap());
    world.lock(&Lock { person: Some(person("ops")), task, ..bare(1) }, 100).unwrap();
    let other = Lock { task: Some("task-2".parse().unwrap()), ..bare(2) };
    world.lock(&other, 100).unwrap();
    is_locked(world.unlock(1), "their own");
    is_locked(world.unlock(2), "another");
    let invited = Command::Identity(id("agent/a"), IdentityChange::Invited);
    is_locked(world.run("person/ops", invited.clone()), "invites");
    let permitted = |required: &_| Outcome::Permitted(Clone::clone(required));
    is_locked(world.apply(2, &directory(), permitted), "applies");
    world.revoke(Target::Workload(id("agent/a"))).unwrap();
    world.run("person/opa", Command::Unlock(LockId::new([1; 16]))).unwrap();
    world.run("person/ops", invited).unwrap();
    world.apply(2, &directory(), permitted).unwrap();
    world.unlock(2).unwrap();
}

#[test]
fn a_locked_admin_signs_no_bundle() {
    let signed = |locked: Option<&str>| {
        let mut world = World::with(Directory { bundle_signatures: 1, ..directory() });
        if let Some(name) = locked {
            world.lock(&Lock { person: Some(person(name)), ..bare(1) }, 100).unwrap();
        }
        let application = Application {
            bundle: BundleDigest::new([2; 32]),
            directory: directory(),
            signers: BTreeSet::from([signer("adm")]),
            replaces: world.state.bundle,
            verdicts: world.verdicts(2, |required| Outcome::Permitted(required.clone())),
        };
        world.run("person/ops", Command::Apply(application)).map(drop)
    };
    assert_eq!(signed(Some("adm")), Err(Denial::UnsignedBundle));
    assert_eq!(signed(Some("ann")), Ok(()));
    assert_eq!(signed(None), Ok(()));
}

/// A lock takes nothing back, and keeps nobody from giving back.
#[test]
fn what_is_locked_may_be_completed_and_cancelled() {
    let mut world = World::new();
    let filing = world.filing();
    world.granted(&filing);
    let (waiting, _) = world.pending(&[("dba", 1)]);
    world.lock(&locks()[0], 100).unwrap();
    let complete = Command::Complete(filing.id, holder(1), TaskOutcome::Succeeded);
    world.run("agent/a", complete).unwrap();
    world.run("agent/a", Command::Cancel(waiting.id, holder(1))).unwrap();
}

/// A person is asked before anything is granted: what they narrow may lie beside the lock.
#[test]
fn what_an_approval_narrows_to_is_what_a_lock_is_held_against() {
    let mut world = World::new();
    let (_, grant) = world.pending(&[("dba", 1)]);
    world.lock(&Lock { prefix: Some("db/prod/orders".parse().unwrap()), ..bare(1) }, 100).unwrap();
    is_locked(world.approve("ann", &grant), "all of it");
    let beside =
        Narrowing { rights: Some([right("read db/prod/a/**")].into()), ..Narrowing::default() };
    world.approve_narrowed("ann", &grant, beside).unwrap();
}

/// A grant for no approval at all comes with the bundle, and must pass by the locks as well.
#[test]
fn a_bundle_grants_nothing_that_is_locked() {
    for (lock, granted) in [(Some(&locks()[0]), false), (None, true)] {
        let mut world = World::new();
        let (_, grant) = world.pending(&[("dba", 1)]);
        if let Some(lock) = lock {
            world.lock(lock, 100).unwrap();
        }
        world.apply(2, &directory(), |_| Outcome::Permitted(requirement(&[]))).unwrap();
        let standing = world.state.case(&grant).unwrap().standing(world.now);
        assert_eq!(matches!(standing, Standing::Granted(_)), granted);
    }
}

#[test]
fn an_exchange_that_was_answered_before_is_not_answered_again_under_a_lock() {
    let mut world = World::new();
    let filing = world.filing();
    world.granted(&filing);
    let exchange = world.exchanging(&filing);
    world.exchange(&exchange).unwrap();
    world.lock(&locks()[0], 100).unwrap();
    is_locked(world.exchange(&exchange), "the same again");
    world.pass(secs(100));
    assert_eq!(world.exchange(&exchange), Ok(Vec::new()), "its end has come");
}

#[test]
fn only_operators_lock_and_unlock() {
    let mut world = World::new();
    let lock = Lock { workload: Some(id("agent/a")), ..bare(1) };
    world.lock(&lock, 100).unwrap();
    let until = world.now.plus(secs(100));
    for who in ["person/ann", "person/adm", "agent/a", "gateway/orders", "nobody/x"] {
        let set = Command::Lock(Lock { id: LockId::new([2; 16]), ..lock.clone() }, until, None);
        assert_eq!(world.run(who, set), Err(Denial::NotAllowed), "{who}");
        let lift = Command::Unlock(lock.id);
        assert_eq!(world.run(who, lift), Err(Denial::NotAllowed), "{who}");
    }
    assert_eq!(world.unlock(9), Err(Denial::NotFound));
}

#[test]
fn an_end_lies_ahead_is_put_off_and_never_comes_nearer() {
    let mut world = World::new();
    let lock = Lock { task: Some("task-1".parse().unwrap()), ..bare(1) };
    for bad in [0, 30 * 24 * 3600 + 1] {
        assert!(matches!(world.lock(&lock, bad), Err(Denial::Invalid(_))), "{bad}");
    }
    assert_eq!(world.lock(&lock, 100).unwrap().len(), 1);
    assert_eq!(world.lock(&lock, 100).unwrap().len(), 0, "a repeat");
    assert!(matches!(world.lock(&lock, 99), Err(Denial::Invalid(_))));
    let other = Lock { task: Some("task-2".parse().unwrap()), ..bare(1) };
    assert_eq!(world.lock(&other, 200), Err(Denial::IdReused));

    world.lock(&lock, 200).unwrap();
    world.pass(secs(150));
    let filing = world.filing();
    is_locked(world.file("agent/a", &filing, &requirement(&[])), "after its first end");
    assert_eq!(world.told(), [lock.id], "gateways too");
    world.pass(secs(50));
    let filing = world.filing();
    world.granted(&filing);
    assert_eq!(world.told(), []);
    assert_eq!(world.state.locks(world.now).count(), 0);
}

#[test]
fn a_lock_that_was_lifted_is_not_set_by_a_repeat() {
    let mut world = World::new();
    let lock = Lock { task: Some("task-1".parse().unwrap()), ..bare(1) };
    world.lock(&lock, 100).unwrap();
    assert_eq!(world.told(), [lock.id]);
    assert_eq!(world.unlock(1).unwrap().len(), 1);
    assert_eq!(world.unlock(1).unwrap().len(), 0, "a repeat");
    assert_eq!(world.told(), []);
    assert_eq!(world.lock(&lock, 100).unwrap().len(), 0, "a repeat");
    assert_eq!(world.lock(&lock, 200), Err(Denial::IdReused));
    let filing = world.filing();
    world.granted(&filing);
}

#[test]
fn there_are_only_so_many() {
    let mut world = World::new();
    for n in 0..=255 {
        let task = format!("t-{n}").parse().unwrap();
        world.lock(&Lock { task: Some(task), ..bare(n) }, 100).unwrap();
    }
    let mut one_more = bare(0);
    one_more.id = LockId::new(*b"one more, though");
    assert_eq!(world.lock(&one_more, 100), Err(Denial::LimitReached(Limited::Locks)));
    world.pass(secs(100));
    world.lock(&one_more, 100).unwrap();
}

/// One that was lifted is remembered until its end, so these are bounded as well.
#[test]
fn so_many_are_remembered() {
    let mut world = World::new();
    let n_of = |n: u16| {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&n.to_be_bytes());
        Lock { id: LockId::new(id), task: Some("t".parse().unwrap()), ..bare(0) }
    };
    for n in 0..4096 {
        world.lock(&n_of(n), 100).unwrap();
        world.run("person/ops", Command::Unlock(n_of(n).id)).unwrap();
    }
    assert_eq!(world.lock(&n_of(4096), 100), Err(Denial::LimitReached(Limited::Locks)));
    world.pass(secs(100));
    world.lock(&n_of(4096), 100).unwrap();
}

/// Only what is on all that a workload does cuts its streams; and taking away waits for nothing.
#[test]
fn the_streams_of_a_workload_end_by_a_lock_on_all_of_it() {
    let whole = Lock { workload: Some(id("agent/a")), ..bare(1) };
    for (lock, cut) in [
        (whole.clone(), true),
        (Lock { workload: Some(id("agent/b")), ..bare(1) }, false),
        (Lock { task: Some("task-1".parse().unwrap()), ..whole.clone() }, false),
        (Lock { prefix: Some("db/prod".parse().unwrap()), ..whole.clone() }, false),
        (Lock { person: Some(person("pat")), ..whole.clone() }, false),
        (locks()[1].clone(), false),
    ] {
        let mut world = World::new();
        world.lock(&lock, 100).unwrap();
        let on = |now| world.state.lock_on_workload(&id("agent/a"), now).is_some();
        assert_eq!(on(world.now), cut, "{lock:?}");
        assert!(!on(world.now.plus(secs(100))), "{lock:?}");
    }
    assert!(Command::Lock(whole.clone(), World::new().now, None).takes_away());
    assert!(!Command::Unlock(whole.id).takes_away());
}
