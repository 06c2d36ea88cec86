//! Attacks on what the core decides.

use std::num::NonZeroU32;

use dayfly_verifier::request::{Narrowing, Requirement};
use dayfly_verifier::time::Timestamp;

use super::world::*;
use crate::core::case::Standing;
use crate::core::command::{Caller, Command, Filing};
use crate::core::denial::Denial;
use crate::core::event::{Answer, Event, Target, TaskOutcome};
use crate::core::verdict::{Outcome, Verdict};

/// Every way in which a person can stand near to a request, and every way back to it.
#[test]
fn a12_self_approval() {
    let mut world = World::new();
    let mut filing = world.filing();
    filing.principal = Some(person("pat"));
    let grant = world.file("agent/a", &filing, &requirement(&[("dba", 1)])).unwrap();
    for name in ["own", "opa", "pat"] {
        assert_eq!(world.approve(name, &grant), Err(Denial::OwnRequest), "{name}");
        assert_eq!(world.deny(name, &grant), Err(Denial::OwnRequest), "{name}");
        let waiting = world.state.pending_for(&person(name), world.now).count();
        assert_eq!(waiting, 0, "{name}");
    }
    // By a bundle that says otherwise for a while: who was responsible stays so for this request.
    let mut other = directory();
    other.workloads[0].owners.clear();
    other.workloads[0].operators.clear();
    let permitted = |required: &_| Outcome::Permitted(Clone::clone(required));
    world.apply(2, &other, permitted).unwrap();
    assert_eq!(world.approve("own", &grant), Err(Denial::OwnRequest));
    // Nor does it help to have been responsible only in between.
    let (_, waiting) = world.pending(&[("dba", 1)]);
    let mut other = directory();
    other.workloads[0].operators.insert(person("ann"));
    world.apply(3, &other, permitted).unwrap();
    world.apply(4, &directory(), permitted).unwrap();
    assert_eq!(world.approve("ann", &waiting), Err(Denial::OwnRequest));
    // By an ID of their own that a workload rule matches as well.
    let mut other = directory();
    other.people.get_mut(&person("abe")).unwrap().ids.insert(id("agent/a"));
    assert!(world.state.case(&grant).unwrap().is_own(&person("abe"), &other));
    world.apply(5, &other, permitted).unwrap();
    assert_eq!(
        world.state.case(&grant).unwrap().standing(world.now),
        Standing::Drifted(&crate::core::verdict::Refusal {
            policy: "workload".into(),
            reason: "the workload is not listed any more".into(),
        })
    );
}

#[test]
fn a12_an_approver_who_becomes_an_owner_before_the_grant() {
    let mut world = World::new();
    let (_, grant) = world.pending(&[("dba", 2)]);
    world.approve("ann", &grant).unwrap();
    let mut other = directory();
    other.workloads[0].owners.insert(person("ann"));
    let permitted = |required: &_| Outcome::Permitted(Clone::clone(required));
    let events = world.apply(2, &other, permitted).unwrap();
    assert!(events.contains(&Event::DecisionWithdrawn { grant, person: person("ann") }));
    world.approve("abe", &grant).unwrap();
    assert_eq!(world.state.case(&grant).unwrap().standing(world.now), Standing::Pending);
}

