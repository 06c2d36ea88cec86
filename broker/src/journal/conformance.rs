//! What every store must do, run over each of them.
#![expect(clippy::arithmetic_side_effects, reason = "a test may overflow and fail")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use dayfly_verifier::id::{BundleDigest, ChainHash};

use super::samples::{opening, revocation};
use super::*;
use crate::core::event::Entry;
use crate::core::state::State;

/// Runs each test over a new store of each kind. `$again` opens the same store once more, as
/// another broker would.
macro_rules! over_every_store {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $name() {
                let store = super::Memory::default();
                super::$name(store.clone(), move || store.clone()).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("journal.db");
                let store = super::Sqlite::create(&path).unwrap();
                super::$name(store, move || super::Sqlite::open(&path).unwrap()).await;
            })*
        }
    };
}

mod joins;
mod snapshots;

use joins::*;
use snapshots::*;

over_every_store! {
    appends_follow_the_head_or_conflict,
    a_head_that_the_log_does_not_contain_has_diverged,
    all_or_none,
    reads_are_gapless_and_bounded,
    no_entry_is_ever_missed_by_a_reader_of_two_writers,
    another_broker_sees_what_stands,
    an_append_in_doubt_is_told_by_the_next_look,
    what_a_later_version_wrote_is_told_as_such,
    a_hint_comes_with_an_append,
    a_hint_comes_with_what_another_broker_appends,
    turns_come_in_the_order_in_which_brokers_asked,
    who_does_not_show_up_loses_its_turn,
    a_text_stands_or_falls_with_its_entry,
    bundles_keep_their_first_content,
    an_invitation_is_taken_once,
    two_renewals_of_one_generation_lock,
    what_is_not_due_is_not_renewed,
    documents_are_forgotten_and_floors_with_the_last_of_them,
    snapshots_are_kept_whole_and_forgotten_by_place,
}

/// A log with `count` entries.
async fn filled(store: &impl Journal, count: u64) -> Vec<StoredEntry> {
    let entries: Vec<Entry> =
        std::iter::once(opening()).chain((1..count).map(revocation)).collect();
    let entries = chain(&Head::ORIGIN, &entries).unwrap();
    store.append(&Head::ORIGIN, &entries).await.unwrap();
    entries
}

fn next(after: &Head, n: u64) -> Vec<StoredEntry> {
    chain(after, &[revocation(n)]).unwrap()
}

fn values(read: Vec<Recorded<StoredEntry>>) -> Vec<StoredEntry> {
    read.iter().map(|entry| StoredEntry::clone(entry)).collect()
}

async fn appends_follow_the_head_or_conflict<S: Store>(store: S, again: impl Fn() -> S) {
    assert_eq!(*store.confirm().await.unwrap(), Head::ORIGIN);
    let log = filled(&store, 3).await;
    let (second, third) = (*log[1].head(), *log[2].head());
    let other = again();
    assert_eq!(*other.confirm().await.unwrap(), third);
    let late = store.append(&second, &next(&second, 9)).await;
    assert_eq!(late, Err(JournalError::Conflict));
    let first = next(&Head::ORIGIN, 9);
    assert_eq!(store.append(&Head::ORIGIN, &first).await, Err(JournalError::Conflict));
    let fourth = next(&third, 4);
    assert_eq!(*other.append(&third, &fourth).await.unwrap(), *fourth[0].head());
    assert_eq!(store.append(&third, &next(&third, 5)).await, Err(JournalError::Conflict));
    assert_eq!(*store.confirm().await.unwrap(), *fourth[0].head());
}

async fn a_head_that_the_log_does_not_contain_has_diverged<S: Store>(
    store: S,
    _again: impl Fn() -> S,
) {
    let log = filled(&store, 3).await;
    let foreign = Head { hash: ChainHash::new([9; 32]), ..*log[2].head() };
    let epoch = Head { epoch: dayfly_verifier::id::Epoch::new([1; 16]), ..*log[2].head() };
    let ahead = *next(log[2].head(), 9)[0].head();
    let zero = Head { hash: ChainHash::new([9; 32]), ..Head::ORIGIN };
    for head in [foreign, epoch, ahead, zero] {
        let diverged = JournalError::Diverged(head.seq);
        assert_eq!(store.append(&head, &next(&head, 1)).await, Err(diverged.clone()), "{head:?}");
        assert_eq!(store.read(&head, 9).await.err(), Some(diverged), "{head:?}");
    }
    assert_eq!(store.confirm().await.unwrap(), store.confirm().await.unwrap());
    assert_eq!(*store.confirm().await.unwrap(), *log[2].head());
}

