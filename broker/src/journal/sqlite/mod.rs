//! The embedded store: SQLite in one file. Write-ahead log, every commit on the disk before it is
//! answered, one thread that writes, one that reads, one that folds the write-ahead log back.
//! Several processes may share the file. Must never answer a commit that failed as one that did
//! not happen.

mod side;
mod thread;

use std::fs::OpenOptions;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use async_trait::async_trait;
use dayfly_verifier::id::{ChainHash, Epoch, Seq};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior};
use tokio::sync::watch;

use self::thread::Thread;
use super::{Journal, JournalError, Recorded, StoredEntry, chain};
use crate::core::event::Head;

/// Marks the file as ours: `dfly`.
const APPLICATION_ID: i64 = 0x6466_6c79;
/// The version of the tables.
const SCHEMA_VERSION: i64 = 1;
/// How long a writer waits for the writer of another process.
const BUSY: Duration = Duration::from_millis(1000);
/// After how many commits, or bytes of entries, the write-ahead log is folded back.
const FOLD_COMMITS: usize = 512;
const FOLD_BYTES: usize = 4 << 20;

const SCHEMA: &str = "
    CREATE TABLE head (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        epoch BLOB NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL,
        confirmed INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE entry (
        seq INTEGER PRIMARY KEY, epoch BLOB NOT NULL, hash BLOB NOT NULL, bytes BLOB NOT NULL
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

/// A store in one SQLite file.
pub struct Sqlite {
    writer: Thread,
    reader: Thread,
    fold: SyncSender<()>,
    moved: watch::Sender<()>,
}

impl Sqlite {
    /// How every connection is set: what a commit waits for.
    pub const SETTINGS: &str = "journal_mode=wal synchronous=full wal_autocheckpoint=0";

    /// Makes the file, which must not exist, for its owner alone, and opens it.
    pub fn create(path: &Path) -> Result<Self, JournalError> {
        let mut options = OpenOptions::new();
        let made = options.write(true).create_new(true).mode(0o600).open(path);
        made.map_err(|e| unavailable(&format!("`{}`: {e}", path.display())))?;
        let mut connection = connect(path)?;
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let tx = tx.map_err(failed)?;
        tx.execute_batch(SCHEMA).map_err(failed)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
        tx.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(failed)?;
        tx.commit().map_err(failed)?;
        drop(connection);
        Self::open(path)
    }

    /// Opens the file, which must exist, be no link, and belong to its owner alone.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let refused = |what: &str| unavailable(&format!("`{}` {what}", path.display()));
        let meta = path.symlink_metadata().map_err(|e| refused(&format!("cannot be read: {e}")))?;
        if !meta.is_file() || meta.mode() & 0o077 != 0 {
            return Err(refused("must be a plain file with mode 0600"));
        }
        let mut writer = connect(path)?;
        check_schema(&writer)?;
        // What a crash left in the write-ahead log may not be on the disk yet, and is about to be
        // read as if it were.
        checkpoint(&writer, "PASSIVE")?;
        let looked = writer.transaction().map_err(failed)?;
        check_head(&looked)?;
        drop(looked);
        let reader = connect(path)?;
        reader.pragma_update(None, "query_only", true).map_err(failed)?;
        let (fold, asked) = sync_channel(1);
        let folder = connect(path)?;
        thread::spawn("journal-fold", move || {
            while asked.recv().is_ok() {
                fold_back(&folder);
            }
        })?;
        Ok(Self {
            writer: Thread::start("journal-write", writer)?,
            reader: Thread::start("journal-read", reader)?,
            fold,
            moved: watch::Sender::new(()),
        })
    }

    /// Runs `work` in one transaction that is durable once this returns.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let fold = self.fold.clone();
        let run = move |connection: &mut Connection, commits: &mut usize| {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate);
            let tx = tx.map_err(failed)?;
            let done = work(&tx)?;
            // The commit may have reached the disk in part, and a crash may complete it.
            tx.commit().map_err(|e| JournalError::Unknown(format!("the commit failed: {e}")))?;
            *commits = commits.saturating_add(1);
            if *commits >= FOLD_COMMITS && fold.try_send(()).is_ok() {
                *commits = 0;
            }
            Ok(done)
        };
        self.writer.run(run).await
    }

    async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let run = move |connection: &mut Connection, _: &mut usize| {
            let tx = connection.transaction().map_err(failed)?;
            work(&tx)
        };
        self.reader.run(run).await
    }
}

