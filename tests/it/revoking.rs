//! `dayfly revoke` by every name that something held can be taken back by, against a gateway.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::wire::{Decoded, attenuate, delegate};
use ed25519_dalek::SigningKey;
use serde_json::Value as Json;
use zeroize::Zeroizing;

use crate::guarded::Opening;
use crate::parties::{Agent, Gateway, Use, random};
use crate::world::World;

const STALE: Duration = Duration::from_secs(5);

fn reads<'a>(key: &'a SigningKey, token: &'a str) -> Use<'a> {
    Use { key, token, order: "o-17", refund: None }
}

fn revoke(world: &World, name: &str, value: &str) {
    let revoked = world.run("person/olga", &["revoke", name, value, "--wait"]);
    assert!(revoked.status.success(), "{name} {value}: {revoked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a19_revoked_by_delegate_block_prefix_and_key_on_the_command_line() {
    let world = World::start("");
    let gateway = Gateway::start(&world, "gateway/orders", STALE).await;
    let agent = Agent::new(&world, "agent/support").await;
    let (request, held) = agent.reading(&world).await;
    let token = held.token.as_str();
    let own = reads(&agent.key, token);
    own.until(&gateway, 200).await;

    for (name, value) in
        [("--delegate", request.grant_id.as_str()), ("--block", "00"), ("--key", "-1")]
    {
        let refused = world.run("person/olga", &["revoke", name, value]);
        assert_eq!(refused.status.code(), Some(2), "{name} {value}: {refused:?}");
    }

    // Handed on: the copy ends, and what it was made of does not.
    let other = SigningKey::from_bytes(&random());
    let public = HolderKey::from_slice(other.verifying_key().as_bytes()).unwrap();
    let decoded = Decoded::read(token).unwrap();
    let next = || Zeroizing::new(random());
    let handed_on = delegate(&decoded, &agent.key, &public, &[], &next()).unwrap();
    let theirs = reads(&other, handed_on.expose());
    theirs.until(&gateway, 200).await;
    revoke(&world, "--delegate", &format!("{}:{public}", request.grant_id));
    assert_eq!(theirs.at(&gateway).await.status, 401);
    assert_eq!(own.at(&gateway).await.status, 200);

    // Narrowed: the same.
    let caveats = ["operation in read".parse().unwrap()];
    let narrowed = attenuate(&decoded, &caveats, &next()).unwrap();
    let narrow = reads(&agent.key, narrowed.expose());
    narrow.until(&gateway, 200).await;
    let narrowed = Decoded::read(narrowed.expose()).unwrap();
    let last = narrowed.unverified().block_ids().last().unwrap();
    revoke(&world, "--block", &hex::encode(last.0));
    assert_eq!(narrow.at(&gateway).await.status, 401);
    assert_eq!(own.at(&gateway).await.status, 200);

    // What reaches it so far, and nothing that comes later.
    revoke(&world, "--prefix", "orders/production");
    assert_eq!(own.at(&gateway).await.status, 200);
    revoke(&world, "--prefix", "orders/prod");
    assert_eq!(own.at(&gateway).await.status, 401);
    assert!(agent.exchange(&request.request_id).await.is_err());
    let (_, later) = agent.reading(&world).await;
    let later = reads(&agent.key, &later.token);
    later.until(&gateway, 200).await;

    revoke(&world, "--key", "1");
    assert_eq!(later.at(&gateway).await.status, 401);

    let log = world.run("person/olga", &["audit", "tail", "--once"]);
    let log = String::from_utf8(log.stdout).unwrap();
    let (grant, block) = (&request.grant_id, hex::encode(last.0));
    for told in [
        format!("revoked what {grant} delegated to {public}"),
        format!("revoked block {block}"),
        "revoked all that reaches orders/prod\n".to_owned(),
        "revoked all that token key 1 signed".to_owned(),
    ] {
        assert!(log.contains(&told), "{told}: {log}");
    }
}

/// A gateway that goes on when it hears nothing is not forgotten with the broker that it followed:
/// nothing is said to hold everywhere while it may be there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_opted_out_is_listed_after_the_broker_has_restarted() {
    let mut world = World::start("");
    let tight = Opening::usual(Duration::from_secs(1));
    let loose = Opening { instance: "loose".into(), best_effort: true, ..tight };
    let gateway = Gateway::opened(&world, "gateway/orders", loose).await;
    let agent = Agent::new(&world, "agent/support").await;
    let (request, held) = agent.reading(&world).await;
    let own = reads(&agent.key, &held.token);
    own.until(&gateway, 200).await;
    world.kill();
    // Nobody tells it anything beyond its bound, and it goes on.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(own.at(&gateway).await.status, 200);
    drop(gateway);
    world.serve();

    let status = world.run("person/olga", &["status", "--output", "json"]);
    let status: Json = serde_json::from_slice(&status.stdout).unwrap();
    let listed = &status["instances"][0];
    assert_eq!([&listed["instance"], &listed["connected"]], [&Json::from("loose"), &false.into()]);
    assert_eq!(listed["best_effort"], true, "{status}");
    let log = world.run("person/olga", &["audit", "query", "--kind", "opted_out"]);
    let log = String::from_utf8(log.stdout).unwrap();
    assert!(log.contains("follows as loose without refusing"), "{log}");
    // After a restart this takes until those of before must have refused, had they not opted out.
    let revoked = world.run("person/olga", &["revoke", "--grant", &request.grant_id, "--wait"]);
    assert_eq!(revoked.status.code(), Some(20), "{revoked:?}");
    let told = String::from_utf8_lossy(&revoked.stdout);
    assert!(told.contains("loose silent") && told.contains("nothing bounds it"), "{revoked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_whose_broker_is_lost_is_told_to_be_on_record() {
    let mut world = World::start("");
    let agent = Agent::new(&world, "agent/support").await;
    agent.reading(&world).await;
    world.kill();
    // From here on it waits for those who followed the process before.
    world.serve();
    let olga = world.identity("person/olga");
    let mut revoking = world.command(Some(&olga), &["revoke", "--task", "case-7", "--wait"], &[]);
    let mut revoking = revoking.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(revoking.stderr.take().unwrap()).lines().map_while(Result::ok);
    let recorded = lines.find(|line| line.contains("revoked as of entry ")).unwrap();
    lines.find(|line| line.contains("that this broker does not know")).unwrap();
    world.kill();
    let ended = revoking.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(20), "{ended:?}");
    let entry = recorded.split([' ', ':']).nth(4).unwrap();
    let told = String::from_utf8(ended.stdout).unwrap();
    assert!(told.contains(&format!("it stands as of entry {entry};")), "{recorded}: {told}");
}

/// The entry that is named is the end of the log: where nothing was there to be taken back, none
/// says that anything was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_is_not_said_to_be_revoked_by_an_entry() {
    let world = World::start("");
    let agent = Agent::new(&world, "agent/support").await;
    let (request, _) = agent.reading(&world).await;
    agent.complete(&request.request_id).await.unwrap();
    let revoked = world.run("person/olga", &["revoke", "--grant", &request.grant_id]);
    assert!(revoked.status.success(), "{revoked:?}");
    let told = String::from_utf8(revoked.stdout).unwrap();
    assert!(told.contains("revoked as of entry ") && told.contains("no live grant"), "{told}");
    let log = world.run("person/olga", &["audit", "query", "--kind", "revoked"]);
    assert!(log.status.success(), "{log:?}");
    assert!(!String::from_utf8_lossy(&log.stdout).contains("revoked"), "{log:?}");
}
