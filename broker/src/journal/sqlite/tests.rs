use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use dayfly_verifier::id::BundleDigest;
use futures_util::FutureExt as _;

use super::super::samples::{opening, revocation};
use super::super::{Bundles as _, FreeText, Snapshots as _, Texts as _, chain};
use super::*;

fn file() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.db");
    drop(Sqlite::create(&path).unwrap());
    (dir, path)
}

async fn filled(path: &Path) -> Vec<StoredEntry> {
    let entries: Vec<_> = std::iter::once(opening()).chain((1..5).map(revocation)).collect();
    let entries = chain(&Head::ORIGIN, &entries).unwrap();
    Sqlite::open(path).unwrap().append(&Head::ORIGIN, &entries).await.unwrap();
    entries
}

fn change(path: &Path, sql: &str) {
    let connection = Connection::open(path).unwrap();
    assert_eq!(connection.execute(sql, ()).unwrap(), 1, "{sql}");
}

fn opened(path: &Path) -> Result<(), JournalError> {
    Sqlite::open(path).map(drop)
}

/// No killed process shows what a commit waits for: only a host that loses its power would.
#[test]
fn every_connection_is_set_as_is_said() {
    let (_dir, path) = file();
    let connection = file::connect(&path).unwrap();
    let mode = connection.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0));
    let set = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    // FULL is 2 (https://sqlite.org/pragma.html#pragma_synchronous).
    assert_eq!((mode.unwrap().as_str(), set("synchronous")), ("wal", 2));
    assert_eq!(set("wal_autocheckpoint"), 0);
    assert_eq!(Sqlite::SETTINGS, "journal_mode=wal synchronous=full wal_autocheckpoint=0");
    assert_eq!((set("secure_delete"), set("trusted_schema")), (1, 0));
}

#[tokio::test]
async fn a41_the_files_are_for_their_owner_alone() {
    let (dir, path) = file();
    filled(&path).await;
    let _open = Sqlite::open(&path).unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", file.path());
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(opened(&path).is_err());
}

#[test]
fn a41_links_and_what_exists_are_refused() {
    let (dir, path) = file();
    assert!(Sqlite::create(&path).is_err());
    let link = dir.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(opened(&link).is_err() && Sqlite::create(&link).is_err());
    assert!(opened(&dir.path().join("absent.db")).is_err());
    assert!(!dir.path().join("absent.db").exists());
}

/// As `/var/lib` is on some machines. What lies there is the same log by either way.
#[tokio::test]
async fn the_directory_may_be_reached_through_a_link() {
    let (dir, path) = file();
    let elsewhere = tempfile::tempdir().unwrap();
    let way = elsewhere.path().join("way");
    std::os::unix::fs::symlink(dir.path(), &way).unwrap();
    let log = filled(&way.join("journal.db")).await;
    let head = Sqlite::open(&path).unwrap().confirm().await.unwrap();
    assert_eq!(*head, *log[4].head());
    drop(Sqlite::create(&way.join("other.db")).unwrap());
    assert_eq!(opened(&dir.path().join("other.db")), Ok(()));
}

#[test]
fn a_later_schema_and_a_foreign_file_are_refused() {
    let (dir, path) = file();
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 2).unwrap();
    assert!(matches!(opened(&path), Err(JournalError::Future { .. })));
    connection.pragma_update(None, "application_id", 1).unwrap();
    assert!(matches!(opened(&path), Err(JournalError::Corrupt { .. })));
    let text = dir.path().join("text.db");
    std::fs::write(&text, "not a database, but long enough to be looked at".repeat(20)).unwrap();
    std::fs::set_permissions(&text, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(opened(&text), Err(JournalError::Corrupt { .. })), "{:?}", opened(&text));
}

#[tokio::test]
async fn a25_a_changed_entry_is_named() {
    let read = async |path: &Path| {
        let store = Sqlite::open(path)?;
        store.read(&Head::ORIGIN, 100).await.map(drop)
    };
    let is_at = |result: Result<(), JournalError>, seq: u64| {
        let named = matches!(result, Err(JournalError::Corrupt { seq: Seq(s), .. }) if s == seq);
        assert!(named, "{seq}: {result:?}");
    };
    let (_dir, path) = file();
    filled(&path).await;
    assert_eq!(read(&path).await, Ok(()));
    change(&path, "UPDATE entry SET bytes = CAST(bytes || ' ' AS BLOB) WHERE seq = 3");
    is_at(read(&path).await, 3);

    let (_dir, path) = file();
    filled(&path).await;
    change(&path, "DELETE FROM entry WHERE seq = 2");
    is_at(read(&path).await, 2);

    let (_dir, path) = file();
    filled(&path).await;
    change(&path, "DELETE FROM entry WHERE seq = 5");
    is_at(read(&path).await, 0);

    // What no row of this kind can hold is no trouble of the disk that passes.
    for sql in ["UPDATE entry SET hash = zeroblob(31) WHERE seq = 3", "DELETE FROM head"] {
        let (_dir, path) = file();
        filled(&path).await;
        change(&path, sql);
        is_at(read(&path).await, 0);
    }
}

