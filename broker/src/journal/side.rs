//! What is kept beside the log: free texts, which can be erased, the files of policy bundles, and
//! what the embedded authority must remember. Must never decide: no right follows from any of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use dayfly_verifier::dossier::Salt;
use dayfly_verifier::id::{BundleDigest, TextDigest};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;

use super::JournalError;

/// A justification or a reason, with the salt that keeps its digest from being guessed. `Debug`
/// shows neither: free text is not for logs.
#[derive(Clone, PartialEq, Eq)]
pub struct FreeText {
    salt: Salt,
    body: String,
    digest: TextDigest,
}

impl FreeText {
    /// A text under a random `salt`; refuses one over 2 KiB.
    pub fn new(body: impl Into<String>, salt: [u8; 16]) -> Result<Self, Invalid> {
        let (body, salt) = (body.into(), Salt::new(salt));
        let digest = salt.digest(&body)?;
        Ok(Self { salt, body, digest })
    }

    /// The salt.
    #[must_use]
    pub const fn salt(&self) -> &[u8; 16] {
        self.salt.as_bytes()
    }

    /// The text, as it was written: show it escaped.
    #[must_use]
    pub fn body(&self) -> &str {
        &self.body
    }

    /// What stands in the log for it.
    #[must_use]
    pub const fn digest(&self) -> TextDigest {
        self.digest
    }
}

impl fmt::Debug for FreeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FreeText({})", self.digest)
    }
}

/// Free texts by their salted digest. They come with the entry that names them, in one append: a
/// text that no entry names is never kept.
#[async_trait]
pub trait Texts: Send + Sync {
    /// The text; `None` if it was erased or never kept.
    async fn text(&self, digest: &TextDigest) -> Result<Option<FreeText>, JournalError>;

    /// Erases the text and its salt, so that nothing can be guessed from the digest that stays in
    /// the log. Says whether there was one.
    async fn erase_text(&self, digest: &TextDigest) -> Result<bool, JournalError>;
}

/// The content of policy bundles by their digest.
#[async_trait]
pub trait Bundles: Send + Sync {
    /// Keeps the content of a bundle, durably. Its first content stays; whoever reads it checks it
    /// against the digest.
    async fn put_bundle(&self, digest: &BundleDigest, content: &[u8]) -> Result<(), JournalError>;

    /// The content, as it was kept.
    async fn bundle(&self, digest: &BundleDigest) -> Result<Option<Vec<u8>>, JournalError>;
}

/// An invitation to join, as it is remembered. Its secret is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// Its id, random.
    pub id: [u8; 16],
    /// SHA-256 of its secret.
    pub secret_hash: [u8; 32],
    /// The SPIFFE ID that whoever joins by it gets.
    pub spiffe_id: SpiffeId,
    /// From when on it is worthless.
    pub expires_at: Timestamp,
}

/// For how long a document is remembered from its issue on: twice its life, for clocks that are
/// set back. What is known of an ID goes with the last of its documents.
pub const DOCUMENT_KEPT: Duration = Duration::from_secs(2 * 60 * 60);

/// A renewal of an identity document (SVID), as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renew {
    /// Whose document it is.
    pub spiffe_id: SpiffeId,
    /// Which one of theirs.
    pub generation: u64,
    /// SHA-256 of the public key that it was issued for.
    pub key_hash: [u8; 32],
    /// SHA-256 of the public key that the next one is for.
    pub next_key_hash: [u8; 32],
    /// Whether enough of its life is over for a renewal that was not asked for before.
    pub due: bool,
}

/// The answer to the renewal of an identity document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The document may be issued.
    Granted {
        /// Which one of the ID's it is.
        generation: u64,
        /// From when it is: when it was first asked for.
        issued_at: Timestamp,
    },
    /// Its generation was renewed before, for another key: one of the two was stolen. From now on
    /// the ID is locked.
    Forked,
    /// Nothing is renewed for this ID until somebody joins as it anew.
    Locked,
    /// It was not asked for before, and it is not due.
    TooEarly,
    /// No such document was ever issued, or it is from before the ID was locked.
    Unknown,
}

/// Which documents of an ID are any good, where not all are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floor {
    /// None: the ID is locked.
    Locked,
    /// This generation, which unlocked it, and those after it.
    From(u64),
}

/// What the embedded authority must remember: of each ID the documents that were issued, by
/// generation, each with its key and the one that it was renewed to. Several processes may hold
/// documents of one ID; the generations of an ID are counted over all of them. Documents are
/// forgotten [`DOCUMENT_KEPT`] after their issue, when somebody else joins or renews.
#[async_trait]
pub trait Joins: Send + Sync {
    /// Remembers an invitation, durably, and forgets those that have expired at `now`.
    async fn invite(&self, invitation: &Invitation, now: Timestamp) -> Result<(), JournalError>;

    /// Spends an invitation: exactly one of any number of takers gets it. `key_hash` is the
    /// SHA-256 of the public key that the document is issued for. Returns the SPIFFE ID and the
    /// generation of the document; `None` if there is no such invitation, its secret is another
    /// one, or it has expired. A locked ID is unlocked by it, and the document that is issued
    /// becomes its [`Floor`]: those from before the lock stay as useless as they were under it.
    async fn join(
        &self,
        id: &[u8; 16],
        secret_hash: &[u8; 32],
        key_hash: &[u8; 32],
        now: Timestamp,
    ) -> Result<Option<(SpiffeId, u64)>, JournalError>;

    /// Renews a document. The same renewal again answers the same; one of a document that was
    /// renewed for another key locks the ID, due or not.
    async fn renew(&self, renew: &Renew, now: Timestamp) -> Result<Renewal, JournalError>;

    /// The IDs of which not all documents are good.
    async fn floors(&self) -> Result<BTreeMap<SpiffeId, Floor>, JournalError>;
}
