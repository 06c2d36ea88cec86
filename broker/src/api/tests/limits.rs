//! What one caller can make the broker write, hold and read.

use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::Full;
use tonic::Code;
use tower_service::Service as _;

use super::*;
use crate::serve::routes;

const NEEDS_DBA: &str = "read orders/prod/o-17";
const SMALL: &str = "refund orders/prod/o-17";

#[tokio::test]
async fn a50_a_text_is_not_even_written_for_what_is_not_recorded() {
    let world = World::new().await;
    let agent = world.agent("agent/a", 1);
    for n in 0..8 {
        world.file(&agent, world.filing(&agent, n, NEEDS_DBA)).await.unwrap();
    }
    let more = world.file(&agent, world.filing(&agent, 8, NEEDS_DBA)).await.unwrap_err();
    assert_eq!(reason(&more), "LIMIT_REACHED");
    let elsewhere = v1::RequestAccessRequest {
        audience: "spiffe://shop.test/gateway/none".into(),
        ..world.filing(&agent, 9, NEEDS_DBA)
    };
    assert_eq!(reason(&world.file(&agent, elsewhere).await.unwrap_err()), "INVALID");
    // A repeat is answered from the record, and what it says this time is not kept either.
    let again = v1::RequestAccessRequest {
        justification: "in other words".into(),
        ..world.filing(&agent, 0, NEEDS_DBA)
    };
    world.file(&agent, again).await.unwrap();
    let old = world.filing(&agent, 10, NEEDS_DBA);
    world.forward(300_001);
    assert_eq!(reason(&world.file(&agent, old).await.unwrap_err()), "STALE_ID");
    assert_eq!(world.texts(), 8);
}

/// However far it came, what it leaves is both or neither.
#[tokio::test]
async fn a_call_that_is_cut_leaves_no_text_that_nothing_names() {
    let world = World::new().await;
    let agent = world.agent("agent/a", 1);
    let mut named = 0;
    for polls in 0..8 {
        let filing = world.filing(&agent, polls, NEEDS_DBA);
        let mut call = Box::pin(world.file(&agent, filing));
        for _ in 0..polls {
            if (&mut call).now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(call);
        // What is decided in turn comes after all that was on its way.
        let other = world.agent("agent/b", 2);
        let bare = v1::RequestAccessRequest {
            justification: String::new(),
            ..world.filing(&other, polls, SMALL)
        };
        let state = world.file(&other, bare).await.map(|_| world.broker.sequencer.state());
        named = state.unwrap().cases().filter(|case| case.justification.is_some()).count();
        assert_eq!(u32::try_from(named).unwrap(), world.texts(), "after {polls} polls");
    }
    assert!(named > 0);
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
