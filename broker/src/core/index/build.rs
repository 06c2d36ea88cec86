//! The look-ups made at once from all cases there are: the same as the fold would have made one by
//! one, in a fraction of the time, since what comes in order is put in at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dayfly_verifier::id::{Epoch, GrantId, PersonId, TaskId, TokenId};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use imbl::{OrdMap, OrdSet};

use super::{Index, OfWorkload, RETENTION, Tally};
use crate::core::case::{Case, Stage};

/// A case under its id.
pub(crate) type Named = (GrantId, Arc<Case>);

impl Index {
    /// The look-ups over cases, from parts that can be made beside each other.
    pub(crate) fn of(
        workloads: Grouped<SpiffeId, OfWorkload>,
        tasks: Grouped<TaskId, Tally>,
        token: Tokens,
        ends: Ends,
    ) -> Self {
        let Grouped { places: workload, counts: of_workload } = workloads;
        let Grouped { places: task, counts: of_task } = tasks;
        let Ends { due, pending, gone, of_owners, all } = ends;
        let Tokens(token) = token;
        Self { workload, task, token, due, pending, gone, of_workload, of_task, of_owners, all }
    }
}

/// Of how many texts it is looked how they begin.
const SAMPLE: usize = 64;

/// Whether a case is open at `time`, and how.
fn open(case: &Case, time: Timestamp) -> Tally {
    match case.due() {
        Some(due) if due > time => Tally::of(case),
        Some(_) | None => Tally::default(),
    }
}

/// The cases by a key.
pub(crate) struct Grouped<K, N> {
    places: OrdSet<(K, GrantId)>,
    /// What is counted of each key, where it is anything.
    counts: OrdMap<K, N>,
}

impl Grouped<SpiffeId, OfWorkload> {
    /// `cases`, as they are in a log whose last entry is of `time`, by workload.
    pub(crate) fn by_workload(cases: &[Named], time: Timestamp) -> Self {
        let count = |open, remembered| OfWorkload { open, remembered };
        Self::by(cases, time, |case| &case.request.workload, SpiffeId::as_str, count)
    }
}

impl Grouped<TaskId, Tally> {
    /// The same by task.
    pub(crate) fn by_task(cases: &[Named], time: Timestamp) -> Self {
        Self::by(cases, time, |case| &case.request.task, TaskId::as_str, |open, _| open)
    }
}

impl<K: Ord + Clone + 'static, N: Clone + Default + Eq> Grouped<K, N> {
    /// The cases by what `key` says, whose order is that of its `text`; `count` makes what is
    /// counted of how many are open, and of how many there are.
    fn by<'a>(
        cases: &'a [Named],
        time: Timestamp,
        key: impl Fn(&'a Case) -> &'a K,
        text: impl Fn(&K) -> &str,
        count: impl Fn(Tally, u32) -> N,
    ) -> Self {
        // Texts lie far apart, and most begin alike: what tells most of them apart comes along.
        let some = cases.len().div_ceil(SAMPLE).max(1);
        let alike = in_common(cases.iter().step_by(some).map(|(_, case)| text(key(case))));
        let of = |(id, case): &'a Named| {
            let key = key(case);
            (start_of(text(key), alike), key, *id, open(case, time))
        };
        let mut keys: Vec<_> = cases.iter().map(of).collect();
        keys.sort_unstable_by_key(|(start, key, id, _)| (*start, *key, *id));
        let (mut places, mut counts) = (OrdSet::new(), OrdMap::new());
        for run in keys.chunk_by(|(_, one, ..), (_, other, ..)| one == other) {
            let Some((_, key, ..)) = run.first() else { continue };
            let tally = run.iter().fold(Tally::default(), |sum, (.., one)| sum.plus(*one));
            let counted = count(tally, u32::try_from(run.len()).unwrap_or(u32::MAX));
            if counted != N::default() {
                counts.insert(K::clone(key), counted);
            }
            places.extend(run.iter().map(|(_, key, id, _)| (K::clone(key), *id)));
        }
        Self { places, counts }
    }
}

/// How many bytes all `texts` begin with in common.
fn in_common<'a>(mut texts: impl Iterator<Item = &'a str>) -> usize {
    let Some(first) = texts.next() else { return 0 };
    texts.fold(first.len(), |alike, text| {
        let pairs = first.bytes().zip(text.bytes()).take(alike);
        pairs.take_while(|(one, other)| one == other).count()
    })
}

/// The first bytes of `text` after so many, as a number in their order.
fn start_of(text: &str, after: usize) -> u64 {
    let mut start = [0; 8];
    start.iter_mut().zip(text.bytes().skip(after)).for_each(|(to, from)| *to = from);
    u64::from_be_bytes(start)
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
