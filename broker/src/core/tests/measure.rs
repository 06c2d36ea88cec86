//! What a decision costs when much is live.

use dayfly_verifier::time::{Clock as _, SystemClock};

use super::world::*;
use crate::core::command::{Caller, Command};
use crate::core::decide::decide;
use crate::core::verdict::{Outcome, Verdict};

/// A log with `live` grants, each of a workload of its own.
fn with(live: u32) -> World {
    let mut world = World::new();
    let mut filing = world.filing();
    for n in 0..live {
        let agent = id(&format!("agent/n{n}"));
        filing.id = world.request_id();
        let basis = world.basis("agent/a", &filing.task, None);
        let outcome = Outcome::Permitted(requirement(&[]));
        let command = Command::File(filing.clone(), Verdict { basis, outcome });
        let caller = Caller { id: agent, until: world.now.plus(secs(3600)) };
        let (by, events) = decide(&world.state, &command, &caller, world.now).unwrap();
        world.record(by, events);
        world.log.clear();
    }
    world
}

/// Flat: a look-up goes down a tree whose depth grows with the logarithm.
#[test]
#[ignore = "builds a million grants: run it by hand, in release"]
fn a_decision_costs_the_same_at_a_thousand_and_a_million_live_grants() {
    let cost = |live: u32| {
        let mut world = with(live);
        let filing = world.filing();
        world.granted(&filing);
        let clock = SystemClock;
        let begin = clock.uptime();
        let rounds = 1_000;
        for _ in 0..rounds {
            let mut filing = world.filing();
            filing.lifetime = Some(secs(1));
            world.pass(secs(1));
            world.granted(&filing);
            let exchange = world.exchanging(&filing);
            world.exchange(&exchange).unwrap();
        }
        (clock.uptime() - begin) / rounds
    };
    let (few, many) = (cost(1_000), cost(1_000_000));
    let ratio = many.as_secs_f64() / few.as_secs_f64();
    println!("figure decide_at_10^6 {many:?} beside {few:?} at 10^3, ratio {ratio:.2}");
}
