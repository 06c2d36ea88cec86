//! Random histories of several brokers over one log, with faults, crashes and retries; what came of
//! them is judged from the log and the answers alone.
#![expect(clippy::arithmetic_side_effects, reason = "a test may overflow and fail")]
#![expect(clippy::wildcard_enum_match_arm, reason = "what is not named is not judged")]

mod jitter;
mod judge;

use std::num::NonZeroU32;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use dayfly_verifier::id::{BundleDigest, ExchangeId, FeedHash, GrantId, RequestId, TokenId, UseId};
use dayfly_verifier::request::{ConfirmBy, Requirement};
use dayfly_verifier::scope::{Right, Scope};
use proptest::prelude::*;
use tokio::task::JoinHandle;

use self::jitter::{Chance, Jitter};
use self::judge::{ALL, Answer, Op, PERMITS, REFUSES, USES, What};
use super::tests::*;
use super::*;
use crate::core::case::{Case, Standing};
use crate::core::command::{Application, Exchange, Filing};
use crate::core::denial::Denial;
use crate::core::event::{Entry, Event, Target, TaskOutcome};
use crate::core::verdict::{Basis, Outcome, Refusal, Verdict};
use crate::journal::samples::{applied, holder_key, spiffe, time};
use crate::journal::{Faulty, Memory, Plan};

const BROKERS: usize = 3;
const CLIENTS: usize = 5;
const STEPS: usize = 12;
const KEY_END: u64 = 40_000_000;

/// A broker that can be crashed, and starts again.
struct Broker {
    journal: Arc<Faulty<Jitter>>,
    sequencer: Mutex<Sequencer>,
    running: Mutex<JoinHandle<Result<(), JournalError>>>,
}

impl Broker {
    async fn start(memory: &Memory, chance: &Chance) -> Self {
        let journal = Jitter { inner: memory.clone(), chance: chance.clone() };
        let journal = Arc::new(Faulty::new(journal));
        let (sequencer, running) = running(&journal).await;
        Self { journal, sequencer: Mutex::new(sequencer), running: Mutex::new(running) }
    }

    fn sequencer(&self) -> Sequencer {
        self.sequencer.lock().unwrap().clone()
    }

    /// Ends it wherever it is, and starts it from the log.
    async fn crash(&self) {
        self.running.lock().unwrap().abort();
        let (sequencer, running) = running(&self.journal).await;
        *self.sequencer.lock().unwrap() = sequencer;
        *self.running.lock().unwrap() = running;
    }
}

/// The grants that there are so far, with what is known of each.
#[derive(Clone)]
struct Known {
    request: RequestId,
    grant: GrantId,
    token: Option<TokenId>,
    exchange: Option<ExchangeId>,
    use_id: Option<UseId>,
}

struct World {
    memory: Memory,
    brokers: Vec<Broker>,
    chance: Chance,
    known: Mutex<Vec<Known>>,
    ops: Mutex<Vec<Op>>,
    tick: AtomicU64,
    /// What any broker published at each place: one thing only.
    told: Mutex<std::collections::BTreeMap<u64, (Head, FeedHash)>>,
}

fn agent() -> Caller {
    Caller { id: spiffe("agent/one"), until: time(86_400_000) }
}

fn filing(id: RequestId) -> Filing {
    let right = Right { operation: "read".parse().unwrap(), resource: "db/a".parse().unwrap() };
    Filing {
        id,
        principal: None,
        holder_key: holder_key(),
        confirmation: ConfirmBy::Key,
        audience: spiffe("gateway/orders"),
        scope: Scope::new([right], []).unwrap(),
        task: "task-1".parse().unwrap(),
        purpose: "support".parse().unwrap(),
        lifetime: None,
        uses: NonZeroU32::new(u32::try_from(USES).unwrap()),
        default_uses: None,
        justification: None,
    }
}

/// What `bundle` says, to everything.
fn outcome(bundle: BundleDigest) -> Outcome {
    if bundle == REFUSES {
        return Outcome::Refused(Refusal { policy: "freeze".into(), reason: "not now".into() });
    }
    Outcome::Permitted(Requirement {
        approvals: Default::default(),
        max_lifetime: Duration::from_secs(600),
        max_uses: None,
        online: false,
        evidence: false,
        presence: false,
    })
}

fn basis(state: &State, but: Option<&GrantId>) -> Basis {
    let task = "task-1".parse().unwrap();
    state.basis(&agent().id, &task, but, time(10).max(state.time)).unwrap()
}

/// What the bundle in force says.
fn verdict(state: &State, but: Option<&GrantId>) -> Verdict {
    let basis = basis(state, but);
    Verdict { outcome: outcome(basis.bundle), basis }
}

