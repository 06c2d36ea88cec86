//! Finds the entries about something. What a later entry is about often stands in an earlier one
//! (a token belongs to a grant, a revocation of a workload ends its grants), so a trail is shown
//! all entries in order and remembers what it needs of them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use dayfly_verifier::id::{GrantId, KeyId, LockId, PersonId, TaskId, TokenId};
use dayfly_verifier::request::{Answer, Request};
use dayfly_verifier::resource::{Resource, ResourcePattern};
use dayfly_verifier::scope::Scope;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;

use super::about::{Subject, kind, names, subject};
use crate::core::event::{Entry, Event, Lock, Report, Target};
use crate::core::limits::{MAX_LEASE, MAX_PENDING_LIFE};

/// How long before an entry the one may stand that says what it is about.
pub const REACH: Duration = MAX_LEASE.saturating_add(MAX_PENDING_LIFE).saturating_mul(2);

/// What is looked for: all that is named here must hold.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// About this request or grant.
    pub grant: Option<GrantId>,
    /// About requests for this task.
    pub task: Option<TaskId>,
    /// About requests of this workload.
    pub workload: Option<SpiffeId>,
    /// About requests whose rights reach this resource or something below it.
    pub resource: Option<Resource>,
    /// By this person, about a decision of theirs, or about what was asked on their behalf.
    pub person: Option<PersonId>,
    /// From this time on.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// Of one of these kinds; of any if empty.
    pub kinds: BTreeSet<String>,
}

impl Wanted {
    /// Whether it names requests, rather than entries alone.
    #[must_use]
    pub const fn names_cases(&self) -> bool {
        self.grant.is_some()
            || self.task.is_some()
            || self.workload.is_some()
            || self.resource.is_some()
    }

    /// Whether it names this workload and no request of it.
    fn only(&self, id: &SpiffeId) -> bool {
        let narrower = self.grant.is_some() || self.task.is_some() || self.resource.is_some();
        self.workload.as_ref() == Some(id) && !narrower
    }

    fn wants(&self, request: &Request) -> bool {
        let Self { grant, task, workload, resource, .. } = self;
        grant.is_none_or(|grant| request.grant_id() == grant)
            && task.as_ref().is_none_or(|task| request.task == *task)
            && workload.as_ref().is_none_or(|workload| request.workload == *workload)
            && resource.as_ref().is_none_or(|resource| reaches(&request.scope, resource))
    }
}

/// A search in progress.
pub struct Trail {
    wanted: Wanted,
    cases: HashMap<GrantId, Known>,
    /// Those of them that may not have ended yet: only these are looked through.
    live: HashSet<GrantId>,
    tokens: HashMap<TokenId, GrantId>,
    /// What each lock touched when it was set.
    locks: HashMap<LockId, Touched>,
}

/// What must be remembered of a request that is wanted.
struct Known {
    workload: SpiffeId,
    task: TaskId,
    principal: Option<PersonId>,
    scope: Scope,
    for_person: bool,
    keys: BTreeSet<KeyId>,
    /// From when on nothing touches it any more: the end of its wait, or of its lease.
    ends: Timestamp,
}

impl Trail {
    /// Looks for `wanted`.
    #[must_use]
    pub fn new(wanted: Wanted) -> Self {
        let (cases, live, tokens, locks) = Default::default();
        Self { wanted, cases, live, tokens, locks }
    }

    /// Whether `entry`, the next one, is wanted.
    pub fn takes(&mut self, entry: &Entry) -> bool {
        let touched = self.follow(entry);
        let Wanted { person, since, until, kinds, .. } = &self.wanted;
        let about = !self.wanted.names_cases() || touched.any;
        let by = person.as_ref().is_none_or(|who| touched.for_person || names(entry, who));
        let when = since.is_none_or(|since| entry.at >= since)
            && until.is_none_or(|until| entry.at < until);
        about && by && when && (kinds.is_empty() || kinds.contains(kind(&entry.event)))
    }

    /// Remembers what `entry` says of the cases that are wanted, and tells which it touches.
    fn follow(&mut self, entry: &Entry) -> Touched {
        match subject(&entry.event) {
            Subject::Request(request) => self.file(request, &entry.event),
            Subject::Case(grant) => {
                let Some(known) = self.cases.get_mut(grant) else { return Touched::default() };
                known.step(entry);
                if let Event::TokenRecorded { claims, .. } = &entry.event {
                    self.tokens.insert(claims.token, claims.grant);
                }
                Touched { any: true, for_person: known.for_person }
            }
            Subject::Taken(target) => self.taken(target, entry.at),
            Subject::Lock(lock) => self.locked(lock, entry.at),
            Subject::Lifted(lock) => self.locks.get(lock).copied().unwrap_or_default(),
            Subject::Uses(report) => self.used(report),
            Subject::Identity(id) => Touched { any: self.wanted.only(id), for_person: false },
            Subject::Broker => Touched::default(),
        }
    }

    fn file(&mut self, request: &Request, event: &Event) -> Touched {
        let person = self.wanted.person.as_ref();
        let for_person = person.is_some() && request.principal.as_ref() == person;
        let remembered = self.wanted.names_cases() || for_person;
        if !remembered || !self.wanted.wants(request) {
            return Touched::default();
        }
        let ends = if let Event::RequestFiled { until, .. } = event {
            *until
        } else {
            Timestamp::default()
        };
        let known = Known {
            workload: request.workload.clone(),
            task: request.task.clone(),
            principal: request.principal.clone(),
            scope: request.scope.clone(),
            for_person,
            keys: BTreeSet::new(),
            ends,
        };
        let grant = request.grant_id();
        self.cases.insert(grant, known);
        self.live.insert(grant);
        Touched { any: true, for_person }
    }

