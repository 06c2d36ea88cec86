//! The proof that a workload sends with each of its calls at the broker: a sibling under the same
//! SPIFFE ID, without the key, cannot act on another's grant.

use ed25519_dalek::Signature;
#[cfg(feature = "issue")]
use ed25519_dalek::{Signer as _, SigningKey};

use super::{ProofFault, in_window};
use crate::holder::HolderKey;
use crate::id::RequestId;
use crate::spiffe::SpiffeId;
use crate::time::Timestamp;

/// The domain tag, and the version, of what is signed.
const TAG: &[u8] = b"dayfly.call.v1";

/// The call that a [`HolderProof`] is for.
#[derive(Debug, Clone, Copy)]
pub struct HolderCall<'a> {
    /// The full name of the method: `dayfly.v1.AccessService/Exchange`.
    pub method: &'a str,
    /// The request that it is about.
    pub request: &'a RequestId,
    /// Who calls, as authenticated on the connection.
    pub caller: &'a SpiffeId,
    /// SHA-256 over the message as sent, where a request is filed: the message's protobuf
    /// encoding without the proof.
    pub filing: Option<&'a [u8; 32]>,
}

impl HolderCall<'_> {
    /// What is signed: the tag, method, request id in text form, caller and time (milliseconds,
    /// eight big-endian bytes), and the filing where there is one, each behind its length as eight
    /// big-endian bytes.
    fn message(&self, at: Timestamp) -> Vec<u8> {
        let (request, at) = (self.request.to_string(), at.as_ms().to_be_bytes());
        let parts = [
            Some(TAG),
            Some(self.method.as_bytes()),
            Some(request.as_bytes()),
            Some(self.caller.as_str().as_bytes()),
            Some(at.as_slice()),
            self.filing.map(<[u8; 32]>::as_slice),
        ];
        let mut message = Vec::with_capacity(256);
        for part in parts.into_iter().flatten() {
            message.extend(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            message.extend(part);
        }
        message
    }
}

/// Shows possession of the holder key for one call: the time, and a signature over call and time.
#[derive(Clone, PartialEq, Eq)]
pub struct HolderProof {
    /// When it was made, by the clock of the workload.
    pub at: Timestamp,
    /// Ed25519 by the holder key.
    pub signature: [u8; 64],
}

impl HolderProof {
    /// A proof for `call`, made at `at`.
    #[cfg(feature = "issue")]
    #[must_use]
    pub fn make(key: &SigningKey, call: &HolderCall<'_>, at: Timestamp) -> Self {
        Self { at, signature: key.sign(&call.message(at)).to_bytes() }
    }

    /// Checks that `key` signed this very call, at a time within 30 s of `now`.
    ///
    /// A proof is no secret between the two ends of the authenticated connection, and may be sent
    /// again with a retry of the same call: every such call is idempotent by its ids.
    pub fn check(
        &self,
        key: &HolderKey,
        call: &HolderCall<'_>,
        now: Timestamp,
    ) -> Result<(), ProofFault> {
        if !in_window(self.at, now) {
            return Err(ProofFault::Time);
        }
        let signature = Signature::from_bytes(&self.signature);
        key.verifying_key()
            .ok_or(ProofFault::Key)?
            .verify_strict(&call.message(self.at), &signature)
            .map_err(|_| ProofFault::Signature)
    }
}

#[cfg(test)]
#[cfg(feature = "issue")]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_ms(ms).unwrap()
    }

    fn key(seed: u8) -> (SigningKey, HolderKey) {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let public = HolderKey::from_slice(key.verifying_key().as_bytes()).unwrap();
        (key, public)
    }

    const NOW: u64 = 1_700_000_000_000;

    #[test]
    fn any_changed_part_refuses() {
        let (secret, public) = key(1);
        let (_, other) = key(2);
        let (request, other_request) =
            (RequestId::draw(at(NOW), [1; 10]), RequestId::draw(at(NOW), [2; 10]));
        let (caller, sibling) =
            ("spiffe://x.test/a".parse().unwrap(), "spiffe://x.test/b".parse().unwrap());
        let call = HolderCall {
            method: "dayfly.v1.AccessService/Exchange",
            request: &request,
            caller: &caller,
            filing: None,
        };
        let proof = HolderProof::make(&secret, &call, at(NOW));
        assert_eq!(proof.check(&public, &call, at(NOW)), Ok(()));
        assert_eq!(proof.check(&other, &call, at(NOW)), Err(ProofFault::Signature));
        let changed = [
            HolderCall { method: "dayfly.v1.AccessService/Complete", ..call },
            HolderCall { request: &other_request, ..call },
            HolderCall { caller: &sibling, ..call },
            HolderCall { filing: Some(&[0; 32]), ..call },
        ];
        for (n, changed) in changed.iter().enumerate() {
            assert_eq!(proof.check(&public, changed, at(NOW)), Err(ProofFault::Signature), "{n}");
        }
        let moved = HolderProof { at: at(NOW + 1), ..proof.clone() };
        assert_eq!(moved.check(&public, &call, at(NOW)), Err(ProofFault::Signature));
    }

    #[test]
    fn the_window_is_thirty_seconds_either_way() {
        let (secret, public) = key(1);
        let (request, caller) =
            (RequestId::draw(at(NOW), [1; 10]), "spiffe://x.test/a".parse().unwrap());
        let call = HolderCall { method: "m", request: &request, caller: &caller, filing: None };
        let proof = HolderProof::make(&secret, &call, at(NOW));
        for (now, inside) in [
            (NOW - 30_001, false),
            (NOW - 30_000, true),
            (NOW + 30_000, true),
            (NOW + 30_001, false),
        ] {
            assert_eq!(proof.check(&public, &call, at(now)).is_ok(), inside, "{now}");
        }
    }
}
