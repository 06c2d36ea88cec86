//! Defects that comparable products had: ours must not have them.

use std::num::NonZeroU32;

use dayfly_verifier::request::{Narrowing, Requirement};

use super::world::*;
use crate::core::case::Standing;
use crate::core::command::{Caller, Command, Filing};
use crate::core::denial::Denial;
use crate::core::event::{Event, Target, TaskOutcome};
use crate::core::verdict::{Outcome, Refusal};

#[test]
fn an_unanswered_request_is_never_granted() {
    let mut world = World::new();
    let (filing, grant) = world.pending(&[("dba", 1)]);
    for _ in 0..600 {
        world.pass(secs(1));
        let exchange = world.exchanging(&filing);
        let refused = world.exchange(&exchange);
        assert!(matches!(refused, Err(Denial::NotYetApproved | Denial::Expired)), "{refused:?}");
    }
    assert_eq!(world.state.case(&grant).unwrap().standing(world.now), Standing::Expired);
}

#[test]
fn the_requester_cannot_move_the_state_of_approval() {
    let mut world = World::new();
    let (filing, _) = world.pending(&[("dba", 1)]);
    let complete = Command::Complete(filing.id, holder(1), TaskOutcome::Succeeded);
    assert_eq!(world.run("agent/a", complete), Err(Denial::NotYetApproved));
    // Filing it again, even when policy would by now ask for nobody, changes nothing.
    world.file("agent/a", &filing, &requirement(&[])).unwrap();
    let exchange = world.exchanging(&filing);
    assert_eq!(world.exchange(&exchange), Err(Denial::NotYetApproved));
}

#[test]
fn every_grant_ends_and_a_new_token_does_not_move_the_end() {
    let mut world = World::new();
    let filing = Filing { lifetime: None, ..world.filing() };
    let grant = world.granted(&filing);
    let until = world.now.plus(secs(300));
    for _ in 0..29 {
        let exchange = world.exchanging(&filing);
        world.exchange(&exchange).unwrap();
        let answer = world.state.answer(&grant, &exchange.id, world.now).unwrap();
        assert!(answer.claims.expires_at <= until.min(world.now.plus(secs(120))));
        world.pass(secs(10));
    }
    world.pass(secs(10));
    let exchange = world.exchanging(&filing);
    assert_eq!(world.exchange(&exchange), Err(Denial::Lapsed));
}

/// Whichever of lease, certificate, key, configured and hard bound is first ends the token.
#[test]
fn no_token_outlives_what_it_rests_on() {
    let hour = 3600;
    for (lease, certificate, key, configured, lives) in [
        (90, hour, hour, 120, 90),
        (hour, 70, hour, 120, 70),
        (hour, hour, 50, 120, 50),
        (hour, hour, hour, 120, 120),
        (hour, hour, hour, 2 * hour, 15 * 60),
    ] {
        let mut world = World::new();
        world.state.limits.token_life = secs(configured);
        let until = world.now.plus(secs(key));
        world.state.keys.get_mut(&KEY).unwrap().not_after = until;
        let filing = Filing { lifetime: Some(secs(lease)), ..world.filing() };
        let required = Requirement { max_lifetime: secs(hour), ..requirement(&[]) };
        let grant = world.file("agent/a", &filing, &required).unwrap();
        let exchange = world.exchanging(&filing);
        let caller = Caller { id: id("agent/a"), until: world.now.plus(secs(certificate)) };
        let verdict = world.same(&grant);
        let command = Command::Exchange(exchange.clone(), verdict);
        world.run_as(&caller, &command).unwrap();
        let minted = world.state.answer(&grant, &exchange.id, world.now).unwrap();
        assert_eq!(minted.claims.expires_at, world.now.plus(secs(lives)), "{lives}");
    }
}

#[test]
fn the_lease_starts_at_the_approval_that_grants() {
    let mut world = World::new();
    let (_, grant) = world.pending(&[("dba", 1)]);
    world.pass(secs(200));
    world.approve("ann", &grant).unwrap();
    let terms = &world.state.case(&grant).unwrap().grant().unwrap().terms;
    assert_eq!((terms.from, terms.until), (world.now, world.now.plus(secs(300))));
}

