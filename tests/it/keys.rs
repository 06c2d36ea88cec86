//! Keys that are rotated while the broker and a gateway work: nothing valid is refused, and what a
//! stolen key signed is refused everywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use dayfly_verifier::wire::Decoded;

use crate::parties::{Agent, Gateway, Use};
use crate::world::World;

const BOUND: Duration = Duration::from_secs(5);
/// The most keys that a trust statement lists is 64; old ones are dropped before that.
const LISTED: u32 = 8;

/// How often keys are rotated: `DAYFLY_TEST_ROTATIONS`, or few.
fn rotations() -> u32 {
    std::env::var("DAYFLY_TEST_ROTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(3)
}

fn key_of(token: &str) -> u32 {
    Decoded::read(token).unwrap().key_id().0
}

/// Runs `dayfly keys`, on the host or as the operator.
pub(crate) fn keys(world: &World, args: &[&str]) -> serde_json::Value {
    let args = [&["--output", "json", "keys"], args].concat();
    let done = world.run("person/olga", &args);
    assert!(done.status.success(), "{args:?}: {done:?}");
    serde_json::from_slice(&done.stdout).unwrap()
}

fn rotate(world: &World) -> u32 {
    let (config, root) = (world.config(), world.path("broker/trust-root.key"));
    let (config, root) = (config.to_str().unwrap(), root.to_str().unwrap());
    let rotated = keys(world, &["rotate", "--config", config, "--root", root]);
    u32::try_from(rotated["key"].as_u64().unwrap()).unwrap()
}

/// How many requests one workload files: fewer than are remembered of it.
const OF_ONE: usize = 200;

/// Asks, exchanges, uses and completes again and again, and says which key signed last.
async fn work(
    world: Arc<World>,
    gateway: Arc<Gateway>,
    last: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
) {
    for n in 0.. {
        let agent = Agent::new(&world, &format!("agent/refunds-{n}")).await;
        for _ in 0..OF_ONE {
            if stop.load(Ordering::SeqCst) {
                return;
            }
            let (request, held) = agent.small_refund().await;
            let (key, token) = (&agent.key, held.token.as_str());
            let refund = Use { key, token, order: "o-17", refund: Some(100) };
            let answer = refund.at(&gateway).await;
            assert_eq!(answer.status, 200, "by key {}: {answer:?}", key_of(token));
            last.store(key_of(token), Ordering::SeqCst);
            agent.complete(&request.request_id).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a26_keys_rotate_under_load_and_a_killed_one_verifies_nothing() {
    let world = Arc::new(World::start(""));
    let gateway = Arc::new(Gateway::start(&world, "gateway/orders", BOUND).await);
    let agent = Agent::new(&world, "agent/other").await;
    let (_, held) = agent.small_refund().await;
    let refund = Use { key: &agent.key, token: &held.token, order: "o-17", refund: Some(100) };
    refund.until(&gateway, 200).await;
    let (last, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let load = work(world.clone(), gateway.clone(), last.clone(), stop.clone());
    let load = tokio::spawn(load);
    let (dir, root) = (world.path("broker"), world.path("broker/trust-root.key"));
    for _ in 0..rotations() {
        let before = last.load(Ordering::SeqCst).max(1);
        let new = tokio::task::block_in_place(|| rotate(&world));
        while last.load(Ordering::SeqCst) != new {
            assert!(!load.is_finished(), "{:?}", load.await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::task::block_in_place(|| keys(&world, &["retire", &before.to_string()]));
        if let Some(old) = new.checked_sub(LISTED).filter(|old| *old > 0) {
            let (dir, root) = (dir.to_str().unwrap(), root.to_str().unwrap());
            let old = old.to_string();
            let drop_old = ["sign", "--root", root, "--dir", dir, "--drop", &old];
            tokio::task::block_in_place(|| keys(&world, &drop_old));
        }
    }
    stop.store(true, Ordering::SeqCst);
    load.await.unwrap();

    // The key in use is stolen. What it signed dies with it, though nobody used it yet.
    let (_, held) = agent.small_refund().await;
    let stolen = key_of(&held.token);
    let refund = Use { key: &agent.key, token: &held.token, order: "o-17", refund: Some(100) };
    tokio::task::block_in_place(|| {
        keys(&world, &["kill", &stolen.to_string(), "--reason", "lost", "--wait"])
    });
    // It is said to hold everywhere: from then on nothing passes, not even once.
    let first = refund.at(&gateway).await;
    assert_ne!(first.status, 200, "{first:?}");
    let dead = refund.until(&gateway, 401).await;
    assert!(dead.body.contains("\"unknown_key\""), "{dead:?}");
    assert!(!dead.body.contains(&held.token));
    let asked = agent.ask("refund orders/prod/o-17", Some(5)).await;
    let without = agent.exchange(&asked.request_id).await.unwrap_err();
    assert_eq!(without.code(), tonic::Code::Unavailable);
    let new = tokio::task::block_in_place(|| rotate(&world));
    let listed = tokio::task::block_in_place(|| keys(&world, &["list"]));
    let standing = |n: u32| {
        let of = |key: &&serde_json::Value| key["key"] == n;
        listed.as_array().unwrap().iter().find(of).map(|key| key["standing"].clone())
    };
    assert_eq!(standing(stolen).unwrap(), "killed");
    let request = agent.ask("refund orders/prod/o-17", Some(500)).await;
    let token = loop {
        match agent.exchange(&request.request_id).await {
            Ok(exchanged) => break exchanged.token,
            Err(status) => assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(key_of(&token), new);
    let refund = Use { key: &agent.key, token: &token, order: "o-17", refund: Some(100) };
    assert_eq!(refund.at(&gateway).await.status, 200);
}
