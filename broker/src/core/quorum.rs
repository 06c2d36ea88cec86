//! When approvals suffice, and what they give together.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use dayfly_verifier::id::{GroupId, PersonId};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::request::{Narrowing, Request, Requirement};
use dayfly_verifier::resource::ResourcePattern;
use dayfly_verifier::scope::{Right, Scope};
use dayfly_verifier::time::Timestamp;

use super::case::Case;
use super::directory::Directory;
use super::event::{Answer, Decision, Terms};
use super::limits::MAX_LEASE;

/// Whether an approval of `case` still counts: its person is still listed, with the key that
/// signed it, and does not stand too near to the workload.
pub(super) fn counts(directory: &Directory, case: &Case, approval: &Decision) -> bool {
    let person = directory.people.get(&approval.person);
    let key = approval.evidence.as_ref().map(|evidence| &evidence.key);
    person.zip(key).is_some_and(|(person, key)| person.keys.contains(key))
        && approval.digest == case.digest
        && !case.is_own(&approval.person, directory)
}

/// Whether `people` can fill every place that `requirement` demands, each at most one.
pub(crate) fn met<'a>(
    requirement: &Requirement,
    directory: &Directory,
    people: impl IntoIterator<Item = &'a PersonId>,
) -> bool {
    let people: People<'_> = people
        .into_iter()
        .filter_map(|name| directory.people.get(name).map(|person| (name, &person.groups)))
        .collect();
    // No place for which there could not be anybody is laid out.
    let demanded = requirement.approvals.values().map(|count| u64::from(count.get())).sum::<u64>();
    if demanded > u64::try_from(people.len()).unwrap_or(u64::MAX) {
        return false;
    }
    let repeat = |(group, count): (_, &NonZeroU32)| (0..count.get()).map(move |_| group);
    let places: Vec<&GroupId> = requirement.approvals.iter().flat_map(repeat).collect();
    let mut seats = BTreeMap::new();
    (0..places.len()).all(|place| seat(place, &places, &people, &mut seats, &mut BTreeSet::new()))
}

type People<'a> = BTreeMap<&'a PersonId, &'a BTreeSet<GroupId>>;

/// Finds somebody for `place`, moving those who sit elsewhere if need be: an augmenting path.
fn seat<'a>(
    place: usize,
    places: &[&GroupId],
    people: &People<'a>,
    seats: &mut BTreeMap<&'a PersonId, usize>,
    tried: &mut BTreeSet<&'a PersonId>,
) -> bool {
    let Some(group) = places.get(place) else { return false };
    for (person, groups) in people {
        if !groups.contains(*group) || !tried.insert(person) {
            continue;
        }
        let elsewhere = seats.get(person).copied();
        if elsewhere.is_none_or(|other| seat(other, places, people, seats, tried)) {
            seats.insert(person, place);
            return true;
        }
    }
    false
}

/// What a grant gives from `now` on: the request, within its requirement and every narrowing.
pub(super) fn terms<'a>(
    request: &Request,
    approvals: impl IntoIterator<Item = &'a Decision>,
    now: Timestamp,
) -> Result<Terms, Invalid> {
    let requirement = &request.requirement;
    let mut scope = request.scope.clone();
    let mut lifetime = request.lifetime.min(requirement.max_lifetime).min(MAX_LEASE);
    let mut uses = fewer(request.uses, requirement.max_uses);
    for approval in approvals {
        let Answer::Approve(narrowing) = &approval.answer else { continue };
        scope = narrow(&scope, narrowing)?;
        lifetime = lifetime.min(narrowing.lifetime.unwrap_or(lifetime));
        uses = fewer(uses, narrowing.uses);
    }
    let (from, until) = (now, now.plus(lifetime));
    Ok(Terms { from, until, scope, uses, online: requirement.online })
}

/// The lesser of two counts; `None` is any number.
fn fewer(one: Option<NonZeroU32>, other: Option<NonZeroU32>) -> Option<NonZeroU32> {
    one.into_iter().chain(other).min()
}

/// Refuses a narrowing of `request` that would widen it anywhere.
pub(super) fn check(request: &Request, narrowing: &Narrowing) -> Result<(), Invalid> {
    let whole = |life: Duration| !life.is_zero() && life.subsec_nanos() == 0;
    if narrowing.lifetime.is_some_and(|life| !whole(life) || life > request.lifetime) {
        return Err(Invalid::new("lifetime", "must be shorter than the one that was asked for"));
    }
    if narrowing.uses.zip(request.uses).is_some_and(|(narrowed, asked)| narrowed > asked) {
        return Err(Invalid::new("uses", "must be fewer than those that were asked for"));
    }
    request.scope.narrowed(narrowing.rights.as_ref(), &narrowing.constraints).map(drop)
}

/// What lies both in `scope` and in `narrowing`.
fn narrow(scope: &Scope, narrowing: &Narrowing) -> Result<Scope, Invalid> {
    let rights = narrowing.rights.as_ref().map(|narrowed| {
        let pairs = narrowed.iter().flat_map(|one| scope.rights().map(move |other| (one, other)));
        pairs.filter_map(|(one, other)| common(one, other)).collect::<BTreeSet<Right>>()
    });
    if rights.as_ref().is_some_and(BTreeSet::is_empty) {
        return Err(Invalid::new("rights", "nothing is left between this and other approvals"));
    }
    scope.narrowed(rights.as_ref(), &narrowing.constraints)
}

/// What two rights have in common. Of two subtrees one lies in the other, or they are apart.
fn common(one: &Right, other: &Right) -> Option<Right> {
    let (a, b): (&ResourcePattern, &ResourcePattern) = (&one.resource, &other.resource);
    let inner = if a.covers(b) { b } else { Some(a).filter(|a| b.covers(a))? };
    (one.operation == other.operation)
        .then(|| Right { operation: one.operation.clone(), resource: inner.clone() })
}
