//! The command line as agent, approver and operator, each command a process: what it does, and
//! how it ends.

use std::process::Output;

use serde_json::Value as Json;

use crate::world::{SHOP, World};

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
