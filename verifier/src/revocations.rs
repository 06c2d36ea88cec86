//! What has been taken back, as a fold of the feed: asked at every use, changed at every entry.
//!
//! Pure: no clock, no lock, no I/O. A clone is cheap, so that readers keep a snapshot while the
//! next one is made. Nothing is ever un-revoked here: an entry goes only when it has lapsed, that
//! is when nothing that it touches could be accepted anyway; a lock goes when it is lifted.

use imbl::{OrdMap, OrdSet};

use crate::claims::Claims;
use crate::holder::HolderKey;
use crate::id::{GrantId, KeyId, LockId, PersonId, Seq, TaskId, TokenId};
use crate::resource::{Resource, ResourcePattern};
use crate::spiffe::SpiffeId;
use crate::time::Timestamp;
use crate::wire::{BlockId, Content};

/// What a revocation takes back. Those that name no single thing take back what was recorded at a
/// lower place in the log than they were, and nothing later.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A request or grant, and every token of it.
    Grant(GrantId),
    /// One token.
    Token(TokenId),
    /// One block of a token and all that was attenuated from it, by its raw signature.
    Block(Vec<u8>),
    /// What was delegated to this key under this grant.
    Delegate(GrantId, HolderKey),
    /// All that a workload holds so far.
    Workload(SpiffeId),
    /// All that is held for a task so far.
    Task(TaskId),
    /// All that reaches this resource, or what lies below it, so far.
    Prefix(Resource),
    /// All that this key signed, and the key with it: whoever stole it could name any place in the
    /// log, so no place is asked for.
    Key(KeyId),
}

/// A standing refusal of every use that matches each field that is set; of everything, if none is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lock {
    /// Its name, by which it is lifted.
    pub id: LockId,
    /// Tokens issued to this workload.
    pub workload: Option<SpiffeId>,
    /// Tokens for this task.
    pub task: Option<TaskId>,
    /// Uses of this resource, or of what lies below it.
    pub prefix: Option<Resource>,
    /// Tokens on behalf of this person.
    pub person: Option<PersonId>,
}

/// One entry of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedEntry {
    /// Its place in the journal.
    pub seq: Seq,
    /// From when on nothing that it touches could be accepted anyway.
    pub lapses_at: Timestamp,
    /// What it says.
    pub kind: Kind,
}

/// What a feed entry says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Something was taken back.
    Revoked(Target),
    /// A lock was set.
    Locked(Lock),
    /// A lock was lifted.
    Unlocked(LockId),
    /// Something that this version does not understand. It matches everything until it lapses.
    Unknown,
}

impl Kind {
    /// The one grant that this takes back, if it does nothing else.
    #[must_use]
    pub const fn grant(&self) -> Option<GrantId> {
        match self {
            Self::Revoked(Target::Grant(grant)) => Some(*grant),
            Self::Revoked(
                Target::Token(_)
                | Target::Block(_)
                | Target::Delegate(..)
                | Target::Workload(_)
                | Target::Task(_)
                | Target::Prefix(_)
                | Target::Key(_),
            )
            | Self::Locked(_)
            | Self::Unlocked(_)
            | Self::Unknown => None,
        }
    }
}

/// What a revocation caught a token by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revoked {
    /// An entry of the feed that this version does not understand.
    UnknownEntry,
    /// The key that signed it.
    Key,
    /// Its grant.
    Grant,
    /// The token itself.
    Token,
    /// One of its blocks.
    Block,
    /// A key that it was delegated to.
    Delegate,
    /// Its workload.
    Workload,
    /// Its task.
    Task,
    /// A resource that it reaches.
    Prefix,
}

/// Until when something stays revoked, and what is caught by it.
#[derive(Debug, Clone, Copy)]
struct Mark {
    seq: Seq,
    lapses_at: Timestamp,
}

type Marks<K> = OrdMap<K, Mark>;

/// All that is revoked or locked.
#[derive(Debug, Clone, Default)]
pub struct Revocations {
    grants: Marks<GrantId>,
    tokens: Marks<TokenId>,
    blocks: Marks<Vec<u8>>,
    delegates: Marks<(GrantId, HolderKey)>,
    workloads: Marks<SpiffeId>,
    tasks: Marks<TaskId>,
    prefixes: Marks<Resource>,
    keys: Marks<KeyId>,
    /// Each with its end: of a lock that was set anew, the last.
    locks: OrdMap<LockId, (Lock, Timestamp)>,
    /// All of it in the order in which it lapses; holds whatever is in a map above.
    lapses: OrdSet<(Timestamp, Seq, Kind)>,
    unknown: OrdSet<(Timestamp, Seq)>,
}

