//! How the brokers stand, on one page: for an operator, and for a screen on the wall.

use std::time::Duration;

use clap::Args;
use dayfly_agent::session::Session;
use dayfly_proto::v1;
use dayfly_proto::v1::operator_service_client::OperatorServiceClient;
use dayfly_proto::v1::{GetStatusResponse, InstanceStatus};
use futures_util::future::join_all;
use serde_json::{Value as Json, json};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::console::{BAD, FAINT, GOOD, WAITING, table};
use super::exit::Refused;
use super::revoke::{instance_json, name, seconds};
use super::watch::watch;
use super::when::{span, time_of_ms};
use super::{Context, block_on};

/// Show how the brokers stand: the log and how fresh it is, what is live and what waits, locks, the
/// last revocation, when keys and certificates end, and how far each gateway enforces the log.
///
/// A gateway is live while it is heard; silent when over half of its bound is gone without a word;
/// gone when it does not follow; stale once it refuses everything by itself.
#[derive(Debug, Args)]
pub struct ShowStatus {
    /// Go on, and show it anew every two seconds: for a screen on the wall.
    #[arg(long, short)]
    watch: bool,
}

/// How often the page on the wall is drawn.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// How long a broker may take to answer: one that hangs must not look like one that is well.
const PATIENCE: Duration = Duration::from_secs(2);
/// A journal that did not confirm its head for so long is told in red.
const LATE_MS: i64 = 5_000;
/// From when on the end of a key, or of the authority, is told in yellow.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// The same of the broker's own certificate, which it renews before.
const UNRENEWED: Duration = Duration::from_secs(20 * 60);

/// What the page says.
struct Seen {
    /// The broker that answered.
    status: GetStatusResponse,
    /// All brokers by their addresses, where there are several.
    each: Vec<(String, Result<GetStatusResponse, Status>)>,
}

impl ShowStatus {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { watch: watching } = self;
        block_on(async move {
            let session = context.session().await?;
            if !watching {
                let seen = look(context, &session).await?;
                context.console.result(|| text(&seen), || to_json(&seen));
                return Ok(());
            }
            watch(context, &session, async |screen| {
                let seen = look(context, &session).await?;
                screen.draw(|| text(&seen), || to_json(&seen));
                tokio::time::sleep(WATCH_EVERY).await;
                Ok(())
            })
            .await
        })
    }
}

async fn look(context: &Context, session: &Session) -> Result<Seen, Refused> {
    let all = session.each().into_iter();
    let all = all.map(async |(address, channel)| (address, ask(channel).await));
    let (one, each) = tokio::join!(ask(session.channel()), join_all(all));
    let status = one.or_else(|failed| {
        // Where this one does not answer, another tells as much.
        let other = each.iter().find_map(|(_, answer)| answer.as_ref().ok());
        other.cloned().ok_or_else(|| context.status(failed))
    });
    Ok(Seen { status: status?, each })
}

async fn ask(channel: Channel) -> Result<GetStatusResponse, Status> {
    let mut broker = OperatorServiceClient::new(channel);
    let asked = tokio::time::timeout(PATIENCE, broker.get_status(v1::GetStatusRequest {})).await;
    let late = |_| Status::new(Code::DeadlineExceeded, "the broker did not answer within 2 s");
    Ok(asked.map_err(late)??.into_inner())
}

fn text(Seen { status, each }: &Seen) -> String {
    let rows = [log(status), held(status), ends(status)].concat();
    let mut text: String =
        rows.iter().map(|(what, value)| format!("{FAINT}{what:<14}{FAINT:#}{value}\n")).collect();
    if let [_, _, ..] = each.as_slice() {
        text.push('\n');
        text.push_str(&brokers(each));
    }
    text.push('\n');
    text.push_str(&gateways(status));
    text
}

