//! Caveats as Datalog checks. Each is one query over one predicate with at most one expression.

use std::collections::BTreeSet;
use std::str::FromStr;

use super::schema::{self, Block, Check, Content, Operator, Term, op};
use super::terms::{Atom, Symbols, head};
use super::write::{Expression, Part, Writer};
use crate::caveat::Caveat;
use crate::resource::Resource;
use crate::scope::{Constraint, Limit, Value};
use crate::time::Timestamp;

/// The version of Datalog that a block with these checks has: 3 as such, 5 for a block that the
/// holder's key signs, 6 with the operator `==`.
pub(super) fn version(block: &Block, signed_by_holder: bool) -> u32 {
    let same = |e: &schema::Expression| {
        e.ops.iter().any(|o| match &o.operator {
            Some(Operator::Binary(binary)) => binary.kind == op::SAME,
            Some(Operator::Value(_)) | None => false,
        })
    };
    let mut queries = block.checks.iter().flat_map(|check| &check.queries);
    match queries.any(|query| query.expressions.iter().any(same)) {
        true => 6,
        false if signed_by_holder => 5,
        false => 3,
    }
}

/// The check that says `caveat`.
pub(super) fn write(caveat: &Caveat, block: &mut Writer) {
    match caveat {
        Caveat::Before(end) => {
            let before = Expression::Compare("t", op::LESS, Part::Is(Atom::date(*end)));
            block.check(&[(&[("time", &[Part::Var("t")])], Some(before))]);
        }
        Caveat::Operation(set) => names("operation", set.iter().map(|o| o.as_str()), block),
        Caveat::Resource(set) => names("resource", set.iter().map(|r| r.as_str()), block),
        Caveat::Gateway(set) => names("gateway", set.iter().map(|g| g.as_str()), block),
        Caveat::Task(set) => names("task", set.iter().map(|t| t.as_str()), block),
        Caveat::Below(base) => {
            let prefix = below(base);
            let prefix = Part::Is(Atom::Text(&prefix));
            let under = Expression::Compare("r", op::STARTS_WITH, prefix);
            block.check(&[(&[("resource", &[Part::Var("r")])], Some(under))]);
        }
        Caveat::Argument(constraint) => argument(constraint, block),
    }
}

/// The text with which every resource below `base` begins.
pub(super) fn below(base: &Resource) -> String {
    format!("{base}/")
}

fn names<'a>(predicate: &str, set: impl ExactSizeIterator<Item = &'a str>, block: &mut Writer) {
    let set: Vec<Atom<'_>> = set.map(Atom::Text).collect();
    match set.as_slice() {
        [only] => block.check(&[(&[(predicate, &[Part::Is(*only)])], None)]),
        _ => {
            let among = Expression::Contains(set, "x");
            block.check(&[(&[(predicate, &[Part::Var("x")])], Some(among))]);
        }
    }
}

fn argument(constraint: &Constraint, block: &mut Writer) {
    let name = Part::Is(Atom::Text(constraint.argument.as_str()));
    let compare = |kind, limit| Some(Expression::Compare("v", kind, Part::Is(Atom::Int(limit))));
    let (value, limit) = match &constraint.limit {
        Limit::Equals(value) => (Part::Is(Atom::of(value)), None),
        Limit::OneOf(values) => {
            let values = values.iter().map(Atom::of).collect();
            (Part::Var("v"), Some(Expression::Contains(values, "v")))
        }
        Limit::AtMost(most) => (Part::Var("v"), compare(op::AT_MOST, *most)),
        Limit::AtLeast(least) => (Part::Var("v"), compare(op::AT_LEAST, *least)),
    };
    block.check(&[(&[("arg", &[name, value])], limit)]);
}

