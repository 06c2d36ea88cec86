//! What a command makes happen.

use dayfly_verifier::time::Timestamp;

use super::command::{Caller, Command};
use super::denial::Denial;
use super::event::{Actor, Event};
use super::state::State;

/// What `command` of `caller` makes happen in `state` at `now`: the actor to write down and the
/// events, none if it has happened already; or why not.
pub fn decide(
    _state: &State,
    _command: &Command,
    _caller: &Caller,
    _now: Timestamp,
) -> Result<(Actor, Vec<Event>), Denial> {
    Err(Denial::NotReady)
}
