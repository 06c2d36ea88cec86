//! Recording what a gateway counted: of its own grants alone, and each batch once.

use dayfly_verifier::uses::{About, Batch, Line};

use super::{Asked, Decided};
use crate::core::denial::{Denial, Limited};
use crate::core::event::{Actor, Event, Report};
use crate::core::limits::{ID_WINDOW, REPORT_AGE, REPORT_EVERY};

pub(super) fn report(asked: &Asked<'_>, batch: &Batch) -> Decided {
    let (state, gateway) = (asked.state, asked.caller);
    if !state.directory.gateways.contains(gateway) {
        return Err(Denial::NotAllowed);
    }
    let actor = Actor::Gateway(gateway.clone());
    let digest = batch.digest(gateway);
    let last = state.reports.last(gateway, &batch.instance);
    if let Some(last) = last.filter(|last| batch.number <= last.number) {
        let same = last.number == batch.number && last.digest == digest;
        return if same { Ok((actor, Vec::new())) } else { Err(Denial::IdReused) };
    }
    let too_old = asked.now.since(batch.until) > REPORT_AGE;
    if too_old || batch.until.since(asked.now) > ID_WINDOW {
        return Err(Denial::StaleId);
    }
    let too_soon = match last {
        Some(last) => asked.now < last.at.plus(REPORT_EVERY),
        None => !state.reports.has_room(gateway, asked.now),
    };
    if too_soon {
        return Err(Denial::LimitReached(Limited::Reports));
    }
    let mut placed = Batch { counts: Vec::new(), ..batch.clone() };
    let mut unplaced = 0_u64;
    for (line, count) in &batch.counts {
        if is_own(asked, line)? {
            placed.counts.push((line.clone(), *count));
        } else {
            unplaced = unplaced.saturating_add(*count);
        }
    }
    let report = Report { batch: placed, unplaced, digest };
    Ok((actor, vec![Event::UsesReported(report)]))
}

/// Whether the line is about a grant of this gateway, or about none. `false` where the grant or
/// the token is not known, or not any more; what is known to be of another gateway refuses.
fn is_own(asked: &Asked<'_>, line: &Line) -> Result<bool, Denial> {
    let Some(About { grant, token }) = &line.about else { return Ok(true) };
    let Some(case) = asked.state.case(grant) else { return Ok(false) };
    if case.request.audience != *asked.caller {
        return Err(Denial::NotFound);
    }
    match asked.state.token(token) {
        Some((of, _)) if of.grant_id() == *grant => Ok(true),
        Some(_) => Err(Denial::NotFound),
        None => Ok(false),
    }
}
