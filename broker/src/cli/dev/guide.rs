//! What `dayfly dev` prints: where everything is, and what to paste into which terminal to be
//! somebody. Each line runs as it stands, in any POSIX shell.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value as Json, json};

use super::home::Home;
use crate::cli::console::{FAINT, STRONG};
use crate::cli::shop::gateway::Gateway;
use crate::cli::shop::stage::{DOMAIN, Stage};

/// Who asks.
pub(super) const AGENT: &str = "agent/refunds";
/// Who approves.
pub(super) const APPROVER: &str = "person/ana";
/// Who operates, and may read the record.
pub(super) const OPERATOR: &str = "person/olga";
/// Who guards the orders.
pub(super) const GATEWAY: &str = "gateway/orders";

/// Lines for one terminal, and what they do.
struct Step {
    terminal: &'static str,
    what: &'static str,
    lines: Vec<String>,
}

/// All of it.
pub(super) struct Guide {
    dir: String,
    policy: String,
    broker: String,
    join: String,
    http: String,
    orders: String,
    steps: [Step; 7],
}

impl Guide {
    pub(super) fn new(home: &Home, stage: &Stage, gateway: &Gateway) -> anyhow::Result<Self> {
        let orders = format!("http://{}", gateway.address);
        Ok(Self {
            dir: text(&home.path(""))?,
            policy: text(&home.place.policy())?,
            broker: stage.address.to_string(),
            join: stage.join_address.to_string(),
            http: format!("http://{}", stage.http_address),
            steps: steps(home, &orders)?,
            orders,
        })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let Self { dir, policy, broker, join, http, orders, steps } = self;
        let mut text = format!(
            "{STRONG}dayfly dev{STRONG:#}: the shop of the demo, kept in {dir}\n\
             \n\
             broker   {broker}, joining at {join}, health and metrics at {http}\n\
             orders   {orders}/orders/o-17, o-18 and o-19\n\
             policy   {policy}\n\
             \n\
             Paste into other terminals, in this order:\n"
        );
        for (n, Step { terminal, what, lines }) in steps.iter().enumerate() {
            let n = n.saturating_add(1);
            let head = format!("\n{STRONG}{n}  {terminal}{STRONG:#}: {what}\n");
            text.push_str(&head);
            for line in lines {
                // Writing to a string does not fail.
                let _written = writeln!(text, "    {line}");
            }
        }
        text + &format!("\n{FAINT}Ctrl-C stops all of it; the next `dayfly dev` goes on.{FAINT:#}")
    }

    /// For programs.
    pub(super) fn to_json(&self) -> Json {
        let Self { dir, policy, broker, join, http, orders, steps } = self;
        let step = |Step { terminal, what, lines }: &Step| json!({ "terminal": terminal, "what": what, "lines": lines });
        let steps: Vec<_> = steps.iter().map(step).collect();
        json!({
            "dir": dir, "policy": policy, "broker": broker, "join": join, "http": http,
            "orders": orders, "steps": steps,
        })
    }
}

/// What to paste, in order. A terminal is set up by the first step that it is named in.
fn steps(home: &Home, orders: &str) -> anyhow::Result<[Step; 7]> {
    let program = std::env::current_exe()?;
    let program = program.parent().context("this program is nowhere")?;
    let path = format!("export PATH={}:\"$PATH\"", quoted(program)?);
    let identity = |path: &str| {
        anyhow::Ok(format!("export DAYFLY_IDENTITY={}", quoted(&home.place.identity(path))?))
    };
    let key = format!("export DAYFLY_SIGNING_KEY={}", quoted(&home.place.key("ana"))?);
    let (request, token) = (quoted(&home.path("request"))?, quoted(&home.path("token"))?);
    let step = |terminal, what, lines: &[&str]| Step {
        terminal,
        what,
        lines: lines.iter().map(|line| (*line).to_owned()).collect(),
    };
    let ask = format!(
        "dayfly request --audience spiffe://{DOMAIN}/{GATEWAY} --allow 'read orders/prod/o-17' \
         --task case-17 --purpose customer-support --why 'it arrived broken' > {request}"
    );
    let newest = r#"dayfly --output json pending | sed 's/.*"grant_id":"\([0-9a-f]*\)".*/\1/'"#;
    let [place, nonce, proof, order] = &caller(&request, &token, orders);
    Ok([
        step(
            "The agent",
            "asks to read one order, for one task; it has to wait (exit code 10)",
            &[&path, &identity(AGENT)?, &ask],
        ),
        step(
            "The approver, Ana",
            "sees the whole request, and signs her approval with her own key",
            &[
                &path,
                &identity(APPROVER)?,
                &key,
                "dayfly pending",
                &format!("dayfly approve --yes \"$({newest})\""),
            ],
        ),
        step(
            "The agent",
            "learns it at once, and trades the grant for a token, good for two minutes",
            &[
                &format!("dayfly wait \"$(cat {request})\""),
                &format!("dayfly exchange \"$(cat {request})\" --token-file {token}"),
            ],
        ),
        step(
            "The gateway's caller",
            "reads the order, with the token and a proof of the agent's key for this one call",
            &[&path, &identity(AGENT)?, place, nonce, proof, order, "order"],
        ),
        step(
            "The operator, Olga",
            "takes it back, and is told since when that holds at every gateway",
            &[
                &path,
                &identity(OPERATOR)?,
                "dayfly grants",
                "dayfly revoke --task case-17 --reason 'settled by phone' --wait",
            ],
        ),
        step("The gateway's caller", "is refused", &["order"]),
        step("The operator, Olga", "reads the record", &["dayfly audit tail --once"]),
    ])
}

/// How to call the orders service from a shell: with the token, and a proof for each call.
fn caller(request: &str, token: &str, orders: &str) -> [String; 4] {
    let place = format!("token={token} url={orders}/orders/o-17");
    // A gateway that started just now wants a nonce of its own in every proof.
    let nonce = "nonce() { curl -sS -o /dev/null -D - \"$url\" \
        | sed -n 's/^dpop-nonce: \\([A-Za-z0-9_-]*\\).*/--nonce=\\1/p'; }";
    let proof = format!(
        "proof() {{ dayfly token prove \"$(cat {request})\" --token-file \"$token\" \
         --url \"$url\" $(nonce); }}"
    );
    // The token is told to `curl` by a pipe: in its arguments others on this host could see it.
    let order = "order() { printf 'Authorization: DPoP %s\\nDPoP: %s\\n' \"$(cat \"$token\")\" \
        \"$(proof)\" | curl -sS -H @- \"$url\"; echo; }";
    [place, nonce.to_owned(), proof, order.to_owned()]
}

fn text(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().context("a path that is not UTF-8 cannot be pasted")?;
    Ok(text.trim_end_matches('/').to_owned())
}

/// A path as one word of a shell: as it is where nothing in it means anything there.
fn quoted(path: &Path) -> anyhow::Result<String> {
    let text = text(path)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,@%=:".contains(c);
    if text.chars().all(plain) {
        return Ok(text);
    }
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_path_is_one_word_to_a_shell() {
        for path in ["/a b", "/it's", "/$(touch x)", "/a;b", "/*", "/\"", "/plain-1.2_3", "/a\nb"] {
            let echo = format!("printf %s {}", quoted(Path::new(path)).unwrap());
            let said = std::process::Command::new("sh").arg("-c").arg(echo).output().unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), path);
        }
    }
}
