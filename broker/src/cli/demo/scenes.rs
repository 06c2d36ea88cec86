//! The scenes of the demo, in order. Each says what must come out, and ends the demo if it does
//! not.

mod asking;
mod ending;
mod handing;
mod keys;
mod once;
mod record;
mod silence;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use axum::Router;
use dayfly_agent::case::{Case, Standing};
use dayfly_agent::client::Client;
use dayfly_agent::held::Held;
use dayfly_agent::ticket::{Ask, Ticket};
use dayfly_verifier::request::{ConfirmBy, Narrowing};
use dayfly_verifier::scope::{Constraint, Limit, Right, Scope};
use tokio_util::sync::CancellationToken;

use super::people::{Approver, Operator};
use super::shopper::{Errand, Reply, Shopper};
use super::story::{Since, Story};
use super::wired::{self, Scratch};
use crate::cli::shop::gateway::Gateway;

/// All who act.
struct Cast {
    gateway: Gateway,
    /// Between the gateway and the broker.
    wire: CancellationToken,
    agent: Client,
    ana: Approver,
    caro: Approver,
    olga: Operator,
}

/// Plays all scenes, with the service seen `through` what stands in front of it.
pub(super) async fn play(
    mut story: Story,
    through: impl Fn(Router) -> Router,
) -> anyhow::Result<()> {
    let since = Since::now();
    let scratch = Scratch::new()?;
    let stage = scratch.stage().await?;
    let wire = CancellationToken::new();
    let mut cast = Cast {
        gateway: wired::gateway(&stage, "orders-1", wire.clone(), &through).await?,
        wire,
        agent: Client::new(stage.enter("agent/refunds").await?),
        ana: Approver::new("ana", stage.enter("person/ana").await?, stage.signer("ana")?)?,
        caro: Approver::new("caro", stage.enter("person/caro").await?, stage.signer("caro")?)?,
        olga: Operator(stage.enter("person/olga").await?),
    };
    story
        .allowed("everybody joined, by mutual TLS, and the orders service follows the feed", since);

    let (ticket, grant) = asking::ask(&mut story, &cast).await?;
    asking::approve(&mut story, &mut cast, &ticket, grant).await?;
    let held = asking::exchange(&mut story, &cast, &ticket).await?;
    let shopper = cast.shopper(&ticket);
    asking::misuse(&mut story, &cast, &shopper, &held).await?;
    handing::on(&mut story, &mut cast).await?;
    once::spend(&mut story, &cast).await?;
    asking::unanswered(&mut story, &cast).await?;
    ending::complete(&mut story, &cast, &ticket, &shopper, &held).await?;
    keys::rotate(&mut story, &mut cast, &stage).await?;
    ending::revoke(&mut story, &mut cast).await?;
    let other = CancellationToken::new();
    let second = wired::gateway(&stage, "orders-2", other.clone(), &through).await?;
    silence::revoke(&mut story, &mut cast, second, other).await?;
    ending::tighten(&mut story, &mut cast, &stage).await?;
    ending::cut(&mut story, &cast).await?;
    record::audit(&mut story, &cast.olga).await?;
    drop(cast);
    stage.shutdown.cut();
    stage.end().await?;
    story.end();
    Ok(())
}

impl Cast {
    /// A client of the orders service with the key of a ticket.
    fn shopper(&self, ticket: &Ticket) -> Shopper {
        let key = Arc::new(ticket.key().clone());
        Shopper::new(self.gateway.address, self.gateway.id.clone(), key)
    }

    /// What the agent asks for: `operation` on `orders`, of at most `amount` where there is one.
    fn wish(
        &self,
        operation: &str,
        orders: &[&str],
        amount: Option<i64>,
        task: &str,
    ) -> anyhow::Result<Ask> {
        let right = |order: &&str| {
            let resource = format!("orders/prod/{order}").parse()?;
            anyhow::Ok(Right { operation: operation.parse()?, resource })
        };
        let rights = orders.iter().map(right).collect::<Result<Vec<_>, _>>()?;
        let bound = amount.map(at_most).transpose()?;
        Ok(Ask {
            audience: self.gateway.id.clone(),
            scope: Scope::new(rights, bound)?,
            task: task.parse()?,
            purpose: "customer-support".parse()?,
            justification: "order o-17 arrived broken; the customer wants the money back".into(),
            lifetime: None,
            uses: None,
            principal: None,
            confirmation: ConfirmBy::Key,
        })
    }

    /// Asks for a right that needs only `dba`, has it approved, and takes a token for it.
    async fn read_right(
        &mut self,
        orders: &[&str],
        task: &str,
    ) -> anyhow::Result<(Ticket, Case, Held)> {
        let wish = self.wish("read", orders, None, task)?;
        let (ticket, case) = self.agent.request(wish).await?;
        must_stand(&case, Standing::Pending)?;
        self.ana.approve(case.grant, Narrowing::default(), "read only").await?;
        let case = self.agent.wait(&ticket, None, |_| {}).await?;
        let held = self.take(&ticket).await?;
        Ok((ticket, case, held))
    }

    async fn take(&self, ticket: &Ticket) -> anyhow::Result<Held> {
        Ok(self.agent.exchange(ticket, &self.agent.draw_exchange()?).await?)
    }
}

fn at_most(amount: i64) -> anyhow::Result<Constraint> {
    Ok(Constraint { argument: "amount".parse()?, limit: Limit::AtMost(amount) })
}

/// Only payments of at most `amount`, in addition to what was asked.
fn narrowed_to(amount: i64) -> anyhow::Result<Narrowing> {
    Ok(Narrowing { constraints: BTreeSet::from([at_most(amount)?]), ..Narrowing::default() })
}

/// Calls, and again while the service has not heard from its feed for longer than its bound, as it
/// may on a busy machine: nothing was done then.
async fn call(shopper: &Shopper, held: &Held, errand: Errand<'_>) -> anyhow::Result<Reply> {
    let mut reply = shopper.call(held.token.expose(), errand).await?;
    for _ in 0..100 {
        if reply.error() != "stale" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        reply = shopper.call(held.token.expose(), errand).await?;
    }
    Ok(reply)
}

/// Calls, and ends the demo unless the refusal is the one that must come.
async fn must_refuse(
    shopper: &Shopper,
    held: &Held,
    errand: Errand<'_>,
    reason: &str,
) -> anyhow::Result<Reply> {
    let reply = call(shopper, held, errand).await?;
    let got = reply.error();
    ensure!(got == reason, "must be refused as `{reason}`, but was {} `{got}`", reply.status);
    Ok(reply)
}

/// Calls, and ends the demo unless it is allowed.
async fn must_allow(shopper: &Shopper, held: &Held, errand: Errand<'_>) -> anyhow::Result<Reply> {
    let reply = call(shopper, held, errand).await?;
    let got = reply.error();
    ensure!(reply.status.is_success(), "must be allowed, but was {} `{got}`", reply.status);
    Ok(reply)
}

fn must_stand(case: &Case, standing: Standing) -> anyhow::Result<()> {
    ensure!(
        case.standing == standing,
        "the request must be one that {standing}, but {}",
        case.standing
    );
    Ok(())
}

/// Cents as money.
fn money(cents: i64) -> String {
    let (whole, rest) = (cents.checked_div(100).unwrap_or(0), cents.checked_rem(100).unwrap_or(0));
    format!("{whole}.{:02}", rest.unsigned_abs())
}

fn uses(uses: Option<NonZeroU32>) -> String {
    uses.map_or_else(|| "any number of uses".into(), |uses| format!("{uses} uses"))
}
