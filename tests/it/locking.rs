//! `dayfly lock` against a gateway, an agent and people: what it refuses, and that all works again
//! afterwards.

use std::time::Duration;

use dayfly_agent::case::Standing;
use dayfly_agent::client::Client;
use dayfly_agent::errors::{Error, Reason};
use dayfly_agent::ticket::Ask;
use dayfly_verifier::id::UseId;
use dayfly_verifier::scope::Scope;
use serde_json::Value as Json;
use tonic::Code;

use crate::parties::{Agent, Gateway, Use, approve, now, random, scope};
use crate::world::{SHOP, World};

const STALE: Duration = Duration::from_secs(5);

/// Runs a verb as the operator; what it says in JSON.
fn said(world: &World, args: &[&str]) -> Json {
    let all: Vec<&str> = args.iter().copied().chain(["--output", "json"]).collect();
    let ran = world.run("person/olga", &all);
    assert!(ran.status.success(), "{args:?}: {ran:?}");
    serde_json::from_slice(&ran.stdout).unwrap()
}

/// Sets a lock, waits until it holds everywhere, and says its id.
fn lock(world: &World, name: &str, value: &str) -> String {
    let args = ["lock", name, value, "--for", "10m", "--reason", "odd calls", "--wait"];
    let said = said(world, &args);
    assert_eq!(said["holds_everywhere"], true, "{said}");
    said["lock_id"].as_str().unwrap().to_owned()
}

