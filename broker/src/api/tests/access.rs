//! The access service: refusals first.

use futures_util::StreamExt as _;

use super::*;

const SMALL: &str = "refund orders/prod/o-17";
const NEEDS_DBA: &str = "read orders/prod/o-17";

#[tokio::test]
async fn what_is_absent_or_anothers_is_not_found() {
    let world = World::new().await;
    let (agent, other) = (world.agent("agent/a", 1), world.agent("agent/b", 1));
    let filed = world.file(&agent, world.filing(&agent, 1, SMALL)).await.unwrap();
    // The same key and the same id, under another SPIFFE ID.
    let anothers = world.exchange(&other, &filed.request_id, 1).await.unwrap_err();
    let absent = RequestId::draw(world.clock.now(), [9; 10]).to_string();
    let absent = world.exchange(&agent, &absent, 1).await.unwrap_err();
    assert_eq!(reason(&absent), "NOT_FOUND");
    let same = |status: &Status| (status.code(), status.message().to_owned(), reason(status));
    assert_eq!(same(&anothers), same(&absent));
    assert_eq!(reason(&world.cancel(&other, &filed.request_id).await.unwrap_err()), "NOT_FOUND");
    let list = world.from(&other.id, v1::ListMyGrantsRequest {});
    assert!(world.access().list_my_grants(list).await.unwrap().into_inner().requests.is_empty());
    let bare = Request::new(v1::ListMyGrantsRequest {});
    let status = world.access().list_my_grants(bare).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
}

#[tokio::test]
async fn a_sibling_under_the_same_id_cannot_act_without_the_holder_key() {
    let world = World::new().await;
    let (agent, sibling) = (world.agent("agent/a", 1), world.agent("agent/a", 2));
    let filed = world.file(&agent, world.filing(&agent, 1, SMALL)).await.unwrap();
    let id = &filed.request_id;
    let refusals = [
        world.exchange(&sibling, id, 1).await.unwrap_err(),
        world.cancel(&sibling, id).await.unwrap_err(),
    ];
    for status in refusals {
        assert_eq!(reason(&status), "HOLDER_MISMATCH");
    }
    // A filing in the name of a key that did not sign it.
    let mut stolen = world.filing(&agent, 2, SMALL);
    stolen.holder_key = agent.key.verifying_key().to_bytes().to_vec().into();
    let status = world.file(&sibling, stolen).await.unwrap_err();
    assert_eq!(reason(&status), "HOLDER_MISMATCH");
    // A proof for another method, and an old one.
    let request: RequestId = id.parse().unwrap();
    let proof = Some(world.proof(&agent, "Exchange", &request, None));
    let message = v1::CancelRequest { request_id: id.clone(), proof };
    let answer = world.access().cancel(world.from(&agent.id, message)).await;
    assert_eq!(refused(answer), "HOLDER_MISMATCH");
    let proof = Some(world.proof(&agent, "Cancel", &request, None));
    world.forward(30_001);
    let message = v1::CancelRequest { request_id: id.clone(), proof };
    let answer = world.access().cancel(world.from(&agent.id, message)).await;
    assert_eq!(refused(answer), "PROOF_TIME");
}

/// The proof is over the filing as sent: any other field refuses it.
#[tokio::test]
async fn a13_a_filing_that_was_changed_on_the_way_is_refused() {
    let world = World::new().await;
    let agent = world.agent("agent/a", 1);
    type Change = fn(&mut v1::RequestAccessRequest);
    let changes: [Change; 7] = [
        |filing| filing.audience = "spiffe://shop.test/gateway/orders-staging".into(),
        |filing| filing.task = "task-2".into(),
        |filing| filing.purpose = "incident".into(),
        |filing| filing.lifetime_seconds = 60,
        |filing| filing.uses = 1,
        |filing| filing.justification = "other".into(),
        |filing| filing.scope.as_mut().unwrap().constraints.clear(),
    ];
    for change in changes {
        let mut filing = world.proven(&agent, world.filing(&agent, 1, SMALL));
        change(&mut filing);
        let answer = world.access().request_access(world.from(&agent.id, filing)).await;
        assert_eq!(refused(answer), "HOLDER_MISMATCH");
    }
}

