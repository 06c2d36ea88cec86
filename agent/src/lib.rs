//! The client side of Dayfly: identity, requests, decisions, tokens, proofs.

pub mod files;
pub mod svid;
pub mod tls;

pub mod identity;
pub mod join;
pub mod session;

pub mod listen;

pub mod render;
pub mod sign;

pub mod errors;

pub mod case;
pub mod convert;
pub mod ticket;

pub mod client;
pub mod grant;
pub mod held;
pub mod uses;

#[cfg(feature = "testkit")]
pub mod testkit;

#[cfg(test)]
mod testing;
