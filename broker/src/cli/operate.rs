//! What operators look at while the broker runs: who holds what.

use clap::Args;
use dayfly_agent::errors::{Error, Reason};
use dayfly_proto::v1::operator_service_client::OperatorServiceClient;
use dayfly_proto::v1::{self, Standing};
use dayfly_verifier::id::TaskId;
use dayfly_verifier::spiffe::SpiffeId;
use serde_json::{Value as Json, json};
use tonic::Status;
use tonic::transport::Channel;

use super::exit::{Exit, Refused};
use super::when::time_of_ms;
use super::{Context, NOT_FOR_YOU, block_on, case};

/// List grants: the live ones and the requests that wait, or all that is remembered.
#[derive(Debug, Args)]
pub struct Grants {
    /// Only those of this workload.
    #[arg(long, value_name = "SPIFFE_ID")]
    workload: Option<SpiffeId>,
    /// Only those for this task.
    #[arg(long, value_name = "TASK")]
    task: Option<TaskId>,
    /// Those that have ended, too.
    #[arg(long)]
    all: bool,
}

/// The way to the service for operators.
pub(super) type Client = OperatorServiceClient<Channel>;

impl Context {
    pub(super) async fn operator(&self) -> Result<Client, Refused> {
        let client = OperatorServiceClient::new(self.session().await?.channel());
        Ok(client.max_decoding_message_size(dayfly_agent::session::MAX_ANSWER_BYTES))
    }

    /// How a command of an operator ends whose call was refused, or failed. What the broker
    /// refused in words of its own never ends like what could not be asked.
    pub(super) fn status(&self, status: Status) -> Refused {
        let error = match Error::from(status) {
            Error::CouldNotAsk(error) => return self.refused(error),
            error @ (Error::Refused(_)
            | Error::Ended(_)
            | Error::StillPending
            | Error::Invalid(_)
            | Error::File(_)) => error,
        };
        let hidden = matches!(error.reason(), Some(Reason::NotFound | Reason::NotAllowed));
        let refused = case::refused(self, error);
        if hidden { refused.next(NOT_FOR_YOU) } else { refused }
    }
}

/// The end of the log as of which something was done. What names none tells nothing of it, least
/// of all that it holds.
pub(super) fn seq_of(head: Option<v1::Head>) -> Result<u64, Refused> {
    let seq = head.map(|head| head.seq).filter(|seq| *seq > 0);
    seq.ok_or_else(|| {
        let error = anyhow::anyhow!("the broker does not say as which entry it was done");
        Refused::new(Exit::Unavailable, error).next("see `dayfly audit tail` for what was done")
    })
}

impl Grants {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { workload, task, all } = self;
        let standings = match all {
            true => Vec::new(),
            false => vec![Standing::Granted.into(), Standing::Pending.into()],
        };
        let request = v1::ListGrantsRequest {
            standings,
            workload: workload.map(|id| id.to_string()).unwrap_or_default(),
            task: task.map(|id| id.to_string()).unwrap_or_default(),
        };
        block_on(async move {
            let mut client = context.operator().await?;
            let listed = client.list_grants(request).await.map_err(|e| context.status(e))?;
            let requests = listed.into_inner().requests;
            let head = ["grant", "standing", "workload", "task", "rights", "until", "because"];
            let rows = requests.iter().map(|request| {
                vec![
                    request.grant_id.clone(),
                    standing(request),
                    request.workload.clone(),
                    request.task.clone(),
                    rights(request).join(", "),
                    time_of_ms(until(request)),
                    because(request),
                ]
            });
            let json = || requests.iter().map(grant_json).collect();
            context.console.table(&head, rows.collect(), json);
            Ok(())
        })
    }
}

/// `granted`, `pending`, `revoked`.
fn standing(request: &v1::AccessRequest) -> String {
    let name = request.standing().as_str_name();
    name.strip_prefix("STANDING_").unwrap_or(name).to_lowercase().replace('_', " ")
}

