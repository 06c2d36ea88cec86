//! The embedded store: SQLite in one file. Write-ahead log, every commit on the disk before it is
//! answered, a thread each that writes, that reads, that watches what other processes append, and
//! that folds the write-ahead log back. Several processes may share the file. Must never answer a
//! commit that failed as one that did not happen.

mod file;
mod read_only;
mod side;
mod snapshots;
mod thread;
mod turn;
mod wal;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use async_trait::async_trait;
use dayfly_verifier::id::{ChainHash, Epoch, Seq};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};
use tokio::sync::watch::Receiver;

use self::file::Place;
pub use self::read_only::ReadOnly;
use self::thread::{Lane, Thread};
use self::watch::Watch;
use super::{Journal, JournalError, Recorded, StoredEntry, chain};
use crate::core::event::Head;

/// After how many commits, or bytes of entries, the write-ahead log is folded back.
const FOLD_COMMITS: usize = 512;
const FOLD_BYTES: usize = 4 << 20;

/// A store in one SQLite file.
pub struct Sqlite {
    writer: Thread,
    reader: Thread,
    watch: Watch,
    fold: SyncSender<()>,
    place: Place,
    /// Names this broker among those who wait for their turn.
    me: [u8; 16],
}

impl Sqlite {
    /// How every connection is set: what a commit waits for.
    pub const SETTINGS: &str = "journal_mode=wal synchronous=full wal_autocheckpoint=0";

    /// Makes the file, which must not exist, for its owner alone, and opens it.
    pub fn create(path: &Path) -> Result<Self, JournalError> {
        file::create(path)?;
        Self::open(path)
    }

    /// Opens the file, which must exist, be no link, and belong to its owner alone.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        file::plain(path)?;
        let mut writer = file::connect(path)?;
        file::check_schema(&writer)?;
        // What a crash left in the write-ahead log may not be on the disk yet, and is about to be
        // read as if it were.
        file::checkpoint(&writer, "PASSIVE")?;
        let looked = writer.transaction().map_err(failed)?;
        file::check_head(&looked)?;
        drop(looked);
        let reader = file::connect(path)?;
        reader.pragma_update(None, "query_only", true).map_err(failed)?;
        let (fold, asked) = sync_channel(1);
        let folder = file::connect(path)?;
        thread::spawn("journal-fold", move || {
            while asked.recv().is_ok() {
                file::fold_back(&folder);
            }
        })?;
        let mut me = [0; 16];
        getrandom::fill(&mut me).map_err(|e| unavailable(&format!("no random bytes: {e}")))?;
        Ok(Self {
            writer: Thread::start("journal-write", writer)?,
            reader: Thread::start("journal-read", reader)?,
            watch: Watch::start(file::connect(path)?)?,
            fold,
            place: Place::of(path)?,
            me,
        })
    }

    /// Runs `work` on what is kept beside the log, in one transaction that is durable once this
    /// returns.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        self.write_in(Lane::Side, work).await
    }

    async fn write_in<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (fold, place) = (self.fold.clone(), self.place.clone());
        let run = move |connection: &mut Connection, commits: &mut usize| {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate);
            let tx = tx.map_err(failed)?;
            let done = work(&tx)?;
            // The commit may have reached the disk in part, and a crash may complete it.
            tx.commit().map_err(|e| JournalError::Unknown(format!("the commit failed: {e}")))?;
            place.check()?;
            *commits = commits.saturating_add(1);
            if *commits >= FOLD_COMMITS && fold.try_send(()).is_ok() {
                *commits = 0;
            }
            Ok(done)
        };
        self.writer.run(lane, run).await
    }

    /// Runs `work`, which only reads, on what is kept beside the log.
    async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        self.look_in(Lane::Side, work).await
    }

    async fn look_in<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let place = self.place.clone();
        let run = move |connection: &mut Connection, _: &mut usize| {
            place.check()?;
            let tx = connection.transaction().map_err(failed)?;
            work(&tx)
        };
        self.reader.run(lane, run).await
    }

    /// Appends; where `in_turn`, not while it is another broker's turn, and then the own one is
    /// over.
    async fn add(
        &self,
        after: &Head,
        entries: &[StoredEntry],
        in_turn: bool,
    ) -> Result<Recorded<Head>, JournalError> {
        let head = chain::check(after, entries)?;
        let (after, entries, me) = (*after, entries.to_vec(), self.me);
        let size: usize = entries.iter().map(|entry| entry.bytes().len()).sum();
        let write = move |tx: &Transaction<'_>| {
            if head_row(tx)? != after {
                contains(tx, &after)?;
                return Err(JournalError::Conflict);
            }
            if in_turn && !turn::end(tx, &me)? {
                return Err(JournalError::Conflict);
            }
            insert(tx, &entries)?;
            let Head { epoch, seq, hash } = &head;
            let update = "UPDATE head SET epoch = ?1, seq = ?2, hash = ?3 WHERE one = 1";
            let mut update = tx.prepare_cached(update).map_err(failed)?;
            let row = (epoch.as_bytes(), number(seq.0)?, hash.as_bytes());
            update.execute(row).map(drop).map_err(failed)
        };
        self.write_in(Lane::Log, write).await?;
        if size >= FOLD_BYTES {
            // Full means that it was asked already.
            let _ = self.fold.try_send(());
        }
        self.watch.appended(head.seq);
        Ok(Recorded::new(head))
    }
}

