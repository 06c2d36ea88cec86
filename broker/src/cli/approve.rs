//! Decisions: sign an approval, deny, take an approval back.
//!
//! What is signed is shown first, in full and from the bytes that are signed; what cannot be shown
//! is not signed. Denying and withdrawing take away, and ask nothing.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use dayfly_agent::render::{CannotShow, Prepared, Shown};
use dayfly_agent::sign::{CannotSign, Signer};
use dayfly_proto::v1::{self, Standing};
use dayfly_verifier::dossier::{DECISION_NAMESPACE, Salt};
use dayfly_verifier::id::PersonId;
use dayfly_verifier::request::{Answer, Narrowing};
use dayfly_verifier::scope::{Constraint, Right};
use dayfly_verifier::time::{Clock as _, SystemClock};

use super::console::{Format, GOOD, WAITING};
use super::exit::{Exit, Refused};
use super::number::count;
use super::pending::{client, failed, get, json_of, page, shown, standing};
use super::when::span;
use super::{Context, block_on};
use crate::policy::requirement::lease;

/// How old a statement may be when it is sent; the broker refuses one of over two minutes.
const FRESH: Duration = Duration::from_secs(100);

/// Approve a request, with a signature of your own; or less than what it asks for.
///
/// Shows the whole request, from the bytes that are signed, and asks. Signs with the key that
/// ssh-agent holds, or with the one that --key names; policy must list it for you.
#[derive(Debug, Args)]
pub struct Approve {
    /// The id of the request, or its first characters.
    #[arg(value_name = "ID")]
    id: String,
    /// The key to sign with: a file of mode 0600, or a `.pub` file to pick one of ssh-agent's.
    #[arg(long, value_name = "FILE", env = "DAYFLY_SIGNING_KEY")]
    key: Option<PathBuf>,
    /// A shorter lease, as in 90s or 2m.
    #[arg(long, value_name = "TIME", value_parser = lease)]
    ttl: Option<Duration>,
    /// Fewer uses.
    #[arg(long, value_name = "COUNT", value_parser = count)]
    uses: Option<NonZeroU32>,
    /// Only this right, inside what is asked for, as in 'refund orders/prod/7'; may be repeated.
    #[arg(long, value_name = "RIGHT")]
    only: Vec<Right>,
    /// A further constraint, as in 'amount <= 100'; may be repeated.
    #[arg(long = "where", value_name = "CONSTRAINT")]
    constraints: Vec<Constraint>,
    /// Why, in at most 2 KiB; kept beside the log, where it can be erased.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
}

