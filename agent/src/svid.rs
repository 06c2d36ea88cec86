//! X.509-SVIDs, checked as strictly on either side of a connection: who the peer is, and until
//! when. Roots of one trust domain never vouch for an ID of another.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
use x509_parser::time::ASN1Time;

/// The object identifier of Ed25519 keys (RFC 8410, section 3).
const ED25519: &str = "1.3.101.112";
/// A chain has a leaf and few intermediates; more is an attempt to keep us busy.
const MAX_CHAIN: usize = 6;

/// Who is on the other end of a connection, as their certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Their SPIFFE ID.
    pub id: SpiffeId,
    /// The certificate's key, where it is one that a token can be bound to.
    pub key: Option<HolderKey>,
    /// SHA-256 over the certificate's public key info: names the certificate's key, of any kind.
    pub key_digest: [u8; 32],
    /// Which one of the ID's certificates it is, by the count of the embedded authority: the last
    /// eight bytes of the serial number. Of no meaning where another authority gave it.
    pub generation: u64,
    /// When the certificate begins.
    pub from: Timestamp,
    /// When the certificate ends, and the connection with it.
    pub until: Timestamp,
}

/// Why a certificate is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// It is not a certificate.
    #[error("it cannot be read as a certificate")]
    Malformed,
    /// It came with more certificates than a chain has.
    #[error("the chain is too long")]
    ChainTooLong,
    /// It has no name of the kind URI, or several.
    #[error("it must have exactly one URI name, not {0}")]
    UriNames(usize),
    /// Its URI name is not a SPIFFE ID.
    #[error("its URI name is refused: {0}")]
    Id(Invalid),
    /// It belongs to an authority, not to a workload.
    #[error("it is a certificate of an authority")]
    Authority,
    /// It may not sign handshakes.
    #[error("its key usage must be digital signature, and neither certificates nor lists")]
    KeyUsage,
    /// Its ID belongs to another trust domain than the roots.
    #[error("its trust domain is not the one of the trust bundle")]
    TrustDomain,
    /// The time is not within its life.
    #[error("it is expired, or not valid yet")]
    Expired,
    /// No path leads to a root of the trust bundle, or not for this purpose.
    #[error("the trust bundle does not vouch for it: {0}")]
    Path(webpki::Error),
}

/// For which side of a connection a certificate is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// By the one who connects.
    Client,
    /// By the one who is connected to.
    Server,
}

/// The roots of one trust domain.
#[derive(Clone)]
pub struct TrustBundle {
    domain: Arc<str>,
    roots: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    until: Timestamp,
}

