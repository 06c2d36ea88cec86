//! Narrowing a token and handing it on, with the command line alone, and what its gateway makes of
//! it.

use std::process::Output;
use std::time::Duration;

use biscuit_auth::builder::{Algorithm, BlockBuilder};
use biscuit_auth::{PrivateKey, UnverifiedBiscuit};
use dayfly_proto::v1::{self, revocation_target::Target};
use dayfly_verifier::wire::Decoded;
use ed25519_dalek::SigningKey;
use serde_json::Value as Json;

use crate::parties::{Agent, Gateway, Use, approve, random, revoke};
use crate::world::World;

const AGENT: &str = "agent/refunds";
const STALE: Duration = Duration::from_secs(5);

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap().trim_end().to_owned()
}

/// A key file for a delegate, and its public half.
fn key(world: &World, name: &str) -> (SigningKey, String) {
    let file = world.path(name);
    let made = world.run(AGENT, &["token", "key", file.to_str().unwrap()]);
    assert_eq!(code(&made), 0, "{made:?}");
    let again = world.run(AGENT, &["token", "key", file.to_str().unwrap()]);
    assert_eq!(code(&again), 2, "a key is not written over: {again:?}");
    let mut secret = [0; 32];
    hex::decode_to_slice(std::fs::read_to_string(&file).unwrap(), &mut secret).unwrap();
    (SigningKey::from_bytes(&secret), said(&made))
}

/// These rights, approved, and exchanged by the command line: the request, and the file with the
/// token.
async fn exchanged(world: &World, rights: &[&str]) -> (String, String) {
    let mut asked = vec!["--output", "json", "request"];
    asked.extend(rights.iter().flat_map(|right| ["--allow", right]));
    asked.extend(["--task", "case-7", "--audience", "spiffe://shop.test/gateway/orders"]);
    asked.extend(["--purpose", "customer-support", "--why", "it was lost"]);
    let asked = world.run(AGENT, &asked);
    let asked: Json = serde_json::from_slice(&asked.stdout).unwrap();
    approve(world, "ana", asked["grant_id"].as_str().unwrap()).await.unwrap();
    let (id, file) = (asked["request_id"].as_str().unwrap().to_owned(), path(world, "token"));
    let exchanged = world.run(AGENT, &["exchange", &id, "--token-file", &file]);
    assert_eq!(code(&exchanged), 0, "{exchanged:?}");
    (id, file)
}

fn path(world: &World, name: &str) -> String {
    world.path(name).to_str().unwrap().to_owned()
}

fn token(world: &World, name: &str) -> String {
    std::fs::read_to_string(world.path(name)).unwrap()
}

#[tokio::test]
async fn a_sub_agent_is_held_to_its_narrower_copy_three_deep() {
    let world = World::start("");
    let gateway = Gateway::start(&world, "gateway/orders", STALE).await;
    let orders = ["read orders/prod/o-17", "read orders/prod/o-18", "read orders/prod/o-19"];
    let (id, file) = exchanged(&world, &orders).await;
    let keys: Vec<_> = (1..=4).map(|n| key(&world, &format!("key-{n}"))).collect();
    let files: Vec<_> = (1..=4).map(|n| path(&world, &format!("token-{n}"))).collect();
    let hand_on = |holder: &[&str], from: &str, n: usize, more: &[&str]| {
        let mut args = vec!["token", "delegate"];
        args.extend(holder);
        args.extend(["--from", from, "--to", &keys[n].1, "--token-file", &files[n]]);
        args.extend(more);
        world.run(AGENT, &args)
    };
    let first = ["--caveat", "resource in [orders/prod/o-17, orders/prod/o-18]"];
    let handed = hand_on(&[&id], &file, 0, &first);
    assert_eq!(code(&handed), 0, "{handed:?}");
    assert!(!format!("{handed:?}").contains(&token(&world, "token-1")[..80]));
    let stranger = hand_on(&["--holder-key", &path(&world, "key-2")], &files[0], 1, &[]);
    assert_eq!(code(&stranger), 2, "not the holder: {stranger:?}");
    let by = |n: usize| ["--holder-key".to_owned(), path(&world, &format!("key-{n}"))];
    let [flag, by_first] = by(1);
    let second = ["--under", "orders/prod/", "--not-after", "60s"];
    assert_eq!(code(&hand_on(&[&flag, &by_first], &files[0], 1, &second)), 0);
    let third = ["--caveat", "resource in orders/prod/o-17"];
    assert_eq!(code(&hand_on(&[&flag, &by(2)[1]], &files[1], 2, &third)), 0);
    let fourth = hand_on(&[&flag, &by(3)[1]], &files[2], 3, &[]);
    assert_eq!(code(&fourth), 2);
    let why = String::from_utf8_lossy(&fourth.stderr);
    assert!(why.contains("3 delegations"), "{why}");

    let shown = [1, 2, 3].map(|n| token(&world, &format!("token-{n}")));
    let uses = |n: usize, order| Use { key: &keys[n].0, token: &shown[n], order, refund: None };
    for (n, other) in [(0, "o-18"), (1, "o-18"), (2, "o-17")] {
        uses(n, "o-17").until(&gateway, 200).await;
        assert_eq!(uses(n, other).at(&gateway).await.status, 200, "{n}");
    }
    assert_eq!(uses(0, "o-19").at(&gateway).await.status, 403);
    assert_eq!(uses(2, "o-18").at(&gateway).await.status, 403);
    for n in 0..3 {
        let by_parent = Use { key: &keys[(n + 1) % 3].0, ..uses(n, "o-17") };
        assert_eq!(by_parent.at(&gateway).await.status, 401, "{n}");
    }

    // What was handed to the second is taken back: the third had it from there.
    let grant = Decoded::read(&shown[0]).unwrap().unverified().claims.grant;
    let holder_key = keys[1].1.clone();
    let delegate = v1::Delegate { grant: grant.to_string(), holder_key };
    revoke(&world, Target::Delegate(delegate)).await;
    uses(1, "o-17").until(&gateway, 401).await;
    uses(2, "o-17").until(&gateway, 401).await;
    assert_eq!(uses(0, "o-17").at(&gateway).await.status, 200);
    // Then the block that handed it to the first.
    let block = Decoded::read(&shown[0]).unwrap().unverified().links[0].id;
    revoke(&world, Target::Block(block.0.to_vec().into())).await;
    uses(0, "o-17").until(&gateway, 401).await;
}

