//! The view in force, and what runs under it.
//!
//! Readers take the view without a lock. A use that goes on, such as a stream, is registered
//! *before* the last look at the view: whatever is published after that look finds it.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::view::GatewayView;
use crate::time::Timestamp;

/// Why a use that was allowed must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ended {
    /// What allowed it was taken back, or locked.
    Revoked,
    /// Its token expired.
    Expired,
    /// Nothing fresh was heard: whether it was taken back is not known.
    Stale,
}

/// Says whether a use still stands under a view.
type Stands = Box<dyn Fn(&GatewayView) -> bool + Send + Sync>;

/// Holds the view in force, and ends what it no longer allows.
#[derive(Default)]
pub struct Enforcer {
    view: ArcSwapOption<GatewayView>,
    uses: Mutex<Uses>,
}

#[derive(Default)]
struct Uses {
    last: u64,
    running: HashMap<u64, Arc<Use>>,
    by_expiry: BTreeSet<(Timestamp, u64)>,
}

struct Use {
    stands: Stands,
    expires_at: Timestamp,
    outcome: Mutex<Outcome>,
}

#[derive(Default)]
struct Outcome {
    ended: Option<Ended>,
    wakers: Vec<Waker>,
}

impl Enforcer {
    /// The view in force; `None` means that nothing is known, and nothing is allowed.
    #[must_use]
    pub fn view(&self) -> Option<Arc<GatewayView>> {
        self.view.load_full()
    }

    /// Registers a use until `expires_at`. `stands` is asked again whenever something was taken
    /// back. Look at [`Enforcer::view`] after this, not before, and only then let the use begin.
    pub fn register(
        self: &Arc<Self>,
        expires_at: Timestamp,
        stands: impl Fn(&GatewayView) -> bool + Send + Sync + 'static,
    ) -> Running {
        let stands = Box::new(stands);
        let this = Arc::new(Use { stands, expires_at, outcome: Mutex::default() });
        let mut uses = lock(&self.uses);
        uses.last = uses.last.wrapping_add(1);
        let id = uses.last;
        uses.running.insert(id, Arc::clone(&this));
        uses.by_expiry.insert((expires_at, id));
        drop(uses);
        Running { enforcer: Arc::clone(self), id, this }
    }

    /// Puts `view` into force, and ends what it does not allow any more. When this returns, every
    /// handle that it touches has fired.
    pub fn publish(&self, view: GatewayView, now: Timestamp, uptime: Duration) {
        let view = Arc::new(view);
        let before = self.view.swap(Some(Arc::clone(&view)));
        let changed = before.is_none_or(|before| before.generation != view.generation);
        if changed {
            let fallen = |this: &Use| (!(this.stands)(&view)).then_some(Ended::Revoked);
            self.end(fallen);
        }
        self.tick(now, uptime);
    }

    /// Ends what has expired by `now`, and everything if the view is stale at `uptime`. To be
    /// called several times a second.
    pub fn tick(&self, now: Timestamp, uptime: Duration) {
        if !self.view.load().as_ref().is_some_and(|view| view.is_fresh(uptime)) {
            self.end(|_| Some(Ended::Stale));
        }
        let mut expired = Vec::new();
        {
            let mut uses = lock(&self.uses);
            while let Some((expires_at, id)) = uses.by_expiry.first().copied() {
                if expires_at > now {
                    break;
                }
                uses.by_expiry.pop_first();
                expired.extend(uses.running.remove(&id));
            }
        }
        expired.iter().for_each(|this| this.end(Ended::Expired));
    }

    fn end(&self, why: impl Fn(&Use) -> Option<Ended>) {
        let running: Vec<_> =
            lock(&self.uses).running.iter().map(|(id, this)| (*id, Arc::clone(this))).collect();
        for (id, this) in running {
            if let Some(ended) = why(&this) {
                this.end(ended);
                self.forget(id, this.expires_at);
            }
        }
    }

    fn forget(&self, id: u64, expires_at: Timestamp) {
        let mut uses = lock(&self.uses);
        uses.running.remove(&id);
        uses.by_expiry.remove(&(expires_at, id));
    }
}

impl Use {
    fn end(&self, why: Ended) {
        let wakers = {
            let mut outcome = lock(&self.outcome);
            outcome.ended.get_or_insert(why);
            std::mem::take(&mut outcome.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A use that is under way. Dropping it says that the use is over.
#[must_use = "the use is forgotten when this is dropped"]
pub struct Running {
    enforcer: Arc<Enforcer>,
    id: u64,
    this: Arc<Use>,
}

impl Running {
    /// Why the use must end, if it must.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        lock(&self.this.outcome).ended
    }

    /// Waits until the use must end.
    pub fn wait(&self) -> impl Future<Output = Ended> + Send + Sync + 'static {
        Wait(Arc::clone(&self.this))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.enforcer.forget(self.id, self.this.expires_at);
    }
}

struct Wait(Arc<Use>);

impl Future for Wait {
    type Output = Ended;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        let mut outcome = lock(&self.0.outcome);
        match outcome.ended {
            Some(ended) => Poll::Ready(ended),
            None => {
                if !outcome.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                    outcome.wakers.push(context.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

/// A panic while it was held leaves the data whole: every change under these locks is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
