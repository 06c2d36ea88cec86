//! Tokens: what one says, how it is narrowed and handed on, and the proof that goes with a use.

mod check;
mod narrow;

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use dayfly_agent::files;
use dayfly_verifier::holder::{Confirmation, HolderKey};
use dayfly_verifier::proof::{ActDigest, DpopCall, make_dpop};
use dayfly_verifier::resource::ResourcePattern;
use dayfly_verifier::scope::{Arguments, Constraint, Limit, Right};
use dayfly_verifier::time::{Clock as _, SystemClock};
use dayfly_verifier::wire::{Content, Decoded, Link, Token as Text};
use serde_json::{Value as Json, json};
use zeroize::Zeroizing;

use super::Context;
use super::console::{BAD, GOOD, STRONG, WAITING};
use super::exit::{Exit, Refused};

/// Look into tokens, narrow them, hand them on, and prove possession of one.
#[derive(Debug, Args)]
pub struct Token {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Inspect(Inspect),
    Verify(check::Verify),
    Attenuate(narrow::Attenuate),
    Delegate(narrow::Delegate),
    Key(narrow::Key),
    Prove(Prove),
}

/// Show what a token says: claims, caveats, delegations, revocation ids. Never the token itself.
///
/// Reads the file, or standard input. Without a key nothing of it is verified.
#[derive(Debug, Args)]
struct Inspect {
    /// The file with the token; standard input if none is named.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The public key to check the signatures with: 64 hexadecimal digits.
    #[arg(long, value_name = "HEX")]
    key: Option<HolderKey>,
}

/// Make the proof of possession for one HTTP call: the value of the header `DPoP`.
///
/// Send it with `Authorization: DPoP TOKEN`. It is good for one call, within 30 s.
#[derive(Debug, Args)]
struct Prove {
    #[command(flatten)]
    holder: narrow::Holder,
    /// The file with the token.
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// The method of the call.
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// The URL of the call.
    #[arg(long, value_name = "URL")]
    url: String,
    /// What the call does, as in 'refund orders/prod/o-17': binds the proof to it, as counted and
    /// online rights demand, and every right behind a proxy that ends TLS.
    #[arg(long = "does", value_name = "RIGHT")]
    act: Option<Right>,
    /// An argument of the call, as in 'amount = 500' or 'order_id = "o-17"'; may be repeated.
    #[arg(long = "arg", value_name = "ARGUMENT", requires = "act")]
    arguments: Vec<Constraint>,
    /// The nonce that the gateway gave last.
    #[arg(long, value_name = "TEXT")]
    nonce: Option<String>,
}

impl Token {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        match self.verb {
            Verb::Inspect(inspect) => inspect.run(context),
            Verb::Verify(verify) => verify.run(context),
            Verb::Attenuate(attenuate) => attenuate.run(context),
            Verb::Delegate(delegate) => delegate.run(context),
            Verb::Key(key) => key.run(context),
            Verb::Prove(prove) => prove.run(context),
        }
    }
}

fn read(file: Option<&PathBuf>) -> Result<Text, Refused> {
    let text = read_text(file)?;
    Text::read(text.trim_ascii()).map_err(no_token)
}

fn no_token(error: impl Into<anyhow::Error>) -> Refused {
    let next = "name the file that `dayfly exchange --token-file` wrote, or pipe the token in";
    Refused::new(Exit::Usage, error).next(next)
}

