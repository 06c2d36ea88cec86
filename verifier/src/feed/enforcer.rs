//! The view in force, and what runs under it.
//!
//! Readers take the view without a lock. A use that goes on, such as a stream, is registered
//! *before* the last look at the view: whatever is published after that look finds it.
//!
//! A delta that takes back grants asks the uses of those grants alone; any other change asks all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::view::{GatewayView, News};
use crate::id::GrantId;
use crate::resource::Resource;
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
    /// The moment that [`Enforcer::at`] waits for has come.
    Due,
}

/// What a use rests on.
#[derive(Debug, Clone)]
pub struct Rests {
    /// Until when it may last.
    pub until: Timestamp,
    /// The grant: where only other grants are taken back, the use is not asked about.
    pub grant: Option<GrantId>,
    /// What is used: it may have a bound of its own for staleness.
    pub resource: Option<Resource>,
}

impl Rests {
    /// On nothing but the time.
    #[must_use]
    pub const fn until(until: Timestamp) -> Self {
        Self { until, grant: None, resource: None }
    }
}

/// Says whether a use still stands under a view.
type Stands = Box<dyn Fn(&GatewayView) -> bool + Send + Sync>;

/// Holds the view in force, and ends what it no longer allows.
#[derive(Default)]
pub struct Enforcer {
    view: ArcSwapOption<GatewayView>,
    uses: Mutex<Uses>,
}

/// All that runs, by what can end it.
#[derive(Default)]
struct Uses {
    last: u64,
    running: HashMap<u64, Arc<Use>>,
    by_expiry: BTreeSet<(Timestamp, u64)>,
    /// Those that name a grant.
    by_grant: BTreeSet<(GrantId, u64)>,
    /// Those that name none.
    by_nothing: BTreeSet<u64>,
    /// Those that become stale earlier than the view does, and by how much.
    by_slack: BTreeSet<(Duration, u64)>,
    /// Who waits for a moment.
    alarms: BTreeMap<(Duration, u64), Arc<Signal>>,
}

struct Use {
    stands: Stands,
    rests: Rests,
    slack: Duration,
    signal: Arc<Signal>,
}

/// Fires once, and wakes those who wait for it.
#[derive(Default)]
struct Signal(Mutex<Fired>);

#[derive(Default)]
struct Fired {
    why: Option<Ended>,
    wakers: Vec<Waker>,
}

impl Enforcer {
    /// The view in force; `None` means that nothing is known, and nothing is allowed.
    #[must_use]
    pub fn view(&self) -> Option<Arc<GatewayView>> {
        self.view.load_full()
    }

    /// Registers a use. `stands` is asked again whenever something was taken back that can touch
    /// it. Look at [`Enforcer::view`] after this, not before, and only then let the use begin.
    pub fn register(
        self: &Arc<Self>,
        rests: Rests,
        stands: impl Fn(&GatewayView) -> bool + Send + Sync + 'static,
    ) -> Running {
        let view = self.view.load();
        let resource = rests.resource.as_ref();
        let slack = view.as_ref().zip(resource).map(|(view, resource)| view.slack(resource));
        let slack = slack.unwrap_or_default();
        let signal = Arc::<Signal>::default();
        let this = Use { stands: Box::new(stands), rests, slack, signal: Arc::clone(&signal) };
        let id = lock(&self.uses).insert(this);
        Running { enforcer: Arc::clone(self), place: Place::Use(id), signal }
    }

    /// Waits for the first [`Enforcer::tick`] at `uptime` or after it.
    pub fn at(self: &Arc<Self>, uptime: Duration) -> Running {
        let signal = Arc::<Signal>::default();
        let mut uses = lock(&self.uses);
        let place = (uptime, uses.draw());
        uses.alarms.insert(place, Arc::clone(&signal));
        drop(uses);
        Running { enforcer: Arc::clone(self), place: Place::Alarm(place), signal }
    }

    /// Puts `view` into force, and ends what it does not allow any more. When this returns, every
    /// handle that it touches has fired.
    pub fn publish(&self, view: GatewayView, now: Timestamp, uptime: Duration) {
        let view = Arc::new(view);
        let before = self.view.swap(Some(Arc::clone(&view)));
        let generation = before.map(|before| before.generation);
        if generation != Some(view.generation) {
            let next = generation.map(|before| before.wrapping_add(1)) == Some(view.generation);
            let asked = lock(&self.uses).asked(view.news.as_ref().filter(|_| next));
            let fallen = asked.into_iter().filter(|(_, this)| !(this.stands)(&view));
            self.end(fallen, Ended::Revoked);
        }
        self.tick(now, uptime);
    }

