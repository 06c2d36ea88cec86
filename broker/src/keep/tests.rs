#![expect(clippy::arithmetic_side_effects, reason = "an overflow is a failed test")]

use std::sync::Arc;

use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::KeyId;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::{SystemClock, Timestamp};
use tokio::task::JoinHandle;

use super::*;
use crate::core::event::Head;
use crate::core::limits::Limits;
use crate::journal::samples::{self, holder_key};
use crate::journal::{Journal as _, Memory, Snapshots as _, chain};

const EVERY: u64 = 10;

/// A broker that keeps snapshots, on a store of this process.
struct Broker {
    sequencer: Sequencer,
    started_from: Seq,
    keeping: JoinHandle<()>,
    next: u32,
}

impl Broker {
    async fn start(memory: &Memory) -> Self {
        let store: Arc<dyn Store> = Arc::new(memory.clone());
        let clock = Arc::new(SystemClock);
        let opened = Sequencer::open(store.clone(), clock, Limits::default()).await;
        let (sequencer, deciding, started_from) = opened.unwrap();
        tokio::spawn(deciding.run());
        let itself: SpiffeId = "spiffe://t.test/dayfly/broker".parse().unwrap();
        let itself = Caller::itself(itself);
        let every = EVERY;
        let keeper = Keeper { sequencer: sequencer.clone(), store, itself, every, started_from };
        let next = u32::try_from(sequencer.state().keys.len()).unwrap();
        Self { sequencer, started_from, keeping: tokio::spawn(keeper.run()), next }
    }

    /// Has this many entries appended.
    async fn write(&mut self, entries: u64) {
        for _ in 0..entries {
            let public: HolderKey = holder_key();
            let not_after = Timestamp::default().plus(Duration::MAX);
            self.next += 1;
            let command = Command::AddKey { key: KeyId(self.next), public, not_after };
            let itself = Caller::itself("spiffe://t.test/dayfly/broker".parse().unwrap());
            self.sequencer.submit(command, itself).await.unwrap();
        }
    }

    /// The place of the last snapshot, once it is later than `before`.
    async fn kept_after(&self, before: u64) -> Seq {
        until(|| self.sequencer.state().snapshot.0 > before).await;
        self.sequencer.state().snapshot
    }
}

/// Waits until it is so; for 20 s at most.
async fn until(is_so: impl Fn() -> bool) {
    let looking = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looking).await.unwrap();
}

async fn founded() -> Memory {
    let memory = Memory::default();
    let entries = chain(&Head::ORIGIN, &[samples::opening(), samples::applied()]).unwrap();
    memory.append(&Head::ORIGIN, &entries).await.unwrap();
    memory
}

#[tokio::test]
async fn the_last_snapshot_is_kept_and_started_from() {
    let memory = founded().await;
    let mut broker = Broker::start(&memory).await;
    broker.write(EVERY - 3).await;
    assert_eq!(broker.sequencer.state().snapshot, Seq(0), "too few entries");
    broker.write(1).await;
    let first = broker.kept_after(0).await;
    assert_eq!(first, Seq(EVERY));
    broker.write(EVERY).await;
    let second = broker.kept_after(first.0).await;
    // What came before it goes once it is on record.
    until(|| memory.snapshots().unwrap() == [second]).await;
    broker.write(2).await;
    let state = broker.sequencer.state();
    let again = Broker::start(&memory).await;
    assert_eq!(again.started_from, second);
    assert_eq!(*again.sequencer.state(), *state);
}

#[tokio::test]
#[expect(clippy::await_holding_lock, reason = "what waits for it is another thread")]
async fn nothing_waits_for_a_snapshot() {
    let memory = founded().await;
    let mut broker = Broker::start(&memory).await;
    let held = memory.hold_snapshots();
    broker.write(5 * EVERY).await;
    assert_eq!(broker.sequencer.state().snapshot, Seq(0));
    drop(held);
    broker.kept_after(0).await;
}

/// One that cannot be taken up is replaced at once, not only when many entries have come.
#[tokio::test]
async fn a_snapshot_that_is_lost_is_taken_anew() {
    let memory = founded().await;
    let mut broker = Broker::start(&memory).await;
    broker.write(EVERY).await;
    let kept = broker.kept_after(0).await;
    broker.keeping.abort();
    memory.forget_snapshots(Seq(u64::MAX)).unwrap();
    let again = Broker::start(&memory).await;
    assert_eq!(again.started_from, Seq(0));
    assert!(again.kept_after(kept.0).await > kept);
}
