//! Which key signs the heads of the feed, and which gateways know the keys that sign. Must never
//! take up a feed key that the trust root does not list, or that has ended; nor, while the one in
//! use is good, one that an instance which follows may not know.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use dayfly_verifier::feed::{Head, SignedHead};
use dayfly_verifier::id::KeyId;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::time::Timestamp;
use dayfly_verifier::trust::{ListedKey, Signed, Statement, Untrusted};

use super::feed::Hub;
use super::trust::Trust;
use crate::keys::NumberedKey;

/// The feed keys of this broker, and the one that signs. New ones may come while it runs.
pub struct FeedKeys {
    held: ArcSwap<BTreeMap<KeyId, Arc<NumberedKey>>>,
    present: ArcSwap<NumberedKey>,
}

/// No feed key of this broker may sign: no gateway would believe it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no key may sign the feed: {}", told(*.version, .listed, .held))]
pub struct NoFeedKey {
    /// The version of the trust statement.
    pub version: u64,
    /// The feed keys that it lists, ended or not.
    pub listed: Vec<KeyId>,
    /// Why each key of the broker may not.
    pub held: Vec<(KeyId, Unfit)>,
}

/// Why a feed key may not sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Its time is over.
    #[error("has ended")]
    Ended,
    /// The trust root does not list its number.
    #[error("is not listed")]
    Unlisted,
    /// The trust root lists another key, or another end, under its number.
    #[error("is not the one that is listed under its number")]
    Other,
}

fn told(version: u64, listed: &[KeyId], held: &[(KeyId, Unfit)]) -> String {
    let listed: Vec<_> = listed.iter().map(|key| format!("feed-{key}.key")).collect();
    let listed = if listed.is_empty() { "none".to_owned() } else { listed.join(", ") };
    let held: Vec<_> = held.iter().map(|(key, why)| format!("feed-{key}.key here {why}")).collect();
    let held = if held.is_empty() { "there is none here".to_owned() } else { held.join(", ") };
    format!("trust statement {version} lists {listed}; {held}")
}

impl FeedKeys {
    /// These keys, of which the highest number signs that `statement` lists and whose time is not
    /// over at `now`. A gateway that does not know it fetches the statement.
    pub fn new(
        held: impl IntoIterator<Item = NumberedKey>,
        statement: &Statement,
        now: Timestamp,
    ) -> Result<Self, NoFeedKey> {
        let held: BTreeMap<_, _> = held.into_iter().map(|key| (key.id, Arc::new(key))).collect();
        let fit = held.values().rev().find(|key| fitness(key, statement, now).is_ok());
        let present = fit.cloned().ok_or_else(|| none(&held, statement, now))?;
        Ok(Self { held: ArcSwap::from_pointee(held), present: ArcSwap::new(present) })
    }

    /// Adds a key. The first of a number stays.
    pub fn add(&self, key: NumberedKey) {
        let key = Arc::new(key);
        self.held.rcu(|held| {
            let mut held = BTreeMap::clone(held);
            held.entry(key.id).or_insert_with(|| key.clone());
            held
        });
    }

    /// The keys, by number.
    #[must_use]
    pub fn held(&self) -> Arc<BTreeMap<KeyId, Arc<NumberedKey>>> {
        self.held.load_full()
    }

    /// The key that signs.
    #[must_use]
    pub fn present(&self) -> Arc<NumberedKey> {
        self.present.load_full()
    }

    /// Takes up the key that is to sign from `now` on: while the present one is good, the highest
    /// number that is `known` wherever its heads go; once it is not, the highest that is good.
    /// The number of the new one; `None` if the present one goes on.
    fn choose(
        &self,
        statement: &Statement,
        now: Timestamp,
        known: impl Fn(KeyId) -> bool,
    ) -> Result<Option<KeyId>, NoFeedKey> {
        let (held, present) = (self.held(), self.present());
        let fit = |key: &NumberedKey| fitness(key, statement, now).is_ok();
        let goes_on = fit(&present);
        let next = held
            .values()
            .rev()
            .find(|key| fit(key) && (!goes_on || key.id == present.id || known(key.id)));
        let next = next.ok_or_else(|| none(&held, statement, now))?;
        if next.id == present.id {
            return Ok(None);
        }
        self.present.store(next.clone());
        Ok(Some(next.id))
    }
}

