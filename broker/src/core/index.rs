//! Where to find cases, and how many are open: derived from the cases alone, kept beside them so
//! that no look-up walks them all. Decides nothing.

mod build;
mod mark;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use dayfly_verifier::id::{GrantId, PersonId, TaskId, TokenId};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use imbl::{OrdMap, OrdSet};

pub(crate) use self::build::Places;
use self::mark::Mark;
use super::case::{Case, Stage};
use super::limits::RETENTION;

/// Sorts before, and after, every other grant id.
const FIRST: GrantId = GrantId::new([0; 16]);
const LAST: GrantId = GrantId::new([0xff; 16]);

/// Look-ups by something else than the grant id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Index {
    workload: OrdSet<(Mark, GrantId)>,
    task: OrdSet<(Mark, GrantId)>,
    /// Tokens, and exchanges that were answered with the token of another.
    token: OrdMap<TokenId, GrantId>,
    /// Open cases, by when they end by themselves.
    due: OrdSet<(Timestamp, GrantId)>,
    /// Those of them that wait for approvals.
    pending: OrdSet<(Timestamp, GrantId)>,
    /// Ended cases, by when they are forgotten.
    gone: OrdSet<(Timestamp, GrantId)>,
    /// How many of those in `due` there are, by workload, by task and by set of owners.
    of_workload: OrdMap<Mark, OfWorkload>,
    of_task: OrdMap<Mark, Tally>,
    of_owners: OrdMap<BTreeSet<PersonId>, Tally>,
    all: Tally,
}

/// What is counted of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct OfWorkload {
    open: Tally,
    /// All its cases, however they ended.
    remembered: u32,
}

/// How many requests are pending, and how many grants are live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Pending requests.
    pub pending: u32,
    /// Live grants.
    pub live: u32,
}

impl Tally {
    pub(super) fn of(case: &Case) -> Self {
        match case.stage {
            Stage::Pending { .. } => Self { pending: 1, live: 0 },
            Stage::Granted(_) => Self { pending: 0, live: 1 },
            Stage::Closed(_) => Self::default(),
        }
    }

    const fn plus(self, other: Self) -> Self {
        Self {
            pending: self.pending.saturating_add(other.pending),
            live: self.live.saturating_add(other.live),
        }
    }

    pub(super) const fn minus(self, other: Self) -> Self {
        Self {
            pending: self.pending.saturating_sub(other.pending),
            live: self.live.saturating_sub(other.live),
        }
    }
}

impl Index {
    /// A case that was not there before.
    pub(super) fn add(&mut self, id: GrantId, case: &Case) {
        let workload = workload(case);
        if self.workload.insert((workload, id)).is_none() {
            count(&mut self.of_workload, &workload, |of| {
                of.remembered = of.remembered.saturating_add(1)
            });
        }
        self.task.insert((task(case), id));
        self.enter(id, case);
    }

    /// Whether a case is found in the same places before and after a change.
    pub(super) fn same_place(before: &Case, after: &Case) -> bool {
        before.due().is_some()
            && before.due() == after.due()
            && Tally::of(before) == Tally::of(after)
            && Arc::ptr_eq(&before.kin, &after.kin)
    }

    /// A case as it stands after a change.
    pub(super) fn enter(&mut self, id: GrantId, case: &Case) {
        if let Some(due) = case.due() {
            self.due.insert((due, id));
            if matches!(case.stage, Stage::Pending { .. }) {
                self.pending.insert((due, id));
            }
            self.count(case, Tally::plus);
        } else if let Stage::Closed(closed) = &case.stage {
            self.gone.insert((closed.at.plus(RETENTION), id));
        }
    }

    /// A case as it stood before a change: an open one.
    pub(super) fn leave(&mut self, id: GrantId, case: &Case) {
        let Some(due) = case.due() else { return };
        if self.due.remove(&(due, id)).is_some() {
            self.pending.remove(&(due, id));
            self.count(case, Tally::minus);
        }
    }

    /// Lets the open cases go whose time is over at `now`.
    pub(super) fn pass(&mut self, now: Timestamp, cases: &OrdMap<GrantId, Arc<Case>>) {
        while let Some((due, id)) = self.due.get_min().copied().filter(|(due, _)| *due <= now) {
            self.due.remove_min();
            self.pending.remove(&(due, id));
            self.gone.insert((due.plus(RETENTION), id));
            if let Some(case) = cases.get(&id) {
                self.count(case, Tally::minus);
            }
        }
    }

    /// The next case that is to be forgotten by `now`, taken out of the list of them.
    pub(super) fn next_forgotten(&mut self, now: Timestamp) -> Option<GrantId> {
        let (until, _) = *self.gone.get_min()?;
        if until <= now { self.gone.remove_min().map(|(_, id)| id) } else { None }
    }

