//! What a gateway knows at one moment.

use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::VerifyingKey;

use crate::id::{Epoch, KeyId, Seq};
use crate::revocations::Revocations;
use crate::time::Timestamp;
use crate::trust::Trusted;

/// What a gateway knows at one moment. Made by [`super::Follower`] only, read without a lock.
#[derive(Debug, Clone)]
pub struct GatewayView {
    pub(super) trust: Arc<Trusted>,
    pub(super) revocations: Revocations,
    /// Differs between views that trust or revoke differently.
    pub(super) generation: u64,
    pub(super) seq: Seq,
    /// The uptime up to which this counts; `None` if nothing may be accepted at all.
    pub(super) fresh_until: Option<Duration>,
    /// Stale is no reason to refuse: the explicit opt-out.
    pub(super) best_effort: bool,
}

impl GatewayView {
    /// Whether anything may be accepted at `uptime`, by [`crate::time::Clock::uptime`].
    #[must_use]
    pub fn is_fresh(&self, uptime: Duration) -> bool {
        self.fresh_until.is_some_and(|until| self.best_effort || uptime <= until)
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
        let seq = Seq(generation);
        let fresh_until = Some(fresh_until);
        let trust = Arc::new(Trusted::new(trust));
        Self { trust, revocations, generation, seq, fresh_until, best_effort: false }
    }
}
