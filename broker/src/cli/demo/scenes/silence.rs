//! What is said of a revocation while an instance of the service hears nothing.

use anyhow::{Context as _, ensure};
use dayfly_proto::v1::revocation_target::Target;
use dayfly_verifier::time::{Clock as _, SystemClock};
use tokio_util::sync::CancellationToken;

use super::super::story::shown;
use super::{Cast, Errand, Since, Story, must_allow, must_refuse};
use crate::cli::revoke::progress;
use crate::cli::shop::gateway::Gateway;
use crate::cli::when::time;

/// A grant is revoked beside an instance that has gone silent: it holds everywhere when that one
/// refuses by itself, and is said to from then on.
pub(super) async fn revoke(
    story: &mut Story,
    cast: &mut Cast,
    second: Gateway,
    wire: CancellationToken,
) -> anyhow::Result<()> {
    story.scene("`revoke --wait`, beside an instance of the service that has gone silent");
    let since = Since::now();
    let (ticket, case, held) = cast.read_right(&["o-17"], "ticket-4721").await?;
    let shopper = cast.shopper(&ticket);
    let silent = shopper.at(second.address);
    must_allow(&shopper, &held, Errand::Read("o-17")).await?;
    must_allow(&silent, &held, Errand::Read("o-17")).await?;
    story.allowed("o-17 read at both instances", since);

    wire.cancel();
    story.does("orders-2", "hears nothing from here on, and is not told so");
    let since = Since::now();
    let seq = cast.olga.revoke(Target::Grant(case.grant.to_string())).await?;
    let mut told = false;
    let mut watching = cast.olga.enforcement(seq).await?;
    loop {
        let news = watching.message().await?;
        let news = news.context("the broker must tell until it holds everywhere")?;
        if news.holds_everywhere {
            break;
        }
        if !told && news.instances.iter().any(|instance| instance.enforced_seq >= seq) {
            let progress = progress(&news, seq).replace("gateway/orders/", "");
            story.does("olga", &format!("is told: {progress}"));
            told = true;
        }
    }
    let (took, at) = (since.elapsed(), time(SystemClock.now()));
    // At once, and only once: nobody waits here for it to come true.
    let reply = silent.call(held.token.expose(), Errand::Read("o-17")).await?;
    let got = reply.error();
    ensure!(
        got == "stale",
        "orders-2 must refuse as `stale` when it is said to hold everywhere, but was {} `{got}`",
        reply.status
    );
    story.does("olga", &format!("is told: holds everywhere since {at}, after {}", shown(took)));
    story.refused("the next read at orders-2, which hears nothing and so refuses by itself", since);
    let since = Since::now();
    must_refuse(&shopper, &held, Errand::Read("o-17"), "revoked").await?;
    story.refused("and at orders-1, which knows why", since);
    Ok(())
}
