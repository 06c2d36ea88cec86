//! DPoP (RFC 9449) with Ed25519: a signed statement beside the token, for one HTTP request.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::{ActDigest, ProofFault, in_window};
use crate::invalid::Invalid;
use crate::json;
use crate::time::Timestamp;

/// The longest proof, in bytes.
pub const MAX_PROOF_BYTES: usize = 2048;
/// The longest `jti`, in bytes.
const MAX_JTI_BYTES: usize = 128;

/// The URL under which callers reach the gateway: scheme, host, port if it is not the scheme's
/// own, and a path prefix. Never taken from a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(String);

impl BaseUrl {
    /// The URL as text, without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BaseUrl {
    type Err = Invalid;

    /// From `https://orders.shop.test` or `http://127.0.0.1:8080/api`, in the one form in which
    /// clients will name it: lower case, no user, query, fragment, default port or slash at the
    /// end (RFC 3986, section 6.2).
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refused = |rule: &'static str| Err(Invalid::new("base_url", rule));
        let (rest, default_port) =
            match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
                (Some(rest), _) => (rest, ":443"),
                (None, Some(rest)) => (rest, ":80"),
                (None, None) => return refused("must begin with `https://` or `http://`"),
            };
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let host =
            |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b':' | b'[' | b']');
        if authority.is_empty() || !authority.bytes().all(host) {
            return refused("must name a host in lower case, and nothing but a port behind it");
        }
        if authority.ends_with(default_port) || authority.ends_with(':') {
            return refused("must not name the default port");
        }
        let visible = |b: u8| b.is_ascii_graphic() && !matches!(b, b'?' | b'#');
        if path.ends_with('/') || !path.bytes().all(visible) {
            return refused("must have no slash at the end, no query and no fragment");
        }
        Ok(Self(text.to_owned()))
    }
}

/// What names one proof of one key: the first 16 bytes of SHA-256 over the claim `jti`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Jti(pub(crate) [u8; 16]);

/// A proof as it was read: its shape is right, and nothing in it is believed yet.
pub struct DpopProof<'a> {
    signed: &'a str,
    signature: Signature,
    key: [u8; 32],
    claims: DpopClaims,
}

struct DpopClaims {
    jti: Jti,
    method: String,
    url: String,
    at: Timestamp,
    token_hash: String,
    act: Option<String>,
    nonce: Option<String>,
}

/// What a proof must say to count for a call.
pub struct DpopWanted<'a> {
    /// The key that the token is bound to.
    pub holder: &'a VerifyingKey,
    /// The method of the call, as received.
    pub method: &'a str,
    /// The configured base URL.
    pub base: &'a BaseUrl,
    /// The path as received, with percent signs as they came, without query.
    pub path: &'a str,
    /// The token as sent.
    pub token: &'a str,
    /// The digest of the call, for a proof that carries one.
    pub act: &'a dyn Fn() -> ActDigest,
    /// Whether the proof must carry it.
    pub act_required: bool,
    /// Now.
    pub now: Timestamp,
}

impl<'a> DpopProof<'a> {
    /// Reads the value of a header `DPoP`.
    pub fn read(text: &'a str) -> Result<Self, ProofFault> {
        if text.len() > MAX_PROOF_BYTES {
            return Err(ProofFault::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(ProofFault::Shape)?;
        let (header, claims) = signed.split_once('.').ok_or(ProofFault::Shape)?;
        // Before the signature, whose length is that of an algorithm.
        let key = read_header(&object(header)?)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| ProofFault::Shape)?;
        let signature = Signature::from_slice(&signature).map_err(|_| ProofFault::Shape)?;
        let claims = DpopClaims::read(&object(claims)?).ok_or(ProofFault::Claims)?;
        Ok(Self { signed, signature, key, claims })
    }

    /// The name of the proof, for the replay guard.
    #[must_use]
    pub const fn jti(&self) -> Jti {
        self.claims.jti
    }

    /// The nonce that it carries.
    #[must_use]
    pub fn nonce(&self) -> Option<&str> {
        self.claims.nonce.as_deref()
    }

    /// Checks everything but nonce and replay, which need what the process remembers: key, method,
    /// URL, token, time, act, and the signature over all of it last, since it costs most.
    pub fn check(&self, wanted: &DpopWanted<'_>) -> Result<(), ProofFault> {
        let claims = &self.claims;
        let url = claims.url.strip_prefix(wanted.base.as_str());
        let token_hash = URL_SAFE_NO_PAD.encode(Sha256::digest(wanted.token));
        let right_act = || claims.act.as_ref().map(|act| *act == encode(&(wanted.act)()));
        if self.key != *wanted.holder.as_bytes() {
            Err(ProofFault::Key)
        } else if claims.method != wanted.method {
            Err(ProofFault::Method)
        } else if url != Some(wanted.path) {
            Err(ProofFault::Url)
        } else if claims.token_hash != token_hash {
            Err(ProofFault::Token)
        } else if !in_window(claims.at, wanted.now) {
            Err(ProofFault::Time)
        } else if claims.act.is_none() && wanted.act_required {
            Err(ProofFault::ActMissing)
        } else if right_act() == Some(false) {
            Err(ProofFault::Act)
        } else {
            wanted
                .holder
                .verify_strict(self.signed.as_bytes(), &self.signature)
                .map_err(|_| ProofFault::Signature)
        }
    }
}

fn encode(act: &ActDigest) -> String {
    URL_SAFE_NO_PAD.encode(act.as_bytes())
}

fn object(part: &str) -> Result<Map<String, Value>, ProofFault> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| ProofFault::Shape)?;
    match json::read(&bytes) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) | Err(_) => Err(ProofFault::Shape),
    }
}

