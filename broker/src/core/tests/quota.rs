//! What is recorded of one workload is bounded, whatever policy says of it.

use std::collections::BTreeSet;

use dayfly_verifier::request::Narrowing;
use dayfly_verifier::scope::{Constraint, Limit, Scope, Value};

use super::world::*;
use crate::core::command::{Command, Filing};
use crate::core::denial::{Denial, Limited};
use crate::core::event::Event;
use crate::core::limits::{MAX_ANSWERS, MAX_REQUESTS};
use crate::core::verdict::{Outcome, Verdict};

/// Files what policy refuses.
fn refused(world: &mut World, filing: &Filing) -> Result<Vec<Event>, Denial> {
    let basis = world.basis("agent/a", &filing.task, None);
    let verdict = Verdict { basis, outcome: Outcome::Refused(refusal()) };
    world.run("agent/a", Command::File(filing.clone(), verdict))
}

fn remembered(world: &World) -> u32 {
    world.state.remembered(&id("agent/a"), world.now)
}

#[test]
fn a50_refused_and_ended_requests_are_counted_until_they_are_forgotten() {
    let mut world = World::new();
    let first = world.filing();
    refused(&mut world, &first).unwrap();
    for n in 1..MAX_REQUESTS {
        let filing = world.filing();
        if n % 2 == 0 {
            refused(&mut world, &filing).unwrap();
        } else {
            world.granted(&filing);
            world.run("agent/a", Command::Cancel(filing.id, holder(1))).unwrap();
        }
    }
    assert_eq!(remembered(&world), MAX_REQUESTS);
    let head = world.state.head;
    let full = Err(Denial::LimitReached(Limited::Requests));
    let filing = world.filing();
    assert_eq!(refused(&mut world, &filing), full);
    for approvals in [&[][..], &[("dba", 1)], &[("nobody", 1)]] {
        let more = world.file("agent/a", &filing, &requirement(approvals)).map(|_| Vec::new());
        assert_eq!(more, full, "{approvals:?}");
    }
    // What was answered before is answered again, and others are not held up.
    assert_eq!(refused(&mut world, &first), Ok(Vec::new()));
    assert_eq!(world.state.head, head);
    world.file("agent/b", &filing, &requirement(&[])).unwrap();
    // Time alone makes room again, with nobody else to move the log on.
    world.pass(secs(3599));
    let filing = world.filing();
    assert_eq!(refused(&mut world, &filing), full);
    world.pass(secs(1));
    assert_eq!(remembered(&world), 0);
    let filing = world.filing();
    refused(&mut world, &filing).unwrap();
    assert_eq!(remembered(&world), 1);
    assert_eq!(world.state.cases_of(&id("agent/a")).count(), 1);
}

#[test]
fn what_ends_by_itself_is_counted_as_long_as_it_is_remembered() {
    let mut world = World::new();
    world.pending(&[("dba", 1)]);
    let filing = world.filing();
    world.granted(&filing);
    for (pass, expected) in [(299, 2), (1, 2), (3599, 2), (1, 0)] {
        world.pass(secs(pass));
        assert_eq!(remembered(&world), expected);
    }
    // The same once the fold has caught up.
    let other = world.filing();
    world.file("agent/b", &other, &requirement(&[])).unwrap();
    assert_eq!(remembered(&world), 0);
    assert_eq!(world.state.cases_of(&id("agent/a")).count(), 0);
}

/// A refusal carries the whole request into the log: no longer one than could be shown.
#[test]
fn what_is_too_long_is_not_recorded_as_refused_either() {
    let mut world = World::new();
    let text = |n: usize| Value::text(&format!("{n:0>256}")).unwrap();
    let one_of = |n: usize| Constraint {
        argument: format!("argument_{n}").parse().unwrap(),
        limit: Limit::OneOf((0..32).map(text).collect()),
    };
    let mut filing = world.filing();
    filing.scope = Scope::new([right("read db/prod/**")], (0..8).map(one_of)).unwrap();
    let head = world.state.head;
    let long = refused(&mut world, &filing);
    assert!(matches!(long, Err(Denial::Invalid(invalid)) if invalid.field == "request"));
    assert_eq!(world.state.head, head);
}

