//! Judges what several brokers did, from the log that they left and the answers that they gave. It
//! calls nothing of what it judges.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use dayfly_verifier::id::{BundleDigest, ExchangeId, GrantId, TokenId, UseId};
use dayfly_verifier::spiffe::SpiffeId;
use sha2::{Digest as _, Sha256};

use crate::core::event::{End, Entry, Event, Head, Target};

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    File,
    Exchange(ExchangeId),
    Redeem(UseId),
    Complete,
    Revoke,
    Apply(BundleDigest),
}

/// What was answered. An answer that never came says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Token(TokenId),
    Revoked,
    Completed,
    /// By the bundle that was in force when it was filed.
    Refused,
    /// By one that came into force later.
    Drifted,
    Spent,
    Absent,
    Unknown,
}

/// The bundle in force at first, which permits everything.
pub(super) const PERMITS: BundleDigest = BundleDigest::new([0xb0; 32]);
/// The other one, which refuses everything.
pub(super) const REFUSES: BundleDigest = BundleDigest::new([0xb1; 32]);
/// What a bundle is about: every grant.
pub(super) const ALL: GrantId = GrantId::new([0; 16]);

/// One operation on one grant, or on all, with the ticks between which it took place.
#[derive(Debug, Clone)]
pub(super) struct Op {
    pub(super) grant: GrantId,
    pub(super) what: What,
    pub(super) answer: Answer,
    pub(super) invoked: u64,
    pub(super) answered: u64,
    /// How long the log was when the answer came.
    pub(super) log: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    Absent,
    Live,
    Completed,
    Revoked,
    Refused,
    Drifted,
}

/// One grant, as it should be: the specification.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Grant {
    bundle: BundleDigest,
    stage: Stage,
    token: Option<TokenId>,
    uses: BTreeSet<UseId>,
}

/// The uses of every grant in these histories.
pub(super) const USES: usize = 2;

impl Grant {
    /// The grant after `op`; `None` where `op` cannot have been answered so.
    fn after(&self, op: &Op) -> Option<Self> {
        let mut next = self.clone();
        let ends = |stage: Stage| match op.answer {
            Answer::Revoked => stage == Stage::Revoked,
            Answer::Completed => stage == Stage::Completed,
            Answer::Refused => stage == Stage::Refused,
            Answer::Drifted => stage == Stage::Drifted,
            Answer::Absent => stage == Stage::Absent,
            _ => false,
        };
        if ends(self.stage) {
            return Some(next);
        }
        match (&op.what, op.answer, self.stage) {
            (What::File, Answer::Done | Answer::Unknown, Stage::Absent) => {
                next.stage = if self.bundle == REFUSES { Stage::Refused } else { Stage::Live };
            }
            (What::Apply(bundle), Answer::Done | Answer::Unknown, stage) => {
                next.bundle = *bundle;
                if *bundle == REFUSES && stage == Stage::Live {
                    next.stage = Stage::Drifted;
                }
            }
            (What::Exchange(_), Answer::Token(token), Stage::Live) => {
                if *next.token.get_or_insert(token) != token {
                    return None;
                }
            }
            // A grant without a use left yields no more tokens.
            (What::Exchange(_), Answer::Spent, Stage::Live) => {
                if self.uses.len() < USES {
                    return None;
                }
            }
            (What::Redeem(id), Answer::Done | Answer::Unknown, Stage::Live) => {
                next.uses.insert(*id);
                if next.uses.len() > USES {
                    return None;
                }
            }
            (What::Redeem(id), Answer::Spent, Stage::Live) => {
                if self.uses.len() < USES || self.uses.contains(id) {
                    return None;
                }
            }
            (What::Complete, Answer::Done | Answer::Unknown, Stage::Live) => {
                next.stage = Stage::Completed;
            }
            (What::Complete, Answer::Done, Stage::Completed) => {}
            (What::Revoke, Answer::Done | Answer::Unknown, Stage::Live) => {
                next.stage = Stage::Revoked;
            }
            (What::Revoke, Answer::Done, _) => {}
            _ => return None,
        }
        Some(next)
    }
}

