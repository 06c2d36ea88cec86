//! What follows the log: the feed to gateways, and who enforces how much of it.

pub mod feed;
pub mod instances;
pub mod keys;
pub mod seen;
pub mod stream;
pub mod trust;

#[cfg(test)]
mod tests;
