//! The bytes of a token, in both directions.
//!
//! A token is a standard Biscuit inside a closed profile: an authority block of one fixed template,
//! and holder blocks that hold nothing but caveats and, when a token is handed on, the key of the
//! next holder. It is read with structs that hold only what the profile allows; what does not
//! encode back to its own bytes is refused, before any signature is checked. No Datalog runs.
//!
//! The order is in the types: [`Decoded`] is inside the profile but anybody may have written it,
//! [`Checked`] was signed by the key it was checked with.

mod caveats;
mod chain;
#[cfg(feature = "issue")]
mod issue;
mod read;
mod schema;
mod template;
mod terms;
#[cfg(test)]
mod tests;
mod write;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::VerifyingKey;
use zeroize::Zeroizing;

use crate::caveat::Caveat;
use crate::claims::{Claims, Record};
use crate::holder::{Confirmation, HolderKey};
use crate::id::KeyId;
use crate::invalid::Invalid;
use crate::time::Timestamp;

#[cfg(feature = "issue")]
pub use self::issue::{
    IssueError, LocalSigner, SignerError, TokenSigner, attenuate, delegate, mint,
};

/// The longest token, in bytes before the text encoding.
pub const MAX_BYTES: usize = 4096;
/// The longest token in its text form.
pub const MAX_TEXT_BYTES: usize = (MAX_BYTES * 4).div_ceil(3);
/// The most blocks that holders may add.
pub const MAX_BLOCKS: usize = 8;
/// The most delegations in one token. A token costs at most `1 + MAX_BLOCKS + MAX_DELEGATIONS`
/// signature checks.
pub const MAX_DELEGATIONS: usize = 3;

/// The one fact of a delegation block: the key of the next holder.
const DELEGATE: &str = "delegate";

/// What a container takes at most beside its authority block: two keys, a signature, lengths.
const CONTAINER_BYTES: usize = 192;

/// Why bytes are not a token of this format. Ordered as it is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// More than [`MAX_BYTES`].
    #[error("the token is longer than 4096 bytes")]
    TooLong,
    /// Not base64url without padding (RFC 4648, section 5), or not in its one form.
    #[error("the token is not base64url without padding")]
    Text,
    /// Not the container of a Biscuit, or not in its one encoding.
    #[error("the token is not a Biscuit in its one encoding")]
    Container,
    /// Sealed: nobody needs a sealed token that is bound to its holder.
    #[error("the token is sealed")]
    Sealed,
    /// More than [`MAX_BLOCKS`] holder blocks, or more than [`MAX_DELEGATIONS`] delegations.
    #[error("the token has more than 8 holder blocks or 3 delegations")]
    TooManyBlocks,
    /// The authority block is not the template.
    #[error("the authority block is not of this format")]
    Authority,
    /// The key hint is not the key that the authority block names.
    #[error("the key hint is not the key that the token names")]
    KeyHint,
    /// This holder block (1 for the first) is outside the closed profile.
    #[error("holder block {0} is outside the closed profile of holder blocks")]
    Profile(u8),
    /// This holder block delegates a token that is not bound to a key, or its signer is not the
    /// holder at that place.
    #[error("holder block {0} is a delegation by somebody who is not the holder")]
    Delegation(u8),
}

/// A signature of a token is not good, or its proof is not the key it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature of block {block} is not good")]
pub struct BadSignature {
    /// The block: 0 for the authority block, 1 for the first holder block. The last block also
    /// stands for the proof that ends the chain.
    pub block: u8,
}

/// The raw signature of a block: what a revocation of the block names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub [u8; 64]);

/// What a token says.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    /// The claims of its authority block.
    pub claims: Claims,
    /// The place in the journal where they were recorded.
    pub record: Record,
    /// The id of the authority block.
    pub authority: BlockId,
    /// What its holders added, in order.
    pub links: Vec<Link>,
}

impl Content {
    /// Who holds the token now: the last delegate, or who the claims say.
    #[must_use]
    pub fn holder(&self) -> Confirmation {
        let delegate = self.links.iter().rev().find_map(|link| link.delegate);
        delegate.map_or(self.claims.holder, Confirmation::Key)
    }

