//! Asking a broker: file, wait, exchange, complete, cancel. Every call may be sent again, since it
//! is named by an id that the caller drew; so it is, for a bounded time, while nobody answers.
//!
//! An unknown answer is an error here, and never a yes.

use std::sync::Arc;
use std::time::Duration;

use dayfly_proto::v1;
use dayfly_proto::v1::access_service_client::AccessServiceClient;
use dayfly_verifier::holder::Confirmation;
use dayfly_verifier::id::{ExchangeId, RequestId};
use dayfly_verifier::proof::{HolderCall, HolderProof};
use dayfly_verifier::request::ConfirmBy;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::{Clock, Timestamp};
use dayfly_verifier::wire::{Decoded, Token};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::case::{Case, Standing};
use crate::convert::time;
use crate::errors::Error;
use crate::grant::{Grant, Held};
use crate::session::Session;
use crate::ticket::{Ask, Ticket, fill};

/// How long a call is sent again while nobody answers, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one call may take.
const CALL: Duration = Duration::from_secs(5);
/// The pauses between attempts: from this, doubled each time, up to that.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long after the request's own end a silent broker is still waited for.
const GRACE: Duration = Duration::from_secs(60);

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it set out to do.
    Succeeded,
    /// It did not.
    Failed,
}

/// A workload's way to its brokers.
#[derive(Clone)]
pub struct Client {
    way: Way,
    clock: Arc<dyn Clock>,
    patience: Duration,
}

#[derive(Clone)]
enum Way {
    Session(Arc<Session>),
    Channel(Channel, SpiffeId),
}

impl Client {
    /// Over a session, under its identity.
    #[must_use]
    pub fn new(session: Arc<Session>) -> Self {
        let clock = session.live().clock().clone();
        Self { way: Way::Session(session), clock, patience: PATIENCE }
    }

    /// Over a channel whose other end knows the caller as `caller`.
    #[must_use]
    pub fn over(channel: Channel, caller: SpiffeId, clock: Arc<dyn Clock>) -> Self {
        Self { way: Way::Channel(channel, caller), clock, patience: PATIENCE }
    }

    /// The same, sending a call again for this long while nobody answers; 10 s by default.
    #[must_use]
    pub fn patient_for(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The time, by this client's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn channel(&self) -> Channel {
        match &self.way {
            Way::Session(session) => session.channel(),
            Way::Channel(channel, _) => channel.clone(),
        }
    }

    fn service(&self) -> AccessServiceClient<Channel> {
        AccessServiceClient::new(self.channel())
    }

    fn caller(&self) -> SpiffeId {
        match &self.way {
            Way::Session(session) => session.identity().id().clone(),
            Way::Channel(_, caller) => caller.clone(),
        }
    }

    fn proof(
        &self,
        ticket: &Ticket,
        method: &'static str,
        filing: Option<&[u8; 32]>,
    ) -> v1::HolderProof {
        let caller = self.caller();
        let method = format!("dayfly.v1.AccessService/{method}");
        let call = HolderCall { method: &method, request: ticket.id(), caller: &caller, filing };
        let proof = HolderProof::make(ticket.key(), &call, self.now());
        v1::HolderProof {
            at_ms: i64::try_from(proof.at.as_ms()).unwrap_or(i64::MAX),
            signature: proof.signature.to_vec().into(),
        }
    }

    /// Draws a ticket and files its request. To survive a crash in between, draw the ticket, keep
    /// it, and [`Client::file`] it.
    pub async fn request(&self, ask: Ask) -> Result<(Ticket, Case), Error> {
        let ticket = Ticket::draw(ask, self.now())?;
        let case = self.file(&ticket).await?;
        Ok((ticket, case))
    }

    /// Files the request of a ticket, or learns how it stands if it was filed before.
    pub async fn file(&self, ticket: &Ticket) -> Result<Case, Error> {
        let filing = ticket.filing()?;
        let digest = Sha256::digest(filing.encode_to_vec()).into();
        let answer = self.again(|| {
            let proof = Some(self.proof(ticket, "RequestAccess", Some(&digest)));
            let filing = v1::RequestAccessRequest { proof, ..filing.clone() };
            let mut service = self.service();
            async move { service.request_access(filing).await }
        });
        Case::read(answer.await?.request, Some(ticket.id()))
    }

