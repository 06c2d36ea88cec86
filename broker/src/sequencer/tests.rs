use std::sync::atomic::Ordering;

use dayfly_verifier::id::KeyId;
use futures_util::FutureExt as _;
use tokio::task::JoinHandle;

use super::doubles::{Gate, Hand};
use super::*;
use crate::core::denial::Denial;
use crate::core::event::{Entry, Event, Target};
use crate::journal::samples::{self, spiffe, time};
use crate::journal::{Faulty, Memory, Plan, Sqlite, chain};

const BEFORE: u64 = 2;

/// A log with a bundle in force, in which `olga` is an operator.
pub(super) async fn founded(journal: &impl Journal) {
    let entries = [samples::opening(), samples::applied()];
    journal.append(&Head::ORIGIN, &chain(&Head::ORIGIN, &entries).unwrap()).await.unwrap();
}

pub(super) async fn memory() -> Memory {
    let memory = Memory::default();
    founded(&memory).await;
    memory
}

pub(super) async fn start_at(
    journal: &Arc<impl Journal + 'static>,
    ms: u64,
) -> (Sequencer, Deciding) {
    start_by(journal, Hand::at(ms)).await
}

pub(super) async fn start_by(
    journal: &Arc<impl Journal + 'static>,
    clock: Arc<Hand>,
) -> (Sequencer, Deciding) {
    let journal: Arc<dyn Journal> = Arc::clone(journal) as _;
    let limits = Limits { live_grants: 1_000, ..Limits::default() };
    Sequencer::start(journal, clock, limits).await.unwrap()
}

pub(super) type Running = JoinHandle<Result<(), JournalError>>;

pub(super) async fn running(journal: &Arc<impl Journal + 'static>) -> (Sequencer, Running) {
    let (sequencer, deciding) = start_at(journal, 10).await;
    (sequencer, tokio::spawn(deciding.run()))
}

pub(super) fn operator() -> Caller {
    Caller { id: spiffe("person/olga"), until: time(86_400_000) }
}

/// The broker itself, who lists keys.
pub(super) fn broker() -> Caller {
    Caller { id: spiffe("dayfly/broker"), until: time(86_400_000) }
}

fn stranger() -> Caller {
    Caller { id: spiffe("person/mallory"), until: time(86_400_000) }
}

pub(super) fn key_event(key: u32, not_after: u64) -> Event {
    let public = samples::holder_key();
    Event::KeyAdded { key: KeyId(key), public, not_after: time(not_after) }
}

/// Gives: two with one number and different ends are different commands under one id.
pub(super) fn add_key(key: u32, not_after: u64) -> Command {
    let (public, not_after) = (samples::holder_key(), time(not_after));
    Command::AddKey { key: KeyId(key), public, not_after }
}

/// Takes away.
pub(super) fn revoke(n: u64) -> Command {
    Command::Revoke(Target::Task(format!("task-{n}").parse().unwrap()), None)
}

/// The events after the founding ones, in order.
pub(super) async fn events(journal: &impl Journal) -> Vec<Event> {
    let (mut head, mut events) = (Head::ORIGIN, Vec::new());
    for stored in journal.read(&head, usize::MAX).await.unwrap() {
        events.push(stored.decode(&head).unwrap().event);
        head = *stored.head();
    }
    events.drain(..2);
    events
}

pub(super) fn revoked(n: u64) -> Event {
    samples::revocation(n).event
}

#[tokio::test]
async fn a_refusal_changes_nothing() {
    let journal = Arc::new(memory().await);
    let (sequencer, _running) = running(&journal).await;
    let refused = sequencer.submit(revoke(1), stranger()).await;
    assert_eq!(refused, Err(Failure::Denied(Denial::NotAllowed)));
    assert_eq!(events(&*journal).await, []);
    let expired = Caller { until: time(5), ..operator() };
    let refused = sequencer.submit(revoke(1), expired).await;
    assert_eq!(refused, Err(Failure::Denied(Denial::NotAllowed)));
    assert_eq!(events(&*journal).await, []);
}

