//! Snapshots, each a file beside that of the log, named after it: `journal.db-snapshot-<place>`.
//! A half-written one has another name until it is whole and on the disk.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use dayfly_verifier::id::Seq;

use super::super::Snapshots;
use super::{Sqlite, file};

/// What the name of a snapshot has after that of the log; its place follows, in so many digits.
const MARK: &str = "-snapshot-";
const DIGITS: usize = 20;
/// How much is written at once.
const AT_ONCE_BYTES: usize = 1 << 20;

impl Sqlite {
    fn snapshot_path(&self, seq: Seq) -> PathBuf {
        let mut path = self.place.path().as_os_str().to_owned();
        path.push(format!("{MARK}{:0DIGITS$}", seq.0));
        path.into()
    }

    fn dir(&self) -> &Path {
        let dir = self.place.path().parent().unwrap_or(Path::new(""));
        if dir.as_os_str().is_empty() { Path::new(".") } else { dir }
    }

    /// All files of snapshots, with their places, and whether they are whole.
    fn snapshot_files(&self) -> io::Result<Vec<(Seq, bool, PathBuf)>> {
        let prefix = self.place.path().file_name().and_then(|name| name.to_str());
        let prefix = format!("{}{MARK}", prefix.unwrap_or_default());
        let mut files = Vec::new();
        for entry in fs::read_dir(self.dir())? {
            let entry = entry?;
            let name = entry.file_name();
            let rest = name.to_str().and_then(|name| name.strip_prefix(&prefix));
            let parts = rest.and_then(|rest| rest.split_at_checked(DIGITS));
            if let Some((place, end)) = parts
                && let Ok(place) = place.parse()
                && is_of_a_snapshot(end)
            {
                files.push((Seq(place), end.is_empty(), entry.path()));
            }
        }
        Ok(files)
    }
}

impl Snapshots for Sqlite {
    fn keep_snapshot(
        &self,
        seq: Seq,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let whole = self.snapshot_path(seq);
        let mut half = whole.clone().into_os_string();
        half.push(format!(".{}", hex::encode(self.me)));
        let half = PathBuf::from(half);
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half)?;
        let keep = || {
            // For as long as it is written: it is not one that a broker left behind.
            made.try_lock()?;
            let mut out = BufWriter::with_capacity(AT_ONCE_BYTES, made);
            write(&mut out)?;
            out.flush()?;
            out.get_ref().sync_all()?;
            fs::rename(&half, &whole)?;
            File::open(self.dir())?.sync_all()
        };
        keep().inspect_err(|_| {
            // It is forgotten with the next one, otherwise.
            let _ = fs::remove_file(&half);
        })
    }

    fn snapshots(&self) -> io::Result<Vec<Seq>> {
        let files = self.snapshot_files()?.into_iter();
        let mut places: Vec<Seq> =
            files.filter(|(_, whole, _)| *whole).map(|(seq, ..)| seq).collect();
        places.sort_unstable_by(|one, other| other.cmp(one));
        Ok(places)
    }

    fn snapshot(&self, seq: Seq) -> io::Result<Box<dyn Read + Send>> {
        let path = self.snapshot_path(seq);
        file::plain(&path).map_err(io::Error::other)?;
        Ok(Box::new(File::open(path)?))
    }

    fn forget_snapshots(&self, seq: Seq) -> io::Result<()> {
        for (_, whole, path) in self.snapshot_files()?.into_iter().filter(|(at, ..)| *at < seq) {
            if !whole && is_being_written(&path)? {
                continue;
            }
            match fs::remove_file(path) {
                // Another broker was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => done?,
            }
        }
        Ok(())
    }
}

/// Whether the name of a file ends so after the place of a snapshot: with nothing more where it is
/// whole, and with the name of who writes it where it is half-written. Whatever else is not ours.
fn is_of_a_snapshot(end: &str) -> bool {
    end.is_empty()
        || end
            .strip_prefix('.')
            .is_some_and(|who| who.len() == 32 && who.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether somebody is writing this file: they hold a lock on it, which goes with their process.
fn is_being_written(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
