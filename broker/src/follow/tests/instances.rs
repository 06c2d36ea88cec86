//! What the broker may claim of an instance.

use std::time::Duration;

use bytes::Bytes;
use dayfly_verifier::id::Seq;

use crate::follow::instances::{Instances, Standing, Terms};

fn at(ms: u64) -> Duration {
    Duration::from_millis(10_000_u64.saturating_add(ms))
}

fn terms(best_effort: bool) -> Terms {
    Terms {
        gateway: "spiffe://t.test/gateway/orders".parse().unwrap(),
        instance: "one".parse().unwrap(),
        max_staleness: Duration::from_secs(5),
        best_effort,
    }
}

fn one(instances: &Instances, ms: u64) -> Standing {
    instances.standings(at(ms)).remove(0)
}

#[test]
fn a_challenge_is_echoed_once_by_a_round_that_began_after_it_came_in() {
    let instances = Instances::default();
    let instance = instances.join(terms(false), at(0)).unwrap();
    let challenge = Bytes::from_static(&[1; 16]);
    instance.challenged(challenge.clone(), at(100), 7);
    assert_eq!(instance.echo(7), None, "the round had begun");
    assert_eq!(instance.echo(8), Some(challenge));
    assert_eq!(instance.echo(9), None);
}

#[test]
fn freshness_is_counted_from_the_echoed_challenge_and_from_nothing_else() {
    let instances = Instances::default();
    let instance = instances.join(terms(false), at(0)).unwrap();
    instance.sends(Seq(3));
    instance.challenged(Bytes::from_static(&[1; 16]), at(1_000), 0);
    assert!(instance.acknowledged(Seq(2), at(4_000)));
    assert!(!instance.acknowledged(Seq(4), at(4_000)), "never sent");
    let standing = one(&instances, 4_500);
    assert_eq!(standing.silent_for, Duration::from_millis(500));
    assert_eq!(standing.refuses_in, Some(Duration::from_millis(500)), "from when it joined");
    assert!(standing.holds(Seq(2)) && !standing.holds(Seq(3)));
    assert!(instance.echo(1).is_some());
    assert_eq!(one(&instances, 4_500).refuses_in, Some(Duration::from_millis(1_500)));
    let later = one(&instances, 6_000);
    assert_eq!(later.refuses_in, None);
    assert!(later.holds(Seq(3)), "it refuses by itself");
}

#[test]
fn who_opted_out_is_bounded_by_nothing() {
    let instances = Instances::default();
    let instance = instances.join(terms(true), at(0)).unwrap();
    instance.sends(Seq(3));
    assert!(!one(&instances, 100_000).holds(Seq(3)));
    instance.leave(at(100_000));
    assert!(!one(&instances, 200_000).holds(Seq(3)), "it may run on");
    assert!(instance.acknowledged(Seq(3), at(200_000)));
    assert!(one(&instances, 200_000).holds(Seq(3)));
}

#[test]
fn an_instance_that_comes_again_keeps_what_it_may_still_believe_and_loses_its_acks() {
    let instances = Instances::default();
    let first = instances.join(terms(false), at(0)).unwrap();
    first.sends(Seq(3));
    first.challenged(Bytes::from_static(&[1; 16]), at(4_000), 0);
    assert!(first.echo(1).is_some() && first.acknowledged(Seq(3), at(4_000)));
    let second = instances.join(terms(false), at(4_100)).unwrap();
    let standing = one(&instances, 4_100);
    assert_eq!(standing.enforced, Seq(0), "another process may have come");
    assert_eq!(standing.refuses_in, Some(Duration::from_millis(4_900)));
    assert!(first.acknowledged(Seq(3), at(4_200)));
    assert_eq!(one(&instances, 4_200).enforced, Seq(0), "the stream before is cut");
    drop(second);
}

#[test]
fn one_gateway_does_not_shut_out_the_others() {
    let instances = Instances::default();
    let named = |n: u32| Terms { instance: format!("i-{n}").parse().unwrap(), ..terms(false) };
    for n in 0..256 {
        instances.join(named(n), at(0)).unwrap();
    }
    assert!(instances.join(named(256), at(0)).is_err());
    assert!(instances.join(named(0), at(0)).is_ok(), "it is one of them");
    let gateway = "spiffe://t.test/gateway/other".parse().unwrap();
    assert!(instances.join(Terms { gateway, ..terms(false) }, at(0)).is_ok());
}

#[test]
fn heartbeats_come_five_times_within_the_smallest_bound() {
    let instances = Instances::default();
    assert_eq!(instances.interval(), Duration::from_secs(1));
    let quick = Terms { max_staleness: Duration::from_secs(1), ..terms(false) };
    let instance = instances.join(quick, at(0)).unwrap();
    assert_eq!(instances.interval(), Duration::from_millis(200));
    instance.leave(at(0));
    assert_eq!(instances.interval(), Duration::from_secs(1));
}
