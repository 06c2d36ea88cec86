//! Actions that run under a grant, or do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use dayfly_agent::case::Standing;
use dayfly_agent::client::{Client, Outcome};
use dayfly_agent::errors::{Error, Reason};
use dayfly_agent::grant::{Grant, NotDone};
use dayfly_agent::held::Held;
use dayfly_agent::testkit::{Kit, ask};
use dayfly_agent::ticket::Ticket;

use crate::{RIGHT, no_token, secs, until};

/// Runs an action that must not run.
async fn must_not_run(agent: &Client) -> Error {
    let ran = AtomicBool::new(false);
    let action = async |_: Arc<Grant>, _: Held| {
        ran.store(true, Ordering::SeqCst);
        Ok::<_, ()>(())
    };
    let done = agent.run(ask(RIGHT), action).await;
    assert!(!ran.load(Ordering::SeqCst), "it ran");
    let Err(NotDone::NotRun(error)) = done else { panic!("must not have been run") };
    error
}

#[tokio::test]
async fn an_unanswered_approval_never_runs_the_action() {
    let kit = Kit::new();
    kit.never();
    assert_eq!(must_not_run(&kit.client()).await.reason(), Some(Reason::Expired));
}

#[tokio::test]
async fn a_server_that_is_down_never_runs_the_action() {
    let kit = Kit::new();
    kit.stop();
    assert!(matches!(must_not_run(&kit.client()).await, Error::CouldNotAsk(_)));
}

#[tokio::test]
async fn a_server_that_goes_down_while_one_waits_never_runs_the_action() {
    let kit = Kit::new();
    kit.stand_still();
    kit.approve_after(secs(60));
    let agent = kit.client();
    let ticket = Ticket::draw(ask(RIGHT), agent.now()).unwrap();
    agent.file(&ticket).await.unwrap();
    let told = AtomicUsize::new(0);
    let down = async {
        while told.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        kit.stop();
    };
    let waiting = agent.wait(&ticket, Some(secs(1)), |_| {
        told.fetch_add(1, Ordering::SeqCst);
    });
    let (waited, ()) = tokio::join!(waiting, down);
    assert!(matches!(waited, Err(Error::CouldNotAsk(_))), "a broken connection says nothing");
    // A client that never heard of it gives up by itself.
    assert!(matches!(agent.wait(&ticket, None, |_| {}).await, Err(Error::CouldNotAsk(_))));
}

#[tokio::test]
async fn an_action_ends_its_grant_however_it_ends() {
    let kit = Kit::new();
    let agent = kit.client();
    let good = async |_: Arc<Grant>, _: Held| Ok::<_, String>(7);
    assert_eq!(agent.run(ask(RIGHT), good).await.unwrap(), 7);
    let bad = async |_: Arc<Grant>, _: Held| Err::<(), _>("broken".to_owned());
    let failed = agent.run(ask(RIGHT), bad).await;
    assert!(matches!(failed, Err(NotDone::Failed(why)) if why == "broken"));
    let hung = async |_: Arc<Grant>, _: Held| std::future::pending::<Result<(), ()>>().await;
    let cut = tokio::time::timeout(Duration::from_millis(100), agent.run(ask(RIGHT), hung)).await;
    assert!(cut.is_err());
    let open = |(standing, _): &(Standing, _)| *standing == Standing::Granted;
    until(|| !kit.standings().iter().any(open)).await;
    let mut outcomes: Vec<_> = kit.standings().into_iter().filter_map(|(_, told)| told).collect();
    outcomes.sort_by_key(|outcome| *outcome == Outcome::Failed);
    assert_eq!(outcomes, [Outcome::Succeeded, Outcome::Failed, Outcome::Failed]);
}

#[tokio::test]
async fn an_action_that_was_done_keeps_its_result_when_nobody_hears_of_it() {
    let kit = Kit::new();
    let stop = kit.clone();
    let action = async |_: Arc<Grant>, _: Held| {
        stop.stop();
        Ok::<_, ()>("paid")
    };
    assert_eq!(kit.client().run(ask(RIGHT), action).await.unwrap(), "paid");
    kit.start();
    // The guard goes on trying.
    until(|| kit.standings() == [(Standing::Completed, Some(Outcome::Succeeded))]).await;
}

#[tokio::test]
async fn a_guard_that_was_completed_does_not_end_it_twice() {
    let kit = Kit::new();
    let guard = kit.client().acquire(ask(RIGHT)).await.unwrap().guard();
    guard.token().await.unwrap();
    guard.complete(Outcome::Succeeded).await.unwrap();
    assert_eq!(kit.standings(), [(Standing::Completed, Some(Outcome::Succeeded))]);
}

#[tokio::test]
async fn a_grant_whose_guard_is_gone_gives_no_token_to_whoever_holds_it_still() {
    let kit = Kit::new();
    let guard = kit.client().acquire(ask(RIGHT)).await.unwrap().guard();
    let (send, kept) = tokio::sync::oneshot::channel();
    let action = async |grant: Arc<Grant>, _: Held| {
        assert!(send.send(grant).is_ok());
        std::future::pending::<Result<(), ()>>().await
    };
    let cut = tokio::time::timeout(Duration::from_millis(50), guard.run(action)).await;
    assert!(cut.is_err());
    // The broker need not have heard of it.
    kit.stop();
    assert_eq!(no_token(&kept.await.unwrap()).await, Some(Reason::Completed));
}

#[tokio::test]
async fn an_action_that_panics_gives_its_grant_back() {
    let kit = Kit::new();
    let agent = kit.client();
    let running = tokio::spawn(async move {
        let action = async |_: Arc<Grant>, _: Held| -> Result<(), ()> { panic!("it broke") };
        agent.run(ask(RIGHT), action).await
    });
    assert!(running.await.unwrap_err().is_panic());
    until(|| kit.standings() == [(Standing::Completed, Some(Outcome::Failed))]).await;
}

#[tokio::test]
async fn nobody_is_asked_to_approve_what_nobody_awaits_any_more() {
    let kit = Kit::new();
    kit.stand_still();
    kit.approve_after(secs(60));
    let agent = kit.client();
    let waiting = tokio::spawn(async move { must_not_run(&agent).await });
    until(|| kit.filed() == 1).await;
    waiting.abort();
    until(|| kit.standings() == [(Standing::Cancelled, None)]).await;
    kit.forward(secs(61));
    assert_eq!(kit.standings(), [(Standing::Cancelled, None)]);
    // What is known by a ticket is left alone: another process may wait for it.
    let (agent, ticket) = (kit.client(), Ticket::draw(ask(RIGHT), kit.client().now()).unwrap());
    let holding = tokio::spawn(async move { agent.hold(ticket).await.map(drop) });
    until(|| kit.filed() == 2).await;
    holding.abort();
    assert!(holding.await.unwrap_err().is_cancelled());
    kit.forward(secs(61));
    assert!(kit.standings().contains(&(Standing::Granted, None)));
}