/// Whether the operations on one grant can be put in one order that respects the ticks and in
/// which every answer is right (Wing and Gong; what was seen before is not looked at again).
pub(super) fn linearizable(ops: &[Op]) -> bool {
    assert!(ops.len() <= 64);
    // An exchange without an answer may have made the token that the next one shows: no matter.
    let silent = |op: &Op| op.answer == Answer::Unknown && matches!(op.what, What::Exchange(_));
    let ops: Vec<&Op> = ops.iter().filter(|op| !silent(op)).collect();
    let (stage, token, uses) = (Stage::Absent, None, BTreeSet::new());
    let start = Grant { bundle: PERMITS, stage, token, uses };
    let (mut seen, mut open) = (HashSet::new(), vec![(0_u64, start)]);
    while let Some((done, grant)) = open.pop() {
        let left = |at: &usize| done & (1 << at) == 0;
        let left: Vec<usize> = (0..ops.len()).filter(left).collect();
        // What was never answered may never have been done.
        if left.iter().all(|at| ops[*at].answer == Answer::Unknown) {
            return true;
        }
        let answered = |at: &usize| match ops[*at].answer {
            Answer::Unknown => u64::MAX,
            _ => ops[*at].answered,
        };
        let first = left.iter().map(answered).min().unwrap_or(u64::MAX);
        for at in left {
            if ops[at].invoked > first {
                continue;
            }
            let Some(next) = grant.after(ops[at]) else { continue };
            // Never answered, and without effect here: as good as not done, and there may be many.
            if ops[at].answer == Answer::Unknown && next == grant {
                continue;
            }
            let next = (done | 1 << at, next);
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    false
}

type Verdict = Result<(), String>;

macro_rules! law {
    ($holds:expr, $($what:tt)*) => {
        if !$holds {
            return Err(format!($($what)*));
        }
    };
}

#[derive(Default)]
struct Told {
    /// The bundle in force, and where each came into force first.
    bundle: Option<BundleDigest>,
    applied: BTreeMap<BundleDigest, usize>,
    refused: BTreeSet<GrantId>,
    live: BTreeMap<GrantId, SpiffeId>,
    granted: BTreeSet<GrantId>,
    over: BTreeSet<GrantId>,
    /// What the bundle that just came into force has yet to end.
    due: BTreeSet<GrantId>,
    tokens: BTreeMap<TokenId, GrantId>,
    /// Where each token was recorded.
    at: BTreeMap<TokenId, usize>,
    exchanges: BTreeMap<(SpiffeId, ExchangeId), TokenId>,
    uses: BTreeMap<GrantId, BTreeSet<UseId>>,
}

/// The laws of the log: I1, I2, I8, I10, I13.
pub(super) fn log(entries: &[(Head, Vec<u8>, Entry)], ops: &[Op]) -> Verdict {
    let mut told = Told::default();
    let (mut hash, mut time) = ([0_u8; 32], None);
    for (place, (head, bytes, entry)) in entries.iter().enumerate() {
        let chained = Sha256::new()
            .chain_update(b"dayfly.journal.v1\0")
            .chain_update(hash)
            .chain_update(head.epoch.as_bytes())
            .chain_update(head.seq.0.to_be_bytes())
            .chain_update(bytes)
            .finalize();
        hash = chained.into();
        law!(*head.hash.as_bytes() == hash, "I13: the chain breaks at {}", head.seq);
        law!(head.seq.0 == place as u64 + 1, "I13: a gap before {}", head.seq);
        law!(time <= Some(entry.at), "I13: time goes back at {}", head.seq);
        time = Some(entry.at);
        told.event(place, &entry.event).map_err(|what| format!("{}: {what}", head.seq))?;
    }
    law!(told.due.is_empty(), "I1: {:?} outlived what permitted it", told.due);
    ops.iter().try_for_each(|op| told.answered(op).map_err(|what| format!("{op:?}: {what}")))
}

impl Told {
    fn event(&mut self, place: usize, event: &Event) -> Verdict {
        let permits = self.bundle == Some(PERMITS);
        if let Event::Ended { grant, end: End::Drifted(_) } = event {
            law!(self.due.remove(grant), "it was ended by a bundle that permits it");
            self.over.insert(*grant);
            return Ok(());
        }
        law!(self.due.is_empty(), "I1: {:?} outlived what permitted it", self.due);
        match event {
            Event::BundleApplied { bundle, .. } => {
                self.bundle = Some(*bundle);
                self.applied.entry(*bundle).or_insert(place);
                if *bundle == REFUSES {
                    self.due =
                        self.live.keys().filter(|id| !self.over.contains(id)).copied().collect();
                }
            }
            Event::RequestRefused { request, .. } => {
                law!(!permits, "refused by a bundle that permits it");
                law!(!self.live.contains_key(&request.grant_id()), "I2: filed twice");
                law!(self.refused.insert(request.grant_id()), "I2: filed twice");
            }
            Event::RequestFiled { request, .. } => {
                law!(permits, "I1: filed under a bundle that refuses it");
                let new = self.live.insert(request.grant_id(), request.workload.clone());
                law!(new.is_none(), "I2: filed twice");
                law!(!self.refused.contains(&request.grant_id()), "I2: filed twice");
            }
            Event::Granted { grant, .. } => {
                law!(permits, "I1: granted under a bundle that refuses it");
                law!(self.live.contains_key(grant), "I1: granted of nothing");
                law!(self.granted.insert(*grant), "I2: granted twice");
            }
            Event::TokenRecorded { exchange, claims } => {
                law!(permits, "I1: minted under a bundle that refuses it");
                law!(self.granted.contains(&claims.grant), "I1: minted of nothing");
                law!(!self.over.contains(&claims.grant), "I10: minted after the end");
                let key = (claims.subject.clone(), *exchange);
                law!(self.exchanges.insert(key, claims.token).is_none(), "I2: exchanged twice");
                law!(self.tokens.insert(claims.token, claims.grant).is_none(), "I2: a token twice");
                let of_grant = self.tokens.values().filter(|grant| **grant == claims.grant).count();
                law!(of_grant == 1, "I2: a second token while the first is fresh");
                self.at.insert(claims.token, place);
            }
            Event::ExchangeAnswered { grant, exchange, token } => {
                law!(!self.over.contains(grant), "I8: answered after the end");
                law!(self.tokens.get(token) == Some(grant), "I2: answered with another's token");
                let key = (self.live[grant].clone(), *exchange);
                law!(self.exchanges.insert(key, *token).is_none(), "I2: answered twice");
            }
            Event::UseRedeemed { grant, use_id, .. } => {
                law!(!self.over.contains(grant), "I8: used after the end");
                let uses = self.uses.entry(*grant).or_default();
                law!(uses.insert(*use_id) && uses.len() <= USES, "I2: used too often");
            }
            Event::Ended { grant, end: End::Completed(_) } => drop(self.over.insert(*grant)),
            Event::Revoked { target: Target::Grant(grant), .. }
                if self.live.contains_key(grant) =>
            {
                self.over.insert(*grant);
            }
            _ => {}
        }
        Ok(())
    }

    /// What was answered stands in the log, and stood there before the answer: I9, I14.
    fn answered(&self, op: &Op) -> Verdict {
        match (&op.what, op.answer) {
            (What::Exchange(exchange), Answer::Token(token)) => {
                let key = (self.live[&op.grant].clone(), *exchange);
                law!(self.exchanges.get(&key) == Some(&token), "I2, I9: another token");
                law!(self.at[&token] < op.log, "I14: released before it was recorded");
            }
            (What::File, Answer::Done) => {
                let refused = self.refused.contains(&op.grant);
                law!(self.live.contains_key(&op.grant) || refused, "I9: lost");
            }
            (What::Apply(bundle), Answer::Done) => {
                let applied = self.applied.get(bundle);
                law!(applied.is_some_and(|place| *place < op.log), "I9: a bundle was lost");
            }
            (What::Redeem(id), Answer::Done) => {
                let uses = self.uses.get(&op.grant);
                law!(uses.is_some_and(|uses| uses.contains(id)), "I9: a use was lost");
            }
            (What::Complete | What::Revoke, Answer::Done) => {
                let known = self.live.contains_key(&op.grant);
                law!(!known || self.over.contains(&op.grant), "I8, I9: an end was lost");
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(what: What, answer: Answer, invoked: u64, answered: u64) -> Op {
        Op { grant: GrantId::new([1; 16]), what, answer, invoked, answered, log: 0 }
    }

    fn exchange(n: u8) -> What {
        What::Exchange(ExchangeId::draw(crate::journal::samples::time(0), [n; 10]))
    }

    /// The judge can say no.
    #[test]
    fn what_cannot_have_been_is_refused() {
        let token = |n| Answer::Token(TokenId::new([n; 16]));
        let filed = op(What::File, Answer::Done, 0, 1);
        let revoked = op(What::Revoke, Answer::Done, 2, 5);
        let history = |more: Vec<Op>| [vec![filed.clone(), revoked.clone()], more].concat();
        // At the same time either may come first; after the answer only one may.
        assert!(linearizable(&history(vec![op(exchange(1), token(1), 3, 6)])));
        assert!(linearizable(&history(vec![op(exchange(1), Answer::Revoked, 3, 4)])));
        assert!(!linearizable(&history(vec![op(exchange(1), token(1), 6, 7)])));
        let early = op(exchange(1), Answer::Revoked, 3, 4);
        let late = op(exchange(2), token(1), 5, 7);
        assert!(!linearizable(&history(vec![early, late])), "it came back to life");
        let (one, two) = (op(exchange(1), token(1), 2, 3), op(exchange(2), token(2), 2, 3));
        assert!(!linearizable(&history(vec![one, two])), "two tokens");
        // An answer that never came says nothing, and may take effect at any time.
        let lost = op(What::Revoke, Answer::Unknown, 2, 3);
        let seen = op(exchange(1), Answer::Revoked, 8, 9);
        assert!(linearizable(&[filed.clone(), lost.clone(), seen.clone()]));
        assert!(linearizable(&[filed.clone(), lost, op(exchange(1), token(1), 8, 9)]));
        assert!(!linearizable(&[filed.clone(), seen]));
        let used = |n: u8| What::Redeem(UseId::draw(crate::journal::samples::time(0), [n; 10]));
        let uses = |last| {
            vec![
                filed.clone(),
                op(used(1), Answer::Done, 2, 3),
                op(used(2), Answer::Done, 2, 3),
                last,
            ]
        };
        assert!(linearizable(&uses(op(used(2), Answer::Done, 4, 5))));
        assert!(linearizable(&uses(op(used(3), Answer::Spent, 4, 5))));
        assert!(!linearizable(&uses(op(used(3), Answer::Done, 4, 5))));
        assert!(!linearizable(&uses(op(used(1), Answer::Spent, 4, 5))));
        // A bundle that refuses ends what lives, and what is filed under it never lives.
        let apply = |bundle, invoked| op(What::Apply(bundle), Answer::Done, invoked, invoked + 1);
        let frozen = |more: Vec<Op>| [vec![filed.clone(), apply(REFUSES, 2)], more].concat();
        assert!(linearizable(&frozen(vec![op(exchange(1), token(1), 3, 4)])));
        assert!(linearizable(&frozen(vec![op(exchange(1), Answer::Drifted, 4, 5)])));
        assert!(!linearizable(&frozen(vec![op(exchange(1), token(1), 4, 5)])));
        let again = vec![apply(PERMITS, 4), op(exchange(1), token(1), 6, 7)];
        assert!(!linearizable(&frozen(again)), "it came back to life");
        let late = op(What::File, Answer::Done, 2, 3);
        let refused = |answer| vec![apply(REFUSES, 0), late.clone(), op(exchange(1), answer, 4, 5)];
        assert!(linearizable(&refused(Answer::Refused)));
        assert!(!linearizable(&refused(token(1))));
        // However many were lost, the judge comes to an end.
        let lost = vec![op(used(1), Answer::Unknown, 2, 3); 58];
        assert!(!linearizable(&[uses(op(used(1), Answer::Spent, 4, 5)), lost].concat()));
    }
}
