//! What a decision, and a durable exchange, cost while many grants of others are live: no more
//! than while few are.

use std::path::Path;
use std::time::Duration;

use dayfly_broker::config::Config;
use dayfly_broker::core::command::{Caller, Command, Exchange, Filing};
use dayfly_broker::core::decide::decide;
use dayfly_broker::core::event::{Actor, Entry, Event, Head};
use dayfly_broker::core::state::State;
use dayfly_broker::core::verdict::{Outcome as Answer, Verdict};
use dayfly_broker::journal::{Journal as _, JournalError, Replay, Sqlite, StoredEntry};
use dayfly_broker::random::{Random as _, SystemRandom};
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::{ExchangeId, GrantId, RequestId};
use dayfly_verifier::request::{ConfirmBy, Requirement};
use dayfly_verifier::time::{Clock as _, SystemClock, Timestamp};
use ed25519_dalek::SigningKey;
use tokio::time::Instant;

use super::start;
use super::world::{DOMAIN, Outcome, World, at, figure, run, scope};

/// How many are live, and how that is written.
const SIZES: [(u32, &str); 3] = [(1_000, "10^3"), (100_000, "10^5"), (1_000_000, "10^6")];
/// How often each is done at most: a broker remembers so many requests of one workload.
const MOST_ROUNDS: u32 = 1_000;
const BATCH: usize = 4096;
/// How many of them come after the snapshot: one in so many, and at most so many.
const TAIL: (u32, u32) = (10, 5_000);
const LEASE: Duration = Duration::from_secs(3600);

/// Prints the figures, with the ratio to that of the first size; at most `most` are live, and each
/// thing is done so many `rounds`, within bounds.
pub(crate) async fn measure(dir: &Path, most: u32, rounds: u32) -> Outcome<()> {
    let (mut first, rounds) = (None, rounds.min(MOST_ROUNDS));
    for (count, name) in SIZES.into_iter().filter(|(count, _)| *count <= most) {
        let dir = dir.join(name);
        std::fs::create_dir(&dir)?;
        let config = World::found(&dir).await?;
        let decided = crowd(&config, count, rounds).await?;
        start::measure(&config, count, name).await?;

        let world = World::open(&dir, config, 1).await?;
        let tickets = world.granted(usize::try_from(rounds)?).await?;
        let sessions = world.sessions().await?;
        let (exchanged, _) = run(&sessions, world.calls(&tickets)?, 1).await?;
        let exchanged = at(&exchanged, 50);
        world.close().await?;

        let (decided_first, exchanged_first) = *first.get_or_insert((decided, exchanged));
        figure(&format!("decide_at_{name}"), decided, "us", decided / decided_first);
        figure(&format!("exchange_at_{name}"), exchanged, "us", exchanged / exchanged_first);
    }
    Ok(())
}

/// Puts `count` live grants, each of a workload of its own and with a token, into a journal that
/// was founded, with a snapshot of most of them. Says what deciding takes then, in microseconds, of
/// so many `rounds`.
async fn crowd(config: &Config, count: u32, rounds: u32) -> Outcome<f64> {
    let store = Sqlite::open(&config.journal())?;
    let mut replay = Replay::from(State::default());
    for stored in store.read(&Head::ORIGIN, usize::MAX).await? {
        replay.push_stored(&stored)?;
    }
    let (mut state, asks) = (replay.into_state(), Asks::new()?);
    let (mut after, mut waiting) = (state.head, Vec::with_capacity(BATCH));
    let snapshot_at = count.saturating_sub(count.div_ceil(TAIL.0).min(TAIL.1));
    for n in 0..count {
        if n == snapshot_at {
            waiting.push(start::keep(&store, &mut state)?);
        }
        let (caller, now) = (caller(n)?, SystemClock.now().max(state.time));
        let (filing, filed) = asks.file(&state, &caller, now)?;
        record(&mut state, filed, now, &mut waiting)?;
        let exchanged = asks.exchange(&state, &caller, filing, now)?;
        record(&mut state, exchanged, now, &mut waiting)?;
        if waiting.len() >= BATCH || n.saturating_add(1) == count {
            append(&store, &after, &waiting).await?;
            after = state.head;
            waiting.clear();
        }
    }
    asks.decisions(&state, count, rounds)
}

/// Folds what was decided, and adds it to what waits to be appended.
fn record(
    state: &mut State,
    (by, events): Decided,
    at: Timestamp,
    waiting: &mut Vec<StoredEntry>,
) -> Outcome<()> {
    for event in events {
        let entry = Entry { by: by.clone(), at, policy: state.bundle, event };
        let stored = StoredEntry::after(&state.head, &entry)?;
        state.apply(*stored.head(), &entry)?;
        waiting.push(stored);
    }
    Ok(())
}

