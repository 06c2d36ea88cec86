//! The broker in memory, with which others test their agents, against the real one: both are told
//! the same stories, and an agent must hear the same from both.
//!
//! Their common page is a snapshot: what an agent hears, call by call.

mod teller;

use std::num::NonZeroU32;
use std::time::Duration;

use dayfly_agent::client::Outcome;
use dayfly_agent::ticket::{Ask, Ticket};
use dayfly_verifier::request::Narrowing;
use dayfly_verifier::time::Clock as _;

use self::teller::{Fate, Teller};

/// Grants, their tokens, and how they end.
async fn granted(teller: &mut Teller) {
    teller.story("granted at once, exchanged often, completed");
    let (ticket, _) = teller.ask(&Fate::Granted).await;
    let first = teller.exchange("a", &ticket).await;
    teller.exchange_as("a", &ticket, &first).await;
    let second = teller.exchange("b", &ticket).await;
    teller.forward(81);
    teller.exchange("c", &ticket).await;
    teller.exchange_as("a", &ticket, &first).await;
    teller.forward(40);
    teller.exchange_as("a", &ticket, &first).await;
    teller.exchange_as("b", &ticket, &second).await;
    teller.end(&ticket).await;
    teller.exchange_as("a", &ticket, &first).await;
    teller.exchange("d", &ticket).await;
    let filed = teller.agent.file(&ticket).await;
    teller.case("file again", &filed);

    teller.story("approved, held until the lease ends");
    let fate = Fate::Approved(Narrowing::default());
    let ticket = teller.draw(&fate);
    let case = teller.file(&ticket, &fate).await.unwrap();
    teller.exchange("too early", &ticket).await;
    let done = teller.agent.complete(&ticket, Outcome::Succeeded).await;
    teller.case("complete too early", &done);
    teller.decide(&case, &fate).await;
    teller.look(&ticket).await;
    let first = teller.exchange("a", &ticket).await;
    teller.forward(250);
    teller.exchange_as("a", &ticket, &first).await;
    teller.exchange("b", &ticket).await;
    teller.forward(49);
    teller.exchange("c", &ticket).await;
    teller.forward(1);
    teller.exchange("c", &ticket).await;
    teller.look(&ticket).await;
    teller.end(&ticket).await;

    teller.story("narrowed");
    let (ticket, _) = teller.ask(&Fate::Approved(narrowing())).await;
    teller.look(&ticket).await;
    teller.exchange("a", &ticket).await;
    teller.forward(60);
    teller.look(&ticket).await;
}

fn narrowing() -> Narrowing {
    Narrowing {
        lifetime: Some(Duration::from_secs(60)),
        uses: NonZeroU32::new(2),
        rights: None,
        constraints: ["rows <= 10".parse().unwrap()].into(),
    }
}

/// What is not granted, or not any more.
async fn refused(teller: &mut Teller) {
    teller.story("denied");
    let (ticket, _) = teller.ask(&Fate::Denied).await;
    teller.look(&ticket).await;
    teller.exchange("a", &ticket).await;
    teller.end(&ticket).await;

    teller.story("never answered");
    let (ticket, _) = teller.ask(&Fate::Unanswered).await;
    teller.forward(298);
    teller.look(&ticket).await;
    teller.forward(1);
    teller.look(&ticket).await;
    teller.exchange("a", &ticket).await;
    teller.end(&ticket).await;

    teller.story("refused by policy");
    let (ticket, _) = teller.ask(&Fate::Refused).await;
    teller.exchange("a", &ticket).await;
    teller.end(&ticket).await;

    teller.story("revoked in the middle");
    let (ticket, case) = teller.ask(&Fate::Granted).await;
    let first = teller.exchange("a", &ticket).await;
    teller.revoke(&case.grant).await;
    teller.exchange_as("a", &ticket, &first).await;
    teller.exchange("b", &ticket).await;
    teller.look(&ticket).await;
    teller.end(&ticket).await;

    teller.story("revoked while it waits");
    let (ticket, case) = teller.ask(&Fate::Unanswered).await;
    teller.revoke(&case.grant).await;
    teller.look(&ticket).await;
    teller.exchange("a", &ticket).await;

    for fate in [Fate::Unanswered, Fate::Granted] {
        teller.story("cancelled");
        let (ticket, _) = teller.ask(&fate).await;
        for _ in 0..2 {
            let cancelled = teller.agent.cancel(&ticket).await;
            teller.case("cancel", &cancelled);
        }
        teller.exchange("a", &ticket).await;
        teller.end(&ticket).await;
    }
}

/// Keys, callers and ids that are not the right ones.
async fn mistaken(teller: &mut Teller) {
    teller.story("by another key");
    let (ticket, _) = teller.ask(&Fate::Granted).await;
    let other = with_another_key(&ticket);
    teller.file(&other, &Fate::Granted).await;
    teller.look(&other).await;
    teller.exchange("a", &other).await;
    teller.end(&other).await;

    teller.story("by another workload");
    let (look, cancel) = (teller.other.look(&ticket).await, teller.other.cancel(&ticket).await);
    teller.case("look", &look);
    teller.case("cancel", &cancel);
    let id = teller.other.draw_exchange().unwrap();
    let held = teller.other.exchange(&ticket, &id).await;
    teller.token("exchange", &held);

    teller.story("an exchange of another grant");
    let id = teller.exchange("a", &ticket).await;
    let (another, _) = teller.ask(&Fate::Granted).await;
    teller.exchange_as("a", &another, &id).await;
    teller.exchange("b", &another).await;

    teller.story("ids of another time");
    let wish = teller.wish(&Fate::Granted);
    let now = teller.clock.now();
    for at in [now.minus(Duration::from_secs(301)), now.plus(Duration::from_secs(301))] {
        let ticket = Ticket::draw(wish.clone(), at).unwrap();
        teller.file(&ticket, &Fate::Granted).await;
        teller.look(&ticket).await;
    }

    teller.story("no request at all");
    let wish = Ask { lifetime: Some(Duration::from_secs(46_801)), ..wish };
    let ticket = Ticket::draw(wish, now).unwrap();
    teller.file(&ticket, &Fate::Granted).await;
}

fn with_another_key(ticket: &Ticket) -> Ticket {
    let mut stored = serde_json::to_value(ticket).unwrap();
    stored["holder_secret"] = "11".repeat(32).into();
    serde_json::from_value(stored).unwrap()
}

async fn told(mut teller: Teller) -> String {
    granted(&mut teller).await;
    refused(&mut teller).await;
    mistaken(&mut teller).await;
    teller.page
}

#[tokio::test]
async fn an_agent_hears_the_same_from_the_broker_in_memory_as_from_the_real_one() {
    let (kit, real) = (told(Teller::of_kit()).await, told(Teller::of_broker().await).await);
    let apart: Vec<String> = kit
        .lines()
        .zip(real.lines())
        .filter(|(kit, real)| kit != real)
        .map(|(kit, real)| format!("kit:  {kit}\nreal: {real}"))
        .collect();
    assert!(kit == real, "{}", apart.join("\n"));
    insta::assert_snapshot!("what_an_agent_hears", real);
}
