//! The built binary and the rules of the house, from outside.

mod edges;
mod parties;
mod path;
mod tidy;
mod waiting;
mod world;
