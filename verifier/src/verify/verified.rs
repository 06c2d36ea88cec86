//! A token that cleared an attempt, and the handle that says when it no longer does.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ed25519_dalek::VerifyingKey;

use super::holder::check_ended;
use super::{Call, fresh};
use crate::claims::{Claims, Record};
use crate::feed::{Ended, Enforcer, GatewayView, Rests};
use crate::holder::Confirmation;
use crate::reject::Reject;
use crate::revocations::Revoked;
use crate::time::Clock;
use crate::wire::{BadSignature, Checked, Content, Decoded};

/// A token whose signatures are good, by `key`.
pub(crate) struct Signed {
    pub(super) key: VerifyingKey,
    checked: Checked,
    /// Its holder, once a proof was verified with it.
    holder: OnceLock<Option<VerifyingKey>>,
}

#[cfg(test)]
thread_local! {
    /// How often the signatures of a token were checked by this thread: they cost the most.
    pub(crate) static CHECKED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl Signed {
    pub(super) fn check(decoded: Decoded, key: &VerifyingKey) -> Result<Arc<Self>, BadSignature> {
        #[cfg(test)]
        CHECKED.with(|checked| checked.set(checked.get().saturating_add(1)));
        let checked = decoded.check(key)?;
        Ok(Arc::new(Self { key: *key, checked, holder: OnceLock::new() }))
    }

    pub(super) const fn content(&self) -> &Content {
        self.checked.content()
    }

    /// The key of its present holder, ready to verify with; `None` if it is bound to none.
    pub(super) fn holder_key(&self) -> Option<&VerifyingKey> {
        let ready = || match self.content().holder() {
            Confirmation::Key(key) => key.verifying_key(),
            Confirmation::Identity => None,
        };
        self.holder.get_or_init(ready).as_ref()
    }

    /// Revocation, then the epoch.
    pub(super) fn check_revoked(&self, view: &GatewayView) -> Result<(), Reject> {
        let content = self.content();
        if let Some(by) = view.revocations().revoked(content) {
            return Err(Reject::Revoked(by));
        }
        if content.record.epoch == view.epoch() { Ok(()) } else { Err(Reject::OtherEpoch) }
    }
}

/// A use that was judged, with all that is needed to judge it again.
pub(super) struct Held {
    pub(super) enforcer: Arc<Enforcer>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) token: Arc<Signed>,
    pub(super) call: Arc<Call>,
}

impl Held {
    /// Looks at the present state, after `before` has been looked at for all but locks.
    pub(super) fn look_after(&self, before: &Arc<GatewayView>) -> Result<(), Reject> {
        let view = fresh(&self.enforcer, &self.call.resource, self.clock.uptime())?;
        if Arc::ptr_eq(before, &view) { self.check_locked(&view) } else { self.stands(&view) }
    }

    /// Looks at the present state: freshness, revocation, epoch, key, locks, end.
    fn look(&self) -> Result<(), Reject> {
        let view = fresh(&self.enforcer, &self.call.resource, self.clock.uptime())?;
        self.stands(&view)?;
        check_ended(&self.token.content().claims, self.clock.now())
    }

    /// Whether `view` takes it back, no longer trusts its key, or locks it.
    fn stands(&self, view: &GatewayView) -> Result<(), Reject> {
        self.token.check_revoked(view)?;
        let number = self.token.content().claims.key;
        if view.key(number, self.clock.now()) != Some(&self.token.key) {
            return Err(Reject::UnknownKey(number));
        }
        self.check_locked(view)
    }

    fn check_locked(&self, view: &GatewayView) -> Result<(), Reject> {
        let claims = &self.token.content().claims;
        match view.revocations().locked(claims, &self.call.resource) {
            Some(lock) => Err(Reject::Locked(lock)),
            None => Ok(()),
        }
    }
}

/// Proof that a token cleared an attempt: what was asked, by whom, and until when it may run.
///
/// Built by [`super::Verifier::verify`] alone, or by the broker's answer to a
/// [`super::MustAsk`]. Its fields are private, so that nothing else can make one:
///
/// ```compile_fail,E0451
/// use dayfly_verifier::verify::Verified;
/// let forged = Verified { held: unreachable!() };
/// ```
///
/// ```compile_fail,E0624
/// use dayfly_verifier::verify::Verified;
/// let forged = Verified::new(unreachable!());
/// ```
#[derive(Clone)]
pub struct Verified {
    held: Arc<Held>,
}

