//! For gateways: the feed, the keys, redemption.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dayfly_proto::v1::follow_request::Message as Up;
use dayfly_proto::v1::gateway_service_server::GatewayService;
use dayfly_proto::v1::{self, FollowRequest, FollowResponse};
use dayfly_verifier::feed::SignedHead;
use dayfly_verifier::id::{InstanceId, TokenId, UseId};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::trust::Signed;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::{Request, Response, Status, Streaming};

use super::ask::judge;
use super::{Broker, render, report, status};
use crate::caller::caller_of;
use crate::core::case::Case;
use crate::core::command::{Caller, Command};
use crate::core::denial::Denial;
use crate::core::state::State;
use crate::core::unbounded::RECORD_EVERY;
use crate::follow::instances::Terms;
use crate::follow::stream::{self, Asked};

/// How long a gateway may take for its first message.
const FIRST_MESSAGE: Duration = Duration::from_secs(5);
/// When what could not be recorded is tried again.
const RECORD_AGAIN: Duration = Duration::from_secs(10);

/// The service.
pub struct Gateway(pub Arc<Broker>);

#[tonic::async_trait]
impl GatewayService for Gateway {
    type FollowStream = BoxStream<'static, Result<FollowResponse, Status>>;

    async fn follow(
        &self,
        request: Request<Streaming<FollowRequest>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let caller = caller_of(&request)?;
        let mut requests = request.into_inner();
        let first = timeout(FIRST_MESSAGE, requests.message()).await;
        let first = first.map_err(|_| status::too_late())??;
        let Some(Up::Subscribe(subscribe)) = first.and_then(|first| first.message) else {
            return Err(status::invalid(&Invalid::new("message", "must be `subscribe` at first")));
        };
        let (terms, asked) =
            parse(caller.id.clone(), subscribe).map_err(|invalid| status::invalid(&invalid))?;
        let recorded = match terms.best_effort {
            true => Some(OptedOut::record(&self.0, caller, terms.instance.clone()).await?),
            false => None,
        };
        let (hub, shutdown) = (Arc::clone(&self.0.hub), self.0.shutdown.clone());
        let followed = stream::follow(hub, shutdown, terms, asked, requests).await?;
        // Held for as long as it follows.
        let followed = followed.map(move |told| {
            let _held = &recorded;
            told
        });
        Ok(Response::new(followed.boxed()))
    }

    async fn get_trust(
        &self,
        request: Request<v1::GetTrustRequest>,
    ) -> Result<Response<v1::GetTrustResponse>, Status> {
        let v1::GetTrustRequest {} = request.into_inner();
        let trust = self.0.hub.trust();
        let Signed { statement, signature } = trust.signed();
        Ok(Response::new(v1::GetTrustResponse {
            statement: Bytes::copy_from_slice(statement),
            signature: Bytes::copy_from_slice(signature),
        }))
    }

    async fn redeem(
        &self,
        request: Request<v1::RedeemRequest>,
    ) -> Result<Response<v1::RedeemResponse>, Status> {
        let caller = caller_of(&request)?;
        let v1::RedeemRequest { token_id, use_id } = request.into_inner();
        let invalid = |invalid: Invalid| status::invalid(&invalid);
        let token: TokenId = token_id.parse().map_err(invalid)?;
        let use_id: UseId = use_id.parse().map_err(invalid)?;
        let submitted = self.0.sequencer.submit_once(Command::Redeem(token, use_id), caller).await;
        let (state, first) = submitted.map_err(|failure| status::failure(&failure))?;
        let spent = state.token(&token).and_then(|(case, _)| case.grant()?.uses.get(&use_id));
        let lost = || status::unavailable(&"a use is missing from the state that holds it");
        let (_, uses_left) = spent.ok_or_else(lost)?;
        Ok(Response::new(v1::RedeemResponse { uses_left: *uses_left, spent_before: !first }))
    }