/// Deny a request that waits for you. Nobody can approve it any more.
#[derive(Debug, Args)]
pub struct Deny {
    /// The id of the request, or its first characters.
    #[arg(value_name = "ID")]
    id: String,
    /// Why, in at most 2 KiB; kept beside the log, where it can be erased.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// Take your approval of a request back, as long as it is not granted.
#[derive(Debug, Args)]
pub struct Withdraw {
    /// The id of the request, or its first characters.
    #[arg(value_name = "ID")]
    id: String,
}

/// What a person is about to say.
struct Draft {
    person: PersonId,
    narrowing: Narrowing,
    reason: Option<(String, Salt)>,
}

impl Approve {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        if context.console.format == Format::Json && !self.yes {
            let error = anyhow::anyhow!("JSON shows nobody what is signed");
            return Err(Refused::new(Exit::Usage, error).next("add --yes, or leave JSON out"));
        }
        let narrowing = Narrowing {
            lifetime: self.ttl,
            uses: self.uses,
            rights: Some(BTreeSet::from_iter(self.only)).filter(|only| !only.is_empty()),
            constraints: self.constraints.into_iter().collect(),
        };
        block_on(async {
            let session = context.session().await?;
            let mut client = client(&session);
            let (request, answer) = get(context, &mut client, &self.id).await?;
            still_pending(&request)?;
            let shown = shown(&self.id, &answer)?;
            if context.console.format == Format::Text {
                context.console.line(page(&shown, &answer)?.trim_end());
            }
            let person = answer
                .person
                .parse()
                .map_err(|error| Refused::new(Exit::Unavailable, anyhow::Error::from(error)))?;
            let reason =
                self.reason.map(|reason| Ok::<_, Refused>((reason, salt()?))).transpose()?;
            let draft = Draft { person, narrowing, reason };
            // Before anything is asked: whether there is a key at all.
            let mut signer = signer(self.key.as_deref())?;
            let prepared = agreed(context, &shown, &draft, self.yes)?;
            let statement = prepared.bytes().to_vec().into();
            context.console.progress(&format!("signing with {}", signer.key()));
            let signature =
                signer.sign(DECISION_NAMESPACE, prepared.bytes()).map_err(cannot_sign)?;
            let (reason, reason_salt) = match draft.reason {
                Some((reason, salt)) => (reason, salt.as_bytes().to_vec()),
                None => (String::new(), Vec::new()),
            };
            let approval = v1::ApproveRequest {
                grant_id: prepared.statement().grant.to_string(),
                decision: Some(v1::SignedDecision { statement, signature }),
                reason,
                reason_salt: reason_salt.into(),
            };
            let done = client.approve(approval).await.map_err(|status| failed(context, status))?;
            tell(context, done.into_inner().request);
            Ok(())
        })
    }
}

/// Shows what would be signed, and asks until the answer is fresh.
fn agreed(context: &Context, shown: &Shown, draft: &Draft, yes: bool) -> Result<Prepared, Refused> {
    let Draft { person, narrowing, reason } = draft;
    loop {
        let at = SystemClock.now();
        let answer = Answer::Approve(narrowing.clone());
        let reason = reason.as_ref().map(|(reason, salt)| (reason.as_str(), salt));
        let prepared = shown.decide(person.clone(), answer, reason, at).map_err(cannot_show)?;
        if context.console.format == Format::Text {
            context.console.line(prepared.text().trim_end());
        }
        if yes {
            return Ok(prepared);
        }
        match context.console.confirm("Approve this?") {
            Some(true) if SystemClock.now().since(at) <= FRESH => return Ok(prepared),
            Some(true) => context.console.warn("the statement is too old by now; here it is anew"),
            Some(false) => {
                return Err(Refused::new(Exit::Failed, anyhow::anyhow!("nothing was signed")));
            }
            None => {
                let error = anyhow::anyhow!("there is no terminal to ask on; nothing was signed");
                return Err(Refused::new(Exit::Usage, error).next("add --yes to sign unasked"));
            }
        }
    }
}

fn signer(key: Option<&Path>) -> Result<Signer, Refused> {
    let agent = std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from);
    let signer = match key {
        Some(key) => Signer::from_file(key, agent.as_deref()),
        None => Signer::from_agent(agent.as_deref()),
    };
    signer.map_err(cannot_sign)
}

fn salt() -> Result<Salt, Refused> {
    let mut salt = [0; 16];
    let drawn = getrandom::fill(&mut salt);
    drawn.map_err(|error| Refused::new(Exit::Failed, anyhow::Error::from(error)))?;
    Ok(Salt::new(salt))
}

fn cannot_show(error: CannotShow) -> Refused {
    match &error {
        CannotShow::Request(_) => Refused::new(Exit::Failed, error),
        CannotShow::Decision(_) => {
            Refused::new(Exit::Usage, error).next("an approval may only take away: see --help")
        }
        CannotShow::TooLong => Refused::new(Exit::Usage, error),
    }
}

