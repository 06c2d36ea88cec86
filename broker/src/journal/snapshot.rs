//! Snapshots of the fold: what a broker starts from, with the entries that came since, instead of
//! from all entries. A snapshot that is not the one that stands on record is never taken up.
//!
//! One is a line that names the version of the fold, then frames: the state without its cases, then
//! the cases, in the order of their ids. Its digest is over the digests of the frames.

mod read;
mod write;

use std::io::{self, Read, Write};
use std::sync::Arc;

use dayfly_verifier::id::{Seq, SnapshotDigest};
use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;

use self::read::Reader;
use self::write::write;
use super::{JournalError, Recorded, Store};
use crate::core::event::{Event, Head, Snapshot};
use crate::core::limits::Limits;
use crate::core::state::{FOLD, State};

/// What distinguishes this hash from every other one that Dayfly computes.
const DOMAIN: &[u8] = b"dayfly.snapshot.v1\0";
/// What the first line begins with; the version of the fold follows.
const TITLE: &str = "dayfly snapshot of fold ";
/// The most cases in one frame.
const CASES: usize = 512;
/// The longest frame.
const MAX_FRAME_BYTES: u32 = 256 << 20;

/// Snapshots, by the place of the last entry that they have, as a store keeps them. They are of no
/// more account than a cache: what one holds counts if the log vouches for it. These calls block.
pub trait Snapshots: Send + Sync {
    /// Keeps what `write` writes, whole and durably, or not at all.
    fn keep_snapshot(
        &self,
        seq: Seq,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()>;

    /// The places of those that are kept, the last one first.
    fn snapshots(&self) -> io::Result<Vec<Seq>>;

    /// What one holds.
    fn snapshot(&self, seq: Seq) -> io::Result<Box<dyn Read + Send>>;

    /// Forgets those before `seq`, half-written ones too.
    fn forget_snapshots(&self, seq: Seq) -> io::Result<()>;
}

/// Why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    /// Another version of the broker wrote it.
    #[error("it is of another version of the fold: {0}")]
    Fold(String),
    /// The log was replaced, or the snapshot was.
    #[error("the log does not contain the head that it names")]
    Head,
    /// It was never finished, or was put there.
    #[error("no entry says that it was taken")]
    Record,
    /// It was changed.
    #[error("its digest is not the one on record")]
    Digest,
    /// It cannot be read, or is no snapshot.
    #[error("it cannot be read: {0}")]
    Content(#[from] io::Error),
    /// The entries after it cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Keeps a snapshot of `state` in `store`, and says its digest, which is to be put on record. Fails
/// when `stop` says so. Blocks.
pub fn keep(
    store: &dyn Snapshots,
    state: &State,
    stop: &dyn Fn() -> bool,
) -> io::Result<SnapshotDigest> {
    let mut digest = None;
    store.keep_snapshot(state.head.seq, &mut |out| {
        digest = Some(write(state, out, stop)?);
        Ok(())
    })?;
    digest.ok_or_else(|| malformed("nothing was written"))
}

/// The newest state of which `store` keeps a snapshot that the log vouches for. `None` where there
/// is none: then all entries are to be folded.
pub async fn newest(store: &Arc<dyn Store>, limits: Limits) -> Option<Recorded<Arc<State>>> {
    let looked = store.clone();
    let kept = blocking(move || Ok(looked.snapshots()?)).await.unwrap_or_else(|why| {
        tracing::error!(%why, "snapshots cannot be looked for");
        Vec::new()
    });
    for seq in kept {
        match take_up(store, seq, limits).await {
            Ok(state) => return Some(state),
            // As it is meant to be after an upgrade, until the first of this version is taken.
            Err(why @ Unfit::Fold(_)) => tracing::info!(%seq, %why, "a snapshot is not used"),
            Err(why) => tracing::error!(%seq, %why, "a snapshot is not used"),
        }
    }
    None
}

async fn take_up(
    store: &Arc<dyn Store>,
    seq: Seq,
    limits: Limits,
) -> Result<Recorded<Arc<State>>, Unfit> {
    let opened = store.clone();
    let reader = blocking(move || Reader::open(opened.snapshot(seq)?)).await?;
    let head = reader.head();
    let receipt = store.head_at(head.seq).await?.filter(|there| **there == head);
    let receipt = receipt.ok_or(Unfit::Head)?;
    let digest = on_record(store, &head).await?.ok_or(Unfit::Record)?;
    let state = blocking(move || reader.finish(digest, limits)).await?;
    Recorded::at(&receipt, Arc::new(state)).map_err(|_| Unfit::Head)
}

/// The digest of the snapshot at `head`, by the first entry that says that one was taken there.
async fn on_record(
    store: &Arc<dyn Store>,
    head: &Head,
) -> Result<Option<SnapshotDigest>, JournalError> {
    const CHUNK: usize = 1024;
    let mut before = *head;
    loop {
        let entries = store.read(&before, CHUNK).await?;
        for stored in &entries {
            let event = stored.decode(&before)?.event;
            if let Event::SnapshotTaken(Snapshot { of, fold: FOLD, digest }) = event
                && of == *head
            {
                return Ok(Some(digest));
            }
            before = *stored.head();
        }
        if entries.len() < CHUNK {
            return Ok(None);
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Unfit> + Send + 'static,
) -> Result<T, Unfit> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

/// The digest of a snapshot, from those of its frames, in order.
fn seal(frames: impl IntoIterator<Item = [u8; 32]>) -> SnapshotDigest {
    let start = Sha256::new().chain_update(DOMAIN).chain_update(FOLD.to_be_bytes());
    let all = frames.into_iter().fold(start, |hash, frame| hash.chain_update(frame));
    SnapshotDigest::new(all.finalize().into())
}

fn malformed(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

/// What a snapshot of `state` holds.
#[cfg(test)]
pub(crate) fn copy(state: &State) -> io::Result<State> {
    let mut content = Vec::new();
    let digest = write(state, &mut content, &|| false)?;
    let reader = Reader::open(Box::new(io::Cursor::new(content))).map_err(io::Error::other)?;
    reader.finish(digest, state.limits).map_err(io::Error::other)
}

#[cfg(test)]
mod tests;
