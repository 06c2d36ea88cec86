//! Random commands of several workloads, people and gateways, under a clock that moves; the
//! oracle judges what came of it.

use std::num::NonZeroU32;

use dayfly_verifier::id::{GrantId, LockId, TokenId};
use dayfly_verifier::request::{Narrowing, Requirement};
use dayfly_verifier::scope::Scope;
use proptest::prelude::*;

use super::oracle::{Step, judge};
use super::world::*;
use crate::core::command::{Application, Caller, Command, Exchange, Filing};
use crate::core::directory::{Directory, Role};
use crate::core::event::{Answer, IdentityChange, Lock, Target, TaskOutcome};
use crate::core::verdict::{Outcome, Verdict};

/// One command, drawn: what, by whom, about what, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draw {
    what: u8,
    who: u8,
    about: u8,
    how: u8,
    wait: u8,
}

pub(super) fn draws() -> impl Strategy<Value = Vec<Draw>> {
    let one = (0u8..33, any::<u8>(), any::<u8>(), any::<u8>(), 0u8..24);
    let one = one.prop_map(|(what, who, about, how, wait)| Draw { what, who, about, how, wait });
    proptest::collection::vec(one, 1..80)
}

const PEOPLE: [&str; 8] = ["ann", "abe", "max", "sue", "own", "opa", "pat", "ops"];
const WORKLOADS: [&str; 3] = ["agent/a", "agent/a", "agent/b"];

/// Who is in which groups, and who owns and operates `agent/**`: as in [`directory`], or drawn.
fn organisation() -> impl Strategy<Value = Directory> {
    let one = (0u8..4, proptest::bool::weighted(0.15), proptest::bool::weighted(0.15));
    let drawn = proptest::collection::vec(one, PEOPLE.len()).prop_map(|people| {
        let mut drawn = directory();
        drawn.workloads[0].owners.clear();
        drawn.workloads[0].operators.clear();
        for (name, (groups, owns, operates)) in PEOPLE.into_iter().zip(people) {
            let listed = drawn.people.get_mut(&person(name)).unwrap();
            listed.groups.clear();
            if groups & 1 != 0 {
                listed.groups.insert("dba".parse().unwrap());
            }
            if groups & 2 != 0 {
                listed.groups.insert("security".parse().unwrap());
            }
            if owns {
                drawn.workloads[0].owners.insert(person(name));
            }
            if operates {
                drawn.workloads[0].operators.insert(person(name));
            }
        }
        drawn
    });
    prop_oneof![Just(directory()), drawn]
}

fn pick<T>(list: &[T], n: u8) -> Option<&T> {
    list.get(usize::from(n).checked_rem(list.len())?)
}

