//! Locks: standing refusals, set, put off their end, lifted and listed.

use std::time::Duration;

use clap::Args;
use dayfly_proto::v1;
use dayfly_verifier::id::{LockId, PersonId, TaskId};
use dayfly_verifier::resource::Resource;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::{Clock as _, SystemClock, Timestamp};
use serde_json::json;

use super::exit::{Exit, Refused};
use super::operate::{Client, seq_of};
use super::request::span;
use super::revoke::hold_everywhere;
use super::when::time_of_ms;
use super::{Context, block_on};
use crate::random::{Random as _, SystemRandom};

/// Refuse whatever matches, until an end: requests, approvals that would grant, exchanges, uses.
///
/// Where several things are named, what matches all of them is refused. Whatever policy and people
/// say, it stays refused; uses that run are cut. Nothing is taken back: once the lock is lifted, or
/// its end has come, what was granted works again as long as it lives.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("target").required(true).multiple(true))]
pub struct Lock {
    /// What this workload asks for and holds. Its open calls to the broker end.
    #[arg(long, value_name = "SPIFFE_ID", group = "target")]
    workload: Option<SpiffeId>,
    /// What is asked for and held for this task.
    #[arg(long, value_name = "TASK", group = "target")]
    task: Option<TaskId>,
    /// What reaches this resource, or what lies below it.
    #[arg(long, value_name = "RESOURCE", group = "target")]
    prefix: Option<Resource>,
    /// What is asked for and held on behalf of this person, and their decisions.
    #[arg(long, value_name = "NAME", group = "target")]
    person: Option<PersonId>,
    /// Put off the end of this lock, by the id that `dayfly locks` shows.
    #[arg(long, value_name = "ID", group = "target",
        conflicts_with_all = ["workload", "task", "prefix", "person"])]
    extend: Option<LockId>,
    /// For how long from now on, by the broker's clock, like 90s, 30m or 8h; 30 days at most.
    #[arg(long = "for", value_name = "SPAN", value_parser = span)]
    span: Duration,
    /// Why, for the record: at most 2 KiB.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Wait until it holds at every gateway, and tell how far each is, as `dayfly revoke` does.
    #[arg(long)]
    wait: bool,
}

/// Lift a lock before its end.
#[derive(Debug, Args)]
pub struct Unlock {
    /// Its id, as `dayfly locks` shows it.
    #[arg(value_name = "ID")]
    id: LockId,
}

/// List the locks in force, in the order in which they end.
#[derive(Debug, Args)]
pub struct Locks {}

impl Lock {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { workload, task, prefix, person, extend, span, reason, wait } = self;
        block_on(async {
            let mut client = context.operator().await?;
            let lock = match extend {
                Some(id) => known(context, &mut client, &id).await?,
                None => {
                    let mut id = [0; 16];
                    SystemRandom.fill(&mut id);
                    v1::Lock {
                        lock_id: LockId::new(id).to_string(),
                        workload: workload.map(|id| id.to_string()).unwrap_or_default(),
                        task: task.map(|task| task.to_string()).unwrap_or_default(),
                        resource_prefix: prefix
                            .map(|prefix| prefix.to_string())
                            .unwrap_or_default(),
                        person: person.map(|name| name.to_string()).unwrap_or_default(),
                        until_ms: 0,
                    }
                }
            };
            let started = SystemClock.uptime();
            let now = now_of_broker(context, &mut client).await?;
            let until_ms = i64::try_from(now.plus(span).as_ms()).unwrap_or(i64::MAX);
            let (id, what) = (lock.lock_id.clone(), what(&lock));
            let lock = Some(v1::Lock { until_ms, ..lock });
            let set = client.lock(v1::LockRequest { lock, reason }).await;
            let head = set.map_err(|e| context.status(e))?.into_inner().head;
            let seq = seq_of(head)?;
            let until = time_of_ms(until_ms);
            let json = json!({ "lock_id": id, "seq": seq, "until_ms": until_ms });
            let said = format!("locked {what} until {until}, as of entry {seq}");
            let lift = format!("lift it earlier with: dayfly unlock {id}");
            if !wait {
                context.console.result(|| format!("{said}\n{lift}"), || json);
                return Ok(());
            }
            context.console.progress(&said);
            let held = hold_everywhere(context, &mut client, seq, started, json).await;
            context.console.aside(&lift);
            held
        })
    }
}

