//! A use of a counted right, spent durably over mutual TLS, against the least that it could cost:
//! the same call, over the same kind of listener, with one durable grouped append.
//!
//! `cargo bench -p dayfly-tests --bench redeem [-- CALLS]`
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

#[path = "../exchange/appends.rs"]
mod appends;
mod bare;

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use dayfly_agent::client::Client;
use dayfly_agent::listen::{self, Terms};
use dayfly_agent::session::Session;
use dayfly_agent::ticket::Ask;
use dayfly_agent::tls::Admission;
use dayfly_broker::core::event::{Entry, Event, Head};
use dayfly_broker::core::state::State;
use dayfly_broker::journal::{Journal as _, Replay, Sqlite};
use dayfly_broker::random::{Random as _, SystemRandom};
use dayfly_proto::v1::RedeemRequest;
use dayfly_proto::v1::gateway_service_client::GatewayServiceClient;
use dayfly_proto::v1::gateway_service_server::GatewayServiceServer;
use dayfly_tests::running::Running;
use dayfly_tests::sizes::sizes;
use dayfly_verifier::id::{TokenId, UseId};
use dayfly_verifier::scope::Scope;
use dayfly_verifier::time::{Clock as _, SystemClock};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tonic::service::Routes;
use tonic::transport::Channel;

use appends::Appends;

/// How many calls are under way at once in the busy run.
const AT_ONCE: usize = 64;
/// How many connections they go over.
const CONNECTIONS: usize = 4;
/// How many grants the uses are of.
const GRANTS: usize = 8;
const GATEWAY: &str = "gateway/orders-staging";

fn main() -> anyhow::Result<()> {
    let [calls] = sizes([4096], [8]);
    tokio::runtime::Runtime::new()?.block_on(measure(calls))
}

async fn measure(calls: usize) -> anyhow::Result<()> {
    println!("# sqlite {}", Sqlite::SETTINGS);
    println!("# tls 1.3, {calls} calls, {AT_ONCE} at once over {CONNECTIONS} connections");
    println!("# uses of {GRANTS} grants in turn");
    let world = Running::start().await;
    let tokens = tokens(&world, calls.saturating_mul(2)).await?;
    let sessions = sessions(&world.identity(GATEWAY).await).await?;
    let real_alone = run(&sessions, uses(&tokens, calls), 1).await?;
    let real_busy = run(&sessions, uses(&tokens, calls), AT_ONCE).await?;

    let (sessions, appends) = bare(&world).await?;
    let bare_alone = run(&sessions, uses(&tokens, calls), 1).await?;
    let before = appends.count();
    let bare_busy = run(&sessions, uses(&tokens, calls), AT_ONCE).await?;
    let commits = appends.count().saturating_sub(before);
    println!("# one fsync an append: {commits} appends for {calls} bare calls at once");

    for (name, place) in [("p50", 50), ("p99", 99)] {
        let [real, bare] = [&real_alone, &bare_alone].map(|took| took.at(place));
        figure(&format!("redeem_alone_{name}"), real, "us", bare / real);
        let [real, bare] = [&real_busy, &bare_busy].map(|took| took.at(place));
        figure(&format!("redeem_busy_{name}"), real, "us", bare / real);
    }
    figure("redeem_bare_busy", bare_busy.rate(), "calls/s", 1.0);
    figure("redeem_busy", real_busy.rate(), "calls/s", real_busy.rate() / bare_busy.rate());
    Ok(())
}

/// One line a figure. The ratio says how near it comes to the bare one: 1 is as good.
fn figure(name: &str, value: f64, unit: &str, ratio: f64) {
    println!("figure {name} {value:.1} {unit} ratio {ratio:.2}");
}

