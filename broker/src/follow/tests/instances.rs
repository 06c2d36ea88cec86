//! What the broker may claim of an instance.

use std::time::Duration;

use bytes::Bytes;
use dayfly_verifier::id::Seq;

use crate::follow::instances::{Instance, Instances, Standing, Terms};

fn at(ms: u64) -> Duration {
    Duration::from_millis(10_000_u64.saturating_add(ms))
}

fn terms(best_effort: bool) -> Terms {
    Terms {
        gateway: "spiffe://t.test/gateway/orders".parse().unwrap(),
        instance: "one".parse().unwrap(),
        min_staleness: Duration::from_secs(5),
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
fn a_challenge_that_waits_for_its_echo_is_not_lost_to_the_next_one() {
    let instances = Instances::default();
    let instance = instances.join(terms(false), at(0)).unwrap();
    let challenge = |n: u8| Bytes::copy_from_slice(&[n; 16]);
    for n in 1..=3 {
        instance.challenged(challenge(n), at(100), 7);
    }
    instance.challenged(challenge(4), at(300), 8);
    assert_eq!(instance.echo(8), Some(challenge(3)), "the latest that came before the round");
    assert_eq!(instance.echo(9), Some(challenge(4)));
    for n in 0..100 {
        instance.challenged(challenge(n), at(400), 10 + u64::from(n));
    }
    assert_eq!(instance.echo(94), None, "only the latest 16 are kept");
    assert_eq!(instance.echo(95), Some(challenge(84)));
}

/// The clocks of both sides run in milliseconds: a round begins every 200, and is cast 50 later.
#[test]
fn a_gateway_whose_round_trip_is_longer_than_the_pause_between_heartbeats_stays_fresh() {
    // 290 there and back again: each challenge comes in between the begin of a round and its cast.
    for one_way in [10, 100, 290, 340] {
        let instances = Instances::default();
        let instance = instances.join(terms(false), at(0)).unwrap();
        let (mut up, mut down) = (vec![(one_way, 0_u64)], Vec::new());
        let mut fresh_until = 0;
        for now in 0..6_000_u64 {
            let round = now / 200 + 1;
            for (_, sent) in up.extract_if(.., |(due, _)| *due == now) {
                instance.challenged(Bytes::from(sent.to_be_bytes().to_vec()), at(now), round);
            }
            if now % 200 == 50 {
                down.push((now + one_way, instance.echo(round)));
            }
            for (_, echo) in down.extract_if(.., |(due, _)| *due == now) {
                let sent = echo.map(|echo| u64::from_be_bytes(echo[..].try_into().unwrap()));
                fresh_until = sent.map_or(fresh_until, |sent| sent + 1_000);
                up.push((now + one_way, now));
            }
            assert!(now < 2_000 || now <= fresh_until, "{one_way} ms: stale at {now}");
        }
    }
}

#[test]
fn a_place_holds_when_all_enforce_it_whoever_comes_and_goes_meanwhile() {
    let instances = Instances::default();
    let named = |name: &str| Terms { instance: name.parse().unwrap(), ..terms(false) };
    let join = |name| instances.join(named(name), at(0)).unwrap();
    let acknowledges = |instance: &Instance, seq| {
        instance.sends(seq);
        assert!(instance.acknowledged(seq, at(1)));
    };
    let (one, two) = (join("one"), join("two"));
    let mut waiting = instances.waiting(Seq(5));
    acknowledges(&one, Seq(5));
    assert!(!waiting.is_over(at(1)));
    acknowledges(&two, Seq(4));
    assert!(!waiting.is_over(at(1)), "one place too few");
    let three = join("three");
    let again = join("two");
    acknowledges(&two, Seq(5));
    assert!(!waiting.is_over(at(1)), "a stream that was cut says nothing");
    acknowledges(&again, Seq(5));
    assert!(!waiting.is_over(at(1)), "who came meanwhile counts");
    acknowledges(&three, Seq(6));
    assert!(waiting.is_over(at(1)));
    let four = join("four");
    four.leave(at(1));
    assert!(!waiting.is_over(at(4_999)), "it may go on by itself");
    assert!(waiting.is_over(at(5_000)));
}

#[tokio::test]
async fn only_the_one_that_is_waited_for_wakes_who_waits() {
    let instances = Instances::default();
    let named = |name: &str| Terms { instance: name.parse().unwrap(), ..terms(false) };
    let all = ["a", "b", "c"].map(|name| instances.join(named(name), at(0)).unwrap());
    let mut waiting = instances.waiting(Seq(1));
    for instance in all.iter().rev() {
        assert!(!waiting.is_over(at(0)));
        let news = waiting.news();
        let mut news = std::pin::pin!(news);
        let ready = futures_util::poll!(news.as_mut()).is_ready();
        assert!(!ready, "nothing is new");
        for other in all.iter().filter(|other| !std::ptr::eq(*other, instance)) {
            other.sends(Seq(0));
            other.challenged(Bytes::from_static(&[1; 16]), at(0), 0);
        }
        assert!(!futures_util::poll!(news.as_mut()).is_ready());
        instance.sends(Seq(1));
        assert!(instance.acknowledged(Seq(1), at(0)));
        news.await;
    }
    assert!(waiting.is_over(at(0)));
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
    for n in 0..2_048 {
        instances.join(named(n), at(0)).unwrap();
    }
    assert!(instances.join(named(2_048), at(0)).is_err());
    assert!(instances.join(named(0), at(0)).is_ok(), "it is one of them");
    let gateway = "spiffe://t.test/gateway/other".parse().unwrap();
    assert!(instances.join(Terms { gateway, ..terms(false) }, at(0)).is_ok());
}

#[test]
fn heartbeats_come_five_times_within_the_smallest_bound() {
    let instances = Instances::default();
    assert_eq!(instances.interval(), Duration::from_secs(1));
    let quick = Terms { min_staleness: Duration::from_secs(1), ..terms(false) };
    let instance = instances.join(quick, at(0)).unwrap();
    assert_eq!(instances.interval(), Duration::from_millis(200));
    instance.leave(at(0));
    assert_eq!(instances.interval(), Duration::from_secs(1));
}