#[async_trait]
impl Journal for Sqlite {
    async fn append(
        &self,
        after: &Head,
        entries: &[StoredEntry],
    ) -> Result<Recorded<Head>, JournalError> {
        let head = chain::check(after, entries)?;
        let (after, entries) = (*after, entries.to_vec());
        let size: usize = entries.iter().map(|entry| entry.bytes().len()).sum();
        let write = move |tx: &Transaction<'_>| {
            if head_row(tx)? != after {
                contains(tx, &after)?;
                return Err(JournalError::Conflict);
            }
            let insert = "INSERT INTO entry (seq, epoch, hash, bytes) VALUES (?1, ?2, ?3, ?4)";
            let mut insert = tx.prepare_cached(insert).map_err(failed)?;
            for entry in &entries {
                let Head { epoch, seq, hash } = entry.head();
                let row = (number(seq.0)?, epoch.as_bytes(), hash.as_bytes(), &**entry.bytes());
                insert.execute(row).map_err(failed)?;
                entry.text().map_or(Ok(()), |text| side::put_text(tx, text))?;
            }
            let Head { epoch, seq, hash } = &head;
            let update = "UPDATE head SET epoch = ?1, seq = ?2, hash = ?3 WHERE one = 1";
            let mut update = tx.prepare_cached(update).map_err(failed)?;
            let row = (epoch.as_bytes(), number(seq.0)?, hash.as_bytes());
            update.execute(row).map_err(failed)?;
            Ok(())
        };
        self.write(write).await?;
        if size >= FOLD_BYTES {
            // Full means that it was asked already.
            let _ = self.fold.try_send(());
        }
        self.moved.send_replace(());
        Ok(Recorded::new(head))
    }

    async fn read(
        &self,
        after: &Head,
        limit: usize,
    ) -> Result<Vec<Recorded<StoredEntry>>, JournalError> {
        let (after, limit) = (*after, i64::try_from(limit).unwrap_or(i64::MAX));
        self.look(move |tx| {
            contains(tx, &after)?;
            let select = "SELECT seq, epoch, hash, bytes FROM entry WHERE seq > ?1 \
                          ORDER BY seq LIMIT ?2";
            let mut select = tx.prepare_cached(select).map_err(failed)?;
            let mut rows = select.query((number(after.seq.0)?, limit)).map_err(failed)?;
            let mut head = after;
            let mut entries = Vec::new();
            while let Some(row) = rows.next().map_err(failed)? {
                let bytes: Vec<u8> = row.get(3).map_err(failed)?;
                let claimed = head_of(row, [1, 0, 2])?;
                let entry = StoredEntry::read_back(&head, claimed, Arc::from(bytes))?;
                head = claimed;
                entries.push(Recorded::new(entry));
            }
            Ok(entries)
        })
        .await
    }

    async fn head_at(&self, seq: Seq) -> Result<Option<Recorded<Head>>, JournalError> {
        if seq.0 == 0 {
            return Ok(Some(Recorded::new(Head::ORIGIN)));
        }
        self.look(move |tx| Ok(entry_head(tx, seq)?.map(Recorded::new))).await
    }

    async fn confirm(&self) -> Result<Recorded<Head>, JournalError> {
        // A write, not a read: it fails where an append would, and it takes the place in the
        // write-ahead log of a commit that failed half-way, so that no crash completes that one.
        self.write(|tx| {
            tx.execute("UPDATE head SET confirmed = confirmed + 1 WHERE one = 1", ())
                .map_err(failed)?;
            head_row(tx).map(Recorded::new)
        })
        .await
    }

    fn moved(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
    }
}

fn connect(path: &Path) -> Result<Connection, JournalError> {
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

fn check_schema(connection: &Connection) -> Result<(), JournalError> {
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
fn check_head(connection: &Connection) -> Result<(), JournalError> {
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
fn fold_back(connection: &Connection) {
    let folded = checkpoint(connection, "PASSIVE").and_then(|()| checkpoint(connection, "RESTART"));
    if let Err(error) = folded {
        tracing::warn!(%error, "the write-ahead log was not folded back");
    }
}

fn checkpoint(connection: &Connection, mode: &'static str) -> Result<(), JournalError> {
    let pragma = match mode {
        "RESTART" => "PRAGMA wal_checkpoint(RESTART)",
        _ => "PRAGMA wal_checkpoint(PASSIVE)",
    };
    connection.query_row(pragma, (), |_| Ok(())).map_err(failed)
}

fn head_row(connection: &Connection) -> Result<Head, JournalError> {
    let select = "SELECT epoch, seq, hash FROM head WHERE one = 1";
    let mut select = connection.prepare_cached(select).map_err(failed)?;
    select.query_row((), |row| Ok(head_of(row, [0, 1, 2]))).map_err(failed)?
}

/// Refuses a head that the log does not contain.
fn contains(connection: &Connection, head: &Head) -> Result<(), JournalError> {
    if *head == Head::ORIGIN {
        return Ok(());
    }
    let there = entry_head(connection, head.seq)?;
    if there == Some(*head) { Ok(()) } else { Err(JournalError::Diverged(head.seq)) }
}

/// The head that the entry at `seq` made; `None` if there is none.
fn entry_head(connection: &Connection, seq: Seq) -> Result<Option<Head>, JournalError> {
    let Ok(seq) = i64::try_from(seq.0) else { return Ok(None) };
    let select = "SELECT epoch, seq, hash FROM entry WHERE seq = ?1";
    let mut select = connection.prepare_cached(select).map_err(failed)?;
    let row = select.query_row((seq,), |row| Ok(head_of(row, [0, 1, 2]))).optional();
    row.map_err(failed)?.transpose()
}

/// The head in these columns of `row`: epoch, seq, hash.
fn head_of(row: &rusqlite::Row<'_>, [epoch, seq, hash]: [usize; 3]) -> Result<Head, JournalError> {
    let epoch: [u8; 16] = row.get(epoch).map_err(failed)?;
    let seq: i64 = row.get(seq).map_err(failed)?;
    let hash: [u8; 32] = row.get(hash).map_err(failed)?;
    let seq = u64::try_from(seq).map_err(|_| corrupt("has a place below zero"))?;
    Ok(Head { epoch: Epoch::new(epoch), seq: Seq(seq), hash: ChainHash::new(hash) })
}

/// SQLite's integers are signed.
fn number(seq: u64) -> Result<i64, JournalError> {
    i64::try_from(seq).map_err(|_| unavailable("the log is full"))
}

fn unavailable(what: &str) -> JournalError {
    JournalError::Unavailable(what.into())
}

fn corrupt(rule: &str) -> JournalError {
    JournalError::Corrupt { seq: Seq(0), rule: rule.into() }
}

/// What an error outside a commit means: nothing was changed.
fn failed(error: rusqlite::Error) -> JournalError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => corrupt(&format!("cannot be read: {error}")),
        Some(_) | None => unavailable(&error.to_string()),
    }
}

#[cfg(test)]
mod tests;
