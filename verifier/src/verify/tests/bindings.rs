//! What binds a proof to the call, and a token to its last holder.

use zeroize::Zeroizing;

use super::world::*;
use crate::caveat::Caveat;
use crate::claims::Claims;
use crate::holder::Confirmation;
use crate::proof::{DpopCall, make_dpop};
use crate::replay::ReplayLimits;
use crate::revocations::{Kind, Target};
use crate::scope::{Constraint, Limit, Value};
use crate::verify::{Config, Peer, Shown};
use crate::wire::{Decoded, attenuate, delegate};

/// A proof without the claim `act`, for the usual call.
fn plain_proof(world: &mut World, token: &str) -> String {
    make_dpop(&holder(0), token, &usual_http(), at(NOW), world.jti())
}

#[test]
fn a_changed_amount_is_another_call() {
    let mut world = World::new();
    let token = minted(&claims());
    let proof = world.proof(&holder(0), token.expose(), &refund(5));
    assert_eq!(code(&world.present(token.expose(), &proof, &refund(500))), "bad_proof");
    let text = call("refund", "orders/prod/o-17", &[("amount", Value::text("5").unwrap())]);
    assert_eq!(code(&world.present(token.expose(), &proof, &text)), "bad_proof");
    assert_eq!(code(&world.present(token.expose(), &proof, &refund(5))), "ok");
}

#[test]
fn act_is_demanded_for_counted_and_online_rights_and_behind_a_proxy() {
    let mut world = World::new();
    let plain = minted(&claims());
    let proof = plain_proof(&mut world, plain.expose());
    assert_eq!(code(&world.present(plain.expose(), &proof, &refund(5))), "ok");
    for claims in [Claims { counted: true, ..claims() }, Claims { online: true, ..claims() }] {
        let token = minted(&claims);
        let proof = plain_proof(&mut world, token.expose());
        assert_eq!(code(&world.present(token.expose(), &proof, &refund(5))), "bad_proof");
        assert_eq!(code(&world.use_by(&holder(0), token.expose(), &refund(5))), "ask");
    }
    let mut proxied = World::with(Config { behind_proxy: true, ..config(GATEWAY) });
    let proof = plain_proof(&mut proxied, plain.expose());
    assert_eq!(code(&proxied.present(plain.expose(), &proof, &refund(5))), "bad_proof");
    assert_eq!(code(&proxied.use_by(&holder(0), plain.expose(), &refund(5))), "ok");
}

#[test]
fn without_a_configured_url_no_proof_over_http_counts() {
    let mut world = World::with(Config { base_url: None, ..config(GATEWAY) });
    let token = minted(&claims());
    assert_eq!(code(&world.use_by(&holder(0), token.expose(), &refund(5))), "bad_proof");
}

#[test]
fn the_url_is_compared_byte_for_byte() {
    let mut world = World::new();
    let token = minted(&claims());
    for url in [
        "https://orders.shop.test/orders/o-17/refund/",
        "https://orders.shop.test/orders/o-17/refund?x=1",
        "https://orders.shop.test/orders/o-17/refund#x",
        "https://orders.shop.test:443/orders/o-17/refund",
        "https://ORDERS.shop.test/orders/o-17/refund",
        "http://orders.shop.test/orders/o-17/refund",
        "https://orders.shop.test.evil/orders/o-17/refund",
        "https://orders.shop.test/orders/%6f-17/refund",
        "/orders/o-17/refund",
        "",
    ] {
        let http = DpopCall { url, ..usual_http() };
        let proof = make_dpop(&holder(0), token.expose(), &http, at(NOW), world.jti());
        assert_eq!(code(&world.present(token.expose(), &proof, &refund(5))), "bad_proof", "{url}");
    }
}

#[test]
fn only_the_last_delegate_is_the_holder() {
    let mut world = World::new();
    let first = Decoded::read(minted(&claims()).expose()).unwrap();
    let argument = "amount".parse().unwrap();
    let caveat = Caveat::Argument(Constraint { argument, limit: Limit::AtMost(100) });
    let next = Zeroizing::new([1; 32]);
    let second = delegate(&first, &holder(0), &public(&holder(1)), &[caveat], &next).unwrap();
    assert_eq!(code(&world.use_by(&holder(1), second.expose(), &refund(100))), "ok");
    assert_eq!(code(&world.use_by(&holder(1), second.expose(), &refund(101))), "caveat");
    assert_eq!(code(&world.use_by(&holder(0), second.expose(), &refund(100))), "bad_proof");
    let parent = Peer { id: AGENT.parse().unwrap(), key: Some(public(&holder(0))) };
    let shown = Shown::Peer(&parent);
    assert_eq!(code(&world.show(second.expose(), shown, &refund(100))), "other_peer");

    let decoded = Decoded::read(second.expose()).unwrap();
    let next = Zeroizing::new([2; 32]);
    let third = delegate(&decoded, &holder(1), &public(&holder(2)), &[], &next).unwrap();
    assert_eq!(code(&world.use_by(&holder(2), third.expose(), &refund(100))), "ok");
    world.tell(Kind::Revoked(Target::Delegate(claims().grant, public(&holder(1)))));
    assert_eq!(code(&world.use_by(&holder(2), third.expose(), &refund(100))), "revoked");
    assert_eq!(code(&world.use_by(&holder(1), second.expose(), &refund(100))), "revoked");
    let plain = minted(&claims());
    assert_eq!(code(&world.use_by(&holder(0), plain.expose(), &refund(100))), "ok");
}

