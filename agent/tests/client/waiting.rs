//! Asking and waiting: a no, a silence and a lost answer are told apart.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dayfly_agent::case::Standing;
use dayfly_agent::client::Outcome;
use dayfly_agent::errors::{Error, NextAction, Reason};
use dayfly_agent::grant::Grant;
use dayfly_agent::testkit::{Kit, ask};
use dayfly_agent::ticket::Ticket;

use crate::{RIGHT, secs};

#[tokio::test]
async fn a_timeout_is_not_a_yes_and_says_that_it_is_still_pending() {
    let kit = Kit::new();
    kit.stand_still();
    kit.never();
    let agent = kit.client();
    let (ticket, _) = agent.request(ask(RIGHT)).await.unwrap();
    let waited = agent.wait(&ticket, Some(Duration::from_millis(50)), |_| {}).await;
    assert!(matches!(waited, Err(Error::StillPending)));
    assert!(matches!(
        Grant::new(agent.clone(), ticket, &agent.list().await.unwrap()[0]),
        Err(Error::StillPending)
    ));
    let other = Ticket::draw(ask(RIGHT), agent.now()).unwrap();
    let mixed = Grant::new(agent.clone(), other, &agent.list().await.unwrap()[0]);
    assert!(matches!(mixed, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn denied_expired_and_unasked_are_told_apart() {
    let kit = Kit::new();
    let agent = kit.client();
    kit.deny("caro");
    let denied = agent.acquire(ask(RIGHT)).await.err().unwrap().advice();
    kit.never();
    let expired = agent.acquire(ask(RIGHT)).await.err().unwrap().advice();
    kit.stop();
    let unasked = agent.acquire(ask(RIGHT)).await.err().unwrap().advice();
    assert_eq!([denied.code, expired.code, unasked.code], ["DENIED", "EXPIRED", "COULD_NOT_ASK"]);
    let next = [denied.next_action, expired.next_action, unasked.next_action];
    assert_eq!(next, [NextAction::None, NextAction::Request, NextAction::Retry]);
}

#[tokio::test]
async fn every_end_reaches_who_waits() {
    let kit = Kit::new();
    kit.stand_still();
    kit.never();
    let agent = kit.client();
    let (ticket, _) = agent.request(ask(RIGHT)).await.unwrap();
    let revoke = async |kit: &Kit| kit.revoke_all();
    let (waited, ()) = tokio::join!(agent.wait(&ticket, None, |_| {}), revoke(&kit));
    assert_eq!(waited.unwrap_err().reason(), Some(Reason::Revoked));
    let (ticket, _) = agent.request(ask(RIGHT)).await.unwrap();
    let cancel = agent.cancel(&ticket);
    let (waited, cancelled) = tokio::join!(agent.wait(&ticket, None, |_| {}), cancel);
    assert_eq!(cancelled.unwrap().standing, Standing::Cancelled);
    assert_eq!(waited.unwrap_err().reason(), Some(Reason::Cancelled));
}

#[tokio::test]
async fn a_retry_after_a_lost_answer_files_once_and_mints_once() {
    let kit = Kit::new();
    let agent = kit.client();
    let ticket = Ticket::draw(ask(RIGHT), agent.now()).unwrap();
    kit.lose_answers(1);
    agent.file(&ticket).await.unwrap();
    assert_eq!(kit.filed(), 1);
    let exchange = agent.draw_exchange().unwrap();
    kit.lose_answers(1);
    let held = agent.exchange(&ticket, &exchange).await.unwrap();
    let again = agent.exchange(&ticket, &exchange).await.unwrap();
    assert_eq!(held.token.expose(), again.token.expose());
    assert_eq!(kit.minted(), 1);
    kit.lose_answers(1);
    let case = agent.complete(&ticket, Outcome::Succeeded).await.unwrap();
    assert_eq!(case.standing, Standing::Completed);
}

#[tokio::test]
async fn a_ticket_is_taken_up_by_another_process() {
    let kit = Kit::new();
    kit.stand_still();
    kit.approve_after(secs(60));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ticket.json");
    // The first process draws, keeps, files, and is killed while it waits.
    let first = kit.client();
    let ticket = Ticket::draw(ask(RIGHT), first.now()).unwrap();
    ticket.save(&file).unwrap();
    let waiting = tokio::spawn(async move { first.hold(ticket).await.map(drop) });
    while kit.filed() == 0 {
        tokio::task::yield_now().await;
    }
    waiting.abort();
    kit.forward(secs(61));
    // The second one neither asks anew nor waits.
    let grant = kit.client().hold(Ticket::load(&file).unwrap()).await.unwrap();
    grant.token().await.unwrap();
    // Nor does the third, long after the request could have been filed; and it gets no other token.
    kit.forward(secs(50));
    let again = kit.client().hold(Ticket::load(&file).unwrap()).await.unwrap();
    let (one, other) = (grant.token().await.unwrap(), again.token().await.unwrap());
    assert_eq!(one.token.expose(), other.token.expose());
    assert_eq!((kit.filed(), kit.minted()), (1, 1));
}

#[tokio::test]
async fn a_ticket_of_another_agent_opens_nothing() {
    let kit = Kit::new();
    let (ticket, _) = kit.client().request(ask(RIGHT)).await.unwrap();
    let other = kit.client_as(&"spiffe://kit.test/other".parse().unwrap());
    assert_eq!(other.look(&ticket).await.unwrap_err().reason(), Some(Reason::NotFound));
    let sibling = Ticket::draw(ask(RIGHT), other.now()).unwrap();
    assert_eq!(kit.client().look(&sibling).await.unwrap_err().reason(), Some(Reason::NotFound));
}

#[tokio::test]
async fn waiting_costs_one_connection_and_no_polling() {
    let kit = Kit::new();
    kit.stand_still();
    kit.approve_after(secs(60));
    let agent = kit.client();
    let (ticket, _) = agent.request(ask(RIGHT)).await.unwrap();
    let told = AtomicUsize::new(0);
    let seen = |_: &_| {
        told.fetch_add(1, Ordering::SeqCst);
    };
    let time = async |kit: &Kit| {
        while told.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        kit.forward(secs(30));
        kit.forward(secs(31));
    };
    let (waited, ()) = tokio::join!(agent.wait(&ticket, None, seen), time(&kit));
    assert_eq!(waited.unwrap().standing, Standing::Granted);
    assert_eq!(told.load(Ordering::SeqCst), 2, "pending, then granted");
}
