//! A relay that cuts or holds the stream at any byte, and the journal that does not answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::world::{World, until};
use crate::follow::feed::Cast;

/// Lets so many bytes through to the gateways, over all connections, and no more.
struct Relay {
    address: SocketAddr,
    left: AtomicU64,
    cut: AtomicBool,
    /// Whether it then holds connections open, rather than closing them.
    holds: bool,
    healed: Notify,
}

impl Relay {
    async fn to(target: SocketAddr, bytes: u64, holds: bool) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            left: AtomicU64::new(bytes),
            cut: AtomicBool::new(false),
            holds,
            healed: Notify::new(),
        });
        let accepting = relay.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(target).await else { continue };
                let relay = accepting.clone();
                tokio::spawn(async move { relay.pass(near, far).await });
            }
        });
        relay
    }

    async fn pass(&self, near: TcpStream, far: TcpStream) -> Option<()> {
        let (mut from_near, mut to_near) = near.into_split();
        let (mut from_far, mut to_far) = far.into_split();
        let up = async { tokio::io::copy(&mut from_near, &mut to_far).await.ok().map(|_| ()) };
        let down = async {
            let mut buffer = vec![0; 16 * 1024];
            loop {
                let read = from_far.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
                let wanted = u64::try_from(read).unwrap();
                let left = self.left.load(Ordering::SeqCst);
                let passes = usize::try_from(left.min(wanted)).unwrap();
                to_near.write_all(&buffer[..passes]).await.ok()?;
                if left < wanted {
                    self.left.store(0, Ordering::SeqCst);
                    self.cut.store(true, Ordering::SeqCst);
                    if self.holds {
                        self.healed.notified().await;
                    }
                    return None;
                }
                self.left.fetch_sub(wanted, Ordering::SeqCst);
            }
        };
        tokio::select! {
            up = up => up,
            down = down => down,
        }
    }

    fn heal(&self) {
        self.left.store(u64::MAX, Ordering::SeqCst);
        self.healed.notify_waiters();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a20_cut_at_any_byte_denies_after_the_bound_and_heals() {
    let mut world = World::new().await;
    world.revoke(0).await;
    let mut gateways = Vec::new();
    for n in 0..40 {
        let relay = Relay::to(world.address, n * 53, n % 2 == 1).await;
        let gateway = world.gateway(&format!("cut-{n}"), relay.address);
        gateways.push((relay, gateway));
    }
    for (relay, _) in &gateways {
        until("the relay cuts", || relay.cut.load(Ordering::SeqCst)).await;
    }
    world.revoke(1).await;
    world.clock.forward(1_001);
    for (n, (_, gateway)) in gateways.iter().enumerate() {
        assert!(!gateway.is_fresh(), "gateway {n}");
    }
    gateways.iter().for_each(|(relay, _)| relay.heal());
    for (_, gateway) in &gateways {
        until("it heals", || gateway.is_fresh()).await;
        assert_eq!(gateway.knows(), 2, "it is fresh, so it knows everything");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_stop_while_the_journal_does_not_answer() {
    let mut world = World::new().await;
    let gateway = world.gateway("one", world.address);
    until("it is fresh", || gateway.is_fresh()).await;

    world.journal.cut(true);
    // The round under way may still have been answered.
    let rounds = world.hub.rounds();
    until("rounds pass", || world.hub.rounds() >= rounds + 2).await;
    let mut casts = world.hub.listen();
    until("rounds pass", || world.hub.rounds() >= rounds + 5).await;
    while let Ok(cast) = casts.try_recv() {
        assert!(!matches!(*cast, Cast::Beat { .. }), "nothing was confirmed");
    }
    world.clock.forward(1_001);
    assert!(!gateway.is_fresh());

    world.journal.cut(false);
    let seq = world.revoke(1).await;
    until("it heals", || gateway.is_fresh()).await;
    until("it knows", || gateway.knows() == 1).await;
    let standing = || world.hub.instances.standings(world.hub.uptime()).remove(0);
    until("it says so", || standing().enforced >= seq).await;
    assert!(standing().connected && standing().holds(seq) && !standing().holds(seq.next()));
}

/// The head is confirmed, and what lies before it cannot be had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_stop_at_once_while_what_another_broker_appended_cannot_be_read() {
    let mut world = World::new().await;
    let gateway = world.gateway("one", world.address);
    until("it is fresh", || gateway.is_fresh()).await;
    world.journal.blind(true);
    let seq = world.revoke(1).await;
    // The round under way may have confirmed the head before.
    let rounds = world.hub.rounds();
    until("rounds pass", || world.hub.rounds() >= rounds + 2).await;
    let mut casts = world.hub.listen();
    until("rounds pass", || world.hub.rounds() >= rounds + 4).await;
    while let Ok(cast) = casts.try_recv() {
        assert!(!matches!(*cast, Cast::Beat { .. }), "the broker does not know what it confirms");
    }
    world.clock.forward(1_001);
    assert!(!gateway.is_fresh());

    world.journal.blind(false);
    until("it heals", || gateway.is_fresh()).await;
    assert_eq!(gateway.knows(), 1);
    let standing = || world.hub.instances.standings(world.hub.uptime()).remove(0);
    until("it says so", || standing().enforced >= seq).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_counts_until_it_refuses_by_itself() {
    let mut world = World::new().await;
    let gateway = world.gateway("one", world.address);
    until("it is fresh", || gateway.is_fresh()).await;
    let hub = world.hub.clone();
    let standings = || hub.instances.standings(hub.uptime());
    drop(gateway);
    until("it is gone", || standings().iter().all(|standing| !standing.connected)).await;
    let seq = world.revoke(1).await;
    // It may have left a second ago by now: then it is not listed any more.
    assert!(standings().iter().all(|one| !one.holds(seq) && one.refuses_in.is_some()));
    world.clock.forward(1_001);
    assert!(standings().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_does_not_tell_its_keys_again_is_followed_all_the_same() {
    let mut world = World::new().await;
    let relay = Relay::to(world.address, u64::MAX, false).await;
    let gateway = world.gateway("one", relay.address);
    until("it is fresh", || gateway.is_fresh()).await;
    world.mute.store(true, Ordering::SeqCst);
    relay.left.store(0, Ordering::SeqCst);
    until("the relay cuts", || relay.cut.load(Ordering::SeqCst)).await;
    world.clock.forward(1_001);
    assert!(!gateway.is_fresh());
    relay.heal();
    world.revoke(1).await;
    until("it is fresh again", || gateway.is_fresh() && gateway.knows() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_delays_neither_enforcement_nor_its_acknowledgement() {
    let mut world = World::new().await;
    let dir = tempfile::tempdir().unwrap();
    // Whoever opens it to write waits for a reader.
    let pipe = dir.path().join("feed-mark.json.new");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let gateway = world.gateway_of("one", &[world.address], Some(dir.path()));
    until("it is fresh", || gateway.is_fresh()).await;
    let seq = world.revoke(1).await;
    let enforced = || world.hub.instances.standings(world.hub.uptime()).remove(0).enforced;
    until("it says so", || enforced() >= seq).await;
    assert_eq!(gateway.knows(), 1);
    drop(gateway);
    // Lets the writer go, or the test would never end.
    std::fs::rename(&pipe, dir.path().join("pipe")).unwrap();
    let released = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
    let pipe = dir.path().join("pipe");
    let reader = rustix::fs::open(&pipe, released, rustix::fs::Mode::empty()).unwrap();
    drop(reader);
}
