//! Refusals and faults as gRPC statuses: one closed set of reasons.

use dayfly_verifier::invalid::Invalid;
use tonic::Status;

use crate::core::denial::Denial;
use crate::sequencer::Failure;

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

/// What came of a command that was not done.
#[must_use]
pub fn failure(failure: &Failure) -> Status {
    match failure {
        Failure::Denied(refused) => denial(refused),
        Failure::Fault(fault) => Status::unavailable(fault.to_string()),
    }
}
