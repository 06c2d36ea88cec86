//! Asks a broker about single uses, over gRPC: counted ones are spent, online ones evaluated.

use std::time::Duration;

use dayfly_proto::v1::gateway_service_client::GatewayServiceClient;
use dayfly_proto::v1::{RedeemRequest, RedeemResponse, ReevaluateRequest};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::id::{TokenId, UseId};
use crate::verify::{NotRedeemed, Redeem, Redemption};

/// How long a broker may take for one answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Asks the brokers of a gateway about each use.
#[derive(Debug, Clone)]
pub struct Redeemer {
    brokers: Vec<Channel>,
}

impl Redeemer {
    /// Over channels that authenticate the brokers and this gateway; asked in turn.
    #[must_use]
    pub const fn new(brokers: Vec<Channel>) -> Self {
        Self { brokers }
    }

    /// Asks the next broker only where one did not answer. If the first did record the use, the
    /// second says that it was recorded before, and the use is lost rather than given twice.
    async fn spend(&self, request: RedeemRequest) -> Result<(), NotRedeemed> {
        for broker in &self.brokers {
            let mut broker = GatewayServiceClient::new(broker.clone());
            let answer = timeout(ANSWER, broker.redeem(request.clone())).await;
            let Ok(answer) = answer else { continue };
            match answer.map(tonic::Response::into_inner) {
                Ok(RedeemResponse { spent_before: false, .. }) => return Ok(()),
                Ok(RedeemResponse { spent_before: true, .. }) => return Err(NotRedeemed::Repeated),
                Err(status) => {
                    if let Some(why) = not_spent(&status) {
                        return Err(why);
                    }
                }
            }
        }
        Err(NotRedeemed::Unanswered)
    }

    /// Asks the next broker only where one could not tell: a no is final.
    async fn evaluate(&self, request: ReevaluateRequest) -> Result<(), NotRedeemed> {
        for broker in &self.brokers {
            let mut broker = GatewayServiceClient::new(broker.clone());
            match timeout(ANSWER, broker.reevaluate(request.clone())).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(status)) if is_refusal(&status) => return Err(NotRedeemed::Drifted),
                Ok(Err(_)) | Err(_) => {}
            }
        }
        Err(NotRedeemed::Unanswered)
    }
}

/// Why the broker did not spend a use; `None` where it could not tell.
fn not_spent(status: &Status) -> Option<NotRedeemed> {
    // The id has spent a use already, with another token of the grant.
    let repeated = status.code() == Code::AlreadyExists;
    let why = if repeated { NotRedeemed::Repeated } else { NotRedeemed::Spent };
    is_refusal(status).then_some(why)
}

/// Whether the broker said no, rather than that it could not tell. One that has too much to do
/// (`RESOURCE_EXHAUSTED`) has not looked at it.
fn is_refusal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::NotFound
            | Code::InvalidArgument
            | Code::AlreadyExists
    )
}

impl Redeem for Redeemer {
    fn redeem(&self, token: TokenId, use_id: UseId) -> Redemption<'_> {
        let request = RedeemRequest { token_id: token.to_string(), use_id: use_id.to_string() };
        Box::pin(self.spend(request))
    }

    fn reevaluate(&self, token: TokenId) -> Redemption<'_> {
        Box::pin(self.evaluate(ReevaluateRequest { token_id: token.to_string() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_cannot_tell_has_not_said_no() {
        for code in [
            Code::ResourceExhausted,
            Code::Unavailable,
            Code::Unauthenticated,
            Code::Aborted,
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::Internal,
            Code::Unknown,
        ] {
            assert!(!is_refusal(&Status::new(code, "")), "{code}");
            assert_eq!(not_spent(&Status::new(code, "")), None, "{code}");
        }
        for code in [Code::PermissionDenied, Code::FailedPrecondition, Code::NotFound] {
            assert!(is_refusal(&Status::new(code, "")), "{code}");
            assert_eq!(not_spent(&Status::new(code, "")), Some(NotRedeemed::Spent), "{code}");
        }
        let elsewhere = Status::already_exists("the id was used for something else before");
        assert_eq!(not_spent(&elsewhere), Some(NotRedeemed::Repeated));
    }
}
