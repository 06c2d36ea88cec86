//! A durable exchange over mutual TLS, against the least that it could cost: the same call, over
//! the same listener, with one durable grouped append, one signature and one key derivation.
//!
//! And the same, and deciding it, while up to a million grants of others are live; and to start
//! with them.
//!
//! `cargo bench -p dayfly-tests --bench exchange`, with a number of calls behind `--` if not 4096,
//! and the most live grants if not a million.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dayfly_agent::client::Client;
use dayfly_agent::join;
use dayfly_agent::listen::{self, Terms};
use dayfly_agent::session::Session;
use dayfly_agent::ticket::{Ask, Ticket};
use dayfly_agent::tls::{Admission, Live};
use dayfly_broker::authority::Authority;
use dayfly_broker::config::Config;
use dayfly_broker::core::event::{Entry, Event, Head};
use dayfly_broker::core::state::State;
use dayfly_broker::found::{self, Founding};
use dayfly_broker::journal::{Journal as _, Replay, Sqlite};
use dayfly_broker::policy::files::BundleFiles;
use dayfly_broker::random::SystemRandom;
use dayfly_broker::serve::{Host, Listeners, Opened, ServeError};
use dayfly_broker::shutdown::Shutdown;
use dayfly_proto::v1;
use dayfly_proto::v1::access_service_client::AccessServiceClient;
use dayfly_proto::v1::access_service_server::AccessServiceServer;
use dayfly_tests::sizes::sizes;
use dayfly_verifier::id::{ExchangeId, KeyId};
use dayfly_verifier::proof::{HolderCall, HolderProof};
use dayfly_verifier::request::ConfirmBy;
use dayfly_verifier::scope::{Right, Scope};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::{Clock, SystemClock};
use dayfly_verifier::wire::LocalSigner;
use tokio::time::Instant;
use tonic::service::Routes;
use tonic::transport::Channel;

mod appends;
mod bare;
mod restart;
mod sizes;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How many calls are under way at once in the busy run.
const AT_ONCE: usize = 64;
/// How many requests each workload files: fewer than a broker remembers of one.
const EACH: usize = 1_000;
const DOMAIN: &str = "example.test";

fn main() -> Outcome<()> {
    let [calls, live] = sizes([4096, 1_000_000], [8, 1_000]);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let live = u32::try_from(live)?;
    runtime.block_on(async {
        match restart::child().await {
            Some(measured) => measured,
            None => measure(calls, live).await,
        }
    })
}

async fn measure(calls: usize, live: u32) -> Outcome<()> {
    let dir = std::env::temp_dir().join(format!("dayfly-bench-{}", std::process::id()));
    let measured = in_dir(&dir, calls, live).await;
    std::fs::remove_dir_all(&dir)?;
    measured
}

async fn in_dir(dir: &Path, calls: usize, live: u32) -> Outcome<()> {
    std::fs::create_dir(dir)?;
    println!("sqlite {}", Sqlite::SETTINGS);
    let filed = calls.saturating_mul(2);
    let agents = filed.div_ceil(EACH);
    println!("tls 1.3, {calls} calls, {AT_ONCE} at once over {agents} connections");
    let world = World::open(dir, World::found(dir).await?, agents).await?;
    let tickets = world.granted(filed).await?;
    let (alone, busy) = tickets.split_at(calls);

    let sessions = world.sessions().await?;
    let real_alone = run(&sessions, world.calls(alone)?, 1).await?;
    let real_busy = run(&sessions, world.calls(busy)?, AT_ONCE).await?;

    let (sessions, appends) = world.bare().await?;
    let bare_alone = run(&sessions, world.calls(alone)?, 1).await?;
    let before = appends.count();
    let bare_busy = run(&sessions, world.calls(busy)?, AT_ONCE).await?;
    let commits = appends.count().saturating_sub(before);
    println!("one fsync an append: {commits} appends for {calls} bare calls at once");

    figure("exchange_alone_p50", real_alone.p50(), "us", bare_alone.p50() / real_alone.p50());
    figure("exchange_alone_p99", real_alone.p99(), "us", bare_alone.p99() / real_alone.p99());
    figure("exchange_busy_p50", real_busy.p50(), "us", bare_busy.p50() / real_busy.p50());
    figure("exchange_busy_p99", real_busy.p99(), "us", bare_busy.p99() / real_busy.p99());
    figure("bare_busy", bare_busy.rate(), "calls/s", 1.0);
    figure("exchange_busy", real_busy.rate(), "calls/s", real_busy.rate() / bare_busy.rate());
    world.close().await?;
    sizes::measure(dir, live, u32::try_from(calls)?).await
}

/// One line a figure. The ratio says how near it comes to the bare one: 1 is as good.
fn figure(name: &str, value: f64, unit: &str, ratio: f64) {
    println!("figure {name} {value:.1} {unit} ratio {ratio:.2}");
}

/// A workload, and where its identity is.
struct Agent {
    id: SpiffeId,
    identity: PathBuf,
}

