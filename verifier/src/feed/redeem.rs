//! Asks a broker about single uses, over gRPC: counted ones are spent, online ones evaluated.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dayfly_proto::v1::gateway_service_client::GatewayServiceClient;
use dayfly_proto::v1::{RedeemRequest, RedeemResponse, ReevaluateRequest};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::{ErrorInfo, StatusExt as _};

use crate::id::{LockId, TokenId, UseId};
use crate::verify::{NotRedeemed, Redeem, Redemption};

/// How long a broker may take for one answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Asks the brokers of a gateway about each use.
#[derive(Debug, Clone)]
pub struct Redeemer {
    brokers: Vec<Channel>,
    turn: Turn,
}

/// Who is asked first: the one that answered last. One that is not there costs the time of an
/// answer once, and not at each use.
#[derive(Debug, Clone, Default)]
struct Turn(Arc<AtomicUsize>);

impl Turn {
    /// The places of `count` brokers, in the order in which they are asked.
    fn order(&self, count: usize) -> impl Iterator<Item = usize> + use<> {
        let first = self.0.load(Ordering::Relaxed).min(count);
        (first..count).chain(0..first)
    }

    /// The broker at this place gave an answer.
    fn answered(&self, place: usize) {
        self.0.store(place, Ordering::Relaxed);
    }
}

impl Redeemer {
    /// Over channels that authenticate the brokers and this gateway; asked in turn, first the one
    /// that answered last.
    #[must_use]
    pub fn new(brokers: Vec<Channel>) -> Self {
        Self { brokers, turn: Turn::default() }
    }

    /// The brokers in the order in which they are asked, each with its place.
    fn in_turn(&self) -> impl Iterator<Item = (usize, GatewayServiceClient<Channel>)> + '_ {
        let order = self.turn.order(self.brokers.len());
        order.filter_map(|place| {
            let broker = self.brokers.get(place)?.clone();
            Some((place, GatewayServiceClient::new(broker)))
        })
    }

    /// Asks the next broker only where one did not answer. If the first did record the use, the
    /// second says that it was recorded before, and the use is lost rather than given twice.
    async fn spend(&self, request: RedeemRequest) -> Result<(), NotRedeemed> {
        for (place, mut broker) in self.in_turn() {
            let answer = timeout(ANSWER, broker.redeem(request.clone())).await;
            let Ok(answer) = answer else { continue };
            let told = match answer.map(tonic::Response::into_inner) {
                Ok(RedeemResponse { spent_before: false, .. }) => Ok(()),
                Ok(RedeemResponse { spent_before: true, .. }) => Err(NotRedeemed::Repeated),
                Err(status) => match refusal(&status, NotRedeemed::Spent) {
                    Some(why) => Err(why),
                    None => continue,
                },
            };
            self.turn.answered(place);
            return told;
        }
        Err(NotRedeemed::Unanswered)
    }

    /// Asks the next broker only where one could not tell: a no is final.
    async fn evaluate(&self, request: ReevaluateRequest) -> Result<(), NotRedeemed> {
        for (place, mut broker) in self.in_turn() {
            let answer = timeout(ANSWER, broker.reevaluate(request.clone())).await;
            let Ok(answer) = answer else { continue };
            let told = match answer {
                Ok(_) => Ok(()),
                Err(status) => match refusal(&status, NotRedeemed::Drifted) {
                    Some(why) => Err(why),
                    None => continue,
                },
            };
            self.turn.answered(place);
            return told;
        }
        Err(NotRedeemed::Unanswered)
    }
}

/// Why the broker refuses a use, `otherwise` where it names no reason that is told apart here;
/// `None` where it could not tell.
fn refusal(status: &Status, otherwise: NotRedeemed) -> Option<NotRedeemed> {
    if !is_refusal(status) {
        return None;
    }
    // The id has spent a use already, with another token of the grant.
    if status.code() == Code::AlreadyExists {
        return Some(NotRedeemed::Repeated);
    }
    let Some(info) = status.get_details_error_info() else { return Some(otherwise) };
    let ErrorInfo { reason, metadata, .. } = info;
    let lock = || metadata.get("lock")?.parse::<LockId>().ok();
    Some(match reason.as_str() {
        "LOCKED" => lock().map_or(otherwise, NotRedeemed::Locked),
        "STALE_ID" => NotRedeemed::StaleId,
        _ => otherwise,
    })
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
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn spent(status: &Status) -> Option<NotRedeemed> {
        refusal(status, NotRedeemed::Spent)
    }

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
            assert_eq!(spent(&Status::new(code, "")), None, "{code}");
            let locked = ErrorDetails::with_error_info("LOCKED", "dayfly.v1", HashMap::new());
            assert_eq!(spent(&Status::with_error_details(code, "", locked)), None, "{code}");
        }
        for code in [Code::PermissionDenied, Code::FailedPrecondition, Code::NotFound] {
            assert_eq!(spent(&Status::new(code, "")), Some(NotRedeemed::Spent), "{code}");
        }
        let elsewhere = Status::already_exists("the id was used for something else before");
        assert_eq!(spent(&elsewhere), Some(NotRedeemed::Repeated));
    }

    #[test]
    fn a_lock_and_a_stale_id_are_told_from_uses_that_are_spent() {
        let told = |code, reason: &str, lock: Option<&str>| {
            let metadata = lock.map(|lock| ("lock".to_owned(), lock.to_owned()));
            let details =
                ErrorDetails::with_error_info(reason, "dayfly.v1", HashMap::from_iter(metadata));
            let status = Status::with_error_details(code, "no", details);
            [NotRedeemed::Spent, NotRedeemed::Drifted].map(|or| refusal(&status, or).unwrap())
        };
        let id = LockId::new([7; 16]);
        let locked = told(Code::PermissionDenied, "LOCKED", Some(&id.to_string()));
        assert_eq!(locked, [NotRedeemed::Locked(id); 2]);
        assert_eq!(told(Code::InvalidArgument, "STALE_ID", None), [NotRedeemed::StaleId; 2]);
        // Whatever is said besides, it is a no.
        for (code, reason, lock) in [
            (Code::PermissionDenied, "LOCKED", None),
            (Code::PermissionDenied, "LOCKED", Some("7")),
            (Code::FailedPrecondition, "USES_EXHAUSTED", None),
            (Code::PermissionDenied, "", None),
        ] {
            assert_eq!(told(code, reason, lock), [NotRedeemed::Spent, NotRedeemed::Drifted]);
        }
    }

    #[test]
    fn who_answered_last_is_asked_first_and_nobody_is_left_out() {
        let turn = Turn::default();
        let order = |count| turn.order(count).collect::<Vec<_>>();
        assert_eq!(order(3), [0, 1, 2]);
        turn.clone().answered(1);
        assert_eq!(order(3), [1, 2, 0], "clones know of it");
        turn.answered(2);
        assert_eq!((order(3), order(1), order(0)), (vec![2, 0, 1], vec![0], vec![]));
    }
}