#[tokio::test]
async fn policy_refuses_with_its_name_and_reason_and_it_is_recorded() {
    let world = World::new().await;
    let agent = world.agent("agent/a", 1);
    let mut filing = world.filing(&agent, 1, SMALL);
    filing.scope.as_mut().unwrap().constraints.clear();
    let refused = world.file(&agent, filing.clone()).await.unwrap();
    assert_eq!(refused.standing(), v1::Standing::RefusedByPolicy);
    assert!(refused.because.starts_with("policy `refund-limit`: refunds in production"));
    assert_eq!(refused.terms, None);
    let again = world.file(&agent, filing).await.unwrap();
    assert_eq!(again, refused);
    let status = world.exchange(&agent, &refused.request_id, 1).await.unwrap_err();
    assert_eq!(reason(&status), "POLICY_REFUSED");
    // More than policy allows is refused too, in the name of the policy that set the limit.
    let greedy = v1::RequestAccessRequest { uses: 2, ..world.filing(&agent, 2, SMALL) };
    let refused = world.file(&agent, greedy).await.unwrap();
    assert_eq!(refused.because, "policy `refund-small`: there may be at most 1 uses");
}

#[tokio::test]
async fn an_unanswered_request_is_not_granted() {
    let world = World::new().await;
    let agent = world.agent("agent/a", 1);
    let filed = world.file(&agent, world.filing(&agent, 1, NEEDS_DBA)).await.unwrap();
    assert_eq!(filed.standing(), v1::Standing::Pending);
    assert_eq!(filed.requirement.unwrap().approvals["dba"], 1);
    let status = world.exchange(&agent, &filed.request_id, 1).await.unwrap_err();
    assert_eq!(reason(&status), "NOT_YET_APPROVED");
    world.forward(300_000);
    let status = world.exchange(&agent, &filed.request_id, 2).await.unwrap_err();
    assert_eq!(reason(&status), "EXPIRED");
}

#[tokio::test]
async fn a_granted_request_yields_the_same_token_until_it_is_complete() {
    let world = World::new().await;
    let agent = world.agent("agent/a", 1);
    let filed = world.file(&agent, world.filing(&agent, 1, SMALL)).await.unwrap();
    assert_eq!(filed.standing(), v1::Standing::Granted);
    let terms = filed.terms.clone().unwrap();
    assert_eq!((terms.uses, terms.until_ms - terms.from_ms), (1, 300_000));
    let id = &filed.request_id;
    let first = world.exchange(&agent, id, 1).await.unwrap();
    assert_eq!(first.grant_id, filed.grant_id);
    for n in [1, 2] {
        assert_eq!(world.exchange(&agent, id, n).await.unwrap().token, first.token, "{n}");
    }
    world.forward(90_000);
    let fresh = world.exchange(&agent, id, 3).await.unwrap();
    assert_ne!(fresh.token, first.token);
    let proof = Some(world.proof(&agent, "Complete", &id.parse().unwrap(), None));
    let message = v1::CompleteRequest { request_id: id.clone(), outcome: 1, proof: proof.clone() };
    let done = world.access().complete(world.from(&agent.id, message)).await.unwrap();
    let done = done.into_inner();
    assert_eq!(done.request.unwrap().standing(), v1::Standing::Completed);
    assert!(done.head.unwrap().seq > 0);
    // After the end a repeat answers the end, never bytes.
    for n in [1, 2, 3, 4] {
        let status = world.exchange(&agent, id, n).await.unwrap_err();
        assert_eq!(reason(&status), "COMPLETED", "{n}");
    }
    let message = v1::CompleteRequest { request_id: id.clone(), outcome: 0, proof };
    let answer = world.access().complete(world.from(&agent.id, message)).await;
    assert_eq!(refused(answer), "INVALID");
}

