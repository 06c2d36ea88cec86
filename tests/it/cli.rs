//! The command line as agent, approver and operator, each command a process: what it does, and
//! how it ends.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value as Json, json};

use crate::world::{DAYFLY, SHOP, World};

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn ends(output: &Output, with: i32) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code(output), with, "{said}\n{}", String::from_utf8_lossy(&output.stdout));
}

/// Asks as `agent/refunds`; the exit code, the request's id and the grant's.
fn ask(world: &World, right: &str, limit: &str) -> (i32, String, String) {
    let audience = format!("{SHOP}/gateway/orders");
    let mut args = vec!["--output", "json", "request", "--audience", &audience];
    args.extend(["--allow", right, "--task", "case-7", "--purpose", "customer-support"]);
    if !limit.is_empty() {
        args.extend(["--where", limit]);
    }
    let asked = world.run("agent/refunds", &args);
    let answer: Json = serde_json::from_slice(&asked.stdout).unwrap_or_default();
    let field = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    (code(&asked), field("request_id"), field("grant_id"))
}

fn approve(world: &World, name: &str, grant: &str) -> Output {
    let (dir, key) = (world.identity(&format!("person/{name}")), world.key_file(name));
    world.dayfly(Some(&dir), &["approve", grant, "--yes", "--key"], &[&key])
}

#[test]
fn each_end_has_its_exit_code() {
    let world = World::start("pending_seconds = 3");
    let agent = |args: &[&str]| world.run("agent/refunds", args);

    // Granted at once; done; over.
    let (granted, request, _) = ask(&world, "refund orders/prod/o-17", "amount <= 500");
    assert_eq!(granted, 0);
    let token = agent(&["exchange", &request, "--stdout"]);
    ends(&token, 0);
    assert!(token.stdout.len() > 500, "that is no token");
    ends(&agent(&["complete", &request]), 0);
    assert_ne!(code(&agent(&["exchange", &request, "--stdout"])), 0);

    // Refused by policy: 11, and nothing to exchange.
    let (refused, request, _) = ask(&world, "read orders/prod/cards/c-1", "");
    assert_eq!(refused, 11);
    if !request.is_empty() {
        ends(&agent(&["exchange", &request, "--stdout"]), 11);
    }

    // Waiting: 10. Unanswered: 12.
    let (pending, request, _) = ask(&world, "read orders/prod/o-17", "");
    assert_eq!(pending, 10);
    ends(&agent(&["exchange", &request, "--stdout"]), 10);
    ends(&agent(&["wait", &request]), 12);
    let late = agent(&["exchange", &request, "--stdout"]);
    ends(&late, 12);
    assert!(late.stdout.is_empty());

    // Denied: 11.
    let (_, request, grant) = ask(&world, "read orders/prod/o-18", "");
    ends(&world.run("person/ana", &["deny", &grant]), 0);
    ends(&agent(&["wait", &request]), 11);

    // Not understood: 2. No identity, no configuration: 64.
    ends(&agent(&["request", "--audience", "x"]), 2);
    ends(&agent(&["nonsense"]), 2);
    ends(&world.dayfly(Some(&world.path("none")), &["status"], &[]), 64);
    ends(&world.dayfly(None, &["serve", "--config"], &[&world.path("none.toml")]), 64);
}

#[test]
fn revoked_is_13_and_a_broker_that_is_gone_is_20() {
    let mut world = World::start("");
    let (pending, request, grant) = ask(&world, "read orders/prod/o-17", "");
    assert_eq!(pending, 10);
    let own = approve(&world, "dan", &grant);
    assert_ne!(code(&own), 0, "an owner approved");
    ends(&approve(&world, "ana", &grant), 0);
    let agent = |world: &World, args: &[&str]| world.run("agent/refunds", args);
    ends(&agent(&world, &["wait", &request]), 0);
    let file = world.path("token");
    let to_file = ["exchange", &request, "--token-file", file.to_str().unwrap()];
    ends(&agent(&world, &to_file), 0);
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    ends(&world.run("person/olga", &["revoke", "--grant", &grant]), 0);
    let over = agent(&world, &["exchange", &request, "--stdout"]);
    ends(&over, 13);
    assert!(over.stdout.is_empty());
    ends(&agent(&world, &["revoke", "--grant", &grant]), 11);

    let journal = world.path("broker/journal.db");
    world.kill();
    let gone = agent(&world, &["exchange", &request, "--stdout"]);
    ends(&gone, 20);
    assert!(gone.stdout.is_empty());
    ends(&world.dayfly(None, &["audit", "verify", "--journal"], &[&journal]), 0);
}

