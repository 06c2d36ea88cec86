//! The Dayfly broker.

pub mod core;
pub mod journal;
pub mod policy;
pub mod record;

pub mod api;
pub mod cli;
pub mod follow;

pub mod authority;
pub mod caller;
pub mod config;
pub mod found;
pub mod invite;
pub mod keep;
pub mod keys;
pub mod random;
pub mod sequencer;
pub mod serve;
pub mod shutdown;
pub mod signer;
pub mod telemetry;
