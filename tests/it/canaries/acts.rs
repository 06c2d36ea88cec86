//! What everybody does, rightly and wrongly, with secrets wherever any can stand.

use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dayfly_proto::v1;
use dayfly_proto::v1::access_service_client::AccessServiceClient;
use dayfly_proto::v1::approval_service_client::ApprovalServiceClient;
use dayfly_proto::v1::gateway_service_client::GatewayServiceClient;
use dayfly_verifier::id::{ExchangeId, UseId};

use super::{AGENT, Watch};
use crate::parties::{Got, approve, http, now, random};
use crate::process::Process;
use crate::world::SHOP;

/// Invitations, one of them shown twice, and strings that are none.
pub(super) fn join(watch: &mut Watch) {
    let id = format!("{SHOP}/{AGENT}");
    let config = watch.world.config();
    let invite = watch.world.command(None, &["invite", &id, "--config"], &[&config]);
    let string = watch.ended(invite, 0, &["a join secret"]);
    let at = watch.world.join_address().to_string();
    let join = |watch: &Watch, name: &str, string: &str| {
        let dir = watch.world.path(name);
        let mut command = watch.world.command(Some(&dir), &["join", "--broker", &at], &[]);
        command.env("DAYFLY_JOIN", string);
        command
    };
    let part = |string: &str| string.split('.').nth(2).unwrap().to_owned();
    let secret = URL_SAFE_NO_PAD.decode(part(&string)).unwrap();
    watch.secrets.add("a join secret", &secret);
    watch.secrets.add("a join secret", part(&string).as_bytes());
    watch.ended(join(watch, "id-agent-refunds", &string), 0, &[]);
    watch.ended(join(watch, "id-again", &string), 11, &[]);
    watch.ended(join(watch, "id-cut", &string[..string.len() - 3]), 2, &[]);
    let over = watch.run("person/olga", &["invite", &format!("{SHOP}/agent/other")], 0, &["other"]);
    watch.secrets.add("other", part(&over).as_bytes());
}

