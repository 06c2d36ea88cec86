//! Who is who, as the policy bundle in force says: the facts that decisions are about.

use std::collections::{BTreeMap, BTreeSet};

use dayfly_verifier::id::{GroupId, PersonId};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::request::SignerKey;
use dayfly_verifier::spiffe::{SpiffeId, SpiffePattern};

/// People, workloads and gateways. Everybody else is a stranger.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directory {
    /// People by name. No SPIFFE ID and no key belongs to two of them.
    pub people: BTreeMap<PersonId, Person>,
    /// Rules about workloads. All that match an ID apply together.
    pub workloads: Vec<WorkloadRule>,
    /// The gateways: the audiences that a request may name.
    pub gateways: BTreeSet<SpiffeId>,
    /// How many policy admins must sign the next bundle.
    pub bundle_signatures: u32,
}

/// A person.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Person {
    /// The SPIFFE IDs by which they are known. No workload rule matches one of them.
    pub ids: BTreeSet<SpiffeId>,
    /// The groups they are in.
    pub groups: BTreeSet<GroupId>,
    /// The keys with which they sign.
    pub keys: BTreeSet<SignerKey>,
    /// What they may do besides approving.
    pub roles: BTreeSet<Role>,
}

/// What a person may do besides approving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Sees grants, revokes, applies bundles that admins signed.
    Operator,
    /// Reads the record.
    Auditor,
    /// Signs policy bundles.
    PolicyAdmin,
}

/// What is known of the workloads whose IDs match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadRule {
    /// Which ones.
    pub ids: SpiffePattern,
    /// The groups that policies may name.
    pub groups: BTreeSet<GroupId>,
    /// The people who own them.
    pub owners: BTreeSet<PersonId>,
    /// The people who operate them.
    pub operators: BTreeSet<PersonId>,
    /// Whether one process alone holds the ID, so that tokens may be confirmed by it.
    pub exclusive: bool,
}

/// What a SPIFFE ID is, to this directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Party {
    /// This person.
    Person(PersonId),
    /// A gateway.
    Gateway,
    /// A workload.
    Workload,
    /// Nobody known.
    Stranger,
}

impl Directory {
    /// Refuses one without an operator, which could never be mended: there would be nobody left to
    /// apply another bundle, nor to revoke.
    pub fn operable(&self) -> Result<(), Invalid> {
        let mut people = self.people.values();
        if people.any(|person| person.roles.contains(&Role::Operator)) {
            return Ok(());
        }
        Err(Invalid::new("people.toml", "must give at least one person the role of operator"))
    }

    /// What `id` is. A person is never a workload; a gateway may ask for rights as a workload too,
    /// where a rule matches it.
    #[must_use]
    pub fn party(&self, id: &SpiffeId) -> Party {
        if let Some((name, _)) = self.people.iter().find(|(_, person)| person.ids.contains(id)) {
            Party::Person(name.clone())
        } else if self.gateways.contains(id) {
            Party::Gateway
        } else if self.workloads.iter().any(|rule| rule.ids.matches(id)) {
            Party::Workload
        } else {
            Party::Stranger
        }
    }

    /// The people who own or operate `workload`: they never decide on its requests.
    #[must_use]
    pub fn responsible_for(&self, workload: &SpiffeId) -> BTreeSet<&PersonId> {
        let rules = self.workloads.iter().filter(|rule| rule.ids.matches(workload));
        rules.flat_map(|rule| rule.owners.iter().chain(&rule.operators)).collect()
    }

    /// The people who own `workload`.
    #[must_use]
    pub fn owners_of(&self, workload: &SpiffeId) -> BTreeSet<&PersonId> {
        let rules = self.workloads.iter().filter(|rule| rule.ids.matches(workload));
        rules.flat_map(|rule| &rule.owners).collect()
    }

    /// Whether `id` is a workload: a rule matches it, and it is no person's. Gateways may be.
    #[must_use]
    pub fn is_workload(&self, id: &SpiffeId) -> bool {
        let person = self.people.values().any(|person| person.ids.contains(id));
        !person && self.workloads.iter().any(|rule| rule.ids.matches(id))
    }

    /// The person whom `id` belongs to.
    #[must_use]
    pub fn person(&self, id: &SpiffeId) -> Option<(&PersonId, &Person)> {
        self.people.iter().find(|(_, person)| person.ids.contains(id))
    }

    /// Whether tokens of `workload` may be confirmed by its SPIFFE ID.
    #[must_use]
    pub fn is_exclusive(&self, workload: &SpiffeId) -> bool {
        self.workloads.iter().any(|rule| rule.exclusive && rule.ids.matches(workload))
    }

    /// The people of `group`.
    pub fn members<'a>(&'a self, group: &'a GroupId) -> impl Iterator<Item = &'a PersonId> {
        let in_group = move |(_, person): &(&PersonId, &Person)| person.groups.contains(group);
        self.people.iter().filter(in_group).map(|(name, _)| name)
    }
}
