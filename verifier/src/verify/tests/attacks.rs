//! The attacks on a token and on its proof.

use std::time::Duration;

use ed25519_dalek::SigningKey;

use super::world::*;
use crate::claims::Claims;
use crate::holder::Confirmation;
use crate::id::KeyId;
use crate::proof::{DpopCall, make_dpop};
use crate::revocations::{Kind, Target};
use crate::trust::ListedKey;
use crate::verify::{Config, Peer, Shown};
use crate::wire::{LocalSigner, mint};

fn peer(id: &str, key: Option<u8>) -> Peer {
    Peer { id: id.parse().unwrap(), key: key.map(|n| public(&holder(n))) }
}

/// Ten thousand thieves: each with a key of its own, and what it can make of it.
#[test]
fn a01_stolen_token_without_its_key() {
    let mut world = World::new();
    let token = minted(&claims());
    let call = refund(5);
    let own = world.proof(&holder(0), token.expose(), &call);
    let (own_claims, _) = own.rsplit_once('.').unwrap();
    for n in 0..2_500_u32 {
        let mut seed = [77; 32];
        seed[..4].copy_from_slice(&n.to_be_bytes());
        let (key, mut jti) = (SigningKey::from_bytes(&seed), [0; 16]);
        jti[..4].copy_from_slice(&n.to_be_bytes());
        assert_eq!(code(&world.show(token.expose(), Shown::Nothing, &call)), "no_proof");
        let thief = Peer { id: AGENT.parse().unwrap(), key: Some(public(&key)) };
        assert_eq!(code(&world.show(token.expose(), Shown::Peer(&thief), &call)), "other_peer");
        let proof = make_dpop(&key, token.expose(), &usual_http(), at(NOW), jti);
        assert_eq!(code(&world.present(token.expose(), &proof, &call)), "bad_proof", "{n}");
        // All that the holder would say, under the thief's signature.
        let (_, signature) = proof.rsplit_once('.').unwrap();
        let forged = format!("{own_claims}.{signature}");
        assert_eq!(code(&world.present(token.expose(), &forged, &call)), "bad_proof", "{n}");
    }
    assert_eq!(code(&world.present(token.expose(), &own, &call)), "ok");
    // Remembered as good by now; stolen all the same.
    assert_eq!(code(&world.use_by(&holder(1), token.expose(), &call)), "bad_proof");
    assert_eq!(code(&world.show(token.expose(), Shown::Nothing, &call)), "no_proof");
}

#[test]
fn a01_bound_to_a_key_a_sibling_of_the_same_name_is_refused() {
    let world = World::new();
    let token = minted(&claims());
    let show = |peer: &Peer| code(&world.show(token.expose(), Shown::Peer(peer), &refund(5)));
    assert_eq!(show(&peer(AGENT, Some(0))), "ok");
    assert_eq!(show(&peer(AGENT, Some(1))), "other_peer", "a new certificate of the same name");
    assert_eq!(show(&peer(AGENT, None)), "other_peer");
}

#[test]
fn a01_bound_to_an_identity_a_new_key_passes_and_another_name_does_not() {
    let mut world = World::new();
    let token = minted(&Claims { holder: Confirmation::Identity, ..claims() });
    let show = |world: &World, peer: &Peer| {
        code(&world.show(token.expose(), Shown::Peer(peer), &refund(5)))
    };
    assert_eq!(show(&world, &peer(AGENT, Some(0))), "ok");
    assert_eq!(show(&world, &peer(AGENT, Some(1))), "ok");
    assert_eq!(show(&world, &peer("spiffe://shop.test/agent/refunds-2", Some(0))), "other_peer");
    assert_eq!(show(&world, &peer("spiffe://shop.test/agent", Some(0))), "other_peer");
    assert_eq!(code(&world.use_by(&holder(0), token.expose(), &refund(5))), "other_peer");
}

