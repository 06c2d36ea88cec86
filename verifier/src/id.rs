//! Identifiers. Each is a type of its own; none of them is a secret.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::invalid::Invalid;
use crate::spiffe::SpiffeId;
use crate::time::Timestamp;

/// Defines an identifier of fixed length, written in lower-case hexadecimal.
macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// From its bytes.
            #[must_use]
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// From a slice, which must have exactly the right length.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, Invalid> {
                <[u8; $len]>::try_from(bytes).map(Self).map_err(|_| {
                    Invalid::new($field, concat!("must be ", stringify!($len), " bytes long"))
                })
            }

            /// Its bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            /// From exactly as many lower-case hexadecimal digits as it prints.
            fn from_str(text: &str) -> Result<Self, Invalid> {
                let mut bytes = [0; $len];
                let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                if !lower || hex::decode_to_slice(text, &mut bytes).is_err() {
                    return Err(Invalid::new(
                        $field,
                        concat!("must be ", stringify!($len), " bytes in lower-case hexadecimal"),
                    ));
                }
                Ok(Self(bytes))
            }
        }
    };
}

bytes_id! {
    /// The life of one log between restores: a random id. Tokens of another epoch are refused.
    Epoch, 16, "epoch"
}
bytes_id! {
    /// The right that an approved request became. Derived: see [`GrantId::derive`].
    GrantId, 16, "grant"
}
bytes_id! {
    /// One token of a grant. Derived: see [`TokenId::derive`].
    TokenId, 16, "token"
}
bytes_id! {
    /// SHA-256 over the canonical form of an access request: what decisions are about.
    RequestDigest, 32, "request_digest"
}
bytes_id! {
    /// SHA-256 over the content of a policy bundle.
    BundleDigest, 32, "bundle_digest"
}
bytes_id! {
    /// Salted SHA-256 of a free text (a justification, a reason) that is kept aside and may be
    /// erased.
    TextDigest, 32, "text_digest"
}
bytes_id! {
    /// The hash chain over the journal up to and including one entry.
    ChainHash, 32, "chain_hash"
}
bytes_id! {
    /// The hash chain over the feed entries of one epoch up to and including one of them.
    FeedHash, 32, "feed_hash"
}
bytes_id! {
    /// The seal of a batch of counted uses: see [`crate::uses::Batch::digest`].
    BatchDigest, 32, "batch_digest"
}
bytes_id! {
    /// The content of a snapshot of the fold of the log.
    SnapshotDigest, 32, "snapshot_digest"
}
bytes_id! {
    /// A lock, by which it is lifted.
    LockId, 16, "lock"
}
bytes_id! {
    /// Identifies one feed: the trust domain's revocations, as told by its brokers.
    FeedId, 16, "feed"
}

/// The place of an entry in the journal: 1 for the first, without gaps, in commit order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

impl Seq {
    /// The place after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a token-signing key. In a token it is an unsigned hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u32);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether it is one of version 7 (RFC 9562).
fn is_drawn(uuid: &Uuid) -> bool {
    uuid.get_version_num() == 7 && uuid.get_variant() == uuid::Variant::RFC4122
}

/// Defines an identifier that its caller draws: a UUIDv7 in canonical text form.
macro_rules! drawn_id {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A new one, of the moment `now`, with `random` for the rest.
            #[must_use]
            pub fn draw(now: Timestamp, random: [u8; 10]) -> Self {
                Self(uuid::Builder::from_unix_timestamp_millis(now.as_ms(), &random).into_uuid())
            }

            /// From its 16 bytes, which must be those of a UUID of version 7 (RFC 9562).
            pub fn from_slice(bytes: &[u8]) -> Result<Self, Invalid> {
                let drawn = Uuid::from_slice(bytes).ok().filter(is_drawn).map(Self);
                drawn.ok_or_else(|| Invalid::new($field, "must be the 16 bytes of a UUIDv7"))
            }

            /// Its bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// When it was drawn, by the clock of the caller who drew it.
            #[must_use]
            pub fn drawn_at(&self) -> Timestamp {
                let mut ms = [0; 8];
                ms.iter_mut().skip(2).zip(self.0.as_bytes()).for_each(|(to, from)| *to = *from);
                Timestamp::default().plus(std::time::Duration::from_millis(u64::from_be_bytes(ms)))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            /// From the lower-case, hyphenated form of a UUID of version 7 (RFC 9562).
            fn from_str(text: &str) -> Result<Self, Invalid> {
                let refused = || Invalid::new($field, "must be a UUIDv7 in lower-case, hyphenated form");
                let uuid = Uuid::try_parse(text).map_err(|_| refused())?;
                let canonical = uuid.as_hyphenated().to_string() == text;
                if canonical && is_drawn(&uuid) { Ok(Self(uuid)) } else { Err(refused()) }
            }
        }
    };
}

drawn_id! {
    /// Names an access request, and what becomes of it, to the workload that drew it.
    RequestId, "request_id"
}
drawn_id! {
    /// Names one exchange, so that a retry is the same exchange.
    ExchangeId, "exchange_id"
}
drawn_id! {
    /// Names one use of a counted grant, so that a retry is the same use.
    UseId, "use_id"
}

