//! What one caller can make the broker write, hold and read.

use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::Full;
use tonic::Code;
use tower_service::Service as _;

use super::*;
use crate::api::MAX_TEXT_WRITES;
use crate::serve::routes;

const NEEDS_DBA: &str = "read orders/prod/o-17";

#[tokio::test]
async fn a50_texts_that_are_being_written_are_bounded() {
    let world = World::new().await;
    let agent = world.agent("agent/a", 1);
    let room = world.broker.texts.clone();
    let all = u32::try_from(MAX_TEXT_WRITES).unwrap();
    let taken = room.clone().acquire_many_owned(all).await.unwrap();
    let busy = world.file(&agent, world.filing(&agent, 1, NEEDS_DBA)).await.unwrap_err();
    assert_eq!((busy.code(), reason(&busy).as_str()), (Code::ResourceExhausted, "BUSY"));
    // What brings no text needs no room for one.
    let bare = v1::RequestAccessRequest {
        justification: String::new(),
        ..world.filing(&agent, 2, NEEDS_DBA)
    };
    world.file(&agent, bare).await.unwrap();
    drop(taken);
    world.file(&agent, world.filing(&agent, 1, NEEDS_DBA)).await.unwrap();

    // A write goes on, and counts, when the call that wanted it is gone.
    assert!(world.broker.keep("a text".into()).now_or_never().is_none());
    assert_eq!(room.available_permits(), MAX_TEXT_WRITES - 1);
    drop(room.clone().acquire_many_owned(all).await.unwrap());
    assert_eq!(world.texts(), 2);
}

/// Were there a write, it would say that it is busy.
#[tokio::test]
async fn a50_a_text_is_not_even_written_for_what_would_not_be_recorded() {
    let world = World::new().await;
    let agent = world.agent("agent/a", 1);
    for n in 0..8 {
        world.file(&agent, world.filing(&agent, n, NEEDS_DBA)).await.unwrap();
    }
    let all = u32::try_from(MAX_TEXT_WRITES).unwrap();
    let _taken = world.broker.texts.acquire_many(all).await.unwrap();
    let more = world.file(&agent, world.filing(&agent, 8, NEEDS_DBA)).await.unwrap_err();
    assert_eq!(reason(&more), "LIMIT_REACHED");
    let elsewhere = v1::RequestAccessRequest {
        audience: "spiffe://shop.test/gateway/none".into(),
        ..world.filing(&agent, 9, NEEDS_DBA)
    };
    assert_eq!(reason(&world.file(&agent, elsewhere).await.unwrap_err()), "INVALID");
    let old = world.filing(&agent, 10, NEEDS_DBA);
    world.forward(300_001);
    assert_eq!(reason(&world.file(&agent, old).await.unwrap_err()), "STALE_ID");
}

/// A message that says it is longer than its service reads is refused before any of it is read.
#[tokio::test]
async fn a50_every_service_reads_messages_of_its_own_size_alone() {
    let world = World::new().await;
    let (_health, mut routes) = routes(&world.broker).unwrap();
    let kib = 1024;
    let bundle = (5 + 1) * 256 * kib;
    for (path, most) in [
        ("/dayfly.v1.IdentityService/Join", 16 * kib),
        ("/dayfly.v1.IdentityService/Renew", 16 * kib),
        ("/dayfly.v1.AccessService/RequestAccess", 256 * kib),
        ("/dayfly.v1.ApprovalService/Approve", 256 * kib),
        ("/dayfly.v1.GatewayService/Redeem", 256 * kib),
        ("/dayfly.v1.AuditService/Tail", 256 * kib),
        ("/dayfly.v1.OperatorService/ApplyBundle", bundle),
        ("/grpc.health.v1.Health/Check", 16 * kib),
    ] {
        for (length, too_long) in [(most, false), (most + 1, true)] {
            let frame = [&[0][..], &u32::try_from(length).unwrap().to_be_bytes()].concat();
            let body = tonic::body::Body::new(Full::new(Bytes::from(frame)));
            let request = http::Request::post(path).header("content-type", "application/grpc");
            let answer = routes.call(request.body(body).unwrap()).await.unwrap();
            let code = answer.headers().get("grpc-status");
            let code = code.map(|code| Code::from_bytes(code.as_bytes()));
            assert_eq!(code == Some(Code::OutOfRange), too_long, "{path} {length}: {code:?}");
        }
    }
}
