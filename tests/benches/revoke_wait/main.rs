//! From the command to revoke to the moment at which the broker says that it holds everywhere,
//! against the bare fan-out of one message that each follower verifies and acknowledges. In one
//! run, over the same kind of listener: mutual TLS 1.3, one connection a follower, all clients in
//! this process.
//!
//! `cargo bench -p dayfly-tests --bench revoke_wait [-- FEW MANY]`
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::arithmetic_side_effects, reason = "figures are small")]

#[path = "../fanout/bare.rs"]
mod bare;
#[path = "../fanout/gateways.rs"]
mod gateways;

use std::time::Duration;

use anyhow::Context as _;
use dayfly_broker::journal::Sqlite;
use dayfly_proto::v1::operator_service_client::OperatorServiceClient;
use dayfly_proto::v1::revocation_target::Target;
use dayfly_proto::v1::{RevocationTarget, RevokeRequest, WatchEnforcementRequest};
use dayfly_tests::running::Running;
use dayfly_tests::sizes::sizes;
use tokio::time::Instant;
use tonic::transport::Channel;

use gateways::follow;

const FOLLOWERS: [usize; 2] = [100, 1_000];
const WARM_UP: usize = 3;
const ROUNDS: usize = 20;

fn main() -> anyhow::Result<()> {
    println!("# revoke_wait: {ROUNDS} rounds, bare and real in turn");
    println!("# sqlite {}; one fsync an append", Sqlite::SETTINGS);
    println!("# mutual TLS 1.3; TCP_NODELAY");
    println!(
        "# the bare message is a delta of one entry and a signed head, and nothing is appended"
    );
    for followers in sizes(FOLLOWERS, [2, 8]) {
        // A runtime of its own: what the last size left running ends with it.
        tokio::runtime::Runtime::new()?.block_on(run(followers))?;
    }
    Ok(())
}

async fn run(followers: usize) -> anyhow::Result<()> {
    let world = Running::start().await;
    let gateways = follow(&world, followers).await?;
    let bare = bare::Fanout::start(&world, followers).await?;
    let session = world.session("person/olga").await;
    let mut operator = OperatorServiceClient::new(session.channel());
    let (mut bare_ms, mut real_ms) = (Vec::new(), Vec::new());
    for round in 0..WARM_UP + ROUNDS {
        let (_, acknowledged) = bare.round().await?;
        let held = revoke_and_wait(&mut operator, round).await?;
        let seen = gateways.iter().filter_map(|gateway| gateway.view());
        let held_by = seen.filter(|view| view.revocations().len() > round).count();
        anyhow::ensure!(held_by == followers, "it holds at {held_by} of {followers}");
        if round >= WARM_UP {
            bare_ms.push(acknowledged.as_secs_f64() * 1e3);
            real_ms.push(held.as_secs_f64() * 1e3);
        }
    }
    for (name, percent) in [("p50", 50), ("max", 100)] {
        let bare = percentile(&mut bare_ms, percent);
        let real = percentile(&mut real_ms, percent);
        println!("figure revoke_wait.bare.{followers}.{name} {bare:.1} ms ratio 1.00");
        println!("figure revoke_wait.{followers}.{name} {real:.1} ms ratio {:.2}", real / bare);
    }
    Ok(())
}

/// As `dayfly revoke --wait` does.
async fn revoke_and_wait(
    operator: &mut OperatorServiceClient<Channel>,
    round: usize,
) -> anyhow::Result<Duration> {
    let target = Some(Target::Task(format!("task-{round}")));
    let target = Some(RevocationTarget { target });
    let started = Instant::now();
    let revoked = operator.revoke(RevokeRequest { target, reason: String::new() }).await?;
    let seq = revoked.into_inner().head.context("a revocation has a place")?.seq;
    let watching = operator.watch_enforcement(WatchEnforcementRequest { seq }).await?;
    let mut watching = watching.into_inner();
    while let Some(news) = watching.message().await? {
        if news.holds_everywhere {
            return Ok(started.elapsed());
        }
    }
    anyhow::bail!("nobody said that it holds everywhere")
}

fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = values.len().saturating_sub(1) * percent / 100;
    values.get(place).copied().unwrap_or(f64::NAN)
}
