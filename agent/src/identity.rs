//! The identity directory: who a process is, between its runs.
//!
//! | file | holds |
//! |---|---|
//! | `svid.pem` | the certificate, the leaf first |
//! | `key.pem` | its private key (PKCS#8), mode 0600 |
//! | `bundle.pem` | the roots of the trust domain |
//! | `identity.toml` | the brokers: their exact SPIFFE IDs and where they listen |
//! | `next-key.pem` | the key of a renewal under way: asked for again with it, it is the same one |
//!
//! A key never leaves its directory. At renewal the certificate is replaced first; a directory
//! whose certificate belongs to the next key is one step behind, and is read as if it were not.

use std::fs::File;
use std::path::{Path, PathBuf};

use dayfly_proto::v1::Svid;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::spiffe::SpiffeId;
use rcgen::PublicKeyData as _;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::files::{self, FileError};
use crate::svid::{TrustBundle, read_leaf};
use crate::tls::Identity;

/// Why an identity directory is not used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is none.
    #[error("there is no identity in `{}`", .0.display())]
    Missing(PathBuf),
    /// There is one already.
    #[error("`{}` already holds an identity", .0.display())]
    Taken(PathBuf),
    /// A file of it cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// What it holds is not an identity.
    #[error("`{}` is refused: {reason}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The rule that it breaks.
        reason: Invalid,
    },
    /// No key could be made.
    #[error("cannot make a key: {0}")]
    Key(String),
}

/// A key that has no certificate yet, and the request for one.
pub struct NewKey {
    pem: Zeroizing<String>,
    csr: Vec<u8>,
    /// Names its public half, as [`crate::svid::Peer::key_digest`] does.
    digest: [u8; 32],
}

impl NewKey {
    /// A fresh Ed25519 key.
    pub fn generate() -> Result<Self, IdentityError> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519);
        Self::of(&key.map_err(no_key)?)
    }

    /// A key that was made before.
    fn read(pem: &[u8]) -> Option<Self> {
        let pem = std::str::from_utf8(pem).ok()?;
        Self::of(&rcgen::KeyPair::from_pem(pem).ok()?).ok()
    }

    fn of(key: &rcgen::KeyPair) -> Result<Self, IdentityError> {
        // The authority takes nothing but the key from a request: it carries no names.
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let csr = params.serialize_request(key).map_err(no_key)?.der().to_vec();
        let digest = Sha256::digest(key.subject_public_key_info()).into();
        Ok(Self { pem: Zeroizing::new(key.serialize_pem()), csr, digest })
    }

    /// The PKCS#10 request, in DER.
    #[must_use]
    pub fn csr(&self) -> &[u8] {
        &self.csr
    }

    /// The private key: PKCS#8 in PEM.
    #[must_use]
    pub fn pem(&self) -> &Zeroizing<String> {
        &self.pem
    }
}

fn no_key(error: rcgen::Error) -> IdentityError {
    IdentityError::Key(error.to_string())
}

/// Which SVID is kept.
pub(crate) enum Keep<'a> {
    /// The first, with the address of the broker that gave it.
    First {
        /// Where the brokers listen, each as `host:port`.
        addresses: Vec<String>,
    },
    /// One for the same ID as this.
    After(&'a Identity),
}

/// An identity directory.
#[derive(Debug, Clone)]
pub struct IdentityDir {
    path: PathBuf,
}

/// `identity.toml`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Brokers {
    /// Their exact SPIFFE IDs: a server with another one is not spoken to.
    brokers: Vec<String>,
    /// Where they listen, as `host:port`, in order of preference.
    addresses: Vec<String>,
}

impl IdentityDir {
    /// A directory that holds an identity.
    pub fn open(path: &Path) -> Result<Self, IdentityError> {
        let dir = Self { path: path.to_owned() };
        if dir.file("svid.pem").exists() { Ok(dir) } else { Err(IdentityError::Missing(dir.path)) }
    }