#[test]
fn a02_a_proof_is_accepted_once() {
    let mut world = World::new();
    let token = minted(&claims());
    let call = refund(5);
    let proof = world.proof(&holder(0), token.expose(), &call);
    assert_eq!(code(&world.present(token.expose(), &proof, &call)), "ok");
    assert_eq!(code(&world.present(token.expose(), &proof, &call)), "replayed");
    let other_path = Shown::Dpop { proof: &proof, method: "POST", path: "/orders/o-18/refund" };
    assert_eq!(code(&world.show(token.expose(), other_path, &call)), "bad_proof");
    let other_method = Shown::Dpop { proof: &proof, method: "PUT", path: PATH };
    assert_eq!(code(&world.show(token.expose(), other_method, &call)), "bad_proof");
    assert_eq!(code(&world.present(token.expose(), &proof, &refund(6))), "bad_proof", "other body");
    for seconds in [29, 1, 1] {
        world.advance(Duration::from_secs(seconds));
        world.publish();
        let outcome = code(&world.present(token.expose(), &proof, &call));
        assert!(matches!(outcome, "replayed" | "proof_time"), "{outcome}");
    }
}

#[test]
fn a02_a_proof_in_another_spelling_is_not_another_proof() {
    let mut world = World::new();
    let token = minted(&claims());
    let call = refund(5);
    let proof = world.proof(&holder(0), token.expose(), &call);
    assert_eq!(code(&world.present(token.expose(), &proof, &call)), "ok");
    for spelling in [format!("{proof}="), format!(" {proof}"), format!("{proof}.")] {
        assert_eq!(code(&world.present(token.expose(), &spelling, &call)), "bad_proof");
    }
}

#[test]
fn a02_a_proof_does_not_survive_a_restart_nor_reach_another_instance() {
    let mut first = World::new();
    let token = minted(&claims());
    let call = refund(5);
    let proof = first.proof(&holder(0), token.expose(), &call);
    assert_eq!(code(&first.present(token.expose(), &proof, &call)), "ok");

    let mut restarted = World::just_started(config(GATEWAY), at(NOW), Duration::from_secs(9000));
    restarted.publish();
    assert_eq!(code(&restarted.present(token.expose(), &proof, &call)), "nonce");
    let with_nonce = |nonce: &str, jti| {
        let act = act(GATEWAY, &call);
        let http = DpopCall { act: Some(&act), nonce: Some(nonce), ..usual_http() };
        make_dpop(&holder(0), token.expose(), &http, at(NOW), jti)
    };
    let nonce = restarted.verifier.nonce().unwrap().to_string();
    let proof = with_nonce(&nonce, [40; 16]);
    assert_eq!(code(&restarted.present(token.expose(), &proof, &call)), "ok");
    assert_eq!(code(&restarted.present(token.expose(), &proof, &call)), "replayed");

    let mut other = World::just_started(config(GATEWAY), at(NOW), Duration::from_secs(9001));
    other.publish();
    assert_eq!(code(&other.present(token.expose(), &proof, &call)), "nonce");
    assert!(first.verifier.nonce().is_none(), "the minute after the start is over");
}

#[test]
fn a02_instances_that_share_an_audience_demand_a_nonce_for_ever() {
    let mut world = World::with(Config { shared_audience: true, ..config(GATEWAY) });
    let token = minted(&claims());
    assert_eq!(code(&world.use_by(&holder(0), token.expose(), &refund(5))), "nonce");
    assert!(world.verifier.nonce().is_some());
}

#[test]
fn a02_a_clock_that_is_set_back_brings_no_proof_back() {
    let mut world = World::new();
    let token = minted(&Claims { expires_at: at(NOW + 600), ..claims() });
    let call = refund(5);
    let proof = world.proof(&holder(0), token.expose(), &call);
    assert_eq!(code(&world.present(token.expose(), &proof, &call)), "ok");
    world.advance(Duration::from_secs(120));
    world.publish();
    assert_eq!(code(&world.use_by(&holder(0), token.expose(), &call)), "ok");
    world.set_time(at(NOW));
    assert_eq!(code(&world.present(token.expose(), &proof, &call)), "nonce");
}

#[test]
fn a03_a_proof_made_ahead_of_time() {
    let mut world = World::new();
    let token = minted(&claims());
    let call = refund(5);
    for (ahead, expected) in [(31, "proof_time"), (3600, "proof_time"), (30, "ok")] {
        let made = at(NOW + ahead);
        let proof = make_dpop(&holder(0), token.expose(), &usual_http(), made, world.jti());
        assert_eq!(code(&world.present(token.expose(), &proof, &call)), expected, "{ahead}");
    }
}

