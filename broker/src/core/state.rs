//! The fold of the log.

use dayfly_verifier::id::BundleDigest;

use super::event::{Entry, Head};

/// What the log means, up to its head. A clone is cheap.
#[derive(Debug, Clone)]
pub struct State {
    /// The end of what was folded.
    pub head: Head,
    /// The bundle in force.
    pub bundle: Option<BundleDigest>,
}

impl Default for State {
    /// Before the first entry.
    fn default() -> Self {
        Self { head: Head::ORIGIN, bundle: None }
    }
}

impl State {
    /// Folds one more entry, which stands at `head`.
    pub fn apply(&mut self, head: Head, _entry: &Entry) {
        self.head = head;
    }
}
