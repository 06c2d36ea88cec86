//! Several brokers over one log, of which some are far, stopped, or left behind.
#![expect(clippy::arithmetic_side_effects, reason = "a test may overflow and fail")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::future::join_all;

use super::doubles::{Far, Gate};
use super::tests::*;
use super::*;
use crate::core::denial::Denial;
use crate::core::event::Entry;
use crate::journal::samples::{self, time};
use crate::journal::{Faulty, Memory, Plan, Sqlite, chain};

/// Keeps `sequencer` busy with what gives, in batches, until it is told to stop.
fn hammering(sequencer: &Sequencer, from: u32) -> (Arc<AtomicBool>, tokio::task::JoinHandle<u32>) {
    let (stop, next) = (Arc::<AtomicBool>::default(), Arc::new(AtomicU64::new(0)));
    let hammers = (0..4).map(|_| {
        let (sequencer, stop, next) = (sequencer.clone(), stop.clone(), next.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let n = u32::try_from(next.fetch_add(1, Ordering::SeqCst)).unwrap();
                sequencer.submit(add_key(from + n, 99_999), broker()).await.unwrap();
            }
        })
    });
    let (hammers, count) = (hammers.collect::<Vec<_>>(), next);
    let done = tokio::spawn(async move {
        for hammer in hammers {
            hammer.await.unwrap();
        }
        u32::try_from(count.load(Ordering::SeqCst)).unwrap()
    });
    (stop, done)
}

async fn far(memory: &Memory, delay: Duration) -> (Arc<Far>, Sequencer) {
    let far = Arc::new(Far::new(memory, delay, Duration::ZERO));
    let (sequencer, deciding) = start_at(&far, 10).await;
    tokio::spawn(deciding.run());
    (far, sequencer)
}

