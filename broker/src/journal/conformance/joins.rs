//! What every store must remember for the embedded authority.

use std::collections::BTreeMap;

use super::super::samples::{spiffe, time};
use super::super::*;

pub(super) async fn an_invitation_is_taken_once<S: Store + 'static>(
    store: S,
    again: impl Fn() -> S,
) {
    let (id, secret, key) = ([1; 16], [2; 32], [3; 32]);
    let invitation = Invitation {
        id,
        secret_hash: secret,
        spiffe_id: spiffe("agent/one"),
        expires_at: time(1_000),
    };
    store.invite(&invitation, time(0)).await.unwrap();
    assert_eq!(store.join(&id, &[9; 32], &key, time(1)).await.unwrap(), None);
    assert_eq!(store.join(&[9; 16], &secret, &key, time(1)).await.unwrap(), None);
    assert_eq!(store.join(&id, &secret, &key, time(1_000)).await.unwrap(), None);
    let takers: Vec<_> = (0..8)
        .map(|_| {
            let store = again();
            tokio::spawn(async move { store.join(&id, &secret, &key, time(999)).await.unwrap() })
        })
        .collect();
    let mut taken = Vec::new();
    for taker in takers {
        taken.extend(taker.await.unwrap());
    }
    assert_eq!(taken, [(spiffe("agent/one"), 1)]);
    // Another invitation for the same ID goes on counting.
    store.invite(&Invitation { id: [4; 16], ..invitation.clone() }, time(0)).await.unwrap();
    store.invite(&Invitation { id: [5; 16], ..invitation }, time(1_000)).await.unwrap();
    assert_eq!(store.join(&[4; 16], &secret, &key, time(0)).await.unwrap(), None, "forgotten");
    let joined = store.join(&[5; 16], &secret, &key, time(0)).await.unwrap();
    assert_eq!(joined, Some((spiffe("agent/one"), 2)));
}

const LATER: u64 = DOCUMENT_KEPT.as_secs() * 1000;

/// Joins as `agent/one` by the invitation `n`, for the key `key`.
async fn joined(store: &impl Store, n: u8, key: u8, at: u64) -> u64 {
    let (id, secret_hash) = ([n; 16], [2; 32]);
    let (spiffe_id, expires_at) = (spiffe("agent/one"), time(at + 1_000));
    let invitation = Invitation { id, secret_hash, spiffe_id, expires_at };
    store.invite(&invitation, time(at)).await.unwrap();
    store.join(&id, &secret_hash, &[key; 32], time(at)).await.unwrap().unwrap().1
}

/// Renews the document of `generation` and the first key for the second one.
async fn renewed(
    store: &impl Store,
    generation: u64,
    [key, next]: [u8; 2],
    due: bool,
    at: u64,
) -> Renewal {
    let (spiffe_id, key_hash, next_key_hash) = (spiffe("agent/one"), [key; 32], [next; 32]);
    let renew = Renew { spiffe_id, generation, key_hash, next_key_hash, due };
    store.renew(&renew, time(at)).await.unwrap()
}

fn granted(generation: u64, at: u64) -> Renewal {
    Renewal::Granted { generation, issued_at: time(at) }
}

pub(super) async fn two_renewals_of_one_generation_lock<S: Store>(store: S, again: impl Fn() -> S) {
    let id = spiffe("agent/one");
    let renew = async |generation, keys| renewed(&again(), generation, keys, true, 7).await;
    assert_eq!(renew(1, [10, 11]).await, Renewal::Unknown);
    assert_eq!((joined(&store, 1, 10, 0).await, joined(&store, 2, 20, 0).await), (1, 2));
    assert_eq!(renew(3, [10, 11]).await, Renewal::Unknown);
    assert_eq!(renew(1, [20, 11]).await, Renewal::Unknown, "the key of another document");
    assert_eq!(renew(1, [10, 11]).await, granted(3, 7));
    assert_eq!(renew(2, [20, 21]).await, granted(4, 7), "another process of the same ID");
    let lost = renewed(&store, 1, [10, 11], false, 9).await;
    assert_eq!(lost, granted(3, 7), "an answer that was lost is the same one, due or not");
    assert_eq!(store.floors().await.unwrap(), BTreeMap::new());
    let forked = renewed(&store, 1, [10, 66], false, 9).await;
    assert_eq!(forked, Renewal::Forked, "a second renewal locks, due or not");
    assert_eq!(again().floors().await.unwrap(), BTreeMap::from([(id.clone(), Floor::Locked)]));
    assert_eq!(renew(3, [11, 12]).await, Renewal::Locked);
    assert_eq!(renew(4, [21, 22]).await, Renewal::Locked);
    assert_eq!(joined(&store, 3, 30, 0).await, 5);
    assert_eq!(again().floors().await.unwrap(), BTreeMap::from([(id.clone(), Floor::From(5))]));
    assert_eq!(renew(3, [11, 12]).await, Renewal::Unknown, "from before the lock");
    assert_eq!(renew(1, [10, 66]).await, Renewal::Unknown, "and it does not lock again");
    assert_eq!(renew(5, [30, 31]).await, granted(6, 7));
    assert_eq!(joined(&store, 4, 40, 0).await, 7, "a join that unlocks nothing");
    assert_eq!(store.floors().await.unwrap(), BTreeMap::from([(id.clone(), Floor::From(5))]));
    assert_eq!(renew(5, [30, 66]).await, Renewal::Forked);
    assert_eq!(again().floors().await.unwrap(), BTreeMap::from([(id, Floor::Locked)]));
}

pub(super) async fn what_is_not_due_is_not_renewed<S: Store>(store: S, again: impl Fn() -> S) {
    joined(&store, 1, 10, 0).await;
    assert_eq!(renewed(&again(), 1, [10, 11], false, 1).await, Renewal::TooEarly);
    assert_eq!(renewed(&again(), 1, [10, 12], true, 2).await, granted(2, 2), "nothing is kept");
}

pub(super) async fn documents_are_forgotten_and_floors_with_the_last_of_them<S: Store>(
    store: S,
    again: impl Fn() -> S,
) {
    let id = spiffe("agent/one");
    joined(&store, 1, 10, 0).await;
    assert_eq!(renewed(&store, 1, [10, 11], true, 5).await, granted(2, 5));
    assert_eq!(renewed(&store, 1, [10, 12], true, 6).await, Renewal::Forked);
    // The first document is forgotten, the second is not, and the lock stays with it.
    let other = Invitation {
        id: [9; 16],
        secret_hash: [2; 32],
        spiffe_id: spiffe("agent/two"),
        expires_at: time(LATER * 2),
    };
    store.invite(&other, time(0)).await.unwrap();
    let of_another = store.join(&[9; 16], &[2; 32], &[1; 32], time(LATER)).await.unwrap();
    assert_eq!(of_another, Some((spiffe("agent/two"), 1)));
    assert_eq!(renewed(&again(), 1, [10, 11], true, LATER).await, Renewal::Unknown);
    assert_eq!(renewed(&again(), 2, [11, 12], true, LATER).await, Renewal::Locked);
    // With the last one the ID begins anew.
    assert_eq!(joined(&store, 2, 30, LATER + 5).await, 1);
    assert_eq!(again().floors().await.unwrap().get(&id), None);
}
