//! What a gateway holds its feed to. Decides nothing by itself.

use std::sync::Arc;
use std::time::Duration;

use crate::holder::HolderKey;
use crate::invalid::Invalid;
use crate::resource::{Resource, ResourcePattern};

/// What a gateway holds its feed to.
#[derive(Debug, Clone)]
pub struct Profile {
    pub(super) root: HolderKey,
    pub(super) bounds: Bounds,
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

/// After how much silence uses are refused: all of them, and some resources earlier.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    pub(super) all: Duration,
    some: Arc<[(ResourcePattern, Duration)]>,
}

impl Bounds {
    pub(super) fn new(all: Duration) -> Self {
        Self { all, some: Arc::new([]) }
    }

    /// How much earlier than everything uses of `resource` are refused: of several bounds the
    /// tightest counts.
    pub(super) fn slack(&self, resource: &Resource) -> Duration {
        let of = self.some.iter().filter(|(pattern, _)| pattern.matches(resource));
        of.map(|(_, bound)| self.all.saturating_sub(*bound)).max().unwrap_or_default()
    }
}

impl Profile {
    /// Believes keys that `root` names, and refuses after `max_staleness` (1 s to 60 s) without
    /// anything fresh.
    pub fn new(root: HolderKey, max_staleness: Duration, source: Source) -> Result<Self, Invalid> {
        if max_staleness < Duration::from_secs(1) || max_staleness > Duration::from_secs(60) {
            return Err(Invalid::new("max_staleness", "must be 1 s to 60 s"));
        }
        Ok(Self { root, bounds: Bounds::new(max_staleness), best_effort: false, source })
    }

    /// Refuses uses of what `pattern` matches after `max_staleness` already, 1 s at least. A longer
    /// bound than that of everything does nothing, and is refused.
    pub fn bound(
        mut self,
        pattern: ResourcePattern,
        max_staleness: Duration,
    ) -> Result<Self, Invalid> {
        if max_staleness < Duration::from_secs(1) || max_staleness > self.bounds.all {
            let rule = "must be 1 s to the bound of everything else";
            return Err(Invalid::new("max_staleness", rule));
        }
        let some = self.bounds.some.iter().cloned().chain([(pattern, max_staleness)]);
        self.bounds.some = some.collect();
        Ok(self)
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
        self.bounds.all
    }

    /// The tightest bound of any resource: heartbeats must come several times within it.
    #[must_use]
    pub fn min_staleness(&self) -> Duration {
        let some = self.bounds.some.iter().map(|(_, bound)| *bound);
        some.fold(self.bounds.all, Duration::min)
    }

    /// Whether it opted out of that.
    #[must_use]
    pub const fn is_best_effort(&self) -> bool {
        self.best_effort
    }
}
