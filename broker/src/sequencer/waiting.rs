//! What waits to be decided.

use tokio::sync::oneshot;

use super::{Done, Failure, KEPT, OPERATORS, Remake};
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

    /// How many places it leaves to others, where whoever asks for it can do so as often as they
    /// like: no workload must keep people from approving or denying, nor gateways from redeeming,
    /// and neither of them operators from taking away.
    pub(super) fn leaves(&self) -> Option<usize> {
        let Some(Asked { command, .. }) = &self.what else { return Some(KEPT) };
        match command {
            Command::File(..) | Command::Exchange(..) => Some(KEPT),
            Command::Complete(..) | Command::Cancel(..) => Some(KEPT),
            Command::Deny(..) | Command::Withdraw(..) => Some(OPERATORS),
            Command::Approve(..) | Command::Redeem(..) | Command::Reevaluate(..) => None,
            Command::Report(..) | Command::Identity(..) | Command::Revoke(..) => None,
            Command::Lock(..) | Command::Unlock(..) | Command::OptOut(..) => None,
            Command::Apply(..) | Command::AddKey { .. } | Command::RetireKey(..) => None,
            Command::Snapshot(..) => None,
        }
    }

    pub(super) fn answer(self, answer: Result<Done, Failure>) {
        // The client may have gone.
        let _ = self.answer.send(answer);
    }
}
