//! What may be done: rights, and the constraints on arguments that hold for all of them.

mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::invalid::Invalid;
use crate::resource::{Operation, Resource, ResourcePattern};

/// The most rights in one scope.
pub const MAX_RIGHTS: usize = 16;
/// The most constraints in one scope.
pub const MAX_CONSTRAINTS: usize = 16;
/// The most members of one [`Limit::OneOf`].
pub const MAX_ONE_OF: usize = 32;
/// The longest text value, in bytes.
pub const MAX_TEXT_BYTES: usize = 256;

/// The name of an argument: `amount`, `order_id`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArgName(Arc<str>);

impl ArgName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ArgName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ArgName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let alphabet = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_');
        let starts = text.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
        if !starts || text.len() > 64 || !text.bytes().all(alphabet) {
            let rule = "must be 1 to 64 of the characters a-z 0-9 _ and begin with a letter";
            return Err(Invalid::new("argument", rule));
        }
        Ok(Self(text.into()))
    }
}

/// The value of an argument. Values of different types are never equal and never ordered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// A whole number. There are no others: amounts are in the smallest unit.
    Int(i64),
    /// Text of at most [`MAX_TEXT_BYTES`], compared byte for byte.
    Text(Arc<str>),
    /// True or false.
    Bool(bool),
    /// A value that policy marks sensitive, as the commitment `SHA-256(salt, typed value)`. It can
    /// be equal to another, and a member of a set; it has no order.
    Hidden([u8; 32]),
}

impl Value {
    /// A text value; refuses one that is too long.
    pub fn text(text: &str) -> Result<Self, Invalid> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(Invalid::new("value", "text must not be longer than 256 bytes"));
        }
        Ok(Self::Text(text.into()))
    }
}

impl fmt::Display for Value {
    /// As in Datalog: `500`, `"o-17"` with escapes, `true`, `hex:00ff`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(int) => int.fmt(f),
            Self::Text(text) => write!(f, "\"{}\"", text.escape_default()),
            Self::Bool(bool) => bool.fmt(f),
            Self::Hidden(digest) => write!(f, "hex:{}", hex::encode(digest)),
        }
    }
}

/// The arguments of one call, each name once.
pub type Arguments = BTreeMap<ArgName, Value>;

/// What a constraint demands of its argument.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// Exactly this value.
    Equals(Value),
    /// One of these values, of one type.
    OneOf(BTreeSet<Value>),
    /// A whole number, at most this.
    AtMost(i64),
    /// A whole number, at least this.
    AtLeast(i64),
}

impl Limit {
    /// Refuses a set without values, with more than [`MAX_ONE_OF`], or of values of several types.
    pub fn check(&self) -> Result<(), Invalid> {
        let Self::OneOf(values) = self else { return Ok(()) };
        if values.is_empty() || values.len() > MAX_ONE_OF {
            return Err(Invalid::new("constraints", "a set must have 1 to 32 values"));
        }
        let kinds: BTreeSet<_> = values.iter().map(kind).collect();
        if kinds.len() > 1 {
            return Err(Invalid::new("constraints", "the values of a set must be of one type"));
        }
        Ok(())
    }

    /// Whether `value` satisfies the limit. A value of another type does not.
    #[must_use]
    pub fn allows(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Equals(wanted), value) => wanted == value,
            (Self::OneOf(wanted), value) => wanted.contains(value),
            (Self::AtMost(most), Value::Int(int)) => int <= most,
            (Self::AtLeast(least), Value::Int(int)) => int >= least,
            (Self::AtMost(_) | Self::AtLeast(_), Value::Text(_)) => false,
            (Self::AtMost(_) | Self::AtLeast(_), Value::Bool(_) | Value::Hidden(_)) => false,
        }
    }

    /// Whether every value that satisfies `inner` satisfies this limit too, judged by this pair
    /// alone: `false` where it cannot be told.
    #[must_use]
    pub fn covers(&self, inner: &Self) -> bool {
        match (self, inner) {
            (outer, Self::Equals(value)) => outer.allows(value),
            (outer, Self::OneOf(values)) => values.iter().all(|value| outer.allows(value)),
            (Self::AtMost(outer), Self::AtMost(inner)) => inner <= outer,
            (Self::AtLeast(outer), Self::AtLeast(inner)) => inner >= outer,
            (Self::AtMost(_), Self::AtLeast(_)) | (Self::AtLeast(_), Self::AtMost(_)) => false,
            (Self::Equals(_) | Self::OneOf(_), Self::AtMost(_) | Self::AtLeast(_)) => false,
        }
    }
}

