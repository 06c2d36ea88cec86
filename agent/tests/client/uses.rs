//! Copies for others, and the headers of a use.

use dayfly_agent::errors::Error;
use dayfly_agent::held::Held;
use dayfly_agent::testkit::{Kit, ask};
use dayfly_agent::ticket::Ask;
use dayfly_agent::uses::Use;
use dayfly_verifier::caveat::Caveat;
use dayfly_verifier::holder::{Confirmation, HolderKey};
use dayfly_verifier::proof::DpopProof;
use dayfly_verifier::request::ConfirmBy;
use dayfly_verifier::verify::Call;
use dayfly_verifier::wire::Decoded;
use ed25519_dalek::SigningKey;

use crate::{RIGHT, secs};

#[tokio::test]
async fn a_copy_for_another_holder_names_its_key_and_takes_away() {
    let kit = Kit::new();
    let grant = kit.client().acquire(ask("refund orders/prod/**")).await.unwrap();
    let key = SigningKey::from_bytes(&[9; 32]);
    let other = HolderKey::from_slice(key.verifying_key().as_bytes()).unwrap();
    let below = Caveat::Below("orders/prod/o-17".parse().unwrap());
    let soon = Caveat::Before(grant.now().floor_to_second().plus(secs(10)));
    let copy = grant.delegate(&other, &[below.clone(), soon]).await.unwrap();
    assert_eq!(copy.holder().unwrap(), Confirmation::Key(other));
    assert_eq!(copy.expires_at().unwrap(), grant.now().floor_to_second().plus(secs(10)));
    // Who gets it reads it, narrows it further, and hands it on; who does not hold it cannot.
    let read = Held::read(copy.token.expose()).unwrap();
    let narrower = read.attenuate(std::slice::from_ref(&below)).unwrap();
    let content = Decoded::read(narrower.token.expose()).unwrap();
    assert_eq!(content.unverified().caveats().count(), 3);
    assert!(read.delegate(&key, &grant.ticket().holder_key().unwrap(), &[]).is_ok());
    let stranger = SigningKey::from_bytes(&[8; 32]);
    assert!(matches!(read.delegate(&stranger, &other, &[]), Err(Error::Invalid(_))));
    assert!(matches!(read.attenuate(&[]), Err(Error::Invalid(_))));
}

#[tokio::test]
async fn a_token_that_is_bound_to_the_identity_goes_without_a_proof() {
    let kit = Kit::new();
    let by_identity = Ask { confirmation: ConfirmBy::Identity, ..ask(RIGHT) };
    let grants = [
        kit.client().acquire(by_identity).await.unwrap(),
        kit.client().acquire(ask(RIGHT)).await.unwrap(),
    ];
    let call = Call {
        operation: "refund".parse().unwrap(),
        resource: "orders/prod/o-17".parse().unwrap(),
        arguments: Default::default(),
    };
    let this =
        Use::new(http::Method::POST, "https://x.test/y?z", call, kit.client().now()).unwrap();
    for (grant, scheme) in grants.iter().zip(["Bearer ", "DPoP "]) {
        let headers = grant.headers(&this).await.unwrap();
        assert!(headers["authorization"].to_str().unwrap().starts_with(scheme));
        assert!(headers["authorization"].is_sensitive());
        assert_eq!(headers.contains_key("dpop"), scheme == "DPoP ");
        assert_eq!(headers["dayfly-use"], this.id().to_string());
    }
    // Nobody makes a proof with another key.
    let held = grants[1].token().await.unwrap();
    assert!(this.headers(&held, grants[0].ticket().key(), kit.client().now()).is_err());
}

/// An answer of a gateway: over HTTP with a challenge, over gRPC with a reason.
fn answer(status: u16, headers: &[(&'static str, &str)]) -> http::Response<()> {
    let mut answer = http::Response::new(());
    *answer.status_mut() = status.try_into().unwrap();
    let headers = headers.iter().map(|(name, value)| {
        (http::HeaderName::from_static(name), value.parse::<http::HeaderValue>().unwrap())
    });
    answer.headers_mut().extend(headers);
    answer
}

fn reads(kit: &Kit) -> Use {
    let call = Call {
        operation: "read".parse().unwrap(),
        resource: "orders".parse().unwrap(),
        arguments: Default::default(),
    };
    Use::new(http::Method::GET, "https://x.test/y", call, kit.client().now()).unwrap()
}

#[tokio::test]
async fn a_use_is_sent_again_for_a_new_nonce_only() {
    let kit = Kit::new();
    let again = |this: &mut Use, status, error: &str, nonce: &str| {
        let challenge = format!("DPoP algs=\"EdDSA\", error=\"{error}\"");
        let headers = [("www-authenticate", challenge.as_str()), ("dpop-nonce", nonce)];
        let answer = answer(status, &headers);
        this.again(answer.status(), answer.headers())
    };
    let this = &mut reads(&kit);
    assert!(!again(this, 401, "invalid_token", "n0"), "what may have been begun is not sent again");
    assert!(!again(this, 200, "use_dpop_nonce", "n1"));
    assert!(!again(this, 503, "use_dpop_nonce", "n2"));
    assert!(again(this, 401, "use_dpop_nonce", "n3"));
    assert!(!again(this, 401, "use_dpop_nonce", "n3"), "the same again would go on for ever");
    assert!(again(this, 401, "use_dpop_nonce", "n4"));
    for (reason, expected) in [("nonce", true), ("replayed", false), ("revoked", false)] {
        let refused = [("dayfly-reason", reason), ("grpc-status", "16"), ("dpop-nonce", "n")];
        let refused = answer(200, &refused);
        let sent_again = reads(&kit).again(refused.status(), refused.headers());
        assert_eq!(sent_again, expected, "{reason}");
    }
}

/// The examples of RFC 9449, sections 9 and 8.2: asked for a nonce, and given the next one.
#[tokio::test]
async fn the_nonce_that_is_given_stands_in_the_next_proof() {
    let kit = Kit::new();
    let grant = kit.client().acquire(ask(RIGHT)).await.unwrap();
    let nonce = async |this: &Use| {
        let headers = grant.headers(this).await.unwrap();
        let proof = DpopProof::read(headers["dpop"].to_str().unwrap()).unwrap();
        proof.nonce().map(str::to_owned)
    };
    let mut this = reads(&kit);
    assert_eq!(nonce(&this).await, None);
    let challenge = "DPoP error=\"use_dpop_nonce\", \
                     error_description=\"Resource server requires nonce in DPoP proof\"";
    let first = "eyJ7S_zG.eyJH0-Z.HX4w-7v";
    let asked = answer(401, &[("www-authenticate", challenge), ("dpop-nonce", first)]);
    assert!(this.again(asked.status(), asked.headers()));
    assert_eq!(nonce(&this).await.as_deref(), Some(first));
    let second = "eyJ7S_zG.eyJbYu3.xRmMD-d";
    let done = answer(200, &[("cache-control", "no-store"), ("dpop-nonce", second)]);
    assert!(!this.again(done.status(), done.headers()), "it is done");
    assert_eq!(nonce(&reads(&kit).after(&this)).await.as_deref(), Some(second));
    assert_eq!(nonce(&reads(&kit)).await, None);
}
