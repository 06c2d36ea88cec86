//! Accepts mutual TLS connections and serves HTTP on them, for the broker and for gateways alike.
//!
//! Every request carries the [`Peer`] of its connection among its extensions, and with it the
//! [`Peer`](dayfly_verifier::verify::Peer) that the verifier's layer asks for. A connection ends
//! when the certificate of its other end does, or when they are admitted no more. Nothing that a
//! stranger does ends the loop: not a handshake that stalls, not one that fails, not even the end
//! of the supply of file descriptors; nor can one take the room of the others.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dayfly_verifier::time::Clock;
use http::{Request, Response};
use http_body::Body;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::Service;

use crate::svid::{Peer, read_leaf};
use crate::tls::{Admission, Live};

mod bounds;

use bounds::Place;
pub use bounds::{Bounds, Traffic};

/// A handshake that takes longer is given up.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Calls and streams at once on one connection.
const MAX_STREAMS: u32 = 256;
/// The largest head of a request, in bytes.
const MAX_HEADERS: u32 = 16 * 1024;
/// After that much silence a connection is asked for a sign of life, and cut without one.
const PING_AFTER: Duration = Duration::from_secs(20);
/// How often a connection looks whether its other end may still be there: clocks jump, machines
/// sleep, IDs are locked.
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

/// On which terms connections are accepted.
pub struct Terms {
    tls: ServerConfig,
    clock: Arc<dyn Clock>,
    admission: Admission,
    bounds: Bounds,
    traffic: Traffic,
}

impl Terms {
    /// Both ends have an SVID of the trust domain of `live`, and the other one is admitted.
    /// `protocols` are offered by application-layer protocol negotiation (`h2`, `http/1.1`).
    pub fn mutual(
        live: &Live,
        protocols: &[&str],
        admission: Admission,
    ) -> Result<Self, rustls::Error> {
        let tls = live.accept_mutual(protocols, admission.clone())?;
        Ok(Self::new(tls, live, admission))
    }

    /// The other end has no certificate yet: for joining, and nothing else. Requests carry no
    /// [`Peer`].
    pub fn anyone(live: &Live, protocols: &[&str]) -> Result<Self, rustls::Error> {
        Ok(Self::new(live.accept_anyone(protocols)?, live, Admission::everybody()))
    }

    fn new(tls: ServerConfig, live: &Live, admission: Admission) -> Self {
        let (bounds, traffic) = Default::default();
        Self { tls, clock: live.clock().clone(), admission, bounds, traffic }
    }

    /// With other bounds than the default ones, counted in `traffic`.
    #[must_use]
    pub fn bounded(self, bounds: Bounds, traffic: Traffic) -> Self {
        Self { bounds, traffic, ..self }
    }
}

/// Serves `service` on the connections of `listener` until `stop` is done; then lets what runs
/// finish, and returns. Dropping the future cuts whatever still runs.
pub async fn serve<S, B>(
    mut listener: impl Accept,
    terms: Terms,
    service: S,
    stop: impl Future<Output = ()>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Terms { tls, clock, admission, bounds, traffic } = terms;
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let (draining, drained) = watch::channel(());
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        // Who has hung up already has no address.
        let Ok(from) = stream.peer_addr() else { continue };
        let Some(place) = traffic.enter(from.ip(), &bounds) else {
            tracing::debug!(%from, "no room for a connection");
            continue;
        };
        let (acceptor, service) = (acceptor.clone(), service.clone());
        let (clock, admission, drain) = (clock.clone(), admission.clone(), drained.clone());
        connections.spawn(async move {
            let look = Look { clock: &*clock, admission: &admission };
            let ended = connection(stream, &acceptor, look, (place, bounds), service, drain).await;
            if let Err(error) = ended {
                tracing::debug!(%from, %error, "connection ended");
            }
        });
    }
    drop((listener, draining));
    while connections.join_next().await.is_some() {}
}

async fn connection<S, B>(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    look: Look<'_>,
    (mut place, bounds): (Place, Bounds),
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
    if !place.known(peer.as_ref().map(|peer| &peer.id), &bounds) {
        tracing::info!(%from, "no room for another connection of this ID");
        return Ok(());
    }
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = TowerToHyperService::new(WithPeer { service, peer: peer.clone() });
    let builder = http_builder(http2);
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let expelled = look.expelled(peer.as_ref());
    tokio::pin!(expelled);
    let mut open = true;
    loop {
        tokio::select! {
            served = &mut serving => return served,
            why = &mut expelled => return Err(why.into()),
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

/// What a connection looks at again and again while it is open.
struct Look<'a> {
    clock: &'a dyn Clock,
    admission: &'a Admission,
}

impl Look<'_> {
    /// Waits until the other end may not be there any more, and says why.
    async fn expelled(&self, peer: Option<&Peer>) -> &'static str {
        let Some(peer) = peer else { return std::future::pending().await };
        loop {
            let left = peer.until.since(self.clock.now());
            if left.is_zero() {
                return "its certificate has ended";
            }
            if !self.admission.admits(peer) {
                return "it is admitted no more";
            }
            tokio::time::sleep(left.min(LOOK)).await;
        }
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
