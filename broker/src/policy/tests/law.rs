//! The law of combination, held against an oracle that knows neither Cedar nor our evaluation: it
//! walks all concrete resources that a right reaches and applies each generated policy by hand.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use proptest::prelude::*;

use super::ask::{Ask, demands};
use super::*;
use crate::core::verdict::Outcome;

/// The declared resources, and what makes them so. `x` and `y` stand for what is not declared.
const TREE: [&str; 5] = ["files", "files/a", "files/a/b", "files/ab", "files/c"];
const SUBTREES: [&str; 3] = ["files", "files/a/b", "files/c"];
const CONCRETE: [&str; 14] = [
    "files",
    "files/x",
    "files/a",
    "files/a/x",
    "files/a/b",
    "files/a/b/x",
    "files/a/b/x/y",
    "files/a/bc",
    "files/ab",
    "files/ab/x",
    "files/c",
    "files/c/x",
    "files/x/y",
    "files/d/b",
];
const OPERATIONS: [&str; 2] = ["read", "write"];
const GROUPS: [&str; 3] = ["g1", "g2", "g3"];

/// A policy in the few features that the oracle knows.
#[derive(Debug, Clone)]
struct Simple {
    forbids: bool,
    /// One operation, or all.
    operation: Option<usize>,
    /// A declared resource; with all below it or alone; or all.
    resource: Option<(usize, bool)>,
    /// Only for amounts that are at most this.
    at_most: Option<i64>,
    approvals: BTreeMap<usize, u32>,
    lease_minutes: Option<u64>,
    uses: Option<u32>,
}

impl Simple {
    fn cedar(&self, id: usize) -> String {
        let mut text = format!("@id(\"p{id}\") ");
        if self.forbids {
            text += &format!("@reason(\"r{id}\") forbid ");
        } else {
            let approvals: Vec<_> =
                self.approvals.iter().map(|(group, n)| format!("{}:{n}", GROUPS[*group])).collect();
            let approvals = if approvals.is_empty() { "none".into() } else { approvals.join(", ") };
            text += &format!("@approvals(\"{approvals}\") ");
            text += &self.lease_minutes.map(|m| format!("@max_ttl(\"{m}m\") ")).unwrap_or_default();
            text += &self.uses.map(|n| format!("@max_uses(\"{n}\") ")).unwrap_or_default();
            text += "permit ";
        }
        let action = self
            .operation
            .map_or("action".into(), |n| format!("action == Action::\"{}\"", OPERATIONS[n]));
        let resource = self.resource.map_or("resource".into(), |(n, below)| {
            format!("resource {} Resource::\"{}\"", if below { "in" } else { "==" }, TREE[n])
        });
        text += &format!("(principal, {action}, {resource}) ");
        if let Some(most) = self.at_most {
            text += &format!(
                "when {{ context.args has amount && context.args.amount has at_most && \
                 context.args.amount.at_most <= {most} }}"
            );
        }
        text + ";\n"
    }

