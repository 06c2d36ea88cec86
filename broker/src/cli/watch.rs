//! Pages that are shown anew for as long as somebody looks: drawn in place on a terminal, one after
//! the other elsewhere.

use std::sync::Arc;
use std::time::Duration;

use dayfly_agent::session::Session;
use dayfly_verifier::time::{Clock as _, SystemClock};

use super::Context;
use super::console::{Screen, WAITING};
use super::exit::{Exit, Refused};
use super::when::time;
use crate::shutdown::Shutdown;

/// How long to rest before a broker that did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// Shows what `show` draws, until Ctrl-C, or until nobody reads it any more. Where no broker
/// answers, it says so and asks again; the identity is kept renewed meanwhile. Ends with an error
/// where there is no right to look.
pub(super) async fn watch(
    context: &Context,
    session: &Arc<Session>,
    mut show: impl AsyncFnMut(&Screen) -> Result<(), Refused>,
) -> Result<(), Refused> {
    let shutdown = Shutdown::new();
    tokio::spawn(shutdown.clone().follow_signals());
    let screen = Screen::open(context.console);
    let showing = async {
        loop {
            match show(&screen).await {
                Ok(()) if context.console.is_unread() => return Ok(()),
                Ok(()) => {}
                Err(refused) if refused.exit == Exit::Unavailable => {
                    let since = time(SystemClock.now());
                    let error = &refused.error;
                    screen.note(&format!("{WAITING}no answer{WAITING:#} at {since}: {error:#}"));
                    tokio::time::sleep(AGAIN).await;
                }
                Err(refused) => return Err(refused),
            }
        }
    };
    tokio::select! {
        () = shutdown.begins() => Ok(()),
        ended = showing => ended,
        ended = session.keep_renewed() => Err(context.refused(ended)),
    }
}
