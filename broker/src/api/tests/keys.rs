//! Token-signing keys: which one signs, and how one comes and goes.

use std::collections::BTreeMap;

use dayfly_proto::v1::KeyStanding;
use dayfly_proto::v1::operator_service_server::OperatorService as _;
use dayfly_proto::v1::revocation_target::Target;
use dayfly_verifier::id::KeyId;
use dayfly_verifier::trust::{ListedKey, Statement};
use dayfly_verifier::wire::Decoded;
use zeroize::Zeroizing;

use super::*;
use crate::core::command::{Caller, Command};
use crate::core::event::{Actor, Event};
use crate::follow::instances::Terms;
use crate::found::{
    KEYS, TRUST_ROOT, feed_key_file, read_statement, token_key_file, write_statement,
};
use crate::journal::decode;
use crate::keys::NumberedKey;
use crate::signer::TokenKey;

const SMALL: &str = "refund orders/prod/o-17";
const YEAR_MS: u64 = 365 * 24 * 60 * 60 * 1_000;

fn key(n: u32, seed: u8) -> TokenKey {
    let not_after = Timestamp::from_ms(START_MS + YEAR_MS).unwrap();
    TokenKey::generate(KeyId(n), not_after, &Zeroizing::new([seed; 64])).unwrap()
}

fn listed(key: &TokenKey) -> (KeyId, ListedKey) {
    (key.id(), ListedKey { public: key.public(), not_after: key.not_after() })
}

/// The key that signed a token.
fn signed_by(exchanged: &v1::ExchangeResponse) -> u32 {
    Decoded::read(&exchanged.token).unwrap().key_id().0
}

impl World {
    fn home(&self) -> std::path::PathBuf {
        self.dir.path().join("broker")
    }

    /// Has the trust root say something else of token keys.
    fn say(&self, change: impl FnOnce(&mut BTreeMap<KeyId, ListedKey>)) {
        self.say_next(|next| change(&mut next.token_keys));
    }

    /// The same, of feed keys.
    fn say_of_feed(&self, change: impl FnOnce(&mut BTreeMap<KeyId, ListedKey>)) {
        self.say_next(|next| change(&mut next.feed_keys));
    }

    fn say_next(&self, change: impl FnOnce(&mut Statement)) {
        let (home, root) = (self.home(), NumberedKey::read(&self.home().join(TRUST_ROOT)).unwrap());
        let (_, before) = read_statement(&home).unwrap();
        let mut next = Statement { version: before.version.saturating_add(1), ..before };
        change(&mut next);
        write_statement(&home, &next.sign(&root.signing).unwrap()).unwrap();
    }

    /// Puts a key where the broker finds it, listed by the trust root.
    fn bring(&self, key: &TokenKey) {
        key.write(&self.home().join(KEYS).join(token_key_file(key.id()))).unwrap();
        self.say(|keys| keys.extend([listed(key)]));
    }

    /// A token of a new grant.
    async fn token(&self, agent: &Agent, n: u8) -> Result<v1::ExchangeResponse, Status> {
        let filed = self.file(agent, self.filing(agent, n, SMALL)).await.unwrap();
        self.exchange(agent, &filed.request_id, n).await
    }

    async fn standings(&self) -> Vec<(u32, KeyStanding)> {
        let listed = self.operator().list_keys(self.by("olga", v1::ListKeysRequest {})).await;
        let keys = listed.unwrap().into_inner().keys;
        keys.iter().map(|key| (key.key, key.standing())).collect()
    }

    async fn retire(&self, person: &str, key: u32) -> Result<v1::RetireKeyResponse, Status> {
        let message = v1::RetireKeyRequest { key };
        Ok(self.operator().retire_key(self.by(person, message)).await?.into_inner())
    }

    async fn kill(&self, key: u32) {
        let target = Some(v1::RevocationTarget { target: Some(Target::Key(key)) });
        let message = v1::RevokeRequest { target, reason: String::new() };
        self.operator().revoke(self.by("olga", message)).await.unwrap();
    }

    /// A gateway instance that follows, as far as this broker knows.
    fn follows(&self, name: &str) -> Arc<crate::follow::instances::Instance> {
        let terms = Terms {
            gateway: "spiffe://shop.test/gateway/orders".parse().unwrap(),
            instance: name.parse().unwrap(),
            min_staleness: Duration::from_secs(5),
            max_staleness: Duration::from_secs(5),
            best_effort: false,
        };
        let instance = self.broker.hub.instances.join(terms, self.clock.uptime()).unwrap();
        instance.trusts(1);
        instance
    }
}

