//! The checks that need neither the feed nor what the process remembers: times, holder, scope.

use std::time::Duration;

use ed25519_dalek::VerifyingKey;

use super::{Attempt, Call, Config, Shown};
use crate::caveat::Ambient;
use crate::claims::Claims;
use crate::holder::{Confirmation, HolderKey};
use crate::proof::{ActDigest, DpopProof, DpopWanted, ProofFault};
use crate::reject::Reject;
use crate::spiffe::SpiffeId;
use crate::time::Timestamp;
use crate::wire::Content;

/// How far a token's time of issue may lie ahead of the gateway's clock.
const ISSUED_AHEAD: Duration = Duration::from_secs(2);

/// Not issued too far ahead, and not over.
pub(super) fn check_times(claims: &Claims, now: Timestamp) -> Result<(), Reject> {
    if claims.issued_at > now.plus(ISSUED_AHEAD) {
        return Err(Reject::NotYet);
    }
    check_ended(claims, now)
}

/// The end of its life, without tolerance.
pub(crate) fn check_ended(claims: &Claims, now: Timestamp) -> Result<(), Reject> {
    if now < claims.expires_at { Ok(()) } else { Err(Reject::Expired) }
}

/// Byte for byte.
pub(crate) fn check_audience(claims: &Claims, audience: &SpiffeId) -> Result<(), Reject> {
    if claims.audience == *audience { Ok(()) } else { Err(Reject::OtherAudience) }
}

/// That whoever calls is the holder: the last delegate, if there is one. Where that is shown by
/// DPoP, the key and the proof, of which nonce and novelty are still to be looked at. `ready` is
/// the holder's key, ready to verify with.
pub(super) fn check_holder<'a>(
    config: &Config,
    content: &Content,
    ready: impl FnOnce() -> Option<VerifyingKey>,
    attempt: &Attempt<'a>,
    now: Timestamp,
) -> Result<Option<(HolderKey, DpopProof<'a>)>, Reject> {
    match (content.holder(), &attempt.shown) {
        (_, Shown::Nothing) => Err(Reject::NoProof),
        (Confirmation::Key(key), Shown::Peer(peer)) if peer.key == Some(key) => Ok(None),
        (Confirmation::Identity, Shown::Peer(peer)) if peer.id == content.claims.subject => {
            Ok(None)
        }
        (Confirmation::Key(_) | Confirmation::Identity, Shown::Peer(_)) => Err(Reject::OtherPeer),
        (Confirmation::Identity, Shown::Dpop { .. }) => Err(Reject::OtherPeer),
        (Confirmation::Key(key), Shown::Dpop { proof, method, path }) => {
            let proof = DpopProof::read(proof)?;
            let claims = &content.claims;
            let base = config.base_url.as_ref().ok_or(ProofFault::Url)?;
            proof.check(&DpopWanted {
                holder: &ready().ok_or(ProofFault::Key)?,
                method,
                base,
                path,
                token: attempt.token,
                act: &|| act(config, attempt.call),
                act_required: claims.counted || claims.online || config.behind_proxy,
                now,
            })?;
            Ok(Some((key, proof)))
        }
    }
}

fn act(config: &Config, call: &Call) -> ActDigest {
    let Call { operation, resource, arguments } = call;
    ActDigest::of(&config.audience, operation, resource, arguments)
}

/// Rights and constraints.
pub(crate) fn check_scope(claims: &Claims, call: &Call) -> Result<(), Reject> {
    Ok(claims.scope.allows(&call.operation, &call.resource, &call.arguments)?)
}

/// What holders added, in its order.
pub(crate) fn check_caveats(
    content: &Content,
    gateway: &SpiffeId,
    call: &Call,
    now: Timestamp,
) -> Result<(), Reject> {
    let Call { operation, resource, arguments } = call;
    let task = &content.claims.task;
    let ambient = Ambient { time: now, gateway, operation, resource, arguments, task };
    match content.caveats().position(|caveat| !caveat.allows(&ambient)) {
        Some(place) => Err(Reject::Caveat(place)),
        None => Ok(()),
    }
}
