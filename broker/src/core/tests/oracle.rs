//! Says the rules anew, over a finished log and the answers that were given. It calls nothing of
//! what it judges: patterns are compared as text, quorums by counting over all sets of groups.

use std::collections::{BTreeMap, BTreeSet};

use dayfly_verifier::claims::Claims;
use dayfly_verifier::id::*;
use dayfly_verifier::request::{Request, Requirement};
use dayfly_verifier::scope::Scope;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;

use super::texts::{inside, locked, locked_out, matches};
use super::world::secs;
use crate::core::command::{Caller, Command};
use crate::core::denial::Denial;
use crate::core::directory::{Directory, Role};
use crate::core::event::*;

/// A command, and what came of it.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) caller: Caller,
    pub(super) now: Timestamp,
    pub(super) command: Command,
    pub(super) result: Result<(), Denial>,
    /// The entries that it made.
    pub(super) wrote: std::ops::Range<usize>,
    /// For an exchange: the token that was handed out.
    pub(super) answer: Option<TokenId>,
}

type Verdict = Result<(), String>;

#[derive(Default)]
struct Told {
    directory: Directory,
    cases: BTreeMap<GrantId, Case>,
    tokens: BTreeMap<TokenId, Claims>,
    dead: BTreeSet<TokenId>,
    exchanges: BTreeMap<(SpiffeId, ExchangeId), TokenId>,
    uses: BTreeMap<GrantId, BTreeSet<UseId>>,
    invited: BTreeSet<(SpiffeId, PersonId)>,
    locks: BTreeMap<LockId, (Lock, Timestamp)>,
}

struct Case {
    request: Request,
    until: Timestamp,
    near: BTreeSet<PersonId>,
    approvals: BTreeMap<PersonId, Decision>,
    terms: Option<Terms>,
    over: bool,
}

impl Case {
    fn pending(&self, at: Timestamp) -> bool {
        !self.over && self.terms.is_none() && at < self.until
    }

    fn live(&self, at: Timestamp) -> bool {
        !self.over && self.terms.as_ref().is_some_and(|terms| at < terms.until)
    }
}

macro_rules! law {
    ($holds:expr, $($what:tt)*) => {
        if !$holds {
            return Err(format!($($what)*));
        }
    };
}

mod tokens;

/// Walks through the log beside the steps that made it.
pub(super) fn judge(log: &[(Head, Entry)], steps: &[Step]) -> Verdict {
    let mut told = Told::default();
    let numbered = |n: usize| move |law| format!("entry {}: {law}", n + 1);
    let founding = steps.first().map_or(log.len(), |step| step.wrote.start);
    for (n, (_, entry)) in log.iter().enumerate().take(founding) {
        told.hear(entry, None).map_err(numbered(n))?;
    }
    for step in steps {
        for n in step.wrote.clone() {
            told.hear(&log[n].1, Some(step)).map_err(numbered(n))?;
        }
        told.answered(step)?;
    }
    Ok(())
}

impl Told {
    /// Those who own or operate, have invited, are acted for, or are the one who asks.
    fn near(&self, request: &Request) -> BTreeSet<PersonId> {
        let of = request.workload.to_string();
        let rules = self.directory.workloads.iter();
        let rules = rules.filter(|rule| matches(&rule.ids.to_string(), &of));
        let mut near: BTreeSet<_> =
            rules.flat_map(|rule| rule.owners.union(&rule.operators)).cloned().collect();
        near.extend(request.principal.clone());
        let inviters = self.invited.iter().filter(|(id, _)| *id == request.workload);
        near.extend(inviters.map(|(_, name)| name.clone()));
        let people = self.directory.people.iter();
        near.extend(
            people.filter(|(_, who)| who.ids.contains(&request.workload)).map(|(n, _)| n.clone()),
        );
        near
    }

    /// Those whose approval stands now.
    fn standing(&self, case: &Case) -> Vec<PersonId> {
        let listed = |one: &&Decision| {
            let key = &one.evidence.as_ref().unwrap().key;
            self.directory.people.get(&one.person).is_some_and(|who| who.keys.contains(key))
        };
        let near: BTreeSet<_> = case.near.union(&self.near(&case.request)).cloned().collect();
        let approvals = case.approvals.values().filter(listed);
        approvals.map(|one| one.person.clone()).filter(|name| !near.contains(name)).collect()
    }

    /// Whether every set of groups has as many people as it demands, all told.
    fn enough(&self, required: &Requirement, people: &[PersonId]) -> bool {
        let groups: Vec<_> = required.approvals.iter().collect();
        (0u32..1 << groups.len()).all(|set| {
            let chosen: Vec<_> = groups
                .iter()
                .enumerate()
                .filter(|(n, _)| set >> n & 1 == 1)
                .map(|(_, g)| *g)
                .collect();
            let demanded: u32 = chosen.iter().map(|(_, count)| count.get()).sum();
            let of = |name: &&PersonId| {
                let groups = &self.directory.people[*name].groups;
                chosen.iter().any(|(group, _)| groups.contains(*group))
            };
            people.iter().filter(of).collect::<BTreeSet<_>>().len() >= demanded as usize
        })
    }

