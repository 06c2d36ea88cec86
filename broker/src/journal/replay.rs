//! Folds a log anew, checking all that can be checked of it: what a broker does at its start, and
//! an auditor at any time. Must never go on after the first entry that is wrong.

use std::sync::Arc;

use super::{JournalError, StoredEntry};
use crate::core::event::{Entry, Head};
use crate::core::state::{Corrupt, State};

/// A fold in progress.
#[derive(Debug, Clone)]
pub struct Replay {
    state: State,
}

impl Replay {
    /// Goes on from `state`; from the first entry on with [`State::default`].
    #[must_use]
    pub const fn from(state: State) -> Self {
        Self { state }
    }

    /// The fold so far.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The fold, when there is no more to come.
    #[must_use]
    pub fn into_state(self) -> State {
        self.state
    }

    /// Folds the next entry, as somebody claims that it stands: `bytes`, making the head `claimed`.
    /// The error names the entry: one that does not continue the chain, is not what this version
    /// writes for what it says, or cannot have happened there.
    pub fn push(&mut self, claimed: Head, bytes: Arc<[u8]>) -> Result<Entry, JournalError> {
        let stored = StoredEntry::read_back(&self.state.head, claimed, bytes)?;
        self.push_stored(&stored)
    }

    /// The same for an entry whose place in the chain was checked when it was read.
    pub fn push_stored(&mut self, stored: &StoredEntry) -> Result<Entry, JournalError> {
        let entry = stored.decode(&self.state.head)?;
        let applied = self.state.apply(*stored.head(), &entry);
        applied.map_err(|Corrupt { seq, rule }| JournalError::Corrupt {
            seq,
            rule: format!("cannot stand there: {rule}"),
        })?;
        Ok(entry)
    }
}
