//! What was done with tokens, counted: one line for each grant, token, operation and outcome.
//!
//! A gateway counts every decision in [`Uses`], which never waits and holds a bounded number of
//! lines, and hands the counts to its broker in sealed batches ([`Batch`]). Nothing here holds a
//! token, an argument or a resource: counts are for the record, and the record is for ever.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::id::{BatchDigest, GrantId, InstanceId, ReasonCode, TokenId};
use crate::resource::Operation;
use crate::spiffe::SpiffeId;
use crate::time::{Clock, Timestamp};

/// The most lines that one batch has.
pub const MAX_BATCH_LINES: usize = 256;
/// How many different lines are counted at once, unless it is set otherwise.
const MAX_LINES: usize = 4096;
/// What distinguishes this hash from every other one that Dayfly computes.
const DOMAIN: &[u8] = b"dayfly.uses.v1\0";

/// What became of one use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seen {
    /// It was allowed.
    Allowed,
    /// It was refused, for this reason: [`crate::reject::Reject::code`].
    Refused(ReasonCode),
    /// It would have been refused, by a gateway that only observes.
    LetPass(ReasonCode),
    /// It was allowed, and ended while it ran.
    Cut(ReasonCode),
}

impl Seen {
    /// Why it was refused, would have been, or ended; nothing where it was allowed.
    #[must_use]
    pub const fn reason(&self) -> Option<&ReasonCode> {
        match self {
            Self::Allowed => None,
            Self::Refused(reason) | Self::LetPass(reason) | Self::Cut(reason) => Some(reason),
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused(_) => "refused",
            Self::LetPass(_) => "let_pass",
            Self::Cut(_) => "cut",
        }
    }
}

/// `allowed`, `refused: expired`.
impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name().replace('_', " ");
        match self.reason() {
            None => f.write_str(&name),
            Some(reason) => write!(f, "{name}: {reason}"),
        }
    }
}

/// The grant and the token of a use, as good signatures name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct About {
    /// The grant.
    pub grant: GrantId,
    /// Its token.
    pub token: TokenId,
}

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line {
    /// What was used; `None` where nobody vouches for any token.
    pub about: Option<About>,
    /// What was to be done; `None` where the request has no meaning.
    pub operation: Option<Operation>,
    /// What became of it.
    pub seen: Seen,
}

impl Line {
    fn is_refusal(&self) -> bool {
        matches!(self.seen, Seen::Refused(_))
    }
}

/// Counts that a gateway reports together, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The process that counted.
    pub instance: InstanceId,
    /// Which of its batches this is: 1 for the first, each time one more.
    pub number: u64,
    /// When the first of the uses was, by the gateway's clock.
    pub from: Timestamp,
    /// When it was sealed, by the same clock.
    pub until: Timestamp,
    /// How many uses there were of each line, each at least one, each line once, in order.
    pub counts: Vec<(Line, u64)>,
    /// How many more there were that were not told apart: the gateway ran out of lines, or could
    /// not deliver them.
    pub missed: u64,
}

impl Batch {
    /// The seal: what a gateway logs when it hands the batch over, and the record keeps. SHA-256
    /// over a domain tag and the parts, each behind its length as eight big-endian bytes.
    #[must_use]
    pub fn digest(&self, gateway: &SpiffeId) -> BatchDigest {
        let Self { instance, number, from, until, counts, missed } = self;
        let mut hash = Sha256::new();
        let mut add = |part: &[u8]| {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        };
        add(DOMAIN);
        add(gateway.as_str().as_bytes());
        add(instance.as_str().as_bytes());
        for count in [*number, from.as_ms(), until.as_ms(), *missed] {
            add(&count.to_be_bytes());
        }
        for (Line { about, operation, seen }, count) in counts {
            let (grant, token) = match about {
                Some(About { grant, token }) => (&grant.as_bytes()[..], &token.as_bytes()[..]),
                None => Default::default(),
            };
            add(grant);
            add(token);
            add(operation.as_ref().map_or("", Operation::as_str).as_bytes());
            add(seen.name().as_bytes());
            add(seen.reason().map_or("", ReasonCode::as_str).as_bytes());
            add(&count.to_be_bytes());
        }
        BatchDigest::new(hash.finalize().into())
    }

