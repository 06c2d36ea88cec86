//! From a revocation to the refusal at every gateway, against the bare fan-out of one message that
//! each follower verifies and acknowledges. In one run, over the same kind of listener: mutual
//! TLS 1.3, one connection a follower, all clients in this process.
//!
//! `cargo bench -p dayfly-tests --bench fanout [-- FOLLOWERS]`
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::arithmetic_side_effects, reason = "figures are small")]

mod bare;
mod gateways;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use dayfly_broker::journal::Sqlite;
use dayfly_proto::v1::operator_service_client::OperatorServiceClient;
use dayfly_proto::v1::revocation_target::Target;
use dayfly_proto::v1::{RevocationTarget, RevokeRequest, WatchEnforcementRequest};
use dayfly_tests::running::Running;
use dayfly_tests::sizes::sizes;
use dayfly_verifier::feed::{Enforcer, GatewayView, Rests};
use dayfly_verifier::time::{Clock as _, SystemClock};
use futures_util::future::try_join_all;
use tokio::time::Instant;
use tonic::transport::Channel;

use gateways::follow;

const FOLLOWERS: usize = 1_000;
const WARM_UP: usize = 3;
const ROUNDS: usize = 20;

fn main() -> anyhow::Result<()> {
    let [followers] = sizes([FOLLOWERS], [8]);
    tokio::runtime::Runtime::new()?.block_on(run(followers))
}

async fn run(followers: usize) -> anyhow::Result<()> {
    println!("# fanout: {followers} followers, {ROUNDS} rounds, bare and real in turn");
    println!("# sqlite {}; one fsync an append", Sqlite::SETTINGS);
    println!("# mutual TLS 1.3; TCP_NODELAY");
    println!("# one message: a delta of one entry and a signed head; same size in the bare run");
    let world = Running::start().await;
    let gateways = follow(&world, followers).await?;
    let bare = bare::Fanout::start(&world, followers).await?;
    let session = world.session("person/olga").await;
    let mut operator = OperatorServiceClient::new(session.channel());

    let (mut bare_ms, mut deny_ms, mut after_ack_ms) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..WARM_UP + ROUNDS {
        let (spread, _) = bare.round().await?;
        let (denied, answered) = revoke(&mut operator, &gateways, round).await?;
        if round >= WARM_UP {
            bare_ms.extend(spread.iter().map(|span| ms(*span)));
            deny_ms.extend(denied.iter().map(|span| ms(*span)));
            after_ack_ms.extend(denied.iter().map(|span| ms(span.saturating_sub(answered))));
        }
    }
    for (name, percent) in [("p50", 50), ("p99", 99)] {
        let bare = percentile(&mut bare_ms, percent);
        let deny = percentile(&mut deny_ms, percent);
        let after = percentile(&mut after_ack_ms, percent);
        println!("figure fanout.bare.{name} {bare:.1} ms ratio 1.00");
        println!("figure fanout.revoke_to_deny.{name} {deny:.1} ms ratio {:.2}", deny / bare);
        println!("figure fanout.ack_to_deny.{name} {after:.1} ms ratio {:.2}", after / bare);
    }
    Ok(())
}

/// Revokes once: how long after the call each gateway refused, and when the call was answered.
async fn revoke(
    operator: &mut OperatorServiceClient<Channel>,
    gateways: &[Arc<Enforcer>],
    round: usize,
) -> anyhow::Result<(Vec<Duration>, Duration)> {
    let far = SystemClock.now().plus(Duration::from_secs(3600));
    let uses: Vec<_> = gateways
        .iter()
        .map(|gateway| {
            let stands = move |view: &GatewayView| view.revocations().len() <= round;
            gateway.register(Rests::until(far), stands)
        })
        .collect();
    let target = Some(Target::Task(format!("task-{round}")));
    let target = Some(RevocationTarget { target });
    let started = Instant::now();
    let denials: Vec<_> = uses
        .iter()
        .map(|running| {
            let ended = running.wait();
            tokio::spawn(async move {
                let _ended = ended.await;
                started.elapsed()
            })
        })
        .collect();
    let revoked = operator.revoke(RevokeRequest { target, reason: String::new() }).await?;
    let answered = started.elapsed();
    let denied = try_join_all(denials).await?;
    // The next round begins when every acknowledgement of this one has come in.
    let seq = revoked.into_inner().head.context("a revocation has a place")?.seq;
    let watching = operator.watch_enforcement(WatchEnforcementRequest { seq }).await?;
    let mut watching = watching.into_inner();
    while let Some(news) = watching.message().await? {
        if news.holds_everywhere {
            break;
        }
    }
    Ok((denied, answered))
}

fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1_000.0
}

fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = values.len().saturating_sub(1) * percent / 100;
    values.get(place).copied().unwrap_or(f64::NAN)
}
