//! What gateways report of uses: of their own grants alone, and each batch once.

use dayfly_verifier::id::{GrantId, TokenId};
use dayfly_verifier::uses::{About, Batch, Line, Seen};

use super::world::*;
use crate::core::command::Command;
use crate::core::denial::{Denial, Limited};
use crate::core::event::{Event, Report};
use crate::core::limits::{MAX_INSTANCES, REPORT_AGE, REPORT_EVERY};

fn line(grant: GrantId, token: TokenId, seen: Seen) -> Line {
    let operation = Some("read".parse().unwrap());
    Line { about: Some(About { grant, token }), operation, seen }
}

fn batch(world: &World, number: u64, counts: Vec<(Line, u64)>) -> Batch {
    let (from, until) = (world.now, world.now);
    Batch { instance: "one".parse().unwrap(), number, from, until, counts, missed: 1 }
}

/// A grant with a token, and the line of its allowed uses.
fn used() -> (World, Line) {
    let mut world = World::new();
    let filing = world.filing();
    let grant = world.granted(&filing);
    let exchange = world.exchanging(&filing);
    world.exchange(&exchange).unwrap();
    let token = world.state.token_id(&id("agent/a"), &exchange.id);
    world.pass(secs(1));
    (world, line(grant, token, Seen::Allowed))
}

fn recorded(events: Vec<Event>) -> Option<Report> {
    match events.as_slice() {
        [] => None,
        [Event::UsesReported(report)] => Some(report.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_the_gateway_of_a_grant_reports_its_uses() {
    let (mut world, line) = used();
    let sent = batch(&world, 1, vec![(line, 3)]);
    let report = || Command::Report(sent.clone());
    for stranger in ["agent/a", "person/ops", "nobody/x"] {
        assert_eq!(world.run(stranger, report()), Err(Denial::NotAllowed), "{stranger}");
    }
    assert_eq!(world.run("gateway/mail", report()), Err(Denial::NotFound));
    let told = recorded(world.run("gateway/orders", report()).unwrap()).unwrap();
    assert_eq!((told.batch, told.unplaced), (sent.clone(), 0));
    assert_eq!(told.digest, sent.digest(&id("gateway/orders")));
}

#[test]
fn a_token_of_another_grant_is_refused_and_what_is_not_known_is_added_up() {
    let (mut world, own) = used();
    let about = own.about.unwrap();
    let other = world.filing();
    let other = world.granted(&other);
    let crossed = batch(&world, 1, vec![(line(other, about.token, Seen::Allowed), 1)]);
    assert_eq!(world.run("gateway/orders", Command::Report(crossed)), Err(Denial::NotFound));
    let unknown = TokenId::new([9; 16]);
    let counts = vec![
        (own.clone(), 3),
        (line(about.grant, unknown, Seen::Allowed), 4),
        (line(GrantId::new([9; 16]), unknown, Seen::Allowed), 5),
    ];
    let told = Command::Report(batch(&world, 1, counts));
    let told = recorded(world.run("gateway/orders", told).unwrap()).unwrap();
    assert_eq!((told.batch.counts, told.unplaced), (vec![(own, 3)], 9));
}

#[test]
fn a_batch_counts_once_however_often_it_is_sent() {
    let (mut world, line) = used();
    let first = batch(&world, 1, vec![(line.clone(), 3)]);
    let send = |world: &mut World, batch: &Batch| {
        world.run("gateway/orders", Command::Report(batch.clone())).map(recorded)
    };
    assert!(send(&mut world, &first).unwrap().is_some());
    assert!(send(&mut world, &first).unwrap().is_none());
    // Under the same number, something else.
    let other = batch(&world, 1, vec![(line.clone(), 4)]);
    assert_eq!(send(&mut world, &other), Err(Denial::IdReused));
    let second = batch(&world, 2, vec![(line.clone(), 1)]);
    assert_eq!(send(&mut world, &second), Err(Denial::LimitReached(Limited::Reports)));
    world.pass(secs(1));
    assert!(send(&mut world, &second).unwrap().is_some());
    assert_eq!(send(&mut world, &first), Err(Denial::IdReused));
    // Another process of the gateway counts by itself.
    let instance = "two".parse().unwrap();
    assert!(send(&mut world, &Batch { instance, ..first }).unwrap().is_some());
}

#[test]
fn a_batch_is_not_taken_when_it_might_have_been_forgotten() {
    let (mut world, line) = used();
    let sent = batch(&world, 1, vec![(line, 3)]);
    let send = |world: &mut World| world.run("gateway/orders", Command::Report(sent.clone()));
    assert!(!send(&mut world).unwrap().is_empty());
    world.pass(REPORT_AGE);
    assert!(send(&mut world).unwrap().is_empty());
    // However many other processes the gateway has, and however long ago it was.
    for n in 0..MAX_INSTANCES {
        world.pass(secs(1));
        let instance = format!("more-{n}").parse().unwrap();
        let other = Batch { instance, counts: Vec::new(), ..batch(&world, 1, Vec::new()) };
        world.run("gateway/orders", Command::Report(other)).unwrap();
    }
    assert_eq!(send(&mut world), Err(Denial::StaleId));
    let ahead = Batch { until: world.now.plus(secs(301)), ..batch(&world, 1, Vec::new()) };
    assert_eq!(world.run("gateway/orders", Command::Report(ahead)), Err(Denial::StaleId));
}

#[test]
fn a_gateway_that_makes_up_processes_tells_no_more_than_those_it_may_have() {
    let mut world = World::new();
    let report = |world: &mut World, gateway: &str, n: usize| {
        let instance = format!("made-up-{n}").parse().unwrap();
        let sent = Batch { instance, ..batch(world, 1, Vec::new()) };
        world.run(gateway, Command::Report(sent)).map(|events| events.len())
    };
    for n in 0..MAX_INSTANCES {
        assert_eq!(report(&mut world, "gateway/orders", n), Ok(1));
    }
    let refused = Err(Denial::LimitReached(Limited::Reports));
    assert_eq!(report(&mut world, "gateway/orders", MAX_INSTANCES), refused);
    assert_eq!(report(&mut world, "gateway/orders", 0), Ok(0), "a repeat is no entry");
    assert_eq!(report(&mut world, "gateway/mail", MAX_INSTANCES), Ok(1), "another one's room");
    world.pass(REPORT_EVERY);
    assert_eq!(report(&mut world, "gateway/orders", MAX_INSTANCES), Ok(1));
}
