//! What is refused, command by command.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use dayfly_verifier::request::{ConfirmBy, Narrowing};
use dayfly_verifier::scope::Scope;

use super::world::*;
use crate::core::case::Standing;
use crate::core::command::Command;
use crate::core::denial::{Denial, Limited};
use crate::core::event::{Answer, Decision, Event, Target, TaskOutcome};
use crate::core::verdict::{Outcome, Verdict};

fn is_invalid<T: std::fmt::Debug>(result: Result<T, Denial>, field: &str) {
    match result {
        Err(Denial::Invalid(invalid)) => assert_eq!(invalid.field, field),
        other => panic!("{field}: {other:?}"),
    }
}

#[test]
fn nothing_is_decided_before_a_bundle_or_with_an_ended_certificate() {
    let mut world = World::new();
    let caller = crate::core::command::Caller { id: id("agent/a"), until: world.now };
    let command = Command::Cancel(world.request_id(), holder(1));
    assert_eq!(world.run_as(&caller, &command), Err(Denial::NotAllowed));
    world.state.bundle = None;
    assert_eq!(world.run("agent/a", command), Err(Denial::NotReady));
}

#[test]
fn only_workloads_file() {
    let mut world = World::new();
    for who in ["person/ann", "person/ops", "nobody/x", "gateway/mail", "agent-x"] {
        let filing = world.filing();
        let filed = world.file(who, &filing, &requirement(&[]));
        assert_eq!(filed, Err(Denial::NotAllowed), "{who}");
    }
}

#[test]
fn a_new_id_must_be_of_now() {
    let mut world = World::new();
    for shift in [301, 300_000] {
        let filing = world.filing();
        world.pass(secs(shift));
        let late = world.file("agent/a", &filing, &requirement(&[]));
        assert_eq!(late, Err(Denial::StaleId));
    }
    let ahead = dayfly_verifier::id::RequestId::draw(world.now.plus(secs(301)), [1; 10]);
    let filing = crate::core::command::Filing { id: ahead, ..world.filing() };
    assert_eq!(world.file("agent/a", &filing, &requirement(&[])), Err(Denial::StaleId));
}

#[test]
fn filings_are_checked_against_the_directory_and_the_hard_limits() {
    let mut world = World::new();
    let base = world.filing();
    let mut file = |change: &dyn Fn(&mut crate::core::command::Filing), field| {
        let mut filing = base.clone();
        change(&mut filing);
        is_invalid(world.file("agent/a", &filing, &requirement(&[])), field);
    };
    file(&|f| f.audience = id("gateway/none"), "audience");
    file(&|f| f.audience = id("agent/a"), "audience");
    file(&|f| f.principal = Some(person("zoe")), "principal");
    file(&|f| f.confirmation = ConfirmBy::Identity, "confirm_by_identity");
    file(&|f| f.lifetime = Some(secs(0)), "lifetime");
    file(&|f| f.lifetime = Some(secs(12 * 3600 + 1)), "lifetime");
    file(&|f| f.lifetime = Some(std::time::Duration::from_millis(1500)), "lifetime");
}

#[test]
fn nothing_waits_for_longer_than_a_day_whatever_is_configured() {
    let mut world = World::new();
    let day = secs(24 * 3600);
    for (configured, waits) in [(secs(60), secs(60)), (day, day), (day.saturating_mul(9), day)] {
        world.state.limits.pending_life = configured;
        let (_, grant) = world.pending(&[("dba", 1)]);
        let due = world.state.case(&grant).unwrap().due();
        assert_eq!(due, Some(world.now.plus(waits)));
    }
}

#[test]
fn policy_refuses_and_the_refusal_is_recorded() {
    let mut world = World::new();
    let filing = world.filing();
    let basis = world.basis("agent/a", &filing.task, None);
    let verdict = Verdict { basis, outcome: Outcome::Refused(refusal()) };
    world.run("agent/a", Command::File(filing.clone(), verdict.clone())).unwrap();
    let case = world.state.own(&id("agent/a"), &filing.id).unwrap();
    assert_eq!(case.standing(world.now), Standing::Refused(&refusal()));
    // Once refused, always refused: the same id cannot come to be permitted.
    let again = world.file("agent/a", &filing, &requirement(&[])).unwrap();
    assert_eq!(world.state.case(&again).unwrap().grant(), None);
    let exchange = world.exchanging(&filing);
    assert_eq!(world.exchange(&exchange), Err(Denial::PolicyRefused(refusal())));
}

