//! Who calls, and what they may call: one table, one rule for each method, in force before any
//! handler runs, and for as long as an answer lasts. A method without a rule is refused to
//! everybody.

mod room;
mod watched;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dayfly_agent::errors::{NextAction, Reason, Refusal};
use dayfly_agent::svid::Peer;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::{Clock, Timestamp};
use futures_util::future::BoxFuture;
use http::{Request, Response};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Code, Status};
use tower_service::Service;

use crate::api::status;
use crate::authority::Authority;
use crate::core::command::Caller;
use crate::core::denial::Denial;
use crate::core::directory::{Directory, Party, Role};
use crate::sequencer::{Failure, Fault, Sequencer};
pub use room::Room;
use room::{Place, placed};
use watched::{Stay, Watched};

/// Who may call a method. What they may do with it is decided by the rules of the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Whoever has a join string; no certificate is asked for, nor looked at.
    Joiner,
    /// Whoever has a certificate of the trust domain.
    Anyone,
    /// Workloads, people and gateways that the bundle in force knows.
    Listed,
    /// Workloads that the bundle in force knows.
    Workload,
    /// People that it knows.
    Person,
    /// People with the role of operator.
    Operator,
    /// People with the role of operator or auditor.
    Overseer,
    /// Gateways that it knows.
    Gateway,
}

/// The rule of every method.
pub const RULES: &[(&str, Rule)] = &[
    ("/dayfly.v1.IdentityService/Join", Rule::Joiner),
    ("/dayfly.v1.IdentityService/Renew", Rule::Listed),
    ("/dayfly.v1.AccessService/RequestAccess", Rule::Workload),
    ("/dayfly.v1.AccessService/WatchRequest", Rule::Workload),
    ("/dayfly.v1.AccessService/Exchange", Rule::Workload),
    ("/dayfly.v1.AccessService/Complete", Rule::Workload),
    ("/dayfly.v1.AccessService/Cancel", Rule::Workload),
    ("/dayfly.v1.AccessService/ListMyGrants", Rule::Workload),
    ("/dayfly.v1.AccessService/GetDossier", Rule::Workload),
    ("/dayfly.v1.ApprovalService/WatchPending", Rule::Person),
    ("/dayfly.v1.ApprovalService/GetRequest", Rule::Person),
    ("/dayfly.v1.ApprovalService/Approve", Rule::Person),
    ("/dayfly.v1.ApprovalService/Deny", Rule::Person),
    ("/dayfly.v1.ApprovalService/Withdraw", Rule::Person),
    ("/dayfly.v1.OperatorService/ListGrants", Rule::Overseer),
    ("/dayfly.v1.OperatorService/Revoke", Rule::Operator),
    ("/dayfly.v1.OperatorService/Lock", Rule::Operator),
    ("/dayfly.v1.OperatorService/Unlock", Rule::Operator),
    ("/dayfly.v1.OperatorService/ListLocks", Rule::Overseer),
    ("/dayfly.v1.OperatorService/WatchEnforcement", Rule::Overseer),
    ("/dayfly.v1.OperatorService/ApplyBundle", Rule::Operator),
    ("/dayfly.v1.OperatorService/GetStatus", Rule::Overseer),
    ("/dayfly.v1.OperatorService/CreateJoin", Rule::Operator),
    ("/dayfly.v1.OperatorService/ListKeys", Rule::Overseer),
    ("/dayfly.v1.OperatorService/RetireKey", Rule::Operator),
    ("/dayfly.v1.GatewayService/Follow", Rule::Gateway),
    ("/dayfly.v1.GatewayService/GetTrust", Rule::Gateway),
    ("/dayfly.v1.GatewayService/Redeem", Rule::Gateway),
    ("/dayfly.v1.GatewayService/Reevaluate", Rule::Gateway),
    ("/dayfly.v1.GatewayService/ReportUse", Rule::Gateway),
    ("/dayfly.v1.AuditService/Tail", Rule::Overseer),
    ("/dayfly.v1.AuditService/Query", Rule::Overseer),
    ("/dayfly.v1.AuditService/GetText", Rule::Overseer),
    ("/grpc.health.v1.Health/Check", Rule::Anyone),
    ("/grpc.health.v1.Health/Watch", Rule::Anyone),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Rule::Anyone),
];

