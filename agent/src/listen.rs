//! Accepts mutual TLS connections and serves HTTP on them, for the broker and for gateways alike.
//!
//! Every request carries the [`Peer`] of its connection among its extensions, and with it the
//! [`Peer`](dayfly_verifier::verify::Peer) that the verifier's layer asks for. A connection ends
//! when the certificate of its other end does. Nothing that a stranger does ends the loop: not a
//! handshake that stalls, not one that fails, not even the end of the supply of file descriptors.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dayfly_verifier::time::{Clock, Timestamp};
use http::{Request, Response};
use http_body::Body;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::Service;

use crate::svid::{Peer, read_leaf};

/// A handshake that takes longer is given up.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// More connections than this wait to be accepted.
const MAX_CONNECTIONS: usize = 8192;
/// Calls and streams at once on one connection.
const MAX_STREAMS: u32 = 256;
/// The largest head of a request, in bytes.
const MAX_HEADERS: u32 = 16 * 1024;
/// After that much silence a connection is asked for a sign of life, and cut without one.
const PING_AFTER: Duration = Duration::from_secs(20);
/// How often a connection looks whether its certificate has ended: clocks jump, machines sleep.
const LOOK: Duration = Duration::from_secs(1);
/// The pause after a failure to accept, so that a lack of file descriptors is not a busy loop.
const BREATH: Duration = Duration::from_millis(20);

/// Where connections come from.
pub trait Accept: Send {
    /// The next one. An error speaks of this attempt only.
    fn accept(&mut self) -> impl Future<Output = io::Result<TcpStream>> + Send;
}

impl Accept for TcpListener {
    async fn accept(&mut self) -> io::Result<TcpStream> {
        TcpListener::accept(self).await.map(|(stream, _)| stream)
    }
}

/// Serves `service` on the connections of `listener` until `stop` is done; then lets what runs
/// finish, and returns. Dropping the future cuts whatever still runs.
///
/// Under a `tls` that asks for no certificates, requests carry no [`Peer`].
pub async fn serve<S, B>(
    mut listener: impl Accept,
    tls: ServerConfig,
    clock: Arc<dyn Clock>,
    service: S,
    stop: impl Future<Output = ()>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (draining, drained) = watch::channel(());
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = async {
            let place = room.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = &mut stop => break,
            accepted = accepted => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let (acceptor, service) = (acceptor.clone(), service.clone());
        let (clock, drain) = (clock.clone(), drained.clone());
        connections.spawn(async move {
            if let Err(error) = connection(stream, &acceptor, &*clock, service, drain).await {
                tracing::debug!(%error, "connection ended");
            }
            drop(place);
        });
    }
    drop((listener, draining));
    while connections.join_next().await.is_some() {}
}

async fn connection<S, B>(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    clock: &dyn Clock,
    service: S,
    mut drain: watch::Receiver<()>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let from = stream.peer_addr()?;
    // Without it, one call at a time waits for delayed acknowledgements.
    stream.set_nodelay(true)?;
    let shaken = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
    let stream = match shaken? {
        Ok(stream) => stream,
        Err(error) => {
            tracing::info!(%from, %error, "handshake refused");
            return Ok(());
        }
    };
    let peer = match stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
        Some(leaf) => Some(read_leaf(leaf)?),
        None => None,
    };
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let until = peer.as_ref().map(|peer| peer.until);
    let service = TowerToHyperService::new(WithPeer { service, peer });
    let builder = http_builder(http2);
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = ends(until, clock);
    tokio::pin!(ended);
    let mut open = true;
    loop {
        tokio::select! {
            served = &mut serving => return served,
            () = &mut ended => {
                tracing::debug!(%from, "certificate ended");
                return Ok(());
            }
            _closed = drain.changed(), if open => {
                open = false;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

/// The version is the one that was negotiated: there is no guessing, so that an HTTP/2 server
/// speaks first, and a client knows from its first bytes that it was accepted.
fn http_builder(http2: bool) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = if http2 { builder.http2_only() } else { builder.http1_only() };
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE);
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS);
    http2.max_header_list_size(MAX_HEADERS).keep_alive_interval(PING_AFTER);
    builder
}

/// Waits until the time is `until`, by a clock that may jump.
async fn ends(until: Option<Timestamp>, clock: &dyn Clock) {
    let Some(until) = until else { return std::future::pending().await };
    loop {
        let left = until.since(clock.now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

/// Puts the peer among the extensions of each request.
#[derive(Clone)]
struct WithPeer<S> {
    service: S,
    peer: Option<Peer>,
}

impl<S: Service<Request<Incoming>>> Service<Request<Incoming>> for WithPeer<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Incoming>) -> S::Future {
        if let Some(peer) = &self.peer {
            let (id, key) = (peer.id.clone(), peer.key);
            request.extensions_mut().insert(dayfly_verifier::verify::Peer { id, key });
            request.extensions_mut().insert(peer.clone());
        }
        self.service.call(request)
    }
}

#[cfg(test)]
mod tests;
