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
mod brokers;
mod canaries;
mod cli;
mod clocks;
mod conformance;
mod cuts;
mod demo;
mod deploy;
mod dev;
mod door;
mod edges;
mod evidence;
mod feed_key;
mod guarded;
mod host;
mod identities;
mod keys;
mod killed;
mod locking;
mod meanwhile;
mod mistakes;
mod parties;
mod path;
mod process;
mod record;
mod replays;
mod revoking;
mod rights;
mod shells;
mod starting;
mod surviving;
mod tidy;
mod uses;
mod waiting;
mod watching;
mod world;
