//! Decisions of people, over the wire and on the command line: refusals first.

use dayfly_agent::render;
use dayfly_proto::v1::approval_service_client::ApprovalServiceClient;
use dayfly_proto::v1::{self, Standing};
use dayfly_verifier::dossier::{DECISION_NAMESPACE, Salt};
use dayfly_verifier::request::{Answer, Narrowing};
use serde_json::Value as Json;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::parties::{Agent, approve, now, scope, sign};
use crate::world::{World, ssh};

async fn person(world: &World, name: &str) -> ApprovalServiceClient<Channel> {
    ApprovalServiceClient::new(world.session(&format!("person/{name}")).await.channel())
}

async fn shown(
    client: &mut ApprovalServiceClient<Channel>,
    id: &str,
) -> Result<v1::GetRequestResponse, Status> {
    let asked = v1::GetRequestRequest { grant_id: id.to_owned() };
    client.get_request(asked).await.map(tonic::Response::into_inner)
}

fn message(grant_id: &str, decision: v1::SignedDecision) -> v1::ApproveRequest {
    let (grant_id, decision) = (grant_id.to_owned(), Some(decision));
    v1::ApproveRequest { grant_id, decision, ..v1::ApproveRequest::default() }
}

#[tokio::test]
async fn a12_nobody_decides_on_what_is_theirs() {
    let world = World::start("");
    let agent = Agent::new(&world, "agent/refunds").await;
    let request = agent.ask("read orders/prod/o-17", None).await;
    // Dan is in the group, and owns the agents.
    let mut dan = person(&world, "dan").await;
    let refused = approve(&world, "dan", &request.grant_id).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    let watch = v1::WatchPendingRequest { once: true };
    let mut waiting = dan.watch_pending(watch).await.unwrap().into_inner();
    assert!(waiting.message().await.unwrap().unwrap().requests.is_empty());
    // Ana is in the group, and it is on her behalf.
    let mut filing = agent.filing(scope("read orders/prod/o-17", None));
    filing.principal = "ana".into();
    let hers = agent.file(filing).await.unwrap();
    let refused = approve(&world, "ana", &hers.grant_id).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    // An operator sees it, and may not approve; to people of other groups, and to a workload, it
    // does not exist.
    assert!(approve(&world, "olga", &request.grant_id).await.is_err());
    let mut ben = person(&world, "ben").await;
    for id in [&request.grant_id[..], &request.grant_id[..8]] {
        assert_eq!(shown(&mut ben, id).await.unwrap_err().code(), Code::NotFound);
    }
    let withdrawal = v1::WithdrawRequest { grant_id: request.grant_id.clone() };
    assert_eq!(ben.withdraw(withdrawal).await.unwrap_err().code(), Code::NotFound);
    let mut stranger = ApprovalServiceClient::new(agent.session.channel());
    let unseen = shown(&mut stranger, &request.grant_id).await.unwrap_err();
    assert_eq!(unseen.code(), Code::NotFound);
}

#[tokio::test]
async fn a13_a_signature_counts_for_one_request_of_one_person_alone() {
    let world = World::start("");
    let agent = Agent::new(&world, "agent/refunds").await;
    let one = agent.ask("read orders/prod/o-17", None).await;
    let other = agent.ask("read orders/prod/o-18", None).await;
    let mut ana = person(&world, "ana").await;
    let canonical = shown(&mut ana, &one.grant_id).await.unwrap().canonical_request;
    let good = sign("ana", &canonical);
    for (grant, decision) in [
        (&other.grant_id, good.clone()),
        // Signed by another key, in ana's name; in another's name; altered; unsigned.
        (&one.grant_id, signed_by("ben", "ana", &canonical, DECISION_NAMESPACE)),
        (&one.grant_id, signed_by("ana", "caro", &canonical, DECISION_NAMESPACE)),
        (&one.grant_id, signed_by("ana", "ana", &canonical, "bundle.v1@dayfly")),
        (&one.grant_id, v1::SignedDecision { statement: canonical.clone(), ..good.clone() }),
        (&one.grant_id, v1::SignedDecision { signature: String::new(), ..good.clone() }),
    ] {
        let refused = ana.approve(message(grant, decision)).await;
        assert!(refused.is_err(), "{:?}", refused.map(drop));
    }
    // Caro's signature, sent by ana.
    let caros = message(&one.grant_id, sign("caro", &canonical));
    assert!(ana.approve(caros).await.is_err());
    let granted = ana.approve(message(&one.grant_id, good.clone())).await.unwrap().into_inner();
    assert_eq!(granted.request.unwrap().standing(), Standing::Granted);
    // The same again is the same answer.
    let again = ana.approve(message(&one.grant_id, good)).await.unwrap().into_inner();
    assert_eq!(again.request.unwrap().standing(), Standing::Granted);
}

