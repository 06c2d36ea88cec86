//! The built binary and the rules of the house, from outside.

mod agent_cli;
mod approval;
mod cli;
mod demo;
mod edges;
mod host;
mod identities;
mod parties;
mod path;
mod tidy;
mod waiting;
mod world;