/// Nobody approves what no token could be given for: neither as it is filed, nor as it is narrowed.
#[test]
fn what_no_token_can_hold_is_neither_filed_nor_granted() {
    let mut world = World::new();
    let long = |n: u32| right(&format!("read db/{n}/{}", "x".repeat(240)));
    let is_too_long =
        |denial: &Denial| matches!(denial, Denial::Invalid(invalid) if invalid.field == "scope");
    let (head, mut filing) = (world.state.head, world.filing());
    filing.scope = Scope::new((0..16).map(long), []).unwrap();
    for approvals in [&[][..], &[("dba", 1)]] {
        let filed = world.file("agent/a", &filing, &requirement(approvals));
        assert!(filed.is_err_and(|denial| is_too_long(&denial)));
    }
    assert!(refused(&mut world, &filing).is_err_and(|denial| is_too_long(&denial)));
    assert_eq!(world.state.head, head);

    filing.scope = Scope::new((0..10).map(long), []).unwrap();
    let grant = world.file("agent/a", &filing, &requirement(&[("dba", 1)])).unwrap();
    let order = |n: u32| Value::text(&format!("{n:0>100}")).unwrap();
    let orders = Constraint {
        argument: "order".parse().unwrap(),
        limit: Limit::OneOf((0..32).map(order).collect()),
    };
    let narrowing = Narrowing { constraints: BTreeSet::from([orders]), ..Narrowing::default() };
    let narrowed = world.approve_narrowed("ann", &grant, narrowing);
    assert!(narrowed.is_err_and(|denial| is_too_long(&denial)));
    world.approve("ann", &grant).unwrap();
    assert!(world.state.case(&grant).unwrap().grant().is_some());
}

/// An approval that took much away may fall with a new bundle, and what is left be too long.
#[test]
fn what_no_token_can_hold_is_not_granted_by_a_bundle() {
    for (orders, granted) in [(1, true), (20, false)] {
        let mut world = World::new();
        let long = |n: u32| right(&format!("read db/{n}/{}", "x".repeat(240)));
        let mut filing = world.filing();
        filing.scope = Scope::new((0..10).map(long), []).unwrap();
        let both = requirement(&[("dba", 1), ("security", 1)]);
        let grant = world.file("agent/a", &filing, &both).unwrap();
        let rights = Some(BTreeSet::from([long(0)]));
        let one = Narrowing { rights, ..Narrowing::default() };
        world.approve_narrowed("ann", &grant, one).unwrap();
        let order = |n: u32| Value::text(&format!("{n:0>100}")).unwrap();
        let limit = Limit::OneOf((0..orders).map(order).collect());
        let orders = Constraint { argument: "order".parse().unwrap(), limit };
        let constraints = BTreeSet::from([orders]);
        let few = Narrowing { constraints, ..Narrowing::default() };
        world.approve_narrowed("pat", &grant, few).unwrap();
        world.approve("abe", &grant).unwrap();
        let mut other = directory();
        other.people.remove(&person("ann"));
        other.people.get_mut(&person("pat")).unwrap().groups =
            BTreeSet::from(["security".parse().unwrap()]);
        world.apply(2, &other, |both| Outcome::Permitted(both.clone())).unwrap();
        assert_eq!(world.state.case(&grant).unwrap().grant().is_some(), granted);
    }
}

/// Each exchange that is answered with a token that was there is an entry, too.
#[test]
fn a50_one_token_answers_a_bounded_number_of_exchanges() {
    let mut world = World::new();
    let filing = world.filing();
    world.granted(&filing);
    let first = world.exchanging(&filing);
    world.exchange(&first).unwrap();
    for _ in 1..MAX_ANSWERS {
        let exchange = world.exchanging(&filing);
        assert_eq!(world.exchange(&exchange).unwrap().len(), 1);
    }
    let head = world.state.head;
    let one_more = world.exchanging(&filing);
    assert_eq!(world.exchange(&one_more), Err(Denial::LimitReached(Limited::Exchanges)));
    // Repeats are no entries, and the next token answers as many again.
    assert_eq!(world.exchange(&first), Ok(Vec::new()));
    assert_eq!(world.state.head, head);
    world.pass(secs(90));
    let exchange = world.exchanging(&filing);
    assert!(matches!(world.exchange(&exchange).unwrap()[..], [Event::TokenRecorded { .. }]));
}
