//! What the connections to one in-memory broker share, and the connections themselves.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dayfly_proto::v1::access_service_server::AccessServiceServer;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::{Clock as _, Timestamp};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::DuplexStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tonic::service::Routes;

use super::book::Book;
use super::clock::ByHand;
use super::desk::Desk;
use super::feed::Listeners;
use crate::session::OpenError;

/// How much of an unread message the connection holds.
const PIPE_BYTES: usize = 64 * 1024;

/// What the connections share.
pub(super) struct Shared {
    pub(super) clock: Arc<ByHand>,
    book: Mutex<Book>,
    /// Counts the changes, for those who wait.
    pub(super) moved: watch::Sender<u64>,
    pub(super) listeners: Listeners,
    line: Mutex<Line>,
}

/// The way to the broker, and what is wrong with it.
#[derive(Default)]
pub(super) struct Line {
    pub(super) connections: Vec<AbortHandle>,
    pub(super) stopped: bool,
    pub(super) still: bool,
    pub(super) losses: usize,
}

impl Shared {
    pub(super) fn new(clock: ByHand, book: Book) -> Self {
        Self {
            clock: Arc::new(clock),
            book: Mutex::new(book),
            moved: watch::Sender::default(),
            listeners: Listeners::default(),
            line: Mutex::default(),
        }
    }

    /// Does something with the record as it stands now, and tells everybody who waits or listens.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Book, Timestamp) -> T) -> T {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, before) = (self.clock.now(), book.seq);
        book.settle(now);
        let done = act(&mut book, now);
        if !self.line().stopped {
            self.listeners.tell(&book, &self.clock);
        }
        if book.seq != before {
            self.moved.send_modify(|count| *count = count.wrapping_add(1));
        }
        done
    }

    pub(super) fn forward_to(&self, time: Timestamp) {
        self.clock.forward_to(time);
        self.with(|_, _| ());
        self.listeners.tick(self.clock.now(), self.clock.uptime());
        self.moved.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn leaps(&self) -> bool {
        !self.line().still
    }

    pub(super) fn loses_answer(&self) -> bool {
        let mut line = self.line();
        let loses = line.losses > 0;
        line.losses = line.losses.saturating_sub(1);
        loses
    }

    pub(super) fn connect(
        self: &Arc<Self>,
        caller: &SpiffeId,
    ) -> Result<TokioIo<DuplexStream>, OpenError> {
        let mut line = self.line();
        if line.stopped {
            let refused = Arc::new(io::Error::from(io::ErrorKind::ConnectionRefused));
            return Err(OpenError::Unreachable("the broker in memory".to_owned(), refused));
        }
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let desk = Desk { kit: Arc::clone(self), caller: caller.clone() };
        let routes = Routes::new(AccessServiceServer::new(desk)).prepare();
        let serving = tokio::spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new()).http2_only();
            let service = TowerToHyperService::new(routes);
            // The other end may go at any time.
            let _served = builder.serve_connection(TokioIo::new(ours), service).await;
        });
        line.connections.push(serving.abort_handle());
        Ok(TokioIo::new(theirs))
    }

    pub(super) fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
