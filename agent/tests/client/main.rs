//! A client against the broker in memory: what it does when answers are lost, late, or a no.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod running;
mod tokens;
mod uses;
mod waiting;

use std::time::Duration;

use dayfly_agent::errors::Reason;
use dayfly_agent::grant::Grant;

/// What the tests ask for.
const RIGHT: &str = "refund orders/prod/o-17";

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Why the grant gives no token.
async fn no_token(grant: &Grant) -> Option<Reason> {
    grant.token().await.err().unwrap().reason()
}

/// Waits until it is so; for 20 s at most.
async fn until(is_so: impl Fn() -> bool) {
    let looking = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let came = tokio::time::timeout(secs(20), looking).await;
    assert!(came.is_ok(), "it never came to that");
}
