//! The services in one process: a founded broker, its real journal, handlers called with the peer
//! that a listener would have authenticated.

mod access;
mod gateway;
mod identity;
mod keys;
mod limits;
mod operator;
mod parse;
mod query;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dayfly_agent::svid::Peer;
use dayfly_proto::v1;
use dayfly_proto::v1::access_service_server::AccessService as _;
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::{ExchangeId, RequestId};
use dayfly_verifier::proof::{HolderCall, HolderProof};
use dayfly_verifier::scope::Scope;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::{Clock, Timestamp};
use ed25519_dalek::SigningKey;
use prost::Message as _;
use sha2::Digest as _;
use tempfile::TempDir;
use tonic::{Request, Response, Status};
use tonic_types::StatusExt as _;

use super::access::Access;
use super::operator::Operator;
use super::{Broker, render};
use crate::config::Config;
use crate::found::{CONFIG, Founding};
use crate::policy::files::BundleFiles;
use crate::random::SystemRandom;
use crate::serve::{Host, Opened};
use crate::shutdown::Shutdown;

const START_MS: u64 = 1_800_000_000_000;

/// A clock that is moved by hand, and how far ahead of the time that has passed it was set.
struct ByHand(AtomicU64, AtomicU64);

impl Clock for ByHand {
    fn now(&self) -> Timestamp {
        let set = Duration::from_millis(self.1.load(Ordering::SeqCst));
        Timestamp::from_ms(self.0.load(Ordering::SeqCst)).unwrap().plus(set)
    }

