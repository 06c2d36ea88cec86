//! Real handshakes on loopback. Nothing here measures time: what has to happen is waited for.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::Full;
use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Semaphore, oneshot};
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;
use tower::ServiceExt as _;

use super::*;
use crate::session::{OpenError, dial};
use crate::testing::{ByHand, Ca};
use crate::tls::{Live, no_name};

const BROKER: &str = "spiffe://a.test/dayfly/broker";

struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    done: tokio::task::JoinHandle<()>,
}

/// How many calls of `/hold` have begun, and how many may end.
static BEGUN: Semaphore = Semaphore::const_new(0);
static MAY_END: Semaphore = Semaphore::const_new(0);

/// Answers who asks; `/wait` is answered by nobody, `/hold` when it may.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    match request.uri().path() {
        "/wait" => std::future::pending::<()>().await,
        "/hold" => {
            BEGUN.add_permits(1);
            MAY_END.acquire().await.unwrap().forget();
        }
        _ => {}
    }
    let peer = request.extensions().get::<Peer>().map(|peer| peer.id.to_string());
    Ok(Response::new(Full::from(peer.unwrap_or_default())))
}

fn start_on(listener: impl Accept + 'static, address: SocketAddr, terms: Terms) -> Server {
    let (stop, stopped) = oneshot::channel();
    let service = tower::service_fn(answer);
    let stopped = async { drop(stopped.await) };
    let done = tokio::spawn(serve(listener, terms, service, stopped));
    Server { address, stop: Some(stop), done }
}

fn terms(live: &Live, admission: Admission) -> Terms {
    Terms::mutual(live, &["h2", "http/1.1"], admission).unwrap()
}

async fn start_under(terms: Terms) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    start_on(listener, address, terms)
}

async fn start(live: &Live) -> Server {
    start_under(terms(live, Admission::everybody())).await
}

impl Server {
    async fn dial(&self, client: &Live) -> Result<Channel, OpenError> {
        let tls = client.connect_to(vec![BROKER.parse().unwrap()]).unwrap();
        dial(&self.address.to_string(), tls).await
    }

    async fn tls(
        &self,
        config: ClientConfig,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(no_name(), stream).await
    }
}

