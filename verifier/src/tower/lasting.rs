//! A use that was let through and goes on, until it must end.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::witness::{Seen, Witness};
use crate::reject::Reject;
use crate::verify::{Cancellation, Verified};

type End = Pin<Box<dyn Future<Output = Reject> + Send>>;

/// A use that goes on, first as a handler, then as a body.
pub(super) struct Lasting {
    verified: Verified,
    cancellation: Cancellation,
    /// Waits for the end of the use, from its first pause on.
    end: Option<End>,
    witness: Option<Arc<dyn Witness>>,
}

impl Lasting {
    pub(super) fn new(
        verified: Verified,
        drain: Duration,
        witness: Option<Arc<dyn Witness>>,
    ) -> Self {
        let cancellation = verified.cancellation().draining(drain);
        Self { verified, cancellation, end: None, witness }
    }

    pub(super) const fn verified(&self) -> &Verified {
        &self.verified
    }

    /// Why the use must end, if it must: as the handle was told, or as it finds when it looks. The
    /// witness hears of it.
    pub(super) fn over(&mut self, context: &mut Context<'_>) -> Option<Reject> {
        let told = self.end.as_mut().map(|end| end.as_mut().poll(context));
        let reason = match told {
            Some(Poll::Ready(reason)) => Some(reason),
            Some(Poll::Pending) | None => self.cancellation.reason(),
        }?;
        // A future that has ended is not polled again.
        self.end = None;
        if let Some(witness) = self.witness.take() {
            witness.saw(&Seen::Cut { reject: &reason, verified: &self.verified });
        }
        Some(reason)
    }

    /// The use pauses: its end is waited for from now on, too. What is ready at once is never
    /// registered, and takes no lock.
    pub(super) fn pauses(&mut self, context: &mut Context<'_>) -> Option<Reject> {
        if self.end.is_none() {
            let handle = self.cancellation.clone();
            self.end = Some(Box::pin(async move { handle.cancelled().await }));
        }
        self.over(context)
    }
}
