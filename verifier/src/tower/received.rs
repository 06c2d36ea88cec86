//! A request as it arrived, for whoever says what it means.

use std::collections::BTreeMap;

use http::Method;
use http::request::Parts;
use serde_json::{Map, Value as Json};

use crate::invalid::Invalid;
use crate::json;
use crate::scope::{Arguments, Value};

/// A request, read in full. Every part is read in one way only: what two readers could read
/// differently refuses.
pub struct Received<'a> {
    head: &'a Parts,
    body: &'a [u8],
}

/// Why a request has no meaning. Nothing of it is let through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCall {
    /// Nothing here is called so.
    #[error("there is no such call")]
    Unknown,
    /// The body is too long, or did not arrive in full.
    #[error("the body is too long, or did not arrive in full")]
    Body,
    /// The answer hands the connection over, as to a WebSocket (RFC 9110, section 7.8): what ran on
    /// it then, nothing could cut.
    #[error("connections are not handed over here: what ran on one could not be cut")]
    HandsOver,
    /// A part of it is not what it must be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

impl BadCall {
    /// A fixed word for it, for machines, logs and the record.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown_call",
            Self::Body => "body",
            Self::HandsOver => "hands_over",
            Self::Invalid(_) => "invalid_call",
        }
    }
}

impl<'a> Received<'a> {
    pub(super) const fn new(head: &'a Parts, body: &'a [u8]) -> Self {
        Self { head, body }
    }

    /// The method.
    #[must_use]
    pub const fn method(&self) -> &Method {
        &self.head.method
    }

    /// The path as received. For a gRPC service: `/package.Service/Method`.
    #[must_use]
    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// The segments of the path; refuses empty ones, `.`, `..` and percent signs, which the router
    /// behind the layer might read otherwise.
    pub fn segments(&self) -> Result<Vec<&str>, BadCall> {
        let path = self.path().strip_prefix('/').unwrap_or_default();
        let odd = |segment: &str| matches!(segment, "" | "." | "..") || segment.contains('%');
        if path.split('/').any(odd) {
            let rule = "must have no empty segment, `.`, `..` or percent sign";
            return Err(Invalid::new("path", rule).into());
        }
        Ok(path.split('/').collect())
    }

    /// The body, byte for byte.
    #[must_use]
    pub const fn body(&self) -> &[u8] {
        self.body
    }

    /// The message of a call of gRPC that sends one, as most do: to be decoded by its own type.
    /// Refuses a compressed one, none, and several, of which a handler might take another.
    pub fn message(&self) -> Result<&[u8], BadCall> {
        let rule = "must be one message of gRPC, not compressed";
        let refused = || Invalid::new("body", rule).into();
        let (flag, rest) = self.body.split_first().ok_or_else(refused)?;
        let (length, message) = rest.split_first_chunk::<4>().ok_or_else(refused)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok();
        if *flag == 0 && length == Some(message.len()) { Ok(message) } else { Err(refused()) }
    }

    /// The body as a JSON object without repeated members; an empty one if there is no body.
    pub fn json(&self) -> Result<Map<String, Json>, BadCall> {
        if self.body.is_empty() {
            return Ok(Map::new());
        }
        match json::read(self.body) {
            Ok(Json::Object(members)) => Ok(members),
            Ok(_) | Err(_) => {
                let rule = "must be one JSON object without repeated members";
                Err(Invalid::new("body", rule).into())
            }
        }
    }

    /// The parameters of the query; refuses repeated ones.
    pub fn query(&self) -> Result<BTreeMap<String, String>, BadCall> {
        let mut parameters = BTreeMap::new();
        let pairs = self.head.uri.query().unwrap_or_default().split('&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value)?;
            if parameters.insert(decode(name)?, value).is_some() {
                return Err(Invalid::new("query", "must not repeat a parameter").into());
            }
        }
        Ok(parameters)
    }

    /// All members of the JSON body and all parameters of the query as arguments: whole numbers,
    /// text, true and false. Query parameters are text. Anything else refuses, and so does a name
    /// that stands in both.
    pub fn arguments(&self) -> Result<Arguments, BadCall> {
        let mut arguments = Arguments::new();
        let query = self.query()?.into_iter().map(|(name, value)| (name, Json::String(value)));
        for (name, value) in self.json()?.into_iter().chain(query) {
            if arguments.insert(name.parse()?, argument(&value)?).is_some() {
                let rule = "must not stand in both body and query";
                return Err(Invalid::new("arguments", rule).into());
            }
        }
        Ok(arguments)
    }
}

fn argument(value: &Json) -> Result<Value, Invalid> {
    let refused = || Invalid::new("arguments", "must be whole numbers, text, true or false");
    match value {
        Json::Bool(bool) => Ok(Value::Bool(*bool)),
        Json::String(text) => Value::text(text),
        Json::Number(number) => number.as_i64().map(Value::Int).ok_or_else(refused),
        Json::Null | Json::Array(_) | Json::Object(_) => Err(refused()),
    }
}

/// Percent signs and `+` as in HTML forms (WHATWG URL, section 5.1).
fn decode(text: &str) -> Result<String, Invalid> {
    let refused = || Invalid::new("query", "must be percent-encoded UTF-8");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next(), rest.next()].map(Option::unwrap_or_default);
                let mut decoded = [0];
                hex::decode_to_slice(digits, &mut decoded).map_err(|_| refused())?;
                decoded[0]
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| refused())
}
