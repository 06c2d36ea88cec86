//! What people decided, as evidence that needs no trust in the broker: the canonical request, its
//! digest, and the signed statements about it.
//!
//! Everything here has exactly one form in bytes (RFC 8785, no JSON numbers): what is read must
//! encode to its own bytes again, so that a repeated member, another spelling of a number or an
//! explicit `null` cannot mean something else to somebody else. `FORMAT.md` specifies it all, and
//! `tests/vectors` holds examples, good and bad. Nothing here decides who may decide: that a key
//! belongs to the person that a statement names is for the caller to check.

mod canonical;
mod form;
mod sshsig;
mod statement;
#[cfg(test)]
mod tests;
mod text;

pub use canonical::{MAX_CANONICAL_BYTES, parse_canonical};
pub use sshsig::{BadSignature, Signed, verify_sshsig};
pub use statement::{
    DECISION_NAMESPACE, MAX_STATEMENT_BYTES, Statement, Unverified, VerifiedStatement,
    verify_decision,
};
pub use text::{MAX_FREE_TEXT_BYTES, Salt};
