//! The decision, from outside: tokens are minted, proofs made, views published, and answers read.
//!
//! `world` is the gateway and its surroundings; `reference` says the rules anew, over a plain
//! description of a case, and never calls what it judges.
#![expect(clippy::arithmetic_side_effects, reason = "a test may panic")]

mod attacks;
mod bindings;
mod edges;
mod reference;
mod running;
pub(crate) mod world;
