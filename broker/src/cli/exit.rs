//! How a command ends: one closed set of exit codes, and what to say on the way out.

use std::process::ExitCode;

/// The end of a command that did not do what was asked, or not yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Something failed that has no code of its own.
    Failed,
    /// The command line is not understood, or a value in it is refused.
    Usage,
    /// The request still waits for approval.
    Pending,
    /// Policy, a person or a rule said no.
    Denied,
    /// The request expired unanswered, or the lease ended.
    Expired,
    /// What was granted has been taken back.
    Revoked,
    /// It could not be asked, so the answer is not known: never a yes.
    Unavailable,
    /// A configuration or bundle file is refused.
    Config,
}

impl Exit {
    /// What to do next where nothing more particular is known.
    const fn step(self) -> Option<&'static str> {
        match self {
            Self::Failed => None,
            Self::Usage => Some("see what it takes with --help"),
            Self::Pending => Some("wait for it with `dayfly wait`"),
            Self::Denied => {
                Some("the same is refused again: ask for less, or ask who may allow it")
            }
            Self::Expired => Some("ask anew with `dayfly request`"),
            Self::Revoked => Some("ask anew with `dayfly request`, if it is still to be done"),
            Self::Unavailable => Some(
                "see whether the broker runs, with `dayfly probe` on its host, then try again: \
                 until it answers, nothing is known",
            ),
            Self::Config => Some("mend what is named, then try again"),
        }
    }

    /// The process's exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Pending => 10,
            Self::Denied => 11,
            Self::Expired => 12,
            Self::Revoked => 13,
            Self::Unavailable => 20,
            Self::Config => 64,
        }
    }
}

/// All of them, for help and manual.
pub const CODES: &str = "0 done, 1 failed, 2 usage, 10 pending, 11 denied, 12 expired, 13 revoked, \
                         20 unavailable, 64 bad configuration";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command ends without having done what was asked: the code, the reason, the next step.
#[derive(Debug)]
pub struct Refused {
    /// The exit code.
    pub exit: Exit,
    /// What went wrong, with its causes.
    pub error: anyhow::Error,
    /// What to do about it, as a command or a sentence; none where there is nothing to do.
    pub next: Option<String>,
}

/// The next step where a file could not be written.
pub const WRITABLE: &str = "name a file in a directory that is there, and that you may write to";

impl Refused {
    /// The next step, if there is one.
    #[must_use]
    pub fn step(&self) -> Option<&str> {
        self.next.as_deref().or(self.exit.step())
    }

    /// A refusal with its reason.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into(), next: None }
    }

    /// The same, with the next step to take.
    #[must_use]
    pub fn next(self, step: impl Into<String>) -> Self {
        Self { next: Some(step.into()), ..self }
    }
}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Failed, error)
    }
}

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failed, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_none_is_success() {
        let all = [
            Exit::Failed,
            Exit::Usage,
            Exit::Pending,
            Exit::Denied,
            Exit::Expired,
            Exit::Revoked,
            Exit::Unavailable,
            Exit::Config,
        ];
        let codes: std::collections::BTreeSet<u8> = all.iter().map(|exit| exit.code()).collect();
        assert_eq!(codes.iter().copied().collect::<Vec<_>>(), [1, 2, 10, 11, 12, 13, 20, 64]);
        for code in codes {
            assert!(CODES.contains(&format!(", {code} ")), "{code}");
        }
    }
}