/// Whether gateways that have `statement` believe heads by `key` at `now`.
fn fitness(key: &NumberedKey, statement: &Statement, now: Timestamp) -> Result<(), Unfit> {
    let listed = statement.feed_keys.get(&key.id).ok_or(Unfit::Unlisted)?;
    if !is(listed, key) {
        return Err(Unfit::Other);
    }
    if now < listed.not_after { Ok(()) } else { Err(Unfit::Ended) }
}

/// Whether the trust root lists this very key.
fn is(listed: &ListedKey, key: &NumberedKey) -> bool {
    key.listed().is_ok_and(|held| held == *listed)
}

fn none(
    held: &BTreeMap<KeyId, Arc<NumberedKey>>,
    statement: &Statement,
    now: Timestamp,
) -> NoFeedKey {
    let unfit = |key: &Arc<NumberedKey>| Some((key.id, fitness(key, statement, now).err()?));
    NoFeedKey {
        version: statement.version,
        listed: statement.feed_keys.keys().copied().collect(),
        held: held.values().filter_map(unfit).collect(),
    }
}

impl Hub {
    /// The keys that gateways believe.
    #[must_use]
    pub fn trust(&self) -> Arc<Trust> {
        self.trust.load_full()
    }

    /// Takes a statement that was verified; `false` for the one that is there. Heartbeats tell the
    /// gateways that there is another. Refuses one that does not follow, or is of another feed.
    pub fn take_trust(&self, signed: Signed, statement: Statement) -> Result<bool, Untrusted> {
        let before = self.trust();
        if statement == *before.statement() {
            return Ok(false);
        }
        if statement.feed != self.feed {
            let other = Invalid::new("feed", "must be the one that this broker tells");
            return Err(Untrusted::Malformed(other));
        }
        let next = before.next(signed, statement, self.uptime())?;
        self.trust.store(Arc::new(next));
        self.want_beat();
        Ok(true)
    }

    /// Takes up the feed key that is to sign from now on: the number of a new one. Where none may
    /// sign, what is told goes on by the present one, and is believed nowhere.
    pub fn take_feed_key(&self) -> Result<Option<KeyId>, NoFeedKey> {
        let (trust, now) = (self.trust(), self.now());
        let known = |key| {
            let (known, all) = self.feed_key_known_by(key);
            known == all
        };
        self.keys.choose(trust.statement(), now, known)
    }

    /// The feed key that signs, and from when on nothing counts that it signed; `None` if the
    /// trust root does not list it.
    #[must_use]
    pub fn feed_key(&self) -> Option<(KeyId, Timestamp)> {
        let (trust, present) = (self.trust(), self.keys.present());
        let listed = trust.statement().feed_keys.get(&present.id)?;
        is(listed, &present).then_some((present.id, present.not_after))
    }

    /// Whether this broker has the feed key that the trust root lists under this number.
    #[must_use]
    pub fn has_feed_key(&self, id: KeyId, listed: &ListedKey) -> bool {
        self.keys.held().get(&id).is_some_and(|held| is(listed, held))
    }

    /// How many of the instances that follow this broker, or may go on by themselves, know a feed
    /// key, and how many there are.
    #[must_use]
    pub fn feed_key_known_by(&self, key: KeyId) -> (usize, usize) {
        let trust = self.trust();
        self.instances.trusting(&trust, trust.feed_since(key), self.uptime())
    }

    /// How many of the instances that could refuse a token by `key` for not knowing it know it,
    /// and how many there are.
    #[must_use]
    pub fn known_by(&self, key: KeyId) -> (usize, usize) {
        let trust = self.trust();
        self.instances.trusting(&trust, trust.since(key), self.uptime())
    }

    /// Whether a token by `key` can meet no instance any more that does not know the key: each has
    /// acknowledged a statement that lists it, or refuses everything by now. Those that followed
    /// an earlier process are waited for, too, once any key was used.
    #[must_use]
    pub fn is_known_everywhere(&self, key: KeyId) -> bool {
        let (known, all) = self.known_by(key);
        let listed = self.trust().since(key).is_some();
        listed && known == all && self.uptime() >= self.unaware_until
    }

    /// A head of this feed that one of its keys signed.
    pub(super) fn believes(&self, signed: &SignedHead) -> Option<Head> {
        let trust = self.trust();
        let listed = |key| trust.statement().feed_keys.get(&key)?.public.verifying_key();
        let head = signed.verify(listed)?;
        (head.feed == self.feed).then_some(head)
    }
}
