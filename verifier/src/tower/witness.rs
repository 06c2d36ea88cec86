//! What becomes of each request, for whoever keeps a record of uses. Changes nothing.

use crate::reject::Reject;
use crate::verify::{Call, Verified};

use super::BadCall;

/// Hears what becomes of each request.
///
/// It is called on the path of the request, after the decision and before the handler: it must
/// return at once. What it does with what it hears is its own affair; it cannot change it.
pub trait Witness: Send + Sync {
    /// A request was decided, or what it began was cut.
    fn saw(&self, seen: &Seen<'_>);
}

/// What became of a request.
pub enum Seen<'a> {
    /// It was let through.
    Passed(&'a Verified),
    /// Its token did not clear it.
    Refused {
        /// Why.
        reject: &'a Reject,
        /// What it was about, as the request says; nobody vouches for it.
        call: &'a Call,
        /// It was let pass all the same, since the gateway only observes.
        observed: bool,
    },
    /// It has no meaning.
    Unmapped {
        /// Why.
        bad: &'a BadCall,
        /// It was let pass all the same, since the gateway only observes.
        observed: bool,
    },
    /// It was let through, and had to end before its answer was sent in full.
    Cut {
        /// Why.
        reject: &'a Reject,
        /// What was let through.
        verified: &'a Verified,
    },
}
