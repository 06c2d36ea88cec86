//! Redeeming a use of a counted grant.

use dayfly_verifier::id::{TokenId, UseId};

use super::{Asked, Decided, invalid};
use crate::core::case::Standing;
use crate::core::denial::Denial;
use crate::core::event::{Actor, Event};

pub(super) fn redeem(asked: &Asked<'_>, token: &TokenId, use_id: &UseId) -> Decided {
    let state = asked.state;
    if !state.directory.gateways.contains(asked.caller) {
        return Err(Denial::NotAllowed);
    }
    let actor = Actor::Gateway(asked.caller.clone());
    let (case, token) = state.token(token).ok_or(Denial::NotFound)?;
    let claims = &token.minted.claims;
    if claims.audience != *asked.caller {
        return Err(Denial::NotFound);
    }
    let before = case.grant().and_then(|grant| grant.uses.get(use_id));
    if before.is_some_and(|(with, _)| *with != claims.token) {
        return Err(Denial::IdReused);
    }
    let standing = case.standing(asked.now);
    let Standing::Granted(grant) = standing else {
        return Err(standing.end().unwrap_or(Denial::NotYetApproved));
    };
    if asked.now >= claims.expires_at {
        return Err(Denial::Lapsed);
    }
    if !state.is_good(token, asked.now) {
        return Err(Denial::Revoked);
    }
    if before.is_some() {
        return Ok((actor, Vec::new()));
    }
    match grant.uses_left() {
        None => return Err(invalid("token_id", "the uses of the token are not counted")),
        Some(0) => return Err(Denial::UsesExhausted),
        Some(_) => {}
    }
    asked.fresh(use_id.drawn_at())?;
    let (grant, token, use_id) = (case.grant_id(), claims.token, *use_id);
    Ok((actor, vec![Event::UseRedeemed { grant, token, use_id }]))
}