    /// Forgets a case that has left already.
    pub(super) fn remove(&mut self, id: GrantId, case: &Case) {
        let workload = workload(case);
        if self.workload.remove(&(workload, id)).is_some() {
            count(&mut self.of_workload, &workload, |of| {
                of.remembered = of.remembered.saturating_sub(1)
            });
        }
        self.task.remove(&(task(case), id));
    }

    /// That `token` is one of `grant`, or an exchange of it that was answered with another.
    pub(super) fn add_token(&mut self, token: TokenId, grant: GrantId) {
        self.token.insert(token, grant);
    }

    /// Forgets it.
    pub(super) fn remove_token(&mut self, token: &TokenId) {
        self.token.remove(token);
    }

    /// The grant that `token` belongs to.
    pub(super) fn token(&self, token: &TokenId) -> Option<GrantId> {
        self.token.get(token).copied()
    }

    /// The cases of `workload`.
    pub(super) fn of_workload(&self, workload: &SpiffeId) -> impl Iterator<Item = GrantId> {
        of(&self.workload, Mark::of(workload.as_str()))
    }

    /// The cases for `task`.
    pub(super) fn of_task(&self, task: &TaskId) -> impl Iterator<Item = GrantId> {
        of(&self.task, Mark::of(task.as_str()))
    }

    /// The cases that were open at the last entry and still are at `now`, soonest end first.
    pub(super) fn open(&self, now: Timestamp) -> impl Iterator<Item = GrantId> {
        self.due.range((Bound::Excluded((now, LAST)), Bound::Unbounded)).map(|(_, id)| *id)
    }

    /// The requests that were pending at the last entry and still are at `now`, soonest end first.
    pub(super) fn pending(&self, now: Timestamp) -> impl Iterator<Item = GrantId> {
        self.pending.range((Bound::Excluded((now, LAST)), Bound::Unbounded)).map(|(_, id)| *id)
    }

    /// The cases that were open at the last entry and are not at `now`.
    pub(super) fn overdue(&self, now: Timestamp) -> impl Iterator<Item = GrantId> {
        self.due.range(..=(now, LAST)).map(|(_, id)| *id)
    }

    /// How many of `workload` were open at the last entry.
    pub(super) fn tally(&self, workload: &SpiffeId) -> Tally {
        self.counted(workload).open
    }

    /// How many cases of `workload` were remembered at the last entry.
    pub(super) fn remembered(&self, workload: &SpiffeId) -> u32 {
        self.counted(workload).remembered
    }

    fn counted(&self, workload: &SpiffeId) -> OfWorkload {
        self.of_workload.get(&Mark::of(workload.as_str())).copied().unwrap_or_default()
    }

    /// The cases that were remembered at the last entry and would not be at `now`.
    pub(super) fn forgotten(&self, now: Timestamp) -> impl Iterator<Item = GrantId> {
        let ended = self.gone.range(..=(now, LAST)).map(|(_, id)| *id);
        let lapsed = self.due.iter().take_while(move |(due, _)| due.plus(RETENTION) <= now);
        ended.chain(lapsed.map(|(_, id)| *id))
    }

    /// How many for `task` were open at the last entry.
    pub(super) fn tally_of_task(&self, task: &TaskId) -> Tally {
        self.of_task.get(&Mark::of(task.as_str())).copied().unwrap_or_default()
    }

    /// How many of workloads with one of `owners` were open at the last entry.
    pub(super) fn tally_of_owners(&self, owners: &BTreeSet<PersonId>) -> Tally {
        let common = self.of_owners.iter().filter(|(others, _)| !owners.is_disjoint(others));
        common.fold(Tally::default(), |sum, (_, tally)| sum.plus(*tally))
    }

    /// How many were open at the last entry in all.
    pub(super) const fn all(&self) -> Tally {
        self.all
    }

    fn count(&mut self, case: &Case, change: fn(Tally, Tally) -> Tally) {
        let one = Tally::of(case);
        self.all = change(self.all, one);
        count(&mut self.of_workload, &workload(case), |of| of.open = change(of.open, one));
        count(&mut self.of_task, &task(case), |tally| *tally = change(*tally, one));
        count(&mut self.of_owners, &case.kin.owners, |tally| *tally = change(*tally, one));
    }
}

fn workload(case: &Case) -> Mark {
    Mark::of(case.request.workload.as_str())
}

fn task(case: &Case) -> Mark {
    Mark::of(case.request.task.as_str())
}

/// The cases of `mark`.
fn of(marked: &OrdSet<(Mark, GrantId)>, mark: Mark) -> impl Iterator<Item = GrantId> {
    marked.range((mark, FIRST)..=(mark, LAST)).map(|(_, id)| *id)
}

/// Changes one count; one that counts nothing is not kept.
fn count<K: Ord + Clone, N: Copy + Default + Eq>(
    counts: &mut OrdMap<K, N>,
    key: &K,
    change: impl FnOnce(&mut N),
) {
    let mut new = counts.get(key).copied().unwrap_or_default();
    change(&mut new);
    if new == N::default() {
        counts.remove(key);
    } else {
        counts.insert(key.clone(), new);
    }
}
