//! What to believe of what a broker says: a state machine without I/O, clock or randomness.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::entry::{fold_hash, snapshot_digest};
use super::head::{Head, SignedHead};
use super::mark::{End, Mark};
use super::profile::{Profile, Source};
use super::refused::Refused;
use super::view::{GatewayView, News};
use crate::id::Seq;
use crate::revocations::{FeedEntry, Revocations};
use crate::time::Timestamp;
use crate::trust::{Signed, Trusted, Untrusted};

/// How far a head's time may lie ahead of this machine's.
const AHEAD: Duration = Duration::from_secs(2);
/// The most bytes that it may take to keep the entries of a snapshot.
const MAX_SNAPSHOT_BYTES: usize = 256 * 1024 * 1024;
/// What it takes to keep an entry, on top of its own bytes.
const KEEPING_BYTES: usize = 64;
/// The most challenges that are kept while none is echoed.
const MAX_CHALLENGES: usize = 16;

/// A challenge: random bytes whose echo shows that a heartbeat was made after they were sent.
pub type Challenge = [u8; 16];

/// A message of the feed. `entries` are bytes of [`FeedEntry`]s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<B> {
    /// All that is in force, or a part of it: the last part has the head.
    Snapshot(Vec<B>, Option<SignedHead>),
    /// What came after the head before.
    Delta(Vec<B>, SignedHead),
    /// The head was confirmed, after this challenge was received.
    Heartbeat(SignedHead, Vec<u8>),
}

/// What the next subscription asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wants {
    /// The head of the high-water mark: the broker's log must have it.
    pub last: Option<SignedHead>,
    /// The entries up to there are not held: everything is to be told.
    pub snapshot: bool,
}

/// Follows one feed, over reconnects and restarts.
#[derive(Debug)]
pub struct Follower {
    profile: Profile,
    trust: Option<Arc<Trusted>>,
    mark: Mark,
    revocations: Revocations,
    /// Counts the changes of what is trusted or revoked.
    generation: u64,
    /// What the last of them did.
    news: Option<News>,
    /// The head up to which `revocations` is complete; `None` until there is one.
    held: Option<SignedHead>,
    /// A delta did not do: the next subscription asks for everything.
    wants_snapshot: bool,
    /// The stream was asked for what follows on what is held, and has not answered yet.
    resumes: bool,
    fresh_until: Option<Duration>,
    parts: Vec<Vec<u8>>,
    parts_size: usize,
    challenges: VecDeque<(Challenge, Duration)>,
}

impl Follower {
    /// Starts where `mark` left off, denying until the first complete snapshot.
    #[must_use]
    pub fn new(profile: Profile, mark: Option<Mark>) -> Self {
        Self {
            profile,
            trust: None,
            mark: mark.unwrap_or_default(),
            revocations: Revocations::default(),
            generation: 0,
            news: None,
            held: None,
            wants_snapshot: false,
            resumes: false,
            fresh_until: None,
            parts: Vec::new(),
            parts_size: 0,
            challenges: VecDeque::new(),
        }
    }

    /// Takes a trust statement. `true` if it is a newer one than was known. One that names another
    /// epoch denies until the first snapshot of that.
    pub fn trust(&mut self, signed: &Signed) -> Result<bool, Untrusted> {
        let next = signed.verify(&self.profile.root)?;
        if next.version < self.mark.trust {
            return Err(Untrusted::Older { given: next.version, known: self.mark.trust });
        }
        if let Some(known) = &self.trust {
            known.statement().admits(&next)?;
            if *known.statement() == next {
                return Ok(false);
            }
        }
        let place = |known: &Arc<Trusted>| (known.statement().feed, known.statement().epoch);
        if self.trust.as_ref().map(place) != Some((next.feed, next.epoch)) {
            self.drop_held();
        }
        self.mark.trust = next.version;
        self.trust = Some(Arc::new(Trusted::new(next)));
        self.changed(None);
        Ok(true)
    }

    /// A stream begins: what was sent in parts by the one before is forgotten, and so are its
    /// challenges.
    pub fn subscribe(&mut self) -> Wants {
        self.take_parts();
        self.challenges.clear();
        let snapshot = self.held.is_none() || self.wants_snapshot;
        self.resumes = !snapshot && self.mark.head.is_some();
        Wants { last: self.mark.head.clone(), snapshot }
    }

    /// What came could not be read: the next subscription asks for everything.
    pub const fn ask_for_all(&mut self) {
        self.wants_snapshot = true;
    }

    /// A challenge is being sent at `uptime`.
    pub fn challenge(&mut self, challenge: Challenge, uptime: Duration) {
        if self.challenges.len() >= MAX_CHALLENGES {
            self.challenges.pop_front();
        }
        self.challenges.push_back((challenge, uptime));
    }

