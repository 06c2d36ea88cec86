//! What a bundle says of one request.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use cedar_policy::{Context, Entities, EntityUid, Request as Ask};
use dayfly_verifier::id::{PersonId, Purpose, TaskId};
use dayfly_verifier::request::{Request, Requirement};
use dayfly_verifier::resource::Operation;
use dayfly_verifier::scope::{Right, Scope};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;

use crate::core::command::Filing;
use crate::core::event::Terms;
use crate::core::verdict::{Basis, Holdings, Outcome, Refusal, Verdict};

use super::bundle::Bundle;
use super::context::{self, Facts};
use super::requirement::Demand;
use super::resources::Point;
use super::rules::{Kind, Rules, Ruling, errs};

/// The most points (an operation on a declared resource) at which one request is decided.
pub const MAX_POINTS: usize = 256;

/// What is asked of a bundle: one request, at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who asks.
    pub workload: &'a SpiffeId,
    /// On whose behalf.
    pub principal: Option<&'a PersonId>,
    /// For which gateway.
    pub audience: &'a SpiffeId,
    /// What is to be allowed.
    pub scope: &'a Scope,
    /// For which task.
    pub task: &'a TaskId,
    /// Why.
    pub purpose: &'a Purpose,
    /// The lease that is asked for; `None` for the default.
    pub lifetime: Option<Duration>,
    /// The lease of a request that asks for none.
    pub default_lease: Duration,
    /// The number of uses that is asked for; `None` for the default.
    pub uses: Option<NonZeroU32>,
    /// Whether more than policy allows is refused, as for a filing that says how much it wants,
    /// or is cut to what policy allows.
    pub exactly: bool,
    /// The time of the decision.
    pub now: Timestamp,
}

impl<'a> Question<'a> {
    /// About a request as it is being filed by `workload`.
    #[must_use]
    pub fn of_filing(
        filing: &'a Filing,
        workload: &'a SpiffeId,
        default_lease: Duration,
        now: Timestamp,
    ) -> Self {
        let Filing { principal, audience, scope, task, purpose, lifetime, .. } = filing;
        Self {
            workload,
            principal: principal.as_ref(),
            audience,
            scope,
            task,
            purpose,
            lifetime: *lifetime,
            default_lease,
            uses: filing.uses.or(filing.default_uses),
            exactly: true,
            now,
        }
    }

    /// About a request that was filed: before an approval, and when a new bundle comes.
    #[must_use]
    pub fn of_request(request: &'a Request, now: Timestamp) -> Self {
        Self {
            workload: &request.workload,
            principal: request.principal.as_ref(),
            audience: &request.audience,
            scope: &request.scope,
            task: &request.task,
            purpose: &request.purpose,
            lifetime: Some(request.lifetime),
            default_lease: request.lifetime,
            uses: request.uses,
            exactly: false,
            now,
        }
    }

    /// About the grant that a request became: at an exchange, and when a new bundle comes.
    #[must_use]
    pub fn of_grant(request: &'a Request, terms: &'a Terms, now: Timestamp) -> Self {
        Self {
            scope: &terms.scope,
            lifetime: Some(terms.until.since(terms.from)),
            uses: terms.uses,
            ..Self::of_request(request, now)
        }
    }
}

impl Question<'_> {
    fn lease(&self) -> Duration {
        self.lifetime.unwrap_or(self.default_lease)
    }

    /// The same for no more than `demand` allows.
    fn cut_to(&self, demand: &Demand) -> Self {
        let lifetime = self.lease().min(demand.max_lease().0);
        let most = demand.max_uses().map(|(most, _)| most);
        let uses = self.uses.into_iter().chain(most).min();
        Self { lifetime: Some(lifetime), uses, ..*self }
    }
}

