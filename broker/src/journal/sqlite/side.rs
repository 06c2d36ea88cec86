//! What is kept beside the log, in tables of its own.

use std::collections::BTreeMap;

use async_trait::async_trait;
use dayfly_verifier::id::{BundleDigest, TextDigest};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use rusqlite::{OptionalExtension as _, Transaction};

use super::super::{
    Bundles, DOCUMENT_KEPT, Floor, FreeText, Invitation, Joins, JournalError, Renew, Renewal, Texts,
};
use super::{Lane, Sqlite, corrupt, failed, file, number};

/// Keeps a text in the transaction of the entry that names it. One that is kept already stays.
pub(super) fn put_text(tx: &Transaction<'_>, text: &FreeText) -> Result<(), JournalError> {
    let insert = "INSERT OR IGNORE INTO text (digest, salt, body) VALUES (?1, ?2, ?3)";
    let digest = text.digest();
    let row = (digest.as_bytes(), text.salt(), text.body());
    tx.execute(insert, row).map(drop).map_err(failed)
}

#[async_trait]
impl Texts for Sqlite {
    async fn text(&self, digest: &TextDigest) -> Result<Option<FreeText>, JournalError> {
        let digest = *digest;
        self.look(move |tx| {
            let select = "SELECT salt, body FROM text WHERE digest = ?1";
            let row = tx
                .query_row(select, (digest.as_bytes(),), |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
                .map_err(failed)?;
            let row: Option<([u8; 16], String)> = row;
            let Some((salt, body)) = row else { return Ok(None) };
            let text = FreeText::new(body, salt).ok();
            let text = text.filter(|text| text.digest() == digest);
            text.map(Some).ok_or_else(|| corrupt("names a text that was changed"))
        })
        .await
    }

    async fn erase_text(&self, digest: &TextDigest) -> Result<bool, JournalError> {
        let digest = *digest;
        let gone = self
            .write(move |tx| {
                let gone = tx.execute("DELETE FROM text WHERE digest = ?1", (digest.as_bytes(),));
                Ok(gone.map_err(failed)? == 1)
            })
            .await?;
        // The write-ahead log still has it.
        self.writer.run(Lane::Side, |connection, _| file::empty_log(connection)).await?;
        Ok(gone)
    }
}

#[async_trait]
impl Bundles for Sqlite {
    async fn put_bundle(&self, digest: &BundleDigest, content: &[u8]) -> Result<(), JournalError> {
        let (digest, content) = (*digest, content.to_vec());
        self.write(move |tx| {
            let insert = "INSERT OR IGNORE INTO bundle (digest, content) VALUES (?1, ?2)";
            tx.execute(insert, (digest.as_bytes(), content)).map(drop).map_err(failed)
        })
        .await
    }

    async fn bundle(&self, digest: &BundleDigest) -> Result<Option<Vec<u8>>, JournalError> {
        let digest = *digest;
        self.look(move |tx| {
            let select = "SELECT content FROM bundle WHERE digest = ?1";
            tx.query_row(select, (digest.as_bytes(),), |row| row.get(0)).optional().map_err(failed)
        })
        .await
    }
}

#[async_trait]
impl Joins for Sqlite {
    async fn invite(&self, invitation: &Invitation, now: Timestamp) -> Result<(), JournalError> {
        let Invitation { id, secret_hash, spiffe_id, expires_at } = invitation.clone();
        self.write(move |tx| {
            let expired = "DELETE FROM invitation WHERE expires_at_ms <= ?1";
            tx.execute(expired, (number(now.as_ms())?,)).map_err(failed)?;
            let insert = "INSERT INTO invitation (id, secret_hash, spiffe_id, expires_at_ms) \
                          VALUES (?1, ?2, ?3, ?4)";
            let row = (id, secret_hash, spiffe_id.as_str(), number(expires_at.as_ms())?);
            tx.execute(insert, row).map(drop).map_err(failed)
        })
        .await
    }

    async fn join(
        &self,
        id: &[u8; 16],
        secret_hash: &[u8; 32],
        key_hash: &[u8; 32],
        now: Timestamp,
    ) -> Result<Option<(SpiffeId, u64)>, JournalError> {
        let (id, secret_hash, key_hash) = (*id, *secret_hash, *key_hash);
        self.write(move |tx| {
            // The row that goes is the proof that nobody else took it.
            let take = "DELETE FROM invitation WHERE id = ?1 AND secret_hash = ?2 \
                        AND expires_at_ms > ?3 RETURNING spiffe_id";
            let taken: Option<String> = tx
                .query_row(take, (id, secret_hash, number(now.as_ms())?), |row| row.get(0))
                .optional()
                .map_err(failed)?;
            let Some(taken) = taken else { return Ok(None) };
            let spiffe_id: SpiffeId =
                taken.parse().map_err(|_| corrupt("names an invitation that was changed"))?;
            forget(tx, now)?;
            let generation = issue(tx, &spiffe_id, &key_hash, now)?;
            // What was locked is good again from this document on.
            let unlock =
                "UPDATE floor SET generation = ?2 WHERE spiffe_id = ?1 AND generation IS NULL";
            let row = (spiffe_id.as_str(), number(generation)?);
            tx.execute(unlock, row).map_err(failed)?;
            Ok(Some((spiffe_id, generation)))
        })
        .await
    }

