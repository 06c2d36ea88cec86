//! `dayfly demo`: the whole life of a few grants, over real sockets, in a few seconds.
//!
//! Every part is the real one: broker, journal, policy, signatures, feed, verifier. What comes out
//! otherwise than it must ends the demo with an error.

mod gateway;
mod orders;
mod people;
mod relay;
mod scenes;
mod shopper;
mod stage;
mod story;

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use dayfly_verifier::time::{Clock as _, SystemClock};

use super::exit::Refused;
use super::{Context, block_on};
use story::Story;

/// Show all of it in a few seconds: ask, approve, exchange, use, refuse, revoke, audit.
///
/// Runs a broker, an orders service, an agent, two approvers and an operator on this machine, over
/// real sockets, in a directory that is gone at the end. Exits with 1 if anything comes out
/// otherwise than it must.
#[derive(Debug, Args)]
pub struct Demo {}

impl Demo {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        let Self {} = self;
        let story = Story::begin(context.console);
        block_on(async { Ok(scenes::play(story).await?) })
    }
}

/// Random bytes of the operating system.
fn draw<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).context("the operating system gives no random bytes")?;
    Ok(bytes)
}

/// Looks again and again until `done`, for at most ten seconds.
async fn eventually(
    what: &str,
    mut done: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let began = SystemClock.uptime();
    while !done().await? {
        if SystemClock.uptime().saturating_sub(began) > Duration::from_secs(10) {
            bail!("waited ten seconds for {what}");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}