/// The methods whose calls last as long as their streams. All others answer within [`DEADLINE`].
pub const STREAMS: &[&str] = &[
    "/dayfly.v1.AccessService/WatchRequest",
    "/dayfly.v1.ApprovalService/WatchPending",
    "/dayfly.v1.OperatorService/WatchEnforcement",
    "/dayfly.v1.GatewayService/Follow",
    "/dayfly.v1.AuditService/Tail",
    "/dayfly.v1.AuditService/Query",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
];

/// The methods of workloads that are no streams, and whose answers may be of megabytes.
pub const LISTS: &[&str] = &["/dayfly.v1.AccessService/ListMyGrants"];

/// How long a call may take, from its first byte to its answer, that is no stream.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// The rule of a method, by its path.
#[must_use]
pub fn rule(path: &str) -> Option<Rule> {
    RULES.iter().find(|(listed, _)| *listed == path).map(|(_, rule)| *rule)
}

/// The method of a path as the table spells it: callers cannot make up names, neither in the log
/// nor in the metrics.
#[must_use]
pub fn listed(path: &str) -> &'static str {
    RULES.iter().map(|(listed, _)| *listed).find(|listed| *listed == path).unwrap_or("other")
}

/// The caller of a request, as the certificate of its connection says. Every request that a
/// handler behind [`Guard`] sees has one; a request without is refused.
pub fn caller_of<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
    peer_of(request).map(|peer| Caller { id: peer.id.clone(), until: peer.until })
}

/// The other end of the connection that a request came by.
pub fn peer_of<T>(request: &tonic::Request<T>) -> Result<&Peer, Status> {
    request.extensions().get::<Peer>().ok_or_else(|| no_certificate(NEEDED))
}

impl Rule {
    /// Refuses a caller whom the rule does not mean.
    fn check(self, id: &SpiffeId, directory: &Directory) -> Result<(), Status> {
        let admits = self.admits(id, directory);
        if admits { Ok(()) } else { Err(status::denial(&Denial::NotAllowed)) }
    }

    /// Whether a caller with this ID is one of those whom the rule means.
    #[must_use]
    pub fn admits(self, id: &SpiffeId, directory: &Directory) -> bool {
        let has = |roles: &[Role]| match directory.party(id) {
            Party::Person(name) => directory
                .people
                .get(&name)
                .is_some_and(|person| roles.iter().any(|role| person.roles.contains(role))),
            Party::Gateway | Party::Workload | Party::Stranger => false,
        };
        match self {
            Self::Joiner => false,
            Self::Anyone => true,
            Self::Listed => directory.party(id) != Party::Stranger,
            Self::Workload => match directory.party(id) {
                Party::Workload => true,
                Party::Gateway => directory.workloads.iter().any(|rule| rule.ids.matches(id)),
                Party::Person(_) | Party::Stranger => false,
            },
            Self::Person => matches!(directory.party(id), Party::Person(_)),
            Self::Operator => has(&[Role::Operator]),
            Self::Overseer => has(&[Role::Operator, Role::Auditor]),
            Self::Gateway => matches!(directory.party(id), Party::Gateway),
        }
    }
}

/// What the rules are judged by.
pub trait Judge: Send + Sync {
    /// Who is who, by the newest durable state.
    fn directory(&self) -> Arc<Directory>;

    /// Why nothing lasts for `workload` at `now`, if a lock is on all that it does.
    fn lock_on(&self, workload: &SpiffeId, now: Timestamp) -> Option<Denial>;
}

impl Judge for Sequencer {
    fn directory(&self) -> Arc<Directory> {
        self.state().directory.clone()
    }

    fn lock_on(&self, workload: &SpiffeId, now: Timestamp) -> Option<Denial> {
        let state = self.state();
        let set = state.lock_on_workload(workload, now.max(state.time))?;
        Some(Denial::Locked(set.lock.id, set.until))
    }
}

/// Through which listener a call came.
#[derive(Clone)]
pub enum Door {
    /// The one for joining: nothing else can be done there.
    Join,
    /// The one that wants certificates.
    Mutual(Arc<Known>),
}

/// What is known of those who come with a certificate.
pub struct Known {
    /// Who is who.
    pub judge: Box<dyn Judge>,
    /// Knows the IDs that are locked.
    pub authority: Arc<Authority>,
    /// By which certificates end.
    pub clock: Arc<dyn Clock>,
    /// The streams that they have.
    pub streams: Room,
    /// The lists that workloads have not read yet.
    pub lists: Room,
    /// Ends them: nothing is served any more.
    pub stop: CancellationToken,
}

