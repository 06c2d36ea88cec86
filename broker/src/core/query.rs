//! What can be read from the state: by the deciding part, by policy, by whoever shows it.

use std::collections::BTreeSet;

use dayfly_verifier::id::{ExchangeId, GrantId, PersonId, RequestId, TaskId, TokenId};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;

use super::case::{Case, Kin, Minted, Standing, Token};
use super::directory::Role;
use super::event::Target;
use super::index::Tally;
use super::state::{State, reaches};
use super::verdict::{Basis, Holdings};

impl State {
    /// The case that `id` names.
    #[must_use]
    pub fn case(&self, id: &GrantId) -> Option<&Case> {
        self.cases.get(id).map(AsRef::as_ref)
    }

    /// The cases whose ids lie between these two, both included, in the order of ids.
    pub fn cases_between(&self, first: GrantId, last: GrantId) -> impl Iterator<Item = &Case> {
        self.cases.range(first..=last).map(|(_, case)| case.as_ref())
    }

    /// What became of `request` of `workload`.
    #[must_use]
    pub fn own(&self, workload: &SpiffeId, request: &RequestId) -> Option<&Case> {
        self.case(&GrantId::derive(&self.head.epoch, workload, request))
    }

    /// All that is remembered, ended or not, in the order of ids.
    pub fn cases(&self) -> impl Iterator<Item = &Case> {
        self.cases.values().map(AsRef::as_ref)
    }

    /// How many cases are remembered, ended or not.
    #[must_use]
    pub fn size(&self) -> usize {
        self.cases.len()
    }

    /// All that is remembered of `workload`.
    pub fn cases_of(&self, workload: &SpiffeId) -> impl Iterator<Item = &Case> {
        self.index.of_workload(workload).filter_map(|id| self.case(&id))
    }

    /// What is pending or live at `now`, soonest end first.
    pub fn open(&self, now: Timestamp) -> impl Iterator<Item = &Case> {
        self.index.open(now).filter_map(|id| self.case(&id))
    }

    /// What is remembered of that a revocation of `target` touches.
    pub(crate) fn touched_by(&self, target: &Target) -> Vec<GrantId> {
        match target {
            Target::Grant(grant) => vec![*grant],
            Target::Token(token) => self.index.token(token).into_iter().collect(),
            Target::Workload(workload) => self.index.of_workload(workload).collect(),
            Target::Task(task) => self.index.of_task(task).collect(),
            Target::Prefix(prefix) => self
                .open(self.time)
                .filter(|case| reaches(&case.request.scope, prefix))
                .map(Case::grant_id)
                .collect(),
            // What was signed by a key, or made of a token offline, gateways refuse by themselves.
            Target::Key(_) | Target::Block(_) | Target::Delegate(..) => Vec::new(),
        }
    }

    /// What a revocation of `target` ends at `now`. That of a token leaves its grant.
    pub(crate) fn ended_by(&self, target: &Target, now: Timestamp) -> BTreeSet<GrantId> {
        if let Target::Token(_) = target {
            return BTreeSet::new();
        }
        let open =
            |id: &GrantId| self.case(id).is_some_and(|case| case.standing(now).end().is_none());
        self.touched_by(target).into_iter().filter(open).collect()
    }

    /// When the request was filed that waits longest at `now`.
    #[must_use]
    pub fn oldest_pending(&self, now: Timestamp) -> Option<Timestamp> {
        self.index
            .pending(now)
            .filter_map(|id| self.case(&id))
            .map(|case| case.request.filed_at)
            .min()
    }

    /// What waits at `now` for a decision that `person` may take, soonest end first.
    pub fn pending_for(&self, person: &PersonId, now: Timestamp) -> impl Iterator<Item = &Case> {
        let pending = self.index.pending(now).filter_map(|id| self.case(&id));
        pending.filter(move |case| {
            self.is_asked(person, case) && !case.is_own(person, &self.directory)
        })
    }

    /// Those who stand near to `workload`: by the bundle in force, or because they invited it.
    #[must_use]
    pub fn kin(&self, workload: &SpiffeId) -> Kin {
        let inviters = self.invited.get(workload).into_iter().flatten();
        Kin::of(workload, &self.directory, inviters)
    }

    /// Whether the requirement of `case` names a group that `person` is in.
    #[must_use]
    pub fn is_asked(&self, person: &PersonId, case: &Case) -> bool {
        let groups = self.directory.people.get(person).map(|person| &person.groups);
        groups.is_some_and(|groups| {
            case.requirement().approvals.keys().any(|group| groups.contains(group))
        })
    }