impl Verified {
    pub(super) fn new(held: Held) -> Self {
        Self { held: Arc::new(held) }
    }

    /// What was judged. Handlers take operation, resource and arguments from here, and from
    /// nowhere else in the request.
    #[must_use]
    pub fn call(&self) -> &Call {
        &self.held.call
    }

    #[cfg(feature = "tower")]
    pub(crate) fn shared_call(&self) -> Arc<Call> {
        Arc::clone(&self.held.call)
    }

    /// What the token says.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.held.token.content().claims
    }

    /// Where in the journal the token is recorded.
    #[must_use]
    pub fn record(&self) -> Record {
        self.held.token.content().record
    }

    /// The handle by which a use that runs on learns that it must end.
    #[must_use]
    pub fn cancellation(&self) -> Cancellation {
        let (drain, since) = (Duration::ZERO, Arc::default());
        Cancellation { held: Arc::clone(&self.held), drain, since }
    }
}

/// Says when a use that was verified must end: on revocation, lock, expiry and staleness, and when
/// the trust root no longer names the token's key.
///
/// It looks at the state itself, so that there is no moment at which a change could be missed.
#[derive(Clone)]
pub struct Cancellation {
    held: Arc<Held>,
    /// How long it may go on after that.
    drain: Duration,
    /// Since when it should have ended, and why.
    since: Arc<OnceLock<(Duration, Reject)>>,
}

impl Cancellation {
    /// Lets the use go on for `drain` after what should end it has been noticed: for what must not
    /// stop half-way. It is noticed while the use is waited for or asked about; once it has been,
    /// nothing heals it.
    #[must_use]
    pub fn draining(self, drain: Duration) -> Self {
        Self { drain, ..self }
    }

    /// What runs, as it was judged.
    #[must_use]
    pub fn call(&self) -> &Arc<Call> {
        &self.held.call
    }

    /// Why the use must end, if it must.
    #[must_use]
    pub fn reason(&self) -> Option<Reject> {
        if self.drain.is_zero() {
            return self.look();
        }
        let (since, reason) = match self.since.get() {
            Some(since) => since,
            None => {
                let reason = self.look()?;
                self.since.get_or_init(|| (self.held.clock.uptime(), reason))
            }
        };
        let until = since.saturating_add(self.drain);
        (self.held.clock.uptime() >= until).then(|| reason.clone())
    }

    /// Whether the use must end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.reason().is_some()
    }

    /// Waits until the use must end.
    ///
    /// The use is registered before the state is looked at, so that nothing can fall between.
    /// Expiry and staleness are noticed, and draining ends, when whoever follows the feed calls
    /// [`Enforcer::tick`].
    pub async fn cancelled(&self) -> Reject {
        let Held { enforcer, clock, token, call } = &*self.held;
        let held = Arc::clone(&self.held);
        let stands = move |view: &GatewayView| held.stands(view).is_ok();
        let grant = Some(token.content().claims.grant);
        let resource = Some(call.resource.clone());
        let rests = Rests { until: token.content().ends_at(), grant, resource };
        let running = enforcer.register(rests, stands);
        let reason = match self.look() {
            Some(reason) => reason,
            None => {
                let ended = running.wait().await;
                self.look().unwrap_or(match ended {
                    Ended::Revoked | Ended::Due => Reject::Revoked(Revoked::Token),
                    Ended::Expired => Reject::Expired,
                    Ended::Stale => Reject::Stale,
                })
            }
        };
        if self.drain.is_zero() {
            return reason;
        }
        let (since, reason) = self.since.get_or_init(|| (clock.uptime(), reason));
        enforcer.at(since.saturating_add(self.drain)).wait().await;
        reason.clone()
    }

    fn look(&self) -> Option<Reject> {
        self.held.look().err().or_else(|| {
            let over = self.held.clock.now() >= self.held.token.content().ends_at();
            over.then_some(Reject::Expired)
        })
    }
}
