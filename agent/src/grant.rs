//! A grant in the hands of its workload: tokens that are fresh when they are needed, proofs that go
//! with them, and the end.

use dayfly_verifier::claims::Claims;
use dayfly_verifier::proof::{ActDigest, DpopCall, make_dpop};
use dayfly_verifier::time::Timestamp;
use dayfly_verifier::wire::Token;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::case::{Case, Terms};
use crate::client::{Client, Outcome};
use crate::errors::Error;
use crate::ticket::{Ticket, fill};

/// A token as it was given out. Never printed.
#[derive(Clone)]
pub struct Held {
    /// The token.
    pub token: Token,
    /// What it says.
    pub claims: Claims,
}

impl Held {
    /// Whether at least a third of its life is left.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        let life = self.claims.expires_at.since(self.claims.issued_at);
        self.claims.expires_at.since(now).saturating_mul(3) > life
    }
}

/// What a client sends beside a call: the values of the headers `Authorization` and `DPoP`.
pub struct Headers {
    /// `DPoP` and the token.
    pub authorization: Zeroizing<String>,
    /// The proof.
    pub dpop: Zeroizing<String>,
}

/// A grant that is held.
pub struct Grant {
    client: Client,
    ticket: Ticket,
    terms: Terms,
    held: Mutex<Option<Held>>,
}

impl Grant {
    /// The grant that the request of `ticket` became, as `case` tells.
    ///
    /// # Errors
    /// [`Error::Ended`] or [`Error::StillPending`] where it did not become one.
    pub fn new(client: Client, ticket: Ticket, case: &Case) -> Result<Self, Error> {
        let case = case.clone().decided().ok_or(Error::StillPending)??;
        let terms = case.terms.ok_or(Error::answer("it tells of a grant without terms"))?;
        Ok(Self { client, ticket, terms, held: Mutex::new(None) })
    }

    /// What it gives.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Its ticket.
    #[must_use]
    pub const fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// A token with at least a third of its life left, exchanged afresh where the last one has run
    /// low.
    pub async fn token(&self) -> Result<Held, Error> {
        let mut held = self.held.lock().await;
        if let Some(fresh) = held.as_ref().filter(|held| held.is_fresh(self.client.now())) {
            return Ok(fresh.clone());
        }
        let exchange = self.client.draw_exchange()?;
        let new = self.client.exchange(&self.ticket, &exchange).await?;
        *held = Some(new.clone());
        Ok(new)
    }

    /// The headers for one HTTP call of `method` on `url` (without query), which does what `act`
    /// says. `nonce` is the one that the gateway gave last, if it gave one.
    pub async fn headers(
        &self,
        method: &str,
        url: &str,
        act: Option<&ActDigest>,
        nonce: Option<&str>,
    ) -> Result<Headers, Error> {
        let held = self.token().await?;
        let mut jti = [0; 16];
        fill(&mut jti)?;
        let call = DpopCall { method, url, act, nonce };
        let token = held.token.expose();
        let dpop = make_dpop(self.ticket.key(), token, &call, self.client.now(), jti);
        Ok(Headers {
            authorization: Zeroizing::new(format!("DPoP {token}")),
            dpop: Zeroizing::new(dpop),
        })
    }

    /// Ends the grant: the task is done.
    pub async fn complete(self, outcome: Outcome) -> Result<Case, Error> {
        self.client.complete(&self.ticket, outcome).await
    }

    /// Ends the grant: the task was given up.
    pub async fn cancel(self) -> Result<Case, Error> {
        self.client.cancel(&self.ticket).await
    }
}