    /// All uses of the batch, told apart or not.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(self.missed, |sum, (_, count)| sum.saturating_add(*count))
    }
}

/// Counts uses until they are reported. Shared by all threads of a gateway.
pub struct Uses {
    clock: Arc<dyn Clock>,
    lines: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// When the first of them was.
    since: Option<Timestamp>,
    counts: BTreeMap<Line, u64>,
    /// How many of these lines are refusals.
    refusals: usize,
    missed: u64,
}

impl Uses {
    /// Counts up to 4096 different lines at once.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with_lines(clock, MAX_LINES)
    }

    /// Counts up to `lines` different lines at once, half of them of refusals; uses of further ones
    /// are only added up. Whoever has tokens, be they long expired, can be refused in as many ways
    /// as they like: that must not keep apart from the record what was allowed.
    #[must_use]
    pub fn with_lines(clock: Arc<dyn Clock>, lines: usize) -> Self {
        Self { clock, lines, open: Mutex::default() }
    }

    /// Counts one use. Never waits for anything but another count.
    pub fn count(&self, line: Line) {
        let now = self.clock.now();
        let mut open = self.lock();
        open.since.get_or_insert(now);
        let (refusal, half) = (line.is_refusal(), self.lines.div_ceil(2));
        let room = open.counts.len() < self.lines && !(refusal && open.refusals >= half);
        match open.counts.get_mut(&line) {
            Some(count) => *count = count.saturating_add(1),
            None if room => {
                open.counts.insert(line, 1);
                open.refusals = open.refusals.saturating_add(usize::from(refusal));
            }
            None => open.missed = open.missed.saturating_add(1),
        }
    }

    /// Adds up uses whose lines are lost: they were counted, and could not be delivered.
    pub fn miss(&self, count: u64) {
        let mut open = self.lock();
        open.missed = open.missed.saturating_add(count);
    }

    /// Takes out the next batch: `None` if there was no use.
    #[must_use]
    pub fn seal(&self, instance: &InstanceId, number: u64) -> Option<Batch> {
        let now = self.clock.now();
        let mut open = self.lock();
        if open.counts.is_empty() && open.missed == 0 {
            return None;
        }
        let from = open.since.unwrap_or(now).min(now);
        let counts: Vec<_> =
            std::iter::from_fn(|| open.counts.pop_first()).take(MAX_BATCH_LINES).collect();
        let refusals = counts.iter().filter(|(line, _)| line.is_refusal()).count();
        open.refusals = open.refusals.saturating_sub(refusals);
        let missed = std::mem::take(&mut open.missed);
        if open.counts.is_empty() {
            open.since = None;
        }
        Some(Batch { instance: instance.clone(), number, from, until: now, counts, missed })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        // A panic while it was held leaves it whole: every change is one step.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SystemClock;

    fn line(token: u8, seen: Seen) -> Line {
        let about = About { grant: GrantId::new([1; 16]), token: TokenId::new([token; 16]) };
        Line { about: Some(about), operation: Some("refund".parse().unwrap()), seen }
    }

    fn refused() -> Seen {
        Seen::Refused("expired".parse().unwrap())
    }

    fn uses(lines: usize) -> Uses {
        Uses::with_lines(Arc::new(SystemClock), lines)
    }

    fn sealed(uses: &Uses) -> Batch {
        uses.seal(&"one".parse().unwrap(), 1).unwrap()
    }

    #[test]
    fn what_has_no_room_is_added_up_and_nothing_is_counted_twice() {
        let uses = uses(2);
        assert_eq!(uses.seal(&"one".parse().unwrap(), 1), None);
        for seen in [Seen::Allowed, refused(), Seen::Allowed] {
            uses.count(line(1, seen));
        }
        (2..5).for_each(|token| uses.count(line(token, Seen::Allowed)));
        uses.miss(7);
        let batch = sealed(&uses);
        assert_eq!(batch.counts, [(line(1, Seen::Allowed), 2), (line(1, refused()), 1)]);
        assert_eq!((batch.missed, batch.total()), (10, 13));
        assert_eq!(uses.seal(&"one".parse().unwrap(), 2), None);
    }

    #[test]
    fn refusals_leave_room_for_what_is_allowed() {
        let uses = uses(8);
        for token in 0..100 {
            uses.count(line(token, refused()));
        }
        uses.count(line(7, Seen::Allowed));
        let batch = sealed(&uses);
        assert_eq!(batch.counts.len(), 5);
        assert!(batch.counts.contains(&(line(7, Seen::Allowed), 1)));
        assert_eq!((batch.missed, batch.total()), (96, 101));
        // With them went their room.
        (0..100).for_each(|token| uses.count(line(token, refused())));
        let batch = sealed(&uses);
        assert_eq!((batch.counts.len(), batch.missed), (4, 96));
    }

    #[test]
    fn a_batch_is_bounded_and_the_rest_is_in_the_next_one() {
        let uses = uses(MAX_LINES);
        for token in 0..=255 {
            uses.count(line(token, Seen::Allowed));
            uses.count(line(token, refused()));
        }
        let batches = [sealed(&uses), sealed(&uses)];
        assert!(batches.iter().all(|batch| batch.counts.len() == MAX_BATCH_LINES));
        assert_eq!(batches.iter().map(Batch::total).sum::<u64>(), 512);
        assert_eq!(uses.seal(&"one".parse().unwrap(), 3), None);
    }

    #[test]
    fn the_seal_is_the_published_one() {
        let unnamed =
            Line { about: None, operation: None, seen: Seen::Refused("no_token".parse().unwrap()) };
        let batch = Batch {
            instance: "one".parse().unwrap(),
            number: 1,
            from: Timestamp::from_ms(1_000).unwrap(),
            until: Timestamp::from_ms(2_000).unwrap(),
            counts: vec![(unnamed, 5), (line(2, Seen::Allowed), 2), (line(2, refused()), 1)],
            missed: 3,
        };
        // Computed by hand from FORMAT.md, with another implementation of SHA-256.
        let published = "b7b3d437eaeb7d01f5d63f2ed074239011db960353f5a15ea9975dd25b5474f6";
        let seal = batch.digest(&"spiffe://shop.test/gateway/orders".parse().unwrap());
        assert_eq!(hex::encode(seal.as_bytes()), published);
        assert!(batch.counts.is_sorted(), "in the order of the format");
    }

    #[test]
    fn any_change_of_a_batch_changes_its_seal() {
        let gateway: SpiffeId = "spiffe://shop.test/gateway/orders".parse().unwrap();
        let uses = uses(8);
        uses.count(line(1, refused()));
        let batch = sealed(&uses);
        let changes: [fn(&mut Batch); 9] = [
            |b| b.instance = "two".parse().unwrap(),
            |b| b.number = 2,
            |b| b.from = b.from.plus(std::time::Duration::from_millis(1)),
            |b| b.until = b.until.plus(std::time::Duration::from_millis(1)),
            |b| b.missed = 1,
            |b| b.counts[0].1 = 2,
            |b| b.counts[0].0.about = None,
            |b| b.counts[0].0.operation = None,
            |b| b.counts[0].0.seen = Seen::LetPass("expired".parse().unwrap()),
        ];
        let mut seals = std::collections::BTreeSet::from([batch.digest(&gateway)]);
        for change in changes {
            let mut other = batch.clone();
            change(&mut other);
            assert!(seals.insert(other.digest(&gateway)), "{other:?}");
        }
        assert!(seals.insert(batch.digest(&"spiffe://shop.test/gateway/mail".parse().unwrap())));
    }
}