    /// Waits until the request is decided, learning of every change by push; goes on over losses of
    /// the connection. `seen` is told how the request stands, first and after each change.
    ///
    /// # Errors
    /// [`Error::Ended`] if it was refused, denied, or is over; [`Error::StillPending`] after
    /// `at_most`; [`Error::CouldNotAsk`] if nobody answers until a minute after the request must
    /// have expired: it is not granted then, as far as anybody may assume.
    pub async fn wait(
        &self,
        ticket: &Ticket,
        at_most: Option<Duration>,
        mut seen: impl FnMut(&Case),
    ) -> Result<Case, Error> {
        match at_most {
            None => self.watch(ticket, &mut seen).await,
            Some(at_most) => tokio::time::timeout(at_most, self.watch(ticket, &mut seen))
                .await
                .unwrap_or(Err(Error::StillPending)),
        }
    }

    async fn watch(&self, ticket: &Ticket, seen: &mut impl FnMut(&Case)) -> Result<Case, Error> {
        let mut last: Option<Case> = None;
        let mut silence = Silence::default();
        loop {
            let failed = match self.follow(ticket, &mut last, &mut silence, seen).await {
                Ok(Some(decided)) => return decided,
                Ok(None) => Status::unavailable("it ended the watch before the decision").into(),
                Err(failed) if failed.is_passing() => failed,
                Err(failed) => return Err(failed),
            };
            let patience = match &last {
                None => self.patience,
                Some(case) if self.now() < case.pending_until.plus(GRACE) => Duration::MAX,
                Some(_) => Duration::ZERO,
            };
            silence.pause(patience, failed).await?;
        }
    }

    /// Follows one stream to the decision (`Some`) or to its end (`None`).
    async fn follow(
        &self,
        ticket: &Ticket,
        last: &mut Option<Case>,
        silence: &mut Silence,
        seen: &mut impl FnMut(&Case),
    ) -> Result<Option<Result<Case, Error>>, Error> {
        let proof = Some(self.proof(ticket, "WatchRequest", None));
        let request = v1::WatchRequestRequest { request_id: ticket.id().to_string(), proof };
        let mut service = self.service();
        let opened = tokio::time::timeout(CALL, service.watch_request(request)).await;
        let mut stream = opened.map_err(|_| timed_out())??.into_inner();
        while let Some(answer) = stream.message().await? {
            silence.since = None;
            let case = Case::read(answer.request, Some(ticket.id()))?;
            if last.as_ref() != Some(&case) {
                silence.pauses = 0;
                seen(&case);
            }
            *last = Some(case.clone());
            if let Some(decided) = case.decided() {
                return Ok(Some(decided));
            }
        }
        Ok(None)
    }

    /// A token for a granted request. The same `exchange` id yields the same token.
    ///
    /// The answer is looked at before it is believed: a token for another grant, holder or gateway
    /// is no answer.
    pub async fn exchange(&self, ticket: &Ticket, exchange: &ExchangeId) -> Result<Held, Error> {
        let answer = self.again(|| {
            let proof = Some(self.proof(ticket, "Exchange", None));
            let (request_id, exchange_id) = (ticket.id().to_string(), exchange.to_string());
            let mut service = self.service();
            let request = v1::ExchangeRequest { request_id, exchange_id, proof };
            async move { service.exchange(request).await }
        });
        let v1::ExchangeResponse { token, token_id, expires_at_ms, grant_id } = answer.await?;
        let token = Token::read(&token)?;
        let decoded = Decoded::read(token.expose())?;
        let claims = &decoded.unverified().claims;
        let holder = match ticket.ask().confirmation {
            ConfirmBy::Key => Confirmation::Key(ticket.holder_key()?),
            ConfirmBy::Identity => Confirmation::Identity,
        };
        let fits = claims.token.to_string() == token_id
            && claims.grant.to_string() == grant_id
            && claims.holder == holder
            && claims.audience == ticket.ask().audience
            && time(expires_at_ms) == Ok(claims.expires_at);
        if fits {
            return Ok(Held { token, claims: claims.clone() });
        }
        Err(Error::answer("its token is not the one that was asked for"))
    }

