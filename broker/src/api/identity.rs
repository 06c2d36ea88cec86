//! Joining and renewal: SVIDs of the embedded authority, over gRPC.

use std::sync::Arc;
use std::time::Duration;

use dayfly_agent::errors::{NextAction, Reason, Refusal};
use dayfly_proto::v1;
use dayfly_proto::v1::identity_service_server::IdentityService;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use tokio::time::sleep;
use tonic::{Code, Request, Response, Status};

use super::{Broker, status};
use crate::authority::{AuthorityError, Svid};
use crate::caller::peer_of;
use crate::core::command::{Caller, Command};
use crate::core::event::IdentityChange;
use crate::sequencer::{Failure, Fault};

/// When what could not be recorded is tried again.
const RECORD_AGAIN: Duration = Duration::from_secs(10);

/// The service.
pub struct Identity(pub Arc<Broker>);

#[tonic::async_trait]
impl IdentityService for Identity {
    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        let v1::JoinRequest { join_id, secret, csr_der } = request.into_inner();
        let mut id = [0; 16];
        hex::decode_to_slice(&join_id, &mut id).map_err(|_| {
            status::invalid(&Invalid::new("join_id", "must be 16 bytes in hexadecimal"))
        })?;
        let broker = Arc::clone(&self.0);
        let joined = whole(async move {
            let now = broker.believed_now()?;
            let svid = broker.authority.join(&id, &secret, &csr_der, now).await.map_err(refused)?;
            // Nothing leaves that is not on record.
            let generation = svid.generation;
            broker.saw(&svid.id, IdentityChange::Joined { generation }).await?;
            tracing::info!(id = %svid.id, generation, "joined");
            Ok(v1::JoinResponse {
                svid: Some(render(&broker, svid)),
                broker_address: broker.address.clone(),
                peer_addresses: broker.peers.iter().map(|peer| peer.address.clone()).collect(),
            })
        });
        joined.await.map(Response::new)
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        let peer = peer_of(&request)?.clone();
        let v1::RenewRequest { csr_der, generation } = request.into_inner();
        let broker = Arc::clone(&self.0);
        let renewed = whole(async move {
            let now = broker.believed_now()?;
            let renewed = broker.authority.renew(&peer, generation, &csr_der, now).await;
            if let Err(AuthorityError::Forked) = &renewed {
                // The lock stands by now, and shows this once: it is recorded as soon as can be.
                while let Err(status) = broker.saw(&peer.id, IdentityChange::Locked).await {
                    if status::is_refusal(&status) {
                        return Err(status);
                    }
                    sleep(RECORD_AGAIN).await;
                }
            }
            let svid = renewed.map_err(refused)?;
            tracing::info!(id = %svid.id, generation = svid.generation, "renewed");
            Ok(v1::RenewResponse { svid: Some(render(&broker, svid)) })
        });
        renewed.await.map(Response::new)
    }
}

/// Does all of it, even if the caller hangs up half-way: nobody keeps off the record what they
/// brought about.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    tokio::spawn(work).await.map_err(|error| status::unavailable(&error))?
}

impl Broker {
    /// The time, while the clock is believed: what the authority remembers is forgotten by it.
    fn believed_now(&self) -> Result<Timestamp, Status> {
        if self.sequencer.clock_is_off() {
            return Err(status::failure(&Failure::from(Fault::ClockOff)));
        }
        Ok(self.clock.now())
    }

    /// Puts down what this broker saw become of an identity.
    async fn saw(&self, id: &SpiffeId, change: IdentityChange) -> Result<(), Status> {
        let command = Command::Identity(id.clone(), change);
        let done = self.sequencer.submit(command, Caller::itself(self.id.clone())).await;
        done.map(drop).map_err(|failure| status::failure(&failure))
    }
}

fn render(broker: &Broker, svid: Svid) -> v1::Svid {
    let Svid { id, certificate, until, generation } = svid;
    let roots = broker.authority.bundle().roots();
    v1::Svid {
        spiffe_id: id.to_string(),
        chain_der: vec![certificate.to_vec().into()],
        trust_bundle_der: roots.iter().map(|root| root.to_vec().into()).collect(),
        not_after_ms: i64::try_from(until.as_ms()).unwrap_or(i64::MAX),
        generation,
        brokers: std::iter::once(&broker.id)
            .chain(broker.peers.iter().map(|peer| &peer.id))
            .map(ToString::to_string)
            .collect(),
    }
}

/// A refusal of the authority as a status.
#[must_use]
pub fn refused(error: AuthorityError) -> Status {
    match error {
        AuthorityError::Invalid(invalid) => status::invalid(&invalid),
        AuthorityError::NotInvited
        | AuthorityError::Unknown
        | AuthorityError::Forked
        | AuthorityError::Locked => {
            Refusal::new(Reason::NotAllowed, error.to_string()).to_status(None)
        }
        AuthorityError::TooEarly(_) => {
            let (code, next) = (Code::FailedPrecondition, NextAction::Retry);
            status::undecided(code, "TOO_EARLY", next, error.to_string())
        }
        AuthorityError::Store(_) | AuthorityError::File(_) | AuthorityError::Certificate(_) => {
            status::unavailable(&error)
        }
    }
}
