//! For people: what waits for them, and their decisions on it.
//!
//! A signature is verified here, before anything else is done with the decision; whether its key,
//! its person and its time count is for the rules. Nothing is shown to anybody whom the rules do
//! not let see it: to them it does not exist.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dayfly_proto::v1;
use dayfly_proto::v1::approval_service_server::ApprovalService;
use dayfly_verifier::dossier::{Unverified, VerifiedStatement, verify_decision};
use dayfly_verifier::id::{GrantId, PersonId, RequestDigest, TextDigest};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use futures_util::Stream;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::{Request, Response, Status};

use super::ask::{Durable, judge};
use super::{Broker, render, status};
use crate::caller::caller_of;
use crate::core::case::Case;
use crate::core::command::{Caller, Command, Foreseen};
use crate::core::decide::foresee;
use crate::core::denial::Denial;
use crate::core::event::{Answer, Decision, Evidence, Head};
use crate::core::state::State;
use crate::journal::FreeText;
use crate::policy::evaluate::{Question, evaluate};

/// How long after one look at all that waits the next one comes, however fast the log moves.
const BREATH: Duration = Duration::from_millis(50);
/// The fewest characters by which a request may be named.
const SHORTEST_PREFIX: usize = 4;

/// The service.
pub struct Approval(pub Arc<Broker>);

#[tonic::async_trait]
impl ApprovalService for Approval {
    type WatchPendingStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchPendingResponse, Status>> + Send>>;

    async fn watch_pending(
        &self,
        request: Request<v1::WatchPendingRequest>,
    ) -> Result<Response<Self::WatchPendingStream>, Status> {
        let caller = caller_of(&request)?;
        let v1::WatchPendingRequest { once } = request.into_inner();
        let broker = Arc::clone(&self.0);
        // Marked seen before the state is read, so that what comes in between is not missed.
        let moved = broker.sequencer.moved();
        let mut breath = interval(BREATH);
        breath.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watch = Watch { broker, caller, once, moved, breath, last: None };
        Ok(Response::new(Box::pin(futures_util::stream::unfold(Some(watch), Watch::next))))
    }

    async fn get_request(
        &self,
        request: Request<v1::GetRequestRequest>,
    ) -> Result<Response<v1::GetRequestResponse>, Status> {
        let broker = &*self.0;
        let caller = caller_of(&request)?;
        let v1::GetRequestRequest { grant_id } = request.into_inner();
        let found = |state: &Durable| {
            let name = person(state, &caller.id)?;
            Ok((state.clone(), name.clone(), named(state, name, &grant_id)?.grant_id()))
        };
        let (state, name, grant) = broker.find(found).await?;
        let case = state.case(&grant).ok_or_else(|| status::denial(&Denial::NotFound))?;
        let v1::Dossier { canonical_request, decisions } = render::dossier(case);
        let justification = match &case.justification {
            Some(digest) => broker.store.text(digest).await.map_err(|e| status::unavailable(&e))?,
            None => None,
        };
        Ok(Response::new(v1::GetRequestResponse {
            request: Some(render::case(case, broker.now(&state))),
            canonical_request,
            // An erased text is shown as none.
            justification: justification.map(|text| text.body().to_owned()).unwrap_or_default(),
            decisions,
            person: name.to_string(),
        }))
    }

    async fn approve(
        &self,
        request: Request<v1::ApproveRequest>,
    ) -> Result<Response<v1::ApproveResponse>, Status> {
        let broker = &*self.0;
        let caller = caller_of(&request)?;
        let v1::ApproveRequest { grant_id, decision, reason, reason_salt } = request.into_inner();
        let v1::SignedDecision { statement, signature } =
            decision.ok_or_else(|| status::invalid(&Invalid::new("decision", "must be there")))?;
        let seen = |state: &Durable| {
            let case = seen(state, person(state, &caller.id)?, &grant_id)?;
            Ok((case.grant_id(), case.digest))
        };
        let (grant, expected) = broker.find(seen).await?;
        let verified = verify_decision(&statement, &signature, &grant, &expected);
        let verified = verified.map_err(|error| status::denial(&unverified(error)))?;
        let signed = verified.statement().reason;
        let text = signed_text(signed.as_ref(), reason, &reason_salt)?;
        let decision = decision_of(&verified, statement.to_vec(), signature);
        let judged = broker.submit_judged(&caller, text, |state, bundle, now| {
            let case = state.case(&grant).ok_or_else(|| status::denial(&Denial::NotFound))?;
            let verdict = judge(bundle, state, case, now)?;
            let foreseen = foresee(state, case, &decision, now).ok().map(|terms| {
                let question = Question::of_grant(&case.request, &terms, now);
                let outcome = evaluate(bundle, &question, verdict.basis.clone()).outcome;
                Foreseen { terms, outcome }
            });
            Ok(Command::Approve(grant, decision.clone(), verdict, foreseen))
        });
        let state = judged.await?;
        let request = broker.answer(&state, &grant, Some(&decision.digest))?;
        Ok(Response::new(v1::ApproveResponse { request: Some(request) }))
    }

