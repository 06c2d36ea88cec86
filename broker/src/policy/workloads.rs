//! `workloads.toml`: which SPIFFE IDs are workloads, their groups, and the people who answer for
//! them.

use std::collections::{BTreeMap, BTreeSet};

use dayfly_verifier::id::{GroupId, PersonId};
use dayfly_verifier::spiffe::SpiffePattern;
use serde::Deserialize;

use crate::core::directory::{Person, WorkloadRule};

use super::people::{People, distinct};
use super::problems::Problems;

const FILE: &str = "workloads.toml";

/// The rules about workloads and the groups that these may be in.
#[derive(Debug, Default)]
pub(super) struct Workloads {
    pub(super) groups: BTreeSet<GroupId>,
    pub(super) rules: Vec<WorkloadRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkloadsToml {
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    workload: Vec<WorkloadToml>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkloadToml {
    ids: String,
    #[serde(default)]
    groups: Vec<String>,
    owners: Vec<String>,
    #[serde(default)]
    operators: Vec<String>,
    #[serde(default)]
    exclusive: bool,
}

/// Reads the file. A pattern that matches a person's ID is refused, and so is a group that has
/// people: a policy that names it would mean both.
pub(super) fn read(content: &[u8], people: &People, problems: &mut Problems) -> Option<Workloads> {
    let WorkloadsToml { groups, workload } = problems.toml(FILE, content)?;
    let groups: BTreeSet<GroupId> = distinct(FILE, "groups", &groups, problems);
    for group in groups.intersection(&people.groups) {
        problems.add(FILE, "groups", format!("`{group}` is a group of people.toml too"));
    }
    let mut rules = Vec::new();
    for (n, toml) in workload.into_iter().enumerate() {
        rules.extend(read_rule(&format!("workload[{n}]"), toml, &groups, people, problems));
    }
    Some(Workloads { groups, rules })
}

fn read_rule(
    place: &str,
    toml: WorkloadToml,
    known: &BTreeSet<GroupId>,
    people: &People,
    problems: &mut Problems,
) -> Option<WorkloadRule> {
    let WorkloadToml { ids, groups, owners, operators, exclusive } = toml;
    let groups: BTreeSet<GroupId> = distinct(FILE, &format!("{place}.groups"), &groups, problems);
    for group in groups.difference(known) {
        let rule = format!("`{group}` is not one of the groups of this file");
        problems.add(FILE, format_args!("{place}.groups"), rule);
    }
    let owners = known_people(&format!("{place}.owners"), &owners, &people.people, problems);
    let at = format!("{place}.operators");
    let operators = known_people(&at, &operators, &people.people, problems);
    let ids: SpiffePattern = problems.parse(FILE, format_args!("{place}.ids"), &ids)?;
    for (name, person) in &people.people {
        if person.ids.iter().any(|id| ids.matches(id)) {
            let rule = format!("must not match an ID of the person `{name}`");
            problems.add(FILE, format_args!("{place}.ids"), rule);
        }
    }
    Some(WorkloadRule { ids, groups, owners, operators, exclusive })
}

fn known_people(
    place: &str,
    names: &[String],
    people: &BTreeMap<PersonId, Person>,
    problems: &mut Problems,
) -> BTreeSet<PersonId> {
    let named: BTreeSet<PersonId> = distinct(FILE, place, names, problems);
    for name in named.iter().filter(|name| !people.contains_key(*name)) {
        problems.add(FILE, place, format!("`{name}` is not a person of people.toml"));
    }
    named
}
