//! Proofs that were recorded from calls that were accepted, shown again: to the same gateway and to
//! others, after its death, for other calls, and in other spellings.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dayfly_proto::v1;
use dayfly_verifier::id::UseId;
use dayfly_verifier::proof::{DpopCall, make_dpop};
use dayfly_verifier::time::{Clock, SystemClock, Timestamp};

use crate::guarded::{Gateway, Opening};
use crate::parties::{Agent, Got, Shot, Use, approve, now, random, scope};
use crate::process::Process;
use crate::world::{SHOP, World};

/// Long enough for a busy machine: a gateway that is stale would refuse for that.
const STALE: Duration = Duration::from_secs(60);

/// Status, and the reason that the caller is told.
fn refused(got: &Got) -> (u16, String) {
    let body: serde_json::Value = serde_json::from_str(&got.body).unwrap_or_default();
    (got.status, body["error"].as_str().unwrap_or_default().to_owned())
}

/// Sends `shot`, which must be refused so.
async fn refuses(to: SocketAddr, shot: &Shot, status: u16, error: &str, what: &str) {
    let got = shot.sent(to).await;
    assert_eq!(refused(&got), (status, error.to_owned()), "{what}: {} {}", shot.method, shot.path);
}

type Change = fn(&str) -> String;

/// A call that was accepted, as it went over the wire.
async fn recorded(call: &Use<'_>, at: &Gateway, act: bool) -> Shot {
    let id = UseId::draw(now(), random());
    let nonce = call.shot(at, id, None, act).sent(at.address).await.nonce();
    let shot = call.shot(at, id, nonce.as_deref(), act);
    let got = shot.sent(at.address).await;
    assert_eq!(got.status, 200, "{got:?}");
    shot
}

impl Shot {
    /// With another value of a header.
    fn with(&self, name: &str, change: impl Fn(&str) -> String) -> Self {
        let mut shot = self.clone();
        for (_, value) in shot.headers.iter_mut().filter(|(header, _)| *header == name) {
            *value = change(value);
        }
        shot
    }

    /// With one header more, which may be there already.
    fn and(&self, name: &'static str, value: &str) -> Self {
        let mut shot = self.clone();
        shot.headers.push((name, value.to_owned()));
        shot
    }

    fn to(&self, path: impl Into<String>) -> Self {
        Self { path: path.into(), ..self.clone() }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(header, _)| *header == name).map_or("", |(_, value)| value)
    }
}

/// The gateway that accepted it, while it runs: the same call, and others under the same proof.
async fn at_the_same_gateway(to: SocketAddr, [plain, act, refund]: [&Shot; 3]) {
    for shot in [plain, act, refund] {
        refuses(to, shot, 401, "replayed", "the same").await;
        let other_use = shot.with("dayfly-use", |_| UseId::draw(now(), random()).to_string());
        refuses(to, &other_use, 401, "replayed", "under another use id").await;
        refuses(to, &Shot { method: "PUT", ..shot.clone() }, 401, "bad_proof", "method").await;
        refuses(to, &shot.to("/orders/o-17/rows"), 401, "bad_proof", "path").await;
    }
    let body = |amount| Shot { body: format!("{{\"amount\":{amount}}}"), ..refund.clone() };
    refuses(to, &body(2), 401, "bad_proof", "another amount").await;
    refuses(
        to,
        &Shot { body: "{\"note\":\"x\"}".into(), ..act.clone() },
        401,
        "bad_proof",
        "a body",
    )
    .await;
    refuses(to, &act.to("/orders/o-17?note=x"), 401, "bad_proof", "an argument").await;
    // A proof that does not say what is done is still one for one call.
    refuses(to, &plain.to("/orders/o-17?note=x"), 401, "replayed", "an argument").await;
}

