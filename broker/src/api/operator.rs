//! For operators: see, revoke, put bundles into force, invite.

use std::sync::Arc;

use dayfly_proto::v1;
use dayfly_proto::v1::operator_service_server::OperatorService;
use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::{Broker, apply, enforcement, identity, keys, lock, parse, render, status};
use crate::caller::caller_of;
use crate::core::command::Command;
use crate::core::event::IdentityChange;

/// The service.
pub struct Operator(pub Arc<Broker>);

#[tonic::async_trait]
impl OperatorService for Operator {
    type WatchEnforcementStream = BoxStream<'static, Result<v1::WatchEnforcementResponse, Status>>;

    async fn list_grants(
        &self,
        request: Request<v1::ListGrantsRequest>,
    ) -> Result<Response<v1::ListGrantsResponse>, Status> {
        let filter = parse::list_grants(request.into_inner()).map_err(|e| status::invalid(&e))?;
        let state = self.0.sequencer.state();
        let now = self.0.now(&state);
        let cases = state.cases().filter(|case| filter.admits(case));
        let shown = cases.map(|case| render::case(case, now));
        let requests = shown.filter(|case| filter.shows(case.standing())).collect();
        Ok(Response::new(v1::ListGrantsResponse { requests }))
    }

    async fn revoke(
        &self,
        request: Request<v1::RevokeRequest>,
    ) -> Result<Response<v1::RevokeResponse>, Status> {
        let caller = caller_of(&request)?;
        enforcement::revoke(&self.0, caller, request.into_inner()).await.map(Response::new)
    }

    async fn lock(
        &self,
        request: Request<v1::LockRequest>,
    ) -> Result<Response<v1::LockResponse>, Status> {
        let caller = caller_of(&request)?;
        lock::lock(&self.0, caller, request.into_inner()).await.map(Response::new)
    }

    async fn unlock(
        &self,
        request: Request<v1::UnlockRequest>,
    ) -> Result<Response<v1::UnlockResponse>, Status> {
        let caller = caller_of(&request)?;
        lock::unlock(&self.0, caller, request.into_inner()).await.map(Response::new)
    }

    async fn list_locks(
        &self,
        request: Request<v1::ListLocksRequest>,
    ) -> Result<Response<v1::ListLocksResponse>, Status> {
        lock::list(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn watch_enforcement(
        &self,
        request: Request<v1::WatchEnforcementRequest>,
    ) -> Result<Response<Self::WatchEnforcementStream>, Status> {
        enforcement::watch(&self.0, request.into_inner()).map(Response::new)
    }

    async fn apply_bundle(
        &self,
        request: Request<v1::ApplyBundleRequest>,
    ) -> Result<Response<v1::ApplyBundleResponse>, Status> {
        let caller = caller_of(&request)?;
        apply::apply(&self.0, caller, request.into_inner()).await.map(Response::new)
    }

    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        enforcement::status(&self.0, request.into_inner()).map(Response::new)
    }

    async fn list_keys(
        &self,
        request: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysResponse>, Status> {
        let v1::ListKeysRequest {} = request.into_inner();
        Ok(Response::new(keys::list(&self.0)))
    }

    async fn retire_key(
        &self,
        request: Request<v1::RetireKeyRequest>,
    ) -> Result<Response<v1::RetireKeyResponse>, Status> {
        let caller = caller_of(&request)?;
        keys::retire(&self.0, caller, request.into_inner()).await.map(Response::new)
    }

    async fn create_join(
        &self,
        request: Request<v1::CreateJoinRequest>,
    ) -> Result<Response<v1::CreateJoinResponse>, Status> {
        let caller = caller_of(&request)?;
        let v1::CreateJoinRequest { spiffe_id } = request.into_inner();
        let id = parse::text("spiffe_id", &spiffe_id).map_err(|e| status::invalid(&e))?;
        self.0.authority.may_invite(&id).map_err(|e| status::invalid(&e))?;
        let command = Command::Identity(id.clone(), IdentityChange::Invited);
        let recorded = self.0.sequencer.submit(command, caller).await;
        recorded.map_err(|failure| status::failure(&failure))?;
        let invited = self.0.authority.invite(&id, self.0.clock.now()).await;
        let (string, expires_at) = invited.map_err(identity::refused)?;
        tracing::info!(%id, "invited");
        let (join_string, expires_at_ms) = (string.to_text().to_string(), render::ms(expires_at));
        Ok(Response::new(v1::CreateJoinResponse { join_string, expires_at_ms }))
    }
}