/// Requests with words of their own; approved, denied, and refused for the length of the words.
pub(super) fn ask_and_decide(watch: &mut Watch, key: &str) -> (String, String) {
    let (why, reason) = (watch.text("a justification"), watch.text("a reason"));
    let audience = format!("{SHOP}/gateway/orders");
    let ask = ["--output", "json", "request", "--audience", &audience, "--task", "case-7"];
    let ask = [&ask[..], &["--purpose", "customer-support", "--why", &why, "--allow"]].concat();
    let asked = |watch: &mut Watch, more: &[&str], code| {
        let answer = watch.run(AGENT, &[&ask[..], more].concat(), code, &[]);
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
        ["request_id", "grant_id"].map(|name| answer[name].as_str().unwrap_or("").to_owned())
    };
    let refund = ["refund orders/prod/o-17", "--where", "amount <= 20000", "--uses", "3"];
    let [request, grant] = asked(watch, &refund, 10);
    let [_, other] = asked(watch, &["read orders/prod/o-18"], 10);
    asked(watch, &["read orders/prod/cards/c-1"], 11);
    let long = why.repeat(60);
    let too_long = [&ask[..ask.len() - 2], &[&long, "--allow", "read orders/prod/o-19"]].concat();
    watch.run(AGENT, &too_long, 2, &[]);
    let words = ["a justification"];
    for format in ["text", "json"] {
        watch.run("person/ana", &["--output", format, "pending"], 0, &[]);
        watch.run("person/ana", &["--output", format, "show", &grant], 0, &words);
    }
    let signed = ["approve", &grant, "--yes", "--key", key, "--reason", &reason];
    watch.run("person/ana", &signed, 0, &["a justification", "a reason"]);
    watch.run("person/ana", &["withdraw", &grant], 0, &[]);
    watch.run("person/ana", &signed, 0, &["a justification", "a reason"]);
    let caro = watch.world.key_file("caro");
    let signed = ["approve", &grant, "--yes", "--key", caro.to_str().unwrap()];
    watch.run("person/caro", &signed, 0, &words);
    watch.run("person/ana", &["deny", &other, "--reason", &reason], 0, &[]);
    // Decided already; a key that is none.
    watch.run("person/ana", &["approve", &grant, "--yes", "--key", key], 11, &words);
    let odd = watch.text("a file that is no key");
    let odd = watch.keep("odd-key", &format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{odd}\n"));
    let [_, third] = asked(watch, &["read orders/prod/o-18"], 10);
    watch.run("person/ana", &["approve", &third, "--yes", "--key", &odd], 64, &words);
    (request, grant)
}

/// The token, narrowed, handed on, looked at; files that hold none.
pub(super) fn hold(watch: &mut Watch, request: &str) -> String {
    let meant = ["a token"];
    watch.run(AGENT, &["wait", request], 0, &[]);
    let file = watch.file("token");
    watch.run(AGENT, &["exchange", request, "--token-file", &file], 0, &[]);
    let token = watch.run(AGENT, &["exchange", request, "--stdout"], 0, &meant);
    add_token(watch, &token);
    for format in ["text", "json"] {
        watch.run(AGENT, &["--output", format, "token", "inspect", &file], 0, &[]);
    }
    let (narrow, handed) = (watch.file("narrow"), watch.file("handed"));
    let attenuate = ["token", "attenuate", &file, "--not-after", "60s", "--token-file", &narrow];
    watch.run(AGENT, &attenuate, 0, &[]);
    let to = watch.run(AGENT, &["token", "key", &watch.file("delegate.key")], 0, &[]);
    let delegate = ["token", "delegate", request, "--from", &narrow, "--to", &to, "--token-file"];
    watch.run(AGENT, &[&delegate[..], &[&handed]].concat(), 0, &[]);
    for made in ["narrow", "handed"] {
        let made = std::fs::read_to_string(watch.world.path(made)).unwrap();
        add_token(watch, &made);
    }
    let verify = ["token", "verify", &handed, "--key", &watch.world.trust_root()];
    watch.run(AGENT, &verify, 11, &[]);
    let odd = watch.text("a file that is no token");
    let odd = watch.keep("odd-token", &odd);
    watch.run(AGENT, &["token", "inspect", &odd], 2, &[]);
    watch.run(
        AGENT,
        &["token", "delegate", request, "--from", &odd, "--to", &to, "--stdout"],
        2,
        &[],
    );
    let holder = ["token", "delegate", "--holder-key", &odd, "--from", &file, "--to", &to];
    watch.run(AGENT, &[&holder[..], &["--stdout"]].concat(), 64, &[]);
    token
}

/// The end of a token, which no other text has: its last signature, and the secret with which the
/// next block is signed. What stands before is no secret.
fn add_token(watch: &mut Watch, token: &str) {
    let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).unwrap();
    watch.secrets.add("a token", &token.as_bytes()[token.len() - 120..]);
    watch.secrets.add("a token", &bytes[bytes.len() - 32..]);
}

