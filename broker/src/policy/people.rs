//! `people.toml`: the people, by whom and by which keys they are known, and their groups.

use std::collections::{BTreeMap, BTreeSet};

use dayfly_verifier::id::{GroupId, PersonId};
use dayfly_verifier::request::SignerKey;
use dayfly_verifier::spiffe::SpiffeId;
use serde::Deserialize;

use crate::core::directory::{Person, Role};

use super::problems::Problems;

const FILE: &str = "people.toml";

/// The people of a bundle and the groups that they may be in.
#[derive(Debug, Default)]
pub(super) struct People {
    pub(super) groups: BTreeSet<GroupId>,
    pub(super) people: BTreeMap<PersonId, Person>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PeopleToml {
    groups: Vec<String>,
    person: BTreeMap<String, PersonToml>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PersonToml {
    ids: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    keys: Vec<String>,
    #[serde(default)]
    roles: Vec<String>,
}

/// Reads the file. No ID and no key may belong to two people.
pub(super) fn read(content: &[u8], problems: &mut Problems) -> Option<People> {
    let PeopleToml { groups, person } = problems.toml(FILE, content)?;
    let groups = distinct(FILE, "groups", &groups, problems);
    let mut people = BTreeMap::new();
    for (name, person) in person {
        let place = format!("person.{}", name.escape_default());
        let Some(id) = problems.parse::<PersonId>(FILE, &place, &name) else { continue };
        people.insert(id, read_person(&place, person, &groups, problems));
    }
    let ids = people.iter().flat_map(|(name, person): (&_, &Person)| {
        person.ids.iter().map(move |id| (name, id.as_str(), "ids"))
    });
    let keys = people
        .iter()
        .flat_map(|(name, person)| person.keys.iter().map(move |key| (name, key.as_str(), "keys")));
    let mut owners = BTreeMap::new();
    for (name, value, field) in ids.chain(keys) {
        if let Some(other) = owners.insert(value, name) {
            let rule = format!("must not hold what `{other}` has too: `{value}`");
            problems.add(FILE, format_args!("person.{name}.{field}"), rule);
        }
    }
    Some(People { groups, people })
}

fn read_person(
    place: &str,
    person: PersonToml,
    known: &BTreeSet<GroupId>,
    problems: &mut Problems,
) -> Person {
    let PersonToml { ids, groups, keys, roles } = person;
    let ids: BTreeSet<SpiffeId> = distinct(FILE, &format!("{place}.ids"), &ids, problems);
    if ids.is_empty() {
        problems.add(FILE, format_args!("{place}.ids"), "must name at least one SPIFFE ID");
    }
    let at = format!("{place}.groups");
    let groups: BTreeSet<GroupId> = distinct(FILE, &at, &groups, problems);
    for group in groups.difference(known) {
        problems.add(FILE, &at, format!("`{group}` is not one of the groups of this file"));
    }
    let keys: BTreeSet<SignerKey> = distinct(FILE, &format!("{place}.keys"), &keys, problems);
    let mut held = BTreeSet::new();
    for role in &roles {
        let role = match role.as_str() {
            "operator" => Role::Operator,
            "auditor" => Role::Auditor,
            "policy-admin" => Role::PolicyAdmin,
            other => {
                let rule = format!(
                    "`{}` is none of operator, auditor, policy-admin",
                    other.escape_default()
                );
                problems.add(FILE, format_args!("{place}.roles"), rule);
                continue;
            }
        };
        if !held.insert(role) {
            problems.add(FILE, format_args!("{place}.roles"), "must not name the same one twice");
        }
    }
    Person { ids, groups, keys, roles: held }
}

/// Parses every text of a list; notes those that are refused and those that are there twice.
pub(super) fn distinct<T: std::str::FromStr<Err = dayfly_verifier::invalid::Invalid> + Ord>(
    file: &str,
    place: &str,
    texts: &[String],
    problems: &mut Problems,
) -> BTreeSet<T> {
    let mut set = BTreeSet::new();
    for (n, text) in texts.iter().enumerate() {
        let Some(item) = problems.parse(file, format_args!("{place}[{n}]"), text) else { continue };
        if !set.insert(item) {
            problems.add(file, format_args!("{place}[{n}]"), "must not name the same one twice");
        }
    }
    set
}