    /// Ends what has expired by `now` and what has become stale by `uptime`. To be called several
    /// times a second.
    pub fn tick(&self, now: Timestamp, uptime: Duration) {
        let fresh_for = self.view.load().as_ref().and_then(|view| view.fresh_for(uptime));
        let (stale, expired, due) = {
            let mut uses = lock(&self.uses);
            (uses.stale(fresh_for), uses.expired(now), uses.due(uptime))
        };
        self.end(stale.into_iter(), Ended::Stale);
        self.end(expired.into_iter(), Ended::Expired);
        due.iter().for_each(|signal| signal.fire(Ended::Due));
    }

    fn end(&self, uses: impl Iterator<Item = (u64, Arc<Use>)>, why: Ended) {
        for (id, this) in uses {
            this.signal.fire(why);
            lock(&self.uses).remove(id);
        }
    }
}

impl Uses {
    const fn draw(&mut self) -> u64 {
        self.last = self.last.wrapping_add(1);
        self.last
    }

    fn insert(&mut self, this: Use) -> u64 {
        let id = self.draw();
        self.by_expiry.insert((this.rests.until, id));
        match this.rests.grant {
            Some(grant) => self.by_grant.insert((grant, id)),
            None => self.by_nothing.insert(id),
        };
        if !this.slack.is_zero() {
            self.by_slack.insert((this.slack, id));
        }
        self.running.insert(id, Arc::new(this));
        id
    }

    fn remove(&mut self, id: u64) {
        let Some(this) = self.running.remove(&id) else { return };
        self.by_expiry.remove(&(this.rests.until, id));
        match this.rests.grant {
            Some(grant) => self.by_grant.remove(&(grant, id)),
            None => self.by_nothing.remove(&id),
        };
        self.by_slack.remove(&(this.slack, id));
    }

    /// Those that may have fallen by `news`; by what is not known, all.
    fn asked(&self, news: Option<&News>) -> Vec<(u64, Arc<Use>)> {
        match news {
            Some(grants) => {
                let of = |grant: &GrantId| self.by_grant.range((*grant, 0)..=(*grant, u64::MAX));
                let named = grants.iter().flat_map(of).map(|(_, id)| *id);
                self.those(named.chain(self.by_nothing.iter().copied()))
            }
            None => self.running.iter().map(|(id, this)| (*id, Arc::clone(this))).collect(),
        }
    }

    /// Those that are stale where the view stays fresh for so long.
    fn stale(&self, fresh_for: Option<Duration>) -> Vec<(u64, Arc<Use>)> {
        let Some(left) = fresh_for else { return self.asked(None) };
        let stale = self.by_slack.range((Bound::Excluded((left, u64::MAX)), Bound::Unbounded));
        self.those(stale.map(|(_, id)| *id))
    }

    fn expired(&self, now: Timestamp) -> Vec<(u64, Arc<Use>)> {
        self.those(self.by_expiry.range(..=(now, u64::MAX)).map(|(_, id)| *id))
    }

    fn due(&mut self, uptime: Duration) -> Vec<Arc<Signal>> {
        self.alarms.extract_if(..=(uptime, u64::MAX), |_, _| true).map(|(_, alarm)| alarm).collect()
    }

    fn those(&self, ids: impl Iterator<Item = u64>) -> Vec<(u64, Arc<Use>)> {
        ids.filter_map(|id| self.running.get(&id).map(|this| (id, Arc::clone(this)))).collect()
    }
}

impl Signal {
    fn fire(&self, why: Ended) {
        let wakers = {
            let mut fired = lock(&self.0);
            fired.why.get_or_insert(why);
            std::mem::take(&mut fired.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A use that is under way, or a moment that is waited for. Dropping it says that it is over.
#[must_use = "the use is forgotten when this is dropped"]
pub struct Running {
    enforcer: Arc<Enforcer>,
    place: Place,
    signal: Arc<Signal>,
}

/// Under what it is registered.
enum Place {
    Use(u64),
    Alarm((Duration, u64)),
}

impl Running {
    /// Why the use must end, if it must.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        lock(&self.signal.0).why
    }

    /// Waits until the use must end.
    pub fn wait(&self) -> impl Future<Output = Ended> + Send + Sync + 'static {
        Wait(Arc::clone(&self.signal))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut uses = lock(&self.enforcer.uses);
        match self.place {
            Place::Use(id) => uses.remove(id),
            Place::Alarm(place) => drop(uses.alarms.remove(&place)),
        }
    }
}

struct Wait(Arc<Signal>);

impl Future for Wait {
    type Output = Ended;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        let mut fired = lock(&self.0.0);
        match fired.why {
            Some(ended) => Poll::Ready(ended),
            None => {
                if !fired.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                    fired.wakers.push(context.waker().clone());
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

#[cfg(test)]
#[cfg(feature = "issue")]
mod tests;