/// A request that was granted, and the place of the workload that filed it.
type Filed = (usize, Ticket);

/// A broker on loopback, and workloads that it knows.
struct World {
    dir: PathBuf,
    config: Config,
    agents: Vec<Agent>,
    stop: Shutdown,
    serving: tokio::task::JoinHandle<Result<(), ServeError>>,
}

impl World {
    /// A broker that has not run yet, in `dir`.
    async fn found(dir: &Path) -> Outcome<Config> {
        let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/minimal");
        let home = dir.join("broker");
        let founding = Founding {
            dir: home.clone(),
            trust_domain: DOMAIN.into(),
            bundle: BundleFiles::read(&bundle).map_err(|problems| format!("{problems:?}"))?,
        };
        founding.run(&SystemClock, &SystemRandom).await?;
        let mut config = Config::load(&home.join(found::CONFIG), |_| None)?;
        let any = "127.0.0.1:0".parse()?;
        (config.listen.broker, config.listen.join, config.listen.http) = (any, any, any);
        (config.limits.live_grants, config.limits.pending_requests) = (u32::MAX, u32::MAX);
        Ok(config)
    }

    /// Runs it, and has so many workloads join.
    async fn open(dir: &Path, config: Config, agents: usize) -> Outcome<Self> {
        let stop = Shutdown::new();
        let host = Host { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) };
        let opened = Opened::open(&config, &host, stop.clone()).await?;
        let listeners = Listeners::bind(&config).await?;
        let door = listeners.join.local_addr()?.to_string();
        let serving = tokio::spawn(opened.run(listeners));

        let authority = authority(&config).await?;
        let mut world = Self { dir: dir.into(), config, agents: Vec::new(), stop, serving };
        for n in 0..agents {
            let id: SpiffeId = format!("spiffe://{DOMAIN}/agent/bench-{n}").parse()?;
            let identity = dir.join(format!("identity-{n}"));
            let string = authority.invite(&id, SystemClock.now()).await?.0;
            join::join(&string, &door, &identity, Arc::new(SystemClock)).await?;
            world.agents.push(Agent { id, identity });
        }
        Ok(world)
    }

    /// Ends the broker, and gives its memory back.
    async fn close(self) -> Outcome<()> {
        self.stop.begin();
        self.stop.cut();
        Ok(self.serving.await??)
    }

    /// A connection of each workload.
    async fn sessions(&self) -> Outcome<Vec<Arc<Session>>> {
        let identities = self.agents.iter().map(|agent| agent.identity.as_path());
        sessions(identities).await
    }

    /// Requests that were granted at once, the workloads in turn.
    async fn granted(&self, count: usize) -> Outcome<Vec<Filed>> {
        let ask = Ask {
            audience: format!("spiffe://{DOMAIN}/gateway/files").parse()?,
            scope: scope()?,
            task: "bench".parse()?,
            purpose: "work".parse()?,
            justification: String::new(),
            lifetime: Some(Duration::from_secs(600)),
            uses: None,
            principal: None,
            confirmation: ConfirmBy::Key,
        };
        let clients: Vec<_> = self.sessions().await?.into_iter().map(Client::new).collect();
        let mut turns = (0..clients.len()).cycle().take(count);
        let mut filing = tokio::task::JoinSet::<Outcome<Filed>>::new();
        let mut filed = Vec::with_capacity(count);
        while filed.len() < count {
            while filing.len() < AT_ONCE
                && let Some(agent) = turns.next()
                && let Some(client) = clients.get(agent).cloned()
            {
                let ask = ask.clone();
                filing.spawn(async move { Ok((agent, client.request(ask).await?.0)) });
            }
            let Some(one) = filing.join_next().await else { break };
            filed.push(one??);
        }
        Ok(filed)
    }

    /// The calls that exchange these tickets, with their proofs, ready to be sent.
    fn calls(&self, filed: &[Filed]) -> Outcome<Vec<Call>> {
        let method = "dayfly.v1.AccessService/Exchange";
        let call = |(agent, ticket): &Filed| {
            let (request, now) = (ticket.id(), SystemClock.now());
            let caller = &self.agents.get(*agent).ok_or("no such workload")?.id;
            let call = HolderCall { method, request, caller, filing: None };
            let proof = HolderProof::make(ticket.key(), &call, now);
            let mut random = [0; 10];
            random
                .iter_mut()
                .zip(request.as_bytes().iter().rev())
                .for_each(|(to, from)| *to = *from);
            let call = v1::ExchangeRequest {
                request_id: request.to_string(),
                exchange_id: ExchangeId::draw(now, random).to_string(),
                proof: Some(v1::HolderProof {
                    at_ms: i64::try_from(proof.at.as_ms())?,
                    signature: proof.signature.to_vec().into(),
                }),
            };
            Ok((*agent, call))
        };
        filed.iter().map(call).collect()
    }

    /// The bare service behind the same kind of listener, on a journal of its own, with entries
    /// as the real one wrote them; and the way to it.
    async fn bare(&self) -> Outcome<(Vec<Arc<Session>>, appends::Appends)> {
        let entry = self.recorded().await?;
        let store = Sqlite::create(&self.dir.join("bare.db"))?;
        let (appends, committing) = appends::Appends::start(store, entry);
        tokio::spawn(committing);
        let signer = LocalSigner::new(KeyId(1), &[7; 32], [8; 32].into());
        let service = bare::Bare { appends: appends.clone(), signer: Arc::new(signer) };

        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let identity = authority(&self.config).await?.for_broker(&self.config.id, clock.now())?;
        let live = Live::new(identity, clock.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let routes = Routes::new(AccessServiceServer::new(service)).prepare();
        let terms = Terms::mutual(&live, &["h2"], Admission::everybody())?;
        tokio::spawn(listen::serve(listener, terms, routes, std::future::pending()));

        let brokers = format!("brokers = [\"{}\"]\naddresses = [\"{address}\"]\n", self.config.id);
        let mut identities = Vec::new();
        for Agent { identity: from, .. } in &self.agents {
            let identity = from.with_extension("bare");
            dayfly_agent::files::private_dir(&identity)?;
            for file in std::fs::read_dir(from)? {
                let file = file?;
                std::fs::copy(file.path(), identity.join(file.file_name()))?;
            }
            std::fs::write(identity.join("identity.toml"), &brokers)?;
            identities.push(identity);
        }
        Ok((sessions(identities.iter().map(PathBuf::as_path)).await?, appends))
    }

    /// The last token that the real broker recorded.
    async fn recorded(&self) -> Outcome<Entry> {
        let store = Sqlite::open(&self.config.journal())?;
        let (mut replay, mut last) = (Replay::from(State::default()), None);
        for stored in store.read(&Head::ORIGIN, usize::MAX).await? {
            let entry = replay.push_stored(&stored)?;
            if matches!(entry.event, Event::TokenRecorded { .. }) {
                last = Some(entry);
            }
        }
        last.ok_or_else(|| "the broker recorded no token".into())
    }
}

