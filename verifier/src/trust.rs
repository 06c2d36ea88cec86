//! Which keys a gateway believes: a statement by the trust root, which it pins and which is kept
//! off the broker.
//!
//! Keys come from nowhere else: the feed can kill one, never add one. A statement replaces an
//! older one only, so nobody brings back a key by showing last year's. `FORMAT.md` gives the form.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::holder::HolderKey;
use crate::id::{Epoch, FeedId, KeyId};
use crate::invalid::Invalid;
use crate::time::Timestamp;

/// Stands before the statement in what is signed.
const DOMAIN: &[u8] = b"dayfly.trust.v1\0";
/// The longest statement, in bytes.
pub const MAX_STATEMENT_BYTES: usize = 64 * 1024;
/// The most keys of a kind that a statement may list.
pub const MAX_KEYS: usize = 64;

/// What the trust root says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Rises with every statement.
    pub version: u64,
    /// The one feed that speaks of these keys' tokens.
    pub feed: FeedId,
    /// The epoch whose tokens count. Only a newer statement names another.
    pub epoch: Epoch,
    /// The keys that sign tokens. They may be listed ahead of use.
    pub token_keys: BTreeMap<KeyId, ListedKey>,
    /// The keys that sign heads of the feed.
    pub feed_keys: BTreeMap<KeyId, ListedKey>,
}

/// A key, and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedKey {
    /// The public half.
    pub public: HolderKey,
    /// From when on nothing that it signed is accepted.
    pub not_after: Timestamp,
}

/// A statement that is believed, with its keys ready to verify with.
#[derive(Debug)]
pub(crate) struct Trusted {
    statement: Statement,
    token_keys: Ready,
    feed_keys: Ready,
}

type Ready = BTreeMap<KeyId, (VerifyingKey, Timestamp)>;

impl Trusted {
    pub(crate) fn new(statement: Statement) -> Self {
        let ready = |listed: &BTreeMap<KeyId, ListedKey>| {
            let key = |key: &ListedKey| Some((key.public.verifying_key()?, key.not_after));
            listed.iter().filter_map(|(id, listed)| Some((*id, key(listed)?))).collect()
        };
        let (token_keys, feed_keys) = (ready(&statement.token_keys), ready(&statement.feed_keys));
        Self { statement, token_keys, feed_keys }
    }

    pub(crate) const fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The key that signs tokens under that number, unless it is past its end.
    pub(crate) fn token_key(&self, key: KeyId, now: Timestamp) -> Option<&VerifyingKey> {
        self.token_keys.get(&key).filter(|(_, end)| now < *end).map(|(key, _)| key)
    }

    /// The key that signs heads under that number, unless it is past its end.
    pub(crate) fn feed_key(&self, key: KeyId, now: Timestamp) -> Option<&VerifyingKey> {
        self.feed_keys.get(&key).filter(|(_, end)| now < *end).map(|(key, _)| key)
    }
}

/// Why a statement is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// The pinned trust root did not sign it.
    #[error("the trust statement is not signed by the pinned trust root")]
    Signature,
    /// It is signed, but it is not a statement.
    #[error("the trust statement is malformed: {0}")]
    Malformed(Invalid),
    /// A newer one has been seen.
    #[error("the trust statement has version {given}, and version {known} has been seen")]
    Older {
        /// The version that it has.
        given: u64,
        /// The highest version that was seen.
        known: u64,
    },
    /// It has the version of the one that is believed, and says something else.
    #[error("there are two trust statements of version {0}")]
    Forked(u64),
}

/// A statement byte for byte as it was signed, and its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The statement.
    pub statement: Vec<u8>,
    /// Ed25519 by the trust root.
    pub signature: [u8; 64],
}

impl Signed {
    /// The statement, if `root` signed it.
    ///
    /// # Errors
    ///
    /// [`Untrusted::Signature`] before anything in it is read, then [`Untrusted::Malformed`].
    pub fn verify(&self, root: &HolderKey) -> Result<Statement, Untrusted> {
        let signature = Signature::from_bytes(&self.signature);
        if self.statement.len() > MAX_STATEMENT_BYTES {
            let invalid = Invalid::new("statement", "must not be longer than 65536 bytes");
            return Err(Untrusted::Malformed(invalid));
        }
        root.verifying_key()
            .ok_or(Untrusted::Signature)?
            .verify_strict(&message(&self.statement), &signature)
            .map_err(|_| Untrusted::Signature)?;
        Statement::read(&self.statement).map_err(Untrusted::Malformed)
    }
}

