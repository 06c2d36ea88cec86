//! The layer around an axum service, called as a client would call it.

mod counts;
mod cuts;
mod proofs;

use std::convert::Infallible;
use std::future::Future as _;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body;
use axum::{Extension, Router, routing::any};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value as Json, json};
use tower::ServiceExt as _;

use super::{BadCall, Guard, Observed, Received};
use crate::claims::Claims;
use crate::proof::{DpopCall, make_dpop};
use crate::revocations::{Kind, Target};
use crate::verify::tests::world::*;
use crate::verify::{Call, Peer, Verified};

fn meaning(request: &Received<'_>) -> Result<Call, BadCall> {
    let ["orders", order, operation] = request.segments()?[..] else {
        return Err(BadCall::Unknown);
    };
    Ok(Call {
        operation: operation.parse()?,
        resource: format!("orders/prod/{order}").parse()?,
        arguments: request.arguments()?,
    })
}

/// Says what it was told to do, or that nobody vouched for it.
async fn handler(
    verified: Option<Extension<Verified>>,
    observed: Option<Extension<Observed>>,
) -> String {
    match (verified, observed) {
        (Some(Extension(verified)), None) => format!("{:?}", verified.call().arguments),
        (None, Some(Extension(observed))) => format!("observed {:?}", observed.reject),
        _ => "unguarded".into(),
    }
}

fn guard(world: &World) -> Guard {
    Guard::new(Arc::clone(&world.verifier), meaning)
}

fn app(guard: Guard) -> Router {
    Router::new().route("/orders/{order}/{operation}", any(handler)).layer(guard)
}

struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Json {
        serde_json::from_str(&self.text).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

async fn send(app: Router, request: Request<Body>) -> Answer {
    let response = app.oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    Answer { status: head.status, headers: head.headers, text }
}

/// A refund of 5 with a good token and a good proof.
fn good(world: &mut World) -> Request<Body> {
    let token = minted(&claims());
    let proof = world.proof(&holder(0), token.expose(), &refund(5));
    request(token.expose(), &proof, r#"{"amount":5}"#)
}

fn request(token: &str, proof: &str, body: &str) -> Request<Body> {
    Request::post(PATH)
        .header("host", "evil.test")
        .header("x-forwarded-host", "evil.test")
        .header("authorization", format!("DPoP {token}"))
        .header("dpop", proof)
        .body(Body::from(body.to_owned()))
        .unwrap()
}

#[tokio::test]
async fn lets_through_what_is_verified_with_its_arguments() {
    let mut world = World::new();
    let request = good(&mut world);
    let answer = send(app(guard(&world)), request).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.text.contains("amount") && answer.text.contains("Int(5)"), "{}", answer.text);
}

#[tokio::test]
async fn tells_a_stranger_what_to_request() {
    let world = World::new();
    let request = Request::post(PATH).body(Body::from(r#"{"amount":5}"#)).unwrap();
    let answer = send(app(guard(&world)), request).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer.header("www-authenticate"), "DPoP algs=\"EdDSA\"");
    assert_eq!(answer.json()["next_action"], "request");
    let wanted = json!({
        "audience": GATEWAY,
        "operation": "refund",
        "resource": "orders/prod/o-17",
        "arguments": { "amount": 5 },
    });
    assert_eq!(answer.json()["request"], wanted);
}

#[tokio::test]
async fn a_right_that_is_too_narrow_is_403_with_what_to_request() {
    let mut world = World::new();
    let token = minted(&claims());
    let proof = world.proof(&holder(0), token.expose(), &refund(501));
    let request = request(token.expose(), &proof, r#"{"amount":501}"#);
    let answer = send(app(guard(&world)), request).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.header("www-authenticate").contains("error=\"insufficient_scope\""));
    assert_eq!(answer.json()["error"], "argument");
    assert_eq!(answer.json()["request"]["arguments"], json!({ "amount": 501 }));
}

#[tokio::test]
async fn repeated_headers_refuse() {
    for name in ["authorization", "dpop", "dayfly-use"] {
        let mut world = World::new();
        let mut request = good(&mut world);
        request.headers_mut().insert("dayfly-use", "one".parse().unwrap());
        let value = request.headers().get(name).unwrap().clone();
        request.headers_mut().append(name, value);
        let answer = send(app(guard(&world)), request).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{name}");
        assert_eq!(answer.json()["error"], "ambiguous", "{name}");
    }
}

#[tokio::test]
async fn repeated_arguments_refuse() {
    let mut world = World::new();
    for (uri, body) in [
        (PATH, r#"{"amount":5,"amount":900}"#),
        (PATH, r#"{"amount":900,"\u0061mount":5}"#),
        ("/orders/o-17/refund?note=a&note=b", r#"{"amount":5}"#),
        ("/orders/o-17/refund?note=a&n%6fte=b", r#"{"amount":5}"#),
        ("/orders/o-17/refund?amount=900", r#"{"amount":5}"#),
        (PATH, r#"[5]"#),
        (PATH, r#"{"amount":5.0}"#),
        (PATH, r#"{"amount":[5]}"#),
        (PATH, r#"{"amount":9223372036854775808}"#),
        (PATH, r#"{"Amount":5}"#),
        ("/orders/o%2d17/refund", r#"{"amount":5}"#),
        ("/orders/../refund", r#"{"amount":5}"#),
    ] {
        let (mut head, _) = good(&mut world).into_parts();
        head.uri = uri.parse().unwrap();
        let request = Request::from_parts(head, Body::from(body));
        let answer = send(app(guard(&world)), request).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{uri} {body}");
    }
}

#[tokio::test]
async fn what_has_no_meaning_or_no_end_is_refused() {
    let mut world = World::new();
    let (mut head, body) = good(&mut world).into_parts();
    head.uri = "/health".parse().unwrap();
    let answer = send(app(guard(&world)), Request::from_parts(head, body)).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let (head, _) = good(&mut world).into_parts();
    let long = Request::from_parts(head, Body::from(vec![b' '; 101]));
    let answer = send(app(guard(&world).max_body_bytes(100)), long).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn bearer_counts_only_on_a_connection_that_is_bound() {
    let world = World::new();
    let token = minted(&claims());
    let request = |peer: Option<u8>| {
        let mut request = Request::post(PATH)
            .header("authorization", format!("Bearer {}", token.expose()))
            .header("x-forwarded-client-cert", format!("URI={AGENT}"))
            .body(Body::from(r#"{"amount":5}"#))
            .unwrap();
        let key = peer.map(|n| public(&holder(n)));
        let peer = key.map(|key| Peer { id: AGENT.parse().unwrap(), key: Some(key) });
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        request
    };
    assert_eq!(send(app(guard(&world)), request(Some(0))).await.status, StatusCode::OK);
    for (peer, error) in [(Some(1), "other_peer"), (None, "no_proof")] {
        let answer = send(app(guard(&world)), request(peer)).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.json()["error"], error);
    }
}

#[tokio::test]
async fn a_gateway_that_just_started_gives_out_a_nonce() {
    let mut world = World::just_started(config(GATEWAY), at(NOW), Duration::from_secs(9));
    world.publish();
    let first = good(&mut world);
    let answer = send(app(guard(&world)), first).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.header("www-authenticate").contains("error=\"use_dpop_nonce\""));
    let token = minted(&claims());
    let act = act(GATEWAY, &refund(5));
    let nonce = Some(answer.header("dpop-nonce"));
    let http = DpopCall { act: Some(&act), nonce, ..usual_http() };
    let proof = make_dpop(&holder(0), token.expose(), &http, at(NOW), [50; 16]);
    let request = request(token.expose(), &proof, r#"{"amount":5}"#);
    let answer = send(app(guard(&world)), request).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_ne!(answer.header("dpop-nonce"), "", "the next proof needs one too");
}

#[tokio::test]
async fn a_gateway_that_cannot_tell_says_so() {
    let mut world = World::new();
    world.advance(Duration::from_secs(6));
    let request = good(&mut world);
    let answer = send(app(guard(&world)), request).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["error"], "stale");
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(answer.header("www-authenticate"), "");
}

#[tokio::test]
async fn a_counted_right_without_a_broker_is_refused() {
    let mut world = World::new();
    let token = minted(&Claims { counted: true, ..claims() });
    let proof = world.proof(&holder(0), token.expose(), &refund(5));
    let request = request(token.expose(), &proof, r#"{"amount":5}"#);
    let answer = send(app(guard(&world)), request).await;
    assert_eq!(answer.json()["error"], "unanswered");
}

#[tokio::test]
async fn observing_lets_pass_and_says_why_it_would_not_have() {
    let world = World::new();
    let request = Request::post(PATH).body(Body::from(r#"{"amount":5}"#)).unwrap();
    let answer = send(app(guard(&world).observing()), request).await;
    assert_eq!((answer.status, &*answer.text), (StatusCode::OK, "observed Some(NoToken)"));
}

#[tokio::test]
async fn grpc_is_told_in_its_own_words() {
    let world = World::new();
    let request = Request::post(PATH)
        .header("content-type", "application/grpc+proto")
        .body(Body::empty())
        .unwrap();
    let answer = send(app(guard(&world)), request).await;
    assert_eq!((answer.status, &*answer.text), (StatusCode::OK, ""));
    assert_eq!(answer.header("grpc-status"), "16");
    assert_eq!(answer.header("dayfly-reason"), "no_token");
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[test]
fn a_call_of_grpc_has_one_message_as_it_was_sent() {
    let (head, ()) = Request::post("/orders.v1.Orders/Refund").body(()).unwrap().into_parts();
    let message = |body: &[u8]| Received::new(&head, body).message().map(<[u8]>::to_vec);
    assert_eq!(message(b"\0\0\0\0\x03abc"), Ok(b"abc".to_vec()));
    assert_eq!(message(b"\0\0\0\0\0"), Ok(Vec::new()));
    for (what, body) in [
        ("none", &b""[..]),
        ("compressed", b"\x01\0\0\0\x03abc"),
        ("short of its length", b"\0\0\0\0\x04abc"),
        ("more than its length", b"\0\0\0\0\x02abc"),
        ("two", b"\0\0\0\0\x01a\0\0\0\0\x01b"),
        ("no whole frame", b"\0\0\0\0"),
        ("longer than there is", b"\0\xff\xff\xff\xffabc"),
    ] {
        let refused = message(body).unwrap_err();
        assert!(matches!(refused, BadCall::Invalid(_)), "{what}: {refused}");
    }
}

/// A body that sends one frame and then waits for ever.
struct Endless(bool);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(b"row")))))
    }
}

/// A body that always has one more frame.
struct Flood;

impl http_body::Body for Flood {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(b"row")))))
    }
}

#[tokio::test]
async fn an_answer_that_never_pauses_is_cut_too() {
    let mut world = World::new();
    let request = good(&mut world);
    let stream = |_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Flood)) };
    let service = tower_layer::Layer::layer(&guard(&world), tower::service_fn(stream));
    let mut body = service.oneshot(request).await.unwrap().into_body();
    assert!(body.frame().await.unwrap().is_ok());
    world.tell(Kind::Revoked(Target::Token(claims().token)));
    let cut = body.frame().await.unwrap().unwrap_err();
    assert_eq!(cut.to_string(), "the token was taken back");
    assert!(body.frame().await.is_none(), "what was cut sends nothing more");
}

#[tokio::test]
async fn observing_cuts_nothing() {
    let mut world = World::new();
    let request = good(&mut world);
    let stream = |_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Flood)) };
    let guard = guard(&world).observing();
    let service = tower_layer::Layer::layer(&guard, tower::service_fn(stream));
    let mut body = service.oneshot(request).await.unwrap().into_body();
    world.tell(Kind::Revoked(Target::Token(claims().token)));
    assert!(body.frame().await.unwrap().is_ok());
}

/// Says that a handler is no longer there.
struct Runs(Arc<AtomicBool>);

impl Drop for Runs {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What becomes of a handler that waits for ever, once `change` has happened.
async fn cut_by(change: impl FnOnce(&mut World)) -> Response<impl http_body::Body<Data = Bytes>> {
    let mut world = World::new();
    let request = good(&mut world);
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&dropped);
    let waits = move |_: Request<Body>| {
        let runs = Runs(Arc::clone(&flag));
        async move {
            let _runs = runs;
            std::future::pending::<Result<Response<Body>, Infallible>>().await
        }
    };
    let service = tower_layer::Layer::layer(&guard(&world), tower::service_fn(waits));
    let mut answer = pin!(service.oneshot(request));
    let mut context = Context::from_waker(Waker::noop());
    assert!(answer.as_mut().poll(&mut context).is_pending());
    assert!(!dropped.load(Ordering::SeqCst), "it runs");
    change(&mut world);
    let Poll::Ready(response) = answer.as_mut().poll(&mut context) else {
        panic!("the handler runs on");
    };
    assert!(dropped.load(Ordering::SeqCst), "it runs no more");
    response.unwrap()
}

#[tokio::test]
async fn a_handler_that_runs_on_is_dropped_when_its_use_must_end() {
    let token = Target::Token(claims().token);
    let response = cut_by(|world| world.tell(Kind::Revoked(token))).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let response = cut_by(|world| world.advance(Duration::from_secs(6))).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "stale");
}
