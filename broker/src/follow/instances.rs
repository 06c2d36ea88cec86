//! Who follows the feed, and what is known of how far each enforces it. Must never claim more than
//! an instance acknowledged, nor that it refuses before it surely does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dayfly_verifier::id::{InstanceId, Seq};
use dayfly_verifier::spiffe::SpiffeId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::trust::Trust;

/// The longest pause between heartbeats.
pub(super) const LONGEST_INTERVAL: Duration = Duration::from_secs(1);
/// How many heartbeats an instance gets within its bound.
const BEATS_IN_BOUND: u32 = 5;
/// The most instances that are remembered.
const MAX_INSTANCES: usize = 16_384;
/// The most of them that one gateway may have, about as many as it may have connections: it must
/// not shut out the others.
const MAX_OF_GATEWAY: usize = 2_048;
/// The most challenges of an instance that wait for their echo.
const MAX_CHALLENGES: usize = 16;
/// How long an instance that opted out is remembered after it left: as long as a token may live.
const OPTED_OUT_FOR: Duration = crate::core::limits::MAX_TOKEN_LIFE;

/// All instances that follow, or that may not refuse by themselves yet.
#[derive(Default)]
pub struct Instances {
    all: Mutex<BTreeMap<SpiffeId, BTreeMap<InstanceId, Arc<Instance>>>>,
    /// How many have begun to follow.
    joins: AtomicU64,
}

/// One process of a gateway.
pub struct Instance {
    /// How it follows.
    pub terms: Terms,
    follows: Mutex<Follows>,
    /// When it enforces more, or leaves.
    news: watch::Sender<()>,
    gone: CancellationToken,
}

/// How an instance follows.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The gateway.
    pub gateway: SpiffeId,
    /// The process.
    pub instance: InstanceId,
    /// After how much silence it refuses the first of its resources.
    pub min_staleness: Duration,
    /// After how much silence it refuses everything by itself.
    pub max_staleness: Duration,
    /// It does not.
    pub best_effort: bool,
}

struct Follows {
    /// The highest place that was sent.
    sent: Seq,
    enforced: Seq,
    /// The version of the trust statement that it believes.
    trusts: u64,
    /// When it was last heard.
    heard: Duration,
    /// When the last challenge came in that was echoed: it counts its freshness from an earlier
    /// moment than that.
    echoed: Duration,
    /// The challenges to echo, oldest first; of those that came in during one round, the last.
    challenges: VecDeque<Challenge>,
    left: Option<Duration>,
    /// Another stream of the same instance took its place.
    replaced: bool,
}

/// A challenge that was not echoed yet.
struct Challenge {
    bytes: Bytes,
    received: Duration,
    /// The round of confirming that had begun by then.
    round: u64,
}

/// What is known of an instance at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The gateway.
    pub gateway: SpiffeId,
    /// The process.
    pub instance: InstanceId,
    /// The place up to which it enforces everything.
    pub enforced: Seq,
    /// How long it has not been heard.
    pub silent_for: Duration,
    /// How long it may go on by itself; `None` if it refuses by now.
    pub refuses_in: Option<Duration>,
    /// Its bound.
    pub max_staleness: Duration,
    /// Whether it follows now.
    pub connected: bool,
    /// Whether it opted out of refusing: then nothing bounds it.
    pub best_effort: bool,
}

impl Standing {
    /// Of an instance that nothing bounds, and of which nothing is known but that it was on record
    /// that long ago.
    #[must_use]
    pub fn unbounded((gateway, instance): (SpiffeId, InstanceId), silent_for: Duration) -> Self {
        Self {
            gateway,
            instance,
            enforced: Seq(0),
            silent_for,
            refuses_in: None,
            max_staleness: Duration::ZERO,
            connected: false,
            best_effort: true,
        }
    }

    /// Whether what stands at `seq` surely holds there.
    #[must_use]
    pub fn holds(&self, seq: Seq) -> bool {
        self.enforced >= seq || (self.refuses_in.is_none() && !self.best_effort)
    }
}

/// No more instances are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many gateway instances follow")]
pub struct TooMany;

