//! Verifies Dayfly tokens in-process: short-lived, scoped to one resource gateway, bound to the
//! key of their holder, revocable at once.
//!
//! The crate owns the credential format in both directions; `FORMAT.md` beside it specifies the
//! token, the proof and the closed profile of holder blocks. Reading order: the words of the
//! format first ([`id`], [`time`], [`resource`], [`scope`], [`claims`], [`caveat`], [`holder`]),
//! then its bytes ([`wire`], [`proof`], [`dossier`]), then what a gateway knows ([`trust`],
//! [`revocations`], [`replay`]), then the one decision ([`verify`], [`reject`]), and what is told
//! of it ([`uses`]).
//!
//! Nothing here logs, prints or derives `Debug` for a token, a key or a proof.

pub mod invalid;
pub mod json;

pub mod id;
pub mod spiffe;
pub mod time;

pub mod resource;
pub mod scope;

pub mod caveat;
pub mod claims;
pub mod holder;
pub mod request;

pub mod dossier;
pub mod proof;
pub mod wire;

pub mod replay;
pub mod revocations;
pub mod trust;

pub mod reject;
pub mod throttle;
pub mod uses;
pub mod verify;

pub mod feed;
#[cfg(feature = "tower")]
pub mod tower;
