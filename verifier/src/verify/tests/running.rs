//! What runs, ends; and what must be asked, is.

use std::future::Future;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use zeroize::Zeroizing;

use super::world::*;
use crate::caveat::Caveat;
use crate::claims::Claims;
use crate::id::{LockId, Seq, TokenId, UseId};
use crate::reject::Reject;
use crate::revocations::{FeedEntry, Kind, Lock, Target};
use crate::time::Clock as _;
use crate::trust::ListedKey;
use crate::verify::{MustAsk, NotRedeemed, Outcome, Redeem, Redemption};
use crate::wire::{Decoded, attenuate};

#[test]
fn a_running_use_ends_with_revocation_lock_expiry_and_staleness() {
    type Change = fn(&mut World);
    let lock = |world: &mut World| {
        let prefix = Some("orders/prod".parse().unwrap());
        let id = LockId::new([7; 16]);
        world.tell(Kind::Locked(Lock { id, workload: None, task: None, prefix, person: None }));
    };
    let changes: [(&str, Change); 6] = [
        ("revoked", |world| world.tell(Kind::Revoked(Target::Grant(claims().grant)))),
        ("revoked", |world| world.tell(Kind::Revoked(Target::Key(claims().key)))),
        ("locked", lock),
        ("expired", |world| {
            world.advance(Duration::from_secs(120));
            world.publish();
        }),
        ("stale", |world| {
            world.advance(Duration::from_millis(5001));
            world.enforcer.tick(world.clock.now(), world.clock.uptime());
        }),
        ("revoked", |world| world.tell(Kind::Unknown)),
    ];
    for (reason, change) in changes {
        let mut world = World::new();
        let token = minted(&claims());
        let verified = verified(world.use_by(&holder(0), token.expose(), &refund(5)));
        let handle = verified.cancellation();
        let mut waiting = pin!(handle.cancelled());
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending(), "{reason}");
        assert!(!handle.is_cancelled());
        change(&mut world);
        assert_eq!(handle.reason().map(|why| why.code()), Some(reason));
        match waiting.as_mut().poll(&mut context) {
            Poll::Ready(why) => assert_eq!(why.code(), reason),
            Poll::Pending => panic!("{reason}: still running"),
        }
    }
}

/// The trust root names its key no more, or another one under its number.
#[test]
fn a_running_use_ends_with_the_trust_in_its_key() {
    for next in [None, Some(holder(40))] {
        let mut world = World::new();
        let token = minted(&claims());
        let handle = verified(world.use_by(&holder(0), token.expose(), &refund(5))).cancellation();
        let mut waiting = pin!(handle.cancelled());
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        let listed = world.statement.token_keys.remove(&claims().key).unwrap();
        if let Some(key) = next {
            let listed = ListedKey { public: public(&key), ..listed };
            world.statement.token_keys.insert(claims().key, listed);
        }
        world.publish();
        match waiting.as_mut().poll(&mut context) {
            Poll::Ready(why) => assert_eq!(why.code(), "unknown_key"),
            Poll::Pending => panic!("still running"),
        }
    }
}

/// The holder may have handed it on for a shorter time than the token lives.
#[test]
fn a_running_use_ends_with_the_time_that_a_holder_set() {
    let mut world = World::new();
    let until = [Caveat::Before(at(NOW + 30))];
    let whole = Decoded::read(minted(&claims()).expose()).unwrap();
    let token = attenuate(&whole, &until, &Zeroizing::new([1; 32])).unwrap();
    let handle = verified(world.use_by(&holder(0), token.expose(), &refund(5))).cancellation();
    let mut waiting = pin!(handle.cancelled());
    let mut context = Context::from_waker(Waker::noop());
    world.advance(Duration::from_millis(29_999));
    world.publish();
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    world.advance(Duration::from_millis(1));
    world.publish();
    assert!(waiting.as_mut().poll(&mut context).is_ready());
    assert_eq!(handle.reason().map(|why| why.code()), Some("expired"));
}

