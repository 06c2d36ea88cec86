//! The bare service: one durable grouped append, one signature, one key derivation.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dayfly_broker::core::event::{Entry, Head};
use dayfly_broker::journal::{Journal as _, Sqlite};
use dayfly_proto::v1;
use dayfly_proto::v1::access_service_server::AccessService;
use dayfly_verifier::wire::{LocalSigner, TokenSigner as _};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};

/// As many bytes as a token of one right has before the text encoding.
const TOKEN_BYTES: usize = 710;

/// The way to the task that appends for all who wait.
#[derive(Clone)]
pub(crate) struct Appends {
    waiting: mpsc::Sender<oneshot::Sender<()>>,
    count: Arc<AtomicUsize>,
}

impl Appends {
    /// The way, and the task.
    pub(crate) fn start(store: Sqlite, entry: Entry) -> (Self, impl Future<Output = ()>) {
        let (waiting, mut queue) = mpsc::channel::<oneshot::Sender<()>>(4096);
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let committing = async move {
            let (mut head, mut batch) = (Head::ORIGIN, Vec::new());
            while queue.recv_many(&mut batch, 256).await > 0 {
                let Ok(entries) = super::copies(&head, &entry, batch.len()) else { return };
                let Ok(receipt) = store.append(&head, &entries).await else { return };
                head = *receipt;
                counted.fetch_add(1, Ordering::Relaxed);
                for answer in batch.drain(..) {
                    // The caller may have gone.
                    let _ = answer.send(());
                }
            }
        };
        (Self { waiting, count }, committing)
    }

    /// How many appends there were.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    async fn append(&self) -> Result<(), Status> {
        let gone = || Status::unavailable("the store has ended");
        let (answer, answered) = oneshot::channel();
        self.waiting.send(answer).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }
}

/// The service.
pub(crate) struct Bare {
    pub(crate) appends: Appends,
    pub(crate) signer: Arc<LocalSigner>,
}

type Stream = futures_util::stream::Pending<Result<v1::WatchRequestResponse, Status>>;

fn absent<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the bare service only exchanges"))
}

#[tonic::async_trait]
impl AccessService for Bare {
    type WatchRequestStream = Stream;

    async fn exchange(
        &self,
        request: Request<v1::ExchangeRequest>,
    ) -> Result<Response<v1::ExchangeResponse>, Status> {
        let v1::ExchangeRequest { request_id, exchange_id, proof: _ } = request.into_inner();
        self.appends.append().await?;
        let failed = |e: dayfly_verifier::wire::SignerError| Status::internal(e.to_string());
        let mut block = vec![0; TOKEN_BYTES];
        let next = self.signer.derive(exchange_id.as_bytes()).map_err(failed)?;
        block.iter_mut().zip(next.iter()).for_each(|(to, from)| *to = *from);
        let signature = self.signer.sign(&block).map_err(failed)?;
        block.iter_mut().zip(signature).for_each(|(to, from)| *to = from);
        use base64::Engine as _;
        Ok(Response::new(v1::ExchangeResponse {
            token: base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(block),
            token_id: exchange_id,
            expires_at_ms: 0,
            grant_id: request_id,
        }))
    }

    async fn request_access(
        &self,
        _: Request<v1::RequestAccessRequest>,
    ) -> Result<Response<v1::RequestAccessResponse>, Status> {
        absent()
    }

    async fn watch_request(
        &self,
        _: Request<v1::WatchRequestRequest>,
    ) -> Result<Response<Stream>, Status> {
        absent()
    }

    async fn complete(
        &self,
        _: Request<v1::CompleteRequest>,
    ) -> Result<Response<v1::CompleteResponse>, Status> {
        absent()
    }

    async fn cancel(
        &self,
        _: Request<v1::CancelRequest>,
    ) -> Result<Response<v1::CancelResponse>, Status> {
        absent()
    }

    async fn list_my_grants(
        &self,
        _: Request<v1::ListMyGrantsRequest>,
    ) -> Result<Response<v1::ListMyGrantsResponse>, Status> {
        absent()
    }

    async fn get_dossier(
        &self,
        _: Request<v1::GetDossierRequest>,
    ) -> Result<Response<v1::GetDossierResponse>, Status> {
        absent()
    }
}
