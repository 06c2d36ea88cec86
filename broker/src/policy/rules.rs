//! `policy.cedar` and `schema.cedarschema`: the policies, checked against the schema and against
//! what the rest of the bundle declares, and compiled.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;
use std::sync::LazyLock;

use cedar_policy::ffi::DetailedError;
use cedar_policy::{
    AuthorizationError, Authorizer, Decision, Entities, Entity, EntityId, EntityTypeName,
    EntityUid, Policy, PolicyId, PolicySet, Request, Schema, ValidationMode, Validator,
};
use dayfly_verifier::id::GroupId;
use dayfly_verifier::spiffe::SpiffeId;

use crate::core::directory::Directory;
use crate::core::quorum;
use crate::core::verdict::Refusal;

use super::problems::{Problems, line};
use super::requirement::{self, Demand, Rule};
use super::resources::Resources;

const POLICY: &str = "policy.cedar";
const SCHEMA: &str = "schema.cedarschema";

/// How far a policy may follow attributes: those of principal, resource and context, no further.
/// So the few entities of one request are all that an evaluation can reach.
const MAX_LEVEL: u32 = 1;

/// The kinds of Cedar entities that a bundle's schema must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Workload,
    Person,
    Group,
    Resource,
    Action,
}

impl Kind {
    const ALL: [Self; 5] =
        [Self::Workload, Self::Person, Self::Group, Self::Resource, Self::Action];

    const fn name(self) -> &'static str {
        match self {
            Self::Workload => "Workload",
            Self::Person => "Person",
            Self::Group => "Group",
            Self::Resource => "Resource",
            Self::Action => "Action",
        }
    }

    /// The entity of this kind with this name. Never `None`.
    pub(super) fn uid(self, id: &str) -> Option<EntityUid> {
        static NAMES: LazyLock<Vec<(Kind, EntityTypeName)>> = LazyLock::new(|| {
            let names = Kind::ALL.into_iter();
            names.filter_map(|kind| Some((kind, kind.name().parse().ok()?))).collect()
        });
        let (_, name) = NAMES.iter().find(|(kind, _)| *kind == self)?;
        Some(EntityUid::from_type_name_and_id(name.clone(), EntityId::new(id)))
    }
}

/// The policies of a bundle, compiled.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) schema: Schema,
    policies: PolicySet,
    rules: HashMap<PolicyId, Rule>,
    actions: Entities,
    authorizer: Authorizer,
}

/// What policies said at one point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ruling {
    /// The names of the policies that decided, in order.
    pub(super) policies: Vec<String>,
    /// What those that permit demand together, or why it is refused.
    pub(super) answer: Result<Demand, Refusal>,
}

/// What policies may name: what the rest of the bundle declares.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) directory: &'a Directory,
    pub(super) people_groups: &'a BTreeSet<GroupId>,
    pub(super) workload_groups: &'a BTreeSet<GroupId>,
    pub(super) resources: &'a Resources,
}

/// Reads both files.
pub(super) fn read(
    policy: &[u8],
    schema: &[u8],
    known: Known<'_>,
    problems: &mut Problems,
) -> Option<Rules> {
    let schema = problems.text(SCHEMA, schema).and_then(|text| read_schema(text, problems));
    let text = problems.text(POLICY, policy)?;
    let policies = read_policies(text, known, problems);
    let (schema, (policies, rules, lines)) = (schema?, policies?);
    let validator = Validator::new(schema);
    let checked = validator.validate_with_level(&policies, ValidationMode::Strict, MAX_LEVEL);
    let place = |id: &PolicyId| lines.get(id).cloned().unwrap_or_default();
    for error in checked.validation_errors() {
        problems.add(POLICY, place(error.policy_id()), one_line(error));
    }
    for warning in checked.validation_warnings() {
        problems.add(POLICY, place(warning.policy_id()), one_line(warning));
    }
    let schema = validator.schema().clone();
    let actions = schema.action_entities();
    let actions = actions.map_err(|error| problems.add(SCHEMA, "actions", detail(&error))).ok()?;
    Some(Rules { schema, policies, rules, actions, authorizer: Authorizer::new() })
}

