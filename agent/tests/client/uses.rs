//! Copies for others, and the headers of a use.

use dayfly_agent::errors::Error;
use dayfly_agent::held::Held;
use dayfly_agent::testkit::{Kit, ask};
use dayfly_agent::ticket::Ask;
use dayfly_agent::uses::Use;
use dayfly_verifier::caveat::Caveat;
use dayfly_verifier::holder::{Confirmation, HolderKey};
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

#[tokio::test]
async fn a_use_is_sent_again_for_a_new_nonce_only() {
    let call = Call {
        operation: "read".parse().unwrap(),
        resource: "orders".parse().unwrap(),
        arguments: Default::default(),
    };
    let now = Kit::new().client().now();
    let mut this = Use::new(http::Method::GET, "https://x.test/y", call, now).unwrap();
    let answer = |status: u16, error: &str, nonce: &str| {
        let mut answer = http::Response::new(());
        *answer.status_mut() = status.try_into().unwrap();
        let challenge = format!("DPoP algs=\"EdDSA\", error=\"{error}\"");
        answer.headers_mut().insert("www-authenticate", challenge.parse().unwrap());
        answer.headers_mut().insert("dpop-nonce", nonce.parse().unwrap());
        answer
    };
    let mut again = |status, error: &str, nonce: &str| {
        let answer = answer(status, error, nonce);
        this.again(answer.status(), answer.headers())
    };
    assert!(!again(401, "invalid_token", "n1"), "what may have been begun is not sent again");
    assert!(!again(200, "use_dpop_nonce", "n1"));
    assert!(!again(503, "use_dpop_nonce", "n1"));
    assert!(again(401, "use_dpop_nonce", "n1"));
    assert!(!again(401, "use_dpop_nonce", "n1"), "the same nonce again would go on for ever");
    assert!(again(401, "use_dpop_nonce", "n2"));
}
