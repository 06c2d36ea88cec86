//! Entries as they are stored: JSON of versioned types of its own.

use dayfly_verifier::id::Seq;

use super::JournalError;
use crate::core::event::Entry;

/// The stored form of `entry`.
pub fn encode(_entry: &Entry) -> Result<Vec<u8>, JournalError> {
    Err(JournalError::Unavailable("not written yet".into()))
}

/// What the stored form at `seq` says.
pub fn decode(_seq: Seq, _bytes: &[u8]) -> Result<Entry, JournalError> {
    Err(JournalError::Unavailable("not written yet".into()))
}
