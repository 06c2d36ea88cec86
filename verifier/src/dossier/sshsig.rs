//! SSHSIG: signatures by SSH keys over a message in a namespace (`PROTOCOL.sshsig` of OpenSSH).
//!
//! Ed25519 alone, in software or on a FIDO token, and verified strictly. The signed data binds the
//! namespace; whether the key may sign for anybody is for the caller to check.

use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha256};
use ssh_key::{LineEnding, PublicKey, SshSig};

use crate::request::SignerKey;

/// The longest armoured signature, in bytes. One by a FIDO key has about 500.
const MAX_ARMOURED_BYTES: usize = 4096;

/// The flag of a FIDO signature that says a person was there (WebAuthn, section 6.1).
const USER_PRESENT: u8 = 0x01;

/// Who made a signature that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The key.
    pub key: SignerKey,
    /// Whether the key stands on a FIDO token that a person touched for this signature.
    pub presence: bool,
}

/// Why a signature does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// It is not an armoured SSHSIG of version 1, or more than that.
    #[error("the signature is not an armoured SSH signature as `ssh-keygen -Y sign` writes it")]
    Form,
    /// It was made for something else.
    #[error("the signature was made in another namespace")]
    Namespace,
    /// It was made by a key of another kind, or by one under which anybody could sign.
    #[error("the signature is not by a key of the kind ssh-ed25519 or sk-ssh-ed25519")]
    KeyKind,
    /// A FIDO token made it without anybody touching it.
    #[error("the signature was made without a touch of the security key")]
    NotPresent,
    /// It is not a signature of this key over this message.
    #[error("the signature does not match what was signed")]
    Mismatch,
}

/// Verifies that `armoured` is an SSHSIG over `message` in `namespace`, and says by which key.
///
/// Accepts exactly the armour that `ssh-keygen` writes, its last line end aside, so that no two
/// texts are the same signature.
pub fn verify_sshsig(
    namespace: &str,
    message: &[u8],
    armoured: &str,
) -> Result<Signed, BadSignature> {
    let signature = read_armour(armoured)?;
    if signature.namespace() != namespace {
        return Err(BadSignature::Namespace);
    }
    let data = SshSig::signed_data(namespace, signature.hash_alg(), message)
        .map_err(|_| BadSignature::Form)?;
    let key = signature.public_key();
    let presence = if let Some(key) = key.ed25519() {
        verify_strict(&key.0, &data, signature.signature_bytes())?;
        false
    } else if let Some(key) = key.sk_ed25519() {
        let (raw, flags, signed) =
            fido_message(key.application(), &data, signature.signature_bytes())?;
        verify_strict(&key.public_key().0, &signed, raw)?;
        if flags & USER_PRESENT == 0 {
            return Err(BadSignature::NotPresent);
        }
        true
    } else {
        return Err(BadSignature::KeyKind);
    };
    let key = PublicKey::new(key.clone(), "").to_openssh();
    let key = key.ok().and_then(|line| line.parse().ok()).ok_or(BadSignature::KeyKind)?;
    Ok(Signed { key, presence })
}

fn read_armour(armoured: &str) -> Result<SshSig, BadSignature> {
    if armoured.len() > MAX_ARMOURED_BYTES {
        return Err(BadSignature::Form);
    }
    let signature = SshSig::from_pem(armoured).map_err(|_| BadSignature::Form)?;
    let again = signature.to_pem(LineEnding::LF).map_err(|_| BadSignature::Form)?;
    let same = again.trim_end_matches('\n') == armoured.strip_suffix('\n').unwrap_or(armoured);
    let kind = signature.public_key().algorithm() == signature.algorithm();
    if !same || !kind || signature.version() != 1 || !signature.reserved().is_empty() {
        return Err(BadSignature::Form);
    }
    Ok(signature)
}

fn verify_strict(key: &[u8; 32], message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
    let key = VerifyingKey::from_bytes(key).ok().filter(|key| !key.is_weak());
    let key = key.ok_or(BadSignature::KeyKind)?;
    let signature = Signature::from_slice(signature).map_err(|_| BadSignature::Mismatch)?;
    key.verify_strict(message, &signature).map_err(|_| BadSignature::Mismatch)
}

/// Takes the data of a FIDO signature apart: the Ed25519 signature, the flags, and what the token
/// signed: SHA-256 of the application, flags, counter, SHA-256 of `data` (`PROTOCOL.u2f`).
fn fido_message<'a>(
    application: &str,
    data: &[u8],
    signature: &'a [u8],
) -> Result<(&'a [u8], u8, Vec<u8>), BadSignature> {
    let (raw, trailer) = signature.split_at_checked(64).ok_or(BadSignature::Form)?;
    let [flags, _, _, _, _] = trailer else { return Err(BadSignature::Form) };
    let mut signed = Sha256::digest(application).to_vec();
    signed.extend_from_slice(trailer);
    signed.extend_from_slice(&Sha256::digest(data));
    Ok((raw, *flags, signed))
}
