//! Who is who, as it stands in the entry that put a bundle into force.

use std::collections::BTreeMap;

use dayfly_verifier::id::{GroupId, PersonId};
use dayfly_verifier::request::SignerKey;
use dayfly_verifier::spiffe::{SpiffeId, SpiffePattern};
use serde::{Deserialize, Serialize};

use super::{Text, texts, untexts};
use crate::core::directory::{Directory, Person, Role, WorkloadRule};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DirectoryV1 {
    people: BTreeMap<Text<PersonId>, PersonV1>,
    workloads: Vec<WorkloadRuleV1>,
    gateways: Vec<Text<SpiffeId>>,
    bundle_signatures: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PersonV1 {
    ids: Vec<Text<SpiffeId>>,
    groups: Vec<Text<GroupId>>,
    keys: Vec<Text<SignerKey>>,
    roles: Vec<RoleV1>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RoleV1 {
    Operator,
    Auditor,
    PolicyAdmin,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkloadRuleV1 {
    ids: Text<SpiffePattern>,
    groups: Vec<Text<GroupId>>,
    owners: Vec<Text<PersonId>>,
    operators: Vec<Text<PersonId>>,
    exclusive: bool,
}

impl From<&Directory> for DirectoryV1 {
    fn from(directory: &Directory) -> Self {
        let Directory { people, workloads, gateways, bundle_signatures } = directory;
        Self {
            people: people.iter().map(|(name, person)| (name.into(), person.into())).collect(),
            workloads: workloads.iter().map(Into::into).collect(),
            gateways: texts(gateways),
            bundle_signatures: *bundle_signatures,
        }
    }
}

impl From<DirectoryV1> for Directory {
    fn from(directory: DirectoryV1) -> Self {
        let DirectoryV1 { people, workloads, gateways, bundle_signatures } = directory;
        Self {
            people: people.into_iter().map(|(name, person)| (name.0, person.into())).collect(),
            workloads: workloads.into_iter().map(Into::into).collect(),
            gateways: untexts(gateways),
            bundle_signatures,
        }
    }
}

impl From<&Person> for PersonV1 {
    fn from(person: &Person) -> Self {
        let Person { ids, groups, keys, roles } = person;
        let role = |role: &Role| match role {
            Role::Operator => RoleV1::Operator,
            Role::Auditor => RoleV1::Auditor,
            Role::PolicyAdmin => RoleV1::PolicyAdmin,
        };
        Self {
            ids: texts(ids),
            groups: texts(groups),
            keys: texts(keys),
            roles: roles.iter().map(role).collect(),
        }
    }
}

impl From<PersonV1> for Person {
    fn from(person: PersonV1) -> Self {
        let PersonV1 { ids, groups, keys, roles } = person;
        let role = |role| match role {
            RoleV1::Operator => Role::Operator,
            RoleV1::Auditor => Role::Auditor,
            RoleV1::PolicyAdmin => Role::PolicyAdmin,
        };
        Self {
            ids: untexts(ids),
            groups: untexts(groups),
            keys: untexts(keys),
            roles: roles.into_iter().map(role).collect(),
        }
    }
}

impl From<&WorkloadRule> for WorkloadRuleV1 {
    fn from(rule: &WorkloadRule) -> Self {
        let WorkloadRule { ids, groups, owners, operators, exclusive } = rule;
        Self {
            ids: ids.into(),
            groups: texts(groups),
            owners: texts(owners),
            operators: texts(operators),
            exclusive: *exclusive,
        }
    }
}

impl From<WorkloadRuleV1> for WorkloadRule {
    fn from(rule: WorkloadRuleV1) -> Self {
        let WorkloadRuleV1 { ids, groups, owners, operators, exclusive } = rule;
        Self {
            ids: ids.0,
            groups: untexts(groups),
            owners: untexts(owners),
            operators: untexts(operators),
            exclusive,
        }
    }
}