async fn ask(channel: Channel, path: &str) -> Result<String, tonic::transport::Error> {
    let request = Request::get(format!("http://broker{path}"));
    let request = request.body(tonic::body::Body::empty()).unwrap();
    let response = channel.oneshot(request).await?;
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
    Ok(String::from_utf8(body.to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn handlers_learn_who_calls_from_the_certificate() {
    let (ca, clock) = (Ca::new(), ByHand::new());
    let server = start(&ca.live(BROKER, &clock)).await;
    let channel = server.dial(&ca.live("spiffe://a.test/agent", &clock)).await.unwrap();
    assert_eq!(ask(channel, "/").await.unwrap(), "spiffe://a.test/agent");
}

#[tokio::test]
async fn a39_nobody_gets_in_without_a_certificate_and_the_client_learns_why() {
    let (ca, clock) = (Ca::new(), ByHand::new());
    let server = start(&ca.live(BROKER, &clock)).await;
    let good = ca.live("spiffe://a.test/agent", &clock);
    let roots = crate::svid::TrustBundle::digest(ca.bundle().roots());
    // The one TLS configuration without a certificate, which is meant for joining.
    let clock: Arc<dyn Clock> = clock;
    let joining = crate::tls::connect_pinned(roots, &clock).unwrap();
    let refused = dial(&server.address.to_string(), joining).await;
    // The server sends no roots here, so the pin does not hold either: nothing gets through.
    assert!(refused.is_err());
    let mut bare = good.connect_to(vec![BROKER.parse().unwrap()]).unwrap();
    bare.client_auth_cert_resolver = Arc::new(NoCertificate);
    let refused = dial(&server.address.to_string(), bare).await.unwrap_err();
    assert!(matches!(&refused, OpenError::Refused(_, "there was none")), "{refused}");
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_refused_client_is_told_what_it_means() {
    let (ca, clock) = (Ca::new(), ByHand::new());
    let server = start(&ca.live(BROKER, &clock)).await;
    // The client's own clock stands still, so that only the server sees that its time is over.
    let (late, client) = (ByHand::new(), ca.live("spiffe://a.test/agent", &ByHand::new()));
    late.forward(3601);
    let expired = start(&ca.live(BROKER, &late)).await;
    let refused = expired.dial(&client).await.unwrap_err();
    assert!(refused.to_string().contains("it is expired"), "{refused}");
    // A client of another authority: it trusts our server, but we do not trust it.
    let other = Ca::new();
    let (leaf, key) = other.leaf(|_| {});
    let stranger = crate::tls::Identity::new(vec![leaf], &key, ca.bundle()).unwrap();
    let refused = server.dial(&Live::new(stranger, clock)).await.unwrap_err();
    assert!(refused.to_string().contains("another trust domain or authority"), "{refused}");
}

#[tokio::test]
async fn a_server_with_another_id_is_not_spoken_to() {
    let (ca, clock) = (Ca::new(), ByHand::new());
    for id in ["spiffe://a.test/agent", "spiffe://a.test/dayfly/broker/2"] {
        let server = start(&ca.live(id, &clock)).await;
        let refused = server.dial(&ca.live("spiffe://a.test/agent", &clock)).await.unwrap_err();
        assert!(matches!(refused, OpenError::NotOurBroker(..)), "{refused}");
    }
}

#[tokio::test]
async fn a35_there_is_no_second_handshake_that_is_short() {
    let (ca, clock) = (Ca::new(), ByHand::new());
    let server = start(&ca.live(BROKER, &clock)).await;
    let client = ca.live("spiffe://a.test/agent", &clock);
    let mut config = client.connect_to(vec![BROKER.parse().unwrap()]).unwrap();
    // This client would resume, given a ticket.
    config.resumption = Resumption::in_memory_sessions(8);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    for _ in 0..2 {
        let mut stream = server.tls(config.clone()).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        let request = b"GET / HTTP/1.1\r\nhost: broker\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200"));
        assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0);
    }
}

#[tokio::test]
async fn a35_a_connection_ends_with_its_certificate() {
    let (ca, clock) = (Ca::new(), ByHand::new());
    let server = start(&ca.live(BROKER, &clock)).await;
    let client = ca.live("spiffe://a.test/agent", &clock);
    let mut config = client.connect_to(vec![BROKER.parse().unwrap()]).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut stream = server.tls(config).await.unwrap();
    stream.write_all(b"GET /wait HTTP/1.1\r\nhost: broker\r\n\r\n").await.unwrap();
    clock.forward(3599);
    let mut byte = [0];
    assert!(futures_poll(stream.read(&mut byte)).await.is_none(), "cut before its time");
    clock.forward(1);
    let ended = stream.read(&mut byte).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    // And it does not come back.
    assert!(server.dial(&client).await.is_err());
}

/// Once somebody is admitted no more, what is open is cut, and a new connection is told why.
#[tokio::test]
async fn a17_who_is_admitted_no_more_is_cut_and_does_not_come_back() {
    let (ca, clock) = (Ca::new(), ByHand::new());
    let locked = Arc::new(AtomicBool::new(false));
    let locks = locked.clone();
    let admission = Admission::of(move |peer| {
        peer.id.as_str() != "spiffe://a.test/agent" || !locks.load(Ordering::SeqCst)
    });
    let server = start_under(terms(&ca.live(BROKER, &clock), admission)).await;
    let client = ca.live("spiffe://a.test/agent", &clock);
    let mut config = client.connect_to(vec![BROKER.parse().unwrap()]).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut stream = server.tls(config).await.unwrap();
    stream.write_all(b"GET /wait HTTP/1.1\r\nhost: broker\r\n\r\n").await.unwrap();
    let mut byte = [0];
    assert!(futures_poll(stream.read(&mut byte)).await.is_none(), "cut while it is admitted");
    locked.store(true, Ordering::SeqCst);
    let ended = stream.read(&mut byte).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    let refused = server.dial(&client).await.unwrap_err();
    assert!(refused.to_string().contains("its ID is locked"), "{refused}");
    assert!(server.dial(&ca.live("spiffe://a.test/other", &clock)).await.is_ok());
}

/// Strangers who stall take half of the handshakes at most, and one ID no more than its share.
#[tokio::test]
async fn a38_who_does_not_fit_in_is_cut_off_and_the_others_are_served() {
    let (ca, clock) = (Ca::new(), ByHand::new());
    let bounds = Bounds { per_identity: 1, handshakes: 4, ..Bounds::default() };
    let traffic = Traffic::default();
    let terms = terms(&ca.live(BROKER, &clock), Admission::everybody());
    let server = start_under(terms.bounded(bounds, traffic.clone())).await;
    let client = ca.live("spiffe://a.test/agent", &clock);
    let held = server.dial(&client).await.unwrap();
    assert!(server.dial(&client).await.is_err(), "a second one of the same ID");
    assert!(server.dial(&ca.live("spiffe://a.test/other", &clock)).await.is_ok());
    assert_eq!(ask(held, "/").await.unwrap(), "spiffe://a.test/agent");
    let mut stalling = Vec::new();
    for _ in 0..3 {
        stalling.push(TcpStream::connect(server.address).await.unwrap());
    }
    // The third one is cut off at once; the two before it hold on.
    let ended = stalling[2].read(&mut [0]).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert!(futures_poll(stalling[1].read(&mut [0])).await.is_none());
    assert!(traffic.refused() >= 2);
}

/// The result of a future that is ready, after other tasks had their turn.
async fn futures_poll<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::pin!(future);
    for _ in 0..100 {
        tokio::task::yield_now().await;
        let polled = std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context)));
        if let Poll::Ready(value) = polled.await {
            return Some(value);
        }
    }
    None
}