impl Door {
    /// Whether a call of `path` by `peer` may go on to its handler.
    pub fn admit(&self, path: &str, peer: Option<&Peer>) -> Result<(), Status> {
        let rule = rule(path);
        let known = match (self, rule) {
            (Self::Join, Some(Rule::Joiner)) => return Ok(()),
            (Self::Join, _) => return Err(status::denial(&Denial::NotAllowed)),
            (Self::Mutual(known), _) => known,
        };
        let peer = peer.ok_or_else(|| no_certificate(NEEDED))?;
        known.is_here(peer)?;
        let may = rule.ok_or_else(|| status::denial(&Denial::NotAllowed));
        let may = may.and_then(|rule| rule.check(&peer.id, &known.judge.directory()));
        if may.is_err() {
            tracing::info!(id = %peer.id, method = listed(path), "call refused");
        }
        may
    }

    /// Room for a call of `path` by `peer` that lasts, or whose answer may be long.
    fn room(&self, path: &str, peer: Option<&Peer>) -> Result<Option<Place>, Status> {
        let (Self::Mutual(known), Some(peer)) = (self, peer) else { return Ok(None) };
        let place = match () {
            () if STREAMS.contains(&path) => known.streams.enter(&peer.id),
            () if LISTS.contains(&path) => known.lists.enter(&peer.id),
            () => return Ok(None),
        };
        place.map(Some).ok_or_else(|| status::failure(&Failure::Fault(Fault::Busy)))
    }

    /// The answer to a call of `path` by `peer` that was admitted and lasts: only as long as it
    /// would be admitted still. Its place is taken as long as the answer lasts.
    fn watch(&self, path: &str, peer: Option<&Peer>, place: Option<Place>, answer: Body) -> Body {
        match (self, rule(path), peer) {
            (Self::Mutual(known), Some(rule), Some(peer)) => {
                let stay = Stay::new(known.clone(), rule, peer.clone());
                Body::new(Watched::new(answer, stay, place))
            }
            (Self::Mutual(_) | Self::Join, _, _) => answer,
        }
    }
}

impl Known {
    /// Whether a stream that `rule` lets a workload have may go on. Single calls of a workload
    /// under a lock are decided by the core: it may still give back what it holds.
    fn may_last(&self, rule: Rule, peer: &Peer) -> Result<(), Status> {
        if rule != Rule::Workload {
            return Ok(());
        }
        let lock = self.judge.lock_on(&peer.id, self.clock.now());
        lock.map_or(Ok(()), |denial| Err(status::denial(&denial)))
    }

    /// Whether anything is done for who comes with this certificate.
    fn is_here(&self, peer: &Peer) -> Result<(), Status> {
        if peer.until <= self.clock.now() {
            return Err(no_certificate("the certificate of this connection has ended"));
        }
        self.authority.admits(peer).map_err(|barred| {
            tracing::warn!(id = %peer.id, %barred, "a call under a lock");
            Refusal::new(Reason::NotAllowed, barred.to_string()).to_status(None)
        })
    }
}

/// What is said to who came without one.
const NEEDED: &str = "this call needs a certificate";

fn no_certificate(message: &'static str) -> Status {
    status::undecided(Code::Unauthenticated, "NO_CERTIFICATE", NextAction::None, message)
}

/// Lets a call go on to its handler only where its rule says so, and no longer than [`DEADLINE`]
/// unless it is a stream.
#[derive(Clone)]
pub struct Guard<S> {
    door: Door,
    service: S,
    deadline: Duration,
}

impl<S> Guard<S> {
    /// Stands before `service`.
    pub fn new(door: Door, service: S) -> Self {
        Self { door, service, deadline: DEADLINE }
    }
}

impl<S, B> Service<Request<B>> for Guard<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = listed(request.uri().path());
        let peer = request.extensions().get::<Peer>().cloned();
        if let Err(status) = self.door.admit(path, peer.as_ref()) {
            return Box::pin(std::future::ready(Ok(status.into_http())));
        }
        let place = match self.door.room(path, peer.as_ref()) {
            Ok(place) => place,
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        };
        if STREAMS.contains(&path) {
            let (door, answer) = (self.door.clone(), self.service.call(request));
            return Box::pin(async move {
                Ok(answer.await?.map(|body| door.watch(path, peer.as_ref(), place, body)))
            });
        }
        let deadline = self.deadline;
        let answer = self.service.call(request);
        Box::pin(async move {
            let answer = tokio::time::timeout(deadline, answer).await;
            let answer = answer.unwrap_or_else(|_| Ok(status::too_late().into_http()))?;
            Ok(answer.map(|body| placed(body, place)))
        })
    }
}

#[cfg(test)]
mod tests;