    /// Draws the id of an exchange.
    pub fn draw_exchange(&self) -> Result<ExchangeId, Error> {
        let mut random = [0; 10];
        fill(&mut random)?;
        Ok(ExchangeId::draw(self.now(), random))
    }

    /// Ends the grant: the task is done. From the answer on, no gateway that is up to date accepts
    /// its tokens.
    pub async fn complete(&self, ticket: &Ticket, outcome: Outcome) -> Result<Case, Error> {
        let outcome = match outcome {
            Outcome::Succeeded => v1::complete_request::Outcome::Succeeded,
            Outcome::Failed => v1::complete_request::Outcome::Failed,
        };
        let answer = self.again(|| {
            let proof = Some(self.proof(ticket, "Complete", None));
            let request_id = ticket.id().to_string();
            let request = v1::CompleteRequest { request_id, outcome: outcome.into(), proof };
            let mut service = self.service();
            async move { service.complete(request).await }
        });
        Case::read(answer.await?.request, Some(ticket.id()))
    }

    /// Takes the request back, or ends a grant whose task was given up.
    pub async fn cancel(&self, ticket: &Ticket) -> Result<Case, Error> {
        let answer = self.again(|| {
            let proof = Some(self.proof(ticket, "Cancel", None));
            let request = v1::CancelRequest { request_id: ticket.id().to_string(), proof };
            let mut service = self.service();
            async move { service.cancel(request).await }
        });
        Case::read(answer.await?.request, Some(ticket.id()))
    }

    /// The requests and grants of this workload.
    pub async fn list(&self) -> Result<Vec<Case>, Error> {
        let answer = self.again(|| {
            let mut service = self.service();
            async move { service.list_my_grants(v1::ListMyGrantsRequest {}).await }
        });
        let read = |request| Case::read(Some(request), None::<&RequestId>);
        answer.await?.requests.into_iter().map(read).collect()
    }

    /// Asks, waits, and holds the grant.
    pub async fn acquire(&self, ask: Ask) -> Result<Grant, Error> {
        let (ticket, case) = self.request(ask).await?;
        let case = match case.standing {
            Standing::Pending => self.wait(&ticket, None, |_| {}).await?,
            Standing::Granted
            | Standing::RefusedByPolicy
            | Standing::Denied
            | Standing::Expired
            | Standing::Cancelled
            | Standing::Completed
            | Standing::Revoked
            | Standing::Drifted
            | Standing::Lapsed => case.decided().ok_or(Error::StillPending)??,
        };
        Grant::new(self.clone(), ticket, &case)
    }

    /// Sends a call until somebody answers, for as long as this client is patient.
    async fn again<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut silence = Silence::default();
        loop {
            let answer = tokio::time::timeout(CALL, call()).await;
            let failed = match answer {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => Error::from(status),
                Err(_) => timed_out(),
            };
            if !failed.is_passing() {
                return Err(failed);
            }
            silence.pause(self.patience, failed).await?;
        }
    }
}

/// How long nobody has answered, and how long the next pause is.
#[derive(Default)]
struct Silence {
    since: Option<Instant>,
    pauses: u32,
}

impl Silence {
    /// Pauses before the next attempt; gives `failed` back where that would outlast `patience`.
    async fn pause(&mut self, patience: Duration, failed: Error) -> Result<(), Error> {
        let (first, longest) = PAUSE;
        let pause = first.saturating_mul(1 << self.pauses.min(10)).min(longest);
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed().saturating_add(pause) > patience {
            return Err(failed);
        }
        self.pauses = self.pauses.saturating_add(1);
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

fn timed_out() -> Error {
    Status::deadline_exceeded("the broker did not answer in time").into()
}

#[cfg(test)]
mod tests;
