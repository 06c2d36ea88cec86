//! `AuditService`: the record itself, in order and without gaps, for those who may read it.

use std::sync::Arc;

use dayfly_proto::v1;
use dayfly_proto::v1::audit_service_server::AuditService;
use dayfly_verifier::id::Seq;
use dayfly_verifier::invalid::Invalid;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Broker, status};
use crate::core::event::Head;
use crate::journal::StoredEntry;
use crate::sequencer::{Failure, Fault};

/// How many entries are read at once.
const PAGE: usize = 256;

/// The service.
pub struct Audit(Arc<Broker>);

impl Audit {
    /// The service of this broker.
    #[must_use]
    pub const fn new(broker: Arc<Broker>) -> Self {
        Self(broker)
    }
}

type Told = Result<v1::TailResponse, Status>;

#[tonic::async_trait]
impl AuditService for Audit {
    type TailStream = BoxStream<'static, Told>;

    async fn tail(
        &self,
        request: Request<v1::TailRequest>,
    ) -> Result<Response<Self::TailStream>, Status> {
        let v1::TailRequest { after_seq, once } = request.into_inner();
        let after = self.0.store.head_at(Seq(after_seq)).await;
        let after = after.map_err(|error| status::unavailable(&error))?.ok_or_else(|| {
            let rule = "must not lie beyond the end of the record";
            status::invalid(&Invalid::new("after_seq", rule))
        })?;
        let (tell, told) = mpsc::channel(PAGE);
        let tail = Tail { broker: self.0.clone(), head: *after, once, tell };
        tokio::spawn(tail.run());
        Ok(Response::new(ReceiverStream::new(told).boxed()))
    }
}

/// One reader and how far it was told.
struct Tail {
    broker: Arc<Broker>,
    head: Head,
    once: bool,
    tell: mpsc::Sender<Told>,
}

impl Tail {
    async fn run(mut self) {
        if let Err(status) = self.follow().await {
            // The reader may have gone.
            let _ = self.tell.send(Err(status)).await;
        }
    }

    /// Tells what the log has beyond the head, then waits for the head to move.
    async fn follow(&mut self) -> Result<(), Status> {
        let mut moved = self.broker.sequencer.moved();
        loop {
            moved.mark_unchanged();
            let page = self.broker.store.read(&self.head, PAGE).await;
            let page = page.map_err(|error| status::unavailable(&error))?;
            for entry in &page {
                self.head = *entry.head();
                if self.tell.send(Ok(told(entry))).await.is_err() {
                    return Ok(());
                }
            }
            if page.len() == PAGE {
                continue;
            }
            if self.once {
                return Ok(());
            }
            tokio::select! {
                changed = moved.changed() => {
                    changed.map_err(|_| status::failure(&Failure::Fault(Fault::Stopped)))?;
                }
                () = self.tell.closed() => return Ok(()),
                () = self.broker.shutdown.begins() => {
                    return Err(status::failure(&Failure::Fault(Fault::Stopped)));
                }
            }
        }
    }
}

fn told(entry: &StoredEntry) -> v1::TailResponse {
    let Head { epoch, seq, hash } = entry.head();
    let head = v1::Head { epoch: epoch.to_string(), seq: seq.0, hash: hash.to_string() };
    v1::TailResponse { head: Some(head), entry: entry.bytes().to_vec().into() }
}
