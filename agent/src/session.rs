//! A connection to the brokers under an identity, kept up and kept renewed.
//!
//! With TLS 1.3 a client that is refused learns it only after its side of the handshake is done,
//! at its first call and in no clear words. Here every new connection waits for the first bytes
//! of the broker, so that a refusal says what it means before anything is asked.

use std::error::Error;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use dayfly_proto::v1::identity_service_client::IdentityServiceClient;
use dayfly_proto::v1::{RenewRequest, Svid};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::{Clock, Timestamp};
use hyper_util::rt::TokioIo;
use rustls::{AlertDescription, ClientConfig};
use tokio::io::AsyncBufReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::identity::{IdentityDir, IdentityError, Keep};
use crate::tls::{Identity, Live, no_name};

/// The longest answer that is read of a broker: what it lists may be long.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// How long connecting to one address may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a broker may take to renew an identity.
const RENEWAL: Duration = Duration::from_secs(10);
/// How often the renewal looks at the clock.
const LOOK: Duration = Duration::from_secs(5);
/// How long it waits at most after it failed again and again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Why there is no connection.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// The identity directory cannot be used.
    #[error(transparent)]
    Identity(Arc<IdentityError>),
    /// The certificate has ended.
    #[error("the identity `{0}` ended at {1}; join again")]
    Ended(SpiffeId, Timestamp),
    /// Nobody answers.
    #[error("cannot reach the broker at `{0}`: {1}")]
    Unreachable(String, Arc<io::Error>),
    /// Somebody answers, but not one of the brokers that the identity names.
    #[error("whoever answers at `{0}` is not a broker of ours: {1}")]
    NotOurBroker(String, rustls::Error),
    /// The broker does not accept the certificate.
    #[error("the broker at `{0}` refuses our certificate: {1}")]
    Refused(String, &'static str),
    /// TLS failed in another way.
    #[error("no secure connection to `{0}`: {1}")]
    Tls(String, rustls::Error),
    /// The broker answered with a refusal.
    #[error("{}", .0.message())]
    Status(Arc<Status>),
    /// The broker's answer makes no sense.
    #[error("the broker's answer is refused: {0}")]
    Answer(&'static str),
}

impl From<IdentityError> for OpenError {
    fn from(error: IdentityError) -> Self {
        Self::Identity(Arc::new(error))
    }
}

impl OpenError {
    /// What a failed call means: where the connection was the reason, that is what it says.
    #[must_use]
    pub fn from_status(status: Status) -> Self {
        Self::within(&status).unwrap_or_else(|| Self::Status(Arc::new(status)))
    }

    fn within(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found.clone());
            }
            next = error.source();
        }
        None
    }

    fn in_handshake(address: &str, error: io::Error) -> Self {
        let address = address.to_owned();
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner.cloned() {
            None => Self::Unreachable(address, Arc::new(error)),
            Some(rustls::Error::AlertReceived(alert)) => Self::Refused(address, meaning(alert)),
            Some(error @ rustls::Error::InvalidCertificate(_)) => {
                Self::NotOurBroker(address, error)
            }
            Some(error) => Self::Tls(address, error),
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library's enum is open")]
fn meaning(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateExpired => "it is expired, or the clocks differ",
        AlertDescription::UnknownCA => "it belongs to another trust domain or authority",
        AlertDescription::CertificateRequired => "there was none",
        AlertDescription::CertificateRevoked => "its ID is locked, or it is from before a lock",
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            "it breaks a rule; the broker's log says which"
        }
        _ => "the broker's log says why",
    }
}

/// A connection to the brokers under the identity of a directory.
#[derive(Debug)]
pub struct Session {
    dir: IdentityDir,
    live: Live,
    addresses: Arc<[String]>,
    tls: Arc<ClientConfig>,
    /// The channel, and at which of the addresses it begins.
    way: ArcSwap<(usize, Channel)>,
}