#[tokio::test]
async fn a55_an_id_answers_as_the_first_time_and_to_nobody_else() {
    let world = World::new().await;
    let (agent, other) = (world.agent("agent/a", 1), world.agent("agent/b", 2));
    let filing = world.filing(&agent, 1, SMALL);
    let filed = world.file(&agent, filing.clone()).await.unwrap();
    world.forward(1_000);
    assert_eq!(world.file(&agent, filing.clone()).await.unwrap(), filed);
    let changed = v1::RequestAccessRequest { task: "task-2".into(), ..filing.clone() };
    assert_eq!(reason(&world.file(&agent, changed).await.unwrap_err()), "ID_REUSED");
    let mut wider = filing.clone();
    wider.scope.as_mut().unwrap().constraints.clear();
    assert_eq!(reason(&world.file(&agent, wider).await.unwrap_err()), "ID_REUSED");
    // Another workload's same id names something of its own.
    let own = v1::RequestAccessRequest {
        holder_key: other.key.verifying_key().to_bytes().to_vec().into(),
        ..filing
    };
    let own = world.file(&other, own).await.unwrap();
    assert_ne!(own.grant_id, filed.grant_id);
    assert_eq!(own.holder_key, public(&other).to_string());
    // An id that was drawn long ago could be a repeat of something forgotten.
    let old = world.filing(&agent, 7, SMALL);
    world.forward(300_001);
    assert_eq!(reason(&world.file(&agent, old).await.unwrap_err()), "STALE_ID");
}

#[tokio::test]
async fn a50_what_a_workload_may_have_is_bounded_and_texts_of_refusals_are_not_kept() {
    let world = World::new().await;
    let agent = world.agent("agent/a", 1);
    let long = v1::RequestAccessRequest {
        justification: "x".repeat(2049),
        ..world.filing(&agent, 1, NEEDS_DBA)
    };
    let status = world.file(&agent, long).await.unwrap_err();
    assert_eq!(reason(&status), "INVALID");
    assert!(status.message().starts_with("justification: "));
    for n in 0..8 {
        let filing = v1::RequestAccessRequest {
            justification: "x".repeat(2048),
            ..world.filing(&agent, n, NEEDS_DBA)
        };
        assert_eq!(world.file(&agent, filing).await.unwrap().standing(), v1::Standing::Pending);
    }
    let ninth = v1::RequestAccessRequest {
        justification: "a text that nothing will name".into(),
        ..world.filing(&agent, 8, NEEDS_DBA)
    };
    let status = world.file(&agent, ninth).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (tonic::Code::ResourceExhausted, "LIMIT_REACHED")
    );
    assert_eq!(world.texts(), 8);
    // Others are not held up by it.
    let other = world.agent("agent/b", 2);
    world.file(&other, world.filing(&other, 1, NEEDS_DBA)).await.unwrap();
}

#[tokio::test]
async fn a43_free_text_stands_beside_the_log_and_never_in_an_answer() {
    let world = World::new().await;
    let agent = world.agent("agent/a", 1);
    let hostile = "canary\u{1b}[2J\n{\"by\":\"ana\"}\u{202e}\0";
    let filing = v1::RequestAccessRequest {
        justification: hostile.into(),
        ..world.filing(&agent, 1, NEEDS_DBA)
    };
    let filed = world.file(&agent, filing).await.unwrap();
    assert!(!format!("{filed:?}").contains("canary"));
    let state = world.broker.sequencer.state();
    let case = state.own(&agent.id, &filed.request_id.parse().unwrap()).unwrap();
    let digest = case.justification.unwrap();
    assert!(!format!("{case:?}").contains("canary"));
    assert_eq!(world.broker.store.text(&digest).await.unwrap().unwrap().body(), hostile);
    assert!(world.broker.store.erase_text(&digest).await.unwrap());
    assert!(world.broker.store.text(&digest).await.unwrap().is_none());
    // What is refused is quoted on one line, if at all.
    for bad in ["spiffe://shop.test/a\nb", "\u{1b}[31m", "spiffe://shop.test/\u{202e}"] {
        let filing =
            v1::RequestAccessRequest { audience: bad.into(), ..world.filing(&agent, 2, NEEDS_DBA) };
        let status = world.file(&agent, filing).await.unwrap_err();
        assert!(!status.message().contains(|c: char| c.is_control() || c == '\u{202e}'));
    }
}

