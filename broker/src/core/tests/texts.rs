//! Patterns and scopes read as text, and calls tried against them: nothing of what is judged.

use dayfly_verifier::scope::Scope;

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
