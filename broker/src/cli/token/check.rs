//! Looking into a refusal, offline: every check of a token, in the order of a gateway.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use clap::Args;
use dayfly_agent::files;
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::proof::BaseUrl;
use dayfly_verifier::reject::{Class, Reject};
use dayfly_verifier::resource::ResourcePattern;
use dayfly_verifier::scope::{Constraint, Right};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::{Clock as _, SystemClock, Timestamp};
use dayfly_verifier::trust::{Signed, Statement};
use dayfly_verifier::verify::{
    Call, Finding, Offline, Shown, Step, Trust as Believed, Use, offline,
};
use serde_json::{Value as Json, json};

use super::super::Context;
use super::super::console::{BAD, FAINT, GOOD, WAITING};
use super::super::exit::{Exit, Refused};
use super::{arguments, read_text};

/// Verify a token as its gateway would, offline: every check in its order, and the first that
/// fails.
///
/// What only a gateway can tell (its feed, revocations, replays, locks) is left open, so a token
/// that passes here may still be refused there. Exits 0 if nothing fails, 11 if something does, 12
/// if it is over.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The file with the token; standard input if none is named.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    trust: Trust,
    /// The gateway: its SPIFFE ID.
    #[arg(long, value_name = "SPIFFE_ID")]
    audience: Option<SpiffeId>,
    /// What the call does, as in 'refund orders/prod/o-17'.
    #[arg(long = "does", value_name = "RIGHT")]
    does: Option<Right>,
    /// An argument of the call, as in 'amount = 500' or 'order_id = "o-17"'; may be repeated.
    #[arg(long = "arg", value_name = "ARGUMENT", requires = "does")]
    arguments: Vec<Constraint>,
    /// The file with the proof: the value of the header `DPoP`.
    #[arg(long, value_name = "FILE", requires = "does", requires = "url")]
    proof: Option<PathBuf>,
    /// The method of the call.
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// The URL of the call, without query.
    #[arg(long, value_name = "URL", requires = "proof")]
    url: Option<String>,
    /// As of this time, as in 2026-01-31T12:00:00Z; now, if none is named.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
}

/// Whose signatures are believed.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Trust {
    /// The public key of the token's signer: 64 hexadecimal digits.
    #[arg(long, value_name = "HEX", conflicts_with = "trust")]
    key: Option<HolderKey>,
    /// The trust statement, as in `trust.statement` of the broker's directory; its signature, in
    /// hexadecimal, is the file beside it that ends in `.signature`.
    #[arg(long, value_name = "FILE", requires = "trust_root")]
    trust: Option<PathBuf>,
    /// The public half of the trust root that signed it: 64 hexadecimal digits.
    #[arg(long, value_name = "HEX", requires = "trust")]
    trust_root: Option<HolderKey>,
}

enum Trusted {
    Key(HolderKey),
    Statement(Statement),
}

impl Trust {
    fn read(&self) -> Result<Trusted, Refused> {
        let config = |error: anyhow::Error| Refused::new(Exit::Config, error);
        if let Some(key) = self.key {
            return Ok(Trusted::Key(key));
        }
        let (Some(root), Some(path)) = (&self.trust_root, &self.trust) else {
            let error = anyhow!("nobody's signatures are believed");
            return Err(Refused::new(Exit::Usage, error).next("name --key, or --trust"));
        };
        let statement = files::read_trusted(path).map_err(|error| config(error.into()))?;
        let beside = path.with_extension("signature");
        let text = files::read_text(&beside).map_err(|error| config(error.into()))?;
        let mut signature = [0; 64];
        hex::decode_to_slice(text.trim(), &mut signature).map_err(|_| {
            config(anyhow!("`{}` must hold 128 hexadecimal digits", beside.display()))
        })?;
        let signed = Signed { statement, signature };
        signed.verify(root).map(Trusted::Statement).map_err(|error| config(error.into()))
    }
}

