//! The fold of the log. It evaluates no policy, reads no clock and judges nothing: what stands in
//! the log happened. What cannot have happened is [`Corrupt`], and stops the broker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dayfly_verifier::claims::Record;
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::{
    BundleDigest, ExchangeId, GrantId, KeyId, PersonId, Seq, TextDigest, TokenId,
};
use dayfly_verifier::request::{Request, SignerKey};
use dayfly_verifier::resource::{Resource, ResourcePattern};
use dayfly_verifier::scope::Scope;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use imbl::OrdMap;

use super::case::{Case, Closed, How, Stage};
use super::directory::Directory;
use super::event::{Actor, Entry, Event, Head, IdentityChange, Lock, Target};
use super::feed::{self, Feed};
use super::index::Index;
use super::limits::Limits;
use super::locks::{Locks, SetLock};
use super::reports::Reports;
use super::step::{step, takes_away};
use super::unbounded::Unbounded;

/// The version of the fold. It changes with what entries mean to it and with what a state is made
/// of: a snapshot by another one is not taken up.
pub const FOLD: u32 = 3;

/// What the log means, up to its head. A clone is cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The end of what was folded.
    pub head: Head,
    /// The time of the last entry. Nothing is decided at an earlier one.
    pub time: Timestamp,
    /// The bundle in force.
    pub bundle: Option<BundleDigest>,
    /// Who is who, by the bundle in force.
    pub directory: Arc<Directory>,
    /// The keys of the founding policy admins.
    pub founders: BTreeSet<SignerKey>,
    /// The version of the entry format that may be written.
    pub format: u32,
    /// The version of the environment facts set by operators.
    pub environment: u64,
    /// The token-signing keys.
    pub keys: BTreeMap<KeyId, SigningKey>,
    /// What is configured. The fold never reads it.
    pub limits: Limits,
    /// The place of the last entry that the last snapshot on record has; 0 before the first.
    pub snapshot: Seq,
    /// What gateways must refuse.
    pub feed: Feed,
    /// The last revocation: its place and its time.
    pub last_revocation: Option<(Seq, Timestamp)>,
    /// How far gateways have told what was done with tokens.
    pub(crate) reports: Reports,
    /// Who invited whom to join. Whom somebody invited, they can be.
    pub(crate) invited: OrdMap<SpiffeId, BTreeSet<PersonId>>,
    /// What is refused whatever policy says.
    pub(crate) locks: Locks,
    /// The gateway instances that nothing bounds.
    pub(crate) unbounded: Unbounded,
    pub(crate) cases: OrdMap<GrantId, Arc<Case>>,
    pub(crate) index: Index,
}

/// A token-signing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Its public half.
    pub public: HolderKey,
    /// Its end.
    pub not_after: Timestamp,
    /// Whether a token was signed with it before: every gateway has come to know it.
    pub used: bool,
    /// Whether it signs nothing any more.
    pub retired: bool,
    /// Whether it was revoked, and with it all that it signed or would sign, for good: gateways
    /// take nothing by it any more.
    pub revoked: bool,
}

/// An entry that cannot stand where it stands: the log, or this fold of it, is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("entry {seq} cannot stand there: {rule}")]
pub struct Corrupt {
    /// Its place.
    pub seq: Seq,
    /// What is wrong with it.
    pub rule: &'static str,
}