type Rows = Vec<(&'static str, String)>;

/// The broker and its log.
fn log(status: &GetStatusResponse) -> Rows {
    let head = status.head.clone().unwrap_or_default();
    let ago = status.confirmed_ago_ms;
    let colour = if ago > LATE_MS { BAD } else { GOOD };
    let (seq, confirmed) = (head.seq, seconds(ago));
    let confirmed = format!("entry {seq}, {colour}confirmed {confirmed} ago{colour:#}");
    let up = ms(status.now_ms.saturating_sub(status.started_at_ms));
    vec![
        ("broker", format!("{}, version {}", status.broker, status.version)),
        ("serving since", format!("{}, for {}", time_of_ms(status.started_at_ms), span(up))),
        ("log", confirmed),
        ("epoch", head.epoch),
        ("hash", head.hash),
        ("bundle", status.bundle_digest.clone()),
    ]
}

/// What is held, waits, is locked and was taken back.
fn held(status: &GetStatusResponse) -> Rows {
    let now = status.now_ms;
    let ago = |at: i64| span(ms(now.saturating_sub(at)));
    let pending = match (status.pending_requests, status.oldest_pending_ms) {
        (0, _) | (_, 0) => status.pending_requests.to_string(),
        (count, oldest) => format!("{WAITING}{count}{WAITING:#}, the oldest for {}", ago(oldest)),
    };
    let locks = match (status.locks, status.first_lock_ends_ms) {
        (0, _) | (_, 0) => status.locks.to_string(),
        (count, end) => {
            format!("{WAITING}{count}{WAITING:#}, the first ends {}", time_of_ms(end))
        }
    };
    let revoked = match &status.last_revocation {
        None => "nothing yet".to_owned(),
        Some(v1::LastRevocation { seq, at_ms }) => {
            format!("last at {}, {} ago, as entry {seq}", time_of_ms(*at_ms), ago(*at_ms))
        }
    };
    let mut rows = vec![
        ("live grants", status.live_grants.to_string()),
        ("pending", pending),
        ("revoked", revoked),
        ("locks", locks),
    ];
    if status.locked_ids > 0 {
        let ids = status.locked_ids;
        rows.push(("locked IDs", format!("{BAD}{ids}, certificates of which were copied{BAD:#}")));
    }
    rows
}

/// When keys and certificates end.
fn ends(status: &GetStatusResponse) -> Rows {
    let end = |at: i64, soon: Duration| {
        let (time, left) = (time_of_ms(at), at.saturating_sub(status.now_ms));
        match left {
            ..=0 => format!("{BAD}ended {time}{BAD:#}"),
            left if ms(left) < soon => {
                format!("{WAITING}ends {time}, in {}{WAITING:#}", span(ms(left)))
            }
            left => format!("ends {time}, in {}", span(ms(left))),
        }
    };
    let mut rows: Rows = Vec::new();
    for key in &status.keys {
        let (number, end) = (key.key, end(key.not_after_ms, SOON));
        let said = if key.signing { "signs" } else { "does not sign" };
        rows.push(("token key", format!("{number} {said}, {end}")));
    }
    if !status.keys.iter().any(|key| key.signing) {
        rows.push(("token key", format!("{BAD}none signs: nothing is exchanged{BAD:#}")));
    }
    let feed_key = match status.feed_key_ends_ms {
        0 => format!("{BAD}none signs: gateways believe nothing of this broker{BAD:#}"),
        at => end(at, SOON),
    };
    rows.push(("feed key", feed_key));
    rows.push(("certificate", end(status.certificate_ends_ms, UNRENEWED)));
    rows.push(("authority", end(status.authority_ends_ms, SOON)));
    rows
}

/// Each broker, and how far it is behind the first of them.
fn brokers(each: &[(String, Result<GetStatusResponse, Status>)]) -> String {
    let seq = |status: &GetStatusResponse| status.head.as_ref().map_or(0, |head| head.seq);
    let answers = each.iter().filter_map(|(_, answer)| answer.as_ref().ok());
    let newest = answers.map(seq).max().unwrap_or(0);
    let rows = each.iter().map(|(address, answer)| match answer {
        Ok(status) => vec![
            address.clone(),
            status.broker.splitn(4, '/').nth(3).unwrap_or(&status.broker).to_owned(),
            behind(seq(status), newest),
            format!("{} ago", seconds(status.confirmed_ago_ms)),
            time_of_ms(status.started_at_ms),
        ],
        Err(_) => {
            let silent = "does not answer".to_owned();
            vec![address.clone(), silent, "-".into(), "-".into(), "-".into()]
        }
    });
    let head = ["at", "broker", "entry", "confirmed", "serving since"];
    table(&head, rows.collect())
}

/// `52, 13 behind`.
fn behind(seq: u64, head: u64) -> String {
    match head.saturating_sub(seq) {
        0 => seq.to_string(),
        missing => format!("{seq}, {missing} behind"),
    }
}

/// Each instance of each gateway, below how many there are of which kind.
fn gateways(status: &GetStatusResponse) -> String {
    if status.instances.is_empty() {
        return format!("{WAITING}no gateway follows{WAITING:#}\n");
    }
    let head = status.head.as_ref().map_or(0, |head| head.seq);
    let kinds = [
        ("live", GOOD),
        ("silent", WAITING),
        ("gone", WAITING),
        ("stale", BAD),
        ("opted out", BAD),
    ];
    let counts = kinds.iter().filter_map(|(kind, colour)| {
        let count = status.instances.iter().filter(|one| standing(one) == *kind).count();
        (count > 0).then(|| format!("{colour}{count} {kind}{colour:#}"))
    });
    let counts = counts.collect::<Vec<_>>().join(", ");
    let rows = status.instances.iter().map(|instance| {
        vec![
            name(instance),
            standing(instance).to_owned(),
            behind(instance.enforced_seq, head),
            format!("{} ago", seconds(instance.silent_for_ms)),
            bound(instance),
        ]
    });
    let columns = ["gateway", "state", "enforces", "heard", "bound"];
    format!("{FAINT}gateways      {FAINT:#}{counts}\n{}", table(&columns, rows.collect()))
}

fn standing(instance: &InstanceStatus) -> &'static str {
    let half = instance.max_staleness_ms / 2;
    if instance.best_effort {
        "opted out"
    } else if instance.refuses_in_ms < 0 {
        "stale"
    } else if !instance.connected {
        "gone"
    } else if instance.silent_for_ms > half {
        "silent"
    } else {
        "live"
    }
}

