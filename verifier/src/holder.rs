//! Who holds a token: the key, or the identity, whose possession is proved at every use.

use std::fmt;

use ed25519_dalek::VerifyingKey;

use crate::invalid::Invalid;

/// The public key that a token is bound to: Ed25519, never a small-order point. It is held as its
/// bytes, since it is compared far more often than verified with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HolderKey([u8; 32]);

impl HolderKey {
    /// From its 32 bytes (RFC 8032, section 5.1.2); refuses what is not a point and what is of
    /// small order, under which anybody could sign.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, Invalid> {
        let refused = || Invalid::new("holder_key", "must be an Ed25519 public key");
        let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| refused())?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| refused())?;
        if key.is_weak() { Err(refused()) } else { Ok(Self(bytes)) }
    }

    /// From bytes that [`Self::from_slice`] took before, or that nothing is believed of until a
    /// signature by somebody who checked them is. Of others, nothing is ever proved:
    /// [`Self::verifying_key`] says `None`, or `verify_strict` refuses.
    #[must_use]
    pub const fn unchecked(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key to verify with, by `verify_strict`, which refuses small-order points once more. It
    /// costs a tenth of a verification: keep it where there are many. `None` if the bytes are no
    /// point, which only those of a token that nobody vouched for can be.
    #[must_use]
    pub fn verifying_key(&self) -> Option<VerifyingKey> {
        VerifyingKey::from_bytes(&self.0).ok()
    }
}

impl fmt::Display for HolderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.as_bytes()))
    }
}

impl fmt::Debug for HolderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HolderKey({self})")
    }
}

impl std::str::FromStr for HolderKey {
    type Err = Invalid;

    /// From 64 lower-case hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let bytes = hex::decode(text).ok().filter(|_| lower).unwrap_or_default();
        Self::from_slice(&bytes)
    }
}

/// What a use of the token must prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Confirmation {
    /// Possession of this key.
    Key(HolderKey),
    /// The token's subject as the SPIFFE ID of the mutual TLS connection. Only for IDs that the
    /// policy bundle marks exclusive.
    Identity,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_keys_of_small_order_and_wrong_length() {
        let mut identity = [0u8; 32];
        identity[0] = 1;
        assert!(HolderKey::from_slice(&identity).is_err());
        assert!(HolderKey::from_slice(&[0; 32]).is_err());
        assert!(HolderKey::from_slice(&[1; 31]).is_err());
    }
}
