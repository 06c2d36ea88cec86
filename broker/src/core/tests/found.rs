//! What a search in the record finds, against what the fold says: whatever changed a request is
//! found with it.

use std::collections::{BTreeMap, BTreeSet};

use dayfly_verifier::id::{GrantId, PersonId, Seq};
use dayfly_verifier::request::Request;
use dayfly_verifier::uses::{About, Batch, Line, Seen};
use proptest::prelude::*;

use super::model::{Model, delete_all, draws};
use super::world::*;
use crate::core::case::Case;
use crate::core::event::*;
use crate::core::state::State;
use crate::record::trail::{Trail, Wanted};

type Log = Vec<(Head, Entry)>;

fn found(log: &Log, wanted: Wanted) -> BTreeSet<Seq> {
    let mut trail = Trail::new(wanted);
    log.iter().filter(|(_, entry)| trail.takes(entry)).map(|(head, _)| head.seq).collect()
}

/// The requests of a log, and the places at which the fold changed each.
fn changed(log: &Log) -> BTreeMap<GrantId, (Request, BTreeSet<Seq>)> {
    let (mut state, mut all) = (State::default(), BTreeMap::new());
    for (head, entry) in log {
        let before = state.clone();
        state.apply(*head, entry).unwrap();
        for case in state.cases() {
            // Who stands near to it is a matter of bundles and invitations, not of the request.
            let same = |old: &Case| Case { kin: old.kin.clone(), ..case.clone() } == *old;
            if !before.case(&case.grant_id()).is_some_and(same) {
                let new = || (Request::clone(&case.request), BTreeSet::new());
                all.entry(case.grant_id()).or_insert_with(new).1.insert(head.seq);
            }
        }
    }
    all
}

/// The entry at `seq` takes back a workload's, a task's or a resource's requests.
fn is_sweeping(log: &Log, seq: Seq) -> bool {
    let entry = log.iter().find(|(head, _)| head.seq == seq).map(|(_, entry)| &entry.event);
    let sweeping = |target: &Target| {
        matches!(target, Target::Workload(_) | Target::Task(_) | Target::Prefix(_))
    };
    matches!(entry, Some(Event::Revoked { target, .. }) if sweeping(target))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn no_search_hides_what_changed_a_request(draws in draws()) {
        let mut model = Model::new();
        draws.into_iter().for_each(|draw| model.play(draw));
        let log = &model.world.log;
        let changed = changed(log);
        let with = |is: &dyn Fn(&Request) -> bool| {
            let of = changed.values().filter(|(request, _)| is(request));
            of.flat_map(|(_, seqs)| seqs.iter().copied()).collect::<BTreeSet<Seq>>()
        };
        for (grant, (request, seqs)) in &changed {
            let by_grant = found(log, Wanted { grant: Some(*grant), ..Wanted::default() });
            prop_assert!(by_grant.is_superset(seqs), "{seqs:?} {by_grant:?}");
            // What is taken back with many others is found where it was there to be taken back.
            let idle = by_grant.difference(seqs).find(|seq| is_sweeping(log, **seq));
            prop_assert_eq!(idle, None);
            let (workload, task) = (request.workload.clone(), request.task.clone());
            let by_both = Wanted {
                workload: Some(workload.clone()),
                task: Some(task.clone()),
                ..Wanted::default()
            };
            let is_one = |other: &Request| other.workload == workload && other.task == task;
            let (both, by_both) = (with(&is_one), found(log, by_both));
            prop_assert!(by_both.is_superset(&both));
            // Nor is what concerned others alone.
            let others = with(&|other| !is_one(other));
            let strange = by_both.intersection(&others).find(|seq| {
                !both.contains(seq) && !is_sweeping(log, **seq)
            });
            prop_assert_eq!(strange, None);
        }
        let at = |resource: &str| {
            found(log, Wanted { resource: Some(resource.parse().unwrap()), ..Wanted::default() })
        };
        let all = found(log, Wanted::default());
        prop_assert_eq!(all.len(), log.len());
        // The model asks for orders, or for what they stand in alone, and for nothing elsewhere.
        let orders = |request: &Request| request.scope != delete_all();
        prop_assert!(at("db/prod").is_superset(&with(&|_| true)));
        prop_assert!(at("db/prod/orders").is_superset(&with(&orders)));
        let nothing = at("db/staging");
        prop_assert!(nothing.is_empty(), "{nothing:?}");
    }
}

/// A world with a grant of `agent/a` for `pat`, its token, and one of `agent/b` for nobody.
fn two() -> (World, GrantId, GrantId) {
    let mut world = World::new();
    let filing = world.filing();
    let mut hers = filing.clone();
    (hers.principal, hers.task) = (Some(person("pat")), "task-9".parse().unwrap());
    let hers_is = world.granted(&hers);
    world.token(&hers);
    let other = world.file("agent/b", &world.clone().filing(), &requirement(&[])).unwrap();
    (world, hers_is, other)
}

fn last(world: &World) -> Seq {
    world.state.head.seq
}

