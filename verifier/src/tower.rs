//! A layer that guards an axum or tonic service with a [`Verifier`].
//!
//! The author of the service says once what a request means, as a [`Call`]; the layer reads the
//! request, bounded and once, decides, and lets through only what is [`Verified`]. Handlers take
//! operation, resource and arguments from there, and never from the request again.
//!
//! It never lets a request through because something failed: what cannot be read, mapped, decided
//! or asked is refused. What runs is cut (`cut`): a handler is dropped, and a body that is being
//! sent is reset, as soon as its token is revoked, locked or expired, or the gateway can no longer
//! tell. Where what runs must not stop half-way, [`Guard::draining`] gives it a bounded time more.
//! A request is read to its end before it is decided, so that streams go one way, to the caller;
//! and an answer that would hand the connection over, as to a WebSocket, is not let through.
//!
//! The path is the one that arrives here. `Router::nest` cuts it short for what is nested, and then
//! no proof names it: the layer belongs around the outermost router. It goes on last, since axum
//! leaves bare what is routed after it.
//!
//! A gRPC service is guarded through `tonic::service::Routes`, turned `into_axum_router()`; what is
//! asked is decoded from [`Received::message`], and refusals carry the status of gRPC.
//!
//! ```
//! # use std::sync::Arc;
//! # use axum::{Extension, Router, routing::post};
//! # use dayfly_verifier::{tower::{BadCall, Guard, Received}, verify::{Call, Verified, Verifier}};
//! # fn app(verifier: Arc<Verifier>) -> Router {
//! // POST /orders/o-17/refund {"amount": 500}
//! let guard = Guard::new(verifier, |request: &Received<'_>| {
//!     let ["orders", order, "refund"] = request.segments()?[..] else {
//!         return Err(BadCall::Unknown);
//!     };
//!     Ok(Call {
//!         operation: "refund".parse()?,
//!         resource: format!("orders/prod/{order}").parse()?,
//!         arguments: request.arguments()?,
//!     })
//! });
//! let refund = |Extension(verified): Extension<Verified>| async move {
//!     verified.call().resource.to_string()
//! };
//! Router::new().route("/orders/{order}/refund", post(refund)).layer(guard)
//! # }
//! ```

mod body;
mod lasting;
mod received;
mod refusal;
mod witness;

#[cfg(test)]
#[cfg(feature = "issue")]
mod tests;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body::Body;
use http_body_util::{BodyExt as _, Limited};
use tower_layer::Layer;
use tower_service::Service;

pub use body::Cut;
pub use received::{BadCall, Received};
pub use witness::{Seen, Witness};

use crate::id::UseId;
use crate::reject::Reject;
use crate::resource::{Resource, ResourcePattern};
use crate::throttle::Throttle;
use crate::verify::{Attempt, Call, Outcome, Peer, Redeem, Shown, Signed, Verified, Verifier};
use lasting::Lasting;
use refusal::Refusal;

/// The header in which a client draws the id of one use of a counted right.
pub const USE_ID_HEADER: &str = "dayfly-use";
/// The longest body that is read, unless it is set otherwise.
const MAX_BODY_BYTES: usize = 64 * 1024;

