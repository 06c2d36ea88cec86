//! One request and what became of it. Expiry is never written down: it is derived from the time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dayfly_verifier::claims::{Claims, Record};
use dayfly_verifier::id::{
    ExchangeId, GrantId, KeyId, PersonId, RequestDigest, Seq, TextDigest, TokenId, UseId,
};
use dayfly_verifier::request::{Request, Requirement};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use imbl::OrdMap;

use super::denial::Denial;
use super::directory::Directory;
use super::event::{Decision, TaskOutcome, Terms};
use super::verdict::Refusal;

/// A request and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// What was asked, with what policy demands of it now.
    pub request: Arc<Request>,
    /// The digest of the request: what decisions are about.
    pub digest: RequestDigest,
    /// The justification, kept aside.
    pub justification: Option<TextDigest>,
    /// The place in the log at which it was filed.
    pub seq: Seq,
    /// The people who stand too near to the workload to decide.
    pub kin: Arc<Kin>,
    /// The approvals on this form of the request, one a person.
    pub approvals: BTreeMap<PersonId, Decision>,
    /// How far it has come.
    pub stage: Stage,
}

/// The people who are near to a workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Kin {
    /// Those who own it by the bundle in force.
    pub owners: BTreeSet<PersonId>,
    /// Those who owned or operated it at any time since the request was filed, or invited it at
    /// any time at all.
    pub responsible: BTreeSet<PersonId>,
}

/// How far a request has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Waits for approvals.
    Pending {
        /// From when on it has expired unanswered.
        until: Timestamp,
    },
    /// Was granted.
    Granted(Grant),
    /// Came to an end by something that happened.
    Closed(Box<Closed>),
}

/// What a grant gives, and what was made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// What it gives.
    pub terms: Terms,
    /// The token recorded last.
    pub latest: Option<Arc<Token>>,
    /// The tokens before it.
    pub earlier: OrdMap<TokenId, Arc<Token>>,
    /// The token that answers each exchange that was answered with the token of another. That of
    /// the others has an id that is derived from theirs.
    pub others: OrdMap<ExchangeId, TokenId>,
    /// The uses that were redeemed, with the token used and how many were left after each.
    pub uses: OrdMap<UseId, (TokenId, u32)>,
}

/// A token of a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What it says.
    pub minted: Minted,
    /// Whether it was revoked by itself.
    pub revoked: bool,
    /// How many exchanges it answered.
    pub answers: u32,
}

/// What a token says, and where that stands in the log: all that its bytes are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minted {
    /// What it says.
    pub claims: Claims,
    /// Where it was recorded.
    pub record: Record,
}

/// What is new with each token of a grant: all else that it says was asked and granted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Issue {
    /// The id of the token.
    pub token: TokenId,
    /// When it is issued, a whole second.
    pub issued_at: Timestamp,
    /// From when on it is refused, a whole second.
    pub expires_at: Timestamp,
    /// The key that signs it.
    pub key: KeyId,
}

/// An end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// When.
    pub at: Timestamp,
    /// How.
    pub how: How,
    /// What had been granted.
    pub grant: Option<Grant>,
}

/// How a request or grant came to an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// Policy refused the request as it came in.
    Refused(Refusal),
    /// A person denied it.
    Denied(Decision),
    /// Its holder took it back.
    Cancelled,
    /// Its holder is done.
    Completed(TaskOutcome),
    /// It was revoked, by itself or among others.
    Revoked,
    /// Policy would not grant it any more.
    Drifted(Refusal),
}