    /// What a revocation touches: what is named, and the live ones among many.
    fn taken(&mut self, target: &Target, at: Timestamp) -> Touched {
        let mut touched = Touched::default();
        let one = match target {
            Target::Grant(grant) | Target::Delegate(grant, _) => Some(*grant),
            Target::Token(token) => self.tokens.get(token).copied(),
            Target::Block(_) | Target::Workload(_) | Target::Task(_) | Target::Prefix(_) => None,
            Target::Key(_) => None,
        };
        let among = self.live_at(at, |known| known.is_among(target));
        for grant in one.into_iter().chain(among) {
            let Some(known) = self.cases.get_mut(&grant) else { continue };
            touched.add(known);
            let ends = !matches!(target, Target::Token(_) | Target::Delegate(..));
            if ends && !matches!(target, Target::Key(_)) {
                known.ends = known.ends.min(at);
            }
        }
        let Wanted { grant, task, workload, resource, .. } = &self.wanted;
        touched.any |= match target {
            // It says so by itself, whether anything was there to be taken back or not.
            Target::Grant(named) => *grant == Some(*named),
            Target::Workload(named) => workload.as_ref() == Some(named),
            Target::Task(named) => task.as_ref() == Some(named),
            Target::Prefix(named) => resource
                .as_ref()
                .is_some_and(|resource| resource.is_at_or_below(named) || named.is_below(resource)),
            Target::Token(_) | Target::Delegate(..) | Target::Block(_) | Target::Key(_) => false,
        };
        touched
    }

    /// Those that live on at `at` and are `so`. The others are never looked through again.
    fn live_at(&mut self, at: Timestamp, so: impl Fn(&Known) -> bool) -> Vec<GrantId> {
        let Self { cases, live, .. } = self;
        live.retain(|grant| cases.get(grant).is_some_and(|known| known.ends > at));
        let known = |grant: &&GrantId| cases.get(*grant).is_some_and(&so);
        live.iter().filter(known).copied().collect()
    }

    /// What a lock refuses: the live ones among many, and all that is named, if it names that too.
    fn locked(&mut self, lock: &Lock, at: Timestamp) -> Touched {
        let mut touched = Touched::default();
        let locked = self.live_at(at, |known| known.is_locked(lock));
        locked.iter().filter_map(|grant| self.cases.get(grant)).for_each(|k| touched.add(k));
        let Wanted { grant, task, workload, resource, person, .. } = &self.wanted;
        let on = |resource: &Resource| {
            let meets =
                |prefix: &Resource| resource.is_at_or_below(prefix) || prefix.is_below(resource);
            lock.prefix.as_ref().is_some_and(meets)
        };
        touched.any |= grant.is_none()
            && task.as_ref().is_none_or(|task| lock.task.as_ref() == Some(task))
            && workload.as_ref().is_none_or(|id| lock.workload.as_ref() == Some(id))
            && resource.as_ref().is_none_or(on);
        touched.for_person |= person.is_some() && lock.person == *person;
        self.locks.insert(lock.id, touched);
        touched
    }

    fn used(&self, report: &Report) -> Touched {
        let abouts = report.batch.counts.iter().filter_map(|(line, _)| line.about);
        let mut touched = Touched::default();
        abouts.filter_map(|about| self.cases.get(&about.grant)).for_each(|k| touched.add(k));
        touched
    }
}

/// Which of the cases that are wanted an entry touches.
#[derive(Default, Clone, Copy)]
struct Touched {
    any: bool,
    for_person: bool,
}

impl Touched {
    const fn add(&mut self, known: &Known) {
        self.any = true;
        self.for_person |= known.for_person;
    }
}

impl Known {
    fn step(&mut self, entry: &Entry) {
        let event = &entry.event;
        if let Event::Granted { terms, .. } = event {
            self.ends = terms.until;
        } else if let Event::TokenRecorded { claims, .. } = event {
            self.keys.insert(claims.key);
        } else if let Event::DecisionRecorded { decision, .. } = event {
            let denied = decision.answer == Answer::Deny;
            self.ends = if denied { self.ends.min(entry.at) } else { self.ends };
        } else if let Event::Ended { .. } = event {
            self.ends = self.ends.min(entry.at);
        }
    }

    fn is_locked(&self, lock: &Lock) -> bool {
        let Lock { id: _, workload, task, prefix, person } = lock;
        workload.as_ref().is_none_or(|id| *id == self.workload)
            && task.as_ref().is_none_or(|task| *task == self.task)
            && prefix.as_ref().is_none_or(|prefix| reaches(&self.scope, prefix))
            && person.as_ref().is_none_or(|name| self.principal.as_ref() == Some(name))
    }

    fn is_among(&self, target: &Target) -> bool {
        match target {
            Target::Workload(workload) => self.workload == *workload,
            Target::Task(task) => self.task == *task,
            Target::Prefix(prefix) => reaches(&self.scope, prefix),
            Target::Key(key) => self.keys.contains(key),
            Target::Grant(_) | Target::Token(_) | Target::Delegate(..) | Target::Block(_) => false,
        }
    }
}

/// Whether a right of `scope` reaches `resource` or something below it.
fn reaches(scope: &Scope, resource: &Resource) -> bool {
    scope.rights().any(|right| match &right.resource {
        ResourcePattern::Exact(exact) => exact.is_at_or_below(resource),
        ResourcePattern::Below(base) => base.is_at_or_below(resource) || resource.is_below(base),
    })
}