/// What `dayfly policy` says of a bundle, and its exit code. No broker runs, and nobody has joined.
fn policy(verb: &str, bundle: &Path, more: &[&str]) -> (i32, Json) {
    let mut command = Command::new(DAYFLY);
    command.args(["--output", "json", "policy", verb]).arg(bundle).args(more);
    let output = command.env_remove("DAYFLY_IDENTITY").output().unwrap();
    (code(&output), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

#[test]
fn a_bundle_is_asked_what_it_would_answer_and_why() {
    let shop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/shop");
    let workload = format!("{SHOP}/agent/refunds");
    let who = ["--workload", &workload, "--purpose", "customer-support", "--allow"];
    let asked = |more: &[&str]| policy("explain", &shop, &[&who[..], more].concat());

    let (ended, said) = asked(&["read orders/prod/o-17"]);
    let answer = json!({
        "permitted": true, "approvals": { "dba": 1 }, "max_lifetime_seconds": 900,
        "max_uses": null, "online": false,
    });
    assert_eq!((ended, &said["answer"]), (0, &answer), "{said}");
    let point = json!({
        "operation": "read", "resource": "orders/prod/o-17", "policies": ["read-orders"],
        "answer": answer,
    });
    assert_eq!(said["points"], json!([point]));
    let (ended, said) = asked(&["refund orders/prod/o-17", "--where", "amount <= 500"]);
    assert_eq!((ended, &said["answer"]["max_uses"]), (0, &json!(1)), "what pays out is counted");
    assert_eq!(said["answer"]["approvals"], json!({}));

    // The name of the policy that refuses, and 11.
    for (more, policy) in [
        (&["read orders/prod/cards/c-1"][..], "no-cards"),
        (&["read orders/prod/**"], "no-cards"),
        (&["refund orders/prod/o-17"], "refund-limit"),
        (&["read orders/prod/o-17", "--ttl", "16m"], "read-orders"),
        (&["refund orders/prod/o-17", "--where", "amount <= 500", "--uses", "2"], "refund-small"),
        (&["export orders/prod/o-17"], "default"),
    ] {
        let (ended, said) = asked(more);
        assert_eq!((ended, &said["answer"]["policy"]), (11, &json!(policy)), "{more:?}: {said}");
    }
    let unnamed = ["--workload", &workload, "--allow", "read orders/prod/o-17"];
    assert_eq!(policy("explain", &shop, &unnamed).0, 2, "there are several purposes");
}

#[test]
fn a_bundle_is_checked_whole() {
    let dir = tempfile::tempdir().unwrap();
    let shop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/shop");
    let (ended, said) = policy("check", &shop, &[]);
    assert_eq!((ended, &said["problems"]), (0, &json!([])), "{said}");
    for file in std::fs::read_dir(&shop).unwrap() {
        let file = file.unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        let text = text.replace("@max_ttl(\"15m\")", "@max_tll(\"15m\")");
        let text = text.replace("roles = [\"operator\", ", "roles = [\"admin\", ");
        std::fs::write(dir.path().join(file.file_name()), text).unwrap();
    }
    let (ended, said) = policy("check", dir.path(), &[]);
    let said = said["problems"].to_string();
    assert_eq!(ended, 64, "{said}");
    for wrong in ["`@max_tll` is not an annotation that we know", "`admin` is none of operator"] {
        assert!(said.contains(wrong), "{said}");
    }
}
