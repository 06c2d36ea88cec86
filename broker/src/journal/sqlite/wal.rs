//! The write-ahead log as it lies there. SQLite reads it up to the first frame that is not as it
//! was written, and says nothing of what stands behind: right after a crash, and wrong for
//! evidence. The form: <https://sqlite.org/fileformat2.html#walformat>.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

use super::super::JournalError;
use super::{corrupt, unavailable};

const HEADER: usize = 32;
const FRAME: usize = 24;
/// The lowest bit says in which order the checksums take bytes.
const MAGIC: u32 = 0x377f_0682;

/// Refuses a write-ahead log in which something stands behind a frame that is not as it was
/// written. A crash leaves only what was never committed like that, at the end: a commit behind
/// which more was written was durable before.
pub(super) fn check(path: &Path) -> Result<(), JournalError> {
    let found = damage(path).map_err(|e| unavailable(&format!("`{}`: {e}", path.display())))?;
    // A broker may write meanwhile: then another look finds another thing.
    if found.is_some() && damage(path).is_ok_and(|again| again == found) {
        return Err(corrupt(
            "stands in a write-ahead log that was changed or damaged: what was written last is \
             lost",
        ));
    }
    Ok(())
}

/// The salts of the log, and the frame from which on what was committed cannot be read, if so; 0
/// for its header.
fn damage(path: &Path) -> std::io::Result<Option<([u8; 8], u64)>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => BufReader::new(opened?),
    };
    let mut header = [0; HEADER];
    if !fill(&mut file, &mut header)? {
        return Ok(None);
    }
    let salts: [u8; 8] = part(&header, 16);
    let (magic, page) = (word(&header, 0), word(&header, 8));
    let big = magic & 1 == 1;
    let mut sum = checksum(big, (0, 0), &part::<24>(&header, 0));
    let known = magic & !1 == MAGIC && page.is_power_of_two() && (512..=65_536).contains(&page);
    if !known || sum != (word(&header, 24), word(&header, 28)) {
        return Ok(Some((salts, 0)));
    }
    let mut frame = vec![0; FRAME.saturating_add(usize::try_from(page).unwrap_or(0))];
    let (mut broken, mut committed) = (None, false);
    for n in 1.. {
        if !fill(&mut file, &mut frame)? {
            break;
        }
        let (same, commits) = (part::<8>(&frame, 8) == salts, word(&frame, 4) != 0);
        if broken.is_some() {
            if same && committed {
                return Ok(broken);
            }
            committed |= same && commits;
            continue;
        }
        let content = frame.get(FRAME..).unwrap_or_default();
        sum = checksum(big, checksum(big, sum, &part::<8>(&frame, 0)), content);
        if !same || sum != (word(&frame, 16), word(&frame, 20)) {
            // One of before the log began anew says nothing of this one.
            (broken, committed) = (Some((salts, n)), same && commits);
        }
    }
    Ok(None)
}

/// Reads all of `bytes`, and says whether there was so much.
fn fill(file: &mut impl Read, bytes: &mut [u8]) -> std::io::Result<bool> {
    match file.read_exact(bytes) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

fn part<const LEN: usize>(bytes: &[u8], at: usize) -> [u8; LEN] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; LEN])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(part(bytes, at))
}

fn checksum(big: bool, (mut one, mut two): (u32, u32), bytes: &[u8]) -> (u32, u32) {
    let read =
        |word: [u8; 4]| if big { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) };
    for pair in bytes.as_chunks().0.as_chunks().0 {
        let [first, second] = (*pair).map(read);
        one = one.wrapping_add(first).wrapping_add(two);
        two = two.wrapping_add(second).wrapping_add(one);
    }
    (one, two)
}

#[cfg(test)]
mod tests {
    use super::super::super::samples::{opening, revocation};
    use super::super::super::{Journal as _, chain};
    use super::super::Sqlite;
    use super::*;
    use crate::core::event::Head;

    /// The bytes of a write-ahead log with a commit for each of twelve entries, and how long it was
    /// after each.
    async fn written() -> (Vec<u8>, Vec<usize>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        let store = Sqlite::create(&path).unwrap();
        let (mut head, mut ends) = (Head::ORIGIN, Vec::new());
        for n in 0..12 {
            let entry = if n == 0 { opening() } else { revocation(n) };
            head = *store.append(&head, &chain(&head, &[entry]).unwrap()).await.unwrap();
            ends.push(std::fs::read(dir.path().join("journal.db-wal")).unwrap().len());
        }
        (std::fs::read(dir.path().join("journal.db-wal")).unwrap(), ends)
    }

    #[tokio::test]
    async fn a25_a_changed_byte_of_the_write_ahead_log_is_found_unless_a_crash_could_leave_it() {
        let (log, ends) = written().await;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wal");
        let looked = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            check(&path)
        };
        assert_eq!(looked(&log), Ok(()));
        let mut changed = log.clone();
        // All of the header and of the first frames' headers, and some of everything.
        let heads = (0..HEADER + FRAME).chain((4096 + 56)..(4096 + 80));
        for at in heads.chain((0..ends[8]).step_by(53)) {
            changed[at] ^= 1 << (at % 8);
            let found = looked(&changed);
            assert!(matches!(found, Err(JournalError::Corrupt { .. })), "{at}: {found:?}");
            changed[at] = log[at];
        }
        // Whoever is killed leaves what it wrote so far, over what was written before the log
        // began anew, or half of what it wrote last.
        for end in (HEADER..log.len()).step_by(997).chain(ends.clone()) {
            assert_eq!(looked(&log[..end]), Ok(()), "{end}");
            let mut over = vec![0x5a; log.len()];
            over[..end].copy_from_slice(&log[..end]);
            assert_eq!(looked(&over), Ok(()), "{end}");
        }
        for at in (ends[10]..ends[11]).step_by(53) {
            changed[at] ^= 1;
            assert_eq!(looked(&changed), Ok(()), "{at}");
            changed[at] = log[at];
        }
        // Or all of it but the first frame, in whose place one of before the log began anew stands.
        let torn = ends[10];
        assert!(ends[11] - torn > FRAME + 4096, "it is the only one");
        changed[torn + 4..torn + 8].copy_from_slice(&[0, 0, 0, 9]);
        changed[torn + 8] ^= 1;
        assert_eq!(looked(&changed), Ok(()));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(check(&path), Ok(()));
    }
}
