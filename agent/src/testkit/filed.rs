//! One request of the in-memory broker, and what became of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use dayfly_verifier::claims::{Claims, Record};
use dayfly_verifier::id::{ExchangeId, TokenId, UseId};
use dayfly_verifier::request::{Narrowing, Request};
use dayfly_verifier::time::Timestamp;
use dayfly_verifier::verify::NotRedeemed;

use super::answer::{APPROVER, Answer};
use crate::case::{Standing, Terms};
use crate::client::Outcome;
use crate::errors::{Reason, Refusal};

/// How long a request waits for its answer, as the real broker has it.
const PENDING: Duration = Duration::from_secs(300);
/// How long a token lives at most.
const TOKEN_LIFE: Duration = Duration::from_secs(120);
/// How far from now an id may have been drawn to be taken as a new one.
const ID_WINDOW: Duration = Duration::from_secs(300);

/// A no, with more to say where there is more.
pub(super) type No = Box<Refusal>;

pub(super) fn no(reason: Reason, message: impl Into<String>) -> No {
    Box::new(Refusal::new(reason, message))
}

/// Why something ended, where there is more to say than how.
#[derive(Debug, Clone)]
pub(super) enum Because {
    /// There is not.
    Of,
    Person(String),
    Policy {
        policy: String,
        reason: String,
    },
}

/// How far a request has come.
#[derive(Debug, Clone)]
enum Stage {
    Pending { until: Timestamp },
    Granted,
    Closed(Standing, Because),
}

/// A request, and what became of it.
pub(super) struct Filed {
    pub(super) request: Request,
    /// What will be said to it, at when.
    answer: Answer,
    stage: Stage,
    approved_by: Vec<String>,
    pub(super) terms: Option<Terms>,
    pub(super) outcome: Option<Outcome>,
    tokens: BTreeMap<TokenId, (Claims, Record)>,
    exchanges: HashMap<ExchangeId, TokenId>,
    latest: Option<TokenId>,
    uses: BTreeSet<UseId>,
}

impl Filed {
    pub(super) fn new(request: Request, answer: Answer, now: Timestamp) -> Self {
        let stage = match &answer {
            Answer::Refuse { policy, reason } => {
                let (policy, reason) = (policy.clone(), reason.clone());
                Stage::Closed(Standing::RefusedByPolicy, Because::Policy { policy, reason })
            }
            Answer::Grant | Answer::Approve { .. } | Answer::Deny { .. } | Answer::Never => {
                Stage::Pending { until: now.plus(PENDING) }
            }
        };
        let (approved_by, terms, outcome, latest) = Default::default();
        let (tokens, exchanges, uses) = Default::default();
        let mut case = Self {
            request,
            answer,
            stage,
            approved_by,
            terms,
            outcome,
            tokens,
            exchanges,
            latest,
            uses,
        };
        if case.answer == Answer::Grant {
            case.decide(now);
        }
        case
    }

    /// When something is said to it.
    fn due(&self) -> Option<Timestamp> {
        self.answer.after().map(|after| self.request.filed_at.plus(after))
    }

    /// What happens next to it by itself while it is pending: the answer, or its end.
    pub(super) fn next(&self) -> Option<Timestamp> {
        let Stage::Pending { until } = self.stage else { return None };
        Some(self.due().map_or(until, |due| due.min(until)))
    }

    /// Says what is due by `now`; whether there was anything to say.
    pub(super) fn settle(&mut self, now: Timestamp) -> bool {
        let Stage::Pending { until } = self.stage else { return false };
        let due = self.due().filter(|due| *due < until && *due <= now);
        due.inspect(|due| self.decide(*due)).is_some()
    }

    pub(super) fn close(&mut self, end: Standing, because: Because) {
        self.stage = Stage::Closed(end, because);
    }

    /// Whether the token is one of its grant.
    pub(super) fn has(&self, token: &TokenId) -> bool {
        self.tokens.contains_key(token)
    }

    /// Whether the exchange was answered here.
    pub(super) fn answered(&self, exchange: &ExchangeId) -> bool {
        self.exchanges.contains_key(exchange)
    }

    /// Spends a use.
    pub(super) fn redeem(&mut self, id: UseId, now: Timestamp) -> Result<(), NotRedeemed> {
        if self.uses.contains(&id) {
            return Err(NotRedeemed::Repeated);
        }
        if self.standing(now) != Standing::Granted || self.uses_left() == Some(0) {
            return Err(NotRedeemed::Spent);
        }
        self.uses.insert(id);
        Ok(())
    }

    fn decide(&mut self, at: Timestamp) {
        let narrowing = match &self.answer {
            Answer::Grant => Narrowing::default(),
            Answer::Approve { narrowing, .. } => {
                self.approved_by.push(APPROVER.to_owned());
                narrowing.clone()
            }
            Answer::Deny { person, .. } => {
                self.stage = Stage::Closed(Standing::Denied, Because::Person(person.clone()));
                return;
            }
            Answer::Never | Answer::Refuse { .. } => return,
        };
        let request = &self.request;
        let scope = request.scope.narrowed(narrowing.rights.as_ref(), &narrowing.constraints);
        let lifetime = request.lifetime.min(narrowing.lifetime.unwrap_or(request.lifetime));
        let uses = request.uses.into_iter().chain(narrowing.uses).min();
        let scope = scope.unwrap_or_else(|_| request.scope.clone());
        self.terms = Some(Terms { from: at, until: at.plus(lifetime), scope, uses });
        self.stage = Stage::Granted;
    }

