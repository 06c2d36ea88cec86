//! The whole path, with a broker in a process of its own, over mutual TLS, and an HTTP service
//! behind the layer that is called by a plain HTTP client.

use std::time::Duration;

use dayfly_proto::v1::revocation_target::Target;
use tonic::Code;

use crate::parties::{Agent, Gateway, Use, approve, revoke};
use crate::world::World;

const STALE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn asked_approved_exchanged_used_completed_refused() {
    let world = World::start("");
    let gateway = Gateway::start(&world, "gateway/orders", STALE).await;
    let agent = Agent::new(&world, "agent/refunds").await;
    let request = agent.ask("refund orders/prod/o-17", Some(20_000)).await;
    let early = agent.exchange(&request.request_id).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition, "{early:?}");
    approve(&world, "ana", &request.grant_id).await.unwrap();
    assert!(agent.exchange(&request.request_id).await.is_err());
    approve(&world, "caro", &request.grant_id).await.unwrap();
    let token = agent.exchange(&request.request_id).await.unwrap().token;

    let refund =
        |order, amount| Use { key: &agent.key, token: &token, order, refund: Some(amount) };
    let paid = refund("o-17", 15_000).until(&gateway, 200).await;
    assert_eq!(paid.body, "orders/prod/o-17");
    assert_eq!(refund("o-17", 20_001).at(&gateway).await.status, 403);
    assert_eq!(refund("o-18", 15_000).at(&gateway).await.status, 403);

    agent.complete(&request.request_id).await.unwrap();
    let over = refund("o-17", 1).until(&gateway, 401).await;
    assert!(!over.body.contains(&token), "{over:?}");
    let again = agent.exchange(&request.request_id).await.unwrap_err();
    assert!(again.message().contains("completed"), "{again:?}");
}

#[tokio::test]
async fn a01_a_stolen_copy_is_refused_over_http() {
    let world = World::start("");
    let gateway = Gateway::start(&world, "gateway/orders", STALE).await;
    let agent = Agent::new(&world, "agent/refunds").await;
    let thief = Agent::new(&world, "agent/other").await;
    let (_, held) = agent.reading(&world).await;
    let token = held.token.as_str();
    let own = Use { key: &agent.key, token, order: "o-17", refund: None };
    own.until(&gateway, 200).await;
    let stolen = Use { key: &thief.key, ..own };
    assert_eq!(stolen.at(&gateway).await.status, 401);
    for scheme in ["DPoP", "Bearer"] {
        let shown = [("authorization", format!("{scheme} {token}"))];
        let bare = crate::parties::http(gateway.address, "GET", "/orders/o-17", &shown, "").await;
        assert_eq!(bare.unwrap().status, 401);
    }
}

#[tokio::test]
async fn a05_a_token_passes_at_its_own_gateway_only() {
    let world = World::start("");
    let orders = Gateway::start(&world, "gateway/orders", STALE).await;
    let exports = Gateway::start(&world, "gateway/exports", STALE).await;
    let agent = Agent::new(&world, "agent/refunds").await;
    let (_, held) = agent.reading(&world).await;
    let shown = Use { key: &agent.key, token: &held.token, order: "o-17", refund: None };
    shown.until(&orders, 200).await;
    // Before it hears of the feed it refuses as stale.
    shown.until(&exports, 401).await;
    for _ in 0..20 {
        assert_eq!(shown.at(&exports).await.status, 401);
    }
}

#[tokio::test]
async fn a15_sixty_four_exchanges_under_one_id_are_one_token() {
    let world = World::start("");
    let agent = Agent::new(&world, "agent/refunds").await;
    let request = agent.ask("refund orders/prod/o-17", Some(500)).await;
    let exchange = dayfly_verifier::id::ExchangeId::draw(crate::parties::now(), [7; 10]);
    let exchanges = (0..64).map(|_| {
        let (agent, request) = (agent.clone(), request.request_id.clone());
        tokio::spawn(async move { agent.exchange_as(&request, &exchange.to_string()).await })
    });
    let mut tokens = std::collections::BTreeSet::new();
    for exchange in exchanges.collect::<Vec<_>>() {
        tokens.insert(exchange.await.unwrap().unwrap().token);
    }
    assert_eq!(tokens.len(), 1);
}

#[tokio::test]
async fn a19_revoked_by_every_name_and_never_minted_again() {
    let world = World::start("");
    let gateway = Gateway::start(&world, "gateway/orders", STALE).await;
    for name in ["grant", "token", "workload", "task"] {
        let agent = Agent::new(&world, "agent/refunds").await;
        let (request, held) = agent.reading(&world).await;
        let shown = Use { key: &agent.key, token: &held.token, order: "o-17", refund: None };
        shown.until(&gateway, 200).await;
        let target = match name {
            "grant" => Target::Grant(request.grant_id.clone()),
            "token" => Target::Token(held.token_id.clone()),
            "workload" => Target::Workload(request.workload.clone()),
            _ => Target::Task(request.task.clone()),
        };
        let revoked = revoke(&world, target).await;
        shown.until(&gateway, 401).await;
        let listed = revoked.ended_grants.contains(&request.grant_id);
        assert_eq!(listed, name != "token", "{name}");
        assert_eq!(agent.exchange(&request.request_id).await.is_err(), name != "token", "{name}");
    }
}

/// The feed is cut by killing the broker: the gateway refuses by itself, and goes on only when it
/// hears the log again.
#[tokio::test]
async fn a20_a_gateway_that_hears_nothing_refuses() {
    let mut world = World::start("");
    let stale = Duration::from_secs(1);
    let gateway = Gateway::start(&world, "gateway/orders", stale).await;
    let agent = Agent::new(&world, "agent/refunds").await;
    let (_, held) = agent.reading(&world).await;
    let shown = Use { key: &agent.key, token: &held.token, order: "o-17", refund: None };
    shown.until(&gateway, 200).await;
    world.kill();
    let refused = shown.until(&gateway, 503).await;
    assert!(!refused.body.contains("orders/prod"), "{refused:?}");
    for _ in 0..20 {
        assert_eq!(shown.at(&gateway).await.status, 503);
    }
    world.serve();
    shown.until(&gateway, 200).await;
}

/// An old copy of the journal is put back, in which a revocation has not happened.
#[tokio::test]
async fn a22_a_log_that_went_back_is_not_believed() {
    let mut world = World::start("");
    let gateway = Gateway::start(&world, "gateway/orders", Duration::from_secs(1)).await;
    let agent = Agent::new(&world, "agent/refunds").await;
    let (request, held) = agent.reading(&world).await;
    let shown = Use { key: &agent.key, token: &held.token, order: "o-17", refund: None };
    shown.until(&gateway, 200).await;
    let files = ["journal.db", "journal.db-wal", "journal.db-shm"];
    world.kill();
    std::fs::create_dir(world.path("old")).unwrap();
    for file in files {
        let _ = std::fs::copy(world.path("broker").join(file), world.path("old").join(file));
    }
    world.serve();
    shown.until(&gateway, 200).await;
    revoke(&world, Target::Grant(request.grant_id)).await;
    shown.until(&gateway, 401).await;
    world.kill();
    for file in files {
        let _ = std::fs::remove_file(world.path("broker").join(file));
        let _ = std::fs::copy(world.path("old").join(file), world.path("broker").join(file));
    }
    world.serve();
    for _ in 0..200 {
        assert_ne!(shown.at(&gateway).await.status, 200);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
