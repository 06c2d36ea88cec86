//! Putting a policy bundle into force: what it would not grant ends with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dayfly_proto::v1;
use dayfly_verifier::id::GrantId;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::time::Timestamp;
use tokio::task::spawn_blocking;
use tonic::Status;

use super::ask::question;
use super::{Broker, render, status};
use crate::core::case::{Case, How, Stage};
use crate::core::command::{Application, Caller, Command};
use crate::core::decide::decide;
use crate::core::event::{End, Event};
use crate::core::state::State;
use crate::core::verdict::{Basis, Refusal, Verdict};
use crate::policy::bundle::Bundle;
use crate::policy::evaluate::evaluate;
use crate::policy::files::BundleFiles;

/// The most problems of a refused bundle that are told.
const MAX_TOLD: usize = 32;

/// Applies the bundle, or says what would happen.
pub(super) async fn apply(
    broker: &Arc<Broker>,
    caller: Caller,
    message: v1::ApplyBundleRequest,
) -> Result<v1::ApplyBundleResponse, Status> {
    let v1::ApplyBundleRequest { files, signatures, dry_run } = message;
    if !signatures.is_empty() {
        let rule = "signed bundles are not supported by this version";
        return Err(status::invalid(&Invalid::new("signatures", rule)));
    }
    let files = files.into_iter().map(|v1::BundleFile { name, content }| (name, content.into()));
    let files = BundleFiles::new(files).map_err(|problems| refused(&problems))?;
    let before = broker.sequencer.state();
    let (now, by) = (broker.now(&before), caller.clone());
    // Much is asked of policy: of every case that is open.
    let asked = spawn_blocking(move || {
        let bundle = Bundle::load(&files).map_err(|problems| refused(&problems))?;
        let mut said = BTreeMap::new();
        let command = application(&before, &bundle, now, &mut said);
        let (_, events) =
            decide(&before, &command, &by, now).map_err(|denial| status::denial(&denial))?;
        Ok::<_, Status>((files, before, Arc::new(bundle), said, command, events))
    });
    let asked = asked.await.map_err(|error| status::unavailable(&error))?;
    let (files, before, bundle, mut said, command, events) = asked?;
    if dry_run {
        return Ok(answer(&bundle, &before, events.iter().filter_map(drifted).collect()));
    }
    // Nothing is kept of what the rules refuse.
    let digest = bundle.digest();
    let kept = broker.store.put_bundle(&digest, &files.to_bytes()).await;
    kept.map_err(|error| status::unavailable(&error))?;
    // What is open may change all the time: what has not changed was asked about.
    let of = Arc::clone(&bundle);
    let remake = Box::new(move |state: &State, now| application(state, &of, now, &mut said));
    let applied = broker.sequencer.submit_remade(command, remake, caller, None).await;
    let state = applied.map_err(|failure| status::failure(&failure))?;
    tracing::info!(bundle = %digest, "applied");
    Ok(answer(&bundle, &state, ended(&before, &state)))
}

/// The command, with what `bundle` says of all that is open. What it `said` of a case before holds
/// as long as that rested on what the state has now.
fn application(
    state: &State,
    bundle: &Bundle,
    now: Timestamp,
    said: &mut BTreeMap<GrantId, Verdict>,
) -> Command {
    let verdict = |case: &Case| {
        let (request, grant) = (&case.request, case.grant_id());
        let basis = state.basis(&request.workload, &request.task, Some(&grant), now)?;
        let basis = Basis { bundle: bundle.digest(), ..basis };
        let before = said.remove(&grant).filter(|verdict| verdict.basis == basis);
        let verdict = before.unwrap_or_else(|| evaluate(bundle, &question(case, now), basis));
        Some((grant, verdict))
    };
    let verdicts: BTreeMap<_, _> = state.open(now).filter_map(verdict).collect();
    said.clone_from(&verdicts);
    Command::Apply(Application {
        bundle: bundle.digest(),
        directory: bundle.directory().clone(),
        signers: BTreeSet::new(),
        replaces: state.bundle,
        verdicts,
    })
}

fn refused(problems: &[Invalid]) -> Status {
    let told: Vec<_> = problems.iter().take(MAX_TOLD).map(ToString::to_string).collect();
    let more = problems.len().saturating_sub(told.len());
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    status::invalid(&Invalid::new("files", format!("{}{more}", told.join("; "))))
}

fn answer(
    bundle: &Bundle,
    state: &State,
    drifted: Vec<v1::DriftedGrant>,
) -> v1::ApplyBundleResponse {
    v1::ApplyBundleResponse {
        bundle_digest: bundle.digest().to_string(),
        head: Some(render::head(&state.head)),
        drifted,
    }
}

fn drifted(event: &Event) -> Option<v1::DriftedGrant> {
    let Event::Ended { grant, end: End::Drifted(refusal) } = event else { return None };
    Some(drift(grant, refusal))
}

fn drift(grant: &GrantId, refusal: &Refusal) -> v1::DriftedGrant {
    let Refusal { policy, reason } = refusal.clone();
    v1::DriftedGrant { grant_id: grant.to_string(), policy, reason }
}

/// What has drifted in `after` and had not in `before`.
fn ended(before: &State, after: &State) -> Vec<v1::DriftedGrant> {
    let refusal = |state: &State, grant: &GrantId| {
        let Stage::Closed(closed) = &state.case(grant)?.stage else { return None };
        if let How::Drifted(refusal) = &closed.how { Some(refusal.clone()) } else { None }
    };
    let grants = after.cases().map(Case::grant_id);
    let new = grants.filter(|grant| refusal(before, grant).is_none());
    new.filter_map(|grant| Some(drift(&grant, &refusal(after, &grant)?))).collect()
}
