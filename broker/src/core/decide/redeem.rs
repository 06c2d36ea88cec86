//! What a gateway asks about one use: spending it where uses are counted, and what policy says now
//! where each is evaluated.

use dayfly_verifier::id::{TokenId, UseId};

use super::{Asked, Decided, current, grounds, invalid};
use crate::core::case::{Case, Grant, Standing, Token};
use crate::core::denial::Denial;
use crate::core::event::{Actor, Event};
use crate::core::verdict::Verdict;

pub(super) fn redeem(asked: &Asked<'_>, token: &TokenId, use_id: &UseId) -> Decided {
    let (actor, case, token) = shown(asked, token)?;
    let claims = &token.minted.claims;
    let before = case.grant().and_then(|grant| grant.uses.get(use_id));
    if before.is_some_and(|(with, _)| *with != claims.token) {
        return Err(Denial::IdReused);
    }
    let grant = standing(asked, case, token)?;
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

/// Nothing happens, but it must not have been decided about a state that is past.
pub(super) fn reevaluate(asked: &Asked<'_>, token: &TokenId, verdict: &Verdict) -> Decided {
    let (actor, case, token) = shown(asked, token)?;
    let grant = standing(asked, case, token)?;
    if !token.minted.claims.online {
        return Err(invalid("token_id", "the uses of the token are not evaluated"));
    }
    current(verdict, asked.basis_of(case))?;
    match grounds::drift(&asked.state.directory, case, grant, &verdict.outcome) {
        Some(refusal) => Err(Denial::PolicyRefused(refusal)),
        None => Ok((actor, Vec::new())),
    }
}

/// The token, shown to the caller as its gateway.
fn shown<'a>(asked: &Asked<'a>, token: &TokenId) -> Result<(Actor, &'a Case, &'a Token), Denial> {
    if !asked.state.directory.gateways.contains(asked.caller) {
        return Err(Denial::NotAllowed);
    }
    let (case, token) = asked.state.token(token).ok_or(Denial::NotFound)?;
    if token.minted.claims.audience != *asked.caller {
        return Err(Denial::NotFound);
    }
    Ok((Actor::Gateway(asked.caller.clone()), case, token))
}

/// The grant, while it and the token stand, and no lock is on what they reach: which of it is used
/// is not told here.
fn standing<'a>(asked: &Asked<'a>, case: &'a Case, token: &Token) -> Result<&'a Grant, Denial> {
    let standing = case.standing(asked.now);
    let Standing::Granted(grant) = standing else {
        return Err(standing.end().unwrap_or(Denial::NotYetApproved));
    };
    if asked.now >= token.minted.claims.expires_at {
        return Err(Denial::Lapsed);
    }
    if !asked.state.is_good(token, asked.now) {
        return Err(Denial::Revoked);
    }
    asked.unlocked(asked.state.lock_on(&case.request, &token.minted.claims.scope, asked.now))?;
    Ok(grant)
}