impl Session {
    /// Connects as the identity in `dir`. Renews it first where half of its life is over.
    pub async fn open(dir: &Path, clock: Arc<dyn Clock>) -> Result<Arc<Self>, OpenError> {
        let dir = IdentityDir::open(dir)?;
        let (identity, (brokers, addresses)) = (dir.load()?, dir.brokers()?);
        if identity.until() <= clock.now() {
            return Err(OpenError::Ended(identity.id().clone(), identity.until()));
        }
        let live = Live::new(identity, clock);
        let tls = live.connect_to(brokers);
        let tls = Arc::new(tls.map_err(|error| OpenError::Tls(addresses.join(", "), error))?);
        let addresses: Arc<[String]> = addresses.into();
        let way = ArcSwap::from_pointee((0, connect(&addresses, tls.clone()).await?));
        let session = Arc::new(Self { dir, live, addresses, tls, way });
        if session.is_due()
            && let Err(error) = session.renew().await
        {
            tracing::warn!(%error, "the identity could not be renewed");
        }
        Ok(session)
    }

    /// The channel for calls. Take it anew for each call: after a renewal it is another one.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.way.load().1.clone()
    }

    /// A channel to each of the brokers alone, by its address. Connects at its first call.
    #[must_use]
    pub fn each(&self) -> Vec<(String, Channel)> {
        let channel = |address: &String| {
            let connector = connector(&[address.clone()].into(), 0, self.tls.clone());
            (address.clone(), endpoint().connect_with_connector_lazy(connector))
        };
        self.addresses.iter().map(channel).collect()
    }

    /// The same, with a number that [`Self::elsewhere`] takes.
    pub(crate) fn way(&self) -> (usize, Channel) {
        let way = self.way.load();
        (way.0, way.1.clone())
    }

    /// Leaves a way on which a call was not answered: the next channel begins at the next of the
    /// brokers, or anew at the only one. What runs on the old one runs on.
    pub(crate) fn elsewhere(&self, from: usize) {
        if self.way.load().0 == from {
            let next = from.wrapping_add(1);
            let connector = connector(&self.addresses, next, self.tls.clone());
            self.way.store(Arc::new((next, endpoint().connect_with_connector_lazy(connector))));
        }
    }

    /// The present identity.
    #[must_use]
    pub fn identity(&self) -> Arc<Identity> {
        self.live.get()
    }

    /// The identity as handshakes look it up: for serving under it, too.
    #[must_use]
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Renews the identity whenever half of its life is over. Ends only where it cannot be renewed
    /// any more, and says why. Whoever the bundle in force does not list is no such case: the next
    /// bundle may.
    pub async fn keep_renewed(&self) -> OpenError {
        let mut pause = LOOK;
        loop {
            tokio::time::sleep(pause).await;
            if !self.is_due() {
                continue;
            }
            match self.renew().await {
                Ok(()) => pause = LOOK,
                Err(OpenError::Status(status)) if status.code() == Code::PermissionDenied => {
                    return OpenError::Status(status);
                }
                Err(error) => {
                    let now = self.live.clock().now();
                    let identity = self.identity();
                    if identity.until() <= now {
                        return OpenError::Ended(identity.id().clone(), identity.until());
                    }
                    pause = longer(pause, identity.until().since(now));
                    tracing::warn!(%error, ?pause, "the identity could not be renewed yet");
                }
            }
        }
    }

    /// Renews the identity now; or takes over the one that another process renewed meanwhile.
    pub async fn renew(&self) -> Result<(), OpenError> {
        let dir = self.dir.clone();
        let locked = tokio::task::spawn_blocking(move || dir.lock()).await;
        let _locked = locked.map_err(|_| OpenError::Answer("the lock could not be taken"))??;
        let before = self.identity();
        let stored = self.dir.load()?;
        if stored.until() > before.until() {
            self.adopt(stored).await?;
            return Ok(());
        }
        let key = self.dir.next_key(&stored)?;
        let generation = before.as_peer().generation;
        let request = RenewRequest { csr_der: key.csr().to_vec().into(), generation };
        let svid = self.ask_for(request).await.map_err(OpenError::from_status)?;
        let svid = svid.ok_or(OpenError::Answer("it holds no SVID"))?;
        let renewed = self.dir.keep(&svid, &key, Keep::After(&before))?;
        self.adopt(renewed).await
    }

    /// Asks one broker, and has the next attempt begin at another one where it did not answer.
    async fn ask_for(&self, request: RenewRequest) -> Result<Option<Svid>, Status> {
        let (way, channel) = self.way();
        let mut broker = IdentityServiceClient::new(channel);
        let answer = tokio::time::timeout(RENEWAL, broker.renew(request)).await;
        let silent = |_| Err(Status::deadline_exceeded("the broker did not answer in time"));
        let answer = answer.unwrap_or_else(silent);
        if let Err(status) = &answer
            && matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded)
        {
            self.elsewhere(way);
        }
        Ok(answer?.into_inner().svid)
    }

    fn is_due(&self) -> bool {
        let peer = self.identity();
        let peer = peer.as_peer();
        let half = peer.until.since(peer.from).checked_div(2).unwrap_or_default();
        self.live.clock().now() >= peer.from.plus(half)
    }

    /// What runs on the old connection runs on until the old certificate ends.
    async fn adopt(&self, identity: Identity) -> Result<(), OpenError> {
        self.live.set(identity);
        let channel = connect(&self.addresses, self.tls.clone()).await?;
        self.way.store(Arc::new((self.way.load().0.wrapping_add(1), channel)));
        Ok(())
    }
}

