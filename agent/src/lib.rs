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
