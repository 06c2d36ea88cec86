//! `AuditService`: the record itself, in order and without gaps, for those who may read it.

use std::sync::Arc;
use std::time::Duration;

use dayfly_proto::v1;
use dayfly_proto::v1::audit_service_server::AuditService;
use dayfly_verifier::id::{Seq, TextDigest};
use dayfly_verifier::invalid::Invalid;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Broker, query, status};
use crate::core::denial::Denial;
use crate::core::event::Head;
use crate::journal::StoredEntry;
use crate::sequencer::{Failure, Fault};

/// How many entries are read at once.
const PAGE: usize = 256;
/// How many searches run at once: each may read the whole record.
const MAX_SEARCHES: usize = 4;
/// How long the reader of a search may take for what was found last, before the search ends without
/// its end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The service.
pub struct Audit {
    broker: Arc<Broker>,
    pub(super) searches: Arc<Semaphore>,
    patience: Duration,
}

impl Audit {
    /// The service of this broker.
    #[must_use]
    pub fn new(broker: Arc<Broker>) -> Self {
        let searches = Arc::new(Semaphore::new(MAX_SEARCHES));
        Self { broker, searches, patience: PATIENCE }
    }

    /// The same, with another patience for those who do not read.
    #[cfg(test)]
    pub(crate) fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }
}

type Told = Result<v1::TailResponse, Status>;

#[tonic::async_trait]
impl AuditService for Audit {
    type TailStream = BoxStream<'static, Told>;
    type QueryStream = BoxStream<'static, query::Told>;

    async fn tail(
        &self,
        request: Request<v1::TailRequest>,
    ) -> Result<Response<Self::TailStream>, Status> {
        let v1::TailRequest { after_seq, once } = request.into_inner();
        let after = self.broker.store.head_at(Seq(after_seq)).await;
        let after = after.map_err(|error| status::unavailable(&error))?.ok_or_else(|| {
            let rule = "must not lie beyond the end of the record";
            status::invalid(&Invalid::new("after_seq", rule))
        })?;
        let (tell, told) = mpsc::channel(PAGE);
        let tail = Tail { broker: self.broker.clone(), head: *after, once, tell };
        tokio::spawn(tail.run());
        Ok(Response::new(ReceiverStream::new(told).boxed()))
    }

    async fn query(
        &self,
        request: Request<v1::QueryRequest>,
    ) -> Result<Response<Self::QueryStream>, Status> {
        let asked = query::parse(request.into_inner());
        let asked = asked.map_err(|invalid| status::invalid(&invalid))?;
        let room = self.searches.clone().try_acquire_owned();
        let room = room.map_err(|_| status::failure(&Failure::Fault(Fault::Busy)))?;
        let (tell, told) = mpsc::channel(PAGE);
        let (broker, patience) = (self.broker.clone(), self.patience);
        tokio::spawn(query::Search { broker, asked, tell, patience, _room: room }.run());
        Ok(Response::new(ReceiverStream::new(told).boxed()))
    }

    async fn get_text(
        &self,
        request: Request<v1::GetTextRequest>,
    ) -> Result<Response<v1::GetTextResponse>, Status> {
        let v1::GetTextRequest { digest } = request.into_inner();
        let digest: TextDigest = digest.parse().map_err(|invalid| status::invalid(&invalid))?;
        let text = self.broker.store.text(&digest).await;
        let text = text.map_err(|error| status::unavailable(&error))?;
        let text = text.ok_or_else(|| status::denial(&Denial::NotFound))?;
        let salt = text.salt().to_vec().into();
        Ok(Response::new(v1::GetTextResponse { text: text.body().to_owned(), salt }))
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

pub(super) fn told(entry: &StoredEntry) -> v1::TailResponse {
    let Head { epoch, seq, hash } = entry.head();
    let head = v1::Head { epoch: epoch.to_string(), seq: seq.0, hash: hash.to_string() };
    v1::TailResponse { head: Some(head), entry: entry.bytes().to_vec().into() }
}