impl TrustBundle {
    /// Roots that vouch for the IDs of one trust domain. At least one; each must be the
    /// certificate of an authority, lest a leaf pass for a root.
    pub fn new(domain: &str, roots: Vec<CertificateDer<'static>>) -> Result<Self, Invalid> {
        let refused = |rule: &'static str| Invalid::new("trust_bundle", rule);
        if roots.is_empty() {
            return Err(refused("must have at least one root certificate"));
        }
        let mut until = Vec::new();
        let anchor = |root: &CertificateDer<'static>| {
            let (_, parsed) = X509Certificate::from_der(root)
                .map_err(|_| refused("must consist of certificates"))?;
            if !parsed.is_ca() {
                return Err(refused("must hold certificates of authorities only"));
            }
            let end = time(parsed.validity().not_after);
            until.push(end.map_err(|_| refused("must end at a time"))?);
            let anchor = webpki::anchor_from_trusted_cert(root);
            anchor.map(|anchor| anchor.to_owned()).map_err(|_| refused("must consist of roots"))
        };
        let anchors = roots.iter().map(anchor).collect::<Result<_, _>>()?;
        let until = until.into_iter().min().unwrap_or_default();
        Ok(Self { domain: domain.into(), roots, anchors, until })
    }

    /// When the first of them ends.
    #[must_use]
    pub const fn until(&self) -> Timestamp {
        self.until
    }

    /// The trust domain whose IDs they vouch for.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The certificates.
    #[must_use]
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// Names this set of roots, in this order: what a join string pins.
    #[must_use]
    pub fn digest(roots: &[CertificateDer<'_>]) -> [u8; 32] {
        let mut hash = Sha256::new_with_prefix(b"dayfly.trust-bundle.v1\0");
        for root in roots {
            hash.update(u64::try_from(root.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(root);
        }
        hash.finalize().into()
    }

    /// The peer that `chain`, the leaf first, proves at `now`, if these roots vouch for it.
    pub fn check(
        &self,
        chain: &[CertificateDer<'_>],
        side: Side,
        now: Timestamp,
    ) -> Result<Peer, SvidError> {
        let (leaf, intermediates) = chain.split_first().ok_or(SvidError::Malformed)?;
        if chain.len() > MAX_CHAIN {
            return Err(SvidError::ChainTooLong);
        }
        let peer = read_leaf(leaf)?;
        if peer.id.trust_domain() != self.domain() {
            return Err(SvidError::TrustDomain);
        }
        // The library takes the last second in; a connection would end as soon as it began.
        if now >= peer.until {
            return Err(SvidError::Expired);
        }
        let usage = match side {
            Side::Client => webpki::KeyUsage::client_auth(),
            Side::Server => webpki::KeyUsage::server_auth(),
        };
        let leaf = webpki::EndEntityCert::try_from(leaf).map_err(path_error)?;
        let at = UnixTime::since_unix_epoch(Duration::from_millis(now.as_ms()));
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        leaf.verify_for_usage(algorithms, &self.anchors, intermediates, at, usage, None, None)
            .map_err(path_error)?;
        Ok(peer)
    }
}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustBundle({}, {} roots)", self.domain, self.roots.len())
    }
}

fn path_error(error: webpki::Error) -> SvidError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the library's enum is open")]
    match error {
        webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => {
            SvidError::Expired
        }
        error => SvidError::Path(error),
    }
}

/// What a leaf says, by the rules of the X.509-SVID standard (sections 2 and 4). Says nothing
/// about who vouches for it.
pub fn read_leaf(der: &CertificateDer<'_>) -> Result<Peer, SvidError> {
    let (rest, cert) = X509Certificate::from_der(der).map_err(|_| SvidError::Malformed)?;
    if !rest.is_empty() {
        return Err(SvidError::Malformed);
    }
    // These look-ups fail where an extension occurs twice.
    let constraints = cert.basic_constraints().map_err(|_| SvidError::Malformed)?;
    if constraints.is_some_and(|found| found.value.ca) {
        return Err(SvidError::Authority);
    }
    let usage = cert.key_usage().map_err(|_| SvidError::Malformed)?.ok_or(SvidError::KeyUsage)?;
    let usage = usage.value;
    if !usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign() {
        return Err(SvidError::KeyUsage);
    }
    let names = cert.subject_alternative_name().map_err(|_| SvidError::Malformed)?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let uris: Vec<&str> = names.iter().filter_map(uri).collect();
    let [id] = uris.as_slice() else { return Err(SvidError::UriNames(uris.len())) };
    let id: SpiffeId = id.parse().map_err(SvidError::Id)?;
    let key_info = cert.public_key();
    let ed25519 = key_info.algorithm.algorithm.to_id_string() == ED25519;
    let key = HolderKey::from_slice(&key_info.subject_public_key.data).ok().filter(|_| ed25519);
    let (from, until) = (time(cert.validity().not_before)?, time(cert.validity().not_after)?);
    let generation =
        cert.raw_serial().last_chunk::<8>().map_or(0, |count| u64::from_be_bytes(*count));
    let key_digest = Sha256::digest(key_info.raw).into();
    Ok(Peer { id, key, key_digest, generation, from, until })
}

fn time(time: ASN1Time) -> Result<Timestamp, SvidError> {
    let secs = u64::try_from(time.timestamp()).map_err(|_| SvidError::Malformed)?;
    Timestamp::from_secs(secs).map_err(|_| SvidError::Malformed)
}

fn uri<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the library's enum; only URIs matter")]
    match name {
        GeneralName::URI(uri) => Some(uri),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
