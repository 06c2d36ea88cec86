//! The rules of the decision, said anew over a plain description of a case, in the order in which
//! they are documented; and random cases, in which many things are broken at once.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::world::*;
use crate::caveat::Caveat;
use crate::claims::{Claims, Record};
use crate::holder::Confirmation;
use crate::id::{Epoch, LockId};
use crate::proof::{DpopCall, make_dpop};
use crate::revocations::{Kind, Lock, Target};
use crate::scope::{Constraint, Limit, Value};
use crate::time::Clock as _;
use crate::verify::{Call, Check, Finding, Offline, Peer, Shown, Step, Trust, Use, offline};
use crate::wire::{Decoded, attenuate, mint};

/// How the holder is shown.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Proven {
    Good,
    Nothing,
    OtherKey,
    OtherMethod,
    OtherUrl,
    OtherToken,
    Early,
    OtherAct,
    NoAct,
    BadSignature,
    PeerByKey,
    OtherPeer,
}

/// A presentation of a token, by what is wrong with it. All zero is one that passes.
#[derive(Debug, Clone)]
struct Case {
    garbled: bool,
    /// Seconds since the gateway last heard; it may be 5.
    silence: u64,
    revoked: bool,
    revoked_workload: bool,
    unknown_key: bool,
    forged: bool,
    other_epoch: bool,
    issued_ahead: i64,
    life_left: i64,
    other_audience: bool,
    proven: Proven,
    replayed: bool,
    locked: bool,
    other_operation: bool,
    sibling_resource: bool,
    amount: Option<i64>,
    amount_as_text: bool,
    caveat_at_most: Option<i64>,
    counted: bool,
}

impl Case {
    fn of(bytes: [u8; 24]) -> Self {
        let broken = |at: usize| bytes[at] > 215;
        let pick = |at: usize, of: &[i64]| of[usize::from(bytes[at]) * of.len() / 256];
        let proofs = [
            [Proven::Good; 12].as_slice(),
            &[Proven::PeerByKey; 4],
            &[Proven::Nothing, Proven::OtherKey, Proven::OtherMethod, Proven::OtherUrl],
            &[Proven::OtherToken, Proven::Early, Proven::OtherAct, Proven::NoAct],
            &[Proven::BadSignature, Proven::OtherPeer],
        ]
        .concat();
        let life_left = pick(8, &[120, 120, 120, 1, 0, -1]);
        // A token whose life ends before it begins cannot be written.
        let issued_ahead = pick(7, &[0, 0, 0, 1, 2, 3]);
        let issued_ahead = if life_left < 120 { life_left - 1 } else { issued_ahead };
        Self {
            garbled: broken(0),
            silence: pick(1, &[0, 0, 0, 4, 5, 6]).unsigned_abs(),
            revoked: broken(2),
            revoked_workload: broken(3),
            unknown_key: broken(4),
            forged: broken(5),
            other_epoch: broken(6),
            issued_ahead,
            life_left,
            other_audience: broken(9),
            proven: proofs[usize::from(bytes[10]) * proofs.len() / 256],
            replayed: broken(11),
            locked: broken(12),
            other_operation: broken(13),
            sibling_resource: broken(14),
            amount: (!broken(15)).then(|| pick(16, &[500, 500, -1, 100, 501, i64::MAX])),
            amount_as_text: broken(17),
            caveat_at_most: broken(18).then(|| pick(19, &[500, 100, 99])),
            counted: broken(20),
        }
    }

