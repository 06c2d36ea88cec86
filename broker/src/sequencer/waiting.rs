//! What waits to be decided.

use tokio::sync::oneshot;

use super::{Done, Failure, Remake};
use crate::core::command::{Caller, Command};
use crate::journal::FreeText;

/// Something that waits for the log.
pub(super) struct Waiting {
    pub(super) what: Option<Asked>,
    pub(super) answer: oneshot::Sender<Result<Done, Failure>>,
}

/// A command, with what comes with it.
pub(super) struct Asked {
    pub(super) command: Command,
    /// Makes the command anew before it is decided.
    pub(super) remake: Option<Remake>,
    pub(super) caller: Caller,
    pub(super) text: Option<FreeText>,
}

impl Asked {
    pub(super) const fn new(command: Command, caller: Caller, text: Option<FreeText>) -> Self {
        Self { command, remake: None, caller, text }
    }
}

impl Waiting {
    /// Whether it gives nothing.
    pub(super) fn takes_away(&self) -> bool {
        self.what.as_ref().is_none_or(|asked| asked.command.takes_away())
    }

    /// Whether any workload can ask for it as often as it likes: it must not keep an operator from
    /// taking away.
    pub(super) fn is_common(&self) -> bool {
        let by_holder =
            |asked: &Asked| matches!(asked.command, Command::Complete(..) | Command::Cancel(..));
        self.what.as_ref().is_none_or(by_holder)
    }

    pub(super) fn answer(self, answer: Result<Done, Failure>) {
        // The client may have gone.
        let _ = self.answer.send(answer);
    }
}
