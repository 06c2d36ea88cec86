//! A broker that answers by a script.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use dayfly_proto::v1;
use dayfly_proto::v1::access_service_server::{AccessService, AccessServiceServer};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// What a watch is told, one after the other; then its stream ends, or stays open.
#[derive(Clone, Default)]
pub(super) struct Told {
    pub(super) changes: Vec<v1::AccessRequest>,
    pub(super) stays_open: bool,
}

/// What is answered to whom, in turn; and what was asked.
#[derive(Default)]
pub(super) struct Script {
    pub(super) watches: VecDeque<Result<Told, Status>>,
    pub(super) exchanges: VecDeque<Result<v1::ExchangeResponse, Status>>,
    pub(super) files: VecDeque<Result<v1::AccessRequest, Status>>,
    pub(super) completes: VecDeque<Result<v1::AccessRequest, Status>>,
    pub(super) all_completed: Arc<Notify>,
    pub(super) exchanged: Vec<v1::ExchangeRequest>,
    pub(super) filed: Vec<v1::RequestAccessRequest>,
}

/// A broker by a script.
#[derive(Clone, Default)]
pub(super) struct Fake(pub(super) Arc<Mutex<Script>>);

impl Fake {
    pub(super) fn of(script: Script) -> Self {
        Self(Arc::new(Mutex::new(script)))
    }
}

fn absent<T>() -> Result<T, Status> {
    Err(Status::unavailable("the script is over"))
}

#[tonic::async_trait]
impl AccessService for Fake {
    type WatchRequestStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchRequestResponse, Status>> + Send>>;

    async fn request_access(
        &self,
        request: Request<v1::RequestAccessRequest>,
    ) -> Result<Response<v1::RequestAccessResponse>, Status> {
        let mut script = self.0.lock().unwrap();
        script.filed.push(request.into_inner());
        let request = script.files.pop_front().unwrap_or_else(absent)?;
        Ok(Response::new(v1::RequestAccessResponse { request: Some(request) }))
    }

    async fn watch_request(
        &self,
        _: Request<v1::WatchRequestRequest>,
    ) -> Result<Response<Self::WatchRequestStream>, Status> {
        use tokio_stream::StreamExt as _;
        let told = self.0.lock().unwrap().watches.pop_front().unwrap_or_else(absent)?;
        let item = |request| Ok(v1::WatchRequestResponse { request: Some(request) });
        let changes = tokio_stream::iter(told.changes.into_iter().map(item));
        Ok(Response::new(match told.stays_open {
            true => Box::pin(changes.chain(tokio_stream::pending())),
            false => Box::pin(changes),
        }))
    }

    async fn exchange(
        &self,
        request: Request<v1::ExchangeRequest>,
    ) -> Result<Response<v1::ExchangeResponse>, Status> {
        let mut script = self.0.lock().unwrap();
        script.exchanged.push(request.into_inner());
        script.exchanges.pop_front().unwrap_or_else(absent).map(Response::new)
    }

    async fn complete(
        &self,
        _: Request<v1::CompleteRequest>,
    ) -> Result<Response<v1::CompleteResponse>, Status> {
        let mut script = self.0.lock().unwrap();
        let ended = script.completes.pop_front().unwrap_or_else(absent);
        if script.completes.is_empty() {
            script.all_completed.notify_one();
        }
        let ended = ended?;
        Ok(Response::new(v1::CompleteResponse { request: Some(ended), head: None }))
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

/// A broker that runs; when it is dropped its connections are cut.
pub(super) struct Running(Option<tokio::runtime::Runtime>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.take().unwrap().shutdown_background();
    }
}

/// Serves a script, at a free port or at this one.
pub(super) async fn serve(fake: Fake, at: Option<SocketAddr>) -> (SocketAddr, Running) {
    let at = at.unwrap_or(([127, 0, 0, 1], 0).into());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let serving = runtime.spawn(async move {
        // After a restart, the port is free as soon as the one before has let go of it.
        let listener = loop {
            match TcpListener::bind(at).await {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let at = listener.local_addr().unwrap();
        let serving = Server::builder()
            .add_service(AccessServiceServer::new(fake))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serving);
        at
    });
    (serving.await.unwrap(), Running(Some(runtime)))
}
