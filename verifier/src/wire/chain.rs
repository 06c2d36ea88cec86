//! The chain of signatures that holds the blocks of a token together (Biscuit specification,
//! section "Cryptography"). Version 0 signs a block with the next key; version 1 also binds the
//! signature before it, and is what every block has from the first delegation on, and every block
//! of Datalog 3.3.

use ed25519_dalek::{Signature, SigningKey, VerifyingKey};

use super::BadSignature;
use super::schema::{Biscuit, ED25519, PublicKey, SignedBlock};

/// The version of the signature of a block that stands after one of `before`.
pub(super) const fn version(before: u32, datalog: u32, delegates: bool) -> u32 {
    if delegates || datalog >= 6 { 1 } else { before }
}

/// What the key before `block` signs. `previous` is the signature of the block before, which the
/// authority block does not have.
pub(super) fn message(block: &SignedBlock, previous: Option<&[u8]>) -> Vec<u8> {
    let algorithm = ED25519.to_le_bytes();
    let external = block.external.as_ref().map(|external| external.signature.as_slice());
    let next = block.next_key.key.as_slice();
    let Some(version) = block.version else {
        return [&block.block, external.unwrap_or_default(), &algorithm, next].concat();
    };
    let mut message = [
        b"\0BLOCK\0\0VERSION\0".as_slice(),
        &version.to_le_bytes(),
        b"\0PAYLOAD\0",
        &block.block,
        b"\0ALGORITHM\0",
        &algorithm,
        b"\0NEXTKEY\0",
        next,
    ]
    .concat();
    for (tag, part) in [(b"\0PREVSIG\0".as_slice(), previous), (b"\0EXTERNALSIG\0", external)] {
        if let Some(part) = part {
            message.extend_from_slice(tag);
            message.extend_from_slice(part);
        }
    }
    message
}

/// What the holder signs to hand a token on with `payload`, after the block signed `previous`.
pub(super) fn external_message(payload: &[u8], previous: &[u8]) -> Vec<u8> {
    [
        b"\0EXTERNAL\0\0VERSION\0".as_slice(),
        &1u32.to_le_bytes(),
        b"\0PAYLOAD\0",
        payload,
        b"\0PREVSIG\0",
        previous,
    ]
    .concat()
}

/// Checks every signature of a token within the profile, and the proof at its end.
pub(super) fn check(token: &Biscuit, root: &VerifyingKey) -> Result<(), BadSignature> {
    let mut previous = None;
    let mut next_key: Option<&PublicKey> = None;
    let mut last = 0u8;
    for (block, index) in std::iter::once(&token.authority).chain(&token.blocks).zip(0u8..) {
        let bad = || BadSignature { block: index };
        let key = next_key.map_or(Some(*root), public).ok_or(BadSignature { block: last })?;
        verify(&key, &message(block, previous), &block.signature).ok_or_else(bad)?;
        if let (Some(external), Some(previous)) = (&block.external, previous) {
            let holder = public(&external.key).ok_or_else(bad)?;
            let signed = external_message(&block.block, previous);
            verify(&holder, &signed, &external.signature).ok_or_else(bad)?;
        }
        next_key = Some(&block.next_key);
        previous = Some(block.signature.as_slice());
        last = index;
    }
    let secret = token.proof.next_secret.as_deref().and_then(|s| <&[u8; 32]>::try_from(s).ok());
    // The last key signs nothing: its bytes are enough.
    let proves = secret.zip(next_key).is_some_and(|(secret, key)| {
        SigningKey::from_bytes(secret).verifying_key().as_bytes().as_slice() == key.key
    });
    if proves { Ok(()) } else { Err(BadSignature { block: last }) }
}

fn verify(key: &VerifyingKey, message: &[u8], signature: &[u8]) -> Option<()> {
    let signature = Signature::from_slice(signature).ok()?;
    key.verify_strict(message, &signature).ok()
}

fn public(key: &PublicKey) -> Option<VerifyingKey> {
    VerifyingKey::from_bytes(key.key.as_slice().try_into().ok()?).ok()
}
