//! What goes on beside a call: taking back what nobody waits for any more, renewing an identity.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::Client;
use crate::session::Session;
use crate::ticket::Ticket;

/// A request whose ticket is known to one call only. Dropped before it is settled, it is taken
/// back by a task of the runtime, which tries for as long as the client is patient.
pub(super) struct Unheld(Option<(Client, Arc<Ticket>)>);

impl Unheld {
    pub(super) fn new(client: &Client, ticket: &Arc<Ticket>) -> Self {
        Self(Some((client.clone(), Arc::clone(ticket))))
    }

    /// It is held, or over.
    pub(super) fn settled(mut self) {
        self.0 = None;
    }
}

impl Drop for Unheld {
    fn drop(&mut self) {
        let Some((client, ticket)) = self.0.take() else { return };
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                // What nobody hears of expires, or lapses: its key is gone.
                let _cancelled = client.cancel(&ticket).await;
            });
        }
    }
}

/// The task that keeps the identity of a session renewed; ends with this value.
pub(super) struct Renewing(AbortHandle);

impl Renewing {
    pub(super) fn start(session: &Arc<Session>) -> Self {
        let session = Arc::clone(session);
        let task = tokio::spawn(async move {
            let why = session.keep_renewed().await;
            tracing::error!(error = %why, "the identity is renewed no more; join again");
        });
        Self(task.abort_handle())
    }
}

impl Drop for Renewing {
    fn drop(&mut self) {
        self.0.abort();
    }
}
