//! Refusals and faults as gRPC statuses: one closed set of reasons.

use dayfly_verifier::invalid::Invalid;
use tonic::Status;

use crate::core::denial::Denial;

/// The `domain` of every [`ErrorInfo`](tonic_types::ErrorInfo) that a broker gives.
pub const DOMAIN: &str = "dayfly.v1";

/// A value in a message that is not what it should be.
#[must_use]
pub fn invalid(invalid: &Invalid) -> Status {
    denial(&Denial::Invalid(invalid.clone()))
}

/// A refusal by the rules.
#[must_use]
pub fn denial(denial: &Denial) -> Status {
    Status::permission_denied(denial.to_string())
}
