//! The signed end of the feed. `FORMAT.md` gives its bytes.

use ed25519_dalek::{Signature, VerifyingKey};

use crate::id::{ChainHash, Epoch, FeedHash, FeedId, KeyId, Seq};
use crate::time::Timestamp;

const TAG: &[u8] = b"dayfly.feed.head.v1\0";

/// The end of the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Which feed.
    pub feed: FeedId,
    /// The epoch of the log.
    pub epoch: Epoch,
    /// The place of the log's last entry.
    pub seq: Seq,
    /// The hash chain over the log.
    pub journal: ChainHash,
    /// The hash over all feed entries of the epoch.
    pub hash: FeedHash,
    /// The broker's clock before it began to confirm that this is the head.
    pub time: Timestamp,
    /// The feed key that signs.
    pub key: KeyId,
    /// The digest of the snapshot that this head closes.
    pub snapshot: Option<[u8; 32]>,
}

/// A head as it was signed, with its signature. Nothing in it is believed before
/// [`SignedHead::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    /// The bytes that are signed.
    pub head: Vec<u8>,
    /// Ed25519 by the feed key.
    pub signature: [u8; 64],
}

impl Head {
    /// The bytes that are signed.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { feed, epoch, seq, journal, hash, time, key, snapshot } = self;
        let mut bytes = Vec::with_capacity(200);
        bytes.extend_from_slice(TAG);
        bytes.extend_from_slice(feed.as_bytes());
        bytes.extend_from_slice(epoch.as_bytes());
        bytes.extend_from_slice(&seq.0.to_be_bytes());
        bytes.extend_from_slice(journal.as_bytes());
        bytes.extend_from_slice(hash.as_bytes());
        bytes.extend_from_slice(&time.as_ms().to_be_bytes());
        bytes.extend_from_slice(&key.0.to_be_bytes());
        bytes.push(u8::from(snapshot.is_some()));
        bytes.extend_from_slice(snapshot.as_ref().map_or(&[], |digest| digest.as_slice()));
        bytes
    }

    /// From exactly the bytes that [`Head::to_bytes`] gives.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(TAG)?;
        let head = Self {
            feed: FeedId::new(take(&mut rest)?),
            epoch: Epoch::new(take(&mut rest)?),
            seq: Seq(u64::from_be_bytes(take(&mut rest)?)),
            journal: ChainHash::new(take(&mut rest)?),
            hash: FeedHash::new(take(&mut rest)?),
            time: Timestamp::from_ms(u64::from_be_bytes(take(&mut rest)?)).ok()?,
            key: KeyId(u32::from_be_bytes(take(&mut rest)?)),
            snapshot: match take(&mut rest)? {
                [0] => None,
                [1] => Some(take(&mut rest)?),
                [_] => return None,
            },
        };
        rest.is_empty().then_some(head)
    }

    /// Signs it with a feed key.
    #[cfg(feature = "issue")]
    #[must_use]
    pub fn sign(&self, key: &ed25519_dalek::SigningKey) -> SignedHead {
        use ed25519_dalek::Signer as _;
        let head = self.to_bytes();
        let signature = key.sign(&head).to_bytes();
        SignedHead { head, signature }
    }
}

impl SignedHead {
    /// The head, if it is one and `key` gives for its key number a key that signed it.
    #[must_use]
    pub fn verify(&self, key: impl FnOnce(KeyId) -> Option<VerifyingKey>) -> Option<Head> {
        let head = Head::from_bytes(&self.head)?;
        let signature = Signature::from_bytes(&self.signature);
        let key = key(head.key)?;
        key.verify_strict(&self.head, &signature).ok()?;
        Some(head)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*first)
}
