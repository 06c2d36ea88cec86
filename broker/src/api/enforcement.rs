//! Revoking, and the truth about how far it is enforced.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dayfly_proto::v1;
use dayfly_verifier::id::{GrantId, Seq};
use dayfly_verifier::invalid::Invalid;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Broker, parse, render, status};
use crate::core::command::{Caller, Command};
use crate::core::state::State;
use crate::follow::feed::MAX_STALENESS;
use crate::follow::instances::Standing;
use crate::journal::FreeText;

/// How often a watcher is told how silent each instance is, while nothing else happens.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Takes something back.
pub(super) async fn revoke(
    broker: &Arc<Broker>,
    caller: Caller,
    message: v1::RevokeRequest,
) -> Result<v1::RevokeResponse, Status> {
    let v1::RevokeRequest { target, reason } = message;
    let invalid = |invalid: Invalid| status::invalid(&invalid);
    let target = parse::target(target).map_err(invalid)?;
    let text = parse::free_text("reason", reason).map_err(invalid)?;
    let text = text.map(|text| broker.salted(text)).transpose()?;
    let command = Command::Revoke(target.clone(), text.as_ref().map(FreeText::digest));
    // All that it ends is to be seen on the state that it is decided on alone: what is granted
    // meanwhile, by whichever broker, is among it.
    let ended = Arc::<Mutex<BTreeSet<GrantId>>>::default();
    let (seen, same) = (Arc::clone(&ended), command.clone());
    let look = Box::new(move |state: &State, now| {
        *seen.lock().unwrap_or_else(PoisonError::into_inner) = state.ended_by(&target, now);
        same.clone()
    });
    let revoked = broker.sequencer.submit_remade(command, look, caller, text).await;
    let state = revoked.map_err(|failure| status::failure(&failure))?;
    let ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(v1::RevokeResponse {
        head: Some(render::head(&state.head)),
        ended_grants: ended.iter().map(ToString::to_string).collect(),
    })
}

/// How far each gateway instance enforces the journal, until it holds everywhere.
pub(super) fn watch(
    broker: &Arc<Broker>,
    message: v1::WatchEnforcementRequest,
) -> Result<BoxStream<'static, Result<v1::WatchEnforcementResponse, Status>>, Status> {
    let v1::WatchEnforcementRequest { seq } = message;
    if Seq(seq) > broker.sequencer.state().head.seq {
        let invalid = Invalid::new("seq", "must be a place in the journal");
        return Err(status::invalid(&invalid));
    }
    let (tell, told) = mpsc::channel(1);
    let broker = Arc::clone(broker);
    tokio::spawn(async move { tell_until_it_holds(&broker, Seq(seq), &tell).await });
    Ok(ReceiverStream::new(told).boxed())
}

type Tell = mpsc::Sender<Result<v1::WatchEnforcementResponse, Status>>;

async fn tell_until_it_holds(broker: &Broker, seq: Seq, tell: &Tell) {
    let mut waiting = broker.hub.instances.waiting(seq);
    let mut due = Instant::now();
    let began = broker.hub.uptime();
    loop {
        let uptime = broker.hub.uptime();
        let unseen = unseen_for(broker, began, uptime);
        let over = waiting.is_over(uptime) && unseen.is_zero();
        if over || due <= Instant::now() {
            let standings = standings(broker);
            let holds = over && standings.iter().all(|standing| standing.holds(seq));
            let response = v1::WatchEnforcementResponse {
                instances: standings.into_iter().map(instance).collect(),
                holds_everywhere: holds,
                unseen_refuse_in_ms: at_most_millis(unseen),
            };
            if tell.send(Ok(response)).await.is_err() || holds {
                return;
            }
            due = Instant::now().checked_add(TELL_EVERY).unwrap_or(due);
        }
        tokio::select! {
            () = waiting.news() => {}
            () = sleep_until(due) => {}
            () = tell.closed() => return,
            () = broker.shutdown.begins() => return,
        }
    }
}