/// The same in another spelling is the same, or nothing.
async fn in_other_spellings(to: SocketAddr, shot: &Shot) {
    let (proof, authorization) = (shot.header("dpop"), shot.header("authorization"));
    let part = |n: usize| {
        let padded = |(at, part): (usize, &str)| {
            if at == n { format!("{part}=") } else { part.to_owned() }
        };
        proof.split('.').enumerate().map(padded).collect::<Vec<_>>().join(".")
    };
    for n in 0..3 {
        refuses(to, &shot.with("dpop", |_| part(n)), 401, "bad_proof", "padding").await;
    }
    let changes: [(&str, Change, &str); 9] = [
        ("authorization", |text| format!("{text}="), "malformed"),
        ("authorization", |text| text.replace('-', "+").replace('_', "/"), "malformed"),
        ("authorization", |text| text.replacen("DPoP ", "DPoP  ", 1), "malformed"),
        ("authorization", |text| text.replacen("DPoP", "dpop", 1), "replayed"),
        ("authorization", |text| text.replacen("DPoP", "Bearer", 1), "no_proof"),
        ("authorization", |text| text.replacen("DPoP", "Basic", 1), "no_token"),
        ("dpop", |text| format!("\t {text} \t"), "replayed"),
        ("dpop", |text| format!("{text}, {text}"), "bad_proof"),
        ("dpop", |text| format!("\"{text}\""), "bad_proof"),
    ];
    for (name, change, error) in changes {
        refuses(to, &shot.with(name, change), 401, error, name).await;
    }
    refuses(to, &shot.and("dpop", proof), 401, "ambiguous", "two proofs").await;
    refuses(to, &shot.and("DPOP", "x"), 401, "ambiguous", "two proofs").await;
    refuses(to, &shot.and("Authorization", authorization), 401, "ambiguous", "two tokens").await;
    let mut loud = shot.clone();
    let names = ["AUTHORIZATION", "DPOP", "DAYFLY-USE"];
    loud.headers.iter_mut().zip(names).for_each(|((header, _), name)| *header = name);
    refuses(to, &loud, 401, "replayed", "names in capitals").await;
    let forwarded = shot.and("x-forwarded-host", "other.test").and("forwarded", "host=other.test");
    refuses(to, &forwarded, 401, "replayed", "as if by a proxy").await;
    for (path, status, error) in [
        (format!("http://{to}{}", shot.path), 401, "replayed"),
        (format!("http://other.test{}", shot.path), 401, "replayed"),
        (format!("{}?", shot.path), 401, "replayed"),
        (format!("{}/", shot.path), 400, "invalid_call"),
        (format!("/{}", shot.path), 400, "invalid_call"),
        (format!("/.{}", shot.path), 400, "invalid_call"),
        (shot.path.replace("o-17", "%6f-17"), 400, "invalid_call"),
    ] {
        refuses(to, &shot.to(path), status, error, "another spelling of the path").await;
    }
}

/// Six ways: the same gateway; another method or path; another body or argument; a gateway of
/// another audience; another instance of the same one; the same after `kill -9`. All of them are
/// reached under one URL, so that it is not this that tells them apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a02_a_recorded_proof_is_refused_wherever_and_however_it_is_shown_again() {
    let world = World::start("");
    let orders = format!("{SHOP}/gateway/orders");
    let dir = world.identity("gateway/orders");
    let first = Process::start(&world, &orders, &dir, &Opening::usual(STALE));
    let (address, base_url) = (first.gateway.address, Some(first.gateway.url("")));
    let like = |instance: &str| Opening {
        instance: instance.into(),
        base_url: base_url.clone(),
        ..Opening::usual(STALE)
    };
    let second = Process::start(&world, &orders, &dir, &like("two"));
    let other = world.identity("gateway/exports");
    let other = Process::start(&world, &format!("{SHOP}/gateway/exports"), &other, &like("one"));

    let agent = Agent::new(&world, "agent/refunds").await;
    let (_, read) = agent.reading(&world).await;
    let mut filing = agent.filing(scope("refund orders/prod/o-17", Some(20_000)));
    filing.uses = 3;
    let refunding = agent.file(filing).await.unwrap();
    for person in ["ana", "caro"] {
        approve(&world, person, &refunding.grant_id).await.unwrap();
    }
    let refunding = agent.exchange(&refunding.request_id).await.unwrap();
    let read = Use { key: &agent.key, token: &read.token, order: "o-17", refund: None };
    let refund = Use { token: &refunding.token, refund: Some(1), ..read };
    read.until(&first.gateway, 200).await;
    let plain = recorded(&read, &first.gateway, false).await;
    let act = recorded(&read, &first.gateway, true).await;
    let refunded = recorded(&refund, &first.gateway, true).await;
    let shots = [&plain, &act, &refunded];

    at_the_same_gateway(address, shots).await;
    in_other_spellings(address, &act).await;
    read.until(&second.gateway, 200).await;
    read.until(&other.gateway, 401).await;
    for shot in shots {
        refuses(second.gateway.address, shot, 401, "nonce", "another instance").await;
        refuses(other.gateway.address, shot, 401, "other_audience", "another gateway").await;
    }

    drop(first);
    let again = Opening { listen: Some(address), ..like("three") };
    let again = Process::start(&world, &orders, &dir, &again);
    read.until(&again.gateway, 200).await;
    for shot in shots {
        refuses(address, shot, 401, "nonce", "the same, after its death").await;
    }
    // Nothing of all that was spent: two uses of three are left.
    for status in [200, 200, 403] {
        assert_eq!(refund.at(&again.gateway).await.status, status);
    }
}

/// The clock of a gateway that starts 62 s before now, until so much of that has passed.
#[derive(Default)]
struct Started(AtomicU64);