    async fn reevaluate(
        &self,
        request: Request<v1::ReevaluateRequest>,
    ) -> Result<Response<v1::ReevaluateResponse>, Status> {
        let caller = caller_of(&request)?;
        let v1::ReevaluateRequest { token_id } = request.into_inner();
        let token: TokenId = token_id.parse().map_err(|e: Invalid| status::invalid(&e))?;
        self.0.find(|state| shown(state, &caller.id, &token).map(drop)).await?;
        let state = self.0.submit_judged(&caller, None, |state, bundle, now| {
            let verdict = judge(bundle, state, shown(state, &caller.id, &token)?, now)?;
            Ok(Command::Reevaluate(token, verdict))
        });
        let head = Some(render::head(&state.await?.head));
        Ok(Response::new(v1::ReevaluateResponse { head }))
    }

    async fn report_use(
        &self,
        request: Request<v1::ReportUseRequest>,
    ) -> Result<Response<v1::ReportUseResponse>, Status> {
        let caller = caller_of(&request)?;
        let batch = report::batch(&caller.id, request.into_inner());
        let batch = batch.map_err(|invalid| status::invalid(&invalid))?;
        let submitted = self.0.sequencer.submit(Command::Report(batch), caller).await;
        let state = submitted.map_err(|failure| status::failure(&failure))?;
        Ok(Response::new(v1::ReportUseResponse { head: Some(render::head(&state.head)) }))
    }
}

/// An instance that does not refuse when it hears nothing is on record before it is told anything,
/// and again and again while it follows: every broker knows of it, over restarts.
struct OptedOut(JoinHandle<()>);

impl OptedOut {
    async fn record(
        broker: &Arc<Broker>,
        caller: Caller,
        instance: InstanceId,
    ) -> Result<Self, Status> {
        let command = Command::OptOut(instance);
        let recorded = broker.sequencer.submit(command.clone(), caller.clone()).await;
        recorded.map_err(|failure| status::failure(&failure))?;
        let broker = Arc::clone(broker);
        Ok(Self(tokio::spawn(async move {
            let mut pause = RECORD_EVERY;
            loop {
                sleep(pause).await;
                let again = broker.sequencer.submit(command.clone(), caller.clone()).await;
                pause = if again.is_ok() { RECORD_EVERY } else { RECORD_AGAIN };
            }
        })))
    }
}

impl Drop for OptedOut {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The case of a token for `gateway`. To others it is not there.
fn shown<'a>(state: &'a State, gateway: &SpiffeId, token: &TokenId) -> Result<&'a Case, Status> {
    let known = state.token(token);
    let shown = known.filter(|(_, token)| token.minted.claims.audience == *gateway);
    shown.map(|(case, _)| case).ok_or_else(|| status::denial(&Denial::NotFound))
}

pub(crate) fn parse(
    gateway: SpiffeId,
    subscribe: v1::Subscribe,
) -> Result<(Terms, Asked), Invalid> {
    let v1::Subscribe {
        instance,
        max_staleness_ms,
        best_effort,
        last,
        challenge,
        snapshot,
        min_staleness_ms,
        trust_version,
    } = subscribe;
    let instance: InstanceId = instance.parse()?;
    if !(1_000..=60_000).contains(&max_staleness_ms) {
        return Err(Invalid::new("max_staleness_ms", "must be 1000 to 60000"));
    }
    let min_staleness_ms = if min_staleness_ms == 0 { max_staleness_ms } else { min_staleness_ms };
    if !(1_000..=max_staleness_ms).contains(&min_staleness_ms) {
        return Err(Invalid::new("min_staleness_ms", "must be 1000 to `max_staleness_ms`, or 0"));
    }
    if !stream::is_challenge(&challenge) {
        return Err(Invalid::new("challenge", "must be 16 bytes, or none"));
    }
    let [min_staleness, max_staleness] =
        [min_staleness_ms, max_staleness_ms].map(Duration::from_millis);
    let signed = |v1::SignedHead { head, signature }: v1::SignedHead| {
        let signature = signature.as_ref().try_into();
        let signature = signature.map_err(|_| Invalid::new("last", "must have 64 bytes signed"))?;
        Ok(SignedHead { head: head.to_vec(), signature })
    };
    let last = last.map(signed).transpose()?;
    let terms = Terms { gateway, instance, min_staleness, max_staleness, best_effort };
    Ok((terms, Asked { last, snapshot, challenge, trust_version }))
}
