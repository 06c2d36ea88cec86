//! What waits for a person, and one request in full.

use std::time::Duration;

use clap::Args;
use dayfly_agent::errors::{Error, Reason, Refusal};
use dayfly_agent::render::{self, Shown, visible};
use dayfly_agent::session::{MAX_ANSWER_BYTES, Session};
use dayfly_proto::v1::approval_service_client::ApprovalServiceClient;
use dayfly_proto::v1::{self, Standing};
use dayfly_verifier::time::{Clock as _, SystemClock, Timestamp};
use serde_json::{Value as Json, json};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::console::table;
use super::exit::{Exit, Refused};
use super::watch::watch;
use super::when::span;
use super::{Context, block_on};

/// How much of an id a table shows: enough for one person's requests, and `show` takes it.
const SHORT_ID: usize = 8;

/// List the requests that wait for your decision, soonest end first.
#[derive(Debug, Args)]
pub struct Pending {
    /// Go on, and list them anew whenever something comes or goes.
    #[arg(long, short)]
    watch: bool,
}

/// Show one request in full, from the bytes that an approval signs.
#[derive(Debug, Args)]
pub struct Show {
    /// The id of the request, or its first characters.
    #[arg(value_name = "ID")]
    id: String,
}

type Waiting = Streaming<v1::WatchPendingResponse>;

/// The way to the service for people.
pub(super) type Client = ApprovalServiceClient<Channel>;

/// A way to the broker, as a person.
pub(super) fn client(session: &Session) -> Client {
    ApprovalServiceClient::new(session.channel()).max_decoding_message_size(MAX_ANSWER_BYTES)
}

