//! The verbs of a workload, as processes of their own: request, wait, exchange, complete, cancel,
//! token.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Output, Stdio};
use std::time::Duration;

use dayfly_verifier::id::UseId;
use serde_json::Value as Json;

use crate::parties::{Gateway, Got, approve, http, now, random};
use crate::world::World;

const AGENT: &str = "agent/refunds";
/// The public key of the second test of RFC 8032, section 7.1: nobody's here.
const OTHER_KEY: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn json(output: &Output) -> Json {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

fn text(json: &Json) -> String {
    json.as_str().unwrap().to_owned()
}

/// Asks for `right` with more arguments; JSON is what comes back.
fn ask(world: &World, right: &str, more: &[&str]) -> Output {
    let mut args = vec!["--output", "json", "request", "--allow", right, "--task", "case-7"];
    args.extend(["--audience", "spiffe://shop.test/gateway/orders"]);
    args.extend(["--purpose", "customer-support", "--why", "it was lost"]);
    args.extend(more);
    world.run(AGENT, &args)
}

fn large_refund(world: &World) -> Json {
    let asked = ask(world, "refund orders/prod/o-17", &["--where", "amount <= 20000"]);
    assert_eq!(code(&asked), 10, "{asked:?}");
    json(&asked)
}

#[tokio::test]
async fn a_workload_asks_waits_exchanges_uses_and_completes() {
    let world = World::start("");
    let gateway = Gateway::start(&world, "gateway/orders", Duration::from_secs(5)).await;
    let asked = large_refund(&world);
    let (id, grant) = (text(&asked["request_id"]), text(&asked["grant_id"]));
    assert_eq!(asked["standing"], "pending");
    let kept = world.identity(AGENT).join(format!("requests/{id}.json"));
    assert_eq!(kept.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let file = world.path("token");
    let file = file.to_str().unwrap();
    let early = world.run(AGENT, &["exchange", &id, "--token-file", file]);
    assert_eq!(code(&early), 10, "{early:?}");
    assert!(!world.path("token").exists());
    assert_eq!(code(&world.run(AGENT, &["wait", &id, "--timeout", "1s"])), 10);

    let identity = world.identity(AGENT);
    let waiting = world.command(Some(&identity), &["--output", "json", "wait", &id], &[]);
    let mut waiting = tokio::process::Command::from(waiting);
    waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let waiting = waiting.spawn().unwrap();
    approve(&world, "ana", &grant).await.unwrap();
    approve(&world, "caro", &grant).await.unwrap();
    let waited = waiting.wait_with_output().await.unwrap();
    assert_eq!(code(&waited), 0, "{waited:?}");
    assert_eq!(json(&waited)["standing"], "granted");
    assert_eq!(json(&waited)["terms"]["constraints"][0], "amount <= 20000");

    assert_eq!(code(&world.run(AGENT, &["exchange", &id])), 2, "nowhere to put the token");
    let exchanged = world.run(AGENT, &["exchange", &id, "--token-file", file]);
    assert_eq!(code(&exchanged), 0, "{exchanged:?}");
    let token = std::fs::read_to_string(file).unwrap();
    assert_eq!(world.path("token").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let on_stdout = world.run(AGENT, &["exchange", &id, "--stdout"]);
    assert_eq!(String::from_utf8(on_stdout.stdout).unwrap().trim_end(), token, "the same bytes");

    let inspected = world.run(AGENT, &["--output", "json", "token", "inspect", file]);
    assert_eq!(code(&inspected), 0, "{inspected:?}");
    assert_eq!(json(&inspected)["grant_id"], *grant);
    assert_eq!(json(&inspected)["signatures_good"], Json::Null);
    for shown in [&exchanged, &inspected] {
        let shown = format!("{shown:?}");
        assert!(!shown.contains(&token) && !shown.contains(&token[..80]));
    }
    let checked = world.run(AGENT, &["token", "inspect", file, "--key", OTHER_KEY]);
    assert_eq!(code(&checked), 11, "{checked:?}");

    let paid = refund(&world, &gateway, &id, &token, "amount = 15000").await;
    assert_eq!(paid.status, 200, "{paid:?}");
    let lied = refund(&world, &gateway, &id, &token, "amount = 14000").await;
    assert_eq!(lied.status, 401, "a proof of another call: {lied:?}");

    let completed = world.run(AGENT, &["--output", "json", "complete", &id]);
    assert_eq!((code(&completed), &json(&completed)["standing"]), (0, &"completed".into()));
    for args in [&["wait", &id][..], &["exchange", &id, "--stdout"]] {
        let over = world.run(AGENT, args);
        assert_eq!(code(&over), 12, "{over:?}");
        assert!(over.stdout.is_empty());
    }
}

#[test]
fn a_request_whose_wait_is_over_keeps_its_id() {
    let world = World::start("");
    let more = ["--where", "amount <= 20000", "--wait", "--timeout", "2s"];
    let asked = ask(&world, "refund orders/prod/o-17", &more);
    assert_eq!(code(&asked), 10, "{asked:?}");
    let id = text(&json(&asked)["request_id"]);
    let said: Json = serde_json::from_slice(&asked.stderr).unwrap();
    assert_eq!(said["next"], format!("dayfly wait {id}"));
    assert_eq!(code(&world.run(AGENT, &["cancel", &id])), 0);
}

/// Refunds 150.00 with a proof that says `argument`; once more with the nonce that is wanted.
async fn refund(world: &World, gateway: &Gateway, id: &str, token: &str, argument: &str) -> Got {
    let url = format!("http://{}/orders/o-17/refund", gateway.address);
    let file = world.path("token");
    let mut args = vec!["token", "prove", id, "--token-file", file.to_str().unwrap()];
    args.extend(["--method", "POST", "--url", &url, "--arg", argument]);
    args.extend(["--does", "refund orders/prod/o-17"]);
    let mut nonce: Option<String> = None;
    loop {
        let mut args = args.clone();
        args.extend(nonce.iter().flat_map(|nonce| ["--nonce", nonce]));
        let proof = world.run(AGENT, &args);
        assert_eq!(code(&proof), 0, "{proof:?}");
        let headers = [
            ("authorization", format!("DPoP {token}")),
            ("dpop", String::from_utf8(proof.stdout).unwrap().trim_end().to_owned()),
            ("dayfly-use", UseId::draw(now(), random()).to_string()),
        ];
        let body = "{\"amount\":15000}";
        let got = http(gateway.address, "POST", "/orders/o-17/refund", &headers, body).await;
        let got = got.unwrap();
        let wanted = got.head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("dpop-nonce").then(|| value.to_owned())
        });
        if nonce.is_some() || wanted.is_none() {
            return got;
        }
        nonce = wanted;
    }
}

#[tokio::test]
async fn each_no_has_its_exit_code_and_none_is_a_yes() {
    let mut world = World::start("");
    // Policy says no, and why.
    let unbounded = ask(&world, "refund orders/prod/o-17", &["--where", "amount <= 100001"]);
    assert_eq!(code(&unbounded), 11, "{unbounded:?}");
    assert!(String::from_utf8_lossy(&unbounded.stderr).contains("bounded"), "{unbounded:?}");
    // Policy asks for nobody.
    let granted = ask(&world, "refund orders/prod/o-17", &["--where", "amount <= 500", "--wait"]);
    assert_eq!((code(&granted), &json(&granted)["standing"]), (0, &"granted".into()));
    // What is not a request at all.
    for more in [&["--ttl", "0s"][..], &["--where", "amount < 5"], &["--uses", "0"]] {
        assert_eq!(code(&ask(&world, "refund orders/prod/o-17", more)), 2, "{more:?}");
    }
    assert_eq!(code(&ask(&world, "refund orders//prod", &[])), 2);

    // Taken back by its holder; unknown to a sibling.
    let id = text(&large_refund(&world)["request_id"]);
    let sibling = world.run("agent/other", &["cancel", &id]);
    assert_eq!(code(&sibling), 64, "{sibling:?}");
    assert_eq!(code(&world.run(AGENT, &["cancel", &id])), 0);
    let waited = world.run(AGENT, &["wait", &id]);
    assert_eq!(code(&waited), 12, "{waited:?}");

    // Nobody can be asked.
    let id = text(&large_refund(&world)["request_id"]);
    world.kill();
    for args in [&["wait", &id][..], &["exchange", &id, "--stdout"], &["complete", &id]] {
        let unknown = world.run(AGENT, args);
        assert_eq!(code(&unknown), 20, "{unknown:?}");
        assert!(unknown.stdout.is_empty());
    }
}
