//! The bare service: one durable grouped append a call.

use dayfly_proto::v1;
use dayfly_proto::v1::gateway_service_server::GatewayService;
use tonic::{Request, Response, Status, Streaming};

use super::appends::Appends;

/// The service.
pub(crate) struct Bare(pub(crate) Appends);

type Stream = futures_util::stream::Pending<Result<v1::FollowResponse, Status>>;

fn absent<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the bare service only redeems"))
}

#[tonic::async_trait]
impl GatewayService for Bare {
    type FollowStream = Stream;

    async fn redeem(
        &self,
        _: Request<v1::RedeemRequest>,
    ) -> Result<Response<v1::RedeemResponse>, Status> {
        self.0.append().await?;
        Ok(Response::new(v1::RedeemResponse { uses_left: 1, spent_before: false }))
    }

    async fn follow(
        &self,
        _: Request<Streaming<v1::FollowRequest>>,
    ) -> Result<Response<Stream>, Status> {
        absent()
    }

    async fn get_trust(
        &self,
        _: Request<v1::GetTrustRequest>,
    ) -> Result<Response<v1::GetTrustResponse>, Status> {
        absent()
    }

    async fn reevaluate(
        &self,
        _: Request<v1::ReevaluateRequest>,
    ) -> Result<Response<v1::ReevaluateResponse>, Status> {
        absent()
    }

    async fn report_use(
        &self,
        _: Request<v1::ReportUseRequest>,
    ) -> Result<Response<v1::ReportUseResponse>, Status> {
        absent()
    }
}