    fn matches(&self, operation: &str, resource: &str, amount: Option<i64>) -> bool {
        self.operation.is_none_or(|n| OPERATIONS[n] == operation)
            && self.resource.is_none_or(|(n, below)| {
                resource == TREE[n] || below && resource.starts_with(&format!("{}/", TREE[n]))
            })
            && self.at_most.is_none_or(|most| amount.is_some_and(|amount| amount <= most))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Expected {
    approvals: BTreeMap<usize, u32>,
    lease: u64,
    uses: Option<u32>,
}

/// What must come out: `None` for a refusal.
fn oracle(
    policies: &[Simple],
    rights: &[(usize, String)],
    amount: Option<i64>,
) -> Option<Expected> {
    let mut all = Expected { approvals: BTreeMap::new(), lease: u64::MAX, uses: None };
    for (operation, pattern) in rights {
        let operation = OPERATIONS[*operation];
        let reached = CONCRETE.iter().filter(|resource| match pattern.strip_suffix("/**") {
            // What a subtree reaches lies below its base; the base is asked for as well.
            Some(base) => **resource == base || resource.starts_with(&format!("{base}/")),
            None => *resource == pattern,
        });
        for resource in reached {
            let declared = TREE.contains(resource)
                || SUBTREES.iter().any(|base| resource.starts_with(&format!("{base}/")));
            if !declared {
                return None;
            }
            let matching: Vec<_> =
                policies.iter().filter(|p| p.matches(operation, resource, amount)).collect();
            if matching.is_empty() || matching.iter().any(|policy| policy.forbids) {
                return None;
            }
            for policy in matching {
                for (group, n) in &policy.approvals {
                    let most = all.approvals.entry(*group).or_insert(0);
                    *most = (*most).max(*n);
                }
                all.lease = all.lease.min(policy.lease_minutes.map_or(3600, |m| m * 60));
                all.uses = [all.uses, policy.uses].into_iter().flatten().min();
            }
        }
    }
    Some(all)
}

fn policy() -> impl Strategy<Value = Simple> {
    (
        prop::bool::weighted(0.15),
        prop::option::of(0..2usize),
        prop::option::weighted(0.6, (0..TREE.len(), prop::bool::weighted(0.8))),
        prop::option::weighted(0.3, 0..3i64),
        prop::collection::btree_map(0..3usize, 1..3u32, 0..3),
        prop::option::of(1..90u64),
        prop::option::of(1..9u32),
    )
        .prop_map(|(forbids, operation, resource, at_most, approvals, lease_minutes, uses)| {
            Simple { forbids, operation, resource, at_most, approvals, lease_minutes, uses }
        })
}

/// The smallest example with the tree above and six people, of whom each group has two.
fn bundle(policies: &[Simple]) -> Bundle {
    let cedar: String = policies.iter().enumerate().map(|(n, policy)| policy.cedar(n)).collect();
    let resources: String = TREE
        .iter()
        .map(|base| {
            let below = if SUBTREES.contains(base) { "/**" } else { "" };
            format!(
                "[[resource]]\npattern = \"{base}{below}\"\noperations = [\"read\", \"write\"]\n\
                 gateway = \"spiffe://example.test/gateway/files\"\n"
            )
        })
        .collect();
    let people: String = (0..6u8)
        .map(|n| {
            let key = ed25519_dalek::SigningKey::from_bytes(&[n + 1; 32]).verifying_key();
            let key = ssh_key::PublicKey::from(ssh_key::public::Ed25519PublicKey(key.to_bytes()));
            format!(
                "[person.p{n}]\nids = [\"spiffe://example.test/person/p{n}\"]\n\
                 groups = [\"{}\"]\nkeys = [\"{}\"]\n",
                GROUPS[usize::from(n) / 2],
                key.to_openssh().unwrap()
            )
        })
        .collect();
    let files = BundleFiles::read(&example("minimal")).unwrap();
    let files = files.iter().map(|(name, content)| {
        let text = match name {
            "policy.cedar" => cedar.clone(),
            "resources.toml" => format!("purposes = [\"work\"]\n{resources}"),
            "people.toml" => format!("groups = [\"g1\", \"g2\", \"g3\"]\n{people}"),
            "schema.cedarschema" => String::from_utf8(content.to_vec())
                .unwrap()
                .replace("args: {}", "args: { amount?: { at_least?: Long, at_most?: Long } }"),
            _ => String::from_utf8(content.to_vec()).unwrap(),
        };
        (name.to_owned(), text.into_bytes())
    });
    Bundle::load(&BundleFiles::new(files).unwrap()).map_err(told).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_most_restrictive_answer_of_all_policies_at_all_points_wins(
        mut policies in prop::collection::vec(policy(), 1..6),
        open in prop::bool::weighted(0.7),
        questions in prop::collection::vec((
            prop::collection::btree_set((0..2usize, 0..CONCRETE.len(), any::<bool>()), 1..4),
            prop::option::of(0..4i64),
        ), 16),
    ) {
        if open {
            let all = Simple {
                forbids: false, operation: None, resource: None, at_most: None,
                approvals: BTreeMap::new(), lease_minutes: None, uses: None,
            };
            policies.push(all);
        }
        let bundle = bundle(&policies);
        for (rights, amount) in questions {
            let rights: Vec<_> = rights
                .into_iter()
                .map(|(operation, resource, below)| {
                    let resource = CONCRETE[resource];
                    (operation, if below { format!("{resource}/**") } else { resource.into() })
                })
                .collect();
            let mut ask = Ask::files(&[]);
            let words = |(n, at): &(usize, String)| format!("{} {at}", OPERATIONS[*n]);
            ask.rights = rights.iter().map(words).collect();
            ask.constraints = amount.iter().map(|amount| format!("amount <= {amount}")).collect();
            let expected = oracle(&policies, &rights, amount);
            match (ask.outcome(&bundle), expected) {
                (Outcome::Refused(_), None) => {}
                (Outcome::Permitted(found), Some(expected)) => {
                    let Expected { approvals, lease, uses } = expected;
                    let approvals: Vec<_> =
                        approvals.iter().map(|(group, n)| (GROUPS[*group], *n)).collect();
                    prop_assert_eq!(found, demands(&approvals, lease, uses), "{:?}", ask.rights);
                    // And what is asked for beyond it is refused.
                    let longer = Ask { lifetime: Some(lease + 1), ..ask.clone() };
                    prop_assert!(matches!(longer.outcome(&bundle), Outcome::Refused(_)));
                    let more = uses.and_then(|uses| NonZeroU32::new(uses + 1));
                    let more = more.map(|more| Ask { uses: Some(more), ..ask.clone() });
                    let refused = more.is_none_or(|more| {
                        matches!(more.outcome(&bundle), Outcome::Refused(_))
                    });
                    prop_assert!(refused);
                }
                (found, expected) => {
                    prop_assert!(false, "{:?}: {found:?}, expected {expected:?}", ask.rights);
                }
            }
        }
    }
}
