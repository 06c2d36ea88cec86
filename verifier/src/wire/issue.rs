//! Writing tokens: minting, attenuation, delegation.
#![cfg(feature = "issue")]

use ed25519_dalek::{SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use super::{Decoded, Malformed, Token};
use crate::caveat::Caveat;
use crate::claims::{Claims, Record};
use crate::holder::HolderKey;
use crate::id::KeyId;

/// A signing key did not sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the signing key is not available: {0}")]
pub struct SignerError(pub String);

/// What signs tokens: a key in memory, or one that a KMS or HSM keeps.
///
/// Signatures must be deterministic (RFC 8032), and both secrets must be the same for every broker
/// that has the key: the bytes of a token are a pure function of its recorded claims and this. An
/// error is safe: nothing was given away. A signature by another key is safe too: no gateway
/// accepts it. Revealing the derivation secret is not: who has it can take back attenuations.
pub trait TokenSigner: Send + Sync {
    /// The number of the key.
    fn key_id(&self) -> KeyId;

    /// Its public half.
    fn public(&self) -> VerifyingKey;

    /// The Ed25519 signature over `message`.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignerError>;

    /// 32 bytes by HKDF-SHA256 from the secret kept with the key, for `info`.
    fn derive(&self, info: &[u8]) -> Result<Zeroizing<[u8; 32]>, SignerError>;
}

/// A signing key in memory.
pub struct LocalSigner {
    key_id: KeyId,
    signing: SigningKey,
    secret: Zeroizing<[u8; 32]>,
}

impl LocalSigner {
    /// From the key's number, its private half and the derivation secret kept with it.
    #[must_use]
    pub fn new(key_id: KeyId, private: &[u8; 32], secret: Zeroizing<[u8; 32]>) -> Self {
        Self { key_id, signing: SigningKey::from_bytes(private), secret }
    }
}

impl TokenSigner for LocalSigner {
    fn key_id(&self) -> KeyId {
        self.key_id
    }

    fn public(&self) -> VerifyingKey {
        self.signing.verifying_key()
    }

    fn sign(&self, _message: &[u8]) -> Result<[u8; 64], SignerError> {
        Err(SignerError("not yet".into()))
    }

    fn derive(&self, _info: &[u8]) -> Result<Zeroizing<[u8; 32]>, SignerError> {
        let _ = &self.secret;
        Err(SignerError("not yet".into()))
    }
}

/// Why a token was not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// What was to be written has no place in a token.
    #[error(transparent)]
    Invalid(#[from] crate::invalid::Invalid),
    /// The result would not be a token: too long, too many blocks.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The key did not sign.
    #[error(transparent)]
    Signer(#[from] SignerError),
}

/// The token of `claims` as recorded at `record`: the same bytes every time.
pub fn mint(
    _claims: &Claims,
    _record: &Record,
    _signer: &dyn TokenSigner,
) -> Result<Token, IssueError> {
    Err(Malformed::Container.into())
}

/// `token` with a block of `caveats` added; `next` is a fresh random secret.
pub fn attenuate(
    _token: &Decoded,
    _caveats: &[Caveat],
    _next: &Zeroizing<[u8; 32]>,
) -> Result<Token, IssueError> {
    Err(Malformed::Container.into())
}

/// `token`, handed on to the key `to` with `caveats` added, by its present holder `from`; `next`
/// is a fresh random secret.
pub fn delegate(
    _token: &Decoded,
    _from: &SigningKey,
    _to: &HolderKey,
    _caveats: &[Caveat],
    _next: &Zeroizing<[u8; 32]>,
) -> Result<Token, IssueError> {
    Err(Malformed::Container.into())
}
