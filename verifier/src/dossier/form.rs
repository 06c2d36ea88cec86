//! The words of requests and statements as JSON. Integers are decimal strings, since a JSON number
//! is a double to many readers; what is absent is left out; sets are ordered by their own bytes.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::invalid::Invalid;
use crate::resource::{Operation, ResourcePattern};
use crate::scope::{ArgName, Constraint, Limit, Right, Value};

/// A value that stands in JSON as the text that it prints.
pub(super) struct Text<T>(pub(super) T);

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Text).map_err(D::Error::custom)
    }
}

/// The RFC 8785 form of `value`.
#[expect(
    clippy::expect_used,
    reason = "text, booleans, lists and objects always have a canonical form; a digest over \
              anything else must never come to be"
)]
pub(super) fn write(value: &impl Serialize) -> Vec<u8> {
    serde_json_canonicalizer::to_vec(value).expect("forms hold neither numbers nor odd keys")
}

/// Reads `bytes`, at most `max` of them, as a `T` with exactly its members. Whether they are its
/// canonical form is for the caller to check, on the value that came of them.
pub(super) fn read<T: DeserializeOwned>(
    bytes: &[u8],
    max: usize,
    field: &'static str,
) -> Result<T, Invalid> {
    if bytes.len() > max {
        return Err(Invalid::new(field, format!("must not be longer than {max} bytes")));
    }
    serde_json::from_slice(bytes)
        .map_err(|_| Invalid::new(field, "must have exactly the members of its form"))
}

/// The members of a set in the order of their canonical bytes.
pub(super) fn set<'a, T: 'a, F: Serialize + From<&'a T>>(
    members: impl IntoIterator<Item = &'a T>,
) -> Vec<F> {
    let mut forms: Vec<F> = members.into_iter().map(F::from).collect();
    forms.sort_by_cached_key(write);
    forms
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RightForm {
    operation: Text<Operation>,
    resource: Text<ResourcePattern>,
}

impl From<&Right> for RightForm {
    fn from(Right { operation, resource }: &Right) -> Self {
        Self { operation: Text(operation.clone()), resource: Text(resource.clone()) }
    }
}

impl From<RightForm> for Right {
    fn from(RightForm { operation, resource }: RightForm) -> Self {
        Self { operation: operation.0, resource: resource.0 }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConstraintForm {
    argument: Text<ArgName>,
    limit: LimitForm,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LimitForm {
    Equals(ValueForm),
    OneOf(Vec<ValueForm>),
    AtMost(Text<i64>),
    AtLeast(Text<i64>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ValueForm {
    Int(Text<i64>),
    Text(String),
    Bool(bool),
    Hidden(String),
}

impl From<&Constraint> for ConstraintForm {
    fn from(Constraint { argument, limit }: &Constraint) -> Self {
        let limit = match limit {
            Limit::Equals(value) => LimitForm::Equals(value.into()),
            Limit::OneOf(values) => LimitForm::OneOf(set(values)),
            Limit::AtMost(most) => LimitForm::AtMost(Text(*most)),
            Limit::AtLeast(least) => LimitForm::AtLeast(Text(*least)),
        };
        Self { argument: Text(argument.clone()), limit }
    }
}

impl TryFrom<ConstraintForm> for Constraint {
    type Error = Invalid;

    fn try_from(ConstraintForm { argument, limit }: ConstraintForm) -> Result<Self, Invalid> {
        let limit = match limit {
            LimitForm::Equals(value) => Limit::Equals(value.try_into()?),
            LimitForm::OneOf(values) => {
                let values = values.into_iter().map(Value::try_from);
                Limit::OneOf(values.collect::<Result<BTreeSet<_>, _>>()?)
            }
            LimitForm::AtMost(most) => Limit::AtMost(most.0),
            LimitForm::AtLeast(least) => Limit::AtLeast(least.0),
        };
        limit.check()?;
        Ok(Self { argument: argument.0, limit })
    }
}

impl From<&Value> for ValueForm {
    fn from(value: &Value) -> Self {
        match value {
            Value::Int(int) => Self::Int(Text(*int)),
            Value::Text(text) => Self::Text(text.to_string()),
            Value::Bool(bool) => Self::Bool(*bool),
            Value::Hidden(digest) => Self::Hidden(hex::encode(digest)),
        }
    }
}

impl TryFrom<ValueForm> for Value {
    type Error = Invalid;

    fn try_from(form: ValueForm) -> Result<Self, Invalid> {
        match form {
            ValueForm::Int(int) => Ok(Self::Int(int.0)),
            ValueForm::Text(text) => Self::text(&text),
            ValueForm::Bool(bool) => Ok(Self::Bool(bool)),
            ValueForm::Hidden(text) => {
                let mut digest = [0; 32];
                hex::decode_to_slice(text, &mut digest)
                    .map_err(|_| Invalid::new("hidden", "must be 32 bytes in hexadecimal"))?;
                Ok(Self::Hidden(digest))
            }
        }
    }
}
