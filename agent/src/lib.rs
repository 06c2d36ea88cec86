//! The client side of Dayfly: identity, requests, decisions, tokens, proofs.

pub mod files;
pub mod svid;

pub mod render;
pub mod sign;