/// The text of a token or proof; standard input if no file is named.
fn read_text(file: Option<&PathBuf>) -> Result<Zeroizing<String>, Refused> {
    let mut text = Zeroizing::new(String::new());
    match file {
        Some(path) => {
            let bytes = files::read_secret(path).map_err(|e| Refused::new(Exit::Config, e))?;
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
        None => {
            std::io::stdin().lock().take(64 * 1024).read_to_string(&mut text)?;
        }
    }
    Ok(text)
}

impl Inspect {
    fn run(self, context: &Context) -> Result<(), Refused> {
        let token = read(self.file.as_ref())?;
        let decoded = Decoded::read(token.expose()).map_err(no_token)?;
        let content = decoded.unverified().clone();
        let checked = self.key.and_then(|key| key.verifying_key());
        let checked = checked.map(|key| decoded.check(&key).map(drop));
        let now = SystemClock.now();
        let expired = content.claims.expires_at <= now;
        let signatures = match checked {
            None => format!("{WAITING}not checked{WAITING:#}: name a key with --key"),
            Some(Ok(())) => format!("{GOOD}good{GOOD:#}"),
            Some(Err(bad)) => format!("{BAD}bad{BAD:#}: {bad}"),
        };
        let text = || {
            let left = content.claims.expires_at.since(now).as_secs();
            let life = if expired { "expired".into() } else { format!("{left} s left") };
            format!("{}\nlife       {life}\nsignatures {signatures}", text(&content))
        };
        let verified = checked.map(|checked| checked.is_ok());
        context.console.result(text, || to_json(&content, verified));
        match checked {
            Some(Err(bad)) => Err(Refused::new(Exit::Denied, bad)),
            Some(Ok(())) | None => Ok(()),
        }
    }
}

fn holder(content: &Content) -> String {
    match content.holder() {
        Confirmation::Key(key) => format!("key {key}"),
        Confirmation::Identity => format!("identity {}", content.claims.subject),
    }
}

fn text(content: &Content) -> String {
    let claims = &content.claims;
    let mut lines = vec![
        format!("{STRONG}token{STRONG:#}      {}", claims.token),
        format!("grant      {}", claims.grant),
        format!("request    {}", claims.request),
        format!("record     epoch {}, entry {}", content.record.epoch, content.record.seq),
        format!("key        {}", claims.key),
        format!("subject    {}", claims.subject),
    ];
    lines.extend(claims.principal.as_ref().map(|person| format!("principal  {person}")));
    lines.push(format!("audience   {}", claims.audience));
    lines.push(format!("task       {}", claims.task));
    lines.push(format!("holder     {}", holder(content)));
    lines.extend(claims.scope.rights().map(|right| format!("allows     {right}")));
    lines.extend(claims.scope.constraints().map(|limit| format!("where      {limit}")));
    let flags = [(claims.online, "online"), (claims.counted, "counted")];
    lines.extend(flags.iter().filter(|flag| flag.0).map(|flag| format!("each use   {}", flag.1)));
    lines.push(format!("issued     {}", claims.issued_at));
    lines.push(format!("expires    {}", claims.expires_at));
    for (link, n) in content.links.iter().zip(1..) {
        let what = link.delegate.map(|key| format!("handed on to {key}"));
        lines.push(format!("block {n}    {}", what.as_deref().unwrap_or("attenuated")));
        lines.extend(link.caveats.iter().map(|caveat| format!("           {caveat}")));
    }
    lines.join("\n")
}

fn to_json(content: &Content, verified: Option<bool>) -> Json {
    let claims = &content.claims;
    let texts = |texts: Vec<String>| Json::from(texts);
    let link = |link: &Link| {
        json!({
            "delegate": link.delegate.map(|key| key.to_string()),
            "caveats": texts(link.caveats.iter().map(ToString::to_string).collect()),
        })
    };
    json!({
        "signatures_good": verified,
        "token_id": claims.token.to_string(),
        "grant_id": claims.grant.to_string(),
        "request_digest": claims.request.to_string(),
        "epoch": content.record.epoch.to_string(),
        "seq": content.record.seq.to_string(),
        "key_id": claims.key.0,
        "subject": claims.subject.as_str(),
        "principal": claims.principal.as_ref().map(ToString::to_string),
        "audience": claims.audience.as_str(),
        "task": claims.task.as_str(),
        "holder": holder(content),
        "rights": texts(claims.scope.rights().map(ToString::to_string).collect()),
        "constraints": texts(claims.scope.constraints().map(ToString::to_string).collect()),
        "online": claims.online,
        "counted": claims.counted,
        "issued_at": claims.issued_at.to_string(),
        "expires_at": claims.expires_at.to_string(),
        "links": content.links.iter().map(link).collect::<Vec<_>>(),
        "block_ids": texts(content.block_ids().map(|id| hex::encode(id.0)).collect()),
    })
}

impl Prove {
    fn run(self, context: &Context) -> Result<(), Refused> {
        let key = self.holder.key(context)?;
        let token = read(Some(&self.token_file))?;
        let decoded = Decoded::read(token.expose()).map_err(no_token)?;
        let audience = &decoded.unverified().claims.audience;
        let act = self.act.as_ref().map(|does| {
            let ResourcePattern::Exact(resource) = &does.resource else {
                let error = anyhow!("a call acts on one resource, not on a pattern");
                return Err(Refused::new(Exit::Usage, error));
            };
            let arguments = arguments(&self.arguments)?;
            Ok(ActDigest::of(audience, &does.operation, resource, &arguments))
        });
        let act = act.transpose()?;
        let mut jti = [0; 16];
        getrandom::fill(&mut jti).map_err(|_| {
            Refused::new(Exit::Failed, anyhow!("the system gives no random numbers"))
        })?;
        let (act, nonce) = (act.as_ref(), self.nonce.as_deref());
        let call = DpopCall { method: &self.method, url: &self.url, act, nonce };
        let proof = make_dpop(&key, token.expose(), &call, SystemClock.now(), jti);
        context.console.result(|| proof.clone(), || json!({ "dpop": proof }));
        Ok(())
    }
}

fn arguments(given: &[Constraint]) -> Result<Arguments, Refused> {
    let mut arguments = Arguments::new();
    for Constraint { argument, limit } in given {
        let Limit::Equals(value) = limit else {
            let error = anyhow!("an argument has one value, as in `amount = 500`");
            return Err(Refused::new(Exit::Usage, error));
        };
        if arguments.insert(argument.clone(), value.clone()).is_some() {
            let error = anyhow!("the argument `{argument}` is given twice");
            return Err(Refused::new(Exit::Usage, error));
        }
    }
    Ok(arguments)
}
