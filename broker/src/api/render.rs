//! Domain values as messages.

use dayfly_proto::v1;
use dayfly_verifier::request::Requirement;
use dayfly_verifier::scope::Scope;

use crate::core::event::Head;

/// A scope.
#[must_use]
pub fn scope(_scope: &Scope) -> v1::Scope {
    v1::Scope::default()
}

/// A requirement.
#[must_use]
pub fn requirement(_requirement: &Requirement) -> v1::Requirement {
    v1::Requirement::default()
}

/// The end of the journal.
#[must_use]
pub fn head(head: &Head) -> v1::Head {
    v1::Head { epoch: head.epoch.to_string(), seq: head.seq.0, hash: head.hash.to_string() }
}
