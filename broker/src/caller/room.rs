//! How many streams are open at once: bounded for each who comes with a certificate, and in all, so
//! that nobody fills the memory of the broker by opening them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dayfly_verifier::spiffe::SpiffeId;

/// The most streams of one SPIFFE ID: each instance of a gateway has one, and each wait of an
/// agent.
const PER_IDENTITY: usize = 4096;
/// The most streams in all.
const IN_ALL: usize = 32_768;

/// The streams that are open. Clones count together.
#[derive(Clone, Default)]
pub struct Streams(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    all: usize,
    by_identity: HashMap<SpiffeId, usize>,
}

/// Room for one stream. It is taken until this is dropped.
pub(super) struct Place {
    streams: Streams,
    id: SpiffeId,
}

impl Streams {
    /// Room for one more stream of `id`, if there is any.
    pub(super) fn enter(&self, id: &SpiffeId) -> Option<Place> {
        let mut open = self.open();
        let own = open.by_identity.get(id).copied().unwrap_or(0);
        if open.all >= IN_ALL || own >= PER_IDENTITY {
            return None;
        }
        open.all = open.all.saturating_add(1);
        open.by_identity.insert(id.clone(), own.saturating_add(1));
        Some(Place { streams: self.clone(), id: id.clone() })
    }

    /// A panic of another holder cannot leave half a count.
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.open();
        open.all = open.all.saturating_sub(1);
        let own = open.by_identity.get(&self.id).map_or(0, |own| own.saturating_sub(1));
        if own == 0 {
            open.by_identity.remove(&self.id);
        } else {
            open.by_identity.insert(self.id.clone(), own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cannot_take_the_room_of_all_and_all_have_an_end() {
        let streams = Streams::default();
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
