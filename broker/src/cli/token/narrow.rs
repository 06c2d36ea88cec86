//! Taking away from a token, offline: attenuating it, and handing a narrower copy to another key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use dayfly_agent::files;
use dayfly_verifier::caveat::Caveat;
use dayfly_verifier::holder::{Confirmation, HolderKey};
use dayfly_verifier::id::RequestId;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::resource::Resource;
use dayfly_verifier::time::{Clock as _, SystemClock, Timestamp};
use dayfly_verifier::wire::{Content, Decoded, IssueError, Token as Text, attenuate, delegate};
use ed25519_dalek::SigningKey;
use serde_json::json;
use zeroize::Zeroizing;

use super::super::Context;
use super::super::console::{GOOD, STRONG};
use super::super::exit::{Exit, Refused, WRITABLE};
use super::super::request::{self, To, span};
use super::read;

/// Make a holder key, to be given narrower copies of tokens by their holders.
///
/// Writes the private half to the file, readable by its owner alone, and prints the public half:
/// what `dayfly token delegate --to` takes.
#[derive(Debug, Args)]
pub(super) struct Key {
    /// The file to write; it must not be there yet.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Take away from a token, offline: add caveats to a copy of it.
///
/// The copy is bound to the same key. Nothing can be added to a token, and who has the copy alone
/// cannot take the caveats off again.
#[derive(Debug, Args)]
pub(super) struct Attenuate {
    /// The file with the token; standard input if none is named.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    caveats: Caveats,
    #[command(flatten)]
    to: To,
}

/// Hand a narrower copy of a token to another key, offline.
///
/// The copy is bound to that key from then on, and shows that the present holder handed it on: its
/// key signs. At most three times in turn. The copy ends with the token and is revoked with it, and
/// it can be revoked by itself, by grant and key.
#[derive(Debug, Args)]
pub(super) struct Delegate {
    #[command(flatten)]
    holder: Holder,
    /// The file with the token; standard input if none is named.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// The public key of the next holder: 64 hexadecimal digits, as `dayfly token key` prints it.
    #[arg(long = "to", value_name = "HEX")]
    delegate: HolderKey,
    #[command(flatten)]
    caveats: Caveats,
    #[command(flatten)]
    to: To,
}

/// The key that holds the token.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Holder {
    /// The request that the token is from.
    #[arg(value_name = "REQUEST")]
    request: Option<RequestId>,
    /// The file with the key that the token was handed to, as `dayfly token key` wrote it.
    #[arg(long, value_name = "FILE")]
    holder_key: Option<PathBuf>,
}

/// What is taken away.
#[derive(Debug, Args)]
struct Caveats {
    /// What must hold of every call, as in 'operation in read', 'resource in orders/prod/**',
    /// 'task in [a, b]', 'gateway in ID', 'arg amount <= 100', 'arg order_id = "o-17"' or
    /// 'before 2026-01-31T12:00:00Z'; may be repeated.
    #[arg(long = "caveat", value_name = "CAVEAT")]
    caveats: Vec<Caveat>,
    /// Only for this long from now, as in 60s or 5m, or until this time.
    #[arg(long, value_name = "SPAN|TIME", value_parser = end)]
    not_after: Option<End>,
    /// Only resources below this one, as in orders/prod/.
    #[arg(long, value_name = "RESOURCE", value_parser = base)]
    under: Option<Resource>,
}

#[derive(Debug, Clone, Copy)]
enum End {
    In(Duration),
    At(Timestamp),
}

fn end(text: &str) -> Result<End, Invalid> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(End::At(time));
    }
    let rule = "must be a span like 60s, 10m or 1h, or a time like 2026-01-31T12:00:00Z";
    span(text).map(End::In).map_err(|_| Invalid::new("not_after", rule))
}

fn base(text: &str) -> Result<Resource, Invalid> {
    let text = text.strip_suffix("**").unwrap_or(text);
    text.strip_suffix('/').unwrap_or(text).parse()
}

impl Caveats {
    fn all(self) -> Vec<Caveat> {
        let end = self.not_after.map(|end| match end {
            End::In(span) => SystemClock.now().plus(span),
            End::At(time) => time,
        });
        let end = end.map(|end| Caveat::Before(end.floor_to_second()));
        self.caveats.into_iter().chain(end).chain(self.under.map(Caveat::Below)).collect()
    }
}

impl Holder {
    /// The key.
    pub(super) fn key(&self, context: &Context) -> Result<SigningKey, Refused> {
        match (&self.request, &self.holder_key) {
            (Some(request), _) => Ok(request::load(context, request)?.key().clone()),
            (None, Some(path)) => read_key(path),
            (None, None) => Err(Refused::new(Exit::Usage, anyhow!("name a request or a key"))),
        }
    }
}

fn read_key(path: &Path) -> Result<SigningKey, Refused> {
    let text = files::read_secret(path).map_err(|error| Refused::new(Exit::Config, error))?;
    let mut secret = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_ascii(), &mut *secret).map_err(|_| {
        let error = anyhow!("`{}` must hold 64 hexadecimal digits", path.display());
        Refused::new(Exit::Config, error).next("make a key with `dayfly token key FILE`")
    })?;
    Ok(SigningKey::from_bytes(&secret))
}