async fn all_or_none<S: Store>(store: S, _again: impl Fn() -> S) {
    let log = filled(&store, 2).await;
    let head = *log[1].head();
    let mut entries = chain(&head, &[revocation(5), revocation(6), revocation(7)]).unwrap();
    entries.remove(1);
    let broken = store.append(&head, &entries).await;
    assert!(matches!(broken, Err(JournalError::Corrupt { .. })), "{broken:?}");
    assert_eq!(*store.confirm().await.unwrap(), head);
    assert_eq!(values(store.read(&Head::ORIGIN, 9).await.unwrap()), log);
}

async fn reads_are_gapless_and_bounded<S: Store>(store: S, again: impl Fn() -> S) {
    let log = filled(&store, 10).await;
    let other = again();
    assert_eq!(values(other.read(&Head::ORIGIN, 4).await.unwrap()), log[..4]);
    assert_eq!(values(other.read(log[3].head(), 4).await.unwrap()), log[4..8]);
    assert_eq!(values(other.read(log[7].head(), 100).await.unwrap()), log[8..]);
    assert_eq!(values(other.read(log[9].head(), 100).await.unwrap()), []);
    let place = async |seq| other.head_at(Seq(seq)).await.unwrap().map(|head| *head);
    assert_eq!(place(0).await, Some(Head::ORIGIN));
    assert_eq!(place(4).await, Some(*log[3].head()));
    assert_eq!(place(10).await, Some(*log[9].head()));
    assert_eq!((place(11).await, place(u64::MAX).await), (None, None));
    let seqs: Vec<u64> = log.iter().map(|entry| entry.head().seq.0).collect();
    assert_eq!(seqs, (1..=10).collect::<Vec<_>>());
}

/// A number given out before its commit, under which a slower one commits later: the entry that
/// no reader ever sees.
async fn no_entry_is_ever_missed_by_a_reader_of_two_writers<S: Store + 'static>(
    store: S,
    again: impl Fn() -> S,
) {
    const EACH: u64 = 60;
    filled(&store, 1).await;
    let [one, two] = [(Arc::new(again()), 0), (Arc::new(again()), 1_000)].map(|(store, offset)| {
        tokio::spawn(async move {
            for n in 0..EACH {
                let once = async || {
                    let head = *store.confirm().await?;
                    store.append(&head, &next(&head, offset + n)).await
                };
                // The file may be held for longer than a writer waits for it.
                while let Err(error) = once().await {
                    assert!(!error.is_fatal() && !matches!(error, JournalError::Unknown(_)));
                    tokio::task::yield_now().await;
                }
            }
        })
    });
    let reading = async {
        let (mut seen, mut head) = (Vec::new(), Head::ORIGIN);
        while seen.len() < usize::try_from(2 * EACH + 1).unwrap() {
            for entry in values(store.read(&head, 7).await.unwrap()) {
                head = *entry.head();
                seen.push(entry);
            }
            tokio::task::yield_now().await;
        }
        Ok(seen)
    };
    // A writer that fails ends it: its entries will never come.
    let ((), (), seen) = tokio::try_join!(one, two, reading).unwrap();
    assert_eq!(seen, values(store.read(&Head::ORIGIN, usize::MAX).await.unwrap()));
    let different: BTreeSet<&[u8]> = seen.iter().map(|entry| &**entry.bytes()).collect();
    assert_eq!(different.len(), seen.len());
}

async fn another_broker_sees_what_stands<S: Store>(store: S, again: impl Fn() -> S) {
    let log = filled(&store, 5).await;
    drop(store);
    let other = again();
    assert_eq!(*other.confirm().await.unwrap(), *log[4].head());
    assert_eq!(values(other.read(&Head::ORIGIN, 100).await.unwrap()), log);
}

/// Whether it stands or not, whoever looks next is told, and once more is not twice.
async fn an_append_in_doubt_is_told_by_the_next_look<S: Store>(store: S, again: impl Fn() -> S) {
    let journal = Faulty::new(store);
    let first = chain(&Head::ORIGIN, &[opening()]).unwrap();
    journal.fail(0, Plan::LoseUnknown);
    journal.fail(1, Plan::StandUnknown);
    let append = async || journal.append(&Head::ORIGIN, &first).await;
    assert!(matches!(append().await, Err(JournalError::Unknown(_))));
    assert_eq!(*journal.confirm().await.unwrap(), Head::ORIGIN, "it does not stand");
    assert!(matches!(append().await, Err(JournalError::Unknown(_))));
    assert_eq!(*again().confirm().await.unwrap(), *first[0].head(), "it stands");
    assert_eq!(append().await, Err(JournalError::Conflict));
    assert_eq!(values(journal.read(&Head::ORIGIN, 9).await.unwrap()), first);
}

