//! The feed key, which signs heads, and the trust statement that names it. Must never let the
//! private key out but to its own file.

use std::path::{Path, PathBuf};

use dayfly_agent::files::{self, FileError};
use dayfly_verifier::feed::{Head, SignedHead};
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::KeyId;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::trust::Signed;
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// The key that signs heads of the feed.
pub struct FeedKey {
    id: KeyId,
    signing: SigningKey,
}

/// Why a feed key or a trust statement was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file, or who may touch it.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not what it should be.
    #[error("`{}`: {rule}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; never its content.
        rule: &'static str,
    },
}

#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    key: u32,
    private: String,
}

impl FeedKey {
    /// A new key from random bytes.
    #[must_use]
    pub fn generate(id: KeyId, random: &Zeroizing<[u8; 32]>) -> Self {
        Self { id, signing: SigningKey::from_bytes(random) }
    }

    /// Reads it from its file, which its owner alone may read.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let refused = || KeyError::Content { path: path.into(), rule: "it is not a feed key" };
        let bytes = files::read_secret(path)?;
        let stored: StoredKey = serde_json::from_slice(&bytes).map_err(|_| refused())?;
        let mut private = Zeroizing::new([0; 32]);
        hex::decode_to_slice(&stored.private, private.as_mut_slice()).map_err(|_| refused())?;
        Ok(Self::generate(KeyId(stored.key), &private))
    }

    /// Writes it to a file that its owner alone may read.
    pub fn write(&self, path: &Path) -> Result<(), KeyError> {
        let private = hex::encode(Zeroizing::new(self.signing.to_bytes()));
        let stored = StoredKey { key: self.id.0, private };
        let refused = |_| KeyError::Content { path: path.into(), rule: "it cannot be written" };
        let bytes = Zeroizing::new(serde_json::to_vec(&stored).map_err(refused)?);
        Ok(files::write_secret(path, &bytes)?)
    }

    /// Its number.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// Its public half, for the trust statement.
    pub fn public(&self) -> Result<HolderKey, Invalid> {
        HolderKey::from_slice(self.signing.verifying_key().as_bytes())
    }

    /// Signs a head.
    #[must_use]
    pub fn sign(&self, head: &Head) -> SignedHead {
        head.sign(&self.signing)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredTrust {
    /// The JSON that is signed, as text.
    statement: String,
    /// Ed25519, in hexadecimal.
    signature: String,
}

/// Reads a signed trust statement. Whether the trust root signed it, gateways judge.
pub fn read_trust(path: &Path) -> Result<Signed, KeyError> {
    let refused = || KeyError::Content { path: path.into(), rule: "it is not a trust statement" };
    let bytes = files::read_trusted(path)?;
    let stored: StoredTrust = serde_json::from_slice(&bytes).map_err(|_| refused())?;
    let mut signature = [0; 64];
    hex::decode_to_slice(&stored.signature, &mut signature).map_err(|_| refused())?;
    Ok(Signed { statement: stored.statement.into_bytes(), signature })
}

/// Writes a signed trust statement.
pub fn write_trust(path: &Path, signed: &Signed) -> Result<(), KeyError> {
    let refused = || KeyError::Content { path: path.into(), rule: "it cannot be written" };
    let statement = String::from_utf8(signed.statement.clone()).map_err(|_| refused())?;
    let stored = StoredTrust { statement, signature: hex::encode(signed.signature) };
    let bytes = serde_json::to_vec_pretty(&stored).map_err(|_| refused())?;
    Ok(files::write_public(path, &bytes)?)
}