/// What `bundle` says, given what a state has besides the request; the basis of the verdict names
/// `bundle`, whichever is in force there.
///
/// A request is decided at every point of every right, and the most restrictive answer holds: one
/// forbid, one gap or one error refuses it, and the requirement is that of all answers together.
#[must_use]
pub fn evaluate(bundle: &Bundle, question: &Question<'_>, basis: Basis) -> Verdict {
    let basis = Basis { bundle: bundle.digest(), ..basis };
    let ask = || match judge(bundle, question, basis.holdings) {
        Ok(requirement) => Outcome::Permitted(requirement),
        Err(refusal) => Outcome::Refused(refusal),
    };
    let outcome = bundle.memo.answer(question, basis.holdings, ask);
    Verdict { basis, outcome }
}

/// What policies said at one point: for people who want to know why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The operation.
    pub operation: Operation,
    /// The resource; `a/b/**` for all below `a/b` that is not declared itself.
    pub resource: String,
    /// The policies that decided, by name.
    pub policies: Vec<String>,
    /// What is demanded at this point, or why it is refused.
    pub outcome: Outcome,
}

/// What policies say at each point of a request; or why they were not even asked.
pub fn examine(
    bundle: &Bundle,
    question: &Question<'_>,
    holdings: Holdings,
) -> Result<Vec<Finding>, Refusal> {
    let case = Case::prepare(bundle, question, holdings)?;
    let finding = |(right, ruling): (&(Operation, Point<'_>), Ruling)| {
        let (operation, point) = right;
        let outcome = match ruling.answer {
            Ok(demand) => Outcome::Permitted(demand.requirement()),
            Err(refusal) => Outcome::Refused(refusal),
        };
        let resource = point.entity.uid().id().unescaped().to_owned();
        Finding { operation: operation.clone(), resource, policies: ruling.policies, outcome }
    };
    Ok(case.points.iter().zip(case.rulings()).map(finding).collect())
}

fn judge(
    bundle: &Bundle,
    question: &Question<'_>,
    holdings: Holdings,
) -> Result<Requirement, Refusal> {
    let (mut asked, mut demand) = (*question, Demand::default());
    // What policies cut is asked about again as it was cut: it is that which will be given, and
    // other policies may speak of it. Each round cuts to what some policy says, so there is a last.
    loop {
        let case = Case::prepare(bundle, &asked, holdings)?;
        demand = case
            .rulings()
            .try_fold(demand, |demand, ruling| ruling.answer.map(|other| demand.and(&other)))?;
        if question.exactly {
            within(question, &demand)?;
        }
        let given = asked.cut_to(&demand);
        if (given.lease(), given.uses) == (asked.lease(), asked.uses) {
            return Ok(demand.requirement());
        }
        asked = given;
    }
}

/// Refuses more than policies allow, in the name of the one that set the limit.
fn within(question: &Question<'_>, demand: &Demand) -> Result<(), Refusal> {
    let (most, by) = demand.max_lease();
    if question.lifetime.is_some_and(|asked| asked > most) {
        let reason = format!("a lease may last at most {} seconds", most.as_secs());
        return Err(Refusal { policy: by.into(), reason });
    }
    if let Some((most, by)) = demand.max_uses()
        && question.uses.is_some_and(|asked| asked > most)
    {
        let reason = format!("there may be at most {most} uses");
        return Err(Refusal { policy: by.into(), reason });
    }
    Ok(())
}

/// The number of uses of a filing that does not say: one where a right is destructive.
#[must_use]
pub fn default_uses(bundle: &Bundle, scope: &Scope) -> Option<NonZeroU32> {
    let destructive = scope.rights().any(|right| {
        // A right that reaches more of them is refused, whatever they are.
        let mut points = bundle.resources.points(&right.resource).take(MAX_POINTS);
        points.any(|point| point.is_destructive(&right.operation))
    });
    destructive.then_some(NonZeroU32::MIN)
}

/// A question, ready to be put to the policies.
struct Case<'a> {
    rules: &'a Rules,
    workload: EntityUid,
    points: Vec<(Operation, Point<'a>)>,
    context: Context,
    entities: Entities,
}

impl<'a> Case<'a> {
    /// Refuses what is not declared, before any policy is asked.
    fn prepare(
        bundle: &'a Bundle,
        question: &Question<'_>,
        holdings: Holdings,
    ) -> Result<Self, Refusal> {
        let directory = bundle.directory();
        if !directory.workloads.iter().any(|rule| rule.ids.matches(question.workload)) {
            return Err(refuse(format!("`{}` is not a workload", question.workload)));
        }
        if !bundle.resources.purposes.contains(question.purpose) {
            return Err(refuse(format!("`{}` is not a purpose", question.purpose)));
        }
        if let Some(name) = question.principal.filter(|name| !directory.people.contains_key(*name))
        {
            return Err(refuse(format!("`{name}` is not a person")));
        }
        let points = points(bundle, question)?;
        let destructive = points.iter().any(|(operation, at)| at.is_destructive(operation));
        let facts = Facts {
            principal: question.principal,
            scope: Some(question.scope),
            task: question.task,
            purpose: question.purpose,
            lifetime: question.lease(),
            uses: question.uses.or(destructive.then_some(NonZeroU32::MIN)),
            now: question.now,
            holdings,
        };
        let workload = context::workload(question.workload, directory)?;
        let mut entities = HashMap::from([(workload.uid(), workload.clone())]);
        if let Some(name) = question.principal {
            let person = context::person(name, directory)?;
            entities.insert(person.uid(), person);
        }
        entities.extend(points.iter().map(|(_, at)| (at.entity.uid(), at.entity.clone())));
        let entities = bundle.rules.entities(entities.into_values())?;
        let context = context::context(facts)?;
        let rules = &bundle.rules;
        Ok(Self { rules, workload: workload.uid(), points, context, entities })
    }

    /// What the policies say, point by point.
    fn rulings(&self) -> impl Iterator<Item = Ruling> {
        self.points.iter().map(|(operation, point)| {
            let request = Kind::Action.uid(operation.as_str()).and_then(|action| {
                let (resource, context) = (point.entity.uid(), self.context.clone());
                let schema = Some(&self.rules.schema);
                Ask::new(self.workload.clone(), action, resource, context, schema).ok()
            });
            let Some(request) = request else {
                let unknown = "an argument, or its type, is not in the schema of the bundle";
                return Ruling { policies: Vec::new(), answer: Err(errs(unknown)) };
            };
            let Ruling { policies, answer } = self.rules.ask(&request, &self.entities);
            let once = |demand: Demand| {
                if point.is_destructive(operation) { demand.destructive() } else { demand }
            };
            Ruling { policies, answer: answer.map(once) }
        })
    }
}

/// Every point of every right, each guarded by the audience and open to the operation.
fn points<'a>(
    bundle: &'a Bundle,
    question: &Question<'_>,
) -> Result<Vec<(Operation, Point<'a>)>, Refusal> {
    let mut all = Vec::new();
    for Right { operation, resource } in question.scope.rights() {
        let before = all.len();
        let points = bundle.resources.points(resource).take(MAX_POINTS.saturating_add(1));
        for point in points {
            let name = &point.declared.base;
            if point.declared.gateway != *question.audience {
                return Err(refuse(format!("`{}` does not guard `{name}`", question.audience)));
            }
            if !point.declared.operations.contains(operation) {
                return Err(refuse(format!("`{operation}` is not an operation of `{name}`")));
            }
            all.push((operation.clone(), point));
        }
        if all.len() == before {
            return Err(refuse(format!("`{resource}` is not a declared resource")));
        }
        if all.len() > MAX_POINTS {
            let reason = format!("it reaches more than {MAX_POINTS} declared resources");
            return Err(refuse(reason));
        }
    }
    Ok(all)
}

/// A refusal by the rules that no policy can switch off.
fn refuse(reason: String) -> Refusal {
    Refusal { policy: "default".into(), reason }
}
