//! One stream with one gateway instance: what is cast goes down, acknowledgements come up.
//!
//! Nothing is skipped: who cannot keep up is cut, and subscribes again. The work for a follower
//! does not grow with what is cast; the message is the same for all.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dayfly_agent::errors::NextAction;
use dayfly_proto::v1::follow_request::Message as Up;
use dayfly_proto::v1::follow_response::Message as Down;
use dayfly_proto::v1::{Ack, FollowRequest, FollowResponse, Heartbeat};
use dayfly_verifier::feed::{Head, SignedHead};
use dayfly_verifier::id::Seq;
use futures_util::stream::{BoxStream, Stream, StreamExt as _, unfold};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tonic::{Code, Status};

use super::feed::{Cast, Hub};
use super::instances::{Instance, Terms};
use super::seen::NotTold;
use crate::api::status;
use crate::shutdown::Shutdown;

/// How much of an instance's interval may be missing at a heartbeat that it gets all the same:
/// what other instances have made early.
const EARLY: Duration = Duration::from_millis(100);

/// What a subscription asks for.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The highest head that the gateway has adopted.
    pub last: Option<SignedHead>,
    /// Everything is to be told, not only what came after that head.
    pub snapshot: bool,
    /// The first challenge, or nothing.
    pub challenge: Bytes,
    /// The version of the trust statement that the gateway believes.
    pub trust_version: u64,
}

/// The stream down to an instance that follows on `terms`, from the head that it has on if that is
/// still known, and otherwise from everything; `requests` are what it sends after its subscription.
pub async fn follow(
    hub: Arc<Hub>,
    shutdown: Shutdown,
    terms: Terms,
    asked: Asked,
    requests: impl Stream<Item = Result<FollowRequest, Status>> + Send + Unpin + 'static,
) -> Result<BoxStream<'static, Result<FollowResponse, Status>>, NotTold> {
    let Asked { last, snapshot, challenge, trust_version } = asked;
    if let Some(seen) = &last {
        hub.has(seen).await.inspect_err(|error| refused(&terms, error))?;
    }
    let last = last.filter(|_| !snapshot).and_then(|last| Head::from_bytes(&last.head));
    let instance = hub.instances.join(terms, hub.uptime())?;
    instance.trusts(trust_version);
    let line = Arc::new(Line { hub, instance, shutdown });
    let follower = Follower::new(Arc::clone(&line), last.as_ref());
    line.hear(challenge);
    line.hub.want_beat();
    tokio::spawn(async move { line.listen(requests).await });
    let stream = unfold(follower, |mut follower| async {
        let next = follower.next().await?;
        Some((next, follower))
    });
    Ok(stream.boxed())
}

fn refused(terms: &Terms, error: &NotTold) {
    let Terms { gateway, instance, .. } = terms;
    match error {
        NotTold::Lost(seq) => tracing::error!(
            %gateway, %instance, %seq,
            "a gateway has seen what this log does not have: was it restored from an older copy? \
             The gateway is told nothing; a new epoch is needed"
        ),
        NotTold::TooMany(_) | NotTold::Unknown => {
            tracing::warn!(%gateway, %instance, %error, "a gateway is told nothing");
        }
    }
}

/// Whether these bytes are a challenge, or none.
#[must_use]
pub fn is_challenge(bytes: &Bytes) -> bool {
    bytes.is_empty() || bytes.len() == 16
}

/// What both directions of a stream share.
struct Line {
    hub: Arc<Hub>,
    instance: Arc<Instance>,
    shutdown: Shutdown,
}

impl Line {
    fn hear(&self, challenge: Bytes) {
        if !challenge.is_empty() {
            self.instance.challenged(challenge, self.hub.uptime(), self.hub.rounds());
        }
    }

    /// Takes acknowledgements until the stream ends, and ends it for what is no acknowledgement.
    async fn listen(
        &self,
        mut requests: impl Stream<Item = Result<FollowRequest, Status>> + Unpin,
    ) {
        loop {
            let request = tokio::select! {
                request = requests.next() => request,
                () = self.instance.left() => return,
            };
            let Some(Ok(FollowRequest { message: Some(Up::Ack(ack)) })) = request else { break };
            let Ack { seq, challenge, trust_version } = ack;
            self.instance.trusts(trust_version);
            let sent = self.instance.acknowledged(Seq(seq), self.hub.uptime());
            if !sent || !is_challenge(&challenge) {
                break;
            }
            self.hear(challenge);
        }
        self.instance.leave(self.hub.uptime());
    }
}

/// The direction from the broker.
struct Follower {
    line: Arc<Line>,
    casts: broadcast::Receiver<Arc<Cast>>,
    /// What is to be sent before anything that is cast.
    first: std::vec::IntoIter<FollowResponse>,
    /// Up to where everything was sent.
    told: Seq,
    last_beat: Option<Duration>,
}

impl Follower {
    fn new(line: Arc<Line>, last: Option<&Head>) -> Self {
        // In this order: what is cast in between is then in the tip too, and is left out.
        let casts = line.hub.listen();
        let tip = line.hub.tip();
        let told = tip.head.seq;
        let first = line.hub.catch_up(&tip, last).into_iter();
        line.instance.sends(told);
        Self { line, casts, first, told, last_beat: None }
    }

    /// The next message; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Result<FollowResponse, Status>> {
        if let Some(first) = self.first.next() {
            return Some(Ok(first));
        }
        loop {
            let line = Arc::clone(&self.line);
            // What has ended comes first: nothing is sent after a gap.
            let cast = tokio::select! {
                biased;
                () = line.instance.left() => return None,
                () = line.shutdown.begins() => return None,
                cast = self.casts.recv() => cast,
            };
            match cast {
                Ok(cast) => {
                    if let Some(message) = self.message(&cast)? {
                        return Some(Ok(message));
                    }
                }
                Err(RecvError::Lagged(_)) => {
                    self.line.instance.leave(self.line.hub.uptime());
                    let (next, message) = (NextAction::Retry, "too slow: subscribe again");
                    return Some(Err(status::undecided(Code::Aborted, "TOO_SLOW", next, message)));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// What this follower is sent of what was cast; `None` if the stream is over.
    fn message(&mut self, cast: &Cast) -> Option<Option<FollowResponse>> {
        let Line { hub, instance, .. } = &*self.line;
        match cast {
            Cast::Delta { seq, message } => {
                let news = *seq > self.told;
                if news {
                    self.told = *seq;
                    instance.sends(*seq);
                }
                Some(news.then(|| message.clone()))
            }
            Cast::Beat { round, seq, head } => {
                let uptime = hub.uptime();
                let due = self.last_beat.is_none_or(|last| {
                    uptime.saturating_add(EARLY) >= last.saturating_add(instance.interval())
                });
                if !due || *seq < self.told {
                    return Some(None);
                }
                // Who does not take up the keys is not kept fresh: no key could be used for it.
                let (trust, bound) = (hub.trust(), instance.terms.max_staleness);
                if trust.is_overdue(instance.trust(), bound, uptime) {
                    instance.leave(uptime);
                    return None;
                }
                (self.last_beat, self.told) = (Some(uptime), *seq);
                instance.sends(*seq);
                let challenge = instance.echo(*round).unwrap_or_default();
                let trust_version = trust.statement().version;
                let beat = Heartbeat { head: Some(head.clone()), challenge, trust_version };
                Some(Some(FollowResponse { message: Some(Down::Heartbeat(beat)) }))
            }
            Cast::Over => None,
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.line.instance.leave(self.line.hub.uptime());
    }
}
