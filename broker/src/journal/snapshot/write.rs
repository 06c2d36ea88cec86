//! Writing a snapshot.

use std::io::{self, Write};

use dayfly_verifier::id::SnapshotDigest;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::super::stored::case::CaseV1;
use super::super::stored::snapshot::StateV1;
use super::{CASES, MAX_FRAME_BYTES, TITLE, malformed, seal};
use crate::core::state::{FOLD, State};

/// Writes `state` to `out`, and says the digest of what was written. Fails when `stop` says so.
/// The same state makes the same bytes.
pub(super) fn write(
    state: &State,
    out: &mut dyn Write,
    stop: &dyn Fn() -> bool,
) -> io::Result<SnapshotDigest> {
    write_in(state, out, stop, MAX_FRAME_BYTES)
}

/// The same, with no frame longer than `most`.
pub(super) fn write_in(
    state: &State,
    out: &mut dyn Write,
    stop: &dyn Fn() -> bool,
    most: u32,
) -> io::Result<SnapshotDigest> {
    writeln!(out, "{TITLE}{FOLD}")?;
    let first = frame(out, &encoded(&StateV1::from(state))?, most)?;
    let mut digests = vec![first.ok_or_else(too_long)?];
    let mut cases = state.cases().map(CaseV1::from).peekable();
    let stopped = || if stop() { Err(io::Error::other("it was stopped")) } else { Ok(()) };
    while cases.peek().is_some() {
        stopped()?;
        let some: Vec<CaseV1> = cases.by_ref().take(CASES).collect();
        frames(out, &some, most, &mut digests)?;
    }
    stopped()?;
    Ok(seal(digests))
}

/// Writes the cases in one frame, or in as many as it takes.
fn frames(
    out: &mut dyn Write,
    cases: &[CaseV1],
    most: u32,
    digests: &mut Vec<[u8; 32]>,
) -> io::Result<()> {
    if let Some(digest) = frame(out, &encoded(&cases)?, most)? {
        digests.push(digest);
        return Ok(());
    }
    let (half, rest) = cases.split_at(cases.len() / 2);
    if half.is_empty() {
        return Err(too_long());
    }
    frames(out, half, most, digests)?;
    frames(out, rest, most, digests)
}

/// Writes a frame and says its digest; `None`, with nothing written, if it is longer than `most`.
fn frame(out: &mut dyn Write, bytes: &[u8], most: u32) -> io::Result<Option<[u8; 32]>> {
    let len = u32::try_from(bytes.len()).ok().filter(|len| *len <= most);
    let Some(len) = len else { return Ok(None) };
    out.write_all(&len.to_be_bytes())?;
    out.write_all(bytes)?;
    Ok(Some(Sha256::digest(bytes).into()))
}

fn encoded(content: &impl Serialize) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(content).map_err(malformed)
}

fn too_long() -> io::Error {
    malformed("a part of it is too long")
}
