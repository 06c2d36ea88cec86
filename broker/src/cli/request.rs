//! For workloads: ask for a right, wait for the decision, exchange it, give it back.
//!
//! A request's ticket is kept in the identity directory (`requests/ID.json`, mode 0600) before the
//! request is filed, so that nothing is lost in between. A token is written only where it was told
//! to go.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use dayfly_agent::case::{Case, Standing};
use dayfly_agent::client::{Client, Outcome};
use dayfly_agent::errors::Error;
use dayfly_agent::files;
use dayfly_agent::identity::IdentityDir;
use dayfly_agent::ticket::{Ask, Ticket};
use dayfly_verifier::id::{PersonId, Purpose, RequestId, TaskId};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::request::ConfirmBy;
use dayfly_verifier::scope::{Constraint, Right, Scope};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::wire::Token as Text;
use serde_json::json;

use super::case::{approvals, end_of, refused, show, text, to_json};
use super::console::GOOD;
use super::exit::{Exit, Refused, WRITABLE};
use super::number::count;
use super::{Context, block_on};

/// Ask for one narrow right, for one task.
///
/// Exits 0 if the right is granted, 10 while it waits for approval (see `--wait` and `dayfly
/// wait`), 11 if policy refuses. The request's id, which every later verb takes, goes to standard
/// output, and how it stands to standard error.
#[derive(Debug, Args)]
pub struct Request {
    /// The gateway that guards the resource: its SPIFFE ID.
    #[arg(long, value_name = "SPIFFE_ID")]
    audience: SpiffeId,
    /// A right, as in 'refund orders/prod/o-17' or 'read orders/staging/**'; may be repeated.
    #[arg(long = "allow", value_name = "RIGHT", required = true)]
    rights: Vec<Right>,
    /// A constraint on an argument, as in 'amount <= 500', 'order_id = "o-17"' or
    /// 'currency in ["eur", "usd"]'; may be repeated. It holds for every right.
    #[arg(long = "where", value_name = "CONSTRAINT")]
    constraints: Vec<Constraint>,
    /// The task it is for: an id from wherever tasks are kept.
    #[arg(long, value_name = "ID")]
    task: TaskId,
    /// Why, as a name that the policy knows.
    #[arg(long, value_name = "NAME")]
    purpose: Purpose,
    /// Why, in words for the approvers.
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
    /// How long it is needed, as in 90s, 10m or 1h.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    ttl: Option<Duration>,
    /// How many times it is needed.
    #[arg(long, value_name = "N", value_parser = count)]
    uses: Option<NonZeroU32>,
    /// The person on whose behalf it is.
    #[arg(long, value_name = "PERSON")]
    principal: Option<PersonId>,
    /// Bind the token to the SPIFFE ID instead of to a key; policy must mark the ID exclusive.
    #[arg(long)]
    by_identity: bool,
    /// Wait for the decision.
    #[arg(long)]
    wait: bool,
    /// Wait no longer than this.
    #[arg(long, value_name = "SPAN", value_parser = span, requires = "wait")]
    timeout: Option<Duration>,
}

/// Wait until a request is decided; the decision is pushed.
///
/// Exits 0 if it is granted, 10 if the time is up, 11 if it was denied, 12 if it expired, 13 if it
/// was revoked, 20 if the broker could not be asked.
#[derive(Debug, Args)]
pub struct Wait {
    /// The request's id.
    #[arg(value_name = "REQUEST")]
    request: RequestId,
    /// Wait no longer than this, as in 90s, 10m or 1h.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    timeout: Option<Duration>,
}

/// Exchange a granted request for a token.
#[derive(Debug, Args)]
pub struct Exchange {
    /// The request's id.
    #[arg(value_name = "REQUEST")]
    request: RequestId,
    #[command(flatten)]
    to: To,
}

/// Where the token goes.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct To {
    /// Write the token to this file, readable by its owner alone.
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Write the token to standard output.
    #[arg(long)]
    stdout: bool,
}

/// End a grant: its task is done. From then on every gateway refuses its tokens.
#[derive(Debug, Args)]
pub struct Complete {
    /// The request's id.
    #[arg(value_name = "REQUEST")]
    request: RequestId,
    /// The task did not do what it set out to do.
    #[arg(long)]
    failed: bool,
}

/// Take a pending request back, or end a grant whose task was given up.
#[derive(Debug, Args)]
pub struct Cancel {
    /// The request's id.
    #[arg(value_name = "REQUEST")]
    request: RequestId,
}

impl Request {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        block_on(self.file(context))
    }

    async fn file(self, context: &Context) -> Result<(), Refused> {
        let usage = |error: Invalid| Refused::new(Exit::Usage, error);
        let ask = Ask {
            audience: self.audience,
            scope: Scope::new(self.rights, self.constraints).map_err(usage)?,
            task: self.task,
            purpose: self.purpose,
            justification: self.why,
            lifetime: self.ttl,
            uses: self.uses,
            principal: self.principal,
            confirmation: if self.by_identity { ConfirmBy::Identity } else { ConfirmBy::Key },
        };
        let client = client(context).await?;
        let ticket = Ticket::draw(ask, client.now()).map_err(|e| refused(context, e))?;
        let path = ticket_path(context, ticket.id())?;
        if let Some(dir) = path.parent() {
            files::private_dir(dir).map_err(|e| Refused::new(Exit::Config, e))?;
        }
        ticket.save(&path).map_err(|e| refused(context, e))?;
        let mut case = client.file(&ticket).await.map_err(|e| refused(context, e))?;
        if self.wait && case.standing == Standing::Pending {
            context.console.progress(&format!("filed {}", ticket.id()));
            let decided = decided(context, &client, &ticket, self.timeout).await;
            case = decided.map_err(|refused| undecided(context, &case, refused))?;
        }
        context.console.aside(&text(&case));
        context.console.result(|| case.request.to_string(), || to_json(&case));
        end_of(context, &case)
    }
}

