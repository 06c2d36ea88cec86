//! Clocks that are wrong, and a process that stood still: no token lives longer for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use dayfly_verifier::id::UseId;
use dayfly_verifier::time::{Clock, SystemClock, Timestamp};
use dayfly_verifier::wire::Decoded;

use crate::guarded::{Gateway, Opening};
use crate::parties::{Agent, Use, approve, now, random, scope};
use crate::process::Process;
use crate::world::{SHOP, World};

/// A token for reading that lives this long at most.
async fn reading_for(world: &World, agent: &Agent, seconds: u64) -> String {
    let mut filing = agent.filing(scope("read orders/prod/o-17", None));
    filing.lifetime_seconds = seconds;
    let request = agent.file(filing).await.unwrap();
    approve(world, "ana", &request.grant_id).await.unwrap();
    agent.exchange(&request.request_id).await.unwrap().token
}

fn read<'a>(agent: &'a Agent, token: &'a str) -> Use<'a> {
    Use { key: &agent.key, token, order: "o-17", refund: None }
}

fn ends(token: &str) -> Timestamp {
    Decoded::read(token).unwrap().unverified().claims.expires_at
}

/// Waits until this machine's clock says so.
async fn past(moment: Timestamp) {
    while now() <= moment {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A gateway is stopped while a token is good, and goes on when its life is over. What it was sent
/// meanwhile is refused, and so is all that comes later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a16_a_gateway_that_stood_still_beyond_a_tokens_life_refuses_it() {
    let world = World::start("");
    let dir = world.identity("gateway/orders");
    // It may believe the feed for longer than it stands still.
    let opening = Opening::usual(Duration::from_secs(60));
    let process = Process::start(&world, &format!("{SHOP}/gateway/orders"), &dir, &opening);
    let gateway = &process.gateway;
    let agent = Agent::new(&world, "agent/refunds").await;
    let long = reading_for(&world, &agent, 300).await;
    read(&agent, &long).until(gateway, 200).await;
    let mut accepted = None;
    for seconds in [2, 8, 30] {
        let token = reading_for(&world, &agent, seconds).await;
        let got = read(&agent, &token).at(gateway).await;
        if got.status == 200 {
            accepted = got.nonce().map(|nonce| (token, nonce));
            break;
        }
    }
    let (token, nonce) = accepted.unwrap();

    process.stop();
    let shot = read(&agent, &token).shot(gateway, UseId::draw(now(), random()), Some(&nonce), true);
    let address = gateway.address;
    let sent = tokio::spawn(async move { shot.sent(address).await });
    past(ends(&token)).await;
    assert!(!sent.is_finished(), "it stands still");
    process.go_on();
    let first = sent.await.unwrap();
    assert_eq!(first.status, 401, "{first:?}");
    assert!(first.body.contains("\"expired\""), "{first:?}");
    let later = read(&agent, &token).at(gateway).await;
    assert!(later.status == 401 && later.body.contains("\"expired\""), "{later:?}");
    read(&agent, &long).until(gateway, 200).await;
}

/// The clock of this machine with its time of day moved.
#[derive(Default)]
struct Skewed(AtomicI64);

impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        let secs = self.0.load(Ordering::SeqCst);
        let span = Duration::from_secs(secs.unsigned_abs());
        if secs < 0 { SystemClock.now().minus(span) } else { SystemClock.now().plus(span) }
    }

    fn uptime(&self) -> Duration {
        SystemClock.uptime()
    }
}

/// A gateway whose clock falls behind cannot tell what has expired, and hears so from the signed
/// time of the feed: it refuses everything. One whose clock runs ahead refuses early.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a16_a_clock_that_is_set_back_or_ahead_lets_no_token_live_longer() {
    let world = World::start("");
    let clock = Arc::new(Skewed::default());
    let opening = Opening { clock: clock.clone(), ..Opening::usual(Duration::from_secs(5)) };
    let gateway = Gateway::opened(&world, "gateway/orders", opening).await;
    let agent = Agent::new(&world, "agent/refunds").await;
    let (long, short) =
        (reading_for(&world, &agent, 900).await, reading_for(&world, &agent, 1).await);
    read(&agent, &long).until(&gateway, 200).await;
    past(ends(&short)).await;
    read(&agent, &short).until(&gateway, 401).await;

    // Strobing: it is behind for a moment, and right again, over and over.
    for secs in [-3, -10, -60, -3600] {
        clock.0.store(secs, Ordering::SeqCst);
        read(&agent, &long).until(&gateway, 503).await;
        for _ in 0..20 {
            assert_eq!(read(&agent, &long).at(&gateway).await.status, 503, "{secs}");
            assert_ne!(read(&agent, &short).at(&gateway).await.status, 200, "{secs}");
        }
        clock.0.store(0, Ordering::SeqCst);
        read(&agent, &long).until(&gateway, 200).await;
        read(&agent, &short).until(&gateway, 401).await;
    }
    clock.0.store(901, Ordering::SeqCst);
    let early = read(&agent, &long).until(&gateway, 401).await;
    assert!(early.body.contains("\"expired\""), "{early:?}");
    clock.0.store(0, Ordering::SeqCst);
    read(&agent, &long).until(&gateway, 200).await;
}