/// Where a request or grant stands at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing<'a> {
    /// Waits for approvals.
    Pending,
    /// Live.
    Granted(&'a Grant),
    /// Policy refused it as it came in.
    Refused(&'a Refusal),
    /// A person denied it.
    Denied(&'a Decision),
    /// Nobody granted it in time.
    Expired,
    /// Its holder took it back.
    Cancelled,
    /// Its holder is done.
    Completed(TaskOutcome),
    /// It was revoked.
    Revoked,
    /// Policy would not grant it any more.
    Drifted(&'a Refusal),
    /// Its lease ended.
    Lapsed,
}

impl Kin {
    /// Those near to `workload`, as `directory` says, and those who invited it.
    pub(super) fn of<'a>(
        workload: &SpiffeId,
        directory: &'a Directory,
        inviters: impl Iterator<Item = &'a PersonId>,
    ) -> Self {
        let responsible = directory.responsible_for(workload).into_iter();
        let responsible = responsible.chain(inviters).cloned().collect();
        let owners = directory.owners_of(workload).into_iter().cloned().collect();
        Self { owners, responsible }
    }
}

impl Case {
    /// The id by which everybody but its workload names it.
    #[must_use]
    pub fn grant_id(&self) -> GrantId {
        self.request.grant_id()
    }

    /// What policy demands.
    #[must_use]
    pub fn requirement(&self) -> &Requirement {
        &self.request.requirement
    }

    /// Where it stands at `now`.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> Standing<'_> {
        match &self.stage {
            Stage::Pending { until } if now < *until => Standing::Pending,
            Stage::Pending { .. } => Standing::Expired,
            Stage::Granted(grant) if now < grant.terms.until => Standing::Granted(grant),
            Stage::Granted(_) => Standing::Lapsed,
            Stage::Closed(closed) => match &closed.how {
                How::Refused(refusal) => Standing::Refused(refusal),
                How::Denied(decision) => Standing::Denied(decision),
                How::Cancelled => Standing::Cancelled,
                How::Completed(outcome) => Standing::Completed(*outcome),
                How::Revoked => Standing::Revoked,
                How::Drifted(refusal) => Standing::Drifted(refusal),
            },
        }
    }

    /// From when on it stands ended by itself; `None` if it was ended.
    #[must_use]
    pub const fn due(&self) -> Option<Timestamp> {
        match &self.stage {
            Stage::Pending { until } => Some(*until),
            Stage::Granted(grant) => Some(grant.terms.until),
            Stage::Closed(_) => None,
        }
    }

    /// What was granted, live or not; `None` before.
    #[must_use]
    pub const fn grant(&self) -> Option<&Grant> {
        match &self.stage {
            Stage::Pending { .. } => None,
            Stage::Granted(grant) => Some(grant),
            Stage::Closed(closed) => closed.grant.as_ref(),
        }
    }

    /// Whether `person` stands too near to decide: by owning or operating the workload now or at
    /// any time since the request was filed, by having invited it, by being its principal, or by
    /// being the one who asks.
    #[must_use]
    pub fn is_own(&self, person: &PersonId, directory: &Directory) -> bool {
        let request = &self.request;
        let known = directory.people.get(person);
        self.kin.responsible.contains(person)
            || directory.responsible_for(&request.workload).contains(person)
            || request.principal.as_ref() == Some(person)
            || known.is_some_and(|known| known.ids.contains(&request.workload))
    }
}

impl Grant {
    pub(super) fn new(terms: Terms) -> Self {
        let (latest, earlier, others, uses) = Default::default();
        Self { terms, latest, earlier, others, uses }
    }

    /// One more token, which answers the exchange that it was recorded with.
    pub(super) fn record(&mut self, minted: Minted) {
        let token = Token { minted, revoked: false, answers: 1 };
        if let Some(before) = self.latest.replace(Arc::new(token)) {
            self.earlier.insert(before.id(), before);
        }
    }

    /// That `exchange` was answered with `token`, which another was recorded with.
    pub(super) fn answer(
        &mut self,
        exchange: ExchangeId,
        token: TokenId,
    ) -> Result<(), &'static str> {
        let answered = self.token_mut(&token).ok_or("there is no such token")?;
        answered.answers = answered.answers.saturating_add(1);
        self.others.insert(exchange, token);
        Ok(())
    }

    /// Revokes one token by itself; `false` if there is no such token.
    pub(super) fn revoke(&mut self, token: &TokenId) -> bool {
        self.token_mut(token).map(|token| token.revoked = true).is_some()
    }

    fn token_mut(&mut self, id: &TokenId) -> Option<&mut Token> {
        let latest = self.latest.as_mut().filter(|token| token.id() == *id);
        latest.or_else(|| self.earlier.get_mut(id)).map(Arc::make_mut)
    }

    /// One of its tokens, dead or alive.
    #[must_use]
    pub fn token(&self, id: &TokenId) -> Option<&Token> {
        let latest = self.latest.as_ref().filter(|token| token.id() == *id);
        latest.or_else(|| self.earlier.get(id)).map(Arc::as_ref)
    }

    /// Its tokens, dead or alive, the one recorded last at the end.
    pub fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.earlier.values().chain(&self.latest).map(Arc::as_ref)
    }

    /// That `use_id` was spent on a use of `token`.
    pub(super) fn redeem(&mut self, use_id: UseId, token: TokenId) -> Result<(), &'static str> {
        let left = self.uses_left().and_then(|left| left.checked_sub(1));
        let left = left.ok_or("there is no use left")?;
        match self.uses.insert(use_id, (token, left)) {
            None => Ok(()),
            Some(_) => Err("the use was redeemed before"),
        }
    }

    /// The token that answered `exchange`; `own` is the id of the token that would be recorded
    /// with it.
    #[must_use]
    pub fn answered(&self, exchange: &ExchangeId, own: &TokenId) -> Option<&Token> {
        self.token(self.others.get(exchange).unwrap_or(own))
    }

    /// How many uses are left; `None` for any number within the lease.
    #[must_use]
    pub fn uses_left(&self) -> Option<u32> {
        self.terms.uses.map(|uses| uses.get().saturating_sub(self.uses_spent()))
    }

    /// How many uses were redeemed.
    #[must_use]
    pub fn uses_spent(&self) -> u32 {
        u32::try_from(self.uses.len()).unwrap_or(u32::MAX)
    }
}

