//! Who may invite whom, and what follows from it.

use super::world::*;
use crate::core::case::Standing;
use crate::core::command::{Caller, Command};
use crate::core::denial::Denial;
use crate::core::directory::{Directory, Role};
use crate::core::event::{Actor, Event, IdentityChange};
use crate::core::verdict::Outcome;

const INVITED: IdentityChange = IdentityChange::Invited;

/// The directory, with `ann` of dba as an operator as well.
fn with_operator_ann() -> Directory {
    let mut directory = directory();
    directory.people.get_mut(&person("ann")).unwrap().roles.insert(Role::Operator);
    directory
}

fn identity(
    world: &mut World,
    by: &str,
    of: &str,
    change: IdentityChange,
) -> Result<Actor, Denial> {
    let caller = Caller { id: id(by), until: world.now.plus(secs(60)) };
    let (actor, events) = crate::core::decide::decide(
        &world.state,
        &Command::Identity(id(of), change),
        &caller,
        world.now,
    )?;
    assert_eq!(events, [Event::IdentityChanged { id: id(of), change }]);
    world.record(actor.clone(), events);
    Ok(actor)
}

#[test]
fn a12_who_invited_a_workload_decides_on_nothing_that_it_asks() {
    let mut world = World::with(with_operator_ann());
    let (_, before) = world.pending(&[("dba", 2)]);
    world.approve("ann", &before).unwrap();
    identity(&mut world, "person/ann", "agent/a", INVITED).unwrap();
    // What waits already is as much hers as what is still to come: her approval is void.
    world.approve("abe", &before).unwrap();
    assert_eq!(world.state.case(&before).unwrap().standing(world.now), Standing::Pending);
    let (_, after) = world.pending(&[("dba", 1)]);
    assert_eq!(world.approve("ann", &after), Err(Denial::OwnRequest));
    assert_eq!(world.deny("ann", &after), Err(Denial::OwnRequest));
    assert_eq!(world.state.pending_for(&person("ann"), world.now).count(), 0);
    // No bundle and no later invitation by somebody else takes it from her.
    let permitted = |required: &_| Outcome::Permitted(Clone::clone(required));
    world.apply(2, &directory(), permitted).unwrap();
    identity(&mut world, "person/ops", "agent/a", INVITED).unwrap();
    let (_, later) = world.pending(&[("dba", 1)]);
    assert_eq!(world.approve("ann", &later), Err(Denial::OwnRequest));
    world.approve("abe", &later).unwrap();
    assert!(matches!(world.state.case(&later).unwrap().standing(world.now), Standing::Granted(_)));
    // Of other workloads she decides as before.
    let filing = world.filing();
    let other = world.file("agent/b", &filing, &requirement(&[("dba", 1)])).unwrap();
    world.approve("ann", &other).unwrap();
}

#[test]
fn a12_nobody_can_invite_themselves_to_be_somebody_else() {
    let mut world = World::new();
    for by in ["person/ann", "agent/a", "gateway/orders", "nobody/x"] {
        assert_eq!(identity(&mut world, by, "agent/a", INVITED), Err(Denial::NotAllowed), "{by}");
    }
    for (of, why) in [
        ("person/ann", "must not be a person's"),
        ("person/ops", "must not be a person's"),
        ("nobody/x", "that the bundle lists"),
        ("person/not-listed-yet", "that the bundle lists"),
    ] {
        let refused = identity(&mut world, "person/ops", of, INVITED).unwrap_err();
        assert!(refused.to_string().contains(why), "{of}: {refused}");
    }
    for of in ["agent/a", "gateway/orders"] {
        let by = identity(&mut world, "person/ops", of, INVITED).unwrap();
        assert_eq!(by, Actor::Person(person("ops"), id("person/ops")));
    }
    // On the host people are invited as well, and nobody comes near to anything by it.
    for of in ["person/ann", "nobody/x", "agent/b"] {
        assert_eq!(identity(&mut world, "dayfly/broker", of, INVITED), Ok(Actor::Host));
    }
    assert_eq!(world.state.kin(&id("agent/b")).responsible, [person("opa"), person("own")].into());
}

#[test]
fn what_the_broker_sees_nobody_else_puts_down() {
    let mut world = World::new();
    for change in [IdentityChange::Joined { generation: 1 }, IdentityChange::Locked] {
        for by in ["person/ops", "agent/a", "gateway/orders", "dayfly/brokers"] {
            let refused = identity(&mut world, by, "agent/a", change);
            assert_eq!(refused, Err(Denial::NotAllowed), "{by}");
        }
        let by = identity(&mut world, "dayfly/broker", "agent/a", change).unwrap();
        assert_eq!(by, Actor::Broker(id("dayfly/broker")));
    }
}
