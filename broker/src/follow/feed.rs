//! Tells gateways what the log takes back: signs the end of the feed, and casts one message for
//! all of them.
//!
//! Nothing is told before it is durable: what is told comes from the published state. A heartbeat
//! is cast only after the journal confirmed its head, with the time from before asking; while the
//! journal does not answer there are none, and gateways come to refuse by themselves.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use dayfly_proto::v1::follow_response::Message;
use dayfly_proto::v1::{Delta, FollowResponse, SignedHead, Snapshot};
use dayfly_verifier::feed::{self as format, snapshot_digest};
use dayfly_verifier::id::{FeedId, Seq};
use dayfly_verifier::time::{Clock, Timestamp};
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::time::{sleep, timeout};

use super::instances::{Instances, LONGEST_INTERVAL};
use super::keys::FeedKeys;
use super::trust::Trust;
use crate::core::event::Head;
use crate::core::feed::Feed;
use crate::core::state::State;
use crate::found::FOUNDING;
use crate::journal::Journal;
use crate::keys::NumberedKey;
use crate::sequencer::Sequencer;

/// How many messages a follower may lag behind before it is cut.
const LAG: usize = 256;
/// How long a wish for a heartbeat waits for others to share it.
const GATHER: Duration = Duration::from_millis(20);
/// The largest staleness that an instance may declare.
pub const MAX_STALENESS: Duration = Duration::from_secs(60);
/// How many bytes of entries a delta holds, and one part of a snapshot.
const PART_BYTES: usize = 1024 * 1024;

/// The feed of this broker.
pub struct Hub {
    pub(super) feed: FeedId,
    /// The keys that gateways believe.
    pub(super) trust: ArcSwap<Trust>,
    /// Those of this broker that sign.
    pub keys: FeedKeys,
    sequencer: Sequencer,
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    casts: broadcast::Sender<Arc<Cast>>,
    tip: ArcSwap<Tip>,
    /// How many rounds of confirming have begun.
    rounds: AtomicU64,
    wanted: Notify,
    /// Until when instances that followed an earlier process may not know the keys that came since.
    pub(super) unaware_until: Duration,
    /// Until when instances that followed an earlier process may go on by themselves.
    unseen_until: Duration,
    /// Who follows.
    pub instances: Instances,
}

/// What every follower is told.
pub enum Cast {
    /// Entries were added: from the tip before, up to `seq`.
    Delta {
        /// Up to where.
        seq: Seq,
        /// The message.
        message: FollowResponse,
    },
    /// The head was confirmed.
    Beat {
        /// The round of confirming that did.
        round: u64,
        /// The end of what everybody was told.
        seq: Seq,
        /// Signed.
        head: SignedHead,
    },
    /// The log goes on in another epoch, or by more than a delta holds: subscribe anew.
    Over,
}

/// The end of what has been cast.
pub struct Tip {
    /// The end of the log.
    pub head: Head,
    /// Signed, without a snapshot.
    pub signed: SignedHead,
    /// By this key.
    key: Arc<NumberedKey>,
    feed: Feed,
    time: Timestamp,
    /// Shared by all tips with the same end and key: it is signed once for all who ask for it.
    snapshot: Arc<OnceLock<Vec<FollowResponse>>>,
}

/// A head that the journal confirmed.
struct Confirmed {
    round: u64,
    time: Timestamp,
    head: Head,
}

impl Hub {
    /// The feed that `trust` names, as `sequencer` publishes it, signed with one of `keys`.
    #[must_use]
    pub fn new(
        trust: Trust,
        keys: FeedKeys,
        sequencer: Sequencer,
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let feed = trust.statement().feed;
        let state = sequencer.state();
        // The time of the last entry: nothing has been confirmed yet.
        let tip = Tip::new(feed, keys.present(), &state, state.time);
        // What is given from now on can be used there, too, where an earlier process was followed.
        // Whoever may follow has joined, and that is on record: in a log as founded nobody has.
        let span = if state.head.seq.0 > FOUNDING { MAX_STALENESS } else { Duration::ZERO };
        let unseen_until = clock.uptime().saturating_add(span);
        let used = state.keys.values().any(|key| key.used);
        let span = if used { MAX_STALENESS } else { Duration::ZERO };
        let unaware_until = clock.uptime().saturating_add(span);
        Arc::new(Self {
            feed,
            trust: ArcSwap::from_pointee(trust),
            keys,
            sequencer,
            journal,
            clock,
            casts: broadcast::Sender::new(LAG),
            tip: ArcSwap::from_pointee(tip),
            rounds: AtomicU64::new(0),
            wanted: Notify::new(),
            unaware_until,
            unseen_until,
            instances: Instances::default(),
        })
    }

