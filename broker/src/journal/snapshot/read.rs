//! Reading a snapshot, on several threads: most of a start is this.

use std::io::{self, BufRead as _, BufReader, Read};
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::thread;

use dayfly_verifier::id::SnapshotDigest;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::time::Timestamp;
use sha2::{Digest as _, Sha256};

use super::super::stored::case::CaseV1;
use super::super::stored::snapshot::StateV1;
use super::{MAX_FRAME_BYTES, TITLE, Unfit, malformed, seal};
use crate::core::case::Case;
use crate::core::event::Head;
use crate::core::index::{Ends, Grouped, Index, Named, Tokens};
use crate::core::limits::Limits;
use crate::core::state::{FOLD, State};

/// The longest first line.
const TITLE_BYTES: u64 = 64;
/// How much is read ahead.
const AHEAD_BYTES: usize = 1 << 20;

/// A snapshot of which the beginning was read.
pub(super) struct Reader {
    state: StateV1,
    digest: [u8; 32],
    rest: Content,
}

type Content = BufReader<Box<dyn Read + Send>>;

/// A frame of cases: its place, its digest, and what it holds.
type Frame = (usize, [u8; 32], Vec<Named>);

impl Reader {
    /// Reads the beginning.
    pub(super) fn open(content: Box<dyn Read + Send>) -> Result<Self, Unfit> {
        let mut rest = BufReader::with_capacity(AHEAD_BYTES, content);
        let mut title = Vec::new();
        rest.by_ref().take(TITLE_BYTES).read_until(b'\n', &mut title)?;
        let title = String::from_utf8_lossy(&title);
        let fold = title.strip_prefix(TITLE).and_then(|title| title.strip_suffix('\n'));
        let fold = fold.ok_or_else(|| malformed("it does not begin as one"))?;
        if fold != FOLD.to_string() {
            return Err(Unfit::Fold(fold.escape_default().to_string()));
        }
        let bytes = frame(&mut rest)?.ok_or_else(|| malformed("it is empty"))?;
        let state = postcard::from_bytes(&bytes).map_err(malformed)?;
        Ok(Self { state, digest: Sha256::digest(&bytes).into(), rest })
    }

    /// The end of what was folded, as the snapshot says.
    pub(super) fn head(&self) -> Head {
        self.state.head()
    }

    /// The state, if the digest of all that was read is `digest`.
    pub(super) fn finish(self, digest: SnapshotDigest, limits: Limits) -> Result<State, Unfit> {
        let frames = frames(self.rest)?;
        let others = frames.iter().map(|(_, digest, _)| *digest);
        if seal(std::iter::once(self.digest).chain(others)) != digest {
            return Err(Unfit::Digest);
        }
        let cases: Vec<Named> = frames.into_iter().flat_map(|(.., cases)| cases).collect();
        let time = self.state.time().map_err(malformed)?;
        let index = index(&cases, &self.state.head(), time);
        Ok(self.state.with(cases, index, limits).map_err(malformed)?)
    }
}

/// The next frame; `None` at the end.
fn frame(content: &mut Content) -> io::Result<Option<Vec<u8>>> {
    if content.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut len = [0; 4];
    content.read_exact(&mut len)?;
    let len = u32::from_be_bytes(len);
    if len > MAX_FRAME_BYTES {
        return Err(malformed("a part of it is too long"));
    }
    let mut bytes = Vec::new();
    content.by_ref().take(len.into()).read_to_end(&mut bytes)?;
    match u32::try_from(bytes.len()) {
        Ok(read) if read == len => Ok(Some(bytes)),
        _ => Err(malformed("it ends in the middle")),
    }
}

/// All frames of cases, in order: each thread takes the next one that nobody has taken.
fn frames(content: Content) -> io::Result<Vec<Frame>> {
    let next = Mutex::new((0_usize, content));
    let take = || {
        // Whoever panicked ends all of it below.
        let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
        let (place, content) = &mut *next;
        let here = *place;
        *place = here.saturating_add(1);
        Ok::<_, io::Error>(frame(content)?.map(|bytes| (here, bytes)))
    };
    let decode = || {
        let mut frames = Vec::new();
        while let Some((place, bytes)) = take()? {
            let stored: Vec<CaseV1> = postcard::from_bytes(&bytes).map_err(malformed)?;
            let cases = stored.into_iter().map(|stored| Case::try_from(stored).map(named));
            let cases = cases.collect::<Result<_, Invalid>>().map_err(malformed)?;
            frames.push((place, Sha256::digest(&bytes).into(), cases));
        }
        Ok::<_, io::Error>(frames)
    };
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut frames: Vec<Frame> = thread::scope(|scope| {
        let decoding: Vec<_> = (0..threads).map(|_| scope.spawn(decode)).collect();
        let each = decoding.into_iter().map(done).collect::<io::Result<Vec<_>>>();
        Ok::<_, io::Error>(each?.into_iter().flatten().collect())
    })?;
    frames.sort_unstable_by_key(|(place, ..)| *place);
    Ok(frames)
}

fn named(case: Case) -> Named {
    (case.grant_id(), case.into())
}

/// The look-ups over `cases`, in a log that ends at `head`, whose entry is of `time`.
fn index(cases: &[Named], head: &Head, time: Timestamp) -> Index {
    thread::scope(|scope| {
        let workloads = scope.spawn(|| Grouped::by_workload(cases, time));
        let tasks = scope.spawn(|| Grouped::by_task(cases, time));
        let (tokens, ends) = (Tokens::of(cases, &head.epoch), Ends::of(cases, time));
        Index::of(done(workloads), done(tasks), tokens, ends)
    })
}

fn done<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
