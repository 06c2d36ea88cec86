//! The key that signs the feed changes: no gateway believes a key that the trust root does not
//! list, none misses a heartbeat for a key that it does, and a dropped one is believed nowhere.

use std::time::Duration;

use dayfly_proto::v1::FollowResponse;
use dayfly_proto::v1::follow_response::Message as Down;
use dayfly_verifier::feed::{Head, SignedHead};
use dayfly_verifier::id::{KeyId, Seq};
use dayfly_verifier::time::Timestamp;
use dayfly_verifier::trust::Statement;
use futures_util::stream::pending;

use super::world::{World, end, feed_key, statement_of, until};
use crate::follow::instances::Terms;
use crate::follow::keys::{FeedKeys, NoFeedKey, Unfit};
use crate::follow::stream::{Asked, follow};
use crate::keys::NumberedKey;
use crate::shutdown::Shutdown;

const OLD: KeyId = KeyId(1);
const NEW: KeyId = KeyId(2);

impl World {
    /// Has the trust root list these feed keys in `version`, and the broker look.
    fn list(&self, version: u64, feed: &[u8]) -> Result<Option<KeyId>, NoFeedKey> {
        let (signed, next) = statement_of(version, &[1], feed);
        assert_eq!(self.hub.take_trust(signed, next), Ok(true));
        self.hub.take_feed_key()
    }

    /// The key by which the end of the feed is signed.
    fn signs(&self) -> KeyId {
        Head::from_bytes(&self.hub.tip().signed.head).unwrap().key
    }
}

fn opened(held: &[u8], statement: &Statement, now: Timestamp) -> Result<KeyId, NoFeedKey> {
    let held = held.iter().copied().map(feed_key);
    Ok(FeedKeys::new(held, statement, now)?.present().id)
}

#[test]
fn a_broker_without_a_feed_key_that_is_listed_and_good_does_not_start() {
    let (_, statement) = statement_of(3, &[1], &[1, 2, 4]);
    let now = Timestamp::from_ms(end().as_ms() - 1).unwrap();
    let refused = |held: &[(u32, Unfit)]| {
        let held = held.iter().map(|(key, why)| (KeyId(*key), *why)).collect();
        Err(NoFeedKey { version: 3, listed: [1, 2, 4].map(KeyId).to_vec(), held })
    };
    assert_eq!(opened(&[], &statement, now), refused(&[]));
    assert_eq!(opened(&[3], &statement, now), refused(&[(3, Unfit::Unlisted)]));
    let ended = refused(&[(1, Unfit::Ended), (2, Unfit::Ended)]);
    assert_eq!(opened(&[1, 2], &statement, end()), ended);
    assert_eq!(
        ended.unwrap_err().to_string(),
        "no key may sign the feed: trust statement 3 lists feed-1.key, feed-2.key, feed-4.key; \
         feed-1.key here has ended, feed-2.key here has ended"
    );
    // Another key under a number that is listed, and the key itself with another end.
    let other = NumberedKey { id: NEW, ..feed_key(7) };
    let longer = NumberedKey { not_after: end().plus(Duration::from_secs(1)), ..feed_key(1) };
    let unfit = FeedKeys::new([other, longer], &statement, now).err();
    assert_eq!(unfit, refused(&[(1, Unfit::Other), (2, Unfit::Other)]).err());
    assert_eq!(opened(&[1, 2, 3], &statement, now), Ok(NEW), "the highest that is listed");
    assert_eq!(opened(&[1], &statement, now), Ok(OLD));
}