    async fn renew(&self, renew: &Renew, now: Timestamp) -> Result<Renewal, JournalError> {
        let Renew { spiffe_id: id, generation, key_hash, next_key_hash, due } = renew.clone();
        self.write(move |tx| {
            let Some(issued) = document(tx, &id, generation)?.filter(|d| d.key_hash == key_hash)
            else {
                return Ok(Renewal::Unknown);
            };
            let select = "SELECT spiffe_id, generation FROM floor WHERE spiffe_id = ?1";
            match tx.query_row(select, (id.as_str(),), floor).optional().map_err(failed)? {
                Some((_, Floor::Locked)) => return Ok(Renewal::Locked),
                Some((_, Floor::From(least))) if generation < least => return Ok(Renewal::Unknown),
                Some((_, Floor::From(_))) | None => {}
            }
            let Some(next) = issued.renewed_to else {
                if !due {
                    return Ok(Renewal::TooEarly);
                }
                forget(tx, now)?;
                let next = issue(tx, &id, &next_key_hash, now)?;
                let renewed = "UPDATE document SET renewed_to = ?3 \
                               WHERE spiffe_id = ?1 AND generation = ?2";
                let row = (id.as_str(), number(generation)?, number(next)?);
                tx.execute(renewed, row).map_err(failed)?;
                return Ok(Renewal::Granted { generation: next, issued_at: now });
            };
            if let Some(again) = document(tx, &id, next)?.filter(|d| d.key_hash == next_key_hash) {
                return Ok(Renewal::Granted { generation: next, issued_at: again.issued_at });
            }
            let lock = "INSERT INTO floor (spiffe_id, generation) VALUES (?1, NULL) \
                        ON CONFLICT (spiffe_id) DO UPDATE SET generation = NULL";
            tx.execute(lock, (id.as_str(),)).map_err(failed)?;
            Ok(Renewal::Forked)
        })
        .await
    }

    async fn floors(&self) -> Result<BTreeMap<SpiffeId, Floor>, JournalError> {
        self.look(|tx| {
            let mut select =
                tx.prepare("SELECT spiffe_id, generation FROM floor").map_err(failed)?;
            let floors = select.query_map((), floor).map_err(failed)?;
            let read = |row: rusqlite::Result<(String, Floor)>| {
                let (id, floor) = row.map_err(failed)?;
                let id = id.parse().map_err(|_| corrupt("names a floor that was changed"))?;
                Ok((id, floor))
            };
            floors.map(read).collect()
        })
        .await
    }
}

/// An ID and its floor. No generation is above that of a lock.
fn floor(row: &rusqlite::Row<'_>) -> rusqlite::Result<(String, Floor)> {
    let least: Option<i64> = row.get(1)?;
    let from = |least| Floor::From(u64::try_from(least).unwrap_or(u64::MAX));
    Ok((row.get(0)?, least.map_or(Floor::Locked, from)))
}

/// Forgets documents whose time is long over, and what was said of IDs that have no others.
fn forget(tx: &Transaction<'_>, now: Timestamp) -> Result<(), JournalError> {
    let before = number(now.minus(DOCUMENT_KEPT).as_ms())?;
    let old = "DELETE FROM document WHERE issued_at_ms <= ?1";
    if tx.execute(old, (before,)).map_err(failed)? > 0 {
        let bare = "DELETE FROM floor WHERE spiffe_id NOT IN (SELECT spiffe_id FROM document)";
        tx.execute(bare, ()).map_err(failed)?;
    }
    Ok(())
}

/// An identity document that was issued.
struct Document {
    key_hash: [u8; 32],
    renewed_to: Option<u64>,
    issued_at: Timestamp,
}

fn document(
    tx: &Transaction<'_>,
    id: &SpiffeId,
    generation: u64,
) -> Result<Option<Document>, JournalError> {
    // A generation that no row can have was never issued.
    let Ok(generation) = i64::try_from(generation) else { return Ok(None) };
    let select = "SELECT key_hash, renewed_to, issued_at_ms FROM document \
                  WHERE spiffe_id = ?1 AND generation = ?2";
    let row = |row: &rusqlite::Row<'_>| {
        Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?, row.get::<_, i64>(2)?))
    };
    let row = tx.query_row(select, (id.as_str(), generation), row).optional().map_err(failed)?;
    let Some((key_hash, renewed_to, issued_at_ms)) = row else { return Ok(None) };
    let renewed_to = renewed_to.map(u64::try_from).transpose();
    let renewed_to = renewed_to.map_err(|_| corrupt("has a negative generation"))?;
    let issued_at = u64::try_from(issued_at_ms).ok().and_then(|ms| Timestamp::from_ms(ms).ok());
    let issued_at = issued_at.ok_or_else(|| corrupt("has a document of no time there is"))?;
    Ok(Some(Document { key_hash, renewed_to, issued_at }))
}

/// Puts down a document of the next generation of an ID.
fn issue(
    tx: &Transaction<'_>,
    id: &SpiffeId,
    key_hash: &[u8; 32],
    now: Timestamp,
) -> Result<u64, JournalError> {
    let last = "SELECT COALESCE(MAX(generation), 0) FROM document WHERE spiffe_id = ?1";
    let last: i64 = tx.query_row(last, (id.as_str(),), |row| row.get(0)).map_err(failed)?;
    let next = last.saturating_add(1);
    let put = "INSERT INTO document (spiffe_id, generation, key_hash, issued_at_ms) \
               VALUES (?1, ?2, ?3, ?4)";
    tx.execute(put, (id.as_str(), next, key_hash, number(now.as_ms())?)).map_err(failed)?;
    u64::try_from(next).map_err(|_| corrupt("has a negative generation"))
}
