//! Follows a feed over gRPC: connects, reconnects, asks other brokers, and puts into force what
//! the [`Follower`] believes. It judges nothing by itself.

mod left;
mod patience;

use std::future::{Future, pending};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use dayfly_proto::v1::follow_request::Message as Up;
use dayfly_proto::v1::gateway_service_client::GatewayServiceClient;
use dayfly_proto::v1::{Ack, FollowRequest, FollowResponse, GetTrustRequest, Subscribe};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, interval, sleep, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

use super::enforcer::Enforcer;
use super::follower::{Challenge, Follower, Message};
use super::keeper::Keeper;
use super::mark::{MarkError, Store};
use super::profile::Profile;
use super::refused::Remedy;
use super::wire::{head_to_wire, message_from_wire, offered_trust};
use crate::id::InstanceId;
use crate::time::Clock;
use crate::trust::Signed;
use left::Left;
use patience::Patience;

/// How often what runs is looked at for expiry and staleness.
const TICK: Duration = Duration::from_millis(100);
/// How often the trust statement is asked for again: keys are listed ahead of their use.
const TRUST_EVERY: Duration = Duration::from_secs(30);
/// How long a broker may take for one answer.
const ANSWER: Duration = Duration::from_secs(2);
/// The pause before the first new attempt; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The longest message: snapshots come in parts of a quarter of this.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// What a gateway instance follows, and how.
#[derive(Debug, Clone)]
pub struct Config {
    /// What it holds its feed to.
    pub profile: Profile,
    /// The name of this process among those of the gateway: new with every start.
    pub instance: InstanceId,
    /// Where the high-water mark is kept. Without it, a restart forgets how far it had believed.
    pub dir: Option<PathBuf>,
    /// The brokers, as channels that authenticate them and this gateway; tried in turn.
    pub brokers: Vec<Channel>,
}

/// The task that follows.
pub struct Client {
    config: Config,
    store: Option<Store>,
    /// Writes to the store, while this runs.
    keeper: Option<Keeper>,
    follower: Follower,
    enforcer: Arc<Enforcer>,
    clock: Arc<dyn Clock>,
    /// Whether this connection made anything fresh.
    refreshed: bool,
    /// Whether the trust statement must be asked for before anything is heard.
    trust_first: bool,
}

/// The way up to the broker.
type Acks = mpsc::Sender<FollowRequest>;

/// A trust statement that is asked for, when it arrives.
type Asked = Pin<Box<dyn Future<Output = Result<Signed, Left>> + Send>>;

/// Prepares to follow. Until the first complete snapshot the [`Enforcer`] allows nothing.
///
/// # Errors
///
/// The mark is there but cannot be read: starting without it would be to forget.
pub fn follow(config: Config, clock: Arc<dyn Clock>) -> Result<(Arc<Enforcer>, Client), MarkError> {
    let store = config.dir.as_deref().map(Store::open).transpose()?;
    let mark = store.as_ref().map(Store::load).transpose()?.flatten();
    let follower = Follower::new(config.profile.clone(), mark);
    let enforcer = Arc::new(Enforcer::default());
    let told = Arc::clone(&enforcer);
    let client = Client {
        config,
        store,
        keeper: None,
        follower,
        enforcer: told,
        clock,
        refreshed: false,
        trust_first: true,
    };
    Ok((enforcer, client))
}

impl Client {
    /// Follows until it is dropped. What runs is looked at by a task of its own, for as long as
    /// anybody has the [`Enforcer`]: even without this, what expires or becomes stale ends.
    pub async fn run(self) {
        let clock = Arc::clone(&self.clock);
        tokio::spawn(tick(Arc::downgrade(&self.enforcer), clock));
        self.follow().await;
    }

    async fn follow(mut self) {
        let mark = self.follower.mark().clone();
        self.keeper = self.store.take().map(|store| Keeper::start(store, mark));
        let brokers = self.config.brokers.clone();
        let mut pause = FIRST_PAUSE;
        for broker in brokers.iter().cycle() {
            loop {
                let before = self.follower.mark().clone();
                self.refreshed = false;
                let Err(left) = self.session(broker.clone()).await else { continue };
                if *self.follower.mark() != before {
                    pause = FIRST_PAUSE;
                }
                let refused = matches!(&left, Left::Refused(refused)
                    if refused.remedy() == Remedy::FetchTrust);
                if left.is_too_long() {
                    self.follower.ask_for_all();
                }
                // Who believes an old statement may be cut before it is told the new one.
                let cut = matches!(&left, Left::Over) && !self.refreshed;
                self.trust_first |= refused || cut;
                // A broker that made nothing fresh is of no use, whatever the reason.
                let elsewhere = self.report(&left) || !self.refreshed;
                sleep(pause).await;
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                if elsewhere {
                    break;
                }
            }
        }
    }

