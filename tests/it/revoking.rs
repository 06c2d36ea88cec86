//! `dayfly revoke` by every name that something held can be taken back by, against a gateway.

use std::time::Duration;

use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::wire::{Decoded, attenuate, delegate};
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

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
