//! `kill -9` of the broker at many moments under load. Those who work with it keep what they were
//! answered; whatever was answered must stand in the record, once, and nothing may come back.
//!
//! How often it is killed: `DAYFLY_TEST_KILLS`.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dayfly_agent::errors::{Error, Reason};
use dayfly_agent::session::Session;
use dayfly_proto::v1;
use dayfly_proto::v1::gateway_service_client::GatewayServiceClient;
use dayfly_proto::v1::revocation_target::Target;
use dayfly_verifier::id::{ExchangeId, UseId};
use serde_json::Value as Json;
use tonic::Status;

use crate::parties::{Agent, approve_over, now, random, revoke_over, scope};
use crate::world::World;

const WORKERS: usize = 6;
/// How often it is killed, unless something else is said.
const KILLS: usize = 40;
/// How long an answer is waited for: a broker that was killed gives none.
const ANSWER: Duration = Duration::from_secs(5);
/// After how many kills the file of the journal is looked at, with no broker on it.
const LOOK_EVERY: usize = 20;

/// What a client was answered.
#[derive(Debug, Clone)]
enum Ack {
    Filed { request: String },
    Approved { grant: String },
    Exchanged { grant: String, exchange: String, token: String },
    Redeemed { grant: String, use_id: String },
    Revoked { grant: String, head: v1::Head },
    Completed { grant: String, head: v1::Head },
}

/// All that clients keep, and when they are to stop.
#[derive(Default)]
struct Kept {
    acks: Mutex<Vec<Ack>>,
    count: AtomicUsize,
    over: AtomicBool,
}

