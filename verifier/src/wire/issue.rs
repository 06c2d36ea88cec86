//! Writing tokens: minting, attenuation, delegation. Pure: keys and fresh secrets are arguments.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::schema::{Biscuit, Block, ED25519, ExternalSignature, Proof, PublicKey, SignedBlock};
use super::terms::{Atom, Symbols};
use super::write::Writer;
use super::{Decoded, Malformed, Token, caveats, chain};
use crate::caveat::Caveat;
use crate::claims::{Claims, Record};
use crate::holder::HolderKey;
use crate::id::KeyId;
use crate::invalid::Invalid;

/// Names the use of the derivation secret: what HKDF is told beside the digest.
const NEXT_KEY: &[u8] = b"dayfly.token.next-key.v1\0";

/// A signing key did not sign. What went wrong is in the words of whoever keeps the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the signing key is not available: {0}")]
pub struct SignerError(pub String);

/// What signs tokens: a key in memory, or one that a KMS or HSM keeps.
///
/// Signatures must be deterministic (RFC 8032), and the derivation secret the same for every broker
/// that has the key: the bytes of a token are a pure function of its recorded claims and of both.
/// An error is safe: nothing was given away. A signature by another key is safe: no gateway accepts
/// it. To reveal the derivation secret is not: who has it can take attenuations off.
pub trait TokenSigner: Send + Sync {
    /// The number of the key.
    fn key_id(&self) -> KeyId;

    /// Its public half.
    fn public(&self) -> VerifyingKey;

    /// The Ed25519 signature over `message`.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignerError>;

    /// 32 bytes by HKDF-SHA256 (RFC 5869) from the secret kept with the key, without salt, for
    /// `info`.
    fn derive(&self, info: &[u8]) -> Result<Zeroizing<[u8; 32]>, SignerError>;
}

/// A signing key in memory. Never printed; wiped on drop.
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

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignerError> {
        Ok(self.signing.sign(message).to_bytes())
    }

    fn derive(&self, info: &[u8]) -> Result<Zeroizing<[u8; 32]>, SignerError> {
        let mut derived = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(None, self.secret.as_slice())
            .expand(info, derived.as_mut_slice())
            .map_err(|_| SignerError("32 bytes are within the bounds of HKDF".into()))?;
        Ok(derived)
    }
}

/// Why a token was not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// What was to be written has no place in a token.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The result would not be a token: too long, too many blocks, a delegation by a stranger.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The key did not sign.
    #[error(transparent)]
    Signer(#[from] SignerError),
}

/// The token of `claims` as recorded at `record`: the same bytes every time.
///
/// # Errors
/// What [`super::fits`] refuses; claims that name another key; a key that does not sign.
pub fn mint(
    claims: &Claims,
    record: &Record,
    signer: &dyn TokenSigner,
) -> Result<Token, IssueError> {
    let block = super::authority(claims, record)?;
    if claims.key != signer.key_id() {
        return Err(Invalid::new("key", "must be the key that signs").into());
    }
    let next = signer.derive(&[NEXT_KEY, &Sha256::digest(&block)].concat())?;
    let mut authority = SignedBlock { block, next_key: public(&next), ..SignedBlock::default() };
    authority.signature = signer.sign(&chain::message(&authority, None))?.to_vec();
    text(&Biscuit {
        root_key_id: Some(claims.key.0),
        authority,
        blocks: Vec::new(),
        proof: proof(&next),
    })
}

/// `token` with a block of `caveats` added. `next` is a fresh random secret: who gets hold of it
/// can take the block off again.
///
/// # Errors
/// No caveats, a caveat that [`Caveat::check`] refuses, or a result that is not a token.
pub fn attenuate(
    token: &Decoded,
    caveats: &[Caveat],
    next: &Zeroizing<[u8; 32]>,
) -> Result<Token, IssueError> {
    if caveats.is_empty() {
        return Err(Invalid::new("caveats", "must be at least one").into());
    }
    let mut block = Writer::after(shared_symbols(&token.container)?);
    add(caveats, &mut block)?;
    append(token, block.finish(3), None, next)
}

/// `token`, handed on to the key `to` with `caveats` added, by its present holder `from`. `next` is
/// a fresh random secret.
///
/// # Errors
/// A token that is not bound to the key `from`, a caveat that [`Caveat::check`] refuses, or a
/// result that is not a token: more than three delegations, too long.
pub fn delegate(
    token: &Decoded,
    from: &SigningKey,
    to: &HolderKey,
    caveats: &[Caveat],
    next: &Zeroizing<[u8; 32]>,
) -> Result<Token, IssueError> {
    let mut block = Writer::after(Symbols::default());
    block.fact(super::DELEGATE, &[Atom::Bytes(to.as_bytes())]);
    add(caveats, &mut block)?;
    let block = block.finish(5);
    let message = chain::external_message(&block, last(&token.container));
    let signature = from.sign(&message).to_vec();
    let key = PublicKey { algorithm: ED25519, key: from.verifying_key().to_bytes().to_vec() };
    append(token, block, Some(ExternalSignature { signature, key }), next)
}

fn add(caveats: &[Caveat], block: &mut Writer) -> Result<(), Invalid> {
    caveats.iter().try_for_each(Caveat::check)?;
    caveats.iter().for_each(|caveat| caveats::write(caveat, block));
    Ok(())
}

/// The symbols that the next block of a holder may use: those of the authority block and of the
/// holder blocks that nobody else signed.
fn shared_symbols(container: &Biscuit) -> Result<Symbols, Malformed> {
    let mut symbols = Symbols::default();
    let own = container.blocks.iter().filter(|block| block.external.is_none());
    for signed in std::iter::once(&container.authority).chain(own) {
        let block: Block = super::schema::read(&signed.block).ok_or(Malformed::Container)?;
        symbols.extend(block.symbols).ok_or(Malformed::Container)?;
    }
    Ok(symbols)
}

fn append(
    token: &Decoded,
    block: Vec<u8>,
    external: Option<ExternalSignature>,
    next: &Zeroizing<[u8; 32]>,
) -> Result<Token, IssueError> {
    let mut container = token.container.clone();
    let before = container.blocks.last().and_then(|block| block.version).unwrap_or(0);
    let version = chain::version(before, 0, external.is_some());
    let mut signed = SignedBlock {
        block,
        next_key: public(next),
        signature: Vec::new(),
        external,
        version: (version > 0).then_some(version),
    };
    let secret = container.proof.next_secret.as_deref().and_then(|s| s.try_into().ok());
    let key = SigningKey::from_bytes(secret.ok_or(Malformed::Container)?);
    let message = chain::message(&signed, Some(last(&container)));
    signed.signature = key.sign(&message).to_vec();
    container.blocks.push(signed);
    container.proof = proof(next);
    let text = text(&container)?;
    Decoded::read(text.expose())?;
    Ok(text)
}

/// The signature of the last block.
fn last(container: &Biscuit) -> &[u8] {
    &container.blocks.last().unwrap_or(&container.authority).signature
}

fn public(secret: &[u8; 32]) -> PublicKey {
    let key = SigningKey::from_bytes(secret).verifying_key();
    PublicKey { algorithm: ED25519, key: key.to_bytes().to_vec() }
}

fn proof(secret: &Zeroizing<[u8; 32]>) -> Proof {
    Proof { next_secret: Some(secret.to_vec()), final_signature: None }
}

fn text(container: &Biscuit) -> Result<Token, IssueError> {
    let bytes = Zeroizing::new(container.encode_to_vec());
    if bytes.len() > super::MAX_BYTES {
        return Err(Malformed::TooLong.into());
    }
    Ok(Token(Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()))))
}