fn terms(name: &str) -> Terms {
    Terms {
        gateway: "spiffe://t.test/gateway/orders".parse().unwrap(),
        instance: name.parse().unwrap(),
        min_staleness: Duration::from_secs(5),
        max_staleness: Duration::from_secs(5),
        best_effort: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_signs_once_it_is_held_and_listed_and_every_instance_knows_it() {
    let world = World::new().await;
    let hub = world.hub.clone();
    let asked = Asked { trust_version: 1, ..Asked::default() };
    let follows = follow(hub.clone(), Shutdown::new(), terms("one"), asked, pending());
    let stream = follows.await.unwrap();
    hub.keys.add(feed_key(2));
    assert_eq!(hub.take_feed_key(), Ok(None), "the trust root does not list it");
    assert_eq!(world.list(2, &[1, 2, 3]), Ok(None), "an instance does not know it");
    assert_eq!((hub.feed_key_known_by(NEW), hub.feed_key_known_by(OLD)), ((0, 1), (1, 1)));
    drop(stream);
    world.clock.forward(1_000);
    assert_eq!(hub.take_feed_key(), Ok(None), "that instance may still go on by itself");
    world.clock.forward(4_001);
    assert_eq!(hub.take_feed_key(), Ok(Some(NEW)));
    assert_eq!(hub.feed_key(), Some((NEW, end())));
    assert_eq!(hub.take_feed_key(), Ok(None));
    until("it signs", || world.signs() == NEW).await;
    // A key of a higher number that this broker does not have changes nothing; nor does it go back.
    assert_eq!(world.list(3, &[1, 2, 3, 4]), Ok(None));
    hub.keys.add(feed_key(1));
    assert_eq!(hub.take_feed_key(), Ok(None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_key_signs_nothing_even_where_its_follower_is_not_known() {
    let world = World::new().await;
    let hub = world.hub.clone();
    let asked = Asked { trust_version: 1, ..Asked::default() };
    let follows = follow(hub.clone(), Shutdown::new(), terms("one"), asked, pending());
    let _stream = follows.await.unwrap();
    // Without another one, what is told is believed nowhere, and the broker says so.
    let held = vec![(OLD, Unfit::Unlisted)];
    let none = NoFeedKey { version: 2, listed: vec![NEW], held };
    assert_eq!(world.list(2, &[2]), Err(none));
    assert_eq!(hub.feed_key(), None);
    hub.keys.add(feed_key(2));
    assert_eq!(hub.feed_key_known_by(NEW), (0, 1));
    assert_eq!(hub.take_feed_key(), Ok(Some(NEW)));
    until("it signs", || world.signs() == NEW).await;
    // The one before is taken up again where the new one is dropped, as by mistake or stolen.
    assert_eq!(world.list(3, &[1]), Ok(Some(OLD)));
    // A key whose time is over makes way, too, for one that nobody knows yet.
    assert_eq!(world.list(4, &[1, 2]), Ok(None));
    world.clock.forward(end().as_ms());
    assert_eq!(hub.take_feed_key().unwrap_err().held.len(), 2);
    // Nor does it count as the one that signs while another is listed under its number.
    let (signed, mut other) = statement_of(5, &[1], &[1]);
    other.feed_keys.insert(OLD, feed_key(7).listed().unwrap());
    assert_eq!((hub.take_trust(signed, other), hub.feed_key()), (Ok(true), None));
}

/// What was signed once for all who ask for everything is signed anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_snapshot_is_told_by_a_key_that_signs_no_more() {
    let world = World::new().await;
    let hub = world.hub.clone();
    let by = |responses: &[FollowResponse]| {
        let Some(Down::Snapshot(snapshot)) = &responses.last().unwrap().message else { panic!() };
        Head::from_bytes(&snapshot.head.as_ref().unwrap().head).unwrap().key
    };
    assert_eq!(by(&hub.catch_up(&hub.tip(), None)), OLD);
    let end = hub.tip().head;
    hub.keys.add(feed_key(2));
    assert_eq!(world.list(2, &[1, 2]), Ok(Some(NEW)));
    until("it signs", || world.signs() == NEW).await;
    assert_eq!(hub.tip().head, end, "nothing happened meanwhile");
    assert_eq!(by(&hub.catch_up(&hub.tip(), None)), NEW);
}

/// The library's own client, over a socket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_goes_on_while_the_key_changes_and_believes_no_dropped_one() {
    let mut world = World::new().await;
    let gateway = world.gateway("one", world.address);
    until("it is fresh", || gateway.is_fresh()).await;
    world.hub.keys.add(feed_key(2));
    world.list(2, &[1, 2]).unwrap();
    until("it is taken up", || world.hub.take_feed_key() == Ok(Some(NEW))).await;
    let seq = world.revoke(1).await;
    until("it hears by the new key", || gateway.has(seq)).await;
    assert_eq!(world.signs(), NEW);
    // In one statement: the key that nobody knows yet, and not the one that was stolen.
    world.hub.keys.add(feed_key(3));
    assert_eq!(world.list(3, &[3]), Ok(Some(KeyId(3))));
    let seq = world.revoke(2).await;
    until("it hears by the third", || gateway.has(seq) && gateway.is_fresh()).await;
    // Listed is a key alone that this broker does not have: it goes on by its own, for nobody.
    world.list(4, &[4]).unwrap_err();
    until("it knows so", || world.hub.feed_key_known_by(KeyId(4)).0 == 1).await;
    world.revoke(3).await;
    until("it comes to refuse", || !gateway.is_fresh()).await;
    assert_eq!(gateway.knows(), 2, "a dropped key was believed");
    world.hub.keys.add(feed_key(4));
    assert_eq!(world.hub.take_feed_key(), Ok(Some(KeyId(4))));
    until("it comes back", || gateway.is_fresh() && gateway.knows() == 3).await;
}

/// Each broker of a log takes up the new key when those know it who follow it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_goes_from_a_broker_with_the_new_key_to_one_with_the_old() {
    let mut world = World::new().await;
    let beside = world.beside().await;
    let both = [world.address, beside.address];
    let gateway = world.gateway_of("one", &both, None);
    until("it is fresh", || gateway.is_fresh()).await;
    world.hub.keys.add(feed_key(2));
    for broker in [&world, &beside] {
        broker.list(2, &[1, 2]).unwrap();
    }
    until("it is taken up", || world.hub.take_feed_key() == Ok(Some(NEW))).await;
    let seq = world.revoke(1).await;
    until("it hears by the new key", || gateway.has(seq)).await;
    assert_eq!((world.signs(), beside.signs()), (NEW, OLD));
    world.tasks_end();
    let seq = world.revoke(2).await;
    until("it hears by the old key", || gateway.has(seq) && gateway.is_fresh()).await;
    assert_eq!(beside.signs(), OLD);
}

/// A head that a gateway shows says something only by a key that is listed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_is_shown_counts_while_its_key_is_listed() {
    let world = World::new().await;
    let tip = world.hub.tip();
    let (signed, head) = (tip.signed.clone(), Head::from_bytes(&tip.signed.head).unwrap());
    let signature = signed.signature.as_ref().try_into().unwrap();
    let genuine = SignedHead { head: signed.head.to_vec(), signature };
    let unlisted = Head { key: NEW, seq: Seq(99), ..head }.sign(&feed_key(2).signing);
    assert!(world.hub.believes(&genuine).is_some());
    assert!(world.hub.believes(&unlisted).is_none());
    world.hub.keys.add(feed_key(2));
    assert_eq!(world.list(2, &[1, 2]), Ok(Some(NEW)));
    assert!(world.hub.believes(&genuine).is_some() && world.hub.believes(&unlisted).is_some());
    assert_eq!(world.list(3, &[2]), Ok(None));
    assert!(world.hub.believes(&genuine).is_none(), "it was dropped");
}