/// The pause after one more failure, with that much of the certificate's life left: twice the one
/// before, as long as there is time for several more attempts.
fn longer(pause: Duration, left: Duration) -> Duration {
    let quarter = left.checked_div(4).unwrap_or_default();
    pause.saturating_mul(2).min(LONGEST_PAUSE).min(quarter).max(LOOK)
}

/// A channel to the one broker at `address`.
pub(crate) async fn dial(address: &str, tls: ClientConfig) -> Result<Channel, OpenError> {
    connect(&[address.to_owned()], Arc::new(tls)).await
}

/// A channel to the first of the addresses where a broker answers; it reconnects by itself.
async fn connect(addresses: &[String], tls: Arc<ClientConfig>) -> Result<Channel, OpenError> {
    let connector = connector(&addresses.into(), 0, tls);
    let connected = endpoint().connect_with_connector(connector).await;
    connected.map_err(|error| match OpenError::within(&error) {
        Some(known) => known,
        None => OpenError::Unreachable(addresses.join(", "), Arc::new(io::Error::other(error))),
    })
}

fn endpoint() -> Endpoint {
    Endpoint::from_static("http://broker")
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_while_idle(true)
}

type Connecting =
    Pin<Box<dyn Future<Output = Result<TokioIo<TlsStream<TcpStream>>, OpenError>> + Send>>;

/// Connects to the first of the addresses where a broker answers, beginning with the one at `from`
/// and going round. Where none does, and one of them may yet, that is what is said.
fn connector(
    addresses: &Arc<[String]>,
    from: usize,
    tls: Arc<ClientConfig>,
) -> impl tower::Service<
    http::Uri,
    Response = TokioIo<TlsStream<TcpStream>>,
    Error = OpenError,
    Future = Connecting,
> + Send
+ Clone
+ 'static {
    let addresses = addresses.clone();
    tower::service_fn(move |_: http::Uri| -> Connecting {
        let (addresses, tls) = (addresses.clone(), TlsConnector::from(tls.clone()));
        Box::pin(async move {
            let mut failed = OpenError::Answer("it names no address");
            let first = from.checked_rem(addresses.len()).unwrap_or(0);
            for address in addresses.iter().cycle().skip(first).take(addresses.len()) {
                match connect_one(address, &tls).await {
                    Ok(stream) => return Ok(TokioIo::new(stream)),
                    Err(_) if matches!(failed, OpenError::Unreachable(..)) => {}
                    Err(error) => failed = error,
                }
            }
            Err(failed)
        })
    })
}

async fn connect_one(address: &str, tls: &TlsConnector) -> Result<TlsStream<TcpStream>, OpenError> {
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut stream = tls.connect(no_name(), stream).await?;
        if stream.fill_buf().await?.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(stream)
    };
    let connected = tokio::time::timeout(CONNECT, connecting).await;
    connected
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| OpenError::in_handshake(address, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_renewals_become_rarer_and_never_too_rare() {
        let secs = Duration::from_secs;
        let mut pauses = vec![LOOK];
        for _ in 0..6 {
            pauses.push(longer(*pauses.last().unwrap(), secs(1800)));
        }
        assert_eq!(pauses, [5, 10, 20, 40, 60, 60, 60].map(secs));
        for (left, pause) in [(120, 30), (40, 10), (12, 5), (0, 5)] {
            assert_eq!(longer(secs(60), secs(left)), secs(pause), "{left}");
        }
    }
}
