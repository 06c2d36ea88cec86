//! What runs, ends: a call of gRPC that streams and an open answer over HTTP are cut as soon as
//! what allowed them is gone, and those of others on the same gateway go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dayfly_agent::held::Held;
use dayfly_agent::uses;
use dayfly_proto::v1;
use dayfly_proto::v1::revocation_target::Target;
use dayfly_verifier::scope::Arguments;
use dayfly_verifier::time::{Clock, SystemClock, Timestamp};
use dayfly_verifier::verify::Call;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;
use tonic::Streaming;
use tonic::metadata::MetadataMap;
use tonic::transport::Endpoint;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::guarded::{Gateway, Opening, WATCH};
use crate::parties::{Agent, Use, approve, now, revoke, scope};
use crate::world::World;

/// Long enough for a busy machine: nothing here ends for it that is not meant to.
const STALE: Duration = Duration::from_secs(60);
/// How the open answer ends that is cut, and how the call of gRPC.
const BROKEN: &str = "broken off";

/// An answer that goes on.
enum Open {
    Rows(Incoming),
    Watch(Box<Streaming<HealthCheckResponse>>),
}

impl Open {
    /// The next row; or how it ended.
    async fn next(&mut self) -> Result<(), String> {
        let coming = async {
            match self {
                Self::Rows(body) => match body.frame().await {
                    Some(frame) => frame.map(drop).map_err(|_| BROKEN.into()),
                    None => Err("as if it were whole".into()),
                },
                Self::Watch(stream) => match stream.message().await {
                    Ok(Some(_)) => Ok(()),
                    Ok(None) => Err("as if it were whole".into()),
                    Err(status) => Err(reason(&status)),
                },
            }
        };
        timeout(Duration::from_secs(20), coming)
            .await
            .unwrap_or_else(|_| panic!("it neither goes on nor ends"))
    }

    /// How it ends, after whatever was on its way.
    async fn end(&mut self) -> String {
        loop {
            if let Err(end) = self.next().await {
                return end;
            }
        }
    }
}

/// The status, and why.
fn reason(status: &tonic::Status) -> String {
    let reason = status.metadata().get("dayfly-reason").map(|reason| reason.to_str().unwrap());
    format!("{:?} {}", status.code(), reason.unwrap_or("without a reason"))
}

/// A workload with a token for reading.
struct Reader {
    agent: Agent,
    request: v1::AccessRequest,
    held: Held,
}

impl Reader {
    /// May read these orders for so long.
    async fn new(world: &World, path: &str, orders: &[&str], seconds: u64) -> Self {
        let agent = Agent::new(world, path).await;
        let rights = orders.iter().map(|order| scope(&format!("read orders/prod/{order}"), None));
        let rights = rights.flat_map(|scope| scope.rights).collect();
        let scope = v1::Scope { rights, constraints: Vec::new() };
        let task = path.replace('/', "-");
        let filing =
            v1::RequestAccessRequest { task, lifetime_seconds: seconds, ..agent.filing(scope) };
        let request = agent.file(filing).await.unwrap();
        approve(world, "ana", &request.grant_id).await.unwrap();
        let held = agent.exchange(&request.request_id).await.unwrap();
        Self { agent, request, held: Held::read(&held.token).unwrap() }
    }