#[test]
fn a_person_is_found_by_what_they_did_and_by_what_was_asked_on_their_behalf() {
    let (mut world, hers, _) = two();
    let of = |world: &World, name: &str| {
        found(&world.log, Wanted { person: Some(person(name)), ..Wanted::default() })
    };
    // Filed, granted, a token: all on her behalf.
    let filed: BTreeSet<Seq> = [4, 5, 6].map(Seq).into();
    assert_eq!(of(&world, "pat"), filed);
    assert_eq!(of(&world, "ops"), BTreeSet::new());
    world.revoke(Target::Workload(id("agent/b"))).unwrap();
    assert_eq!(of(&world, "pat"), filed, "it was not hers that was revoked");
    let others = last(&world);
    world.revoke(Target::Grant(hers)).unwrap();
    assert!(of(&world, "pat").contains(&last(&world)));
    assert_eq!(of(&world, "ops"), [others, last(&world)].into());
    let (_, pending) = world.pending(&[("dba", 1)]);
    world.deny("ann", &pending).unwrap();
    assert_eq!(of(&world, "ann"), [last(&world)].into());
}

#[test]
fn what_takes_back_a_part_is_found_with_the_whole() {
    let (world, hers, other) = two();
    let token = world.state.case(&hers).unwrap().grant().unwrap().tokens().next().unwrap().id();
    let (prefix, below) = ("db".parse().unwrap(), "db/prod/orders/7".parse().unwrap());
    for (target, touches) in [
        (Target::Token(token), [true, false]),
        (Target::Key(KEY), [true, false]),
        (Target::Delegate(hers, holder(5)), [true, false]),
        (Target::Delegate(other, holder(5)), [false, true]),
        (Target::Task("task-9".parse().unwrap()), [true, false]),
        (Target::Prefix(prefix), [true, true]),
        (Target::Prefix(below), [true, true]),
        (Target::Prefix("db/staging".parse().unwrap()), [false, false]),
        (Target::Block(vec![7; 64]), [false, false]),
    ] {
        let mut world = world.clone();
        world.record(Actor::Host, [Event::Revoked { target: target.clone(), reason: None }]);
        for (grant, touched) in [hers, other].into_iter().zip(touches) {
            let seqs = found(&world.log, Wanted { grant: Some(grant), ..Wanted::default() });
            assert_eq!(seqs.contains(&last(&world)), touched, "{target:?}");
        }
    }
}

#[test]
fn what_names_a_thing_is_found_whether_anything_was_there_to_be_taken_back_or_not() {
    let (workload, task) = (id("agent/none"), "task-none".parse().unwrap());
    let wanted = |change: &dyn Fn(&mut Wanted)| {
        let mut wanted = Wanted::default();
        change(&mut wanted);
        wanted
    };
    let at = |text: &str| Target::Prefix(text.parse().unwrap());
    let resource = |w: &mut Wanted| w.resource = Some("x/y".parse().unwrap());
    let by_workload = |w: &mut Wanted| w.workload = Some(workload.clone());
    let by_task = |w: &mut Wanted| w.task = Some(Clone::clone(&task));
    let cases: [(Target, Wanted, bool); 7] = [
        (Target::Workload(workload.clone()), wanted(&by_workload), true),
        (Target::Workload(id("agent/other")), wanted(&by_workload), false),
        (Target::Task(task.clone()), wanted(&by_task), true),
        (at("x/y"), wanted(&resource), true),
        (at("x"), wanted(&resource), true),
        (at("x/y/z"), wanted(&resource), true),
        (at("x/yz"), wanted(&resource), false),
    ];
    for (target, wanted, named) in cases {
        let mut world = World::new();
        world.revoke(target.clone()).unwrap();
        assert_eq!(found(&world.log, wanted).contains(&last(&world)), named, "{target:?}");
    }
    // An identity is that of the workload, and of no request of it.
    let mut world = World::new();
    let joined = IdentityChange::Joined { generation: 1 };
    let by = Actor::Broker(id("dayfly/broker"));
    world.record(by, [Event::IdentityChanged { id: id("agent/a"), change: joined }]);
    let own = Wanted { workload: Some(id("agent/a")), ..Wanted::default() };
    assert_eq!(found(&world.log, own.clone()).len(), 1);
    let with_task = Wanted { task: Some("task-1".parse().unwrap()), ..own };
    assert!(found(&world.log, with_task).is_empty());
}

#[test]
fn uses_are_found_with_each_request_that_they_are_of() {
    let (mut world, hers, other) = two();
    let token = world.state.case(&hers).unwrap().grant().unwrap().tokens().next().unwrap().id();
    let about = Some(About { grant: hers, token });
    let line = Line { about, operation: None, seen: Seen::Allowed };
    let (instance, at) = ("one".parse().unwrap(), world.now);
    let counts = vec![(line, 3)];
    let batch = Batch { instance, number: 1, from: at, until: at, counts, missed: 0 };
    let digest = batch.digest(&id("gateway/orders"));
    let report = Event::UsesReported(Report { batch, unplaced: 0, digest });
    world.record(Actor::Gateway(id("gateway/orders")), [report]);
    let of = |wanted| found(&world.log, wanted).contains(&last(&world));
    assert!(of(Wanted { grant: Some(hers), ..Wanted::default() }));
    assert!(!of(Wanted { grant: Some(other), ..Wanted::default() }));
    let pat: PersonId = person("pat");
    assert!(of(Wanted { person: Some(pat), ..Wanted::default() }));
    let kinds = |kind: &str| BTreeSet::from([kind.to_owned()]);
    assert!(of(Wanted { kinds: kinds("uses_reported"), ..Wanted::default() }));
    assert!(!of(Wanted { kinds: kinds("granted"), ..Wanted::default() }));
}
