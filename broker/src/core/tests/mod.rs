//! The core, tested from outside of it: the rule book, refusals, attacks, and a model whose
//! oracle reads only the finished log.
#![expect(clippy::arithmetic_side_effects, reason = "a test may panic")]

mod attacks;
mod basis;
mod defects;
mod feed;
mod found;
mod identities;
pub(crate) mod keeping;
mod locks;
mod measure;
mod model;
mod online;
mod oracle;
mod quota;
mod refusals;
mod reports;
mod rulebook;
mod texts;
mod tokens;
mod unbounded;
mod world;
