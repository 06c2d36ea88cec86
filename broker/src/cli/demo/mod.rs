//! `dayfly demo`: the whole life of a few grants, over real sockets, in a few seconds.
//!
//! Every part is the real one: broker, journal, policy, signatures, feed, verifier. What comes out
//! otherwise than it must ends the demo with an error.

mod people;
mod relay;
mod scenes;
mod shopper;
mod story;
mod wired;

use std::convert::identity;

use clap::Args;

use super::exit::{Exit, Refused};
use super::{Context, block_on};
use crate::shutdown::Shutdown;
use story::Story;

/// Show all of it in a few seconds: ask, approve, exchange, use, refuse, revoke, audit.
///
/// Runs a broker, an orders service, an agent with a sub-agent, two approvers and an operator on
/// this machine, over real sockets, in a directory that is gone at the end. Exits with 1 if
/// anything comes out otherwise than it must.
#[derive(Debug, Args)]
pub struct Demo {}

impl Demo {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        let Self {} = self;
        let story = Story::begin(Some(context.console));
        block_on(async {
            let shutdown = Shutdown::new();
            tokio::spawn(shutdown.clone().follow_signals());
            // The directory goes with the play, also where that is broken off: it holds keys.
            tokio::select! {
                played = scenes::play(story, identity) => played.map_err(Refused::from),
                () = shutdown.begins() => {
                    let error = anyhow::anyhow!("the demo was stopped before its end");
                    let next = "`dayfly demo` plays it from the start";
                    Err(Refused::new(Exit::Failed, error).next(next))
                }
            }
        })
    }
}
