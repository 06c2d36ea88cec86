//! For workloads: ask for a right, learn the decision, exchange it, give it back.
//!
//! Every call about a request carries a proof by its holder key, so that a sibling under the same
//! SPIFFE ID can do nothing with it. Answers come from durable states alone.

use std::sync::Arc;

use dayfly_proto::v1;
use dayfly_proto::v1::access_service_server::AccessService;
use dayfly_verifier::id::GrantId;
use dayfly_verifier::proof::HolderCall;
use dayfly_verifier::time::Timestamp;
use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::ask::{Durable, judge};
use super::parse::{self, Filed, Held};
use super::{Broker, render, status, watch};
use crate::caller::caller_of;
use crate::core::case::Minted;
use crate::core::command::{Caller, Command, Exchange, Filing};
use crate::core::denial::Denial;
use crate::core::state::State;
use crate::journal::{FreeText, Recorded};
use crate::policy::bundle::Bundle;
use crate::policy::evaluate::{Question, default_uses, evaluate};

/// The service.
pub struct Access(pub Arc<Broker>);

/// The full name of a method, as proofs name it.
macro_rules! method {
    ($name:literal) => {
        concat!("dayfly.v1.AccessService/", $name)
    };
}

#[tonic::async_trait]
impl AccessService for Access {
    type WatchRequestStream = BoxStream<'static, Result<v1::WatchRequestResponse, Status>>;

    async fn request_access(
        &self,
        request: Request<v1::RequestAccessRequest>,
    ) -> Result<Response<v1::RequestAccessResponse>, Status> {
        let caller = caller_of(&request)?;
        let filed = parse::filed(request.into_inner()).map_err(|e| status::invalid(&e))?;
        let call = HolderCall {
            method: method!("RequestAccess"),
            request: &filed.filing.id,
            caller: &caller.id,
            filing: Some(&filed.digest),
        };
        let now = self.0.clock.now();
        filed.proof.check(&filed.filing.holder_key, &call, now).map_err(status::proof)?;
        let id = filed.filing.id;
        let state = self.file(filed, &caller).await?;
        let case = state.own(&caller.id, &id).ok_or_else(lost)?;
        let request = Some(render::case(case, self.0.now(&state)));
        Ok(Response::new(v1::RequestAccessResponse { request }))
    }

    async fn watch_request(
        &self,
        request: Request<v1::WatchRequestRequest>,
    ) -> Result<Response<Self::WatchRequestStream>, Status> {
        let caller = caller_of(&request)?;
        let held = parse::watch(request.into_inner()).map_err(|e| status::invalid(&e))?;
        let (_, grant) = self.prove(&caller, &held, method!("WatchRequest")).await?;
        Ok(Response::new(watch::until_decided(Arc::clone(&self.0), grant)))
    }

    async fn exchange(
        &self,
        request: Request<v1::ExchangeRequest>,
    ) -> Result<Response<v1::ExchangeResponse>, Status> {
        let Self(broker) = self;
        let caller = caller_of(&request)?;
        let (held, id) = parse::exchange(request.into_inner()).map_err(|e| status::invalid(&e))?;
        let (state, grant) = self.prove(&caller, &held, method!("Exchange")).await?;
        let holder_key = state.case(&grant).ok_or_else(lost)?.request.holder_key;
        let state = broker
            .submit_judged(&caller, None, |state, bundle, now| {
                let case = state.case(&grant).ok_or_else(lost)?;
                let verdict = judge(bundle, state, case, now)?;
                let signing_key = broker.signing_key(state);
                let signing_key = signing_key.ok_or_else(|| status::denial(&Denial::NotReady))?;
                let exchange = Exchange { request: held.request, id, holder_key, signing_key };
                Ok(Command::Exchange(exchange, verdict))
            })
            .await?;
        let now = broker.now(&state);
        let minted: Option<Recorded<Minted>> =
            state.project(|state| state.answer(&grant, &id, now));
        let minted = minted.ok_or_else(|| ended(&state, &grant, now))?;
        let token = broker.signer.sign(&minted, now).map_err(|e| status::unavailable(&e))?;
        Ok(Response::new(v1::ExchangeResponse {
            token: token.expose().to_owned(),
            token_id: minted.claims.token.to_string(),
            expires_at_ms: render::ms(minted.claims.expires_at),
            grant_id: grant.to_string(),
        }))
    }

    async fn complete(
        &self,
        request: Request<v1::CompleteRequest>,
    ) -> Result<Response<v1::CompleteResponse>, Status> {
        let caller = caller_of(&request)?;
        let (held, outcome) =
            parse::complete(request.into_inner()).map_err(|e| status::invalid(&e))?;
        let (state, grant) = self.prove(&caller, &held, method!("Complete")).await?;
        let key = state.case(&grant).ok_or_else(lost)?.request.holder_key;
        let command = Command::Complete(held.request, key, outcome);
        let (request, head) = self.end(command, caller, &grant).await?;
        Ok(Response::new(v1::CompleteResponse { request, head }))
    }

