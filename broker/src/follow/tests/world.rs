//! A journal, a hub that tells its feed over TCP, and gateways that follow.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dayfly_proto::v1::follow_request::Message as Up;
use dayfly_proto::v1::gateway_service_server::{GatewayService, GatewayServiceServer};
use dayfly_proto::v1::{self, FollowRequest, FollowResponse};
use dayfly_verifier::feed::client::{self, Config};
use dayfly_verifier::feed::{Enforcer, Profile, Source};
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::{BundleDigest, Epoch, FeedId, KeyId, Seq};
use dayfly_verifier::time::{Clock, SystemClock, Timestamp};
use dayfly_verifier::trust::{ListedKey, Signed, Statement};
use ed25519_dalek::SigningKey;
use futures_util::stream::{BoxStream, pending};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::api::gateway::parse;
use crate::core::directory::Directory;
use crate::core::event::{Actor, Entry, Event, Head, Target};
use crate::core::limits::Limits;
use crate::follow::feed::Hub;
use crate::follow::keys::FeedKeys;
use crate::follow::stream::{self, Asked};
use crate::follow::trust::Trust;
use crate::journal::{Faulty, Journal as _, Memory, chain};
use crate::keys::NumberedKey;
use crate::sequencer::Sequencer;
use crate::shutdown::Shutdown;

/// The real clock, which a test moves forward.
#[derive(Default)]
pub(super) struct Moved(AtomicU64);

