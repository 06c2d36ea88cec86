//! Free text under a salted digest: the log and the statements carry the digest, so that the text
//! can be erased, and cannot be guessed from what stays.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::id::TextDigest;
use crate::invalid::Invalid;

/// The longest justification or reason, in bytes.
pub const MAX_FREE_TEXT_BYTES: usize = 2048;

/// What is hashed before a text: 16 random bytes, drawn anew for each. Kept with the text, and
/// erased with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt([u8; 16]);

impl Salt {
    /// From its bytes, drawn from the operating system's randomness.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// From a slice, which must have exactly the right length.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, Invalid> {
        let bytes = bytes.try_into();
        bytes.map(Self).map_err(|_| Invalid::new("salt", "must be 16 bytes long"))
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// SHA-256 over `dayfly.text.v1`, a zero byte, the salt, and the text; refuses a text longer
    /// than [`MAX_FREE_TEXT_BYTES`].
    pub fn digest(&self, text: &str) -> Result<TextDigest, Invalid> {
        if text.len() > MAX_FREE_TEXT_BYTES {
            return Err(Invalid::new("text", "must not be longer than 2048 bytes"));
        }
        let hash = Sha256::new_with_prefix(b"dayfly.text.v1\0").chain_update(self.0);
        Ok(TextDigest::new(hash.chain_update(text).finalize().into()))
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(..)")
    }
}
