//! A snapshot that comes in parts.

use dayfly_verifier::feed::{Message, Refused};

use super::{refuses, trusting};

#[test]
fn an_empty_entry_is_refused_where_it_comes() {
    let mut follower = trusting();
    let part = Message::Snapshot(vec![vec![0; 8], vec![]], None);
    assert_eq!(refuses(&mut follower, &part), Refused::Malformed);
}

#[test]
fn small_entries_count_with_what_it_takes_to_keep_them() {
    let mut follower = trusting();
    let part = Message::Snapshot(vec![vec![1]; 1024 * 1024], None);
    let refused = (0..4).find_map(|_| {
        let taken = follower.receive(&part, super::at(0), super::up(0));
        taken.err()
    });
    assert_eq!(refused, Some(Refused::TooLarge), "65 bytes each");
    assert!(!follower.receive(&part, super::at(0), super::up(0)).unwrap(), "counted anew");
}
