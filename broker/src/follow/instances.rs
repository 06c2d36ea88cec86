//! Who follows the feed, and what is known of how far each enforces it. Must never claim more than
//! an instance acknowledged, nor that it refuses before it surely does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dayfly_verifier::id::{InstanceId, Seq};
use dayfly_verifier::spiffe::SpiffeId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The longest pause between heartbeats.
const LONGEST_INTERVAL: Duration = Duration::from_secs(1);
/// How many heartbeats an instance gets within its bound.
const BEATS_IN_BOUND: u32 = 5;
/// The most instances that are remembered.
const MAX_INSTANCES: usize = 16_384;
/// The most of them that one gateway may have: it must not shut out the others.
const MAX_OF_GATEWAY: usize = 256;
/// How long an instance that opted out is remembered after it left: as long as a token may live.
const OPTED_OUT_FOR: Duration = crate::core::limits::MAX_TOKEN_LIFE;

/// All instances that follow, or that may not refuse by themselves yet.
pub struct Instances {
    all: Mutex<BTreeMap<(SpiffeId, InstanceId), Arc<Instance>>>,
    changed: watch::Sender<()>,
}

/// One process of a gateway.
pub struct Instance {
    /// How it follows.
    pub terms: Terms,
    follows: Mutex<Follows>,
    changed: watch::Sender<()>,
    gone: CancellationToken,
}

/// How an instance follows.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The gateway.
    pub gateway: SpiffeId,
    /// The process.
    pub instance: InstanceId,
    /// After how much silence it refuses by itself.
    pub max_staleness: Duration,
    /// It does not.
    pub best_effort: bool,
}

struct Follows {
    /// The highest place that was sent.
    sent: Seq,
    enforced: Seq,
    /// When it was last heard.
    heard: Duration,
    /// When the last challenge came in that was echoed: it counts its freshness from an earlier
    /// moment than that.
    echoed: Duration,
    /// The challenge to echo, when it came in, and the round of confirming that had begun by then.
    challenge: Option<(Bytes, Duration, u64)>,
    left: Option<Duration>,
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

impl Default for Instances {
    fn default() -> Self {
        Self { all: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl Instances {
    /// An instance begins to follow at `uptime`. A stream that it had before is cut: an instance
    /// is one process. What it may still believe of that stream is remembered.
    pub fn join(&self, terms: Terms, uptime: Duration) -> Result<Arc<Instance>, TooMany> {
        let mut all = lock(&self.all);
        all.retain(|_, instance| instance.matters(uptime));
        let key = (terms.gateway.clone(), terms.instance.clone());
        let before = all.remove(&key);
        let of_gateway = all.keys().filter(|(gateway, _)| *gateway == key.0).count();
        if all.len() >= MAX_INSTANCES || of_gateway >= MAX_OF_GATEWAY {
            return Err(TooMany);
        }
        let echoed = before.map_or(uptime, |before| {
            before.gone.cancel();
            lock(&before.follows).echoed
        });
        let (sent, enforced) = (Seq(0), Seq(0));
        let follows =
            Follows { sent, enforced, heard: uptime, echoed, challenge: None, left: None };
        let instance = Arc::new(Instance {
            terms,
            follows: Mutex::new(follows),
            changed: self.changed.clone(),
            gone: CancellationToken::new(),
        });
        all.insert(key, Arc::clone(&instance));
        drop(all);
        self.changed.send_replace(());
        Ok(instance)
    }

    /// The pause between heartbeats that satisfies every instance that follows.
    #[must_use]
    pub fn interval(&self) -> Duration {
        let all = lock(&self.all);
        let intervals = all.values().filter(|instance| !instance.gone.is_cancelled());
        intervals.map(|instance| instance.interval()).min().unwrap_or(LONGEST_INTERVAL)
    }

    /// What is known of each at `uptime`, in the order of gateways and instances.
    #[must_use]
    pub fn standings(&self, uptime: Duration) -> Vec<Standing> {
        let mut all = lock(&self.all);
        all.retain(|_, instance| instance.matters(uptime));
        all.values().map(|instance| instance.standing(uptime)).collect()
    }

    /// When something is heard, or somebody comes or goes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

impl Instance {
    /// The pause between its heartbeats: a fifth of its bound, at most a second.
    #[must_use]
    pub fn interval(&self) -> Duration {
        let fifth = self.terms.max_staleness.checked_div(BEATS_IN_BOUND);
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
            self.changed.send_replace(());
        }
        true
    }

    /// Its challenge came in at `uptime`, when the rounds of confirming up to `round` had begun.
    pub fn challenged(&self, challenge: Bytes, uptime: Duration, round: u64) {
        let mut follows = lock(&self.follows);
        follows.heard = follows.heard.max(uptime);
        follows.challenge = Some((challenge, uptime, round));
    }

    /// The challenge that a heartbeat of `round` echoes: only one that came in before the round
    /// began. Once it is given out, the instance may count from its sending.
    #[must_use]
    pub fn echo(&self, round: u64) -> Option<Bytes> {
        let mut follows = lock(&self.follows);
        let (challenge, received, _) = follows.challenge.take_if(|(_, _, begun)| *begun < round)?;
        follows.echoed = follows.echoed.max(received);
        Some(challenge)
    }

    /// It follows no more.
    pub fn leave(&self, uptime: Duration) {
        self.gone.cancel();
        lock(&self.follows).left.get_or_insert(uptime);
        self.changed.send_replace(());
    }

    /// Waits until it is to follow no more.
    pub async fn left(&self) {
        self.gone.cancelled().await;
    }

    fn standing(&self, uptime: Duration) -> Standing {
        let Terms { gateway, instance, max_staleness, best_effort } = self.terms.clone();
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
