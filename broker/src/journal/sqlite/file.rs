//! The file itself: made, opened, checked, folded back. Must never take another file for it.

use std::fs::{Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dayfly_verifier::id::Seq;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior};

use super::super::JournalError;
use super::{corrupt, failed, head_of, head_row, unavailable};
use crate::core::event::Head;

/// Marks the file as ours: `dfly`.
const APPLICATION_ID: i64 = 0x6466_6c79;
/// The version of the tables.
const SCHEMA_VERSION: i64 = 1;
/// How long a writer waits for the writer of another process.
pub(super) const BUSY: Duration = Duration::from_millis(1000);

const SCHEMA: &str = "
    CREATE TABLE head (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        epoch BLOB NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL,
        confirmed INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE entry (
        seq INTEGER PRIMARY KEY, epoch BLOB NOT NULL, hash BLOB NOT NULL, bytes BLOB NOT NULL
    ) STRICT;
    CREATE TABLE turn (
        ticket INTEGER PRIMARY KEY AUTOINCREMENT, holder BLOB NOT NULL UNIQUE,
        seen_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE text (digest BLOB PRIMARY KEY, salt BLOB NOT NULL, body TEXT NOT NULL) STRICT;
    CREATE TABLE bundle (digest BLOB PRIMARY KEY, content BLOB NOT NULL) STRICT;
    CREATE TABLE invitation (
        id BLOB PRIMARY KEY, secret_hash BLOB NOT NULL, spiffe_id TEXT NOT NULL,
        expires_at_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE document (
        spiffe_id TEXT NOT NULL, generation INTEGER NOT NULL, key_hash BLOB NOT NULL,
        renewed_to INTEGER, issued_at_ms INTEGER NOT NULL, PRIMARY KEY (spiffe_id, generation)
    ) STRICT;
    CREATE INDEX document_by_age ON document (issued_at_ms);
    CREATE TABLE floor (spiffe_id TEXT PRIMARY KEY, generation INTEGER) STRICT;
    INSERT INTO head VALUES (1, zeroblob(16), 0, zeroblob(32), 0);
";

/// Which files they are, that of the tables and the write-ahead log beside it. A path can come to
/// name another one while this one is open.
#[derive(Debug, Clone)]
pub(super) struct Place {
    tables: Inode,
    log: Inode,
}

#[derive(Debug, Clone)]
struct Inode {
    path: PathBuf,
    device: u64,
    number: u64,
}

impl Place {
    /// The files that are open by `path`.
    pub(super) fn of(path: &Path) -> Result<Self, JournalError> {
        Ok(Self { tables: Inode::of(path)?, log: Inode::of(&beside(path, "-wal"))? })
    }

    /// The file of the tables.
    pub(super) fn path(&self) -> &Path {
        &self.tables.path
    }

    /// Refuses once a path names another file, or none: what is written to the one that is open
    /// is lost with this process, and what is read of it is not what others go by.
    pub(super) fn check(&self) -> Result<(), JournalError> {
        self.tables.check()?;
        self.log.check()
    }
}

impl Inode {
    fn of(path: &Path) -> Result<Self, JournalError> {
        let meta = plain(path)?;
        Ok(Self { path: path.to_owned(), device: meta.dev(), number: meta.ino() })
    }

    fn check(&self) -> Result<(), JournalError> {
        let same = |meta: Metadata| meta.dev() == self.device && meta.ino() == self.number;
        if self.path.symlink_metadata().is_ok_and(same) {
            Ok(())
        } else {
            Err(JournalError::Replaced(self.path.display().to_string()))
        }
    }
}

/// The file beside that of the tables whose name ends so.
pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Refuses what is no plain file, or not its owner's alone.
pub(super) fn plain(path: &Path) -> Result<Metadata, JournalError> {
    let refused = |what: &str| unavailable(&format!("`{}` {what}", path.display()));
    let meta = path.symlink_metadata().map_err(|e| refused(&format!("cannot be read: {e}")))?;
    if !meta.is_file() || meta.mode() & 0o077 != 0 {
        return Err(refused("must be a plain file with mode 0600"));
    }
    Ok(meta)
}

/// Makes the file, which must not exist, for its owner alone.
pub(super) fn create(path: &Path) -> Result<(), JournalError> {
    let mut options = OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).open(path);
    made.map_err(|e| unavailable(&format!("`{}`: {e}", path.display())))?;
    let mut connection = connect(path)?;
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate);
    let tx = tx.map_err(failed)?;
    tx.execute_batch(SCHEMA).map_err(failed)?;
    tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
    tx.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(failed)?;
    tx.commit().map_err(failed)
}

pub(super) fn connect(path: &Path) -> Result<Connection, JournalError> {
    let path = by_real_directory(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(failed)?;
    if mode != "wal" {
        return Err(unavailable("the file system cannot hold a write-ahead log"));
    }
    // A text that was erased is overwritten.
    let secure = [("synchronous", "FULL"), ("trusted_schema", "OFF"), ("secure_delete", "ON")];
    for (pragma, value) in secure {
        connection.pragma_update(None, pragma, value).map_err(failed)?;
    }
    // Folding back waits for the disk: another thread does it.
    connection.pragma_update(None, "wal_autocheckpoint", 0).map_err(failed)?;
    Ok(connection)
}

/// SQLite, told to follow no link, refuses one anywhere in a path; here only the file must be none.
pub(super) fn by_real_directory(path: &Path) -> Result<PathBuf, JournalError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let real = dir.canonicalize();
    let real = real.map_err(|e| unavailable(&format!("`{}`: {e}", dir.display())))?;
    Ok(real.join(path.file_name().unwrap_or_default()))
}

pub(super) fn check_schema(connection: &Connection) -> Result<(), JournalError> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application = pragma("application_id").map_err(failed)?;
    let version = pragma("user_version").map_err(failed)?;
    match version.cmp(&SCHEMA_VERSION) {
        _ if application != APPLICATION_ID => Err(corrupt("is in a file of another kind")),
        std::cmp::Ordering::Less => Err(corrupt("is in a file without its tables")),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => {
            Err(JournalError::Future { seq: Seq(0), what: format!("schema version {version}") })
        }
    }
}