    pub(super) fn standing(&self, now: Timestamp) -> Standing {
        match (&self.stage, &self.terms) {
            (Stage::Pending { until }, _) if now < *until => Standing::Pending,
            (Stage::Pending { .. }, _) => Standing::Expired,
            (Stage::Granted, Some(terms)) if now < terms.until => Standing::Granted,
            (Stage::Granted, _) => Standing::Lapsed,
            (Stage::Closed(standing, _), _) => *standing,
        }
    }

    pub(super) fn because(&self) -> String {
        match &self.stage {
            Stage::Closed(_, Because::Person(person)) => format!("denied by {person}"),
            Stage::Closed(_, Because::Policy { policy, reason }) => {
                format!("policy `{policy}`: {reason}")
            }
            Stage::Closed(_, Because::Of) | Stage::Pending { .. } | Stage::Granted => String::new(),
        }
    }

    pub(super) fn approved_by(&self) -> &[String] {
        &self.approved_by
    }

    pub(super) fn pending_until(&self) -> Option<Timestamp> {
        match self.stage {
            Stage::Pending { until } => Some(until),
            Stage::Granted | Stage::Closed(..) => None,
        }
    }

    pub(super) fn uses_spent(&self) -> u32 {
        u32::try_from(self.uses.len()).unwrap_or(u32::MAX)
    }

    fn uses_left(&self) -> Option<u32> {
        let uses = self.terms.as_ref()?.uses?;
        Some(uses.get().saturating_sub(self.uses_spent()))
    }

    /// Why there is no grant to be used.
    pub(super) fn refusal(&self, now: Timestamp) -> No {
        let standing = self.standing(now);
        let reason = standing.reason().unwrap_or(Reason::NotYetApproved);
        let policy = match &self.stage {
            Stage::Closed(_, Because::Policy { policy, reason }) => {
                format!("policy `{policy}` refuses: {reason}")
            }
            Stage::Closed(..) | Stage::Pending { .. } | Stage::Granted => String::new(),
        };
        let message = match standing {
            Standing::Pending | Standing::Granted => "the request is still waiting for approval",
            Standing::RefusedByPolicy => &policy,
            Standing::Denied => "the request was denied by an approver",
            Standing::Expired => "the request expired unanswered",
            Standing::Cancelled => "the request was cancelled by its holder",
            Standing::Completed => "the grant was completed by its holder",
            Standing::Revoked => "the grant was revoked",
            Standing::Drifted => &format!("the grant has drifted: {policy}"),
            Standing::Lapsed => "the lease of the grant has ended",
        };
        no(reason, message)
    }

    /// The token that answers this exchange, and where it stands in the record: at `record`, if it
    /// is a new one.
    pub(super) fn token(
        &mut self,
        id: ExchangeId,
        record: Record,
        now: Timestamp,
    ) -> Result<(Claims, Record), No> {
        let (Standing::Granted, Some(terms)) = (self.standing(now), &self.terms) else {
            return Err(self.refusal(now));
        };
        if self.uses_left() == Some(0) {
            return Err(no(Reason::UsesExhausted, "all uses of the grant are spent"));
        }
        if let Some(before) = self.exchanges.get(&id).and_then(|token| self.tokens.get(token)) {
            let good = now < before.0.expires_at;
            return if good { Ok(before.clone()) } else { Err(stale_id()) };
        }
        fresh(id.drawn_at(), now)?;
        let issued_at = now.floor_to_second();
        let expires_at = issued_at.plus(TOKEN_LIFE).min(terms.until).floor_to_second();
        if expires_at <= now {
            return Err(no(Reason::Lapsed, "the lease of the grant has ended"));
        }
        let had = self.latest.and_then(|token| self.tokens.get(&token));
        if let Some((had, record)) = had.filter(|(had, _)| now < had.expires_at) {
            let left = had.expires_at.since(now).saturating_mul(3);
            if left > had.expires_at.since(had.issued_at) || expires_at <= had.expires_at {
                let answer = (had.clone(), *record);
                self.exchanges.insert(id, answer.0.token);
                return Ok(answer);
            }
        }
        let request = &self.request;
        let claims = Claims {
            token: TokenId::derive(&record.epoch, &request.workload, &id),
            grant: request.grant_id(),
            request: request.digest(),
            task: request.task.clone(),
            subject: request.workload.clone(),
            principal: request.principal.clone(),
            audience: request.audience.clone(),
            scope: terms.scope.clone(),
            holder: request.holder(),
            issued_at,
            expires_at,
            online: false,
            counted: terms.uses.is_some(),
            key: super::TOKEN_KEY,
        };
        self.exchanges.insert(id, claims.token);
        self.latest = Some(claims.token);
        self.tokens.insert(claims.token, (claims.clone(), record));
        Ok((claims, record))
    }
}

pub(super) fn not_found() -> No {
    no(Reason::NotFound, "there is no such request or grant")
}

fn stale_id() -> No {
    no(Reason::StaleId, "the id was not drawn within the last minutes; draw a new one")
}

/// Refuses an id that was drawn too far from now.
pub(super) fn fresh(drawn_at: Timestamp, now: Timestamp) -> Result<(), No> {
    let apart = drawn_at.since(now).max(now.since(drawn_at));
    if apart <= ID_WINDOW { Ok(()) } else { Err(stale_id()) }
}