/// Tokens of counted rights that have `uses` uses together, and more.
async fn tokens(world: &Running, uses: usize) -> anyhow::Result<Vec<TokenId>> {
    let client = Client::new(world.session("agent/bench").await);
    let each = u32::try_from(uses.div_ceil(GRANTS))?.saturating_add(1);
    let mut tokens = Vec::with_capacity(GRANTS);
    for n in 0..GRANTS {
        let scope = Scope::new(["refund orders/staging/o-1".parse()?], [])?;
        let gateway = format!("spiffe://shop.test/{GATEWAY}").parse()?;
        let ask = Ask {
            uses: NonZeroU32::new(each),
            lifetime: Some(Duration::from_secs(600)),
            ..Ask::new(gateway, scope, format!("bench-{n}").parse()?, "testing".parse()?)
        };
        let grant = client.acquire(ask).await?;
        tokens.push(grant.token().await?.claims.token);
    }
    Ok(tokens)
}

/// The calls that spend new uses of these tokens in turn.
fn uses(tokens: &[TokenId], calls: usize) -> Vec<RedeemRequest> {
    let call = |token: &TokenId| {
        let mut random = [0; 10];
        SystemRandom.fill(&mut random);
        let use_id = UseId::draw(SystemClock.now(), random).to_string();
        RedeemRequest { token_id: token.to_string(), use_id }
    };
    tokens.iter().cycle().take(calls).map(call).collect()
}

async fn sessions(identity: &Path) -> anyhow::Result<Vec<Arc<Session>>> {
    let mut sessions = Vec::new();
    for _ in 0..CONNECTIONS {
        sessions.push(Session::open(identity, Arc::new(SystemClock)).await?);
    }
    Ok(sessions)
}

/// The bare service on a journal of its own, with entries as the real one wrote them; and the way
/// to it.
async fn bare(world: &Running) -> anyhow::Result<(Vec<Arc<Session>>, Appends)> {
    let store = Sqlite::create(&world.journal.with_file_name("bare.db"))?;
    let (appends, committing) = Appends::start(store, recorded(world).await?);
    tokio::spawn(committing);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let service = GatewayServiceServer::new(bare::Bare(appends.clone()));
    let terms = Terms::mutual(&world.live(), &["h2"], Admission::everybody())?;
    let routes = Routes::new(service).prepare();
    tokio::spawn(listen::serve(listener, terms, routes, std::future::pending()));
    Ok((sessions(&world.identity_at(GATEWAY, address).await).await?, appends))
}

/// The last use that the real broker recorded.
async fn recorded(world: &Running) -> anyhow::Result<Entry> {
    let store = Sqlite::open(&world.journal)?;
    let (mut replay, mut last) = (Replay::from(State::default()), None);
    for stored in store.read(&Head::ORIGIN, usize::MAX).await? {
        let entry = replay.push_stored(&stored)?;
        if matches!(entry.event, Event::UseRedeemed { .. }) {
            last = Some(entry);
        }
    }
    last.context("the broker recorded no use")
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

    /// What so many of a hundred stay below, in microseconds.
    fn at(&self, percent: usize) -> f64 {
        let place = self.each.len().saturating_mul(percent) / 100;
        self.each.get(place).map_or(f64::NAN, |took| took.as_secs_f64() * 1e6)
    }
}

/// Makes the calls, `at_once` under way at any time. Any refusal ends the bench.
async fn run(
    sessions: &[Arc<Session>],
    calls: Vec<RedeemRequest>,
    at_once: usize,
) -> anyhow::Result<Took> {
    let queue = Arc::new(Mutex::new(calls.into_iter()));
    let mut callers = tokio::task::JoinSet::new();
    let started = Instant::now();
    for session in sessions.iter().cycle().take(at_once) {
        callers.spawn(call_all(GatewayServiceClient::new(session.channel()), queue.clone()));
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
    mut client: GatewayServiceClient<Channel>,
    queue: Arc<Mutex<std::vec::IntoIter<RedeemRequest>>>,
) -> anyhow::Result<Vec<Duration>> {
    let mut each = Vec::new();
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    while let Some(call) = next() {
        let started = Instant::now();
        let answer = client.redeem(call).await?.into_inner();
        each.push(started.elapsed());
        anyhow::ensure!(!answer.spent_before, "each use is new");
    }
    Ok(each)
}
