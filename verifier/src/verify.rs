//! The one decision at the gateway: does this token clear this attempt.
//!
//! The order of checks is fixed: size, shape and profile; freshness of the feed; revocation by
//! ids that nobody vouches for yet; the cache; signatures; revocation by verified ids; epoch and
//! time; audience; proof of the holder; replay; locks; scope; caveats; and for counted and online
//! rights the broker. The answer is the first [`Reject`] in that order, a [`Verified`], or a
//! [`MustAsk`] that only the broker's answer turns into one. Whatever cannot be told is a refusal.
//! Of what is cached, all ids were vouched for: revocation is asked about them once.
//!
//! No Datalog runs here, nothing waits, and no lock is taken but the cache's and those of parts of
//! the replay guard, one at a time.

mod ask;
mod attempt;
pub(crate) mod holder;
mod offline;
mod remembered;
mod verified;

#[cfg(test)]
#[cfg(feature = "issue")]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use ask::{MustAsk, NotRedeemed, Redeem, Redemption};
pub use attempt::{Attempt, Call, Config, Peer, Shown};
pub use offline::{Check, Finding, Offline, Step, Trust, Use, offline};
#[cfg(all(test, feature = "tower"))]
pub(crate) use verified::CHECKED;
pub(crate) use verified::Signed;
pub use verified::{Cancellation, Verified};

#[cfg(feature = "tower")]
use crate::claims::Claims;
use crate::feed::{Enforcer, GatewayView};
use crate::holder::Confirmation;
use crate::proof::{DpopProof, Nonce, Nonces, ProofFault};
use crate::reject::Reject;
use crate::replay::ReplayGuard;
use crate::resource::Resource;
use crate::time::{Clock, Timestamp};
use crate::wire::Decoded;

use remembered::Remembered;
use verified::Held;

/// Decides for one gateway. Shared by all its threads.
pub struct Verifier {
    config: Config,
    enforcer: Arc<Enforcer>,
    clock: Arc<dyn Clock>,
    remembered: Remembered,
    guard: ReplayGuard,
    nonces: Nonces,
}

/// A token that clears an attempt, as far as the gateway alone can tell.
pub enum Outcome {
    /// It clears it.
    Verified(Verified),
    /// It clears it if the broker says so.
    MustAsk(MustAsk),
}

/// The token of an attempt, before anything is believed of it that was not believed before.
enum Found {
    Cached(Arc<Signed>),
    New(Box<Decoded>),
}

impl Verifier {
    /// A verifier that knows what `enforcer` holds. `secret` is random and drawn anew at every
    /// start: it makes nonces that no other process gave out.
    #[must_use]
    pub fn new(
        config: Config,
        enforcer: Arc<Enforcer>,
        clock: Arc<dyn Clock>,
        secret: [u8; 32],
    ) -> Self {
        let guard = ReplayGuard::new(config.replay, clock.now(), clock.uptime());
        let remembered = Remembered::new(config.cached_tokens);
        Self { config, enforcer, clock, remembered, guard, nonces: Nonces::new(secret) }
    }

    /// How it was configured.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    #[cfg(feature = "tower")]
    pub(crate) fn uptime(&self) -> Duration {
        self.clock.uptime()
    }

    /// A nonce for the header `DPoP-Nonce`, while proofs must carry one.
    #[must_use]
    pub fn nonce(&self) -> Option<Nonce> {
        let uptime = self.clock.uptime();
        self.nonce_since(self.clock.now(), uptime).map(|_| self.nonces.give(uptime))
    }

    /// Decides, in the order of the module's head.
    pub fn verify(&self, attempt: &Attempt<'_>) -> Result<Outcome, Reject> {
        self.judge(attempt, &mut None)
    }

    /// The same. What the signatures are good of is left in `good`, so that whoever tells which
    /// token was refused does not pay for them again.
    pub(crate) fn judge(
        &self,
        attempt: &Attempt<'_>,
        good: &mut Option<Arc<Signed>>,
    ) -> Result<Outcome, Reject> {
        let found = self.find(attempt.token)?;
        let is_new = matches!(found, Found::New(_));
        let (now, uptime) = (self.clock.now(), self.clock.uptime());
        let view = fresh(&self.enforcer, &attempt.call.resource, uptime)?;
        let token = signed(found, &view, now)?;
        *good = Some(Arc::clone(&token));
        check_standing(&token, &view, now)?;
        self.check_holder(&token, attempt, now, uptime)?;
        if is_new {
            self.remembered.keep(attempt.token, &token);
        }

        let held = Held {
            enforcer: Arc::clone(&self.enforcer),
            clock: Arc::clone(&self.clock),
            token,
            call: Arc::clone(attempt.call),
        };
        // The last look at the state: from here on the handle in `held` answers for it.
        held.look_after(&view)?;
        let content = held.token.content();
        holder::check_scope(&content.claims, attempt.call)?;
        holder::check_caveats(content, &self.config.audience, attempt.call, now)?;
        let verified = Verified::new(held);
        let claims = verified.claims();
        if claims.counted || claims.online {
            return Ok(Outcome::MustAsk(MustAsk::new(verified)));
        }
        Ok(Outcome::Verified(verified))
    }

