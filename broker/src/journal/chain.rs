//! The hash chain over the log: every head vouches for all entries up to it. Must never accept an
//! entry whose place or predecessor it was not given.

use std::sync::Arc;

use dayfly_verifier::id::{ChainHash, Epoch};
use sha2::{Digest as _, Sha256};

use super::{FreeText, JournalError, stored};
use crate::core::event::{Entry, Head};

/// What distinguishes this hash from every other one that Dayfly computes.
const DOMAIN: &[u8] = b"dayfly.journal.v1\0";

/// An entry as it is stored: its bytes, and the head that it makes. One that is to be appended has
/// the free text with it that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    head: Head,
    bytes: Arc<[u8]>,
    text: Option<FreeText>,
}

impl StoredEntry {
    /// `entry`, encoded, right after `before`.
    pub fn after(before: &Head, entry: &Entry) -> Result<Self, JournalError> {
        let epoch = entry.event.opens().unwrap_or(before.epoch);
        Ok(Self::link(before, epoch, stored::encode(entry)?.into()))
    }

    /// What a store returned for the place right after `before`; refuses what does not continue
    /// the chain.
    pub fn read_back(before: &Head, head: Head, bytes: Arc<[u8]>) -> Result<Self, JournalError> {
        let linked = Self::link(before, head.epoch, bytes);
        if linked.head == head {
            Ok(linked)
        } else {
            let seq = before.seq.next();
            Err(JournalError::Corrupt { seq, rule: "does not continue the hash chain".into() })
        }
    }

    fn link(before: &Head, epoch: Epoch, bytes: Arc<[u8]>) -> Self {
        let seq = before.seq.next();
        let hash = Sha256::new()
            .chain_update(DOMAIN)
            .chain_update(before.hash.as_bytes())
            .chain_update(epoch.as_bytes())
            .chain_update(seq.0.to_be_bytes())
            .chain_update(&bytes)
            .finalize();
        Self { head: Head { epoch, seq, hash: ChainHash::new(hash.into()) }, bytes, text: None }
    }

    /// The same, to be appended with `text`, which its entry names: both become durable or
    /// neither.
    #[must_use]
    pub fn with_text(self, text: FreeText) -> Self {
        Self { text: Some(text), ..self }
    }

    /// The same, as the log has it.
    #[must_use]
    pub fn without_text(self) -> Self {
        Self { text: None, ..self }
    }

    /// The text to be kept beside the log with this entry; `None` for one that was read.
    #[must_use]
    pub const fn text(&self) -> Option<&FreeText> {
        self.text.as_ref()
    }

    /// The end of the log, once this entry is in it.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// The entry as JSON, byte for byte as it is stored and chained.
    #[must_use]
    pub const fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// What the entry says. An epoch that changes without an entry that opens it is corrupt.
    pub fn decode(&self, before: &Head) -> Result<Entry, JournalError> {
        let entry = stored::decode(self.head.seq, &self.bytes)?;
        if Self::after(before, &entry)?.head == self.head {
            Ok(entry)
        } else {
            let rule = "is not what this version writes for the same entry, at this place";
            Err(JournalError::Corrupt { seq: self.head.seq, rule: rule.into() })
        }
    }
}

/// Encodes `entries` and chains them, in order, right after `after`.
pub fn chain(after: &Head, entries: &[Entry]) -> Result<Vec<StoredEntry>, JournalError> {
    let mut head = *after;
    let mut chained = Vec::with_capacity(entries.len());
    for entry in entries {
        let stored = StoredEntry::after(&head, entry)?;
        head = stored.head;
        chained.push(stored);
    }
    Ok(chained)
}

/// Refuses entries that do not continue `after`, as a journal must before it appends them.
pub(super) fn check(after: &Head, entries: &[StoredEntry]) -> Result<Head, JournalError> {
    let mut head = *after;
    for entry in entries {
        StoredEntry::read_back(&head, entry.head, Arc::clone(&entry.bytes))?;
        head = entry.head;
    }
    Ok(head)
}

/// Any bytes, chained: what only a forger would write.
#[cfg(test)]
pub(crate) fn tests_link(before: &Head, epoch: Epoch, bytes: Arc<[u8]>) -> StoredEntry {
    StoredEntry::link(before, epoch, bytes)
}