/// The base and the path of a URL.
fn split(url: &str) -> Result<(BaseUrl, &str), Invalid> {
    let authority = url.find("://").map_or(0, |at| at.saturating_add(3));
    let path = url.get(authority..).and_then(|rest| rest.find('/'));
    let (base, path) = url.split_at(path.map_or(url.len(), |at| at.saturating_add(authority)));
    if path.contains(['?', '#']) {
        return Err(Invalid::new("url", "must have no query and no fragment"));
    }
    Ok((base.parse()?, path))
}

impl Verify {
    /// Runs the verb.
    pub(super) fn run(self, context: &Context) -> Result<(), Refused> {
        let usage = |error: anyhow::Error| Refused::new(Exit::Usage, error);
        let trusted = self.trust.read()?;
        let token = read_text(self.file.as_ref())?;
        let call = self.does.as_ref().map(|does| {
            let ResourcePattern::Exact(resource) = does.resource.clone() else {
                return Err(usage(anyhow!("a call acts on one resource, not on a pattern")));
            };
            let arguments = arguments(&self.arguments)?;
            Ok(Arc::new(Call { operation: does.operation.clone(), resource, arguments }))
        });
        let call = call.transpose()?;
        let proof = self.proof.as_ref().map(|path| read_text(Some(path))).transpose()?;
        let url = self.url.as_deref().map(split).transpose().map_err(|e| usage(e.into()))?;
        let proof = proof.as_ref().zip(url.as_ref()).map(|(proof, (base, path))| {
            (Shown::Dpop { proof: proof.trim_ascii(), method: &self.method, path }, base)
        });
        let steps = offline(&Offline {
            token: token.trim_ascii(),
            trust: match &trusted {
                Trusted::Key(key) => Believed::Key(key),
                Trusted::Statement(statement) => Believed::Statement(statement),
            },
            audience: self.audience.as_ref(),
            used: call.as_ref().map(|call| Use { call, proof }),
            now: self.at.unwrap_or_else(|| SystemClock.now()),
        });
        context.console.result(|| text(&steps), || to_json(&steps));
        match failed(&steps) {
            None => Ok(()),
            Some(reject) => Err(Refused::new(exit(reject), anyhow!("{reject}"))),
        }
    }
}

fn failed(steps: &[Step]) -> Option<&Reject> {
    steps.iter().find_map(|step| match &step.finding {
        Finding::Fails(reject) => Some(reject),
        Finding::Holds | Finding::Open(_) | Finding::NotReached => None,
    })
}

fn exit(reject: &Reject) -> Exit {
    match reject.class() {
        Class::Expired => Exit::Expired,
        Class::Revoked => Exit::Revoked,
        Class::Token | Class::Unavailable | Class::Proof | Class::Forbidden => Exit::Denied,
    }
}

fn text(steps: &[Step]) -> String {
    let line = |step: &Step| {
        let name = format!("{:<11}", step.check.name());
        match &step.finding {
            Finding::Holds => format!("{name} {GOOD}holds{GOOD:#}"),
            Finding::Fails(reject) => {
                format!("{name} {BAD}fails{BAD:#}  {}: {reject}", reject.code())
            }
            Finding::Open(why) => format!("{name} {WAITING}open{WAITING:#}   {why}"),
            Finding::NotReached => format!("{name} {FAINT}not reached{FAINT:#}"),
        }
    };
    steps.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn to_json(steps: &[Step]) -> Json {
    let step = |step: &Step| {
        let (finding, why) = match &step.finding {
            Finding::Holds => ("holds", None),
            Finding::Fails(reject) => ("fails", Some(reject.to_string())),
            Finding::Open(why) => ("open", Some((*why).to_owned())),
            Finding::NotReached => ("not_reached", None),
        };
        json!({ "check": step.check.name(), "finding": finding, "why": why })
    };
    json!({
        "refused": failed(steps).map(Reject::code),
        "checks": steps.iter().map(step).collect::<Vec<_>>(),
    })
}
