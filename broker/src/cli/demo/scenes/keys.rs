//! The key that signs tokens is another from one moment to the next, and nobody notices.

use anyhow::ensure;
use dayfly_agent::case::Standing;
use dayfly_proto::v1::KeyStanding;

use super::{Cast, Errand, Since, Story, must_allow, must_stand};
use crate::cli::shop::eventually;
use crate::cli::shop::stage::Stage;

/// A new key is listed and used, and the old one retired, while a token of each is good.
pub(super) async fn rotate(
    story: &mut Story,
    cast: &mut Cast,
    stage: &Stage,
) -> anyhow::Result<()> {
    story.scene("The signing key is changed in mid-flight");
    let (ticket, _, before) = cast.read_right(&["o-17"], "ticket-4717").await?;
    let (shopper, old) = (cast.shopper(&ticket), before.claims.key);
    must_allow(&shopper, &before, Errand::Read("o-17")).await?;
    let since = Since::now();
    let new = stage.rotate()?;
    story.does("olga", &format!("makes key {new}; the trust root, off the broker, signs for it"));
    eventually("the new key to sign", async || {
        let keys = cast.olga.keys().await?;
        Ok(keys.iter().any(|key| key.key == new.0 && key.standing() == KeyStanding::Signing))
    })
    .await?;
    story.allowed("the service has fetched and acknowledged it: now it may be used", since);
    let since = Since::now();
    let wish = cast.wish("refund", &["o-17"], Some(4_500), "ticket-4718")?;
    let (other, case) = cast.agent.request(wish).await?;
    must_stand(&case, Standing::Granted)?;
    let after = cast.take(&other).await?;
    ensure!(after.claims.key == new, "what is exchanged now must be signed with the new key");
    cast.olga.retire(old).await?;
    must_allow(&shopper, &before, Errand::Read("o-17")).await?;
    must_allow(&cast.shopper(&other), &after, Errand::Refund("o-17", 100, 100)).await?;
    story.allowed(
        &format!("a refund by key {new}, and a read by key {old}, which has signed its last"),
        since,
    );
    Ok(())
}