#[test]
fn a04_a_proof_for_another_token() {
    let mut world = World::new();
    let one = minted(&claims());
    let other = minted(&Claims { expires_at: at(NOW + 60), ..claims() });
    let call = refund(5);
    let proof = world.proof(&holder(0), one.expose(), &call);
    assert_eq!(code(&world.present(other.expose(), &proof, &call)), "bad_proof");
    assert_eq!(code(&world.present(one.expose(), &proof, &call)), "ok");
}

#[test]
fn a05_audience_swap() {
    let gateways: Vec<String> =
        (0..6).map(|n| format!("spiffe://shop.test/gateway/g{n}")).collect();
    for (row, at_gateway) in gateways.iter().enumerate() {
        let mut world = World::with(config(at_gateway));
        for (column, audience) in gateways.iter().enumerate() {
            let token = minted(&Claims { audience: audience.parse().unwrap(), ..claims() });
            let proof = make_dpop(&holder(0), token.expose(), &usual_http(), at(NOW), world.jti());
            let expected = if row == column { "ok" } else { "other_audience" };
            let outcome = code(&world.present(token.expose(), &proof, &refund(5)));
            assert_eq!(outcome, expected, "{row} {column}");
        }
    }
}

#[test]
fn a06_an_audience_that_is_nearly_ours() {
    let mut world = World::new();
    for near in [
        "spiffe://shop.test/gateway/order",
        "spiffe://shop.test/gateway/orders2",
        "spiffe://shop.test/gateway/orders/x",
        "spiffe://shop.test/gateway",
        "spiffe://shop.test/gateway/Orders",
        "spiffe://shop.test/gateway/orders.",
        "spiffe://shop.test.evil/gateway/orders",
        "spiffe://evil.test/gateway/orders",
    ] {
        let token = minted(&Claims { audience: near.parse().unwrap(), ..claims() });
        let outcome = code(&world.use_by(&holder(0), token.expose(), &refund(5)));
        assert_eq!(outcome, "other_audience", "{near}");
    }
    // Forms that are no SPIFFE ID cannot even be claimed.
    for no_id in [
        "spiffe://shop.test/gateway/orders/",
        "spiffe://shop.test/gateway/./orders",
        "spiffe://shop.test//gateway/orders",
        "spiffe://shop.test/gateway/%6frders",
        "spiffe://Shop.test/gateway/orders",
        "SPIFFE://shop.test/gateway/orders",
        "spiffe://shop.test/gateway/orders,spiffe://shop.test/gateway/stock",
        "[\"spiffe://shop.test/gateway/orders\"]",
    ] {
        assert!(no_id.parse::<crate::spiffe::SpiffeId>().is_err(), "{no_id}");
    }
}

#[test]
fn a07_a_gateway_that_forwards_what_it_was_shown() {
    let mut here = World::new();
    let token = minted(&claims());
    let call = refund(5);
    let proof = here.proof(&holder(0), token.expose(), &call);
    assert_eq!(code(&here.present(token.expose(), &proof, &call)), "ok");
    let stock = Config {
        base_url: Some("https://stock.shop.test".parse().unwrap()),
        ..config("spiffe://shop.test/gateway/stock")
    };
    let there = World::with(stock);
    assert_eq!(code(&there.present(token.expose(), &proof, &call)), "other_audience");
    // Nor at another instance behind another name, should the audience be shared.
    let renamed =
        Config { base_url: Some("https://internal.shop.test".parse().unwrap()), ..config(GATEWAY) };
    assert_eq!(code(&World::with(renamed).present(token.expose(), &proof, &call)), "bad_proof");
}

