//! What a gateway has seen, a broker's log must have; and a broker that keeps nothing fresh is
//! left.

use dayfly_verifier::feed::SignedHead;
use dayfly_verifier::feed::Store;
use futures_util::stream::{StreamExt as _, pending};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::world::{World, until};
use crate::follow::instances::Terms;
use crate::follow::stream::{Asked, follow};
use crate::shutdown::Shutdown;

/// What subscribing to `world` gives, for a gateway that has seen `last`.
async fn subscribed(world: &World, last: SignedHead) -> Result<(), Status> {
    let terms = Terms {
        gateway: "spiffe://t.test/gateway/orders".parse().unwrap(),
        instance: "raw".parse().unwrap(),
        min_staleness: Duration::from_secs(5),
        max_staleness: Duration::from_secs(5),
        best_effort: false,
    };
    let asked = Asked { last: Some(last), snapshot: true, ..Asked::default() };
    let stream = follow(world.hub.clone(), Shutdown::new(), terms, asked, pending()).await;
    stream?.next().await.unwrap().map(|_| ())
}

fn tip(world: &World) -> SignedHead {
    let signed = world.hub.tip().signed.clone();
    SignedHead { head: signed.head.to_vec(), signature: signed.signature[..].try_into().unwrap() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a22_a_broker_with_an_older_log_tells_nothing_to_who_has_seen_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new().await;
    world.revoke(0).await;
    let mut restored = world.restored().await;
    let seq = world.revoke(1).await;
    let gateway = world.gateway_of("one", &[world.address], Some(dir.path()));
    until("it knows", || gateway.is_fresh() && gateway.knows() == 2).await;
    let store = Store::open(dir.path()).unwrap();
    let seen = || store.load().unwrap().and_then(|mark| mark.end.map(|end| end.seq));
    until("it is kept", || seen() == Some(seq)).await;
    drop(gateway);
    until("it is told", || world.hub.tip().head.seq >= seq).await;
    let last = tip(&world);

    let denied = restored.gateway_of("two", &[restored.address], Some(dir.path()));
    let lost = subscribed(&restored, last.clone()).await.unwrap_err();
    assert_eq!(lost.code(), Code::DataLoss);
    assert_eq!(lost.get_error_details().error_info().unwrap().reason, "LOST");
    let mut grown = seq;
    for n in 10..15 {
        grown = restored.revoke(n).await;
    }
    until("it has grown", || restored.hub.tip().head.seq >= grown && grown > seq).await;
    let lost = subscribed(&restored, last.clone()).await.unwrap_err();
    assert_eq!(lost.code(), Code::DataLoss, "another past stays another");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!denied.is_fresh() && denied.knows() == 0);
    drop(denied);
    assert_eq!(seen(), Some(seq));

    subscribed(&world, last).await.unwrap();
    let healed = world.gateway_of("three", &[world.address], Some(dir.path()));
    until("the whole log heals it", || healed.is_fresh() && healed.knows() == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_seen_more_than_the_tip_is_told_once_it_has_caught_up() {
    let mut world = World::new().await;
    let follows = world.beside().await;
    let seq = world.revoke(1).await;
    until("it is told", || world.hub.tip().head.seq >= seq).await;
    subscribed(&follows, tip(&world)).await.unwrap();
    assert!(follows.hub.tip().head.seq >= seq);
    let mut forged = tip(&world);
    forged.signature[0] ^= 1;
    subscribed(&follows.restored().await, forged).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_keeps_nothing_fresh_is_left_for_the_next() {
    let mut world = World::new().await;
    world.revoke(1).await;
    let useless = world.restored().await;
    useless.deaf.store(true, Ordering::SeqCst);
    let gateway = world.gateway_of("one", &[useless.address, world.address], None);
    until("the other one makes it fresh", || gateway.is_fresh()).await;
}
