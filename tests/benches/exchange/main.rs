//! A durable exchange over mutual TLS, against the least that it could cost: the same call, over
//! the same listener, with one durable grouped append, one signature and one key derivation.
//!
//! `cargo bench -p dayfly-tests --bench exchange`, with a number of calls behind `--` if not 4096.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dayfly_agent::listen::{self, Terms};
use dayfly_agent::session::Session;
use dayfly_agent::tls::{Admission, Live};
use dayfly_broker::config::Config;
use dayfly_broker::core::event::{Entry, Event, Head};
use dayfly_broker::core::state::State;
use dayfly_broker::journal::{Journal as _, Replay, Sqlite};
use dayfly_proto::v1::access_service_server::AccessServiceServer;
use dayfly_tests::sizes::sizes;
use dayfly_verifier::id::KeyId;
use dayfly_verifier::time::{Clock, SystemClock};
use dayfly_verifier::wire::LocalSigner;
use tonic::service::Routes;

mod appends;
mod bare;
mod world;

use appends::Appends;
use bare::Bare;
use world::{Agent, Outcome, World, at, authority, figure, run, sessions};

/// How many calls are under way at once in the busy run.
const AT_ONCE: usize = 64;
/// How many requests each workload files: fewer than a broker remembers of one.
const EACH: usize = 1_000;

fn main() -> Outcome<()> {
    let [calls] = sizes([4096], [8]);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(calls))
}

async fn measure(calls: usize) -> Outcome<()> {
    let dir = std::env::temp_dir().join(format!("dayfly-bench-{}", std::process::id()));
    let measured = in_dir(&dir, calls).await;
    std::fs::remove_dir_all(&dir)?;
    measured
}

async fn in_dir(dir: &Path, calls: usize) -> Outcome<()> {
    std::fs::create_dir(dir)?;
    println!("# sqlite {}", Sqlite::SETTINGS);
    let filed = calls.saturating_mul(2);
    let agents = filed.div_ceil(EACH);
    println!("# tls 1.3, {calls} calls, {AT_ONCE} at once over {agents} connections");
    let config = World::found(dir).await?;
    let world = World::open(dir, config.clone(), agents).await?;
    let tickets = world.granted(filed).await?;
    let (alone, busy) = tickets.split_at(calls);

    let real = world.sessions().await?;
    let (real_alone, _) = run(&real, world.calls(alone)?, 1).await?;
    let (real_busy, real_took) = run(&real, world.calls(busy)?, AT_ONCE).await?;

    let (bare, appends) = bare(dir, &config, &world.agents).await?;
    let (bare_alone, _) = run(&bare, world.calls(alone)?, 1).await?;
    let before = appends.count();
    let (bare_busy, bare_took) = run(&bare, world.calls(busy)?, AT_ONCE).await?;
    let commits = appends.count().saturating_sub(before);
    println!("# one fsync an append: {commits} appends for {calls} bare calls at once");

    for (name, percent) in [("p50", 50), ("p99", 99)] {
        let (real, bare) = (at(&real_alone, percent), at(&bare_alone, percent));
        figure(&format!("exchange_alone_{name}"), real, "us", bare / real);
        let (real, bare) = (at(&real_busy, percent), at(&bare_busy, percent));
        figure(&format!("exchange_busy_{name}"), real, "us", bare / real);
    }
    let rate = |calls: &[Duration], took: Duration| calls.len() as f64 / took.as_secs_f64();
    let (real, bare) = (rate(&real_busy, real_took), rate(&bare_busy, bare_took));
    figure("bare_busy", bare, "calls/s", 1.0);
    figure("exchange_busy", real, "calls/s", real / bare);
    world.close().await
}

/// The bare service behind the same kind of listener, on a journal of its own, with entries
/// as the real one wrote them; and the way to it.
async fn bare(
    dir: &Path,
    config: &Config,
    agents: &[Agent],
) -> Outcome<(Vec<Arc<Session>>, Appends)> {
    let entry = recorded(config).await?;
    let store = Sqlite::create(&dir.join("bare.db"))?;
    let (appends, committing) = Appends::start(store, entry);
    tokio::spawn(committing);
    let signer = LocalSigner::new(KeyId(1), &[7; 32], [8; 32].into());
    let service = Bare { appends: appends.clone(), signer: Arc::new(signer) };

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let identity = authority(config).await?.for_broker(&config.id, clock.now())?;
    let live = Live::new(identity, clock.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let routes = Routes::new(AccessServiceServer::new(service)).prepare();
    let terms = Terms::mutual(&live, &["h2"], Admission::everybody())?;
    tokio::spawn(listen::serve(listener, terms, routes, std::future::pending()));

    let brokers = format!("brokers = [\"{}\"]\naddresses = [\"{address}\"]\n", config.id);
    let mut identities = Vec::new();
    for Agent { identity: from, .. } in agents {
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
async fn recorded(config: &Config) -> Outcome<Entry> {
    let store = Sqlite::open(&config.journal())?;
    let (mut replay, mut last) = (Replay::from(State::default()), None);
    for stored in store.read(&Head::ORIGIN, usize::MAX).await? {
        let entry = replay.push_stored(&stored)?;
        if matches!(entry.event, Event::TokenRecorded { .. }) {
            last = Some(entry);
        }
    }
    last.ok_or_else(|| "the broker recorded no token".into())
}