/// A limit on one argument.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Constraint {
    /// The argument.
    pub argument: ArgName,
    /// What it must satisfy.
    pub limit: Limit,
}

impl Constraint {
    /// Whether the constrained argument is there and satisfies the limit.
    #[must_use]
    pub fn allows(&self, arguments: &Arguments) -> bool {
        arguments.get(&self.argument).is_some_and(|value| self.limit.allows(value))
    }
}

impl fmt::Display for Constraint {
    /// As it is written on the command line: `amount <= 500`, `order_id = "o-17"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let argument = &self.argument;
        match &self.limit {
            Limit::Equals(value) => write!(f, "{argument} = {value}"),
            Limit::AtMost(most) => write!(f, "{argument} <= {most}"),
            Limit::AtLeast(least) => write!(f, "{argument} >= {least}"),
            Limit::OneOf(values) => {
                let values: Vec<String> = values.iter().map(Value::to_string).collect();
                write!(f, "{argument} in [{}]", values.join(", "))
            }
        }
    }
}

/// One operation on the resources of one pattern.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Right {
    /// How.
    pub operation: Operation,
    /// On what.
    pub resource: ResourcePattern,
}

impl fmt::Display for Right {
    /// `read orders-db/prod/customers`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operation, self.resource)
    }
}

/// Rights, and the constraints that hold for every one of them. In one order, each once. A clone
/// shares them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    rights: Arc<[Right]>,
    constraints: Arc<[Constraint]>,
}

/// Why a scope does not let a call through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutOfScope {
    /// No right has this operation on this resource.
    Right,
    /// This constrained argument is absent, or is not what its constraint demands.
    Argument(ArgName),
}

impl Scope {
    /// A scope of 1 to 16 rights and at most 16 constraints; a repeated one is refused.
    pub fn new(
        rights: impl IntoIterator<Item = Right>,
        constraints: impl IntoIterator<Item = Constraint>,
    ) -> Result<Self, Invalid> {
        let rights = distinct(rights, "rights")?;
        let constraints = distinct(constraints, "constraints")?;
        if rights.is_empty() || rights.len() > MAX_RIGHTS {
            return Err(Invalid::new("rights", "must be 1 to 16"));
        }
        if constraints.len() > MAX_CONSTRAINTS {
            return Err(Invalid::new("constraints", "must be at most 16"));
        }
        for Constraint { limit, .. } in &constraints {
            limit.check()?;
        }
        let (rights, constraints) = (rights.into_iter(), constraints.into_iter());
        Ok(Self { rights: rights.collect(), constraints: constraints.collect() })
    }

    /// The rights, in order.
    pub fn rights(&self) -> impl ExactSizeIterator<Item = &Right> {
        self.rights.iter()
    }

    /// The constraints, in order.
    pub fn constraints(&self) -> impl ExactSizeIterator<Item = &Constraint> {
        self.constraints.iter()
    }

    /// Whether a call of `operation` on `resource` with `arguments` lies inside. Every constrained
    /// argument must be there and satisfy its constraint, for any of the rights.
    pub fn allows(
        &self,
        operation: &Operation,
        resource: &Resource,
        arguments: &Arguments,
    ) -> Result<(), OutOfScope> {
        let fits = |r: &Right| r.operation == *operation && r.resource.matches(resource);
        if !self.rights.iter().any(fits) {
            return Err(OutOfScope::Right);
        }
        for constraint in &*self.constraints {
            if !constraint.allows(arguments) {
                return Err(OutOfScope::Argument(constraint.argument.clone()));
            }
        }
        Ok(())
    }

    /// Whether every call inside `inner` lies inside this scope too: each of its rights is covered
    /// by one of ours, and each of our constraints by one of its.
    #[must_use]
    pub fn covers(&self, inner: &Self) -> bool {
        let right = |inner: &Right| {
            self.rights.iter().any(|outer| {
                outer.operation == inner.operation && outer.resource.covers(&inner.resource)
            })
        };
        let constraint = |outer: &Constraint| {
            inner
                .constraints
                .iter()
                .any(|inner| outer.argument == inner.argument && outer.limit.covers(&inner.limit))
        };
        inner.rights.iter().all(right) && self.constraints.iter().all(constraint)
    }