impl Token {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> TokenId {
        self.minted.claims.token
    }
}

impl Issue {
    /// What was new with the token that says `claims`.
    pub(crate) const fn of(claims: &Claims) -> Self {
        let Claims { token, issued_at, expires_at, key, .. } = claims;
        Self { token: *token, issued_at: *issued_at, expires_at: *expires_at, key: *key }
    }

    /// What the token says that is issued so for `grant`, which `request` of this digest became on
    /// these `terms`.
    pub(crate) fn claims(
        self,
        grant: GrantId,
        request: &Request,
        digest: RequestDigest,
        terms: &Terms,
    ) -> Claims {
        let Self { token, issued_at, expires_at, key } = self;
        Claims {
            token,
            grant,
            request: digest,
            task: request.task.clone(),
            subject: request.workload.clone(),
            principal: request.principal.clone(),
            audience: request.audience.clone(),
            scope: terms.scope.clone(),
            holder: request.holder(),
            issued_at,
            expires_at,
            online: terms.online,
            counted: terms.uses.is_some(),
            key,
        }
    }
}

impl Standing<'_> {
    /// The refusal of what the end makes impossible; `None` where there is no end yet.
    #[must_use]
    pub fn end(&self) -> Option<Denial> {
        match *self {
            Self::Pending | Self::Granted(_) => None,
            Self::Refused(refusal) => Some(Denial::PolicyRefused(refusal.clone())),
            Self::Denied(_) => Some(Denial::Denied),
            Self::Expired => Some(Denial::Expired),
            Self::Cancelled => Some(Denial::Cancelled),
            Self::Completed(_) => Some(Denial::Completed),
            Self::Revoked => Some(Denial::Revoked),
            Self::Drifted(refusal) => Some(Denial::Drifted(refusal.clone())),
            Self::Lapsed => Some(Denial::Lapsed),
        }
    }
}
