//! What is done, as one digest that a proof can carry.

use sha2::{Digest as _, Sha256};

use super::add_parts;
use crate::resource::{Operation, Resource};
use crate::scope::{Arguments, Value};
use crate::spiffe::SpiffeId;

/// The domain tag, and the version, of the digest.
const TAG: &[u8] = b"dayfly.act.v1";

/// SHA-256 over the canonical (audience, operation, resource, arguments) of one call.
///
/// The parts, each behind its length as eight big-endian bytes: the tag `dayfly.act.v1`, audience,
/// operation, resource, then for every argument in the byte order of their names its name and its
/// typed value: `i` and the decimal form, `t` and the text, `b` and `true` or `false`, `h` and the
/// 32 bytes of a commitment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActDigest([u8; 32]);

impl ActDigest {
    /// The digest of a call.
    #[must_use]
    pub fn of(
        audience: &SpiffeId,
        operation: &Operation,
        resource: &Resource,
        arguments: &Arguments,
    ) -> Self {
        let mut hash = Sha256::new();
        let call = [operation.as_str().as_bytes(), resource.as_str().as_bytes()];
        add_parts(&mut hash, &[TAG, audience.as_str().as_bytes()]);
        add_parts(&mut hash, &call);
        for (name, value) in arguments {
            add_parts(&mut hash, &[name.as_str().as_bytes(), &typed(value)]);
        }
        Self(hash.finalize().into())
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A letter for the type, then the value.
fn typed(value: &Value) -> Vec<u8> {
    match value {
        Value::Int(int) => format!("i{int}").into_bytes(),
        Value::Text(text) => format!("t{text}").into_bytes(),
        Value::Bool(bool) => format!("b{bool}").into_bytes(),
        Value::Hidden(digest) => [b"h".as_slice(), digest].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(operation: &str, arguments: &[(&str, Value)]) -> ActDigest {
        let arguments = arguments.iter().map(|(n, v)| (n.parse().unwrap(), v.clone())).collect();
        ActDigest::of(
            &"spiffe://shop.test/gateway/orders".parse().unwrap(),
            &operation.parse().unwrap(),
            &"orders/prod/o-17".parse().unwrap(),
            &arguments,
        )
    }

    #[test]
    fn every_part_and_every_type_counts() {
        let text = |text: &str| Value::text(text).unwrap();
        let base = digest("refund", &[("amount", Value::Int(1))]);
        let others = [
            digest("read", &[("amount", Value::Int(1))]),
            digest("refund", &[]),
            digest("refund", &[("amount", Value::Int(2))]),
            digest("refund", &[("amount", text("1"))]),
            digest("refund", &[("amounti", text(""))]),
            digest("refund", &[("amount", Value::Int(1)), ("b", Value::Bool(true))]),
        ];
        for (n, other) in others.iter().enumerate() {
            assert_ne!(base, *other, "{n}");
        }
    }

    /// The bytes that are hashed, written out by hand.
    #[test]
    fn the_form_is_the_documented_one() {
        let mut bytes = Vec::new();
        for part in [
            "dayfly.act.v1",
            "spiffe://shop.test/gateway/orders",
            "refund",
            "orders/prod/o-17",
            "amount",
            "i-5",
            "note",
            "tx",
        ] {
            bytes.extend([0, 0, 0, 0, 0, 0, 0, part.len() as u8]);
            bytes.extend(part.as_bytes());
        }
        let note = Value::text("x").unwrap();
        let got = digest("refund", &[("note", note), ("amount", Value::Int(-5))]);
        assert_eq!(got.as_bytes().as_slice(), Sha256::digest(bytes).as_slice());
    }
}
