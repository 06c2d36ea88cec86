//! Two brokers, each a process of its own, over one directory: what one did the other knows, and
//! one whose log is not the one that it followed decides nothing more.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use dayfly_agent::session::Session;
use dayfly_proto::v1::revocation_target::Target;
use dayfly_verifier::id::ExchangeId;
use dayfly_verifier::time::SystemClock;
use rustix::process::{Pid, Signal, kill_process};
use tonic::Code;

use crate::guarded::{Gateway, Opening};
use crate::parties::{Agent, Use, approve, approve_over, now, random, revoke, revoke_over};
use crate::world::{SHOP, World, free_port, get, serve};

/// The second broker. The first one is the world's.
struct Second {
    child: Child,
    broker: SocketAddr,
    http: SocketAddr,
}

impl Second {
    /// Starts a broker with the name `b` beside the one of `world`, as its operator would: by a
    /// configuration of its own in the same directory.
    fn beside(world: &mut World) -> Self {
        let [broker, join, http] = [free_port(), free_port(), free_port()];
        let first = world.address();
        let config = world.path("broker/b.toml");
        let text = format!(
            "trust_domain = \"shop.test\"\nname = \"b\"\n\n[[peer]]\naddress = \"{first}\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let child = serve(&config, [broker, join, http], &world.path("b.log"));
        let mut text = std::fs::read_to_string(world.config()).unwrap();
        text.push_str(&format!("\n[[peer]]\nname = \"b\"\naddress = \"{broker}\"\n"));
        std::fs::write(world.config(), text).unwrap();
        world.kill();
        world.serve();
        Self { child, broker, http }
    }

    /// A connection as `path` to this broker alone.
    async fn session(&self, world: &World, path: &str) -> Arc<Session> {
        let (first, dir) = (world.identity(path), world.path(&format!("b-{path}")));
        dayfly_agent::files::private_dir(&dir).unwrap();
        for file in std::fs::read_dir(first).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), dir.join(file.file_name())).unwrap();
        }
        let brokers =
            format!("brokers = [\"{SHOP}/dayfly/broker/b\"]\naddresses = [\"{}\"]\n", self.broker);
        std::fs::write(dir.join("identity.toml"), brokers).unwrap();
        Session::open(&dir, Arc::new(SystemClock)).await.unwrap()
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}

fn exchange_id() -> String {
    ExchangeId::draw(now(), random()).to_string()
}

#[tokio::test]
async fn asked_at_one_approved_at_the_other_exchanged_at_either() {
    let mut world = World::start("");
    let second = Second::beside(&mut world);
    let agent = Agent::new(&world, "agent/refunds").await;
    let at_b = Agent { session: second.session(&world, "agent/refunds").await, ..agent.clone() };
    let gateway = second.session(&world, "gateway/orders").await;
    let opening = Opening::usual(Duration::from_secs(5));
    let gateway = Gateway::run(gateway, &world.trust_root(), opening).await;

    let request = agent.ask("read orders/prod/o-17", None).await;
    let ana = second.session(&world, "person/ana").await;
    approve_over(&ana, "ana", &request.grant_id).await.unwrap();
    let exchange = exchange_id();
    let held = agent.exchange_as(&request.request_id, &exchange).await.unwrap();
    let again = at_b.exchange_as(&request.request_id, &exchange).await.unwrap();
    assert!(again.token == held.token, "another broker, other bytes");
    let other = at_b.exchange(&request.request_id).await.unwrap();
    assert!(other.token == held.token, "a second token while the first is fresh");

    let shown = Use { key: &agent.key, token: &held.token, order: "o-17", refund: None };
    shown.until(&gateway, 200).await;
    revoke(&world, Target::Grant(request.grant_id)).await;
    let refused = at_b.exchange_as(&request.request_id, &exchange).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    shown.until(&gateway, 401).await;

    // Whoever joined one of them knows both, and goes to the one that is there.
    let known = std::fs::read_to_string(world.identity("agent/late").join("identity.toml"));
    let known = known.unwrap();
    let both = [format!("{SHOP}/dayfly/broker\""), format!("{SHOP}/dayfly/broker/b\"")];
    assert!(both.iter().all(|id| known.contains(id)), "{known}");
    assert!(known.contains(&second.broker.to_string()), "{known}");
    let olga = world.identity("person/olga");
    world.kill();
    let status = world.dayfly(Some(&olga), &["status"], &[]);
    let shown = String::from_utf8(status.stdout).unwrap();
    assert!(status.status.success() && shown.contains("/dayfly/broker/b"), "{shown}");
}

#[tokio::test]
async fn a15_exchanges_under_one_id_at_two_brokers_are_one_token() {
    const GRANTS: usize = 4;
    let mut world = World::start("");
    let second = Second::beside(&mut world);
    let agent = Agent::new(&world, "agent/refunds").await;
    let at_b = Agent { session: second.session(&world, "agent/refunds").await, ..agent.clone() };
    let mut exchanges = Vec::new();
    for n in 0..GRANTS {
        let request = agent.ask("refund orders/prod/o-17", Some(500)).await.request_id;
        let exchange = exchange_id();
        for call in 0..64 {
            let agent = if call % 2 == 0 { agent.clone() } else { at_b.clone() };
            let (request, exchange) = (request.clone(), exchange.clone());
            let call = async move { agent.exchange_as(&request, &exchange).await };
            exchanges.push((n, tokio::spawn(call)));
        }
    }
    let mut tokens = std::collections::BTreeSet::new();
    for (n, exchange) in exchanges {
        tokens.insert((n, exchange.await.unwrap().unwrap().token));
    }
    assert_eq!(tokens.len(), GRANTS);
}

