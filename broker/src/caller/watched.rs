//! Streams that last only as long as their caller may have them.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use dayfly_agent::svid::Peer;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;
use tonic::body::Body;

use super::{Known, Place, Rule};
use crate::api::status;
use crate::core::directory::Directory;
use crate::sequencer::{Failure, Fault};

/// How often a stream on which nothing happens looks whether its caller may still have it.
const LOOK: Duration = Duration::from_secs(1);

/// The answer to a call that lasts. Before each message, and every second, it looks whether the
/// caller would still be let in; once they would not, it ends with that refusal, and whoever made
/// the messages learns that nobody reads them. When nothing is served any more it ends once it has
/// nothing to say: not every service behind it ends its streams.
pub(super) struct Watched {
    /// `None` once the end has been told.
    inner: Option<Body>,
    stay: Stay,
    look: Interval,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: Option<Place>,
}

/// By what somebody was let in.
pub(super) struct Stay {
    known: Arc<Known>,
    rule: Rule,
    peer: Peer,
    /// The directory that the rule was last judged by.
    judged: Arc<Directory>,
}

impl Stay {
    /// What `known` let in by `rule`.
    pub(super) fn new(known: Arc<Known>, rule: Rule, peer: Peer) -> Self {
        // No directory that is ever published is this one: the first look judges.
        Self { known, rule, peer, judged: Arc::default() }
    }

    /// Whether they would still be let in.
    fn look(&mut self) -> Result<(), Status> {
        self.known.is_here(&self.peer)?;
        self.known.may_last(self.rule, &self.peer)?;
        let directory = self.known.judge.directory();
        if !Arc::ptr_eq(&directory, &self.judged) {
            self.rule.check(&self.peer.id, &directory)?;
            self.judged = directory;
        }
        Ok(())
    }
}

impl Watched {
    pub(super) fn new(inner: Body, stay: Stay, place: Option<Place>) -> Self {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = Box::pin(stay.known.stop.clone().cancelled_owned());
        Self { inner: Some(inner), stay, look, stop, _place: place }
    }

    /// Ends the stream with `status`, as gRPC ends one: in the trailers.
    fn end(&mut self, status: Status) -> Frame<Bytes> {
        self.inner = None;
        let mut trailers = status.into_http::<()>().into_parts().0.headers;
        trailers.remove(http::header::CONTENT_TYPE);
        Frame::trailers(trailers)
    }
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        while this.look.poll_tick(context).is_ready() {
            if let (Some(_), Err(status)) = (&this.inner, this.stay.look()) {
                return Poll::Ready(Some(Ok(this.end(status))));
            }
        }
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(inner).poll_frame(context) else {
            let stopped = this.stop.as_mut().poll(context);
            let why = || status::failure(&Failure::Fault(Fault::Stopped));
            return stopped.map(|()| Some(Ok(this.end(why()))));
        };
        let message = matches!(&frame, Some(Ok(frame)) if frame.is_data());
        match this.stay.look() {
            Err(status) if message => Poll::Ready(Some(Ok(this.end(status)))),
            Ok(()) | Err(_) => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}
