//! Taking back, and telling the truth about how far that is enforced.

use std::time::Duration;

use clap::Args;
use dayfly_proto::v1::revocation_target::Target;
use dayfly_proto::v1::{self, InstanceStatus};
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::{GrantId, TaskId, TokenId};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::resource::Resource;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::{Clock as _, SystemClock};
use serde_json::{Value as Json, json};

use super::console::{BAD, Console, GOOD};
use super::exit::{Exit, Refused};
use super::number::whole;
use super::operate::{Client, seq_of};
use super::{Context, block_on};

/// How long `--wait` waits for an instance that nothing bounds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Take back a grant, a token or a part of one, or all that is held so far by a workload, for a
/// task, on a resource, or under a key.
///
/// What is asked for or granted later is not touched. Every gateway refuses what was taken back as
/// soon as it hears of it, and by itself when it hears nothing.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("target").required(true))]
pub struct Revoke {
    /// A request or grant, and every token of it, by the id that `dayfly grants` shows.
    #[arg(long, value_name = "ID", group = "target")]
    grant: Option<GrantId>,
    /// One token, by the id that `dayfly token inspect` shows.
    #[arg(long, value_name = "ID", group = "target")]
    token: Option<TokenId>,
    /// All that this workload holds so far.
    #[arg(long, value_name = "SPIFFE_ID", group = "target")]
    workload: Option<SpiffeId>,
    /// All that is held for this task so far.
    #[arg(long, value_name = "TASK", group = "target")]
    task: Option<TaskId>,
    /// What the grant's holder handed on to this key, and what was handed on from there: the id of
    /// the grant, a colon, and the key as `dayfly token inspect` shows it.
    #[arg(long, value_name = "GRANT:KEY", group = "target", value_parser = delegate)]
    delegate: Option<(GrantId, HolderKey)>,
    /// One block of a token and all that was attenuated from it, by its signature: 64 bytes in
    /// hexadecimal.
    #[arg(long, value_name = "SIGNATURE", group = "target", value_parser = block)]
    block: Option<Block>,
    /// All grants and tokens so far that reach this resource, or what lies below it.
    #[arg(long, value_name = "RESOURCE", group = "target")]
    prefix: Option<Resource>,
    /// All that the broker signed with this key, by the number that `dayfly status` shows, and the
    /// key with it.
    #[arg(long, value_name = "NUMBER", group = "target", value_parser = whole::<u32>)]
    key: Option<u32>,
    /// Why, for the record: at most 2 KiB.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Wait until it holds at every gateway, and tell how far each is. Ends with 20 where an
    /// instance opted out of refusing by itself and does not answer: nothing bounds that one.
    #[arg(long)]
    wait: bool,
}

/// The raw signature of a block.
#[derive(Debug, Clone, Copy)]
struct Block([u8; 64]);

fn delegate(text: &str) -> Result<(GrantId, HolderKey), Invalid> {
    let (grant, key) = text
        .split_once(':')
        .ok_or_else(|| Invalid::new("delegate", "must be the id of a grant, a colon, and a key"))?;
    Ok((grant.parse()?, key.parse()?))
}

fn block(text: &str) -> Result<Block, Invalid> {
    let mut bytes = [0; 64];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| Invalid::new("block", "must be 64 bytes in hexadecimal"))?;
    Ok(Block(bytes))
}

impl Revoke {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        let wait = self.wait;
        block_on(take_back(context, self.request(), wait))
    }

    fn request(self) -> v1::RevokeRequest {
        let Self { grant, token, workload, task, delegate, block, prefix, key, reason, wait: _ } =
            self;
        let target = (grant.map(|id| Target::Grant(id.to_string())))
            .or_else(|| token.map(|id| Target::Token(id.to_string())))
            .or_else(|| workload.map(|id| Target::Workload(id.to_string())))
            .or_else(|| task.map(|id| Target::Task(id.to_string())))
            .or_else(|| {
                let delegate = delegate.map(|(grant, key)| (grant.to_string(), key.to_string()));
                delegate
                    .map(|(grant, holder_key)| Target::Delegate(v1::Delegate { grant, holder_key }))
            })
            .or_else(|| block.map(|Block(signature)| Target::Block(signature.to_vec().into())))
            .or_else(|| prefix.map(|prefix| Target::ResourcePrefix(prefix.to_string())))
            .or_else(|| key.map(Target::Key));
        v1::RevokeRequest { target: Some(v1::RevocationTarget { target }), reason }
    }
}