/// A lock is set, put off and lifted; the gateway has heard all of it, in that order, and time
/// passes as the signed heads say.
#[test]
fn a_lock_ends_with_its_last_end_or_when_it_is_lifted() {
    let lock = Lock {
        id: LockId::new([7; 16]),
        workload: None,
        task: Some(claims().task),
        prefix: None,
        person: None,
    };
    let other = Lock { id: LockId::new([8; 16]), ..lock.clone() };
    let locked = |lock: &Lock| Kind::Locked(lock.clone());
    let is_locked = |world: &World| {
        world.revocations.locked(&claims(), &refund(5).resource).map(|id| id.as_bytes()[0])
    };
    let mut world = World::new();
    let fold = |world: &mut World, seq, end, kind| {
        let lapses_at = at(NOW + end);
        world.revocations.fold(&FeedEntry { seq: Seq(seq), lapses_at, kind });
    };
    fold(&mut world, 1, 100, locked(&lock));
    fold(&mut world, 2, 200, locked(&lock));
    fold(&mut world, 3, 300, locked(&other));
    fold(&mut world, 4, 300, Kind::Unlocked(other.id));
    world.revocations.prune(at(NOW + 100));
    assert_eq!(is_locked(&world), Some(7), "its first end was put off");
    world.revocations.prune(at(NOW + 199));
    assert_eq!(is_locked(&world), Some(7));
    world.revocations.prune(at(NOW + 200));
    assert_eq!(is_locked(&world), None);
    // The same id again, once nobody remembers the first.
    fold(&mut world, 5, 400, locked(&other));
    assert_eq!(is_locked(&world), Some(8));
    world.revocations.prune(at(NOW + 300));
    assert_eq!(is_locked(&world), Some(8), "an old lifting lapses, and lifts nothing");
    world.revocations.prune(at(NOW + 400));
    assert_eq!(is_locked(&world), None);
    assert!(world.revocations.is_empty());
}

#[test]
fn a_use_goes_on_when_its_lock_is_lifted() {
    let mut world = World::new();
    let token = minted(&claims());
    let id = LockId::new([7; 16]);
    let person = None;
    let lock = Lock { id, workload: Some(claims().subject), task: None, prefix: None, person };
    world.tell(Kind::Locked(lock));
    let refused = world.use_by(&holder(0), token.expose(), &refund(5));
    assert_eq!(code(&refused), "locked");
    world.tell(Kind::Unlocked(id));
    verified(world.use_by(&holder(0), token.expose(), &refund(5)));
}

/// What drains goes on for its bound after its end was noticed, and no longer, though it healed.
#[test]
fn what_drains_ends_with_its_bound_whatever_comes_after() {
    let mut world = World::new();
    let token = minted(&claims());
    let verified = verified(world.use_by(&holder(0), token.expose(), &refund(5)));
    let handle = verified.cancellation().draining(Duration::from_secs(30));
    assert_eq!(handle.reason(), None);
    world.advance(Duration::from_secs(6));
    assert_eq!(handle.reason(), None, "it is stale, and drains");
    world.publish();
    for (passes, ended) in [(29_999, None), (1, Some("stale")), (1_000, Some("stale"))] {
        world.advance(Duration::from_millis(passes));
        world.publish();
        assert_eq!(handle.reason().map(|why| why.code()), ended, "after {passes} ms more");
    }
    assert_eq!(verified.cancellation().reason(), None, "what does not drain looks anew");
}

#[test]
fn a_revocation_that_spares_a_use_does_not_end_it() {
    let mut world = World::new();
    let token = minted(&claims());
    let handle = verified(world.use_by(&holder(0), token.expose(), &refund(5))).cancellation();
    world.tell(Kind::Revoked(Target::Token(TokenId::new([99; 16]))));
    world.tell(Kind::Revoked(Target::Workload("spiffe://shop.test/agent/x".parse().unwrap())));
    assert!(!handle.is_cancelled());
}

/// Between the last look at the state and the waiting there is no moment in which a change is lost.
#[test]
fn what_is_taken_back_while_a_use_begins_to_wait_ends_it() {
    for drain in [Duration::ZERO, Duration::from_secs(30)] {
        let mut world = World::new();
        let token = minted(&claims());
        let verified = verified(world.use_by(&holder(0), token.expose(), &refund(5)));
        let handle = verified.cancellation().draining(drain);
        world.tell_meanwhile(Kind::Revoked(Target::Grant(claims().grant)));
        let mut waiting = pin!(handle.cancelled());
        let mut context = Context::from_waker(Waker::noop());
        let mut ended = waiting.as_mut().poll(&mut context);
        if !drain.is_zero() {
            assert!(ended.is_pending(), "it drains");
            world.advance(drain);
            world.enforcer.tick(world.clock.now(), world.clock.uptime());
            ended = waiting.as_mut().poll(&mut context);
        }
        match ended {
            Poll::Ready(why) => assert_eq!(why.code(), "revoked"),
            Poll::Pending => panic!("still running"),
        }
    }
}

/// Answers as it is told, and remembers what it was asked: the use, or none where policy is asked.
struct Broker {
    answer: Result<(), NotRedeemed>,
    policy: Result<(), NotRedeemed>,
    asked: Mutex<Vec<Option<UseId>>>,
}

