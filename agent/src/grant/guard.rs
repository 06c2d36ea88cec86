//! A grant that is given back whatever happens.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::Grant;
use crate::case::{Case, Standing};
use crate::client::Outcome;
use crate::errors::Error;
use crate::held::Held;

/// How long after a refusal that may pass an end is told again.
const AGAIN: Duration = Duration::from_secs(2);

/// Why an action has no result.
#[derive(Debug, thiserror::Error)]
pub enum NotDone<E> {
    /// The action was not called: it is not known that it may run.
    #[error("not run: {0}")]
    NotRun(Error),
    /// The action ran, and failed.
    #[error("{0}")]
    Failed(E),
}

/// A grant that ends with this value: by [`Guard::complete`], or as failed when it is dropped.
///
/// From then on it gives no token. To tell the broker a drop can only try: it leaves the call to a
/// task of the runtime, which goes on until the lease ends, or the process. So prefer
/// [`Guard::complete`] or [`Guard::run`]. What ends neither way ends with the lease.
pub struct Guard {
    grant: Arc<Grant>,
    outcome: Outcome,
    ended: bool,
    runtime: Option<Handle>,
}

impl Guard {
    pub(super) fn new(grant: Arc<Grant>) -> Self {
        let runtime = Handle::try_current().ok();
        Self { grant, outcome: Outcome::Failed, ended: false, runtime }
    }

    /// Ends the grant: the task is done.
    ///
    /// # Errors
    /// [`Error::CouldNotAsk`] if nobody answered, or [`Error::Refused`] for what may pass, as that
    /// the clocks differ: a task of the runtime goes on trying.
    pub async fn complete(mut self, outcome: Outcome) -> Result<Case, Error> {
        self.end(outcome).await
    }

    /// Runs `action` with a token at hand, and ends the grant with its outcome. The grant is there
    /// for further tokens, proofs and copies for others. If nobody hears of the end, the result is
    /// still that of the action.
    ///
    /// # Errors
    /// [`NotDone::NotRun`] if there is no token, be it that the grant is over or that nobody
    /// answers: then `action` was not called. [`NotDone::Failed`] with its error otherwise.
    pub async fn run<T, E, F>(
        mut self,
        action: impl FnOnce(Arc<Grant>, Held) -> F,
    ) -> Result<T, NotDone<E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        let held = self.token().await.map_err(NotDone::NotRun)?;
        let result = action(Arc::clone(&self.grant), held).await;
        let outcome = if result.is_ok() { Outcome::Succeeded } else { Outcome::Failed };
        if let Err(error) = self.end(outcome).await {
            tracing::warn!(request = %self.ticket().id(), %error, "a grant was not given back yet");
        }
        result.map_err(NotDone::Failed)
    }

    async fn end(&mut self, outcome: Outcome) -> Result<Case, Error> {
        self.outcome = outcome;
        let ended = self.grant.complete(outcome).await;
        self.ended = !ended.as_ref().is_err_and(Error::may_be_heard_later);
        ended
    }
}

impl Deref for Guard {
    type Target = Grant;

    fn deref(&self) -> &Grant {
        &self.grant
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Others may hold it still.
        self.grant.ends(Standing::Completed);
        let Some(runtime) = self.runtime.take() else { return };
        let (grant, outcome) = (Arc::clone(&self.grant), self.outcome);
        let left = grant.terms.until.since(grant.client.now());
        if left.is_zero() {
            return;
        }
        runtime.spawn(async move {
            let client = grant.client.clone().patient_for(left);
            let told = async {
                while let Err(error) = client.complete(&grant.ticket, outcome).await
                    && error.may_be_heard_later()
                {
                    sleep(AGAIN).await;
                }
            };
            // What nobody hears of ends with the lease.
            let _told = timeout(left, told).await;
        });
    }
}