#[tokio::test]
async fn a_watcher_is_told_of_every_change_until_the_decision() {
    let world = World::new().await;
    let agent = world.agent("agent/a", 1);
    let filed = world.file(&agent, world.filing(&agent, 1, NEEDS_DBA)).await.unwrap();
    let watch = async || {
        let request = filed.request_id.parse().unwrap();
        let proof = Some(world.proof(&agent, "WatchRequest", &request, None));
        let message = v1::WatchRequestRequest { request_id: filed.request_id.clone(), proof };
        let stream = world.access().watch_request(world.from(&agent.id, message)).await;
        stream.unwrap().into_inner()
    };
    let mut stream = watch().await;
    let next = stream.next().await.unwrap().unwrap().request.unwrap();
    assert_eq!(next.standing(), v1::Standing::Pending);
    world.cancel(&agent, &filed.request_id).await.unwrap();
    let next = stream.next().await.unwrap().unwrap().request.unwrap();
    assert_eq!(next.standing(), v1::Standing::Cancelled);
    assert!(stream.next().await.is_none());
    // What is decided by now is told once.
    let told: Vec<_> = watch().await.collect().await;
    assert_eq!(told.len(), 1);
}

#[tokio::test]
async fn a_watcher_learns_that_its_broker_ends_and_not_that_it_was_denied() {
    let world = World::new().await;
    let agent = world.agent("agent/a", 1);
    let filed = world.file(&agent, world.filing(&agent, 1, NEEDS_DBA)).await.unwrap();
    let request = filed.request_id.parse().unwrap();
    let proof = Some(world.proof(&agent, "WatchRequest", &request, None));
    let message = v1::WatchRequestRequest { request_id: filed.request_id, proof };
    let stream = world.access().watch_request(world.from(&agent.id, message)).await;
    let mut stream = stream.unwrap().into_inner();
    stream.next().await.unwrap().unwrap();
    world.broker.shutdown.begin();
    let status = stream.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
}

/// What each holds changes what policy is asked about the others: they are asked anew.
#[tokio::test]
async fn many_filings_at_once_are_all_decided() {
    let world = World::new().await;
    let agent = world.agent("agent/a", 1);
    let file = |n| {
        let filing = v1::RequestAccessRequest {
            task: format!("task-{n}"),
            ..world.filing(&agent, n, SMALL)
        };
        world.file(&agent, filing)
    };
    let answers = futures_util::future::join_all((0..12).map(file)).await;
    for answer in answers {
        assert_eq!(answer.unwrap().standing(), v1::Standing::Granted);
    }
}

#[tokio::test]
async fn a_dossier_is_what_its_digest_says() {
    let world = World::new().await;
    let agent = world.agent("agent/a", 1);
    let filed = world.file(&agent, world.filing(&agent, 1, NEEDS_DBA)).await.unwrap();
    let request = filed.request_id.parse().unwrap();
    let proof = Some(world.proof(&agent, "GetDossier", &request, None));
    let message = v1::GetDossierRequest { request_id: filed.request_id, proof };
    let answer = world.access().get_dossier(world.from(&agent.id, message)).await.unwrap();
    let dossier = answer.into_inner().dossier.unwrap();
    let bytes = [b"dayfly.request.v1\0".as_slice(), &dossier.canonical_request].concat();
    assert_eq!(hex::encode(sha2::Sha256::digest(bytes)), filed.digest);
    assert!(dossier.decisions.is_empty());
}