    /// This scope with only `rights` (all of them if `None`) and with `constraints` added.
    ///
    /// Refuses rights that are not covered by this scope's, and what [`Scope::new`] refuses.
    pub fn narrowed(
        &self,
        rights: Option<&BTreeSet<Right>>,
        constraints: &BTreeSet<Constraint>,
    ) -> Result<Self, Invalid> {
        let rights: BTreeSet<_> = match rights {
            Some(rights) => rights.clone(),
            None => self.rights.iter().cloned().collect(),
        };
        let constraints: BTreeSet<_> =
            self.constraints.iter().chain(constraints).cloned().collect();
        let narrowed = Self::new(rights, constraints)?;
        if self.covers(&narrowed) {
            Ok(narrowed)
        } else {
            Err(Invalid::new("rights", "must lie inside the rights that were asked for"))
        }
    }
}

fn distinct<T: Ord>(
    items: impl IntoIterator<Item = T>,
    field: &'static str,
) -> Result<BTreeSet<T>, Invalid> {
    let mut set = BTreeSet::new();
    for item in items {
        if !set.insert(item) {
            return Err(Invalid::new(field, "must not hold the same one twice"));
        }
    }
    Ok(set)
}

const fn kind(value: &Value) -> u8 {
    match value {
        Value::Int(_) => 0,
        Value::Text(_) => 1,
        Value::Bool(_) => 2,
        Value::Hidden(_) => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(operation: &str, resource: &str) -> Right {
        Right { operation: operation.parse().unwrap(), resource: resource.parse().unwrap() }
    }

    fn at_most(argument: &str, most: i64) -> Constraint {
        Constraint { argument: argument.parse().unwrap(), limit: Limit::AtMost(most) }
    }

    fn refund(constraints: Vec<Constraint>) -> Scope {
        Scope::new([right("refund", "orders/prod/**")], constraints).unwrap()
    }

    #[test]
    fn refuses_no_rights_too_many_and_repeats() {
        assert!(Scope::new([], []).is_err());
        let many = (0..17).map(|n| right("read", &format!("a/{n}")));
        assert!(Scope::new(many, []).is_err());
        assert!(Scope::new([right("read", "a"), right("read", "a")], []).is_err());
        let mixed = BTreeSet::from([Value::Int(1), Value::Bool(true)]);
        let mixed = Constraint { argument: "x".parse().unwrap(), limit: Limit::OneOf(mixed) };
        assert!(Scope::new([right("read", "a")], [mixed]).is_err());
    }

    #[test]
    fn an_absent_or_differently_typed_argument_refuses() {
        let scope = refund(vec![at_most("amount", 500)]);
        let allows = |arguments: &[(&str, Value)]| {
            let arguments =
                arguments.iter().map(|(n, v)| (n.parse().unwrap(), v.clone())).collect();
            let (operation, resource) =
                ("refund".parse().unwrap(), "orders/prod/7".parse().unwrap());
            scope.allows(&operation, &resource, &arguments)
        };
        let refused = Err(OutOfScope::Argument("amount".parse().unwrap()));
        assert_eq!(allows(&[]), refused);
        assert_eq!(allows(&[("amount", Value::text("1").unwrap())]), refused);
        assert_eq!(allows(&[("amount", Value::Int(501))]), refused);
        assert_eq!(allows(&[("amount", Value::Int(500))]), Ok(()));
    }

    #[test]
    fn narrowing_never_widens() {
        let scope = refund(vec![at_most("amount", 500)]);
        let wider = BTreeSet::from([right("refund", "orders/**")]);
        assert!(scope.narrowed(Some(&wider), &BTreeSet::new()).is_err());
        let tighter = BTreeSet::from([at_most("amount", 100)]);
        let narrowed = scope.narrowed(None, &tighter).unwrap();
        assert!(scope.covers(&narrowed) && !narrowed.covers(&scope));
        assert!(!refund(vec![]).narrowed(None, &tighter).unwrap().covers(&scope));
        assert!(!scope.covers(&refund(vec![])));
    }
}
