//! What ends, and what is left alone.

use std::sync::Mutex;

use super::*;
use crate::feed::profile::Bounds;
use crate::feed::{Profile, Source};
use crate::revocations::Revocations;
use crate::verify::tests::world::{World, at, holder, public};

const NOW: u64 = 1_800_000_000;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn grant(n: u8) -> GrantId {
    GrantId::new([n; 16])
}

/// A view of a generation, fresh until then, that came of `news`.
fn view(generation: u64, fresh_until: u64, news: Option<&[GrantId]>) -> GatewayView {
    let (statement, revocations) = (World::new().statement, Revocations::default());
    let view = GatewayView::for_test(statement, revocations, generation, secs(fresh_until));
    GatewayView { news: news.map(Into::into), bounds: bounds(), ..view }
}

/// Five seconds, and two for orders in production.
fn bounds() -> Bounds {
    let profile = Profile::new(public(&holder(1)), secs(5), Source::Direct).unwrap();
    profile.bound("orders/prod/**".parse().unwrap(), secs(2)).unwrap().bounds
}

fn rests(grant: Option<GrantId>) -> Rests {
    Rests { grant, ..Rests::until(at(NOW + 60)) }
}

/// Uses of two grants and of none, each of which notes that it is asked, and none of which stands.
struct Asked {
    enforcer: Arc<Enforcer>,
    asked: Arc<Mutex<Vec<u8>>>,
    running: Vec<Running>,
}

impl Asked {
    fn new() -> Self {
        let enforcer = Arc::new(Enforcer::default());
        enforcer.publish(view(1, 5, None), at(NOW), secs(0));
        let (asked, mut running) = (Arc::<Mutex<Vec<u8>>>::default(), Vec::new());
        for n in [1, 2, 0] {
            let (notes, of) = (asked.clone(), (n > 0).then(|| grant(n)));
            let stands = move |_: &GatewayView| {
                notes.lock().unwrap().push(n);
                false
            };
            running.push(enforcer.register(rests(of), stands));
        }
        Self { enforcer, asked, running }
    }

    /// Which were asked, and which have ended.
    fn after(self, generation: u64, news: Option<&[GrantId]>) -> (Vec<u8>, [Option<Ended>; 3]) {
        self.enforcer.publish(view(generation, 5, news), at(NOW), secs(0));
        let mut asked = self.asked.lock().unwrap().clone();
        asked.sort_unstable();
        (asked, [0, 1, 2].map(|n| self.running[n].ended()))
    }
}

#[test]
fn what_takes_back_grants_asks_their_uses_and_those_of_none() {
    const ENDED: Option<Ended> = Some(Ended::Revoked);
    let one = Some(&[grant(1)][..]);
    assert_eq!(Asked::new().after(2, one), (vec![0, 1], [ENDED, None, ENDED]));
    assert_eq!(Asked::new().after(2, Some(&[])), (vec![0], [None, None, ENDED]));
    // What is not known to be news of grants alone, or came after something unheard, asks all.
    assert_eq!(Asked::new().after(2, None), (vec![0, 1, 2], [ENDED; 3]));
    assert_eq!(Asked::new().after(3, one), (vec![0, 1, 2], [ENDED; 3]));
    // Nothing new asks nobody.
    assert_eq!(Asked::new().after(1, None), (vec![], [None; 3]));
}

#[test]
fn each_resource_is_stale_by_its_own_bound() {
    let view = view(1, 5, None);
    let fresh = |resource: &str, uptime| view.is_fresh_for(&resource.parse().unwrap(), uptime);
    let millis = Duration::from_millis;
    for (uptime, prod, others) in
        [(0, true, true), (2_000, true, true), (2_001, false, true), (5_000, false, true)]
    {
        assert_eq!(fresh("orders/prod/o-17", millis(uptime)), prod, "{uptime}");
        assert_eq!(fresh("orders/staging/o-17", millis(uptime)), others, "{uptime}");
    }
    assert!(!fresh("orders/staging/o-17", millis(5_001)));

    let enforcer = Arc::new(Enforcer::default());
    enforcer.publish(view, at(NOW), secs(0));
    let using = |resource: &str| {
        let resource = Some(resource.parse().unwrap());
        enforcer.register(Rests { resource, ..rests(Some(grant(1))) }, |_| true)
    };
    let (prod, others) = (using("orders/prod/o-17"), using("orders/staging/o-17"));
    for (uptime, ended) in [
        (2_000, [None, None]),
        (2_001, [Some(Ended::Stale), None]),
        (5_000, [Some(Ended::Stale), None]),
        (5_001, [Some(Ended::Stale), Some(Ended::Stale)]),
    ] {
        enforcer.tick(at(NOW), millis(uptime));
        assert_eq!([prod.ended(), others.ended()], ended, "{uptime}");
    }
}

#[test]
fn a_use_ends_with_its_own_time_and_a_moment_comes_once() {
    let enforcer = Arc::new(Enforcer::default());
    enforcer.publish(view(1, 500, None), at(NOW), secs(0));
    let using = enforcer.register(rests(None), |_| true);
    let (soon, gone) = (enforcer.at(secs(3)), enforcer.at(secs(3)));
    drop(gone);
    enforcer.tick(at(NOW + 59), secs(2));
    assert_eq!((using.ended(), soon.ended()), (None, None));
    enforcer.tick(at(NOW + 60), secs(3));
    assert_eq!((using.ended(), soon.ended()), (Some(Ended::Expired), Some(Ended::Due)));
    drop((using, soon));
    let uses = lock(&enforcer.uses);
    assert!(uses.running.is_empty() && uses.alarms.is_empty());
    assert!(uses.by_expiry.is_empty() && uses.by_grant.is_empty() && uses.by_nothing.is_empty());
}

#[test]
fn before_the_first_view_nothing_runs() {
    let enforcer = Arc::new(Enforcer::default());
    let using = enforcer.register(rests(Some(grant(1))), |_| true);
    enforcer.tick(at(NOW), secs(0));
    assert_eq!(using.ended(), Some(Ended::Stale));
}
