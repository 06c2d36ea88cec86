//! The gRPC services: one file a service.
//!
//! A handler parses what came into domain values, asks the sequencer, and renders the answer. It
//! decides nothing by itself, and holds no lock.

pub mod parse;
pub mod render;
pub mod status;
