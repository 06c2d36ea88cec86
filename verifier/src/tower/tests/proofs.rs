//! Proofs by DPoP as they come over HTTP, and what a caller is told to do about them.

use super::*;
use crate::replay::ReplayLimits;
use crate::time::Clock as _;
use crate::verify::Config;

/// The usual refund of 5, shown with this proof.
async fn shown(world: &World, token: &str, proof: &str) -> Answer {
    send(app(guard(world)), request(token, proof, r#"{"amount":5}"#)).await
}

/// A proof that says this for the refund of 5.
fn proof(world: &mut World, token: &str, call: &DpopCall<'_>) -> String {
    make_dpop(&holder(0), token, call, world.clock.now(), world.jti())
}

#[tokio::test]
async fn the_url_is_the_configured_one_whatever_the_headers_say() {
    let mut world = World::new();
    let token = minted(&claims());
    for (url, error) in [
        ("https://orders.shop.test/orders/o-17/refund", None),
        ("https://evil.test/orders/o-17/refund", Some("bad_proof")),
        ("http://evil.test/orders/o-17/refund", Some("bad_proof")),
    ] {
        let proof = proof(&mut world, token.expose(), &DpopCall { url, ..usual_http() });
        let (mut head, body) = request(token.expose(), &proof, r#"{"amount":5}"#).into_parts();
        for (name, value) in [
            ("forwarded", "host=evil.test;proto=https"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-prefix", "/orders"),
            ("x-original-url", "/orders/o-17/refund"),
        ] {
            head.headers.insert(name, value.parse().unwrap());
        }
        // As a client of a proxy would write it (RFC 9112, section 3.2.2).
        head.uri = format!("https://evil.test{PATH}").parse().unwrap();
        let answer = send(app(guard(&world)), Request::from_parts(head, body)).await;
        let told = (!answer.status.is_success()).then(|| answer.json()["error"].clone());
        assert_eq!(told, error.map(Json::from), "{url}");
    }
}

#[tokio::test]
async fn a_token_has_one_text() {
    let world = World::new();
    let token = minted(&claims());
    let text = token.expose();
    let standard = text.replace('-', "+").replace('_', "/");
    assert_ne!(standard, text, "the token has characters in which the alphabets differ");
    // The unused bits of the last character: the same bytes in another spelling.
    let (most, last) = text.split_at(text.len() - 1);
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = alphabet.find(last).unwrap();
    let other = format!("{most}{}", &alphabet[place ^ 1..][..1]);
    for spelling in [format!("{text}="), format!("{text}=="), standard, other, format!("{text} ")] {
        let http = DpopCall { act: None, ..usual_http() };
        let proof = make_dpop(&holder(0), &spelling, &http, at(NOW), [9; 16]);
        let answer = shown(&world, &spelling, &proof).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{spelling}");
        let error = answer.json()["error"].clone();
        assert!(error == "malformed" || error == "bad_signature", "{error} {spelling}");
        assert!(answer.header("www-authenticate").contains("error=\"invalid_token\""));
    }
}

#[tokio::test]
async fn the_digest_of_the_call_is_demanded_of_counted_rights_and_behind_a_proxy() {
    let counted = Claims { counted: true, ..claims() };
    let online = Claims { online: true, ..claims() };
    let proxied = Config { behind_proxy: true, ..config(GATEWAY) };
    for (config, claims, error) in [
        (config(GATEWAY), counted, "unanswered"),
        (config(GATEWAY), online, "unanswered"),
        (proxied, claims(), ""),
    ] {
        let mut world = World::with(config);
        let token = minted(&claims);
        let bare = proof(&mut world, token.expose(), &usual_http());
        let refused = shown(&world, token.expose(), &bare).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
        assert!(refused.text.contains("must name what is done"), "{}", refused.text);
        assert!(refused.header("www-authenticate").contains("error=\"invalid_dpop_proof\""));
        let whole = world.proof(&holder(0), token.expose(), &refund(5));
        let passed = shown(&world, token.expose(), &whole).await;
        let told = (!passed.status.is_success()).then(|| passed.json()["error"].clone());
        assert_eq!(told, (!error.is_empty()).then(|| error.into()));
    }
}

/// RFC 9449, section 9: an error, a scheme and a nonce, and from then on the nonce of each answer.
#[tokio::test]
async fn nonces_are_asked_for_given_and_forgotten_as_the_rfc_says() {
    let mut world = World::just_started(config(GATEWAY), at(NOW), Duration::from_secs(9));
    world.publish();
    let token = minted(&claims());
    let with = |world: &mut World, nonce: Option<&str>| {
        let act = act(GATEWAY, &refund(5));
        proof(world, token.expose(), &DpopCall { act: Some(&act), nonce, ..usual_http() })
    };
    let stranger = crate::proof::Nonces::new([1; 32]).give(world.clock.uptime()).to_string();
    for nonce in [None, Some(""), Some("eyJ7S_zG.eyJH0-Z.HX4w-7v"), Some(stranger.as_str())] {
        let proof = with(&mut world, nonce);
        let asked = shown(&world, token.expose(), &proof).await;
        assert_eq!(asked.status, StatusCode::UNAUTHORIZED);
        assert_eq!(asked.json()["error"], "nonce");
        assert_eq!(asked.json()["next_action"], "retry");
        let challenge = asked.header("www-authenticate");
        assert!(challenge.starts_with("DPoP ") && challenge.contains("error=\"use_dpop_nonce\""));
        assert_eq!(asked.headers.get_all("dpop-nonce").iter().count(), 1);
        assert_eq!(asked.header("cache-control"), "no-store");
    }
    let mut nonce = world.verifier.nonce().unwrap().to_string();
    for seconds in [30, 30] {
        world.advance(Duration::from_secs(seconds));
        world.publish();
        let proof = with(&mut world, Some(&nonce));
        let passed = shown(&world, token.expose(), &proof).await;
        assert_eq!(passed.status, StatusCode::OK);
        let renewed = passed.header("dpop-nonce").to_owned();
        assert_ne!(std::mem::replace(&mut nonce, renewed), "");
    }
    // What could have been seen by an earlier process is too old by now.
    world.advance(Duration::from_secs(2));
    world.publish();
    let proof = with(&mut world, None);
    let passed = shown(&world, token.expose(), &proof).await;
    assert_eq!((passed.status, passed.header("dpop-nonce")), (StatusCode::OK, ""));
}

#[tokio::test]
async fn a_holder_who_fills_the_memory_is_told_to_wait_and_keeps_nobody_else_out() {
    let replay = ReplayLimits { per_holder: 2, total: 6400 };
    let mut world = World::with(Config { replay, ..config(GATEWAY) });
    for status in [200, 200, 503] {
        let answer = send(app(guard(&world)), good(&mut world)).await;
        assert_eq!(answer.status.as_u16(), status);
        if status == 503 {
            assert_eq!(answer.json()["error"], "crowded");
            assert_eq!(answer.header("retry-after"), "1");
            assert_eq!(answer.header("www-authenticate"), "", "no other credential would help");
        }
    }
    let key = crate::holder::Confirmation::Key(public(&holder(1)));
    let token = minted(&Claims { holder: key, ..claims() });
    let proof = world.proof(&holder(1), token.expose(), &refund(5));
    assert_eq!(shown(&world, token.expose(), &proof).await.status, StatusCode::OK);
    // What is remembered is forgotten once no clock would let it pass.
    world.advance(Duration::from_secs(62));
    world.publish();
    let token = minted(&Claims { expires_at: at(NOW + 600), ..claims() });
    let proof = world.proof(&holder(0), token.expose(), &refund(5));
    assert_eq!(shown(&world, token.expose(), &proof).await.status, StatusCode::OK);
}