/// Approve one thing, get another: any other content under the id is refused, and any other
/// digest in the decision.
#[test]
fn a13_approve_one_exchange_another() {
    let mut world = World::new();
    let (filing, grant) = world.pending(&[("dba", 1)]);
    let changes: [fn(&mut Filing); 9] = [
        |f| f.principal = Some(person("pat")),
        |f| f.holder_key = holder(2),
        |f| f.audience = id("gateway/mail"),
        |f| {
            let rights = [right("read db/prod/**"), right("refund db/prod/**")];
            f.scope = dayfly_verifier::scope::Scope::new(rights, [at_most("amount", 500)]).unwrap();
        },
        |f| {
            let rights = [right("read db/prod/**"), right("refund db/prod/orders")];
            f.scope = dayfly_verifier::scope::Scope::new(rights, [at_most("amount", 501)]).unwrap();
        },
        |f| f.task = "task-2".parse().unwrap(),
        |f| f.purpose = "fun".parse().unwrap(),
        |f| f.lifetime = Some(secs(301)),
        |f| f.uses = NonZeroU32::new(9),
    ];
    for (n, change) in changes.iter().enumerate() {
        let mut other = filing.clone();
        change(&mut other);
        let refiled = world.file("agent/a", &other, &requirement(&[("dba", 1)]));
        assert_eq!(refiled, Err(Denial::IdReused), "change {n}");
    }
    assert!(world.file("agent/a", &filing, &requirement(&[("dba", 1)])).is_ok());

    let (_, other) = world.pending(&[("dba", 1)]);
    let decision = world.decision("ann", &other, Answer::Approve(Narrowing::default()));
    let command = Command::Approve(grant, decision, world.same(&grant), None);
    assert_eq!(world.run("person/ann", command), Err(Denial::DigestMismatch));

    world.approve("ann", &grant).unwrap();
    world.token(&filing);
    let token = world.state.case(&grant).unwrap().grant().unwrap().tokens().next().unwrap();
    let claims = &token.minted.claims;
    let case = world.state.case(&grant).unwrap();
    assert_eq!(claims.request, case.digest);
    assert_eq!(claims.scope, filing.scope);
    assert_eq!((&claims.audience, &claims.task), (&filing.audience, &filing.task));
}

/// What is demanded changes between two approvals: both must look again.
#[test]
fn a14_policy_tightened_between_approvals_and_between_grant_and_exchange() {
    let mut world = World::new();
    let (filing, grant) = world.pending(&[("dba", 2)]);
    world.approve("ann", &grant).unwrap();
    let before = world.decision("abe", &grant, Answer::Approve(Narrowing::default()));
    let tight = |_: &_| Outcome::Permitted(requirement(&[("dba", 1), ("security", 1)]));
    world.apply(2, &directory(), tight).unwrap();
    assert!(world.state.case(&grant).unwrap().approvals.is_empty());
    let command = Command::Approve(grant, before, world.same(&grant), None);
    assert_eq!(world.run("person/abe", command), Err(Denial::DigestMismatch));
    world.approve("abe", &grant).unwrap();
    world.approve("sue", &grant).unwrap();
    world.token(&filing);

    let exchange = |world: &mut World, outcome| {
        let basis = world.same(&grant).basis;
        let exchange = world.exchanging(&filing);
        world.run("agent/a", Command::Exchange(exchange, Verdict { basis, outcome }))
    };
    let refused = exchange(&mut world, Outcome::Refused(refusal()));
    assert_eq!(refused, Err(Denial::PolicyRefused(refusal())));
    let more = exchange(&mut world, Outcome::Permitted(requirement(&[("security", 2)])));
    assert!(matches!(more, Err(Denial::PolicyRefused(why)) if why.policy == "approvals"));
    let mut shorter = requirement(&[]);
    shorter.max_lifetime = secs(60);
    let counted = Requirement { max_uses: NonZeroU32::new(9), ..requirement(&[]) };
    let online = Requirement { online: true, ..requirement(&[]) };
    for (required, policy) in [(shorter, "max_ttl"), (counted, "max_uses"), (online, "online")] {
        let refused = exchange(&mut world, Outcome::Permitted(required));
        assert!(matches!(refused, Err(Denial::PolicyRefused(why)) if why.policy == policy));
    }

    let events = world.apply(3, &directory(), |_| Outcome::Refused(refusal())).unwrap();
    assert_eq!(events.len(), 2);
    let late = exchange(&mut world, Outcome::Permitted(requirement(&[])));
    assert_eq!(late, Err(Denial::Drifted(refusal())));
}

/// Policy asked at the approval that would grant says something else than when it was filed.
#[test]
fn a14_the_approval_that_would_grant_asks_policy_again() {
    let mut world = World::new();
    let (_, grant) = world.pending(&[("dba", 1)]);
    let decision = world.decision("ann", &grant, Answer::Approve(Narrowing::default()));
    let verdict = |world: &World, outcome| Verdict { basis: world.same(&grant).basis, outcome };
    let refused = verdict(&world, Outcome::Refused(refusal()));
    let command = Command::Approve(grant, decision.clone(), refused, None);
    assert_eq!(world.run("person/ann", command), Err(Denial::PolicyRefused(refusal())));
    let more = verdict(&world, Outcome::Permitted(requirement(&[("dba", 2)])));
    let events = world.run("person/ann", Command::Approve(grant, decision, more, None)).unwrap();
    assert!(matches!(events[..], [Event::RequirementChanged { .. }]));
    assert!(world.state.case(&grant).unwrap().approvals.is_empty());
}