/// It is kept and read as it came, and whoever does not know what it means stops there.
async fn what_a_later_version_wrote_is_told_as_such<S: Store>(store: S, again: impl Fn() -> S) {
    let head = *filled(&store, 1).await[0].head();
    let later = br#"{"v":1,"at_ms":1,"by":"host","policy":null,"event":{"halted":{}}}"#;
    let later = tests_link(&head, head.epoch, Arc::from(&later[..]));
    store.append(&head, &[later]).await.unwrap();
    let read = again().read(&Head::ORIGIN, 9).await.unwrap();
    assert_eq!(read.len(), 2);
    let mut replay = Replay::from(State::default());
    replay.push_stored(&read[0]).unwrap();
    let refused = replay.push_stored(&read[1]);
    assert!(matches!(refused, Err(JournalError::Future { seq: Seq(2), .. })), "{refused:?}");
    assert_eq!(replay.state().head, head);
}

async fn a_hint_comes_with_an_append<S: Store>(store: S, _again: impl Fn() -> S) {
    let mut hint = store.moved();
    assert!(!hint.has_changed().unwrap());
    filled(&store, 1).await;
    hint.changed().await.unwrap();
}

async fn a_hint_comes_with_what_another_broker_appends<S: Store>(store: S, again: impl Fn() -> S) {
    let other = again();
    let mut hint = other.moved();
    filled(&store, 1).await;
    hint.changed().await.unwrap();
}

async fn turns_come_in_the_order_in_which_brokers_asked<S: Store>(store: S, again: impl Fn() -> S) {
    let head = *filled(&store, 1).await[0].head();
    let (one, two) = (again(), again());
    assert!(one.turn().await.unwrap() && !two.turn().await.unwrap());
    assert!(!store.turn().await.unwrap() && one.turn().await.unwrap());
    let first = next(&head, 1);
    for other in [&two, &store] {
        assert_eq!(other.append_in_turn(&head, &first).await, Err(JournalError::Conflict));
    }
    let head = *one.append_in_turn(&head, &first).await.unwrap();
    // Its turn is over with that.
    let second = next(&head, 2);
    assert_eq!(one.append_in_turn(&head, &second).await, Err(JournalError::Conflict));
    assert!(two.turn().await.unwrap() && !store.turn().await.unwrap());
    // What takes away heeds no turn, and the turn stays.
    let head = *store.append(&head, &second).await.unwrap();
    assert_eq!(two.append_in_turn(&head, &[]).await.map(|head| *head), Ok(head));
    assert!(store.turn().await.unwrap());
    store.pass_turn().await.unwrap();
    one.append_in_turn(&head, &next(&head, 3)).await.unwrap();
}

async fn who_does_not_show_up_loses_its_turn<S: Store>(store: S, again: impl Fn() -> S) {
    let head = *filled(&store, 1).await[0].head();
    let (gone, other) = (again(), again());
    assert!(gone.turn().await.unwrap());
    drop(gone);
    while !other.turn().await.unwrap() {
        tokio::time::sleep(TURN / 20).await;
    }
    other.append_in_turn(&head, &next(&head, 1)).await.unwrap();
}