impl Unlock {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { id } = self;
        block_on(async {
            let mut client = context.operator().await?;
            let request = v1::UnlockRequest { lock_id: id.to_string() };
            let lifted = client.unlock(request).await.map_err(|e| context.status(e))?;
            let seq = seq_of(lifted.into_inner().head)?;
            let json = || json!({ "lock_id": id.to_string(), "seq": seq });
            context.console.result(|| format!("lifted lock {id}, as of entry {seq}"), json);
            Ok(())
        })
    }
}

impl Locks {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        let Self {} = self;
        block_on(async {
            let mut client = context.operator().await?;
            let locks = listed(context, &mut client).await?;
            let head = ["lock", "on", "until", "set by", "entry", "reason"];
            let rows = locks.iter().map(|v1::SetLock { lock, set_by, seq, reason }| {
                let lock = lock.clone().unwrap_or_default();
                let (on, until) = (what(&lock), time_of_ms(lock.until_ms));
                vec![lock.lock_id, on, until, set_by.clone(), seq.to_string(), one_line(reason)]
            });
            let one = |v1::SetLock { lock, set_by, seq, reason }: &v1::SetLock| {
                let lock = lock.clone().unwrap_or_default();
                let given = |text: String| Some(text).filter(|text| !text.is_empty());
                json!({
                    "lock_id": lock.lock_id, "workload": given(lock.workload),
                    "task": given(lock.task), "prefix": given(lock.resource_prefix),
                    "person": given(lock.person), "until_ms": lock.until_ms,
                    "set_by": set_by, "seq": seq, "reason": given(reason.clone()),
                })
            };
            if locks.is_empty() {
                context.console.aside("no lock is in force");
            }
            context.console.table(&head, rows.collect(), || locks.iter().map(one).collect());
            Ok(())
        })
    }
}

/// The time by the clock that the lock will be held to; the one of this machine may be off.
async fn now_of_broker(context: &Context, client: &mut Client) -> Result<Timestamp, Refused> {
    let status = client.get_status(v1::GetStatusRequest {}).await;
    let now_ms = status.map_err(|e| context.status(e))?.into_inner().now_ms;
    let now = u64::try_from(now_ms).ok().and_then(|ms| Timestamp::from_ms(ms).ok());
    let unsaid = || anyhow::anyhow!("the broker does not say what time it is");
    now.ok_or_else(|| Refused::new(Exit::Unavailable, unsaid()))
}

async fn listed(context: &Context, client: &mut Client) -> Result<Vec<v1::SetLock>, Refused> {
    let listed = client.list_locks(v1::ListLocksRequest {}).await;
    Ok(listed.map_err(|e| context.status(e))?.into_inner().locks)
}

/// The lock of that id, as it was set.
async fn known(context: &Context, client: &mut Client, id: &LockId) -> Result<v1::Lock, Refused> {
    let locks = listed(context, client).await?.into_iter().filter_map(|set| set.lock);
    let id = id.to_string();
    locks.into_iter().find(|lock| lock.lock_id == id).ok_or_else(|| {
        let error = anyhow::anyhow!("no lock {id} is in force");
        Refused::new(Exit::Denied, error).next("see `dayfly locks`, or set a new one")
    })
}

/// `task case:4711 and what reaches orders-db/prod`.
fn what(lock: &v1::Lock) -> String {
    let v1::Lock { lock_id: _, workload, task, resource_prefix, person, until_ms: _ } = lock;
    let named = [
        ("workload", workload),
        ("task", task),
        ("what reaches", resource_prefix),
        ("person", person),
    ];
    let named = named.into_iter().filter(|(_, value)| !value.is_empty());
    named.map(|(kind, value)| format!("{kind} {value}")).collect::<Vec<_>>().join(" and ")
}

/// The words of an operator, as one cell of a table.
fn one_line(text: &str) -> String {
    const MOST: usize = 60;
    let shown = dayfly_agent::render::visible(text, false);
    if shown.chars().count() <= MOST {
        return shown;
    }
    shown.chars().take(MOST).chain(['…']).collect()
}