fn cannot_sign(error: CannotSign) -> Refused {
    let next = match &error {
        CannotSign::NoAgent | CannotSign::NoKey | CannotSign::Agent(_) => {
            "name a key with --key FILE, or start ssh-agent and ssh-add one"
        }
        CannotSign::Protected(_) => "start ssh-agent, and ssh-add the key",
        CannotSign::Several(_) => "name one of them with --key FILE.pub",
        CannotSign::Refused(_) => "ssh-add the key, and confirm or touch it when asked",
        CannotSign::NotAKey(_) | CannotSign::Kind(_) => "ssh-keygen -t ed25519 makes one",
        CannotSign::File(_) | CannotSign::Bad(_) | CannotSign::Key(_) => {
            return Refused::new(Exit::Config, error);
        }
    };
    Refused::new(Exit::Config, error).next(next)
}

/// Nothing is signed, or asked, about what has been decided.
fn still_pending(request: &v1::AccessRequest) -> Result<(), Refused> {
    let (exit, what) = match request.standing() {
        Standing::Pending => return Ok(()),
        Standing::Granted => (Exit::Denied, "is granted already"),
        Standing::RefusedByPolicy => (Exit::Denied, "was refused by policy"),
        Standing::Denied => (Exit::Denied, "was denied"),
        Standing::Expired => (Exit::Expired, "expired unanswered"),
        Standing::Cancelled => (Exit::Expired, "was taken back by its workload"),
        Standing::Completed => (Exit::Expired, "was granted, and is completed"),
        Standing::Revoked => (Exit::Revoked, "was revoked"),
        Standing::Drifted => (Exit::Revoked, "was taken back: policy would not grant it any more"),
        Standing::Lapsed => (Exit::Expired, "was granted, and its lease has ended"),
        Standing::Unspecified => (Exit::Unavailable, "stands in a way unknown to this version"),
    };
    Err(Refused::new(exit, anyhow::anyhow!("the request {what}")))
}

/// What became of the request.
fn tell(context: &Context, request: Option<v1::AccessRequest>) {
    let Some(request) = request else { return };
    let id = &request.grant_id;
    let text = || match request.standing() {
        Standing::Granted => {
            let terms = request.terms.as_ref();
            let lease = terms.map_or(0, |terms| terms.until_ms.saturating_sub(terms.from_ms));
            let lease = span(Duration::from_millis(u64::try_from(lease).unwrap_or(0)));
            format!("{GOOD}granted{GOOD:#} {id}, for {lease} from now on")
        }
        Standing::Pending => {
            let so_far = match request.approved_by.as_slice() {
                [] => "nobody approves it now".to_owned(),
                people => format!("approved by {} so far", people.join(", ")),
            };
            format!("{WAITING}pending{WAITING:#} {id}: {so_far}")
        }
        Standing::Unspecified
        | Standing::RefusedByPolicy
        | Standing::Denied
        | Standing::Expired
        | Standing::Cancelled
        | Standing::Completed
        | Standing::Revoked
        | Standing::Drifted
        | Standing::Lapsed => format!("{id} {}", standing(&request)),
    };
    context.console.result(text, || json_of(&request));
}

impl Deny {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { id, reason } = self;
        block_on(async {
            let session = context.session().await?;
            let mut client = client(&session);
            let (request, _) = get(context, &mut client, &id).await?;
            let v1::AccessRequest { grant_id, digest, .. } = request;
            let denial = v1::DenyRequest { grant_id: grant_id.clone(), digest, reason };
            let done = client.deny(denial).await.map_err(|status| failed(context, status))?;
            let request = done.into_inner().request.unwrap_or_default();
            context.console.result(|| format!("denied {grant_id}"), || json_of(&request));
            Ok(())
        })
    }
}

impl Withdraw {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { id } = self;
        block_on(async {
            let session = context.session().await?;
            let mut client = client(&session);
            let (request, _) = get(context, &mut client, &id).await?;
            let withdrawal = v1::WithdrawRequest { grant_id: request.grant_id };
            let done = client.withdraw(withdrawal).await;
            tell(context, done.map_err(|status| failed(context, status))?.into_inner().request);
            Ok(())
        })
    }
}
