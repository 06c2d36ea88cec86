use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;

use super::*;
use crate::feed::{End, GatewayView, Mark, Rests, Running, Source, feed_start};
use crate::holder::HolderKey;
use crate::id::{ChainHash, Epoch, FeedId, Seq};
use crate::revocations::Revocations;
use crate::time::SystemClock;
use crate::trust::Statement;

const ROOT: [u8; 32] = [1; 32];

fn statement(version: u64, epoch: u8) -> Statement {
    Statement {
        version,
        feed: FeedId::new([7; 16]),
        epoch: Epoch::new([epoch; 16]),
        token_keys: BTreeMap::new(),
        feed_keys: BTreeMap::new(),
    }
}

fn signed(version: u64, epoch: u8) -> Signed {
    statement(version, epoch).sign(&SigningKey::from_bytes(&ROOT)).unwrap()
}

fn config(dir: Option<PathBuf>) -> Config {
    let root = SigningKey::from_bytes(&ROOT).verifying_key();
    let root = HolderKey::from_slice(root.as_bytes()).unwrap();
    let profile = Profile::new(root, Duration::from_secs(5), Source::Direct).unwrap();
    Config { profile, instance: "one".parse().unwrap(), dir, brokers: Vec::new() }
}

/// A use of what is held for so long, that rests until then.
fn used(enforcer: &Arc<Enforcer>, fresh_for: Duration, lasts: Duration) -> Running {
    let (now, uptime) = (SystemClock.now(), SystemClock.uptime());
    let until = uptime.saturating_add(fresh_for);
    let view = GatewayView::for_test(statement(1, 1), Revocations::default(), 1, until);
    enforcer.publish(view, now, uptime);
    enforcer.register(Rests::until(now.plus(lasts)), |_| true)
}

async fn ends(running: &Running) -> Option<crate::feed::Ended> {
    timeout(Duration::from_secs(30), running.wait()).await.ok()
}

#[tokio::test]
async fn what_runs_ends_by_itself_though_nobody_follows_any_more() {
    let (enforcer, client) = follow(config(None), Arc::new(SystemClock)).unwrap();
    let (moment, hour) = (Duration::from_millis(20), Duration::from_secs(3600));
    // With nobody to ask it is over at once, as if it had failed.
    client.run().await;
    let stale = used(&enforcer, moment, hour);
    assert_eq!(ends(&stale).await, Some(crate::feed::Ended::Stale));
    let expired = used(&enforcer, hour, moment);
    assert_eq!(ends(&expired).await, Some(crate::feed::Ended::Expired));
    let alarm = enforcer.at(SystemClock.uptime());
    assert_eq!(ends(&alarm).await, Some(crate::feed::Ended::Due), "what drains");
}

#[tokio::test]
async fn nobody_looks_after_what_nobody_has() {
    let (enforcer, client) = follow(config(None), Arc::new(SystemClock)).unwrap();
    client.run().await;
    let gone = Arc::downgrade(&enforcer);
    drop(enforcer);
    let ticking = async {
        while gone.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), ticking).await.unwrap();
}

/// The snapshot of the epoch before is still on its way, from a broker that goes on with the next.
#[tokio::test]
async fn a22_no_other_epoch_is_entered_on_the_stream_of_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let epoch = Epoch::new([1; 16]);
    let end = End {
        feed: FeedId::new([7; 16]),
        epoch,
        seq: Seq(1),
        journal: ChainHash::new([1; 32]),
        hash: feed_start(&epoch),
    };
    let mark = Mark { trust: 1, end: Some(end), ..Mark::default() };
    Store::open(dir.path()).unwrap().save(&mark).unwrap();
    let clock = Arc::new(SystemClock);
    let (_enforcer, mut client) = follow(config(Some(dir.path().to_owned())), clock).unwrap();
    let (acks, mut told) = mpsc::channel(4);
    for version in [1, 2] {
        client.trust_meanwhile(&signed(version, 1), &acks).await.unwrap();
        assert!(told.try_recv().is_ok(), "it is told that the keys are known");
    }
    assert!(!client.follower.holds());
    let entered = client.trust_meanwhile(&signed(3, 2), &acks).await;
    assert!(matches!(entered, Err(Left::OtherEpoch)), "{entered:?}");
    assert!(told.try_recv().is_err());
    // The next stream begins once the disk knows.
    assert!(client.follower.enters_epoch() && client.keeper.is_none());
}
