//! Standing refusals: what matches a lock is not asked for, granted, exchanged or used until the
//! lock is lifted, or its end has come. No policy and no approval switches one off.
//!
//! A lock takes nothing back: what was granted before it goes on after it, as long as it lives.

use dayfly_verifier::id::{LockId, PersonId, Seq, TextDigest};
use dayfly_verifier::request::Request;
use dayfly_verifier::revocations::Lock;
use dayfly_verifier::scope::Scope;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use imbl::{OrdMap, OrdSet};

use super::state::{State, reaches};

/// A lock that was set, until its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetLock {
    /// What it refuses.
    pub lock: Lock,
    /// From when on it refuses nothing any more.
    pub until: Timestamp,
    /// Who set it, or put off its end last.
    pub by: PersonId,
    /// Where in the log.
    pub seq: Seq,
    /// The reason, kept aside.
    pub reason: Option<TextDigest>,
}

impl SetLock {
    /// Whether it refuses `request` for `scope`, which `person` asks for, or decides on.
    fn refuses(&self, request: &Request, scope: &Scope, person: Option<&PersonId>) -> bool {
        let Lock { id: _, workload, task, prefix, person: locked } = &self.lock;
        workload.as_ref().is_none_or(|id| *id == request.workload)
            && task.as_ref().is_none_or(|id| *id == request.task)
            && prefix.as_ref().is_none_or(|prefix| reaches(scope, prefix))
            && locked.as_ref().is_none_or(|locked| Some(locked) == person)
    }
}

/// All locks that have not come to their end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Locks {
    in_force: OrdMap<LockId, SetLock>,
    /// Remembered so that a repeat does not set one anew.
    lifted: OrdMap<LockId, SetLock>,
    /// The ends of both.
    ends: OrdSet<(Timestamp, LockId)>,
}

impl Locks {
    pub(crate) fn set(&mut self, set: SetLock) {
        self.forget(&set.lock.id);
        self.ends.insert((set.until, set.lock.id));
        self.in_force.insert(set.lock.id, set);
    }

    pub(crate) fn lift(&mut self, id: &LockId) {
        if let Some(set) = self.in_force.remove(id) {
            self.lifted.insert(*id, set);
        }
    }

    /// Each that was set and not forgotten, and whether it was lifted.
    pub(crate) fn remembered(&self) -> impl Iterator<Item = (&SetLock, bool)> {
        let in_force = self.in_force.values().map(|set| (set, false));
        in_force.chain(self.lifted.values().map(|set| (set, true)))
    }

    /// Forgets those whose end has come.
    pub(super) fn pass(&mut self, now: Timestamp) {
        while let Some((_, id)) = self.ends.get_min().copied().filter(|(end, _)| *end <= now) {
            self.forget(&id);
        }
    }

    fn forget(&mut self, id: &LockId) {
        if let Some(set) = self.in_force.remove(id).or_else(|| self.lifted.remove(id)) {
            self.ends.remove(&(set.until, *id));
        }
    }
}

impl State {
    /// The locks in force at `now`, in the order of their ids.
    pub fn locks(&self, now: Timestamp) -> impl Iterator<Item = &SetLock> {
        self.locks.in_force.values().filter(move |set| now < set.until)
    }

    /// The lock of that id that is in force at `now`.
    #[must_use]
    pub fn lock(&self, id: &LockId, now: Timestamp) -> Option<&SetLock> {
        self.locks.in_force.get(id).filter(|set| now < set.until)
    }

    /// The lock of that id that was lifted before its end, which is later than `now`.
    #[must_use]
    pub fn lifted_lock(&self, id: &LockId, now: Timestamp) -> Option<&SetLock> {
        self.locks.lifted.get(id).filter(|set| now < set.until)
    }

    /// How many locks have not come to their end at `now`, lifted or not.
    #[must_use]
    pub fn locks_remembered(&self, now: Timestamp) -> usize {
        self.locks.ends.iter().filter(|(end, _)| now < *end).count()
    }

    /// The lock that refuses `request` for `scope` at `now`: of several the one that lasts longest.
    #[must_use]
    pub fn lock_on(&self, request: &Request, scope: &Scope, now: Timestamp) -> Option<&SetLock> {
        let person = request.principal.as_ref();
        let on = self.locks(now).filter(|set| set.refuses(request, scope, person));
        on.max_by_key(|set| set.until)
    }

    /// The lock on `person` that keeps them from deciding on `request` at `now`.
    #[must_use]
    pub fn lock_on_decider(
        &self,
        person: &PersonId,
        request: &Request,
        now: Timestamp,
    ) -> Option<&SetLock> {
        let theirs = self.locks(now).filter(|set| set.lock.person.is_some());
        let on = theirs.filter(|set| set.refuses(request, &request.scope, Some(person)));
        on.max_by_key(|set| set.until)
    }

    /// The lock at `now` that names `person`, for whatever it locks them out of.
    #[must_use]
    pub fn lock_naming(&self, person: &PersonId, now: Timestamp) -> Option<&SetLock> {
        let naming = self.locks(now).filter(|set| set.lock.person.as_ref() == Some(person));
        naming.max_by_key(|set| set.until)
    }

    /// The lock at `now` on all that `workload` does, whatever it is: its streams end.
    #[must_use]
    pub fn lock_on_workload(&self, workload: &SpiffeId, now: Timestamp) -> Option<&SetLock> {
        let whole = |set: &&SetLock| {
            let Lock { id: _, workload: locked, task, prefix, person } = &set.lock;
            let narrower = task.is_some() || prefix.is_some() || person.is_some();
            locked.as_ref() == Some(workload) && !narrower
        };
        self.locks(now).filter(whole).max_by_key(|set| set.until)
    }
}