    /// Casts until it is dropped, or until the sequencer has ended.
    pub async fn run(&self) {
        let (confirmed, confirmations) = mpsc::channel(1);
        tokio::select! {
            () = self.confirm(confirmed) => {}
            () = self.cast(confirmations, self.sequencer.moved()) => {}
        }
    }

    /// What is cast from now on. Take [`Hub::tip`] after this: what is cast and not after it, the
    /// tip has.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<Arc<Cast>> {
        self.casts.subscribe()
    }

    /// The end of what has been cast.
    #[must_use]
    pub fn tip(&self) -> Arc<Tip> {
        self.tip.load_full()
    }

    /// The moment that the last heartbeat speaks of.
    #[must_use]
    pub fn confirmed_at(&self) -> Timestamp {
        self.tip.load().time
    }

    /// The number of rounds of confirming that have begun.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::SeqCst)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The time since this machine was started, which all of following is counted by.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.clock.uptime()
    }

    /// For how long after `uptime` instances that followed an earlier process, and have not come
    /// back, may go on by themselves.
    #[must_use]
    pub const fn unseen_for(&self, uptime: Duration) -> Duration {
        self.unseen_until.saturating_sub(uptime)
    }

    /// Asks for a heartbeat soon.
    pub fn want_beat(&self) {
        self.wanted.notify_one();
    }

    /// The log itself.
    pub(super) fn journal(&self) -> &dyn Journal {
        &*self.journal
    }

    /// What brings a follower to `tip`: what came after the head that it has, or everything.
    #[must_use]
    pub fn catch_up(&self, tip: &Tip, last: Option<&format::Head>) -> Vec<FollowResponse> {
        let same = |last: &&format::Head| {
            last.feed == self.feed && last.epoch == tip.head.epoch && last.seq <= tip.head.seq
        };
        let since = |last: &format::Head| tip.feed.after_within(last.seq, PART_BYTES);
        if let Some(entries) = last.filter(same).and_then(since) {
            return vec![delta(entries, &tip.signed)];
        }
        tip.snapshot.get_or_init(|| self.snapshot(tip)).clone()
    }

    fn snapshot(&self, tip: &Tip) -> Vec<FollowResponse> {
        let entries: Vec<Bytes> = tip.feed.in_force(tip.time).cloned().collect();
        let digest = snapshot_digest(entries.iter().map(AsRef::as_ref));
        let head = format::Head {
            snapshot: Some(digest),
            ..head(self.feed, &tip.key, tip.head, &tip.feed, tip.time)
        };
        let mut parts = vec![Vec::new()];
        let mut bytes = 0_usize;
        for entry in entries {
            if bytes > PART_BYTES {
                bytes = 0;
                parts.push(Vec::new());
            }
            bytes = bytes.saturating_add(entry.len());
            parts.last_mut().into_iter().for_each(|part| part.push(entry.clone()));
        }
        let last = parts.pop().unwrap_or_default();
        let part = |entries, head| FollowResponse {
            message: Some(Message::Snapshot(Snapshot { entries, head })),
        };
        let mut messages: Vec<_> = parts.into_iter().map(|entries| part(entries, None)).collect();
        messages.push(part(last, Some(wire(head.sign(&tip.key.signing)))));
        messages
    }

    /// Confirms the journal's head again and again. What takes longer than the longest pause, or
    /// fails, counts for nothing.
    async fn confirm(&self, confirmed: mpsc::Sender<Confirmed>) {
        let mut failing = false;
        loop {
            let interval = self.instances.interval();
            tokio::select! {
                () = sleep(interval) => {}
                () = self.wanted.notified() => sleep(GATHER).await,
            }
            let round = self.rounds.fetch_add(1, Ordering::SeqCst).saturating_add(1);
            let time = self.clock.now();
            let asked = timeout(LONGEST_INTERVAL, self.journal.confirm()).await;
            let Ok(Ok(head)) = asked else {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!("the journal does not confirm its head: no heartbeats");
                }
                continue;
            };
            failing = false;
            if confirmed.send(Confirmed { round, time, head: *head }).await.is_err() {
                return;
            }
        }
    }

    /// The only one who moves the tip.
    async fn cast(
        &self,
        mut confirmations: mpsc::Receiver<Confirmed>,
        mut moved: watch::Receiver<Head>,
    ) {
        let mut waiting = None;
        loop {
            tokio::select! {
                changed = moved.changed() => if changed.is_err() { return },
                confirmed = confirmations.recv() => match confirmed {
                    Some(confirmed) => waiting = Some(confirmed),
                    None => return,
                },
            }
            let state = self.sequencer.state();
            self.cast_delta(&state);
            // A head that another broker appended is confirmed before it is folded here.
            let reached = |confirmed: &mut Confirmed| {
                confirmed.head.epoch == state.head.epoch && confirmed.head.seq <= state.head.seq
            };
            if let Some(confirmed) = waiting.take_if(reached) {
                self.cast_beat(&state, &confirmed);
            }
        }
    }

    fn cast_delta(&self, state: &State) {
        let tip = self.tip();
        if state.head.epoch == tip.head.epoch && state.feed.hash() == tip.feed.hash() {
            return;
        }
        let next = Tip::new(self.feed, self.keys.present(), state, tip.time);
        let same_epoch = state.head.epoch == tip.head.epoch;
        let entries = state.feed.after_within(tip.head.seq, PART_BYTES).filter(|_| same_epoch);
        let cast = entries.map_or(Cast::Over, |entries| Cast::Delta {
            seq: state.head.seq,
            message: delta(entries, &next.signed),
        });
        self.tip.store(Arc::new(next));
        // Nobody listens: nobody is to be told.
        let _ = self.casts.send(Arc::new(cast));
    }

    fn cast_beat(&self, state: &State, confirmed: &Confirmed) {
        let before = self.tip();
        let mut tip = Tip::new(self.feed, self.keys.present(), state, confirmed.time);
        if before.head == tip.head && Arc::ptr_eq(&before.key, &tip.key) {
            tip.snapshot = Arc::clone(&before.snapshot);
        }
        let (seq, head) = (tip.head.seq, tip.signed.clone());
        self.tip.store(Arc::new(tip));
        let _ = self.casts.send(Arc::new(Cast::Beat { round: confirmed.round, seq, head }));
    }
}

impl Tip {
    fn new(feed: FeedId, key: Arc<NumberedKey>, state: &State, time: Timestamp) -> Self {
        let signed = wire(head(feed, &key, state.head, &state.feed, time).sign(&key.signing));
        let feed = state.feed.clone();
        Self { head: state.head, signed, key, feed, time, snapshot: Arc::default() }
    }
}

fn head(feed: FeedId, key: &NumberedKey, head: Head, told: &Feed, time: Timestamp) -> format::Head {
    let Head { epoch, seq, hash } = head;
    let key = key.id;
    format::Head { feed, epoch, seq, journal: hash, hash: told.hash(), time, key, snapshot: None }
}

fn wire(signed: format::SignedHead) -> SignedHead {
    let format::SignedHead { head, signature } = signed;
    SignedHead { head: head.into(), signature: Bytes::copy_from_slice(&signature) }
}

fn delta(entries: Vec<Bytes>, head: &SignedHead) -> FollowResponse {
    let head = Some(head.clone());
    FollowResponse { message: Some(Message::Delta(Delta { entries, head })) }
}