    /// Whether `person` may know of `case`: those whose approval it needs, those near to it,
    /// operators and auditors. To others it does not exist.
    #[must_use]
    pub fn may_see(&self, person: &PersonId, case: &Case) -> bool {
        let roles = self.directory.people.get(person).map(|person| &person.roles);
        self.is_asked(person, case)
            || case.is_own(person, &self.directory)
            || roles.is_some_and(|roles| {
                roles.contains(&Role::Operator) || roles.contains(&Role::Auditor)
            })
    }

    /// The grant that `exchange` of `workload` was for.
    #[must_use]
    pub fn exchanged(&self, workload: &SpiffeId, exchange: &ExchangeId) -> Option<GrantId> {
        self.index.token(&self.token_id(workload, exchange))
    }

    /// The case and the token that `token` names, dead or alive.
    #[must_use]
    pub fn token(&self, token: &TokenId) -> Option<(&Case, &Token)> {
        let case = self.case(&self.index.token(token)?)?;
        case.grant()?.token(token).map(|token| (case, token))
    }

    /// The id of the token that `exchange` of `workload` yields.
    #[must_use]
    pub fn token_id(&self, workload: &SpiffeId, exchange: &ExchangeId) -> TokenId {
        TokenId::derive(&self.head.epoch, workload, exchange)
    }

    /// What answers `exchange` of the grant at `now`: a token that is good, of a live grant, and
    /// nothing else, ever. What there is instead, [`Case::standing`] says.
    #[must_use]
    pub fn answer(
        &self,
        grant: &GrantId,
        exchange: &ExchangeId,
        now: Timestamp,
    ) -> Option<&Minted> {
        let case = self.case(grant)?;
        let Standing::Granted(grant) = case.standing(now) else { return None };
        let token = grant.answered(exchange, &self.token_id(&case.request.workload, exchange))?;
        self.is_good(token, now).then_some(&token.minted)
    }

    /// Whether `token` is neither expired nor revoked, by itself or with its key. Its grant is
    /// not looked at.
    #[must_use]
    pub fn is_good(&self, token: &Token, now: Timestamp) -> bool {
        let Minted { claims, record: _ } = &token.minted;
        let key = self.keys.get(&claims.key);
        let key = key.is_some_and(|key| !key.revoked && now < key.not_after);
        !token.revoked && now < claims.expires_at && key
    }

    /// How many requests of `workload` are pending at `now`, and how many of its grants live.
    #[must_use]
    pub fn tally(&self, workload: &SpiffeId, now: Timestamp) -> Tally {
        self.cases_due(now, |case| case.request.workload == *workload, self.index.tally(workload))
    }

    /// How many cases of `workload` are remembered at `now`, however they ended.
    #[must_use]
    pub fn remembered(&self, workload: &SpiffeId, now: Timestamp) -> u32 {
        let forgotten = self.index.forgotten(now).filter_map(|id| self.case(&id));
        let forgotten = forgotten.filter(|case| case.request.workload == *workload);
        forgotten.fold(self.index.remembered(workload), |count, _| count.saturating_sub(1))
    }

    /// How many requests are pending at `now`, and how many grants live, in all.
    #[must_use]
    pub fn tally_all(&self, now: Timestamp) -> Tally {
        self.cases_due(now, |_| true, self.index.all())
    }

    /// What an evaluation of policy at `now` reads beside the request, which asks for `workload`
    /// and for `task`; `but` is the grant that is spoken of. `None` before the first bundle.
    #[must_use]
    pub fn basis(
        &self,
        workload: &SpiffeId,
        task: &TaskId,
        but: Option<&GrantId>,
        now: Timestamp,
    ) -> Option<Basis> {
        let owners: BTreeSet<PersonId> =
            self.directory.owners_of(workload).into_iter().cloned().collect();
        let but = but
            .and_then(|but| self.case(but))
            .filter(|case| matches!(case.standing(now), Standing::Granted(_)));
        let live = |tally: Tally, what: &dyn Fn(&Case) -> bool| {
            let spoken_of = u32::from(but.is_some_and(what));
            self.cases_due(now, what, tally).live.saturating_sub(spoken_of)
        };
        let holdings = Holdings {
            workload: live(self.index.tally(workload), &|case| case.request.workload == *workload),
            task: live(self.index.tally_of_task(task), &|case| case.request.task == *task),
            owner: live(self.index.tally_of_owners(&owners), &|case| {
                !case.kin.owners.is_disjoint(&owners)
            }),
        };
        let granted = but.is_some();
        Some(Basis { bundle: self.bundle?, environment: self.environment, holdings, granted })
    }

    /// A tally taken at the last entry, without those that have ended by themselves since.
    fn cases_due(&self, now: Timestamp, what: impl Fn(&Case) -> bool, tally: Tally) -> Tally {
        let overdue = self.index.overdue(now).filter_map(|id| self.case(&id));
        overdue.filter(|case| what(case)).fold(tally, |tally, case| tally.minus(Tally::of(case)))
    }
}