/// What is asked for.
fn scope() -> Outcome<Scope> {
    let right = Right { operation: "read".parse()?, resource: "files/report".parse()? };
    Ok(Scope::new([right], [])?)
}

/// A connection with each of these identities.
async fn sessions(identities: impl Iterator<Item = &Path>) -> Outcome<Vec<Arc<Session>>> {
    let mut sessions = Vec::new();
    for identity in identities {
        sessions.push(Session::open(identity, Arc::new(SystemClock)).await?);
    }
    Ok(sessions)
}

async fn authority(config: &Config) -> Outcome<Authority> {
    let store = Arc::new(Sqlite::open(&config.journal())?);
    let random = Arc::new(SystemRandom);
    Ok(Authority::open(&config.trust_domain, &config.keys(), store, random).await?)
}

/// What a run took.
struct Took {
    all: Duration,
    /// Of each call, in order of length.
    each: Vec<Duration>,
}

impl Took {
    fn rate(&self) -> f64 {
        self.each.len() as f64 / self.all.as_secs_f64()
    }

    fn p50(&self) -> f64 {
        self.at(self.each.len() / 2)
    }

    fn p99(&self) -> f64 {
        self.at(self.each.len().saturating_mul(99) / 100)
    }

    fn at(&self, place: usize) -> f64 {
        self.each.get(place).map_or(f64::NAN, |took| took.as_secs_f64() * 1e6)
    }
}

/// A call, and the place of the connection that it goes over.
type Call = (usize, v1::ExchangeRequest);

/// Makes the calls, `at_once` under way at any time. Any refusal ends the bench.
async fn run(sessions: &[Arc<Session>], calls: Vec<Call>, at_once: usize) -> Outcome<Took> {
    let queue = Arc::new(std::sync::Mutex::new(calls.into_iter()));
    let clients: Vec<_> =
        sessions.iter().map(|session| AccessServiceClient::new(session.channel())).collect();
    let mut callers = tokio::task::JoinSet::new();
    let started = Instant::now();
    for _ in 0..at_once {
        callers.spawn(call_all(clients.clone(), queue.clone()));
    }
    let mut each = Vec::new();
    while let Some(caller) = callers.join_next().await {
        each.extend(caller??);
    }
    let all = started.elapsed();
    each.sort();
    Ok(Took { all, each })
}

async fn call_all(
    mut clients: Vec<AccessServiceClient<Channel>>,
    queue: Arc<std::sync::Mutex<std::vec::IntoIter<Call>>>,
) -> Outcome<Vec<Duration>> {
    let mut each = Vec::new();
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    while let Some((agent, call)) = next() {
        let client = clients.get_mut(agent).ok_or("no such connection")?;
        let started = Instant::now();
        let answer = client.exchange(call).await?.into_inner();
        each.push(started.elapsed());
        if answer.token.is_empty() {
            return Err("an answer without a token".into());
        }
    }
    Ok(each)
}