/// What is granted, or asked for.
fn rights(request: &v1::AccessRequest) -> Vec<String> {
    let granted = request.terms.as_ref().and_then(|terms| terms.scope.as_ref());
    let scope = granted.or(request.scope.as_ref());
    let rights = scope.into_iter().flat_map(|scope| &scope.rights);
    rights.map(|right| format!("{} {}", right.operation, right.resource)).collect()
}

/// Why it stands so; of what waits, for whom it does, and who approved so far.
fn because(request: &v1::AccessRequest) -> String {
    if request.standing() != Standing::Pending {
        return request.because.clone();
    }
    let required = request.requirement.iter().flat_map(|required| &required.approvals);
    let mut required: Vec<_> = required.map(|(group, count)| format!("{group}: {count}")).collect();
    required.sort_unstable();
    let mut text = format!("waits for {}", required.join(", "));
    if !request.approved_by.is_empty() {
        text.push_str(&format!("; approved by {}", request.approved_by.join(", ")));
    }
    text
}

fn until(request: &v1::AccessRequest) -> i64 {
    request.terms.as_ref().map_or(request.pending_until_ms, |terms| terms.until_ms)
}

fn grant_json(request: &v1::AccessRequest) -> Json {
    json!({
        "grant_id": request.grant_id, "standing": standing(request),
        "because": request.because, "workload": request.workload,
        "principal": request.principal, "audience": request.audience, "task": request.task,
        "purpose": request.purpose, "rights": rights(request), "until_ms": until(request),
        "required": request.requirement.as_ref().map(|required| &required.approvals),
        "approved_by": request.approved_by,
        "uses": request.terms.as_ref().map(|terms| terms.uses).filter(|uses| *uses > 0),
        "uses_spent": request.terms.as_ref().map(|terms| terms.uses_spent),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::status::denial;
    use crate::cli::console::{Console, Format};
    use crate::core::denial::{Denial, Limited};

    #[test]
    fn what_is_refused_does_not_end_like_what_could_not_be_asked() {
        let context = Context { console: Console { format: Format::Text }, identity: None };
        for (refusal, exit) in [
            (Denial::LimitReached(Limited::Locks), Exit::Denied),
            (Denial::UnsignedBundle, Exit::Denied),
            (Denial::NotAllowed, Exit::Denied),
            (Denial::IdReused, Exit::Usage),
        ] {
            let refused = context.status(denial(&refusal));
            assert_eq!(refused.exit, exit, "{refusal:?}");
            assert!(refused.step().is_some(), "{refusal:?}");
        }
        assert_eq!(context.status(Status::unavailable("gone")).exit, Exit::Unavailable);
    }

    #[test]
    fn what_waits_says_for_whom_and_what_has_ended_says_why() {
        let approvals = [("security".to_owned(), 1), ("dba".to_owned(), 2)].into();
        let mut request = v1::AccessRequest {
            standing: Standing::Pending.into(),
            requirement: Some(v1::Requirement { approvals, ..Default::default() }),
            ..Default::default()
        };
        assert_eq!(because(&request), "waits for dba: 2, security: 1");
        request.approved_by = vec!["ana".to_owned()];
        assert_eq!(because(&request), "waits for dba: 2, security: 1; approved by ana");
        assert_eq!(grant_json(&request)["required"], json!({ "dba": 2, "security": 1 }));
        request.set_standing(Standing::Denied);
        request.because = "denied by ana".to_owned();
        assert_eq!(because(&request), "denied by ana");
    }

    #[test]
    fn an_answer_without_an_entry_is_none() {
        assert_eq!(seq_of(Some(v1::Head { seq: 7, ..Default::default() })).unwrap(), 7);
        for nothing in [None, Some(v1::Head::default())] {
            assert_eq!(seq_of(nothing).unwrap_err().exit, Exit::Unavailable);
        }
    }
}
