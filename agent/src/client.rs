//! Asking a broker: file, wait, exchange, complete, cancel. Every call may be sent again, since it
//! is named by an id that the caller drew; so it is, for a bounded time, while nobody answers.
//!
//! An unknown answer is an error here, and never a yes.

mod patience;
mod unheld;
mod wait;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dayfly_proto::v1;
use dayfly_proto::v1::access_service_client::AccessServiceClient;
use dayfly_verifier::holder::Confirmation;
use dayfly_verifier::id::{ExchangeId, GrantId, RequestId};
use dayfly_verifier::proof::{HolderCall, HolderProof};
use dayfly_verifier::request::ConfirmBy;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::{Clock, SystemClock, Timestamp};
use dayfly_verifier::wire::{Decoded, Token};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tonic::transport::Channel;
use tonic::{Response, Status};

use self::patience::Silence;
pub(crate) use self::patience::timed_out;
use self::unheld::{Renewing, Unheld};
use crate::case::Case;
use crate::convert::time;
use crate::errors::Error;
use crate::grant::{Grant, NotDone};
use crate::held::Held;
use crate::session::{MAX_ANSWER_BYTES, Session};
use crate::ticket::{Ask, Ticket, fill};

/// How long a call is sent again while nobody answers, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one call may take.
const CALL: Duration = Duration::from_secs(5);

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it set out to do.
    Succeeded,
    /// It did not.
    Failed,
}

/// A workload's way to its brokers. Clones share the connection.
#[derive(Clone)]
pub struct Client {
    way: Way,
    clock: Arc<dyn Clock>,
    patience: Duration,
    _renewing: Option<Arc<Renewing>>,
}

#[derive(Clone)]
enum Way {
    Session(Arc<Session>),
    Channel(Channel, SpiffeId),
}

impl Client {
    /// Under the identity in this directory, where `dayfly join` put it; kept renewed for as long
    /// as the client or a clone of it is there. Goes on trying for 10 s while no broker can be
    /// reached: the agent may start before its broker.
    ///
    /// # Errors
    /// [`Error::CouldNotAsk`], with what is wrong.
    pub async fn connect(dir: &Path) -> Result<Self, Error> {
        let mut silence = Silence::default();
        let session = loop {
            match Session::open(dir, Arc::new(SystemClock)).await {
                Ok(session) => break session,
                Err(error) => {
                    let failed = Error::CouldNotAsk(error);
                    if !failed.is_passing() {
                        return Err(failed);
                    }
                    silence.pause(PATIENCE, failed).await?;
                }
            }
        };
        let renewing = Some(Arc::new(Renewing::start(&session)));
        Ok(Self { _renewing: renewing, ..Self::new(session) })
    }

    /// Over a session, under its identity. Whoever holds the session keeps it renewed.
    #[must_use]
    pub fn new(session: Arc<Session>) -> Self {
        let clock = session.live().clock().clone();
        Self { way: Way::Session(session), clock, patience: PATIENCE, _renewing: None }
    }

