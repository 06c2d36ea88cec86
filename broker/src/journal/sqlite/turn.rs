//! Whose turn it is to append, among brokers that overtook each other: a queue of tickets in the
//! file, by its clock. A ticket counts while its holder shows up, so that one that has died or was
//! stopped holds the others up for [`TURN`] at most.

use rusqlite::{Connection, OptionalExtension as _, Transaction};

use super::super::{JournalError, TURN};
use super::failed;

/// Whether it is the turn of `me`; `None` where its ticket is to be written (anew).
pub(super) fn look(connection: &Connection, me: &[u8; 16]) -> Result<Option<bool>, JournalError> {
    // Half-way through its time a ticket is shown again.
    let fresh = "SELECT 1 FROM turn WHERE holder = ?1 AND abs(seen_ms - \
                 CAST(unixepoch('subsec') * 1000 AS INTEGER)) < ?2 / 2";
    let mut fresh = connection.prepare_cached(fresh).map_err(failed)?;
    if !fresh.exists((me, turn_ms())).map_err(failed)? {
        return Ok(None);
    }
    Ok(Some(first(connection)?.as_ref() == Some(me)))
}

/// Puts `me` at the end of the queue, or shows that it still stands there; says whether it is its
/// turn.
pub(super) fn ask(tx: &Transaction<'_>, me: &[u8; 16]) -> Result<bool, JournalError> {
    let over = "DELETE FROM turn WHERE abs(seen_ms - \
                CAST(unixepoch('subsec') * 1000 AS INTEGER)) >= ?1";
    tx.execute(over, (turn_ms(),)).map_err(failed)?;
    let shown = "INSERT INTO turn (holder, seen_ms) \
                 VALUES (?1, CAST(unixepoch('subsec') * 1000 AS INTEGER)) \
                 ON CONFLICT (holder) DO UPDATE SET seen_ms = excluded.seen_ms";
    tx.execute(shown, (me,)).map_err(failed)?;
    Ok(first(tx)?.as_ref() == Some(me))
}

/// Ends the turn of `me`, or its wait for it; says whether nobody else's it is.
pub(super) fn end(tx: &Transaction<'_>, me: &[u8; 16]) -> Result<bool, JournalError> {
    match first(tx)? {
        None => Ok(true),
        Some(first) => {
            let end = "DELETE FROM turn WHERE holder = ?1";
            tx.prepare_cached(end).and_then(|mut end| end.execute((me,))).map_err(failed)?;
            Ok(first == *me)
        }
    }
}

/// Whose turn it is.
fn first(connection: &Connection) -> Result<Option<[u8; 16]>, JournalError> {
    let first = "SELECT holder FROM turn WHERE abs(seen_ms - \
                 CAST(unixepoch('subsec') * 1000 AS INTEGER)) < ?1 ORDER BY ticket LIMIT 1";
    let mut first = connection.prepare_cached(first).map_err(failed)?;
    first.query_row((turn_ms(),), |row| row.get(0)).optional().map_err(failed)
}

fn turn_ms() -> i64 {
    i64::try_from(TURN.as_millis()).unwrap_or(i64::MAX)
}