/// Three approve where two are needed, in every order, and more than needed could.
#[test]
fn counts_are_at_least_and_order_is_nothing() {
    for order in [["ann", "abe", "max"], ["max", "ann", "abe"], ["abe", "max", "ann"]] {
        let mut world = World::new();
        let (_, grant) = world.pending(&[("dba", 2), ("security", 1)]);
        for name in order {
            world.approve(name, &grant).unwrap();
        }
        let case = world.state.case(&grant).unwrap();
        assert!(matches!(case.standing(world.now), Standing::Granted(_)), "{order:?}");
        assert_eq!(world.approve("sue", &grant), Err(Denial::AlreadyDecided));
    }
}

#[test]
fn no_role_is_exempt() {
    let mut world = World::new();
    let mut roles = directory();
    let own = roles.people.get_mut(&person("own")).unwrap();
    own.roles = [
        crate::core::directory::Role::Operator,
        crate::core::directory::Role::Auditor,
        crate::core::directory::Role::PolicyAdmin,
    ]
    .into();
    world.apply(2, &roles, |required| Outcome::Permitted(required.clone())).unwrap();
    let (_, grant) = world.pending(&[("dba", 1)]);
    assert_eq!(world.approve("own", &grant), Err(Denial::OwnRequest));
}

#[test]
fn the_most_restrictive_of_asked_required_and_approved_wins() {
    let mut world = World::new();
    let mut required = requirement(&[("dba", 2)]);
    required.max_lifetime = secs(240);
    required.max_uses = NonZeroU32::new(5);
    let mut filing = world.filing();
    filing.uses = NonZeroU32::new(4);
    let grant = world.file("agent/a", &filing, &required).unwrap();
    let narrowing = |life, uses| Narrowing {
        lifetime: Some(secs(life)),
        uses: NonZeroU32::new(uses),
        ..Narrowing::default()
    };
    world.approve_narrowed("ann", &grant, narrowing(100, 2)).unwrap();
    world.approve_narrowed("abe", &grant, narrowing(200, 3)).unwrap();
    let terms = &world.state.case(&grant).unwrap().grant().unwrap().terms;
    assert_eq!(terms.until, world.now.plus(secs(100)));
    assert_eq!(terms.uses, NonZeroU32::new(2));
}

#[test]
fn a_group_without_people_who_may_approve_is_a_refusal_with_that_reason() {
    let mut world = World::new();
    for approvals in [&[("nobody", 1)][..], &[("security", 3)], &[("dba", 5)]] {
        let (_, grant) = world.pending(approvals);
        let case = world.state.case(&grant).unwrap();
        let standing = case.standing(world.now);
        assert!(matches!(standing, Standing::Refused(why) if why.policy == "approvals"));
    }
    // Not when the people come to be too few later, either.
    let (_, grant) = world.pending(&[("security", 1)]);
    let mut fewer = directory();
    fewer.people.retain(|_, known| !known.groups.contains(&"security".parse().unwrap()));
    world.apply(2, &fewer, |required| Outcome::Permitted(required.clone())).unwrap();
    let case = world.state.case(&grant).unwrap();
    let standing = case.standing(world.now);
    assert!(matches!(standing, Standing::Drifted(Refusal { policy, .. }) if policy == "approvals"));
}

#[test]
fn a_key_gone_from_the_bundle_voids_its_pending_approvals_for_good() {
    let mut world = World::new();
    let (_, grant) = world.pending(&[("dba", 2)]);
    world.approve("ann", &grant).unwrap();
    let mut without = directory();
    without.people.get_mut(&person("ann")).unwrap().keys = [signer("new")].into();
    let same = |required: &_| Outcome::Permitted(Clone::clone(required));
    let events = world.apply(2, &without, same).unwrap();
    assert!(events.contains(&Event::DecisionWithdrawn { grant, person: person("ann") }));
    world.apply(3, &directory(), same).unwrap();
    world.approve("abe", &grant).unwrap();
    assert_eq!(world.state.case(&grant).unwrap().standing(world.now), Standing::Pending);
}