impl Instances {
    /// An instance begins to follow at `uptime`. A stream that it had before is cut: an instance
    /// is one process. What it may still believe of that stream is remembered.
    pub fn join(&self, terms: Terms, uptime: Duration) -> Result<Arc<Instance>, TooMany> {
        let mut all = lock(&self.all);
        let known = all.get(&terms.gateway).is_some_and(|of| of.contains_key(&terms.instance));
        let full = |all: &BTreeMap<_, BTreeMap<_, _>>| {
            let of_gateway = all.get(&terms.gateway).map_or(0, BTreeMap::len);
            let count: usize = all.values().map(BTreeMap::len).sum();
            !known && (of_gateway >= MAX_OF_GATEWAY || count >= MAX_INSTANCES)
        };
        if full(&all) {
            prune(&mut all, uptime);
            if full(&all) {
                return Err(TooMany);
            }
        }
        let of_gateway = all.entry(terms.gateway.clone()).or_default();
        let echoed = of_gateway.remove(&terms.instance).map_or(uptime, |before| {
            before.gone.cancel();
            let mut follows = lock(&before.follows);
            follows.replaced = true;
            before.news.send_replace(());
            follows.echoed
        });
        let follows = Follows {
            sent: Seq(0),
            enforced: Seq(0),
            trusts: 0,
            heard: uptime,
            echoed,
            challenges: VecDeque::new(),
            left: None,
            replaced: false,
        };
        let instance = Arc::new(Instance {
            terms,
            follows: Mutex::new(follows),
            news: watch::Sender::new(()),
            gone: CancellationToken::new(),
        });
        of_gateway.insert(instance.terms.instance.clone(), Arc::clone(&instance));
        drop(all);
        self.joins.fetch_add(1, Ordering::SeqCst);
        Ok(instance)
    }

    /// The pause between heartbeats that satisfies every instance that follows.
    #[must_use]
    pub fn interval(&self) -> Duration {
        let all = lock(&self.all);
        let all = all.values().flat_map(BTreeMap::values);
        let following = all.filter(|instance| !instance.gone.is_cancelled());
        following.map(|instance| instance.interval()).min().unwrap_or(LONGEST_INTERVAL)
    }

    /// What is known of each at `uptime`, in the order of gateways and instances.
    #[must_use]
    pub fn standings(&self, uptime: Duration) -> Vec<Standing> {
        let mut all = lock(&self.all);
        prune(&mut all, uptime);
        let all = all.values().flat_map(BTreeMap::values);
        all.map(|instance| instance.standing(uptime)).collect()
    }

    /// How many of those that may allow something at `uptime` know a key that `trust` lists since
    /// this version, and how many there are; none knows one that it does not list. Who believes an
    /// older statement makes nobody wait for longer than it may allow something by it, whether it
    /// comes again, under any name, or never reads.
    #[must_use]
    pub fn trusting(&self, trust: &Trust, since: Option<u64>, uptime: Duration) -> (usize, usize) {
        let all = lock(&self.all);
        let (mut trusting, mut count) = (0_usize, 0_usize);
        for instance in all.values().flat_map(BTreeMap::values) {
            let Standing { connected, refuses_in, max_staleness, .. } = instance.standing(uptime);
            let version = instance.trust();
            let knows = since.is_some_and(|since| version >= since);
            let powerless = trust.is_powerless(version, max_staleness, uptime);
            if (connected || refuses_in.is_some()) && (knows || !powerless) {
                count = count.saturating_add(1);
                trusting = trusting.saturating_add(usize::from(knows));
            }
        }
        (trusting, count)
    }

    /// Waits for what stands at `seq` to hold at all of them.
    #[must_use]
    pub const fn waiting(&self, seq: Seq) -> Waiting<'_> {
        Waiting { instances: self, seq, joins: None, behind: Vec::new() }
    }
}

/// Forgets those that follow no more and allow nothing any more.
fn prune(all: &mut BTreeMap<SpiffeId, BTreeMap<InstanceId, Arc<Instance>>>, uptime: Duration) {
    all.retain(|_, of_gateway| {
        of_gateway.retain(|_, instance| instance.matters(uptime));
        !of_gateway.is_empty()
    });
}

/// Waits for what stands at one place to hold everywhere. Each instance is looked at once, however
/// many acknowledgements come in: at any time this waits for one of them alone.
pub struct Waiting<'a> {
    instances: &'a Instances,
    seq: Seq,
    /// How many had joined when `behind` was filled.
    joins: Option<u64>,
    /// Those of which it is not known yet; the last is waited for.
    behind: Vec<Arc<Instance>>,
}