fn signed_by(key: &str, name: &str, canonical: &[u8], namespace: &str) -> v1::SignedDecision {
    let shown = render::request(canonical).unwrap();
    let answer = Answer::Approve(Narrowing::default());
    let prepared = shown.decide(name.parse().unwrap(), answer, None, now()).unwrap();
    let made = ssh(key).sign(namespace, ssh_key::HashAlg::Sha256, prepared.bytes()).unwrap();
    v1::SignedDecision {
        statement: prepared.bytes().to_vec().into(),
        signature: made.to_pem(ssh_key::LineEnding::LF).unwrap(),
    }
}

#[tokio::test]
async fn a60_one_person_counts_once_and_can_take_it_back() {
    let world = World::start("");
    let agent = Agent::new(&world, "agent/refunds").await;
    let id = agent.ask("update orders/prod/o-17", None).await.grant_id;
    for _ in 0..3 {
        let pending = approve(&world, "ana", &id).await.unwrap();
        assert_eq!(pending.standing(), Standing::Pending);
        assert_eq!(pending.approved_by, ["ana"]);
    }
    let mut ana = person(&world, "ana").await;
    let back = v1::WithdrawRequest { grant_id: id.clone() };
    let back = ana.withdraw(back).await.unwrap().into_inner().request.unwrap();
    assert!(back.approved_by.is_empty());
    assert_eq!(approve(&world, "caro", &id).await.unwrap().standing(), Standing::Pending);
    assert_eq!(approve(&world, "ana", &id).await.unwrap().standing(), Standing::Granted);
}

