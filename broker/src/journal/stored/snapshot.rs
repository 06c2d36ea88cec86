//! The state as a snapshot keeps it: without its cases, without what is derived from the rest, and
//! without what is configured. Another form is another version of the fold.

use std::collections::BTreeSet;
use std::sync::Arc;

use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::{
    BatchDigest, BundleDigest, FeedHash, GrantId, InstanceId, KeyId, PersonId, Seq, TextDigest,
};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::request::SignerKey;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::directory::DirectoryV1;
use super::parts::{HeadV1, LockV1};
use super::{Text, texts, untexts};
use crate::core::case::Case;
use crate::core::event::{Head, Lock};
use crate::core::feed::Feed;
use crate::core::index::Index;
use crate::core::limits::Limits;
use crate::core::locks::{Locks, SetLock};
use crate::core::reports::{Last, Reports};
use crate::core::state::{SigningKey, State};
use crate::core::unbounded::Unbounded;

/// A state without its cases.
#[derive(Serialize, Deserialize)]
pub(in crate::journal) struct StateV1 {
    head: HeadV1,
    time_ms: u64,
    bundle: Option<Text<BundleDigest>>,
    directory: DirectoryV1,
    founders: Vec<Text<SignerKey>>,
    format: u32,
    environment: u64,
    keys: Vec<KeyV1>,
    snapshot: u64,
    feed: FeedV1,
    /// Its place, and when it was, in milliseconds.
    last_revocation: Option<(u64, u64)>,
    reports: Vec<(Text<SpiffeId>, Text<InstanceId>, LastV1)>,
    invited: Vec<(Text<SpiffeId>, Vec<Text<PersonId>>)>,
    locks: Vec<SetLockV1>,
    /// Each with when it was recorded, in milliseconds.
    unbounded: Vec<(Text<SpiffeId>, Text<InstanceId>, u64)>,
}

#[derive(Serialize, Deserialize)]
struct SetLockV1 {
    lock: LockV1,
    until_ms: u64,
    by: Text<PersonId>,
    seq: u64,
    reason: Option<Text<TextDigest>>,
    lifted: bool,
}

#[derive(Serialize, Deserialize)]
struct KeyV1 {
    key: u32,
    public: Text<HolderKey>,
    not_after_ms: u64,
    used: bool,
    retired: bool,
    revoked: bool,
}

#[derive(Serialize, Deserialize)]
struct FeedV1 {
    hash: Text<FeedHash>,
    /// Each with its place, and when it lapses, in milliseconds.
    entries: Vec<(u64, u64, Vec<u8>)>,
    pruned: u64,
}

#[derive(Serialize, Deserialize)]
struct LastV1 {
    number: u64,
    digest: Text<BatchDigest>,
    at_ms: u64,
}

impl StateV1 {
    /// The end of what was folded.
    pub(in crate::journal) fn head(&self) -> Head {
        (&self.head).into()
    }

    /// The time of its last entry.
    pub(in crate::journal) fn time(&self) -> Result<Timestamp, Invalid> {
        Timestamp::from_ms(self.time_ms)
    }

    /// The state that this and `cases` are of, with look-ups over them.
    pub(in crate::journal) fn with(
        self,
        cases: OrdMap<GrantId, Arc<Case>>,
        index: Index,
        limits: Limits,
    ) -> Result<State, Invalid> {
        let Self { head, time_ms, bundle, directory, founders, format, environment, .. } = self;
        let invited =
            self.invited.into_iter().map(|(id, by)| (id.0, untexts::<_, BTreeSet<_>>(by)));
        let last_revocation = self
            .last_revocation
            .map(|(seq, at_ms)| Ok::<_, Invalid>((Seq(seq), Timestamp::from_ms(at_ms)?)));
        Ok(State {
            head: head.into(),
            time: Timestamp::from_ms(time_ms)?,
            bundle: bundle.map(|digest| digest.0),
            directory: Arc::new(directory.into()),
            founders: untexts(founders),
            format,
            environment,
            keys: self.keys.into_iter().map(KeyV1::listed).collect::<Result<_, _>>()?,
            limits,
            snapshot: Seq(self.snapshot),
            feed: self.feed.try_into()?,
            last_revocation: last_revocation.transpose()?,
            reports: reports(self.reports)?,
            invited: invited.collect(),
            locks: locks(self.locks)?,
            unbounded: unbounded(self.unbounded)?,
            cases,
            index,
        })
    }
}