    /// Takes a message. `true` if a head was adopted: publish [`Follower::view`], keep
    /// [`Follower::mark`], then acknowledge [`Follower::enforced`]. What is refused may change
    /// both, too.
    pub fn receive<B: AsRef<[u8]>>(
        &mut self,
        message: &Message<B>,
        now: Timestamp,
        uptime: Duration,
    ) -> Result<bool, Refused> {
        let resumes = std::mem::take(&mut self.resumes);
        let taken = match message {
            Message::Snapshot(entries, head) => self.snapshot(entries, head.as_ref(), now),
            Message::Delta(entries, head) => self.delta(entries, head, now).map(Some),
            Message::Heartbeat(head, echo) => self
                .heartbeat(head, now)
                .inspect(|head| {
                    self.hear_echo(echo, head, now);
                })
                .map(Some),
        };
        match taken {
            Ok(None) => Ok(false),
            Ok(Some(head)) => {
                self.hear_time(&head, now, uptime);
                Ok(true)
            }
            Err(refused) => {
                // What follows on the mark in this log is not what follows on it in that one. A
                // relay may as well have lost something.
                let answered = resumes && self.profile.source == Source::Direct;
                let another = answered && refused == Refused::Gap;
                let refused = if another { Refused::Beside } else { refused };
                if refused == Refused::Beside {
                    self.mark.forked = self.trust.as_ref().map(|trust| trust.statement().epoch);
                }
                self.take_parts();
                self.wants_snapshot = true;
                if matches!(refused, Refused::Behind | Refused::Beside | Refused::Gap) {
                    self.drop_held();
                }
                Err(refused)
            }
        }
    }

    /// What may be believed now; `None` before there is a trust statement.
    #[must_use]
    pub fn view(&self) -> Option<GatewayView> {
        Some(GatewayView {
            trust: Arc::clone(self.trust.as_ref()?),
            revocations: self.revocations.clone(),
            generation: self.generation,
            news: self.news.clone(),
            seq: self.enforced(),
            fresh_until: self.fresh_until(),
            bounds: self.profile.bounds.clone(),
            best_effort: self.profile.best_effort,
        })
    }

    /// The place up to which everything is known; 0 while nothing is held.
    #[must_use]
    pub fn enforced(&self) -> Seq {
        let end = self.mark.end.filter(|_| self.held.is_some());
        end.map_or(Seq(0), |end| end.seq)
    }

