//! The embedded authority: gives SVIDs to those who have no SPIRE.
//!
//! It takes a public key from a request and nothing else; the ID is fixed by the join string, or
//! is the caller's own. Must never give an ID that is kept for brokers, nor one of another trust
//! domain, nor renew one document twice, nor forget a lock while a certificate from before it is
//! good.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use dayfly_agent::files::{self, FileError};
use dayfly_agent::identity::{NewKey, pem};
use dayfly_agent::join::JoinString;
use dayfly_agent::svid::{Peer, TrustBundle};
use dayfly_agent::tls::Identity;
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::journal::{DOCUMENT_KEPT, Floor, Invitation, Joins, JournalError, Renew, Renewal};
use crate::random::Random;

/// How long an SVID lives.
pub const SVID_LIFE: Duration = Duration::from_secs(60 * 60);
const _: () = assert!(DOCUMENT_KEPT.as_secs() >= 2 * SVID_LIFE.as_secs());
/// How long a join string is good for.
pub const INVITATION_LIFE: Duration = Duration::from_secs(10 * 60);
/// How long the authority's own certificate lives.
const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// An SVID begins that much before now, for clocks that are behind.
const BEHIND: Duration = Duration::from_secs(60);
/// The largest request for a certificate, in bytes.
const MAX_CSR_BYTES: usize = 4096;

/// The files of an authority, in the directory of its keys.
const KEY_FILE: &str = "authority.key";
const ROOT_FILE: &str = "authority.pem";

const LOCKED: &str =
    "the ID is locked: one of its certificates was renewed twice; join anew to unlock it";

/// Why the authority gives no SVID.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Something in the request is not what it should be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// There is no such invitation, or its secret is another one, or it was used, or it expired.
    #[error("the join string is wrong, used or expired; ask for a new one")]
    NotInvited,
    /// No such SVID was given by this authority.
    #[error("this authority gave no such SVID; join again")]
    Unknown,
    /// One SVID was renewed twice, just now: one of the two who did holds a stolen key.
    #[error("{LOCKED}")]
    Forked,
    /// That happened before.
    #[error("{LOCKED}")]
    Locked,
    /// It was not asked for before, and less than a quarter of the certificate's life is over.
    #[error("a certificate is renewed when a quarter of its life is over: this one from {0} on")]
    TooEarly(Timestamp),
    /// What the authority remembers cannot be reached.
    #[error(transparent)]
    Store(#[from] JournalError),
    /// A file of the authority cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The cryptography failed.
    #[error("cannot make a certificate: {0}")]
    Certificate(String),
}

impl From<rcgen::Error> for AuthorityError {
    fn from(error: rcgen::Error) -> Self {
        Self::Certificate(error.to_string())
    }
}

/// Why a certificate that was good is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Barred {
    /// Its ID is locked.
    #[error("this ID is locked; join anew to unlock it")]
    Locked,
    /// Its ID was locked after it was issued, and somebody has joined anew since.
    #[error("this certificate is from before its ID was locked; join anew")]
    Outdated,
}

/// An SVID as it is given.
#[derive(Debug, Clone)]
pub struct Svid {
    /// For whom.
    pub id: SpiffeId,
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// When it ends.
    pub until: Timestamp,
    /// Which one of the ID's it is.
    pub generation: u64,
}

/// The authority of one trust domain.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    bundle: TrustBundle,
    joins: Arc<dyn Joins>,
    random: Arc<dyn Random>,
    floors: ArcSwap<BTreeMap<SpiffeId, Floor>>,
    /// Held while they are read anew: what was read earlier never replaces what was read later.
    reading: Mutex<()>,
}

impl Authority {
    /// Founds the authority of a trust domain, and keeps its key and certificate in `dir`.
    pub fn found(domain: &str, dir: &Path, now: Timestamp) -> Result<(), AuthorityError> {
        // Whatever can be the trust domain of an ID can be this one's.
        broker_id(domain, None)?;
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        let root = root_params(domain, now)?.self_signed(&key)?;
        files::private_dir(dir)?;
        files::write_secret(&dir.join(KEY_FILE), Zeroizing::new(key.serialize_pem()).as_bytes())?;
        files::write_public(&dir.join(ROOT_FILE), pem(&[root.into()]).as_bytes())?;
        Ok(())
    }

    /// The authority of a trust domain whose key and certificate stand in `dir`.
    pub async fn open(
        domain: &str,
        dir: &Path,
        joins: Arc<dyn Joins>,
        random: Arc<dyn Random>,
    ) -> Result<Self, AuthorityError> {
        let root = files::read_trusted(&dir.join(ROOT_FILE))?;
        let root = CertificateDer::from_pem_slice(&root)
            .map_err(|_| Invalid::new(ROOT_FILE, "must hold a certificate in PEM"))?;
        let key = files::read_secret(&dir.join(KEY_FILE))?;
        let key = std::str::from_utf8(&key).ok().and_then(|pem| KeyPair::from_pem(pem).ok());
        let key = key.ok_or_else(|| Invalid::new(KEY_FILE, "must hold a private key in PEM"))?;
        let issuer = Issuer::from_ca_cert_der(&root, key)?;
        let bundle = TrustBundle::new(domain, vec![root])?;
        let floors = ArcSwap::from_pointee(joins.floors().await?);
        Ok(Self { issuer, bundle, joins, random, floors, reading: Mutex::default() })
    }

