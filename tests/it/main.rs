//! The built binary and the rules of the house, from outside.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may panic"
)]

mod agent_cli;
mod approval;
mod cli;
mod conformance;
mod demo;
mod deploy;
mod dev;
mod door;
mod edges;
mod host;
mod identities;
mod keys;
mod parties;
mod path;
mod record;
mod revoking;
mod rights;
mod surviving;
mod tidy;
mod uses;
mod waiting;
mod world;
