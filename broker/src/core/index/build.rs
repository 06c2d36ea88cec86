//! The look-ups made at once from all cases there are: the same as the fold would have made one by
//! one, in a fraction of the time, since what comes in order is put in at the end.

use std::collections::{BTreeMap, BTreeSet};

use dayfly_verifier::id::{Epoch, GrantId, PersonId, TokenId};
use dayfly_verifier::time::Timestamp;
use imbl::{OrdMap, OrdSet};

use super::mark::Mark;
use super::{Index, OfWorkload, RETENTION, Tally};
use crate::core::case::{Case, Grant, Stage, Token};
use crate::core::event::Terms;

/// Where one case is found.
#[derive(Clone)]
struct Place {
    grant: GrantId,
    workload: Mark,
    task: Mark,
    /// Whether it is open, and how.
    open: Tally,
    /// When it ends by itself; where it is not open, when it is forgotten.
    until: Timestamp,
}

/// Where the cases of a log are found whose last entry is of a time, in any order.
#[derive(Clone)]
pub(crate) struct Places {
    epoch: Epoch,
    time: Timestamp,
    each: Vec<Place>,
    tokens: Vec<(TokenId, GrantId)>,
    of_owners: BTreeMap<BTreeSet<PersonId>, Tally>,
}

impl Places {
    /// Those of no cases yet, in a log of `epoch` whose last entry is of `time`.
    pub(crate) fn new(epoch: Epoch, time: Timestamp) -> Self {
        let (each, tokens) = (Vec::new(), Vec::new());
        Self { epoch, time, each, tokens, of_owners: BTreeMap::new() }
    }

    /// One more case.
    pub(crate) fn add(&mut self, grant: GrantId, case: &Case) {
        let (workload, owners) = (&case.request.workload, &case.kin.owners);
        if let Some(granted) = case.grant() {
            let others = granted.others.keys().map(|e| TokenId::derive(&self.epoch, workload, e));
            let tokens = granted.tokens().map(Token::id).chain(others);
            self.tokens.extend(tokens.map(|token| (token, grant)));
        }
        let over = Tally::default();
        let (open, until) = match &case.stage {
            Stage::Closed(closed) => (over, closed.at.plus(RETENTION)),
            Stage::Pending { until: due }
            | Stage::Granted(Grant { terms: Terms { until: due, .. }, .. }) => {
                if *due > self.time {
                    (Tally::of(case), *due)
                } else {
                    (over, due.plus(RETENTION))
                }
            }
        };
        if open != over {
            match self.of_owners.get_mut(owners) {
                Some(tally) => *tally = tally.plus(open),
                None => drop(self.of_owners.insert(owners.clone(), open)),
            }
        }
        let (workload, task) = (Mark::of(workload.as_str()), Mark::of(case.request.task.as_str()));
        self.each.push(Place { grant, workload, task, open, until });
    }

    /// Those of other cases as well.
    pub(crate) fn join(&mut self, mut other: Self) {
        self.each.append(&mut other.each);
        self.tokens.append(&mut other.tokens);
        for (owners, tally) in other.of_owners {
            let sum = self.of_owners.entry(owners).or_default();
            *sum = sum.plus(tally);
        }
    }

    /// The cases by workload.
    pub(crate) fn by_workload(&self) -> Grouped<OfWorkload> {
        let count = |open, remembered| OfWorkload { open, remembered };
        Grouped::by(&self.each, |place| place.workload, count)
    }

    /// The same by task.
    pub(crate) fn by_task(&self) -> Grouped<Tally> {
        Grouped::by(&self.each, |place| place.task, |open, _| open)
    }

    /// The cases by their tokens, and by the exchanges that were answered with that of another.
    pub(crate) fn by_token(&self) -> Tokens {
        let mut tokens = self.tokens.clone();
        tokens.sort_unstable();
        Tokens(tokens.into_iter().collect())
    }

    /// The cases by their ends, and how many are open.
    pub(crate) fn ends(&self) -> Ends {
        let [mut due, mut pending, mut gone] = [const { Vec::new() }; 3];
        let mut all = Tally::default();
        for Place { grant, open, until, .. } in &self.each {
            let end = (*until, *grant);
            let to = if *open == Tally::default() { &mut gone } else { &mut due };
            to.push(end);
            if open.pending > 0 {
                pending.push(end);
            }
            all = all.plus(*open);
        }
        let [due, pending, gone] = [due, pending, gone].map(|mut ends| {
            ends.sort_unstable();
            ends.into_iter().collect()
        });
        let of_owners = self.of_owners.iter().map(|(owners, tally)| (owners.clone(), *tally));
        Ends { due, pending, gone, of_owners: of_owners.collect(), all }
    }
}

impl Index {
    /// The look-ups over cases, from parts that can be made beside each other.
    pub(crate) fn of(
        workloads: Grouped<OfWorkload>,
        tasks: Grouped<Tally>,
        Tokens(token): Tokens,
        ends: Ends,
    ) -> Self {
        let Grouped { places: workload, counts: of_workload } = workloads;
        let Grouped { places: task, counts: of_task } = tasks;
        let Ends { due, pending, gone, of_owners, all } = ends;
        Self { workload, task, token, due, pending, gone, of_workload, of_task, of_owners, all }
    }
}

/// The cases by a mark.
pub(crate) struct Grouped<N> {
    places: OrdSet<(Mark, GrantId)>,
    /// What is counted of each mark, where it is anything.
    counts: OrdMap<Mark, N>,
}

impl<N: Clone + Default + Eq> Grouped<N> {
    /// The cases by their `mark`; `count` makes what is counted of how many are open, and of how
    /// many there are.
    fn by(
        places: &[Place],
        mark: impl Fn(&Place) -> Mark,
        count: impl Fn(Tally, u32) -> N,
    ) -> Self {
        let mut marked: Vec<_> =
            places.iter().map(|place| (mark(place), place.grant, place.open)).collect();
        marked.sort_unstable_by_key(|(mark, grant, _)| (*mark, *grant));
        let (mut places, mut counts) = (OrdSet::new(), OrdMap::new());
        for run in marked.chunk_by(|(one, ..), (other, ..)| one == other) {
            let Some((mark, ..)) = run.first() else { continue };
            let open = run.iter().fold(Tally::default(), |sum, (.., one)| sum.plus(*one));
            let counted = count(open, u32::try_from(run.len()).unwrap_or(u32::MAX));
            if counted != N::default() {
                counts.insert(*mark, counted);
            }
            places.extend(run.iter().map(|(mark, grant, _)| (*mark, *grant)));
        }
        Self { places, counts }
    }
}

/// The cases by their tokens.
pub(crate) struct Tokens(OrdMap<TokenId, GrantId>);

/// The cases by their ends, and how many are open.
pub(crate) struct Ends {
    due: OrdSet<(Timestamp, GrantId)>,
    pending: OrdSet<(Timestamp, GrantId)>,
    gone: OrdSet<(Timestamp, GrantId)>,
    of_owners: OrdMap<BTreeSet<PersonId>, Tally>,
    all: Tally,
}
