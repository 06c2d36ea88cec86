//! No key is used before every gateway knows it, and no gateway keeps the others waiting for ever.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dayfly_proto::v1::follow_request::Message as Up;
use dayfly_proto::v1::{Ack, FollowRequest};
use dayfly_verifier::id::KeyId;
use dayfly_verifier::trust::Untrusted;
use futures_util::stream::{StreamExt as _, pending};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::world::{World, statement, until};
use crate::follow::instances::Terms;
use crate::follow::stream::{Asked, follow};
use crate::shutdown::Shutdown;

const NEW: KeyId = KeyId(2);

fn terms(name: &str) -> Terms {
    Terms {
        gateway: "spiffe://t.test/gateway/orders".parse().unwrap(),
        instance: name.parse().unwrap(),
        min_staleness: Duration::from_secs(5),
        max_staleness: Duration::from_secs(5),
        best_effort: false,
    }
}

fn asked(trust_version: u64) -> Asked {
    Asked { trust_version, ..Asked::default() }
}

fn ack(trust_version: u64) -> Result<FollowRequest, Status> {
    let ack = Ack { seq: 0, challenge: bytes::Bytes::new(), trust_version };
    Ok(FollowRequest { message: Some(Up::Ack(ack)) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_known_once_every_instance_says_so_and_not_before() {
    let world = World::new().await;
    let hub = world.hub.clone();
    assert!(!hub.is_known_everywhere(NEW), "the trust root does not list it");
    let (said, queued) = mpsc::channel(4);
    let requests = ReceiverStream::new(queued);
    let one = follow(hub.clone(), Shutdown::new(), terms("one"), asked(1), requests).await.unwrap();
    let two =
        follow(hub.clone(), Shutdown::new(), terms("two"), asked(1), pending()).await.unwrap();
    assert!(hub.is_known_everywhere(KeyId(1)));
    let (signed, next) = statement(2, &[1, 2]);
    assert_eq!(hub.take_trust(signed, next), Ok(true));
    assert_eq!((hub.known_by(NEW), hub.known_by(KeyId(1))), ((0, 2), (2, 2)));
    said.send(ack(1)).await.unwrap();
    said.send(ack(2)).await.unwrap();
    until("it is heard", || hub.known_by(NEW) == (1, 2)).await;
    assert!(!hub.is_known_everywhere(NEW));
    // The other one goes, but may go on by itself until its bound has passed.
    drop(two);
    assert!(!hub.is_known_everywhere(NEW));
    world.clock.forward(5_001);
    assert!(hub.is_known_everywhere(NEW));
    // Another statement says nothing new of it: nobody is waited for once more.
    let (signed, next) = statement(3, &[1, 2, 3]);
    assert_eq!(hub.take_trust(signed, next), Ok(true));
    assert!(hub.is_known_everywhere(NEW) && !hub.is_known_everywhere(KeyId(3)));
    // Under a number that is known, another key is as new as any.
    let (_, mut other) = statement(4, &[1, 2, 3]);
    let changed = other.token_keys[&KeyId(3)];
    other.token_keys.insert(NEW, changed);
    other.token_keys.remove(&KeyId(3));
    let (signed, _) = statement(4, &[1, 2, 3]);
    assert_eq!(hub.take_trust(signed, other), Ok(true));
    assert_eq!((hub.known_by(NEW), hub.known_by(KeyId(1))), ((0, 1), (1, 1)));
    drop(one);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_take_up_the_keys_is_told_nothing_more() {
    let world = World::new().await;
    let hub = world.hub.clone();
    let follows = follow(hub.clone(), Shutdown::new(), terms("one"), asked(1), pending());
    let mut stream = follows.await.unwrap();
    let (signed, next) = statement(2, &[1, 2]);
    assert_eq!(hub.take_trust(signed, next), Ok(true));
    world.clock.forward(5_001);
    hub.want_beat();
    while let Some(message) = stream.next().await {
        message.unwrap();
        hub.want_beat();
    }
    assert!(!hub.instances.standings(hub.uptime()).iter().any(|one| one.connected));
    world.clock.forward(5_001);
    assert!(hub.is_known_everywhere(NEW));
}

/// It comes again and again, under new names and with the statement of before, and reads nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_keeps_coming_with_an_old_statement_keeps_no_key_from_its_use() {
    let world = World::new().await;
    let hub = world.hub.clone();
    let come = |name| follow(hub.clone(), Shutdown::new(), terms(name), asked(1), pending());
    let first = come("first").await.unwrap();
    let (signed, next) = statement(2, &[1, 2]);
    assert_eq!(hub.take_trust(signed, next), Ok(true));
    world.clock.forward(5_001);
    let second = come("second").await.unwrap();
    assert!(!hub.is_known_everywhere(NEW), "what they were told may count still");
    world.clock.forward(5_001);
    let third = come("third").await.unwrap();
    let again = come("second").await.unwrap();
    assert_eq!(hub.known_by(NEW), (0, 0));
    assert!(hub.is_known_everywhere(NEW));
    drop((first, second, third, again));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_statement_that_follows_is_taken() {
    let world = World::new().await;
    let hub = world.hub.clone();
    let take = |version, keys: &[u8]| {
        let (signed, statement) = statement(version, keys);
        hub.take_trust(signed, statement)
    };
    assert_eq!(take(1, &[1]), Ok(false));
    assert_eq!(take(1, &[1, 2]), Err(Untrusted::Forked(1)));
    assert_eq!(take(5, &[1, 2]), Ok(true));
    assert_eq!(take(4, &[1]), Err(Untrusted::Older { given: 4, known: 5 }));
    let (signed, mut other) = statement(6, &[1]);
    other.feed = dayfly_verifier::id::FeedId::new([9; 16]);
    assert!(matches!(hub.take_trust(signed, other), Err(Untrusted::Malformed(_))));
    assert_eq!(hub.trust().statement().version, 5);
}

/// The library's own client, over a socket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_fetches_a_new_statement_and_says_so() {
    let world = World::new().await;
    let gateway = world.gateway("one", world.address);
    until("it follows", || world.hub.known_by(KeyId(1)) == (1, 1)).await;
    for version in 2..6 {
        let newest = u8::try_from(version).unwrap();
        let (signed, next) = statement(version, &(1..=newest).collect::<Vec<_>>());
        assert_eq!(world.hub.take_trust(signed, next), Ok(true));
        let key = KeyId(newest.into());
        until("it knows the key", || world.hub.is_known_everywhere(key)).await;
        assert_eq!(world.hub.known_by(key), (1, 1));
        let view = gateway.enforcer.view().unwrap();
        assert!(view.key(key, dayfly_verifier::time::Timestamp::default()).is_some());
    }
}

/// Its way to the broker is longer than a heartbeat is waited for: whenever it subscribes with the
/// statement that it has, it is cut before it is told the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_far_away_that_missed_a_statement_comes_back() {
    let world = World::new().await;
    let gateway = world.gateway("one", world.address);
    until("it follows", || world.hub.known_by(KeyId(1)) == (1, 1)).await;
    until("it is fresh", || gateway.is_fresh()).await;
    world.slow_ms.store(500, Ordering::SeqCst);
    let (signed, next) = statement(2, &[1, 2]);
    assert_eq!(world.hub.take_trust(signed, next), Ok(true));
    world.clock.forward(1_001);
    until("it knows the key", || world.hub.known_by(NEW) == (1, 1)).await;
    until("it is fresh again", || gateway.is_fresh()).await;
}