    /// A directory that is to hold one, and does not yet.
    pub fn create(path: &Path) -> Result<Self, IdentityError> {
        files::private_dir(path)?;
        let dir = Self { path: path.to_owned() };
        if dir.file("svid.pem").exists() { Err(IdentityError::Taken(dir.path)) } else { Ok(dir) }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The identity that it holds.
    pub fn load(&self) -> Result<Identity, IdentityError> {
        let chain = self.certificates("svid.pem")?;
        let domain = self.leaf_id(&chain)?;
        let roots = self.certificates("bundle.pem")?;
        let bundle = TrustBundle::new(domain.trust_domain(), roots);
        let bundle = bundle.map_err(self.invalid("bundle.pem"))?;
        let with = |key: &str| {
            let pem = files::read_secret(&self.file(key))?;
            let key = PrivateKeyDer::from_pem_slice(&pem)
                .map_err(|_| self.invalid(key)(Invalid::new("key", "must be PKCS#8 in PEM")))?;
            Identity::new(chain.clone(), &key, bundle.clone()).map_err(self.invalid("svid.pem"))
        };
        let loaded = with("key.pem");
        if loaded.is_ok() || !self.file("next-key.pem").exists() {
            return loaded;
        }
        with("next-key.pem").or(loaded)
    }

    /// The brokers: their exact SPIFFE IDs, and where they listen as `host:port`.
    pub fn brokers(&self) -> Result<(Vec<SpiffeId>, Vec<String>), IdentityError> {
        let text = files::read_text(&self.file("identity.toml"))?;
        let refused = self.invalid("identity.toml");
        let read = toml::from_str(&text).map_err(|error: toml::de::Error| {
            Invalid::new("identity.toml", error.message().to_owned())
        });
        let checked = read.and_then(|Brokers { brokers, addresses }| {
            Ok((broker_ids(&brokers, &addresses)?, addresses))
        });
        checked.map_err(refused)
    }

    /// Keeps a new SVID with its key: it is written so that a crash leaves the old identity or the
    /// new one.
    pub(crate) fn keep(
        &self,
        svid: &Svid,
        key: &NewKey,
        what: Keep<'_>,
    ) -> Result<Identity, IdentityError> {
        let chain: Vec<_> = svid.chain_der.iter().map(der).collect();
        let roots: Vec<_> = svid.trust_bundle_der.iter().map(der).collect();
        let id = self.leaf_id(&chain)?;
        let bundle = TrustBundle::new(id.trust_domain(), roots.clone());
        let bundle = bundle.map_err(self.invalid("bundle.pem"))?;
        let private = PrivateKeyDer::from_pem_slice(key.pem.as_bytes())
            .map_err(|_| IdentityError::Key("it cannot be read back".to_owned()))?;
        let identity = Identity::new(chain.clone(), &private, bundle);
        let identity = identity.map_err(self.invalid("svid.pem"))?;
        let addresses = match what {
            Keep::First { addresses } => addresses,
            Keep::After(before) if before.id() == identity.id() => self.brokers()?.1,
            Keep::After(_) => {
                let other = Invalid::new("svid", "must have the same ID as the one before");
                return Err(self.invalid("svid.pem")(other));
            }
        };
        broker_ids(&svid.brokers, &addresses).map_err(self.invalid("identity.toml"))?;
        // A list of strings is written alike in JSON and in TOML.
        let list = |texts: &[String]| serde_json::Value::from(texts).to_string();
        let brokers =
            format!("brokers = {}\naddresses = {}\n", list(&svid.brokers), list(&addresses));
        files::write_secret(&self.file("next-key.pem"), key.pem.as_bytes())?;
        files::write_public(&self.file("bundle.pem"), pem(&roots).as_bytes())?;
        files::write_public(&self.file("identity.toml"), brokers.as_bytes())?;
        files::write_public(&self.file("svid.pem"), pem(&chain).as_bytes())?;
        files::write_secret(&self.file("key.pem"), key.pem.as_bytes())?;
        // If it stays behind, it is the key in use, which `next_key` tells from one that waits.
        let _removed = std::fs::remove_file(self.file("next-key.pem"));
        Ok(identity)
    }

    /// The key for the SVID after `present`, the one that is loaded: that of a renewal that was
    /// asked for and never answered, or a new one, kept before it is used.
    pub(crate) fn next_key(&self, present: &Identity) -> Result<NewKey, IdentityError> {
        let path = self.file("next-key.pem");
        if let Ok(pem) = files::read_secret(&path)
            && let Some(key) = NewKey::read(&pem)
        {
            if key.digest != present.as_peer().key_digest {
                return Ok(key);
            }
            // A crash left it behind. It is the key in use, for which there is no other SVID, and
            // it may stand nowhere else yet.
            files::write_secret(&self.file("key.pem"), &pem)?;
        }
        let new = NewKey::generate()?;
        files::write_secret(&path, new.pem.as_bytes())?;
        Ok(new)
    }

    /// Keeps other processes from renewing the same SVID until the file is dropped.
    pub(crate) fn lock(&self) -> Result<File, IdentityError> {
        let path = self.file("lock");
        let failed = |source| FileError::Io { verb: "write", path: path.clone(), source };
        let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|error| failed(error.into()))?;
        Ok(file)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn certificates(&self, name: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        let content = match files::read_trusted(&self.file(name)) {
            Err(error) if error.is_missing() => {
                return Err(IdentityError::Missing(self.path.clone()));
            }
            content => content?,
        };
        let certificates = CertificateDer::pem_slice_iter(&content).collect::<Result<Vec<_>, _>>();
        certificates.map_err(|_| {
            self.invalid(name)(Invalid::new("certificates", "must be certificates in PEM"))
        })
    }

    fn leaf_id(&self, chain: &[CertificateDer<'_>]) -> Result<SpiffeId, IdentityError> {
        let refused = |reason: String| self.invalid("svid.pem")(Invalid::new("svid", reason));
        let leaf = chain.first().ok_or_else(|| refused("must hold a certificate".to_owned()))?;
        read_leaf(leaf).map(|peer| peer.id).map_err(|error| refused(error.to_string()))
    }

    fn invalid(&self, name: &str) -> impl Fn(Invalid) -> IdentityError + use<> {
        let path = self.file(name);
        move |reason| IdentityError::Invalid { path: path.clone(), reason }
    }
}

/// Who the brokers are, where there is an address at which to look for them.
fn broker_ids(brokers: &[String], addresses: &[String]) -> Result<Vec<SpiffeId>, Invalid> {
    let ids = brokers.iter().map(|id| id.parse()).collect::<Result<Vec<_>, _>>()?;
    if ids.is_empty() || addresses.is_empty() {
        return Err(Invalid::new("brokers", "must name at least one broker"));
    }
    Ok(ids)
}

/// The digest of the trust bundle that came with an SVID.
pub(crate) fn bundle_digest(svid: &Svid) -> [u8; 32] {
    TrustBundle::digest(&svid.trust_bundle_der.iter().map(der).collect::<Vec<_>>())
}

/// Certificates in PEM (RFC 7468).
#[must_use]
pub fn pem(certificates: &[CertificateDer<'_>]) -> String {
    use base64::Engine as _;
    let mut text = String::new();
    for certificate in certificates {
        let body = base64::engine::general_purpose::STANDARD.encode(certificate);
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in body.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

fn der(bytes: &bytes::Bytes) -> CertificateDer<'static> {
    CertificateDer::from(bytes.to_vec())
}

#[cfg(test)]
mod tests;