    /// The roots of the trust domain.
    #[must_use]
    pub fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// Whether anything is done for whoever comes with this certificate, as far as locks go.
    pub fn admits(&self, peer: &Peer) -> Result<(), Barred> {
        match self.floors.load().get(&peer.id) {
            None => Ok(()),
            Some(Floor::Locked) => Err(Barred::Locked),
            Some(Floor::From(least)) if peer.generation < *least => Err(Barred::Outdated),
            Some(Floor::From(_)) => Ok(()),
        }
    }

    /// How many IDs are locked.
    #[must_use]
    pub fn locked_ids(&self) -> u64 {
        let locked = self.floors.load().values().filter(|floor| **floor == Floor::Locked).count();
        u64::try_from(locked).unwrap_or(u64::MAX)
    }

    /// Reads anew which IDs are locked: another process may have changed it.
    pub async fn refresh(&self) -> Result<(), AuthorityError> {
        let _reading = self.reading.lock().await;
        self.floors.store(Arc::new(self.joins.floors().await?));
        Ok(())
    }

    /// A new identity for this broker itself, `id`, which is one that is kept for brokers.
    pub fn for_broker(&self, id: &SpiffeId, now: Timestamp) -> Result<Identity, AuthorityError> {
        if !id.is_broker() || id.trust_domain() != self.bundle.domain() {
            return Err(Invalid::new("name", "must make an ID that is kept for brokers").into());
        }
        let key = NewKey::generate().map_err(|e| AuthorityError::Certificate(e.to_string()))?;
        let svid = self.issue(id, &public_key(key.csr())?, 0, now)?;
        let private = PrivateKeyDer::from_pem_slice(key.pem().as_bytes())
            .map_err(|_| AuthorityError::Certificate("its key cannot be read".to_owned()))?;
        Ok(Identity::new(vec![svid.certificate], &private, self.bundle.clone())?)
    }

    /// Whether this authority gives such an ID to anybody.
    pub fn may_invite(&self, id: &SpiffeId) -> Result<(), Invalid> {
        let refused = |rule| Err(Invalid::new("spiffe_id", rule));
        if id.trust_domain() != self.bundle.domain() {
            return refused("must be of the broker's trust domain");
        }
        if id.is_broker() {
            return refused("must not be one that is kept for brokers");
        }
        Ok(())
    }

    /// Invites whoever gets the string to join as `id`, once, until the time that is given back.
    pub async fn invite(
        &self,
        id: &SpiffeId,
        now: Timestamp,
    ) -> Result<(JoinString, Timestamp), AuthorityError> {
        self.may_invite(id)?;
        let bundle = TrustBundle::digest(self.bundle.roots());
        let mut string = JoinString { id: [0; 16], secret: Zeroizing::default(), bundle };
        self.random.fill(&mut string.id);
        self.random.fill(&mut *string.secret);
        let secret_hash = Sha256::digest(&string.secret[..]).into();
        let expires_at = now.plus(INVITATION_LIFE);
        let (id, spiffe_id) = (string.id, id.clone());
        let invitation = Invitation { id, secret_hash, spiffe_id, expires_at };
        self.joins.invite(&invitation, now).await?;
        Ok((string, expires_at))
    }

    /// Trades an invitation for the first SVID of its ID, for the key in the request. What is
    /// compared is the hash of a secret of 256 random bits: the time that it takes tells nothing
    /// that helps to find the secret.
    pub async fn join(
        &self,
        id: &[u8; 16],
        secret: &[u8],
        csr: &[u8],
        now: Timestamp,
    ) -> Result<Svid, AuthorityError> {
        let key = public_key(csr)?;
        let secret_hash = Sha256::digest(secret).into();
        let joined = self.joins.join(id, &secret_hash, &key_hash(&key), now).await?;
        let (spiffe_id, generation) = joined.ok_or(AuthorityError::NotInvited)?;
        self.refresh().await?;
        self.issue(&spiffe_id, &key, generation, now)
    }

