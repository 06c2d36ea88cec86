//! A store in memory, for tests and trials. It forgets everything with its process; otherwise it
//! must behave as the durable ones do.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use dayfly_verifier::id::{BundleDigest, Seq, TextDigest};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{
    Bundles, DOCUMENT_KEPT, Floor, FreeText, Invitation, Joins, Journal, JournalError, Recorded,
    Renew, Renewal, Snapshots, StoredEntry, TURN, Texts, chain,
};
use crate::core::event::Head;

/// A store in memory. Clones are the same store, as several brokers would share it.
pub struct Memory {
    kept: Arc<Mutex<Kept>>,
    /// Held by whoever keeps a snapshot.
    keeping: Arc<Mutex<()>>,
    moved: watch::Sender<()>,
    /// Names this broker among those who wait for their turn.
    me: u64,
}

#[derive(Default)]
struct Kept {
    log: Vec<StoredEntry>,
    /// How many brokers there have been.
    brokers: u64,
    /// Those who wait for their turn, each with when it showed up last.
    turns: VecDeque<(u64, Instant)>,
    texts: BTreeMap<TextDigest, FreeText>,
    bundles: BTreeMap<BundleDigest, Vec<u8>>,
    invitations: BTreeMap<[u8; 16], Invitation>,
    documents: BTreeMap<(SpiffeId, u64), Document>,
    floors: BTreeMap<SpiffeId, Floor>,
    snapshots: BTreeMap<Seq, Vec<u8>>,
}

#[cfg(test)]
impl Memory {
    /// No snapshot is kept for as long as this is held.
    pub(crate) fn hold_snapshots(&self) -> MutexGuard<'_, ()> {
        self.keeping.lock().unwrap()
    }
}

/// An identity document that was issued.
struct Document {
    key_hash: [u8; 32],
    renewed_to: Option<u64>,
    issued_at: Timestamp,
}

impl Kept {
    fn head(&self) -> Head {
        self.log.last().map_or(Head::ORIGIN, |entry| *entry.head())
    }

    /// Puts down a document of the next generation of an ID, after forgetting what is long over.
    fn issue(&mut self, spiffe_id: &SpiffeId, key_hash: &[u8; 32], now: Timestamp) -> u64 {
        self.documents.retain(|_, document| now < document.issued_at.plus(DOCUMENT_KEPT));
        let Self { documents, floors, .. } = self;
        floors.retain(|id, _| documents.keys().any(|(of, _)| of == id));
        let of_id = (spiffe_id.clone(), 0)..=(spiffe_id.clone(), u64::MAX);
        let last = self.documents.range(of_id).next_back().map_or(0, |((_, last), _)| *last);
        let generation = last.saturating_add(1);
        let document = Document { key_hash: *key_hash, renewed_to: None, issued_at: now };
        self.documents.insert((spiffe_id.clone(), generation), document);
        generation
    }

    /// Whether nobody but `me` has the turn.
    fn may_append(&mut self, me: u64) -> bool {
        self.turns.retain(|(_, seen)| seen.elapsed() < TURN);
        self.turns.front().is_none_or(|(first, _)| *first == me)
    }

    /// The entries after `after`, which must be in the log.
    fn after(&self, after: &Head) -> Result<&[StoredEntry], JournalError> {
        let count = usize::try_from(after.seq.0).unwrap_or(usize::MAX);
        let (before, rest) =
            self.log.split_at_checked(count).ok_or(JournalError::Diverged(after.seq))?;
        let there = before.last().map_or(Head::ORIGIN, |entry| *entry.head());
        if there == *after { Ok(rest) } else { Err(JournalError::Diverged(after.seq)) }
    }
}

impl Default for Memory {
    fn default() -> Self {
        let (kept, keeping) = Default::default();
        Self { kept, keeping, moved: watch::Sender::new(()), me: 0 }
    }
}

impl Clone for Memory {
    fn clone(&self) -> Self {
        let mut kept = self.kept();
        kept.brokers = kept.brokers.saturating_add(1);
        let (moved, keeping) = (self.moved.clone(), self.keeping.clone());
        Self { kept: self.kept.clone(), keeping, moved, me: kept.brokers }
    }
}

impl Memory {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A panic of another holder cannot leave a half-made change: each is one assignment.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(
        &self,
        after: &Head,
        entries: &[StoredEntry],
        in_turn: bool,
    ) -> Result<Recorded<Head>, JournalError> {
        let head = chain::check(after, entries)?;
        let mut kept = self.kept();
        if !kept.after(after)?.is_empty() || in_turn && !kept.may_append(self.me) {
            return Err(JournalError::Conflict);
        }
        if in_turn {
            kept.turns.retain(|(waiting, _)| *waiting != self.me);
        }
        for entry in entries {
            kept.texts.extend(entry.text().map(|text| (text.digest(), text.clone())));
            kept.log.push(entry.clone().without_text());
        }
        drop(kept);
        self.moved.send_replace(());
        Ok(Recorded::new(head))
    }
}

#[async_trait]
impl Journal for Memory {
    async fn append(
        &self,
        after: &Head,
        entries: &[StoredEntry],
    ) -> Result<Recorded<Head>, JournalError> {
        self.add(after, entries, false)
    }

    async fn append_in_turn(
        &self,
        after: &Head,
        entries: &[StoredEntry],
    ) -> Result<Recorded<Head>, JournalError> {
        self.add(after, entries, true)
    }

    async fn turn(&self) -> Result<bool, JournalError> {
        let mut kept = self.kept();
        match kept.turns.iter_mut().find(|(waiting, _)| *waiting == self.me) {
            Some((_, seen)) => *seen = Instant::now(),
            None => kept.turns.push_back((self.me, Instant::now())),
        }
        Ok(kept.may_append(self.me))
    }

