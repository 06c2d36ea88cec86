//! What is kept beside the log, in tables of its own.

use async_trait::async_trait;
use dayfly_verifier::id::{BundleDigest, TextDigest};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use rusqlite::{OptionalExtension as _, Transaction};

use super::super::side::renewal;
use super::super::{Bundles, FreeText, Invitation, Joins, JournalError, Renewal, Texts};
use super::{Sqlite, corrupt, failed, number};

#[async_trait]
impl Texts for Sqlite {
    async fn put_text(&self, text: &FreeText) -> Result<TextDigest, JournalError> {
        let (digest, text) = (text.digest(), text.clone());
        self.write(move |tx| {
            let insert = "INSERT OR IGNORE INTO text (digest, salt, body) VALUES (?1, ?2, ?3)";
            tx.execute(insert, (digest.as_bytes(), text.salt(), text.body()))
                .map(|_| digest)
                .map_err(failed)
        })
        .await
    }

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
            let last = document(tx, &spiffe_id)?.map_or(0, |(generation, _, _)| generation);
            let generation = last.saturating_add(1);
            put_document(tx, &spiffe_id, (generation, false, key_hash))?;
            Ok(Some((spiffe_id, generation)))
        })
        .await
    }

    async fn renew(
        &self,
        spiffe_id: &SpiffeId,
        generation: u64,
        key_hash: &[u8; 32],
    ) -> Result<Renewal, JournalError> {
        let (spiffe_id, key_hash) = (spiffe_id.clone(), *key_hash);
        self.write(move |tx| {
            let Some(issued) = document(tx, &spiffe_id)? else { return Ok(Renewal::Unknown) };
            let renewal = renewal(issued, generation, &key_hash);
            match renewal {
                Renewal::Granted(next) => put_document(tx, &spiffe_id, (next, false, key_hash))?,
                Renewal::Locked => put_document(tx, &spiffe_id, (issued.0, true, issued.2))?,
                Renewal::Unknown => {}
            }
            Ok(renewal)
        })
        .await
    }
}

/// Generation, whether it is locked, and hash of the key of what was issued last.
type Issued = (u64, bool, [u8; 32]);

fn document(tx: &Transaction<'_>, id: &SpiffeId) -> Result<Option<Issued>, JournalError> {
    let select = "SELECT generation, locked, key_hash FROM document WHERE spiffe_id = ?1";
    let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?));
    let row = tx.query_row(select, (id.as_str(),), row).optional().map_err(failed)?;
    let Some((generation, locked, key_hash)) = row else { return Ok(None) };
    let generation = u64::try_from(generation).map_err(|_| corrupt("has a negative generation"))?;
    Ok(Some((generation, locked, key_hash)))
}

fn put_document(
    tx: &Transaction<'_>,
    id: &SpiffeId,
    (generation, locked, key_hash): Issued,
) -> Result<(), JournalError> {
    let put = "INSERT OR REPLACE INTO document (spiffe_id, generation, locked, key_hash) \
               VALUES (?1, ?2, ?3, ?4)";
    tx.execute(put, (id.as_str(), number(generation)?, locked, key_hash)).map(drop).map_err(failed)
}
