//! One stream: who does not read is cut, and who says what is not true is cut.

use bytes::Bytes;
use dayfly_proto::v1::follow_request::Message as Up;
use dayfly_proto::v1::follow_response::Message as Down;
use dayfly_proto::v1::{Ack, FollowRequest};
use dayfly_verifier::feed::Head;
use dayfly_verifier::time::Clock as _;
use futures_util::stream::{StreamExt as _, iter, pending};
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::world::{World, until};
use crate::follow::instances::Terms;
use crate::follow::stream::{Asked, follow};
use crate::shutdown::Shutdown;

fn terms() -> Terms {
    Terms {
        gateway: "spiffe://t.test/gateway/orders".parse().unwrap(),
        instance: "one".parse().unwrap(),
        min_staleness: Duration::from_secs(5),
        max_staleness: Duration::from_secs(5),
        best_effort: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_is_cut_and_nothing_is_skipped() {
    let mut world = World::new().await;
    let hub = world.hub.clone();
    let mut stream =
        follow(hub.clone(), Shutdown::new(), terms(), Asked::default(), pending()).await.unwrap();
    for n in 0..300 {
        let seq = world.revoke(n).await;
        until("it is told", || hub.tip().head.seq >= seq).await;
    }
    let first = stream.next().await.unwrap().unwrap();
    assert!(matches!(first.message, Some(Down::Snapshot(_))));
    let mut cut = None;
    while let Some(next) = stream.next().await {
        cut = next.err();
        assert!(cut.is_some(), "after a gap there is nothing but the end");
    }
    let cut = cut.unwrap();
    assert_eq!(cut.code(), Code::Aborted);
    assert_eq!(cut.get_error_details().error_info().unwrap().reason, "TOO_SLOW");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_of_what_was_never_sent_ends_the_stream() {
    let world = World::new().await;
    let challenge = Bytes::new();
    let ack = FollowRequest {
        message: Some(Up::Ack(Ack { seq: u64::MAX, challenge, trust_version: 1 })),
    };
    let requests = iter([Ok::<_, Status>(ack)]).chain(pending());
    let hub = world.hub.clone();
    let stream = follow(hub.clone(), Shutdown::new(), terms(), Asked::default(), requests).await;
    assert!(stream.unwrap().map(|next| next.unwrap()).count().await < 10);
    let standing = hub.instances.standings(hub.uptime()).remove(0);
    assert!(!standing.connected && standing.enforced.0 == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_is_told_what_came_since() {
    let mut world = World::new().await;
    let seq = world.revoke(1).await;
    let hub = world.hub.clone();
    until("it is told", || hub.tip().head.seq >= seq).await;
    let head = Head::from_bytes(&hub.tip().signed.head).unwrap();
    let seq = world.revoke(2).await;
    until("it is told", || hub.tip().head.seq >= seq).await;
    let tip = hub.tip();
    let Some(Down::Delta(delta)) = hub.catch_up(&tip, Some(&head)).remove(0).message else {
        panic!()
    };
    assert_eq!(delta.entries.len(), 1);
    let other = Head { epoch: dayfly_verifier::id::Epoch::new([1; 16]), ..head };
    let later = Head { seq: tip.head.seq.next(), ..head };
    for stranger in [None, Some(&other), Some(&later)] {
        let message = hub.catch_up(&tip, stranger).remove(0).message;
        let Some(Down::Snapshot(snapshot)) = message else { panic!() };
        assert_eq!(snapshot.entries.len(), 2);
    }
}

/// One gateway with a short bound makes heartbeats frequent; a disk that takes longer than the
/// pause between them is still fast enough for all others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_makes_heartbeats_late_and_does_not_end_them() {
    let world = World::new().await;
    let hub = world.hub.clone();
    let impatient = Terms { min_staleness: Duration::from_secs(1), ..terms() };
    let _follows = hub.instances.join(impatient, hub.uptime()).unwrap();
    world.journal.slow(Duration::from_millis(400));
    let later = hub.rounds().saturating_add(3);
    until("rounds begin", || hub.rounds() >= later).await;
    let since = world.clock.now();
    until("its head is confirmed", || hub.confirmed_at() > since).await;
}
