//! What a gateway holds its feed to. Decides nothing by itself.

use std::time::Duration;

use crate::holder::HolderKey;
use crate::invalid::Invalid;

/// What a gateway holds its feed to.
#[derive(Debug, Clone)]
pub struct Profile {
    pub(super) root: HolderKey,
    pub(super) max_staleness: Duration,
    pub(super) best_effort: bool,
    pub(super) source: Source,
}

/// How the feed comes, and with that what its age is counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// By a stream from the broker itself: from the sending of the challenge that was echoed.
    Direct,
    /// By a relay or a file, which may keep it back: from the signed time.
    Relayed,
}

impl Profile {
    /// Believes keys that `root` names, and refuses after `max_staleness` (1 s to 60 s) without
    /// anything fresh.
    pub fn new(root: HolderKey, max_staleness: Duration, source: Source) -> Result<Self, Invalid> {
        if max_staleness < Duration::from_secs(1) || max_staleness > Duration::from_secs(60) {
            return Err(Invalid::new("max_staleness", "must be 1 s to 60 s"));
        }
        Ok(Self { root, max_staleness, best_effort: false, source })
    }

    /// The opt-out: goes on allowing when nothing fresh is heard. Revocations are then unbounded,
    /// and the broker lists the instance so. It still refuses before the first snapshot, and when
    /// a head goes back.
    #[must_use]
    pub const fn best_effort(mut self) -> Self {
        self.best_effort = true;
        self
    }

    /// After how much silence everything is refused.
    #[must_use]
    pub const fn max_staleness(&self) -> Duration {
        self.max_staleness
    }

    /// Whether it opted out of that.
    #[must_use]
    pub const fn is_best_effort(&self) -> bool {
        self.best_effort
    }
}