    /// What the token in `text` says, to tell which one was refused: if it is for this gateway and
    /// its signatures are good, as `good` has it that were checked already. It allows nothing.
    #[cfg(feature = "tower")]
    pub(crate) fn vouched(&self, text: &str, good: Option<Arc<Signed>>) -> Option<Claims> {
        let view = self.enforcer.view()?;
        let signed = match good {
            Some(signed) => signed,
            None => match self.find(text).ok()? {
                Found::Cached(signed) => signed,
                Found::New(decoded) => {
                    let key = view.key(decoded.unverified().claims.key, self.clock.now())?;
                    Signed::check(*decoded, key).ok()?
                }
            },
        };
        let content = signed.content();
        let ours = content.claims.audience == self.config.audience;
        (ours && content.record.epoch == view.epoch()).then(|| content.claims.clone())
    }

    /// Size, shape and profile. A text that is remembered has passed all three.
    fn find(&self, text: &str) -> Result<Found, Reject> {
        match self.remembered.get(text) {
            Some(signed) => Ok(Found::Cached(signed)),
            None => Ok(Found::New(Box::new(Decoded::read(text)?))),
        }
    }

    /// Audience, and the proof that whoever calls is the holder: the last delegate, if there is
    /// one. A proof by DPoP is accepted once.
    fn check_holder(
        &self,
        token: &Signed,
        attempt: &Attempt<'_>,
        now: Timestamp,
        uptime: Duration,
    ) -> Result<(), Reject> {
        let content = token.content();
        holder::check_audience(&content.claims, &self.config.audience)?;
        let ready = || token.holder_key().copied();
        let shown = holder::check_holder(&self.config, content, ready, attempt, now)?;
        let Some((key, proof)) = shown else { return Ok(()) };
        self.check_nonce(&proof, now, uptime)?;
        let first = match content.claims.holder {
            Confirmation::Key(first) => first,
            Confirmation::Identity => key,
        };
        Ok(self.guard.admit(&first, &key, proof.jti(), uptime)?)
    }

    fn check_nonce(
        &self,
        proof: &DpopProof<'_>,
        now: Timestamp,
        uptime: Duration,
    ) -> Result<(), ProofFault> {
        let Some(since) = self.nonce_since(now, uptime) else { return Ok(()) };
        match proof.nonce() {
            Some(nonce) if self.nonces.accepts(nonce, since, uptime) => Ok(()),
            Some(_) | None => Err(ProofFault::Nonce),
        }
    }

    /// Since when a nonce must have been given out; `None` while proofs need none.
    fn nonce_since(&self, now: Timestamp, uptime: Duration) -> Option<Duration> {
        let shared = self.config.shared_audience.then_some(Duration::ZERO);
        self.guard.nonce_since(now, uptime).or(shared)
    }
}

/// The view in force, unless it is too old to allow a use of `resource`.
fn fresh(
    enforcer: &Enforcer,
    resource: &Resource,
    uptime: Duration,
) -> Result<Arc<GatewayView>, Reject> {
    enforcer.view().filter(|view| view.is_fresh_for(resource, uptime)).ok_or(Reject::Stale)
}

/// Revocation by ids that nobody vouches for yet, then the signatures. Where they were checked
/// before, with the very key that is trusted now, [`check_standing`] asks about the same ids.
fn signed(found: Found, view: &GatewayView, now: Timestamp) -> Result<Arc<Signed>, Reject> {
    let content = match &found {
        Found::Cached(signed) => signed.content(),
        Found::New(decoded) => decoded.unverified(),
    };
    let number = content.claims.key;
    let key = view.key(number, now);
    if let Found::Cached(signed) = &found
        && key == Some(&signed.key)
    {
        return Ok(Arc::clone(signed));
    }
    if let Some(by) = view.revocations().revoked_unverified(content) {
        return Err(Reject::Revoked(by));
    }
    let key = key.ok_or(Reject::UnknownKey(number))?;
    match found {
        Found::Cached(_) => Err(Reject::UnknownKey(number)),
        Found::New(decoded) => Signed::check(*decoded, key).map_err(Reject::BadSignature),
    }
}

/// Revocation by what the signatures vouch for, then epoch and time.
fn check_standing(token: &Signed, view: &GatewayView, now: Timestamp) -> Result<(), Reject> {
    token.check_revoked(view)?;
    holder::check_times(&token.content().claims, now)
}
