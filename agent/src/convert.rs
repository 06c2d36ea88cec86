//! Scopes between the wire and the words of the format.

use std::collections::BTreeSet;
use std::time::Duration;

use dayfly_proto::v1;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::scope::{Constraint, Limit, Right, Scope, Value};
use dayfly_verifier::time::Timestamp;

/// A scope as it is sent.
#[must_use]
pub fn scope_to_wire(scope: &Scope) -> v1::Scope {
    let right = |Right { operation, resource }: &Right| v1::Right {
        operation: operation.to_string(),
        resource: resource.to_string(),
    };
    let constraint = |Constraint { argument, limit }: &Constraint| v1::Constraint {
        argument: argument.to_string(),
        limit: Some(limit_to_wire(limit)),
    };
    v1::Scope {
        rights: scope.rights().map(right).collect(),
        constraints: scope.constraints().map(constraint).collect(),
    }
}

fn limit_to_wire(limit: &Limit) -> v1::constraint::Limit {
    use v1::constraint::Limit as Wire;
    match limit {
        Limit::Equals(value) => Wire::Equals(value_to_wire(value)),
        Limit::OneOf(values) => {
            Wire::OneOf(v1::Values { values: values.iter().map(value_to_wire).collect() })
        }
        Limit::AtMost(most) => Wire::AtMost(*most),
        Limit::AtLeast(least) => Wire::AtLeast(*least),
    }
}

fn value_to_wire(value: &Value) -> v1::Value {
    use v1::value::Kind;
    let kind = match value {
        Value::Int(int) => Kind::Int(*int),
        Value::Text(text) => Kind::Text(text.to_string()),
        Value::Bool(bool) => Kind::Bool(*bool),
        Value::Hidden(digest) => Kind::Hidden(digest.to_vec().into()),
    };
    v1::Value { kind: Some(kind) }
}

/// A scope as it came.
pub fn scope_from_wire(scope: &v1::Scope) -> Result<Scope, Invalid> {
    let v1::Scope { rights, constraints } = scope;
    let right = |right: &v1::Right| {
        let v1::Right { operation, resource } = right;
        Ok(Right { operation: operation.parse()?, resource: resource.parse()? })
    };
    let rights: Vec<Right> = rights.iter().map(right).collect::<Result<_, Invalid>>()?;
    let constraints: Vec<Constraint> =
        constraints.iter().map(constraint_from_wire).collect::<Result<_, Invalid>>()?;
    Scope::new(rights, constraints)
}

fn constraint_from_wire(constraint: &v1::Constraint) -> Result<Constraint, Invalid> {
    use v1::constraint::Limit as Wire;
    let v1::Constraint { argument, limit } = constraint;
    let limit = match limit {
        Some(Wire::Equals(value)) => Limit::Equals(value_from_wire(value)?),
        Some(Wire::OneOf(v1::Values { values })) => {
            let set: BTreeSet<Value> =
                values.iter().map(value_from_wire).collect::<Result<_, _>>()?;
            if set.len() != values.len() {
                return Err(Invalid::new("constraint", "must not hold the same value twice"));
            }
            Limit::OneOf(set)
        }
        Some(Wire::AtMost(most)) => Limit::AtMost(*most),
        Some(Wire::AtLeast(least)) => Limit::AtLeast(*least),
        None => return Err(Invalid::new("constraint", "must have a limit")),
    };
    Ok(Constraint { argument: argument.parse()?, limit })
}

fn value_from_wire(value: &v1::Value) -> Result<Value, Invalid> {
    use v1::value::Kind;
    match &value.kind {
        Some(Kind::Int(int)) => Ok(Value::Int(*int)),
        Some(Kind::Text(text)) => Value::text(text),
        Some(Kind::Bool(bool)) => Ok(Value::Bool(*bool)),
        Some(Kind::Hidden(digest)) => {
            let digest = digest.as_ref().try_into();
            digest.map(Value::Hidden).map_err(|_| Invalid::new("value", "must be 32 bytes"))
        }
        None => Err(Invalid::new("value", "must be there")),
    }
}

/// A time as it came.
pub(crate) fn time(ms: i64) -> Result<Timestamp, Invalid> {
    let ms = u64::try_from(ms).map_err(|_| Invalid::new("time", "must not be negative"))?;
    Timestamp::from_ms(ms)
}

/// A span that must be whole seconds, as it is sent.
pub(crate) fn whole_seconds(span: Duration) -> Result<u64, Invalid> {
    if span.subsec_nanos() == 0 && !span.is_zero() {
        return Ok(span.as_secs());
    }
    Err(Invalid::new("lifetime", "must be whole seconds, at least one"))
}
