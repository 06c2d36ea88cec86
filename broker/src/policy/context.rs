//! What Cedar is told of a request: `principal`, and the `context` that every action takes.
//!
//! `context.args` holds what the scope says of each constrained argument, not values: a record
//! `{at_least?, at_most?, one_of?}`. What is absent is unbounded, so a policy that limits an
//! argument must ask for the limit to be there.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::num::NonZeroU32;
use std::time::Duration;

use cedar_policy::{Context, Entities, Entity, Request, RestrictedExpression as Expression};
use dayfly_verifier::id::{GroupId, PersonId, Purpose, TaskId};
use dayfly_verifier::scope::{ArgName, Limit, Scope, Value};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;

use crate::core::directory::Directory;
use crate::core::verdict::{Holdings, Refusal};

use super::problems::Problems;
use super::resources::Resources;
use super::rules::{Kind, Rules, detail, errs};

const DAYS: [&str; 7] =
    ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// What the context is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) principal: Option<&'a PersonId>,
    pub(super) scope: Option<&'a Scope>,
    pub(super) task: &'a TaskId,
    pub(super) purpose: &'a Purpose,
    pub(super) lifetime: Duration,
    pub(super) uses: Option<NonZeroU32>,
    pub(super) now: Timestamp,
    pub(super) holdings: Holdings,
}

/// The workload as an entity, in the groups of all rules that match it.
pub(super) fn workload(id: &SpiffeId, directory: &Directory) -> Result<Entity, Refusal> {
    let rules = directory.workloads.iter().filter(|rule| rule.ids.matches(id));
    member(Kind::Workload, id.as_str(), rules.flat_map(|rule| &rule.groups))
}

/// A person as an entity, in their groups.
pub(super) fn person(id: &PersonId, directory: &Directory) -> Result<Entity, Refusal> {
    let groups = directory.people.get(id).map(|person| &person.groups);
    member(Kind::Person, id.as_str(), groups.into_iter().flatten())
}

fn member<'a>(
    kind: Kind,
    id: &str,
    groups: impl Iterator<Item = &'a GroupId>,
) -> Result<Entity, Refusal> {
    let groups: HashSet<_> = groups.filter_map(|group| Kind::Group.uid(group.as_str())).collect();
    let uid = kind.uid(id).ok_or_else(|| errs("the caller has no name"))?;
    Ok(Entity::new_no_attrs(uid, groups))
}

/// The context. Refuses constraints that leave an argument no value: of nothing, all can be said.
pub(super) fn context(facts: Facts<'_>) -> Result<Context, Refusal> {
    let Facts { principal, scope, task, purpose, lifetime, uses, now, holdings } = facts;
    let Holdings { workload, task: for_task, owner } = holdings;
    let minutes = now.as_secs() / 60;
    // 1970-01-01 was a Thursday.
    let day = DAYS.iter().cycle().skip(3).nth(usize::try_from(minutes / 1440 % 7).unwrap_or(0));
    let now = record([
        ("ms", whole(now.as_ms())),
        ("minute_of_day", whole(minutes % 1440)),
        ("weekday", text(day.copied().unwrap_or_default())),
    ])?;
    let held = [("workload", workload), ("task", for_task), ("owner", owner)];
    let mut all = vec![
        ("task", text(task.as_str())),
        ("purpose", text(purpose.as_str())),
        ("lifetime", whole(lifetime.as_secs())),
        ("now", now),
        ("held", record(held.map(|(name, count)| (name, whole(count.into()))))?),
        ("args", arguments(scope)?),
    ];
    all.extend(uses.map(|uses| ("uses", whole(uses.get().into()))));
    let principal = principal.and_then(|person| Kind::Person.uid(person.as_str()));
    all.extend(principal.map(|person| ("principal", Expression::new_entity_uid(person))));
    let all = all.into_iter().map(|(name, value)| (name.to_owned(), value));
    Context::from_pairs(all).map_err(|_| errs("the context could not be built"))
}

/// What a scope says of one argument.
#[derive(Debug, Default)]
struct Bounds {
    at_least: Option<i64>,
    at_most: Option<i64>,
    one_of: Option<BTreeSet<Value>>,
}

fn arguments(scope: Option<&Scope>) -> Result<Expression, Refusal> {
    let mut all: BTreeMap<&ArgName, Bounds> = BTreeMap::new();
    for constraint in scope.iter().flat_map(|scope| scope.constraints()) {
        all.entry(&constraint.argument).or_default().add(&constraint.limit);
    }
    let all = all.into_iter().map(|(name, bounds)| Ok((name.as_str(), bounds.expression(name)?)));
    record(all.collect::<Result<Vec<_>, Refusal>>()?)
}

impl Bounds {
    fn add(&mut self, limit: &Limit) {
        match limit {
            Limit::AtLeast(least) => {
                self.at_least = Some(self.at_least.map_or(*least, |other| other.max(*least)));
            }
            Limit::AtMost(most) => {
                self.at_most = Some(self.at_most.map_or(*most, |other| other.min(*most)));
            }
            Limit::Equals(value) => self.only(&BTreeSet::from([value.clone()])),
            Limit::OneOf(values) => self.only(values),
        }
    }