#[test]
fn a18_expired_without_anything_that_sweeps() {
    let mut world = World::new();
    let token = minted(&claims());
    let call = refund(5);
    assert_eq!(code(&world.use_by(&holder(0), token.expose(), &call)), "ok");
    world.advance(Duration::from_millis(119_999));
    world.publish();
    assert_eq!(
        code(&world.use_by(&holder(0), token.expose(), &call)),
        "ok",
        "the last millisecond"
    );
    world.advance(Duration::from_millis(1));
    world.publish();
    assert_eq!(code(&world.use_by(&holder(0), token.expose(), &call)), "expired");
    world.advance(Duration::from_secs(86_400 * 365));
    world.publish();
    let outcome = code(&world.use_by(&holder(0), token.expose(), &call));
    assert!(matches!(outcome, "expired" | "unknown_key"), "{outcome}");
}

#[test]
fn a58_no_error_is_a_success() {
    let mut world = World::new();
    let token = minted(&claims());
    let call = refund(5);
    let text = token.expose();
    // Every one of its characters changed, and every length cut.
    for place in 0..text.len() {
        let mut changed = text.to_owned().into_bytes();
        changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        if changed != text {
            let proof = make_dpop(&holder(0), &changed, &usual_http(), at(NOW), [9; 16]);
            assert!(world.present(&changed, &proof, &call).is_err(), "{place}");
            assert!(world.present(&text[..place], &proof, &call).is_err(), "cut at {place}");
        }
    }
    // Every character of a proof changed.
    let proof = world.proof(&holder(0), text, &call);
    for place in 0..proof.len() {
        let mut changed = proof.clone().into_bytes();
        changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(changed == proof || world.present(text, &changed, &call).is_err(), "{place}");
        assert!(world.present(text, &proof[..place], &call).is_err(), "cut at {place}");
    }
    for junk in ["", ".", "..", "....", "null", "\0", &".".repeat(1_000_000), &"A".repeat(5000)] {
        assert!(world.present(junk, &proof, &call).is_err());
        assert!(world.present(text, junk, &call).is_err());
    }
    assert_eq!(code(&world.present(text, &proof, &call)), "ok", "and nothing of it was spent");
}

#[test]
fn a58_before_the_first_word_of_the_feed_nothing_is_allowed() {
    let mut world = World::just_started(config(GATEWAY), at(NOW), Duration::from_secs(1));
    let token = minted(&claims());
    assert_eq!(code(&world.use_by(&holder(0), token.expose(), &refund(5))), "stale");
}

#[test]
fn a26_a_key_of_another_number_purpose_or_time_verifies_nothing() {
    let mut world = World::new();
    let listed = |key: &SigningKey, end| ListedKey { public: public(key), not_after: at(end) };
    let (feed, old) = (holder(40), holder(41));
    world.statement.feed_keys.insert(KeyId(4), listed(&feed, NOW + 86_400));
    world.statement.token_keys.insert(KeyId(5), listed(&old, NOW - 1));
    world.publish();
    let by = |number, private: &SigningKey| {
        let signer = LocalSigner::new(KeyId(number), private.as_bytes(), [8; 32].into());
        let claims = Claims { key: KeyId(number), ..claims() };
        mint(&claims, &record(), &signer).unwrap().expose().to_owned()
    };
    let root = SigningKey::from_bytes(&[7; 32]);
    let good = by(3, &root);
    let says =
        |world: &mut World, token: &str| code(&world.use_by(&holder(0), token, &refund(100)));
    assert_eq!(says(&mut world, &good), "ok");
    let expected = [
        (by(6, &root), "unknown_key"),
        (by(4, &feed), "unknown_key"),
        (by(4, &root), "unknown_key"),
        (by(5, &old), "unknown_key"),
        (by(3, &feed), "bad_signature"),
    ];
    for (n, (token, refused)) in expected.iter().enumerate() {
        assert_eq!(says(&mut world, token), *refused, "{n}");
    }
    // Listed no more, and listed again: both hold at once, for what was remembered too.
    let listed = world.statement.token_keys.remove(&KeyId(3)).unwrap();
    world.publish();
    assert_eq!(says(&mut world, &good), "unknown_key");
    world.statement.token_keys.insert(KeyId(3), listed);
    world.publish();
    assert_eq!(says(&mut world, &good), "ok");
    world.tell(Kind::Revoked(Target::Key(KeyId(3))));
    assert_ne!(says(&mut world, &good), "ok");
}