    fn hear(&mut self, Entry { by, at, event, .. }: &Entry, step: Option<&Step>) -> Verdict {
        let at = *at;
        match event {
            Event::BundleApplied { directory, .. } => {
                self.directory = directory.clone();
                let near: Vec<_> =
                    self.cases.iter().map(|(id, case)| (*id, self.near(&case.request))).collect();
                for (id, near) in near {
                    self.cases.get_mut(&id).unwrap().near.extend(near);
                }
            }
            Event::RequestFiled { request, until, .. } => self.filed(request, *until, at)?,
            Event::RequestRefused { request, .. } => {
                self.filed(request, at, at)?;
                self.cases.get_mut(&request.grant_id()).unwrap().over = true;
            }
            Event::RequirementChanged { grant, requirement } => {
                let case = self.cases.get_mut(grant).ok_or("of nothing")?;
                law!(case.pending(at), "a requirement changed after the wait");
                case.request.requirement = requirement.clone();
                case.approvals.clear();
            }
            Event::DecisionRecorded { grant, decision } => self.decided(grant, decision, by, at)?,
            Event::DecisionWithdrawn { grant, person } => {
                self.cases.get_mut(grant).ok_or("of nothing")?.approvals.remove(person);
            }
            Event::Granted { grant, terms } => self.granted(grant, terms, at)?,
            Event::TokenRecorded { exchange, claims } => {
                self.minted(claims, at, step)?;
                let key = (claims.subject.clone(), *exchange);
                law!(
                    self.exchanges.insert(key, claims.token).is_none(),
                    "I2: two for one exchange"
                );
                law!(
                    self.tokens.insert(claims.token, claims.clone()).is_none(),
                    "I2: one id twice"
                );
            }
            Event::ExchangeAnswered { grant, exchange, token } => {
                self.answered_with(grant, exchange, token, at)?
            }
            Event::UseRedeemed { grant, token, use_id } => {
                self.redeemed(grant, token, use_id, by, at)?
            }
            Event::Ended { grant, end } => {
                let case = self.cases.get_mut(grant).ok_or("of nothing")?;
                let own = *by == Actor::Workload(case.request.workload.clone());
                law!(own || matches!(end, End::Drifted(_)), "ended by somebody else");
                case.over = true;
            }
            Event::Revoked { target, .. } => {
                law!(self.is_operator(by), "revoked by no operator");
                self.revoked(target);
            }
            Event::UsesReported(report) => self.reported(report, by)?,
            Event::IdentityChanged { id, change } => self.changed(id, *change, by)?,
            Event::Locked { lock, until, .. } => {
                law!(self.is_operator(by), "locked by no operator");
                self.locks.insert(lock.id, (lock.clone(), *until));
            }
            Event::Unlocked { lock } => self.unlocked(lock, by, at)?,
            Event::OptedOut { .. } => law!(matches!(by, Actor::Gateway(_)), "by no gateway"),
            Event::EpochOpened { .. }
            | Event::KeyAdded { .. }
            | Event::KeyRetired { .. }
            | Event::SnapshotTaken(_) => {}
        }
        Ok(())
    }

    fn reported(&self, report: &Report, by: &Actor) -> Verdict {
        let Actor::Gateway(gateway) = by else { return Err("told by no gateway".into()) };
        for about in report.batch.counts.iter().filter_map(|(line, _)| line.about) {
            let audience = &self.cases[&about.grant].request.audience;
            law!(audience == gateway, "I7: a report of what another gateway guards");
        }
        Ok(())
    }

    fn changed(&mut self, id: &SpiffeId, change: IdentityChange, by: &Actor) -> Verdict {
        let Actor::Person(name, _) = by else { return Ok(()) };
        law!(change == IdentityChange::Invited && self.is_operator(by), "seen by no broker");
        let rules = self.directory.workloads.iter();
        let mut rules = rules.map(|rule| matches(&rule.ids.to_string(), id.as_str()));
        let listed = rules.any(|is| is) || self.directory.gateways.contains(id);
        law!(listed, "an operator invited whom the bundle does not list");
        law!(
            self.directory.people.values().all(|who| !who.ids.contains(id)),
            "I3: invited a person"
        );
        self.invited.insert((id.clone(), name.clone()));
        Ok(())
    }