/// `bundle` in the place of the one in force, with what it says of all that is open.
fn application(state: &State, bundle: BundleDigest) -> Application {
    let Event::BundleApplied { directory, signers, .. } = applied().event else { unreachable!() };
    let verdict = |grant| {
        let basis = Basis { bundle, ..basis(state, Some(&grant)) };
        (grant, Verdict { basis, outcome: outcome(bundle) })
    };
    let verdicts = state.open(time(10).max(state.time)).map(Case::grant_id).map(verdict).collect();
    Application { bundle, directory, signers, replaces: state.bundle, verdicts }
}

fn meaning(failure: &Failure) -> Answer {
    match failure {
        Failure::Denied(Denial::Revoked) => Answer::Revoked,
        Failure::Denied(Denial::Completed) => Answer::Completed,
        Failure::Denied(Denial::PolicyRefused(_)) => Answer::Refused,
        Failure::Denied(Denial::Drifted(_)) => Answer::Drifted,
        Failure::Denied(Denial::UsesExhausted) => Answer::Spent,
        Failure::Denied(Denial::NotFound) => Answer::Absent,
        Failure::Denied(other) => panic!("refused: {other:?}"),
        Failure::Fault(Fault::Impossible) => panic!("a rule decided what cannot be"),
        Failure::Fault(_) => Answer::Unknown,
    }
}

impl World {
    async fn start(seed: u64) -> Self {
        let (memory, chance) = (memory().await, Chance::new(seed));
        let head = *memory.confirm().await.unwrap();
        let event = Event::KeyAdded {
            key: dayfly_verifier::id::KeyId(1),
            public: holder_key(),
            not_after: time(KEY_END),
        };
        let key = Entry { event, at: time(10), ..crate::journal::samples::opening() };
        memory.append(&head, &crate::journal::chain(&head, &[key]).unwrap()).await.unwrap();
        let mut brokers = Vec::new();
        for _ in 0..BROKERS {
            brokers.push(Broker::start(&memory, &chance).await);
        }
        let (known, ops, tick, told) = Default::default();
        Self { memory, brokers, chance, known, ops, tick, told }
    }

    fn tick(&self) -> u64 {
        self.tick.fetch_add(1, Ordering::SeqCst)
    }

    /// Asks until there is an answer, at any broker, a few times.
    async fn ask(
        &self,
        caller: &Caller,
        command: impl Fn(&State) -> Command,
    ) -> Result<Recorded<Arc<State>>, Failure> {
        let mut last = Fault::Unavailable.into();
        for _ in 0..6 {
            let broker = &self.brokers[self.chance.index(BROKERS)];
            let sequencer = broker.sequencer();
            let answer = self.submit(&sequencer, command(&sequencer.state()), caller.clone()).await;
            let state = answer.as_ref().map_or_else(|_| sequencer.state(), Clone::clone);
            let told = (state.head, state.feed.hash());
            let before = self.told.lock().unwrap().insert(state.head.seq.0, told);
            assert!(before.is_none_or(|before| before == told), "I12: two brokers tell two things");
            match answer {
                Err(failure @ (Failure::Denied(Denial::Reevaluate) | Failure::Fault(_))) => {
                    last = failure;
                }
                answer => return answer,
            }
        }
        match last {
            // It was never done, then; but that need not be known.
            Failure::Denied(_) => Err(Fault::Unavailable.into()),
            fault => Err(fault),
        }
    }

    /// A bundle may be judged on the state that it meets, or on one that may be past by then.
    async fn submit(
        &self,
        sequencer: &Sequencer,
        command: Command,
        caller: Caller,
    ) -> Result<Recorded<Arc<State>>, Failure> {
        match command {
            Command::Apply(Application { bundle, .. }) if self.chance.below(3) > 0 => {
                let remake = move |state: &State, _| Command::Apply(application(state, bundle));
                sequencer.submit_remade(command, Box::new(remake), caller, None).await
            }
            _ => sequencer.submit(command, caller).await,
        }
    }

    async fn step(&self) {
        let known = self.known.lock().unwrap().clone();
        let place = self.chance.index(known.len().max(1));
        let Some(about) = known.get(place).filter(|_| self.chance.below(5) > 0) else {
            return self.file().await;
        };
        match self.chance.below(14) {
            0..=4 => self.exchange(place, about).await,
            5..=7 => self.redeem(place, about).await,
            8 => {
                let command = |_: &State| {
                    Command::Complete(about.request, holder_key(), TaskOutcome::Succeeded)
                };
                self.done(about.grant, What::Complete, &agent(), command).await;
            }
            9 => {
                let command = |_: &State| Command::Revoke(Target::Grant(about.grant), None);
                self.done(about.grant, What::Revoke, &operator(), command).await;
            }
            10..=11 => {
                let bundle = if self.chance.below(3) == 0 { REFUSES } else { PERMITS };
                let command = |state: &State| Command::Apply(application(state, bundle));
                self.done(ALL, What::Apply(bundle), &operator(), command).await;
            }
            12 => {
                let plans = [Plan::Refuse, Plan::LoseUnknown, Plan::StandUnknown];
                let broker = &self.brokers[self.chance.index(BROKERS)];
                broker.journal.fail(self.chance.below(2), plans[self.chance.index(3)].clone());
            }
            _ => self.brokers[self.chance.index(BROKERS)].crash().await,
        }
    }