#[tokio::test]
async fn an_answer_comes_with_the_state_that_has_it() {
    let journal = Arc::new(memory().await);
    let (sequencer, running) = running(&journal).await;
    let before = sequencer.state();
    let state = sequencer.submit(add_key(1, 99_999), broker()).await.unwrap();
    assert!(state.keys.contains_key(&KeyId(1)) && !before.keys.contains_key(&KeyId(1)));
    assert_eq!(state.head, *journal.confirm().await.unwrap());
    assert_eq!(sequencer.state().head, state.head);
    assert_eq!(*sequencer.moved().borrow(), state.head);
    let again = sequencer.submit(add_key(1, 99_999), broker()).await.unwrap();
    assert_eq!(again.head, state.head);
    assert_eq!(events(&*journal).await, [key_event(1, 99_999)]);
    drop(sequencer);
    assert_eq!(running.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn nothing_leaves_before_its_batch_is_durable() {
    let memory = memory().await;
    let gate = Gate::new(memory.clone());
    let (sequencer, deciding) = start_at(&gate, 10).await;
    let submit = |command, caller| {
        let sequencer = sequencer.clone();
        async move { sequencer.submit(command, caller).await }.boxed()
    };
    let mut answers = vec![
        submit(add_key(1, 99_999), broker()),
        submit(add_key(1, 99_999), broker()),
        submit(add_key(1, 77_777), broker()),
        submit(revoke(1), stranger()),
    ];
    // Each is queued once it was polled.
    answers.iter_mut().for_each(|answer| assert!(answer.now_or_never().is_none()));
    let mut knocks = gate.knocks.subscribe();
    tokio::spawn(deciding.run());
    knocks.wait_for(|knocks| *knocks == 1).await.unwrap();
    answers.iter_mut().for_each(|answer| assert!(answer.now_or_never().is_none()));
    assert_eq!(sequencer.state().head.seq.0, BEFORE);
    gate.open.add_permits(1);
    let answers = futures_util::future::join_all(answers).await;
    let denials: Vec<_> = answers.into_iter().map(Result::err).collect();
    let denied = |denial| Some(Failure::Denied(denial));
    assert_eq!(denials, [None, None, denied(Denial::IdReused), denied(Denial::NotAllowed)]);
    assert_eq!(*knocks.borrow(), 1, "one append for all");

    // A batch that makes nothing happen waits until the head is confirmed.
    let mut repeat = submit(add_key(1, 99_999), broker());
    assert!((&mut repeat).now_or_never().is_none());
    knocks.wait_for(|knocks| *knocks == 2).await.unwrap();
    assert!((&mut repeat).now_or_never().is_none());
    gate.open.add_permits(1);
    assert!(repeat.await.is_ok());
    assert_eq!(events(&memory).await, [key_event(1, 99_999)]);
}

#[tokio::test]
async fn what_takes_away_comes_first() {
    let journal = Arc::new(Faulty::new(memory().await));
    let (sequencer, deciding) = start_at(&journal, 10).await;
    let commands = [
        (add_key(1, 99_999), broker()),
        (revoke(1), operator()),
        (add_key(2, 99_999), broker()),
        (revoke(2), operator()),
    ];
    let mut answers: Vec<_> = commands
        .into_iter()
        .map(|(command, by)| {
            let sequencer = sequencer.clone();
            async move { sequencer.submit(command, by).await }.boxed()
        })
        .collect();
    answers.iter_mut().for_each(|answer| assert!(answer.now_or_never().is_none()));
    tokio::spawn(deciding.run());
    assert!(futures_util::future::join_all(answers).await.iter().all(Result::is_ok));
    let first_taken = [revoked(1), revoked(2), key_event(1, 99_999), key_event(2, 99_999)];
    assert_eq!(events(&*journal).await, first_taken);
    assert_eq!(journal.appends(), 1);
}

#[tokio::test]
async fn overtaken_it_decides_anew() {
    let journal = Arc::new(Faulty::new(memory().await));
    let (sequencer, _running) = running(&journal).await;
    let other = samples::revocation(7);
    journal.fail(0, Plan::Overtaken(vec![Entry { at: time(10), ..other }]));
    sequencer.submit(revoke(1), operator()).await.unwrap();
    assert_eq!(events(&*journal).await, [revoked(7), revoked(1)]);

    // What another broker did makes the decision another one.
    let theirs = Entry { event: key_event(1, 55_555), at: time(10), ..samples::opening() };
    journal.fail(0, Plan::Overtaken(vec![theirs]));
    let refused = sequencer.submit(add_key(1, 99_999), broker()).await;
    assert_eq!(refused, Err(Failure::Denied(Denial::IdReused)));
    assert_eq!(events(&*journal).await, [revoked(7), revoked(1), key_event(1, 55_555)]);
}

#[tokio::test]
async fn an_append_of_unknown_outcome_is_done_once() {
    for plan in [Plan::LoseUnknown, Plan::StandUnknown, Plan::Refuse] {
        let journal = Arc::new(Faulty::new(memory().await));
        let (sequencer, _running) = running(&journal).await;
        journal.fail(0, plan.clone());
        let (state, made) = sequencer.submit_once(revoke(1), operator()).await.unwrap();
        assert!(made, "{plan:?}");
        assert_eq!(events(&*journal).await, [revoked(1)], "{plan:?}");
        assert_eq!(state.head, *journal.confirm().await.unwrap(), "{plan:?}");
        let appends = if plan == Plan::StandUnknown { 1 } else { 2 };
        assert_eq!(journal.appends(), appends, "{plan:?}");
    }
}

/// Two brokers are asked the same at one moment: for both it stands, and one did it.
#[tokio::test]
async fn of_all_that_are_asked_the_same_one_did_it() {
    let journal = Arc::new(memory().await);
    let (one, _running) = running(&journal).await;
    let (other, _too) = running(&journal).await;
    for key in 1..=20 {
        let ask = |sequencer: &Sequencer| {
            let sequencer = sequencer.clone();
            async move { sequencer.submit_once(add_key(key, 99_999), broker()).await }
        };
        let (first, second, third) = tokio::join!(ask(&one), ask(&other), ask(&one));
        let made = [first, second, third].map(|done| done.unwrap().1);
        assert_eq!(made.into_iter().filter(|made| *made).count(), 1, "{key}");
        assert!(!ask(&other).await.unwrap().1);
    }
    assert_eq!(events(&*journal).await.len(), 20);
}

#[tokio::test]
async fn with_the_journal_away_nothing_is_promised_and_it_heals() {
    let journal = Arc::new(Faulty::new(memory().await));
    let (sequencer, _running) = running(&journal).await;
    journal.cut(true);
    let both = tokio::join!(
        sequencer.submit(revoke(1), operator()),
        sequencer.submit(revoke(2), stranger()),
    );
    assert_eq!(both, (Err(Fault::Unavailable.into()), Err(Fault::Unavailable.into())));
    journal.cut(false);
    sequencer.submit(revoke(1), operator()).await.unwrap();
    assert_eq!(events(&*journal).await, [revoked(1)]);
}

#[tokio::test]
async fn what_other_brokers_append_is_followed() {
    let journal = Arc::new(memory().await);
    let (sequencer, _running) = running(&journal).await;
    let (other, _other_running) = running(&journal).await;
    let theirs = other.submit(revoke(1), operator()).await.unwrap();
    sequencer.moved().wait_for(|head| *head == theirs.head).await.unwrap();
    assert_eq!(**sequencer.state(), **theirs);
}

#[tokio::test]
async fn a_refusal_is_not_of_yesterday() {
    let memory = memory().await;
    let gate = Gate::new(memory.clone());
    // This broker cannot have followed: its task has not run.
    let (sequencer, deciding) = start_at(&gate, 10).await;
    let entry = Entry { event: key_event(1, 99_999), at: time(10), ..samples::opening() };
    let head = *memory.confirm().await.unwrap();
    memory.append(&head, &chain(&head, &[entry]).unwrap()).await.unwrap();
    gate.open.add_permits(9);
    let command = Command::Revoke(Target::Key(KeyId(1)), None);
    let mut revoke_key = sequencer.submit(command, operator()).boxed();
    assert!((&mut revoke_key).now_or_never().is_none());
    tokio::spawn(deciding.run());
    assert!(revoke_key.await.is_ok());
}

#[tokio::test]
async fn a_log_that_was_replaced_stops_it() {
    let gate = Gate::new(memory().await);
    let (sequencer, deciding) = start_at(&gate, 10).await;
    let replaced = Memory::default();
    let entries = [samples::opening(), samples::revocation(9), samples::revocation(8)];
    let entries = chain(&Head::ORIGIN, &entries).unwrap();
    replaced.append(&Head::ORIGIN, &entries).await.unwrap();
    *gate.inner.lock().unwrap() = Arc::new(replaced.clone());
    gate.open.add_permits(9);
    let running = tokio::spawn(deciding.run());
    let stopped = sequencer.submit(revoke(1), operator()).await;
    assert_eq!(stopped.unwrap_err(), Failure::Fault(Fault::Stopped));
    assert!(matches!(running.await.unwrap(), Err(JournalError::Diverged(_))));
    let stopped = sequencer.submit(revoke(1), operator()).await;
    assert_eq!(stopped.unwrap_err(), Failure::Fault(Fault::Stopped));
    assert_eq!(replaced.confirm().await.unwrap().seq.0, 3);
}

#[tokio::test]
async fn an_entry_of_a_later_version_stops_it() {
    let memory = memory().await;
    let journal = Arc::new(memory.clone());
    let (sequencer, running) = running(&journal).await;
    let head = *memory.confirm().await.unwrap();
    let later = br#"{"v":1,"at_ms":1,"by":"host","policy":null,"event":{"halted":{}}}"#;
    let later = crate::journal::tests_link(&head, head.epoch, Arc::from(&later[..]));
    memory.append(&head, &[later]).await.unwrap();
    let stopped = running.await.unwrap();
    assert!(matches!(stopped, Err(JournalError::Future { .. })), "{stopped:?}");
    assert!(sequencer.submit(revoke(1), operator()).await.is_err());
    let started = Sequencer::start(journal, Hand::at(10), Limits::default()).await;
    assert!(matches!(started.map(drop), Err(JournalError::Future { .. })));
}

#[tokio::test]
async fn with_the_clock_off_it_only_takes_away() {
    let journal = Arc::new(memory().await);
    let head = *journal.confirm().await.unwrap();
    let ahead = Entry { at: time(60_000), ..samples::revocation(7) };
    journal.append(&head, &chain(&head, &[ahead]).unwrap()).await.unwrap();
    let (sequencer, deciding) = start_at(&journal, 57_999).await;
    tokio::spawn(deciding.run());
    let refused = sequencer.submit(add_key(1, 99_999), broker()).await;
    assert_eq!(refused, Err(Fault::ClockOff.into()));
    let taken = sequencer.submit(revoke(1), operator()).await.unwrap();
    assert_eq!(taken.time, time(60_000), "never earlier than the entry before");

    let (sequencer, deciding) = start_at(&journal, 58_000).await;
    tokio::spawn(deciding.run());
    assert!(sequencer.submit(add_key(1, 99_999), broker()).await.is_ok());
}

/// Set years ahead, even for a moment, it would leave a time in the log that no decision may come
/// before.
#[tokio::test]
async fn a_clock_that_was_set_gets_into_no_entry() {
    let (journal, clock) = (Arc::new(memory().await), Hand::at(10_000));
    let (sequencer, deciding) = start_by(&journal, clock.clone()).await;
    tokio::spawn(deciding.run());
    let set = async |now: u64, n: u32| {
        clock.now.store(now, Ordering::SeqCst);
        let refused = sequencer.submit(add_key(n, 99_999_999), broker()).await;
        assert_eq!(refused, Err(Fault::ClockOff.into()), "{now}");
    };
    clock.pass(1_000);
    clock.now.fetch_add(2_000, Ordering::SeqCst);
    sequencer.submit(add_key(1, 99_999_999), broker()).await.unwrap();
    set(13_001, 2).await;
    let taken = sequencer.submit(revoke(1), operator()).await.unwrap();
    assert_eq!(taken.time, time(13_000), "not before the entry before");
    clock.pass(5_000);
    let taken = sequencer.submit(revoke(2), operator()).await.unwrap();
    assert_eq!(taken.time, time(16_000), "what has passed was counted");
    // As it was: all is well at once.
    clock.now.store(16_001, Ordering::SeqCst);
    sequencer.submit(add_key(3, 99_999_999), broker()).await.unwrap();
    // Set, and set again: a minute counts from the last time.
    set(50_000_000, 4).await;
    clock.pass(59_000);
    set(60_000_000, 5).await;
    clock.pass(59_999);
    set(60_059_999, 6).await;
    clock.pass(1);
    let taken = sequencer.submit(add_key(7, 99_999_999), broker()).await.unwrap();
    assert_eq!(taken.time, time(60_060_000));
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_done() {
    let journal = Arc::new(memory().await);
    let (sequencer, deciding) = start_at(&journal, 10).await;
    assert!(sequencer.submit(add_key(1, 99_999), broker()).now_or_never().is_none());
    tokio::spawn(deciding.run());
    sequencer.submit(revoke(1), operator()).await.unwrap();
    sequencer.submit(revoke(2), operator()).await.unwrap();
    assert_eq!(events(&*journal).await, [revoked(1), revoked(2)]);
}

#[tokio::test]
async fn a_full_queue_refuses() {
    let journal = Arc::new(memory().await);
    let (sequencer, _not_running) = start_at(&journal, 10).await;
    let mut waiting: Vec<_> =
        (0..QUEUE).map(|_| sequencer.submit(add_key(1, 99_999), broker()).boxed()).collect();
    waiting.iter_mut().for_each(|answer| assert!(answer.now_or_never().is_none()));
    let refused = sequencer.submit(add_key(1, 99_999), broker()).await;
    assert_eq!(refused, Err(Fault::Busy.into()));
    let taking = sequencer.submit(revoke(1), operator()).now_or_never();
    assert_eq!(taking, None, "the other lane has room");
}

/// Two brokers with one file: each command is done once, and both end in the same state.
#[tokio::test]
async fn two_brokers_on_one_file_agree() {
    const EACH: u64 = 150;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let store = Arc::new(Sqlite::create(&path).unwrap());
    founded(&*store).await;
    let (one, _one_running) = running(&store).await;
    let (two, _two_running) = running(&Arc::new(Sqlite::open(&path).unwrap())).await;
    let commands = [(one.clone(), 0), (two.clone(), 1_000)].into_iter().flat_map(|(to, offset)| {
        (0..EACH).map(move |n| {
            let to = to.clone();
            tokio::spawn(async move { to.submit(revoke(offset + n), operator()).await })
        })
    });
    let commands: Vec<_> = commands.collect();
    for command in commands {
        command.await.unwrap().unwrap();
    }
    let done = events(&*store).await;
    let expected: Vec<Event> = (0..EACH).chain(1_000..1_000 + EACH).map(revoked).collect();
    assert_eq!(done.len(), expected.len());
    assert!(expected.iter().all(|event| done.contains(event)));
    let head = *store.confirm().await.unwrap();
    for sequencer in [one, two] {
        sequencer.moved().wait_for(|moved| *moved == head).await.unwrap();
    }
}
