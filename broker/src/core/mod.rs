//! The pure core: what may happen, and what the log means.
//!
//! `decide` looks at the state and says what a command makes happen, or why not; `State::apply`
//! folds what happened. Nothing here waits, reads a clock, rolls dice, stores or serialises.

pub mod command;
pub mod denial;
pub mod directory;
pub mod event;
pub mod limits;
pub mod locks;
pub mod unbounded;
pub mod verdict;

pub mod case;
pub mod feed;
pub(crate) mod index;
pub mod query;
pub(crate) mod quorum;
pub(crate) mod reports;
pub mod state;
mod step;

pub mod decide;

#[cfg(test)]
pub(crate) mod tests;