/// Appends; more comes at once here than most disks can fold back beside it, and then the store has
/// the writer wait, and changes nothing.
async fn append(store: &Sqlite, after: &Head, entries: &[StoredEntry]) -> Outcome<()> {
    let began = Instant::now();
    loop {
        match store.append(after, entries).await {
            Err(JournalError::Unavailable(_)) if began.elapsed() < start::PATIENCE => {}
            done => return Ok(done.map(drop)?),
        }
    }
}

/// Each number is a workload.
fn caller(n: u32) -> Outcome<Caller> {
    let until = SystemClock.now().plus(LEASE);
    Ok(Caller { id: format!("spiffe://{DOMAIN}/agent/n{n}").parse()?, until })
}

/// What a command makes happen, and by whom.
type Decided = (Actor, Vec<Event>);

/// What all of them ask for, each for a task of its own.
struct Asks {
    filing: Filing,
    required: Requirement,
}

impl Asks {
    fn new() -> Outcome<Self> {
        let holder = SigningKey::from_bytes(&[7; 32]).verifying_key();
        let filing = Filing {
            id: RequestId::draw(SystemClock.now(), random()),
            principal: None,
            holder_key: HolderKey::from_slice(holder.as_bytes())?,
            confirmation: ConfirmBy::Key,
            audience: format!("spiffe://{DOMAIN}/gateway/files").parse()?,
            scope: scope()?,
            task: "bench".parse()?,
            purpose: "work".parse()?,
            lifetime: Some(LEASE),
            uses: None,
            default_uses: None,
            justification: None,
        };
        let required = Requirement {
            approvals: [].into(),
            max_lifetime: LEASE,
            max_uses: None,
            online: false,
            evidence: false,
            presence: false,
        };
        Ok(Self { filing, required })
    }

    /// What comes of a new request.
    fn file(&self, state: &State, caller: &Caller, now: Timestamp) -> Outcome<(Filing, Decided)> {
        let id = RequestId::draw(now, random());
        let filing = Filing { id, task: id.to_string().parse()?, ..self.filing.clone() };
        let verdict = self.permitted(state, caller, &filing, None, now)?;
        let decided = decide(state, &Command::File(filing.clone(), verdict), caller, now)?;
        Ok((filing, decided))
    }

    fn permitted(
        &self,
        state: &State,
        caller: &Caller,
        filing: &Filing,
        but: Option<&GrantId>,
        now: Timestamp,
    ) -> Outcome<Verdict> {
        let basis = state.basis(&caller.id, &filing.task, but, now).ok_or("no bundle")?;
        Ok(Verdict { basis, outcome: Answer::Permitted(self.required.clone()) })
    }

    /// What comes of exchanging what came of `filing`.
    fn exchange(
        &self,
        state: &State,
        caller: &Caller,
        filing: Filing,
        now: Timestamp,
    ) -> Outcome<Decided> {
        let (key, listed) = state.keys.iter().next().ok_or("there is no signing key")?;
        let signing_key = (*key, listed.not_after);
        let grant = GrantId::derive(&state.head.epoch, &caller.id, &filing.id);
        let verdict = self.permitted(state, caller, &filing, Some(&grant), now)?;
        let Filing { id: request, holder_key, .. } = filing;
        let id = ExchangeId::draw(now, random());
        let exchange = Exchange { request, id, holder_key, signing_key };
        Ok(decide(state, &Command::Exchange(exchange, verdict), caller, now)?)
    }

    /// What it takes to file, to be granted and to exchange, in microseconds: decided, and folded
    /// into a clone of the state, as the sequencer does. The median of so many `rounds`.
    fn decisions(&self, state: &State, from: u32, rounds: u32) -> Outcome<f64> {
        let now = SystemClock.now().max(state.time);
        let mut took = Vec::with_capacity(usize::try_from(rounds)?);
        for n in 0..rounds {
            let (caller, began) = (caller(from.saturating_add(n))?, Instant::now());
            let mut state = state.clone();
            let (filing, decided) = self.file(&state, &caller, now)?;
            fold(&mut state, decided, now)?;
            let decided = self.exchange(&state, &caller, filing, now)?;
            fold(&mut state, decided, now)?;
            drop(state);
            took.push(began.elapsed());
        }
        took.sort_unstable();
        Ok(at(&took, 50))
    }
}

/// Folds what was decided. What the entries hash to is no part of deciding.
fn fold(state: &mut State, (by, events): Decided, at: Timestamp) -> Outcome<()> {
    for event in events {
        let entry = Entry { by: by.clone(), at, policy: state.bundle, event };
        state.apply(Head { seq: state.head.seq.next(), ..state.head }, &entry)?;
    }
    Ok(())
}

fn random() -> [u8; 10] {
    let mut bytes = [0; 10];
    SystemRandom.fill(&mut bytes);
    bytes
}
