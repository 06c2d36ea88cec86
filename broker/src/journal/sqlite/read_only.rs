//! The file of a log as evidence: read while neither it nor anything beside it is changed, made or
//! need be writable. Must never leave out what stands in the write-ahead log.

use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::super::{JournalError, StoredEntry};
use super::file::{self, BUSY};
use super::{corrupt, entries, failed, unavailable, wal};
use crate::core::event::Head;

/// The file of a log, open for reading alone. A broker may have it open meanwhile.
pub struct ReadOnly {
    connection: Connection,
    path: PathBuf,
    way: Way,
}

/// How SQLite is told to read without writing, by what lies beside the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// There is shared memory. If nobody holds it, SQLite believes none of it, and makes the index
    /// of the write-ahead log anew for itself (<https://sqlite.org/wal.html#readonly>).
    Shared,
    /// There is a write-ahead log and no shared memory: nobody has the file open. Without locks,
    /// SQLite takes memory of its own instead.
    Log,
    /// There is no write-ahead log: nobody has the file open, and all is in it.
    Tables,
}

impl ReadOnly {
    /// Opens the file, which must exist and be no link; whoever may read it may.
    ///
    /// [`JournalError::Unavailable`] where what belongs to it is not there or cannot be read.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let path = file::by_real_directory(path)?;
        // SQLite would delete the write-ahead log of a file that is empty.
        match length(&path)? {
            None => return Err(unavailable(&format!("there is no `{}`", path.display()))),
            Some(0) => return Err(corrupt("is in a file that is empty")),
            Some(_) => {}
        }
        let way = Way::of(&path)?;
        wal::check(&file::beside(&path, "-wal"))?;
        let mut log = Self { connection: connect(&path, way)?, path, way };
        log.look(|connection| {
            file::check_schema(connection)?;
            file::check_head(connection)
        })?;
        Ok(log)
    }

    /// As [`super::Journal::read`], of what nobody has confirmed.
    pub fn read(&mut self, after: &Head, limit: usize) -> Result<Vec<StoredEntry>, JournalError> {
        self.look(|connection| entries(connection, after, limit))
    }

    fn look<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        let looked = self.connection.transaction().map_err(failed).and_then(|tx| work(&tx));
        // Where no locks are held, another may have written meanwhile.
        if Way::of(&self.path)? != self.way {
            return Err(unavailable("somebody else opened or closed it meanwhile"));
        }
        looked
    }
}

impl Way {
    fn of(path: &Path) -> Result<Self, JournalError> {
        let at = |end| length(&file::beside(path, end));
        if at("-journal")?.is_some() {
            let what = "`-journal` lies beside it: something else than a broker wrote to it";
            return Err(unavailable(what));
        }
        match (at("-wal")?, at("-shm")?) {
            (None, Some(_)) => {
                let what = "`-shm` lies beside it and `-wal` does not: what was written last may \
                            be missing";
                Err(unavailable(what))
            }
            (Some(_), Some(_)) => Ok(Self::Shared),
            (None | Some(0), None) => Ok(Self::Tables),
            (Some(_), None) => Ok(Self::Log),
        }
    }

    /// The parameters of a URI that say so (<https://sqlite.org/uri.html>).
    const fn parameters(self) -> &'static str {
        match self {
            Self::Shared => "readonly_shm=1",
            Self::Log => "vfs=unix-none",
            Self::Tables => "immutable=1",
        }
    }
}

fn connect(path: &Path, way: Way) -> Result<Connection, JournalError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let uri = format!("file:{}?{}", escaped(path), way.parameters());
    let connection = Connection::open_with_flags(uri, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    let left = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    connection.set_db_config(left, true).map_err(failed)?;
    connection.pragma_update(None, "trusted_schema", "OFF").map_err(failed)?;
    if way == Way::Log {
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(failed)?;
    }
    Ok(connection)
}

