//! Waiting for a decision: told by push, over losses of the connection and restarts of brokers.

use std::time::Duration;

use dayfly_proto::v1;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::patience::{Silence, timed_out};
use super::{CALL, Client};
use crate::case::Case;
use crate::errors::Error;
use crate::ticket::Ticket;

/// How long after the request's own end a silent broker is still waited for.
const GRACE: Duration = Duration::from_secs(60);

/// What is known so far.
#[derive(Default)]
struct Heard {
    last: Option<Case>,
    silence: Silence,
}

impl Client {
    /// Waits until the request is decided, learning of every change by push; goes on over losses of
    /// the connection. `seen` is told how the request stands, first and after each change.
    ///
    /// # Errors
    /// [`Error::Ended`] if it was refused, denied, or is over; [`Error::StillPending`] where a
    /// broker still says so after `at_most`; [`Error::CouldNotAsk`] if nobody says so then, or if
    /// nobody answers until a minute after the request must have expired: it is not granted then,
    /// as far as anybody may assume.
    pub async fn wait(
        &self,
        ticket: &Ticket,
        at_most: Option<Duration>,
        mut seen: impl FnMut(&Case),
    ) -> Result<Case, Error> {
        let mut heard = Heard::default();
        let watching = self.watch(ticket, &mut heard, &mut seen);
        let Some(at_most) = at_most else { return watching.await };
        if let Ok(decided) = timeout(at_most, watching).await {
            return decided;
        }
        Err(match heard {
            Heard { silence: Silence { why: Some(why), .. }, .. } => why,
            Heard { last: None, .. } => timed_out(),
            Heard { last: Some(_), .. } => Error::StillPending,
        })
    }

    /// Files the request of a ticket and waits until it is decided. From the first answer on, the
    /// time for which a silent broker is waited for is that of the request.
    pub(super) async fn decided(&self, ticket: &Ticket) -> Result<Case, Error> {
        let case = self.file(ticket).await?;
        if let Some(decided) = case.clone().decided() {
            return decided;
        }
        let mut heard = Heard { last: Some(case), ..Heard::default() };
        self.watch(ticket, &mut heard, &mut |_| {}).await
    }

    /// How the request stands, pending or not.
    ///
    /// # Errors
    /// [`Error::Refused`] if the broker does not know it; [`Error::CouldNotAsk`].
    pub async fn look(&self, ticket: &Ticket) -> Result<Case, Error> {
        let mut silence = Silence::default();
        loop {
            let (opened, way) = self.open(ticket).await;
            let failed = match opened {
                Ok((case, _)) => return Ok(case),
                Err(failed) if failed.is_passing() => failed,
                Err(failed) => return Err(failed),
            };
            self.elsewhere(way);
            silence.pause(self.patience, failed).await?;
        }
    }

    async fn watch(
        &self,
        ticket: &Ticket,
        heard: &mut Heard,
        seen: &mut impl FnMut(&Case),
    ) -> Result<Case, Error> {
        loop {
            let (opened, way) = self.open(ticket).await;
            let followed = match opened {
                Ok((case, stream)) => {
                    // Who keeps the stream open beyond that, and says nothing, is silent.
                    let left = case.pending_until.plus(GRACE).since(self.now());
                    let following = follow(case, stream, ticket, heard, seen);
                    timeout(left, following).await.unwrap_or_else(|_| Err(timed_out()))
                }
                Err(failed) => Err(failed),
            };
            let failed = match followed {
                Ok(Some(decided)) => return decided,
                Ok(None) => cut_off(),
                Err(failed) if failed.is_passing() => failed,
                Err(failed) => return Err(failed),
            };
            self.elsewhere(way);
            let patience = match &heard.last {
                None => self.patience,
                Some(case) if self.now() < case.pending_until.plus(GRACE) => Duration::MAX,
                Some(_) => Duration::ZERO,
            };
            heard.silence.pause(patience, failed).await?;
        }
    }

    /// Opens a watch, which begins with how the request stands; says by which way.
    async fn open(&self, ticket: &Ticket) -> (Result<(Case, Watch), Error>, usize) {
        let proof = Some(self.proof(ticket, "WatchRequest", None));
        let request = v1::WatchRequestRequest { request_id: ticket.id().to_string(), proof };
        let (mut service, way) = self.service();
        let opening = async {
            let mut stream = service.watch_request(request).await?.into_inner();
            let case = next(&mut stream, ticket).await?.ok_or_else(cut_off)?;
            Ok((case, stream))
        };
        (timeout(CALL, opening).await.unwrap_or_else(|_| Err(timed_out())), way)
    }
}

type Watch = Streaming<v1::WatchRequestResponse>;

/// Follows one stream to the decision (`Some`) or to its end (`None`).
async fn follow(
    mut case: Case,
    mut stream: Watch,
    ticket: &Ticket,
    heard: &mut Heard,
    seen: &mut impl FnMut(&Case),
) -> Result<Option<Result<Case, Error>>, Error> {
    loop {
        if heard.last.as_ref() == Some(&case) {
            heard.silence.ends();
        } else {
            heard.silence.is_broken();
            seen(&case);
        }
        heard.last = Some(case.clone());
        if let Some(decided) = case.decided() {
            return Ok(Some(decided));
        }
        match next(&mut stream, ticket).await? {
            Some(change) => case = change,
            None => return Ok(None),
        }
    }
}

async fn next(stream: &mut Watch, ticket: &Ticket) -> Result<Option<Case>, Error> {
    match stream.message().await? {
        Some(answer) => Case::read(answer.request, Some(ticket.id())).map(Some),
        None => Ok(None),
    }
}

fn cut_off() -> Error {
    Status::unavailable("it ended the watch before the decision").into()
}