/// For how long after `uptime` instances may go on of which this broker knows nothing: those that
/// followed an earlier process, and those that follow a peer. What stood in the log at `began`
/// comes to the latter with the next heartbeat that makes them fresh, or they refuse.
fn unseen_for(broker: &Broker, began: Duration, uptime: Duration) -> Duration {
    let span = if broker.peers.is_empty() { Duration::ZERO } else { MAX_STALENESS };
    let of_peers = began.saturating_add(span).saturating_sub(uptime);
    broker.hub.unseen_for(uptime).max(of_peers)
}

/// What is known of each instance: of those that follow this broker or did, and of those that are
/// on record for not refusing by themselves, wherever they follow.
pub(crate) fn standings(broker: &Broker) -> Vec<Standing> {
    let mut all = broker.hub.instances.standings(broker.hub.uptime());
    let state = broker.sequencer.state();
    let now = broker.now(&state);
    let here: BTreeSet<_> =
        all.iter().map(|one| (one.gateway.clone(), one.instance.clone())).collect();
    let elsewhere = state.unbounded(now);
    all.extend(elsewhere.filter_map(|(gateway, instance, at)| {
        let place = (gateway.clone(), instance.clone());
        (!here.contains(&place)).then(|| Standing::unbounded(place, now.since(at)))
    }));
    all.sort_by(|a, b| (&a.gateway, &a.instance).cmp(&(&b.gateway, &b.instance)));
    all
}

/// What an operator wants to know of this broker.
pub(super) fn status(
    broker: &Arc<Broker>,
    message: v1::GetStatusRequest,
) -> Result<v1::GetStatusResponse, Status> {
    let v1::GetStatusRequest {} = message;
    let state = broker.sequencer.state();
    let now = broker.clock.now();
    let tally = state.tally_all(now);
    let signing = broker.signing_key(&state).map(|(key, _)| key);
    let keys = state.keys.iter().map(|(key, listed)| v1::KeyStatus {
        key: key.0,
        signing: signing == Some(*key),
        not_after_ms: render::ms(listed.not_after),
    });
    let standings = standings(broker);
    let locks: Vec<_> = state.locks(now).map(|lock| lock.until).collect();
    Ok(v1::GetStatusResponse {
        broker: broker.id.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        head: Some(render::head(&state.head)),
        bundle_digest: state.bundle.map(|digest| digest.to_string()).unwrap_or_default(),
        live_grants: tally.live.into(),
        pending_requests: tally.pending.into(),
        instances: standings.into_iter().map(instance).collect(),
        keys: keys.collect(),
        now_ms: render::ms(now),
        started_at_ms: render::ms(broker.started_at),
        confirmed_ago_ms: millis(now.since(broker.hub.confirmed_at())),
        oldest_pending_ms: state.oldest_pending(now).map_or(0, render::ms),
        locks: u64::try_from(locks.len()).unwrap_or(u64::MAX),
        first_lock_ends_ms: locks.into_iter().min().map_or(0, render::ms),
        locked_ids: broker.authority.locked_ids(),
        last_revocation: state
            .last_revocation
            .map(|(seq, at)| v1::LastRevocation { seq: seq.0, at_ms: render::ms(at) }),
        feed_key_ends_ms: broker.hub.feed_key().map_or(0, |(_, end)| render::ms(end)),
        certificate_ends_ms: render::ms(broker.live.get().until()),
        authority_ends_ms: render::ms(broker.authority.bundle().until()),
    })
}

fn instance(standing: Standing) -> v1::InstanceStatus {
    let Standing {
        gateway,
        instance,
        enforced,
        silent_for,
        refuses_in,
        max_staleness,
        connected,
        best_effort,
    } = standing;
    v1::InstanceStatus {
        gateway: gateway.to_string(),
        instance: instance.to_string(),
        enforced_seq: enforced.0,
        silent_for_ms: millis(silent_for),
        refuses_in_ms: refuses_in.map_or(-1, at_most_millis),
        max_staleness_ms: millis(max_staleness),
        connected,
        best_effort,
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// Rounded up: nothing is promised for earlier than it comes.
fn at_most_millis(span: Duration) -> i64 {
    i64::try_from(span.as_micros().div_ceil(1000)).unwrap_or(i64::MAX)
}
