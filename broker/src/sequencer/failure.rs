//! Why a command was not done: the rules refused it, or the world failed. Never taken for each
//! other.

use crate::core::denial::Denial;

/// Why a command was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The rules refuse it.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// The world failed. Whether it was done may be unknown: asking the same again is safe.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// What in the world failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// More commands wait than are taken.
    #[error("too many commands are waiting")]
    Busy,
    /// The journal could not be written in time.
    #[error("the journal is unavailable")]
    Unavailable,
    /// This broker's clock is behind the log by more than two seconds, or was set.
    #[error("the clock of this broker is off")]
    ClockOff,
    /// What was decided cannot be: a defect of the broker. Nothing was written.
    #[error("the broker could not do this")]
    Impossible,
    /// This broker has stopped deciding.
    #[error("this broker has stopped")]
    Stopped,
}
