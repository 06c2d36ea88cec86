//! How a refusal is told: to the caller, who learns its class and what to do, and to the log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, header};
use serde_json::{Map, Value as Json, json};

use super::body::Ends;
use super::{BadCall, Cut, Observed, Seen};
use crate::claims::Claims;
use crate::proof::Nonce;
use crate::reject::{Next, Reject};
use crate::scope::Value;
use crate::throttle::{self, Throttle};
use crate::verify::{Call, Verifier};

const NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// A request that is not let through.
pub(super) enum Refusal {
    /// It has no meaning.
    BadCall(BadCall),
    /// Its token does not clear it.
    Reject(Reject, Arc<Call>),
}

/// The parts of an answer that HTTP and gRPC tell in their own ways.
struct Told {
    status: StatusCode,
    grpc: u8,
    code: &'static str,
    next: Next,
    message: String,
}

impl From<&Reject> for Told {
    fn from(reject: &Reject) -> Self {
        let class = reject.class();
        Self {
            status: StatusCode::from_u16(class.http_status()).unwrap_or(StatusCode::FORBIDDEN),
            grpc: class.grpc_status(),
            code: reject.code(),
            next: reject.next(),
            message: reject.to_string(),
        }
    }
}

impl Told {
    /// The status and the reason, as gRPC is told them.
    fn grpc(&self) -> HeaderMap {
        let mut told = HeaderMap::with_capacity(4);
        told.insert("grpc-status", HeaderValue::from(u16::from(self.grpc)));
        told.insert("dayfly-reason", HeaderValue::from_static(self.code));
        told.insert("dayfly-next", HeaderValue::from_static(self.next.name()));
        told.extend(
            value(&self.message).map(|text| (HeaderName::from_static("grpc-message"), text)),
        );
        told
    }
}

impl Refusal {
    pub(super) fn bad_call(bad: BadCall) -> Box<Self> {
        Box::new(Self::BadCall(bad))
    }

    pub(super) fn reject(reject: Reject, call: Arc<Call>) -> Box<Self> {
        Box::new(Self::Reject(reject, call))
    }

    pub(super) fn observed(self) -> Observed {
        match self {
            Self::BadCall(_) => Observed { reject: None, call: None },
            Self::Reject(reject, call) => Observed { reject: Some(reject), call: Some(call) },
        }
    }

    /// For the witness: with what the token says, as far as somebody vouches for it.
    pub(super) fn seen<'a>(&'a self, claims: Option<&'a Claims>, observed: bool) -> Seen<'a> {
        match self {
            Self::BadCall(bad) => Seen::Unmapped { bad, observed },
            Self::Reject(reject, call) => Seen::Refused { reject, call, claims, observed },
        }
    }

    /// Whether the token that was shown is worth a look.
    pub(super) const fn names_token(&self) -> bool {
        matches!(self, Self::Reject(reject, _) if reject.names_token())
    }

    /// Tells the log the reason: ids and fixed words, and what the request is about, in the narrow
    /// alphabets of operations and resources. Of a flood it tells the number.
    pub(super) fn log(&self, observe: bool, throttle: &Throttle, uptime: Duration) {
        let Told { code, .. } = self.told();
        let throttle::Told { in_full, held_back } = throttle.hear(code, uptime);
        for (code, count) in held_back {
            tracing::warn!(code, count, observe, "refused so many more, not told one by one");
        }
        if !in_full {
            return;
        }
        match (self, observe) {
            (Self::Reject(reject, call), true) => tracing::warn!(
                code, reason = ?reject, operation = %call.operation, resource = %call.resource,
                "let pass what would have been refused"
            ),
            (Self::BadCall(_), true) => tracing::warn!(code, "let pass what has no meaning"),
            (Self::Reject(reject, call), false) => tracing::info!(
                code, reason = ?reject, operation = %call.operation, resource = %call.resource,
                "refused"
            ),
            (Self::BadCall(_), false) => tracing::info!(code, "refused"),
        }
    }

    fn told(&self) -> Told {
        match self {
            Self::Reject(reject, _) => Told::from(reject),
            Self::BadCall(bad) => {
                let (status, grpc) = match bad {
                    BadCall::Unknown => (StatusCode::NOT_FOUND, 5),
                    BadCall::Body => (StatusCode::PAYLOAD_TOO_LARGE, 3),
                    BadCall::HandsOver => (StatusCode::NOT_IMPLEMENTED, 12),
                    BadCall::Invalid(_) => (StatusCode::BAD_REQUEST, 3),
                };
                let code = bad.code();
                Told { status, grpc, code, next: Next::Nothing, message: bad.to_string() }
            }
        }
    }

