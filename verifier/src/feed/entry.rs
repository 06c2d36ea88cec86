//! The bytes of feed entries, and the hashes over them. `FORMAT.md` gives both.

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::holder::HolderKey;
use crate::id::{Epoch, FeedHash, GrantId, KeyId, LockId, Seq, TokenId};
use crate::invalid::Invalid;
use crate::revocations::{FeedEntry, Kind, Lock, Target};
use crate::time::Timestamp;

/// Bytes that are no feed entry, not even of a kind unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a feed entry has no place or no end")]
pub struct Malformed;

/// Where the feed hash of an epoch starts.
#[must_use]
pub fn feed_start(epoch: &Epoch) -> FeedHash {
    let mut hash = Sha256::new();
    hash.update(b"dayfly.feed.v1\0");
    hash.update(epoch.as_bytes());
    FeedHash::new(hash.finalize().into())
}

/// The feed hash with one more entry.
#[must_use]
pub fn fold_hash(before: &FeedHash, entry: &[u8]) -> FeedHash {
    let mut hash = Sha256::new();
    hash.update(b"dayfly.feed.entry.v1\0");
    hash.update(before.as_bytes());
    prefixed(&mut hash, entry);
    FeedHash::new(hash.finalize().into())
}

/// The digest of a snapshot: over its entries, in the order in which they come.
#[must_use]
pub fn snapshot_digest<'a>(entries: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"dayfly.feed.snapshot.v1\0");
    entries.into_iter().for_each(|entry| prefixed(&mut hash, entry));
    hash.finalize().into()
}

fn prefixed(hash: &mut Sha256, entry: &[u8]) {
    hash.update(u64::try_from(entry.len()).unwrap_or(u64::MAX).to_be_bytes());
    hash.update(entry);
}

impl FeedEntry {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let kind = match &self.kind {
            Kind::Revoked(target) => {
                Some(wire::Kind::Revoked(wire::Revoked { target: Some(target_to_wire(target)) }))
            }
            Kind::Locked(lock) => Some(wire::Kind::Locked(lock_to_wire(lock))),
            Kind::Unlocked(id) => {
                Some(wire::Kind::Unlocked(wire::Unlocked { lock: id.as_bytes().to_vec() }))
            }
            Kind::Unknown => None,
        };
        let lapses_at_ms = self.lapses_at.as_ms();
        wire::Entry { seq: self.seq.0, lapses_at_ms, kind }.encode_to_vec()
    }

    /// From its bytes. What is not fully understood, to the last byte, is [`Kind::Unknown`].
    ///
    /// # Errors
    ///
    /// [`Malformed`] if not even its place and its end can be read.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let entry = wire::Entry::decode(bytes).map_err(|_| Malformed)?;
        let lapses_at = Timestamp::from_ms(entry.lapses_at_ms).map_err(|_| Malformed)?;
        if entry.seq == 0 || entry.lapses_at_ms == 0 {
            return Err(Malformed);
        }
        let kind = entry.kind.clone().and_then(|kind| kind_from_wire(kind).ok());
        let seq = Seq(entry.seq);
        let whole = entry.encode_to_vec() == bytes;
        Ok(Self { seq, lapses_at, kind: kind.filter(|_| whole).unwrap_or(Kind::Unknown) })
    }
}

fn target_to_wire(target: &Target) -> wire::Target {
    match target {
        Target::Grant(id) => wire::Target::Grant(id.as_bytes().to_vec()),
        Target::Token(id) => wire::Target::Token(id.as_bytes().to_vec()),
        Target::Block(signature) => wire::Target::Block(signature.clone()),
        Target::Delegate(grant, key) => wire::Target::Delegate(wire::Delegate {
            grant: grant.as_bytes().to_vec(),
            holder_key: key.as_bytes().to_vec(),
        }),
        Target::Workload(id) => wire::Target::Workload(id.to_string()),
        Target::Task(id) => wire::Target::Task(id.to_string()),
        Target::Prefix(resource) => wire::Target::Prefix(resource.to_string()),
        Target::Key(key) => wire::Target::Key(key.0),
    }
}

