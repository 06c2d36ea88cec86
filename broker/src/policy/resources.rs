//! `resources.toml`: what there is to act on, how, and which gateway guards it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cedar_policy::{Entity, RestrictedExpression};
use dayfly_verifier::id::Purpose;
use dayfly_verifier::resource::{Operation, Resource, ResourcePattern};
use dayfly_verifier::spiffe::SpiffeId;
use serde::Deserialize;

use super::people::{People, distinct};
use super::problems::Problems;
use super::rules::Kind;

const FILE: &str = "resources.toml";

/// The declared resources, and the purposes that requests may name.
#[derive(Debug, Default)]
pub(super) struct Resources {
    pub(super) purposes: BTreeSet<Purpose>,
    declared: BTreeMap<String, Declared>,
}

/// A declared resource: one alone, or (`/**`) one with all below it that is not declared itself.
#[derive(Debug)]
pub(super) struct Declared {
    /// The resource, without the `/**`.
    pub(super) base: Resource,
    /// Whether what lies below it is declared with it.
    subtree: bool,
    /// The gateway that guards it.
    pub(super) gateway: SpiffeId,
    /// How it may be acted on.
    pub(super) operations: BTreeSet<Operation>,
    /// The operations that destroy or pay out: one use, unless policy says how many.
    pub(super) destructive: BTreeSet<Operation>,
    attributes: BTreeMap<String, Attribute>,
}

/// A point at which policy is asked: a resource, or what stands for all others below one.
#[derive(Debug, Clone)]
pub(super) struct Point<'a> {
    /// The declaration that governs it.
    pub(super) declared: &'a Declared,
    /// The resource to Cedar: its attributes, and the declared resources above it as parents.
    pub(super) entity: Entity,
}

