//! Reading a snapshot, on several threads: most of a start is this.

use std::io::{self, BufRead as _, BufReader, Read};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use dayfly_verifier::id::{GrantId, SnapshotDigest};
use sha2::{Digest as _, Sha256};

use super::super::stored::alike::Alike;
use super::super::stored::case::CaseV1;
use super::super::stored::snapshot::StateV1;
use super::{CASES, MAX_FRAME_BYTES, TITLE, Unfit, malformed, seal};
use crate::core::case::Case;
use crate::core::event::Head;
use crate::core::index::{Index, Places};
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

/// A case under its id.
type Named = (GrantId, Arc<Case>);

/// What one thread reads.
struct Part {
    /// Frames of cases: the place of each, its digest, and what it holds.
    frames: Vec<(usize, [u8; 32], Vec<Named>)>,
    /// Where these cases are found.
    places: Places,
}

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
        let time = self.state.time().map_err(malformed)?;
        let Part { frames, places } = read(self.rest, Places::new(self.state.head().epoch, time))?;
        let others = frames.iter().map(|(_, digest, _)| *digest);
        if seal(std::iter::once(self.digest).chain(others)) != digest {
            return Err(Unfit::Digest);
        }
        let cases = frames.into_iter().flat_map(|(.., cases)| cases);
        let (cases, index) = thread::scope(|scope| {
            let cases = scope.spawn(|| cases.collect());
            let workloads = scope.spawn(|| places.by_workload());
            let tasks = scope.spawn(|| places.by_task());
            let (tokens, ends) = (places.by_token(), places.ends());
            (done(cases), Index::of(done(workloads), done(tasks), tokens, ends))
        });
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

/// All frames of cases, in order, and where the cases are found: each thread takes the next frame
/// that nobody has taken. `nowhere` is what is known of no cases.
fn read(content: Content, nowhere: Places) -> io::Result<Part> {
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
        let (mut frames, mut places) = (Vec::new(), nowhere.clone());
        while let Some((place, bytes)) = take()? {
            let cases = cases(&bytes)?;
            cases.iter().for_each(|(id, case)| places.add(*id, case));
            frames.push((place, Sha256::digest(&bytes).into(), cases));
        }
        Ok::<_, io::Error>(Part { frames, places })
    };
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let parts = thread::scope(|scope| {
        let decoding: Vec<_> = (0..threads).map(|_| scope.spawn(decode)).collect();
        decoding.into_iter().map(done).collect::<io::Result<Vec<_>>>()
    })?;
    let mut all = Part { frames: Vec::new(), places: nowhere };
    for Part { mut frames, places } in parts {
        all.frames.append(&mut frames);
        all.places.join(places);
    }
    all.frames.sort_unstable_by_key(|(place, ..)| *place);
    Ok(all)
}

/// The cases in a frame. One is made of its stored form before the next one is read: what is made
/// only to be dropped stays where it is at hand.
fn cases(frame: &[u8]) -> io::Result<Vec<Named>> {
    let (count, mut rest) = postcard::take_from_bytes::<usize>(frame).map_err(malformed)?;
    let mut cases = Vec::with_capacity(count.min(CASES));
    let mut alike = Alike::default();
    for _ in 0..count {
        let (stored, after) = postcard::take_from_bytes::<CaseV1>(rest).map_err(malformed)?;
        let (id, case) = stored.read(&mut alike).map_err(malformed)?;
        cases.push((id, case.into()));
        rest = after;
    }
    if rest.is_empty() { Ok(cases) } else { Err(malformed("a part of it is too long")) }
}

fn done<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