impl From<&State> for StateV1 {
    fn from(state: &State) -> Self {
        let State { head, time, bundle, directory, founders, format, environment, keys, .. } =
            state;
        let State { feed, reports: Reports { last }, invited, locks, snapshot, .. } = state;
        let State { last_revocation, unbounded: Unbounded(unbounded), .. } = state;
        // The rest is kept case by case, derived from the cases, or configured.
        let State { cases: _, index: _, limits: _, .. } = state;
        let told = |(gateway, instances): (&SpiffeId, _)| {
            let instances: &OrdMap<InstanceId, Last> = instances;
            let of = Text::from(gateway);
            instances.iter().map(move |(id, last)| (of.clone(), id.into(), last.into()))
        };
        let recorded = |((of, instance), at): (&(SpiffeId, InstanceId), &Timestamp)| {
            (of.into(), instance.into(), at.as_ms())
        };
        Self {
            head: head.into(),
            time_ms: time.as_ms(),
            bundle: bundle.map(Text),
            directory: (&**directory).into(),
            founders: texts(founders),
            format: *format,
            environment: *environment,
            keys: keys.iter().map(KeyV1::of).collect(),
            snapshot: snapshot.0,
            feed: feed.into(),
            last_revocation: last_revocation.map(|(seq, at)| (seq.0, at.as_ms())),
            reports: last.iter().flat_map(told).collect::<Vec<_>>(),
            invited: invited.iter().map(|(id, by)| (id.into(), texts(by))).collect(),
            locks: locks.remembered().map(Into::into).collect(),
            unbounded: unbounded.iter().map(recorded).collect(),
        }
    }
}

fn reports(stored: Vec<(Text<SpiffeId>, Text<InstanceId>, LastV1)>) -> Result<Reports, Invalid> {
    let mut reports = Reports::default();
    for (gateway, instance, LastV1 { number, digest, at_ms }) in stored {
        let last = Last { number, digest: digest.0, at: Timestamp::from_ms(at_ms)? };
        reports.last.entry(gateway.0).or_default().insert(instance.0, last);
    }
    Ok(reports)
}

fn locks(stored: Vec<SetLockV1>) -> Result<Locks, Invalid> {
    let mut locks = Locks::default();
    for SetLockV1 { lock, until_ms, by, seq, reason, lifted } in stored {
        let (lock, until) = (Lock::from(lock), Timestamp::from_ms(until_ms)?);
        let (id, reason) = (lock.id, reason.map(|text| text.0));
        locks.set(SetLock { lock, until, by: by.0, seq: Seq(seq), reason });
        if lifted {
            locks.lift(&id);
        }
    }
    Ok(locks)
}

fn unbounded(stored: Vec<(Text<SpiffeId>, Text<InstanceId>, u64)>) -> Result<Unbounded, Invalid> {
    let each = stored.into_iter();
    let each = each.map(|(of, instance, ms)| Ok(((of.0, instance.0), Timestamp::from_ms(ms)?)));
    each.collect::<Result<_, _>>().map(Unbounded)
}

impl From<(&SetLock, bool)> for SetLockV1 {
    fn from((SetLock { lock, until, by, seq, reason }, lifted): (&SetLock, bool)) -> Self {
        Self {
            lock: lock.into(),
            until_ms: until.as_ms(),
            by: by.into(),
            seq: seq.0,
            reason: reason.map(Text),
            lifted,
        }
    }
}

impl From<&Last> for LastV1 {
    fn from(Last { number, digest, at }: &Last) -> Self {
        Self { number: *number, digest: digest.into(), at_ms: at.as_ms() }
    }
}

impl KeyV1 {
    fn of((key, listed): (&KeyId, &SigningKey)) -> Self {
        let SigningKey { public, not_after, used, retired, revoked } = listed;
        Self {
            key: key.0,
            public: public.into(),
            not_after_ms: not_after.as_ms(),
            used: *used,
            retired: *retired,
            revoked: *revoked,
        }
    }

    fn listed(self) -> Result<(KeyId, SigningKey), Invalid> {
        let Self { key, public, not_after_ms, used, retired, revoked } = self;
        let not_after = Timestamp::from_ms(not_after_ms)?;
        Ok((KeyId(key), SigningKey { public: public.0, not_after, used, retired, revoked }))
    }
}

impl From<&Feed> for FeedV1 {
    fn from(feed: &Feed) -> Self {
        let entry = |(seq, (lapses, bytes)): (&Seq, &(Timestamp, bytes::Bytes))| {
            (seq.0, lapses.as_ms(), bytes.to_vec())
        };
        let (hash, entries, pruned) = feed.parts();
        let entries = entries.iter().map(entry).collect();
        Self { hash: Text(hash), entries, pruned: pruned.0 }
    }
}

impl TryFrom<FeedV1> for Feed {
    type Error = Invalid;

    fn try_from(FeedV1 { hash, entries, pruned }: FeedV1) -> Result<Self, Invalid> {
        let entry = |(seq, lapses_ms, bytes): (u64, u64, Vec<u8>)| {
            Ok((Seq(seq), (Timestamp::from_ms(lapses_ms)?, bytes.into())))
        };
        let entries = entries.into_iter().map(entry).collect::<Result<_, Invalid>>()?;
        Ok(Self::of(hash.0, entries, Seq(pruned)))
    }
}