    /// Over a channel whose other end knows the caller as `caller`.
    #[must_use]
    pub fn over(channel: Channel, caller: SpiffeId, clock: Arc<dyn Clock>) -> Self {
        Self { way: Way::Channel(channel, caller), clock, patience: PATIENCE, _renewing: None }
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

    /// The service by the present way, and the number of that way.
    fn service(&self) -> (AccessServiceClient<Channel>, usize) {
        let (number, channel) = match &self.way {
            Way::Session(session) => session.way(),
            Way::Channel(channel, _) => (0, channel.clone()),
        };
        let service = AccessServiceClient::new(channel);
        (service.max_decoding_message_size(MAX_ANSWER_BYTES), number)
    }

    /// Nobody answered on the way of this number: takes another one, where there is one.
    fn elsewhere(&self, number: usize) {
        match &self.way {
            Way::Session(session) => session.elsewhere(number),
            Way::Channel(..) => {}
        }
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
        let answer = self.again(|mut service| {
            let proof = Some(self.proof(ticket, "RequestAccess", Some(&digest)));
            let filing = v1::RequestAccessRequest { proof, ..filing.clone() };
            async move { service.request_access(filing).await }
        });
        Case::read(answer.await?.request, Some(ticket.id()))
    }

    /// A token for a granted request. The same `exchange` id yields the same token.
    ///
    /// The answer is looked at before it is believed: a token for another grant, holder or gateway
    /// is no answer.
    pub async fn exchange(&self, ticket: &Ticket, exchange: &ExchangeId) -> Result<Held, Error> {
        let answer = self.again(|mut service| {
            let proof = Some(self.proof(ticket, "Exchange", None));
            let (request_id, exchange_id) = (ticket.id().to_string(), exchange.to_string());
            let request = v1::ExchangeRequest { request_id, exchange_id, proof };
            async move { service.exchange(request).await }
        });
        let v1::ExchangeResponse { token, token_id, expires_at_ms, grant_id } = answer.await?;
        let token = Token::read(&token)?;
        let decoded = Decoded::read(token.expose())?;
        let content = decoded.unverified();
        let grant = GrantId::derive(&content.record.epoch, &self.caller(), ticket.id());
        let claims = content.claims.clone();
        let holder = match ticket.ask().confirmation {
            ConfirmBy::Key => Confirmation::Key(ticket.holder_key()?),
            ConfirmBy::Identity => Confirmation::Identity,
        };
        let fits = claims.token.to_string() == token_id
            && claims.grant == grant
            && grant.to_string() == grant_id
            && claims.holder == holder
            && claims.audience == ticket.ask().audience
            && time(expires_at_ms) == Ok(claims.expires_at);
        if fits {
            return Ok(Held { token, claims });
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
        let answer = self.again(|mut service| {
            let proof = Some(self.proof(ticket, "Complete", None));
            let request_id = ticket.id().to_string();
            let request = v1::CompleteRequest { request_id, outcome: outcome.into(), proof };
            async move { service.complete(request).await }
        });
        Case::read(answer.await?.request, Some(ticket.id()))
    }

    /// Takes the request back, or ends a grant whose task was given up.
    pub async fn cancel(&self, ticket: &Ticket) -> Result<Case, Error> {
        let answer = self.again(|mut service| {
            let proof = Some(self.proof(ticket, "Cancel", None));
            let request = v1::CancelRequest { request_id: ticket.id().to_string(), proof };
            async move { service.cancel(request).await }
        });
        Case::read(answer.await?.request, Some(ticket.id()))
    }

    /// The requests and grants of this workload.
    pub async fn list(&self) -> Result<Vec<Case>, Error> {
        let answer = self.again(|mut service| async move {
            service.list_my_grants(v1::ListMyGrantsRequest {}).await
        });
        let read = |request| Case::read(Some(request), None::<&RequestId>);
        answer.await?.requests.into_iter().map(read).collect()
    }

    /// Asks, waits, and holds the grant. What is asked is lost with this call: where it is dropped,
    /// or ends before the decision, the request is taken back, so that nobody approves what nobody
    /// awaits. An agent that is to take it up again draws a [`Ticket`], saves it, and calls
    /// [`Client::hold`].
    ///
    /// # Errors
    /// As [`Client::hold`].
    pub async fn acquire(&self, ask: Ask) -> Result<Grant, Error> {
        let ticket = Arc::new(Ticket::draw(ask, self.now())?);
        let unheld = Unheld::new(self, &ticket);
        let decided = self.decided(&ticket).await;
        // A lock ends the waiting, too, and leaves the request pending.
        if matches!(decided, Ok(_) | Err(Error::Ended(_))) {
            unheld.settled();
        }
        Grant::new(self.clone(), ticket, &decided?)
    }

    /// Files the request of a ticket, waits until it is decided, and holds the grant. A ticket of
    /// an earlier process is taken up where it stands: filing is the same thing twice.
    ///
    /// # Errors
    /// [`Error::Ended`] if it was refused, denied, expired, or is over; [`Error::Refused`] if it
    /// may not even be filed; [`Error::CouldNotAsk`] if nobody answers: then nothing is known.
    pub async fn hold(&self, ticket: Ticket) -> Result<Grant, Error> {
        let case = self.decided(&ticket).await?;
        Grant::new(self.clone(), ticket, &case)
    }

    /// Acquires a grant and runs `action` under it, with a token at hand; then gives the grant
    /// back. See [`crate::grant::Guard::run`].
    ///
    /// # Errors
    /// [`NotDone::NotRun`] whenever it is not known that the right was granted: refused, denied,
    /// unanswered, or nobody to ask. `action` was not called then.
    pub async fn run<T, E, F>(
        &self,
        ask: Ask,
        action: impl FnOnce(Arc<Grant>, Held) -> F,
    ) -> Result<T, NotDone<E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        let grant = self.acquire(ask).await.map_err(NotDone::NotRun)?;
        grant.guard().run(action).await
    }

    /// Sends a call until somebody answers, for as long as this client is patient; to another
    /// broker each time, where there are several.
    async fn again<T, F>(
        &self,
        mut call: impl FnMut(AccessServiceClient<Channel>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut silence = Silence::default();
        loop {
            let (service, way) = self.service();
            let failed = match tokio::time::timeout(CALL, call(service)).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => Error::from(status),
                Err(_) => timed_out(),
            };
            if !failed.is_passing() {
                return Err(failed);
            }
            self.elsewhere(way);
            silence.pause(self.patience, failed).await?;
        }
    }
}

#[cfg(test)]
mod tests;