#[tokio::test]
async fn a56_tls_1_2_is_not_spoken() {
    let (ca, clock) = (Ca::new(), ByHand::new());
    let server = start(&ca.live(BROKER, &clock)).await;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.root.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let refused = server.tls(config).await.unwrap_err();
    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
}

#[tokio::test]
async fn a_new_trust_bundle_counts_from_the_next_handshake_on() {
    let (old, new, clock) = (Ca::new(), Ca::new(), ByHand::new());
    let live = old.live(BROKER, &clock);
    let server = start(&live).await;
    let client = old.live("spiffe://a.test/agent", &clock);
    assert!(server.dial(&client).await.is_ok());
    live.set(new.identity(BROKER));
    assert!(server.dial(&client).await.is_err());
    assert!(server.dial(&new.live("spiffe://a.test/agent", &clock)).await.is_ok());
}

/// Fails in every way that accepting can fail, then goes on.
struct Troubled {
    errors: VecDeque<io::Error>,
    listener: TcpListener,
}

impl Accept for Troubled {
    async fn accept(&mut self) -> io::Result<TcpStream> {
        match self.errors.pop_front() {
            Some(error) => Err(error),
            None => Accept::accept(&mut self.listener).await,
        }
    }
}

#[tokio::test]
async fn a38_no_failure_to_accept_ends_the_loop() {
    let (ca, clock) = (Ca::new(), ByHand::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // EMFILE, ENFILE, ENOBUFS, ENOMEM, ECONNABORTED, EPERM, EPROTO, EINTR, EAGAIN (accept(2)).
    let errors = [24, 23, 105, 12, 103, 1, 71, 4, 11];
    let errors = errors.into_iter().map(io::Error::from_raw_os_error).collect();
    let terms = terms(&ca.live(BROKER, &clock), Admission::everybody());
    let server = start_on(Troubled { errors, listener }, address, terms);
    let channel = server.dial(&ca.live("spiffe://a.test/agent", &clock)).await.unwrap();
    assert_eq!(ask(channel, "/").await.unwrap(), "spiffe://a.test/agent");
}

#[tokio::test]
async fn a38_strangers_who_stall_or_babble_hold_nobody_up() {
    let (ca, clock) = (Ca::new(), ByHand::new());
    let server = start(&ca.live(BROKER, &clock)).await;
    let mut held = Vec::new();
    for n in 0..64 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        if n % 2 == 0 {
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        }
        held.push(stream);
    }
    let channel = server.dial(&ca.live("spiffe://a.test/agent", &clock)).await.unwrap();
    assert_eq!(ask(channel, "/").await.unwrap(), "spiffe://a.test/agent");
    // Nor do they stay: a handshake that does not go on is given up.
    for mut stream in held {
        let mut byte = [0];
        let end = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut byte));
        let _end_or_alert = end.await.unwrap();
    }
}

#[tokio::test]
async fn at_the_end_what_runs_may_finish_and_nothing_new_begins() {
    let (ca, clock) = (Ca::new(), ByHand::new());
    let mut server = start(&ca.live(BROKER, &clock)).await;
    let client = ca.live("spiffe://a.test/agent", &clock);
    let mut config = client.connect_to(vec![BROKER.parse().unwrap()]).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut stream = server.tls(config).await.unwrap();
    stream.write_all(b"GET /hold HTTP/1.1\r\nhost: broker\r\n\r\n").await.unwrap();
    BEGUN.acquire().await.unwrap().forget();
    server.stop.take().unwrap().send(()).unwrap();
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!server.done.is_finished(), "it did not wait for what runs");
    MAY_END.add_permits(1);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    server.done.await.unwrap();
}