    /// The answer, as HTTP with a challenge and JSON, or as the trailers alone of gRPC.
    pub(super) fn response<R>(
        &self,
        verifier: &Verifier,
        grpc: bool,
        nonce: Option<Nonce>,
    ) -> Response<Cut<R>> {
        let told = self.told();
        let mut response = if grpc { trailers_alone(&told) } else { self.http(&told, verifier) };
        add_nonce(response.headers_mut(), nonce);
        response
    }

    fn http<R>(&self, told: &Told, verifier: &Verifier) -> Response<Cut<R>> {
        let mut body = json!({
            "error": told.code,
            "message": told.message,
            "next_action": told.next.name(),
        });
        if let (Self::Reject(reject, call), Some(body)) = (self, body.as_object_mut()) {
            body.insert("class".into(), reject.class().name().into());
            if reject.next() == Next::Request {
                body.insert("request".into(), wanted(verifier, call));
            }
        }
        let mut response = Response::new(Cut::answer(Bytes::from(body.to_string())));
        *response.status_mut() = told.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if told.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Self::Reject(reject, _) = self {
            headers
                .extend(challenge(reject, verifier).map(|text| (header::WWW_AUTHENTICATE, text)));
        }
        response
    }
}

/// An answer of gRPC that is over before it began.
fn trailers_alone<R>(told: &Told) -> Response<Cut<R>> {
    let mut response = Response::new(Cut::answer(Bytes::new()));
    *response.headers_mut() = told.grpc();
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    // It says OK, and whoever asks in HTTP can call what they ask gRPC.
    let keep = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, keep);
    response
}

/// What ends a call of gRPC that was let through, and had to end.
pub(super) fn trailers(reason: &Reject) -> HeaderMap {
    Told::from(reason).grpc()
}

/// What to ask the broker for.
fn wanted(verifier: &Verifier, call: &Call) -> Json {
    let argument = |value: &Value| match value {
        Value::Int(int) => Json::from(*int),
        Value::Text(text) => Json::from(&**text),
        Value::Bool(bool) => Json::from(*bool),
        Value::Hidden(digest) => Json::from(hex::encode(digest)),
    };
    let arguments: Map<_, _> =
        call.arguments.iter().map(|(name, value)| (name.to_string(), argument(value))).collect();
    json!({
        "audience": verifier.config().audience.as_str(),
        "operation": call.operation.as_str(),
        "resource": call.resource.as_str(),
        "arguments": arguments,
    })
}

/// The challenge of RFC 6750, section 3, and RFC 9449, section 7.1.
fn challenge(reject: &Reject, verifier: &Verifier) -> Option<HeaderValue> {
    let scheme =
        if verifier.config().base_url.is_some() { "DPoP algs=\"EdDSA\"" } else { "Bearer" };
    let text = match (reject.oauth_error(), reject) {
        (Some(error), _) => {
            let comma = if scheme == "Bearer" { "" } else { "," };
            format!("{scheme}{comma} error=\"{error}\", error_description=\"{reject}\"")
        }
        (None, Reject::NoToken) => scheme.to_owned(),
        (None, _) => return None,
    };
    value(&text)
}

fn value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}

/// Gives the client the nonce that its next proof must carry.
pub(super) fn add_nonce(headers: &mut HeaderMap, nonce: Option<Nonce>) {
    headers.extend(nonce.and_then(|nonce| value(&nonce.to_string())).map(|nonce| (NONCE, nonce)));
}

pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

/// Whether an answer makes something else of the connection: an upgrade, or a tunnel.
pub(super) fn hands_over(connects: bool, status: StatusCode) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || (connects && status.is_success())
}

/// How the answer to a request can be cut short. HTTP/1.1 takes trailers for the end of a whole
/// body, and gRPC-Web reads none.
pub(super) fn ends(head: &Parts) -> Ends {
    let kind = head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    let is_grpc = rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')));
    if is_grpc && head.version == Version::HTTP_2 { Ends::Told } else { Ends::Broken }
}