impl Started {
    fn passed(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

impl Clock for Started {
    fn now(&self) -> Timestamp {
        SystemClock.now().minus(Duration::from_secs(62)).plus(self.passed())
    }

    fn uptime(&self) -> Duration {
        SystemClock.uptime().saturating_add(self.passed())
    }
}

/// Long after their start, each of several instances still asks for a nonce of its own; one that
/// answers alone for its audience does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a02_instances_that_share_an_audience_never_take_what_another_was_shown() {
    let world = World::start("");
    let started = Arc::new(Started::default());
    let base_url = Some("https://orders.shop.test".to_owned());
    let opening = |instance: &str, shared_audience| Opening {
        instance: instance.into(),
        base_url: base_url.clone(),
        shared_audience,
        clock: started.clone(),
        ..Opening::usual(STALE)
    };
    let agent = Agent::new(&world, "agent/refunds").await;
    let (_, held) = agent.reading(&world).await;
    let read = Use { key: &agent.key, token: &held.token, order: "o-17", refund: None };
    let mut gateways = Vec::new();
    for (instance, shared) in [("one", true), ("two", true), ("alone", false)] {
        let opening = opening(instance, shared);
        gateways.push(Gateway::opened(&world, "gateway/orders", opening).await);
    }
    // The minute in which all of them ask for one is over.
    started.0.store(62, Ordering::SeqCst);
    for gateway in &gateways {
        read.until(gateway, 200).await;
    }
    let [one, two, alone] = &gateways[..] else { unreachable!() };
    let bare = read.shot(alone, UseId::draw(now(), random()), None, true);
    for gateway in [one, two] {
        refuses(gateway.address, &bare, 401, "nonce", "without a nonce").await;
    }
    assert_eq!(bare.sent(alone.address).await.status, 200);
    let shot = recorded(&read, one, true).await;
    refuses(one.address, &shot, 401, "replayed", "the same").await;
    refuses(two.address, &shot, 401, "nonce", "another instance").await;
}

/// What shows `token` at `gateway`, as an honest client would.
async fn shows(agent: &Agent, token: &str, gateway: &Gateway, path: &str, body: &str) -> Got {
    let url = gateway.url(path);
    let mut nonce = None;
    loop {
        let call = DpopCall { method: "POST", url: &url, act: None, nonce: nonce.as_deref() };
        let proof = make_dpop(&agent.key, token, &call, now(), random());
        let headers = vec![("authorization", format!("DPoP {token}")), ("dpop", proof)];
        let (path, body) = (path.to_owned(), body.to_owned());
        let got = Shot { method: "POST", path, headers, body }.sent(gateway.address).await;
        if got.status == 503 || (nonce.is_none() && refused(&got).1 == "nonce") {
            nonce = got.nonce();
            continue;
        }
        return got;
    }
}

/// Every token at every gateway, all reached under one URL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a05_of_all_tokens_at_all_gateways_only_the_diagonal_passes() {
    let world = World::start("");
    let base_url = Some("https://api.shop.test".to_owned());
    let mut gateways = Vec::new();
    let mut tokens = Vec::new();
    for (gateway, workload, right, people, path, body) in [
        ("orders", "agent/refunds", "read orders/prod/o-1", &["ana"][..], "/orders/o-1", ""),
        ("orders-staging", "agent/refunds", "read orders/staging/o-1", &[], "/staging/o-1", ""),
        (
            "exports",
            "job/export",
            "export exports/customers",
            &["ben", "caro"],
            "/exports/customers",
            "{\"rows\":10}",
        ),
    ] {
        let gateway = format!("gateway/{gateway}");
        let opening = Opening { base_url: base_url.clone(), ..Opening::usual(STALE) };
        gateways.push(Gateway::opened(&world, &gateway, opening).await);
        let agent = Agent::new(&world, workload).await;
        let mut filing = agent.filing(scope(right, None));
        filing.audience = format!("{SHOP}/{gateway}");
        if !body.is_empty() {
            let argument = "rows".to_owned();
            let limit = Some(v1::constraint::Limit::AtMost(100));
            let constraints = vec![v1::Constraint { argument, limit }];
            filing.scope.as_mut().unwrap().constraints = constraints;
            filing.purpose = "data-request".into();
        }
        let request = agent.file(filing).await.unwrap();
        for person in people {
            approve(&world, person, &request.grant_id).await.unwrap();
        }
        let token = agent.exchange(&request.request_id).await.unwrap().token;
        tokens.push((agent, token, path, body));
    }
    for (row, gateway) in gateways.iter().enumerate() {
        for (column, (agent, token, path, body)) in tokens.iter().enumerate() {
            let got = shows(agent, token, gateway, path, body).await;
            let expected = if row == column { (200, "") } else { (401, "other_audience") };
            assert_eq!(refused(&got), (expected.0, expected.1.to_owned()), "{row} {column}");
        }
    }
}
