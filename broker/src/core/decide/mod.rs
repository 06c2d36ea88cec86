//! What a command makes happen, or why not. Each command reads as the list of its refusals: where
//! several apply, the first from the top is given.

mod approve;
mod bundle;
mod end;
mod exchange;
mod file;
mod grounds;
mod identity;
mod lock;
mod operate;
mod redeem;
mod report;
mod unbounded;

pub use approve::foresee;
use dayfly_verifier::id::{GrantId, PersonId};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;

use super::case::Case;
use super::command::{Caller, Command};
use super::denial::Denial;
use super::directory::{Directory, Person, Role};
use super::event::{Actor, Decision, Event};
use super::limits::ID_WINDOW;
use super::locks::SetLock;
use super::state::State;
use super::verdict::{Basis, Verdict};

/// What `command` of `caller` makes happen in `state` at `now`: the actor to write down and the
/// events, none if it has happened already; or why not.
///
/// The events of one command belong together: they are appended all or none, and at one time,
/// `now` or that of the state if it is later.
pub fn decide(
    state: &State,
    command: &Command,
    caller: &Caller,
    now: Timestamp,
) -> Result<(Actor, Vec<Event>), Denial> {
    if state.bundle.is_none() {
        return Err(Denial::NotReady);
    }
    // Time does not run backwards in a log.
    let asked = Asked { state, caller: &caller.id, until: caller.until, now: now.max(state.time) };
    if asked.until <= asked.now {
        return Err(Denial::NotAllowed);
    }
    match command {
        Command::File(filing, verdict) => file::file(&asked, filing, verdict),
        Command::Approve(grant, decision, verdict, foreseen) => {
            approve::approve(&asked, grant, decision, verdict, foreseen.as_ref())
        }
        Command::Deny(grant, decision) => approve::deny(&asked, grant, decision),
        Command::Withdraw(grant) => approve::withdraw(&asked, grant),
        Command::Exchange(exchange, verdict) => exchange::exchange(&asked, exchange, verdict),
        Command::Redeem(token, use_id) => redeem::redeem(&asked, token, use_id),
        Command::Reevaluate(token, verdict) => redeem::reevaluate(&asked, token, verdict),
        Command::Report(batch) => report::report(&asked, batch),
        Command::Complete(request, key, outcome) => end::complete(&asked, request, key, *outcome),
        Command::Cancel(request, key) => end::cancel(&asked, request, key),
        Command::Identity(id, change) => identity::change(&asked, id, *change),
        Command::Revoke(target, reason) => operate::revoke(&asked, target, *reason),
        Command::Lock(lock, until, reason) => lock::lock(&asked, lock, *until, *reason),
        Command::Unlock(id) => lock::unlock(&asked, id),
        Command::OptOut(instance) => unbounded::opt_out(&asked, instance),
        Command::Apply(application) => bundle::apply(&asked, application),
        Command::AddKey { key, public, not_after } => {
            operate::add_key(&asked, *key, *public, *not_after)
        }
        Command::RetireKey(key) => operate::retire_key(&asked, *key),
        Command::Snapshot(taken) => operate::snapshot(&asked, *taken),
    }
}

/// Who does it, and what happens.
type Decided = Result<(Actor, Vec<Event>), Denial>;

/// A command's surroundings.
struct Asked<'a> {
    state: &'a State,
    caller: &'a SpiffeId,
    /// When the caller's certificate ends.
    until: Timestamp,
    now: Timestamp,
}

impl<'a> Asked<'a> {
    /// The caller as a workload of the bundle in force.
    fn workload(&self) -> Result<Actor, Denial> {
        let workload = self.state.directory.is_workload(self.caller);
        if workload { Ok(Actor::Workload(self.caller.clone())) } else { Err(Denial::NotAllowed) }
    }

    /// The caller as a person of the bundle in force.
    fn person(&self) -> Result<(&'a PersonId, &'a Person, Actor), Denial> {
        let (name, person) = self.state.directory.person(self.caller).ok_or(Denial::NotAllowed)?;
        Ok((name, person, Actor::Person(name.clone(), self.caller.clone())))
    }

    /// The caller as an operator.
    fn operator(&self) -> Result<Actor, Denial> {
        let (_, person, actor) = self.person()?;
        if person.roles.contains(&Role::Operator) { Ok(actor) } else { Err(Denial::NotAllowed) }
    }

    /// The case that `grant` names, if the person may know of it.
    fn seen_by(&self, name: &PersonId, grant: &GrantId) -> Result<&'a Case, Denial> {
        let case = self.state.case(grant).filter(|case| self.state.may_see(name, case));
        case.ok_or(Denial::NotFound)
    }

    /// Refuses a person whom a lock names to give anything.
    fn unlocked_person(&self) -> Result<(), Denial> {
        let (name, ..) = self.person()?;
        self.unlocked(self.state.lock_naming(name, self.now))
    }

    /// The approvals of `case` that count by `directory`, without those of people who may not
    /// decide on it now.
    fn free_approvals<'c>(
        &self,
        directory: &'c Directory,
        case: &'c Case,
    ) -> impl Iterator<Item = &'c Decision> {
        let free = |approval: &&Decision| {
            self.state.lock_on_decider(&approval.person, &case.request, self.now).is_none()
        };
        grounds::approvals(directory, case).filter(free)
    }

    /// Refuses what a lock is on.
    fn unlocked(&self, set: Option<&SetLock>) -> Result<(), Denial> {
        set.map_or(Ok(()), |set| Err(Denial::Locked(set.lock.id, set.until)))
    }

    /// Refuses the id of something new that was drawn too long ago, or too far ahead.
    fn fresh(&self, drawn_at: Timestamp) -> Result<(), Denial> {
        let apart = self.now.since(drawn_at).max(drawn_at.since(self.now));
        if apart <= ID_WINDOW { Ok(()) } else { Err(Denial::StaleId) }
    }

    /// What a verdict on `case` must be based on.
    fn basis_of(&self, case: &Case) -> Option<Basis> {
        let (request, grant) = (&case.request, case.grant_id());
        self.state.basis(&request.workload, &request.task, Some(&grant), self.now)
    }
}

/// Refuses a verdict that was about another state.
fn current(verdict: &Verdict, basis: Option<Basis>) -> Result<(), Denial> {
    if basis.as_ref() == Some(&verdict.basis) { Ok(()) } else { Err(Denial::Reevaluate) }
}

fn invalid(field: &'static str, rule: &'static str) -> Denial {
    Denial::Invalid(Invalid::new(field, rule))
}
