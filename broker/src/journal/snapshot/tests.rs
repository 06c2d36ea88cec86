use std::io::Cursor;
use std::path::{Path, PathBuf};

use dayfly_verifier::time::SystemClock;

use super::write::write_in;
use super::*;
use crate::core::event::{Actor, Entry};
use crate::core::tests::keeping::{random, story};
use crate::journal::samples::spiffe;
use crate::journal::{Memory, Replay, Sqlite, chain};
use crate::sequencer::Sequencer;

/// The digest of a snapshot of [`story`], by this version of the fold. If it is another one now,
/// what entries mean or what a state is made of has changed: so must [`FOLD`], and then this.
const GOLDEN: (u32, &str) = (3, "2f23dde4512ebf0ad37ce0250cae7b2530db1f573ddb4cee6ec1c0418bfb04a5");

fn folded(entries: &[Entry]) -> State {
    let mut replay = Replay::from(State::default());
    for stored in chain(&Head::ORIGIN, entries).unwrap() {
        replay.push_stored(&stored).unwrap();
    }
    replay.into_state()
}

fn bytes(state: &State) -> (Vec<u8>, SnapshotDigest) {
    let mut content = Vec::new();
    let digest = write(state, &mut content, &|| false).unwrap();
    (content, digest)
}

/// That a snapshot of `state` was taken, said at its end.
fn taken(state: &State, digest: SnapshotDigest) -> Entry {
    let event = Event::SnapshotTaken(Snapshot { of: state.head, fold: FOLD, digest });
    Entry { by: Actor::Broker(spiffe("broker")), at: state.time, policy: state.bundle, event }
}

async fn append(store: &impl Store, entries: &[Entry]) {
    let head = *store.confirm().await.unwrap();
    store.append(&head, &chain(&head, entries).unwrap()).await.unwrap();
}

/// A store with a log, a snapshot of its first half, and the entry that says so; and the half.
async fn half_kept<S: Store>(store: S) -> (Arc<S>, State) {
    let entries = random();
    let (first, rest) = entries.split_at(entries.len() / 2);
    append(&store, first).await;
    let state = folded(first);
    let digest = keep(&store, &state, &|| false).unwrap();
    let said = taken(&state, digest);
    append(&store, &[said]).await;
    append(&store, rest).await;
    (Arc::new(store), state)
}

/// From which place a broker starts on this store, and the state that it comes to.
async fn started(store: Arc<dyn Store>) -> Result<(Seq, State), JournalError> {
    let started = Sequencer::open(store, Arc::new(SystemClock), Limits::default()).await;
    started.map(|(sequencer, _, from)| (from, State::clone(&sequencer.state())))
}

/// The same, of a log that a snapshot is put in front of.
async fn from_content(store: &Arc<Memory>, seq: Seq, content: &[u8]) -> Seq {
    store.keep_snapshot(seq, &mut |out| out.write_all(content)).unwrap();
    started(store.clone()).await.unwrap().0
}

async fn file() -> (tempfile::TempDir, PathBuf, State) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    let (_, half) = half_kept(Sqlite::create(&path).unwrap()).await;
    (dir, path, half)
}

fn sql(path: &Path, what: &str) {
    rusqlite::Connection::open(path).unwrap().execute_batch(what).unwrap();
}

#[test]
fn every_part_of_a_state_is_kept() {
    for entries in [story(), random()] {
        let state = folded(&entries);
        assert_eq!(copy(&state).unwrap(), state);
        assert_eq!(bytes(&copy(&state).unwrap()), bytes(&state));
    }
    assert_eq!(copy(&State::default()).unwrap(), State::default());
}

/// Few grants may hold more than a frame takes.
#[test]
fn what_is_too_long_for_one_frame_takes_several() {
    let state = folded(&story());
    let most = |most| {
        let mut content = Vec::new();
        let digest = write_in(&state, &mut content, &|| false, most)?;
        let reader = Reader::open(Box::new(Cursor::new(content))).unwrap();
        Ok::<_, io::Error>((digest, reader.finish(digest, state.limits).unwrap()))
    };
    let (whole, _) = most(u32::MAX >> 4).unwrap();
    let longest = |digest: &SnapshotDigest| *digest == whole;
    let parted = (1..5_000).rev().map_while(|bytes| most(bytes).ok());
    let parted: Vec<_> = parted.filter(|(digest, _)| !longest(digest)).collect();
    assert!(!parted.is_empty(), "some bound parts the cases and still takes each");
    assert!(parted.iter().all(|(_, read)| *read == state));
    assert!(most(16).is_err());
}

#[test]
fn another_fold_has_another_version() {
    assert_eq!((FOLD, &*bytes(&folded(&story())).1.to_string()), GOLDEN);
}

#[tokio::test]
async fn with_and_without_what_came_before_it_is_the_same_fold() {
    let (_dir, path, half) = file().await;
    let open = || Arc::new(Sqlite::open(&path).unwrap());
    let (from, whole) = started(open()).await.unwrap();
    assert_eq!(from, half.head.seq);
    assert!(whole.head.seq > half.head.seq.next() && whole.snapshot == half.head.seq);

    open().forget_snapshots(Seq(u64::MAX)).unwrap();
    let (from, all) = started(open()).await.unwrap();
    assert_eq!((from, &all), (Seq(0), &whole));
    assert_eq!(bytes(&all), bytes(&whole));

    let digest = keep(&*open(), &half, &|| false).unwrap();
    assert_eq!(digest, bytes(&half).1);
    sql(&path, &format!("DELETE FROM entry WHERE seq < {}", half.head.seq));
    let (from, tail) = started(open()).await.unwrap();
    assert_eq!((from, bytes(&tail)), (half.head.seq, bytes(&whole)));

    // With neither there is nothing to start from.
    open().forget_snapshots(Seq(u64::MAX)).unwrap();
    let refused = started(open()).await.unwrap_err();
    assert!(matches!(refused, JournalError::Corrupt { seq: Seq(1), .. }), "{refused:?}");
}

