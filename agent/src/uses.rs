//! One use of a right at a gateway over HTTP: what it does, and the headers that prove it.

use dayfly_verifier::holder::Confirmation;
use dayfly_verifier::id::UseId;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::proof::{ActDigest, DpopCall, make_dpop};
use dayfly_verifier::time::Timestamp;
use dayfly_verifier::verify::Call;
use ed25519_dalek::SigningKey;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use zeroize::Zeroizing;

use crate::errors::Error;
use crate::held::Held;
use crate::ticket::fill;

/// The header of the proof (RFC 9449, section 4.1).
const DPOP: HeaderName = HeaderName::from_static("dpop");
/// The header in which a gateway gives a nonce (RFC 9449, section 9).
const NONCE: HeaderName = HeaderName::from_static("dpop-nonce");
/// The header that names one use of a counted right.
const USE: HeaderName = HeaderName::from_static("dayfly-use");
/// The header in which a gateway tells a caller of gRPC why it refuses.
const REASON: HeaderName = HeaderName::from_static("dayfly-reason");

/// One use: a method on a URL, and what it does.
///
/// It keeps its id over retries. A counted right is spent by the id, so that a use that is sent
/// again after a lost answer counts once.
#[derive(Debug)]
pub struct Use {
    id: UseId,
    method: Method,
    url: String,
    call: Call,
    nonce: Option<HeaderValue>,
}

impl Use {
    /// A use that sends `method` to `url`, which does what `call` says. A query or fragment of the
    /// URL is no part of the proof.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the machine gives no random numbers.
    pub fn new(method: Method, url: &str, call: Call, now: Timestamp) -> Result<Self, Error> {
        let mut random = [0; 10];
        fill(&mut random)?;
        let url = url.split(['?', '#']).next().unwrap_or_default().to_owned();
        Ok(Self { id: UseId::draw(now, random), method, url, call, nonce: None })
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> &UseId {
        &self.id
    }

    /// The headers for one attempt: the token, a fresh proof by `key`, and the id of the use. A
    /// token that is bound to the SPIFFE ID goes without a proof, over a connection under that
    /// identity and no other.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `key` is not the key that the token is bound to.
    pub fn headers(
        &self,
        held: &Held,
        key: &SigningKey,
        now: Timestamp,
    ) -> Result<HeaderMap, Error> {
        let token = held.token.expose();
        let mut headers = HeaderMap::with_capacity(3);
        let scheme = match held.holder()? {
            Confirmation::Identity => "Bearer",
            Confirmation::Key(holder) if holder.as_bytes() == key.verifying_key().as_bytes() => {
                headers.insert(DPOP, secret(&self.proof(held, key, now)?)?);
                "DPoP"
            }
            Confirmation::Key(_) => {
                return Err(Invalid::new("key", "must be the key of the token's holder").into());
            }
        };
        let authorization = Zeroizing::new(format!("{scheme} {token}"));
        headers.insert(header::AUTHORIZATION, secret(&authorization)?);
        headers.insert(USE, value(&self.id.to_string())?);
        Ok(headers)
    }

    /// The same, beginning with the nonce that the gateway gave last to an earlier use: where one
    /// is wanted every time, that saves a round.
    #[must_use]
    pub fn after(self, earlier: &Self) -> Self {
        Self { nonce: earlier.nonce.clone(), ..self }
    }

    /// Whether to send it once more, with new headers: the gateway wants a nonce in the proof, and
    /// gives it here. It asks before anything is done, and this says so once for each nonce. No
    /// other refusal is sent again by itself: what was refused late may have been begun. To be
    /// asked of every answer: any of them may bring the nonce of the next use (RFC 9449, section
    /// 8.2).
    #[must_use]
    pub fn again(&mut self, status: StatusCode, headers: &HeaderMap) -> bool {
        let is = |value: &HeaderValue, part: &str| value.to_str().is_ok_and(|v| v.contains(part));
        let mut challenges = headers.get_all(header::WWW_AUTHENTICATE).iter();
        let over_http = status == StatusCode::UNAUTHORIZED
            && challenges.any(|challenge| is(challenge, "error=\"use_dpop_nonce\""));
        let over_grpc = headers.get(REASON).is_some_and(|reason| reason == "nonce");
        let given = headers.get(NONCE).filter(|nonce| self.nonce.as_ref() != Some(nonce));
        let Some(nonce) = given else { return false };
        self.nonce = Some(nonce.clone());
        over_http || over_grpc
    }

    fn proof(
        &self,
        held: &Held,
        key: &SigningKey,
        now: Timestamp,
    ) -> Result<Zeroizing<String>, Error> {
        let Call { operation, resource, arguments } = &self.call;
        let act = ActDigest::of(&held.claims.audience, operation, resource, arguments);
        let mut jti = [0; 16];
        fill(&mut jti)?;
        let nonce = self.nonce.as_ref().and_then(|nonce| nonce.to_str().ok());
        let call =
            DpopCall { method: self.method.as_str(), url: &self.url, act: Some(&act), nonce };
        Ok(Zeroizing::new(make_dpop(key, held.token.expose(), &call, now, jti)))
    }
}

fn value(text: &str) -> Result<HeaderValue, Invalid> {
    HeaderValue::from_str(text).map_err(|_| Invalid::new("header", "must be visible ASCII"))
}

/// A value that is never printed.
fn secret(text: &str) -> Result<HeaderValue, Invalid> {
    let mut value = value(text)?;
    value.set_sensitive(true);
    Ok(value)
}