async fn a_text_stands_or_falls_with_its_entry<S: Store>(store: S, again: impl Fn() -> S) {
    assert!(FreeText::new("x".repeat(2049), [0; 16]).is_err());
    let text = FreeText::new("x".repeat(2048), [1; 16]).unwrap();
    let salted = FreeText::new("x".repeat(2048), [2; 16]).unwrap();
    let (digest, other) = (text.digest(), salted.digest());
    assert!(digest != other && !format!("{text:?}").contains("xx"));
    let [first, second] = <[_; 2]>::try_from(filled(&store, 2).await).unwrap();
    let more = chain(second.head(), &[revocation(7), revocation(8)]).unwrap();
    let with = |text: &FreeText| {
        let [one, two] = <[_; 2]>::try_from(more.clone()).unwrap();
        [one.with_text(text.clone()), two]
    };
    // What was decided at another head leaves nothing.
    let late = store.append(first.head(), &with(&text)).await;
    assert!(late.is_err() && again().text(&digest).await.unwrap().is_none());
    let head = store.append(second.head(), &with(&text)).await.unwrap();
    assert_eq!(store.append(second.head(), &with(&salted)).await, Err(JournalError::Conflict));
    assert!(again().text(&other).await.unwrap().is_none());
    assert!(again().text(&digest).await.unwrap() == Some(text.clone()));
    // It is no part of the log.
    let read = store.read(second.head(), 9).await.unwrap();
    assert!(read.iter().map(|entry| &**entry).eq(&more));
    // Named once more, it is still kept once; erased, it is gone.
    let once_more = chain(&head, &[revocation(9)]).unwrap().remove(0).with_text(text);
    store.append(&head, &[once_more]).await.unwrap();
    assert!(store.erase_text(&digest).await.unwrap());
    assert!(!store.erase_text(&digest).await.unwrap());
    assert!(again().text(&digest).await.unwrap().is_none());
}

async fn bundles_keep_their_first_content<S: Store>(store: S, again: impl Fn() -> S) {
    let digest = BundleDigest::new([3; 32]);
    assert_eq!(store.bundle(&digest).await.unwrap(), None);
    store.put_bundle(&digest, b"first").await.unwrap();
    store.put_bundle(&digest, b"second").await.unwrap();
    assert_eq!(again().bundle(&digest).await.unwrap().as_deref(), Some(&b"first"[..]));
}

/// Entries that are answered as durable are there after SIGKILL at any moment, and what is there
/// is a whole log.
#[tokio::test]
async fn a_kill_in_mid_append_loses_nothing_that_was_answered() {
    use std::io::BufRead as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    drop(Sqlite::create(&path).unwrap());
    let mut answered = 0;
    for acks in [1, 7, 23, 40, 61] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["journal::conformance::child_that_appends", "--exact", "--ignored"])
            .args(["--nocapture", "--test-threads=1"])
            .env("DAYFLY_TEST_JOURNAL", &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let acked = lines.map_while(Result::ok).filter_map(|line| line.parse::<u64>().ok());
        answered = acked.take(acks).last().unwrap().max(answered);
        child.kill().unwrap();
        child.wait().unwrap();

        let store = Sqlite::open(&path).unwrap();
        let head = *store.confirm().await.unwrap();
        let log = values(store.read(&Head::ORIGIN, usize::MAX).await.unwrap());
        assert!(head.seq.0 >= answered, "{} < {answered}", head.seq);
        assert_eq!(log.last().map(StoredEntry::head), Some(&head));
        let mut replay = Replay::from(State::default());
        for entry in log {
            replay.push(*entry.head(), Arc::clone(entry.bytes())).unwrap();
        }
        assert_eq!(replay.state().head, head);
    }
}

/// The process that is killed. Prints the place of each entry once it is durable.
#[tokio::test]
#[ignore = "runs until it is killed, as a child of another test"]
async fn child_that_appends() {
    let Some(path) = std::env::var_os("DAYFLY_TEST_JOURNAL") else { return };
    let store = Sqlite::open(Path::new(&path)).unwrap();
    let mut head = *store.confirm().await.unwrap();
    for n in 0..1_000_000 {
        let entry = if head == Head::ORIGIN { opening() } else { revocation(n) };
        let entries = chain(&head, &[entry]).unwrap();
        head = *store.append(&head, &entries).await.unwrap();
        println!("\n{}", head.seq);
    }
}

#[tokio::test]
async fn faults_do_what_they_say() {
    let journal = Faulty::new(Memory::default());
    let first = chain(&Head::ORIGIN, &[opening()]).unwrap();
    journal.fail(0, Plan::Refuse);
    journal.fail(1, Plan::LoseUnknown);
    journal.fail(2, Plan::StandUnknown);
    let append = async || journal.append(&Head::ORIGIN, &first).await;
    assert!(matches!(append().await, Err(JournalError::Unavailable(_))));
    assert!(matches!(append().await, Err(JournalError::Unknown(_))));
    assert_eq!(*journal.confirm().await.unwrap(), Head::ORIGIN, "it does not stand");
    assert!(matches!(append().await, Err(JournalError::Unknown(_))));
    assert_eq!(*journal.confirm().await.unwrap(), *first[0].head(), "it stands");
    journal.cut(true);
    assert!(journal.confirm().await.is_err() && journal.read(&Head::ORIGIN, 1).await.is_err());
}