    async fn deny(
        &self,
        request: Request<v1::DenyRequest>,
    ) -> Result<Response<v1::DenyResponse>, Status> {
        let broker = &*self.0;
        let caller = caller_of(&request)?;
        let v1::DenyRequest { grant_id, digest, reason } = request.into_inner();
        let digest: RequestDigest = digest.parse().map_err(|e| status::invalid(&e))?;
        let (grant, person) = broker.seen_by(&caller, &grant_id).await?;
        let text = Some(reason).filter(|reason| !reason.is_empty());
        let text = text.map(|text| broker.salted(text)).transpose()?;
        let reason = text.as_ref().map(FreeText::digest);
        let at = broker.clock.now();
        let decision =
            Decision { person, digest, answer: Answer::Deny, reason, at, evidence: None };
        let state = broker.submit(Command::Deny(grant, decision), &caller, text).await?;
        let request = broker.answer(&state, &grant, None)?;
        Ok(Response::new(v1::DenyResponse { request: Some(request) }))
    }

    async fn withdraw(
        &self,
        request: Request<v1::WithdrawRequest>,
    ) -> Result<Response<v1::WithdrawResponse>, Status> {
        let broker = &*self.0;
        let caller = caller_of(&request)?;
        let v1::WithdrawRequest { grant_id } = request.into_inner();
        let (grant, _) = broker.seen_by(&caller, &grant_id).await?;
        let state = broker.submit(Command::Withdraw(grant), &caller, None).await?;
        let request = broker.answer(&state, &grant, None)?;
        Ok(Response::new(v1::WithdrawResponse { request: Some(request) }))
    }
}

impl Broker {
    async fn submit(
        &self,
        command: Command,
        caller: &Caller,
        text: Option<FreeText>,
    ) -> Result<Durable, Status> {
        let done = self.sequencer.submit_with(command, caller.clone(), text).await;
        done.map_err(|failure| status::failure(&failure))
    }

    /// The request as it stands in a recorded state; refused where it is another form of it than
    /// the one that was decided on.
    fn answer(
        &self,
        state: &State,
        grant: &GrantId,
        decided: Option<&RequestDigest>,
    ) -> Result<v1::AccessRequest, Status> {
        let case = state.case(grant).ok_or_else(|| status::denial(&Denial::NotFound))?;
        if decided.is_some_and(|decided| *decided != case.digest) {
            return Err(status::denial(&Denial::DigestMismatch));
        }
        Ok(render::case(case, self.now(state)))
    }

    /// The request that `id` names in full, and the caller's name, if they may see it.
    async fn seen_by(&self, caller: &Caller, id: &str) -> Result<(GrantId, PersonId), Status> {
        self.find(|state| {
            let name = person(state, &caller.id)?;
            Ok((seen(state, name, id)?.grant_id(), name.clone()))
        })
        .await
    }
}

/// The reason of a signed decision, if it is the one whose digest was signed.
fn signed_text(
    signed: Option<&TextDigest>,
    reason: String,
    salt: &[u8],
) -> Result<Option<FreeText>, Status> {
    let refused = |rule| Err(status::invalid(&Invalid::new("reason", rule)));
    let Some(signed) = signed else {
        let none = reason.is_empty() && salt.is_empty();
        return if none { Ok(None) } else { refused("must be part of what was signed") };
    };
    let Ok(salt) = salt.try_into() else {
        return refused("must come with its 16 bytes of salt");
    };
    let text = FreeText::new(reason, salt).map_err(|e| status::invalid(&e.of("reason")))?;
    if text.digest() == *signed {
        Ok(Some(text))
    } else {
        refused("must be the one whose digest was signed")
    }
}

/// The caller as a person of the bundle in force.
fn person<'a>(state: &'a State, caller: &SpiffeId) -> Result<&'a PersonId, Status> {
    let person = state.directory.person(caller).map(|(name, _)| name);
    person.ok_or_else(|| status::denial(&Denial::NotAllowed))
}

