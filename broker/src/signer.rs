//! Signs tokens, with keys that stand in files of the broker's owner alone. Must never sign what
//! the log does not hold, nor let a key or a secret out.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::KeyId;
use dayfly_verifier::time::Timestamp;
use dayfly_verifier::wire::{self, IssueError, LocalSigner, Token, TokenSigner};
use serde::Deserialize;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::core::case::Minted;
use crate::journal::Recorded;

/// The token-signing keys of this broker. New ones may come while it runs.
#[derive(Default)]
pub struct Signer {
    keys: ArcSwap<BTreeMap<KeyId, Arc<TokenKey>>>,
}

/// A token-signing key.
pub struct TokenKey {
    id: KeyId,
    public: HolderKey,
    not_after: Timestamp,
    private: Zeroizing<[u8; 32]>,
    secret: Zeroizing<[u8; 32]>,
    local: LocalSigner,
}

/// Why nothing was signed, or a key could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// The broker does not have the key.
    #[error("the broker does not have signing key {0}")]
    NoSuchKey(KeyId),
    /// The key signs nothing any more.
    #[error("signing key {0} has reached its end")]
    Ended(KeyId),
    /// The token could not be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// A key file is not what it should be.
    #[error("key file `{}` {rule}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; never its content.
        rule: String,
    },
}

/// A key as it stands in its file: TOML. Secrets are 64 hexadecimal digits.
#[derive(Deserialize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    key: u32,
    not_after_ms: u64,
    private: String,
    secret: String,
}

impl Signer {
    /// A signer with these keys.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = TokenKey>) -> Self {
        let signer = Self::default();
        keys.into_iter().for_each(|key| signer.add(key));
        signer
    }

    /// Adds a key. The first of a number stays: what it signed is signed the same again.
    pub fn add(&self, key: TokenKey) {
        let key = Arc::new(key);
        self.keys.rcu(|keys| {
            let mut keys = BTreeMap::clone(keys);
            keys.entry(key.id).or_insert_with(|| key.clone());
            keys
        });
    }

    /// The keys, by number.
    #[must_use]
    pub fn keys(&self) -> Arc<BTreeMap<KeyId, Arc<TokenKey>>> {
        self.keys.load_full()
    }

    /// The key to sign with: the highest number that `may_sign`, with its end. Whether a key may
    /// is not for the signer to know: the log may have retired or revoked it.
    #[must_use]
    pub fn present(&self, may_sign: impl Fn(&TokenKey) -> bool) -> Option<(KeyId, Timestamp)> {
        let keys = self.keys.load();
        let key = keys.values().rev().find(|key| may_sign(key))?;
        Some((key.id, key.not_after))
    }

    /// The token that was recorded: the same bytes every time. Refuses from the end of the key on.
    pub fn sign(&self, minted: &Recorded<Minted>, now: Timestamp) -> Result<Token, SignerError> {
        let Minted { claims, record } = &**minted;
        let keys = self.keys.load();
        let key = keys.get(&claims.key).ok_or(SignerError::NoSuchKey(claims.key))?;
        if now >= key.not_after {
            return Err(SignerError::Ended(key.id));
        }
        Ok(wire::mint(claims, record, &key.local)?)
    }
}

impl TokenKey {
    /// A new key from 64 random bytes.
    pub fn generate(
        id: KeyId,
        not_after: Timestamp,
        random: &Zeroizing<[u8; 64]>,
    ) -> Result<Self, SignerError> {
        let (private, secret) = random.split_at(32);
        Self::from_parts(id, not_after, private, secret)
            .ok_or_else(|| SignerError::Issue(unusable()))
    }

    fn from_parts(id: KeyId, not_after: Timestamp, private: &[u8], secret: &[u8]) -> Option<Self> {
        let private = Zeroizing::new(<[u8; 32]>::try_from(private).ok()?);
        let secret = Zeroizing::new(<[u8; 32]>::try_from(secret).ok()?);
        let local = LocalSigner::new(id, &private, secret.clone());
        let public = HolderKey::from_slice(local.public().as_bytes()).ok()?;
        Some(Self { id, public, not_after, private, secret, local })
    }

    /// Reads a key from its file, which must be a plain file, readable by its owner alone.
    pub fn read(path: &Path) -> Result<Self, SignerError> {
        let refused = |rule: &str| SignerError::File { path: path.into(), rule: rule.into() };
        let mut file = open(path, false).map_err(|e| refused(&format!("cannot be read: {e}")))?;
        let meta = file.metadata().map_err(|_| refused("cannot be read"))?;
        if !meta.is_file() || meta.mode() & 0o077 != 0 {
            return Err(refused("must be a plain file with mode 0600"));
        }
        let mut text = Zeroizing::new(String::new());
        file.read_to_string(&mut text).map_err(|_| refused("cannot be read"))?;
        // The parser's own message quotes the line, which may hold the key.
        let parsed: KeyFile = toml::from_str(&text).map_err(|_| refused("is not a key file"))?;
        let not_after = Timestamp::from_ms(parsed.not_after_ms);
        let not_after = not_after.map_err(|_| refused("has an impossible `not_after_ms`"))?;
        let bytes = |text: &str| hex::decode(text).map(Zeroizing::new).ok();
        let key = bytes(&parsed.private)
            .zip(bytes(&parsed.secret))
            .and_then(|(p, s)| Self::from_parts(KeyId(parsed.key), not_after, &p, &s));
        key.ok_or_else(|| refused("is not a key file"))
    }

    /// Writes the key to a new file of mode 0600, and waits until it is on the disk.
    pub fn write(&self, path: &Path) -> Result<(), SignerError> {
        let text = Zeroizing::new(format!(
            "key = {}\nnot_after_ms = {}\nprivate = \"{}\"\nsecret = \"{}\"\n",
            self.id,
            self.not_after.as_ms(),
            *Zeroizing::new(hex::encode(*self.private)),
            *Zeroizing::new(hex::encode(*self.secret)),
        ));
        let write = || {
            let mut file = open(path, true)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(|e| SignerError::File {
            path: path.into(),
            rule: format!("cannot be written: {e}"),
        })
    }

    /// Its number.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// Its public half, which gateways are told.
    #[must_use]
    pub const fn public(&self) -> HolderKey {
        self.public
    }

    /// From when on it signs nothing.
    #[must_use]
    pub const fn not_after(&self) -> Timestamp {
        self.not_after
    }
}

fn unusable() -> IssueError {
    wire::SignerError("the random bytes give no usable key".into()).into()
}

/// Opens a key file without following a link; a new one must not exist yet.
fn open(path: &Path, new: bool) -> std::io::Result<File> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = OpenOptions::new();
    options.read(!new).write(new).create_new(new).mode(0o600).custom_flags(no_follow).open(path)
}

#[cfg(test)]
mod tests;