impl Moved {
    pub(super) fn forward(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    fn by(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

impl Clock for Moved {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus(self.by())
    }

    fn uptime(&self) -> Duration {
        SystemClock.uptime().saturating_add(self.by())
    }
}

pub(super) struct World {
    pub(super) journal: Faulty<Memory>,
    pub(super) clock: Arc<Moved>,
    pub(super) hub: Arc<Hub>,
    pub(super) address: SocketAddr,
    /// Whether it hears no challenge from now on, in new streams.
    pub(super) deaf: Arc<AtomicBool>,
    /// Whether it tells the trust statement to nobody, and keeps them waiting.
    pub(super) mute: Arc<AtomicBool>,
    /// How long it takes to tell the trust statement, in milliseconds.
    pub(super) slow_ms: Arc<AtomicU64>,
    head: Head,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks_end();
    }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn root() -> HolderKey {
    HolderKey::from_slice(key(1).verifying_key().as_bytes()).unwrap()
}

/// The feed key of this number.
pub(super) fn feed_key(number: u8) -> NumberedKey {
    let signing = key(number.saturating_add(1));
    NumberedKey { id: KeyId(number.into()), not_after: end(), signing }
}

/// When all keys end.
pub(super) fn end() -> Timestamp {
    Timestamp::from_ms(4_000_000_000_000).unwrap()
}

/// What the trust root says in `version`: these token keys, and the feed key.
pub(super) fn statement(version: u64, keys: &[u8]) -> (Signed, Statement) {
    statement_of(version, keys, &[1])
}

/// The same, with these feed keys.
pub(super) fn statement_of(version: u64, keys: &[u8], feed: &[u8]) -> (Signed, Statement) {
    let not_after = end();
    let listed = |seed| {
        let public = HolderKey::from_slice(key(seed).verifying_key().as_bytes()).unwrap();
        ListedKey { public, not_after }
    };
    let token_keys =
        keys.iter().map(|n| (KeyId((*n).into()), listed(n.saturating_add(100)))).collect();
    let feed_keys =
        feed.iter().map(|n| (KeyId((*n).into()), listed(n.saturating_add(1)))).collect();
    let statement = Statement { version, feed: FEED, epoch: EPOCH, token_keys, feed_keys };
    (statement.sign(&key(1)).unwrap(), statement)
}

const EPOCH: Epoch = Epoch::new([7; 16]);
const FEED: FeedId = FeedId::new([8; 16]);

impl World {
    pub(super) async fn new() -> Self {
        let clock = Arc::new(Moved::default());
        let journal = Faulty::new(Memory::default());
        let at = clock.now();
        let mut founded = Founded { journal: journal.clone(), head: Head::ORIGIN, at };
        let (founders, signers) = (BTreeSet::new(), BTreeSet::new());
        let (bundle, directory) = (BundleDigest::new([1; 32]), Directory::default());
        founded
            .record(Event::EpochOpened { epoch: EPOCH, parent: None, founders, format: 1 })
            .await;
        founded.record(Event::BundleApplied { bundle, directory, signers }).await;
        Self::over(journal, founded.head, clock).await
    }

    /// A broker that was restored from a copy of this one's log, as it is now.
    pub(super) async fn restored(&self) -> Self {
        let copy = Memory::default();
        let log = self.journal.read(&Head::ORIGIN, 10_000).await.unwrap();
        let log: Vec<_> = log.into_iter().map(|entry| (*entry).clone()).collect();
        copy.append(&Head::ORIGIN, &log).await.unwrap();
        Self::over(Faulty::new(copy), self.head, self.clock.clone()).await
    }

    /// Another broker over the same log.
    pub(super) async fn beside(&self) -> Self {
        Self::over(self.journal.clone(), self.head, self.clock.clone()).await
    }

    /// A broker over a log that ends at `head`.
    async fn over(journal: Faulty<Memory>, head: Head, clock: Arc<Moved>) -> Self {
        let (signed, statement) = statement(1, &[1]);
        let feed_keys = FeedKeys::new([feed_key(1)], &statement, clock.now()).unwrap();
        let trust = Trust::new(signed, statement, clock.uptime());
        let (sequencer, deciding) =
            Sequencer::start(Arc::new(journal.clone()), clock.clone(), Limits::default())
                .await
                .unwrap();
        let hub = Hub::new(trust, feed_keys, sequencer, Arc::new(journal.clone()), clock.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let deaf = Arc::new(AtomicBool::new(false));
        let mute = Arc::new(AtomicBool::new(false));
        let slow_ms = Arc::new(AtomicU64::new(0));
        let (hub_of, slow) = (hub.clone(), slow_ms.clone());
        let service = Plain { hub: hub_of, deaf: deaf.clone(), mute: mute.clone(), slow_ms: slow };
        let running = hub.clone();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let serving = Server::builder().add_service(GatewayServiceServer::new(service));
        let tasks = vec![
            tokio::spawn(async move { drop(deciding.run().await) }),
            tokio::spawn(async move { running.run().await }),
            tokio::spawn(async move { drop(serving.serve_with_incoming(incoming).await) }),
        ];
        Self { journal, clock, hub, address, deaf, mute, slow_ms, head, tasks }
    }

    /// Revokes something in the journal, as another broker would: the place of the entry.
    pub(super) async fn revoke(&mut self, n: u64) -> Seq {
        let target = Target::Task(format!("task-{n}").parse().unwrap());
        let at = self.clock.now();
        let mut founded = Founded { journal: self.journal.clone(), head: self.head, at };
        founded.record(Event::Revoked { target, reason: None }).await;
        self.head = founded.head;
        self.head.seq
    }

    /// Ends this broker; its log stays.
    pub(super) fn tasks_end(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }

    /// A gateway instance that follows through `address`, with a bound of a second.
    pub(super) fn gateway(&self, name: &str, address: SocketAddr) -> Gateway {
        self.gateway_of(name, &[address], None)
    }

    /// The same, with several brokers, and a directory for its mark.
    pub(super) fn gateway_of(
        &self,
        name: &str,
        brokers: &[SocketAddr],
        dir: Option<&Path>,
    ) -> Gateway {
        let second = Duration::from_secs(1);
        let config = Config {
            profile: Profile::new(root(), second, Source::Direct).unwrap(),
            instance: name.parse().unwrap(),
            dir: dir.map(Path::to_owned),
            brokers: brokers.iter().copied().map(channel).collect(),
        };
        let (enforcer, client) = client::follow(config, self.clock.clone()).unwrap();
        let task = tokio::spawn(client.run());
        Gateway { enforcer, clock: self.clock.clone(), task }
    }
}

struct Founded {
    journal: Faulty<Memory>,
    head: Head,
    at: Timestamp,
}

impl Founded {
    async fn record(&mut self, event: Event) {
        let entry = Entry { by: Actor::Host, at: self.at, policy: None, event };
        let stored = chain(&self.head, &[entry]).unwrap();
        self.head = *self.journal.append(&self.head, &stored).await.unwrap();
    }
}

fn channel(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

/// A gateway instance.
pub(super) struct Gateway {
    pub(super) enforcer: Arc<Enforcer>,
    clock: Arc<Moved>,
    task: JoinHandle<()>,
}

impl Gateway {
    pub(super) fn is_fresh(&self) -> bool {
        self.enforcer.view().is_some_and(|view| view.is_fresh(self.clock.uptime()))
    }

    /// Whether it has heard of the place.
    pub(super) fn has(&self, seq: Seq) -> bool {
        self.enforcer.view().is_some_and(|view| view.seq() >= seq)
    }

    pub(super) fn knows(&self) -> usize {
        self.enforcer.view().map_or(0, |view| view.revocations().len())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits, for as long as a loaded machine may need, until something is so.
pub(super) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} within half a minute");
}

/// The service without the TLS in front of it.
struct Plain {
    hub: Arc<Hub>,
    deaf: Arc<AtomicBool>,
    mute: Arc<AtomicBool>,
    slow_ms: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl GatewayService for Plain {
    type FollowStream = BoxStream<'static, Result<FollowResponse, Status>>;

    async fn follow(
        &self,
        request: Request<Streaming<FollowRequest>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.unwrap();
        let Some(Up::Subscribe(subscribe)) = first.message else { panic!() };
        let gateway = "spiffe://t.test/gateway/orders".parse().unwrap();
        let (terms, asked) = parse(gateway, subscribe).unwrap();
        let (hub, shutdown) = (self.hub.clone(), Shutdown::new());
        if self.deaf.load(Ordering::SeqCst) {
            let asked = Asked { challenge: bytes::Bytes::new(), ..asked };
            let stream = stream::follow(hub, shutdown, terms, asked, pending()).await?;
            return Ok(Response::new(stream));
        }
        Ok(Response::new(stream::follow(hub, shutdown, terms, asked, requests).await?))
    }

    async fn get_trust(
        &self,
        _: Request<v1::GetTrustRequest>,
    ) -> Result<Response<v1::GetTrustResponse>, Status> {
        if self.mute.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(self.slow_ms.load(Ordering::SeqCst))).await;
        let Signed { statement, signature } = self.hub.trust().signed().clone();
        let signature = signature.to_vec().into();
        Ok(Response::new(v1::GetTrustResponse { statement: statement.into(), signature }))
    }

    async fn redeem(
        &self,
        _: Request<v1::RedeemRequest>,
    ) -> Result<Response<v1::RedeemResponse>, Status> {
        Err(Status::unimplemented("no part of this world"))
    }
    async fn reevaluate(
        &self,
        _: Request<v1::ReevaluateRequest>,
    ) -> Result<Response<v1::ReevaluateResponse>, Status> {
        Err(Status::unimplemented("no part of this world"))
    }
    async fn report_use(
        &self,
        _: Request<v1::ReportUseRequest>,
    ) -> Result<Response<v1::ReportUseResponse>, Status> {
        Err(Status::unimplemented("no part of this world"))
    }
}
