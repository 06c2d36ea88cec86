//! What becomes of each request, for whoever keeps a record of uses. Changes nothing.

use crate::claims::Claims;
use crate::id::ReasonCode;
use crate::reject::Reject;
use crate::uses::{self, About, Line, Uses};
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
        /// What its token says, where it is for this gateway and its signatures are good: which
        /// one was refused, and nothing that it allows.
        claims: Option<&'a Claims>,
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

/// Counts what it hears. Whoever has no token that somebody vouches for is counted without names,
/// and an operation is named where the token has it: nobody can fill the counts by making up names.
impl Witness for Uses {
    fn saw(&self, seen: &Seen<'_>) {
        let refused = |reason, observed| {
            if observed { uses::Seen::LetPass(reason) } else { uses::Seen::Refused(reason) }
        };
        let line = match *seen {
            Seen::Passed(verified) => line(verified.claims(), verified.call(), uses::Seen::Allowed),
            Seen::Cut { reject, verified } => {
                line(verified.claims(), verified.call(), uses::Seen::Cut(reject.reason()))
            }
            Seen::Refused { reject, call, claims: Some(claims), observed } => {
                line(claims, call, refused(reject.reason(), observed))
            }
            Seen::Refused { reject, call: _, claims: None, observed } => {
                Line { about: None, operation: None, seen: refused(reject.reason(), observed) }
            }
            Seen::Unmapped { bad, observed } => {
                let reason = ReasonCode::fixed(bad.code());
                Line { about: None, operation: None, seen: refused(reason, observed) }
            }
        };
        self.count(line);
    }
}

fn line(claims: &Claims, call: &Call, seen: uses::Seen) -> Line {
    let about = Some(About { grant: claims.grant, token: claims.token });
    let has = claims.scope.rights().any(|right| right.operation == call.operation);
    Line { about, operation: has.then(|| call.operation.clone()), seen }
}