/// Takes back, and waits until that holds everywhere if it is to.
pub(super) async fn take_back(
    context: &Context,
    request: v1::RevokeRequest,
    wait: bool,
) -> Result<(), Refused> {
    let mut client = context.operator().await?;
    let started = SystemClock.uptime();
    let revoked = client.revoke(request).await.map_err(|e| context.status(e))?;
    let v1::RevokeResponse { head, ended_grants } = revoked.into_inner();
    let seq = seq_of(head)?;
    let console = context.console;
    if !wait {
        console.result(
            || ended(&ended_grants, seq),
            || json!({ "seq": seq, "ended_grants": ended_grants }),
        );
        return Ok(());
    }
    console.progress(&ended(&ended_grants, seq));
    let said = json!({ "seq": seq, "ended_grants": ended_grants });
    hold_everywhere(context, &mut client, seq, started, said).await
}

/// Waits until entry `seq` holds everywhere, and tells how far each instance is; what else is to be
/// said of it for programs is `said`, an object.
pub(super) async fn hold_everywhere(
    context: &Context,
    client: &mut Client,
    seq: u64,
    started: Duration,
    said: Json,
) -> Result<(), Refused> {
    match watch(context, client, seq, started).await {
        Ok(last) => finish(&context.console, &last, seq, said, started),
        // That it is on record is known, whatever became of the watching.
        Err(refused) => {
            let text = || format!("it stands as of entry {seq}; how far it holds is not known");
            context.console.result(text, || said);
            Err(refused.next("see `dayfly status` for what each gateway enforces"))
        }
    }
}

/// Entry `seq` is the end of the log that has it: others may have been recorded together with it,
/// and of what was over before there is none.
fn ended(grants: &[String], seq: u64) -> String {
    let count = match grants {
        [] => "no live grant ended".to_owned(),
        [one] => format!("ended grant {one}"),
        many => format!("ended {} grants: {}", many.len(), many.join(", ")),
    };
    format!("revoked as of entry {seq}: {count}")
}

/// Tells how far the instances are until it holds everywhere, or only those are left that nothing
/// bounds.
async fn watch(
    context: &Context,
    client: &mut Client,
    seq: u64,
    started: Duration,
) -> Result<v1::WatchEnforcementResponse, Refused> {
    let request = v1::WatchEnforcementRequest { seq };
    let watching = client.watch_enforcement(request).await.map_err(|e| context.status(e))?;
    let mut watching = watching.into_inner();
    while let Some(news) = watching.message().await.map_err(|e| context.status(e))? {
        let waited = SystemClock.uptime().saturating_sub(started);
        let bounded = news.unseen_refuse_in_ms > 0
            || news.instances.iter().any(|i| !i.best_effort && !holds(i, seq));
        if news.holds_everywhere || (!bounded && waited >= PATIENCE) {
            return Ok(news);
        }
        context.console.progress(&progress(&news, seq));
    }
    let cut = anyhow::anyhow!("the broker ended before it was known whether it holds everywhere");
    Err(Refused::new(Exit::Unavailable, cut).next("dayfly status"))
}

/// Says what is true at the end; an error where it does not hold everywhere.
fn finish(
    console: &Console,
    last: &v1::WatchEnforcementResponse,
    seq: u64,
    mut said: Json,
    started: Duration,
) -> Result<(), Refused> {
    let (now, took) = (SystemClock.now(), SystemClock.uptime().saturating_sub(started));
    let since = last.holds_everywhere.then(|| now.to_string());
    console.result(
        || match &since {
            Some(since) => {
                let took = seconds(i64::try_from(took.as_millis()).unwrap_or(i64::MAX));
                let (good, summary) = (GOOD, progress(last, seq));
                format!("{good}holds everywhere{good:#} since {since}, after {took}: {summary}")
            }
            None => format!("{BAD}does not hold everywhere{BAD:#}: {}", progress(last, seq)),
        },
        || {
            let instances: Vec<Json> = last.instances.iter().map(instance_json).collect();
            let more = json!({
                "holds_everywhere": last.holds_everywhere, "since": since, "instances": instances,
            });
            if let (Some(said), Json::Object(more)) = (said.as_object_mut(), more) {
                said.extend(more);
            }
            said
        },
    );
    if last.holds_everywhere {
        return Ok(());
    }
    let unbounded = anyhow::anyhow!("instances that opted out of refusing do not answer");
    Err(Refused::new(Exit::Unavailable, unbounded).next("stop them: nothing else bounds them"))
}

