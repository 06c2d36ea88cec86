//! The running process: opens everything, then serves until the end.
//!
//! Whatever can be wrong with the configuration, the keys or the journal shows before a port
//! opens. The end has an order: readiness goes false, then nothing new is accepted, then what
//! runs finishes or is cut.

mod plain;
mod services;

use std::sync::Arc;
use std::time::Duration;

use dayfly_agent::listen::{Bounds, Traffic};
use dayfly_agent::tls::Live;
use dayfly_verifier::id::{KeyId, Seq};
use dayfly_verifier::time::{Clock, Timestamp};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[cfg(test)]
pub(crate) use self::services::routes;
use self::services::{Grpc, serve};
use crate::api::enforcement::standings;
use crate::api::{Broker, BundleError, LoadedBundle};
use crate::authority::{Authority, AuthorityError};
use crate::config::Config;
use crate::core::command::Caller;
use crate::core::event::Head;
use crate::follow::feed::{Cast, Hub};
use crate::follow::instances::Standing;
use crate::follow::keys::FeedKeys;
use crate::follow::trust::Trust;
use crate::found::{FoundError, all_token_keys, feed_keys, read_statement};
use crate::journal::{Joins, Journal, JournalError, Sqlite, Store};
use crate::keep::Keeper;
use crate::keys::NumberedKey;
use crate::random::Random;
use crate::sequencer::{Deciding, Sequencer};
use crate::shutdown::{DRAIN, Shutdown};
use crate::signer::{Signer, SignerError};
use crate::telemetry::{Gauges, Metrics, Page, Readiness, pages};

/// How often the broker looks after its own certificate, its keys and the locks of the authority.
const LOOK: Duration = Duration::from_millis(500);

/// Where time and randomness come from.
#[derive(Clone)]
pub struct Host {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
}

/// The open ports of a broker, each for the address of the same name in the configuration.
pub struct Listeners {
    /// For everything but joining.
    pub broker: TcpListener,
    /// For joining.
    pub join: TcpListener,
    /// For health and metrics.
    pub http: TcpListener,
}