#[test]
fn a_holder_makes_no_room_for_proofs_by_delegating() {
    let replay = ReplayLimits { per_holder: 2, total: 6400 };
    let mut world = World::with(Config { replay, ..config(GATEWAY) });
    let first = minted(&claims());
    let decoded = Decoded::read(first.expose()).unwrap();
    let delegate = |n: u8| {
        let next = Zeroizing::new([n; 32]);
        delegate(&decoded, &holder(0), &public(&holder(n)), &[], &next).unwrap()
    };
    let (second, third) = (delegate(1), delegate(2));
    assert_eq!(code(&world.use_by(&holder(0), first.expose(), &refund(5))), "ok");
    assert_eq!(code(&world.use_by(&holder(1), second.expose(), &refund(5))), "ok");
    assert_eq!(code(&world.use_by(&holder(2), third.expose(), &refund(5))), "crowded");
    assert_eq!(code(&world.use_by(&holder(0), first.expose(), &refund(5))), "crowded");
    let other = Claims { holder: Confirmation::Key(public(&holder(3))), ..claims() };
    let other = minted(&other);
    assert_eq!(code(&world.use_by(&holder(3), other.expose(), &refund(5))), "ok");
}

#[test]
fn a_key_that_leaves_the_trust_takes_remembered_tokens_with_it() {
    let mut world = World::new();
    let token = minted(&claims());
    assert_eq!(code(&world.use_by(&holder(0), token.expose(), &refund(5))), "ok");
    let keys = std::mem::take(&mut world.statement.token_keys);
    world.publish();
    assert_eq!(code(&world.use_by(&holder(0), token.expose(), &refund(5))), "unknown_key");
    // Another key under the same number does not vouch for what the old one signed.
    world.statement.token_keys = keys;
    for listed in world.statement.token_keys.values_mut() {
        listed.public = public(&holder(9));
    }
    world.publish();
    assert_eq!(code(&world.use_by(&holder(0), token.expose(), &refund(5))), "unknown_key");
}

#[test]
fn what_is_remembered_of_a_token_is_bounded_in_time_and_size() {
    let mut world = World::new();
    let plain = minted(&claims());
    let decoded = Decoded::read(plain.expose()).unwrap();
    let orders = |from: usize, to: usize| {
        (from..to).map(|n| format!("orders/prod/o-{n}").parse().unwrap()).collect()
    };
    let many = [Caveat::Resource(orders(0, 32)), Caveat::Below("orders/prod".parse().unwrap())];
    let few = [Caveat::Resource(orders(0, 31)), Caveat::Below("orders/prod".parse().unwrap())];
    let attenuated = |caveats: &[Caveat]| attenuate(&decoded, caveats, &Zeroizing::new([1; 32]));
    for (caveats, remembered) in [(few, 1), (many, 0)] {
        let token = attenuated(&caveats).unwrap();
        assert_eq!(code(&world.use_by(&holder(0), token.expose(), &refund(5))), "ok");
        world.verifier.remembered.0.run_pending_tasks();
        assert_eq!(world.verifier.remembered.0.entry_count(), remembered);
        world.verifier.remembered.0.invalidate_all();
        world.verifier.remembered.0.run_pending_tasks();
    }
    let life = world.verifier.remembered.0.policy().time_to_live();
    assert_eq!(life, Some(std::time::Duration::from_secs(900)));
}

#[test]
fn a_remembered_token_is_refused_for_the_reason_of_a_new_one() {
    let claims = claims();
    let kinds = [
        Kind::Revoked(Target::Grant(claims.grant)),
        Kind::Revoked(Target::Token(claims.token)),
        Kind::Revoked(Target::Workload(claims.subject.clone())),
        Kind::Revoked(Target::Task(claims.task.clone())),
        Kind::Revoked(Target::Prefix("orders/prod".parse().unwrap())),
        Kind::Revoked(Target::Key(claims.key)),
        Kind::Unknown,
    ];
    let token = minted(&claims);
    let pairs = kinds.iter().flat_map(|kind| kinds.iter().map(move |other| [kind, other]));
    for (pair, keyless) in pairs.flat_map(|pair| [(pair, false), (pair, true)]) {
        let reason = |remembered: bool| {
            let mut world = World::new();
            if remembered {
                assert_eq!(code(&world.use_by(&holder(0), token.expose(), &refund(5))), "ok");
            }
            if keyless {
                world.statement.token_keys.clear();
            }
            pair.into_iter().for_each(|kind| world.tell(kind.clone()));
            world.use_by(&holder(0), token.expose(), &refund(5)).err()
        };
        let new = reason(false);
        assert!(new.is_some());
        assert_eq!(reason(true), new, "{pair:?}");
    }
}

#[test]
fn every_character_of_a_remembered_token_counts() {
    let world = World::new();
    let token = minted(&claims());
    let peer = Peer { id: claims().subject, key: Some(public(&holder(0))) };
    let used = |token: &str| world.show(token, Shown::Peer(&peer), &refund(5));
    assert_eq!(code(&used(token.expose())), "ok");
    for (place, was) in token.expose().char_indices() {
        let mut changed = token.expose().to_owned();
        changed.replace_range(place..=place, if was == 'A' { "B" } else { "A" });
        assert!(used(&changed).is_err(), "the character at {place}");
    }
    let cut = token.expose().split_at(4).1;
    assert!(used(cut).is_err());
    assert_eq!(code(&used(token.expose())), "ok");
}