/// `effective on 41 of 42; gateway/orders/2 silent for 1.8 s, refuses by itself in 3.2 s`.
pub(super) fn progress(news: &v1::WatchEnforcementResponse, seq: u64) -> String {
    let effective = news.instances.iter().filter(|i| i.enforced_seq >= seq).count();
    let mut text = format!("effective on {effective} of {}", news.instances.len());
    for instance in news.instances.iter().filter(|i| i.enforced_seq < seq) {
        text.push_str("; ");
        text.push_str(&name(instance));
        text.push(' ');
        text.push_str(&silence(instance));
    }
    if news.unseen_refuse_in_ms > 0 {
        let left = seconds(news.unseen_refuse_in_ms.saturating_add(99));
        text.push_str(&format!("; instances that this broker does not know refuse within {left}"));
    }
    text
}

fn holds(instance: &InstanceStatus, seq: u64) -> bool {
    instance.enforced_seq >= seq || (instance.refuses_in_ms < 0 && !instance.best_effort)
}

pub(super) fn silence(instance: &InstanceStatus) -> String {
    let silent = format!("silent for {}", seconds(instance.silent_for_ms));
    if instance.best_effort {
        format!("{silent}, opted out of refusing: nothing bounds it")
    } else if instance.refuses_in_ms < 0 {
        format!("{silent}, refuses by itself")
    } else {
        // Rounded up: it may go on until then.
        let left = instance.refuses_in_ms.saturating_add(99);
        format!("{silent}, refuses by itself in {}", seconds(left))
    }
}

/// `gateway/orders/2`: the path of the gateway and the name of the process.
pub(super) fn name(instance: &InstanceStatus) -> String {
    let path = instance.gateway.splitn(4, '/').nth(3).unwrap_or(&instance.gateway);
    format!("{path}/{}", instance.instance)
}

pub(super) fn seconds(ms: i64) -> String {
    let ms = ms.unsigned_abs();
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

pub(super) fn instance_json(instance: &InstanceStatus) -> Json {
    let InstanceStatus {
        gateway,
        instance,
        enforced_seq,
        silent_for_ms,
        refuses_in_ms,
        max_staleness_ms,
        connected,
        best_effort,
    } = instance;
    json!({
        "gateway": gateway, "instance": instance, "enforced_seq": enforced_seq,
        "silent_for_ms": silent_for_ms, "max_staleness_ms": max_staleness_ms,
        "refuses_in_ms": (*refuses_in_ms >= 0 && !best_effort).then_some(refuses_in_ms),
        "refuses_by_itself": *refuses_in_ms < 0 && !best_effort,
        "connected": connected, "best_effort": best_effort,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(n: u8, enforced_seq: u64, refuses_in_ms: i64) -> InstanceStatus {
        InstanceStatus {
            gateway: "spiffe://shop.test/gateway/orders".into(),
            instance: n.to_string(),
            enforced_seq,
            silent_for_ms: 1_840,
            refuses_in_ms,
            ..Default::default()
        }
    }

    #[test]
    fn progress_says_what_is_true_of_each_instance_that_is_behind() {
        let opted_out = InstanceStatus { best_effort: true, ..instance(4, 1, -1) };
        let instances =
            vec![instance(1, 7, 10), instance(2, 6, 3_210), instance(3, 0, -1), opted_out];
        assert!(!holds(&instances[1], 7) && holds(&instances[2], 7) && !holds(&instances[3], 7));
        let news = v1::WatchEnforcementResponse { instances, ..Default::default() };
        assert_eq!(
            progress(&news, 7),
            "effective on 1 of 4; gateway/orders/2 silent for 1.8 s, refuses by itself in 3.3 s; \
             gateway/orders/3 silent for 1.8 s, refuses by itself; \
             gateway/orders/4 silent for 1.8 s, opted out of refusing: nothing bounds it"
        );
    }
}
