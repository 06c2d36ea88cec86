//! A grant in the hands of its workload: tokens that are fresh when they are needed, and the end.

mod guard;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dayfly_verifier::caveat::Caveat;
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::ExchangeId;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::time::Timestamp;
use http::HeaderMap;
use tokio::sync::Mutex;
use tokio::time::timeout;

pub use self::guard::{Guard, NotDone};
use crate::case::{Case, Standing, Terms};
use crate::client::{Client, Outcome, timed_out};
use crate::errors::{Ended, Error, Reason};
use crate::held::Held;
use crate::ticket::Ticket;
use crate::uses::Use;

/// How long a renewal may take while the token at hand is still good.
const EARLY: Duration = Duration::from_secs(2);
/// How long after a renewal that nobody answered the next one is tried.
const LATER: Duration = Duration::from_secs(5);

/// A grant that is held. Dropping it leaves the grant as it is, until its lease ends: an agent that
/// stops may take it up again from its ticket. To give it back whatever happens, see
/// [`Grant::guard`].
pub struct Grant {
    client: Client,
    ticket: Arc<Ticket>,
    terms: Terms,
    tokens: Mutex<Tokens>,
    /// Why there will be no token any more.
    ended: OnceLock<Error>,
}

/// The last token, and what was asked for the next.
#[derive(Default)]
struct Tokens {
    held: Option<Held>,
    /// From when on the next one is asked for.
    renew_at: Timestamp,
    /// An exchange whose answer is not known: a retry is the same thing, and never a second token.
    asking: Option<ExchangeId>,
}

impl Grant {
    /// The grant that the request of `ticket` became, as `case` tells.
    ///
    /// # Errors
    /// [`Error::Ended`] or [`Error::StillPending`] where it did not become one; [`Error::Invalid`]
    /// if the case is of another ticket.
    pub fn new(client: Client, ticket: impl Into<Arc<Ticket>>, case: &Case) -> Result<Self, Error> {
        let ticket = ticket.into();
        if case.request != *ticket.id() {
            return Err(Invalid::new("case", "must be the one of the ticket").into());
        }
        let case = case.clone().decided().ok_or(Error::StillPending)??;
        let terms = case.terms.ok_or(Error::answer("it tells of a grant without terms"))?;
        let (tokens, ended) = Default::default();
        Ok(Self { client, ticket, terms, tokens, ended })
    }

