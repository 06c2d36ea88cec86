//! Tells a workload what becomes of its request, as it happens.

use std::sync::Arc;
use std::time::Duration;

use dayfly_proto::v1;
use dayfly_verifier::id::GrantId;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Broker, render, status};
use crate::core::case::{Case, Standing};
use crate::core::denial::Denial;
use crate::sequencer::{Failure, Fault};

/// The shortest wait for a request to expire: the clock may be behind the timer.
const AT_LEAST: Duration = Duration::from_millis(5);

/// The request as it stands, then every change of it, until it is decided. Woken by the published
/// state and by the request's own expiry, never by polling.
#[must_use]
pub(super) fn until_decided(
    broker: Arc<Broker>,
    grant: GrantId,
) -> BoxStream<'static, Result<v1::WatchRequestResponse, Status>> {
    let (tell, told) = mpsc::channel(4);
    tokio::spawn(async move {
        if let Err(status) = follow(&broker, &grant, &tell).await {
            // The client may have gone.
            let _ = tell.send(Err(status)).await;
        }
    });
    ReceiverStream::new(told).boxed()
}

type Tell = mpsc::Sender<Result<v1::WatchRequestResponse, Status>>;

async fn follow(broker: &Broker, grant: &GrantId, tell: &Tell) -> Result<(), Status> {
    let mut moved = broker.sequencer.moved();
    let (mut seen, mut last): (Option<Arc<Case>>, _) = (None, None);
    loop {
        moved.mark_unchanged();
        let state = broker.sequencer.state();
        let now = broker.now(&state);
        let case = state.cases.get(grant).ok_or_else(|| status::denial(&Denial::NotFound))?;
        let pending = case.standing(now) == Standing::Pending;
        // Most of what moves the log is about others, and wakes all who wait.
        if !pending || seen.as_ref().is_none_or(|seen| !Arc::ptr_eq(seen, case)) {
            seen = Some(Arc::clone(case));
            let request = render::case(case, now);
            if last.as_ref() != Some(&request) {
                let change = v1::WatchRequestResponse { request: Some(request.clone()) };
                if tell.send(Ok(change)).await.is_err() {
                    return Ok(());
                }
                last = Some(request);
            }
        }
        if !pending {
            return Ok(());
        }
        let due = case.due().map_or(Duration::ZERO, |due| due.since(now)).max(AT_LEAST);
        tokio::select! {
            changed = moved.changed() => {
                changed.map_err(|_| status::failure(&Failure::Fault(Fault::Stopped)))?;
            }
            () = tokio::time::sleep(due) => {}
            () = tell.closed() => return Ok(()),
            () = broker.shutdown.begins() => {
                return Err(status::failure(&Failure::Fault(Fault::Stopped)));
            }
        }
    }
}
