//! A right whose uses are counted is spent once, however often it is tried.

use anyhow::ensure;
use dayfly_agent::case::Standing;

use super::{Cast, Errand, Since, Story, call, money, must_refuse, must_stand};

/// In cents. The orders service would pay it twice.
const PAID: i64 = 2_000;

/// Two calls at once, a retry, and another use.
pub(super) async fn spend(story: &mut Story, cast: &Cast) -> anyhow::Result<()> {
    story.scene("A right that counts is spent once");
    let since = Since::now();
    let wish = cast.wish("refund", &["o-17"], Some(5_000), "ticket-4720")?;
    let (ticket, case) = cast.agent.request(wish).await?;
    must_stand(&case, Standing::Granted)?;
    let held = cast.take(&ticket).await?;
    story.allowed("one refund on o-17, up to 50.00, needs nobody: granted at once", since);

    let before = cast.gateway.refunded("o-17")?;
    let shopper = cast.shopper(&ticket);
    let once = shopper.of_one_use()?;
    let errand = Errand::Refund("o-17", PAID, PAID);
    let since = Since::now();
    let (one, other) = tokio::join!(call(&once, &held, errand), call(&once, &held, errand));
    let (one, other) = (one?, other?);
    let (paid, refused) = if one.status.is_success() { (one, other) } else { (other, one) };
    let (status, why) = (paid.status, refused.error());
    ensure!(status.is_success(), "one of both must be allowed, but was {status}");
    ensure!(why == "use_repeated", "the other must be refused as `use_repeated`, but was `{why}`");
    let told = format!("{} paid back, once: its use was sent twice at one moment", money(PAID));
    story.allowed(&told, since);

    let since = Since::now();
    must_refuse(&once, &held, errand, "use_repeated").await?;
    story.refused("a retry of that use, as after a lost answer: it was spent", since);
    let since = Since::now();
    must_refuse(&shopper, &held, errand, "spent").await?;
    story.refused("a second use, under an id of its own: none is left", since);
    let now = cast.gateway.refunded("o-17")?;
    ensure!(now == before.saturating_add(PAID), "the money must have been paid back once");
    Ok(())
}
