//! A narrower copy for a sub-agent, made without asking anybody.

use std::time::Duration;

use dayfly_proto::v1::Delegate;
use dayfly_proto::v1::revocation_target::Target;
use dayfly_verifier::caveat::Caveat;
use dayfly_verifier::time::{Clock as _, SystemClock};
use ed25519_dalek::SigningKey;

use super::ending::until_refused;
use super::{Cast, Errand, Since, Story, must_allow, must_refuse};
use crate::cli::shop::draw;

/// For so long the sub-agent may use its copy.
const LENT_FOR: Duration = Duration::from_secs(60);

/// The agent hands a part of what it holds on; that part is taken back by itself.
pub(super) async fn on(story: &mut Story, cast: &mut Cast) -> anyhow::Result<()> {
    story.scene("A sub-agent gets a narrower copy, and is held to it");
    let since = Since::now();
    let (ticket, case, whole) = cast.read_right(&["o-17", "o-18"], "ticket-4719").await?;
    let agent = cast.shopper(&ticket);
    must_allow(&agent, &whole, Errand::Read("o-18")).await?;
    story.allowed("the agent may read o-17 and o-18, and does", since);

    let sub_agent = agent.with_key(SigningKey::from_bytes(&draw()?));
    let since = Since::now();
    let end = SystemClock.now().plus(LENT_FOR).floor_to_second();
    let brief = whole.attenuate(&[Caveat::Before(end)])?;
    let only = "resource in orders/prod/o-17".parse()?;
    let to = sub_agent.key()?;
    let copy = brief.delegate(ticket.key(), &to, &[only])?;
    let lent = LENT_FOR.as_secs();
    let told = format!("handed on, offline: o-17 alone, for {lent} s, to the sub-agent's key");
    story.allowed(&told, since);

    let since = Since::now();
    must_allow(&sub_agent, &copy, Errand::Read("o-17")).await?;
    story.allowed("the sub-agent read o-17", since);
    let since = Since::now();
    must_refuse(&sub_agent, &copy, Errand::Read("o-18"), "caveat").await?;
    story.refused("o-18 to the sub-agent, which has less than the agent", since);
    let since = Since::now();
    must_refuse(&sub_agent, &whole, Errand::Read("o-17"), "bad_proof").await?;
    story.refused("the agent's own token in the hands of the sub-agent", since);

    let since = Since::now();
    let (grant, holder_key) = (case.grant.to_string(), to.to_string());
    cast.olga.revoke(Target::Delegate(Delegate { grant, holder_key })).await?;
    until_refused(&sub_agent, &copy, Errand::Read("o-17"), "revoked").await?;
    story.refused("the copy, once olga took back what that key was handed", since);
    let since = Since::now();
    must_allow(&agent, &whole, Errand::Read("o-18")).await?;
    story.allowed("the agent reads on: its own token is untouched", since);
    Ok(())
}