/// `token`, handed to `to` by whatever library, with `source` as the block.
fn block(token: &str, by: &SigningKey, source: &str) -> Vec<u8> {
    let key = PrivateKey::from_bytes(by.as_bytes(), Algorithm::Ed25519).unwrap();
    let request = UnverifiedBiscuit::from_base64(token).unwrap().third_party_request().unwrap();
    let source = BlockBuilder::new().code(source).unwrap();
    request.create_block(&key, source).unwrap().serialize().unwrap()
}

fn with(token: &str, block: &[u8]) -> String {
    let token = UnverifiedBiscuit::from_base64(token).unwrap();
    let text = token.append_third_party(block).unwrap().to_base64().unwrap();
    text.trim_end_matches('=').to_owned()
}

/// The library lets anybody append a block by any key. A gateway believes the present holder's, for
/// the very token that it was made for, and only if it hands the token on.
#[tokio::test]
async fn a10_a_block_by_another_key_than_the_holders_hands_nothing_on() {
    let world = World::start("");
    let gateway = Gateway::start(&world, "gateway/orders", STALE).await;
    let agent = Agent::new(&world, "agent/refunds").await;
    let [(_, one), (_, two)] = [agent.reading(&world).await, agent.reading(&world).await];
    let [delegate, thief] = [(); 2].map(|()| SigningKey::from_bytes(&random()));
    let naming = |key: &SigningKey| {
        format!("delegate(hex:{});", hex::encode(key.verifying_key().as_bytes()))
    };
    let uses = |key, token| Use { key, token, order: "o-17", refund: None };
    let handed = block(&one.token, &agent.key, &naming(&delegate));
    let good = with(&one.token, &handed);
    uses(&delegate, &good).until(&gateway, 200).await;

    let holder = "holder(hex:".to_owned() + &naming(&thief)["delegate(hex:".len()..];
    let forged = [
        ("by the thief", with(&one.token, &block(&one.token, &thief, &naming(&thief)))),
        ("for another token", with(&two.token, &handed)),
        ("by who handed it on already", with(&good, &block(&good, &agent.key, &naming(&thief)))),
        ("a fact of the broker's", with(&one.token, &block(&one.token, &agent.key, &holder))),
        ("by who is named in it", with(&good, &block(&good, &thief, &naming(&thief)))),
        ("after another's block", {
            let first = with(&one.token, &block(&one.token, &thief, "check if true;"));
            with(&first, &block(&first, &agent.key, &naming(&thief)))
        }),
    ];
    for (what, token) in &forged {
        for key in [&thief, &delegate, &agent.key] {
            let got = uses(key, token).at(&gateway).await;
            assert_eq!(got.status, 401, "{what}: {got:?}");
            let refused = ["malformed", "bad_signature"].map(|why| got.body.contains(why));
            assert!(refused.contains(&true), "{what}: {got:?}");
        }
    }
    // What was handed on stays good, for its holder alone; and so does what it was made of.
    assert_eq!(uses(&delegate, &good).at(&gateway).await.status, 200);
    assert_eq!(uses(&agent.key, &good).at(&gateway).await.status, 401);
    assert_eq!(uses(&delegate, &one.token).at(&gateway).await.status, 401);
    assert_eq!(uses(&agent.key, &one.token).at(&gateway).await.status, 200);
}