impl Revocations {
    /// Folds one more entry. Folding one twice, or older ones later, changes nothing that is
    /// revoked; only the lifting of a lock depends on the order.
    pub fn fold(&mut self, entry: &FeedEntry) {
        let FeedEntry { seq, lapses_at, kind } = entry;
        let mark = Mark { seq: *seq, lapses_at: *lapses_at };
        match kind {
            Kind::Revoked(Target::Grant(id)) => put(&mut self.grants, id, mark),
            Kind::Revoked(Target::Token(id)) => put(&mut self.tokens, id, mark),
            Kind::Revoked(Target::Block(id)) => put(&mut self.blocks, id, mark),
            Kind::Revoked(Target::Delegate(grant, key)) => {
                put(&mut self.delegates, &(*grant, *key), mark);
            }
            Kind::Revoked(Target::Workload(id)) => put(&mut self.workloads, id, mark),
            Kind::Revoked(Target::Task(id)) => put(&mut self.tasks, id, mark),
            Kind::Revoked(Target::Prefix(id)) => put(&mut self.prefixes, id, mark),
            Kind::Revoked(Target::Key(id)) => put(&mut self.keys, id, mark),
            Kind::Locked(lock) => {
                self.locks.insert(lock.id, (lock.clone(), *lapses_at));
            }
            Kind::Unlocked(id) => {
                self.locks.remove(id);
            }
            Kind::Unknown => {
                self.unknown.insert((*lapses_at, *seq));
            }
        }
        self.lapses.insert((*lapses_at, *seq, kind.clone()));
    }

    /// Drops what has lapsed by `time`, which is never later than the signed time of a head: a jump
    /// of this machine's clock, forwards and back, would otherwise make forget.
    pub fn prune(&mut self, time: Timestamp) {
        while let Some((lapses_at, seq, kind)) = self.lapses.get_min().cloned() {
            if lapses_at > time {
                return;
            }
            self.lapses.remove_min();
            match kind {
                Kind::Revoked(Target::Grant(id)) => lapse(&mut self.grants, &id, time),
                Kind::Revoked(Target::Token(id)) => lapse(&mut self.tokens, &id, time),
                Kind::Revoked(Target::Block(id)) => lapse(&mut self.blocks, &id, time),
                Kind::Revoked(Target::Delegate(grant, key)) => {
                    lapse(&mut self.delegates, &(grant, key), time);
                }
                Kind::Revoked(Target::Workload(id)) => lapse(&mut self.workloads, &id, time),
                Kind::Revoked(Target::Task(id)) => lapse(&mut self.tasks, &id, time),
                Kind::Revoked(Target::Prefix(id)) => lapse(&mut self.prefixes, &id, time),
                Kind::Revoked(Target::Key(id)) => lapse(&mut self.keys, &id, time),
                Kind::Locked(lock) => {
                    // It may have been set anew, with a later end.
                    if self.locks.get(&lock.id).is_some_and(|(_, end)| *end <= time) {
                        self.locks.remove(&lock.id);
                    }
                }
                Kind::Unlocked(_) => {}
                Kind::Unknown => {
                    self.unknown.remove(&(lapses_at, seq));
                }
            }
        }
    }

    /// These with what `before` knew and these lack. Locks are left out, since these may have lost
    /// them by their lifting. `same_epoch` says whether places in the log compare: if not, what a
    /// place decides is left out too, since no token of another epoch is accepted at all.
    pub fn keep(&mut self, before: &Self, same_epoch: bool) {
        for (lapses_at, seq, kind) in &before.lapses {
            let keeps = match kind {
                Kind::Revoked(Target::Workload(_) | Target::Task(_) | Target::Prefix(_)) => {
                    same_epoch
                }
                Kind::Revoked(
                    Target::Grant(_)
                    | Target::Token(_)
                    | Target::Block(_)
                    | Target::Delegate(..)
                    | Target::Key(_),
                )
                | Kind::Unknown => true,
                Kind::Locked(_) | Kind::Unlocked(_) => false,
            };
            if keeps {
                self.fold(&FeedEntry { seq: *seq, lapses_at: *lapses_at, kind: kind.clone() });
            }
        }
    }