impl Point<'_> {
    /// Whether `operation` destroys something here.
    pub(super) fn is_destructive(&self, operation: &Operation) -> bool {
        self.declared.destructive.contains(operation)
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Attribute {
    Text(String),
    Whole(i64),
    Flag(bool),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourcesToml {
    purposes: Vec<String>,
    #[serde(default)]
    resource: Vec<ResourceToml>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceToml {
    pattern: String,
    gateway: String,
    operations: Vec<String>,
    #[serde(default)]
    destructive: Vec<String>,
    #[serde(default)]
    sensitive: Vec<String>,
    #[serde(default)]
    attributes: BTreeMap<String, Attribute>,
}

/// Reads the file. No resource may be declared twice, and no gateway may be a person.
pub(super) fn read(content: &[u8], people: &People, problems: &mut Problems) -> Option<Resources> {
    let ResourcesToml { purposes, resource } = problems.toml(FILE, content)?;
    let purposes = distinct(FILE, "purposes", &purposes, problems);
    let mut declared = BTreeMap::new();
    for (n, toml) in resource.into_iter().enumerate() {
        let place = format!("resource[{n}]");
        let Some(one) = read_one(&place, toml, problems) else { continue };
        for (name, person) in &people.people {
            if person.ids.contains(&one.gateway) {
                let rule = format!("must not be an ID of the person `{name}`");
                problems.add(FILE, format_args!("{place}.gateway"), rule);
            }
        }
        let base = one.base.as_str().to_owned();
        if declared.insert(base, one).is_some() {
            let rule = "must not be declared twice: `a/**` declares `a` too";
            problems.add(FILE, format_args!("{place}.pattern"), rule);
        }
    }
    Some(Resources { purposes, declared })
}

fn read_one(place: &str, toml: ResourceToml, problems: &mut Problems) -> Option<Declared> {
    let ResourceToml { pattern, gateway, operations, destructive, sensitive, attributes } = toml;
    let at = format!("{place}.operations");
    let operations: BTreeSet<Operation> = distinct(FILE, &at, &operations, problems);
    if operations.is_empty() {
        problems.add(FILE, at, "must name at least one");
    }
    let at = format!("{place}.destructive");
    let destructive: BTreeSet<Operation> = distinct(FILE, &at, &destructive, problems);
    for other in destructive.difference(&operations) {
        problems.add(FILE, &at, format!("`{other}` is not one of its operations"));
    }
    if !sensitive.is_empty() {
        let rule = "sensitive arguments are not supported by this version";
        problems.add(FILE, format_args!("{place}.sensitive"), rule);
    }
    let gateway = problems.parse(FILE, format_args!("{place}.gateway"), &gateway);
    let pattern = problems.parse(FILE, format_args!("{place}.pattern"), &pattern);
    let (base, subtree) = match pattern? {
        ResourcePattern::Exact(base) => (base, false),
        ResourcePattern::Below(base) => (base, true),
    };
    Some(Declared { base, subtree, gateway: gateway?, operations, destructive, attributes })
}

impl Resources {
    /// The declared resources, in order.
    pub(super) fn declared(&self) -> impl Iterator<Item = &Declared> {
        self.declared.values()
    }

    /// Whether policies may name `resource`.
    pub(super) fn is_declared(&self, resource: &str) -> bool {
        self.declared.contains_key(resource)
    }

    /// All points at which a right on `pattern` is decided; none where something in it is not
    /// declared.
    ///
    /// For one resource, itself. For a subtree, the base, every declared resource below it, and
    /// for each of these one point that stands for all that lies below it and is not declared.
    /// Policies cannot tell what a point stands for from the point itself: they name only declared
    /// resources, and attributes come from declarations.
    pub(super) fn points(&self, pattern: &ResourcePattern) -> impl Iterator<Item = Point<'_>> {
        let (at, inside) = match pattern {
            ResourcePattern::Exact(resource) => (self.at(resource), None),
            ResourcePattern::Below(base) => match self.inside(base) {
                Some(inside) => (self.at(base), Some(inside)),
                None => (None, None),
            },
        };
        let prefix = inside.as_ref().map(|_| format!("{}/", pattern.base()));
        let from = prefix.clone().map(|prefix| self.declared.range(prefix..));
        let below = from.into_iter().flatten().map(|(_, declared)| declared);
        let below = below.take_while(move |declared| {
            prefix.as_ref().is_some_and(|prefix| declared.base.as_str().starts_with(prefix))
        });
        let below = below.flat_map(|declared| self.around(declared));
        at.into_iter().chain(inside).chain(below)
    }

    /// The points of a declared resource: itself, and what stands for all below it.
    pub(super) fn around(&self, declared: &Declared) -> impl Iterator<Item = Point<'_>> {
        self.at(&declared.base).into_iter().chain(self.inside(&declared.base))
    }

    /// The point of one resource.
    fn at(&self, resource: &Resource) -> Option<Point<'_>> {
        let resource = resource.as_str();
        let declared = match self.declared.get(resource) {
            Some(declared) => declared,
            None => above(resource).find_map(|name| self.subtree(name))?,
        };
        self.point(resource, declared)
    }

    /// The point that stands for all that lies below `base` and is not declared.
    fn inside(&self, base: &Resource) -> Option<Point<'_>> {
        let inside = format!("{base}/**");
        let declared = above(&inside).find_map(|name| self.subtree(name))?;
        self.point(&inside, declared)
    }

    fn subtree(&self, name: &str) -> Option<&Declared> {
        self.declared.get(name).filter(|declared| declared.subtree)
    }

    /// To Cedar: named, with the declared resources above it as parents.
    fn point<'a>(&self, name: &str, declared: &'a Declared) -> Option<Point<'a>> {
        let parents = above(name).filter(|name| self.declared.contains_key(*name));
        let parents: HashSet<_> = parents.filter_map(|name| Kind::Resource.uid(name)).collect();
        let attributes = declared.attributes.iter();
        let attributes: HashMap<_, _> =
            attributes.map(|(name, value)| (name.clone(), value.expression())).collect();
        let entity = Entity::new(Kind::Resource.uid(name)?, attributes, parents).ok()?;
        Some(Point { declared, entity })
    }
}

impl Attribute {
    fn expression(&self) -> RestrictedExpression {
        match self {
            Self::Text(text) => RestrictedExpression::new_string(text.clone()),
            Self::Whole(whole) => RestrictedExpression::new_long(*whole),
            Self::Flag(flag) => RestrictedExpression::new_bool(*flag),
        }
    }
}

/// The paths above `path`, nearest first: `a/b` and `a` for `a/b/c`.
fn above(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(above, _)| above)).skip(1)
}
