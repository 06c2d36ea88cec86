//! The tokens of one grant: which exchange each of them answers, and what the fold takes for one.

use dayfly_verifier::claims::Claims;
use dayfly_verifier::holder::Confirmation;
use dayfly_verifier::id::{GrantId, RequestDigest, TokenId};
use dayfly_verifier::scope::Scope;

use super::world::*;
use crate::core::command::Exchange;
use crate::core::event::*;
use crate::journal::snapshot;

/// The token that answers, in this state and in one that was kept and taken up again.
fn answer(world: &World, grant: &GrantId, exchange: &Exchange) -> Option<TokenId> {
    let kept = snapshot::copy(&world.state).unwrap();
    assert_eq!(kept, world.state);
    let answers = [&world.state, &kept].map(|state| {
        let minted = state.answer(grant, &exchange.id, world.now);
        minted.map(|minted| minted.claims.token)
    });
    assert_eq!(answers[0], answers[1]);
    answers[0]
}

#[test]
fn each_token_answers_its_own_exchanges_while_it_is_good() {
    let mut world = World::new();
    let filing = world.filing();
    let grant = world.granted(&filing);
    let [first, second, third, fourth] = [(); 4].map(|()| world.exchanging(&filing));
    world.exchange(&first).unwrap();
    world.exchange(&second).unwrap();
    let early = answer(&world, &grant, &first).unwrap();
    assert_eq!(answer(&world, &grant, &second), Some(early));
    // Under a third of its life is left.
    world.pass(secs(90));
    let [third, fourth] =
        [third, fourth].map(|exchange| Exchange { id: world.exchange_id(), ..exchange });
    assert_eq!(answer(&world, &grant, &third), None);
    world.exchange(&third).unwrap();
    world.exchange(&fourth).unwrap();
    let late = answer(&world, &grant, &third).unwrap();
    assert_ne!(late, early);
    let all = |world: &World| {
        [&first, &second, &third, &fourth].map(|exchange| answer(world, &grant, exchange))
    };
    assert_eq!(all(&world), [Some(early), Some(early), Some(late), Some(late)]);
    // A repeat makes nothing happen, with either of them.
    for exchange in [&first, &second, &third, &fourth] {
        assert_eq!(world.exchange(exchange), Ok(Vec::new()));
    }
    world.revoke(Target::Token(early)).unwrap();
    assert_eq!(all(&world), [None, None, Some(late), Some(late)]);
    world.revoke(Target::Token(late)).unwrap();
    assert_eq!(all(&world), [None; 4]);
}

/// An entry that says a token is wider, or another's, than was granted cannot have been written
/// by a broker.
#[test]
fn a_token_that_says_something_else_than_was_granted_cannot_stand() {
    let mut world = World::new();
    let filing = world.filing();
    world.granted(&filing);
    let exchange = world.exchanging(&filing);
    let before = world.state.clone();
    world.exchange(&exchange).unwrap();
    let (head, entry) = world.log.last().unwrap();
    let stands = |change: &dyn Fn(&mut Claims)| {
        let mut entry = entry.clone();
        let Event::TokenRecorded { claims, .. } = &mut entry.event else { panic!("no token") };
        change(claims);
        before.clone().apply(*head, &entry).is_ok()
    };
    assert!(stands(&|_| {}));
    let changes: [&dyn Fn(&mut Claims); 11] = [
        &|claims| claims.token = TokenId::new([7; 16]),
        &|claims| claims.grant = GrantId::new([7; 16]),
        &|claims| claims.request = RequestDigest::new([7; 32]),
        &|claims| claims.task = "another".parse().unwrap(),
        &|claims| claims.subject = id("agent/b"),
        &|claims| claims.principal = Some(person("ann")),
        &|claims| claims.audience = id("gateway/mail"),
        &|claims| claims.scope = Scope::new([right("read db/prod/**")], []).unwrap(),
        &|claims| claims.holder = Confirmation::Identity,
        &|claims| claims.online = !claims.online,
        &|claims| claims.counted = !claims.counted,
    ];
    for (n, change) in changes.into_iter().enumerate() {
        assert!(!stands(change), "change {n}");
    }
}

#[test]
fn an_exchange_is_answered_once() {
    let mut world = World::new();
    let filing = world.filing();
    let grant = world.granted(&filing);
    let [minted, answered] = [(); 2].map(|()| world.exchanging(&filing));
    world.exchange(&minted).unwrap();
    let token = answer(&world, &grant, &minted).unwrap();
    let stands = |world: &World, exchange: &Exchange, token| {
        let event = Event::ExchangeAnswered { grant, exchange: exchange.id, token };
        let (by, at) = (Actor::Workload(id("agent/a")), world.now);
        let entry = Entry { by, at, policy: world.state.bundle, event };
        let head = Head { seq: world.state.head.seq.next(), ..world.state.head };
        world.state.clone().apply(head, &entry).is_ok()
    };
    assert!(stands(&world, &answered, token));
    assert!(!stands(&world, &answered, TokenId::new([7; 16])), "with no token of the grant");
    assert!(!stands(&world, &minted, token), "the one that it was recorded with");
    world.exchange(&answered).unwrap();
    assert!(!stands(&world, &answered, token), "the one that it answered");
}