    /// The rules.
    fn expected(&self) -> &'static str {
        let integer = self.amount.filter(|_| !self.amount_as_text);
        if self.garbled {
            "malformed"
        } else if self.silence > 5 {
            "stale"
        } else if self.revoked {
            "revoked"
        } else if self.unknown_key {
            "unknown_key"
        } else if self.forged {
            "bad_signature"
        } else if self.revoked_workload {
            "revoked"
        } else if self.other_epoch {
            "other_epoch"
        } else if self.issued_ahead > 2 {
            "not_yet"
        } else if self.life_left <= 0 {
            "expired"
        } else if self.other_audience {
            "other_audience"
        } else if self.proven == Proven::Nothing {
            "no_proof"
        } else if self.proven == Proven::OtherPeer {
            "other_peer"
        } else if self.proven == Proven::Early {
            "proof_time"
        } else if !(matches!(self.proven, Proven::Good | Proven::PeerByKey)
            || (self.proven == Proven::NoAct && !self.counted))
        {
            "bad_proof"
        } else if self.replayed && self.proven != Proven::PeerByKey {
            "replayed"
        } else if self.locked {
            "locked"
        } else if self.other_operation || self.sibling_resource {
            "out_of_scope"
        } else if integer.is_none_or(|amount| amount > 500) {
            "argument"
        } else if self.caveat_at_most.is_some_and(|most| integer > Some(most)) {
            "caveat"
        } else if self.counted {
            "ask"
        } else {
            "ok"
        }
    }

    fn claims(&self) -> Claims {
        let audience =
            if self.other_audience { "spiffe://shop.test/gateway/stock" } else { GATEWAY };
        let offset = |secs: i64| at(NOW.checked_add_signed(secs).unwrap());
        Claims {
            audience: audience.parse().unwrap(),
            issued_at: offset(self.issued_ahead),
            expires_at: offset(self.life_left),
            counted: self.counted,
            ..claims()
        }
    }

    fn token(&self) -> String {
        let epoch = Epoch::new([if self.other_epoch { 2 } else { 1 }; 16]);
        let token = mint(&self.claims(), &Record { epoch, ..record() }, &signer(self.forged));
        let token = token.unwrap();
        let mut text = match self.caveat_at_most {
            None => token.expose().to_owned(),
            Some(most) => {
                let argument = "amount".parse().unwrap();
                let caveat = Caveat::Argument(Constraint { argument, limit: Limit::AtMost(most) });
                let decoded = Decoded::read(token.expose()).unwrap();
                let narrowed = attenuate(&decoded, &[caveat], &zeroize::Zeroizing::new([5; 32]));
                narrowed.unwrap().expose().to_owned()
            }
        };
        if self.garbled {
            text.push('=');
        }
        text
    }

    fn call(&self) -> Call {
        let amount = self.amount.map(|amount| match self.amount_as_text {
            true => Value::text(&amount.to_string()).unwrap(),
            false => Value::Int(amount),
        });
        let arguments: Vec<_> = amount.into_iter().map(|amount| ("amount", amount)).collect();
        let operation = if self.other_operation { "read" } else { "refund" };
        let place = if self.sibling_resource { "prod-archive" } else { "prod" };
        call(operation, &format!("orders/{place}/o-17"), &arguments)
    }

    fn proof(&self, token: &str, call: &Call) -> String {
        let key = holder(u8::from(self.proven == Proven::OtherKey));
        let right = act(GATEWAY, call);
        let wrong = act(GATEWAY, &refund(7777));
        let made = at(NOW - if self.proven == Proven::Early { 31 } else { 0 });
        let http = DpopCall {
            method: if self.proven == Proven::OtherMethod { "GET" } else { "POST" },
            url: if self.proven == Proven::OtherUrl { BASE } else { usual_http().url },
            act: if self.proven == Proven::NoAct {
                None
            } else if self.proven == Proven::OtherAct {
                Some(&wrong)
            } else {
                Some(&right)
            },
            nonce: None,
        };
        let sent = if self.proven == Proven::OtherToken { "another" } else { token };
        let mut proof = make_dpop(&key, sent, &http, made, [1; 16]);
        if self.proven == Proven::BadSignature {
            let at = proof.rfind('.').unwrap() + 1;
            let other = if &proof[at..=at] == "A" { "B" } else { "A" };
            proof.replace_range(at..=at, other);
        }
        proof
    }

    fn world(&self) -> World {
        let mut world = World::new();
        if self.unknown_key {
            world.statement.token_keys.clear();
        }
        let tell = |world: &mut World, kind| world.tell(kind);
        if self.revoked {
            tell(&mut world, Kind::Revoked(Target::Token(claims().token)));
        }
        if self.revoked_workload {
            tell(&mut world, Kind::Revoked(Target::Workload(claims().subject)));
        }
        if self.locked {
            let task = Some("ticket-17".parse().unwrap());
            let id = LockId::new([1; 16]);
            let lock = Lock { id, workload: None, task, prefix: None, person: None };
            tell(&mut world, Kind::Locked(lock));
        }
        world
    }

    fn decided(&self) -> &'static str {
        let mut world = self.world();
        let (token, call) = (self.token(), self.call());
        let proof = self.proof(&token, &call);
        if self.replayed {
            // The same proof, accepted once before for a token that is in order.
            let used = crate::proof::DpopProof::read(&proof).unwrap();
            let key = public(&holder(0));
            world.verifier.guard.admit(&key, &key, used.jti(), world.clock.uptime()).unwrap();
        }
        let heard = world.clock.uptime() - Duration::from_secs(self.silence);
        world.publish_until(heard + Duration::from_secs(5));
        code(&world.show(&token, self.shown(&proof, &self.peer()), &call))
    }

    fn peer(&self) -> Peer {
        let key = Some(public(&holder(u8::from(self.proven == Proven::OtherPeer))));
        Peer { id: AGENT.parse().unwrap(), key }
    }

    fn shown<'a>(&self, proof: &'a str, peer: &'a Peer) -> Shown<'a> {
        if self.proven == Proven::Nothing {
            Shown::Nothing
        } else if matches!(self.proven, Proven::PeerByKey | Proven::OtherPeer) {
            Shown::Peer(peer)
        } else {
            Shown::Dpop { proof, method: "POST", path: PATH }
        }
    }

    /// What is told of it without a gateway: the first reason, and that none is told out of order.
    fn told_offline(&self) -> &'static str {
        let world = self.world();
        let (token, call) = (self.token(), Arc::new(self.call()));
        let (proof, peer) = (self.proof(&token, &call), self.peer());
        let base = BASE.parse().unwrap();
        let steps = offline(&Offline {
            token: &token,
            trust: Trust::Statement(&world.statement),
            audience: Some(&GATEWAY.parse().unwrap()),
            used: Some(Use { call: &call, proof: Some((self.shown(&proof, &peer), &base)) }),
            now: at(NOW),
        });
        assert!(steps.iter().map(|step| step.check).eq(Check::ALL));
        let ended = steps.iter().position(|step| matches!(step.finding, Finding::Fails(_)));
        let reached = |step: &&Step| step.finding != Finding::NotReached;
        let last = ended.map_or(steps.len(), |at| at + 1);
        assert_eq!(steps.iter().filter(reached).count(), last);
        match ended.map(|at| &steps[at].finding) {
            Some(Finding::Fails(reject)) => reject.code(),
            _ if matches!(steps.last().unwrap().finding, Finding::Open(_)) => "ask",
            _ => "ok",
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 3000, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn the_decision_is_the_reference_s(bytes in any::<[u8; 24]>()) {
        let case = Case::of(bytes);
        prop_assert_eq!(case.decided(), case.expected(), "{:?}", case);
        // What only a gateway knows is not told; the rest is, in the same order.
        let (revoked, revoked_workload, replayed, locked) = (false, false, false, false);
        let case = Case { silence: 0, revoked, revoked_workload, replayed, locked, ..case };
        prop_assert_eq!(case.told_offline(), case.expected(), "{:?}", case);
    }
}

