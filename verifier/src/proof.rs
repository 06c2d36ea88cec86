//! Proofs of possession: that whoever presents something holds the key that it is bound to.
//!
//! Three kinds, specified in `FORMAT.md`: [`DpopProof`] for a use of a token over HTTP (RFC 9449),
//! the peer of a mutual TLS connection ([`crate::verify::Peer`]), and [`HolderProof`] for a call
//! of a workload at its broker. Nothing here prints a proof, and every check of a signature is
//! the strict one: a key of small order, or a second form of one signature, never passes.

mod act;
mod call;
mod dpop;
mod nonce;

#[cfg(test)]
mod rfc;

use std::time::Duration;

pub use act::ActDigest;
pub use call::{HolderCall, HolderProof};
pub use dpop::{BaseUrl, DpopProof, DpopWanted, Jti, MAX_PROOF_BYTES};
#[cfg(feature = "issue")]
pub use dpop::{DpopCall, make_dpop};
pub use nonce::{Nonce, Nonces};

/// How far the time in a proof may lie from the checker's clock, either way.
pub const PROOF_WINDOW: Duration = Duration::from_secs(30);

/// Why a proof does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ProofFault {
    /// Longer than [`MAX_PROOF_BYTES`].
    #[error("the proof is longer than 2048 bytes")]
    TooLong,
    /// Not three base64url parts, or not JSON, or a member stands twice.
    #[error("the proof is not a compact JWS over JSON without repeated members")]
    Shape,
    /// It is signed with another algorithm than the one of this format.
    #[error("the proof must be signed with the algorithm EdDSA")]
    Algorithm,
    /// The header is not exactly `typ`, `alg` and `jwk` with the values this format has.
    #[error("the header of the proof must hold typ dpop+jwt, alg EdDSA and an Ed25519 jwk alone")]
    Header,
    /// A claim is absent or of another type.
    #[error("the proof lacks a claim, or has one of another type")]
    Claims,
    /// It is by another key than the one that the token is bound to.
    #[error("the proof is by another key")]
    Key,
    /// `htm` is not the method of the call.
    #[error("the proof is for another method")]
    Method,
    /// `htu` is not the configured base URL and the path as received.
    #[error("the proof is for another URL")]
    Url,
    /// `ath` is not the hash of the token as sent.
    #[error("the proof is for another token")]
    Token,
    /// The time lies outside of [`PROOF_WINDOW`].
    #[error("the time of the proof is more than 30 s away")]
    Time,
    /// `act` is not the digest of the call.
    #[error("the proof is for another operation, resource or arguments")]
    Act,
    /// `act` is absent, and the right or the gateway demands it.
    #[error("the proof must name what is done, in the claim act")]
    ActMissing,
    /// The signature does not verify.
    #[error("the signature of the proof does not verify")]
    Signature,
    /// A nonce of this process is demanded, and absent, of another process, or too old.
    #[error("the proof must carry the nonce of this gateway")]
    Nonce,
}

/// Whether `at` lies within [`PROOF_WINDOW`] of `now`.
fn in_window(at: crate::time::Timestamp, now: crate::time::Timestamp) -> bool {
    at.since(now).max(now.since(at)) <= PROOF_WINDOW
}

/// Adds `parts` to `hash`, each behind its length as eight big-endian bytes.
fn add_parts(hash: &mut sha2::Sha256, parts: &[&[u8]]) {
    use sha2::Digest as _;
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
}
