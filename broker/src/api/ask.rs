//! What several handlers do: ask policy about the newest state, submit, and ask again where the
//! state has moved on; salt free texts.

use std::sync::Arc;
use std::time::Duration;

use dayfly_verifier::time::Timestamp;
use tonic::{Code, Status};

use super::{Broker, status};
use crate::core::case::{Case, Standing};
use crate::core::command::{Caller, Command};
use crate::core::denial::Denial;
use crate::core::state::State;
use crate::core::verdict::Verdict;
use crate::journal::{FreeText, Recorded};
use crate::policy::bundle::Bundle;
use crate::policy::evaluate::{Question, evaluate};
use crate::sequencer::{Failure, Fault};

/// A state that is durable.
pub type Durable = Recorded<Arc<State>>;

/// How long, and how often, policy is asked anew because the state moves on.
const GIVE_UP: Duration = Duration::from_secs(2);
const ATTEMPTS: u32 = 256;

impl Broker {
    /// Submits the command that `ask` makes of the newest state, the bundle in force and the time,
    /// anew as long as the state has moved on from what it was made of.
    ///
    /// `text` is the free text that the command names.
    pub async fn submit_judged(
        &self,
        caller: &Caller,
        text: Option<FreeText>,
        mut ask: impl FnMut(&State, &Bundle, Timestamp) -> Result<Command, Status> + Send,
    ) -> Result<Durable, Status> {
        let started = self.clock.uptime();
        for _ in 0..ATTEMPTS {
            let state = self.sequencer.state();
            let bundle = self.in_force(&state).await?;
            let command = ask(&state, &bundle, self.now(&state))?;
            match self.sequencer.submit_with(command, caller.clone(), text.clone()).await {
                Err(Failure::Denied(Denial::Reevaluate)) => {}
                done => return done.map_err(|failure| status::failure(&failure)),
            }
            if self.clock.uptime().saturating_sub(started) > GIVE_UP {
                break;
            }
        }
        Err(status::failure(&Failure::Fault(Fault::Busy)))
    }

    /// What `look` finds in the newest state. What it does not find there another broker may just
    /// have recorded: the log is asked before that is an answer.
    pub async fn find<T>(
        &self,
        look: impl Fn(&Durable) -> Result<T, Status> + Send,
    ) -> Result<T, Status> {
        let found = look(&self.sequencer.state());
        if !found.as_ref().is_err_and(|refused| refused.code() == Code::NotFound) {
            return found;
        }
        let current = self.sequencer.current().await;
        look(&current.map_err(|failure| status::failure(&failure))?)
    }

    /// The time by which an answer from `state` is given: never before the state's own.
    #[must_use]
    pub fn now(&self, state: &State) -> Timestamp {
        self.clock.now().max(state.time)
    }

    /// The bundle in force by `state`.
    pub async fn in_force(&self, state: &State) -> Result<Arc<Bundle>, Status> {
        let digest = state.bundle.ok_or_else(|| status::denial(&Denial::NotReady))?;
        self.bundle(digest).await
    }

    /// A free text under a new salt.
    pub fn salted(&self, text: String) -> Result<FreeText, Status> {
        let mut salt = [0; 16];
        self.random.fill(&mut salt);
        FreeText::new(text, salt).map_err(|invalid| status::invalid(&invalid))
    }
}

/// What `bundle`, the one in force, says at `now` of a request that was filed, or of the grant that
/// it became.
pub fn judge(
    bundle: &Bundle,
    state: &State,
    case: &Case,
    now: Timestamp,
) -> Result<Verdict, Status> {
    let request = &case.request;
    let basis = state.basis(&request.workload, &request.task, Some(&case.grant_id()), now);
    let basis = basis.ok_or_else(|| status::denial(&Denial::NotReady))?;
    Ok(evaluate(bundle, &question(case, now), basis))
}

/// What is to be asked of policy about an open case.
#[must_use]
pub fn question(case: &Case, now: Timestamp) -> Question<'_> {
    match case.standing(now) {
        Standing::Granted(grant) => Question::of_grant(&case.request, &grant.terms, now),
        Standing::Pending
        | Standing::Refused(_)
        | Standing::Denied(_)
        | Standing::Expired
        | Standing::Cancelled
        | Standing::Completed(_)
        | Standing::Revoked
        | Standing::Drifted(_)
        | Standing::Lapsed => Question::of_request(&case.request, now),
    }
}
