//! The high-water mark: how far a gateway has believed, over its restarts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::head::SignedHead;
use crate::id::{ChainHash, Epoch, FeedHash, FeedId, Seq};
use crate::invalid::Invalid;

/// How far a gateway has believed. Nothing behind or beside it is ever adopted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mark {
    /// The highest version of a trust statement that was seen.
    pub trust: u64,
    /// The end of the feed that was adopted; `None` before the first.
    pub end: Option<End>,
    /// That end as it was signed, to be shown to brokers.
    pub head: Option<SignedHead>,
    /// The epoch in which another log was shown than the one that was adopted: nothing of it is
    /// believed any more.
    pub forked: Option<Epoch>,
}

/// An end of the feed that was adopted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Which feed.
    pub feed: FeedId,
    /// The epoch.
    pub epoch: Epoch,
    /// The place of the log's last entry.
    pub seq: Seq,
    /// The hash chain over the log.
    pub journal: ChainHash,
    /// The hash over the feed entries of the epoch.
    pub hash: FeedHash,
}

/// The mark could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// The file system refused.
    #[error("the high-water mark of the feed cannot be kept: {0}")]
    Io(#[from] io::Error),
    /// The file is not what was written: the gateway must not start as if it had seen nothing.
    #[error("the high-water mark of the feed is damaged ({0}); it is not thrown away by itself")]
    Damaged(Invalid),
}

/// Keeps the mark in a directory of the gateway's own.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

const FILE: &str = "feed-mark.json";
const NEW: &str = "feed-mark.json.new";

impl Store {
    /// Keeps it in `dir`, which is made if it is missing.
    pub fn open(dir: &Path) -> Result<Self, MarkError> {
        fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The mark as it was last written; `None` if there never was one.
    pub fn load(&self) -> Result<Option<Mark>, MarkError> {
        let bytes = match fs::read(self.dir.join(FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let not_json = |_| Invalid::new("mark", "must be the JSON that was written");
        let stored: Stored =
            serde_json::from_slice(&bytes).map_err(not_json).map_err(MarkError::Damaged)?;
        stored.read().map(Some).map_err(MarkError::Damaged)
    }

    /// Writes it, all or nothing, readable by the owner alone.
    pub fn save(&self, mark: &Mark) -> Result<(), MarkError> {
        let new = self.dir.join(NEW);
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        let bytes = serde_json::to_vec(&Stored::new(mark)).map_err(io::Error::from)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        fs::rename(&new, self.dir.join(FILE))?;
        File::open(&self.dir)?.sync_all()?;
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    trust: u64,
    end: Option<StoredEnd>,
    /// Missing in what earlier versions wrote, and so is `forked`.
    #[serde(default)]
    head: Option<StoredHead>,
    #[serde(default)]
    forked: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredHead {
    head: String,
    signature: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredEnd {
    feed: String,
    epoch: String,
    seq: u64,
    journal: String,
    hash: String,
}

impl Stored {
    fn new(mark: &Mark) -> Self {
        let Mark { trust, end, head, forked } = mark;
        let end = end.map(|End { feed, epoch, seq, journal, hash }| StoredEnd {
            feed: feed.to_string(),
            epoch: epoch.to_string(),
            seq: seq.0,
            journal: journal.to_string(),
            hash: hash.to_string(),
        });
        let head = head.as_ref().map(|SignedHead { head, signature }| StoredHead {
            head: hex::encode(head),
            signature: hex::encode(signature),
        });
        Self { trust: *trust, end, head, forked: forked.map(|epoch| epoch.to_string()) }
    }

    fn read(self) -> Result<Mark, Invalid> {
        let read = |StoredEnd { feed, epoch, seq, journal, hash }| {
            Ok(End {
                feed: feed.parse()?,
                epoch: epoch.parse()?,
                seq: Seq(seq),
                journal: journal.parse()?,
                hash: hash.parse()?,
            })
        };
        let read_head = |StoredHead { head, signature }: StoredHead| {
            let not_hex = |_| Invalid::new("head", "must be the hexadecimal that was written");
            let mut bytes = [0; 64];
            hex::decode_to_slice(&signature, &mut bytes).map_err(not_hex)?;
            Ok(SignedHead { head: hex::decode(&head).map_err(not_hex)?, signature: bytes })
        };
        Ok(Mark {
            trust: self.trust,
            end: self.end.map(read).transpose()?,
            head: self.head.map(read_head).transpose()?,
            forked: self.forked.map(|epoch| epoch.parse()).transpose()?,
        })
    }
}
