//! Patterns and scopes read as text, and calls tried against them: nothing of what is judged.

use std::collections::BTreeMap;

use dayfly_verifier::id::{LockId, PersonId};
use dayfly_verifier::request::Request;
use dayfly_verifier::revocations::Lock;
use dayfly_verifier::scope::Scope;
use dayfly_verifier::time::Timestamp;

/// Whether a pattern, exact or ending in `**`, matches.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    pattern
        .strip_suffix("**")
        .map_or(pattern == text, |base| text.len() > base.len() && text.starts_with(base))
}

/// Whether a call lies inside a scope, both as text.
fn allows(scope: &Scope, operation: &str, resource: &str, amount: i64) -> bool {
    let right = scope.rights().map(ToString::to_string).any(|right| {
        let (op, pattern) = right.split_once(' ').unwrap();
        op == operation && matches(pattern, resource)
    });
    let most = |text: String| text.strip_prefix("amount <= ").unwrap().parse::<i64>().unwrap();
    right && scope.constraints().map(|one| most(one.to_string())).all(|most| amount <= most)
}

pub(super) fn inside(inner: &Scope, outer: &Scope) -> bool {
    let resources = ["db/prod", "db/prod/orders", "db/prod/a", "db/prod/a/b", "db/stage/a"];
    let calls = resources.iter().flat_map(|at| {
        ["read", "refund", "delete"]
            .into_iter()
            .flat_map(move |op| [50, 100, 500, 600].map(|n| (op, *at, n)))
    });
    calls.into_iter().all(|(op, at, n)| !allows(inner, op, at, n) || allows(outer, op, at, n))
}

/// Whether one of the locks that stand at `at` is on the request, for this scope.
pub(super) fn locked(
    locks: &BTreeMap<LockId, (Lock, Timestamp)>,
    request: &Request,
    scope: &Scope,
    at: Timestamp,
) -> bool {
    standing(locks, at).any(|lock| {
        touches(lock, request, scope)
            && lock.person.as_ref().is_none_or(|one| Some(one) == request.principal.as_ref())
    })
}

/// Whether one of them keeps this person from deciding on the request.
pub(super) fn locked_out(
    locks: &BTreeMap<LockId, (Lock, Timestamp)>,
    person: &PersonId,
    request: &Request,
    at: Timestamp,
) -> bool {
    standing(locks, at)
        .any(|lock| lock.person.as_ref() == Some(person) && touches(lock, request, &request.scope))
}

fn standing(
    locks: &BTreeMap<LockId, (Lock, Timestamp)>,
    at: Timestamp,
) -> impl Iterator<Item = &Lock> {
    locks.values().filter(move |(_, until)| at < *until).map(|(lock, _)| lock)
}

fn touches(lock: &Lock, request: &Request, scope: &Scope) -> bool {
    let below = |one: &str, base: &str| {
        one.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let reaches = |prefix: &str| {
        scope.rights().any(|right| {
            let text = right.resource.to_string();
            match text.strip_suffix("/**") {
                Some(base) => below(base, prefix) || below(prefix, base),
                None => below(&text, prefix),
            }
        })
    };
    lock.workload.as_ref().is_none_or(|id| *id == request.workload)
        && lock.task.as_ref().is_none_or(|task| *task == request.task)
        && lock.prefix.as_ref().is_none_or(|prefix| reaches(&prefix.to_string()))
}
