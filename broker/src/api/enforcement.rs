//! Revoking, and the truth about how far it is enforced.

use std::sync::Arc;

use dayfly_proto::v1;
use futures_util::stream::BoxStream;
use tonic::Status;

use super::Broker;
use crate::core::command::Caller;

/// Takes something back.
pub(super) async fn revoke(
    _broker: &Arc<Broker>,
    _caller: Caller,
    _message: v1::RevokeRequest,
) -> Result<v1::RevokeResponse, Status> {
    Err(Status::unimplemented("revoke"))
}

/// How far each gateway instance enforces the journal, until it holds everywhere.
pub(super) fn watch(
    _broker: &Arc<Broker>,
    _message: v1::WatchEnforcementRequest,
) -> Result<BoxStream<'static, Result<v1::WatchEnforcementResponse, Status>>, Status> {
    Err(Status::unimplemented("watch"))
}

/// What an operator wants to know of this broker.
pub(super) fn status(
    _broker: &Arc<Broker>,
    _message: v1::GetStatusRequest,
) -> Result<v1::GetStatusResponse, Status> {
    Err(Status::unimplemented("status"))
}