    fn reads(&self, order: &'static str) -> Use<'_> {
        Use { key: &self.agent.key, token: self.held.token.expose(), order, refund: None }
    }

    fn using(&self, method: Method, url: &str, order: &str) -> uses::Use {
        let resource = format!("orders/prod/{order}").parse().unwrap();
        let call =
            Call { operation: "read".parse().unwrap(), resource, arguments: Arguments::new() };
        uses::Use::new(method, url, call, now()).unwrap()
    }

    /// Both of them, with their first row; or why not.
    async fn open(&self, gateway: &Gateway, order: &str) -> Result<[Open; 2], String> {
        let mut both = [self.rows(gateway, order).await?, self.watch(gateway, order).await?];
        for one in &mut both {
            one.next().await?;
        }
        Ok(both)
    }

    /// An answer over HTTP/1.1 that never ends by itself.
    async fn rows(&self, gateway: &Gateway, order: &str) -> Result<Open, String> {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let url = gateway.url(&format!("/orders/{order}/rows"));
        let mut this = self.using(Method::GET, &url, order);
        loop {
            let mut request = Request::get(&url).body(Empty::<Bytes>::new()).unwrap();
            let headers = this.headers(&self.held, &self.agent.key, now()).unwrap();
            request.headers_mut().extend(headers);
            let (head, body) = client.request(request).await.unwrap().into_parts();
            if head.status == StatusCode::OK {
                return Ok(Open::Rows(body));
            }
            if !this.again(head.status, &head.headers) {
                let body = body.collect().await.unwrap().to_bytes();
                let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                return Err(body["error"].as_str().unwrap().to_owned());
            }
        }
    }

    /// A call of gRPC that streams.
    async fn watch(&self, gateway: &Gateway, order: &str) -> Result<Open, String> {
        let endpoint = Endpoint::from_shared(gateway.url("")).unwrap();
        let mut client = HealthClient::new(endpoint.connect().await.unwrap());
        let mut this = self.using(Method::POST, &gateway.url(WATCH), order);
        loop {
            let mut asked = tonic::Request::new(HealthCheckRequest { service: order.to_owned() });
            let headers = this.headers(&self.held, &self.agent.key, now()).unwrap();
            *asked.metadata_mut() = MetadataMap::from_headers(headers);
            let refused = match client.watch(asked).await {
                Ok(answer) => return Ok(Open::Watch(Box::new(answer.into_inner()))),
                Err(refused) => refused,
            };
            if !this.again(StatusCode::OK, &refused.metadata().clone().into_headers()) {
                return Err(reason(&refused));
            }
        }
    }
}

/// They go on: what is said next arrives.
async fn go_on(gateway: &Gateway, opens: &mut [Open; 2]) {
    gateway.tell().await;
    for open in opens {
        assert_eq!(open.next().await, Ok(()));
    }
}

/// They were cut, and not as if they were whole.
async fn cut(opens: &mut [Open; 2], why: &str) {
    assert_eq!(opens[0].end().await, BROKEN);
    assert_eq!(opens[1].end().await, why);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_is_cut_when_its_grant_is_taken_back_and_what_others_run_goes_on() {
    let world = World::start("");
    let gateway = Gateway::start(&world, "gateway/orders", STALE).await;
    let other = Reader::new(&world, "agent/other", &["o-18"], 300).await;
    other.reads("o-18").until(&gateway, 200).await;
    let mut others = other.open(&gateway, "o-18").await.unwrap();
    for name in ["grant", "token", "workload", "task", "prefix", "complete"] {
        let reader = Reader::new(&world, "agent/refunds", &["o-17"], 300).await;
        let mut opens = reader.open(&gateway, "o-17").await.unwrap();
        go_on(&gateway, &mut opens).await;
        go_on(&gateway, &mut others).await;
        let Reader { agent, request, held } = &reader;
        let target = match name {
            "grant" => Some(Target::Grant(request.grant_id.clone())),
            "token" => Some(Target::Token(held.claims.token.to_string())),
            "workload" => Some(Target::Workload(request.workload.clone())),
            "task" => Some(Target::Task(request.task.clone())),
            "prefix" => Some(Target::ResourcePrefix("orders/prod/o-17".into())),
            _ => None,
        };
        match target {
            Some(target) => drop(revoke(&world, target).await),
            None => drop(agent.complete(&request.request_id).await.unwrap()),
        }
        cut(&mut opens, "Unauthenticated revoked").await;
        go_on(&gateway, &mut others).await;
        assert_eq!(reader.open(&gateway, "o-17").await.err().as_deref(), Some("revoked"));
    }
    // And with the key that signed them, all that there is.
    revoke(&world, Target::Key(1)).await;
    cut(&mut others, "Unauthenticated revoked").await;
}

/// A lock cuts what it matches, and lets nothing of it run again before it is lifted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_is_cut_when_a_lock_strikes() {
    let world = World::start("");
    let operator = |args: &[&str]| {
        let ran = world.run("person/olga", &[args, &["--output", "json"]].concat());
        assert!(ran.status.success(), "{args:?}: {ran:?}");
        serde_json::from_slice::<serde_json::Value>(&ran.stdout).unwrap()
    };
    let gateway = Gateway::start(&world, "gateway/orders", STALE).await;
    let other = Reader::new(&world, "agent/other", &["o-18"], 300).await;
    other.reads("o-18").until(&gateway, 200).await;
    let mut others = other.open(&gateway, "o-18").await.unwrap();
    let reader = Reader::new(&world, "agent/refunds", &["o-17"], 300).await;
    for (name, value) in [
        ("--workload", reader.request.workload.as_str()),
        ("--task", reader.request.task.as_str()),
        ("--prefix", "orders/prod/o-17"),
    ] {
        let mut opens = reader.open(&gateway, "o-17").await.unwrap();
        let set = operator(&["lock", name, value, "--for", "10m"]);
        cut(&mut opens, "PermissionDenied locked").await;
        go_on(&gateway, &mut others).await;
        assert_eq!(reader.open(&gateway, "o-17").await.err().as_deref(), Some("locked"), "{name}");
        operator(&["unlock", set["lock_id"].as_str().unwrap()]);
        reader.reads("o-17").until(&gateway, 200).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_is_cut_when_its_token_expires() {
    let world = World::start("");
    let gateway = Gateway::start(&world, "gateway/orders", STALE).await;
    let other = Reader::new(&world, "agent/other", &["o-17"], 300).await;
    other.reads("o-17").until(&gateway, 200).await;
    let mut others = other.open(&gateway, "o-17").await.unwrap();
    // A busy machine may take longer to open them than the shorter ones last.
    let mut opened = None;
    for seconds in [3, 10, 30] {
        let reader = Reader::new(&world, "agent/refunds", &["o-17"], seconds).await;
        opened = reader.open(&gateway, "o-17").await.ok();
        if opened.is_some() {
            break;
        }
    }
    cut(&mut opened.unwrap(), "Unauthenticated expired").await;
    go_on(&gateway, &mut others).await;
}

/// One resource has a tight bound: what runs on it is cut, and what runs beside it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_is_cut_when_the_feed_goes_stale() {
    let mut world = World::start("");
    let opening = Opening {
        bounds: vec![("orders/prod/o-17", Duration::from_secs(1))],
        ..Opening::usual(Duration::from_secs(60))
    };
    let gateway = Gateway::opened(&world, "gateway/orders", opening).await;
    let reader = Reader::new(&world, "agent/refunds", &["o-17", "o-18"], 300).await;
    reader.reads("o-17").until(&gateway, 200).await;
    let mut loose = reader.open(&gateway, "o-18").await.unwrap();
    let mut tight = reader.open(&gateway, "o-17").await;
    while tight.is_err() {
        // A busy machine may not hear of the feed for a second.
        tight = reader.open(&gateway, "o-17").await;
    }
    world.kill();
    cut(&mut tight.unwrap(), "Unavailable stale").await;
    go_on(&gateway, &mut loose).await;
    assert_eq!(reader.reads("o-17").at(&gateway).await.status, 503);
    assert_eq!(reader.reads("o-18").at(&gateway).await.status, 200);
    world.serve();
    reader.reads("o-17").until(&gateway, 200).await;
}

/// The clock of this machine, with so many seconds of uptime more.
#[derive(Default)]
pub(crate) struct Ahead(pub(crate) AtomicU64);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn uptime(&self) -> Duration {
        SystemClock.uptime().saturating_add(Duration::from_secs(self.0.load(Ordering::SeqCst)))
    }
}

/// On one resource what runs is cut, on another it drains for a minute, on a third for an hour. A
/// new call is refused on each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_drains_goes_on_for_its_bound_and_is_then_cut() {
    let world = World::start("");
    let ahead = Arc::new(Ahead::default());
    let [minute, hour] = [60, 3600].map(Duration::from_secs);
    let opening = Opening {
        drains: vec![("orders/prod/o-18", minute), ("orders/prod/o-19", hour)],
        clock: ahead.clone(),
        ..Opening::usual(STALE)
    };
    let gateway = Gateway::opened(&world, "gateway/orders", opening).await;
    let orders = ["o-17", "o-18", "o-19"];
    let reader = Reader::new(&world, "agent/refunds", &orders, 300).await;
    reader.reads("o-17").until(&gateway, 200).await;
    let mut at_once = reader.open(&gateway, "o-17").await.unwrap();
    let mut drained = reader.open(&gateway, "o-18").await.unwrap();
    let mut draining = reader.open(&gateway, "o-19").await.unwrap();
    revoke(&world, Target::Grant(reader.request.grant_id.clone())).await;
    cut(&mut at_once, "Unauthenticated revoked").await;
    go_on(&gateway, &mut drained).await;
    go_on(&gateway, &mut draining).await;
    for order in orders {
        assert_eq!(reader.open(&gateway, order).await.err().as_deref(), Some("revoked"), "{order}");
    }
    ahead.0.store(61, Ordering::SeqCst);
    cut(&mut drained, "Unauthenticated revoked").await;
    go_on(&gateway, &mut draining).await;
}