/// A decision that takes many times as long as those of the broker that overtakes it is overtaken
/// twice, then waits its turn.
#[tokio::test]
async fn a_far_broker_is_not_starved() {
    const ROUNDS: u32 = 12;
    let memory = memory().await;
    let (near, near_sequencer) = far(&memory, Duration::from_millis(1)).await;
    let (far, sequencer) = far(&memory, Duration::from_millis(60)).await;
    let (stop, hammered) = hammering(&near_sequencer, 1_000);
    for n in 0..ROUNDS {
        sequencer.submit(add_key(n, 99_999), broker()).await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    let hammered = hammered.await.unwrap();
    let overtaken = far.overtaken.load(Ordering::SeqCst);
    assert!(overtaken >= 2, "the near one did not overtake it at all");
    assert!(overtaken <= u64::from(3 * ROUNDS), "overtaken {overtaken} times in {ROUNDS} rounds");
    assert!(hammered >= ROUNDS, "the near one did {hammered} meanwhile");
    assert!(near.overtaken.load(Ordering::SeqCst) > 0);
}

/// What takes away is not kept waiting by a turn, even of a broker that never comes back.
#[tokio::test]
async fn taking_away_waits_for_no_turn() {
    let memory = memory().await;
    let gone = memory.clone();
    assert!(gone.turn().await.unwrap());
    let (_, sequencer) = far(&memory, Duration::from_millis(1)).await;
    let giving = tokio::spawn({
        let sequencer = sequencer.clone();
        async move { sequencer.submit(add_key(1, 99_999), broker()).await }
    });
    tokio::task::yield_now().await;
    let taken = async |n| sequencer.submit(revoke(n), operator()).await.unwrap();
    taken(1).await;
    taken(2).await;
    assert!(!giving.is_finished(), "it is the turn of another one");
    giving.await.unwrap().unwrap();
    assert_eq!(events(&memory).await, [revoked(1), revoked(2), key_event(1, 99_999)]);
}

/// A batch of both kinds that was overtaken goes on in two parts, the one that takes away first.
#[tokio::test]
async fn overtaken_the_lanes_part() {
    let memory = memory().await;
    let gone = memory.clone();
    assert!(gone.turn().await.unwrap());
    let far = Arc::new(Far::new(&memory, Duration::from_millis(1), Duration::ZERO));
    let (sequencer, deciding) = start_at(&far, 10).await;
    let commands =
        [(add_key(1, 99_999), broker()), (revoke(1), operator()), (add_key(1, 77_777), broker())];
    let answers = commands.map(|(command, by)| {
        let sequencer = sequencer.clone();
        tokio::spawn(async move { sequencer.submit(command, by).await.map(drop) })
    });
    tokio::task::yield_now().await;
    tokio::spawn(deciding.run());
    let [given, taken, again] = answers;
    taken.await.unwrap().unwrap();
    assert!(!given.is_finished() && !again.is_finished());
    assert_eq!(given.await.unwrap(), Ok(()));
    assert_eq!(again.await.unwrap(), Err(Failure::Denied(Denial::IdReused)));
    assert_eq!(events(&memory).await, [revoked(1), key_event(1, 99_999)]);
}

/// With two brokers on one file, each with its own connections, all that both are asked is done
/// once, in turns.
#[tokio::test]
async fn two_brokers_on_one_file_take_turns() {
    const EACH: u32 = 60;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let store = Arc::new(Sqlite::create(&path).unwrap());
    founded(&*store).await;
    let (one, _one_running) = running(&store).await;
    let (two, _two_running) = running(&Arc::new(Sqlite::open(&path).unwrap())).await;
    let commands = [(one, 0), (two, 1_000)].into_iter().flat_map(|(to, offset)| {
        (0..EACH).map(move |n| {
            let to = to.clone();
            tokio::spawn(async move { to.submit(add_key(offset + n, 99_999), broker()).await })
        })
    });
    for command in commands.collect::<Vec<_>>() {
        command.await.unwrap().unwrap();
    }
    let done = events(&*store).await;
    assert_eq!(done.len(), usize::try_from(2 * EACH).unwrap());
    let all = (0..EACH).chain(1_000..1_000 + EACH).map(|key| key_event(key, 99_999));
    assert!(all.into_iter().all(|event| done.contains(&event)));
}

/// A broker that was stopped while another one went on decides nothing on what it held for true.
#[tokio::test]
async fn a24_a_broker_that_wakes_up_is_fenced() {
    let memory = memory().await;
    let gate = Gate::new(memory.clone());
    let (asleep, deciding) = start_at(&gate, 10).await;
    tokio::spawn(deciding.run());
    let mut knocks = gate.knocks.subscribe();
    let late = tokio::spawn({
        let asleep = asleep.clone();
        async move { asleep.submit(add_key(1, 99_999), broker()).await }
    });
    // It has decided, and is about to append.
    knocks.wait_for(|knocks| *knocks == 1).await.unwrap();
    let (awake, _running) = running(&Arc::new(memory.clone())).await;
    awake.submit(add_key(1, 77_777), broker()).await.unwrap();
    gate.open.add_permits(9);
    assert_eq!(late.await.unwrap(), Err(Failure::Denied(Denial::IdReused)));
    assert_eq!(events(&memory).await, [key_event(1, 77_777)]);
}

/// A broker that cannot fold in the time of one batch all that others appended catches up all the
/// same, while it is asked without a pause.
#[tokio::test]
async fn a_broker_that_was_left_far_behind_catches_up() {
    let memory = memory().await;
    let (delay, reading) = (Duration::from_millis(1), Duration::from_millis(400));
    let behind = Arc::new(Far::new(&memory, delay, reading));
    let (sequencer, deciding) = start_at(&behind, 10).await;
    let head = *memory.confirm().await.unwrap();
    let others = (0..8 * 1024).map(|n| Entry { at: time(10), ..samples::revocation(n) });
    let others = chain(&head, &others.collect::<Vec<_>>()).unwrap();
    memory.append(&head, &others).await.unwrap();
    let ask = |n, after| {
        let sequencer = sequencer.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            while sequencer.submit(revoke(n), operator()).await.is_err() {}
        })
    };
    let first = ask(0, Duration::ZERO);
    while sequencer.taking.capacity() == QUEUE {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::spawn(deciding.run());
    // Whenever the one is answered, the other one waits.
    let asking = join_all([first, ask(1, Duration::from_millis(900))]);
    assert!(timeout(Duration::from_secs(40), asking).await.is_ok());
}

/// Whether a decision in doubt stands is found out before anything else is folded: it is known
/// that it was this command that did it.
#[tokio::test]
async fn in_doubt_in_its_turn_it_still_knows_what_it_did() {
    let journal = Arc::new(Faulty::new(memory().await));
    let (sequencer, _running) = running(&journal).await;
    for n in 0..2 {
        let other = Entry { at: time(10), ..samples::revocation(n) };
        journal.fail(n, Plan::Overtaken(vec![other]));
    }
    journal.fail(2, Plan::StandUnknown);
    let (_, made) = sequencer.submit_once(add_key(1, 99_999), broker()).await.unwrap();
    assert!(made);
    assert_eq!(events(&*journal).await, [revoked(0), revoked(1), key_event(1, 99_999)]);
    assert_eq!(journal.appends(), 3);
}