type Meaning = dyn Fn(&Received<'_>) -> Result<Call, BadCall> + Send + Sync;

/// Guards a service: a [`Layer`].
#[derive(Clone)]
pub struct Guard {
    verifier: Arc<Verifier>,
    meaning: Arc<Meaning>,
    broker: Option<Arc<dyn Redeem>>,
    witness: Option<Arc<dyn Witness>>,
    drains: Vec<(ResourcePattern, Duration)>,
    observe: bool,
    max_body_bytes: usize,
    /// Of refusals, shared by all that this guards.
    throttle: Arc<Throttle>,
}

impl Guard {
    /// Guards with `verifier`; `meaning` says what a request is about. A request without meaning
    /// is refused, so that a new route is closed until it is mapped.
    pub fn new(
        verifier: Arc<Verifier>,
        meaning: impl Fn(&Received<'_>) -> Result<Call, BadCall> + Send + Sync + 'static,
    ) -> Self {
        Self {
            verifier,
            meaning: Arc::new(meaning),
            broker: None,
            witness: None,
            drains: Vec::new(),
            observe: false,
            max_body_bytes: MAX_BODY_BYTES,
            throttle: Arc::default(),
        }
    }

    /// Asks `broker` about each use of a counted or an online right. Without one they are refused.
    #[must_use]
    pub fn asking(self, broker: Arc<dyn Redeem>) -> Self {
        Self { broker: Some(broker), ..self }
    }

    /// Tells `witness` what becomes of each request, observed ones too: [`crate::uses::Uses`]
    /// counts it for the record.
    #[must_use]
    pub fn telling(self, witness: Arc<dyn Witness>) -> Self {
        Self { witness: Some(witness), ..self }
    }

    /// Lets what runs on a resource that `pattern` matches go on for `bound` after its token was
    /// revoked, locked or expired, or the gateway became stale; only then is it cut. New calls are
    /// refused at once. Without this, and wherever several patterns match, the shortest counts.
    ///
    /// What drains is the gateway's own affair: `revoke --wait` does not wait for it.
    #[must_use]
    pub fn draining(mut self, pattern: ResourcePattern, bound: Duration) -> Self {
        self.drains.push((pattern, bound));
        self
    }

    /// Only observes: lets pass what it would have refused, with [`Observed`] in place of
    /// [`Verified`] in the extensions, and a warning in the log for each; cuts nothing. A body that
    /// is too long is refused all the same: see [`Self::max_body_bytes`]. For the days before a
    /// service is guarded; never after.
    #[must_use]
    pub fn observing(self) -> Self {
        tracing::warn!("the gateway only observes: it lets pass what it would refuse");
        Self { observe: true, ..self }
    }

    /// The longest body that is read.
    #[must_use]
    pub fn max_body_bytes(self, max_body_bytes: usize) -> Self {
        Self { max_body_bytes, ..self }
    }

    fn drain(&self, resource: &Resource) -> Duration {
        let of = self.drains.iter().filter(|(pattern, _)| pattern.matches(resource));
        of.map(|(_, bound)| *bound).min().unwrap_or_default()
    }

    /// Tells the log and the witness; `good` is the token, where its signatures were found good.
    fn refuses(&self, refusal: &Refusal, headers: &HeaderMap, good: Option<Arc<Signed>>) {
        refusal.log(self.observe, &self.throttle, self.verifier.uptime());
        let Some(witness) = &self.witness else { return };
        let token = refusal.names_token().then(|| credentials(headers).ok()).flatten();
        let claims = token.and_then(|(_, token)| self.verifier.vouched(token, good));
        witness.saw(&refusal.seen(claims.as_ref(), self.observe));
    }

    /// Decides over one request, read in full.
    async fn decide(
        &self,
        head: &Parts,
        body: &[u8],
        good: &mut Option<Arc<Signed>>,
    ) -> Result<Verified, Box<Refusal>> {
        let received = Received::new(head, body);
        let call = (self.meaning)(&received).map_err(Refusal::bad_call)?;
        let call = Arc::new(call);
        self.judge(head, &call, good).await.map_err(|reject| Refusal::reject(reject, call))
    }

    async fn judge(
        &self,
        head: &Parts,
        call: &Arc<Call>,
        good: &mut Option<Arc<Signed>>,
    ) -> Result<Verified, Reject> {
        let (scheme, token) = credentials(&head.headers)?;
        let proof = single(&head.headers, "dpop")?;
        let use_id = single(&head.headers, USE_ID_HEADER)?;
        let shown = match (scheme, proof) {
            (Scheme::Dpop, Some(proof)) => {
                Shown::Dpop { proof, method: head.method.as_str(), path: head.uri.path() }
            }
            (Scheme::Bearer, _) => {
                head.extensions.get::<Peer>().map_or(Shown::Nothing, Shown::Peer)
            }
            (Scheme::Dpop, None) => Shown::Nothing,
        };
        match self.verifier.judge(&Attempt { token, shown, call }, good)? {
            Outcome::Verified(verified) => Ok(verified),
            Outcome::MustAsk(question) => {
                let broker = self.broker.as_ref().ok_or(Reject::Unanswered)?;
                let use_id = use_id.map(str::parse::<UseId>).transpose();
                question.ask(&**broker, use_id.map_err(|_| Reject::NoUseId)?).await
            }
        }
    }
}

/// A call that a gateway would have refused, but for only observing.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Why it would have been refused; nothing where the request has no meaning.
    pub reject: Option<Reject>,
    /// What it is about, as the request says; nobody vouches for it.
    pub call: Option<Arc<Call>>,
}

/// How a token was sent (RFC 9110, section 11.1: the scheme in any case).
enum Scheme {
    Dpop,
    Bearer,
}

fn credentials(headers: &HeaderMap) -> Result<(Scheme, &str), Reject> {
    let value = single(headers, header::AUTHORIZATION.as_str())?.ok_or(Reject::NoToken)?;
    let (scheme, token) = value.split_once(' ').ok_or(Reject::NoToken)?;
    if scheme.eq_ignore_ascii_case("dpop") {
        Ok((Scheme::Dpop, token))
    } else if scheme.eq_ignore_ascii_case("bearer") {
        Ok((Scheme::Bearer, token))
    } else {
        Err(Reject::NoToken)
    }
}

/// The one value of a header; a repeated header refuses, since another reader could take the
/// other value.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Reject> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Reject::Ambiguous);
    }
    first.map(HeaderValue::to_str).transpose().map_err(|_| Reject::Ambiguous)
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { guard: self.clone(), inner }
    }
}

