//! What a batch makes happen, before it is durable.

use dayfly_verifier::time::Timestamp;

use super::{Failure, Fault};
use crate::core::event::{Actor, Entry, Event};
use crate::core::state::State;
use crate::journal::{FreeText, JournalError, StoredEntry};

/// What becomes of each command of a batch: whether it makes something happen, or why not.
pub(super) type Outcomes = Vec<Result<bool, Failure>>;

/// What a batch makes happen.
pub(super) struct Decided {
    pub(super) state: State,
    pub(super) entries: Vec<StoredEntry>,
    pub(super) outcomes: Outcomes,
}

impl Decided {
    /// Nothing yet, on `state`.
    pub(super) const fn on(state: State) -> Self {
        Self { state, entries: Vec::new(), outcomes: Vec::new() }
    }

    /// Adds what one command makes happen, all of it or nothing.
    pub(super) fn record(
        &mut self,
        by: &Actor,
        at: Timestamp,
        events: Vec<Event>,
        text: Option<&FreeText>,
    ) -> Result<Result<bool, Failure>, JournalError> {
        let mut state = self.state.clone();
        let made = !events.is_empty();
        let count = self.entries.len();
        for event in events {
            let entry = Entry { by: by.clone(), at, policy: state.bundle, event };
            let stored = StoredEntry::after(&state.head, &entry)?;
            if let Err(error) = state.apply(*stored.head(), &entry) {
                // A rule decided what the fold holds for impossible: nothing of it is written.
                tracing::error!(%error, "a decision was dropped");
                self.entries.truncate(count);
                return Ok(Err(Fault::Impossible.into()));
            }
            self.entries.push(match text.filter(|text| event_names(&entry.event, text)) {
                Some(text) => stored.with_text(text.clone()),
                None => stored,
            });
        }
        self.state = state;
        Ok(Ok(made))
    }
}

/// Whether the log names `text` for `event`. Nothing else is kept of what came with a command.
fn event_names(event: &Event, text: &FreeText) -> bool {
    event.text() == Some(&text.digest())
}