    /// What it gives.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Its ticket.
    #[must_use]
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// The time, by the clock of its client.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.client.now()
    }

    /// A token that has not expired, exchanged afresh once the last one has run low. However many
    /// ask at once, one exchange is under way at a time. While nobody answers, the last token is
    /// given as long as it is good.
    ///
    /// # Errors
    /// [`Error::Ended`] and [`Error::Refused`] once the grant is over: from then on no token is
    /// given, whatever was held. [`Error::CouldNotAsk`] if nobody answers and none is good.
    pub async fn token(&self) -> Result<Held, Error> {
        let mut tokens = self.tokens.lock().await;
        self.not_ended()?;
        let good = tokens.good(self.client.now());
        if let Some(good) = good.clone().filter(|_| self.client.now() < tokens.renew_at) {
            return Ok(good);
        }
        let renewed = match good {
            // What is cut off here is asked again under the same id.
            Some(_) => timeout(EARLY, self.renew(&mut tokens)).await,
            None => Ok(self.renew(&mut tokens).await),
        };
        let renewed = renewed.unwrap_or_else(|_| Err(timed_out()));
        // It may have been given back meanwhile.
        self.not_ended()?;
        let error = match renewed {
            Ok(held) => return Ok(held),
            Err(error) => error,
        };
        let now = self.client.now();
        if let (Error::CouldNotAsk(_), Some(good)) = (&error, tokens.good(now)) {
            tokens.renew_at = now.plus(LATER);
            return Ok(good);
        }
        self.ends_by(&error);
        Err(error)
    }

    /// The headers for one attempt at `this` use, with a fresh proof and a token that is good.
    ///
    /// # Errors
    /// As [`Grant::token`].
    pub async fn headers(&self, this: &Use) -> Result<HeaderMap, Error> {
        let held = self.token().await?;
        this.headers(&held, self.ticket.key(), self.client.now())
    }

    /// A token for another holder, who proves its own key `to`; allowing no more than `caveats` let
    /// through. It lives no longer than the token that this grant has now.
    ///
    /// # Errors
    /// As [`Grant::token`] and [`Held::delegate`].
    pub async fn delegate(&self, to: &HolderKey, caveats: &[Caveat]) -> Result<Held, Error> {
        self.token().await?.delegate(self.ticket.key(), to, caveats)
    }

    /// Tells that a gateway refused this token as revoked: it is given no more, and the next one is
    /// exchanged afresh. A token, or the key that signed it, can be taken back alone, and the grant
    /// goes on; where the grant is what was taken back, the next [`Grant::token`] says so.
    pub async fn refused(&self, held: &Held) {
        let mut tokens = self.tokens.lock().await;
        let is_last = |last: &Held| last.claims.token == held.claims.token;
        if tokens.held.as_ref().is_some_and(is_last) {
            tokens.held = None;
        }
    }

    /// How it stands, by the broker: what to ask once a gateway refuses a token. The token at hand
    /// stays; see [`Grant::refused`].
    ///
    /// # Errors
    /// [`Error::CouldNotAsk`].
    pub async fn look(&self) -> Result<Case, Error> {
        let case = self.client.look(&self.ticket).await?;
        if let Some(Err(ended)) = case.clone().decided() {
            self.ends_by(&ended);
        }
        Ok(case)
    }

    /// Ends the grant: the task is done. From the call on, no token is given here; from the answer
    /// on, no gateway that is up to date accepts one.
    ///
    /// # Errors
    /// [`Error::CouldNotAsk`]: the grant may live on until its lease ends. The call may be made
    /// again.
    pub async fn complete(&self, outcome: Outcome) -> Result<Case, Error> {
        self.ends(Standing::Completed);
        self.client.complete(&self.ticket, outcome).await
    }

    /// Ends the grant: the task was given up.
    ///
    /// # Errors
    /// As [`Grant::complete`].
    pub async fn cancel(&self) -> Result<Case, Error> {
        self.ends(Standing::Cancelled);
        self.client.cancel(&self.ticket).await
    }

    /// The same grant, given back when the guard is dropped.
    #[must_use]
    pub fn guard(self) -> Guard {
        Guard::new(Arc::new(self))
    }

    fn not_ended(&self) -> Result<(), Error> {
        if self.client.now() >= self.terms.until {
            self.ends(Standing::Lapsed);
        }
        self.ended.get().map_or(Ok(()), |ended| Err(ended.clone()))
    }

    fn ends(&self, standing: Standing) {
        self.ends_by(&Error::Ended(Ended { standing, because: String::new() }));
    }

    /// Keeps the first reason.
    fn ends_by(&self, error: &Error) {
        if error.is_end() {
            self.ended.get_or_init(|| error.clone());
        }
    }

    async fn renew(&self, tokens: &mut Tokens) -> Result<Held, Error> {
        loop {
            let before = tokens.asking;
            let exchange = before.map_or_else(|| self.client.draw_exchange(), Ok)?;
            tokens.asking = Some(exchange);
            let answer = self.client.exchange(&self.ticket, &exchange).await;
            if !matches!(answer, Err(Error::CouldNotAsk(_))) {
                tokens.asking = None;
            }
            // Its token has run out since, or was taken back alone, if there ever was one: another
            // exchange tells how the grant stands.
            let of_token =
                |error: &Error| matches!(error.reason(), Some(Reason::StaleId | Reason::Revoked));
            if before.is_some() && answer.as_ref().is_err_and(of_token) {
                continue;
            }
            return tokens.keep(answer?, self.client.now(), before.is_none());
        }
    }
}

impl Tokens {
    /// The last token, if it has not expired.
    fn good(&self, now: Timestamp) -> Option<Held> {
        self.held.clone().filter(|held| now < held.claims.expires_at)
    }

    fn keep(&mut self, held: Held, now: Timestamp, is_new: bool) -> Result<Held, Error> {
        let claims = &held.claims;
        if claims.expires_at <= now {
            return Err(Error::answer("its token has expired; the clocks may differ"));
        }
        let third = claims.expires_at.since(claims.issued_at).checked_div(3).unwrap_or_default();
        let low = claims.expires_at.minus(third);
        // Where the broker has none that lives longer, asking again would be to no purpose.
        self.renew_at = if now < low || !is_new { low } else { claims.expires_at };
        self.held = Some(held.clone());
        Ok(held)
    }
}
