//! Neither lane shuts the other one out, and no workload the operators.

use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::{BundleDigest, ExchangeId, GrantId, KeyId, RequestId, TokenId, UseId};
use dayfly_verifier::time::Timestamp;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};

use super::tests::*;
use super::*;
use crate::core::command::Exchange;
use crate::core::verdict::{Basis, Holdings, Outcome, Refusal, Verdict};

#[tokio::test]
async fn an_operator_takes_away_however_much_workloads_ask() {
    let journal = Arc::new(memory().await);
    let (sequencer, _not_running) = start_at(&journal, 10).await;
    let mut waiting: Vec<_> = (0..QUEUE).map(|_| sequencer.current().boxed()).collect();
    let refused = waiting.iter_mut().filter_map(|answer| answer.now_or_never());
    let refused: Vec<_> = refused.map(Result::err).collect();
    assert_eq!(refused, vec![Some(Failure::Fault(Fault::Busy)); KEPT]);
    let taking = sequencer.submit(revoke(1), operator()).now_or_never();
    assert_eq!(taking, None, "there is room for it");
}

#[tokio::test]
async fn an_operator_takes_away_however_much_people_ask() {
    let journal = Arc::new(memory().await);
    let (sequencer, _not_running) = start_at(&journal, 10).await;
    let withdrawal = || Command::Withdraw(GrantId::new([1; 16]));
    let mut waiting: Vec<_> =
        (0..QUEUE).map(|_| sequencer.submit(withdrawal(), operator()).boxed()).collect();
    let refused = waiting.iter_mut().filter_map(|answer| answer.now_or_never());
    let refused: Vec<_> = refused.map(Result::err).collect();
    assert_eq!(refused, vec![Some(Failure::Fault(Fault::Busy)); OPERATORS]);
    let taking = sequencer.submit(revoke(1), operator()).now_or_never();
    assert_eq!(taking, None, "there is room for it");
}

#[tokio::test]
async fn people_take_back_however_much_workloads_ask() {
    let journal = Arc::new(memory().await);
    let (sequencer, _not_running) = start_at(&journal, 10).await;
    let mut waiting: Vec<_> = (0..QUEUE).map(|_| sequencer.current().boxed()).collect();
    assert!(waiting.iter_mut().filter_map(|answer| answer.now_or_never()).all(|a| a.is_err()));
    let withdrawal = Command::Withdraw(GrantId::new([1; 16]));
    assert_eq!(sequencer.submit(withdrawal, operator()).now_or_never(), None);
}

#[tokio::test]
async fn people_approve_and_gateways_redeem_however_much_workloads_ask() {
    let journal = Arc::new(memory().await);
    let (sequencer, _not_running) = start_at(&journal, 10).await;
    let (bundle, holdings) = (BundleDigest::new([1; 32]), Holdings::default());
    let basis = Basis { bundle, environment: 0, holdings, granted: false };
    let refusal = Refusal { policy: "p-no".into(), reason: "not today".into() };
    let verdict = || Verdict { basis: basis.clone(), outcome: Outcome::Refused(refusal.clone()) };
    let exchange = || Exchange {
        request: RequestId::draw(Timestamp::default(), [1; 10]),
        id: ExchangeId::draw(Timestamp::default(), [2; 10]),
        holder_key: HolderKey::unchecked([3; 32]),
        signing_key: (KeyId(1), Timestamp::default()),
    };
    let asked = || Command::Exchange(exchange(), verdict());
    let mut waiting: Vec<_> =
        (0..QUEUE).map(|_| sequencer.submit(asked(), operator()).boxed()).collect();
    let refused = waiting.iter_mut().filter_map(|answer| answer.now_or_never());
    let refused: Vec<_> = refused.map(Result::err).collect();
    assert_eq!(refused, vec![Some(Failure::Fault(Fault::Busy)); KEPT]);
    let redeem = Command::Redeem(TokenId::new([1; 16]), UseId::draw(Timestamp::default(), [2; 10]));
    assert_eq!(sequencer.submit(redeem, operator()).now_or_never(), None);
    assert_eq!(sequencer.submit(add_key(1, 99), broker()).now_or_never(), None);
}

#[tokio::test]
async fn what_gives_has_its_share_of_every_batch() {
    let journal = Arc::new(memory().await);
    let (sequencer, deciding) = start_at(&journal, 10).await;
    let submit = |command: Command, by: Caller| -> BoxFuture<'static, bool> {
        let sequencer = sequencer.clone();
        async move { sequencer.submit(command, by).await.is_ok() }.boxed()
    };
    let mut answers: Vec<_> = (0..600).map(|n| submit(revoke(n), operator())).collect();
    answers.push(submit(add_key(1, 99_999), broker()));
    // Each is queued once it was polled.
    answers.iter_mut().for_each(|answer| assert!(answer.now_or_never().is_none()));
    tokio::spawn(deciding.run());
    assert!(join_all(answers).await.into_iter().all(|done| done));
    let done = events(&*journal).await;
    let place = done.iter().position(|event| *event == key_event(1, 99_999));
    assert!(place.is_some_and(|place| place < BATCH), "{place:?} of {}", done.len());
}

#[tokio::test]
async fn what_comes_late_to_be_taken_away_still_goes_first() {
    let journal = Arc::new(memory().await);
    let (sequencer, mut deciding) = start_at(&journal, 10).await;
    let asked = Asked::new(add_key(1, 99_999), broker(), None);
    let (answer, _answered) = oneshot::channel();
    let mut taking = sequencer.submit(revoke(1), operator()).boxed();
    assert!((&mut taking).now_or_never().is_none());
    let batch = deciding.fill(Waiting { what: Some(asked), answer });
    assert_eq!(batch.iter().map(Waiting::takes_away).collect::<Vec<_>>(), [true, false]);
}

/// What another one brought about meanwhile, in the same batch even, is there to be seen.
#[tokio::test]
async fn a_command_is_made_anew_of_the_state_that_it_is_decided_on() {
    let journal = Arc::new(memory().await);
    let (sequencer, deciding) = start_at(&journal, 10).await;
    let mut first = sequencer.submit(add_key(7, 99_999), broker()).boxed();
    assert!((&mut first).now_or_never().is_none());
    let remake = |state: &State, _| {
        let last = state.keys.keys().map(|key| key.0).max().unwrap_or_default();
        add_key(last + 1, 88_888)
    };
    let remade = sequencer.submit_remade(add_key(7, 11_111), Box::new(remake), broker(), None);
    let mut remade = remade.boxed();
    assert!((&mut remade).now_or_never().is_none());
    tokio::spawn(deciding.run());
    first.await.unwrap();
    remade.await.unwrap();
    assert_eq!(events(&*journal).await, [key_event(7, 99_999), key_event(8, 88_888)]);
}
