//! The example shop, alive: a broker on loopback, its people, and the orders service. The demo
//! plays in it, and `dayfly dev` leaves it to whoever wants to try things by hand.
//!
//! Every part is the real one: broker, journal, policy, signatures, feed, verifier.

pub(super) mod gateway;
mod orders;
pub(super) mod stage;

use std::time::Duration;

use anyhow::{Context as _, bail};
use dayfly_verifier::time::{Clock as _, SystemClock};

/// Random bytes of the operating system.
pub(super) fn draw<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).context("the operating system gives no random bytes")?;
    Ok(bytes)
}

/// Looks again and again until `done`, for at most ten seconds.
pub(super) async fn eventually(
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