/// A path as it stands in a URI.
fn escaped(path: &Path) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    let escape = |byte: &u8| match *byte {
        byte if plain(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02x}"),
    };
    path.as_os_str().as_bytes().iter().map(escape).collect()
}

/// The length of a plain file; `None` if there is none.
fn length(path: &Path) -> Result<Option<u64>, JournalError> {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_file() => Ok(Some(meta.len())),
        Ok(_) => Err(unavailable(&format!("`{}` must be a plain file", path.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unavailable(&format!("`{}`: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsString;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use sha2::{Digest as _, Sha256};

    use super::super::super::samples::{opening, revocation};
    use super::super::super::{Journal as _, chain};
    use super::super::Sqlite;
    use super::*;

    /// The files of a log of five entries, of which the last two are in the write-ahead log alone,
    /// as a killed broker leaves them; and its head.
    async fn killed() -> (tempfile::TempDir, Head) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        let entries: Vec<_> = std::iter::once(opening()).chain((1..5).map(revocation)).collect();
        let entries = chain(&Head::ORIGIN, &entries).unwrap();
        let store = Sqlite::create(&path).unwrap();
        store.append(&Head::ORIGIN, &entries[..3]).await.unwrap();
        file::empty_log(&file::connect(&path).unwrap()).unwrap();
        store.append(entries[2].head(), &entries[3..]).await.unwrap();
        let left = tempfile::tempdir().unwrap();
        for end in ["", "-wal", "-shm"] {
            let file = format!("journal.db{end}");
            fs::copy(dir.path().join(&file), left.path().join(&file)).unwrap();
        }
        (left, *entries[4].head())
    }

    /// All files of a directory: which file it is, when it was written, and what is in it.
    type Files = BTreeMap<OsString, (u64, i64, i64, Vec<u8>)>;

    fn files(dir: &Path) -> Files {
        let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
        let file = |entry: fs::DirEntry| {
            let (meta, bytes) = (entry.metadata().unwrap(), fs::read(entry.path()).unwrap());
            let hash = Sha256::digest(bytes).to_vec();
            (entry.file_name(), (meta.ino(), meta.mtime(), meta.mtime_nsec(), hash))
        };
        entries.map(file).collect()
    }

    /// The places that are read, with nothing changed: where it could be, and where it could not.
    fn read(dir: &Path) -> Result<Vec<u64>, JournalError> {
        let path = dir.join("journal.db");
        let look = || {
            let before = files(dir);
            let read = ReadOnly::open(&path).and_then(|mut log| log.read(&Head::ORIGIN, 99));
            assert_eq!(files(dir), before);
            read.map(|read| read.iter().map(|entry| entry.head().seq.0).collect::<Vec<_>>())
        };
        let set = |mode: u32, of_files: u32| {
            for entry in fs::read_dir(dir).unwrap() {
                let mode = Permissions::from_mode(of_files);
                fs::set_permissions(entry.unwrap().path(), mode).unwrap();
            }
            fs::set_permissions(dir, Permissions::from_mode(mode)).unwrap();
        };
        let open = look();
        set(0o500, 0o444);
        let shut = look();
        set(0o700, 0o600);
        assert_eq!(open, shut);
        open
    }

    fn remove(dir: &Path, end: &str) {
        fs::remove_file(dir.join(format!("journal.db{end}"))).unwrap();
    }

    fn says(read: Result<Vec<u64>, JournalError>, what: &str) {
        assert!(read.as_ref().is_err_and(|e| e.to_string().contains(what)), "{read:?}: {what}");
    }

    #[tokio::test]
    async fn a25_what_is_in_the_write_ahead_log_is_read_and_nothing_is_changed() {
        let (dir, _) = killed().await;
        let dir = dir.path();
        assert_eq!(read(dir), Ok(vec![1, 2, 3, 4, 5]));
        // Shared memory of which nothing is to be believed, and none.
        for shared in [vec![], vec![0xff; 32 << 10]] {
            fs::write(dir.join("journal.db-shm"), shared).unwrap();
            assert_eq!(read(dir), Ok(vec![1, 2, 3, 4, 5]));
        }
        remove(dir, "-shm");
        assert_eq!(read(dir), Ok(vec![1, 2, 3, 4, 5]));
        // Nothing tells of a write-ahead log that was left out as a whole.
        remove(dir, "-wal");
        assert_eq!(read(dir), Ok(vec![1, 2, 3]));
        fs::write(dir.join("journal.db-wal"), "").unwrap();
        assert_eq!(read(dir), Ok(vec![1, 2, 3]));
        fs::write(dir.join("journal.db-shm"), "").unwrap();
        assert_eq!(read(dir), Ok(vec![1, 2, 3]));
    }

    #[tokio::test]
    async fn a25_nothing_is_read_where_something_that_belongs_to_it_is_missing() {
        let (dir, _) = killed().await;
        let dir = dir.path();
        remove(dir, "-wal");
        says(read(dir), "may be missing");
        remove(dir, "-shm");
        fs::write(dir.join("journal.db-journal"), "").unwrap();
        says(read(dir), "`-journal` lies beside it");
        remove(dir, "-journal");
        assert_eq!(read(dir), Ok(vec![1, 2, 3]));

        let (dir, _) = killed().await;
        let dir = dir.path();
        fs::write(dir.join("journal.db"), "").unwrap();
        says(read(dir), "empty");
        remove(dir, "");
        says(read(dir), "there is no");
        std::os::unix::fs::symlink(dir.join("journal.db-wal"), dir.join("journal.db")).unwrap();
        let linked = ReadOnly::open(&dir.join("journal.db")).map(drop);
        assert!(linked.is_err_and(|e| e.to_string().contains("plain file")));
    }

    /// SQLite leaves out what it cannot read of it, or deletes it where it may.
    #[tokio::test]
    async fn a25_a_write_ahead_log_that_was_overwritten_is_found_and_left_there() {
        let (dir, _) = killed().await;
        fs::write(dir.path().join("journal.db-wal"), [7; 9_999]).unwrap();
        says(read(dir.path()), "changed or damaged");
        remove(dir.path(), "-shm");
        says(read(dir.path()), "changed or damaged");
    }

    /// As it lies where a name means something in a URI.
    #[tokio::test]
    async fn any_name_is_read_as_it_is() {
        let (dir, head) = killed().await;
        let odd = dir.path().join("50%25?mode=rwc#a b\u{fc}");
        fs::create_dir(&odd).unwrap();
        for end in ["", "-wal", "-shm"] {
            let file = format!("journal.db{end}");
            fs::rename(dir.path().join(&file), odd.join(&file)).unwrap();
        }
        let mut log = ReadOnly::open(&odd.join("journal.db")).unwrap();
        assert_eq!(log.read(&Head::ORIGIN, 99).unwrap().last().map(|e| *e.head()), Some(head));
    }

    /// Where no locks tell who else has it open.
    #[tokio::test]
    async fn a25_a_broker_that_starts_meanwhile_is_noticed() {
        let (dir, head) = killed().await;
        let path = dir.path().join("journal.db");
        remove(dir.path(), "-shm");
        let mut log = ReadOnly::open(&path).unwrap();
        let store = Sqlite::open(&path).unwrap();
        let more = chain(&head, &[revocation(9)]).unwrap();
        store.append(&head, &more).await.unwrap();
        let read = log.read(&Head::ORIGIN, 99);
        assert!(matches!(read, Err(JournalError::Unavailable(_))), "{read:?}");
        // Beside it, it goes on with what was appended.
        let mut log = ReadOnly::open(&path).unwrap();
        assert_eq!(log.read(&head, 99).unwrap(), more);
        let last = *more[0].head();
        let more = chain(&last, &[revocation(10)]).unwrap();
        store.append(&last, &more).await.unwrap();
        assert_eq!(log.read(&last, 99).unwrap(), more);
    }
}
