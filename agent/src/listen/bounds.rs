//! How many connections a listener has at once: bounded in all, by address and by identity, so
//! that nobody can take the room of the others. Who does not fit in is cut off at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dayfly_verifier::spiffe::SpiffeId;

/// How many connections a listener has at once, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// In all, handshakes among them.
    pub connections: usize,
    /// From one address. Of IPv6, the 64 bits that name a network count as one address.
    pub per_address: usize,
    /// Of one SPIFFE ID.
    pub per_identity: usize,
    /// Whose handshake is under way. No address has more than half of these.
    pub handshakes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { connections: 8192, per_address: 2048, per_identity: 2048, handshakes: 512 }
    }
}

/// The connections that a listener has, and how many it cut off. Clones count together.
#[derive(Clone, Default)]
pub struct Traffic(Arc<Counts>);

#[derive(Default)]
struct Counts {
    open: Mutex<Open>,
    refused: AtomicU64,
}

#[derive(Default)]
struct Open {
    connections: usize,
    handshakes: usize,
    by_address: HashMap<IpAddr, usize>,
    shaking: HashMap<IpAddr, usize>,
    by_identity: HashMap<SpiffeId, usize>,
}

/// A connection that was let in. It counts until it is dropped.
pub(super) struct Place {
    traffic: Traffic,
    address: IpAddr,
    shaking: bool,
    identity: Option<SpiffeId>,
}

impl Traffic {
    /// How many connections there are, those among them whose handshake is under way.
    #[must_use]
    pub fn open(&self) -> usize {
        self.counts().connections
    }

    /// How many were cut off so far because they did not fit in.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Lets a connection in whose handshake is to come, if there is room.
    pub(super) fn enter(&self, from: IpAddr, bounds: &Bounds) -> Option<Place> {
        let address = network(from);
        let mut open = self.counts();
        let half = bounds.handshakes.div_ceil(2);
        let fits = open.connections < bounds.connections
            && open.handshakes < bounds.handshakes
            && has(&open.by_address, &address) < bounds.per_address
            && has(&open.shaking, &address) < half;
        if !fits {
            drop(open);
            self.refuse();
            return None;
        }
        open.connections = open.connections.saturating_add(1);
        open.handshakes = open.handshakes.saturating_add(1);
        add(&mut open.by_address, address);
        add(&mut open.shaking, address);
        drop(open);
        Some(Place { traffic: self.clone(), address, shaking: true, identity: None })
    }

    fn refuse(&self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn counts(&self) -> MutexGuard<'_, Open> {
        // A panic of another holder leaves a count that is off by one at most.
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The handshake is done, and this is who came. Says whether there is room for them.
    pub(super) fn known(&mut self, identity: Option<&SpiffeId>, bounds: &Bounds) -> bool {
        let traffic = self.traffic.clone();
        let mut open = traffic.counts();
        self.end_handshake(&mut open);
        let Some(identity) = identity else { return true };
        if has(&open.by_identity, identity) >= bounds.per_identity {
            drop(open);
            traffic.refuse();
            return false;
        }
        add(&mut open.by_identity, identity.clone());
        self.identity = Some(identity.clone());
        true
    }

    fn end_handshake(&mut self, open: &mut Open) {
        if std::mem::take(&mut self.shaking) {
            open.handshakes = open.handshakes.saturating_sub(1);
            remove(&mut open.shaking, &self.address);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let traffic = self.traffic.clone();
        let mut open = traffic.counts();
        self.end_handshake(&mut open);
        open.connections = open.connections.saturating_sub(1);
        remove(&mut open.by_address, &self.address);
        if let Some(identity) = &self.identity {
            remove(&mut open.by_identity, identity);
        }
    }
}

/// What counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            [a, b, c, d, 0, 0, 0, 0].into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn has<K: Hash + Eq>(counts: &HashMap<K, usize>, key: &K) -> usize {
    counts.get(key).copied().unwrap_or_default()
}

fn add<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) {
    let count = counts.entry(key).or_default();
    *count = count.saturating_add(1);
}

/// One less; what counts nothing is not kept.
fn remove<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    let Some(count) = counts.get_mut(key) else { return };
    *count = count.saturating_sub(1);
    if *count == 0 {
        counts.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    fn id(name: &str) -> SpiffeId {
        format!("spiffe://a.test/{name}").parse().unwrap()
    }

    #[test]
    fn a50_each_bound_holds_and_room_comes_back() {
        let bounds = Bounds { connections: 5, per_address: 3, per_identity: 2, handshakes: 4 };
        let traffic = Traffic::default();
        let enter = |from: &str| traffic.enter(at(from), &bounds);
        // Half of the handshakes, and not one more, come from one address.
        let (mut a1, mut a2) = (enter("10.0.0.1").unwrap(), enter("10.0.0.1").unwrap());
        assert!(enter("10.0.0.1").is_none());
        assert!(a1.known(Some(&id("a")), &bounds) && a2.known(Some(&id("a")), &bounds));
        // There is room for handshakes again, but nobody has more places than their ID may have.
        let mut a3 = enter("10.0.0.1").unwrap();
        assert!(!a3.known(Some(&id("a")), &bounds));
        assert!(enter("10.0.0.1").is_none(), "three of one address");
        drop(a3);
        let b: Vec<_> = ["10.0.0.2", "10.0.0.2", "10.0.0.3"].map(&enter).into();
        assert!(b.iter().all(Option::is_some));
        assert!(enter("10.0.0.4").is_none(), "five in all");
        assert_eq!((traffic.open(), traffic.refused()), (5, 4));
        drop(b);
        let mut more: Vec<_> = ["10.0.0.2", "10.0.0.2", "10.0.0.3"].map(&enter).into();
        assert!(more.iter().all(Option::is_some));
        assert!(more[0].as_mut().unwrap().known(None, &bounds), "who joins has no ID yet");
        drop((a1, a2, more));
        let open = traffic.counts();
        assert_eq!((open.connections, open.handshakes), (0, 0));
        assert!(open.by_address.is_empty() && open.shaking.is_empty());
        assert!(open.by_identity.is_empty());
    }

    #[test]
    fn handshakes_are_bounded_over_all_addresses() {
        let bounds = Bounds { handshakes: 4, ..Bounds::default() };
        let traffic = Traffic::default();
        let held: Vec<_> =
            (1..=4).map(|n| traffic.enter(at(&format!("10.0.0.{n}")), &bounds)).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(traffic.enter(at("10.0.0.9"), &bounds).is_none());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        assert_eq!(network(at("2001:db8:0:1::1")), network(at("2001:db8:0:1:ffff::2")));
        assert_ne!(network(at("2001:db8:0:1::1")), network(at("2001:db8:0:2::1")));
        assert_eq!(network(at("::ffff:10.0.0.1")), at("10.0.0.1"));
        assert_ne!(network(at("10.0.0.1")), network(at("10.0.0.2")));
    }
}
