//! Entries as they are stored: JSON in one form, members in fixed order, numbers only where 53 bits
//! are enough. The types here are those of the store alone and change by new versions only; golden
//! files hold each kind. Must never guess: what is not understood stops the broker.

pub(super) mod alike;
pub(super) mod case;
mod directory;
mod event;
mod fixed;
mod parts;
mod report;
mod request;
pub(super) mod snapshot;

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use dayfly_verifier::id::{BundleDigest, Seq};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::time::Timestamp;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::JournalError;
use crate::core::event::Entry;

/// The version of the form that is written: what a new log allows its brokers.
pub const VERSION: u32 = 1;

/// The kinds of entry that this version understands.
pub const KINDS: [&str; 21] = [
    "epoch_opened",
    "bundle_applied",
    "key_added",
    "key_retired",
    "request_filed",
    "request_refused",
    "requirement_changed",
    "decision_recorded",
    "decision_withdrawn",
    "granted",
    "token_recorded",
    "exchange_answered",
    "use_redeemed",
    "ended",
    "revoked",
    "uses_reported",
    "identity_changed",
    "locked",
    "unlocked",
    "opted_out",
    "snapshot_taken",
];

/// An entry, version 1.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryV1 {
    v: u32,
    at_ms: u64,
    by: event::ActorV1,
    policy: Option<Text<BundleDigest>>,
    event: event::EventV1,
}

/// The stored form of `entry`.
pub(super) fn encode(entry: &Entry) -> Result<Vec<u8>, JournalError> {
    let Entry { by, at, policy, event } = entry;
    let stored = EntryV1 {
        v: VERSION,
        at_ms: at.as_ms(),
        by: by.into(),
        policy: policy.map(Text),
        event: event.into(),
    };
    serde_json::to_vec(&stored)
        .map_err(|e| JournalError::Unavailable(format!("an entry has no stored form: {e}")))
}

/// What the stored form at `seq` says. [`JournalError::Future`] for a version or a kind that a
/// later version wrote, [`JournalError::Corrupt`] for everything else that is not an entry.
pub fn decode(seq: Seq, bytes: &[u8]) -> Result<Entry, JournalError> {
    let corrupt = |rule: String| JournalError::Corrupt { seq, rule };
    if let Some(what) = from_the_future(bytes) {
        return Err(JournalError::Future { seq, what });
    }
    let stored: EntryV1 =
        serde_json::from_slice(bytes).map_err(|e| corrupt(format!("is not an entry: {e}")))?;
    let EntryV1 { v: _, at_ms, by, policy, event } = stored;
    let invalid = |e: Invalid| corrupt(format!("holds an impossible value: {e}"));
    Ok(Entry {
        by: by.into(),
        at: Timestamp::from_ms(at_ms).map_err(invalid)?,
        policy: policy.map(|digest| digest.0),
        event: event.try_into().map_err(invalid)?,
    })
}

/// The version or kind in `bytes` that this version does not know, if that is what is wrong.
fn from_the_future(bytes: &[u8]) -> Option<String> {
    /// Reads only enough to tell, and jumps over the rest.
    #[derive(Deserialize)]
    struct Probe {
        v: u32,
        event: std::collections::BTreeMap<String, serde::de::IgnoredAny>,
    }
    let probe: Probe = serde_json::from_slice(bytes).ok()?;
    if probe.v > VERSION {
        return Some(format!("version {}", probe.v));
    }
    let unknown = probe.event.into_keys().find(|kind| !KINDS.contains(&kind.as_str()))?;
    Some(format!("kind `{}`", unknown.escape_default()))
}

/// A value that stands as its text form: an id, a name, a pattern.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Text<T>(T);

impl<T: Clone> From<&T> for Text<T> {
    fn from(value: &T) -> Self {
        Self(value.clone())
    }
}

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Reads the text where it stands.
        struct Parse<T>(PhantomData<T>);

        impl<T: FromStr<Err: Display>> Visitor<'_> for Parse<T> {
            type Value = Text<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text<T>, E> {
                text.parse().map(Text).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Parse(PhantomData))
    }
}

/// Bytes that stand as lower-case hexadecimal.
#[derive(Clone, PartialEq, Eq)]
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Each as its stored text.
fn texts<'a, T: Clone + 'a, C: FromIterator<Text<T>>>(all: impl IntoIterator<Item = &'a T>) -> C {
    all.into_iter().map(Text::from).collect()
}

/// Each from its stored text.
fn untexts<T, C: FromIterator<T>>(all: impl IntoIterator<Item = Text<T>>) -> C {
    all.into_iter().map(|text| text.0).collect()
}

/// Spans in the log are whole seconds.
const fn seconds(span: &Duration) -> u64 {
    span.as_secs()
}

/// A count that cannot be none.
fn some(count: u32) -> Result<NonZeroU32, Invalid> {
    NonZeroU32::new(count).ok_or_else(|| Invalid::new("count", "must not be zero"))
}

#[cfg(test)]
mod tests;
