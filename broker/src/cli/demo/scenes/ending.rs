//! The ends of a grant, and how soon the service knows.

use anyhow::{Context as _, ensure};
use dayfly_agent::case::Standing;
use dayfly_agent::client::Outcome;
use dayfly_agent::held::Held;
use dayfly_agent::render::visible;
use dayfly_agent::ticket::Ticket;
use dayfly_proto::v1::revocation_target::Target;

use super::super::story::shown;
use super::super::wired::MAX_STALENESS;
use super::{Cast, Errand, Shopper, Since, Story, money, must_allow, must_refuse, must_stand};
use crate::cli::shop::eventually;
use crate::cli::shop::stage::Stage;

/// More than any token of the demo allows: refused in any case, but for which reason tells whether
/// the token is still good.
const fn probe(order: &str) -> Errand<'_> {
    Errand::Refund(order, i64::MAX, i64::MAX)
}

/// The forbid that the operator adds.
const FREEZE: &str = "
@id(\"freeze\")
@reason(\"production is frozen until the audit is over\")
forbid (principal, action == Action::\"read\", resource in Resource::\"orders/prod\");
";

/// The task is done, and the token is over with it.
pub(super) async fn complete(
    story: &mut Story,
    cast: &Cast,
    ticket: &Ticket,
    shopper: &Shopper,
    held: &Held,
) -> anyhow::Result<()> {
    story.scene("The task is done");
    must_refuse(shopper, held, probe("o-17"), "argument").await?;
    let since = Since::now();
    let case = cast.agent.complete(ticket, Outcome::Succeeded).await?;
    must_stand(&case, Standing::Completed)?;
    story.allowed("the agent completed the grant, with two uses and minutes left", since);
    until_refused(shopper, held, probe("o-17"), "revoked").await?;
    story.refused("the same token at the service, from here on", since);
    Ok(())
}

/// An operator takes a grant back.
pub(super) async fn revoke(story: &mut Story, cast: &mut Cast) -> anyhow::Result<()> {
    story.scene("An operator revokes");
    let since = Since::now();
    let (ticket, case, held) = cast.read_right(&["o-17"], "ticket-4713").await?;
    let shopper = cast.shopper(&ticket);
    must_allow(&shopper, &held, Errand::Read("o-17")).await?;
    story.allowed("asked, approved by ana, exchanged, and o-17 read", since);
    let since = Since::now();
    cast.olga.revoke(Target::Grant(case.grant.to_string())).await?;
    let acknowledged = since.elapsed();
    until_refused(&shopper, &held, Errand::Read("o-17"), "revoked").await?;
    let told = format!("the next read; the revocation was durable after {}", shown(acknowledged));
    story.refused(&told, since);
    Ok(())
}

/// A bundle that would not grant it takes it back.
pub(super) async fn tighten(
    story: &mut Story,
    cast: &mut Cast,
    stage: &Stage,
) -> anyhow::Result<()> {
    story.scene("Policy is tightened under a live grant");
    let (ticket, case, held) = cast.read_right(&["o-17"], "ticket-4714").await?;
    let shopper = cast.shopper(&ticket);
    must_allow(&shopper, &held, Errand::Read("o-17")).await?;
    let mut bundle = stage.bundle()?;
    let policy = bundle.iter_mut().find(|(name, _)| name == "policy.cedar");
    policy.context("the bundle has no policy")?.1.push_str(FREEZE);
    story.does("olga", "applies a bundle with a new `forbid`: production is frozen");
    let since = Since::now();
    let applied = cast.olga.apply(&bundle).await?;
    let grant = case.grant.to_string();
    let drifted = applied.drifted.iter().find(|drifted| drifted.grant_id == grant);
    let drifted = drifted.context("the live grant must drift")?;
    ensure!(drifted.policy == "freeze", "the policy that ends it must be named");
    let count = applied.drifted.len();
    let told = format!("in force; {count} live grants ended by policy `{}`", drifted.policy);
    story.allowed(&told, since);
    until_refused(&shopper, &held, Errand::Read("o-17"), "revoked").await?;
    story.refused("its token at the service", since);
    let since = Since::now();
    let wish = cast.wish("read", &["o-17"], None, "ticket-4715")?;
    let (_, case) = cast.agent.request(wish).await?;
    must_stand(&case, Standing::RefusedByPolicy)?;
    story.refused(&format!("asked again: {}", visible(&case.because, false)), since);
    Ok(())
}

/// The service is cut off from the broker, and says no by itself.
pub(super) async fn cut(story: &mut Story, cast: &Cast) -> anyhow::Result<()> {
    story.scene("The service is cut off from the broker");
    let since = Since::now();
    let wish = cast.wish("refund", &["o-18"], Some(4_500), "ticket-4716")?;
    let (ticket, case) = cast.agent.request(wish).await?;
    must_stand(&case, Standing::Granted)?;
    let held = cast.take(&ticket).await?;
    let shopper = cast.shopper(&ticket);
    must_refuse(&shopper, &held, probe("o-18"), "argument").await?;
    let small = money(4_500);
    story.allowed(&format!("a refund up to {small} needs nobody: granted at once"), since);
    cast.wire.cancel();
    let since = Since::now();
    until_refused(&shopper, &held, probe("o-18"), "stale").await?;
    let told = format!("a good token: what cannot be told is no (bound {})", shown(MAX_STALENESS));
    story.refused(&told, since);
    ensure!(cast.gateway.refunded("o-18")? == 0, "nothing must have been paid back");
    Ok(())
}

/// Calls until the service refuses for this reason.
pub(super) async fn until_refused(
    shopper: &Shopper,
    held: &Held,
    errand: Errand<'_>,
    reason: &str,
) -> anyhow::Result<()> {
    eventually(&format!("the service to refuse as `{reason}`"), async || {
        Ok(shopper.call(held.token.expose(), errand).await?.error() == reason)
    })
    .await
}