/// A service behind a [`Guard`].
#[derive(Clone)]
pub struct Guarded<S> {
    guard: Guard,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Body + From<Bytes> + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    R: Body,
{
    type Response = Response<Cut<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The service that was polled ready is the one to call; the clone waits for the next call.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let guard = self.guard.clone();
        Box::pin(async move { guard.serve(inner, request).await })
    }
}

impl Guard {
    async fn serve<S, B, R>(
        self,
        mut inner: S,
        request: Request<B>,
    ) -> Result<Response<Cut<R>>, S::Error>
    where
        S: Service<Request<B>, Response = Response<R>>,
        B: Body + From<Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        R: Body,
    {
        let (mut head, body) = request.into_parts();
        let (grpc, ends) = (refusal::is_grpc(&head.headers), refusal::ends(&head));
        let nonce = self.verifier.nonce();
        let body = Limited::new(body, self.max_body_bytes).collect().await;
        let Ok(body) = body.map(http_body_util::Collected::to_bytes) else {
            let refusal = Refusal::bad_call(BadCall::Body);
            // What was read of it is gone: who only observes cannot let it pass either.
            let guard = Self { observe: false, ..self };
            guard.refuses(&refusal, &head.headers, None);
            return Ok(refusal.response(&guard.verifier, grpc, nonce));
        };
        let mut good = None;
        let verified = match self.decide(&head, &body, &mut good).await {
            Ok(verified) => Some(verified),
            Err(refusal) => {
                self.refuses(&refusal, &head.headers, good);
                if !self.observe {
                    return Ok(refusal.response(&self.verifier, grpc, nonce));
                }
                head.extensions.insert(refusal.observed());
                None
            }
        };
        if let (Some(verified), Some(witness)) = (&verified, &self.witness) {
            witness.saw(&Seen::Passed(verified));
        }
        let mut lasting = verified.clone().filter(|_| !self.observe).map(|verified| {
            let drain = self.drain(&verified.call().resource);
            Lasting::new(verified, drain, self.witness.clone())
        });
        if let Some(verified) = verified {
            head.extensions.insert(verified);
        }
        let connects = head.method == Method::CONNECT;
        let request = Request::from_parts(head, B::from(body));
        let running = inner.call(request);
        let answer = match &mut lasting {
            Some(lasting) => match cut(running, lasting).await {
                Ok(answer) => answer,
                Err(refusal) => {
                    refusal.log(false, &self.throttle, self.verifier.uptime());
                    return Ok(refusal.response(&self.verifier, grpc, nonce));
                }
            },
            None => running.await,
        };
        let answer = answer?;
        if lasting.is_some() && refusal::hands_over(connects, answer.status()) {
            let refusal = Refusal::bad_call(BadCall::HandsOver);
            refusal.log(false, &self.throttle, self.verifier.uptime());
            return Ok(refusal.response(&self.verifier, grpc, nonce));
        }
        let mut response = answer.map(|body| Cut::running(body, lasting, ends));
        refusal::add_nonce(response.headers_mut(), nonce);
        Ok(response)
    }
}

/// Runs a handler until its use must end; then drops it and says why. One that is ready at once is
/// never registered, and takes no lock.
async fn cut<F: Future>(running: F, lasting: &mut Lasting) -> Result<F::Output, Box<Refusal>> {
    let mut running = pin!(running);
    let mut paused = false;
    poll_fn(|context| {
        if let Some(reason) = paused.then(|| lasting.over(context)).flatten() {
            return Poll::Ready(Err(reason));
        }
        if let Poll::Ready(output) = running.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        paused = true;
        lasting.pauses(context).map_or(Poll::Pending, |reason| Poll::Ready(Err(reason)))
    })
    .await
    .map_err(|reason| Refusal::reject(reason, lasting.verified().shared_call()))
}
