//! What operators look at while the broker runs: who holds what, and how the broker stands.

use std::time::Duration;

use clap::Args;
use dayfly_agent::session::OpenError;
use dayfly_proto::v1::operator_service_client::OperatorServiceClient;
use dayfly_proto::v1::{self, Standing};
use dayfly_verifier::id::TaskId;
use dayfly_verifier::spiffe::SpiffeId;
use serde_json::{Value as Json, json};
use tonic::Status;
use tonic::transport::Channel;

use super::console::{FAINT, WAITING, table};
use super::exit::Refused;
use super::revoke::{instance_json, name, seconds, silence};
use super::when::time_of_ms;
use super::{Context, block_on};

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

/// Show how the broker stands: its log, its keys, and how far each gateway enforces the log.
#[derive(Debug, Args)]
pub struct ShowStatus {
    /// Go on, and show it anew every two seconds: for a screen on the wall.
    #[arg(long, short)]
    watch: bool,
}

/// How often the page on the wall is drawn.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// The way to the service for operators.
pub(super) type Client = OperatorServiceClient<Channel>;

impl Context {
    pub(super) async fn operator(&self) -> Result<Client, Refused> {
        Ok(OperatorServiceClient::new(self.session().await?.channel()))
    }

    pub(super) fn status(&self, status: Status) -> Refused {
        self.refused(OpenError::from_status(status))
    }
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
                    request.because.clone(),
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

fn until(request: &v1::AccessRequest) -> i64 {
    request.terms.as_ref().map_or(request.pending_until_ms, |terms| terms.until_ms)
}

fn grant_json(request: &v1::AccessRequest) -> Json {
    json!({
        "grant_id": request.grant_id, "standing": standing(request),
        "because": request.because, "workload": request.workload,
        "principal": request.principal, "audience": request.audience, "task": request.task,
        "purpose": request.purpose, "rights": rights(request), "until_ms": until(request),
        "approved_by": request.approved_by,
        "uses": request.terms.as_ref().map(|terms| terms.uses).filter(|uses| *uses > 0),
        "uses_spent": request.terms.as_ref().map(|terms| terms.uses_spent),
    })
}

impl ShowStatus {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { watch } = self;
        block_on(async move {
            let mut client = context.operator().await?;
            loop {
                let asked = client.get_status(v1::GetStatusRequest {}).await;
                let status = asked.map_err(|e| context.status(e))?.into_inner();
                if watch {
                    context.console.page();
                }
                context.console.result(|| status_text(&status), || status_json(&status));
                if !watch {
                    return Ok(());
                }
                tokio::time::sleep(WATCH_EVERY).await;
            }
        })
    }
}

fn status_text(status: &v1::GetStatusResponse) -> String {
    let head = status.head.clone().unwrap_or_default();
    let rows = [
        ("broker", format!("{} (version {})", status.broker, status.version)),
        ("serving since", time_of_ms(status.started_at_ms)),
        ("log", format!("entry {} of epoch {}, hash {}", head.seq, head.epoch, head.hash)),
        ("bundle", status.bundle_digest.clone()),
        ("live grants", status.live_grants.to_string()),
        ("pending", status.pending_requests.to_string()),
    ];
    let rows = rows.into_iter().chain(status.keys.iter().map(|key| {
        let use_ = if key.signing { "signs" } else { "does not sign" };
        ("key", format!("{}: {use_}, ends {}", key.key, time_of_ms(key.not_after_ms)))
    }));
    let mut text: String =
        rows.map(|(what, value)| format!("{FAINT}{what:<14}{FAINT:#}{value}\n")).collect();
    text.push('\n');
    if status.instances.is_empty() {
        text.push_str(&format!("{WAITING}no gateway follows{WAITING:#}\n"));
        return text;
    }
    let rows = status.instances.iter().map(|i| {
        let connected = if i.connected { "yes" } else { "no" };
        let bound = if i.best_effort { "none".into() } else { seconds(i.max_staleness_ms) };
        let enforced = i.enforced_seq.to_string();
        vec![name(i), connected.into(), enforced, bound, silence(i)]
    });
    text.push_str(&table(&["gateway", "follows", "enforces", "bound", "heard"], rows.collect()));
    text
}

fn status_json(status: &v1::GetStatusResponse) -> Json {
    let head = status.head.clone().unwrap_or_default();
    let keys = status.keys.iter().map(
        |key| json!({ "key": key.key, "signing": key.signing, "not_after_ms": key.not_after_ms }),
    );
    json!({
        "broker": status.broker, "version": status.version,
        "head": { "epoch": head.epoch, "seq": head.seq, "hash": head.hash },
        "bundle_digest": status.bundle_digest, "live_grants": status.live_grants,
        "pending_requests": status.pending_requests,
        "instances": status.instances.iter().map(instance_json).collect::<Vec<_>>(),
        "keys": keys.collect::<Vec<_>>(),
        "now_ms": status.now_ms, "started_at_ms": status.started_at_ms,
    })
}
