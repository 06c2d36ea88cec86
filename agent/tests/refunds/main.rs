//! An agent that refunds orders, and the tests that its developer writes: what happens when it is
//! allowed, denied, never answered, stopped in the middle, too late, or alone.
//!
//! `agent.rs` is the agent, `shop.rs` the service that it calls. Nothing in either knows that this
//! is a test: the agent gets a [`Client`](dayfly_agent::client::Client), the service a verifier.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod agent;
mod shop;

use std::time::Duration;

use dayfly_agent::case::Standing;
use dayfly_agent::client::Outcome;
use dayfly_agent::testkit::Kit;
use dayfly_verifier::request::Narrowing;

use self::agent::{Agent, Failed};
use self::shop::Shop;

/// A broker, a shop, and an agent that works for it.
fn world() -> (Kit, Shop, Agent) {
    let kit = Kit::new();
    let shop = Shop::open(&kit);
    let agent = Agent { client: kit.client(), shop: shop.clone() };
    (kit, shop, agent)
}

#[tokio::test]
async fn what_policy_grants_at_once_is_done_and_given_back() {
    let (kit, shop, agent) = world();
    kit.grant();
    agent.refund("o-17", 500).await.unwrap();
    assert_eq!(shop.refunded("o-17"), 500);
    assert_eq!(kit.standings(), [(Standing::Completed, Some(Outcome::Succeeded))]);
}

#[tokio::test]
async fn what_a_person_approves_is_done_as_soon_as_they_have() {
    let (kit, shop, agent) = world();
    kit.approve_after(Duration::from_secs(120));
    agent.refund("o-17", 500).await.unwrap();
    assert_eq!(shop.refunded("o-17"), 500);
}

#[tokio::test]
async fn what_a_person_narrows_stays_narrow() {
    let (kit, shop, agent) = world();
    let at_most = "amount <= 300".parse().unwrap();
    let narrowing = Narrowing { constraints: [at_most].into(), ..Narrowing::default() };
    kit.approve_narrowed(Duration::from_secs(5), narrowing);
    let failed = agent.refund("o-17", 500).await.unwrap_err();
    assert!(matches!(failed, Failed::Shop(403, _)), "{failed:?}");
    assert_eq!(shop.refunded("o-17"), 0);
}

#[tokio::test]
async fn what_a_person_denies_is_not_done_and_the_model_is_told() {
    let (kit, shop, agent) = world();
    kit.deny("caro");
    let Failed::NotRun(advice) = agent.refund("o-17", 500).await.unwrap_err() else { panic!() };
    assert_eq!(advice.code, "DENIED");
    assert_eq!(advice.message, "the request was denied: denied by caro");
    assert!(!advice.retryable);
    assert_eq!(shop.refunded("o-17"), 0);
}

#[tokio::test]
async fn what_policy_refuses_is_not_done_and_says_which_policy() {
    let (kit, shop, agent) = world();
    kit.refuse("no-refunds-at-night", "the shop is closed");
    let Failed::NotRun(advice) = agent.refund("o-17", 500).await.unwrap_err() else { panic!() };
    assert_eq!(advice.code, "POLICY_REFUSED");
    assert!(advice.message.contains("the shop is closed"), "{advice:?}");
    assert_eq!(shop.refunded("o-17"), 0);
}

#[tokio::test]
async fn what_nobody_answers_is_not_done() {
    let (kit, shop, agent) = world();
    kit.never();
    let Failed::NotRun(advice) = agent.refund("o-17", 500).await.unwrap_err() else { panic!() };
    assert_eq!((advice.code, advice.next_action.as_str()), ("EXPIRED", "request"));
    assert_eq!(shop.refunded("o-17"), 0);
}

#[tokio::test]
async fn what_is_revoked_in_the_middle_stops() {
    let (kit, shop, agent) = world();
    shop.before_each_refund({
        let kit = kit.clone();
        move |order| {
            if order == "o-18" {
                kit.revoke_all();
            }
        }
    });
    let failed = agent.refund_all(&["o-17", "o-18", "o-19"], 100).await.unwrap_err();
    assert!(matches!(failed, Failed::Shop(401, reason) if reason == "revoked"));
    assert_eq!([shop.refunded("o-17"), shop.refunded("o-19")], [100, 0]);
    assert_eq!(kit.standings(), [(Standing::Revoked, None)]);
}

#[tokio::test]
async fn what_was_revoked_before_the_next_token_stops_and_the_model_is_told() {
    let (kit, shop, agent) = world();
    shop.after_each_refund({
        let kit = kit.clone();
        move |_| {
            kit.revoke_all();
            kit.forward(Duration::from_secs(90));
        }
    });
    let failed = agent.refund_all(&["o-17", "o-18"], 100).await.unwrap_err();
    let Failed::Stopped(advice) = failed else { panic!("{failed:?}") };
    assert_eq!((advice.code, advice.retryable), ("REVOKED", false));
    assert_eq!([shop.refunded("o-17"), shop.refunded("o-18")], [100, 0]);
}

#[tokio::test]
async fn what_takes_longer_than_a_token_goes_on_with_the_next() {
    let (kit, shop, agent) = world();
    shop.after_each_refund({
        let kit = kit.clone();
        move |_| kit.forward(Duration::from_secs(90))
    });
    agent.refund_all(&["o-17", "o-18", "o-19"], 100).await.unwrap();
    assert_eq!([shop.refunded("o-17"), shop.refunded("o-19")], [100, 100]);
    assert_eq!(kit.minted(), 3);
}

#[tokio::test]
async fn what_takes_longer_than_the_lease_stops() {
    let (kit, shop, agent) = world();
    shop.before_each_refund({
        let kit = kit.clone();
        move |order| {
            if order == "o-17" {
                kit.lapse_all();
            }
        }
    });
    let failed = agent.refund_all(&["o-17", "o-18"], 100).await.unwrap_err();
    assert!(matches!(failed, Failed::Shop(401, reason) if reason == "expired"));
    assert_eq!([shop.refunded("o-17"), shop.refunded("o-18")], [0, 0]);
}

#[tokio::test]
async fn with_the_broker_gone_nothing_is_done() {
    let (kit, shop, agent) = world();
    kit.stop();
    let Failed::NotRun(advice) = agent.refund("o-17", 500).await.unwrap_err() else { panic!() };
    assert_eq!((advice.code, advice.retryable), ("COULD_NOT_ASK", true));
    assert_eq!(shop.refunded("o-17"), 0);
    kit.start();
    agent.refund("o-17", 500).await.unwrap();
    assert_eq!(shop.refunded("o-17"), 500);
}

#[tokio::test]
async fn a_shop_that_hears_nothing_of_the_broker_refuses() {
    let (kit, shop, agent) = world();
    shop.before_each_refund({
        let kit = kit.clone();
        move |_| {
            kit.stop();
            kit.forward(Duration::from_secs(6));
        }
    });
    let failed = agent.refund("o-17", 500).await.unwrap_err();
    assert!(matches!(failed, Failed::Shop(503, reason) if reason == "stale"));
    assert_eq!(shop.refunded("o-17"), 0);
}