#[tokio::test]
async fn a25_a_snapshot_with_a_flipped_byte_is_not_used() {
    let (store, half) = half_kept(Memory::default()).await;
    let (content, _) = bytes(&half);
    let seq = half.head.seq;
    for place in (0..content.len()).step_by(content.len() / 150).chain([content.len() - 1]) {
        let mut flipped = content.clone();
        flipped[place] ^= 1;
        assert_eq!(from_content(&store, seq, &flipped).await, Seq(0), "byte {place}");
    }
    for len in [0, 1, 25, 30, 40, content.len() / 2, content.len() - 1] {
        assert_eq!(from_content(&store, seq, &content[..len]).await, Seq(0), "{len} bytes");
    }
    let more = [&content[..], &[0, 0, 0, 0]].concat();
    assert_eq!(from_content(&store, seq, &more).await, Seq(0));
    assert_eq!(from_content(&store, seq, &content).await, seq);
}

#[tokio::test]
async fn a_snapshot_of_another_fold_is_not_used() {
    let (store, half) = half_kept(Memory::default()).await;
    let (content, _) = bytes(&half);
    let title = format!("{TITLE}{FOLD}\n");
    for other in [FOLD + 1, FOLD - 1, FOLD * 10] {
        let other = [format!("{TITLE}{other}\n").as_bytes(), &content[title.len()..]].concat();
        assert_eq!(from_content(&store, half.head.seq, &other).await, Seq(0));
    }
    assert_eq!(from_content(&store, half.head.seq, &content).await, half.head.seq);
}

/// One of this fold whose entry says that it is of a later one.
#[tokio::test]
async fn what_the_log_says_of_a_snapshot_counts() {
    let entries = story();
    let state = folded(&entries);
    let (_, digest) = bytes(&state);
    let said = |change: &dyn Fn(&mut Snapshot)| {
        let mut snapshot = Snapshot { of: state.head, fold: FOLD, digest };
        change(&mut snapshot);
        Entry { event: Event::SnapshotTaken(snapshot), ..taken(&state, digest) }
    };
    type Change<'a> = &'a dyn Fn(&mut Snapshot);
    let cases: [(Change<'_>, bool); 4] = [
        (&|_| {}, true),
        (&|said| said.fold = FOLD + 1, false),
        (&|said| said.digest = SnapshotDigest::new([7; 32]), false),
        (&|said| said.of.hash = dayfly_verifier::id::ChainHash::new([7; 32]), false),
    ];
    for (n, (change, used)) in cases.into_iter().enumerate() {
        let store = Memory::default();
        append(&store, &entries).await;
        keep(&store, &state, &|| false).unwrap();
        let store = Arc::new(store);
        assert_eq!(started(store.clone()).await.unwrap().0, Seq(0), "nobody said so");
        append(&*store, &[said(change)]).await;
        let from = started(store).await.unwrap().0;
        assert_eq!(from, if used { state.head.seq } else { Seq(0) }, "case {n}");
    }
}

/// The log was replaced by one in which something else happened.
#[tokio::test]
async fn a_snapshot_of_another_log_is_not_used() {
    let (store, half) = half_kept(Memory::default()).await;
    let other = Memory::default();
    let mut entries = random();
    entries.insert(
        3,
        Entry {
            event: Event::KeyRetired { key: dayfly_verifier::id::KeyId(1) },
            ..entries[2].clone()
        },
    );
    append(&other, &entries[..4]).await;
    let mut content = Vec::new();
    store.snapshot(half.head.seq).unwrap().read_to_end(&mut content).unwrap();
    let other = Arc::new(other);
    assert_eq!(from_content(&other, half.head.seq, &content).await, Seq(0));
}

#[test]
fn one_that_is_stopped_is_not_kept() {
    let store = Memory::default();
    assert!(keep(&store, &State::default(), &|| true).is_err());
    assert_eq!(store.snapshots().unwrap(), []);
}

/// Cases that say the same hold it once.
#[test]
fn what_cases_have_alike_is_held_once() {
    let read = copy(&folded(&story())).unwrap();
    let mut kin: Vec<_> = read.cases().map(|case| case.kin.clone()).collect();
    kin.sort_by(|one, other| one.owners.cmp(&other.owners));
    kin.dedup_by(|one, other| one == other && Arc::ptr_eq(one, other));
    let alike = kin.len();
    kin.dedup();
    assert_eq!(kin.len(), alike);
    assert!(alike < read.cases().count());
}

/// A frame that claims to be long is not made room for.
#[test]
fn a_frame_is_as_long_as_it_is() {
    let title = format!("{TITLE}{FOLD}\n").into_bytes();
    for len in [[0xff; 4], [0x0f, 0xff, 0xff, 0xff]] {
        let content = [&title[..], &len, b"short"].concat();
        assert!(Reader::open(Box::new(Cursor::new(content))).is_err());
    }
}
