//! The keys of a broker that sign no tokens: those that sign heads of the feed, and the trust root.
//! A key stands alone in its file, as the TOML that names its end.

use std::path::Path;

use dayfly_agent::files::{self, FileError};
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::KeyId;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::time::Timestamp;
use dayfly_verifier::trust::ListedKey;
use ed25519_dalek::SigningKey;
use serde::Deserialize;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::random::Random;

/// An Ed25519 key with its number and its end.
pub struct NumberedKey {
    /// Its number, as the trust statement lists it.
    pub id: KeyId,
    /// From when on nothing that it signed is accepted.
    pub not_after: Timestamp,
    /// The key. It wipes itself.
    pub signing: SigningKey,
}

/// Why a key file is not used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// It does not hold a key.
    #[error("key file `{0}` {1}")]
    Invalid(String, Invalid),
}

#[derive(Deserialize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Written {
    key: u32,
    not_after_ms: u64,
    private: String,
}

impl NumberedKey {
    /// A new key.
    #[must_use]
    pub fn generate(id: KeyId, not_after: Timestamp, random: &dyn Random) -> Self {
        let mut private = Zeroizing::new([0; 32]);
        random.fill(&mut *private);
        Self { id, not_after, signing: SigningKey::from_bytes(&private) }
    }

    /// Reads a key from its file, which only its owner may read.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let refused = |rule: &'static str| {
            KeyError::Invalid(path.display().to_string(), Invalid::new("content", rule))
        };
        let text = files::read_secret(path)?;
        // The parser's own message quotes the line, which may hold the key.
        let written: Written = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| toml::from_str(text).ok())
            .ok_or_else(|| refused("must be `key`, `not_after_ms` and `private`"))?;
        let mut private = Zeroizing::new([0; 32]);
        hex::decode_to_slice(&written.private, &mut *private)
            .map_err(|_| refused("must have 64 hexadecimal digits as `private`"))?;
        let not_after = Timestamp::from_ms(written.not_after_ms)
            .map_err(|_| refused("must have a possible `not_after_ms`"))?;
        let signing = SigningKey::from_bytes(&private);
        Ok(Self { id: KeyId(written.key), not_after, signing })
    }

    /// Writes the key to its file, which only its owner may read.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        let private = Zeroizing::new(hex::encode(*Zeroizing::new(self.signing.to_bytes())));
        let (key, not_after_ms) = (self.id, self.not_after.as_ms());
        let text = Zeroizing::new(format!(
            "key = {key}\nnot_after_ms = {not_after_ms}\nprivate = \"{}\"\n",
            *private
        ));
        files::write_secret(path, text.as_bytes())
    }

    /// Its public half.
    pub fn public(&self) -> Result<HolderKey, Invalid> {
        HolderKey::from_slice(self.signing.verifying_key().as_bytes())
    }

    /// As the trust statement lists it.
    pub fn listed(&self) -> Result<ListedKey, Invalid> {
        Ok(ListedKey { public: self.public()?, not_after: self.not_after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SystemRandom;

    #[test]
    fn a41_a_key_is_read_as_it_was_written_and_from_nowhere_else() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("feed-1.key");
        let end = Timestamp::from_secs(1_800_000_000).unwrap();
        let key = NumberedKey::generate(KeyId(7), end, &SystemRandom);
        key.write(&path).unwrap();
        let read = NumberedKey::read(&path).unwrap();
        assert_eq!((read.id, read.not_after, read.signing), (KeyId(7), end, key.signing));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(NumberedKey::read(&path), Err(KeyError::File(_))));
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("feed-1.key");
        let secret = "5ec7".repeat(16);
        for text in [
            format!("private = \"{secret}\""),
            format!("key = 1\nnot_after_ms = 1\nprivate = \"{secret}00\""),
            format!("key = 1\nnot_after_ms = 1\nprivate = \"{secret}\"\nmore = 1"),
            format!("key = 1\nnot_after_ms = {}\nprivate = \"{secret}\"", i64::MAX),
        ] {
            files::write_secret(&path, text.as_bytes()).unwrap();
            let refused = NumberedKey::read(&path).err().unwrap();
            assert!(!refused.to_string().contains("5ec7"), "{refused}");
        }
    }
}