#[test]
fn a_verdict_on_another_state_is_not_used() {
    let mut world = World::new();
    let filing = world.filing();
    let basis = world.basis("agent/a", &filing.task, None);
    let verdict = Verdict { basis, outcome: Outcome::Permitted(requirement(&[])) };
    let other = world.filing();
    world.granted(&other);
    let stale = world.run("agent/a", Command::File(filing, verdict));
    assert_eq!(stale, Err(Denial::Reevaluate));

    let (_, grant) = world.pending(&[("dba", 1)]);
    let decision = world.decision("ann", &grant, Answer::Approve(Narrowing::default()));
    let mut verdict = world.same(&grant);
    verdict.basis.environment += 1;
    let stale = world.run("person/ann", Command::Approve(grant, decision, verdict, None));
    assert_eq!(stale, Err(Denial::Reevaluate));

    let exchange = world.exchanging(&other);
    let mut verdict = world.same(&grant);
    verdict.basis.holdings.workload += 7;
    let stale = world.run("agent/a", Command::Exchange(exchange, verdict));
    assert_eq!(stale, Err(Denial::Reevaluate));
}

#[test]
fn a_workload_holds_and_awaits_no_more_than_it_may() {
    let mut world = World::new();
    for _ in 0..8 {
        world.pending(&[("dba", 1)]);
    }
    let filing = world.filing();
    let ninth = world.file("agent/a", &filing, &requirement(&[("dba", 1)]));
    assert_eq!(ninth, Err(Denial::LimitReached(Limited::PendingRequests)));
    assert!(world.file("agent/b", &filing, &requirement(&[("dba", 1)])).is_ok());

    let waiting: Vec<_> = world.state.pending_for(&person("ann"), world.now).collect();
    let waiting: Vec<_> = waiting.into_iter().map(|case| case.grant_id()).collect();
    for _ in 0..16 {
        let filing = world.filing();
        world.granted(&filing);
    }
    let filing = world.filing();
    let more = world.file("agent/a", &filing, &requirement(&[]));
    assert_eq!(more, Err(Denial::LimitReached(Limited::LiveGrants)));
    let mine = waiting
        .into_iter()
        .find(|grant| world.state.case(grant).unwrap().request.workload == id("agent/a"));
    let approved = world.approve("ann", &mine.unwrap());
    assert_eq!(approved, Err(Denial::LimitReached(Limited::LiveGrants)));
    // Time makes room, without anybody's doing.
    world.pass(secs(300));
    let filing = world.filing();
    assert!(world.file("agent/a", &filing, &requirement(&[])).is_ok());
}

#[test]
fn approvals_are_refused_from_whoever_may_not_give_them() {
    let mut world = World::new();
    let (_, grant) = world.pending(&[("dba", 2)]);
    assert_eq!(world.approve("sue", &grant), Err(Denial::NotFound));
    assert_eq!(world.approve("ops", &grant), Err(Denial::NotApprover));
    assert_eq!(world.approve("opa", &grant), Err(Denial::OwnRequest));
    let decision = world.decision("ann", &grant, Answer::Approve(Narrowing::default()));
    let verdict = world.same(&grant);
    for who in ["agent/a", "agent/b", "gateway/orders", "nobody/x"] {
        let command = Command::Approve(grant, decision.clone(), verdict.clone(), None);
        assert_eq!(world.run(who, command), Err(Denial::NotAllowed), "{who}");
    }
    // In another's name, whose signature it even is.
    let command = Command::Approve(grant, decision.clone(), verdict.clone(), None);
    assert_eq!(world.run("person/abe", command), Err(Denial::NotApprover));
    let mut unsigned = decision.clone();
    unsigned.evidence = None;
    let command = Command::Approve(grant, unsigned, verdict.clone(), None);
    assert_eq!(world.run("person/ann", command), Err(Denial::UnknownKey));
    let mut others_key = decision.clone();
    others_key.evidence = world.decision("abe", &grant, decision.answer.clone()).evidence;
    let command = Command::Approve(grant, others_key, verdict.clone(), None);
    assert_eq!(world.run("person/ann", command), Err(Denial::UnknownKey));
    for shift in [world.now.plus(secs(121)), world.now.minus(secs(121))] {
        let mut shifted = decision.clone();
        shifted.at = shift;
        let command = Command::Approve(grant, shifted, verdict.clone(), None);
        assert_eq!(world.run("person/ann", command), Err(Denial::DecisionTime));
    }
    assert!(world.approve("ann", &grant).is_ok());
}

/// A denial takes away: a broker whose clock was set takes it at the time that was counted.
#[test]
fn a_denial_that_nobody_signed_is_of_the_time_of_its_entry() {
    let mut world = World::new();
    for shift in [world.now.plus(secs(121)), world.now.minus(secs(121))] {
        let (_, grant) = world.pending(&[("dba", 1)]);
        let denial = Decision { at: shift, ..world.decision("ann", &grant, Answer::Deny) };
        let signed = world.decision("ann", &grant, Answer::Approve(Narrowing::default())).evidence;
        let signed = Command::Deny(grant, Decision { evidence: signed, ..denial.clone() });
        assert_eq!(world.run("person/ann", signed), Err(Denial::DecisionTime));
        let events = world.run("person/ann", Command::Deny(grant, denial.clone())).unwrap();
        let decision = Decision { at: world.now, ..denial };
        assert_eq!(events, [Event::DecisionRecorded { grant, decision }]);
    }
}