    fn uptime(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// A broker of the shop, without its ports.
struct World {
    broker: Arc<Broker>,
    clock: Arc<ByHand>,
    dir: TempDir,
}

/// A process of a workload: its SPIFFE ID and its holder key.
#[derive(Clone)]
struct Agent {
    id: SpiffeId,
    key: SigningKey,
}

fn shop() -> BundleFiles {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/shop");
    BundleFiles::read(&dir).unwrap()
}

/// The reason of a refusal.
fn reason(status: &Status) -> String {
    let info = status.get_error_details().error_info().cloned();
    info.unwrap_or_else(|| panic!("no reason: {status:?}")).reason
}

fn refused<T>(answer: Result<Response<T>, Status>) -> String {
    match answer {
        Ok(_) => panic!("it was not refused"),
        Err(status) => reason(&status),
    }
}

/// A process of the broker in `home`.
async fn open(home: &Path, clock: Arc<ByHand>) -> Arc<Broker> {
    let config = Config::load(&home.join(CONFIG), |_| None).unwrap();
    let host = Host { clock, random: Arc::new(SystemRandom) };
    let opened = Opened::open(&config, &host, Shutdown::new()).await.unwrap();
    let (broker, deciding) = opened.into_parts();
    tokio::spawn(deciding.run());
    Arc::new(broker)
}

impl World {
    async fn new() -> Self {
        let clock = Arc::new(ByHand(AtomicU64::new(START_MS), AtomicU64::new(0)));
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("broker");
        let founding =
            Founding { dir: home.clone(), trust_domain: "shop.test".into(), bundle: shop() };
        founding.run(&*clock, &SystemRandom).await.unwrap();
        let broker = open(&home, clock.clone()).await;
        Self { broker, clock, dir }
    }

    /// Another process of the same broker, beside this one.
    async fn beside(&self) -> Arc<Broker> {
        open(&self.dir.path().join("broker"), self.clock.clone()).await
    }

    /// The same, of a broker that has a peer.
    async fn with_a_peer(&self) -> Arc<Broker> {
        let config = self.dir.path().join("broker").join(CONFIG);
        let mut text = std::fs::read_to_string(&config).unwrap();
        text.push_str("\n[[peer]]\nname = \"b\"\naddress = \"127.0.0.1:7543\"\n");
        std::fs::write(&config, text).unwrap();
        self.beside().await
    }

    fn access(&self) -> Access {
        Access(self.broker.clone())
    }

    fn operator(&self) -> Operator {
        Operator(self.broker.clone())
    }

    fn forward(&self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    /// `message` as the listener hands it on from `id`.
    fn from<T>(&self, id: &SpiffeId, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let now = self.clock.now();
        request.extensions_mut().insert(Peer {
            id: id.clone(),
            key: None,
            key_digest: [0; 32],
            generation: 1,
            from: now,
            until: now.plus(Duration::from_secs(3600)),
        });
        request
    }

    fn by<T>(&self, person: &str, message: T) -> Request<T> {
        self.from(&format!("spiffe://shop.test/person/{person}").parse().unwrap(), message)
    }

    fn agent(&self, name: &str, key: u8) -> Agent {
        let id = format!("spiffe://shop.test/{name}").parse().unwrap();
        Agent { id, key: SigningKey::from_bytes(&[key; 32]) }
    }

    /// A request for a small refund, as `agent` files it.
    fn filing(&self, agent: &Agent, n: u8, right: &str) -> v1::RequestAccessRequest {
        let scope =
            Scope::new([right.parse().unwrap()], ["amount <= 5000".parse().unwrap()]).unwrap();
        v1::RequestAccessRequest {
            request_id: RequestId::draw(self.clock.now(), [n; 10]).to_string(),
            principal: String::new(),
            holder_key: agent.key.verifying_key().to_bytes().to_vec().into(),
            confirm_by_identity: false,
            audience: "spiffe://shop.test/gateway/orders".into(),
            scope: Some(render::scope(&scope)),
            task: "task-1".into(),
            purpose: "customer-support".into(),
            justification: "the parcel was lost".into(),
            lifetime_seconds: 0,
            uses: 0,
            proof: None,
        }
    }

    /// The filing with its proof, by `agent`.
    fn proven(&self, agent: &Agent, filing: v1::RequestAccessRequest) -> v1::RequestAccessRequest {
        let digest = sha2::Sha256::digest(filing.encode_to_vec()).into();
        let proof = filing
            .request_id
            .parse()
            .ok()
            .map(|request| self.proof(agent, "RequestAccess", &request, Some(&digest)));
        v1::RequestAccessRequest { proof, ..filing }
    }

    fn proof(
        &self,
        agent: &Agent,
        method: &str,
        request: &RequestId,
        filing: Option<&[u8; 32]>,
    ) -> v1::HolderProof {
        let method = format!("dayfly.v1.AccessService/{method}");
        let call = HolderCall { method: &method, request, caller: &agent.id, filing };
        let at = self.clock.now();
        let HolderProof { at, signature } = HolderProof::make(&agent.key, &call, at);
        v1::HolderProof { at_ms: render::ms(at), signature: signature.to_vec().into() }
    }

    async fn file(
        &self,
        agent: &Agent,
        filing: v1::RequestAccessRequest,
    ) -> Result<v1::AccessRequest, Status> {
        let request = self.from(&agent.id, self.proven(agent, filing));
        let answer = self.access().request_access(request).await?;
        Ok(answer.into_inner().request.unwrap())
    }

    async fn exchange(
        &self,
        agent: &Agent,
        request: &str,
        n: u8,
    ) -> Result<v1::ExchangeResponse, Status> {
        let id = request.parse().unwrap();
        let message = v1::ExchangeRequest {
            request_id: request.into(),
            exchange_id: ExchangeId::draw(self.clock.now(), [n; 10]).to_string(),
            proof: Some(self.proof(agent, "Exchange", &id, None)),
        };
        let answer = self.access().exchange(self.from(&agent.id, message)).await?;
        Ok(answer.into_inner())
    }

    async fn cancel(&self, agent: &Agent, request: &str) -> Result<v1::CancelResponse, Status> {
        let proof = Some(self.proof(agent, "Cancel", &request.parse().unwrap(), None));
        let message = v1::CancelRequest { request_id: request.into(), proof };
        let answer = self.access().cancel(self.from(&agent.id, message)).await?;
        Ok(answer.into_inner())
    }

    /// How many free texts are kept.
    fn texts(&self) -> u32 {
        let path = self.dir.path().join("broker/journal.db");
        let store = rusqlite::Connection::open(path).unwrap();
        store.query_row("SELECT count(*) FROM text", [], |row| row.get(0)).unwrap()
    }
}

/// The public half of the key of `agent`.
fn public(agent: &Agent) -> HolderKey {
    HolderKey::from_slice(agent.key.verifying_key().as_bytes()).unwrap()
}
