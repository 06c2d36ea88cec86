//! The agent.

use std::sync::Arc;

use dayfly_agent::client::Client;
use dayfly_agent::errors::{Advice, Error};
use dayfly_agent::grant::{Grant, NotDone};
use dayfly_agent::testkit::GATEWAY;
use dayfly_agent::ticket::Ask;
use dayfly_agent::uses::Use;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::scope::{Scope, Value};
use dayfly_verifier::verify::Call;
use http::Method;

use crate::shop::{self, Shop};

/// An agent that refunds orders.
pub(crate) struct Agent {
    pub(crate) client: Client,
    pub(crate) shop: Shop,
}

/// Why a refund was not made.
#[derive(Debug)]
pub(crate) enum Failed {
    /// It was not even tried. The advice goes to the model as it is.
    NotRun(Advice),
    /// The shop said no: status, reason.
    Shop(u16, String),
    /// It could not go on: no token any more.
    Stopped(Advice),
}

impl Agent {
    /// Pays back on one order.
    pub(crate) async fn refund(&self, order: &str, amount: i64) -> Result<(), Failed> {
        self.refund_all(&[order], amount).await
    }

    /// Pays back on several orders, under one grant.
    pub(crate) async fn refund_all(&self, orders: &[&str], amount: i64) -> Result<(), Failed> {
        let ask = wish(orders, amount).map_err(|error| not_run(&error.into()))?;
        let done = self
            .client
            .run(ask, async |grant: Arc<Grant>, _| {
                for order in orders {
                    self.pay(&grant, order, amount).await?;
                }
                Ok(())
            })
            .await;
        done.map_err(|error| match error {
            NotDone::NotRun(error) => not_run(&error),
            NotDone::Failed(failed) => failed,
        })
    }

    async fn pay(&self, grant: &Grant, order: &str, amount: i64) -> Result<(), Failed> {
        let call = call(order, amount).map_err(|error| stopped(error.into()))?;
        let url = format!("{}/orders/{order}/refund", shop::URL);
        let mut this = Use::new(Method::POST, &url, call, grant.now()).map_err(stopped)?;
        loop {
            let headers = grant.headers(&this).await.map_err(stopped)?;
            let body = format!("{{\"amount\":{amount}}}");
            let answer = self.shop.send(&Method::POST, &url, headers, body).await;
            if this.again(answer.status(), answer.headers()) {
                continue;
            }
            return match answer.status().as_u16() {
                200 => Ok(()),
                status => Err(Failed::Shop(status, shop::reason(answer).await)),
            };
        }
    }
}

fn stopped(error: Error) -> Failed {
    Failed::Stopped(error.advice())
}

fn not_run(error: &Error) -> Failed {
    Failed::NotRun(error.advice())
}

fn wish(orders: &[&str], amount: i64) -> Result<Ask, Invalid> {
    let rights = orders.iter().map(|order| format!("refund orders/prod/{order}").parse());
    let at_most = format!("amount <= {amount}").parse()?;
    let scope = Scope::new(rights.collect::<Result<Vec<_>, _>>()?, [at_most])?;
    let mut ask = Ask::new(GATEWAY.parse()?, scope, "ticket-17".parse()?, "refund".parse()?);
    ask.justification = "the parcel was lost".to_owned();
    Ok(ask)
}

fn call(order: &str, amount: i64) -> Result<Call, Invalid> {
    Ok(Call {
        operation: "refund".parse()?,
        resource: format!("orders/prod/{order}").parse()?,
        arguments: [("amount".parse()?, Value::Int(amount))].into(),
    })
}