    fn unlocked(&mut self, lock: &LockId, by: &Actor, at: Timestamp) -> Verdict {
        law!(self.is_operator(by), "unlocked by no operator");
        let Actor::Person(name, _) = by else { return Ok(()) };
        let names = |lock: &Lock| lock.person.as_ref() == Some(name);
        let mut locks = self.locks.values();
        law!(!locks.any(|(lock, end)| at < *end && names(lock)), "unlocked by one who is locked");
        self.locks.remove(lock);
        Ok(())
    }

    fn is_operator(&self, by: &Actor) -> bool {
        let Actor::Person(name, _) = by else { return false };
        self.directory.people[name].roles.contains(&Role::Operator)
    }

    fn filed(&mut self, request: &Request, until: Timestamp, at: Timestamp) -> Verdict {
        let workload = &request.workload;
        let rules = &self.directory.workloads;
        let listed = rules.iter().any(|rule| matches(&rule.ids.to_string(), workload.as_str()));
        law!(listed, "filed by no workload");
        law!(until <= at.plus(secs(300)), "waits too long");
        law!(!locked(&self.locks, request, &request.scope, at), "filed under a lock");
        let case = Case {
            request: request.clone(),
            until,
            near: self.near(request),
            approvals: BTreeMap::new(),
            terms: None,
            over: false,
        };
        law!(self.cases.insert(request.grant_id(), case).is_none(), "I2: filed twice");
        let waiting = self
            .cases
            .values()
            .filter(|case| case.pending(at) && case.request.workload == *workload);
        let waits = !request.requirement.approvals.is_empty();
        law!(!waits || waiting.count() <= 8, "too many wait");
        Ok(())
    }

    fn decided(
        &mut self,
        grant: &GrantId,
        decision: &Decision,
        by: &Actor,
        at: Timestamp,
    ) -> Verdict {
        let name = &decision.person;
        let case = self.cases.get(grant).ok_or("of nothing")?;
        law!(case.pending(at), "decided after the wait");
        law!(case.request.digest() == decision.digest, "I1: another form of the request");
        law!(matches!(by, Actor::Person(who, _) if who == name), "in another's name");
        let apart = at.since(decision.at).max(decision.at.since(at));
        law!(apart <= secs(120), "decided at another time");
        let person = &self.directory.people[name];
        let asked = case.request.requirement.approvals.keys().any(|g| person.groups.contains(g));
        law!(asked, "decided by somebody who was not asked");
        law!(
            !case.near.contains(name) && !self.near(&case.request).contains(name),
            "I3: own request"
        );
        law!(!locked_out(&self.locks, name, &case.request, at), "decided by one who is locked");
        let case = self.cases.get_mut(grant).unwrap();
        match &decision.answer {
            Answer::Deny => case.over = true,
            Answer::Approve(_) => {
                let key = decision.evidence.as_ref().ok_or("I1: not signed")?;
                law!(person.keys.contains(&key.key), "I1: signed by an unknown key");
                case.approvals.insert(name.clone(), decision.clone());
            }
        }
        Ok(())
    }

    fn granted(&mut self, grant: &GrantId, terms: &Terms, at: Timestamp) -> Verdict {
        let case = self.cases.get(grant).ok_or("of nothing")?;
        law!(case.pending(at), "I1: granted after the wait");
        let required = &case.request.requirement;
        let mut people = self.standing(case);
        people.retain(|name| !locked_out(&self.locks, name, &case.request, at));
        law!(self.enough(required, &people), "I1: granted without enough approvals");
        let mut span = case.request.lifetime.min(required.max_lifetime).min(secs(12 * 3600));
        law!(inside(&terms.scope, &case.request.scope), "I4: wider than the request");
        law!(!locked(&self.locks, &case.request, &terms.scope, at), "granted under a lock");
        let no_more =
            |most: Option<_>| most.is_none_or(|most| terms.uses.is_some_and(|n| n <= most));
        law!(no_more(case.request.uses) && no_more(required.max_uses), "I4: more uses");
        for approval in case.approvals.values() {
            let Answer::Approve(narrowing) = &approval.answer else { continue };
            span = span.min(narrowing.lifetime.unwrap_or(span));
            law!(no_more(narrowing.uses), "I4: more uses than approved");
            let rights = narrowing
                .rights
                .clone()
                .unwrap_or_else(|| case.request.scope.rights().cloned().collect());
            let approved = Scope::new(rights, narrowing.constraints.iter().cloned()).unwrap();
            law!(inside(&terms.scope, &approved), "I4: wider than approved");
        }
        law!(terms.from == at && terms.until == at.plus(span), "I5: another lease");
        let workload = case.request.workload.clone();
        self.cases.get_mut(grant).unwrap().terms = Some(terms.clone());
        let live =
            self.cases.values().filter(|case| case.live(at) && case.request.workload == workload);
        law!(live.count() <= 16, "too many live");
        Ok(())
    }
}