/// Facts that no policy switches off: with any of them gone, what rested on it is over.
#[test]
fn what_is_open_rests_on_what_the_bundle_lists() {
    type Change = fn(&mut crate::core::directory::Directory);
    let changes: [(Change, &str); 4] = [
        (|d| d.workloads.retain(|rule| !rule.exclusive), "workload"),
        (|d| d.gateways.retain(|gateway| *gateway != id("gateway/orders")), "audience"),
        (|d| drop(d.people.remove(&person("pat"))), "principal"),
        (|d| d.workloads.iter_mut().for_each(|rule| rule.exclusive = false), "exclusive"),
    ];
    for (change, expected) in changes {
        let mut world = World::new();
        let confirmation = dayfly_verifier::request::ConfirmBy::Identity;
        let principal = Some(person("pat"));
        let mut file = |approvals: &[(&str, u32)]| {
            let filing = Filing { confirmation, principal: principal.clone(), ..world.filing() };
            world.file("solo", &filing, &requirement(approvals)).unwrap()
        };
        let cases = [file(&[]), file(&[("dba", 1)])];
        let mut other = directory();
        change(&mut other);
        world.apply(2, &other, |required| Outcome::Permitted(required.clone())).unwrap();
        for case in cases {
            let standing = world.state.case(&case).unwrap().standing(world.now);
            let drifted = matches!(standing, Standing::Drifted(why) if why.policy == expected);
            assert!(drifted, "{expected}: {standing:?}");
        }
    }
}

/// Where a bundle comes to demand nobody, what waits is granted as far as there is room for all.
#[test]
fn a_bundle_grants_no_more_at_once_than_a_workload_may_hold() {
    for (room, granted) in [(2, 1), (3, 3)] {
        let mut world = World::new();
        world.state.limits.live_grants = room;
        let filing = world.filing();
        world.granted(&filing);
        world.pending(&[("dba", 1)]);
        world.pending(&[("dba", 1)]);
        world.apply(2, &directory(), |_| Outcome::Permitted(requirement(&[]))).unwrap();
        assert_eq!(world.state.tally(&id("agent/a"), world.now).live, granted);
    }
}

#[test]
fn whoever_approves_anew_is_held_to_what_they_said_last() {
    let mut world = World::new();
    let (_, grant) = world.pending(&[("dba", 2)]);
    let only =
        |text: &str| Narrowing { rights: Some([right(text)].into()), ..Narrowing::default() };
    world.approve_narrowed("ann", &grant, only("read db/prod/a/**")).unwrap();
    world.approve_narrowed("ann", &grant, only("read db/prod/b/**")).unwrap();
    world.approve("abe", &grant).unwrap();
    let terms = &world.state.case(&grant).unwrap().grant().unwrap().terms;
    assert_eq!(terms.scope.rights().collect::<Vec<_>>(), [&right("read db/prod/b/**")]);
}

#[test]
fn a_live_grant_rests_on_approvals_that_still_count() {
    let changes: [fn(&mut crate::core::directory::Directory); 4] = [
        |d| d.people.get_mut(&person("ann")).unwrap().keys.clear(),
        |d| d.people.get_mut(&person("ann")).unwrap().groups.clear(),
        |d| drop(d.people.remove(&person("ann"))),
        |d| d.workloads[0].owners.extend([person("ann")]),
    ];
    for (n, change) in changes.iter().enumerate() {
        let mut world = World::new();
        let (_, grant) = world.pending(&[("dba", 1)]);
        world.approve("ann", &grant).unwrap();
        let mut other = directory();
        change(&mut other);
        world.apply(2, &other, |required| Outcome::Permitted(required.clone())).unwrap();
        let standing = world.state.case(&grant).unwrap().standing(world.now);
        let drifted = matches!(standing, Standing::Drifted(why) if why.policy == "approvals");
        assert!(drifted, "change {n}: {standing:?}");
    }
}

#[test]
fn a_withdrawn_approval_counts_no_more_and_after_the_grant_it_is_too_late() {
    let mut world = World::new();
    let (_, grant) = world.pending(&[("dba", 2)]);
    world.approve("ann", &grant).unwrap();
    world.run("person/ann", Command::Withdraw(grant)).unwrap();
    assert!(world.run("person/ann", Command::Withdraw(grant)).unwrap().is_empty());
    world.approve("abe", &grant).unwrap();
    assert_eq!(world.state.case(&grant).unwrap().standing(world.now), Standing::Pending);
    world.approve("max", &grant).unwrap();
    let late = world.run("person/abe", Command::Withdraw(grant));
    assert_eq!(late, Err(Denial::AlreadyDecided));
}

