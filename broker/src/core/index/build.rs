//! The look-ups made at once from all cases there are: the same as the fold would have made one by
//! one, in a fraction of the time, since what comes in order is put in at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dayfly_verifier::id::{Epoch, GrantId, PersonId, TaskId, TokenId};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use imbl::{OrdMap, OrdSet};

use super::{Index, RETENTION, Tally};
use crate::core::case::{Case, Stage};

/// A case under its id.
pub(crate) type Named = (GrantId, Arc<Case>);

impl Index {
    /// The look-ups over cases, from parts that can be made beside each other.
    pub(crate) fn of(
        workloads: Grouped<SpiffeId>,
        tasks: Grouped<TaskId>,
        token: Tokens,
        ends: Ends,
    ) -> Self {
        let Grouped { places: workload, open: of_workload, all: remembered } = workloads;
        let Grouped { places: task, open: of_task, all: _ } = tasks;
        let Ends { due, pending, gone, of_owners, all } = ends;
        let Tokens(token) = token;
        Self {
            workload,
            task,
            token,
            due,
            pending,
            gone,
            of_workload,
            of_task,
            of_owners,
            all,
            remembered,
        }
    }
}

/// Whether a case is open at `time`, and how.
fn open(case: &Case, time: Timestamp) -> Tally {
    match case.due() {
        Some(due) if due > time => Tally::of(case),
        Some(_) | None => Tally::default(),
    }
}

/// The cases by a key.
pub(crate) struct Grouped<K> {
    places: OrdSet<(K, GrantId)>,
    /// How many of each key are open.
    open: OrdMap<K, Tally>,
    /// How many of each key there are.
    all: OrdMap<K, u32>,
}

impl<K: Ord + Clone> Grouped<K> {
    /// `cases`, as they are in a log whose last entry is of `time`, by what `key` says.
    pub(crate) fn by(cases: &[Named], time: Timestamp, key: impl Fn(&Case) -> &K) -> Self {
        let mut keys: Vec<_> =
            cases.iter().map(|(id, case)| (key(case), *id, open(case, time))).collect();
        keys.sort_unstable_by_key(|(key, id, _)| (*key, *id));
        let (mut tallies, mut all) = (OrdMap::new(), OrdMap::new());
        for run in keys.chunk_by(|(one, ..), (other, ..)| one == other) {
            let Some((key, ..)) = run.first() else { continue };
            let tally = run.iter().fold(Tally::default(), |sum, (.., one)| sum.plus(*one));
            if tally != Tally::default() {
                tallies.insert(K::clone(key), tally);
            }
            all.insert(K::clone(key), u32::try_from(run.len()).unwrap_or(u32::MAX));
        }
        let places = keys.into_iter().map(|(key, id, _)| (key.clone(), id)).collect();
        Self { places, open: tallies, all }
    }
}

/// Tokens, and exchanges that were answered with the token of another.
pub(crate) struct Tokens(OrdMap<TokenId, GrantId>);

impl Tokens {
    /// Those of `cases` of `epoch`.
    pub(crate) fn of(cases: &[Named], epoch: &Epoch) -> Self {
        let mut tokens = Vec::new();
        for (id, case) in cases {
            let exchanges = case.grant().into_iter().flat_map(|grant| grant.exchanges.keys());
            let workload = &case.request.workload;
            tokens.extend(exchanges.map(|e| (TokenId::derive(epoch, workload, e), *id)));
        }
        tokens.sort_unstable();
        Self(tokens.into_iter().collect())
    }
}

/// The cases by their ends, and how many are open.
pub(crate) struct Ends {
    due: OrdSet<(Timestamp, GrantId)>,
    pending: OrdSet<(Timestamp, GrantId)>,
    gone: OrdSet<(Timestamp, GrantId)>,
    of_owners: OrdMap<BTreeSet<PersonId>, Tally>,
    all: Tally,
}

impl Ends {
    /// Those of `cases`, in a log whose last entry is of `time`.
    pub(crate) fn of(cases: &[Named], time: Timestamp) -> Self {
        let [mut due, mut pending, mut gone] = [const { Vec::new() }; 3];
        let (mut of_owners, mut all) = (BTreeMap::<_, Tally>::new(), Tally::default());
        for (id, case) in cases {
            let (one, sum) = (open(case, time), of_owners.entry(&case.kin.owners).or_default());
            (*sum, all) = (sum.plus(one), all.plus(one));
            match (case.due(), &case.stage) {
                (_, Stage::Closed(closed)) => gone.push((closed.at.plus(RETENTION), *id)),
                (Some(end), _) if end <= time => gone.push((end.plus(RETENTION), *id)),
                (Some(end), Stage::Pending { .. }) => {
                    due.push((end, *id));
                    pending.push((end, *id));
                }
                (Some(end), Stage::Granted(_)) => due.push((end, *id)),
                (None, Stage::Pending { .. } | Stage::Granted(_)) => {}
            }
        }
        of_owners.retain(|_, tally| *tally != Tally::default());
        let of_owners = of_owners.into_iter().map(|(owners, tally)| (owners.clone(), tally));
        let [due, pending, gone] = [due, pending, gone].map(|mut all| {
            all.sort_unstable();
            all.into_iter().collect()
        });
        Self { due, pending, gone, of_owners: of_owners.collect(), all }
    }
}