    /// Whether ids that nobody vouches for yet are revoked: a cheap no, before any signature.
    #[must_use]
    pub fn revoked_unverified(&self, content: &Content) -> Option<Revoked> {
        let Claims { grant, token, .. } = &content.claims;
        if !self.unknown.is_empty() {
            return Some(Revoked::UnknownEntry);
        }
        if self.grants.contains_key(grant) {
            return Some(Revoked::Grant);
        }
        if self.tokens.contains_key(token) {
            return Some(Revoked::Token);
        }
        let revoked = |block: &BlockId| self.blocks.contains_key(block.0.as_slice());
        let any = !self.blocks.is_empty() && content.block_ids().any(revoked);
        any.then_some(Revoked::Block)
    }

    /// Whether a token is revoked, by content that its signatures vouch for.
    #[must_use]
    pub fn revoked(&self, content: &Content) -> Option<Revoked> {
        let Content { claims, record, .. } = content;
        if self.key_killed(claims.key) {
            return Some(Revoked::Key);
        }
        if let Some(revoked) = self.revoked_unverified(content) {
            return Some(revoked);
        }
        let delegated = |key: &HolderKey| self.delegates.contains_key(&(claims.grant, *key));
        if !self.delegates.is_empty() && content.delegates().any(delegated) {
            return Some(Revoked::Delegate);
        }
        let earlier = |mark: &Mark| record.seq < mark.seq;
        if self.workloads.get(&claims.subject).is_some_and(earlier) {
            return Some(Revoked::Workload);
        }
        if self.tasks.get(&claims.task).is_some_and(earlier) {
            return Some(Revoked::Task);
        }
        let reached = |(prefix, mark): (&Resource, &Mark)| {
            earlier(mark) && claims.scope.rights().any(|r| reaches(&r.resource, prefix))
        };
        self.prefixes.iter().any(reached).then_some(Revoked::Prefix)
    }

    /// Whether the feed killed this key.
    #[must_use]
    pub fn key_killed(&self, key: KeyId) -> bool {
        self.keys.contains_key(&key)
    }

    /// The first lock that refuses a use of `resource` under `claims`, whenever it was recorded.
    #[must_use]
    pub fn locked(&self, claims: &Claims, resource: &Resource) -> Option<LockId> {
        let matches = |(lock, _): &&(Lock, Timestamp)| {
            let Lock { id: _, workload, task, prefix, person } = lock;
            workload.as_ref().is_none_or(|id| *id == claims.subject)
                && task.as_ref().is_none_or(|id| *id == claims.task)
                && prefix.as_ref().is_none_or(|base| resource.is_at_or_below(base))
                && person.as_ref().is_none_or(|id| Some(id) == claims.principal.as_ref())
        };
        self.locks.values().find(matches).map(|(lock, _)| lock.id)
    }

    /// How many entries are in force.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lapses.len()
    }

    /// Whether nothing is in force.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lapses.is_empty()
    }
}

/// Whether a right to `pattern` reaches `prefix` or something below it.
fn reaches(pattern: &ResourcePattern, prefix: &Resource) -> bool {
    let base = pattern.base();
    let above = matches!(pattern, ResourcePattern::Below(_)) && prefix.is_at_or_below(base);
    base.is_at_or_below(prefix) || above
}

/// The later place and the later lapse count: neither an older entry nor a shorter one takes away.
fn put<K: Ord + Clone>(marks: &mut Marks<K>, key: &K, mark: Mark) {
    let mark = marks.get(key).map_or(mark, |old| Mark {
        seq: old.seq.max(mark.seq),
        lapses_at: old.lapses_at.max(mark.lapses_at),
    });
    marks.insert(key.clone(), mark);
}

fn lapse<K: Ord + Clone>(marks: &mut Marks<K>, key: &K, time: Timestamp) {
    if marks.get(key).is_some_and(|mark| mark.lapses_at <= time) {
        marks.remove(key);
    }
}

#[cfg(test)]
#[cfg(feature = "issue")]
mod tests;
