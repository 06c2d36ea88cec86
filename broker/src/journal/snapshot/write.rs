//! Writing a snapshot.

use std::io::{self, Write};

use dayfly_verifier::id::SnapshotDigest;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::super::stored::case::CaseV1;
use super::super::stored::snapshot::StateV1;
use super::{MAX_FRAME_BYTES, TITLE, malformed, seal};
use crate::core::state::{FOLD, State};

/// How many cases one frame holds.
const CASES: usize = 512;

/// Writes `state` to `out`, and says the digest of what was written. Fails when `stop` says so.
/// The same state makes the same bytes.
pub(super) fn write(
    state: &State,
    out: &mut dyn Write,
    stop: &dyn Fn() -> bool,
) -> io::Result<SnapshotDigest> {
    writeln!(out, "{TITLE}{FOLD}")?;
    let mut digests = vec![frame(out, &StateV1::from(state))?];
    let mut cases = state.cases().map(CaseV1::from).peekable();
    let stopped = || if stop() { Err(io::Error::other("it was stopped")) } else { Ok(()) };
    while cases.peek().is_some() {
        stopped()?;
        let some: Vec<CaseV1> = cases.by_ref().take(CASES).collect();
        digests.push(frame(out, &some)?);
    }
    stopped()?;
    Ok(seal(digests))
}

fn frame(out: &mut dyn Write, content: &impl Serialize) -> io::Result<[u8; 32]> {
    let bytes = postcard::to_stdvec(content).map_err(malformed)?;
    let len = u32::try_from(bytes.len()).ok().filter(|len| *len <= MAX_FRAME_BYTES);
    let len = len.ok_or_else(|| malformed("a part of it is too long"))?;
    out.write_all(&len.to_be_bytes())?;
    out.write_all(&bytes)?;
    Ok(Sha256::digest(&bytes).into())
}