impl Broker {
    fn new(policy: Result<(), NotRedeemed>, answer: Result<(), NotRedeemed>) -> Self {
        Self { policy, answer, asked: Mutex::default() }
    }

    fn asked(&self) -> Vec<Option<UseId>> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

impl Redeem for Broker {
    fn redeem(&self, token: TokenId, use_id: UseId) -> Redemption<'_> {
        assert_eq!(token, claims().token);
        self.asked.lock().unwrap().push(Some(use_id));
        Box::pin(std::future::ready(self.answer))
    }

    fn reevaluate(&self, token: TokenId) -> Redemption<'_> {
        assert_eq!(token, claims().token);
        self.asked.lock().unwrap().push(None);
        Box::pin(std::future::ready(self.policy))
    }
}

fn question(world: &mut World, claims: &Claims) -> MustAsk {
    let token = minted(claims);
    match world.use_by(&holder(0), token.expose(), &refund(5)) {
        Ok(Outcome::MustAsk(question)) => question,
        other => panic!("{}", code(&other)),
    }
}

fn answered(question: MustAsk, broker: &Broker, use_id: Option<UseId>) -> Result<(), Reject> {
    let mut asking = pin!(question.ask(broker, use_id));
    match asking.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer.map(drop),
        Poll::Pending => panic!("the answer was there"),
    }
}

#[test]
fn a_counted_right_passes_only_by_the_answer_of_the_broker() {
    let mut world = World::new();
    let counted = Claims { counted: true, ..claims() };
    let use_id = Some(UseId::draw(at(NOW), [1; 10]));
    for (answer, expected) in [
        (Err(NotRedeemed::Spent), Err(Reject::Spent)),
        (Err(NotRedeemed::Repeated), Err(Reject::UseRepeated)),
        (Err(NotRedeemed::Locked(LockId::new([5; 16]))), Err(Reject::Locked(LockId::new([5; 16])))),
        (Err(NotRedeemed::StaleId), Err(Reject::NoUseId)),
        (Err(NotRedeemed::Unanswered), Err(Reject::Unanswered)),
        (Ok(()), Ok(())),
    ] {
        let broker = Broker::new(Err(NotRedeemed::Drifted), answer);
        assert_eq!(answered(question(&mut world, &counted), &broker, use_id), expected);
        assert_eq!(broker.asked(), [use_id]);
    }
    let broker = Broker::new(Ok(()), Ok(()));
    let unnamed = question(&mut world, &counted);
    assert_eq!(answered(unnamed, &broker, None), Err(Reject::NoUseId));
    assert!(broker.asked().is_empty());
    // Taken back while the broker was being asked.
    let asking = question(&mut world, &counted);
    world.tell(Kind::Revoked(Target::Grant(claims().grant)));
    assert_eq!(answered(asking, &broker, use_id).unwrap_err().code(), "revoked");
}

#[test]
fn an_online_right_passes_only_if_policy_allows_it_now() {
    let mut world = World::new();
    let online = Claims { online: true, ..claims() };
    let both = Claims { counted: true, ..online.clone() };
    let use_id = Some(UseId::draw(at(NOW), [1; 10]));
    for (policy, expected) in [
        (Err(NotRedeemed::Drifted), Err(Reject::Drifted)),
        (Err(NotRedeemed::Unanswered), Err(Reject::Unanswered)),
        (Ok(()), Ok(())),
    ] {
        let broker = Broker::new(policy, Ok(()));
        assert_eq!(answered(question(&mut world, &online), &broker, use_id), expected);
        assert_eq!(broker.asked(), [None], "nothing is counted");
        assert_eq!(answered(question(&mut world, &both), &broker, use_id), expected);
        let asked = if expected.is_ok() { vec![None, use_id] } else { vec![None] };
        assert_eq!(broker.asked(), asked, "nothing is spent on what policy refuses");
        assert_eq!(answered(question(&mut world, &both), &broker, None), Err(Reject::NoUseId));
        assert!(broker.asked().is_empty());
    }
    let broker = Broker::new(Ok(()), Err(NotRedeemed::Spent));
    assert_eq!(answered(question(&mut world, &both), &broker, use_id), Err(Reject::Spent));
    assert_eq!(answered(question(&mut world, &online), &broker, None), Ok(()));
    let asking = question(&mut world, &online);
    world.tell(Kind::Revoked(Target::Grant(claims().grant)));
    assert_eq!(answered(asking, &broker, None).unwrap_err().code(), "revoked");
}