/// 64 exchanges under one id, and as many under ids of their own: one token.
#[test]
fn a15_double_exchange() {
    let mut world = World::new();
    let filing = world.filing();
    let grant = world.granted(&filing);
    let exchange = world.exchanging(&filing);
    for _ in 0..64 {
        world.exchange(&exchange).unwrap();
    }
    for _ in 0..64 {
        let other = world.exchanging(&filing);
        world.exchange(&other).unwrap();
        let answer = world.state.answer(&grant, &other.id, world.now).cloned();
        assert_eq!(answer.as_ref(), world.state.answer(&grant, &exchange.id, world.now));
    }
    let minted = |(_, entry): &&(_, crate::core::event::Entry)| {
        matches!(entry.event, Event::TokenRecorded { .. })
    };
    assert_eq!(world.log.iter().filter(minted).count(), 1);

    // An id that was drawn long ago could be a repeat of something forgotten.
    for drawn in [world.now.minus(secs(301)), world.now.plus(secs(301))] {
        let mut odd = world.exchanging(&filing);
        odd.id = dayfly_verifier::id::ExchangeId::draw(drawn, [9; 10]);
        assert_eq!(world.exchange(&odd), Err(Denial::StaleId));
    }
    // A retry after its token died does not yield a second one.
    world.pass(secs(121));
    assert_eq!(world.exchange(&exchange), Err(Denial::StaleId));
    // Nor does the same id for another grant.
    let other = world.filing();
    let elsewhere = world.granted(&other);
    let mut reused = world.exchanging(&other);
    reused.id = exchange.id;
    let verdict = world.same(&elsewhere);
    let reused = world.run("agent/a", Command::Exchange(reused, verdict));
    assert_eq!(reused, Err(Denial::IdReused));
}

/// No sweeper runs, ever; only the clock moves.
#[test]
fn a18_expired_but_not_yet_tidied() {
    let mut world = World::new();
    let (filing, grant) = world.pending(&[("dba", 1)]);
    let done = world.filing();
    let live = world.granted(&done);
    let exchange = world.exchanging(&done);
    world.exchange(&exchange).unwrap();
    world.pass(secs(300));
    assert_eq!(world.approve("ann", &grant), Err(Denial::Expired));
    assert_eq!(world.deny("ann", &grant), Err(Denial::Expired));
    let cancel = Command::Cancel(filing.id, holder(1));
    assert_eq!(world.run("agent/a", cancel), Err(Denial::Expired));
    assert_eq!(world.exchange(&exchange), Err(Denial::Lapsed));
    assert_eq!(world.state.answer(&live, &exchange.id, world.now), None);
    let complete = Command::Complete(done.id, holder(1), TaskOutcome::Succeeded);
    assert_eq!(world.run("agent/a", complete), Err(Denial::Lapsed));
}

/// Whatever is revoked yields nothing any more: not to a new exchange, not to a repeat.
#[test]
fn a19_mint_after_revoke() {
    let targets: [fn(&Filing, dayfly_verifier::id::GrantId) -> Target; 5] = [
        |_, grant| Target::Grant(grant),
        |_, _| Target::Workload(id("agent/a")),
        |filing, _| Target::Task(filing.task.clone()),
        |_, _| Target::Prefix("db/prod".parse().unwrap()),
        |_, _| Target::Prefix("db/prod/orders/7".parse().unwrap()),
    ];
    for target in targets {
        let mut world = World::new();
        let filing = world.filing();
        let grant = world.granted(&filing);
        let (_, waiting) = world.pending(&[("dba", 1)]);
        let exchange = world.exchanging(&filing);
        world.exchange(&exchange).unwrap();
        let target = target(&filing, grant);
        world.revoke(target.clone()).unwrap();
        assert_eq!(world.exchange(&exchange), Err(Denial::Revoked), "{target:?}");
        let new = world.exchanging(&filing);
        assert_eq!(world.exchange(&new), Err(Denial::Revoked), "{target:?}");
        assert_eq!(world.state.answer(&grant, &exchange.id, world.now), None);
        let approved = world.approve("ann", &waiting);
        assert_eq!(approved.is_err(), target != Target::Grant(grant), "{target:?}");
        // Nothing later is touched.
        let later = world.filing();
        world.granted(&later);
        world.token(&later);
    }
}