/// Refuses a head that is not the last entry's.
pub(super) fn check_head(connection: &Connection) -> Result<(), JournalError> {
    let last = "SELECT epoch, seq, hash FROM entry ORDER BY seq DESC LIMIT 1";
    let last = connection
        .query_row(last, (), |row| Ok(head_of(row, [0, 1, 2])))
        .optional()
        .map_err(failed)?
        .transpose()?;
    if head_row(connection)? == last.unwrap_or(Head::ORIGIN) {
        Ok(())
    } else {
        Err(corrupt("does not end where its head says"))
    }
}

/// Folds the write-ahead log back: first as much as goes without keeping anybody waiting, then,
/// with the writer kept out for the little that was written meanwhile, the rest, so that the log
/// starts over. Failing is harmless: the log grows, and it is tried again.
pub(super) fn fold_back(connection: &Connection) {
    let folded = checkpoint(connection, "PASSIVE").and_then(|()| checkpoint(connection, "RESTART"));
    if let Err(error) = folded {
        tracing::warn!(%error, "the write-ahead log was not folded back");
    }
}

/// Folds all of the write-ahead log back and leaves nothing in its file.
pub(super) fn empty_log(connection: &Connection) -> Result<(), JournalError> {
    let busy: i64 = connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get(0))
        .map_err(failed)?;
    if busy == 0 { Ok(()) } else { Err(unavailable("others read the write-ahead log just now")) }
}

pub(super) fn checkpoint(connection: &Connection, mode: &'static str) -> Result<(), JournalError> {
    let pragma = match mode {
        "RESTART" => "PRAGMA wal_checkpoint(RESTART)",
        _ => "PRAGMA wal_checkpoint(PASSIVE)",
    };
    connection.query_row(pragma, (), |_| Ok(())).map_err(failed)
}