    /// The ids of all blocks, the authority block first.
    pub fn block_ids(&self) -> impl Iterator<Item = &BlockId> {
        std::iter::once(&self.authority).chain(self.links.iter().map(|link| &link.id))
    }

    /// The keys to which it was handed on, in order.
    pub fn delegates(&self) -> impl Iterator<Item = &HolderKey> {
        self.links.iter().filter_map(|link| link.delegate.as_ref())
    }

    /// All that holders added, in order.
    pub fn caveats(&self) -> impl Iterator<Item = &Caveat> {
        self.links.iter().flat_map(|link| &link.caveats)
    }

    /// From when on it is refused: the end of its life or of a holder's caveat, whichever is first.
    #[must_use]
    pub fn ends_at(&self) -> Timestamp {
        let before = |caveat: &Caveat| match caveat {
            Caveat::Before(end) => Some(*end),
            Caveat::Operation(_)
            | Caveat::Resource(_)
            | Caveat::Below(_)
            | Caveat::Gateway(_)
            | Caveat::Task(_)
            | Caveat::Argument(_) => None,
        };
        self.caveats().filter_map(before).fold(self.claims.expires_at, Timestamp::min)
    }
}

/// One holder block.
#[derive(Clone, PartialEq, Eq)]
pub struct Link {
    /// Its id.
    pub id: BlockId,
    /// The next holder, if the block hands the token on. It is signed by the holder before.
    pub delegate: Option<HolderKey>,
    /// What it takes away.
    pub caveats: Vec<Caveat>,
}

/// A token inside the profile, whose signatures nobody has checked: anybody may have written it.
pub struct Decoded {
    content: Content,
    container: schema::Biscuit,
}

impl Decoded {
    /// From the text form, base64url without padding, by the closed profile.
    pub fn read(text: &str) -> Result<Self, Malformed> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(Malformed::TooLong);
        }
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).map_err(|_| Malformed::Text)?);
        let (content, container) = read::token(&bytes)?;
        Ok(Self { content, container })
    }

    /// What it claims to say. Good for refusing early and for showing; never for allowing.
    #[must_use]
    pub const fn unverified(&self) -> &Content {
        &self.content
    }

    /// The key that it claims to be signed with.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.content.claims.key
    }

    /// Checks every signature, strictly (`verify_strict`), and that the proof at its end is the
    /// key that the last block names. `key` is the key of [`Decoded::key_id`] in the gateway's own
    /// trust, never one from the token.
    pub fn check(self, key: &VerifyingKey) -> Result<Checked, BadSignature> {
        chain::check(&self.container, key)?;
        Ok(Checked { content: self.content })
    }
}

/// A token whose every signature is good. Built by [`Decoded::check`] alone.
pub struct Checked {
    content: Content,
}

impl Checked {
    /// What it says.
    #[must_use]
    pub const fn content(&self) -> &Content {
        &self.content
    }
}

/// A token in its one text form. A secret in part: it is never printed, and wiped on drop.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// From its text, which must be that of a token inside the profile.
    pub fn read(text: &str) -> Result<Self, Malformed> {
        Decoded::read(text).map(|_| Self(Zeroizing::new(text.to_owned())))
    }

    /// The text, for the one place where it leaves: a header, a file of mode 0600.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Refuses claims that no token can hold: times that are not whole seconds or not in order, or more
/// than fits into [`MAX_BYTES`]. To be asked before claims are recorded.
pub fn fits(claims: &Claims, record: &Record) -> Result<(), Invalid> {
    authority(claims, record).map(drop)
}

/// The authority block of a token that fits.
fn authority(claims: &Claims, record: &Record) -> Result<Vec<u8>, Invalid> {
    let block = template::write(claims, record)?;
    if block.len() > MAX_BYTES.saturating_sub(CONTAINER_BYTES) {
        return Err(Invalid::new("scope", "must fit into a token of 4096 bytes"));
    }
    Ok(block)
}