/// Stopped with an exchange in hand, woken after another broker revoked the grant.
#[tokio::test]
async fn a24_a_broker_that_was_stopped_is_fenced_when_it_wakes() {
    let mut world = World::start("");
    let second = Second::beside(&mut world);
    let agent = Agent::new(&world, "agent/refunds").await;
    let olga = second.session(&world, "person/olga").await;
    let pid = Pid::from_child(world.process());
    for _ in 0..5 {
        let (request, held) = agent.reading(&world).await;
        // Stopped in the middle of a write it holds the file; then there is nothing to be seen.
        let revoked = loop {
            kill_process(pid, Signal::STOP).unwrap();
            let target = Target::Grant(request.grant_id.clone());
            match revoke_over(&olga, target).await {
                Ok(revoked) => break revoked,
                Err(error) => assert_eq!(error.code(), Code::Unavailable, "{error:?}"),
            }
            kill_process(pid, Signal::CONT).unwrap();
        };
        assert!(revoked.ended_grants.contains(&request.grant_id));
        let late = agent.exchange(&request.request_id);
        let (late, ()) = tokio::join!(late, async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            kill_process(pid, Signal::CONT).unwrap();
        });
        let late = late.unwrap_err();
        assert_eq!(late.code(), Code::PermissionDenied, "{late:?}");
        assert!(!late.message().contains(&held.token));
    }
}

/// What `/readyz` says once it says that the broker never will be.
async fn given_up(http: SocketAddr) -> String {
    for _ in 0..1_000 {
        if let Some(said) = get(http, "/readyz").filter(|said| said.contains("not ready: ")) {
            return said;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the broker still serves: {:?}", get(http, "/readyz"));
}

/// It decides nothing more, says so, keeps gateways from believing it, and ends when told to.
async fn has_stopped(world: &mut World, http: SocketAddr, agent: &Agent, why: &str) {
    let said = given_up(http).await;
    assert!(said.contains(" 503 ") && said.contains(why), "{said}");
    assert!(!said.contains("journal.db") && !said.contains(" at "), "told to anybody: {said}");
    let asked = agent.file(agent.filing(crate::parties::scope("read orders/prod/o-1", None))).await;
    // The connection may be cut under the call.
    let refused = asked.unwrap_err();
    let codes = [Code::Unavailable, Code::Cancelled];
    assert!(codes.contains(&refused.code()), "{refused:?}");
    assert!(world.log().contains("stopped deciding"), "{}", world.log());
    let process = world.process();
    assert!(process.try_wait().unwrap().is_none(), "a supervisor would start it again");
    kill_process(Pid::from_child(process), Signal::TERM).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(1));
}

/// An older state is put into the file while the broker runs, as a restore through SQLite does it.
#[tokio::test]
async fn a24_a_log_that_went_back_under_a_running_broker_stops_it() {
    let mut world = World::start("");
    let agent = Agent::new(&world, "agent/refunds").await;
    let (request, _) = agent.reading(&world).await;
    let old = rusqlite::Connection::open(world.path("broker/journal.db")).unwrap();
    let end = |name: &str| {
        let select = format!("SELECT {name} FROM head");
        old.query_row(&select, (), |row| row.get::<_, i64>(0)).unwrap()
    };
    let seq = end("seq");
    revoke(&world, Target::Grant(request.grant_id)).await;
    assert!(end("seq") > seq);
    old.execute_batch(&format!(
        "BEGIN IMMEDIATE; DELETE FROM entry WHERE seq > {seq};
         UPDATE head SET (epoch, seq, hash) =
             (SELECT epoch, seq, hash FROM entry WHERE seq = {seq}); COMMIT;"
    ))
    .unwrap();
    let http = world.http();
    has_stopped(&mut world, http, &agent, "the log is not the one that was followed").await;
}

/// A copy of the files is put in the place of those that the broker has open.
#[tokio::test]
async fn a24_files_that_were_replaced_under_a_running_broker_stop_it() {
    let mut world = World::start("");
    let agent = Agent::new(&world, "agent/refunds").await;
    let (request, _) = agent.reading(&world).await;
    let files = ["journal.db", "journal.db-wal", "journal.db-shm"];
    let at = |dir: &str, file: &str| world.path(dir).join(file);
    std::fs::create_dir(world.path("old")).unwrap();
    let copy = |from: &Path, to: &Path| std::fs::copy(from, to).map(drop);
    files.iter().for_each(|file| copy(&at("broker", file), &at("old", file)).unwrap());
    revoke(&world, Target::Grant(request.grant_id)).await;
    files.iter().for_each(|file| std::fs::remove_file(at("broker", file)).unwrap());
    files.iter().for_each(|file| copy(&at("old", file), &at("broker", file)).unwrap());
    let http = world.http();
    has_stopped(&mut world, http, &agent, "was replaced or removed").await;
}

/// The turn of a broker that was killed does not stand in the way of the other.
#[tokio::test]
async fn one_broker_goes_on_when_the_other_is_killed() {
    let mut world = World::start("");
    let second = Second::beside(&mut world);
    let agent = Agent::new(&world, "agent/refunds").await;
    let at_b = Agent { session: second.session(&world, "agent/refunds").await, ..agent.clone() };
    let (request, held) = agent.reading(&world).await;
    world.kill();
    let again = at_b.exchange(&request.request_id).await.unwrap();
    assert!(again.token == held.token);
    assert!(get(second.http, "/readyz").is_some_and(|said| said.contains(" 200 ")));
    world.serve();
    let other = agent.ask("read orders/prod/o-18", None).await;
    approve(&world, "ana", &other.grant_id).await.unwrap();
    at_b.exchange(&other.request_id).await.unwrap();
}