fn read_schema(text: &str, problems: &mut Problems) -> Option<Schema> {
    match Schema::from_cedarschema_str(text) {
        Ok((schema, warnings)) => {
            for warning in warnings {
                problems.add(SCHEMA, place(&(&warning).into(), text), one_line(&warning));
            }
            Some(schema)
        }
        Err(error) => {
            let error = DetailedError::from(&error);
            problems.add(SCHEMA, place(&error, text), one_line(&error.message));
            None
        }
    }
}

type Compiled = (PolicySet, HashMap<PolicyId, Rule>, HashMap<PolicyId, String>);

/// The policies under their own names, what their annotations say, and where they stand.
fn read_policies(text: &str, known: Known<'_>, problems: &mut Problems) -> Option<Compiled> {
    let parsed: PolicySet = match text.parse() {
        Ok(parsed) => parsed,
        Err(errors) => {
            for error in errors.iter().map(DetailedError::from) {
                problems.add(POLICY, place(&error, text), one_line(&error.message));
            }
            return None;
        }
    };
    for template in parsed.templates() {
        let source = template.to_cedar();
        problems.add(POLICY, place_of(&source, text), "templates are not supported");
    }
    let (mut set, mut rules, mut lines) = (PolicySet::new(), HashMap::new(), HashMap::new());
    for policy in parsed.policies() {
        let at = place_of(&policy.to_cedar().unwrap_or_default(), text);
        let Some(name) = name_of(policy, &at, problems) else { continue };
        let id = PolicyId::new(&name);
        let at = format!("{at} (`{name}`)");
        match requirement::read(policy, &name, known.people_groups) {
            Ok(rule) => {
                if !fillable(&rule, known.directory) {
                    let rule = "`@approvals` asks for more distinct people than have keys";
                    problems.add(POLICY, &at, rule);
                }
                rules.insert(id.clone(), rule);
            }
            Err(found) => found.into_iter().for_each(|rule| problems.add(POLICY, &at, rule)),
        }
        for literal in policy.entity_literals() {
            if let Err(rule) = check_literal(&literal, known) {
                problems.add(POLICY, &at, rule);
            }
        }
        if set.add(policy.new_id(id.clone())).is_err() {
            problems.add(POLICY, &at, "another policy has the same `@id`");
        }
        lines.insert(id, at);
    }
    Some((set, rules, lines))
}

/// Whether there are as many people, each with a key to sign with and counted once, as `rule`
/// asks for.
fn fillable(rule: &Rule, directory: &Directory) -> bool {
    let Rule::Permit(demand) = rule else { return true };
    let able = directory.people.iter().filter(|(_, person)| !person.keys.is_empty());
    quorum::met(&demand.requirement(), directory, able.map(|(name, _)| name))
}

/// The `@id` of a policy: requesters and the log name it by that.
fn name_of(policy: &Policy, at: &str, problems: &mut Problems) -> Option<String> {
    let name = policy.annotation("id").unwrap_or_default();
    let alphabet = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let reserved = matches!(name, "default" | "error");
    if name.is_empty() || name.len() > 64 || !name.bytes().all(alphabet) || reserved {
        let rule = "`@id` must be 1 to 64 of the characters a-z A-Z 0-9 - _ . and neither \
                    `default` nor `error`";
        problems.add(POLICY, at, rule);
        return None;
    }
    Some(name.to_owned())
}

