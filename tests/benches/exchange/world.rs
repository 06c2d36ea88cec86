//! A broker on loopback, workloads that it knows, and the calls by which they exchange.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dayfly_agent::client::Client;
use dayfly_agent::join;
use dayfly_agent::session::Session;
use dayfly_agent::ticket::{Ask, Ticket};
use dayfly_broker::authority::Authority;
use dayfly_broker::config::Config;
use dayfly_broker::found::{self, Founding};
use dayfly_broker::journal::Sqlite;
use dayfly_broker::policy::files::BundleFiles;
use dayfly_broker::random::SystemRandom;
use dayfly_broker::serve::{Host, Listeners, Opened, ServeError};
use dayfly_broker::shutdown::Shutdown;
use dayfly_proto::v1;
use dayfly_proto::v1::access_service_client::AccessServiceClient;
use dayfly_verifier::id::ExchangeId;
use dayfly_verifier::proof::{HolderCall, HolderProof};
use dayfly_verifier::request::ConfirmBy;
use dayfly_verifier::scope::{Right, Scope};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::{Clock as _, SystemClock};
use tokio::time::Instant;
use tonic::transport::Channel;

pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How many requests are filed at once.
const FILING: usize = 64;
pub(crate) const DOMAIN: &str = "example.test";

/// One line a figure. The ratio says how near it comes to the bare one: 1 is as good.
pub(crate) fn figure(name: &str, value: f64, unit: &str, ratio: f64) {
    println!("figure {name} {value:.1} {unit} ratio {ratio:.2}");
}

/// A workload, and where its identity is.
pub(crate) struct Agent {
    pub(crate) id: SpiffeId,
    pub(crate) identity: PathBuf,
}

/// A request that was granted, and the place of the workload that filed it.
pub(crate) type Filed = (usize, Ticket);

/// A broker on loopback, and workloads that it knows.
pub(crate) struct World {
    pub(crate) agents: Vec<Agent>,
    stop: Shutdown,
    serving: tokio::task::JoinHandle<Result<(), ServeError>>,
}

impl World {
    /// A broker that has not run yet, in `dir`.
    pub(crate) async fn found(dir: &Path) -> Outcome<Config> {
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
    pub(crate) async fn open(dir: &Path, config: Config, agents: usize) -> Outcome<Self> {
        let stop = Shutdown::new();
        let host = Host { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) };
        let opened = Opened::open(&config, &host, stop.clone()).await?;
        let listeners = Listeners::bind(&config).await?;
        let door = listeners.join.local_addr()?.to_string();
        let serving = tokio::spawn(opened.run(listeners));

        let authority = authority(&config).await?;
        let mut world = Self { agents: Vec::new(), stop, serving };
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
    pub(crate) async fn close(self) -> Outcome<()> {
        self.stop.begin();
        self.stop.cut();
        Ok(self.serving.await??)
    }

    /// A connection of each workload.
    pub(crate) async fn sessions(&self) -> Outcome<Vec<Arc<Session>>> {
        let identities = self.agents.iter().map(|agent| agent.identity.as_path());
        sessions(identities).await
    }

    /// Requests that were granted at once, the workloads in turn.
    pub(crate) async fn granted(&self, count: usize) -> Outcome<Vec<Filed>> {
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
            while filing.len() < FILING
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
    pub(crate) fn calls(&self, filed: &[Filed]) -> Outcome<Vec<Call>> {
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
}

/// What is asked for.
pub(crate) fn scope() -> Outcome<Scope> {
    let right = Right { operation: "read".parse()?, resource: "files/report".parse()? };
    Ok(Scope::new([right], [])?)
}

/// A connection with each of these identities.
pub(crate) async fn sessions<'a>(
    identities: impl Iterator<Item = &'a Path>,
) -> Outcome<Vec<Arc<Session>>> {
    let mut sessions = Vec::new();
    for identity in identities {
        sessions.push(Session::open(identity, Arc::new(SystemClock)).await?);
    }
    Ok(sessions)
}

pub(crate) async fn authority(config: &Config) -> Outcome<Authority> {
    let store = Arc::new(Sqlite::open(&config.journal())?);
    let random = Arc::new(SystemRandom);
    Ok(Authority::open(&config.trust_domain, &config.keys(), store, random).await?)
}

/// Of calls that took so long, in order, what `percent` of them took at most, in microseconds.
pub(crate) fn at(each: &[Duration], percent: usize) -> f64 {
    let place = each.len().saturating_mul(percent) / 100;
    each.get(place).map_or(f64::NAN, |took| took.as_secs_f64() * 1e6)
}

/// A call, and the place of the connection that it goes over.
pub(crate) type Call = (usize, v1::ExchangeRequest);

/// Makes the calls, `at_once` under way at any time. What each took, in order of length, and all.
/// Any refusal ends the bench.
pub(crate) async fn run(
    sessions: &[Arc<Session>],
    calls: Vec<Call>,
    at_once: usize,
) -> Outcome<(Vec<Duration>, Duration)> {
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
    Ok((each, all))
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