#[tokio::test]
async fn a42_what_looks_like_sql_is_kept_as_it_is() {
    let (_dir, path) = file();
    let store = Sqlite::open(&path).unwrap();
    let body = "'); DROP TABLE entry; --\0\u{202e}%_";
    let text = FreeText::new(body, [0; 16]).unwrap();
    let first = chain(&Head::ORIGIN, &[opening()]).unwrap().remove(0);
    let head = *first.head();
    store.append(&Head::ORIGIN, &[first.with_text(text.clone())]).await.unwrap();
    assert_eq!(store.text(&text.digest()).await.unwrap().unwrap().body(), body);
    assert_eq!(*store.confirm().await.unwrap(), head);
}

#[tokio::test]
async fn a_store_that_takes_no_writes_confirms_nothing() {
    let (_dir, path) = file();
    let entries = filled(&path).await;
    let store = Sqlite::open(&path).unwrap();
    let mut other = Connection::open(&path).unwrap();
    let held = other.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    assert!(matches!(store.confirm().await, Err(JournalError::Unavailable(_))));
    let head = *entries[4].head();
    let more = chain(&head, &[revocation(9)]).unwrap();
    assert!(matches!(store.append(&head, &more).await, Err(JournalError::Unavailable(_))));
    assert_eq!(store.read(&head, 9).await.unwrap().len(), 0);
    drop(held);
    assert_eq!(*store.confirm().await.unwrap(), head);
}

#[tokio::test]
async fn the_write_ahead_log_is_folded_back_while_appends_go_on() {
    let (_dir, path) = file();
    let mut head = *filled(&path).await[4].head();
    let store = Sqlite::open(&path).unwrap();
    let connection = Connection::open(&path).unwrap();
    for round in 0..3 {
        for n in 0..FOLD_COMMITS as u64 {
            let more = chain(&head, &[revocation(round * 1_000 + n)]).unwrap();
            head = *store.append(&head, &more).await.unwrap();
        }
    }
    file::fold_back(&connection);
    let pages = "PRAGMA wal_checkpoint(PASSIVE)";
    let (log, folded): (i64, i64) =
        connection.query_row(pages, (), |row| Ok((row.get(1)?, row.get(2)?))).unwrap();
    assert_eq!(log, folded);
    assert_eq!(store.read(&Head::ORIGIN, 9_999).await.unwrap().len(), 5 + 3 * FOLD_COMMITS);
}

/// What is kept beside the log may flood the writer: it is refused at last, and the log is not.
#[tokio::test]
async fn a50_a_flood_beside_the_log_is_bounded_and_does_not_shut_it_out() {
    let (_dir, path) = file();
    let head = *filled(&path).await[4].head();
    let store = Sqlite::open(&path).unwrap();
    let mut other = Connection::open(&path).unwrap();
    let held = other.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    let digest = BundleDigest::new([1; 32]);
    let write = |_| store.put_bundle(&digest, b"files").boxed();
    let mut writes: Vec<_> = (0..2 * thread::QUEUE).map(write).collect();
    let refused = |write: &mut futures_util::future::BoxFuture<'_, _>| match write.now_or_never() {
        Some(Err(JournalError::Unavailable(_))) => true,
        Some(_) => panic!("it was kept while the file was held"),
        None => false,
    };
    let refused = writes.iter_mut().map(refused).filter(|refused| *refused).count();
    // One may be under way.
    assert!((thread::QUEUE - 1..=thread::QUEUE).contains(&refused), "{refused}");
    let more = chain(&head, &[revocation(9)]).unwrap();
    let mut append = store.append(&head, &more).boxed();
    assert!((&mut append).now_or_never().is_none(), "appended while the file was held");
    drop(held);
    append.await.unwrap();
}

