//! A demo that cannot fail shows nothing.

use axum::body::{Body, to_bytes};
use axum::middleware::map_response;
use futures_util::future::join_all;
use http::{Response, StatusCode};
use serde_json::Value as Json;

use super::*;

/// The service as a build has it that leaves out the checks behind one refusal: whatever would be
/// refused so is let through.
async fn without(reason: &'static str, answer: Response<Body>) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let said: Json = serde_json::from_slice(&body).unwrap_or_default();
    if said.get("error").is_some_and(|error| error == reason) {
        head.status = StatusCode::OK;
        return Response::from_parts(head, Body::from("{}"));
    }
    Response::from_parts(head, body.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_leaves_out_a_check_does_not_come_out() {
    let all = [
        "argument",
        "bad_proof",
        "out_of_scope",
        "caveat",
        "use_repeated",
        "spent",
        "revoked",
        "stale",
    ];
    let plays = async |reason: &'static str| {
        let hiding = move |answer: Response<Body>| without(reason, answer);
        let ended = play(Story::begin(None), |service| service.layer(map_response(hiding))).await;
        let why = ended.expect_err(reason).to_string();
        assert!(why.contains(&format!("`{reason}`")), "{reason}: {why}");
    };
    for two in all.chunks(2) {
        join_all(two.iter().map(|reason| plays(reason))).await;
    }
}
