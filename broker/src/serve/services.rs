//! The services of a broker, each behind the door and with the bounds that are its own.

use std::sync::Arc;

use dayfly_agent::listen::{self, Bounds, Terms, Traffic};
use dayfly_agent::tls::{Admission, Live};
use dayfly_proto::v1;
use dayfly_proto::v1::access_service_server::AccessServiceServer;
use dayfly_proto::v1::approval_service_server::ApprovalServiceServer;
use dayfly_proto::v1::audit_service_server::AuditServiceServer;
use dayfly_proto::v1::gateway_service_server::GatewayServiceServer;
use dayfly_proto::v1::identity_service_server::IdentityServiceServer;
use dayfly_proto::v1::operator_service_server::OperatorServiceServer;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;

use super::ServeError;
use crate::api::{Broker, access, approval, audit, gateway, identity, operator};
use crate::caller::{Door, Guard, Known, Room};
use crate::policy::files::{FILE_NAMES, MAX_FILE_BYTES};
use crate::telemetry::{Measured, Metrics};

/// The longest message to services whose messages are small: whoever reaches the port for joining
/// can send one.
const SMALL_MESSAGE_BYTES: usize = 16 * 1024;
/// The longest message to any other service.
const MESSAGE_BYTES: usize = 256 * 1024;
/// The longest message to operators: one that holds every file of a bundle, each as long as it may
/// be.
const BUNDLE_MESSAGE_BYTES: usize =
    FILE_NAMES.len().saturating_mul(MAX_FILE_BYTES).saturating_add(MESSAGE_BYTES);

/// What the listeners for gRPC go by: the one for everything but joining, then that for joining.
pub(super) struct Grpc {
    pub(super) at: [TcpListener; 2],
    pub(super) bounds: Bounds,
    pub(super) traffic: [(&'static str, Traffic); 2],
    pub(super) metrics: Metrics,
}

/// Serves on both listeners for gRPC, each in a task of its own, until `stop`.
pub(super) fn serve(
    broker: &Arc<Broker>,
    live: &Live,
    grpc: Grpc,
    stop: &CancellationToken,
) -> Result<(HealthReporter, JoinSet<()>), ServeError> {
    let Grpc { at: [for_broker, for_join], bounds, traffic, metrics } = grpc;
    let [(_, at_broker), (_, at_join)] = traffic;
    let (health, routes) = routes(broker)?;
    let sequencer = broker.sequencer.clone();
    let door = Door::Mutual(Arc::new(Known {
        judge: Box::new(sequencer),
        authority: broker.authority.clone(),
        clock: broker.clock.clone(),
        streams: Room::streams(),
        lists: Room::lists(),
        stop: stop.clone(),
    }));
    let guarded = |door, routes| {
        let guard = Guard::new(door, routes);
        Measured::new(guard, metrics.clone(), broker.clock.clone())
    };
    let mut serving = JoinSet::new();
    let authority = broker.authority.clone();
    let admission = Admission::of(move |peer| authority.admits(peer).is_ok());
    let mutual = Terms::mutual(live, &["h2"], admission)?.bounded(bounds, at_broker);
    serving.spawn(listen::serve(
        for_broker,
        mutual,
        guarded(door, routes),
        stop.clone().cancelled_owned(),
    ));
    serving.spawn(listen::serve(
        for_join,
        Terms::anyone(live, &["h2"])?.bounded(bounds, at_join),
        guarded(Door::Join, Routes::new(joining(broker)).prepare()),
        stop.clone().cancelled_owned(),
    ));
    Ok((health, serving))
}

/// All services behind the door that wants certificates.
pub(crate) fn routes(broker: &Arc<Broker>) -> Result<(HealthReporter, Routes), ServeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let access = AccessServiceServer::new(access::Access(broker.clone()));
    let operator = OperatorServiceServer::new(operator::Operator(broker.clone()));
    let gateway = GatewayServiceServer::new(gateway::Gateway(broker.clone()));
    let approval = ApprovalServiceServer::new(approval::Approval(broker.clone()));
    let audit = AuditServiceServer::new(audit::Audit::new(broker.clone()));
    let routes = Routes::new(joining(broker))
        .add_service(access.max_decoding_message_size(MESSAGE_BYTES))
        .add_service(operator.max_decoding_message_size(BUNDLE_MESSAGE_BYTES))
        .add_service(gateway.max_decoding_message_size(MESSAGE_BYTES))
        .add_service(approval.max_decoding_message_size(MESSAGE_BYTES))
        .add_service(audit.max_decoding_message_size(MESSAGE_BYTES))
        .add_service(health_service.max_decoding_message_size(SMALL_MESSAGE_BYTES))
        .add_service(reflection.max_decoding_message_size(SMALL_MESSAGE_BYTES));
    Ok((health, routes.prepare()))
}

/// The service behind the door for joining; it stands behind the other one, too.
fn joining(broker: &Arc<Broker>) -> IdentityServiceServer<identity::Identity> {
    let service = IdentityServiceServer::new(identity::Identity(broker.clone()));
    service.max_decoding_message_size(SMALL_MESSAGE_BYTES)
}
