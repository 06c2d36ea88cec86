//! An agent goes on where its brokers die: while it waits, in the middle of an exchange, before it
//! starts, and for good, where there is another.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dayfly_agent::case::Case;
use dayfly_agent::client::{Client, Outcome};
use dayfly_agent::ticket::{Ask, Ticket};
use dayfly_verifier::scope::Scope;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::parties::{approve, now};
use crate::world::{SHOP, World, free_port, serve};

const AGENT: &str = "agent/refunds";

fn ask(right: &str, constraint: Option<&str>) -> Ask {
    let constraint = constraint.map(|constraint| constraint.parse().unwrap());
    let scope = Scope::new([right.parse().unwrap()], constraint).unwrap();
    let audience = format!("{SHOP}/gateway/orders").parse().unwrap();
    Ask::new(audience, scope, "case-7".parse().unwrap(), "customer-support".parse().unwrap())
}

fn reading() -> Ask {
    ask("read orders/prod/o-17", None)
}

/// How often the record says this.
fn recorded(world: &World, what: &str) -> usize {
    let told = world.run("person/olga", &["audit", "tail", "--once"]);
    assert!(told.status.success(), "{told:?}");
    String::from_utf8_lossy(&told.stdout).matches(what).count()
}

/// Waits until it is so; for 20 s at most.
async fn until(mut is_so: impl FnMut() -> bool) {
    let looking = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let came = tokio::time::timeout(Duration::from_secs(20), looking).await;
    assert!(came.is_ok(), "it never came to that");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_while_one_waits_is_waited_for() {
    let mut world = World::start("");
    let dir = world.identity(AGENT);
    let client = Client::connect(&dir).await.unwrap();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.acquire(reading()).await }
    });
    let mut filed: Vec<Case> = Vec::new();
    while filed.is_empty() {
        filed = client.list().await.unwrap();
    }
    world.kill();
    world.serve();
    approve(&world, "ana", &filed[0].grant.to_string()).await.unwrap();
    let grant = waiting.await.unwrap().unwrap();
    let held = grant.token().await.unwrap();
    // Held over the next death, too; and what is told in the middle of one is told in the end.
    world.kill();
    assert_eq!(grant.token().await.unwrap().token.expose(), held.token.expose());
    let completing = tokio::spawn(async move { grant.complete(Outcome::Succeeded).await });
    world.serve();
    completing.await.unwrap().unwrap();
    assert_eq!([recorded(&world, "asked for"), recorded(&world, "recorded token")], [1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_starts_before_its_broker_takes_up_its_ticket() {
    let mut world = World::start("");
    let (dir, file) = (world.identity(AGENT), world.path("ticket"));
    let client = Client::connect(&dir).await.unwrap();
    let ticket = Ticket::draw(reading(), now()).unwrap();
    ticket.save(&file).unwrap();
    let case = client.file(&ticket).await.unwrap();
    drop((client, ticket));
    world.kill();
    let starting = tokio::spawn(async move { Client::connect(&dir).await });
    world.serve();
    let client = starting.await.unwrap().unwrap();
    approve(&world, "ana", &case.grant.to_string()).await.unwrap();
    let grant = client.hold(Ticket::load(&file).unwrap()).await.unwrap();
    grant.token().await.unwrap();
    assert_eq!(recorded(&world, "asked for"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_died_with_the_broker_is_the_same_token_afterwards() {
    let mut world = World::start("");
    let deaf = Arc::new(AtomicBool::new(false));
    let relay = relay(world.address(), deaf.clone()).await;
    let dir = world.identity(AGENT);
    addresses(&dir, &[relay]);
    let client = Client::connect(&dir).await.unwrap().patient_for(Duration::from_secs(60));
    let grant = client.acquire(ask("refund orders/prod/o-17", Some("amount <= 500"))).await;
    let grant = Arc::new(grant.unwrap());
    deaf.store(true, Ordering::SeqCst);
    let asking = tokio::spawn({
        let grant = grant.clone();
        async move { grant.token().await }
    });
    until(|| recorded(&world, "recorded token") == 1).await;
    assert!(!asking.is_finished(), "the answer was to be lost");
    world.kill();
    deaf.store(false, Ordering::SeqCst);
    world.serve();
    asking.await.unwrap().unwrap();
    assert_eq!(recorded(&world, "recorded token"), 1, "a second one was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_broker_dies_for_good_the_agent_goes_on_with_the_other() {
    let mut world = World::start("");
    let dir = world.identity(AGENT);
    let other = Other::start(&world);
    addresses(&dir, &[world.address(), other.address]);
    let client = Client::connect(&dir).await.unwrap();
    // What the first has just filed the other knows at once.
    let beside = world.path("beside");
    std::fs::create_dir(&beside).unwrap();
    for file in std::fs::read_dir(&dir).unwrap().map(Result::unwrap) {
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), beside.join(file.file_name())).unwrap();
        }
    }
    addresses(&beside, &[other.address]);
    let beside = Client::connect(&beside).await.unwrap();
    for _ in 0..20 {
        let (ticket, _) = client.request(reading()).await.unwrap();
        beside.cancel(&ticket).await.unwrap();
    }
    let (ticket, case) = client.request(reading()).await.unwrap();
    approve(&world, "ana", &case.grant.to_string()).await.unwrap();
    let grant = client.hold(ticket).await.unwrap();
    world.kill();
    grant.token().await.unwrap();
    grant.complete(Outcome::Succeeded).await.unwrap();
}

/// Another broker on the same journal. Dropping it kills it.
struct Other {
    address: SocketAddr,
    process: Child,
}

impl Other {
    fn start(world: &World) -> Self {
        let [address, join, http] = [free_port(), free_port(), free_port()];
        let log = world.path("other.log");
        Self { address, process: serve(&world.config(), [address, join, http], &log) }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.process.kill();
        let _waited = self.process.wait();
    }
}

/// Has an identity look for its brokers here.
fn addresses(dir: &Path, addresses: &[SocketAddr]) {
    let file = dir.join("identity.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let kept = text.lines().filter(|line| !line.starts_with("addresses"));
    let listed: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let all: Vec<_> =
        kept.map(str::to_owned).chain([format!("addresses = {listed:?}\n")]).collect();
    std::fs::write(&file, all.join("\n")).unwrap();
}

/// A way to the broker on which its answers are lost while it is `deaf`.
async fn relay(to: SocketAddr, deaf: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = TcpStream::connect(to).await else { continue };
            let (mut from_near, mut to_near) = near.into_split();
            let (mut from_far, mut to_far) = far.into_split();
            let deaf = deaf.clone();
            tokio::spawn(async move { tokio::io::copy(&mut from_near, &mut to_far).await });
            tokio::spawn(async move {
                let mut buffer = vec![0; 16 * 1024];
                while let Ok(read @ 1..) = from_far.read(&mut buffer).await {
                    if !deaf.load(Ordering::SeqCst) {
                        to_near.write_all(&buffer[..read]).await?;
                    }
                }
                to_near.shutdown().await
            });
        }
    });
    address
}
