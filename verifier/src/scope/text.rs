//! Rights and constraints as people write them: the inverse of how they print.

use std::collections::BTreeSet;
use std::str::{Chars, FromStr};

use super::{Constraint, Limit, Right, Value};
use crate::invalid::Invalid;

impl FromStr for Right {
    type Err = Invalid;

    /// From `read orders-db/prod/customers` or `refund orders/prod/**`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let Some((operation, resource)) = text.trim().split_once(' ') else {
            return Err(Invalid::new("right", "must be an operation and a resource: `read a/b`"));
        };
        Ok(Self { operation: operation.parse()?, resource: resource.trim().parse()? })
    }
}

impl FromStr for Constraint {
    type Err = Invalid;

    /// From `amount <= 500`, `amount >= 1`, `order_id = "o-17"` or `region in ["eu", "us"]`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refused = || {
            let rule = "must be like `amount <= 500`, `order_id = \"o-17\"` or `n in [1, 2]`";
            Invalid::new("constraint", rule)
        };
        let text = text.trim();
        let end =
            text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').ok_or_else(refused)?;
        let (argument, rest) = text.split_at(end);
        let argument = argument.parse()?;
        let rest = rest.trim_start();
        let whole = |text: &str| text.trim().parse::<i64>().map_err(|_| refused());
        let limit = if let Some(most) = rest.strip_prefix("<=") {
            Limit::AtMost(whole(most)?)
        } else if let Some(least) = rest.strip_prefix(">=") {
            Limit::AtLeast(whole(least)?)
        } else if let Some(value) = rest.strip_prefix('=') {
            let (value, rest) = value_of(value.trim_start()).ok_or_else(refused)?;
            if !rest.is_empty() {
                return Err(refused());
            }
            Limit::Equals(value)
        } else if let Some(set) = rest.strip_prefix("in") {
            Limit::OneOf(set_of(set.trim_start()).ok_or_else(refused)?)
        } else {
            return Err(refused());
        };
        let constraint = Self { argument, limit };
        constraint.limit.check()?;
        Ok(constraint)
    }
}

/// `[1, 2]`, up to the end.
fn set_of(text: &str) -> Option<BTreeSet<Value>> {
    let mut rest = text.strip_prefix('[')?.trim_start();
    let mut values = BTreeSet::new();
    loop {
        let (value, after) = value_of(rest)?;
        if !values.insert(value) {
            return None;
        }
        match after.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None => return (after == "]").then_some(values),
        }
    }
}

/// A value at the start of `text`, and what follows it.
fn value_of(text: &str) -> Option<(Value, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let mut chars = quoted.chars();
        let mut value = String::new();
        loop {
            match chars.next()? {
                '"' => return Some((Value::text(&value).ok()?, chars.as_str().trim_start())),
                '\\' => value.push(escaped(&mut chars)?),
                other => value.push(other),
            }
        }
    }
    let end = text.find([',', ']']).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let word = word.trim_end();
    let value = match word {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => match word.strip_prefix("hex:") {
            Some(digest) => {
                let mut bytes = [0; 32];
                hex::decode_to_slice(digest, &mut bytes).ok()?;
                Value::Hidden(bytes)
            }
            None => Value::Int(word.parse().ok()?),
        },
    };
    Some((value, rest))
}

/// What stands behind a backslash: the escapes in which values print.
fn escaped(chars: &mut Chars<'_>) -> Option<char> {
    match chars.next()? {
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        same @ ('\\' | '"' | '\'') => Some(same),
        'u' => {
            let (digits, rest) = chars.as_str().strip_prefix('{')?.split_once('}')?;
            *chars = rest.chars();
            char::from_u32(u32::from_str_radix(digits, 16).ok()?)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_is_not_a_right_or_a_constraint() {
        for bad in ["", "read", "read  ", "Read a", "read a//b", "read a b", "read a/**/b"] {
            assert!(bad.parse::<Right>().is_err(), "{bad:?}");
        }
        let constraints = [
            "",
            "amount",
            "<= 5",
            "amount < 5",
            "amount <= ",
            "amount <= 5.0",
            "amount <= \"5\"",
            "amount == 5",
            "amount <= 9223372036854775808",
            "amount = ",
            "amount = o-17",
            "amount = \"a\" b",
            "amount = \"a",
            "amount = \"\\x\"",
            "amount = \"\\u{d800}\"",
            "n in",
            "n in []",
            "n in [1",
            "n in [1,]",
            "n in [1, 1]",
            "n in [1, true]",
            "n in [1] x",
            "Amount <= 5",
            "a-b = 1",
            "n = hex:00",
            "n = 1, 2",
            "n = 1]",
        ];
        for bad in constraints {
            assert!(bad.parse::<Constraint>().is_err(), "{bad:?}");
        }
        let long = format!("n = \"{}\"", "x".repeat(257));
        assert!(long.parse::<Constraint>().is_err());
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<i64>().prop_map(Value::Int),
            any::<bool>().prop_map(Value::Bool),
            any::<[u8; 32]>().prop_map(Value::Hidden),
            "\\PC{0,40}|[\\x00-\\x7f\"\\\\]{0,40}".prop_map(|t| Value::Text(t.as_str().into())),
        ]
    }

    fn limit() -> impl Strategy<Value = Limit> {
        prop_oneof![
            value().prop_map(Limit::Equals),
            any::<i64>().prop_map(Limit::AtMost),
            any::<i64>().prop_map(Limit::AtLeast),
            prop::collection::btree_set(any::<i64>().prop_map(Value::Int), 1..5)
                .prop_map(Limit::OneOf),
            prop::collection::btree_set(
                "\\PC{0,9}".prop_map(|t| Value::Text(t.as_str().into())),
                1..5
            )
            .prop_map(Limit::OneOf),
        ]
    }

    proptest! {
        #[test]
        fn print_and_parse_are_inverse(limit in limit()) {
            let constraint = Constraint { argument: "order_id".parse().unwrap(), limit };
            prop_assert_eq!(constraint.to_string().parse::<Constraint>().unwrap(), constraint);
        }

        #[test]
        fn any_text_parses_or_is_refused(text in ".*") {
            let _ = text.parse::<Constraint>();
            let _ = text.parse::<Right>();
        }
    }
}