#[tokio::test]
async fn a_reason_is_kept_only_if_it_is_the_one_that_was_signed() {
    let world = World::start("");
    let agent = Agent::new(&world, "agent/refunds").await;
    let id = agent.ask("read orders/prod/o-17", None).await.grant_id;
    let mut ana = person(&world, "ana").await;
    let canonical = shown(&mut ana, &id).await.unwrap().canonical_request;
    let salt = Salt::new([7; 16]);
    let request = render::request(&canonical).unwrap();
    let answer = Answer::Approve(Narrowing::default());
    let reason = Some(("agreed", &salt));
    let prepared = request.decide("ana".parse().unwrap(), answer, reason, now()).unwrap();
    let made = ssh("ana").sign(DECISION_NAMESPACE, ssh_key::HashAlg::Sha512, prepared.bytes());
    let decision = v1::SignedDecision {
        statement: prepared.bytes().to_vec().into(),
        signature: made.unwrap().to_pem(ssh_key::LineEnding::LF).unwrap(),
    };
    let with = |reason: &str, salt: &[u8]| v1::ApproveRequest {
        reason: reason.to_owned(),
        reason_salt: salt.to_vec().into(),
        ..message(&id, decision.clone())
    };
    for (reason, salt) in
        [("", &[][..]), ("agreed", &[]), ("other", &[7; 16]), ("agreed", &[8; 16])]
    {
        let refused = ana.approve(with(reason, salt)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{reason}");
    }
    assert!(ana.approve(with("agreed", &[7; 16])).await.is_ok());
}

#[tokio::test]
async fn what_waits_is_pushed_and_named_by_its_first_characters() {
    let world = World::start("");
    let mut ana = person(&world, "ana").await;
    let watch = v1::WatchPendingRequest { once: false };
    let mut waiting = ana.watch_pending(watch).await.unwrap().into_inner();
    assert!(waiting.message().await.unwrap().unwrap().requests.is_empty());
    let agent = Agent::new(&world, "agent/refunds").await;
    let id = agent.ask("read orders/prod/o-17", None).await.grant_id;
    let came = waiting.message().await.unwrap().unwrap().requests;
    assert_eq!(came.iter().map(|request| &request.grant_id).collect::<Vec<_>>(), [&id]);
    assert_eq!(shown(&mut ana, &id[..3]).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(shown(&mut ana, "zzzz").await.unwrap_err().code(), Code::InvalidArgument);
    let answer = shown(&mut ana, &id[..8]).await.unwrap();
    assert_eq!(answer.request.unwrap().grant_id, id);
    assert_eq!(
        (answer.person.as_str(), answer.justification.as_str()),
        ("ana", "the customer asked")
    );
    let denial = v1::DenyRequest {
        grant_id: id.clone(),
        digest: came[0].digest.clone(),
        reason: "not today".into(),
    };
    let denied = ana.deny(denial).await.unwrap().into_inner().request.unwrap();
    assert_eq!(denied.standing(), Standing::Denied);
    assert!(waiting.message().await.unwrap().unwrap().requests.is_empty());
    assert!(approve(&world, "ana", &id).await.is_err());
}

#[tokio::test]
async fn a53_the_command_line_shows_what_it_signs_and_only_takes_away() {
    let world = World::start("");
    let agent = Agent::new(&world, "agent/refunds").await;
    let request = agent.ask("refund orders/prod/o-17", Some(6000)).await;
    let id = &request.grant_id[..8];
    let key = world.key_file("ana");
    let as_ana = |args: &[&str]| {
        let out = world.run("person/ana", args);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
    };
    let key = key.to_str().unwrap();
    // Without a terminal nobody is asked; wider is refused; without a key nothing is signed.
    assert_eq!(as_ana(&["approve", id, "--key", key]).0, 2);
    assert_eq!(as_ana(&["approve", id, "--key", key, "--yes", "--ttl", "1h"]).0, 2);
    assert_eq!(
        as_ana(&["approve", id, "--key", key, "--yes", "--only", "read orders/prod/7"]).0,
        2
    );
    assert_eq!(as_ana(&["approve", id, "--yes"]).0, 64);
    let (code, listed, _) = as_ana(&["pending", "--output", "json"]);
    let listed: Json = serde_json::from_str(&listed).unwrap();
    assert_eq!((code, &listed[0]["grant_id"]), (0, &Json::from(request.grant_id.clone())));
    assert!(listed[0]["approved_by"].as_array().unwrap().is_empty());
    let (code, page, _) = as_ana(&["show", id]);
    for part in [&request.digest, "amount <= 6000", "  | the customer asked"] {
        assert!(code == 0 && page.contains(part), "{page}");
    }
    let narrowed =
        ["approve", id, "--key", key, "--yes", "--where", "amount <= 5500", "--ttl", "2m"];
    let (code, page, problem) = as_ana(&narrowed);
    assert_eq!(code, 0, "{problem}");
    for part in [&request.digest, "APPROVE", "amount <= 5500", "120 seconds", "pending"] {
        assert!(page.contains(part), "{page}");
    }
    let granted = approve(&world, "caro", &request.grant_id).await.unwrap();
    let terms = granted.terms.unwrap();
    assert_eq!(terms.until_ms - terms.from_ms, 120_000);
    let limits: Vec<_> = terms.scope.unwrap().constraints.into_iter().map(|c| c.limit).collect();
    assert!(limits.contains(&Some(v1::constraint::Limit::AtMost(5500))), "{limits:?}");
    assert_eq!(as_ana(&["deny", id]).0, 11);
    assert_eq!(as_ana(&["approve", id, "--key", key, "--yes"]).0, 11);
    assert_eq!(as_ana(&["show", "00000000"]).0, 11);
}