impl Waiting<'_> {
    /// Whether it surely holds at all of them by `uptime`.
    pub fn is_over(&mut self, uptime: Duration) -> bool {
        loop {
            while let Some(last) = self.behind.last() {
                if !last.is_replaced() && !last.standing(uptime).holds(self.seq) {
                    return false;
                }
                self.behind.pop();
            }
            let joins = self.instances.joins.load(Ordering::SeqCst);
            if self.joins.replace(joins) == Some(joins) {
                return true;
            }
            let all = lock(&self.instances.all);
            self.behind = all.values().flat_map(BTreeMap::values).cloned().collect();
        }
    }

    /// Waits until the one that is waited for enforces more, or leaves; for ever if there is none.
    pub async fn news(&self) {
        let Some(last) = self.behind.last() else { return std::future::pending().await };
        let mut news = last.news.subscribe();
        if !last.is_replaced() && lock(&last.follows).enforced < self.seq {
            // The instance is held here, and with it the way to tell.
            let _ = news.changed().await;
        }
    }
}

impl Instance {
    /// The pause between its heartbeats: a fifth of its tightest bound, at most a second.
    #[must_use]
    pub fn interval(&self) -> Duration {
        let fifth = self.terms.min_staleness.checked_div(BEATS_IN_BOUND);
        fifth.unwrap_or_default().min(LONGEST_INTERVAL)
    }

    /// It is sent everything up to `seq`.
    pub fn sends(&self, seq: Seq) {
        let mut follows = lock(&self.follows);
        follows.sent = follows.sent.max(seq);
    }

    /// It says at `uptime` that it enforces everything up to `seq`. `false` if that was never sent.
    pub fn acknowledged(&self, seq: Seq, uptime: Duration) -> bool {
        let mut follows = lock(&self.follows);
        follows.heard = follows.heard.max(uptime);
        if seq > follows.sent {
            return false;
        }
        let news = seq > follows.enforced;
        follows.enforced = follows.enforced.max(seq);
        drop(follows);
        if news {
            self.news.send_replace(());
        }
        true
    }

    /// It says that it believes the trust statement of this version.
    pub fn trusts(&self, version: u64) {
        let mut follows = lock(&self.follows);
        follows.trusts = follows.trusts.max(version);
    }

    /// The version of the trust statement that it believes.
    #[must_use]
    pub fn trust(&self) -> u64 {
        lock(&self.follows).trusts
    }

    /// Its challenge came in at `uptime`, when the rounds of confirming up to `round` had begun.
    pub fn challenged(&self, bytes: Bytes, received: Duration, round: u64) {
        let mut follows = lock(&self.follows);
        follows.heard = follows.heard.max(received);
        // Whatever heartbeat could echo the one before can echo this one.
        let again = follows.challenges.pop_back_if(|before| before.round >= round).is_some();
        if !again && follows.challenges.len() >= MAX_CHALLENGES {
            follows.challenges.pop_front();
        }
        follows.challenges.push_back(Challenge { bytes, received, round });
    }

    /// The challenge that a heartbeat of `round` echoes: the latest that came in before the round
    /// began. Once it is given out, the instance may count from its sending.
    #[must_use]
    pub fn echo(&self, round: u64) -> Option<Bytes> {
        let mut follows = lock(&self.follows);
        let mut latest = None;
        while let Some(next) = follows.challenges.pop_front_if(|next| next.round < round) {
            latest = Some(next);
        }
        let Challenge { bytes, received, round: _ } = latest?;
        follows.echoed = follows.echoed.max(received);
        Some(bytes)
    }

    /// It follows no more.
    pub fn leave(&self, uptime: Duration) {
        self.gone.cancel();
        lock(&self.follows).left.get_or_insert(uptime);
        self.news.send_replace(());
    }

    /// Waits until it is to follow no more.
    pub async fn left(&self) {
        self.gone.cancelled().await;
    }

    fn is_replaced(&self) -> bool {
        lock(&self.follows).replaced
    }

    fn standing(&self, uptime: Duration) -> Standing {
        let Terms { gateway, instance, min_staleness: _, max_staleness, best_effort } =
            self.terms.clone();
        let follows = lock(&self.follows);
        let until = follows.echoed.saturating_add(max_staleness);
        Standing {
            gateway,
            instance,
            enforced: follows.enforced,
            silent_for: uptime.saturating_sub(follows.heard),
            refuses_in: until.checked_sub(uptime).filter(|left| !left.is_zero()),
            max_staleness,
            connected: !self.gone.is_cancelled(),
            best_effort,
        }
    }

    /// Whether it follows, or may still allow something.
    fn matters(&self, uptime: Duration) -> bool {
        let Standing { connected, refuses_in, best_effort, .. } = self.standing(uptime);
        let left = lock(&self.follows).left.map(|left| uptime.saturating_sub(left));
        let opted_out = best_effort && left.is_none_or(|left| left < OPTED_OUT_FOR);
        connected || refuses_in.is_some() || opted_out
    }
}

/// A panic while it was held leaves the data whole: every change under these locks is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
