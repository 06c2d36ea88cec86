//! The key that signs the feed is rotated while a gateway follows, with the trust root kept
//! elsewhere; and what keeps a broker from starting without one.

use std::time::Duration;

use dayfly_broker::found::{read_statement, write_statement};
use dayfly_broker::keys::NumberedKey;
use dayfly_proto::v1::revocation_target::Target;
use dayfly_tests::site::{Site, ended};
use dayfly_verifier::id::KeyId;
use dayfly_verifier::time::Timestamp;
use dayfly_verifier::trust::Statement;
use serde_json::Value;

use crate::keys::keys;
use crate::parties::{Agent, Gateway, Use, revoke};
use crate::world::{DAYFLY, World};

/// The feed keys as an operator sees them: number, standing, whether the broker has it.
fn listed(world: &World) -> Vec<(u64, String, bool)> {
    let listed = keys(world, &["list"]);
    let feed = listed.as_array().unwrap().iter().filter(|key| key["signs"] == "feed");
    let said = |key: &Value| {
        let standing = key["standing"].as_str().unwrap().to_owned();
        (key["key"].as_u64().unwrap(), standing, key["held"].as_bool().unwrap())
    };
    feed.map(said).collect()
}

fn stands(key: u64, standing: &str) -> (u64, String, bool) {
    (key, standing.to_owned(), true)
}

/// Has the trust root, which is in a directory of its own, sign, and brings back what it signed.
fn signed_elsewhere(world: &World, args: &[&str]) -> Value {
    let (home, elsewhere) = (world.path("broker"), world.path("elsewhere"));
    let files = ["trust.statement", "trust.signature"];
    for file in files {
        std::fs::copy(home.join(file), elsewhere.join(file)).unwrap();
    }
    let (root, dir) = (elsewhere.join("trust-root.key"), elsewhere.to_str().unwrap());
    let signed =
        keys(world, &[&["sign", "--root", root.to_str().unwrap(), "--dir", dir], args].concat());
    for file in files {
        std::fs::copy(elsewhere.join(file), home.join(file)).unwrap();
    }
    signed
}