/// Policies name only what the bundle declares: a misspelt name would silently match nothing.
fn check_literal(literal: &EntityUid, known: Known<'_>) -> Result<(), String> {
    let Known { directory, people_groups, workload_groups, resources } = known;
    let id = literal.id().unescaped();
    let kind = literal.type_name().to_string();
    let Some(kind) = Kind::ALL.into_iter().find(|known| known.name() == kind) else {
        return Ok(());
    };
    let (declared, file) = match kind {
        // The validator has looked.
        Kind::Action => return Ok(()),
        Kind::Resource => (resources.is_declared(id), "resources.toml"),
        Kind::Person => {
            (id.parse().is_ok_and(|id| directory.people.contains_key(&id)), "people.toml")
        }
        Kind::Group => (
            id.parse().is_ok_and(|id| people_groups.contains(&id) || workload_groups.contains(&id)),
            "people.toml or workloads.toml",
        ),
        Kind::Workload => (
            id.parse::<SpiffeId>()
                .is_ok_and(|id| directory.workloads.iter().any(|rule| rule.ids.matches(&id))),
            "workloads.toml",
        ),
    };
    if declared { Ok(()) } else { Err(format!("`{literal}` is not declared in {file}")) }
}

impl Rules {
    /// The entities of the actions, with `entities` added, as the schema wants them.
    pub(super) fn entities(
        &self,
        entities: impl IntoIterator<Item = Entity>,
    ) -> Result<Entities, Refusal> {
        let all = self.actions.clone().add_entities(entities, Some(&self.schema));
        all.map_err(|_| errs("the facts do not fit the schema of the bundle"))
    }

    /// What the policies say of `request`, which the schema has checked.
    pub(super) fn ask(&self, request: &Request, entities: &Entities) -> Ruling {
        let response = self.authorizer.is_authorized(request, &self.policies, entities);
        let diagnostics = response.diagnostics();
        let mut policies: Vec<_> = diagnostics.reason().map(ToString::to_string).collect();
        policies.sort_unstable();
        let answer = if let Some(error) = diagnostics.errors().map(erring).min() {
            Err(errs(&format!("the policy `{error}` could not be evaluated")))
        } else {
            let rules = policies.iter().map(|id| (id, self.rules.get(&PolicyId::new(id))));
            match response.decision() {
                Decision::Allow => together(rules),
                Decision::Deny => Err(refused(rules)),
            }
        };
        Ruling { policies, answer }
    }
}

type Found<'a> = (&'a String, Option<&'a Rule>);

/// What all permits that matched demand together.
fn together<'a>(mut rules: impl Iterator<Item = Found<'a>>) -> Result<Demand, Refusal> {
    rules.try_fold(Demand::default(), |demand, (id, rule)| match rule {
        Some(Rule::Permit(other)) => Ok(demand.and(other)),
        Some(Rule::Forbid(_)) | None => Err(errs(&format!("the policy `{id}` is not a permit"))),
    })
}

/// Why it is refused: the first forbid that matched, or that nothing permits it.
fn refused<'a>(mut rules: impl Iterator<Item = Found<'a>>) -> Refusal {
    match rules.next() {
        Some((id, Some(Rule::Forbid(reason)))) => {
            Refusal { policy: id.clone(), reason: reason.clone() }
        }
        Some((id, Some(Rule::Permit(_)) | None)) => {
            errs(&format!("the policy `{id}` is not a forbid"))
        }
        None => Refusal { policy: "default".into(), reason: "no policy permits it".into() },
    }
}

/// A refusal because policy could not be asked.
pub(super) fn errs(reason: &str) -> Refusal {
    Refusal { policy: "error".into(), reason: reason.into() }
}

fn erring(error: &AuthorizationError) -> String {
    match error {
        AuthorizationError::PolicyEvaluationError(error) => error.policy_id().to_string(),
    }
}

/// What an error of Cedar says, with its causes.
pub(super) fn detail<'a, E>(error: &'a E) -> String
where
    DetailedError: From<&'a E>,
{
    one_line(&DetailedError::from(error).message)
}

/// `line 7`, of the first place that an error points at.
fn place(error: &DetailedError, text: &str) -> String {
    line(text, error.source_locations.first().map_or(0, |label| label.loc.start))
}

fn place_of(source: &str, text: &str) -> String {
    line(text, text.find(source).unwrap_or(0))
}

/// A message on one line, without characters that a terminal would obey.
fn one_line(message: &dyn Display) -> String {
    let message = message.to_string();
    let words: Vec<_> = message.split_whitespace().collect();
    words.join(" ").replace(char::is_control, "\u{fffd}")
}
