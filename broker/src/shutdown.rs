//! How the process ends, in two steps: stop accepting and let what runs finish, then cut.
//!
//! Nothing here waits without a bound: after the drain, or at a second signal, everything is cut.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How long what runs may take to finish once the end has begun.
pub const DRAIN: Duration = Duration::from_secs(8);

/// The two steps of the end, as seen by everything that has to end. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    begun: CancellationToken,
    cut: CancellationToken,
}

impl Shutdown {
    /// One that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One that begins and cuts with this one, and can do so alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { begun: self.begun.child_token(), cut: self.cut.child_token() }
    }

    /// The first step: readiness goes false, nothing new is accepted, streams end themselves.
    pub fn begin(&self) {
        self.begun.cancel();
    }

    /// The second step: whatever still runs is dropped. Implies the first.
    pub fn cut(&self) {
        self.begun.cancel();
        self.cut.cancel();
    }

    /// Whether the end has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Waits until the end begins. A stream that outlives a call ends itself then.
    pub async fn begins(&self) {
        self.begun.cancelled().await;
    }

    /// Waits until what still runs is to be dropped: at the second step, or once the end has begun
    /// and the time to `drain` is over.
    pub async fn cuts(&self, drain: Duration) {
        self.begun.cancelled().await;
        tokio::select! {
            () = self.cut.cancelled() => {}
            () = tokio::time::sleep(drain) => {}
        }
    }

    /// Follows the signals of the operating system: the first SIGTERM or SIGINT begins the end, a
    /// second one cuts.
    pub async fn follow_signals(self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut term, mut int) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        for step in [Self::begin, Self::cut] {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            step(&self);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn cutting_implies_beginning_and_does_not_wait_for_the_drain() {
        let shutdown = Shutdown::new();
        assert!(!shutdown.has_begun());
        shutdown.cut();
        shutdown.begins().await;
        shutdown.cuts(Duration::MAX).await;
    }

    #[test]
    fn a_child_ends_with_its_parent_and_before_it() {
        let parent = Shutdown::new();
        let (early, late) = (parent.child(), parent.child());
        early.begin();
        assert!(early.has_begun() && !late.has_begun() && !parent.has_begun());
        parent.begin();
        assert!(late.has_begun());
    }

    #[tokio::test]
    async fn the_drain_starts_with_the_end_and_is_bounded() {
        let shutdown = Shutdown::new();
        let mut cuts = Box::pin(shutdown.cuts(Duration::ZERO));
        let early = futures_util::poll!(&mut cuts);
        assert!(early.is_pending(), "cut before the end began");
        shutdown.begin();
        cuts.await;
    }
}
