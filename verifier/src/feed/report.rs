//! Reports counted uses to a broker, over gRPC: at least once, under numbers by which the broker
//! counts each batch once. Never keeps a request waiting: what cannot be delivered is kept, within
//! a bound, and then only added up.

use std::sync::Arc;
use std::time::Duration;

use dayfly_proto::v1::gateway_service_client::GatewayServiceClient;
use dayfly_proto::v1::{ReportUseRequest, UseCount, UseOutcome};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::id::{InstanceId, ReasonCode};
use crate::resource::Operation;
use crate::spiffe::SpiffeId;
use crate::time::Timestamp;
use crate::uses::{Batch, Line, MAX_BATCH_LINES, Seen, Uses};

/// How often a batch is told, unless it is set otherwise.
const EVERY: Duration = Duration::from_secs(10);
/// How soon the next one is, where there are more lines than one batch may have.
const SOON: Duration = Duration::from_secs(1);
/// How long a broker may take for one answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Tells the brokers of a gateway what its [`Uses`] counted.
pub struct Reporter {
    uses: Arc<Uses>,
    gateway: SpiffeId,
    instance: InstanceId,
    brokers: Vec<Channel>,
    every: Duration,
    number: u64,
    /// Sealed, and not known to be recorded.
    sealed: Option<Batch>,
}

impl Reporter {
    /// Reports as `instance` of `gateway`, over channels that authenticate the brokers and this
    /// gateway; tried in turn. `instance` is new with every start, as for the feed.
    #[must_use]
    pub const fn new(
        uses: Arc<Uses>,
        gateway: SpiffeId,
        instance: InstanceId,
        brokers: Vec<Channel>,
    ) -> Self {
        Self { uses, gateway, instance, brokers, every: EVERY, number: 1, sealed: None }
    }

    /// How often it reports, a second at least; every 10 s otherwise.
    #[must_use]
    pub fn every(self, every: Duration) -> Self {
        Self { every: every.max(SOON), ..self }
    }

    /// Reports until `end`, and then once more what was counted since.
    pub async fn run(mut self, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        let mut pause = self.every;
        while timeout(pause, &mut end).await.is_err() {
            let full = self.report().await;
            pause = if full { SOON } else { self.every };
        }
        self.report().await;
    }

    /// Tells what was counted, in one batch, if a broker takes it now; otherwise the next call
    /// tells the same batch again. `true` if there is more to tell.
    pub async fn report(&mut self) -> bool {
        if self.sealed.is_none() {
            self.sealed = self.uses.seal(&self.instance, self.number);
        }
        let Some(batch) = &self.sealed else { return false };
        let full = batch.counts.len() >= MAX_BATCH_LINES;
        let (digest, total) = (batch.digest(&self.gateway), batch.total());
        match self.send(batch).await {
            Ok(()) => tracing::debug!(number = self.number, %digest, uses = total, "told the uses"),
            Err(status) if is_refusal(&status) => {
                tracing::error!(
                    number = self.number, %digest, uses = total, code = ?status.code(),
                    "the broker refuses a batch of uses: they are only added up"
                );
                self.uses.miss(total);
            }
            Err(status) => {
                tracing::info!(code = ?status.code(), "the uses could not be told yet");
                return false;
            }
        }
        self.sealed = None;
        self.number = self.number.saturating_add(1);
        full
    }

    async fn send(&self, batch: &Batch) -> Result<(), Status> {
        let request = to_wire(batch, &self.gateway);
        let mut last = Status::unavailable("there is no broker");
        for broker in &self.brokers {
            let mut broker = GatewayServiceClient::new(broker.clone());
            match timeout(ANSWER, broker.report_use(request.clone())).await {
                Ok(Ok(_recorded)) => return Ok(()),
                Ok(Err(status)) if is_refusal(&status) => return Err(status),
                Ok(Err(status)) => last = status,
                Err(_) => last = Status::deadline_exceeded("the broker was silent"),
            }
        }
        Err(last)
    }
}

/// Whether the broker will say the same, however often it is asked.
fn is_refusal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument | Code::AlreadyExists | Code::NotFound | Code::FailedPrecondition
    )
}

fn to_wire(batch: &Batch, gateway: &SpiffeId) -> ReportUseRequest {
    let Batch { instance, number, from, until, counts, missed } = batch;
    let ms = |time: &Timestamp| i64::try_from(time.as_ms()).unwrap_or(i64::MAX);
    let text = |reason: &ReasonCode| reason.to_string();
    let count = |(Line { about, operation, seen }, count): &(Line, u64)| UseCount {
        grant_id: about.map(|about| about.grant.to_string()).unwrap_or_default(),
        token_id: about.map(|about| about.token.to_string()).unwrap_or_default(),
        operation: operation.as_ref().map(Operation::to_string).unwrap_or_default(),
        outcome: outcome(seen).into(),
        reason: seen.reason().map(text).unwrap_or_default(),
        count: *count,
    };
    ReportUseRequest {
        instance: instance.to_string(),
        number: *number,
        from_ms: ms(from),
        until_ms: ms(until),
        counts: counts.iter().map(count).collect(),
        missed: *missed,
        digest: batch.digest(gateway).as_bytes().to_vec().into(),
    }
}

const fn outcome(seen: &Seen) -> UseOutcome {
    match seen {
        Seen::Allowed => UseOutcome::Allowed,
        Seen::Refused(_) => UseOutcome::Refused,
        Seen::LetPass(_) => UseOutcome::LetPass,
        Seen::Cut(_) => UseOutcome::Cut,
    }
}
