//! TLS as Dayfly speaks it, on both sides: version 1.3 only, both ends with an SVID, no resumption.
//!
//! Certificates, keys and trust bundles are looked up anew for every handshake, so that a renewed
//! identity counts from the next connection on. Names of the domain name system mean nothing here:
//! a client accepts exactly the SPIFFE IDs that it was told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::{Clock, Timestamp};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, Error, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::svid::{Peer, TrustBundle, read_leaf};
use verify::{Trust, Verify};

mod verify;

/// What a process is at present: its certificate with the key, and whom it trusts. Replaced whole
/// at renewal.
#[derive(Clone)]
pub struct Identity {
    peer: Peer,
    certified: Arc<CertifiedKey>,
    bundle: TrustBundle,
}

impl Identity {
    /// Puts an identity together: the leaf first in the chain, with the key that it is for.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
        bundle: TrustBundle,
    ) -> Result<Self, Invalid> {
        let refused = |rule: &'static str| Invalid::new("svid", rule);
        let leaf = chain.first().ok_or_else(|| refused("must have a certificate"))?;
        let peer = read_leaf(leaf).map_err(|error| Invalid::new("svid", error.to_string()))?;
        if peer.id.trust_domain() != bundle.domain() {
            return Err(refused("must be of the trust domain of its bundle"));
        }
        let key = aws_lc_rs::sign::any_supported_type(key)
            .map_err(|_| refused("must have a key of a supported kind"))?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_| refused("must belong to its key"))?;
        Ok(Self { peer, certified: Arc::new(certified), bundle })
    }

    /// The SPIFFE ID.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.peer.id
    }

    /// When the certificate ends.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        self.peer.until
    }

    /// The identity as the other end of a connection sees it.
    #[must_use]
    pub fn as_peer(&self) -> &Peer {
        &self.peer
    }

    /// The certificates, the leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// Whom it trusts.
    #[must_use]
    pub fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, until {})", self.peer.id, self.peer.until)
    }
}

/// Whether the other end of a connection may be there, beside what its certificate says. It is
/// asked in the handshake, and every second after it. Clones ask the same.
#[derive(Clone)]
pub struct Admission(Arc<dyn Fn(&Peer) -> bool + Send + Sync>);

impl Admission {
    /// Whoever has a certificate of the trust domain.
    #[must_use]
    pub fn everybody() -> Self {
        Self::of(|_| true)
    }

    /// Those for whom `admits` is true. It must not wait.
    #[must_use]
    pub fn of(admits: impl Fn(&Peer) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(admits))
    }

    /// Whether this one may be there.
    #[must_use]
    pub fn admits(&self, peer: &Peer) -> bool {
        (self.0)(peer)
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admission")
    }
}

/// The present identity, as handshakes look it up. Clones share it.
#[derive(Clone)]
pub struct Live {
    identity: Arc<ArcSwap<Identity>>,
    clock: Arc<dyn Clock>,
}

impl Live {
    /// Starts with `identity`; certificates are checked by `clock`.
    #[must_use]
    pub fn new(identity: Identity, clock: Arc<dyn Clock>) -> Self {
        Self { identity: Arc::new(ArcSwap::from_pointee(identity)), clock }
    }

    /// The identity as of now.
    #[must_use]
    pub fn get(&self) -> Arc<Identity> {
        self.identity.load_full()
    }

    /// Puts another one in its place: it counts from the next handshake on.
    pub fn set(&self, identity: Identity) {
        self.identity.store(Arc::new(identity));
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// How to accept connections whose other end must have an SVID of the same trust domain, and
    /// be one whom `admission` admits. `protocols` are offered by application-layer protocol
    /// negotiation (`h2`, `http/1.1`).
    pub(crate) fn accept_mutual(
        &self,
        protocols: &[&str],
        admission: Admission,
    ) -> Result<ServerConfig, Error> {
        let verifier = Arc::new(Verify(Trust::Domain(self.clone(), admission)));
        let config = server_builder(&self.clock)?.with_client_cert_verifier(verifier);
        Ok(server(config.with_cert_resolver(Arc::new(Present(self.clone()))), protocols))
    }

    /// How to accept connections of those who have no certificate yet: for joining, and nothing
    /// else. The roots are sent along, since the other end knows no more than their digest.
    pub(crate) fn accept_anyone(&self, protocols: &[&str]) -> Result<ServerConfig, Error> {
        let config = server_builder(&self.clock)?.with_no_client_auth();
        Ok(server(config.with_cert_resolver(Arc::new(PresentWithRoots(self.clone()))), protocols))
    }

    /// How to connect to one of exactly the `allowed` IDs.
    pub fn connect_to(&self, allowed: Vec<SpiffeId>) -> Result<ClientConfig, Error> {
        let verifier = Arc::new(Verify(Trust::Exactly(self.clone(), allowed)));
        let config = client_builder(&self.clock)?.dangerous();
        let config = config.with_custom_certificate_verifier(verifier);
        Ok(client(config.with_client_cert_resolver(Arc::new(Present(self.clone())))))
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// How to connect to a broker of which no more is known than the digest of its trust bundle.
pub(crate) fn connect_pinned(
    digest: [u8; 32],
    clock: &Arc<dyn Clock>,
) -> Result<ClientConfig, Error> {
    let verifier = Arc::new(Verify(Trust::Pinned(digest)));
    let config = client_builder(clock)?.dangerous().with_custom_certificate_verifier(verifier);
    Ok(client(config.with_no_client_auth()))
}

/// The TLS library wants a name for the other end. This one is neither sent nor looked at.
pub(crate) fn no_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

type ServerBuilder = rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>;
type ClientBuilder = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

fn server_builder(clock: &Arc<dyn Clock>) -> Result<ServerBuilder, Error> {
    ServerConfig::builder_with_details(provider(), Arc::new(Now(clock.clone())))
        .with_protocol_versions(&[&rustls::version::TLS13])
}

fn client_builder(clock: &Arc<dyn Clock>) -> Result<ClientBuilder, Error> {
    ClientConfig::builder_with_details(provider(), Arc::new(Now(clock.clone())))
        .with_protocol_versions(&[&rustls::version::TLS13])
}

/// A resumed session would skip the check against the present trust bundle: there is none.
fn server(mut config: ServerConfig, protocols: &[&str]) -> ServerConfig {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

fn client(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// The clock of the process, as the TLS library asks for it.
struct Now(Arc<dyn Clock>);

impl rustls::time_provider::TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.now().as_ms())))
    }
}

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Now")
    }
}

/// Shows the present certificate.
#[derive(Debug)]
struct Present(Live);

impl ResolvesServerCert for Present {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.get().certified.clone())
    }
}

impl ResolvesClientCert for Present {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.get().certified.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Shows the present certificate and the roots that vouch for it.
#[derive(Debug)]
struct PresentWithRoots(Live);

impl ResolvesServerCert for PresentWithRoots {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let identity = self.0.get();
        let leaf = identity.certified.cert.iter().take(1);
        let chain = leaf.chain(identity.bundle.roots()).cloned().collect();
        Some(Arc::new(CertifiedKey::new(chain, identity.certified.key.clone())))
    }
}