impl Use<'_> {
    /// It is never refused, until something is so.
    async fn goes_on(&self, gateway: &Gateway, mut so: impl FnMut() -> bool) {
        for _ in 0..1_000 {
            assert_eq!(self.at(gateway).await.status, 200);
            if tokio::task::block_in_place(&mut so) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it is not so, however often it is looked");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_key_is_rotated_under_a_gateway_that_stays_fresh_and_the_old_one_dropped() {
    let mut world = World::start("");
    std::fs::create_dir(world.path("elsewhere")).unwrap();
    let root = world.path("broker/trust-root.key");
    std::fs::rename(root, world.path("elsewhere/trust-root.key")).unwrap();
    let gateway = Gateway::start(&world, "gateway/orders", Duration::from_secs(5)).await;
    let agent = Agent::new(&world, "agent/refunds").await;
    let (request, held) = agent.reading(&world).await;
    let read = Use { key: &agent.key, token: &held.token, order: "o-17", refund: None };
    read.until(&gateway, 200).await;
    assert_eq!(listed(&world), [stands(1, "signing")]);

    let config = world.config();
    let config = config.to_str().unwrap();
    let made = keys(&world, &["rotate", "--feed", "--days", "90", "--config", config]);
    assert_eq!((&made["key"], &made["listed"]), (&2.into(), &false.into()));
    let add = made["add"].as_str().unwrap();
    let signed = signed_elsewhere(&world, &["--add-feed", add]);
    assert_eq!(signed["feed_keys"], serde_json::json!([1, 2]));
    // At no moment does the gateway refuse.
    read.goes_on(&gateway, || listed(&world) == [stands(1, "ready"), stands(2, "signing")]).await;
    let end: u64 = add.rsplit(':').next().unwrap().parse().unwrap();
    let metrics = world.get("/metrics").unwrap();
    let told = format!("dayfly_feed_key_ends_timestamp_seconds {}\n", end / 1_000);
    assert!(metrics.contains(&told), "{metrics}");

    signed_elsewhere(&world, &["--drop-feed", "1"]);
    read.goes_on(&gateway, || listed(&world) == [stands(2, "signing")]).await;
    let (_, other) = agent.reading(&world).await;
    revoke(&world, Target::Grant(request.grant_id)).await;
    read.until(&gateway, 401).await;
    let read = Use { token: &other.token, ..read };
    assert_eq!(read.at(&gateway).await.status, 200, "it hears by the new key");

    // A broker that starts without the new key does not start with the old one.
    world.kill();
    let (new, aside) = (world.path("broker/keys/feed-2.key"), world.path("aside"));
    std::fs::rename(&new, &aside).unwrap();
    let check = world.dayfly(None, &["serve", "--check", "--config", config], &[]);
    let said = String::from_utf8(check.stderr).unwrap();
    assert_eq!(check.status.code(), Some(64), "{said}");
    assert!(
        said.contains("lists feed-2.key; feed-1.key here is not")
            && said.contains("keys rotate --feed")
    );
    std::fs::rename(&aside, &new).unwrap();
    world.serve();
    read.until(&gateway, 200).await;
    assert_eq!(listed(&world), [stands(2, "signing")]);
}

#[test]
fn a_broker_whose_feed_key_has_ended_says_so_and_starts_with_the_next_one() {
    let mut site = Site::found(DAYFLY);
    let broker = site.broker();
    let check = |site: &Site| ended(site.serve_command().arg("--check"));
    let (code, told, said) = check(&site);
    assert_eq!(code, Some(0), "{said}");
    assert!(told.contains("feed key 1 would sign the feed, until "), "{told}");

    let (file, root) = (broker.join("keys/feed-1.key"), broker.join("trust-root.key"));
    let past = Timestamp::from_secs(1_700_000_000).unwrap();
    let key = NumberedKey { not_after: past, ..NumberedKey::read(&file).unwrap() };
    std::fs::remove_file(&file).unwrap();
    key.write(&file).unwrap();
    let (_, statement) = read_statement(&broker).unwrap();
    let feed_keys = [(KeyId(1), key.listed().unwrap())].into();
    let statement = Statement { feed_keys, ..statement };
    let signed = statement.sign(&NumberedKey::read(&root).unwrap().signing).unwrap();
    write_statement(&broker, &signed).unwrap();
    for (code, _, said) in [check(&site), ended(&mut site.serve_command())] {
        assert_eq!(code, Some(64), "{said}");
        assert!(said.contains("feed-1.key here has ended"), "{said}");
        assert!(said.contains("dayfly keys rotate --feed"), "it does not say what to do: {said}");
    }

    let mut rotate = site.command(["keys", "rotate", "--feed", "--config"]);
    let (code, told, said) = ended(rotate.arg(site.config()).arg("--root").arg(&root));
    assert_eq!(code, Some(0), "{said}");
    assert!(told.starts_with("made feed key 2, good until "), "{told}");
    let (code, told, said) = check(&site);
    assert_eq!(code, Some(0), "{said}");
    assert!(told.contains("feed key 2 would sign the feed, until "), "{told}");
    let serving = site.serve();
    assert_eq!(serving.http("/readyz").0, 200);
    assert_eq!(serving.stop(), Some(0));
}

#[test]
fn the_trust_root_lists_a_feed_key_under_one_number_and_leaves_one() {
    let site = Site::found(DAYFLY);
    let (broker, root) = (site.broker(), site.broker().join("trust-root.key"));
    let sign = |args: &[&str]| {
        let mut sign = site.command(["keys", "sign", "--root"]);
        ended(sign.arg(&root).arg("--dir").arg(&broker).args(args))
    };
    let version = || read_statement(&broker).unwrap().1.version;
    let (_, statement) = read_statement(&broker).unwrap();
    let token = statement.token_keys[&KeyId(1)];
    let as_feed = |n: u32| format!("{n}:{}:{}", token.public, token.not_after.as_ms());
    for (args, why) in [
        (["--drop-feed", "1"], "must leave a feed key"),
        (["--drop-feed", "2"], "must be a key that is listed"),
        (["--add-feed", &as_feed(1)], "must not be another key under the number 1"),
        (["--add-feed", &as_feed(2)], "no key may be listed twice, or for two purposes"),
    ] {
        let (code, _, said) = sign(&args);
        assert_eq!(code, Some(64), "{args:?}: {said}");
        assert!(said.contains(why), "{said:?} does not say {why:?}");
        assert_eq!(version(), 1, "{args:?}");
    }
    let (code, _, said) = sign(&["--add-feed", "2"]);
    assert_eq!(code, Some(2), "{said}");
}
