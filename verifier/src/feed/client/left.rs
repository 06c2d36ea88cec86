//! Why a gateway leaves the broker that it follows.

use tonic::{Code, Status};

use super::super::refused::Refused;
use crate::trust::Untrusted;

/// Why a session with a broker ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Left {
    #[error("the broker cannot be reached: {}", .0.message())]
    Unreachable(#[from] Status),
    #[error("the broker was silent for too long")]
    Silent,
    #[error("the broker ended the stream")]
    Over,
    #[error("a message of the feed cannot be read")]
    Unreadable,
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    #[error("the trust root names another epoch")]
    OtherEpoch,
    #[error("the high-water mark cannot be written: no other epoch is entered")]
    NotKept,
    #[error("no random bytes")]
    NoRandomness,
}

impl Left {
    /// A message was too long to be read. What came after a head is told in one; a snapshot is told
    /// in parts, however much there is.
    pub(super) fn is_too_long(&self) -> bool {
        matches!(self, Self::Unreachable(status) if status.code() == Code::OutOfRange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the library says it of a message that is longer than it may be.
    #[test]
    fn what_is_too_long_is_told_from_a_broker_that_is_not_there() {
        let too_long = Status::out_of_range("Error, decoded message length too large");
        assert!(Left::from(too_long).is_too_long());
        for other in [Status::unavailable(""), Status::data_loss(""), Status::aborted("")] {
            assert!(!Left::from(other).is_too_long());
        }
        assert!(!Left::Silent.is_too_long());
    }
}
