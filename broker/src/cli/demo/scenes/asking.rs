//! From the request to the use, and what is refused on the way.

use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::{bail, ensure};
use dayfly_agent::case::Standing;
use dayfly_agent::errors::{Error, Reason};
use dayfly_agent::held::Held;
use dayfly_agent::ticket::Ticket;
use dayfly_verifier::id::GrantId;
use dayfly_verifier::request::Narrowing;
use ed25519_dalek::SigningKey;

use super::{
    Cast, Errand, Shopper, Since, Story, money, must_allow, must_refuse, must_stand, narrowed_to,
    uses,
};
use crate::cli::shop::draw;

const ASKED: i64 = 90_000;
const APPROVED: i64 = 50_000;
const PAID: i64 = 42_000;

/// The agent asks; policy wants two people; nothing is granted yet.
pub(super) async fn ask(story: &mut Story, cast: &Cast) -> anyhow::Result<(Ticket, GrantId)> {
    story.scene("An agent asks for one right, for one task");
    story.does("agent", &format!("may I refund up to {} on orders/prod/o-17?", money(ASKED)));
    let since = Since::now();
    let mut wish = cast.wish("refund", &["o-17"], Some(ASKED), "ticket-4711")?;
    wish.uses = NonZeroU32::new(3);
    let (ticket, case) = cast.agent.request(wish).await?;
    must_stand(&case, Standing::Pending)?;
    let needs: Vec<_> = case.required.iter().map(|(group, n)| format!("{n} of {group}")).collect();
    ensure!(
        case.required == [("dba".into(), 1), ("security".into(), 1)],
        "policy must want dba and security, but wants {needs:?}"
    );
    story.allowed(&format!("filed and pending; policy wants {}", needs.join(" and ")), since);

    let since = Since::now();
    not_granted(cast, &ticket).await?;
    story.refused("an exchange before anybody has approved", since);
    Ok((ticket, case.grant))
}

/// Two people approve; one of them takes something away.
pub(super) async fn approve(
    story: &mut Story,
    cast: &mut Cast,
    ticket: &Ticket,
    grant: GrantId,
) -> anyhow::Result<()> {
    story.scene("Two people approve, each with an SSH signature over the very request");
    let since = Since::now();
    let lines = cast.ana.approve(grant, Narrowing::default(), "the customer is right").await?;
    story.allowed(&format!("ana (dba) read {lines} lines and approved"), since);
    let agent = cast.agent.clone();
    let since = Since::now();
    let narrowing = narrowed_to(APPROVED)?;
    cast.caro.approve(grant, narrowing, "not more than the broken part").await?;
    story.allowed(&format!("caro (security) approved, but at most {}", money(APPROVED)), since);
    let case = agent.wait(ticket, None, |_| {}).await?;
    let terms = case.terms.ok_or_else(|| anyhow::anyhow!("a grant must have terms"))?;
    let limits: Vec<String> = terms.scope.constraints().map(ToString::to_string).collect();
    ensure!(limits.iter().any(|limit| limit == "amount <= 50000"), "not narrowed: {limits:?}");
    let lease = terms.until.since(terms.from).as_secs();
    let told = format!("the agent was told: {}, {lease} s from now", uses(terms.uses));
    story.allowed(&told, since);
    Ok(())
}

/// The grant is exchanged for a token, and the token is used.
pub(super) async fn exchange(
    story: &mut Story,
    cast: &Cast,
    ticket: &Ticket,
) -> anyhow::Result<Held> {
    story.scene("The grant becomes a short-lived token, bound to the agent's key, and is used");
    let since = Since::now();
    let held = cast.take(ticket).await?;
    let life = held.claims.expires_at.since(held.claims.issued_at).as_secs();
    let bytes = held.token.expose().len();
    story.allowed(&format!("exchanged: a Biscuit of {bytes} characters, good for {life} s"), since);
    let since = Since::now();
    let errand = Errand::Refund("o-17", PAID, PAID);
    must_allow(&cast.shopper(ticket), &held, errand).await?;
    ensure!(cast.gateway.refunded("o-17")? == PAID, "the money must have been paid back once");
    story.allowed(&format!("{} paid back on o-17, one of 3 uses spent", money(PAID)), since);
    Ok(held)
}

/// What the token does not allow, and who it does not serve.
pub(super) async fn misuse(
    story: &mut Story,
    cast: &Cast,
    shopper: &Shopper,
    held: &Held,
) -> anyhow::Result<()> {
    story.scene("The same token, misused");
    let over = APPROVED.saturating_add(1);
    let since = Since::now();
    let reply = must_refuse(shopper, held, Errand::Refund("o-17", over, over), "argument").await?;
    let wanted = reply.body.pointer("/request/operation").and_then(|text| text.as_str());
    ensure!(wanted == Some("refund"), "the refusal must say what to request");
    let told = format!("a refund of {}; the answer says what to request", money(over));
    story.refused(&told, since);

    let since = Since::now();
    must_refuse(shopper, held, Errand::Refund("o-17", 49_900, 100), "bad_proof").await?;
    story.refused("an amount that was changed after the agent signed for it", since);

    let since = Since::now();
    must_refuse(shopper, held, Errand::Refund("o-18", 100, 100), "out_of_scope").await?;
    story.refused("another order", since);

    let since = Since::now();
    let thief = shopper.with_key(SigningKey::from_bytes(&draw()?));
    must_refuse(&thief, held, Errand::Refund("o-17", 100, 100), "bad_proof").await?;
    story.refused("a stolen copy, in the hands of somebody with another key", since);
    let paid = (cast.gateway.refunded("o-17")?, cast.gateway.refunded("o-18")?);
    ensure!(paid == (PAID, 0), "nothing more must have been paid back");
    Ok(())
}

/// Nobody answers: nothing is granted.
pub(super) async fn unanswered(story: &mut Story, cast: &Cast) -> anyhow::Result<()> {
    story.scene("A request that nobody answers");
    let since = Since::now();
    let wish = cast.wish("refund", &["o-18"], Some(ASKED), "ticket-4712")?;
    let (ticket, case) = cast.agent.request(wish).await?;
    must_stand(&case, Standing::Pending)?;
    let waited = cast.agent.wait(&ticket, Some(Duration::from_millis(200)), |_| {}).await;
    ensure!(matches!(waited, Err(Error::StillPending)), "it must still be pending");
    not_granted(cast, &ticket).await?;
    story.refused("silence is not a yes: still pending, and no token", since);
    let since = Since::now();
    must_stand(&cast.agent.cancel(&ticket).await?, Standing::Cancelled)?;
    story.allowed("the agent took it back", since);
    Ok(())
}

/// An exchange must be refused because nobody has granted the request.
async fn not_granted(cast: &Cast, ticket: &Ticket) -> anyhow::Result<()> {
    match cast.take(ticket).await.map_err(|error| error.downcast::<Error>()) {
        Err(Ok(Error::Refused(refusal))) if refusal.reason == Reason::NotYetApproved => Ok(()),
        Err(Ok(Error::StillPending)) => Ok(()),
        Err(Ok(other)) => bail!("must not be granted yet, but: {other}"),
        Err(Err(other)) => Err(other),
        Ok(_) => bail!("a request that nobody approved was exchanged for a token"),
    }
}