/// The first 16 bytes of SHA-256 over the parts, each behind its length as eight big-endian bytes.
fn derive(kind: &str, epoch: &Epoch, caller: &SpiffeId, drawn: &[u8; 16]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in [kind.as_bytes(), epoch.as_bytes(), caller.as_str().as_bytes(), drawn] {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    let mut id = [0; 16];
    id.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
    id
}

impl GrantId {
    /// The id of what `request` of `caller` becomes. A caller's draw names nothing outside itself.
    #[must_use]
    pub fn derive(epoch: &Epoch, caller: &SpiffeId, request: &RequestId) -> Self {
        Self(derive("grant", epoch, caller, request.as_bytes()))
    }
}

impl TokenId {
    /// The id of the token that `exchange` of `caller` yields.
    #[must_use]
    pub fn derive(epoch: &Epoch, caller: &SpiffeId, exchange: &ExchangeId) -> Self {
        Self(derive("token", epoch, caller, exchange.as_bytes()))
    }
}

/// Defines a name of a fixed alphabet.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $field:literal, $max:literal, $extra:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                let starts = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
                let alphabet = |b: &u8| b.is_ascii_alphanumeric() || $extra.as_bytes().contains(b);
                if !starts || text.len() > $max || !text.as_bytes().iter().all(alphabet) {
                    return Err(Invalid::new(
                        $field,
                        concat!(
                            "must be 1 to ", stringify!($max), " of the characters a-z A-Z 0-9 ",
                            $extra, " and begin with a letter or digit",
                        ),
                    ));
                }
                Ok(Self(text.into()))
            }
        }
    };
}

name! {
    /// The task for which a workload asks: an id from wherever tasks are kept.
    TaskId, "task", 64, "-_.:"
}
name! {
    /// Why a workload asks, as a name that the policy bundle knows.
    Purpose, "purpose", 64, "-_."
}
name! {
    /// A person, by the name under which the policy bundle lists them.
    PersonId, "person", 64, "-_."
}
name! {
    /// A group of people, by its name in the policy bundle.
    GroupId, "group", 64, "-_."
}
name! {
    /// One process of a gateway: gateways may run as several instances.
    InstanceId, "instance", 64, "-_."
}
name! {
    /// A fixed word for why a use was refused: see [`crate::reject::Reject::code`].
    ReasonCode, "reason", 32, "_"
}

impl ReasonCode {
    /// One of our own words.
    pub(crate) fn fixed(word: &'static str) -> Self {
        Self(word.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spiffe(text: &str) -> SpiffeId {
        text.parse().unwrap()
    }

    #[test]
    fn hexadecimal_is_refused_in_any_other_form() {
        let id = GrantId::new([0xab; 16]);
        let text = id.to_string();
        assert_eq!(text.parse::<GrantId>().unwrap(), id);
        for bad in [text.to_uppercase(), format!("{text}00"), text[2..].into(), "g".repeat(32)] {
            assert!(bad.parse::<GrantId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn drawn_ids_are_version_7_in_one_form() {
        let now = Timestamp::from_ms(1_700_000_000_123).unwrap();
        let id = RequestId::draw(now, [7; 10]);
        assert_eq!(id.to_string().parse::<RequestId>().unwrap(), id);
        assert_eq!(id.drawn_at(), now);
        let four = "936da01f-9abd-4d9d-80c7-02af85c822a8";
        for bad in [id.to_string().to_uppercase(), id.to_string().replace('-', ""), four.into()] {
            assert!(bad.parse::<RequestId>().is_err(), "{bad}");
        }
        assert_eq!(RequestId::from_slice(id.as_bytes()).unwrap(), id);
        let four = Uuid::parse_str(four).unwrap();
        for bad in [&four.as_bytes()[..], &id.as_bytes()[1..], &[]] {
            assert!(RequestId::from_slice(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn derived_ids_depend_on_kind_epoch_caller_and_draw() {
        let (epoch, other) = (Epoch::new([1; 16]), Epoch::new([2; 16]));
        let (a, b) = (spiffe("spiffe://x.test/a"), spiffe("spiffe://x.test/b"));
        let now = Timestamp::from_secs(1).unwrap();
        let drawn = RequestId::draw(now, [0; 10]);
        let id = GrantId::derive(&epoch, &a, &drawn);
        assert_eq!(id, GrantId::derive(&epoch, &a, &drawn));
        assert_ne!(id, GrantId::derive(&other, &a, &drawn));
        assert_ne!(id, GrantId::derive(&epoch, &b, &drawn));
        assert_ne!(id, GrantId::derive(&epoch, &a, &RequestId::draw(now, [1; 10])));
        let token = TokenId::derive(&epoch, &a, &ExchangeId::draw(now, [0; 10]));
        assert_ne!(id.as_bytes(), token.as_bytes());
    }

    #[test]
    fn names_refuse_what_their_alphabet_lacks() {
        for bad in ["", "-a", "a b", "a\n", "ä", &"a".repeat(65), "a/b"] {
            assert!(bad.parse::<TaskId>().is_err(), "{bad:?}");
        }
        assert!("a:b".parse::<TaskId>().is_ok());
        assert!("a:b".parse::<PersonId>().is_err());
    }
}
