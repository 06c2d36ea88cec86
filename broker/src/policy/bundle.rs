//! A policy bundle, read and checked whole: who is who, what there is, and what is permitted.

use dayfly_verifier::id::{BundleDigest, Purpose};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::resource::ResourcePattern;
use dayfly_verifier::spiffe::SpiffeId;

use crate::core::directory::Directory;

use super::context;
use super::files::BundleFiles;
use super::memo::{Memo, Reads};
use super::people::{self, People};
use super::problems::Problems;
use super::resources::{self, Resources};
use super::rules::{self, Known, Rules};
use super::workloads::{self, Workloads};

/// A policy bundle that may be put into force. Immutable; share it in an `Arc`.
pub struct Bundle {
    digest: BundleDigest,
    directory: Directory,
    pub(super) resources: Resources,
    pub(super) rules: Rules,
    pub(super) memo: Memo,
}

impl Bundle {
    /// Reads and checks the whole bundle; says all that is wrong with it, each problem with the
    /// file, the place in it and the rule.
    pub fn load(files: &BundleFiles) -> Result<Self, Vec<Invalid>> {
        let mut problems = Problems::default();
        let [policy, schema, people, workloads, resources] = files.contents();
        let Some(people) = people::read(people, &mut problems) else {
            // Everything else speaks of people: without them each name would be a problem more.
            return problems.or(None);
        };
        let workloads = workloads::read(workloads, &people, &mut problems);
        let resources = resources::read(resources, &people, &mut problems);
        let (Some(workloads), Some(resources)) = (workloads, resources) else {
            return problems.or(None);
        };
        let Workloads { groups: workload_groups, rules: workloads } = workloads;
        let People { groups: people_groups, people } = people;
        let gateways = resources.declared().map(|declared| declared.gateway.clone()).collect();
        let directory = Directory { people, workloads, gateways, bundle_signatures: 0 };
        let known = Known {
            directory: &directory,
            people_groups: &people_groups,
            workload_groups: &workload_groups,
            resources: &resources,
        };
        let rules = rules::read(policy, schema, known, &mut problems);
        if let Some(rules) = &rules {
            context::check_schema(rules, &directory, &resources, &mut problems);
        }
        let digest = files.digest();
        let reads = std::str::from_utf8(policy).map_or_else(|_| Reads::default(), Reads::of);
        let memo = Memo::new(reads);
        problems.or(rules.map(|rules| Self { digest, directory, resources, rules, memo }))
    }

    /// Its content address.
    #[must_use]
    pub const fn digest(&self) -> BundleDigest {
        self.digest
    }

    /// Who is who, as it says.
    #[must_use]
    pub const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The purposes that requests may name.
    pub fn purposes(&self) -> impl Iterator<Item = &Purpose> {
        self.resources.purposes.iter()
    }

    /// The gateway that guards what `pattern` names; `None` where that is not declared.
    #[must_use]
    pub fn guard(&self, pattern: &ResourcePattern) -> Option<&SpiffeId> {
        self.resources.points(pattern).next().map(|point| &point.declared.gateway)
    }
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bundle({})", self.digest)
    }
}