fn fresh() -> Result<Zeroizing<[u8; 32]>, Refused> {
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *secret)
        .map_err(|_| Refused::new(Exit::Failed, anyhow!("the system gives no random numbers")))?;
    Ok(secret)
}

fn refused(error: IssueError) -> Refused {
    Refused::new(Exit::Usage, error)
}

impl Key {
    /// Runs the verb.
    pub(super) fn run(&self, context: &Context) -> Result<(), Refused> {
        if self.file.symlink_metadata().is_ok() {
            let error = anyhow!("`{}` is there already", self.file.display());
            return Err(Refused::new(Exit::Usage, error).next("name a file that is not there"));
        }
        let secret = fresh()?;
        let text = Zeroizing::new(hex::encode(*secret));
        files::write_secret(&self.file, text.as_bytes())
            .map_err(|error| Refused::new(Exit::Failed, error).next(WRITABLE))?;
        let public = hex::encode(SigningKey::from_bytes(&secret).verifying_key().to_bytes());
        let json = || json!({ "holder_key": public, "file": self.file });
        context.console.result(|| public.clone(), json);
        Ok(())
    }
}

impl Attenuate {
    /// Runs the verb.
    pub(super) fn run(self, context: &Context) -> Result<(), Refused> {
        let caveats = self.caveats.all();
        if caveats.is_empty() {
            let error = anyhow!("nothing is taken away");
            let next = "say what, with --caveat, --not-after or --under";
            return Err(Refused::new(Exit::Usage, error).next(next));
        }
        let token = decoded(&read(self.file.as_ref())?)?;
        let narrower = attenuate(&token, &caveats, &fresh()?).map_err(refused)?;
        put(&self.to, context, &narrower)
    }
}

impl Delegate {
    /// Runs the verb.
    pub(super) fn run(self, context: &Context) -> Result<(), Refused> {
        let key = self.holder.key(context)?;
        let token = decoded(&read(self.from.as_ref())?)?;
        let holder = match token.unverified().holder() {
            Confirmation::Key(holder) => holder,
            Confirmation::Identity => {
                let error = anyhow!("a token that is bound to an identity cannot be handed on");
                let next = "ask for one that is bound to a key, without --by-identity";
                return Err(Refused::new(Exit::Usage, error).next(next));
            }
        };
        if holder.as_bytes() != key.verifying_key().as_bytes() {
            let error = anyhow!("the token is held by the key {holder}, which is not this one");
            let next = "name its request, or with --holder-key the key it was handed to";
            return Err(Refused::new(Exit::Usage, error).next(next));
        }
        let caveats = self.caveats.all();
        let narrower =
            delegate(&token, &key, &self.delegate, &caveats, &fresh()?).map_err(refused)?;
        put(&self.to, context, &narrower)
    }
}

fn decoded(token: &Text) -> Result<Decoded, Refused> {
    Decoded::read(token.expose()).map_err(super::no_token)
}

/// Writes the token where it is to go, and says what it allows.
fn put(to: &To, context: &Context, token: &Text) -> Result<(), Refused> {
    let token_text = to.give(token)?;
    let decoded = decoded(token)?;
    let content = decoded.unverified();
    if token_text.is_some() {
        context.console.aside(&told(content));
    }
    let text = || token_text.map_or_else(|| told(content), str::to_owned);
    let json = || {
        json!({
            "token": token_text,
            "token_file": to.token_file,
            "token_id": content.claims.token.to_string(),
            "grant_id": content.claims.grant.to_string(),
            "holder": super::holder(content),
            "caveats": content.caveats().map(ToString::to_string).collect::<Vec<_>>(),
            "expires_at": content.claims.expires_at.to_string(),
        })
    };
    context.console.result(text, json);
    Ok(())
}

fn told(content: &Content) -> String {
    let mut lines = vec![
        format!("{GOOD}token{GOOD:#}  {}", content.claims.token),
        format!("{STRONG}holder{STRONG:#} {}", super::holder(content)),
    ];
    lines.extend(content.caveats().map(|caveat| format!("only   {caveat}")));
    lines.push(format!("until  {}", content.claims.expires_at));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_bases_are_what_they_say() {
        for bad in ["", "60", "1d", "yesterday", "2026-01-31", "-5s", "0s"] {
            assert!(end(bad).is_err(), "{bad:?}");
        }
        assert!(matches!(end("60s"), Ok(End::In(span)) if span.as_secs() == 60));
        assert!(matches!(end("2026-01-31T12:00:00Z"), Ok(End::At(_))));
        for bad in ["", "/", "**", "a//", "a/b/**/", "/a"] {
            assert!(base(bad).is_err(), "{bad:?}");
        }
        for good in ["a/b", "a/b/", "a/b/**"] {
            assert_eq!(base(good).unwrap().as_str(), "a/b");
        }
    }
}