/// In the order in which the thread takes them up: whoever waits may hear of it in another one.
#[tokio::test]
async fn what_the_log_waits_for_goes_first() {
    let thread = Thread::start("test", Connection::open_in_memory().unwrap()).unwrap();
    let order = Arc::<std::sync::Mutex<Vec<Lane>>>::default();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let held = thread.run(Lane::Side, move |_, _| {
        gone.recv().unwrap();
        Ok(())
    });
    let mut held = held.boxed();
    assert!((&mut held).now_or_never().is_none());
    let note = |lane| {
        let order = order.clone();
        let noted = thread.run(lane, move |_, _| {
            order.lock().unwrap().push(lane);
            Ok(())
        });
        noted.boxed()
    };
    let mut noted: Vec<_> = [Lane::Side, Lane::Log, Lane::Side, Lane::Log].map(note).into();
    noted.iter_mut().for_each(|noted| assert!(noted.now_or_never().is_none()));
    go.send(()).unwrap();
    held.await.unwrap();
    for noted in noted {
        noted.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [Lane::Log, Lane::Log, Lane::Side, Lane::Side]);
}

/// Half of a snapshot, as a killed broker leaves it, goes with the next one; and a link is none.
#[test]
fn a41_snapshots_are_their_owners_and_halves_are_forgotten() {
    let (dir, path) = file();
    let store = Sqlite::open(&path).unwrap();
    let at = |seq: u64, end: &str| dir.path().join(format!("journal.db-snapshot-{seq:020}{end}"));
    let half = at(3, &format!(".{}", "01".repeat(16)));
    std::fs::write(&half, "half").unwrap();
    // What somebody put there is not ours.
    let theirs =
        [".0123", ".bak", " (copy)", "0", &format!(".{}", "x".repeat(32))].map(|end| at(3, end));
    theirs.iter().for_each(|copy| std::fs::write(copy, "theirs").unwrap());
    store.keep_snapshot(Seq(5), &mut |out| out.write_all(b"five")).unwrap();
    let mode = std::fs::metadata(at(5, "")).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode, store.snapshots().unwrap()), (0o600, vec![Seq(5)]));
    assert!(half.exists());
    store.forget_snapshots(Seq(5)).unwrap();
    assert!(!half.exists() && at(5, "").exists());
    assert!(theirs.iter().all(|copy| std::fs::remove_file(copy).is_ok()));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4, "the log's three and this");
    // What another broker still writes is left to it.
    let other = Sqlite::open(&path).unwrap();
    let forget_meanwhile = &mut |out: &mut dyn std::io::Write| {
        out.write_all(b"fo")?;
        store.forget_snapshots(Seq(5))?;
        out.write_all(b"ur")
    };
    other.keep_snapshot(Seq(4), forget_meanwhile).unwrap();
    assert_eq!(store.snapshots().unwrap(), [Seq(5), Seq(4)]);
    store.forget_snapshots(Seq(5)).unwrap();

    std::os::unix::fs::symlink(at(5, ""), at(6, "")).unwrap();
    assert!(store.snapshot(Seq(5)).is_ok() && store.snapshot(Seq(6)).is_err());
    std::fs::set_permissions(at(5, ""), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(store.snapshot(Seq(5)).is_err());
}

/// A copy was put back under an open store, as a restore by hand does it.
#[tokio::test]
async fn a24_a_file_that_was_replaced_takes_no_more_writes() {
    let (dir, path) = file();
    let head = *filled(&path).await[4].head();
    let store = Sqlite::open(&path).unwrap();
    let copy = dir.path().join("copy.db");
    std::fs::copy(&path, &copy).unwrap();
    std::fs::rename(&copy, &path).unwrap();
    let more = chain(&head, &[revocation(9)]).unwrap();
    assert!(matches!(store.append(&head, &more).await, Err(JournalError::Replaced(_))));
    assert!(matches!(store.confirm().await, Err(JournalError::Replaced(_))));
    assert!(matches!(store.read(&head, 9).await, Err(JournalError::Replaced(_))));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(store.confirm().await, Err(JournalError::Replaced(_))));

    // The file as it was, and no write-ahead log: what was in that is gone.
    let (dir, path) = file();
    filled(&path).await;
    let store = Sqlite::open(&path).unwrap();
    std::fs::remove_file(dir.path().join("journal.db-wal")).unwrap();
    assert!(matches!(store.confirm().await, Err(JournalError::Replaced(_))));
}
