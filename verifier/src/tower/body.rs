//! The body of an answer, which ends when what allowed it ends: never as if it were whole.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::lasting::Lasting;
use super::refusal;
use crate::reject::Reject;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The most that is handed over at once: what was handed over cannot be called back.
const PIECE_BYTES: usize = 64 * 1024;

pin_project! {
    /// A service's body that is cut when its use must end, or the layer's own answer.
    ///
    /// Before every frame it is asked whether the use still stands, and from the body's first
    /// pause on its end is waited for, too. A long frame is handed over in pieces, and it is asked
    /// before each. On revocation, lock, expiry and staleness the body is dropped. An error then
    /// resets the stream; a call of gRPC ends with the status and the reason of a refusal. Of a
    /// peer that does not read, nobody asks for frames: it gets none.
    pub struct Cut<R> {
        #[pin]
        body: Option<R>,
        // What is left of the body's last frame.
        rest: Bytes,
        answer: Bytes,
        lasting: Option<Lasting>,
        ends: Ends,
    }
}

/// How a body is cut short.
#[derive(Clone, Copy)]
pub(super) enum Ends {
    /// With an error: whoever serves it breaks the stream off.
    Broken,
    /// With the trailers of gRPC, where nothing could take them for the end of a whole answer.
    Told,
}

impl Ends {
    fn frame(self, reason: Reject) -> Result<Frame<Bytes>, Error> {
        match self {
            Self::Broken => Err(reason.into()),
            Self::Told => Ok(Frame::trailers(refusal::trailers(&reason))),
        }
    }
}

impl<R> Cut<R> {
    pub(super) const fn answer(answer: Bytes) -> Self {
        Self { body: None, rest: Bytes::new(), answer, lasting: None, ends: Ends::Broken }
    }

    pub(super) const fn running(body: R, lasting: Option<Lasting>, ends: Ends) -> Self {
        Self { body: Some(body), rest: Bytes::new(), answer: Bytes::new(), lasting, ends }
    }
}

impl<R> Body for Cut<R>
where
    R: Body<Data = Bytes>,
    R::Error: Into<Error>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else {
            let bytes = Some(std::mem::take(this.answer)).filter(|bytes| !bytes.is_empty());
            return Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))));
        };
        if let Some(reason) = this.lasting.as_mut().and_then(|lasting| lasting.over(context)) {
            this.body.set(None);
            this.rest.clear();
            return Poll::Ready(Some(this.ends.frame(reason)));
        }
        if !this.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(piece(this.rest)))));
        }
        if let Poll::Ready(frame) = body.poll_frame(context) {
            let first = |frame| first_piece(frame, this.rest);
            return Poll::Ready(frame.map(|frame| frame.map(first).map_err(Into::into)));
        }
        match this.lasting.as_mut().and_then(|lasting| lasting.pauses(context)) {
            Some(reason) => {
                this.body.set(None);
                Poll::Ready(Some(this.ends.frame(reason)))
            }
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Some(body) => self.rest.is_empty() && body.is_end_stream(),
            None => self.answer.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let Some(body) = &self.body else { return SizeHint::with_exact(length(&self.answer)) };
        let (hint, rest) = (body.size_hint(), length(&self.rest));
        let mut left = SizeHint::new();
        left.set_lower(hint.lower().saturating_add(rest));
        if let Some(upper) = hint.upper() {
            left.set_upper(upper.saturating_add(rest));
        }
        left
    }
}

/// The frame as it is, or the first piece of its data; `rest` is what is left of it.
fn first_piece(frame: Frame<Bytes>, rest: &mut Bytes) -> Frame<Bytes> {
    match frame.into_data() {
        Ok(data) if data.len() > PIECE_BYTES => {
            *rest = data;
            Frame::data(piece(rest))
        }
        Ok(data) => Frame::data(data),
        Err(other) => other,
    }
}

fn piece(rest: &mut Bytes) -> Bytes {
    rest.split_to(rest.len().min(PIECE_BYTES))
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
