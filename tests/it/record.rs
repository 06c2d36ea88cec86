//! The record: what gateways report, what is found in it, what it tells, and what was done to it.

use std::process::Output;
use std::time::Duration;

use dayfly_proto::v1;
use dayfly_proto::v1::gateway_service_client::GatewayServiceClient;
use dayfly_proto::v1::revocation_target::Target;
use dayfly_verifier::uses::Uses;
use serde_json::Value as Json;
use tonic::Code;

use crate::parties::{Agent, Gateway, Use, approve, revoke, scope};
use crate::world::World;

const STALE: Duration = Duration::from_secs(5);
const AUDITOR: &str = "person/olga";

fn lines(output: &Output) -> Vec<Json> {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn query(world: &World, args: &[&str]) -> Vec<Json> {
    lines(&world.run(AUDITOR, &[&["--output", "json", "audit", "query"], args].concat()))
}

fn kinds(entries: &[Json]) -> Vec<&str> {
    let kind =
        |entry: &'_ Json| entry["entry"]["event"].as_object().unwrap().keys().next().cloned();
    let names = entries.iter().map(|entry| kind(entry).unwrap());
    names.map(|name| &*name.leak()).collect()
}

fn reports(world: &World) -> Vec<Json> {
    let found = query(world, &["--kind", "uses_reported"]);
    found.into_iter().map(|entry| entry["entry"]["event"]["uses_reported"].clone()).collect()
}

fn sum(reports: &[Json], grant: &str, seen: &Json) -> u64 {
    let counts = reports.iter().flat_map(|report| report["counts"].as_array().unwrap());
    let of = counts.filter(|count| count["about"]["grant"] == grant && count["seen"] == *seen);
    of.map(|count| count["count"].as_u64().unwrap()).sum()
}

/// The broker is killed between the counting and the telling, and with a batch sealed.
#[tokio::test]
async fn counts_survive_the_broker_and_count_once() {
    let mut world = World::start("");
    let gateway = Gateway::start(&world, "gateway/orders", STALE).await;
    let agent = Agent::new(&world, "agent/refunds").await;
    let (request, held) = agent.reading(&world).await;
    let shown = Use { key: &agent.key, token: &held.token, order: "o-17", refund: None };
    shown.until(&gateway, 200).await;
    assert_eq!(shown.at(&gateway).await.status, 200);
    let mut reporter = gateway.reporter();
    world.kill();
    assert!(!reporter.report().await);
    assert_eq!(shown.at(&gateway).await.status, 200, "no request waits for the report");
    assert!(!reporter.report().await);
    world.serve();
    while reports(&world).is_empty() {
        reporter.report().await;
    }
    assert_eq!(sum(&reports(&world), &request.grant_id, &"allowed".into()), 2);
    while reports(&world).len() < 2 {
        reporter.report().await;
    }
    reporter.report().await;
    let told = reports(&world);
    assert_eq!(sum(&told, &request.grant_id, &"allowed".into()), 3);
    assert_eq!(told.iter().map(|r| r["number"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn only_its_own_gateway_tells_of_a_grant_and_only_what_it_sealed() {
    let world = World::start("");
    let gateway = Gateway::start(&world, "gateway/orders", STALE).await;
    let agent = Agent::new(&world, "agent/refunds").await;
    let (request, held) = agent.reading(&world).await;
    let count = v1::UseCount {
        grant_id: request.grant_id.clone(),
        token_id: held.token_id.clone(),
        operation: "read".into(),
        outcome: v1::UseOutcome::Allowed.into(),
        reason: String::new(),
        count: 7,
    };
    let sealed = |gateway: &str, counts: Vec<v1::UseCount>| {
        let uses = Uses::new(std::sync::Arc::new(dayfly_verifier::time::SystemClock));
        uses.miss(1);
        let mut batch = uses.seal(&"one".parse().unwrap(), 1).unwrap();
        batch.missed = 0;
        let about = dayfly_verifier::uses::About {
            grant: request.grant_id.parse().unwrap(),
            token: held.token_id.parse().unwrap(),
        };
        let line = dayfly_verifier::uses::Line {
            about: Some(about),
            operation: Some("read".parse().unwrap()),
            seen: dayfly_verifier::uses::Seen::Allowed,
        };
        batch.counts = vec![(line, 7)];
        let digest = batch.digest(&gateway.parse().unwrap());
        v1::ReportUseRequest {
            instance: "one".into(),
            number: 1,
            from_ms: i64::try_from(batch.from.as_ms()).unwrap(),
            until_ms: i64::try_from(batch.until.as_ms()).unwrap(),
            counts,
            missed: 0,
            digest: digest.as_bytes().to_vec().into(),
        }
    };
    let exports = world.session("gateway/exports").await;
    let mut other = GatewayServiceClient::new(exports.channel());
    let theirs = sealed("spiffe://shop.test/gateway/exports", vec![count.clone()]);
    assert_eq!(other.report_use(theirs).await.unwrap_err().code(), Code::NotFound);
    let mut own = GatewayServiceClient::new(gateway.session().channel());
    let good = sealed(&gateway.audience, vec![count.clone()]);
    let more =
        v1::ReportUseRequest { counts: vec![v1::UseCount { count: 8, ..count }], ..good.clone() };
    let refused = own.report_use(more).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(refused.message().contains("the seal"), "{refused:?}");
    let mut agents = GatewayServiceClient::new(agent.session.channel());
    assert_eq!(agents.report_use(good.clone()).await.unwrap_err().code(), Code::NotFound);
    for _ in 0..3 {
        own.report_use(good.clone()).await.unwrap();
    }
    assert_eq!(sum(&reports(&world), &request.grant_id, &"allowed".into()), 7);
}

#[tokio::test]
async fn entries_are_found_by_what_they_are_about() {
    let world = World::start("");
    let (one, two) =
        (Agent::new(&world, "agent/refunds").await, Agent::new(&world, "agent/other").await);
    let first = one.ask("refund orders/prod/o-17", Some(20_000)).await;
    let second = two.ask("refund orders/prod/o-18", Some(20_000)).await;
    for name in ["ana", "caro"] {
        approve(&world, name, &first.grant_id).await.unwrap();
    }
    one.exchange(&first.request_id).await.unwrap();
    let all = revoke(&world, Target::Workload(first.workload.clone())).await;
    assert_eq!(all.ended_grants, std::slice::from_ref(&first.grant_id));
    // A revocation of what has ended already is not about it.
    revoke(&world, Target::Workload(first.workload.clone())).await;

    let about = [
        "request_filed",
        "decision_recorded",
        "decision_recorded",
        "granted",
        "token_recorded",
        "revoked",
    ];
    let grant = query(&world, &["--grant", &first.grant_id]);
    assert_eq!(kinds(&grant), about);
    let by_workload = query(&world, &["--workload", &first.workload]);
    let joined = ["identity_changed"; 2];
    assert_eq!(kinds(&by_workload), [&joined[..], &about[..], &["revoked"]].concat());
    let exact = query(&world, &["--resource", "orders/prod/o-18"]);
    assert_eq!(kinds(&exact), ["request_filed"]);
    let two = query(&world, &["--workload", &second.workload]);
    assert_eq!(two[2..], exact);
    let ana = query(&world, &["--person", "ana", "--grant", &first.grant_id]);
    assert_eq!(kinds(&ana), ["decision_recorded"]);
    assert!(query(&world, &["--person", "ana", "--resource", "orders/prod/o-18"]).is_empty());
    assert!(query(&world, &["--grant", &"0".repeat(32)]).is_empty());
    let time = |entry: &Json| entry["entry"]["at_ms"].as_u64().unwrap();
    let later = dayfly_verifier::time::Timestamp::from_ms(time(&grant[3])).unwrap().to_string();
    let since = query(&world, &["--grant", &first.grant_id, "--since", &later]);
    assert!(since.iter().all(|entry| time(entry) >= time(&grant[3])) && since.len() < 6);
    let until = query(&world, &["--grant", &first.grant_id, "--until", &later]);
    assert_eq!([until, since].concat(), grant);

    let limited = ["--grant", &first.grant_id, "--limit", "4"];
    let page = query(&world, &limited);
    let after = page[3]["seq"].to_string();
    let rest = query(&world, &[&limited[..], &["--after", &after]].concat());
    assert_eq!([page, rest].concat(), grant);
    let refused = world.run(AUDITOR, &["audit", "query", "--kind", "nothing"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let stranger = world.run("person/ana", &["audit", "query"]);
    assert_eq!(stranger.status.code(), Some(11), "{stranger:?}");
}

#[tokio::test]
async fn a_history_tells_who_asked_who_approved_what_was_done_and_how_it_ended() {
    let world = World::start("");
    let gateway = Gateway::start(&world, "gateway/orders", STALE).await;
    let agent = Agent::new(&world, "agent/refunds").await;
    let mut filing = agent.filing(scope("read orders/prod/o-17", None));
    filing.principal = "ben".into();
    let request = agent.file(filing).await.unwrap();
    approve(&world, "ana", &request.grant_id).await.unwrap();
    let held = agent.exchange(&request.request_id).await.unwrap();
    let shown = Use { key: &agent.key, token: &held.token, order: "o-17", refund: None };
    shown.until(&gateway, 200).await;
    assert_eq!(Use { order: "o-18", ..shown }.at(&gateway).await.status, 403);
    gateway.reporter().report().await;
    agent.complete(&request.request_id).await.unwrap();

    let told = world.run(AUDITOR, &["history", &request.grant_id]);
    assert!(told.status.success(), "{told:?}");
    let text = String::from_utf8(told.stdout).unwrap();
    let key = crate::world::ssh("ana").public_key().fingerprint(ssh_key::HashAlg::Sha256);
    let expected = [
        "agent/refunds",
        "for       ben",
        "read orders/prod/o-17",
        "because   purpose customer-support, task case-7",
        "| the customer asked",
        "ana approved it",
        &format!("signed with {key}; verified again"),
        &held.token_id,
        "read  ",
        "refused: out_of_scope",
        "completed it",
        "it is over since",
    ];
    for part in expected {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    for about in [&request.task, &request.workload] {
        let told = world.run(AUDITOR, &["--output", "json", "history", about]);
        let told: Json = serde_json::from_slice(&told.stdout).unwrap();
        assert_eq!(told[0]["grant_id"], request.grant_id, "{told}");
        assert_eq!(told[0]["steps"][1]["signature"]["holds"], true, "{told}");
    }
    let nobody = world.run(AUDITOR, &["history", "no-such-task"]);
    assert_eq!(nobody.status.code(), Some(11), "{nobody:?}");
}

/// Every way in which whoever holds the file may change it is found, and named.
#[tokio::test]
async fn a25_what_was_done_to_the_file_of_the_record_is_named() {
    let mut world = World::start("");
    let agent = Agent::new(&world, "agent/refunds").await;
    agent.reading(&world).await;
    world.kill();
    let file = world.path("broker/journal.db");
    let verify = |more: &[&str]| {
        let args = [&["--output", "json", "audit", "verify"], more, &["--journal"]].concat();
        world.dayfly(None, &args, &[&file])
    };
    let whole = verify(&[]);
    let head = lines(&whole)[0]["head"].as_str().unwrap().to_owned();
    assert!(verify(&["--head", &head]).status.success());
    let last: u64 = head.split(':').nth(1).unwrap().parse().unwrap();
    let filed = "SELECT min(seq) FROM entry WHERE instr(CAST(bytes AS TEXT), 'o-17') > 0";
    let filed: u32 = rusqlite::Connection::open(&file)
        .and_then(|connection| connection.query_row(filed, [], |row| row.get(0)))
        .unwrap();
    // That folded the write-ahead log back.
    let was = std::fs::read(&file).unwrap();
    let tampered = |sql: &str, more: &[&str]| {
        for side in ["journal.db-wal", "journal.db-shm"] {
            let _ = std::fs::remove_file(world.path("broker").join(side));
        }
        std::fs::write(&file, &was).unwrap();
        let connection = rusqlite::Connection::open(&file).unwrap();
        connection.execute_batch(sql).unwrap();
        drop(connection);
        let found = verify(more);
        assert!(!found.status.success(), "{sql}: {found:?}");
        String::from_utf8(found.stderr).unwrap()
    };
    let to_head = "UPDATE head SET (epoch, seq, hash) = \
                   (SELECT epoch, seq, hash FROM entry ORDER BY seq DESC LIMIT 1);";
    let change = "UPDATE entry SET bytes = CAST(replace(bytes, 'o-17', 'o-18') AS BLOB)";
    let change = format!("{change} WHERE seq = {filed}");
    let edits = [
        (change.as_str(), filed),
        ("UPDATE entry SET hash = zeroblob(32) WHERE seq = 5", 5),
        ("DELETE FROM entry WHERE seq = 3", 3),
        (
            "UPDATE entry SET seq = 100 + seq WHERE seq IN (4, 5); \
          UPDATE entry SET seq = 109 - seq WHERE seq > 100",
            4,
        ),
    ];
    for (sql, seq) in edits {
        let found = tampered(sql, &[]);
        assert!(found.contains(&format!("entry {seq} ")), "{sql}: {found}");
    }
    // A tail that is cut with care leaves a whole record: a head that somebody has seen shows it.
    let cut = format!("DELETE FROM entry WHERE seq = {last}; {to_head}");
    let found = tampered(&cut, &["--head", &head]);
    assert!(found.contains(&format!("ends at entry {}", last - 1)), "{found}");
    assert!(verify(&[]).status.success());
    let found = tampered(
        &format!(
            "DELETE FROM entry; {}",
            "UPDATE head SET epoch = zeroblob(16), \
         seq = 0, hash = zeroblob(32)"
        ),
        &["--head", &head],
    );
    assert!(found.contains("ends at entry 0"), "{found}");
}

/// While the broker runs: what was erased is in no file of it, and the record is still whole.
#[tokio::test]
async fn an_erased_text_is_gone_and_the_record_stays_whole() {
    let world = World::start("");
    let agent = Agent::new(&world, "agent/refunds").await;
    let request = agent.ask("refund orders/prod/o-17", Some(500)).await;
    let journal = world.path("broker/journal.db");
    let left = || {
        let dir = std::fs::read_dir(journal.parent().unwrap()).unwrap();
        let files = dir.map(|file| file.unwrap().path()).filter(|path| path.is_file());
        let text = b"the customer asked".as_slice();
        let has = |path: &std::path::PathBuf| {
            std::fs::read(path).unwrap().windows(text.len()).any(|part| part == text)
        };
        files.filter(has).count()
    };
    assert!(left() > 0);
    let filed = query(&world, &["--grant", &request.grant_id]).remove(0);
    let filed = &filed["entry"]["event"]["request_filed"]["justification"];
    let digest = filed.as_str().unwrap().to_owned();
    let file = journal.to_str().unwrap();
    let erase = |digest: &str| {
        let args = ["--output", "json", "audit", "erase", digest, "--journal", file];
        lines(&world.run(AUDITOR, &args)).remove(0)["erased"].as_bool().unwrap()
    };
    assert!(!erase(&"ab".repeat(32)));
    assert!(left() > 0);
    assert!(erase(&digest));
    assert_eq!(left(), 0);
    assert!(!erase(&digest));
    let told = world.run(AUDITOR, &["history", &request.grant_id]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("erased since") && !told.contains("the customer asked"), "{told}");
    assert!(world.run(AUDITOR, &["audit", "verify"]).status.success());
}

#[tokio::test]
async fn a25_another_log_in_its_place_is_told_from_the_one_that_was_seen() {
    let one = World::start("");
    let whole = one.run(AUDITOR, &["--output", "json", "audit", "verify"]);
    let head = lines(&whole)[0]["head"].as_str().unwrap().to_owned();
    let other = World::start("");
    let theirs = other.run(AUDITOR, &["--output", "json", "audit", "verify", "--head", &head]);
    assert!(!theirs.status.success());
    let early = format!("{}:1:{}", head.split(':').next().unwrap(), "ab".repeat(32));
    let theirs = other.run(AUDITOR, &["audit", "verify", "--head", &early]);
    let said = String::from_utf8(theirs.stderr).unwrap();
    assert!(said.contains("entry 1 is of epoch"), "{said}");
}