#[test]
fn a_narrowing_that_widens_is_refused() {
    let mut world = World::new();
    let mut filing = world.filing();
    filing.uses = NonZeroU32::new(5);
    let grant = world.file("agent/a", &filing, &requirement(&[("dba", 1)])).unwrap();
    let mut approve = |change: &dyn Fn(&mut Narrowing), field: &str| {
        let mut narrowing = Narrowing::default();
        change(&mut narrowing);
        is_invalid(world.approve_narrowed("ann", &grant, narrowing), field);
    };
    approve(&|n| n.lifetime = Some(secs(301)), "lifetime");
    approve(&|n| n.lifetime = Some(secs(0)), "lifetime");
    approve(&|n| n.uses = NonZeroU32::new(6), "uses");
    approve(&|n| n.rights = Some([right("read db/**")].into()), "rights");
    approve(&|n| n.rights = Some([right("delete db/prod/orders")].into()), "rights");
    approve(&|n| n.rights = Some(BTreeSet::new()), "rights");
}

#[test]
fn narrowings_intersect_and_an_empty_rest_is_refused() {
    let mut world = World::new();
    let (_, grant) = world.pending(&[("dba", 2)]);
    let only =
        |text: &str| Narrowing { rights: Some([right(text)].into()), ..Narrowing::default() };
    world.approve_narrowed("ann", &grant, only("read db/prod/a/**")).unwrap();
    is_invalid(world.approve_narrowed("abe", &grant, only("read db/prod/b")), "rights");
    let wider = Narrowing {
        constraints: [at_most("amount", 100)].into(),
        lifetime: Some(secs(60)),
        ..only("read db/prod/**")
    };
    world.approve_narrowed("abe", &grant, wider).unwrap();
    let terms = &world.state.case(&grant).unwrap().grant().unwrap().terms;
    let both = [at_most("amount", 100), at_most("amount", 500)];
    assert_eq!(terms.scope, Scope::new([right("read db/prod/a/**")], both).unwrap());
    assert_eq!(terms.until, world.now.plus(secs(60)));
}

#[test]
fn only_the_holder_key_exchanges_completes_and_cancels() {
    let mut world = World::new();
    let filing = world.filing();
    let grant = world.granted(&filing);
    let mut exchange = world.exchanging(&filing);
    exchange.holder_key = holder(2);
    assert_eq!(world.exchange(&exchange), Err(Denial::HolderMismatch));
    let complete = |key| Command::Complete(filing.id, holder(key), TaskOutcome::Succeeded);
    assert_eq!(world.run("agent/a", complete(2)), Err(Denial::HolderMismatch));
    assert_eq!(world.run("agent/b", complete(1)), Err(Denial::NotFound));
    assert_eq!(world.run("person/ops", complete(1)), Err(Denial::NotFound));
    let cancel = Command::Cancel(filing.id, holder(2));
    assert_eq!(world.run("agent/a", cancel), Err(Denial::HolderMismatch));
    let verdict = world.same(&grant);
    let exchange = world.exchanging(&filing);
    let sibling = world.run("agent/b", Command::Exchange(exchange, verdict));
    assert_eq!(sibling, Err(Denial::NotFound));
}

#[test]
fn a_key_that_is_not_listed_so_signs_nothing() {
    let mut world = World::new();
    let filing = world.filing();
    world.granted(&filing);
    let mut exchange = world.exchanging(&filing);
    exchange.signing_key.1 = exchange.signing_key.1.plus(secs(1));
    assert_eq!(world.exchange(&exchange), Err(Denial::NotReady));
    exchange.signing_key.0 = dayfly_verifier::id::KeyId(2);
    assert_eq!(world.exchange(&exchange), Err(Denial::NotReady));
    let mut ended = world.clone();
    ended.now = ended.state.keys[&KEY].not_after;
    let late = ended.filing();
    ended.granted(&late);
    let exchange = ended.exchanging(&late);
    assert_eq!(ended.exchange(&exchange), Err(Denial::NotReady));
    world.record(crate::core::event::Actor::Host, [Event::KeyRetired { key: KEY }]);
    let exchange = world.exchanging(&filing);
    assert_eq!(world.exchange(&exchange), Err(Denial::Reevaluate));
}

