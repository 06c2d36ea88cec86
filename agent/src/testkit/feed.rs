//! The gateways that listen to the in-memory broker: real verifiers, told by real signed heads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dayfly_verifier::feed::{Enforcer, Follower, Head, Message, Profile, Source, snapshot_digest};
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::{ChainHash, Epoch, FeedId, KeyId};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::time::{Clock as _, Timestamp};
use dayfly_verifier::trust::{ListedKey, Signed, Statement};
use ed25519_dalek::SigningKey;

use super::book::Book;
use super::{ByHand, TOKEN_KEY};

const FEED: FeedId = FeedId::new([5; 16]);
const FEED_KEY: KeyId = KeyId(1);
const ROOT: [u8; 32] = [11; 32];
const FEED_SECRET: [u8; 32] = [12; 32];
/// How long a gateway goes on after the broker fell silent.
const MAX_STALENESS: Duration = Duration::from_secs(5);

/// Everybody who listens.
#[derive(Default)]
pub(super) struct Listeners(Mutex<Vec<(Follower, Arc<Enforcer>)>>);

impl Listeners {
    /// One more.
    pub(super) fn join(
        &self,
        epoch: Epoch,
        token_key: &[u8; 32],
    ) -> Result<Arc<Enforcer>, Invalid> {
        let profile = Profile::new(public(&ROOT)?, MAX_STALENESS, Source::Relayed)?;
        let mut follower = Follower::new(profile, None);
        let trusted = follower.trust(&statement(epoch, token_key)?);
        trusted.map_err(|error| Invalid::new("trust", error.to_string()))?;
        let enforcer = Arc::new(Enforcer::default());
        self.lock().push((follower, Arc::clone(&enforcer)));
        Ok(enforcer)
    }

    /// Tells everybody what is in force.
    pub(super) fn tell(&self, book: &Book, clock: &ByHand) {
        let (now, uptime) = (clock.now(), clock.uptime());
        let head = Head {
            feed: FEED,
            epoch: book.epoch,
            seq: dayfly_verifier::id::Seq(book.seq),
            journal: journal(book),
            hash: book.feed_hash,
            time: now,
            key: FEED_KEY,
            snapshot: Some(snapshot_digest(book.entries.iter().map(Vec::as_slice))),
        };
        let head = head.sign(&SigningKey::from_bytes(&FEED_SECRET));
        let message = Message::Snapshot(book.entries.clone(), Some(head));
        for (follower, enforcer) in &mut *self.lock() {
            // What a follower refuses leaves it with what it had, until that is stale.
            if follower.receive(&message, now, uptime).is_ok()
                && let Some(view) = follower.view()
            {
                enforcer.publish(view, now, uptime);
            }
        }
    }

    /// Time goes on, and nobody says anything.
    pub(super) fn tick(&self, now: Timestamp, uptime: Duration) {
        self.lock().iter().for_each(|(_, enforcer)| enforcer.tick(now, uptime));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Follower, Arc<Enforcer>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// There is no log to chain: its place stands for it.
fn journal(book: &Book) -> ChainHash {
    let mut hash = [0; 32];
    hash.iter_mut().zip(book.seq.to_be_bytes()).for_each(|(to, from)| *to = from);
    ChainHash::new(hash)
}

fn statement(epoch: Epoch, token_key: &[u8; 32]) -> Result<Signed, Invalid> {
    let not_after = Timestamp::from_ms(253_402_300_799_000)?;
    let listed = |secret| Ok::<_, Invalid>(ListedKey { public: public(secret)?, not_after });
    let statement = Statement {
        version: 1,
        feed: FEED,
        epoch,
        token_keys: BTreeMap::from([(TOKEN_KEY, listed(token_key)?)]),
        feed_keys: BTreeMap::from([(FEED_KEY, listed(&FEED_SECRET)?)]),
    };
    statement.sign(&SigningKey::from_bytes(&ROOT))
}

fn public(secret: &[u8; 32]) -> Result<HolderKey, Invalid> {
    HolderKey::from_slice(SigningKey::from_bytes(secret).verifying_key().as_bytes())
}