/// The key, from a header that is exactly `{"typ":"dpop+jwt","alg":"EdDSA","jwk":{..}}` in any
/// order, with a `jwk` of exactly `kty`, `crv` and `x` (RFC 8037, section 2). Whatever else stands
/// there refuses: `kid`, `crit`, `x5u`, a private key.
fn read_header(header: &Map<String, Value>) -> Result<[u8; 32], ProofFault> {
    let is = |object: &Map<String, Value>, name: &str, value: &str| {
        object.get(name).and_then(Value::as_str) == Some(value)
    };
    if header.get("alg").and_then(Value::as_str).is_some_and(|alg| alg != "EdDSA") {
        return Err(ProofFault::Algorithm);
    }
    let jwk = header.get("jwk").and_then(Value::as_object).ok_or(ProofFault::Header)?;
    let typed = is(header, "typ", "dpop+jwt") && is(header, "alg", "EdDSA") && header.len() == 3;
    let keyed = is(jwk, "kty", "OKP") && is(jwk, "crv", "Ed25519") && jwk.len() == 3;
    let x = jwk.get("x").and_then(Value::as_str).filter(|_| typed && keyed);
    let key = x.and_then(|x| URL_SAFE_NO_PAD.decode(x).ok()).ok_or(ProofFault::Header)?;
    key.try_into().map_err(|_| ProofFault::Header)
}

impl DpopClaims {
    /// The claims of RFC 9449, section 4.2, and `act`. Others are permitted and mean nothing here.
    fn read(claims: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| claims.get(name)?.as_str().map(str::to_owned);
        let optional = |name: &str| match claims.get(name) {
            None => Some(None),
            Some(value) => value.as_str().map(|text| Some(text.to_owned())),
        };
        let jti = claims.get("jti")?.as_str()?;
        if jti.is_empty() || jti.len() > MAX_JTI_BYTES {
            return None;
        }
        let mut name = [0; 16];
        name.iter_mut().zip(Sha256::digest(jti)).for_each(|(to, from)| *to = from);
        Some(Self {
            jti: Jti(name),
            method: text("htm")?,
            url: text("htu")?,
            at: Timestamp::from_secs(claims.get("iat")?.as_u64()?).ok()?,
            token_hash: text("ath")?,
            act: optional("act")?,
            nonce: optional("nonce")?,
        })
    }
}

/// The call for which [`make_dpop`] makes a proof.
#[cfg(feature = "issue")]
#[derive(Debug, Clone, Copy)]
pub struct DpopCall<'a> {
    /// The method: `POST`.
    pub method: &'a str,
    /// The URL of the call, without query and fragment.
    pub url: &'a str,
    /// What is done; required for counted and online rights, and good everywhere.
    pub act: Option<&'a ActDigest>,
    /// The nonce that the gateway gave last, if it gave one.
    pub nonce: Option<&'a str>,
}

/// The value of the header `DPoP` for one call that sends `token`; `jti` is random, and new for
/// every call.
#[cfg(feature = "issue")]
#[must_use]
pub fn make_dpop(
    key: &ed25519_dalek::SigningKey,
    token: &str,
    call: &DpopCall<'_>,
    now: Timestamp,
    jti: [u8; 16],
) -> String {
    use ed25519_dalek::Signer as _;
    let x = URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes());
    let header = serde_json::json!({
        "typ": "dpop+jwt",
        "alg": "EdDSA",
        "jwk": { "kty": "OKP", "crv": "Ed25519", "x": x },
    });
    let mut claims = serde_json::json!({
        "jti": URL_SAFE_NO_PAD.encode(jti),
        "htm": call.method,
        "htu": call.url,
        "iat": now.as_secs(),
        "ath": URL_SAFE_NO_PAD.encode(Sha256::digest(token)),
    });
    if let Some(claims) = claims.as_object_mut() {
        let act = call.act.map(encode).map(|act| ("act".to_owned(), act.into()));
        let nonce = call.nonce.map(|nonce| ("nonce".to_owned(), nonce.into()));
        claims.extend(act.into_iter().chain(nonce));
    }
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).to_bytes());
    format!("{signed}.{signature}")
}