/// Everything is broken at once, and mended in the documented order: each reason is seen in turn.
#[test]
fn the_order_of_checks_is_the_documented_one() {
    let mut case = Case {
        garbled: true,
        silence: 6,
        revoked: true,
        revoked_workload: true,
        unknown_key: true,
        forged: true,
        other_epoch: true,
        issued_ahead: 3,
        life_left: 120,
        other_audience: true,
        proven: Proven::Nothing,
        replayed: true,
        locked: true,
        other_operation: true,
        sibling_resource: true,
        amount: None,
        amount_as_text: false,
        caveat_at_most: Some(10),
        counted: true,
    };
    type Mend = fn(&mut Case);
    let mends: [(&str, Mend); 17] = [
        ("malformed", |case| case.garbled = false),
        ("stale", |case| case.silence = 0),
        ("revoked", |case| case.revoked = false),
        ("unknown_key", |case| case.unknown_key = false),
        ("bad_signature", |case| case.forged = false),
        ("revoked", |case| case.revoked_workload = false),
        ("other_epoch", |case| case.other_epoch = false),
        ("not_yet", |case| (case.issued_ahead, case.life_left) = (-1, 0)),
        ("expired", |case| case.life_left = 1),
        ("other_audience", |case| case.other_audience = false),
        ("no_proof", |case| case.proven = Proven::NoAct),
        ("bad_proof", |case| case.proven = Proven::Good),
        ("replayed", |case| case.replayed = false),
        ("locked", |case| case.locked = false),
        ("out_of_scope", |case| (case.other_operation, case.sibling_resource) = (false, false)),
        ("argument", |case| case.amount = Some(11)),
        ("caveat", |case| case.caveat_at_most = None),
    ];
    for (reason, mend) in mends {
        assert_eq!(case.decided(), reason, "{case:?}");
        mend(&mut case);
    }
    assert_eq!(case.decided(), "ask");
}

/// What the random cases rest on: their tokens and views are what they say.
#[test]
fn a_case_with_nothing_broken_passes() {
    let case = Case::of([0; 24]);
    assert_eq!((case.expected(), case.decided()), ("ok", "ok"));
    assert_eq!(case.claims().holder, Confirmation::Key(public(&holder(0))));
}