impl Default for State {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl State {
    /// The fold of no entries.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            head: Head::ORIGIN,
            time: Timestamp::default(),
            bundle: None,
            directory: Arc::default(),
            founders: BTreeSet::new(),
            format: 0,
            environment: 0,
            keys: BTreeMap::new(),
            limits,
            snapshot: Seq(0),
            feed: Feed::new(&Head::ORIGIN.epoch),
            last_revocation: None,
            reports: Reports::default(),
            invited: OrdMap::new(),
            locks: Locks::default(),
            unbounded: Unbounded::default(),
            cases: OrdMap::new(),
            index: Index::default(),
        }
    }

    /// Folds one more entry, which stands at `head`. After an error the state is not to be used.
    pub fn apply(&mut self, head: Head, entry: &Entry) -> Result<(), Corrupt> {
        let corrupt = |rule| Corrupt { seq: head.seq, rule };
        let opens = entry.event.opens();
        let follows = head.epoch == self.head.epoch || opens == Some(head.epoch);
        if head.seq != self.head.seq.next() || !follows {
            return Err(corrupt("it does not follow the one before"));
        }
        if entry.at < self.time {
            return Err(corrupt("it is earlier than the one before"));
        }
        self.head = head;
        self.time = entry.at;
        self.pass();
        self.fold(&entry.by, &entry.event).map_err(corrupt)?;
        let said = feed::said(self, entry);
        self.feed.fold(head, entry.at, said);
        if matches!(entry.event, Event::Revoked { .. }) {
            self.last_revocation = Some((head.seq, entry.at));
        }
        Ok(())
    }

    /// Lets go what is over, and forgets what has been over for long.
    fn pass(&mut self) {
        self.locks.pass(self.time);
        self.index.pass(self.time, &self.cases);
        while let Some(id) = self.index.next_forgotten(self.time) {
            let Some(case) = self.cases.remove(&id) else { continue };
            self.index.remove(id, &case);
            let Some(grant) = case.grant() else { continue };
            grant.tokens().for_each(|token| self.index.remove_token(&token.id()));
            for exchange in grant.others.keys() {
                self.index.remove_token(&self.token_id(&case.request.workload, exchange));
            }
        }
    }

    fn fold(&mut self, by: &Actor, event: &Event) -> Result<(), &'static str> {
        match event {
            Event::EpochOpened { epoch, founders, format, .. } => {
                (self.cases, self.index) = Default::default();
                self.feed = Feed::new(epoch);
                self.reports = Reports::default();
                self.founders.clone_from(founders);
                self.format = *format;
            }
            Event::BundleApplied { bundle, directory, signers: _ } => {
                self.bundle = Some(*bundle);
                self.directory = Arc::new(directory.clone());
                self.look_at_kin_again(self.index.open(self.time).collect());
            }
            Event::IdentityChanged { id, change: IdentityChange::Invited } => self.invite(by, id),
            Event::IdentityChanged {
                change: IdentityChange::Joined { .. } | IdentityChange::Locked,
                ..
            } => {}
            Event::KeyAdded { key, public, not_after } => {
                let key = self.keys.insert(*key, SigningKey::new(*public, *not_after));
                if key.is_some() {
                    return Err("the key is there already");
                }
            }
            Event::KeyRetired { key } => {
                self.keys.get_mut(key).ok_or("there is no such key")?.retired = true;
            }
            Event::RequestFiled { request, justification, until } => {
                self.file(request, *justification, Stage::Pending { until: *until })?;
            }
            Event::RequestRefused { request, justification, refusal } => {
                let how = How::Refused(refusal.clone());
                let closed = Closed { at: self.time, how, grant: None };
                self.file(request, *justification, Stage::Closed(Box::new(closed)))?;
            }
            Event::TokenRecorded { exchange, claims } => {
                let id = self.unanswered(&claims.subject, exchange)?;
                if id != claims.token {
                    return Err("the token does not have the id of its exchange");
                }
                self.change(&claims.grant, event)?;
                self.index.add_token(id, claims.grant);
                // An unused key is written down once: the map is not touched for each token.
                if let Some(key) = self.keys.get_mut(&claims.key).filter(|key| !key.used) {
                    key.used = true;
                }
            }
            Event::ExchangeAnswered { grant, exchange, .. } => {
                let case = self.cases.get(grant).ok_or("there is no such case")?;
                let id = self.unanswered(&case.request.workload, exchange)?;
                self.change(grant, event)?;
                self.index.add_token(id, *grant);
            }
            Event::RequirementChanged { grant, .. }
            | Event::DecisionRecorded { grant, .. }
            | Event::DecisionWithdrawn { grant, .. }
            | Event::Granted { grant, .. }
            | Event::UseRedeemed { grant, .. }
            | Event::Ended { grant, .. } => self.change(grant, event)?,
            Event::Revoked { target, .. } => self.revoke(target, event)?,
            Event::Locked { lock, until, reason } => self.set_lock(by, lock, *until, *reason)?,
            Event::Unlocked { lock } => self.locks.lift(lock),
            Event::OptedOut { instance } => self.unbounded.fold(by, instance, self.time)?,
            Event::UsesReported(report) => self.reports.fold(by, report, self.time)?,
            Event::SnapshotTaken(taken) => self.snapshot = taken.of.seq,
        }
        Ok(())
    }

    /// The id of the token that `exchange` of `workload` yields, which was not answered before.
    fn unanswered(
        &self,
        workload: &SpiffeId,
        exchange: &ExchangeId,
    ) -> Result<TokenId, &'static str> {
        let id = self.token_id(workload, exchange);
        if self.index.token(&id).is_some() {
            return Err("the exchange was answered before");
        }
        Ok(id)
    }

    fn invite(&mut self, by: &Actor, id: &SpiffeId) {
        if let Actor::Person(name, _) = by {
            self.invited.entry(id.clone()).or_default().insert(name.clone());
            self.look_at_kin_again(self.index.of_workload(id).collect());
        }
    }

    fn set_lock(
        &mut self,
        by: &Actor,
        lock: &Lock,
        until: Timestamp,
        reason: Option<TextDigest>,
    ) -> Result<(), &'static str> {
        let Actor::Person(by, _) = by else { return Err("only operators lock") };
        // Whoever puts the end off need not give the reason again.
        let before = self.lock(&lock.id, self.time).and_then(|set| set.reason);
        let (lock, by, seq) = (lock.clone(), by.clone(), self.head.seq);
        self.locks.set(SetLock { lock, until, by, seq, reason: reason.or(before) });
        Ok(())
    }

    /// Folds an event about one case.
    fn change(&mut self, id: &GrantId, event: &Event) -> Result<(), &'static str> {
        let Some(old) = self.cases.get(id) else {
            return if takes_away(event) { Ok(()) } else { Err("there is no such case") };
        };
        if old.due().is_none_or(|due| due <= self.time) {
            return if takes_away(event) { Ok(()) } else { Err("the case has ended") };
        }
        let record = Record { epoch: self.head.epoch, seq: self.head.seq };
        let Some(new) = step(old, event, self.time, record)? else { return Ok(()) };
        // Tokens and uses move no case to another place.
        if !Index::same_place(old, &new) {
            self.index.leave(*id, old);
            self.index.enter(*id, &new);
        }
        self.cases.insert(*id, Arc::new(new));
        Ok(())
    }

    fn file(
        &mut self,
        request: &Request,
        justification: Option<TextDigest>,
        stage: Stage,
    ) -> Result<(), &'static str> {
        let id = request.grant_id();
        let case = Case {
            request: Arc::new(request.clone()),
            digest: request.digest(),
            justification,
            seq: self.head.seq,
            kin: Arc::new(self.kin(&request.workload)),
            approvals: BTreeMap::new(),
            stage,
        };
        if request.epoch != self.head.epoch || self.cases.contains_key(&id) {
            return Err("the request is not a new one of this epoch");
        }
        self.index.add(id, &case);
        self.cases.insert(id, Arc::new(case));
        Ok(())
    }

    fn revoke(&mut self, target: &Target, event: &Event) -> Result<(), &'static str> {
        if let Target::Key(key) = target
            && let Some(key) = self.keys.get_mut(key)
        {
            key.revoked = true;
        }
        self.touched_by(target).iter().try_for_each(|id| self.change(id, event))
    }

    /// Who stands near to the workloads of these cases may have changed: of those that are open,
    /// it is written down.
    fn look_at_kin_again(&mut self, cases: Vec<GrantId>) {
        for id in cases {
            let Some(old) = self.cases.get(&id) else { continue };
            if old.due().is_none_or(|due| due <= self.time) {
                continue;
            }
            let mut kin = self.kin(&old.request.workload);
            kin.responsible.extend(old.kin.responsible.iter().cloned());
            if kin == *old.kin {
                continue;
            }
            let new = Case { kin: Arc::new(kin), ..Case::clone(old) };
            self.index.leave(id, old);
            self.index.enter(id, &new);
            self.cases.insert(id, Arc::new(new));
        }
    }
}

impl SigningKey {
    /// A key as it is listed.
    #[must_use]
    pub const fn new(public: HolderKey, not_after: Timestamp) -> Self {
        Self { public, not_after, used: false, retired: false, revoked: false }
    }

    /// Whether it may sign at `now`.
    #[must_use]
    pub fn signs(&self, now: Timestamp) -> bool {
        !self.retired && !self.revoked && now < self.not_after
    }
}

/// Whether the rights of `scope` reach `prefix` or something below it.
pub(super) fn reaches(scope: &Scope, prefix: &Resource) -> bool {
    scope.rights().any(|right| match &right.resource {
        ResourcePattern::Exact(resource) => resource.is_at_or_below(prefix),
        ResourcePattern::Below(base) => base.is_at_or_below(prefix) || prefix.is_below(base),
    })
}