    /// The next SVID for the ID of `peer`, in place of the one that they came with, which is of
    /// this generation. Asked for again with the same key, it is the same one, byte for byte.
    pub async fn renew(
        &self,
        peer: &Peer,
        generation: u64,
        csr: &[u8],
        now: Timestamp,
    ) -> Result<Svid, AuthorityError> {
        let key = public_key(csr)?;
        let (before, next) = (peer.key_digest, key_hash(&key));
        if before == next {
            return Err(Invalid::new("csr_der", "must be for a new key").into());
        }
        let from = renewed_from(peer);
        let renew = Renew {
            spiffe_id: peer.id.clone(),
            generation,
            key_hash: before,
            next_key_hash: next,
            due: now >= from,
        };
        match self.joins.renew(&renew, now).await? {
            Renewal::Granted { generation, issued_at } => {
                self.issue(&peer.id, &key, generation, issued_at)
            }
            Renewal::TooEarly => Err(AuthorityError::TooEarly(from)),
            Renewal::Unknown => Err(AuthorityError::Unknown),
            Renewal::Forked => {
                tracing::warn!(id = %peer.id, "a certificate was renewed twice: its ID is locked");
                self.refresh().await?;
                Err(AuthorityError::Forked)
            }
            Renewal::Locked => Err(AuthorityError::Locked),
        }
    }

    /// A pure function of its arguments.
    fn issue(
        &self,
        id: &SpiffeId,
        key: &impl PublicKeyData,
        generation: u64,
        now: Timestamp,
    ) -> Result<Svid, AuthorityError> {
        let until = now.plus(SVID_LIFE).floor_to_second();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial(id, &key_hash(key), generation));
        set_life(&mut params, now.minus(BEHIND), until);
        let certificate = params.signed_by(key, &self.issuer)?.into();
        Ok(Svid { id: id.clone(), certificate, until, generation })
    }
}

/// Eight bytes that stand for the ID and the key, the first of them without its sign and never
/// zero, then the generation: both ends read from the certificate which one it is.
fn serial(id: &SpiffeId, key_hash: &[u8; 32], generation: u64) -> SerialNumber {
    let digest = Sha256::new()
        .chain_update(b"dayfly.serial.v1\0")
        .chain_update(key_hash)
        .chain_update(id.as_str())
        .finalize();
    let named = digest.iter().take(8).copied().enumerate();
    let named = named.map(|(place, byte)| if place == 0 { byte & 0x3f | 0x40 } else { byte });
    SerialNumber::from(named.chain(generation.to_be_bytes()).collect::<Vec<_>>())
}

/// From when on a certificate is renewed: when a quarter of its life is over.
fn renewed_from(peer: &Peer) -> Timestamp {
    let quarter = peer.until.since(peer.from).checked_div(4).unwrap_or_default();
    peer.from.plus(quarter)
}

/// The ID of the broker of a trust domain; of the one of this name, where there are several.
pub fn broker_id(domain: &str, name: Option<&str>) -> Result<SpiffeId, Invalid> {
    let id = format!("spiffe://{domain}/dayfly/broker");
    let id: Option<SpiffeId> = id.parse().ok();
    let id = id.filter(|id| id.trust_domain() == domain);
    let id = id.ok_or_else(|| Invalid::new("trust_domain", "must be 1 to 255 of a-z 0-9 . - _"))?;
    let Some(name) = name else { return Ok(id) };
    format!("{id}/{name}")
        .parse()
        .ok()
        .filter(|id: &SpiffeId| id.segments().count() == 3)
        .ok_or_else(|| Invalid::new("name", "must be one segment of a SPIFFE ID, as in `west-1`"))
}

/// The key for which a request asks. Its signature is checked; of its names nothing is looked at.
fn public_key(csr: &[u8]) -> Result<rcgen::PublicKey, Invalid> {
    let refused = |rule: &'static str| Invalid::new("csr_der", rule);
    if csr.len() > MAX_CSR_BYTES {
        return Err(refused("must not be longer than 4096 bytes"));
    }
    let read = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))
        .map_err(|_| refused("must be a PKCS#10 request, signed by its own key"))?;
    let key = read.public_key;
    let algorithm = PublicKeyData::algorithm(&key);
    let ed25519 = algorithm == &rcgen::PKCS_ED25519;
    if !ed25519 && algorithm != &rcgen::PKCS_ECDSA_P256_SHA256 {
        return Err(refused("must be for an Ed25519 or a P-256 key"));
    }
    if ed25519 && HolderKey::from_slice(key.der_bytes()).is_err() {
        return Err(refused("must be for a key under which not everybody can sign"));
    }
    Ok(key)
}

/// SHA-256 over the public key info, as [`Peer::key_digest`] is.
fn key_hash(key: &impl PublicKeyData) -> [u8; 32] {
    Sha256::digest(key.subject_public_key_info()).into()
}

fn root_params(domain: &str, now: Timestamp) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Dayfly");
    params.distinguished_name.push(DnType::CommonName, format!("authority of {domain}"));
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{domain}").try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_life(&mut params, now.minus(BEHIND), now.plus(ROOT_LIFE));
    Ok(params)
}

#[expect(clippy::arithmetic_side_effects, reason = "a timestamp lies before the year 10000")]
fn set_life(params: &mut CertificateParams, from: Timestamp, until: Timestamp) {
    let first_day = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = first_day + Duration::from_secs(from.as_secs());
    params.not_after = first_day + Duration::from_secs(until.as_secs());
}

#[cfg(test)]
mod tests;
