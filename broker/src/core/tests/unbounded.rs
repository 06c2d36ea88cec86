//! Instances that do not refuse when they hear nothing: who is on record, and for how long.

use dayfly_verifier::id::InstanceId;

use super::world::*;
use crate::core::command::Command;
use crate::core::denial::{Denial, Limited};
use crate::core::event::Event;

impl World {
    fn opt_out(&mut self, who: &str, instance: &str) -> Result<Vec<Event>, Denial> {
        let instance: InstanceId = instance.parse().unwrap();
        self.run(who, Command::OptOut(instance))
    }

    fn unbounded(&self) -> Vec<String> {
        let known = self.state.unbounded(self.now);
        known.map(|(gateway, instance, _)| format!("{gateway}/{instance}")).collect()
    }
}

#[test]
fn only_a_gateway_of_the_bundle_opts_out_and_for_itself() {
    let mut world = World::new();
    for who in ["agent/a", "person/ops", "nobody/x", "gateway/other"] {
        assert_eq!(world.opt_out(who, "one"), Err(Denial::NotAllowed), "{who}");
    }
    world.opt_out("gateway/orders", "one").unwrap();
    world.opt_out("gateway/mail", "one").unwrap();
    let both = ["spiffe://t.test/gateway/mail/one", "spiffe://t.test/gateway/orders/one"];
    assert_eq!(world.unbounded(), both);
}

/// Repeats within five minutes are no entries; an instance that follows is recorded every ten, and
/// one that was is known until its last token may have died.
#[test]
fn it_is_known_for_as_long_as_it_may_allow_anything() {
    let mut world = World::new();
    assert_eq!(world.opt_out("gateway/orders", "one").unwrap().len(), 1);
    world.pass(secs(299));
    assert_eq!(world.opt_out("gateway/orders", "one").unwrap().len(), 0);
    world.pass(secs(1));
    assert_eq!(world.opt_out("gateway/orders", "one").unwrap().len(), 1);
    world.pass(secs(25 * 60 - 1));
    assert_eq!(world.unbounded().len(), 1);
    world.pass(secs(1));
    assert_eq!(world.unbounded().len(), 0);
    // What is forgotten takes no room.
    world.opt_out("gateway/orders", "two").unwrap();
    assert_eq!(world.unbounded(), ["spiffe://t.test/gateway/orders/two"]);
}

#[test]
fn there_are_only_so_many_of_one_gateway() {
    let mut world = World::new();
    for n in 0..256 {
        world.opt_out("gateway/orders", &format!("i-{n}")).unwrap();
    }
    let refused = world.opt_out("gateway/orders", "one-more");
    assert_eq!(refused, Err(Denial::LimitReached(Limited::Unbounded)));
    world.opt_out("gateway/mail", "one").unwrap();
    world.opt_out("gateway/orders", "i-7").unwrap();
    world.pass(secs(25 * 60));
    world.opt_out("gateway/orders", "one-more").unwrap();
}