    async fn file(&self) {
        let request = RequestId::draw(time(10), self.chance.bytes());
        let grant = GrantId::derive(&crate::journal::samples::EPOCH, &agent().id, &request);
        let known = Known { request, grant, token: None, exchange: None, use_id: None };
        self.known.lock().unwrap().push(known);
        let command = |state: &State| Command::File(filing(request), verdict(state, None));
        self.done(grant, What::File, &agent(), command).await;
    }

    async fn exchange(&self, place: usize, about: &Known) {
        let again = about.exchange.filter(|_| self.chance.below(2) == 0);
        let id = again.unwrap_or_else(|| ExchangeId::draw(time(10), self.chance.bytes()));
        self.known.lock().unwrap()[place].exchange = Some(id);
        let signing_key = (dayfly_verifier::id::KeyId(1), time(KEY_END));
        let exchange =
            Exchange { request: about.request, id, holder_key: holder_key(), signing_key };
        let command =
            |state: &State| Command::Exchange(exchange.clone(), verdict(state, Some(&about.grant)));
        let answer = self.done(about.grant, What::Exchange(id), &agent(), command).await;
        if let Answer::Token(token) = answer {
            self.known.lock().unwrap()[place].token = Some(token);
        }
    }

    async fn redeem(&self, place: usize, about: &Known) {
        let Some(token) = about.token else { return };
        let again = about.use_id.filter(|_| self.chance.below(3) == 0);
        let id = again.unwrap_or_else(|| UseId::draw(time(10), self.chance.bytes()));
        self.known.lock().unwrap()[place].use_id = Some(id);
        let gateway = Caller { id: spiffe("gateway/orders"), ..agent() };
        let command = |_: &State| Command::Redeem(token, id);
        self.done(about.grant, What::Redeem(id), &gateway, command).await;
    }

    async fn done(
        &self,
        grant: GrantId,
        what: What,
        caller: &Caller,
        command: impl Fn(&State) -> Command,
    ) -> Answer {
        let invoked = self.tick();
        let answer = match self.ask(caller, command).await {
            Ok(state) => match &what {
                What::Exchange(id) => {
                    let now = time(10).max(state.time);
                    match state.answer(&grant, id, now) {
                        Some(minted) => Answer::Token(minted.claims.token),
                        // Done in doubt, and ended since.
                        None => match state.case(&grant).unwrap().standing(now) {
                            Standing::Revoked => Answer::Revoked,
                            Standing::Completed(_) => Answer::Completed,
                            Standing::Drifted(_) => Answer::Drifted,
                            other => panic!("an answer without a token: {other:?}"),
                        },
                    }
                }
                _ => Answer::Done,
            },
            Err(failure) => meaning(&failure),
        };
        let log = usize::try_from(self.memory.confirm().await.unwrap().seq.0).unwrap();
        let op = Op { grant, what, answer, invoked, answered: self.tick(), log };
        self.ops.lock().unwrap().push(op);
        answer
    }

    /// The log as it was left.
    async fn log(&self) -> Vec<(Head, Vec<u8>, Entry)> {
        let (mut head, mut log) = (Head::ORIGIN, Vec::new());
        for stored in self.memory.read(&head, usize::MAX).await.unwrap() {
            log.push((*stored.head(), stored.bytes().to_vec(), stored.decode(&head).unwrap()));
            head = *stored.head();
        }
        log
    }
}

async fn play(seed: u64) -> Result<(), String> {
    let world = Arc::new(World::start(seed).await);
    let clients = (0..CLIENTS).map(|_| {
        let world = world.clone();
        tokio::spawn(async move {
            for _ in 0..STEPS {
                world.step().await;
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    let ops = world.ops.lock().unwrap().clone();
    judge::log(&world.log().await, &ops)?;
    for known in &*world.known.lock().unwrap() {
        let of_grant = ops.iter().filter(|op| [known.grant, ALL].contains(&op.grant));
        let of_grant: Vec<Op> = of_grant.cloned().collect();
        if !judge::linearizable(&of_grant) {
            return Err(format!("I10: no order explains {of_grant:#?}"));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn a19_whatever_happens_to_brokers_the_log_and_the_answers_agree(seed in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        prop_assert_eq!(runtime.block_on(play(seed)), Ok(()));
    }
}