    /// Says why a session ended. `true` if another broker is to be asked.
    fn report(&self, left: &Left) -> bool {
        match left {
            Left::Refused(refused) if refused.remedy() == Remedy::OtherBroker => {
                tracing::error!(%refused, "the feed is not to be believed: nothing is allowed");
                true
            }
            Left::Untrusted(untrusted) => {
                tracing::error!(%untrusted, "the trust statement is not to be believed");
                true
            }
            Left::Unreachable(status) if status.code() == Code::DataLoss => {
                tracing::error!("the broker's log lacks what was adopted: it tells nothing");
                true
            }
            Left::Refused(refused) => {
                tracing::warn!(%refused, "starting over with the feed");
                false
            }
            Left::OtherEpoch => {
                tracing::warn!("the trust root names another epoch: starting over with the feed");
                false
            }
            Left::NotKept => {
                tracing::error!(reason = %left, "nothing is allowed");
                false
            }
            Left::Unreachable(_)
            | Left::Silent
            | Left::Over
            | Left::Unreadable
            | Left::NoRandomness => {
                tracing::info!(reason = %left, "the feed was left");
                true
            }
        }
    }

    /// One stream with one broker, from the keys on. Never returns `Ok`.
    async fn session(&mut self, broker: Channel) -> Result<(), Left> {
        let mut broker =
            GatewayServiceClient::new(broker).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut asking = Some(ask_trust(broker.clone()));
        if self.trust_first
            && let Some(asked) = asking.take()
        {
            self.trust(&asked.await?)?;
        }
        self.enter_epoch().await?;
        let (acks, queued) = mpsc::channel(16);
        send(&acks, Up::Subscribe(self.subscribe()?)).await?;
        let following = broker.follow(ReceiverStream::new(queued));
        let mut stream = timeout(ANSWER, following).await.map_err(|_| Left::Silent)??.into_inner();
        let mut trust_due = interval(TRUST_EVERY);
        trust_due.tick().await;
        let mut patience = Patience::new(self.config.profile.min_staleness(), Instant::now());
        loop {
            tokio::select! {
                message = timeout_at(patience.due, stream.message()) => {
                    let message = message.map_err(|_| Left::Silent)??.ok_or(Left::Over)?;
                    let before = self.follower.fresh_until();
                    let whole = self.follower.is_whole();
                    let offered = offered_trust(&message);
                    self.take(message, &acks).await?;
                    if offered > self.follower.mark().trust {
                        asking.get_or_insert_with(|| ask_trust(broker.clone()));
                    }
                    let refreshed = self.follower.fresh_until() > before;
                    self.refreshed |= refreshed;
                    patience.heard(refreshed, whole, Instant::now());
                }
                answer = answered(&mut asking) => {
                    asking = None;
                    match answer {
                        Ok(signed) => self.trust_meanwhile(&signed, &acks).await?,
                        // The feed says by itself whether the broker is there.
                        Err(left) => tracing::info!(reason = %left, "the keys were not told"),
                    }
                }
                _ = trust_due.tick() => {
                    asking.get_or_insert_with(|| ask_trust(broker.clone()));
                }
            }
        }
    }

    fn subscribe(&mut self) -> Result<Subscribe, Left> {
        let wants = self.follower.subscribe();
        let trust_version = self.follower.mark().trust;
        let profile = &self.config.profile;
        Ok(Subscribe {
            instance: self.config.instance.to_string(),
            max_staleness_ms: millis(profile.max_staleness()),
            min_staleness_ms: millis(profile.min_staleness()),
            best_effort: profile.is_best_effort(),
            last: wants.last.map(head_to_wire),
            snapshot: wants.snapshot,
            challenge: self.challenge()?,
            trust_version,
        })
    }