fn unlock(world: &World, id: &str) {
    said(world, &["unlock", id]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_locked_is_refused_everywhere_and_works_again_once_it_is_lifted() {
    let mut world = World::start("");
    let gateway = Gateway::start(&world, "gateway/orders", STALE).await;
    let agent = Agent::new(&world, "agent/support").await;
    let (request, held) = agent.reading(&world).await;
    let use_ = Use { key: &agent.key, token: &held.token, order: "o-17", refund: None };
    use_.until(&gateway, 200).await;
    let waiting = agent.ask("read orders/prod/o-18", None).await;
    let workload = format!("{SHOP}/agent/support");

    for (name, value) in [
        ("--workload", workload.as_str()),
        ("--task", "case-7"),
        ("--prefix", "orders/prod"),
        ("--prefix", "orders"),
    ] {
        let id = lock(&world, name, value);
        let refused = use_.at(&gateway).await;
        assert_eq!(refused.status, 403, "{name} {value}: {refused:?}");
        assert!(refused.body.contains("\"locked\""), "{refused:?}");
        let exchanged = agent.exchange(&request.request_id).await.unwrap_err();
        assert_eq!(exchanged.code(), Code::PermissionDenied, "{exchanged:?}");
        assert!(exchanged.message().contains(&id), "{exchanged:?}");
        let filed = agent.file(agent.filing(scope("read orders/prod/o-17", None))).await;
        assert_eq!(filed.unwrap_err().code(), Code::PermissionDenied);
        let approved = approve(&world, "ana", &waiting.grant_id).await.unwrap_err();
        assert!(approved.message().contains("lock"), "{approved:?}");
        unlock(&world, &id);
        use_.until(&gateway, 200).await;
        agent.exchange(&request.request_id).await.unwrap();
    }

    // What does not match all of it goes on.
    for args in [
        &["--task", "case-8"][..],
        &["--prefix", "orders/production"],
        &["--task", "case-7", "--prefix", "orders/staging"],
        &["--task", "case-7", "--person", "ana"],
    ] {
        said(&world, &[&["lock", "--for", "10m", "--wait"], args].concat());
    }
    assert_eq!(use_.at(&gateway).await.status, 200);
    agent.exchange(&request.request_id).await.unwrap();

    // It outlives the broker, and ends by itself.
    let set = said(&world, &["lock", "--task", "case-7", "--for", "8s", "--wait"]);
    world.kill();
    world.serve();
    agent.exchange(&request.request_id).await.unwrap_err();
    let id = set["lock_id"].as_str().unwrap();
    let longer = said(&world, &["lock", "--extend", id, "--for", "10s"]);
    assert!(longer["until_ms"].as_u64() > set["until_ms"].as_u64(), "{set} {longer}");
    use_.until(&gateway, 200).await;
    agent.exchange(&request.request_id).await.unwrap();
    agent.complete(&request.request_id).await.unwrap();
}

/// What the broker refuses is told as what it is: nobody is sent to ask for another grant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_that_the_broker_refuses_for_a_lock_or_its_id_is_not_told_as_spent() {
    let world = World::start("");
    let gateway = Gateway::start(&world, "gateway/orders", STALE).await;
    let agent = Agent::new(&world, "agent/refunds").await;
    let mut both = scope("refund orders/prod/o-17", Some(500));
    both.rights.extend(scope("refund orders/prod/o-18", None).rights);
    let request = agent.file(agent.filing(both)).await.unwrap();
    let token = agent.exchange(&request.request_id).await.unwrap().token;
    let use_ = Use { key: &agent.key, token: &token, order: "o-17", refund: Some(5) };
    // Of no effect, and only told once the feed is followed.
    Use { refund: Some(501), ..use_ }.until(&gateway, 403).await;
    let aged = use_.under(&gateway, UseId::draw(now().minus(STALE * 120), random())).await;
    // On another order that the grant reaches, which the gateway has no reason to refuse.
    let id = lock(&world, "--prefix", "orders/prod/o-18");
    let locked = use_.at(&gateway).await;
    unlock(&world, &id);
    for (refused, error, next) in [(aged, "no_use_id", "retry"), (locked, "locked", "wait")] {
        assert_eq!(refused.status, 403, "{refused:?}");
        let told: Json = serde_json::from_str(&refused.body).unwrap();
        assert_eq!([&told["error"], &told["next_action"]], [error, next], "{told}");
    }
    use_.until(&gateway, 200).await;
    let spent = use_.at(&gateway).await;
    assert!(spent.body.contains("\"spent\""), "{spent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_person_decides_nothing_and_nothing_is_done_on_their_behalf() {
    let world = World::start("");
    let gateway = Gateway::start(&world, "gateway/orders", STALE).await;
    let agent = Agent::new(&world, "agent/support").await;
    let mut filing = agent.filing(scope("read orders/staging/o-1", None));
    (filing.principal, filing.audience) = ("ben".into(), format!("{SHOP}/gateway/orders-staging"));
    let staging = agent.file(filing.clone()).await.unwrap();
    agent.exchange(&staging.request_id).await.unwrap();
    let waiting = agent.ask("read orders/prod/o-17", None).await;
    let mut reading = agent.filing(scope("read orders/prod/o-17", None));
    reading.principal = "ben".into();
    let reading = agent.file(reading).await.unwrap();
    approve(&world, "ana", &reading.grant_id).await.unwrap();
    let held = agent.exchange(&reading.request_id).await.unwrap();
    let use_ = Use { key: &agent.key, token: &held.token, order: "o-17", refund: None };
    use_.until(&gateway, 200).await;

    let hers = lock(&world, "--person", "ana");
    let refused = approve(&world, "ana", &waiting.grant_id).await.unwrap_err();
    assert!(refused.message().contains(&hers), "{refused:?}");
    let denied = world.run("person/ana", &["deny", &waiting.grant_id]);
    assert_eq!(denied.status.code(), Some(11), "{denied:?}");
    // What she approved before goes on.
    assert_eq!(use_.at(&gateway).await.status, 200);
    unlock(&world, &hers);
    approve(&world, "ana", &waiting.grant_id).await.unwrap();

    let his = lock(&world, "--person", "ben");
    agent.exchange(&staging.request_id).await.unwrap_err();
    let refused = use_.at(&gateway).await;
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(refused.body.contains("\"locked\""), "{refused:?}");
    let again = agent.filing(scope("read orders/staging/o-1", None));
    let again = dayfly_proto::v1::RequestAccessRequest { request_id: again.request_id, ..filing };
    agent.file(again.clone()).await.unwrap_err();
    unlock(&world, &his);
    agent.exchange(&staging.request_id).await.unwrap();
    agent.file(again).await.unwrap();
    use_.until(&gateway, 200).await;
}

fn reading() -> Ask {
    let scope = Scope::new(["read orders/prod/o-17".parse().unwrap()], None).unwrap();
    let audience = format!("{SHOP}/gateway/orders").parse().unwrap();
    let purpose = "customer-support".parse().unwrap();
    Ask::new(audience, scope, "case-7".parse().unwrap(), purpose)
}

/// A call that alone knows its ticket takes the request back when a lock ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_asked_to_approve_what_nobody_awaits_since_a_lock() {
    let world = World::start("");
    let client = Client::connect(&world.identity("agent/refunds")).await.unwrap();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.acquire(reading()).await.map(drop) }
    });
    while client.list().await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    said(&world, &["lock", "--workload", &format!("{SHOP}/agent/refunds"), "--for", "10m"]);
    match waiting.await.unwrap() {
        Err(Error::Refused(refusal)) => assert_eq!(refusal.reason, Reason::Locked),
        other => panic!("{other:?}"),
    }
    let pending = async || {
        let all = client.list().await.unwrap();
        all.iter().any(|case| case.standing == Standing::Pending)
    };
    let taken_back = async {
        while pending().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), taken_back).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_decision_hears_of_the_lock() {
    let world = World::start("");
    let client = Client::connect(&world.identity("agent/refunds")).await.unwrap();
    let (ticket, _) = client.request(reading()).await.unwrap();
    let waiting = async || client.wait(&ticket, None, |_| {}).await;
    let set =
        said(&world, &["lock", "--workload", &format!("{SHOP}/agent/refunds"), "--for", "10m"]);
    for _ in 0..2 {
        match waiting().await {
            Err(Error::Refused(refusal)) => assert_eq!(refusal.reason, Reason::Locked),
            other => panic!("{other:?}"),
        }
    }
    unlock(&world, set["lock_id"].as_str().unwrap());
    let case = client.look(&ticket).await.unwrap();
    approve(&world, "ana", &case.grant.to_string()).await.unwrap();
    waiting().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_are_set_listed_and_told_on_the_command_line() {
    let world = World::start("");
    let agent = Agent::new(&world, "agent/support").await;
    let (request, _) = agent.reading(&world).await;
    for args in [
        &["lock", "--task", "case-7"][..],
        &["lock", "--for", "10m"],
        &["lock", "--task", "case-7", "--for", "721h"],
        &["lock", "--task", "case-7", "--for", "0s"],
        &["lock", "--task", "case 7", "--for", "1h"],
        &["lock", "--task", "case-7", "--extend", &"0".repeat(32), "--for", "1h"],
        &["unlock", "7"],
    ] {
        let refused = world.run("person/olga", args);
        assert_eq!(refused.status.code(), Some(2), "{args:?}: {refused:?}");
    }
    for (who, args) in [
        ("agent/support", &["lock", "--task", "case-7", "--for", "1h"][..]),
        ("person/ana", &["lock", "--task", "case-7", "--for", "1h"]),
        ("person/ana", &["locks"]),
        ("person/olga", &["unlock", &"0".repeat(32)]),
        ("person/olga", &["lock", "--extend", &"0".repeat(32), "--for", "1h"]),
    ] {
        let refused = world.run(who, args);
        assert_eq!(refused.status.code(), Some(11), "{who} {args:?}: {refused:?}");
    }
    let empty = world.run("person/olga", &["locks"]);
    assert!(String::from_utf8_lossy(&empty.stderr).contains("no lock is in force"), "{empty:?}");

    let args = ["lock", "--task", "case-7", "--prefix", "orders", "--for", "1h", "--reason", "odd"];
    let first = said(&world, &args);
    let second = said(&world, &["lock", "--person", "ben", "--for", "30m"]);
    let listed = said(&world, &["locks"]);
    let ids = [&second["lock_id"], &first["lock_id"]];
    assert_eq!([&listed[0]["lock_id"], &listed[1]["lock_id"]], ids, "in the order of their ends");
    let shown = &listed[1];
    assert_eq!([&shown["task"], &shown["prefix"]], ["case-7", "orders"], "{shown}");
    assert_eq!([&shown["reason"], &shown["set_by"]], ["odd", "olga"], "{shown}");
    assert_eq!([&shown["workload"], &shown["person"]], [&Json::Null; 2], "{shown}");
    assert_eq!(shown["until_ms"], first["until_ms"]);

    let id = first["lock_id"].as_str().unwrap();
    let told = world.run("person/olga", &["history", &request.grant_id]);
    let told = String::from_utf8(told.stdout).unwrap();
    let set = format!("olga set lock {id} on task case-7 and what reaches orders until");
    assert!(told.contains(&set) && told.contains("a lock refuses it until"), "{told}");
    assert!(!told.contains(second["lock_id"].as_str().unwrap()), "another's lock: {told}");
    said(&world, &["unlock", id]);
    said(&world, &["unlock", id]);
    let told = world.run("person/olga", &["history", &request.grant_id]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert_eq!(told.matches(&format!("olga lifted lock {id}")).count(), 1, "{told}");
    assert!(!told.contains("a lock refuses it until"), "{told}");
    for (by, count) in [("--task", 2), ("--workload", 2)] {
        let value = if by == "--task" { "case-7".into() } else { format!("{SHOP}/agent/support") };
        let args = ["audit", "query", by, &value, "--kind", "locked", "--kind", "unlocked"];
        let found = world.run("person/olga", &args);
        let found = String::from_utf8(found.stdout).unwrap();
        assert_eq!(found.lines().count(), count, "{by}: {found}");
    }
    let found = world.run("person/olga", &["audit", "query", "--person", "ben"]);
    assert!(String::from_utf8_lossy(&found.stdout).contains("on person ben until"), "{found:?}");
}
