//! What came over the wire, as domain values. After this no string means anything.
//!
//! Every message is taken apart whole, so that a field that nobody reads does not compile.

use dayfly_proto::v1;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::scope::{Constraint, Right, Scope};

use crate::core::event::Target;

/// A scope.
pub fn scope(_scope: Option<v1::Scope>) -> Result<Scope, Invalid> {
    Err(Invalid::new("scope", "cannot be read yet"))
}

/// A right.
pub fn right(_right: v1::Right) -> Result<Right, Invalid> {
    Err(Invalid::new("right", "cannot be read yet"))
}

/// A constraint.
pub fn constraint(_constraint: v1::Constraint) -> Result<Constraint, Invalid> {
    Err(Invalid::new("constraint", "cannot be read yet"))
}

/// What a revocation takes back.
pub fn target(_target: Option<v1::RevocationTarget>) -> Result<Target, Invalid> {
    Err(Invalid::new("target", "cannot be read yet"))
}
