//! What a command says that is used wrongly: what was wrong, and the next step; and how it ends.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Output, Stdio};

use crate::dev::outdate;
use crate::world::{SHOP, World};

const GATEWAY: &str = "spiffe://shop.test/gateway/orders";
const NOBODY: &str = "01a204b5-0000-7000-8000-000000000000";
const NONE: &str = "00000000000000000000000000000000";

/// Ends with `code`, says `what` was wrong, and what to do next; on standard error alone.
fn told(world: &World, identity: Option<&Path>, args: &[&str], code: i32, what: &str) {
    let output = world.dayfly(identity, args, &[]);
    let Output { status, stdout, stderr } = &output;
    let said = String::from_utf8_lossy(stderr);
    assert_eq!(status.code(), Some(code), "{args:?}: {said}");
    assert!(said.contains(what), "{args:?} does not say `{what}`: {said}");
    let next = said.contains("next:") || said.contains("--help");
    assert!(next, "{args:?} names no next step: {said}");
    assert!(said.starts_with("error:") || said.contains("\nerror:"), "{args:?}: {said}");
    // What is wrong with a bundle is a result, and so is the id of a request that was refused.
    let result = ["policy", "request"].contains(&args[0]);
    assert!(stdout.is_empty() || result, "{args:?}: {output:?}");
    // Words of people, not of the compiler.
    for odd in ["invalid digit", "non-zero type", "Err(", "panicked", "RUST_BACKTRACE"] {
        assert!(!said.contains(odd), "{args:?}: {said}");
    }
}

fn ask<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["request", "--audience", GATEWAY, "--task", "t-1"];
    args.extend(["--purpose", "customer-support"]);
    args.extend(more);
    args
}

#[test]
fn wrong_words_name_what_is_wrong() {
    let world = World::start("");
    let olga = world.identity("person/olga");
    let says = |args: &[&str], what: &str| told(&world, Some(&olga), args, 2, what);
    says(&["reqest"], "a similar subcommand exists: 'request'");
    says(&ask(&[]), "--allow");
    says(&ask(&["--allow", "reed"]), "an operation and a resource");
    says(&ask(&["--allow", "read a/b", "--ttl", "5"]), "90s, 10m or 1h");
    says(&ask(&["--allow", "read a/b", "--uses", "0"]), "at least 1");
    says(&ask(&["--allow", "read a/b", "--where", "n < 3"]), "amount <= 500");
    says(&ask(&["--allow", "read a/b", "--timeout", "3s"]), "--wait");
    says(&["wait", "1234"], "UUIDv7");
    says(&["exchange", NOBODY], "--token-file");
    says(&["--output", "yaml", "status"], "text, json");
    says(&["revoke"], "--grant");
    says(&["revoke", "--grant", NONE, "--task", "t"], "cannot be used with");
    says(&["revoke", "--key", "one"], "whole number");
    says(&["keys", "retire", "one"], "whole number");
    says(&["lock", "--task", "t"], "--for");
    says(&["audit", "query", "--since", "yesterday"], "how long ago");
    says(&["audit", "verify", "--head", "7"], "EPOCH:SEQ:HASH");
    says(&["join", "dayfly-join.x"], "paste all of what `dayfly invite` printed");
    says(&["invite", "agent/refunds"], "must begin with `spiffe://`");
    says(&["token", "verify", "file"], "--trust");
    says(&["token", "inspect"], "not a Biscuit");
    says(&["token", "attenuate", "file", "--stdout"], "nothing is taken away");
    says(&["man", "nonsense"], "there is no verb `nonsense`");
    says(&["completion", "tcsh"], "bash, elvish, fish");
}

