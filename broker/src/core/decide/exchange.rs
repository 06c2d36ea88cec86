//! Exchanging a grant for a token.

use dayfly_verifier::claims::{Claims, Record};
use dayfly_verifier::id::{GrantId, KeyId, RequestDigest, Seq, TokenId};
use dayfly_verifier::request::Request;
use dayfly_verifier::scope::Scope;
use dayfly_verifier::time::Timestamp;
use dayfly_verifier::wire;

use super::{Asked, Decided, current, grounds, invalid};
use crate::core::case::{Case, Grant, Issue, Standing, Token};
use crate::core::command::Exchange;
use crate::core::denial::{Denial, Limited};
use crate::core::event::Event;
use crate::core::limits::{MAX_ANSWERS, MAX_TOKEN_LIFE};
use crate::core::verdict::Verdict;

pub(super) fn exchange(asked: &Asked<'_>, exchange: &Exchange, verdict: &Verdict) -> Decided {
    let actor = asked.workload()?;
    let state = asked.state;
    let case = state.own(asked.caller, &exchange.request).ok_or(Denial::NotFound)?;
    let before = state.exchanged(asked.caller, &exchange.id);
    if before.is_some_and(|grant| grant != case.grant_id()) {
        return Err(Denial::IdReused);
    }
    if exchange.holder_key != case.request.holder_key {
        return Err(Denial::HolderMismatch);
    }
    let standing = case.standing(asked.now);
    let Standing::Granted(grant) = standing else {
        return Err(standing.end().unwrap_or(Denial::NotYetApproved));
    };
    if grant.uses_left() == Some(0) {
        return Err(Denial::UsesExhausted);
    }
    asked.unlocked(asked.state.lock_on(&case.request, &grant.terms.scope, asked.now))?;
    let own = state.token_id(asked.caller, &exchange.id);
    if let Some(token) = grant.answered(&exchange.id, &own) {
        still_good(asked, token)?;
        return Ok((actor, Vec::new()));
    }
    asked.fresh(exchange.id.drawn_at())?;
    current(verdict, asked.basis_of(case))?;
    if let Some(refusal) = grounds::drift(&state.directory, case, grant, &verdict.outcome) {
        return Err(Denial::PolicyRefused(refusal));
    }
    Ok((actor, vec![answer(asked, case, grant, exchange)?]))
}

/// A repeat gets the token that it got, or hears why it does not any more.
fn still_good(asked: &Asked<'_>, token: &Token) -> Result<(), Denial> {
    if asked.now >= token.minted.claims.expires_at {
        return Err(Denial::StaleId);
    }
    if asked.state.is_good(token, asked.now) { Ok(()) } else { Err(Denial::Revoked) }
}

/// The token that the grant has while over a third of its life is left, and when a new one would
/// not outlive it; a new one otherwise.
fn answer(
    asked: &Asked<'_>,
    case: &Case,
    grant: &Grant,
    exchange: &Exchange,
) -> Result<Event, Denial> {
    let claims = claims(asked, case, grant, exchange)?;
    let Some(token) = grant.latest.as_ref().filter(|token| asked.state.is_good(token, asked.now))
    else {
        return Ok(Event::TokenRecorded { exchange: exchange.id, claims });
    };
    let had = &token.minted.claims;
    let left = had.expires_at.since(asked.now);
    let fresh = left.saturating_mul(3) > had.expires_at.since(had.issued_at);
    if !fresh && claims.expires_at > had.expires_at {
        return Ok(Event::TokenRecorded { exchange: exchange.id, claims });
    }
    if token.answers >= MAX_ANSWERS {
        return Err(Denial::LimitReached(Limited::Exchanges));
    }
    let (grant, exchange, token) = (case.grant_id(), exchange.id, token.id());
    Ok(Event::ExchangeAnswered { grant, exchange, token })
}

/// What a new token would say. It ends with the lease, the holder's certificate or the key at the
/// latest.
fn claims(
    asked: &Asked<'_>,
    case: &Case,
    grant: &Grant,
    exchange: &Exchange,
) -> Result<Claims, Denial> {
    let (key, key_ends) = signing_key(asked, exchange)?;
    let (terms, request) = (&grant.terms, &case.request);
    let life = asked.state.limits.token_life.min(MAX_TOKEN_LIFE);
    let issued_at = asked.now.floor_to_second();
    let end = terms.until.min(asked.until).min(key_ends);
    let expires_at = issued_at.plus(life).min(end).floor_to_second();
    if expires_at <= asked.now {
        let lapses = end == terms.until;
        return Err(if lapses { Denial::Lapsed } else { invalid("certificate", "ends too soon") });
    }
    let token = asked.state.token_id(asked.caller, &exchange.id);
    let issue = Issue { token, issued_at, expires_at, key };
    Ok(issue.claims(case.grant_id(), request, case.digest, terms))
}

/// Refuses what no token can hold, before anybody approves it: nothing could be exchanged for it.
pub(super) fn holdable(request: &Request, scope: &Scope) -> Result<(), Denial> {
    // What is not known yet is of one length, or here as long as it gets.
    let issued_at = request.filed_at.floor_to_second();
    let longest = Claims {
        token: TokenId::new([0; 16]),
        grant: GrantId::new([0; 16]),
        request: RequestDigest::new([0; 32]),
        task: request.task.clone(),
        subject: request.workload.clone(),
        principal: request.principal.clone(),
        audience: request.audience.clone(),
        scope: scope.clone(),
        holder: request.holder(),
        issued_at,
        expires_at: issued_at.plus(MAX_TOKEN_LIFE).floor_to_second(),
        online: true,
        counted: true,
        key: KeyId(u32::MAX),
    };
    let record = Record { epoch: request.epoch, seq: Seq(i64::MAX.unsigned_abs()) };
    wire::fits(&longest, &record).map_err(Denial::Invalid)
}

/// The key that would sign and its end, if the log lists it so. One that was taken away by now is
/// to be chosen anew.
fn signing_key(asked: &Asked<'_>, exchange: &Exchange) -> Result<(KeyId, Timestamp), Denial> {
    let (id, not_after) = exchange.signing_key;
    let key = asked.state.keys.get(&id).ok_or(Denial::NotReady)?;
    if key.retired || key.revoked {
        return Err(Denial::Reevaluate);
    }
    let good = key.signs(asked.now) && key.not_after == not_after;
    if good { Ok((id, not_after)) } else { Err(Denial::NotReady) }
}
