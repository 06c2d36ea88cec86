//! Gateway instances that opted out of refusing when they hear nothing. Nothing bounds what they
//! allow, so they are known to every broker, over restarts, for as long as they may still run.

use std::time::Duration;

use dayfly_verifier::id::InstanceId;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use imbl::OrdMap;

use super::event::Actor;
use super::limits::MAX_TOKEN_LIFE;
use super::state::State;

/// How often an instance that follows is recorded anew.
pub const RECORD_EVERY: Duration = Duration::from_secs(10 * 60);
/// How long after it was recorded a repeat is none: less than the pause, so that none of those that
/// count is dropped.
pub const RECENT: Duration = Duration::from_secs(5 * 60);
/// How many instances of one gateway are known at once.
pub const MAX_UNBOUNDED: usize = 256;

/// When each instance was recorded last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Unbounded(pub(crate) OrdMap<(SpiffeId, InstanceId), Timestamp>);

impl Unbounded {
    /// Folds that `instance` of `gateway` follows at `at`, and forgets those of long ago.
    pub(super) fn fold(
        &mut self,
        by: &Actor,
        instance: &InstanceId,
        at: Timestamp,
    ) -> Result<(), &'static str> {
        let Actor::Gateway(gateway) = by else { return Err("only gateways follow") };
        let gone = self.0.iter().filter(|(_, recorded)| known_until(**recorded) <= at);
        let gone: Vec<_> = gone.map(|(key, _)| key.clone()).collect();
        for key in &gone {
            self.0.remove(key);
        }
        self.0.insert((gateway.clone(), instance.clone()), at);
        Ok(())
    }
}

/// It may have gone right before it was to be recorded again, and then tokens live on.
fn known_until(recorded: Timestamp) -> Timestamp {
    recorded.plus(RECORD_EVERY).plus(MAX_TOKEN_LIFE)
}

impl State {
    /// The instances that opted out, and when each was recorded last.
    pub fn unbounded(
        &self,
        now: Timestamp,
    ) -> impl Iterator<Item = (&SpiffeId, &InstanceId, Timestamp)> {
        let known = self.unbounded.0.iter().filter(move |(_, at)| now < known_until(**at));
        known.map(|((gateway, instance), at)| (gateway, instance, *at))
    }
}
