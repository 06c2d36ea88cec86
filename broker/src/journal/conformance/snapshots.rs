//! Snapshots, as every store must keep them.

use std::io::{Error, Read as _};

use super::*;

fn content(store: &impl Snapshots, seq: u64) -> String {
    let mut content = String::new();
    store.snapshot(Seq(seq)).unwrap().read_to_string(&mut content).unwrap();
    content
}

pub(super) async fn snapshots_are_kept_whole_and_forgotten_by_place<S: Store>(
    store: S,
    again: impl Fn() -> S,
) {
    let places = |store: &S| -> Vec<u64> {
        store.snapshots().unwrap().into_iter().map(|seq| seq.0).collect()
    };
    let keep = |store: &S, seq, text: &str| {
        store.keep_snapshot(Seq(seq), &mut |out| {
            let (one, other) = text.split_at(text.len() / 2);
            out.write_all(one.as_bytes())?;
            out.write_all(other.as_bytes())
        })
    };
    assert_eq!(places(&store), Vec::<u64>::new());
    assert!(store.snapshot(Seq(7)).is_err());
    keep(&store, 7, "seven").unwrap();
    keep(&store, 11, "eleven").unwrap();
    keep(&again(), 9, "nine").unwrap();
    assert_eq!(places(&again()), [11, 9, 7]);
    assert_eq!(content(&again(), 9), "nine");
    // Another one at the same place, as another broker would keep it.
    keep(&again(), 9, "nine, too").unwrap();
    assert_eq!((places(&store), content(&store, 9)), (vec![11, 9, 7], "nine, too".to_owned()));

    // One that was not written to its end is none, and leaves the one before as it was.
    for seq in [9, 13] {
        let failed = store.keep_snapshot(Seq(seq), &mut |out| {
            out.write_all(b"half")?;
            Err(Error::other("no more"))
        });
        assert!(failed.is_err());
    }
    assert_eq!((places(&store), content(&store, 9)), (vec![11, 9, 7], "nine, too".to_owned()));

    again().forget_snapshots(Seq(11)).unwrap();
    assert_eq!((places(&store), content(&store, 11)), (vec![11], "eleven".to_owned()));
    store.forget_snapshots(Seq(11)).unwrap();
    assert_eq!(places(&store), [11]);
}