    async fn take(&mut self, message: FollowResponse, acks: &Acks) -> Result<(), Left> {
        let message = message_from_wire(message).ok_or(Left::Unreadable)?;
        let (now, uptime) = (self.clock.now(), self.clock.uptime());
        let beats = matches!(message, Message::Heartbeat(..));
        let adopted = if matches!(message, Message::Snapshot(_, Some(_))) {
            // There may be millions of entries: nothing else waits while they are read. Were this
            // to fail, what is left would start from the mark.
            let rest =
                Follower::new(self.config.profile.clone(), Some(self.follower.mark().clone()));
            let mut follower = std::mem::replace(&mut self.follower, rest);
            let receiving =
                spawn_blocking(move || (follower.receive(&message, now, uptime), follower));
            let (adopted, follower) = receiving.await.map_err(|_| Left::Unreadable)?;
            self.follower = follower;
            adopted
        } else {
            self.follower.receive(&message, now, uptime)
        };
        self.publish();
        if !adopted? {
            return Ok(());
        }
        let challenge = if beats { self.challenge()? } else { bytes::Bytes::new() };
        self.acknowledge(acks, challenge).await
    }

    async fn acknowledge(&self, acks: &Acks, challenge: bytes::Bytes) -> Result<(), Left> {
        let (seq, trust_version) = (self.follower.enforced().0, self.follower.mark().trust);
        send(acks, Up::Ack(Ack { seq, challenge, trust_version })).await
    }

    /// Puts into force what is believed now, and has the mark written. When it returns, handles
    /// have fired.
    fn publish(&self) {
        if let Some(view) = self.follower.view() {
            self.enforcer.publish(view, self.clock.now(), self.clock.uptime());
        }
        if let Some(keeper) = &self.keeper {
            keeper.keep(self.follower.mark());
        }
    }

    /// Believes a statement. `true` if it is another than before.
    fn trust(&mut self, signed: &Signed) -> Result<bool, Left> {
        let news = self.follower.trust(signed)?;
        self.trust_first = false;
        if news {
            self.publish();
        }
        Ok(news)
    }

    /// Believes a statement that came while something is followed, and says so.
    async fn trust_meanwhile(&mut self, signed: &Signed, acks: &Acks) -> Result<(), Left> {
        let held = self.follower.holds();
        if !self.trust(signed)? {
            return Ok(());
        }
        // Nothing of what it is to follow now is held; and what this stream tells of another epoch
        // counts only once the disk knows of it.
        if (held && !self.follower.holds()) || self.follower.enters_epoch() {
            return Err(Left::OtherEpoch);
        }
        self.acknowledge(acks, bytes::Bytes::new()).await
    }

    /// Another epoch than that of the mark is entered only once the disk knows of it.
    async fn enter_epoch(&mut self) -> Result<(), Left> {
        let (Some(keeper), true) = (&mut self.keeper, self.follower.enters_epoch()) else {
            return Ok(());
        };
        let kept = keeper.has_trust(self.follower.mark().trust);
        timeout(ANSWER, kept).await.map_err(|_| Left::NotKept)
    }

    fn challenge(&mut self) -> Result<bytes::Bytes, Left> {
        let mut challenge = Challenge::default();
        getrandom::fill(&mut challenge).map_err(|_| Left::NoRandomness)?;
        self.follower.challenge(challenge, self.clock.uptime());
        Ok(bytes::Bytes::copy_from_slice(&challenge))
    }
}

/// Asks for the trust statement, in a future of its own.
fn ask_trust(mut broker: GatewayServiceClient<Channel>) -> Asked {
    Box::pin(async move {
        let asked = timeout(ANSWER, broker.get_trust(GetTrustRequest {})).await;
        let answer = asked.map_err(|_| Left::Silent)??.into_inner();
        let signature = answer.signature.as_ref().try_into().map_err(|_| Left::Unreadable)?;
        Ok(Signed { statement: answer.statement.to_vec(), signature })
    })
}

/// The answer, if something is asked.
async fn answered(asking: &mut Option<Asked>) -> Result<Signed, Left> {
    match asking {
        Some(asked) => asked.await,
        None => pending().await,
    }
}

async fn send(acks: &Acks, message: Up) -> Result<(), Left> {
    let request = FollowRequest { message: Some(message) };
    timeout(ANSWER, acks.send(request)).await.map_err(|_| Left::Silent)?.map_err(|_| Left::Over)
}

/// Ends what has expired or become stale, for as long as anybody has the enforcer.
async fn tick(enforcer: Weak<Enforcer>, clock: Arc<dyn Clock>) {
    let mut ticks = interval(TICK);
    while let Some(enforcer) = enforcer.upgrade() {
        enforcer.tick(clock.now(), clock.uptime());
        drop(enforcer);
        ticks.tick().await;
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[cfg(feature = "issue")]
mod tests;
