//! Tokens on demand: fresh, never twice, never after the end.

use std::sync::Arc;

use dayfly_agent::case::Standing;
use dayfly_agent::client::Outcome;
use dayfly_agent::errors::{Error, Reason};
use dayfly_agent::testkit::{Kit, ask};

use crate::{RIGHT, no_token, secs};

#[tokio::test]
async fn an_exchange_that_nobody_answered_is_asked_again_under_its_id() {
    let kit = Kit::new();
    let grant = kit.client().acquire(ask(RIGHT)).await.unwrap();
    kit.lose_answers(usize::MAX);
    assert!(matches!(grant.token().await, Err(Error::CouldNotAsk(_))));
    kit.lose_answers(0);
    assert_eq!(kit.minted(), 1, "it was made, and nobody heard of it");
    kit.forward(secs(100));
    let held = grant.token().await.unwrap();
    assert_eq!(kit.minted(), 1, "a second one was made in place of the first");
    // The first one has run low, so the next is asked for at once, under another id.
    assert!(!held.is_fresh(grant.now()));
    assert!(grant.token().await.unwrap().is_fresh(grant.now()));
    assert_eq!(kit.minted(), 2);
}

#[tokio::test]
async fn an_exchange_that_nobody_answered_for_too_long_is_asked_anew() {
    let kit = Kit::new();
    let grant = kit.client().acquire(ask(RIGHT)).await.unwrap();
    kit.lose_answers(usize::MAX);
    assert!(grant.token().await.is_err());
    kit.lose_answers(0);
    kit.forward(secs(121));
    assert!(grant.token().await.unwrap().is_fresh(grant.now()));
    assert_eq!(kit.minted(), 2);
}

#[tokio::test]
async fn many_who_want_a_token_cause_one_exchange() {
    let kit = Kit::new();
    let grant = Arc::new(kit.client().acquire(ask(RIGHT)).await.unwrap());
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let grant = Arc::clone(&grant);
        waiting.spawn(async move { grant.token().await.unwrap().token.expose().to_owned() });
    }
    let tokens = waiting.join_all().await;
    assert!(tokens.iter().all(|token| *token == tokens[0]));
    assert_eq!(kit.exchanged(), 1);
    // Nobody asks again before it has run low.
    kit.forward(secs(79));
    grant.token().await.unwrap();
    assert_eq!(kit.exchanged(), 1);
    kit.forward(secs(2));
    grant.token().await.unwrap();
    assert_eq!((kit.exchanged(), kit.minted()), (2, 2));
}

#[tokio::test]
async fn near_the_end_of_the_lease_the_last_token_is_good_enough() {
    let kit = Kit::new();
    let grant = kit.client().acquire(ask(RIGHT)).await.unwrap();
    kit.forward(secs(290));
    for _ in 0..9 {
        grant.token().await.unwrap();
    }
    assert_eq!(kit.exchanged(), 1);
    kit.forward(secs(9));
    grant.token().await.unwrap();
    kit.forward(secs(1));
    assert_eq!(no_token(&grant).await, Some(Reason::Lapsed));
    // Nobody was asked: the lease is known.
    kit.stop();
    assert_eq!(no_token(&grant).await, Some(Reason::Lapsed));
}

#[tokio::test]
async fn while_the_broker_is_gone_a_token_is_given_as_long_as_it_is_good_and_no_longer() {
    let kit = Kit::new();
    let grant = kit.client().acquire(ask(RIGHT)).await.unwrap();
    let first = grant.token().await.unwrap();
    kit.stop();
    kit.forward(secs(100));
    assert_eq!(grant.token().await.unwrap().token.expose(), first.token.expose());
    kit.forward(secs(20));
    assert!(matches!(grant.token().await, Err(Error::CouldNotAsk(_))), "an expired token");
    kit.start();
    assert_ne!(grant.token().await.unwrap().token.expose(), first.token.expose());
}

#[tokio::test]
async fn an_ended_grant_gives_no_token_whatever_is_at_hand() {
    for end in [Reason::Revoked, Reason::Drifted, Reason::Completed, Reason::Cancelled] {
        let kit = Kit::new();
        let grant = kit.client().acquire(ask(RIGHT)).await.unwrap();
        grant.token().await.unwrap();
        if end == Reason::Revoked {
            kit.revoke_all();
        } else if end == Reason::Drifted {
            kit.drift_all("p", "no more");
        } else if end == Reason::Completed {
            grant.complete(Outcome::Succeeded).await.unwrap();
        } else {
            grant.cancel().await.unwrap();
        }
        // By a look at the broker it is known at once; by itself, when the token runs low.
        grant.look().await.unwrap();
        assert_eq!(no_token(&grant).await, Some(end));
    }
    let kit = Kit::new();
    let grant = kit.client().acquire(ask(RIGHT)).await.unwrap();
    grant.token().await.unwrap();
    kit.revoke_all();
    kit.forward(secs(81));
    assert_eq!(no_token(&grant).await, Some(Reason::Revoked));
    kit.stop();
    assert_eq!(no_token(&grant).await, Some(Reason::Revoked), "an end is remembered");
}

#[tokio::test]
async fn a_grant_that_could_not_be_given_back_gives_no_token_either() {
    let kit = Kit::new();
    let grant = kit.client().acquire(ask(RIGHT)).await.unwrap();
    grant.token().await.unwrap();
    kit.stop();
    assert!(matches!(grant.complete(Outcome::Failed).await, Err(Error::CouldNotAsk(_))));
    assert_eq!(no_token(&grant).await, Some(Reason::Completed));
    kit.start();
    grant.complete(Outcome::Failed).await.unwrap();
    assert_eq!(kit.standings(), [(Standing::Completed, Some(Outcome::Failed))]);
}