/// What a check demands of the one value it is about.
enum Demand<'a> {
    Is(Atom<'a>),
    In(Vec<Atom<'a>>),
    Less(Atom<'a>),
    AtMost(Atom<'a>),
    AtLeast(Atom<'a>),
    StartsWith(Atom<'a>),
}

/// The caveat that `check` says; `None` if it is none of the numbered shapes.
pub(super) fn read(check: &Check, symbols: &Symbols) -> Option<Caveat> {
    let [query] = check.queries.as_slice() else { return None };
    let [predicate] = query.body.as_slice() else { return None };
    if query.head != head() {
        return None;
    }
    let (name, about) = match (symbols.get(predicate.name)?, predicate.terms.as_slice()) {
        ("arg", [name, value]) => (Some(symbols.atom(name)?), value),
        (_, [value]) => (None, value),
        _ => return None,
    };
    let demand = demand(about, &query.expressions, symbols)?;
    let caveat = match (symbols.get(predicate.name)?, name) {
        ("time", None) => Caveat::Before(end(&demand)?),
        ("operation", None) => Caveat::Operation(parsed(&demand)?),
        ("resource", None) => match below_of(&demand) {
            Some(prefix) => Caveat::Below(prefix.strip_suffix('/')?.parse().ok()?),
            None => Caveat::Resource(parsed(&demand)?),
        },
        ("gateway", None) => Caveat::Gateway(parsed(&demand)?),
        ("task", None) => Caveat::Task(parsed(&demand)?),
        ("arg", Some(Atom::Text(name))) => {
            Caveat::Argument(Constraint { argument: name.parse().ok()?, limit: limit(demand)? })
        }
        _ => return None,
    };
    caveat.check().ok()?;
    Some(caveat)
}

fn demand<'a>(
    about: &'a Term,
    expressions: &'a [schema::Expression],
    symbols: &'a Symbols,
) -> Option<Demand<'a>> {
    let Some(Content::Variable(variable)) = about.content else {
        return expressions.is_empty().then_some(Demand::Is(symbols.atom(about)?));
    };
    let [expression] = expressions else { return None };
    let [left, right, operator] = expression.ops.as_slice() else { return None };
    let (Some(Operator::Value(left)), Some(Operator::Value(right))) =
        (&left.operator, &right.operator)
    else {
        return None;
    };
    let Some(Operator::Binary(operator)) = &operator.operator else { return None };
    let is_it = |term: &Term| term.content == Some(Content::Variable(variable));
    if operator.kind == op::CONTAINS {
        return is_it(right).then_some(Demand::In(symbols.atoms(left)?));
    }
    let literal = symbols.atom(right)?;
    match operator.kind {
        _ if !is_it(left) => None,
        op::EQUAL | op::SAME => Some(Demand::Is(literal)),
        op::LESS => Some(Demand::Less(literal)),
        op::AT_MOST => Some(Demand::AtMost(literal)),
        op::AT_LEAST => Some(Demand::AtLeast(literal)),
        op::STARTS_WITH => Some(Demand::StartsWith(literal)),
        _ => None,
    }
}

/// The text that the value must begin with.
fn below_of<'a>(demand: &Demand<'a>) -> Option<&'a str> {
    if let Demand::StartsWith(Atom::Text(prefix)) = *demand { Some(prefix) } else { None }
}

/// The first second that is too late.
fn end(demand: &Demand<'_>) -> Option<Timestamp> {
    match demand {
        Demand::Less(Atom::Date(secs)) => Timestamp::from_secs(*secs).ok(),
        Demand::AtMost(Atom::Date(secs)) => Timestamp::from_secs(secs.checked_add(1)?).ok(),
        Demand::Is(_) | Demand::In(_) | Demand::AtLeast(_) | Demand::StartsWith(_) => None,
        Demand::Less(_) | Demand::AtMost(_) => None,
    }
}

/// The texts of an equality or a set, each as what it must be.
fn parsed<T: FromStr + Ord>(demand: &Demand<'_>) -> Option<BTreeSet<T>> {
    let one = |atom: &Atom<'_>| match atom {
        Atom::Text(text) => text.parse().ok(),
        Atom::Int(_) | Atom::Date(_) | Atom::Bytes(_) | Atom::Bool(_) => None,
    };
    match demand {
        Demand::Is(atom) => Some(BTreeSet::from([one(atom)?])),
        Demand::In(atoms) => atoms.iter().map(one).collect(),
        Demand::Less(_) | Demand::AtMost(_) | Demand::AtLeast(_) => None,
        Demand::StartsWith(_) => None,
    }
}

fn limit(demand: Demand<'_>) -> Option<Limit> {
    match demand {
        Demand::Is(atom) => atom.value().map(Limit::Equals),
        Demand::In(atoms) => {
            let values: Option<BTreeSet<Value>> = atoms.into_iter().map(Atom::value).collect();
            values.map(Limit::OneOf)
        }
        Demand::AtMost(Atom::Int(most)) => Some(Limit::AtMost(most)),
        Demand::AtLeast(Atom::Int(least)) => Some(Limit::AtLeast(least)),
        Demand::AtMost(_) | Demand::AtLeast(_) | Demand::Less(_) | Demand::StartsWith(_) => None,
    }
}
