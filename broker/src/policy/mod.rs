//! What policy says: bundles of Cedar policies and the facts beside them, and their evaluation.
//!
//! A [`Bundle`](bundle::Bundle) is read and checked whole, once; asking it afterwards parses
//! nothing. [`evaluate`](evaluate::evaluate) is a pure function of bundle, question and holdings.
//! Nothing here may turn an error, a gap or an unknown name into a yes.

pub mod bundle;
pub mod evaluate;
pub mod files;
pub mod requirement;

mod context;
mod memo;
mod people;
mod problems;
mod resources;
mod rules;
mod workloads;

#[cfg(test)]
mod tests;
