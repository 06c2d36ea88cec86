//! What a gateway is asked, and how it is configured to answer.

use std::sync::Arc;

use crate::holder::HolderKey;
use crate::proof::BaseUrl;
use crate::replay::ReplayLimits;
use crate::resource::{Operation, Resource};
use crate::scope::Arguments;
use crate::spiffe::SpiffeId;

/// What is to be done: taken from the request once, and given to the handler as it was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// How.
    pub operation: Operation,
    /// On what.
    pub resource: Resource,
    /// With which arguments, each name once.
    pub arguments: Arguments,
}

/// One presentation of a token.
pub struct Attempt<'a> {
    /// The token, in the text form in which it was sent.
    pub token: &'a str,
    /// What shows its holder.
    pub shown: Shown<'a>,
    /// What is to be done with it.
    pub call: &'a Arc<Call>,
}

/// What was shown beside a token.
#[derive(Clone, Copy)]
pub enum Shown<'a> {
    /// Nothing. No token is accepted so.
    Nothing,
    /// A proof by RFC 9449.
    Dpop {
        /// The value of the one header `DPoP`.
        proof: &'a str,
        /// The method of the call.
        method: &'a str,
        /// The path as received, without the query, percent signs as they came.
        path: &'a str,
    },
    /// The peer of a mutual TLS connection that ends in this process.
    Peer(&'a Peer),
}

/// Who is at the other end of a mutual TLS connection that ends in this process, from the
/// certificate that this process checked. Never from a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The one URI name of the certificate.
    pub id: SpiffeId,
    /// The key of the certificate, if it is an Ed25519 key.
    pub key: Option<HolderKey>,
}

/// How a gateway decides.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its SPIFFE ID: only tokens for exactly this audience are accepted.
    pub audience: SpiffeId,
    /// The URL under which callers reach it; without one no proof by DPoP is accepted.
    pub base_url: Option<BaseUrl>,
    /// Whether TLS ends in front of it: every proof must then carry the claim `act`.
    pub behind_proxy: bool,
    /// Whether several processes, or several verifiers of one, answer for this audience under one
    /// URL: every proof must then carry a nonce of the verifier that it is shown to. It must be set
    /// in each of them: nobody else can tell, and what one was shown would be new to the next.
    pub shared_audience: bool,
    /// How many tokens whose signatures are good are remembered. One with more than 2 KiB of text
    /// or eight values in its caveats counts for several, and one with more than 32 values is never
    /// remembered.
    pub cached_tokens: u64,
    /// How many proofs are remembered.
    pub replay: ReplayLimits,
}

impl Config {
    /// The defaults of a gateway: one process, and TLS that ends in it.
    #[must_use]
    pub fn new(audience: SpiffeId) -> Self {
        Self {
            audience,
            base_url: None,
            behind_proxy: false,
            shared_audience: false,
            cached_tokens: 50_000,
            replay: ReplayLimits::default(),
        }
    }
}