    async fn pass_turn(&self) -> Result<(), JournalError> {
        self.kept().turns.retain(|(waiting, _)| *waiting != self.me);
        Ok(())
    }

    async fn read(
        &self,
        after: &Head,
        limit: usize,
    ) -> Result<Vec<Recorded<StoredEntry>>, JournalError> {
        Ok(self.kept().after(after)?.iter().take(limit).cloned().map(Recorded::new).collect())
    }

    async fn head_at(&self, seq: Seq) -> Result<Option<Recorded<Head>>, JournalError> {
        let before = usize::try_from(seq.0).ok().map(|count| count.checked_sub(1));
        Ok(match before {
            Some(None) => Some(Recorded::new(Head::ORIGIN)),
            Some(Some(place)) => self.kept().log.get(place).map(|e| Recorded::new(*e.head())),
            None => None,
        })
    }

    async fn confirm(&self) -> Result<Recorded<Head>, JournalError> {
        Ok(Recorded::new(self.kept().head()))
    }

    fn moved(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
    }
}

#[async_trait]
impl Texts for Memory {
    async fn text(&self, digest: &TextDigest) -> Result<Option<FreeText>, JournalError> {
        Ok(self.kept().texts.get(digest).cloned())
    }

    async fn erase_text(&self, digest: &TextDigest) -> Result<bool, JournalError> {
        Ok(self.kept().texts.remove(digest).is_some())
    }
}

#[async_trait]
impl Bundles for Memory {
    async fn put_bundle(&self, digest: &BundleDigest, content: &[u8]) -> Result<(), JournalError> {
        self.kept().bundles.entry(*digest).or_insert_with(|| content.to_vec());
        Ok(())
    }

    async fn bundle(&self, digest: &BundleDigest) -> Result<Option<Vec<u8>>, JournalError> {
        Ok(self.kept().bundles.get(digest).cloned())
    }
}

impl Snapshots for Memory {
    fn keep_snapshot(
        &self,
        seq: Seq,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let _one_by_one = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let mut content = Vec::new();
        write(&mut content)?;
        self.kept().snapshots.insert(seq, content);
        Ok(())
    }

    fn snapshots(&self) -> io::Result<Vec<Seq>> {
        Ok(self.kept().snapshots.keys().rev().copied().collect())
    }

    fn snapshot(&self, seq: Seq) -> io::Result<Box<dyn Read + Send>> {
        let content = self.kept().snapshots.get(&seq).cloned();
        Ok(Box::new(io::Cursor::new(content.ok_or(io::ErrorKind::NotFound)?)))
    }

    fn forget_snapshots(&self, seq: Seq) -> io::Result<()> {
        self.kept().snapshots.retain(|at, _| *at >= seq);
        Ok(())
    }
}

#[async_trait]
impl Joins for Memory {
    async fn invite(&self, invitation: &Invitation, now: Timestamp) -> Result<(), JournalError> {
        let mut kept = self.kept();
        kept.invitations.retain(|_, invitation| now < invitation.expires_at);
        kept.invitations.insert(invitation.id, invitation.clone());
        Ok(())
    }

    async fn join(
        &self,
        id: &[u8; 16],
        secret_hash: &[u8; 32],
        key_hash: &[u8; 32],
        now: Timestamp,
    ) -> Result<Option<(SpiffeId, u64)>, JournalError> {
        let mut kept = self.kept();
        let good = |i: &Invitation| i.secret_hash == *secret_hash && now < i.expires_at;
        if !kept.invitations.get(id).is_some_and(good) {
            return Ok(None);
        }
        let Some(Invitation { spiffe_id, .. }) = kept.invitations.remove(id) else {
            return Ok(None);
        };
        let generation = kept.issue(&spiffe_id, key_hash, now);
        if let Some(floor) = kept.floors.get_mut(&spiffe_id)
            && *floor == Floor::Locked
        {
            *floor = Floor::From(generation);
        }
        Ok(Some((spiffe_id, generation)))
    }

    async fn renew(&self, renew: &Renew, now: Timestamp) -> Result<Renewal, JournalError> {
        let Renew { spiffe_id, generation, key_hash, next_key_hash, due } = renew;
        let mut kept = self.kept();
        let document = kept.documents.get(&(spiffe_id.clone(), *generation));
        let Some(Document { renewed_to, .. }) = document.filter(|d| d.key_hash == *key_hash) else {
            return Ok(Renewal::Unknown);
        };
        match kept.floors.get(spiffe_id) {
            Some(Floor::Locked) => return Ok(Renewal::Locked),
            Some(Floor::From(floor)) if generation < floor => return Ok(Renewal::Unknown),
            Some(Floor::From(_)) | None => {}
        }
        let Some(next) = *renewed_to else {
            if !due {
                return Ok(Renewal::TooEarly);
            }
            let next = kept.issue(spiffe_id, next_key_hash, now);
            let document = kept.documents.get_mut(&(spiffe_id.clone(), *generation));
            document.into_iter().for_each(|document| document.renewed_to = Some(next));
            return Ok(Renewal::Granted { generation: next, issued_at: now });
        };
        let again = kept.documents.get(&(spiffe_id.clone(), next));
        if let Some(again) = again.filter(|document| document.key_hash == *next_key_hash) {
            return Ok(Renewal::Granted { generation: next, issued_at: again.issued_at });
        }
        kept.floors.insert(spiffe_id.clone(), Floor::Locked);
        Ok(Renewal::Forked)
    }

    async fn floors(&self) -> Result<BTreeMap<SpiffeId, Floor>, JournalError> {
        Ok(self.kept().floors.clone())
    }
}