/// What bounds it, or when that comes to act.
fn bound(instance: &InstanceStatus) -> String {
    match standing(instance) {
        "opted out" => "none".to_owned(),
        "stale" => "refuses by itself".to_owned(),
        // Rounded up: it may go on until then.
        "silent" | "gone" => {
            format!("refuses in {}", seconds(instance.refuses_in_ms.saturating_add(99)))
        }
        _ => seconds(instance.max_staleness_ms),
    }
}

fn ms(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn to_json(Seen { status, each }: &Seen) -> Json {
    let head = |status: &GetStatusResponse| {
        let v1::Head { epoch, seq, hash } = status.head.clone().unwrap_or_default();
        json!({ "epoch": epoch, "seq": seq, "hash": hash })
    };
    let keys = status.keys.iter().map(
        |key| json!({ "key": key.key, "signing": key.signing, "not_after_ms": key.not_after_ms }),
    );
    let instance = |instance: &InstanceStatus| {
        let mut json = instance_json(instance);
        if let Some(json) = json.as_object_mut() {
            json.insert("state".into(), standing(instance).into());
        }
        json
    };
    let broker = |(address, answer): &(String, Result<GetStatusResponse, Status>)| match answer {
        Ok(status) => json!({
            "address": address, "answers": true, "broker": status.broker, "head": head(status),
            "confirmed_ago_ms": status.confirmed_ago_ms, "started_at_ms": status.started_at_ms,
        }),
        Err(status) => json!({ "address": address, "answers": false, "why": status.message() }),
    };
    let time = |ms: i64| (ms > 0).then_some(ms);
    json!({
        "broker": status.broker, "version": status.version, "head": head(status),
        "confirmed_ago_ms": status.confirmed_ago_ms,
        "bundle_digest": status.bundle_digest, "live_grants": status.live_grants,
        "pending_requests": status.pending_requests,
        "oldest_pending_ms": time(status.oldest_pending_ms),
        "locks": status.locks, "first_lock_ends_ms": time(status.first_lock_ends_ms),
        "locked_ids": status.locked_ids,
        "last_revocation": status.last_revocation.as_ref().map(
            |last| json!({ "seq": last.seq, "at_ms": last.at_ms })
        ),
        "brokers": each.iter().map(broker).collect::<Vec<_>>(),
        "instances": status.instances.iter().map(instance).collect::<Vec<_>>(),
        "keys": keys.collect::<Vec<_>>(), "feed_key_ends_ms": time(status.feed_key_ends_ms),
        "certificate_ends_ms": status.certificate_ends_ms,
        "authority_ends_ms": status.authority_ends_ms,
        "now_ms": status.now_ms, "started_at_ms": status.started_at_ms,
    })
}

#[cfg(test)]
mod tests;