#[test]
fn who_and_what_is_missing_is_named() {
    let mut world = World::start("");
    let nobody = world.path("nobody");
    for args in [
        &["status"][..],
        &["pending"],
        &["wait", NOBODY],
        &["exchange", NOBODY, "--stdout"],
        &["complete", NOBODY],
        &["token", "prove", NOBODY, "--token-file", "t", "--url", "http://a/b"],
        &ask(&["--allow", "read orders/prod/o-17"]),
    ] {
        told(&world, Some(&nobody), args, 64, "there is no identity in");
        assert!(!nobody.exists(), "{args:?} made a directory");
    }
    let (olga, ana) = (world.identity("person/olga"), world.identity("person/ana"));
    let agent = world.identity("agent/refunds");
    let none = world.path("none");
    let none = none.to_str().unwrap();
    for args in [
        &["serve", "--config", none][..],
        &["token", "inspect", none],
        &["policy", "check", none],
        &["policy", "apply", none],
        &["init", "--dir", none, "--trust-domain", "a.test", "--policy", none],
        &["audit", "verify", "--journal", none],
        &["keys", "sign", "--root", none],
        &["invite", "spiffe://shop.test/agent/x", "--config", none],
    ] {
        told(&world, Some(&olga), args, 64, "none`");
    }
    // Another role: nothing is shown to be there.
    for args in [&["status"][..], &["grants"], &["audit", "tail", "--once"], &["pending"]] {
        told(&world, Some(&agent), args, 11, "--identity DIR");
    }
    told(&world, Some(&ana), &["show", "ffff"], 11, "dayfly pending");
    told(&world, Some(&olga), &["keys", "retire", "9"], 11, "look at the id");
    told(&world, Some(&agent), &["wait", NOBODY], 64, "that this identity filed");
    told(&world, Some(&agent), &ask(&["--allow", "read orders/prod/cards/c"]), 11, "card data");

    world.kill();
    for args in [&["status"][..], &["locks"], &["audit", "verify"]] {
        told(&world, Some(&olga), args, 20, "cannot reach the broker");
    }
    let config = world.config();
    told(&world, None, &["probe", "--config", config.to_str().unwrap()], 20, "is not well");
}

#[test]
fn an_identity_that_ran_out_is_joined_anew_in_its_place_and_a_good_one_is_kept() {
    let mut world = World::start("");
    let (id, dir) = (format!("{SHOP}/person/ana"), world.identity("person/ana"));
    let join = |world: &World| {
        let invited = world.dayfly(None, &["invite", &id, "--config"], &[&world.config()]);
        let (string, at) = (String::from_utf8(invited.stdout).unwrap(), world.join_address());
        let args = ["join", string.trim(), "--broker", &at.to_string()];
        world.dayfly(Some(&dir), &args, &[])
    };
    let refused = join(&world);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(64), "{said}");
    assert!(said.contains("already holds an identity") && said.contains("svid.pem"), "{said}");
    // A supervisor starts the same command again, with a string that was used long ago.
    let used = ["join", "dayfly-join.used", "--stay", "--output", "json"];
    let mut staying = world.command(Some(&dir), &used, &[]);
    let mut staying = staying.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut shown = String::new();
    BufReader::new(staying.stdout.take().unwrap()).read_line(&mut shown).unwrap();
    staying.kill().unwrap();
    staying.wait().unwrap();
    assert!(shown.starts_with('{'), "it did not go on with the identity that is there: {shown}");
    world.kill();
    outdate(&world.path("broker"), &id, &dir);
    world.serve();
    let needed = world.dayfly(Some(&dir), &["join", "dayfly-join.used", "--stay"], &[]);
    assert_eq!(needed.status.code(), Some(2), "the string was not looked at: {needed:?}");
    let over = world.run("person/ana", &["pending"]);
    assert_eq!(over.status.code(), Some(64), "{over:?}");
    let joined = join(&world);
    assert_eq!(joined.status.code(), Some(0), "{joined:?}");
    assert_eq!(world.run("person/ana", &["pending"]).status.code(), Some(0));
}

#[test]
fn a_key_that_cannot_sign_is_named() {
    let world = World::start("");
    let (agent, ana) = (world.identity("agent/refunds"), world.identity("person/ana"));
    let (asked, locked) = (ask(&["--allow", "read orders/prod/o-17"]), world.path("locked"));
    let asked = world.dayfly(Some(&agent), &[&["--output", "json"], &asked[..]].concat(), &[]);
    let asked: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap();
    let grant = asked["grant_id"].as_str().unwrap();
    let shown = |key: &str, what: &str| {
        let output = world.dayfly(Some(&ana), &["approve", grant, "--yes", "--key", key], &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains(what) && said.contains("next:"), "{said}");
    };
    shown(locked.to_str().unwrap(), "locked`");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "passphrase", "-f"])
        .arg(&locked)
        .status();
    assert!(made.unwrap().success());
    shown(locked.to_str().unwrap(), "signs by an ssh-agent alone");
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o644)).unwrap();
    shown(locked.to_str().unwrap(), "chmod 600");
    std::fs::write(&locked, "nothing").unwrap();
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o600)).unwrap();
    shown(locked.to_str().unwrap(), "is not an OpenSSH key");
}