/// The request that `id` names in full, if `person` may see it.
fn seen<'a>(state: &'a State, person: &PersonId, id: &str) -> Result<&'a Case, Status> {
    let id: GrantId = id.parse().map_err(|invalid| status::invalid(&invalid))?;
    let case = state.case(&id).filter(|case| state.may_see(person, case));
    case.ok_or_else(|| status::denial(&Denial::NotFound))
}

/// The one request whose id begins with `prefix`, of those that `person` may see.
fn named<'a>(state: &'a State, person: &PersonId, prefix: &str) -> Result<&'a Case, Status> {
    if prefix.len() < SHORTEST_PREFIX {
        let rule = "must be at least the first 4 characters of an id";
        return Err(status::invalid(&Invalid::new("grant", rule)));
    }
    let padded = |with: &str| {
        let rest = with.repeat(32usize.saturating_sub(prefix.len()));
        format!("{prefix}{rest}").parse::<GrantId>()
    };
    let (first, last) = (padded("0"), padded("f"));
    let first = first.map_err(|invalid| status::invalid(&invalid))?;
    let last = last.map_err(|invalid| status::invalid(&invalid))?;
    let mut found = state.cases_between(first, last).filter(|case| state.may_see(person, case));
    match (found.next(), found.next()) {
        (None, _) => Err(status::denial(&Denial::NotFound)),
        (Some(case), None) => Ok(case),
        (Some(_), Some(_)) => {
            let rule = "names several requests: give more of the id";
            Err(status::invalid(&Invalid::new("grant", rule)))
        }
    }
}

fn unverified(error: Unverified) -> Denial {
    match error {
        Unverified::Signature(bad) => {
            Denial::Invalid(Invalid::new("decision.signature", bad.to_string()))
        }
        Unverified::Statement(invalid) => Denial::Invalid(invalid.within("decision")),
        Unverified::OtherRequest => {
            Denial::Invalid(Invalid::new("decision", "must be about the request that is named"))
        }
        Unverified::OtherDigest => Denial::DigestMismatch,
    }
}

fn decision_of(verified: &VerifiedStatement, statement: Vec<u8>, signature: String) -> Decision {
    let signed = verified.statement();
    Decision {
        person: signed.person.clone(),
        digest: signed.digest,
        answer: signed.answer.clone(),
        reason: signed.reason,
        at: signed.at,
        evidence: Some(Evidence { key: verified.key().clone(), statement, signature }),
    }
}

/// A stream of what waits for one person. It ends itself with the certificate of its caller, with
/// the broker, and when its caller is no person any more.
struct Watch {
    broker: Arc<Broker>,
    caller: Caller,
    once: bool,
    moved: watch::Receiver<Head>,
    breath: Interval,
    last: Option<v1::WatchPendingResponse>,
}

type Step = (Result<v1::WatchPendingResponse, Status>, Option<Watch>);

impl Watch {
    /// The next message that says something else than the last one, and how to go on.
    async fn next(watch: Option<Self>) -> Option<Step> {
        let mut watch = watch?;
        loop {
            watch.breath.tick().await;
            watch.moved.mark_unchanged();
            let state = watch.broker.sequencer.state();
            let now = watch.broker.now(&state);
            if watch.caller.until <= now || watch.broker.shutdown.has_begun() {
                return None;
            }
            let waiting = match watch.waiting(&state, now) {
                Ok(waiting) => waiting,
                Err(status) => return Some((Err(status), None)),
            };
            let ends = waiting.requests.first().map(|request| request.pending_until_ms);
            if watch.last.as_ref() != Some(&waiting) {
                watch.last = Some(waiting.clone());
                return Some((Ok(waiting), Some(watch).filter(|watch| !watch.once)));
            }
            watch.wait(now, ends).await?;
        }
    }

    fn waiting(&self, state: &State, now: Timestamp) -> Result<v1::WatchPendingResponse, Status> {
        let name = person(state, &self.caller.id)?;
        let requests = state.pending_for(name, now).map(|case| render::case(case, now)).collect();
        Ok(v1::WatchPendingResponse { requests })
    }

    /// Waits until something may have changed: an entry, the end of what waits (which is none), or
    /// of the certificate. `None` at the end of the broker.
    async fn wait(&mut self, now: Timestamp, ends: Option<i64>) -> Option<()> {
        let until = ends.and_then(|ends| u64::try_from(ends).ok()).unwrap_or(u64::MAX);
        let until = until.min(self.caller.until.as_ms());
        let left = Duration::from_millis(until.saturating_sub(now.as_ms()).saturating_add(1));
        tokio::select! {
            moved = self.moved.changed() => moved.ok(),
            () = tokio::time::sleep(left) => Some(()),
            () = self.broker.shutdown.begins() => None,
        }
    }
}