/// Why a broker does not serve, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A key or a file beside it is refused.
    #[error(transparent)]
    Key(#[from] SignerError),
    /// The authority is refused.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The trust statement or the feed keys are refused.
    #[error(transparent)]
    Founding(#[from] FoundError),
    /// The journal must not be gone on from, or cannot be reached.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The bundle in force cannot be asked.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The reflection service cannot be set up.
    #[error("cannot set up reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// A port cannot be used.
    #[error("cannot listen: {0}")]
    Listen(std::io::Error),
}

impl Listeners {
    /// Opens the ports that the configuration names.
    pub async fn bind(config: &Config) -> std::io::Result<Self> {
        let open = async |address: std::net::SocketAddr| {
            let opened = TcpListener::bind(address).await;
            opened.map_err(|error| std::io::Error::new(error.kind(), format!("{address}: {error}")))
        };
        let listen = &config.listen;
        Ok(Self {
            broker: open(listen.broker).await?,
            join: open(listen.join).await?,
            http: open(listen.http).await?,
        })
    }
}

/// A broker whose configuration, keys and journal are in order, and that has no port yet.
pub struct Opened {
    broker: Broker,
    deciding: Deciding,
    keeper: Keeper,
    live: Live,
    bounds: Bounds,
    /// The end, as this process is told of it.
    told: Shutdown,
}

impl Opened {
    /// Opens what the configuration names, and folds the journal. `shutdown` is what the handlers
    /// see of the end.
    pub async fn open(
        config: &Config,
        host: &Host,
        shutdown: Shutdown,
    ) -> Result<Self, ServeError> {
        let keys = config.keys();
        let signer = Signer::new(all_token_keys(&keys)?);
        let (trust, feed_keys) = trusted(config, &*host.clock)?;
        let store = Arc::new(Sqlite::open(&config.journal())?);
        let joins: Arc<dyn Joins> = store.clone();
        let random = host.random.clone();
        let authority = Authority::open(&config.trust_domain, &keys, joins, random).await?;
        let clock = host.clock.clone();
        let identity = authority.for_broker(&config.id, clock.now())?;
        let live = Live::new(identity, clock.clone());
        let journal: Arc<dyn Journal> = store.clone();
        let store: Arc<dyn Store> = store;
        let began = clock.uptime();
        let (sequencer, deciding, started_from) =
            Sequencer::open(store.clone(), clock.clone(), config.limits).await?;
        let entries = sequencer.state().head.seq.0.saturating_sub(started_from.0);
        let ms = clock.uptime().saturating_sub(began).as_millis();
        match started_from {
            Seq(0) => tracing::info!(entries, ms, "started from all entries"),
            Seq(snapshot) => tracing::info!(snapshot, entries, ms, "started from a snapshot"),
        }
        let keeper = Keeper {
            sequencer: sequencer.clone(),
            store: store.clone(),
            itself: Caller::itself(config.id.clone()),
            every: config.snapshot_every,
            started_from,
        };
        let bundles = LoadedBundle::default();
        if let Some(digest) = sequencer.state().bundle {
            bundles.get(digest, &*store).await?;
        }
        let hub = Hub::new(trust, feed_keys, sequencer.clone(), journal, clock.clone());
        let address = config.advertise.clone().unwrap_or_else(|| config.listen.broker.to_string());
        let broker = Broker {
            id: config.id.clone(),
            address,
            peers: config.peers.clone(),
            sequencer,
            store,
            signer,
            authority: Arc::new(authority),
            live: live.clone(),
            started_at: clock.now(),
            clock,
            random: host.random.clone(),
            shutdown: shutdown.child(),
            bundles,
            hub,
            dir: config.dir.clone(),
            keys,
        };
        Ok(Self { broker, deciding, keeper, live, bounds: config.bounds, told: shutdown })
    }

    /// The key that signs the feed, and its end.
    #[must_use]
    pub fn feed_key(&self) -> (KeyId, Timestamp) {
        let present = self.broker.hub.keys.present();
        (present.id, present.not_after)
    }

    /// Where its log ends.
    #[must_use]
    pub fn head(&self) -> Head {
        self.broker.sequencer.state().head
    }

    /// What handlers work with, and the task that decides, without any port.
    #[cfg(test)]
    pub(crate) fn into_parts(self) -> (Broker, Deciding) {
        (self.broker, self.deciding)
    }

    /// Serves until the shutdown that it was opened with begins, and what runs then has ended or
    /// is cut. Where the journal must not be gone on from, nothing is served any more but the
    /// word that it is so, until then.
    pub async fn run(self, listeners: Listeners) -> Result<(), ServeError> {
        let Self { mut broker, deciding, keeper, live, bounds, told } = self;
        let bound = [&listeners.broker, &listeners.join, &listeners.http].map(address);
        let [at_broker, at_join, at_http] = bound;
        if broker.address.ends_with(":0") {
            // The port was left to the system: tell those who join the one that it gave.
            broker.address.clone_from(&at_broker);
        }
        let broker = Arc::new(broker);
        let shutdown = broker.shutdown.clone();
        let readiness = Readiness::default();
        // Stops the listeners, once readiness has gone false.
        let stop = CancellationToken::new();
        let metrics = Metrics::default();
        let traffic = ["broker", "join"].map(|listener| (listener, Traffic::default()));
        let mut http = JoinSet::new();
        let pages = pages(page(&broker, &readiness, metrics.clone(), traffic.clone()));
        let end = told.clone();
        let end = async move { end.begins().await };
        http.spawn(plain::serve(listeners.http, pages, plain::ROOM, end));
        let at = [listeners.broker, listeners.join];
        let grpc = Grpc { at, bounds, traffic, metrics };
        let (health, mut serving) = serve(&broker, &live, grpc, &stop)?;
        let mut chores = JoinSet::new();
        chores.spawn(look_after(broker.clone(), live));
        chores.spawn(keeper.run());
        let hub = broker.hub.clone();
        chores.spawn(async move { hub.run().await });
        let mut deciding = tokio::spawn(deciding.run());
        let ended = tokio::select! {
            never = says_ready(&broker, &readiness, [&at_broker, &at_join, &at_http]) => never,
            () = shutdown.begins() => Ok(()),
            ended = &mut deciding => Err(why_ended(ended)),
            () = failed(&mut chores) => {
                let what = "a task that heartbeats, keys or snapshots rest on has failed";
                Err(JournalError::Unavailable(what.into()))
            }
        };
        readiness.set(false);
        if let Err(error) = &ended {
            tracing::error!(%error, "this broker has stopped deciding, for good");
            readiness.never(error.in_short());
        }
        health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        shutdown.begin();
        stop.cancel();
        let drained = async {
            while serving.join_next().await.is_some() {}
            if ended.is_ok() {
                while http.join_next().await.is_some() {}
            }
        };
        tokio::select! {
            () = drained => {}
            () = shutdown.cuts(DRAIN) => tracing::warn!("what still ran was cut"),
        }
        drop((serving, chores, broker));
        // Were this process to end, the next one would know nothing of the log that it followed.
        told.begins().await;
        tracing::info!("stopped");
        ended.map_err(ServeError::from)
    }
}

/// What the trust root says, and the keys of this broker that sign the feed by it.
fn trusted(config: &Config, clock: &dyn Clock) -> Result<(Trust, FeedKeys), FoundError> {
    let held = feed_keys(&config.keys(), |_| false)?;
    let (signed, statement) = read_statement(&config.dir)?;
    let keys = FeedKeys::new(held, &statement, clock.now())?;
    let NumberedKey { id: key, not_after: until, signing: _ } = &*keys.present();
    tracing::info!(%key, %until, "this key signs the feed");
    Ok((Trust::new(signed, statement, clock.uptime()), keys))
}

/// Says that calls are taken, once the journal has confirmed its head to this process; no gateway
/// could be kept fresh before. Never ends.
async fn says_ready<T>(broker: &Broker, readiness: &Readiness, at: [&str; 3]) -> T {
    let mut casts = broker.hub.listen();
    broker.hub.want_beat();
    // Who missed some of them waits for the next.
    while !matches!(casts.recv().await.as_deref(), Ok(Cast::Beat { .. })) {}
    readiness.set(true);
    let [at_broker, at_join, at_http] = at;
    tracing::info!(id = %broker.id, broker = at_broker, join = at_join, http = at_http, "serving");
    std::future::pending().await
}

/// Why the task that decides has ended, which it does not by itself.
fn why_ended(ended: Result<Result<(), JournalError>, tokio::task::JoinError>) -> JournalError {
    match ended {
        Ok(Err(error)) => error,
        Ok(Ok(())) | Err(_) => JournalError::Unavailable("the task that decides has ended".into()),
    }
}

/// Waits until one of these tasks fails. That one ends is no failure.
async fn failed(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if ended.is_err() {
            return;
        }
    }
    std::future::pending().await
}