pub(super) struct Model {
    pub(super) world: World,
    directory: Directory,
    filed: Vec<(&'static str, Filing, GrantId)>,
    exchanged: Vec<(&'static str, Exchange)>,
    tokens: Vec<TokenId>,
    uses: Vec<dayfly_verifier::id::UseId>,
    steps: Vec<Step>,
    bundles: u8,
}

impl Model {
    pub(super) fn new() -> Self {
        Self::with(directory())
    }

    /// Starts with this directory; every later one is near to it.
    fn with(directory: Directory) -> Self {
        let world = World::with(directory.clone());
        let (filed, exchanged, tokens, uses, steps) = Default::default();
        Self { world, directory, filed, exchanged, tokens, uses, steps, bundles: 1 }
    }

    pub(super) fn play(&mut self, draw: Draw) {
        self.world.pass(secs(
            [0, 0, 0, 1, 2, 20, 45, 81, 119, 121, 299, 301][usize::from(draw.wait) / 2],
        ));
        let Some((who, command)) = self.command(draw) else { return };
        let life = if draw.how.is_multiple_of(5) { 30 } else { 3600 };
        let caller = Caller { id: id(who), until: self.world.now.plus(secs(life)) };
        let before = self.world.log.len();
        let result = self.world.run_as(&caller, &command).map(drop);
        let mut answer = None;
        if let Command::Exchange(exchange, _) = &command {
            let grant =
                GrantId::derive(&self.world.state.head.epoch, &caller.id, &exchange.request);
            let minted = self.world.state.answer(&grant, &exchange.id, self.world.now);
            answer = minted.filter(|_| result.is_ok()).map(|minted| minted.claims.token);
            self.tokens.extend(answer);
        }
        let (now, wrote) = (self.world.now, before..self.world.log.len());
        self.steps.push(Step { caller, now, command, result, wrote, answer });
    }

    fn command(&mut self, draw: Draw) -> Option<(&'static str, Command)> {
        let Draw { what, who, about, how, .. } = draw;
        let name = pick(&PEOPLE, who).copied()?;
        let as_person: &'static str = Box::leak(format!("person/{name}").into_boxed_str());
        let (filed, exchanged) = (pick(&self.filed, about), pick(&self.exchanged, about));
        let grant = filed.map(|(_, _, grant)| *grant);
        let token = pick(&self.tokens, about).copied();
        Some(match what {
            0..=5 => self.filing(draw)?,
            6 => {
                let (workload, mut filing, _) = filed?.clone();
                change(&mut filing, how);
                (workload, self.file(workload, filing, how))
            }
            7..=14 => (as_person, self.decide(name, grant?, true, how)?),
            15 => (as_person, self.decide(name, grant?, false, how)?),
            16 => (as_person, Command::Withdraw(grant?)),
            17..=21 => self.exchange(draw)?,
            22 => {
                let (workload, exchange) = exchanged?.clone();
                let workload = if how % 7 == 0 { "agent/b" } else { workload };
                let mut exchange = exchange;
                if how % 5 == 0 {
                    exchange.request = filed?.1.id;
                }
                (workload, Command::Exchange(exchange, self.verdict(&grant?, how)?))
            }
            23 | 24 => {
                let use_id = if how % 3 == 0 { pick(&self.uses, who).copied() } else { None };
                let use_id = use_id.unwrap_or_else(|| self.world.use_id());
                self.uses.push(use_id);
                let gateway = if how % 4 == 0 { "gateway/mail" } else { "gateway/orders" };
                (gateway, Command::Redeem(token?, use_id))
            }
            25 => {
                let (workload, filing, _) = filed?;
                let key = holder(if how % 4 == 0 { 2 } else { 1 });
                let outcome =
                    if how % 2 == 0 { TaskOutcome::Failed } else { TaskOutcome::Succeeded };
                (*workload, Command::Complete(filing.id, key, outcome))
            }
            26 => {
                let (workload, filing, _) = filed?;
                (*workload, Command::Cancel(filing.id, holder(1)))
            }
            27 => (
                if how % 4 == 0 { as_person } else { "person/ops" },
                Command::Revoke(
                    match about % 8 {
                        0 | 1 => Target::Grant(grant?),
                        2 | 3 => Target::Token(token?),
                        4 => Target::Workload(id("agent/a")),
                        5 => Target::Task("task-1".parse().unwrap()),
                        6 => Target::Prefix("db/prod".parse().unwrap()),
                        _ => Target::Key(KEY),
                    },
                    None,
                ),
            ),
            28 => ("person/ops", self.bundle(how)),
            29 | 30 => ("person/ops", self.lock(about, how)),
            31 => {
                let lock = LockId::new([about % 4; 16]);
                (if how % 4 == 0 { as_person } else { "person/ops" }, Command::Unlock(lock))
            }
            32 => (as_person, identity(about, how)?),
            _ => return None,
        })
    }

    /// Mostly on one thing, so that some of what is asked for matches, and the rest goes on.
    fn lock(&self, about: u8, how: u8) -> Command {
        let on = |what: u8| how % 6 == what || how % 36 == what + 6;
        let lock = Lock {
            id: LockId::new([about % 4; 16]),
            workload: on(0).then(|| id("agent/a")),
            task: on(1).then(|| "task-1".parse().unwrap()),
            prefix: on(2).then(|| "db/prod/orders".parse().unwrap()),
            person: (on(3).then(|| person("pat")))
                .or_else(|| on(4).then(|| person("ann")))
                .or_else(|| on(5).then(|| person("ops"))),
        };
        Command::Lock(lock, self.world.now.plus(secs(u64::from(how) / 2 + 20)), None)
    }

    fn filing(&mut self, draw: Draw) -> Option<(&'static str, Command)> {
        let workload = pick(&WORKLOADS, draw.who).copied()?;
        let mut filing = self.world.filing();
        filing.task =
            if draw.about.is_multiple_of(2) { "task-1" } else { "task-2" }.parse().unwrap();
        filing.uses = NonZeroU32::new(u32::from(draw.about % 4));
        filing.principal = draw.about.is_multiple_of(3).then(|| person("pat"));
        filing.lifetime = [None, Some(secs(60)), Some(secs(400)), Some(secs(3600))]
            [usize::from(draw.about / 4 % 4)];
        let grant = GrantId::derive(&self.world.state.head.epoch, &id(workload), &filing.id);
        self.filed.push((workload, filing.clone(), grant));
        Some((workload, self.file(workload, filing, draw.how)))
    }

    fn file(&self, workload: &str, filing: Filing, how: u8) -> Command {
        let mut basis = self.world.basis(workload, &filing.task, None);
        basis.holdings.task += u32::from(how.is_multiple_of(16));
        Command::File(filing, Verdict { basis, outcome: outcome(how) })
    }

    fn decide(&self, name: &str, grant: GrantId, yes: bool, how: u8) -> Option<Command> {
        self.world.state.case(&grant)?;
        let answer = if yes { Answer::Approve(narrowing(how)) } else { Answer::Deny };
        let mut decision = self.world.decision(name, &grant, answer);
        match how % 13 {
            1 => decision.at = decision.at.minus(secs(120)),
            2 => decision.at = decision.at.plus(secs(121)),
            3 => decision.person = person("ann"),
            4 => decision.digest = dayfly_verifier::id::RequestDigest::new([3; 32]),
            5 => decision.evidence.iter_mut().for_each(|evidence| evidence.key = signer("ann")),
            6 => decision.evidence = None,
            _ => {}
        }
        if !yes {
            return Some(Command::Deny(grant, decision));
        }
        Some(Command::Approve(grant, decision, self.verdict(&grant, how / 13)?, None))
    }

    /// Mostly what policy said at first.
    fn verdict(&self, grant: &GrantId, how: u8) -> Option<Verdict> {
        self.world.state.case(grant)?;
        let mut verdict = self.world.same(grant);
        match how % 11 {
            0 => verdict.basis.holdings.workload += 1,
            1 => verdict.outcome = outcome(how / 11),
            _ => {}
        }
        Some(verdict)
    }

    fn exchange(&mut self, draw: Draw) -> Option<(&'static str, Command)> {
        let (workload, filing, grant) = pick(&self.filed, draw.about)?.clone();
        let mut exchange = self.world.exchanging(&filing);
        if draw.how.is_multiple_of(9) {
            exchange.holder_key = holder(2);
        }
        self.exchanged.push((workload, exchange.clone()));
        let verdict = self.verdict(&grant, draw.how)?;
        Some((workload, Command::Exchange(exchange, verdict)))
    }

    fn bundle(&mut self, how: u8) -> Command {
        self.bundles += 1;
        let verdict = |required: &Requirement| match how % 5 {
            0 => outcome(how / 5),
            _ => Outcome::Permitted(required.clone()),
        };
        Command::Apply(Application {
            bundle: dayfly_verifier::id::BundleDigest::new([self.bundles; 32]),
            directory: another(&self.directory, how),
            signers: Default::default(),
            replaces: self.world.state.bundle,
            verdicts: self.world.verdicts(self.bundles, verdict),
        })
    }
}

fn identity(about: u8, how: u8) -> Option<Command> {
    let ids = ["agent/a", "agent/b", "gateway/mail", "person/ann", "nobody/x"];
    let change = match how % 8 {
        0 => IdentityChange::Joined { generation: 1 },
        1 => IdentityChange::Locked,
        _ => IdentityChange::Invited,
    };
    Some(Command::Identity(id(pick(&ids, about)?), change))
}

fn another(directory: &Directory, how: u8) -> Directory {
    let mut other = directory.clone();
    match how % 6 {
        0 => drop(other.workloads[0].owners.insert(person("ann"))),
        1 => other.people.get_mut(&person("max")).unwrap().keys.clear(),
        2 => drop(other.people.remove(&person("abe"))),
        3 => other.workloads[0].ids = "spiffe://t.test/agent/a".parse().unwrap(),
        4 => other.workloads[0].operators.clear(),
        5 => drop(other.people.get_mut(&person("max")).unwrap().roles.insert(Role::Operator)),
        _ => {}
    }
    other
}

fn outcome(how: u8) -> Outcome {
    let mut required = requirement(match how % 8 {
        0 => return Outcome::Refused(refusal()),
        1 | 2 => &[],
        3 | 4 => &[("dba", 1)],
        5 => &[("dba", 1), ("security", 2)],
        _ => &[("dba", 1), ("security", 1)],
    });
    required.max_uses = NonZeroU32::new(u32::from(how / 8 % 3));
    Outcome::Permitted(required)
}

fn narrowing(how: u8) -> Narrowing {
    Narrowing {
        lifetime: [None, None, Some(secs(30)), Some(secs(200))][usize::from(how % 4)],
        uses: NonZeroU32::new(u32::from(how / 4 % 3)),
        rights: match how / 16 % 5 {
            0 => Some([right("read db/prod/a")].into()),
            1 => Some([right("read db/prod/a/**"), right("refund db/prod/orders")].into()),
            2 => Some([right("read db/**")].into()),
            _ => None,
        },
        constraints: how.is_multiple_of(3).then(|| at_most("amount", 100)).into_iter().collect(),
    }
}

/// Of all that is asked for, what alone does not reach an order.
pub(super) fn delete_all() -> Scope {
    Scope::new([right("delete db/prod")], []).unwrap()
}

fn change(filing: &mut Filing, how: u8) {
    match how % 6 {
        0 => filing.holder_key = holder(2),
        1 => filing.audience = id("gateway/mail"),
        2 => filing.scope = delete_all(),
        3 => filing.uses = NonZeroU32::new(9),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn a12_whatever_is_asked_nobody_near_it_counts_and_the_log_keeps_the_rules(
        draws in draws(),
        directory in organisation(),
    ) {
        let mut model = Model::with(directory);
        draws.into_iter().for_each(|draw| model.play(draw));
        let judged = judge(&model.world.log, &model.steps);
        prop_assert_eq!(judged, Ok(()));
    }

    /// The same entries make the same state, which a snapshot keeps whole; the index is what the
    /// cases say.
    #[test]
    fn the_fold_is_a_function_of_the_log(draws in draws()) {
        let mut model = Model::new();
        draws.into_iter().for_each(|draw| model.play(draw));
        let mut again = crate::core::state::State::default();
        for (head, entry) in &model.world.log {
            again.apply(*head, entry).unwrap();
        }
        prop_assert_eq!(&again, &model.world.state);
        prop_assert_eq!(&crate::journal::snapshot::copy(&again).unwrap(), &again);
        let now = model.world.now.max(again.time);
        for workload in ["agent/a", "agent/b"] {
            let cases = || again.cases().filter(|case| case.request.workload == id(workload));
            let is_open = |case: &&crate::core::case::Case| case.standing(now).end().is_none();
            let live = cases().filter(is_open).filter(|case| case.grant().is_some());
            let open = cases().filter(is_open);
            let tally = again.tally(&id(workload), now);
            prop_assert_eq!(usize::try_from(tally.live).unwrap(), live.count());
            prop_assert_eq!(usize::try_from(tally.live + tally.pending).unwrap(), open.count());
            let remembered = again.remembered(&id(workload), again.time);
            prop_assert_eq!(usize::try_from(remembered).unwrap(), cases().count());
        }
    }
}
