//! How many streams, and how many long lists, are open at once: bounded for each who comes with a
//! certificate, and in all, so that nobody fills the memory of the broker by opening them.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use dayfly_verifier::spiffe::SpiffeId;
use hyper::body::Frame;
use tonic::Status;
use tonic::body::Body;

/// The most streams of one SPIFFE ID: each instance of a gateway has one, and each wait of an
/// agent.
const PER_IDENTITY: usize = 4096;
/// The most streams in all.
const IN_ALL: usize = 32_768;
/// The most lists of one SPIFFE ID: each may be of megabytes, and is kept for as long as whoever
/// asked for it does not read it.
const LISTS_PER_IDENTITY: usize = 4;
/// The most lists in all.
const LISTS_IN_ALL: usize = 64;
/// How much of a list is handed over at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Room for the streams that are open, or for the lists. Clones count together.
#[derive(Clone)]
pub struct Room {
    per_identity: usize,
    in_all: usize,
    open: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    all: usize,
    by_identity: HashMap<SpiffeId, usize>,
}

/// Room for one of them. It is taken until this is dropped.
pub(super) struct Place {
    room: Room,
    id: SpiffeId,
}

impl Room {
    /// Room for streams.
    #[must_use]
    pub fn streams() -> Self {
        Self::bounded(PER_IDENTITY, IN_ALL)
    }

    /// Room for lists, of which there is less than for streams.
    #[must_use]
    pub fn lists() -> Self {
        Self::bounded(LISTS_PER_IDENTITY, LISTS_IN_ALL)
    }

    fn bounded(per_identity: usize, in_all: usize) -> Self {
        Self { per_identity, in_all, open: Arc::default() }
    }

    /// Room for one more of `id`, if there is any.
    pub(super) fn enter(&self, id: &SpiffeId) -> Option<Place> {
        let mut open = self.open();
        let own = open.by_identity.get(id).copied().unwrap_or(0);
        if open.all >= self.in_all || own >= self.per_identity {
            return None;
        }
        open.all = open.all.saturating_add(1);
        open.by_identity.insert(id.clone(), own.saturating_add(1));
        Some(Place { room: self.clone(), id: id.clone() })
    }

    /// A panic of another holder cannot leave half a count.
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.room.open();
        open.all = open.all.saturating_sub(1);
        let own = open.by_identity.get(&self.id).map_or(0, |own| own.saturating_sub(1));
        if own == 0 {
            open.by_identity.remove(&self.id);
        } else {
            open.by_identity.insert(self.id.clone(), own);
        }
    }
}

/// An answer that takes its place until it was read to its end, or nobody reads it any more. It is
/// handed over in pieces: what was handed over waits for its reader elsewhere, and counts no more.
struct Placed {
    inner: Body,
    /// What is left of the last frame.
    rest: Bytes,
    _place: Place,
}

/// `body`, for which `place` was taken.
pub(super) fn placed(body: Body, place: Option<Place>) -> Body {
    match place {
        Some(place) => Body::new(Placed { inner: body, rest: Bytes::new(), _place: place }),
        None => body,
    }
}

impl Placed {
    /// A copy: a part of the frame would keep all of it.
    fn piece(&mut self) -> Frame<Bytes> {
        let piece = self.rest.split_to(self.rest.len().min(PIECE_BYTES));
        Frame::data(Bytes::copy_from_slice(&piece))
    }
}

impl hyper::body::Body for Placed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if !this.rest.is_empty() {
            return Poll::Ready(Some(Ok(this.piece())));
        }
        let frame = match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            end @ (Some(Err(_)) | None) => return Poll::Ready(end),
        };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(data) => {
                this.rest = data;
                this.piece()
            }
            Err(other) => other,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cannot_take_the_room_of_all_and_all_have_an_end() {
        let streams = Room::streams();
        let id = |n: usize| format!("spiffe://shop.test/agent/a{n}").parse::<SpiffeId>().unwrap();
        let all = |id: &SpiffeId| std::iter::from_fn(|| streams.enter(id)).collect::<Vec<_>>();
        let mut held: Vec<_> =
            (0..IN_ALL.checked_div(PER_IDENTITY).unwrap()).map(|n| all(&id(n))).collect();
        assert!(held.iter().all(|own| own.len() == PER_IDENTITY));
        assert!(streams.enter(&id(99)).is_none(), "there is no room left");
        held[0].pop();
        assert!(streams.enter(&id(1)).is_none(), "it has what one may have");
        let last = streams.enter(&id(99));
        assert!(last.is_some() && streams.enter(&id(0)).is_none());
        drop((held, last));
        assert!(streams.open().by_identity.is_empty() && streams.open().all == 0);
    }
}