/// Where a listener listens, as it is told.
fn address(listener: &TcpListener) -> String {
    listener.local_addr().map(|address| address.to_string()).unwrap_or_default()
}

fn page(
    broker: &Arc<Broker>,
    readiness: &Readiness,
    metrics: Metrics,
    traffic: [(&'static str, Traffic); 2],
) -> Page {
    let broker = broker.clone();
    let gauges = Arc::new(move || {
        let (state, now) = (broker.sequencer.state(), broker.clock.now());
        let tally = state.tally_all(now);
        let standings = standings(&broker);
        let count = |holds: fn(&&Standing) -> bool| {
            u64::try_from(standings.iter().filter(holds).count()).unwrap_or(u64::MAX)
        };
        Gauges {
            head_seq: state.head.seq.0,
            live_grants: tally.live.into(),
            pending_requests: tally.pending.into(),
            heartbeat_age: now.since(broker.hub.confirmed_at()),
            token_key_ends: broker.signing_key(&state).map_or(0, |(_, end)| end.as_secs()),
            feed_key_ends: broker.hub.feed_key().map_or(0, |(_, end)| end.as_secs()),
            instances: count(|instance| instance.connected),
            stale_instances: count(|instance| instance.connected && instance.refuses_in.is_none()),
            unbounded_instances: count(|instance| instance.best_effort),
            locked_ids: broker.authority.locked_ids(),
            connections: traffic.each_ref().map(counted).into(),
        }
    });
    Page { readiness: readiness.clone(), metrics, gauges }
}

fn counted((listener, traffic): &(&'static str, Traffic)) -> (&'static str, u64, u64) {
    (listener, u64::try_from(traffic.open()).unwrap_or(u64::MAX), traffic.refused())
}

/// Keeps the broker's own certificate fresh, takes up new keys, and follows what other processes
/// lock or unlock.
async fn look_after(broker: Arc<Broker>, live: Live) {
    let mut left = Vec::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let now = broker.clock.now();
        let identity = live.get();
        let peer = identity.as_peer();
        let half = peer.until.since(peer.from).checked_div(2).unwrap_or_default();
        if now >= peer.from.plus(half) {
            match broker.authority.for_broker(&broker.id, now) {
                Ok(identity) => live.set(identity),
                Err(error) => tracing::error!(%error, "cannot renew the broker's certificate"),
            }
        }
        let before = std::mem::replace(&mut left, broker.take_up_keys().await);
        // Said once, and not at every look for as long as it lies there.
        for error in left.iter().filter(|error| !before.contains(error)) {
            tracing::warn!(error, "what came to the broker's directory is not taken up");
        }
        if let Err(error) = broker.authority.refresh().await {
            tracing::warn!(%error, "cannot read which IDs are locked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_noticed_and_one_that_ends_is_not() {
        let mut tasks = JoinSet::new();
        tasks.spawn(async {});
        let (fail, told) = tokio::sync::oneshot::channel::<()>();
        tasks.spawn(async move { told.await.unwrap() });
        let mut failed = Box::pin(failed(&mut tasks));
        for _ in 0..10 {
            assert!(futures_util::poll!(&mut failed).is_pending());
            tokio::task::yield_now().await;
        }
        drop(fail);
        tokio::time::timeout(Duration::from_secs(30), failed).await.unwrap();
    }
}