#[test]
fn a19_a_revoked_token_or_key_ends_its_tokens_and_not_the_grant() {
    let mut world = World::new();
    let filing = world.filing();
    let grant = world.granted(&filing);
    let exchange = world.exchanging(&filing);
    world.exchange(&exchange).unwrap();
    let token = world.state.token_id(&id("agent/a"), &exchange.id);
    world.revoke(Target::Token(token)).unwrap();
    assert_eq!(world.exchange(&exchange), Err(Denial::Revoked));
    assert_eq!(world.state.answer(&grant, &exchange.id, world.now), None);
    let exchange = world.exchanging(&filing);
    world.exchange(&exchange).unwrap();
    assert_ne!(world.token(&filing), token);
    world.revoke(Target::Key(KEY)).unwrap();
    assert_eq!(world.exchange(&exchange), Err(Denial::Revoked));
    // It signs nothing any more: gateways would take nothing by it.
    let exchange = world.exchanging(&filing);
    assert_eq!(world.exchange(&exchange), Err(Denial::Reevaluate));
    assert!(!world.state.keys[&KEY].signs(world.now));
    assert!(matches!(world.state.case(&grant).unwrap().standing(world.now), Standing::Granted(_)));
}

#[test]
fn a57_numbers_at_their_edges() {
    let mut world = World::new();
    let last = Timestamp::from_ms(253_402_300_799_999).unwrap();
    let mut filing = world.filing();
    filing.lifetime = Some(std::time::Duration::MAX);
    assert!(world.file("agent/a", &filing, &requirement(&[])).is_err());
    filing.lifetime = Some(secs(u64::MAX));
    assert!(world.file("agent/a", &filing, &requirement(&[])).is_err());
    filing.lifetime = Some(secs(12 * 3600));
    filing.uses = NonZeroU32::new(u32::MAX);
    let mut wide = requirement(&[("dba", u32::MAX)]);
    wide.max_lifetime = std::time::Duration::MAX;
    let grant = world.file("agent/a", &filing, &wide).unwrap();
    let case = world.state.case(&grant).unwrap();
    assert!(
        matches!(case.standing(world.now), Standing::Refused(why) if why.policy == "approvals")
    );

    let mut filing = Filing { id: world.request_id(), ..filing };
    wide.approvals.clear();
    let grant = world.file("agent/a", &filing, &wide).unwrap();
    let terms = &world.state.case(&grant).unwrap().grant().unwrap().terms;
    assert_eq!(terms.until, world.now.plus(secs(12 * 3600)));
    // At the end of time nothing overflows, and nothing lasts.
    world.now = last.minus(secs(10));
    filing.id = world.request_id();
    let grant = world.file("agent/a", &filing, &wide).unwrap();
    assert_eq!(world.state.case(&grant).unwrap().standing(last), Standing::Lapsed);
    let caller = Caller { id: id("agent/a"), until: world.now };
    let refused = world.run_as(&caller, &Command::Cancel(filing.id, holder(1)));
    assert_eq!(refused, Err(Denial::NotAllowed));
}

/// One person, twice, thrice, in two groups: one place.
#[test]
fn a60_one_person_counts_once() {
    let mut world = World::new();
    let (_, two) = world.pending(&[("dba", 2)]);
    let (_, both) = world.pending(&[("dba", 1), ("security", 1)]);
    for _ in 0..3 {
        for grant in [two, both] {
            world.approve("max", &grant).unwrap();
            world.pass(secs(1));
            let case = world.state.case(&grant).unwrap();
            assert_eq!(case.standing(world.now), Standing::Pending);
        }
    }
    // Whoever fills the one place leaves the other to `max`.
    world.approve("ann", &both).unwrap();
    world.approve("abe", &two).unwrap();
    for grant in [two, both] {
        let case = world.state.case(&grant).unwrap();
        assert!(matches!(case.standing(world.now), Standing::Granted(_)));
    }
}