/// Uses over HTTP: good ones, and whatever a gateway refuses.
pub(super) async fn use_it(watch: &mut Watch, process: &Process, request: &str, token: &str) {
    let argument = watch.text("an argument");
    let body = format!("{{\"amount\":100,\"note\":\"{argument}\"}}");
    let note = format!("note = \"{argument}\"");
    let good = ["--arg", "amount = 100", "--arg", &note];
    let mut nonce = None;
    // A gateway that does not follow the feed yet refuses as stale.
    let deadline = now().plus(Duration::from_secs(20));
    loop {
        let got = refund(watch, process, request, token, &good, &mut nonce, &body).await;
        if got.status == 200 {
            break;
        }
        assert!(now() < deadline, "{got:?}");
    }
    let other = ["--arg", "amount = 99", "--arg", &note];
    let got = refund(watch, process, request, token, &other, &mut nonce, &body).await;
    assert_eq!(got.status, 401, "{got:?}");
    let above = body.replace("100", "20001");
    let more = ["--arg", "amount = 20001", "--arg", &note];
    let got = refund(watch, process, request, token, &more, &mut nonce, &above).await;
    assert_eq!(got.status, 403, "{got:?}");
    let (odd, proof) = (watch.text("what is no token"), watch.text("what is no proof"));
    let stolen = format!("{token}{odd}");
    for shown in [&odd, &stolen, &token[..token.len() - 4].to_owned()] {
        for (scheme, body) in [("DPoP", body.as_str()), ("Bearer", ""), ("Basic", "")] {
            let headers = [
                ("authorization", format!("{scheme} {shown}")),
                ("dpop", format!("{proof}.{proof}.{proof}")),
                ("dayfly-use", odd.clone()),
            ];
            let path = format!("/orders/o-17/refund?note={argument}");
            let got = http(process.gateway.address, "POST", &path, &headers, body).await.unwrap();
            assert!([400, 401].contains(&got.status), "{got:?}");
            hear_answer(watch, &got);
        }
    }
}

fn hear_answer(watch: &mut Watch, got: &Got) {
    // What a token is to be asked for with is told to whoever made the call.
    watch.hear("an answer of the gateway", format!("{}\n{}", got.head, got.body), &["an argument"]);
}

async fn refund(
    watch: &mut Watch,
    process: &Process,
    request: &str,
    token: &str,
    arguments: &[&str],
    nonce: &mut Option<String>,
    body: &str,
) -> Got {
    let address = process.gateway.address;
    let url = format!("http://{address}/orders/o-17/refund");
    let file = watch.file("token");
    let prove = ["token", "prove", request, "--token-file", &file, "--method", "POST", "--url"];
    let mut args = [&prove[..], &[&url, "--does", "refund orders/prod/o-17"], arguments].concat();
    let said = nonce.clone();
    args.extend(said.iter().flat_map(|nonce| ["--nonce", nonce]));
    let proof = watch.run(AGENT, &args, 0, &["a proof"]);
    let signature = proof.rsplit('.').next().unwrap();
    watch.secrets.add("a proof", signature.as_bytes());
    watch.secrets.add("a proof", &URL_SAFE_NO_PAD.decode(signature).unwrap());
    let headers = [
        ("authorization", format!("DPoP {token}")),
        ("dpop", proof),
        ("dayfly-use", UseId::draw(now(), random()).to_string()),
    ];
    let got = http(address, "POST", "/orders/o-17/refund", &headers, body).await.unwrap();
    hear_answer(watch, &got);
    let wanted = got.head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("dpop-nonce").then(|| value.to_owned())
    });
    *nonce = wanted.or(nonce.take());
    got
}

/// Calls that the broker refuses, with secrets in each field that takes any.
pub(super) async fn wrong_calls(watch: &mut Watch, request: &str, grant: &str) {
    let secret: [u8; 64] = random();
    watch.secrets.add("what is no proof of a holder", &secret);
    let text = watch.text("a field of a call");
    let session = watch.world.session(AGENT).await;
    let mut access = AccessServiceClient::new(session.channel());
    let proof = |signature: &[u8]| {
        let at_ms = i64::try_from(now().as_ms()).unwrap();
        Some(v1::HolderProof { at_ms, signature: signature.to_vec().into() })
    };
    let mut refused = Vec::new();
    for signature in [&secret[..], text.as_bytes()] {
        let (request_id, proof) = (request.to_owned(), proof(signature));
        let exchange_id = ExchangeId::draw(now(), random()).to_string();
        let message = v1::ExchangeRequest { request_id, exchange_id, proof: proof.clone() };
        refused.push(access.exchange(message).await.map(drop));
        let filing = v1::RequestAccessRequest {
            request_id: UseId::draw(now(), random()).to_string(),
            holder_key: secret[..32].to_vec().into(),
            justification: text.repeat(80),
            audience: text.clone(),
            proof,
            ..Default::default()
        };
        refused.push(access.request_access(filing).await.map(drop));
    }
    let person = watch.world.session("person/ana").await;
    let decision = v1::SignedDecision { statement: text.clone().into(), signature: text.clone() };
    let approval = v1::ApproveRequest {
        grant_id: grant.to_owned(),
        decision: Some(decision),
        reason: text.clone(),
        reason_salt: secret[..16].to_vec().into(),
    };
    refused.push(ApprovalServiceClient::new(person.channel()).approve(approval).await.map(drop));
    let gateway = watch.world.session("gateway/orders").await;
    let redeem = v1::RedeemRequest { token_id: text.clone(), use_id: text.clone() };
    refused.push(GatewayServiceClient::new(gateway.channel()).redeem(redeem).await.map(drop));
    for answer in refused {
        watch.hear("a refusal of the broker", format!("{:?}", answer.unwrap_err()), &[]);
    }
    approve(&watch.world, "caro", grant).await.unwrap_err();
}