#[tokio::test]
async fn what_takes_nothing_away_or_means_nothing_is_refused() {
    let world = World::start("");
    let (_, file) = exchanged(&world, &["read orders/prod/o-17"]).await;
    let narrow = path(&world, "narrow");
    let bare = world.run(AGENT, &["token", "attenuate", &file, "--token-file", &narrow]);
    assert_eq!(code(&bare), 2, "nothing is taken away: {bare:?}");
    for bad in ["operation is read", "arg amount < 100", "resource in orders//prod", "amount <= 5"]
    {
        let args = ["token", "attenuate", &file, "--stdout", "--caveat", bad];
        assert_eq!(code(&world.run(AGENT, &args)), 2, "{bad}");
    }
    assert!(!world.path("narrow").exists());
}

#[tokio::test]
async fn a_token_is_narrowed_and_verified_without_a_gateway() {
    let world = World::start("");
    let orders = ["read orders/prod/eu/**", "read orders/prod/us/**"];
    let (id, file) = exchanged(&world, &orders).await;
    let narrow = path(&world, "narrow");
    let mut args = vec!["token", "attenuate", &file, "--token-file", &narrow, "--caveat"];
    args.extend(["operation in read", "--under", "orders/prod/eu/", "--not-after", "90s"]);
    let narrowed = world.run(AGENT, &args);
    assert_eq!(code(&narrowed), 0, "{narrowed:?}");
    assert!(said(&narrowed).contains("resource in orders/prod/eu/**"), "{narrowed:?}");

    let (root, trust) = (world.trust_root(), path(&world, "broker/trust.statement"));
    let url = "http://orders.shop.test/orders/eu/o-17";
    let proof = world.run(AGENT, &["token", "prove", &id, "--token-file", &narrow, "--url", url]);
    let proof_file = world.path("proof");
    std::fs::write(&proof_file, &proof.stdout).unwrap();
    private(&proof_file);
    let verify = |file: &str, more: &[&str]| {
        let mut args = vec!["--output", "json", "token", "verify", file];
        args.extend(["--trust", &trust, "--trust-root", &root]);
        args.extend(more);
        let output = world.run(AGENT, &args);
        let json: Json =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        (code(&output), json["refused"].as_str().unwrap_or("").to_owned(), json)
    };
    let audience = ["--audience", "spiffe://shop.test/gateway/orders"];
    let proof_file = proof_file.to_str().unwrap();
    let proven = |does: &'static str| {
        let mut more = audience.to_vec();
        more.extend(["--does", does, "--proof", proof_file, "--url", url]);
        more
    };
    let (exit, refused, json) = verify(&narrow, &proven("read orders/prod/eu/o-17"));
    assert_eq!((exit, refused.as_str()), (0, ""), "{json}");
    let holds = |check: &str| {
        let step = json["checks"].as_array().unwrap().iter().find(|step| step["check"] == check);
        step.unwrap()["finding"].as_str().unwrap().to_owned()
    };
    for check in ["shape", "signatures", "epoch", "times", "audience", "holder", "scope", "caveats"]
    {
        assert_eq!(holds(check), "holds", "{check}");
    }
    for check in ["feed", "revocation", "replay", "locks"] {
        assert_eq!(holds(check), "open", "{check}");
    }
    let refused = |more: &[&str]| {
        let (exit, refused, _) = verify(&narrow, more);
        (exit, refused)
    };
    let denied = |reason: &str| (11, reason.to_owned());
    assert_eq!(refused(&proven("read orders/prod/us/o-17")), denied("caveat"));
    assert_eq!(refused(&proven("read orders/staging/o-17")), denied("out_of_scope"));
    assert_eq!(refused(&["--audience", "spiffe://shop.test/gateway/other"]).1, "other_audience");
    assert_eq!(refused(&["--at", "2099-01-01T00:00:00Z"]).1, "unknown_key");
    let mut other_url = proven("read orders/prod/eu/o-17");
    *other_url.last_mut().unwrap() = "http://orders.shop.test/orders/eu/o-18";
    assert_eq!(refused(&other_url), denied("bad_proof"));
    // The whole token has not the caveat; its proof is another's.
    assert_eq!(verify(&file, &proven("read orders/prod/us/o-17")).1, "bad_proof");
    assert_eq!(verify(&file, &["--does", "read orders/prod/us/o-17"]).0, 0);
    let other = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
    let by_key = world.run(AGENT, &["token", "verify", &file, "--key", other]);
    assert_eq!(code(&by_key), 11);
    let text = said(&by_key);
    assert!(text.contains("signatures") && text.contains("not reached"), "{text}");
    let wrong = ["token", "verify", &file, "--trust", &trust, "--trust-root", other];
    assert_eq!(code(&world.run(AGENT, &wrong)), 64);
    assert_eq!(code(&world.run(AGENT, &["token", "verify", &file])), 2);
}

/// For its owner alone.
fn private(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