#[tokio::test]
async fn a_key_that_the_trust_root_does_not_list_is_not_taken_up() {
    let world = World::new().await;
    let path = |n| world.home().join(KEYS).join(token_key_file(KeyId(n)));
    key(2, 2).write(&path(2)).unwrap();
    // Listed is another one of the same number, and one with another end.
    key(3, 3).write(&path(3)).unwrap();
    world.say(|keys| keys.extend([listed(&key(3, 9))]));
    key(4, 4).write(&path(4)).unwrap();
    world.say(|keys| {
        let (id, listed) = listed(&key(4, 4));
        keys.insert(id, ListedKey { not_after: listed.not_after.plus(SECOND), ..listed });
    });
    // This broker does not have it at all.
    world.say(|keys| keys.extend([listed(&key(5, 5))]));
    world.broker.take_up_keys().await;
    let state = world.broker.sequencer.state();
    assert_eq!(state.keys.keys().map(|key| key.0).collect::<Vec<_>>(), [1]);
    let waiting = |n| (n, KeyStanding::Waiting);
    let expected = [(1, KeyStanding::Signing), waiting(3), waiting(4), waiting(5)];
    assert_eq!(world.standings().await, expected);
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn an_older_statement_or_one_by_another_root_changes_nothing() {
    let world = World::new().await;
    let (home, version) = (world.home(), || world.broker.hub.trust().statement().version);
    let (first, before) = read_statement(&home).unwrap();
    world.bring(&key(2, 2));
    assert_eq!(world.broker.take_up_keys().await, [""; 0]);
    assert_eq!(version(), 2);
    write_statement(&home, &first).unwrap();
    let why = world.broker.take_up_keys().await;
    assert!(matches!(&why[..], [why] if why.starts_with("the trust statement: ")), "{why:?}");
    assert_eq!(world.broker.take_up_keys().await, why, "the same is to be told once");
    assert_eq!(version(), 2);
    let forged = Statement { version: 9, ..before };
    let stranger = SigningKey::from_bytes(&[66; 32]);
    write_statement(&home, &forged.sign(&stranger).unwrap()).unwrap();
    world.broker.take_up_keys().await;
    assert_eq!(version(), 2);
}

#[tokio::test]
async fn a_new_key_signs_once_every_gateway_knows_it() {
    let world = World::new().await;
    let agent = world.agent("agent/a", 1);
    let (one, two) = (world.follows("one"), world.follows("two"));
    world.bring(&key(2, 2));
    world.broker.take_up_keys().await;
    let before = world.token(&agent, 1).await.unwrap();
    assert_eq!(signed_by(&before), 1);
    assert_eq!(world.standings().await, [(1, KeyStanding::Signing), (2, KeyStanding::Waiting)]);
    one.trusts(2);
    assert_eq!(signed_by(&world.token(&agent, 2).await.unwrap()), 1);
    // Killed or not: what no gateway knows is not used in an emergency either.
    two.trusts(2);
    assert_eq!(signed_by(&world.token(&agent, 3).await.unwrap()), 2);
    assert_eq!(world.standings().await, [(1, KeyStanding::Ready), (2, KeyStanding::Signing)]);
    // Once it was used it stays in use, whoever comes.
    world.follows("three");
    assert_eq!(signed_by(&world.token(&agent, 4).await.unwrap()), 2);
    // A repeat is the same token, by the same key.
    let filed = world.file(&agent, world.filing(&agent, 1, SMALL)).await.unwrap();
    let again = world.exchange(&agent, &filed.request_id, 1).await.unwrap();
    assert_eq!(again.token, before.token);
}

/// Who followed an earlier process may believe an older statement, and is not seen here.
#[tokio::test]
async fn a_process_that_starts_waits_for_those_who_followed_another_before_a_first_use() {
    let mut world = World::new().await;
    let agent = world.agent("agent/a", 1);
    assert_eq!(signed_by(&world.token(&agent, 1).await.unwrap()), 1);
    world.bring(&key(2, 2));
    world.broker = world.beside().await;
    world.broker.take_up_keys().await;
    for (passes, signs) in [(0, 1), (59_999, 1), (1, 2)] {
        world.forward(passes);
        let state = world.broker.sequencer.state();
        let (key, _) = world.broker.signing_key(&state).unwrap();
        assert_eq!(key.0, signs, "after {passes} ms more");
    }
}

/// Of one number there may be two keys: that of a backup, or of another broker.
#[tokio::test]
async fn a_key_that_is_not_the_one_of_its_number_in_the_log_signs_nothing() {
    let world = World::new().await;
    let (listed, ours) = (key(2, 2), key(2, 9));
    let caller = Caller { id: world.broker.id.clone(), until: listed.not_after() };
    let (public, not_after) = (listed.public(), listed.not_after());
    let command = Command::AddKey { key: KeyId(2), public, not_after };
    world.broker.sequencer.submit(command, caller).await.unwrap();
    world.bring(&ours);
    world.broker.take_up_keys().await;
    assert!(world.broker.hub.is_known_everywhere(KeyId(2)));
    let (signs, _) = world.broker.signing_key(&world.broker.sequencer.state()).unwrap();
    assert_eq!(signs, KeyId(1));
    assert_eq!(world.standings().await[1], (2, KeyStanding::Waiting));
}

#[tokio::test]
async fn a_key_that_was_added_stands_in_the_record_by_the_broker() {
    let world = World::new().await;
    world.bring(&key(2, 2));
    for _ in 0..3 {
        world.broker.take_up_keys().await;
    }
    let log = world.broker.store.read(&crate::core::event::Head::ORIGIN, 99).await.unwrap();
    let entries = log.iter().map(|entry| decode(entry.head().seq, entry.bytes()).unwrap());
    let added: Vec<_> = entries.filter(|e| matches!(e.event, Event::KeyAdded { .. })).collect();
    assert_eq!(added.len(), 2);
    assert_eq!(added[1].by, Actor::Broker(world.broker.id.clone()));
}

#[tokio::test]
async fn a_retired_key_signs_nothing_new_and_the_last_one_is_not_retired() {
    let world = World::new().await;
    let agent = world.agent("agent/a", 1);
    assert_eq!(reason(&world.retire("olga", 9).await.unwrap_err()), "NOT_FOUND");
    assert_eq!(reason(&world.retire("olga", 1).await.unwrap_err()), "INVALID");
    world.bring(&key(2, 2));
    world.broker.take_up_keys().await;
    // Nothing was signed with the new one: it could turn out to be of no use.
    assert_eq!(reason(&world.retire("olga", 1).await.unwrap_err()), "INVALID");
    assert_eq!(signed_by(&world.token(&agent, 1).await.unwrap()), 2);
    for person in ["ana", "caro"] {
        assert_eq!(reason(&world.retire(person, 2).await.unwrap_err()), "NOT_FOUND");
    }
    let old = world.file(&agent, world.filing(&agent, 1, SMALL)).await.unwrap();
    assert_eq!(reason(&world.retire("olga", 2).await.unwrap_err()), "INVALID");
    world.bring(&key(3, 3));
    world.broker.take_up_keys().await;
    assert_eq!(signed_by(&world.token(&agent, 2).await.unwrap()), 3);
    let head = world.retire("olga", 2).await.unwrap().head;
    assert_eq!(world.retire("olga", 2).await.unwrap().head, head);
    // What it signed lives out.
    assert_eq!(signed_by(&world.exchange(&agent, &old.request_id, 1).await.unwrap()), 2);
    assert_eq!(world.standings().await[1], (2, KeyStanding::Retired));
}

#[tokio::test]
async fn a26_a_killed_key_is_not_offered_and_what_it_signed_is_not_handed_out() {
    let world = World::new().await;
    let agent = world.agent("agent/a", 1);
    let filed = world.file(&agent, world.filing(&agent, 1, SMALL)).await.unwrap();
    let stolen = world.exchange(&agent, &filed.request_id, 1).await.unwrap();
    assert_eq!(signed_by(&stolen), 1);
    world.kill(1).await;
    assert_eq!(world.broker.signing_key(&world.broker.sequencer.state()), None);
    let again = world.exchange(&agent, &filed.request_id, 1).await.unwrap_err();
    assert_eq!(reason(&again), "NOT_READY");
    world.bring(&key(2, 2));
    world.broker.take_up_keys().await;
    let again = world.exchange(&agent, &filed.request_id, 1).await.unwrap_err();
    assert_eq!(reason(&again), "REVOKED");
    let anew = world.exchange(&agent, &filed.request_id, 2).await.unwrap();
    assert_eq!((signed_by(&anew), anew.token == stolen.token), (2, false));
    assert_eq!(world.standings().await[0], (1, KeyStanding::Killed));
    // It stays dead, whatever the trust root says of it.
    world.say(|_| {});
    world.broker.take_up_keys().await;
    assert_eq!(world.standings().await[0], (1, KeyStanding::Killed));
}

/// Whoever follows a peer is not known here: no key is used before they must know it.
#[tokio::test]
async fn with_peers_a_new_key_waits_until_those_know_it_who_follow_them() {
    let mut world = World::new().await;
    world.broker = world.with_a_peer().await;
    let agent = world.agent("agent/a", 1);
    assert_eq!(signed_by(&world.token(&agent, 1).await.unwrap()), 1, "the first waits for none");
    world.bring(&key(2, 2));
    world.broker.take_up_keys().await;
    let waits = [(1, KeyStanding::Signing), (2, KeyStanding::Waiting)];
    assert_eq!(world.standings().await, waits);
    world.forward(124_999);
    assert_eq!(world.standings().await, waits);
    world.forward(1);
    let signs = [(1, KeyStanding::Ready), (2, KeyStanding::Signing)];
    assert_eq!(world.standings().await, signs);
}

/// A feed key with its number, of which the trust root need not know.
fn feed_key(n: u32, seed: u8) -> NumberedKey {
    let not_after = Timestamp::from_ms(START_MS + YEAR_MS / 2).unwrap();
    NumberedKey { id: KeyId(n), not_after, signing: SigningKey::from_bytes(&[seed; 32]) }
}

#[tokio::test]
async fn a_feed_key_is_taken_up_once_it_is_listed_and_known_and_shows_how_it_stands() {
    let world = World::new().await;
    let one = world.follows("one");
    let write = |key: &NumberedKey, n: u32| {
        key.write(&world.home().join(KEYS).join(feed_key_file(KeyId(n)))).unwrap();
    };
    let stand = async || {
        let listed = world.operator().list_keys(world.by("olga", v1::ListKeysRequest {})).await;
        let keys = listed.unwrap().into_inner().feed_keys;
        let shown = |key: &v1::SigningKey| (key.key, key.standing(), key.held, key.known_by);
        keys.iter().map(shown).collect::<Vec<_>>()
    };
    let signing = |known| (1, KeyStanding::Signing, true, known);
    assert_eq!(stand().await, [signing(1)]);
    // It lies there, and is not listed; another one is, under its number.
    let key = feed_key(2, 52);
    write(&key, 2);
    assert_eq!(world.broker.take_up_keys().await, [""; 0]);
    assert_eq!(stand().await, [signing(1)]);
    world.say_of_feed(|keys| keys.extend([(KeyId(2), feed_key(2, 53).listed().unwrap())]));
    one.trusts(2);
    assert_eq!(world.broker.take_up_keys().await, [""; 0]);
    assert_eq!(stand().await, [signing(1), (2, KeyStanding::Waiting, false, 1)]);
    world.say_of_feed(|keys| keys.extend([(KeyId(2), key.listed().unwrap())]));
    world.broker.take_up_keys().await;
    assert_eq!(stand().await, [signing(1), (2, KeyStanding::Waiting, true, 0)]);
    one.trusts(3);
    world.broker.take_up_keys().await;
    let signs = (2, KeyStanding::Signing, true, 1);
    assert_eq!(stand().await, [(1, KeyStanding::Ready, true, 1), signs]);
    let status = world.operator().get_status(world.by("olga", v1::GetStatusRequest {})).await;
    let ends = status.unwrap().into_inner().feed_key_ends_ms;
    assert_eq!(ends, i64::try_from(key.not_after.as_ms()).unwrap());

    // Dropped without another one: the broker says so, and that nobody believes it.
    world.say_of_feed(|keys| keys.retain(|key, _| *key == KeyId(9)));
    let left = world.broker.take_up_keys().await;
    assert!(matches!(&left[..], [left] if left.starts_with("no key may sign the feed: ")));
    let status = world.operator().get_status(world.by("olga", v1::GetStatusRequest {})).await;
    assert_eq!(status.unwrap().into_inner().feed_key_ends_ms, 0);
    // A file with a key of another number is named, and not taken.
    write(&feed_key(7, 57), 8);
    let left = world.broker.take_up_keys().await;
    assert!(left.iter().any(|left| left.contains("feed-8.key")), "{left:?}");
}