    fn only(&mut self, values: &BTreeSet<Value>) {
        let values = match &self.one_of {
            Some(others) => others.intersection(values).cloned().collect(),
            None => values.clone(),
        };
        self.one_of = Some(values);
    }

    /// As a record. The least and the greatest of a set of numbers are its bounds.
    fn expression(mut self, name: &ArgName) -> Result<Expression, Refusal> {
        let (least, most) = (self.at_least.unwrap_or(i64::MIN), self.at_most.unwrap_or(i64::MAX));
        let bounded = self.at_least.is_some() || self.at_most.is_some();
        let mut members = Vec::new();
        let mut possible = least <= most;
        if let Some(values) = &mut self.one_of {
            values.retain(|value| match value {
                Value::Int(int) => (least..=most).contains(int),
                Value::Text(_) | Value::Bool(_) => !bounded,
                Value::Hidden(_) => false,
            });
            possible &= !values.is_empty();
            if let (Some(Value::Int(first)), Some(Value::Int(last))) =
                (values.first(), values.last())
            {
                (self.at_least, self.at_most) = (Some(*first), Some(*last));
            }
            let values = values.iter().filter_map(|value| match value {
                Value::Int(int) => Some(Expression::new_long(*int)),
                Value::Text(text) => Some(Expression::new_string(text.to_string())),
                Value::Bool(bool) => Some(Expression::new_bool(*bool)),
                Value::Hidden(_) => None,
            });
            members.push(("one_of", Expression::new_set(values)));
        }
        if !possible {
            let reason = format!("the constraints on `{name}` leave no value that is allowed");
            return Err(Refusal { policy: "default".into(), reason });
        }
        members.extend(self.at_least.map(|least| ("at_least", Expression::new_long(least))));
        members.extend(self.at_most.map(|most| ("at_most", Expression::new_long(most))));
        record(members)
    }
}

fn text(text: &str) -> Expression {
    Expression::new_string(text.to_owned())
}

fn whole(whole: u64) -> Expression {
    Expression::new_long(i64::try_from(whole).unwrap_or(i64::MAX))
}

fn record<'a>(
    members: impl IntoIterator<Item = (&'a str, Expression)>,
) -> Result<Expression, Refusal> {
    let members = members.into_iter().map(|(name, value)| (name.to_owned(), value));
    Expression::new_record(members).map_err(|_| errs("the context could not be built"))
}

/// Notes where the schema does not take what the broker will tell: a bundle whose every request
/// would be refused for that should not come into force.
pub(super) fn check_schema(
    rules: &Rules,
    directory: &Directory,
    resources: &Resources,
    problems: &mut Problems,
) {
    const SCHEMA: &str = "schema.cedarschema";
    let conforms = |entity| {
        let entities = Entities::from_entities([entity], Some(&rules.schema));
        entities.map(drop).map_err(|error| detail(&error))
    };
    for declared in resources.declared() {
        for point in resources.around(declared) {
            if let Err(error) = conforms(point.entity) {
                let place = format!("`{}`", declared.base);
                problems.add("resources.toml", place, error);
                break;
            }
        }
    }
    let people = directory.people.keys().map(|name| person(name, directory));
    let bases = directory
        .workloads
        .iter()
        .map(|rule| member(Kind::Workload, &rule.ids.to_string(), rule.groups.iter()));
    let mut entities = people.chain(bases).flatten();
    if let Some(error) = entities.find_map(|entity| conforms(entity).err()) {
        problems.add(SCHEMA, "Workload, Person, Group", error);
    }
    let operations = resources.declared().flat_map(|declared| &declared.operations);
    for operation in operations.collect::<BTreeSet<_>>() {
        if let Err(error) = probe(operation.as_str(), rules) {
            problems.add(SCHEMA, format_args!("action `{operation}`"), error);
        }
    }
}

/// Whether the action takes the broker's context, with all that may be absent and without.
fn probe(operation: &str, rules: &Rules) -> Result<(), String> {
    let none = || "cannot be probed".to_owned();
    let (Ok(name), Ok(task), Ok(purpose)) = ("probe".parse(), "probe".parse(), "probe".parse())
    else {
        return Err(none());
    };
    for full in [true, false] {
        let facts = Facts {
            principal: full.then_some(&name),
            scope: None,
            task: &task,
            purpose: &purpose,
            lifetime: Duration::from_secs(1),
            uses: full.then_some(NonZeroU32::MIN),
            now: Timestamp::default(),
            holdings: Holdings::default(),
        };
        let request = Request::new(
            Kind::Workload.uid("probe").ok_or_else(none)?,
            Kind::Action.uid(operation).ok_or_else(none)?,
            Kind::Resource.uid("probe").ok_or_else(none)?,
            context(facts).map_err(|refusal| refusal.reason)?,
            Some(&rules.schema),
        );
        request
            .map_err(|error| format!("does not take what the broker tells: {}", detail(&error)))?;
    }
    Ok(())
}
