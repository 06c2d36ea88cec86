//! What is kept beside the log, in tables of its own.

use std::collections::BTreeSet;

use async_trait::async_trait;
use dayfly_verifier::id::{BundleDigest, TextDigest};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use rusqlite::{OptionalExtension as _, Transaction};

use super::super::{Bundles, FreeText, Invitation, Joins, JournalError, Renewal, Texts};
use super::{Sqlite, corrupt, failed, number};

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
        self.write(move |tx| {
            let gone = tx.execute("DELETE FROM text WHERE digest = ?1", (digest.as_bytes(),));
            Ok(gone.map_err(failed)? == 1)
        })
        .await
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
            let unlock = "DELETE FROM locked WHERE spiffe_id = ?1";
            if tx.execute(unlock, (spiffe_id.as_str(),)).map_err(failed)? == 1 {
                // Those of before stay in the count, but nobody can renew them.
                let void = "UPDATE document SET key_hash = zeroblob(32) WHERE spiffe_id = ?1";
                tx.execute(void, (spiffe_id.as_str(),)).map_err(failed)?;
            }
            let generation = issue(tx, &spiffe_id, &key_hash)?;
            Ok(Some((spiffe_id, generation)))
        })
        .await
    }

    async fn renew(
        &self,
        spiffe_id: &SpiffeId,
        generation: u64,
        key_hash: &[u8; 32],
        next_key_hash: &[u8; 32],
    ) -> Result<Renewal, JournalError> {
        let (id, key_hash, next_key_hash) = (spiffe_id.clone(), *key_hash, *next_key_hash);
        self.write(move |tx| {
            let Some(issued) = document(tx, &id, generation)?.filter(|d| d.key_hash == key_hash)
            else {
                return Ok(Renewal::Unknown);
            };
            let locked = "SELECT 1 FROM locked WHERE spiffe_id = ?1";
            let locked = tx.query_row(locked, (id.as_str(),), |_| Ok(())).optional();
            if locked.map_err(failed)?.is_some() {
                return Ok(Renewal::Locked);
            }
            let Some(next) = issued.renewed_to else {
                let next = issue(tx, &id, &next_key_hash)?;
                let renewed = "UPDATE document SET renewed_to = ?3 \
                               WHERE spiffe_id = ?1 AND generation = ?2";
                let row = (id.as_str(), number(generation)?, number(next)?);
                tx.execute(renewed, row).map_err(failed)?;
                return Ok(Renewal::Granted(next));
            };
            if document(tx, &id, next)?.is_some_and(|again| again.key_hash == next_key_hash) {
                return Ok(Renewal::Granted(next));
            }
            let lock = "INSERT INTO locked (spiffe_id) VALUES (?1)";
            tx.execute(lock, (id.as_str(),)).map_err(failed)?;
            Ok(Renewal::Locked)
        })
        .await
    }

    async fn locked(&self) -> Result<BTreeSet<SpiffeId>, JournalError> {
        self.look(|tx| {
            let mut select = tx.prepare("SELECT spiffe_id FROM locked").map_err(failed)?;
            let ids = select.query_map((), |row| row.get::<_, String>(0)).map_err(failed)?;
            let read = |id: rusqlite::Result<String>| {
                id.map_err(failed)?.parse().map_err(|_| corrupt("names a lock that was changed"))
            };
            ids.map(read).collect()
        })
        .await
    }
}

/// An identity document that was issued.
struct Document {
    key_hash: [u8; 32],
    renewed_to: Option<u64>,
}

fn document(
    tx: &Transaction<'_>,
    id: &SpiffeId,
    generation: u64,
) -> Result<Option<Document>, JournalError> {
    // A generation that no row can have was never issued.
    let Ok(generation) = i64::try_from(generation) else { return Ok(None) };
    let select = "SELECT key_hash, renewed_to FROM document \
                  WHERE spiffe_id = ?1 AND generation = ?2";
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?));
    let row = tx.query_row(select, (id.as_str(), generation), row).optional().map_err(failed)?;
    let Some((key_hash, renewed_to)) = row else { return Ok(None) };
    let renewed_to = renewed_to.map(u64::try_from).transpose();
    let renewed_to = renewed_to.map_err(|_| corrupt("has a negative generation"))?;
    Ok(Some(Document { key_hash, renewed_to }))
}

/// Puts down a document of the next generation of an ID.
fn issue(tx: &Transaction<'_>, id: &SpiffeId, key_hash: &[u8; 32]) -> Result<u64, JournalError> {
    let last = "SELECT COALESCE(MAX(generation), 0) FROM document WHERE spiffe_id = ?1";
    let last: i64 = tx.query_row(last, (id.as_str(),), |row| row.get(0)).map_err(failed)?;
    let next = last.saturating_add(1);
    let put = "INSERT INTO document (spiffe_id, generation, key_hash) VALUES (?1, ?2, ?3)";
    tx.execute(put, (id.as_str(), next, key_hash)).map_err(failed)?;
    u64::try_from(next).map_err(|_| corrupt("has a negative generation"))
}