impl Kept {
    fn keep(&self, ack: Ack) {
        self.acks.lock().unwrap().push(ack);
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

/// Says that it is over when it goes, on a failure too.
struct Over(Arc<Kept>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
    }
}

/// Asks the same again until it is answered; says whether an earlier attempt was not.
async fn answered<T>(
    mut call: impl AsyncFnMut() -> Result<T, Status>,
) -> (Result<T, Reason>, bool) {
    let mut again = false;
    loop {
        let answer = tokio::time::timeout(ANSWER, call()).await;
        match answer.map(|answer| answer.map_err(Error::from)) {
            Ok(Ok(answer)) => return (Ok(answer), again),
            Ok(Err(error)) => match error.reason() {
                None => {}
                Some(reason) => return (Err(reason), again),
            },
            Err(_) => {}
        }
        again = true;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

/// One workload, and those who answer for it.
struct Worker {
    number: usize,
    agent: Agent,
    ana: Arc<Session>,
    olga: Arc<Session>,
    orders: Arc<Session>,
    kept: Arc<Kept>,
}

/// What became of one grant: how it is asked for again, and the refusal that is due.
struct Ended {
    agent: Agent,
    request: String,
    exchange: String,
    because: Reason,
}

impl Worker {
    /// One grant after another, until it is over.
    async fn run(self) -> Vec<Ended> {
        let mut ended = Vec::new();
        for n in 0.. {
            if self.kept.over.load(Ordering::SeqCst) {
                break;
            }
            match self.grant(n).await {
                Some(end) => ended.push(end),
                // So many requests are remembered of one workload, and no more.
                None => break,
            }
        }
        ended
    }

    async fn grant(&self, n: usize) -> Option<Ended> {
        let reads = n % 3 == 1;
        let right = if reads { "read orders/prod/o-17" } else { "refund orders/prod/o-17" };
        let mut filing = self.agent.filing(scope(right, (!reads).then_some(500)));
        filing.task = format!("case-{}-{n}", self.number);
        let (filed, _) = answered(async || self.agent.file(filing.clone()).await).await;
        if matches!(filed, Err(Reason::LimitReached)) {
            return None;
        }
        let v1::AccessRequest { request_id: request, grant_id: grant, .. } = filed.unwrap();
        self.kept.keep(Ack::Filed { request: request.clone() });
        if reads {
            self.approve(&grant).await;
        }
        let exchange = ExchangeId::draw(now(), random()).to_string();
        let token = self.exchange(&request, &grant, &exchange).await;
        // The same exchange, and another while the token is fresh, are the same token.
        let other = ExchangeId::draw(now(), random()).to_string();
        assert_eq!(self.exchange(&request, &grant, &exchange).await, token);
        assert_eq!(self.exchange(&request, &grant, &other).await, token);
        if n.is_multiple_of(3) {
            self.redeem(&grant, &token.0).await;
        }
        let because =
            if reads { self.complete(&request, &grant).await } else { self.revoke(&grant).await };
        let end = Ended { agent: self.agent.clone(), request, exchange, because };
        end.stays().await;
        if n % 3 == 2 {
            let use_id = UseId::draw(now(), random());
            let (refused, _) = answered(async || self.spend(&token.0, use_id).await).await;
            assert_eq!(refused.unwrap_err(), Reason::Revoked);
        }
        Some(end)
    }

    async fn approve(&self, grant: &str) {
        match answered(async || approve_over(&self.ana, "ana", grant).await).await {
            (Ok(_), _) => self.kept.keep(Ack::Approved { grant: grant.to_owned() }),
            // The attempt that was not answered did it.
            (Err(Reason::AlreadyDecided), true) => {}
            (Err(reason), again) => panic!("{reason:?}, {again}"),
        }
    }

    /// The token's id and its bytes.
    async fn exchange(&self, request: &str, grant: &str, exchange: &str) -> (String, String) {
        let ask = async || self.agent.exchange_as(request, exchange).await;
        let v1::ExchangeResponse { token, token_id, grant_id, .. } = answered(ask).await.0.unwrap();
        assert_eq!(grant_id, grant);
        let (grant, exchange) = (grant.to_owned(), exchange.to_owned());
        self.kept.keep(Ack::Exchanged { grant, exchange, token: token_id.clone() });
        (token_id, token)
    }

    async fn spend(&self, token_id: &str, use_id: UseId) -> Result<v1::RedeemResponse, Status> {
        let (token_id, use_id) = (token_id.to_owned(), use_id.to_string());
        let mut orders = GatewayServiceClient::new(self.orders.channel());
        Ok(orders.redeem(v1::RedeemRequest { token_id, use_id }).await?.into_inner())
    }

    /// There is one use. It is said to be new once at most, and to nobody who asks again.
    async fn redeem(&self, grant: &str, token: &str) {
        let use_id = UseId::draw(now(), random());
        let (spent, again) = answered(async || self.spend(token, use_id).await).await;
        assert!(again || !spent.unwrap().spent_before, "a use that nobody asked for");
        self.kept.keep(Ack::Redeemed { grant: grant.to_owned(), use_id: use_id.to_string() });
        let (repeated, _) = answered(async || self.spend(token, use_id).await).await;
        assert!(repeated.unwrap().spent_before, "one use twice");
        let other = UseId::draw(now(), random());
        let (more, _) = answered(async || self.spend(token, other).await).await;
        assert_eq!(more.unwrap_err(), Reason::UsesExhausted);
    }

    async fn revoke(&self, grant: &str) -> Reason {
        let target = || Target::Grant(grant.to_owned());
        let (revoked, _) = answered(async || revoke_over(&self.olga, target()).await).await;
        let head = revoked.unwrap().head.unwrap();
        self.kept.keep(Ack::Revoked { grant: grant.to_owned(), head });
        Reason::Revoked
    }

    async fn complete(&self, request: &str, grant: &str) -> Reason {
        let (completed, _) = answered(async || self.agent.complete(request).await).await;
        let head = completed.unwrap().head.unwrap();
        self.kept.keep(Ack::Completed { grant: grant.to_owned(), head });
        Reason::Completed
    }
}

impl Ended {
    /// Nothing comes of it any more, under the old exchange or a new one.
    async fn stays(&self) {
        let new = ExchangeId::draw(now(), random()).to_string();
        for exchange in [&self.exchange, &new] {
            let ask = async || self.agent.exchange_as(&self.request, exchange).await;
            match answered(ask).await.0 {
                Err(reason) => assert_eq!(reason, self.because),
                Ok(_) => panic!("{} came back after it was {:?}", self.request, self.because),
            }
        }
    }
}

/// Kills the broker so often, each time in the middle of what clients do, and starts it again.
fn kill_often(mut world: World, kept: &Kept, times: usize) -> World {
    for n in 1..=times {
        let before = kept.count();
        while kept.count() == before {
            std::thread::sleep(Duration::from_micros(300));
            if kept.over.load(Ordering::SeqCst) {
                return world;
            }
        }
        let [moment] = random::<1>();
        std::thread::sleep(Duration::from_micros(u64::from(moment).wrapping_mul(150)));
        world.kill();
        if n.is_multiple_of(LOOK_EVERY) {
            verify(&world, true);
        }
        world.serve();
    }
    kept.over.store(true, Ordering::SeqCst);
    world
}

/// The chain holds: by the file alone, or by what the broker tells.
fn verify(world: &World, file: bool) {
    let journal = world.path("broker/journal.db");
    let paths: &[&std::path::Path] = if file { &[&journal] } else { &[] };
    let args: &[&str] = if file { &["audit", "verify", "--journal"] } else { &["audit", "verify"] };
    let verified = world.dayfly(Some(&world.identity("person/olga")), args, paths);
    assert!(verified.status.success(), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_answered_is_lost_or_comes_back_when_the_broker_is_killed() {
    let times = std::env::var("DAYFLY_TEST_KILLS").ok();
    let times = times.map_or(KILLS, |times| times.parse().unwrap());
    let world = World::start("");
    let kept = Arc::<Kept>::default();
    let ana = world.session("person/ana").await;
    let olga = world.session("person/olga").await;
    let orders = world.session("gateway/orders").await;
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        let agent = Agent::new(&world, &format!("agent/w{number}")).await;
        let (ana, olga, orders) = (ana.clone(), olga.clone(), orders.clone());
        let worker = Worker { number, agent, ana, olga, orders, kept: kept.clone() };
        workers.push(worker.run());
    }
    let (killing, _over) = (kept.clone(), Over(kept.clone()));
    let killer = tokio::task::spawn_blocking(move || kill_often(world, &killing, times));
    let (world, ended) = tokio::join!(killer, futures_util::future::join_all(workers));
    let (world, ended) = (world.unwrap(), ended.into_iter().flatten().collect::<Vec<Ended>>());
    for end in ended.iter().rev().take(300) {
        end.stays().await;
    }
    verify(&world, false);
    let acks = std::mem::take(&mut *kept.acks.lock().unwrap());
    let told = Told::read(&world);
    let kinds: HashSet<_> = acks.iter().map(std::mem::discriminant).collect();
    assert_eq!(kinds.len(), 6, "some kind of call was never answered");
    acks.iter().for_each(|ack| assert!(told.has(ack), "lost: {ack:?}"));
    eprintln!("killed {times} times; {} answers, {} entries", acks.len(), told.hashes.len());
}

/// What the record says, by its own bytes alone.
#[derive(Default)]
struct Told {
    hashes: BTreeMap<u64, String>,
    filed: BTreeSet<String>,
    approved: BTreeSet<String>,
    /// By exchange: the token, and whose.
    exchanges: BTreeMap<String, (String, String)>,
    /// The tokens of each grant.
    tokens: BTreeMap<String, Vec<String>>,
    /// The uses of each grant.
    uses: BTreeMap<String, Vec<String>>,
    /// Where each grant ended, and how.
    ended: BTreeMap<String, (u64, &'static str)>,
}

fn text(value: &Json) -> String {
    value.as_str().unwrap().to_owned()
}

impl Told {
    fn read(world: &World) -> Self {
        let tail = world.run("person/olga", &["audit", "tail", "--once", "--output", "json"]);
        assert!(tail.status.success(), "{tail:?}");
        let mut told = Self::default();
        for (n, line) in tail.stdout.split(|byte| *byte == b'\n').enumerate() {
            let Ok(line) = serde_json::from_slice::<Json>(line) else { continue };
            let seq = line["seq"].as_u64().unwrap();
            assert_eq!(usize::try_from(seq).unwrap(), n.saturating_add(1), "a gap in the record");
            told.hashes.insert(seq, text(&line["hash"]));
            let event = line["entry"]["event"].as_object().unwrap();
            let (kind, said) = event.iter().next().unwrap();
            told.hear(seq, kind, said);
        }
        told
    }

    fn hear(&mut self, seq: u64, kind: &str, said: &Json) {
        let live = |told: &Self, grant: &str| {
            assert!(!told.ended.contains_key(grant), "entry {seq}: {kind} of {grant}, which ended");
        };
        match kind {
            "request_filed" => {
                assert!(
                    self.filed.insert(text(&said["request"]["id"])),
                    "entry {seq}: filed twice"
                );
            }
            "decision_recorded" => drop(self.approved.insert(text(&said["grant"]))),
            "token_recorded" => {
                let claims = &said["claims"];
                let (grant, token) = (text(&claims["grant"]), text(&claims["token"]));
                live(self, &grant);
                let tokens = self.tokens.entry(grant.clone()).or_default();
                tokens.push(token.clone());
                // A token lives for two minutes, and all of this is over much sooner.
                assert_eq!(tokens.len(), 1, "entry {seq}: {grant} has two live tokens");
                let before = self.exchanges.insert(text(&said["exchange"]), (grant, token));
                assert_eq!(before, None, "entry {seq}: one exchange twice");
            }
            "exchange_answered" => {
                let (grant, token) = (text(&said["grant"]), text(&said["token"]));
                live(self, &grant);
                assert_eq!(
                    self.tokens[&grant],
                    std::slice::from_ref(&token),
                    "entry {seq}: another token"
                );
                let before = self.exchanges.insert(text(&said["exchange"]), (grant, token));
                assert_eq!(before, None, "entry {seq}: one exchange twice");
            }
            "use_redeemed" => {
                let grant = text(&said["grant"]);
                live(self, &grant);
                let uses = self.uses.entry(grant.clone()).or_default();
                uses.push(text(&said["use_id"]));
                assert_eq!(uses.len(), 1, "entry {seq}: {grant} had one use");
            }
            "revoked" => {
                let grant = text(&said["target"]["grant"]);
                self.ended.entry(grant).or_insert((seq, "revoked"));
            }
            "ended" => drop(self.ended.entry(text(&said["grant"])).or_insert((seq, "ended"))),
            _ => {}
        }
    }

    /// Whether it says what somebody was answered.
    fn has(&self, ack: &Ack) -> bool {
        let at = |head: &v1::Head, grant: &str, how: &str| {
            let here = self.hashes.get(&head.seq) == Some(&head.hash);
            here && self.ended.get(grant).is_some_and(|(seq, by)| *seq <= head.seq && *by == how)
        };
        match ack {
            Ack::Filed { request } => self.filed.contains(request),
            Ack::Approved { grant } => self.approved.contains(grant),
            Ack::Exchanged { grant, exchange, token } => {
                self.exchanges.get(exchange) == Some(&(grant.clone(), token.clone()))
            }
            Ack::Redeemed { grant, use_id } => {
                self.uses.get(grant).is_some_and(|of| of[0] == *use_id)
            }
            Ack::Revoked { grant, head } => at(head, grant, "revoked"),
            Ack::Completed { grant, head } => at(head, grant, "ended"),
        }
    }
}