/// How a command ends whose call was refused, or failed.
pub(super) fn failed(context: &Context, status: Status) -> Refused {
    match Error::from(status) {
        Error::Refused(refusal) => refused(refusal),
        Error::CouldNotAsk(error) => context.refused(error),
        error @ (Error::Ended(_) | Error::StillPending | Error::Invalid(_) | Error::File(_)) => {
            Refused::new(Exit::Failed, error)
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other refusal is a no, whatever it is")]
fn refused(refusal: Refusal) -> Refused {
    let pending = "see `dayfly pending`, as a person, for what waits for you (--identity DIR)";
    let (exit, next) = match refusal.reason {
        Reason::Invalid => (Exit::Usage, None),
        Reason::NotFound | Reason::NotAllowed => (Exit::Denied, Some(pending)),
        Reason::Expired | Reason::Lapsed => (Exit::Expired, Some("ask for a new request")),
        Reason::Cancelled | Reason::Completed => (Exit::Expired, None),
        Reason::Revoked | Reason::Drifted => (Exit::Revoked, None),
        Reason::DigestMismatch => {
            (Exit::Denied, Some("policy demands something else by now: look at it again"))
        }
        Reason::UnknownKey => {
            (Exit::Denied, Some("use a key that people.toml lists for you (--key FILE)"))
        }
        Reason::AlreadyDecided => {
            (Exit::Denied, Some("an operator can take a grant back: dayfly revoke"))
        }
        Reason::DecisionTime => (Exit::Denied, Some("set the clock of this machine")),
        Reason::NotApprover | Reason::OwnRequest => (Exit::Denied, Some(pending)),
        _ => (Exit::Denied, None),
    };
    let refused = Refused::new(exit, Error::Refused(refusal));
    match next {
        Some(next) => refused.next(next),
        None => refused,
    }
}

impl Pending {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { watch: watching } = self;
        block_on(async {
            let session = context.session().await?;
            if !watching {
                let waiting = next(context, &mut open(context, &session, true).await?).await?;
                let requests = waiting.map(|waiting| waiting.requests).unwrap_or_default();
                context.console.result(|| text(&requests), || to_json(&requests));
                return Ok(());
            }
            watch(context, &session, async |screen| {
                let mut stream = open(context, &session, false).await?;
                let mut requests = Vec::new();
                loop {
                    let tick = async {
                        match screen.is_terminal() {
                            // What is left of a request's time goes on running.
                            true => tokio::time::sleep(Duration::from_secs(1)).await,
                            false => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        news = next(context, &mut stream) => match news? {
                            Some(waiting) => requests = waiting.requests,
                            None => return Ok(()),
                        },
                        () = tick => {}
                    }
                    screen.draw(|| text(&requests), || to_json(&requests));
                    if context.console.is_unread() {
                        return Ok(());
                    }
                }
            })
            .await
        })
    }
}

async fn open(context: &Context, session: &Session, once: bool) -> Result<Waiting, Refused> {
    let stream = client(session).watch_pending(v1::WatchPendingRequest { once }).await;
    Ok(stream.map_err(|status| failed(context, status))?.into_inner())
}

async fn next(
    context: &Context,
    stream: &mut Waiting,
) -> Result<Option<v1::WatchPendingResponse>, Refused> {
    stream.message().await.map_err(|status| failed(context, status))
}

fn to_json(requests: &[v1::AccessRequest]) -> Json {
    requests.iter().map(json_of).collect()
}

fn text(requests: &[v1::AccessRequest]) -> String {
    if requests.is_empty() {
        return "nothing waits for you".to_owned();
    }
    let now = SystemClock.now();
    let head = ["id", "left", "workload", "what", "why", "approvals"];
    let rows = requests.iter().map(|request| {
        let why = format!("{}, task {}", request.purpose, request.task);
        vec![
            request.grant_id.chars().take(SHORT_ID).collect::<String>(),
            left(request, now),
            request.workload.clone(),
            what(request.scope.as_ref()),
            why,
            approvals(request),
        ]
    });
    table(&head, rows.collect())
}

/// `4m 12s`, until it expires unanswered.
fn left(request: &v1::AccessRequest, now: Timestamp) -> String {
    let until = u64::try_from(request.pending_until_ms).unwrap_or(0);
    span(Duration::from_millis(until.saturating_sub(now.as_ms())))
}

/// The rights, and under which constraints.
fn what(scope: Option<&v1::Scope>) -> String {
    let (rights, constraints) = parts(scope);
    let rights = rights.join(", ");
    if constraints.is_empty() {
        rights
    } else {
        format!("{rights} if {}", constraints.join(" and "))
    }
}

fn parts(scope: Option<&v1::Scope>) -> (Vec<String>, Vec<String>) {
    let read = scope.and_then(|scope| dayfly_agent::convert::scope_from_wire(scope).ok());
    let Some(scope) = read else { return (vec!["(cannot be read)".to_owned()], vec![]) };
    let rights = scope.rights().map(ToString::to_string).collect();
    (rights, scope.constraints().map(ToString::to_string).collect())
}

/// `dba: 1, security: 1 (bob so far)`.
fn approvals(request: &v1::AccessRequest) -> String {
    let mut needed: Vec<String> =
        demanded(request).into_iter().map(|(group, count)| format!("{group}: {count}")).collect();
    needed.sort();
    match request.approved_by.as_slice() {
        [] => needed.join(", "),
        people => format!("{} ({} so far)", needed.join(", "), people.join(", ")),
    }
}

fn demanded(request: &v1::AccessRequest) -> Vec<(String, u32)> {
    request.requirement.iter().flat_map(|demand| demand.approvals.clone()).collect()
}

/// `pending`, `granted`, `denied`.
pub(super) fn standing(request: &v1::AccessRequest) -> String {
    let name = request.standing().as_str_name();
    name.strip_prefix("STANDING_").unwrap_or(name).to_lowercase()
}

/// A request as it stands, for programs.
pub(super) fn json_of(request: &v1::AccessRequest) -> Json {
    let (rights, constraints) = parts(request.scope.as_ref());
    let approvals: serde_json::Map<String, Json> =
        demanded(request).into_iter().map(|(group, count)| (group, count.into())).collect();
    json!({
        "grant_id": request.grant_id, "digest": request.digest, "standing": standing(request),
        "because": request.because, "workload": request.workload,
        "principal": request.principal, "audience": request.audience, "rights": rights,
        "constraints": constraints, "task": request.task, "purpose": request.purpose,
        "lifetime_seconds": request.lifetime_seconds, "uses": request.uses,
        "approvals": approvals, "approved_by": request.approved_by,
        "filed_at_ms": request.filed_at_ms, "pending_until_ms": request.pending_until_ms,
        "granted_until_ms": request.terms.as_ref().map(|terms| terms.until_ms),
    })
}

/// What the broker tells of one request.
pub(super) async fn get(
    context: &Context,
    client: &mut Client,
    id: &str,
) -> Result<(v1::AccessRequest, v1::GetRequestResponse), Refused> {
    let asked = v1::GetRequestRequest { grant_id: id.to_owned() };
    let mut answer =
        client.get_request(asked).await.map_err(|status| failed(context, status))?.into_inner();
    let request = answer.request.take().filter(|request| request.grant_id.starts_with(id));
    let request = request.ok_or_else(|| other_request(id))?;
    Ok((request, answer))
}

fn other_request(id: &str) -> Refused {
    let error = anyhow::anyhow!("the broker shows another request than `{}`", id.escape_debug());
    Refused::new(Exit::Unavailable, error)
}

/// The request as its own bytes say, which must be those of the one that was asked for.
pub(super) fn shown(id: &str, answer: &v1::GetRequestResponse) -> Result<Shown, Refused> {
    let shown = render::request(&answer.canonical_request).map_err(|error| {
        Refused::new(Exit::Failed, error).next("use a version of dayfly that knows all of it")
    })?;
    if shown.request().grant_id().to_string().starts_with(id) {
        Ok(shown)
    } else {
        Err(other_request(id))
    }
}

/// All that a person should see before they decide.
pub(super) fn page(shown: &Shown, answer: &v1::GetRequestResponse) -> Result<String, Refused> {
    let mut page = shown.text().to_owned();
    if answer.justification.is_empty() {
        page.push_str("The workload gives no reason\n");
    } else {
        page.push_str("The workload says, in its own words; nobody has checked them\n");
        let quoted = render::quoted(&answer.justification);
        page.push_str(&quoted.map_err(|error| Refused::new(Exit::Failed, error))?);
    }
    Ok(page)
}

/// Where it stands, as the broker says: no part of what is signed.
fn state(request: &v1::AccessRequest, now: Timestamp) -> String {
    let because = match request.because.as_str() {
        "" => String::new(),
        because => format!(" ({})", visible(because, false)),
    };
    let pending = request.standing() == Standing::Pending;
    let left = if pending { format!(", {} left", left(request, now)) } else { String::new() };
    let so_far = match request.approved_by.as_slice() {
        [] => String::new(),
        people => format!("; approved by {}", visible(&people.join(", "), false)),
    };
    format!("It stands: {}{because}{left}{so_far}", standing(request))
}

impl Show {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { id } = self;
        block_on(async {
            let session = context.session().await?;
            let (request, answer) = get(context, &mut client(&session), &id).await?;
            let page = page(&shown(&id, &answer)?, &answer)?;
            let text = || format!("{page}{}", state(&request, SystemClock.now()));
            let json = || {
                let canonical = String::from_utf8_lossy(&answer.canonical_request);
                let justification = &answer.justification;
                json!({
                    "request": json_of(&request),
                    "canonical_request": canonical, "justification": justification,
                })
            };
            context.console.result(text, json);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_was_not_asked_for_is_not_shown() {
        let canonical = include_str!("../../../tests/vectors/request.json");
        let vectors: Json = serde_json::from_str(canonical).unwrap();
        let vector = &vectors["good"][0];
        let answer = v1::GetRequestResponse {
            canonical_request: vector["canonical"].as_str().unwrap().to_owned().into(),
            ..Default::default()
        };
        let id = vector["grant"].as_str().unwrap();
        assert!(shown("0000", &answer).is_err());
        assert!(shown(&id[..6], &answer).is_ok());
        let cut = answer.canonical_request.slice(1..);
        assert!(shown(id, &v1::GetRequestResponse { canonical_request: cut, ..answer }).is_err());
    }
}
