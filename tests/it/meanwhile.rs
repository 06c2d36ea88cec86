//! What changes between one step and the next counts at the next: policy, who is listed, the
//! request itself.

use std::time::Duration;

use dayfly_proto::v1;
use tonic::Code;

use crate::parties::{Agent, Gateway, Use, approve, scope, sign};
use crate::world::{SHOP, World};

const STALE: Duration = Duration::from_secs(5);

/// Puts a bundle into force in which `from` reads `to`.
fn apply(world: &World, name: &str, from: &str, to: &str) {
    let bundle = world.write_bundle(name, |_, text| text.replace(from, to));
    let applied = world.run("person/olga", &["policy", "apply", bundle.to_str().unwrap()]);
    assert!(applied.status.success(), "{applied:?}");
}

/// Reading takes two people from now on.
const MORE: [&str; 2] = [
    "@id(\"read-orders\")\n@approvals(\"dba:1\")",
    "@id(\"read-orders\")\n@approvals(\"dba:1, security:1\")",
];
/// Nobody reads from now on.
const NOBODY: [&str; 2] = [
    "action == Action::\"read\",\n  resource in Resource::\"orders/prod\"",
    "action == Action::\"delete\",\n  resource in Resource::\"orders/prod\"",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a14_what_was_decided_under_another_policy_is_no_right() {
    let world = World::start("");
    let gateway = Gateway::start(&world, "gateway/orders", STALE).await;
    let agent = Agent::new(&world, "agent/refunds").await;
    let (used, held) = agent.reading(&world).await;
    let use_held = Use { key: &agent.key, token: &held.token, order: "o-17", refund: None };
    use_held.until(&gateway, 200).await;
    let approved = agent.ask("read orders/prod/o-18", None).await;
    approve(&world, "ana", &approved.grant_id).await.unwrap();
    let pending = agent.ask("read orders/prod/o-19", None).await;
    // Ana signs what she was shown; policy changes before it arrives.
    let session = world.session("person/ana").await;
    let mut people = v1::approval_service_client::ApprovalServiceClient::new(session.channel());
    let asked = v1::GetRequestRequest { grant_id: pending.grant_id.clone() };
    let shown = people.get_request(asked).await.unwrap().into_inner();
    let decision = Some(sign("ana", &shown.canonical_request));

    let [from, to] = MORE;
    apply(&world, "more", from, to);
    let late = v1::ApproveRequest {
        grant_id: pending.grant_id.clone(),
        decision,
        ..v1::ApproveRequest::default()
    };
    let late = people.approve(late).await.unwrap_err();
    assert!(late.message().contains("has changed since it was signed"), "{late:?}");
    let still = approve(&world, "ana", &pending.grant_id).await.unwrap();
    assert_eq!(still.standing(), v1::Standing::Pending, "one of two by now");
    assert!(agent.exchange(&pending.request_id).await.is_err());
    // What was granted by one, and is held, would not be granted any more.
    for request in [&approved, &used] {
        let refused = agent.exchange(&request.request_id).await.unwrap_err();
        assert!(refused.message().contains("has drifted"), "{refused:?}");
    }
    use_held.until(&gateway, 401).await;

    approve(&world, "caro", &pending.grant_id).await.unwrap();
    let [from, to] = NOBODY;
    apply(&world, "nobody", from, to);
    assert!(agent.exchange(&pending.request_id).await.is_err());
    let late = agent.ask("read orders/prod/o-1", None).await;
    assert_eq!(late.standing(), v1::Standing::RefusedByPolicy);
}

/// Tokens that are being made while policy is tightened are taken back, or never made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a14_exchanges_that_race_with_a_tighter_policy_leave_nothing_behind() {
    let world = World::start("");
    let gateway = Gateway::start(&world, "gateway/orders", STALE).await;
    let agent = Agent::new(&world, "agent/refunds").await;
    let mut granted = Vec::new();
    for n in 0..6 {
        let request = agent.ask(&format!("read orders/prod/o-{n}"), None).await;
        approve(&world, "ana", &request.grant_id).await.unwrap();
        granted.push(request.request_id);
    }
    let exchanges: Vec<_> = granted
        .iter()
        .map(|request| {
            let (agent, request) = (agent.clone(), request.clone());
            tokio::spawn(async move {
                let mut tokens = Vec::new();
                while let Ok(exchanged) = agent.exchange(&request).await {
                    tokens.push(exchanged.token);
                }
                tokens
            })
        })
        .collect();
    let [from, to] = NOBODY;
    tokio::task::block_in_place(|| apply(&world, "nobody", from, to));
    for (n, exchange) in exchanges.into_iter().enumerate() {
        let tokens = exchange.await.unwrap();
        let last = tokens.last().map(String::as_str).unwrap_or("none");
        let order = format!("o-{n}");
        let shown = Use { key: &agent.key, token: last, order: &order, refund: None };
        shown.until(&gateway, 401).await;
        assert!(agent.exchange(&granted[n]).await.is_err(), "{n}");
    }
}

/// A workload that is listed no more has nothing, whatever it was granted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a14_who_is_listed_no_more_exchanges_nothing() {
    let world = World::start("");
    let gateway = Gateway::start(&world, "gateway/orders", STALE).await;
    let agent = Agent::new(&world, "agent/refunds").await;
    let (_, held) = agent.reading(&world).await;
    let use_held = Use { key: &agent.key, token: &held.token, order: "o-17", refund: None };
    use_held.until(&gateway, 200).await;
    let approved = agent.ask("read orders/prod/o-18", None).await;
    approve(&world, "ana", &approved.grant_id).await.unwrap();
    let ids = |path: &str| format!("ids = \"{SHOP}/{path}/**\"");
    apply(&world, "other", &ids("agent"), &ids("helper"));
    assert!(agent.exchange(&approved.request_id).await.is_err());
    use_held.until(&gateway, 401).await;
}

/// The request cannot be edited between the approval and the token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a14_a_request_is_what_was_approved_and_nothing_else() {
    let world = World::start("");
    let gateway = Gateway::start(&world, "gateway/orders", STALE).await;
    let agent = Agent::new(&world, "agent/refunds").await;
    let filing = agent.filing(scope("read orders/prod/o-17", None));
    let request = agent.file(filing.clone()).await.unwrap();
    approve(&world, "ana", &request.grant_id).await.unwrap();
    let other_key = vec![7; 32];
    let edits: [fn(&mut v1::RequestAccessRequest); 7] = [
        |filing| filing.scope = Some(scope("read orders/prod/**", None)),
        |filing| filing.scope = Some(scope("delete orders/prod/o-17", None)),
        |filing| filing.lifetime_seconds = 900,
        |filing| filing.uses = 5,
        |filing| filing.audience = format!("{SHOP}/gateway/exports"),
        |filing| filing.task = "case-8".into(),
        |filing| filing.purpose = "incident".into(),
    ];
    for (n, edit) in edits.iter().enumerate() {
        let mut edited = filing.clone();
        edit(&mut edited);
        let refused = agent.file(edited).await.unwrap_err();
        assert_eq!(refused.code(), Code::AlreadyExists, "{n}: {refused:?}");
    }
    let mut thief = filing.clone();
    thief.holder_key = other_key.into();
    assert!(agent.file(thief).await.is_err());
    let token = agent.exchange(&request.request_id).await.unwrap().token;
    let read = |order| Use { key: &agent.key, token: &token, order, refund: None };
    read("o-17").until(&gateway, 200).await;
    assert_eq!(read("o-18").at(&gateway).await.status, 403);
}