#[test]
fn only_the_broker_itself_adds_keys_and_none_that_has_ended_or_another_under_a_number() {
    let mut world = World::new();
    let until = world.now.plus(secs(60));
    let add = |key, public, not_after| Command::AddKey { key, public, not_after };
    let two = dayfly_verifier::id::KeyId(2);
    for who in ["person/ops", "person/adm", "agent/a", "gateway/orders", "dayfly/brokers"] {
        let refused = world.run(who, add(two, holder(2), until));
        assert_eq!(refused, Err(Denial::NotAllowed), "{who}");
    }
    is_invalid(world.run("dayfly/broker", add(two, holder(2), world.now)), "not_after");
    let listed = world.state.keys[&KEY].clone();
    for (public, end) in [(holder(2), listed.not_after), (listed.public, until)] {
        let other = world.run("dayfly/broker", add(KEY, public, end));
        assert_eq!(other, Err(Denial::IdReused));
    }
    let same = world.run("dayfly/broker", add(KEY, listed.public, listed.not_after));
    assert_eq!(same, Ok(Vec::new()));
    assert_eq!(world.run("dayfly/broker", add(two, holder(2), until)).unwrap().len(), 1);
}

#[test]
fn only_operators_revoke_and_absent_is_not_found() {
    let mut world = World::new();
    let filing = world.filing();
    let grant = world.granted(&filing);
    for who in ["person/ann", "person/adm", "agent/a", "gateway/orders", "nobody/x"] {
        for target in [Target::Grant(grant), Target::Workload(id("agent/a"))] {
            let refused = world.run(who, Command::Revoke(target, None));
            assert_eq!(refused, Err(Denial::NotAllowed), "{who}");
        }
    }
    let absent = dayfly_verifier::id::GrantId::new([9; 16]);
    assert_eq!(world.revoke(Target::Grant(absent)), Err(Denial::NotFound));
    let absent = dayfly_verifier::id::TokenId::new([9; 16]);
    assert_eq!(world.revoke(Target::Token(absent)), Err(Denial::NotFound));
    let absent = dayfly_verifier::id::KeyId(9);
    assert_eq!(world.revoke(Target::Key(absent)), Err(Denial::NotFound));
    // A needless one is a success without an entry.
    assert_eq!(world.revoke(Target::Grant(grant)).unwrap().len(), 1);
    assert_eq!(world.revoke(Target::Grant(grant)).unwrap().len(), 0);
}

#[test]
fn a_bundle_leaves_somebody_who_can_apply_the_next_one() {
    let (mut world, mut other) = (World::new(), directory());
    let permitted = |required: &_| Outcome::Permitted(Clone::clone(required));
    for person in other.people.values_mut() {
        person.roles.remove(&crate::core::directory::Role::Operator);
    }
    is_invalid(world.apply(2, &other, permitted), "people.toml");
    // It may be another one than the one who applies it.
    let roles = &mut other.people.get_mut(&person("ann")).unwrap().roles;
    roles.insert(crate::core::directory::Role::Operator);
    assert!(world.apply(2, &other, permitted).is_ok());
}

#[test]
fn a_bundle_needs_its_signatures_a_present_base_and_a_word_on_all_that_is_open() {
    let mut demanding = directory();
    demanding.bundle_signatures = 1;
    let mut world = World::with(demanding);
    let permitted = |required: &_| Outcome::Permitted(Clone::clone(required));
    assert_eq!(world.apply(2, &directory(), permitted), Err(Denial::UnsignedBundle));
    // Keys count that a policy admin of the bundle in force has, and nobody else's.
    for (signers, enough) in [(&["ops", "ann"][..], false), (&["new"], false), (&["adm"], true)] {
        let application = crate::core::command::Application {
            bundle: dayfly_verifier::id::BundleDigest::new([2; 32]),
            directory: directory(),
            signers: signers.iter().map(|name| signer(name)).collect(),
            replaces: world.state.bundle,
            verdicts: BTreeMap::new(),
        };
        let applied = world.clone().run("person/ops", Command::Apply(application));
        assert_eq!(applied.is_ok(), enough, "{signers:?}");
    }

    let mut world = World::new();
    world.pending(&[("dba", 1)]);
    let application = crate::core::command::Application {
        bundle: dayfly_verifier::id::BundleDigest::new([2; 32]),
        directory: directory(),
        signers: BTreeSet::new(),
        replaces: world.state.bundle,
        verdicts: BTreeMap::new(),
    };
    let silent = world.run("person/ops", Command::Apply(application.clone()));
    assert_eq!(silent, Err(Denial::Reevaluate));
    let elsewhere = crate::core::command::Application { replaces: None, ..application.clone() };
    let stale = world.run("person/ops", Command::Apply(elsewhere));
    assert_eq!(stale, Err(Denial::Reevaluate));
    let refused = world.run("person/ann", Command::Apply(application));
    assert_eq!(refused, Err(Denial::NotAllowed));
}
