//! How far each gateway instance has told what was done with tokens: what makes a batch count
//! once, however often it is sent. The counts themselves stand in the log, and nowhere else.

use dayfly_verifier::id::{BatchDigest, InstanceId};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use imbl::OrdMap;

use super::event::{Actor, Report};
use super::limits::{MAX_INSTANCES, REPORT_EVERY, REPORT_MEMORY};

/// The last batch of each instance of each gateway. A clone is cheap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Reports {
    pub(crate) last: OrdMap<SpiffeId, OrdMap<InstanceId, Last>>,
}

/// The last batch that an instance told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Last {
    pub(crate) number: u64,
    pub(crate) digest: BatchDigest,
    /// When it was recorded.
    pub(crate) at: Timestamp,
}

impl Reports {
    /// The last batch of `instance` of `gateway`, if it is remembered.
    pub(super) fn last(&self, gateway: &SpiffeId, instance: &InstanceId) -> Option<&Last> {
        self.last.get(gateway)?.get(instance)
    }

    /// Whether one more instance of `gateway` may tell something at `now`. Where as many are
    /// remembered as may be, it takes the place of the one that has said nothing for longest, and
    /// waits as that one must.
    pub(super) fn has_room(&self, gateway: &SpiffeId, now: Timestamp) -> bool {
        let Some(instances) = self.last.get(gateway) else { return true };
        let longest = instances.values().map(|last| last.at).min();
        let may_go = longest.is_none_or(|told_at| told_at.plus(REPORT_EVERY) <= now);
        instances.len() < MAX_INSTANCES || may_go
    }

    /// Folds a report. The instance that has said nothing for longest is forgotten where that is
    /// for longer than any batch may be late, or where its gateway has too many.
    pub(super) fn fold(
        &mut self,
        by: &Actor,
        Report { batch, digest, unplaced: _ }: &Report,
        at: Timestamp,
    ) -> Result<(), &'static str> {
        let Actor::Gateway(gateway) = by else { return Err("only gateways report uses") };
        let instances = self.last.entry(gateway.clone()).or_default();
        let last = Last { number: batch.number, digest: *digest, at };
        let before = instances.insert(batch.instance.clone(), last);
        if before.is_some_and(|before| before.number >= last.number) {
            return Err("the batch was reported before");
        }
        let oldest = instances.iter().min_by_key(|(_, last)| last.at);
        let oldest = oldest.map(|(id, last)| (id.clone(), last.at));
        if let Some((oldest, told_at)) = oldest
            && (instances.len() > MAX_INSTANCES || told_at.plus(REPORT_MEMORY) <= at)
        {
            instances.remove(&oldest);
        }
        Ok(())
    }
}
