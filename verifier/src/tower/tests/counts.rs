//! What the layer counts of its decisions.

use super::*;
use crate::id::InstanceId;
use crate::uses::{About, Batch, Line, Seen, Uses};

fn uses(world: &World) -> Arc<Uses> {
    Arc::new(Uses::new(world.clock.clone()))
}

fn counted(uses: &Uses) -> Vec<(Line, u64)> {
    let instance: InstanceId = "one".parse().unwrap();
    uses.seal(&instance, 1).map(|Batch { counts, .. }| counts).unwrap_or_default()
}

fn line(operation: Option<&str>, seen: Seen) -> Line {
    let about = About { grant: claims().grant, token: claims().token };
    Line { about: Some(about), operation: operation.map(|name| name.parse().unwrap()), seen }
}

fn nobody(seen: Seen) -> Line {
    Line { about: None, operation: None, seen }
}

fn refused(reason: &str) -> Seen {
    Seen::Refused(reason.parse().unwrap())
}

#[tokio::test]
async fn each_decision_is_counted_under_the_token_that_good_signatures_name() {
    let mut world = World::new();
    let uses = uses(&world);
    let app = app(guard(&world).telling(uses.clone()));
    for amount in [5, 5, 501] {
        let token = minted(&claims());
        let proof = world.proof(&holder(0), token.expose(), &refund(amount));
        let body = format!("{{\"amount\":{amount}}}");
        send(app.clone(), request(token.expose(), &proof, &body)).await;
    }
    world.tell(Kind::Revoked(Target::Token(claims().token)));
    send(app.clone(), good(&mut world)).await;
    let refund = Some("refund");
    let expected = [
        (line(refund, Seen::Allowed), 2),
        (line(refund, refused("argument")), 1),
        (line(refund, refused("revoked")), 1),
    ];
    assert_eq!(counted(&uses), expected);
}

#[tokio::test]
async fn whoever_has_no_good_token_is_counted_without_names() {
    let mut world = World::new();
    let uses = uses(&world);
    let app = app(guard(&world).telling(uses.clone()));
    let forged = crate::wire::mint(&claims(), &record(), &signer(true)).unwrap();
    let other = Claims { audience: "spiffe://shop.test/gateway/mail".parse().unwrap(), ..claims() };
    let other = minted(&other);
    let epoch = crate::id::Epoch::new([9; 16]);
    let past = crate::claims::Record { epoch, ..record() };
    let past = crate::wire::mint(&claims(), &past, &signer(false)).unwrap();
    for token in ["nonsense", forged.expose(), other.expose(), past.expose()] {
        let proof = world.proof(&holder(0), token, &refund(5));
        send(app.clone(), request(token, &proof, r#"{"amount":5}"#)).await;
    }
    send(app.clone(), Request::post(PATH).body(Body::from(r#"{"amount":5}"#)).unwrap()).await;
    send(app.clone(), Request::post("/orders/o-17").body(Body::empty()).unwrap()).await;
    // An operation that a good token does not have is the caller's invention.
    let token = minted(&claims());
    let invented = Request::post("/orders/o-17/made-up")
        .header("authorization", format!("DPoP {}", token.expose()));
    send(app, invented.body(Body::empty()).unwrap()).await;
    let mut counts = counted(&uses);
    let named: Vec<_> = counts.extract_if(.., |(line, _)| line.about.is_some()).collect();
    assert_eq!(named, [(line(None, refused("no_proof")), 1)]);
    let reasons =
        ["bad_signature", "malformed", "no_token", "other_audience", "other_epoch", "unknown_call"];
    assert_eq!(counts, reasons.map(|reason| (nobody(refused(reason)), 1)));
}

#[tokio::test]
async fn what_only_observing_let_pass_is_marked() {
    let world = World::new();
    let uses = uses(&world);
    let app = app(guard(&world).observing().telling(uses.clone()));
    let request = Request::post(PATH).body(Body::from(r#"{"amount":5}"#)).unwrap();
    assert_eq!(send(app, request).await.status, StatusCode::OK);
    let let_pass = Seen::LetPass("no_token".parse().unwrap());
    assert_eq!(counted(&uses), [(nobody(let_pass), 1)]);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_told_as_refused_where_others_are_let_pass() {
    let world = World::new();
    let uses = uses(&world);
    let guard = guard(&world).observing().max_body_bytes(100).telling(uses.clone());
    let long = Request::post(PATH).body(Body::from(vec![b' '; 101])).unwrap();
    assert_eq!(send(app(guard), long).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(counted(&uses), [(nobody(refused("body")), 1)]);
}

#[tokio::test]
async fn a_use_that_is_cut_is_counted_once_more_as_such() {
    let mut world = World::new();
    let uses = uses(&world);
    let request = good(&mut world);
    let stream = |_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Flood)) };
    let guard = guard(&world).telling(uses.clone());
    let service = tower_layer::Layer::layer(&guard, tower::service_fn(stream));
    let mut body = service.oneshot(request).await.unwrap().into_body();
    assert!(body.frame().await.unwrap().is_ok());
    world.tell(Kind::Revoked(Target::Token(claims().token)));
    assert!(body.frame().await.unwrap().is_err() && body.frame().await.is_none());
    let refund = Some("refund");
    let cut = Seen::Cut("revoked".parse().unwrap());
    assert_eq!(counted(&uses), [(line(refund, Seen::Allowed), 1), (line(refund, cut), 1)]);
}

/// Of what a stranger may make a gateway do, checking signatures costs the most.
#[tokio::test]
async fn a48_a_refused_token_is_paid_for_once_though_its_use_is_told() {
    let mut world = World::new();
    let app = app(guard(&world).telling(uses(&world)));
    let token = minted(&claims());
    let other = Claims { audience: "spiffe://shop.test/gateway/mail".parse().unwrap(), ..claims() };
    let (other, over) = (minted(&other), minted(&Claims { expires_at: at(NOW), ..claims() }));
    let by_thief = world.proof(&holder(1), token.expose(), &refund(5));
    for (token, proof) in [
        (token.expose(), by_thief.as_str()),
        (token.expose(), "nonsense"),
        (other.expose(), "nonsense"),
        (over.expose(), "nonsense"),
    ] {
        crate::verify::CHECKED.set(0);
        let answer = send(app.clone(), request(token, proof, r#"{"amount":5}"#)).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(crate::verify::CHECKED.get(), 1, "{}", answer.text);
    }
    // Neither is what a revocation by its bare ids refuses.
    world.tell(Kind::Revoked(Target::Token(claims().token)));
    crate::verify::CHECKED.set(0);
    send(app, request(token.expose(), "nonsense", r#"{"amount":5}"#)).await;
    assert!(crate::verify::CHECKED.get() <= 1);
}
