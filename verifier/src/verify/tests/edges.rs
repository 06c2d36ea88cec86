//! Numbers at their ends.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::Signer as _;
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::world::*;
use crate::scope::Value;
use crate::time::Timestamp;

/// A signed proof with this header and these claims, by holder 0, whatever they are.
fn raw_proof(header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = holder(0).sign(signed.as_bytes()).to_bytes();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn header() -> Json {
    let x = URL_SAFE_NO_PAD.encode(public(&holder(0)).as_bytes());
    json!({ "typ": "dpop+jwt", "alg": "EdDSA", "jwk": { "kty": "OKP", "crv": "Ed25519", "x": x } })
}

fn body(token: &str) -> Json {
    json!({
        "jti": "one",
        "htm": "POST",
        "htu": "https://orders.shop.test/orders/o-17/refund",
        "iat": NOW,
        "ath": URL_SAFE_NO_PAD.encode(Sha256::digest(token)),
    })
}

/// `json` with the member at `path` replaced, or removed.
fn with(json: &Json, path: &str, value: Option<Json>) -> String {
    let mut json = json.clone();
    let (outer, name) = path.rsplit_once('/').unwrap();
    let object = json.pointer_mut(outer).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => object.insert(name.into(), value),
        None => object.remove(name),
    };
    json.to_string()
}

#[test]
fn a57_times_in_a_proof() {
    let world = World::new();
    let token = minted(&claims());
    let present = |iat: &str| {
        let claims = with(&body(token.expose()), "/iat", Some(json!("@"))).replace("\"@\"", iat);
        code(&world.present(token.expose(), &raw_proof(&header().to_string(), &claims), &refund(5)))
    };
    let bad = [
        "0",
        "-1",
        "1e308",
        "1e9",
        "18446744073709551615",
        "18446744073709551616",
        "-0",
        "1.8e9",
        "1800000000.5",
        "\"1800000000\"",
        "null",
        "[]",
        "253402300800",
    ];
    for iat in bad {
        assert!(matches!(present(iat), "bad_proof" | "proof_time"), "{iat}");
    }
    assert_eq!(present("1800000000"), "ok");
}

#[test]
fn a57_arguments_at_the_ends() {
    let mut world = World::new();
    let token = minted(&claims());
    for (amount, expected) in [
        (i64::MIN, "ok"),
        (-1, "ok"),
        (0, "ok"),
        (500, "ok"),
        (501, "argument"),
        (i64::MAX, "argument"),
    ] {
        let outcome = code(&world.use_by(&holder(0), token.expose(), &refund(amount)));
        assert_eq!(outcome, expected, "{amount}");
    }
    let none = call("refund", "orders/prod/o-17", &[]);
    let bool = call("refund", "orders/prod/o-17", &[("amount", Value::Bool(true))]);
    for call in [none, bool] {
        assert_eq!(code(&world.use_by(&holder(0), token.expose(), &call)), "argument");
    }
}

#[test]
fn a57_clocks_at_the_ends() {
    let mut world = World::new();
    let token = minted(&claims());
    for (now, expected) in [
        (Timestamp::default(), "not_yet"),
        (Timestamp::from_ms(253_402_300_799_999).unwrap(), "unknown_key"),
    ] {
        world.set_time(now);
        assert_eq!(code(&world.use_by(&holder(0), token.expose(), &refund(5))), expected);
    }
    world.set_time(at(NOW));
    world.publish_until(Duration::MAX);
    world.advance(Duration::from_secs(u64::from(u32::MAX)));
    let outcome = code(&world.use_by(&holder(0), token.expose(), &refund(5)));
    assert!(matches!(outcome, "unknown_key" | "expired"), "{outcome}");
}

#[test]
fn a29_headers_and_claims_that_are_not_the_format_s() {
    let world = World::new();
    let token = minted(&claims());
    let (head, claims) = (header(), body(token.expose()));
    let present = |header: &str, claims: &str| {
        code(&world.present(token.expose(), &raw_proof(header, claims), &refund(5)))
    };
    let private = json!("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A");
    let weak = json!("AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let headers = [
        ("/typ", Some(json!("JWT"))),
        ("/typ", Some(json!("DPOP+JWT"))),
        ("/typ", None),
        ("/alg", Some(json!("none"))),
        ("/alg", Some(json!("None"))),
        ("/alg", Some(json!("HS256"))),
        ("/alg", Some(json!("ES256"))),
        ("/alg", None),
        ("/kid", Some(json!("../../key"))),
        ("/crit", Some(json!(["exp"]))),
        ("/jku", Some(json!("https://evil.test"))),
        ("/jwk", None),
        ("/jwk", Some(json!("x"))),
        ("/jwk/d", Some(private)),
        ("/jwk/kty", Some(json!("EC"))),
        ("/jwk/crv", Some(json!("X25519"))),
        ("/jwk/x", Some(weak)),
        ("/jwk/x", Some(json!(""))),
        ("/jwk/kid", Some(json!("a"))),
    ];
    for (path, value) in headers {
        let changed = with(&head, path, value.clone());
        assert_eq!(present(&changed, &claims.to_string()), "bad_proof", "{path} {value:?}");
    }
    for name in ["jti", "htm", "htu", "iat", "ath"] {
        for value in [None, Some(json!(null)), Some(json!(["x"])), Some(json!({})), Some(json!(""))]
        {
            let changed = with(&claims, &format!("/{name}"), value.clone());
            assert_eq!(present(&head.to_string(), &changed), "bad_proof", "{name} {value:?}");
        }
    }
    for (name, value) in [("act", json!(1)), ("act", json!("x")), ("nonce", json!(1))] {
        let changed = with(&claims, &format!("/{name}"), Some(value));
        assert_eq!(present(&head.to_string(), &changed), "bad_proof", "{name}");
    }
    let long = with(&claims, "/jti", Some(json!("x".repeat(129))));
    assert_eq!(present(&head.to_string(), &long), "bad_proof");
    let twice = claims.to_string().replacen('{', "{\"htm\":\"GET\",", 1);
    assert_eq!(present(&head.to_string(), &twice), "bad_proof");
    let twice = head.to_string().replacen('{', "{\"alg\":\"EdDSA\",", 1);
    assert_eq!(present(&twice, &claims.to_string()), "bad_proof");
    let big = with(&claims, "/more", Some(json!("x".repeat(2048))));
    assert_eq!(present(&head.to_string(), &big), "bad_proof");
    let more = with(&claims, "/more", Some(json!({ "any": 1.5 })));
    assert_eq!(present(&head.to_string(), &more), "ok", "other claims mean nothing");
}