fn lock_to_wire(lock: &Lock) -> wire::Lock {
    let Lock { id, workload, task, prefix, person } = lock;
    wire::Lock {
        lock: id.as_bytes().to_vec(),
        workload: workload.as_ref().map(ToString::to_string),
        task: task.as_ref().map(ToString::to_string),
        prefix: prefix.as_ref().map(ToString::to_string),
        person: person.as_ref().map(ToString::to_string),
    }
}

fn kind_from_wire(kind: wire::Kind) -> Result<Kind, Invalid> {
    let absent = || Invalid::new("target", "must be there");
    match kind {
        wire::Kind::Revoked(wire::Revoked { target }) => {
            Ok(Kind::Revoked(match target.ok_or_else(absent)? {
                wire::Target::Grant(id) => Target::Grant(GrantId::from_slice(&id)?),
                wire::Target::Token(id) => Target::Token(TokenId::from_slice(&id)?),
                wire::Target::Block(signature) => Target::Block(signature),
                wire::Target::Delegate(wire::Delegate { grant, holder_key }) => Target::Delegate(
                    GrantId::from_slice(&grant)?,
                    HolderKey::from_slice(&holder_key)?,
                ),
                wire::Target::Workload(id) => Target::Workload(id.parse()?),
                wire::Target::Task(id) => Target::Task(id.parse()?),
                wire::Target::Prefix(resource) => Target::Prefix(resource.parse()?),
                wire::Target::Key(key) => Target::Key(KeyId(key)),
            }))
        }
        wire::Kind::Locked(wire::Lock { lock, workload, task, prefix, person }) => {
            Ok(Kind::Locked(Lock {
                id: LockId::from_slice(&lock)?,
                workload: workload.map(|text| text.parse()).transpose()?,
                task: task.map(|text| text.parse()).transpose()?,
                prefix: prefix.map(|text| text.parse()).transpose()?,
                person: person.map(|text| text.parse()).transpose()?,
            }))
        }
        wire::Kind::Unlocked(wire::Unlocked { lock }) => {
            Ok(Kind::Unlocked(LockId::from_slice(&lock)?))
        }
    }
}

/// The protobuf messages of an entry.
mod wire {
    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub(super) struct Entry {
        #[prost(uint64, tag = "1")]
        pub(super) seq: u64,
        #[prost(uint64, tag = "2")]
        pub(super) lapses_at_ms: u64,
        #[prost(oneof = "Kind", tags = "3, 4, 5")]
        pub(super) kind: Option<Kind>,
    }

    #[derive(Clone, PartialEq, Eq, prost::Oneof)]
    pub(super) enum Kind {
        #[prost(message, tag = "3")]
        Revoked(Revoked),
        #[prost(message, tag = "4")]
        Locked(Lock),
        #[prost(message, tag = "5")]
        Unlocked(Unlocked),
    }

    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub(super) struct Revoked {
        #[prost(oneof = "Target", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
        pub(super) target: Option<Target>,
    }

    #[derive(Clone, PartialEq, Eq, prost::Oneof)]
    pub(super) enum Target {
        #[prost(bytes, tag = "1")]
        Grant(Vec<u8>),
        #[prost(bytes, tag = "2")]
        Token(Vec<u8>),
        #[prost(bytes, tag = "3")]
        Block(Vec<u8>),
        #[prost(message, tag = "4")]
        Delegate(Delegate),
        #[prost(string, tag = "5")]
        Workload(String),
        #[prost(string, tag = "6")]
        Task(String),
        #[prost(string, tag = "7")]
        Prefix(String),
        #[prost(uint32, tag = "8")]
        Key(u32),
    }

    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub(super) struct Delegate {
        #[prost(bytes, tag = "1")]
        pub(super) grant: Vec<u8>,
        #[prost(bytes, tag = "2")]
        pub(super) holder_key: Vec<u8>,
    }

    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub(super) struct Lock {
        #[prost(bytes, tag = "1")]
        pub(super) lock: Vec<u8>,
        #[prost(string, optional, tag = "2")]
        pub(super) workload: Option<String>,
        #[prost(string, optional, tag = "3")]
        pub(super) task: Option<String>,
        #[prost(string, optional, tag = "4")]
        pub(super) prefix: Option<String>,
        #[prost(string, optional, tag = "5")]
        pub(super) person: Option<String>,
    }

    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub(super) struct Unlocked {
        #[prost(bytes, tag = "1")]
        pub(super) lock: Vec<u8>,
    }
}