impl Wait {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        block_on(async {
            let ticket = load(context, &self.request)?;
            let client = client(context).await?;
            let case = decided(context, &client, &ticket, self.timeout).await?;
            show(context, &case);
            Ok(())
        })
    }
}

impl Exchange {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        block_on(async {
            let ticket = load(context, &self.request)?;
            let client = client(context).await?;
            let exchange = client.draw_exchange().map_err(|e| refused(context, e))?;
            let held = client.exchange(&ticket, &exchange).await;
            let held = held.map_err(|e| refused(context, e))?;
            let claims = &held.claims;
            let shown = self.to.give(&held.token)?;
            let left = claims.expires_at.since(client.now()).as_secs();
            let text = || match shown {
                Some(token) => token.to_owned(),
                None => format!("{GOOD}token{GOOD:#} {}, good for {left} s", claims.token),
            };
            let json = || {
                json!({
                    "token": shown,
                    "token_id": claims.token.to_string(),
                    "grant_id": claims.grant.to_string(),
                    "expires_at": claims.expires_at.to_string(),
                    "token_file": self.to.token_file,
                })
            };
            context.console.result(text, json);
            Ok(())
        })
    }
}

impl To {
    /// Writes `token` to its file; the text of it if that is to be shown.
    pub(super) fn give<'a>(&self, token: &'a Text) -> Result<Option<&'a str>, Refused> {
        if let Some(path) = &self.token_file {
            let written = files::write_secret(path, token.expose().as_bytes());
            written.map_err(|error| Refused::new(Exit::Failed, error).next(WRITABLE))?;
        }
        Ok(self.stdout.then_some(token.expose()))
    }
}

impl Complete {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        block_on(async {
            let ticket = load(context, &self.request)?;
            let client = client(context).await?;
            let outcome = if self.failed { Outcome::Failed } else { Outcome::Succeeded };
            let case = client.complete(&ticket, outcome).await;
            show(context, &case.map_err(|e| refused(context, e))?);
            Ok(())
        })
    }
}

impl Cancel {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        block_on(async {
            let ticket = load(context, &self.request)?;
            let client = client(context).await?;
            let case = client.cancel(&ticket).await.map_err(|e| refused(context, e))?;
            show(context, &case);
            Ok(())
        })
    }
}

async fn client(context: &Context) -> Result<Client, Refused> {
    Ok(Client::new(context.session().await?))
}

/// Waits, and says on the way who approved.
async fn decided(
    context: &Context,
    client: &Client,
    ticket: &Ticket,
    timeout: Option<Duration>,
) -> Result<Case, Refused> {
    let seen = |case: &Case| {
        if case.standing == Standing::Pending {
            let left = case.pending_until.since(client.now()).as_secs();
            context.console.progress(&format!("waiting, at most {left} s; {}", approvals(case)));
        }
    };
    client.wait(ticket, timeout, seen).await.map_err(|e| refused(context, e))
}

/// However a wait ended, what was filed has an id, which every later verb takes.
fn undecided(context: &Context, filed: &Case, refused: Refused) -> Refused {
    let Case { request, grant, .. } = filed;
    let json = || json!({ "request_id": request.to_string(), "grant_id": grant.to_string() });
    context.console.result(|| request.to_string(), json);
    if refused.exit == Exit::Pending {
        refused.next(format!("dayfly wait {request}"))
    } else {
        refused
    }
}

/// Where the ticket of a request is kept.
pub(super) fn ticket_path(context: &Context, id: &RequestId) -> Result<PathBuf, Refused> {
    Ok(context.identity_dir()?.join("requests").join(format!("{id}.json")))
}

/// The ticket of a request that this identity filed.
pub(super) fn load(context: &Context, id: &RequestId) -> Result<Ticket, Refused> {
    IdentityDir::open(&context.identity_dir()?).map_err(|error| context.refused(error.into()))?;
    Ticket::load(&ticket_path(context, id)?).map_err(|error| {
        let missing = matches!(&error, Error::File(file) if file.is_missing());
        let refused = refused(context, error);
        if missing { refused.next("name a request that this identity filed") } else { refused }
    })
}

/// A span of whole seconds: `90s`, `10m`, `1h`.
pub(super) fn span(text: &str) -> Result<Duration, Invalid> {
    let refused = || Invalid::new("span", "must be like 90s, 10m or 1h, and not nothing");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(refused)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(refused()),
    };
    let digits = number.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = number.parse().ok().filter(|_| digits).ok_or_else(refused)?;
    let secs = number.checked_mul(unit).filter(|secs| *secs > 0).ok_or_else(refused)?;
    Ok(Duration::from_secs(secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_whole_and_have_a_unit() {
        for bad in ["", "s", "5", "0s", "-5s", "+5s", "1.5m", "5d", "5 s", "é", "9999999999999999h"]
        {
            assert!(span(bad).is_err(), "{bad:?}");
        }
        assert_eq!(span("90s").unwrap().as_secs(), 90);
        assert_eq!(span("10m").unwrap().as_secs(), 600);
        assert_eq!(span("1h").unwrap().as_secs(), 3600);
    }
}
