//! What is known to stand in the log. Must never be made from anything but an answer of a journal.

use std::ops::Deref;
use std::sync::Arc;

use crate::core::event::Head;
use crate::core::limits::Limits;
use crate::core::state::State;

/// A value that is durably recorded: an answer of a journal, or a part of the fold of what a
/// journal holds.
///
/// Only the journal module can build one, so that what demands one (the signer, an answer to a
/// client) cannot run ahead of the log:
///
/// ```compile_fail,E0423
/// let forged = dayfly_broker::journal::Recorded("never appended");
/// ```
///
/// ```compile_fail,E0624
/// let forged = dayfly_broker::journal::Recorded::new("never appended");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded<T>(T);

/// A state that is not the fold up to the head that was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the state is not the fold of the log up to the recorded head")]
pub struct NotThatHead;

impl<T> Recorded<T> {
    pub(super) const fn new(value: T) -> Self {
        Self(value)
    }

    /// For tests of what takes recorded values.
    #[cfg(test)]
    pub(crate) const fn sample(value: T) -> Self {
        Self(value)
    }

    /// A part of what is recorded. The part is taken by reference, so that nothing which was only
    /// just made can be handed out as recorded. What `part` gives must be in there: a constant
    /// would pass, too.
    pub fn project<U: Clone>(
        &self,
        part: impl for<'a> FnOnce(&'a T) -> Option<&'a U>,
    ) -> Option<Recorded<U>> {
        part(&self.0).cloned().map(Recorded)
    }
}

impl Recorded<Arc<State>> {
    /// `state` as the fold of the log up to a recorded head. The hash chain in the head vouches
    /// for every entry that was folded.
    pub fn at(receipt: &Recorded<Head>, state: Arc<State>) -> Result<Self, NotThatHead> {
        if state.head == receipt.0 { Ok(Self(state)) } else { Err(NotThatHead) }
    }

    /// The fold of no entries at all, which every log begins with.
    pub(crate) fn nothing(limits: Limits) -> Self {
        Self(Arc::new(State::new(limits)))
    }
}

impl<T> Deref for Recorded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