    /// Whether everything up to the mark is held.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// Whether it is, and everything is neither asked for anew nor being told anew.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.held.is_some() && !self.wants_snapshot && self.parts.is_empty()
    }

    /// Until when what is held counts as fresh; `None` while nothing does.
    #[must_use]
    pub fn fresh_until(&self) -> Option<Duration> {
        self.held.as_ref().and(self.fresh_until)
    }

    /// Whether the trust statement names another epoch than the mark's: what was adopted so far
    /// does not count there.
    #[must_use]
    pub fn enters_epoch(&self) -> bool {
        let (end, trust) = (self.mark.end, self.trust.as_ref());
        end.zip(trust).is_some_and(|(end, known)| end.epoch != known.statement().epoch)
    }

    /// What is to be remembered over a restart.
    #[must_use]
    pub const fn mark(&self) -> &Mark {
        &self.mark
    }

    fn snapshot<B: AsRef<[u8]>>(
        &mut self,
        entries: &[B],
        signed: Option<&SignedHead>,
        now: Timestamp,
    ) -> Result<Option<Head>, Refused> {
        for entry in entries.iter().map(AsRef::as_ref) {
            if entry.is_empty() {
                return Err(Refused::Malformed);
            }
            let size = entry.len().saturating_add(KEEPING_BYTES);
            self.parts_size = self.parts_size.saturating_add(size);
            if self.parts_size > MAX_SNAPSHOT_BYTES {
                return Err(Refused::TooLarge);
            }
            self.parts.push(entry.to_vec());
        }
        let Some(signed) = signed else { return Ok(None) };
        let parts = self.take_parts();
        let head = self.verify(signed, now)?;
        if head.snapshot != Some(snapshot_digest(parts.iter().map(Vec::as_slice))) {
            return Err(Refused::SnapshotDigest);
        }
        let mut revocations = Revocations::default();
        for entry in read(&parts, Seq(0), head.seq)? {
            revocations.fold(&entry);
        }
        let same_epoch = self.mark.end.is_some_and(|end| end.epoch == head.epoch);
        revocations.keep(&self.revocations, same_epoch);
        self.revocations = revocations;
        self.changed(None);
        self.adopt(&head, signed, now);
        Ok(Some(head))
    }

    fn delta<B: AsRef<[u8]>>(
        &mut self,
        entries: &[B],
        signed: &SignedHead,
        now: Timestamp,
    ) -> Result<Head, Refused> {
        let head = self.verify(signed, now)?;
        let end = self.end()?;
        let hash = entries.iter().fold(end.hash, |hash, entry| fold_hash(&hash, entry.as_ref()));
        let repeated = head.seq == end.seq;
        if !repeated {
            if hash != head.hash {
                return Err(Refused::Gap);
            }
            let entries = read(entries, end.seq, head.seq)?;
            entries.iter().for_each(|entry| self.revocations.fold(entry));
            if !entries.is_empty() {
                self.changed(entries.iter().map(|entry| entry.kind.grant()).collect());
            }
        }
        self.adopt(&head, signed, now);
        Ok(head)
    }

    fn heartbeat(&mut self, signed: &SignedHead, now: Timestamp) -> Result<Head, Refused> {
        let head = self.verify(signed, now)?;
        if self.end()?.hash != head.hash {
            return Err(Refused::Gap);
        }
        self.adopt(&head, signed, now);
        Ok(head)
    }

    /// The head, if it may be believed and does not go back.
    fn verify(&self, signed: &SignedHead, now: Timestamp) -> Result<Head, Refused> {
        let trust = self.trust.as_ref().ok_or(Refused::NoTrust)?;
        let head = signed.verify(|key| trust.feed_key(key, now).copied());
        let trust = trust.statement();
        let head = head.ok_or(Refused::Unsigned)?;
        if head.feed != trust.feed {
            return Err(Refused::OtherFeed);
        }
        if head.epoch != trust.epoch {
            return Err(Refused::OtherEpoch);
        }
        if self.mark.forked == Some(head.epoch) {
            return Err(Refused::Beside);
        }
        let same = |end: &End| end.feed == head.feed && end.epoch == head.epoch;
        if let Some(end) = self.mark.end.filter(same) {
            if head.seq < end.seq {
                return Err(Refused::Behind);
            }
            if head.seq == end.seq && (head.journal != end.journal || head.hash != end.hash) {
                return Err(Refused::Beside);
            }
        }
        Ok(head)
    }

    /// The end to which a delta or a heartbeat adds.
    fn end(&self) -> Result<End, Refused> {
        self.held.as_ref().and(self.mark.end).ok_or(Refused::NoSnapshot)
    }

    fn adopt(&mut self, head: &Head, signed: &SignedHead, now: Timestamp) {
        let Head { feed, epoch, seq, journal, hash, time, key: _, snapshot: _ } = *head;
        let end = Some(End { feed, epoch, seq, journal, hash });
        // The time alone is not worth a write.
        if self.mark.end != end || self.mark.head.is_none() {
            self.mark.head = Some(signed.clone());
        }
        self.mark.end = end;
        self.held = Some(signed.clone());
        self.wants_snapshot = false;
        // Neither a head from the future nor a jump of this clock makes forget by itself.
        self.revocations.prune(time.min(now));
    }

    fn hear_echo(&mut self, echo: &[u8], head: &Head, now: Timestamp) {
        let place = self.challenges.iter().position(|(sent, _)| sent.as_slice() == echo);
        let Some(place) = place.filter(|_| self.profile.source == Source::Direct) else { return };
        let sent_at = self.challenges.drain(..=place).next_back().map(|(_, sent_at)| sent_at);
        if head.time <= now.plus(AHEAD) {
            let until = sent_at.map(|at| at.saturating_add(self.profile.bounds.all));
            self.fresh_until = self.fresh_until.max(until);
        }
    }

    fn hear_time(&mut self, head: &Head, now: Timestamp, uptime: Duration) {
        if self.profile.source == Source::Relayed && head.time <= now.plus(AHEAD) {
            let left = self.profile.bounds.all.checked_sub(now.since(head.time));
            let until = left.map(|left| uptime.saturating_add(left));
            self.fresh_until = self.fresh_until.max(until);
        }
    }

    fn take_parts(&mut self) -> Vec<Vec<u8>> {
        self.parts_size = 0;
        std::mem::take(&mut self.parts)
    }

    fn drop_held(&mut self) {
        self.held = None;
        self.fresh_until = None;
    }

    fn changed(&mut self, news: Option<News>) {
        self.generation = self.generation.wrapping_add(1);
        self.news = news;
    }
}

/// The entries, each after the one before, the first after `after` and the last not after `last`.
fn read<B: AsRef<[u8]>>(entries: &[B], after: Seq, last: Seq) -> Result<Vec<FeedEntry>, Refused> {
    let mut before = after;
    let mut read = Vec::with_capacity(entries.len());
    for bytes in entries {
        let entry = FeedEntry::from_bytes(bytes.as_ref()).map_err(|_| Refused::Malformed)?;
        if entry.seq <= before || entry.seq > last {
            return Err(Refused::Malformed);
        }
        before = entry.seq;
        read.push(entry);
    }
    Ok(read)
}
