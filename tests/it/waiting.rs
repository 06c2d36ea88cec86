//! Nothing runs on an answer that did not come.

use std::sync::Arc;
use std::time::Duration;

use dayfly_agent::client::{Client, Outcome};
use dayfly_agent::errors::Error;
use dayfly_agent::ticket::{Ask, Ticket};
use dayfly_proto::v1::revocation_target::Target;
use dayfly_verifier::request::ConfirmBy;
use dayfly_verifier::scope::{Right, Scope};

use crate::parties::{approve, now, revoke};
use crate::world::{SHOP, World};

fn ask() -> Ask {
    let right =
        Right { operation: "read".parse().unwrap(), resource: "orders/prod/o-17".parse().unwrap() };
    Ask {
        audience: format!("{SHOP}/gateway/orders").parse().unwrap(),
        scope: Scope::new([right], []).unwrap(),
        task: "case-7".parse().unwrap(),
        purpose: "customer-support".parse().unwrap(),
        justification: String::new(),
        lifetime: None,
        uses: None,
        principal: None,
        confirmation: ConfirmBy::Key,
    }
}

#[tokio::test]
async fn unanswered_never_runs() {
    let world = World::start("pending_seconds = 1");
    let client = Client::new(world.session("agent/refunds").await);
    let (ticket, case) = client.request(ask()).await.unwrap();
    let ended = client.wait(&ticket, None, |_| {}).await;
    assert!(matches!(ended, Err(Error::Ended(_))), "{:?}", ended.map(drop));
    let exchange = client.draw_exchange().unwrap();
    assert!(client.exchange(&ticket, &exchange).await.is_err());
    let late = approve(&world, "ana", &case.grant.to_string()).await;
    assert!(late.is_err());
    assert!(client.exchange(&ticket, &exchange).await.is_err());
}

#[tokio::test]
async fn a_broker_killed_while_one_waits_never_runs() {
    let mut world = World::start("pending_seconds = 2");
    let session = world.session("agent/refunds").await;
    let client = Arc::new(Client::new(session));
    let ticket = Ticket::draw(ask(), now()).unwrap();
    client.file(&ticket).await.unwrap();
    let (tell, told) = tokio::sync::oneshot::channel();
    let mut tell = Some(tell);
    let waiting = client.wait(&ticket, Some(Duration::from_secs(4)), |_| {
        if let Some(tell) = tell.take() {
            tell.send(()).unwrap();
        }
    });
    let killing = async {
        told.await.unwrap();
        world.kill();
    };
    let (waited, ()) = tokio::join!(waiting, killing);
    assert!(waited.is_err(), "granted by nobody");
    let exchange = client.draw_exchange().unwrap();
    assert!(client.exchange(&ticket, &exchange).await.is_err());
    // Back again, it still knows, and the time has run out.
    world.serve();
    let ended = client.wait(&ticket, Some(Duration::from_secs(20)), |_| {}).await;
    assert!(matches!(ended, Err(Error::Ended(_))), "{:?}", ended.map(drop));
}

#[tokio::test]
async fn a_ticket_survives_a_broker_and_its_own_process() {
    let mut world = World::start("");
    let client = Client::new(world.session("agent/refunds").await);
    let (ticket, case) = client.request(ask()).await.unwrap();
    let file = world.path("ticket");
    ticket.save(&file).unwrap();
    world.kill();
    world.serve();
    approve(&world, "ana", &case.grant.to_string()).await.unwrap();
    let client = Client::new(world.session("agent/refunds").await);
    let ticket = Ticket::load(&file).unwrap();
    client.wait(&ticket, Some(Duration::from_secs(20)), |_| {}).await.unwrap();
    let exchange = client.draw_exchange().unwrap();
    let held = client.exchange(&ticket, &exchange).await.unwrap();
    let again = client.exchange(&ticket, &exchange).await.unwrap();
    assert_eq!(held.token.expose(), again.token.expose());
    client.complete(&ticket, Outcome::Succeeded).await.unwrap();
    assert!(client.exchange(&ticket, &exchange).await.is_err());
}

#[tokio::test]
async fn a_revocation_outlives_a_kill() {
    let mut world = World::start("");
    let client = Client::new(world.session("agent/refunds").await);
    let (ticket, case) = client.request(ask()).await.unwrap();
    approve(&world, "ana", &case.grant.to_string()).await.unwrap();
    let exchange = client.draw_exchange().unwrap();
    client.exchange(&ticket, &exchange).await.unwrap();
    revoke(&world, Target::Grant(case.grant.to_string())).await;
    world.kill();
    world.serve();
    let client = Client::new(world.session("agent/refunds").await);
    assert!(client.exchange(&ticket, &exchange).await.is_err());
}