#[test]
fn grants_are_independent_of_each_other() {
    let mut world = World::new();
    let (one, two) = (world.filing(), world.filing());
    let first = world.granted(&one);
    let second = world.granted(&two);
    world.revoke(Target::Grant(first)).unwrap();
    let case = world.state.case(&second).unwrap();
    assert!(matches!(case.standing(world.now), Standing::Granted(_)));
    world.token(&two);
}

#[test]
fn a_use_counts_once_and_only_for_its_gateway() {
    let mut world = World::new();
    let mut filing = world.filing();
    filing.uses = NonZeroU32::new(2);
    let grant = world.granted(&filing);
    let token = world.token(&filing);
    let uses = [world.use_id(), world.use_id(), world.use_id()];
    let redeem = |n: usize| Command::Redeem(token, uses[n]);
    assert_eq!(world.run("gateway/mail", redeem(0)), Err(Denial::NotFound));
    assert_eq!(world.run("agent/a", redeem(0)), Err(Denial::NotAllowed));
    let mut later = world.clone();
    later.pass(secs(1));
    for drawn in [later.now.minus(secs(301)), later.now.plus(secs(301))] {
        let odd = Command::Redeem(token, dayfly_verifier::id::UseId::draw(drawn, [9; 10]));
        assert_eq!(later.run("gateway/orders", odd), Err(Denial::StaleId));
    }
    for _ in 0..64 {
        world.run("gateway/orders", redeem(0)).unwrap();
    }
    world.run("gateway/orders", redeem(1)).unwrap();
    assert_eq!(world.run("gateway/orders", redeem(2)), Err(Denial::UsesExhausted));
    assert!(world.run("gateway/orders", redeem(0)).unwrap().is_empty());
    let granted = world.state.case(&grant).unwrap().grant().unwrap();
    assert_eq!(granted.uses[&uses[0]], (token, 1));
    assert_eq!(granted.uses_left(), Some(0));
    let mut revoked = world.clone();
    revoked.revoke(Target::Token(token)).unwrap();
    assert_eq!(revoked.run("gateway/orders", redeem(0)), Err(Denial::Revoked));
    let mut over = world.clone();
    over.pass(secs(120));
    assert_eq!(over.run("gateway/orders", redeem(0)), Err(Denial::Lapsed));
    let complete = Command::Complete(filing.id, holder(1), TaskOutcome::Succeeded);
    world.run("agent/a", complete).unwrap();
    assert_eq!(world.run("gateway/orders", redeem(0)), Err(Denial::Completed));
}

/// A use id belongs to the token that it was drawn for, and to the grant of that.
#[test]
fn a_use_id_of_another_token_is_another_use_or_none() {
    let mut world = World::new();
    let filing = Filing { uses: NonZeroU32::new(3), ..world.filing() };
    let (grant, first) = (world.granted(&filing), world.token(&filing));
    let other = Filing { uses: NonZeroU32::new(3), ..world.filing() };
    let (elsewhere, theirs) = (world.granted(&other), world.token(&other));
    let use_id = world.use_id();
    world.run("gateway/orders", Command::Redeem(first, use_id)).unwrap();
    world.pass(secs(100));
    let second = world.token(&filing);
    assert_ne!(first, second);
    let reused = world.run("gateway/orders", Command::Redeem(second, use_id));
    assert_eq!(reused, Err(Denial::IdReused));
    // Another grant counts by itself: what was spent here is neither spent nor known there.
    world.pass(secs(10));
    let spent = |world: &World, grant| world.state.case(grant).unwrap().grant().unwrap().uses.len();
    assert_eq!((spent(&world, &grant), spent(&world, &elsewhere)), (1, 0));
    world.run("gateway/orders", Command::Redeem(theirs, use_id)).unwrap();
    assert_eq!((spent(&world, &grant), spent(&world, &elsewhere)), (1, 1));
}

#[test]
fn an_end_is_remembered_longer_than_its_id_could_be_new() {
    let mut world = World::new();
    let filing = world.filing();
    let grant = world.granted(&filing);
    world.run("agent/a", Command::Cancel(filing.id, holder(1))).unwrap();
    world.pass(secs(3599));
    let _ = world.filing();
    assert!(world.file("agent/a", &filing, &requirement(&[])).is_ok());
    world.pass(secs(3600));
    let other = world.filing();
    world.granted(&other);
    assert_eq!(world.state.case(&grant), None);
    let late = world.file("agent/a", &filing, &requirement(&[]));
    assert_eq!(late, Err(Denial::StaleId));
}
