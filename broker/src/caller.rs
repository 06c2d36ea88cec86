//! Who calls, and what they may call: one table, one rule for each method, in force before any
//! handler runs. A method without a rule is refused to everybody.

use dayfly_agent::svid::Peer;
use tonic::Status;

use crate::core::command::Caller;

/// The caller of a request, as the certificate of its connection says. Every request that a
/// handler sees has one; a request without is refused.
pub fn caller_of<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
    match request.extensions().get::<Peer>() {
        Some(peer) => Ok(Caller { id: peer.id.clone(), until: peer.until }),
        None => Err(Status::unauthenticated("this call needs a certificate")),
    }
}