fn insert(tx: &Transaction<'_>, entries: &[StoredEntry]) -> Result<(), JournalError> {
    let insert = "INSERT INTO entry (seq, epoch, hash, bytes) VALUES (?1, ?2, ?3, ?4)";
    let mut insert = tx.prepare_cached(insert).map_err(failed)?;
    for entry in entries {
        let Head { epoch, seq, hash } = entry.head();
        let row = (number(seq.0)?, epoch.as_bytes(), hash.as_bytes(), &**entry.bytes());
        insert.execute(row).map_err(failed)?;
        entry.text().map_or(Ok(()), |text| side::put_text(tx, text))?;
    }
    Ok(())
}

#[async_trait]
impl Journal for Sqlite {
    async fn append(
        &self,
        after: &Head,
        entries: &[StoredEntry],
    ) -> Result<Recorded<Head>, JournalError> {
        self.add(after, entries, false).await
    }

    async fn append_in_turn(
        &self,
        after: &Head,
        entries: &[StoredEntry],
    ) -> Result<Recorded<Head>, JournalError> {
        self.add(after, entries, true).await
    }

    async fn turn(&self) -> Result<bool, JournalError> {
        let me = self.me;
        if let Some(come) = self.look_in(Lane::Log, move |tx| turn::look(tx, &me)).await? {
            return Ok(come);
        }
        self.write_in(Lane::Log, move |tx| turn::ask(tx, &me)).await
    }

    async fn pass_turn(&self) -> Result<(), JournalError> {
        let me = self.me;
        self.write_in(Lane::Log, move |tx| turn::end(tx, &me).map(drop)).await
    }

    async fn read(
        &self,
        after: &Head,
        limit: usize,
    ) -> Result<Vec<Recorded<StoredEntry>>, JournalError> {
        let after = *after;
        self.look_in(Lane::Log, move |tx| {
            Ok(entries(tx, &after, limit)?.into_iter().map(Recorded::new).collect())
        })
        .await
    }

    async fn head_at(&self, seq: Seq) -> Result<Option<Recorded<Head>>, JournalError> {
        if seq.0 == 0 {
            return Ok(Some(Recorded::new(Head::ORIGIN)));
        }
        self.look_in(Lane::Log, move |tx| Ok(entry_head(tx, seq)?.map(Recorded::new))).await
    }

    async fn confirm(&self) -> Result<Recorded<Head>, JournalError> {
        // A write, not a read: it fails where an append would, and it takes the place in the
        // write-ahead log of a commit that failed half-way, so that no crash completes that one.
        self.write_in(Lane::Log, |tx| {
            tx.execute("UPDATE head SET confirmed = confirmed + 1 WHERE one = 1", ())
                .map_err(failed)?;
            head_row(tx).map(Recorded::new)
        })
        .await
    }

    fn moved(&self) -> Receiver<()> {
        self.watch.moved()
    }
}

/// At most `limit` entries right after `after`, which the log must contain.
fn entries(
    connection: &Connection,
    after: &Head,
    limit: usize,
) -> Result<Vec<StoredEntry>, JournalError> {
    contains(connection, after)?;
    let select = "SELECT seq, epoch, hash, bytes FROM entry WHERE seq > ?1 ORDER BY seq LIMIT ?2";
    let mut select = connection.prepare_cached(select).map_err(failed)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = select.query((number(after.seq.0)?, limit)).map_err(failed)?;
    let mut head = *after;
    let mut entries = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let bytes: Vec<u8> = row.get(3).map_err(failed)?;
        let claimed = head_of(row, [1, 0, 2])?;
        entries.push(StoredEntry::read_back(&head, claimed, Arc::from(bytes))?);
        head = claimed;
    }
    Ok(entries)
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
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, QueryReturnedNoRows,
        Utf8Error,
    };
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    // A row that must be there is not, or holds what was never written to it.
    let changed = matches!(
        error,
        FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | InvalidColumnType(..)
            | QueryReturnedNoRows
            | Utf8Error(..)
    );
    match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => corrupt(&format!("cannot be read: {error}")),
        None if changed => corrupt(&format!("cannot be read: {error}")),
        Some(_) | None => unavailable(&error.to_string()),
    }
}

#[cfg(test)]
mod tests;
