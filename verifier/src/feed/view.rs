//! What a gateway knows at one moment.

use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::VerifyingKey;

use super::profile::Bounds;
use crate::id::{Epoch, GrantId, KeyId, Seq};
use crate::resource::Resource;
use crate::revocations::Revocations;
use crate::time::Timestamp;
use crate::trust::Trusted;

/// The grants that one change took back, where it did nothing else.
pub(super) type News = Arc<[GrantId]>;

/// What a gateway knows at one moment. Made by [`super::Follower`] only, read without a lock.
#[derive(Debug, Clone)]
pub struct GatewayView {
    pub(super) trust: Arc<Trusted>,
    pub(super) revocations: Revocations,
    /// Differs between views that trust or revoke differently.
    pub(super) generation: u64,
    /// What the last change did; `None` if it may touch anything.
    pub(super) news: Option<News>,
    pub(super) seq: Seq,
    /// The uptime up to which this counts; `None` if nothing may be accepted at all.
    pub(super) fresh_until: Option<Duration>,
    /// After how much silence each resource is refused.
    pub(super) bounds: Bounds,
    /// Stale is no reason to refuse: the explicit opt-out.
    pub(super) best_effort: bool,
}

impl GatewayView {
    /// Whether anything may be accepted at `uptime`, by [`crate::time::Clock::uptime`].
    #[must_use]
    pub fn is_fresh(&self, uptime: Duration) -> bool {
        self.fresh_for(uptime).is_some()
    }

    /// Whether a use of `resource` may be accepted then: it may have a bound of its own.
    #[must_use]
    pub fn is_fresh_for(&self, resource: &Resource, uptime: Duration) -> bool {
        self.fresh_for(uptime).is_some_and(|left| self.slack(resource) <= left)
    }

    /// For how long after `uptime` anything may be accepted; `None` if nothing may.
    pub(super) fn fresh_for(&self, uptime: Duration) -> Option<Duration> {
        let until = self.fresh_until?;
        if self.best_effort { Some(Duration::MAX) } else { until.checked_sub(uptime) }
    }

    /// How much earlier than the view uses of `resource` become stale.
    pub(super) fn slack(&self, resource: &Resource) -> Duration {
        self.bounds.slack(resource)
    }

    /// The one epoch whose tokens count.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.trust.statement().epoch
    }

    /// The key of that number, unless it is past its end, or killed.
    #[must_use]
    pub fn key(&self, key: KeyId, now: Timestamp) -> Option<&VerifyingKey> {
        self.trust.token_key(key, now).filter(|_| !self.revocations.key_killed(key))
    }

    /// What is revoked and locked.
    #[must_use]
    pub const fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// The place in the log up to which this knows everything.
    #[must_use]
    pub const fn seq(&self) -> Seq {
        self.seq
    }
}

#[cfg(test)]
impl GatewayView {
    /// A view that counts until `fresh_until`, for tests of what reads views.
    pub(crate) fn for_test(
        trust: crate::trust::Statement,
        revocations: Revocations,
        generation: u64,
        fresh_until: Duration,
    ) -> Self {
        Self {
            trust: Arc::new(Trusted::new(trust)),
            revocations,
            generation,
            news: None,
            seq: Seq(generation),
            fresh_until: Some(fresh_until),
            bounds: Bounds::new(Duration::from_secs(5)),
            best_effort: false,
        }
    }
}