impl Statement {
    /// Refuses a statement that must not follow this one: an older one, or another one of the same
    /// version.
    pub fn admits(&self, next: &Self) -> Result<(), Untrusted> {
        if next.version < self.version {
            return Err(Untrusted::Older { given: next.version, known: self.version });
        }
        if next.version == self.version && next != self {
            return Err(Untrusted::Forked(self.version));
        }
        Ok(())
    }

    /// Signs it with the trust root.
    ///
    /// # Errors
    ///
    /// What [`Signed::verify`] would refuse: too many keys, or one that is listed twice.
    #[cfg(feature = "issue")]
    pub fn sign(&self, root: &ed25519_dalek::SigningKey) -> Result<Signed, Invalid> {
        use ed25519_dalek::Signer as _;
        let stored = Stored {
            r#type: TYPE.into(),
            version: self.version.to_string(),
            feed: self.feed.to_string(),
            epoch: self.epoch.to_string(),
            token_keys: store(&self.token_keys),
            feed_keys: store(&self.feed_keys),
        };
        let statement = serde_json_canonicalizer::to_vec(&stored)
            .map_err(|_| Invalid::new("statement", "has no canonical form"))?;
        Self::read(&statement)?;
        let signature = root.sign(&message(&statement)).to_bytes();
        Ok(Signed { statement, signature })
    }

    /// Reads the JSON form, strictly: a member that is missing, unknown or repeated refuses, and
    /// so does a number, for which text stands.
    fn read(bytes: &[u8]) -> Result<Self, Invalid> {
        let stored: Stored = serde_json::from_slice(bytes).map_err(|_| {
            Invalid::new("statement", "must be JSON with exactly the members of the format, once")
        })?;
        let Stored { r#type, version, feed, epoch, token_keys, feed_keys } = stored;
        if r#type != TYPE {
            return Err(Invalid::new("type", "must be `dayfly.trust.v1`"));
        }
        let statement = Self {
            version: decimal("version", &version)?,
            feed: feed.parse()?,
            epoch: epoch.parse()?,
            token_keys: listed("token_keys", token_keys)?,
            feed_keys: listed("feed_keys", feed_keys)?,
        };
        let keys = statement.token_keys.values().chain(statement.feed_keys.values());
        let distinct: BTreeSet<_> = keys.map(|key| key.public).collect();
        let all = statement.token_keys.len().saturating_add(statement.feed_keys.len());
        if distinct.len() < all {
            return Err(Invalid::new("keys", "no key may be listed twice, or for two purposes"));
        }
        Ok(statement)
    }
}

const TYPE: &str = "dayfly.trust.v1";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    r#type: String,
    version: String,
    feed: String,
    epoch: String,
    token_keys: Vec<StoredKey>,
    feed_keys: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    key: String,
    public: String,
    not_after_ms: String,
}

#[cfg(feature = "issue")]
fn store(keys: &BTreeMap<KeyId, ListedKey>) -> Vec<StoredKey> {
    let store = |(key, listed): (&KeyId, &ListedKey)| StoredKey {
        key: key.to_string(),
        public: listed.public.to_string(),
        not_after_ms: listed.not_after.as_ms().to_string(),
    };
    keys.iter().map(store).collect()
}

fn listed(
    field: &'static str,
    stored: Vec<StoredKey>,
) -> Result<BTreeMap<KeyId, ListedKey>, Invalid> {
    if stored.len() > MAX_KEYS {
        return Err(Invalid::new(field, "must be at most 64 keys"));
    }
    let mut keys = BTreeMap::new();
    for StoredKey { key, public, not_after_ms } in stored {
        let id = u32::try_from(decimal(field, &key)?)
            .map_err(|_| Invalid::new(field, "a key's number must be below 2^32"))?;
        let not_after = Timestamp::from_ms(decimal(field, &not_after_ms)?)?;
        let listed = ListedKey { public: public.parse()?, not_after };
        if keys.insert(KeyId(id), listed).is_some() {
            return Err(Invalid::new(field, "no number may be given to two keys"));
        }
    }
    Ok(keys)
}

/// A decimal number in its one form.
fn decimal(field: &'static str, text: &str) -> Result<u64, Invalid> {
    let number: Option<u64> = text.parse().ok();
    number.filter(|number| number.to_string() == text).ok_or_else(|| {
        Invalid::new(field, "must be a decimal number in text, without leading zeros")
    })
}

fn message(statement: &[u8]) -> Vec<u8> {
    [DOMAIN, statement].concat()
}
