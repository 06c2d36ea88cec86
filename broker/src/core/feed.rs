//! The revocation feed, as a projection of the log: what gateways must refuse, in the order of the
//! log, until nothing that it touches could be accepted anyway.
//!
//! A pure fold like the rest of the state, so that every broker over one log tells the same feed.
//! It takes nothing back by itself: an entry leaves when it has lapsed, and for no other reason.

use std::time::Duration;

use bytes::Bytes;
use dayfly_verifier::feed::{feed_start, fold_hash};
use dayfly_verifier::id::{Epoch, FeedHash, GrantId, Seq};
use dayfly_verifier::revocations::{FeedEntry, Kind};
use dayfly_verifier::time::Timestamp;
use imbl::{OrdMap, OrdSet};

use super::event::{Entry, Event, Head, Target};
use super::limits::{MAX_LEASE, MAX_TOKEN_LIFE};
use super::state::State;

/// How long an entry outlives its last victim: the largest staleness that a gateway may declare,
/// and 2 s for clocks.
pub const AFTERLIFE: Duration = Duration::from_secs(62);

/// What gateways must refuse. A clone is cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    hash: FeedHash,
    entries: OrdMap<Seq, (Timestamp, Bytes)>,
    lapses: OrdSet<(Timestamp, Seq)>,
    pruned: Seq,
}

impl Feed {
    /// The feed of an epoch in which nothing has happened.
    #[must_use]
    pub(super) fn new(epoch: &Epoch) -> Self {
        Self {
            hash: feed_start(epoch),
            entries: OrdMap::new(),
            lapses: OrdSet::new(),
            pruned: Seq(0),
        }
    }

    /// A feed with these entries, each with when it lapses. Those up to `pruned` may be forgotten.
    pub(crate) fn of(
        hash: FeedHash,
        entries: OrdMap<Seq, (Timestamp, Bytes)>,
        pruned: Seq,
    ) -> Self {
        let lapses = entries.iter().map(|(seq, (lapses_at, _))| (*lapses_at, *seq)).collect();
        Self { hash, entries, lapses, pruned }
    }

    /// What [`Feed::of`] makes it of.
    pub(crate) const fn parts(&self) -> (FeedHash, &OrdMap<Seq, (Timestamp, Bytes)>, Seq) {
        (self.hash, &self.entries, self.pruned)
    }

    /// The hash over all entries of the epoch, lapsed ones too.
    #[must_use]
    pub const fn hash(&self) -> FeedHash {
        self.hash
    }

    /// What is in force at `time`, in the order of the log.
    pub fn in_force(&self, time: Timestamp) -> impl Iterator<Item = &Bytes> {
        let live = move |(lapses_at, _): &&(Timestamp, Bytes)| *lapses_at > time;
        self.entries.values().filter(live).map(|(_, bytes)| bytes)
    }

    /// Every entry after `seq`, in the order of the log; `None` if some of them are forgotten.
    pub fn after(&self, seq: Seq) -> Option<impl Iterator<Item = &Bytes>> {
        let after = self.entries.range(seq.next()..).map(|(_, (_, bytes))| bytes);
        (seq >= self.pruned).then_some(after)
    }

    /// The same, if they take no more than `bytes`.
    #[must_use]
    pub fn after_within(&self, seq: Seq, bytes: usize) -> Option<Vec<Bytes>> {
        let (mut left, mut entries) = (bytes, Vec::new());
        for entry in self.after(seq)? {
            left = left.checked_sub(entry.len())?;
            entries.push(entry.clone());
        }
        Some(entries)
    }

    /// Adds what the entry at `head` means to gateways, and forgets what has lapsed by then.
    pub(super) fn fold(&mut self, head: Head, at: Timestamp, said: Option<(Kind, Timestamp)>) {
        while let Some((_, seq)) = self.lapses.get_min().copied().filter(|(when, _)| *when <= at) {
            self.lapses.remove_min();
            self.entries.remove(&seq);
            self.pruned = self.pruned.max(seq);
        }
        let Some((kind, lapses_at)) = said.filter(|(_, lapses_at)| *lapses_at > at) else { return };
        let entry = FeedEntry { seq: head.seq, lapses_at, kind };
        let bytes = Bytes::from(entry.to_bytes());
        self.hash = fold_hash(&self.hash, &bytes);
        self.entries.insert(head.seq, (lapses_at, bytes));
        self.lapses.insert((lapses_at, head.seq));
    }
}

/// What `entry`, folded into `state` already, means to gateways, and until when. `None` if nothing.
pub(super) fn said(state: &State, entry: &Entry) -> Option<(Kind, Timestamp)> {
    let target = match &entry.event {
        Event::Ended { grant, .. } => Target::Grant(*grant),
        Event::Revoked { target, .. } => target.clone(),
        Event::Locked { lock, until, .. } => return Some((Kind::Locked(lock.clone()), *until)),
        // For as long as anybody may still know of the lock.
        Event::Unlocked { lock } => {
            return Some((Kind::Unlocked(*lock), state.lifted_lock(lock, entry.at)?.until));
        }
        Event::EpochOpened { .. }
        | Event::BundleApplied { .. }
        | Event::KeyAdded { .. }
        | Event::KeyRetired { .. }
        | Event::RequestFiled { .. }
        | Event::RequestRefused { .. }
        | Event::RequirementChanged { .. }
        | Event::DecisionRecorded { .. }
        | Event::DecisionWithdrawn { .. }
        | Event::Granted { .. }
        | Event::TokenRecorded { .. }
        | Event::ExchangeAnswered { .. }
        | Event::UseRedeemed { .. }
        | Event::UsesReported(_)
        | Event::SnapshotTaken(_)
        | Event::IdentityChanged { .. }
        | Event::OptedOut { .. } => return None,
    };
    let last_death = last_death(state, entry.at, &target).filter(|death| *death > entry.at)?;
    Some((Kind::Revoked(target), last_death.plus(AFTERLIFE)))
}

/// When the last token that `target`, taken back at `at`, touches dies by itself. `None` if there
/// is none.
fn last_death(state: &State, at: Timestamp, target: &Target) -> Option<Timestamp> {
    let soon = at.plus(MAX_TOKEN_LIFE);
    Some(match target {
        Target::Grant(grant) => last_token(state, grant, soon)?,
        Target::Token(token) => {
            let known = state.token(token);
            known.map_or(soon, |(_, token)| token.minted.claims.expires_at)
        }
        // Its holder may hand on the tokens to come under the same grant too.
        Target::Delegate(grant, _) => {
            let granted = state.case(grant).and_then(|case| case.grant());
            granted.map_or(at.plus(MAX_LEASE), |granted| granted.terms.until)
        }
        Target::Key(key) => state.keys.get(key).map_or(soon, |key| key.not_after),
        Target::Block(_) | Target::Workload(_) | Target::Task(_) | Target::Prefix(_) => soon,
    })
}

/// When the last token of a grant dies; `None` if it never had one; `soon` if it is not known.
fn last_token(state: &State, grant: &GrantId, soon: Timestamp) -> Option<Timestamp> {
    let Some(case) = state.case(grant) else { return Some(soon) };
    case.grant()?.tokens().map(|token| token.minted.claims.expires_at).max()
}