/// What operators and auditors do and see.
pub(super) fn operate(watch: &mut Watch, grant: &str) {
    let reason = watch.text("a reason of an operator");
    let words = ["a justification", "a reason", "a reason of an operator"];
    let token = std::fs::read_to_string(watch.world.path("token")).unwrap();
    let inspected =
        watch.run(AGENT, &["--output", "json", "token", "inspect", &watch.file("token")], 0, &[]);
    let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    let id = inspected["token_id"].as_str().unwrap();
    assert!(!token.contains(id));
    watch.run("person/olga", &["revoke", "--token", id, "--reason", &reason], 0, &[]);
    watch.run("person/olga", &["revoke", "--task", "none", "--reason", &reason, "--wait"], 0, &[]);
    let long = reason.repeat(80);
    watch.run("person/olga", &["revoke", "--grant", grant, "--reason", &long], 2, &[]);
    let (config, root) = (watch.world.config(), watch.world.path("broker/trust-root.key"));
    let rotate = ["keys", "rotate", "--config"];
    let mut rotate = watch.world.command(None, &rotate, &[&config]);
    rotate.arg("--root").arg(root);
    watch.ended(rotate, 0, &[]);
    for format in ["text", "json"] {
        let as_olga = |watch: &mut Watch, args: &[&str], meant: &[&'static str]| {
            watch.run("person/olga", &[&["--output", format][..], args].concat(), 0, meant);
        };
        for args in [&["grants", "--all"][..], &["status"], &["keys", "list"]] {
            as_olga(watch, args, &[]);
        }
        for args in [&["audit", "tail", "--once"][..], &["audit", "query", "--all"]] {
            as_olga(watch, args, &[]);
        }
        as_olga(watch, &["audit", "verify"], &[]);
        as_olga(watch, &["history", "case-7"], &words);
    }
    for page in ["/metrics", "/healthz", "/readyz", "/debug"] {
        let answer = watch.world.get(page).unwrap();
        watch.hear(&format!("the page {page}"), answer, &[]);
    }
}

/// The end of the grant, and of what is not there.
pub(super) fn give_back(watch: &mut Watch, request: &str) {
    watch.run(AGENT, &["complete", request], 0, &[]);
    watch.run(AGENT, &["exchange", request, "--stdout"], 12, &[]);
    watch.run("agent/other", &["cancel", request], 64, &[]);
    let bad = watch.text("a key file of a broker");
    let keys = watch.world.path("bad");
    assert!(
        Command::new("cp")
            .arg("-a")
            .arg(watch.world.path("broker"))
            .arg(&keys)
            .status()
            .unwrap()
            .success()
    );
    let text = format!("key = 1\nnot_after_ms = 1\nprivate = \"{bad}\"\nsecret = \"{bad}\"\n");
    watch.keep("bad/keys/token-1.key", &text);
    let check = ["serve", "--check", "--config"];
    let check = watch.world.command(None, &check, &[&keys.join("dayfly.toml")]);
    watch.ended(check, 64, &[]);
    std::fs::remove_dir_all(keys).unwrap();
}