    async fn cancel(
        &self,
        request: Request<v1::CancelRequest>,
    ) -> Result<Response<v1::CancelResponse>, Status> {
        let caller = caller_of(&request)?;
        let held = parse::cancel(request.into_inner()).map_err(|e| status::invalid(&e))?;
        let (state, grant) = self.prove(&caller, &held, method!("Cancel")).await?;
        let key = state.case(&grant).ok_or_else(lost)?.request.holder_key;
        let command = Command::Cancel(held.request, key);
        let (request, head) = self.end(command, caller, &grant).await?;
        Ok(Response::new(v1::CancelResponse { request, head }))
    }

    async fn list_my_grants(
        &self,
        request: Request<v1::ListMyGrantsRequest>,
    ) -> Result<Response<v1::ListMyGrantsResponse>, Status> {
        let caller = caller_of(&request)?;
        let v1::ListMyGrantsRequest {} = request.into_inner();
        let state = self.0.sequencer.state();
        let now = self.0.now(&state);
        let requests = state.cases_of(&caller.id).map(|case| render::case(case, now)).collect();
        Ok(Response::new(v1::ListMyGrantsResponse { requests }))
    }

    async fn get_dossier(
        &self,
        request: Request<v1::GetDossierRequest>,
    ) -> Result<Response<v1::GetDossierResponse>, Status> {
        let caller = caller_of(&request)?;
        let held = parse::dossier(request.into_inner()).map_err(|e| status::invalid(&e))?;
        let (state, grant) = self.prove(&caller, &held, method!("GetDossier")).await?;
        let dossier = state.case(&grant).map(render::dossier);
        Ok(Response::new(v1::GetDossierResponse { dossier }))
    }
}

impl Access {
    async fn file(&self, filed: Filed, caller: &Caller) -> Result<Durable, Status> {
        let Self(broker) = self;
        let Filed { mut filing, justification, proof: _, digest: _ } = filed;
        let text = justification.map(|text| broker.salted(text)).transpose()?;
        filing.justification = text.as_ref().map(FreeText::digest);
        let ask = |state: &State, bundle: &Bundle, now| judged(&filing, caller, state, bundle, now);
        broker.submit_judged(caller, text, ask).await
    }

    /// The caller's request, if the proof is by its holder key and for this call.
    async fn prove(
        &self,
        caller: &Caller,
        held: &Held,
        method: &'static str,
    ) -> Result<(Durable, GrantId), Status> {
        let own = |state: &Durable| {
            let case = state.own(&caller.id, &held.request);
            let case = case.ok_or_else(|| status::denial(&Denial::NotFound))?;
            Ok((state.clone(), case.grant_id(), case.request.holder_key))
        };
        let (state, grant, holder_key) = self.0.find(own).await?;
        let call = HolderCall { method, request: &held.request, caller: &caller.id, filing: None };
        held.proof.check(&holder_key, &call, self.0.clock.now()).map_err(status::proof)?;
        Ok((state, grant))
    }

    async fn end(
        &self,
        command: Command,
        caller: Caller,
        grant: &GrantId,
    ) -> Result<(Option<v1::AccessRequest>, Option<v1::Head>), Status> {
        let ended = self.0.sequencer.submit(command, caller).await;
        let state = ended.map_err(|failure| status::failure(&failure))?;
        let now = self.0.now(&state);
        let request = state.case(grant).map(|case| render::case(case, now));
        Ok((request, Some(render::head(&state.head))))
    }
}

/// The command to file `filing`, with what `bundle` says of it at `now`.
fn judged(
    filing: &Filing,
    caller: &Caller,
    state: &State,
    bundle: &Bundle,
    now: Timestamp,
) -> Result<Command, Status> {
    let default_uses = default_uses(bundle, &filing.scope);
    let filing = Filing { default_uses, ..filing.clone() };
    let basis = state.basis(&caller.id, &filing.task, None, now);
    let basis = basis.ok_or_else(|| status::denial(&Denial::NotReady))?;
    let question = Question::of_filing(&filing, &caller.id, state.limits.default_lease, now);
    let verdict = evaluate(bundle, &question, basis);
    Ok(Command::File(filing, verdict))
}

/// Why there is no token, although the exchange was decided: the grant has ended since.
fn ended(state: &State, grant: &GrantId, now: Timestamp) -> Status {
    let end = state.case(grant).and_then(|case| case.standing(now).end());
    status::denial(&end.unwrap_or(Denial::Lapsed))
}

/// What was just decided about is not in the state: a defect.
fn lost() -> Status {
    status::unavailable(&"a request is missing from the state that holds it")
}
