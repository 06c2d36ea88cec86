//! A small organisation, and a log that commands are run against.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::*;
use dayfly_verifier::request::{ConfirmBy, Narrowing, Requirement, SignerKey};
use dayfly_verifier::scope::{Constraint, Limit, Right, Scope};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;

use crate::core::case::Case;
use crate::core::command::{Application, Caller, Command, Exchange, Filing, Foreseen};
use crate::core::decide::{decide, foresee};
use crate::core::denial::Denial;
use crate::core::directory::{Directory, Person, Role, WorkloadRule};
use crate::core::event::*;
use crate::core::state::State;
use crate::core::verdict::{Basis, Outcome, Refusal, Verdict};

pub(super) const START: u64 = 1_800_000_000_000;
pub(super) const KEY: KeyId = KeyId(1);

/// `agent/a`, `person/ann`, `gateway/orders`: all of one trust domain.
pub(super) fn id(path: &str) -> SpiffeId {
    format!("spiffe://t.test/{path}").parse().unwrap()
}

pub(super) fn person(name: &str) -> PersonId {
    name.parse().unwrap()
}

pub(super) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(super) fn holder(seed: u8) -> HolderKey {
    let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
    HolderKey::from_slice(key.verifying_key().as_bytes()).unwrap()
}

pub(super) fn signer(name: &str) -> SignerKey {
    let mut seed = [0; 32];
    seed.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    let key = ssh_key::private::Ed25519Keypair::from_seed(&seed).public;
    ssh_key::PublicKey::from(key).to_openssh().unwrap().parse().unwrap()
}

pub(super) fn right(text: &str) -> Right {
    let (operation, resource) = text.split_once(' ').unwrap();
    Right { operation: operation.parse().unwrap(), resource: resource.parse().unwrap() }
}

pub(super) fn at_most(argument: &str, most: i64) -> Constraint {
    Constraint { argument: argument.parse().unwrap(), limit: Limit::AtMost(most) }
}

pub(super) fn requirement(approvals: &[(&str, u32)]) -> Requirement {
    let approvals = approvals
        .iter()
        .map(|(group, count)| (group.parse().unwrap(), NonZeroU32::new(*count).unwrap()))
        .collect();
    Requirement {
        approvals,
        max_lifetime: secs(600),
        max_uses: None,
        online: false,
        evidence: false,
        presence: false,
    }
}

fn people(list: &[(&str, &[&str], &[Role])]) -> BTreeMap<PersonId, Person> {
    let one = |(name, groups, roles): &(&str, &[&str], &[Role])| {
        let listed = Person {
            ids: BTreeSet::from([id(&format!("person/{name}"))]),
            groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
            keys: BTreeSet::from([signer(name)]),
            roles: roles.iter().copied().collect(),
        };
        (person(name), listed)
    };
    list.iter().map(one).collect()
}

/// `ann` and `abe` are dba; `sue` is security; `max` is both; `own` (owner) and `opa` (operator)
/// are responsible for `agent/**`, and dba; `pat`, a principal, is dba; `ops` is an operator,
/// `adm` a policy admin.
pub(super) fn directory() -> Directory {
    let rule = |ids: &str, exclusive| WorkloadRule {
        ids: format!("spiffe://t.test/{ids}").parse().unwrap(),
        groups: BTreeSet::new(),
        owners: BTreeSet::from([person("own")]),
        operators: BTreeSet::from([person("opa")]),
        exclusive,
    };
    Directory {
        people: people(&[
            ("ann", &["dba"], &[]),
            ("abe", &["dba"], &[]),
            ("sue", &["security"], &[]),
            ("max", &["dba", "security"], &[]),
            ("own", &["dba"], &[]),
            ("opa", &["dba"], &[Role::Operator]),
            ("pat", &["dba"], &[]),
            ("ops", &[], &[Role::Operator]),
            ("adm", &[], &[Role::PolicyAdmin]),
        ]),
        workloads: vec![rule("agent/**", false), rule("solo", true)],
        gateways: BTreeSet::from([id("gateway/orders"), id("gateway/mail")]),
        bundle_signatures: 0,
    }
}

/// A log, its fold, and a clock.
#[derive(Clone)]
pub(super) struct World {
    pub(super) state: State,
    pub(super) log: Vec<(Head, Entry)>,
    pub(super) now: Timestamp,
    draws: u64,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(directory())
    }

    pub(super) fn with(directory: Directory) -> Self {
        let now = Timestamp::from_ms(START).unwrap();
        let mut world = Self { state: State::default(), log: Vec::new(), now, draws: 0 };
        let epoch = Epoch::new([7; 16]);
        let founders = BTreeSet::from([signer("adm")]);
        let not_after = now.plus(secs(30 * 24 * 3600));
        let bundle = BundleDigest::new([1; 32]);
        world.record(
            Actor::Host,
            [
                Event::EpochOpened { epoch, parent: None, founders, format: 1 },
                Event::BundleApplied { bundle, directory, signers: BTreeSet::new() },
                Event::KeyAdded { key: KEY, public: holder(99), not_after },
            ],
        );
        world
    }

    /// What was recorded, whatever the rules say.
    pub(super) fn record(&mut self, by: Actor, events: impl IntoIterator<Item = Event>) {
        for event in events {
            let epoch = if let Event::EpochOpened { epoch, .. } = &event {
                *epoch
            } else {
                self.state.head.epoch
            };
            let seq = self.state.head.seq.next();
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&seq.0.to_be_bytes());
            let head = Head { epoch, seq, hash: ChainHash::new(hash) };
            let at = self.now.max(self.state.time);
            let entry = Entry { by: by.clone(), at, policy: self.state.bundle, event };
            self.state.apply(head, &entry).unwrap();
            self.log.push((head, entry));
        }
    }

    /// Has `command` decided, and records what it makes happen.
    pub(super) fn run(&mut self, who: &str, command: Command) -> Result<Vec<Event>, Denial> {
        let caller = Caller { id: id(who), until: self.now.plus(secs(3600)) };
        self.run_as(&caller, &command)
    }

    pub(super) fn run_as(
        &mut self,
        caller: &Caller,
        command: &Command,
    ) -> Result<Vec<Event>, Denial> {
        let (by, events) = decide(&self.state, command, caller, self.now)?;
        self.record(by, events.clone());
        Ok(events)
    }

    pub(super) fn pass(&mut self, span: Duration) {
        self.now = self.now.plus(span);
    }

    fn drawn(&mut self) -> [u8; 10] {
        self.draws = self.draws.saturating_add(1);
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.draws.to_be_bytes());
        random
    }

    pub(super) fn request_id(&mut self) -> RequestId {
        RequestId::draw(self.now, self.drawn())
    }

    pub(super) fn exchange_id(&mut self) -> ExchangeId {
        ExchangeId::draw(self.now, self.drawn())
    }

    pub(super) fn use_id(&mut self) -> UseId {
        UseId::draw(self.now, self.drawn())
    }

    pub(super) fn filing(&mut self) -> Filing {
        Filing {
            id: self.request_id(),
            principal: None,
            holder_key: holder(1),
            confirmation: ConfirmBy::Key,
            audience: id("gateway/orders"),
            scope: Scope::new(
                [right("read db/prod/**"), right("refund db/prod/orders")],
                [at_most("amount", 500)],
            )
            .unwrap(),
            task: "task-1".parse().unwrap(),
            purpose: "support".parse().unwrap(),
            lifetime: Some(secs(300)),
            uses: None,
            default_uses: None,
            justification: None,
        }
    }

    pub(super) fn basis(&self, who: &str, task: &TaskId, but: Option<&GrantId>) -> Basis {
        self.state.basis(&id(who), task, but, self.now.max(self.state.time)).unwrap()
    }

    /// Files as `who`, who is permitted under `required`; says the grant id.
    pub(super) fn file(
        &mut self,
        who: &str,
        filing: &Filing,
        required: &Requirement,
    ) -> Result<GrantId, Denial> {
        let basis = self.basis(who, &filing.task, None);
        let verdict = Verdict { basis, outcome: Outcome::Permitted(required.clone()) };
        self.run(who, Command::File(filing.clone(), verdict))?;
        Ok(GrantId::derive(&self.state.head.epoch, &id(who), &filing.id))
    }

    /// A grant of `agent/a` that nobody had to approve.
    pub(super) fn granted(&mut self, filing: &Filing) -> GrantId {
        self.file("agent/a", filing, &requirement(&[])).unwrap()
    }

    /// A request of `agent/a` that waits for `approvals`.
    pub(super) fn pending(&mut self, approvals: &[(&str, u32)]) -> (Filing, GrantId) {
        let filing = self.filing();
        let grant = self.file("agent/a", &filing, &requirement(approvals)).unwrap();
        (filing, grant)
    }

    /// The verdict that policy still says what it said when the request was filed.
    pub(super) fn same(&self, grant: &GrantId) -> Verdict {
        let case = self.state.case(grant).unwrap();
        let request = &case.request;
        let now = self.now.max(self.state.time);
        let basis = self.state.basis(&request.workload, &request.task, Some(grant), now).unwrap();
        Verdict { basis, outcome: Outcome::Permitted(request.requirement.clone()) }
    }

    /// What `decision` would give, of which policy says what it said of the request.
    pub(super) fn foreseen(&self, grant: &GrantId, decision: &Decision) -> Option<Foreseen> {
        let case = self.state.case(grant)?;
        let terms = foresee(&self.state, case, decision, self.now).ok()?;
        Some(Foreseen { terms, outcome: Outcome::Permitted(case.requirement().clone()) })
    }

    /// What bundle number `n` says of all that is open: `outcome` of each.
    pub(super) fn verdicts(
        &self,
        n: u8,
        outcome: impl Fn(&Requirement) -> Outcome,
    ) -> BTreeMap<GrantId, Verdict> {
        let verdict = |case: &Case| {
            let grant = case.grant_id();
            let basis = Basis { bundle: BundleDigest::new([n; 32]), ..self.same(&grant).basis };
            (grant, Verdict { basis, outcome: outcome(case.requirement()) })
        };
        self.state.open(self.now).map(verdict).collect()
    }

    pub(super) fn decision(&self, name: &str, grant: &GrantId, answer: Answer) -> Decision {
        let digest = self.state.case(grant).unwrap().digest;
        let evidence = match answer {
            Answer::Approve(_) => {
                Some(Evidence { key: signer(name), statement: Vec::new(), signature: "".into() })
            }
            Answer::Deny => None,
        };
        Decision { person: person(name), digest, answer, reason: None, at: self.now, evidence }
    }

    pub(super) fn approve(&mut self, name: &str, grant: &GrantId) -> Result<Vec<Event>, Denial> {
        self.approve_narrowed(name, grant, Narrowing::default())
    }

    pub(super) fn approve_narrowed(
        &mut self,
        name: &str,
        grant: &GrantId,
        narrowing: Narrowing,
    ) -> Result<Vec<Event>, Denial> {
        let decision = self.decision(name, grant, Answer::Approve(narrowing));
        let foreseen = self.foreseen(grant, &decision);
        let command = Command::Approve(*grant, decision, self.same(grant), foreseen);
        self.run(&format!("person/{name}"), command)
    }

    pub(super) fn deny(&mut self, name: &str, grant: &GrantId) -> Result<Vec<Event>, Denial> {
        let decision = self.decision(name, grant, Answer::Deny);
        self.run(&format!("person/{name}"), Command::Deny(*grant, decision))
    }

    pub(super) fn exchanging(&mut self, filing: &Filing) -> Exchange {
        let key = self.state.keys[&KEY].not_after;
        Exchange {
            request: filing.id,
            id: self.exchange_id(),
            holder_key: filing.holder_key,
            signing_key: (KEY, key),
        }
    }

    /// Exchanges as `agent/a`, under the verdict that policy says what it said.
    pub(super) fn exchange(&mut self, exchange: &Exchange) -> Result<Vec<Event>, Denial> {
        let grant = GrantId::derive(&self.state.head.epoch, &id("agent/a"), &exchange.request);
        let verdict = self.same(&grant);
        self.run("agent/a", Command::Exchange(exchange.clone(), verdict))
    }

    /// The token that a new exchange of the grant yields.
    pub(super) fn token(&mut self, filing: &Filing) -> TokenId {
        let exchange = self.exchanging(filing);
        self.exchange(&exchange).unwrap();
        let grant = GrantId::derive(&self.state.head.epoch, &id("agent/a"), &filing.id);
        self.state.answer(&grant, &exchange.id, self.now).unwrap().claims.token
    }

    pub(super) fn revoke(&mut self, target: Target) -> Result<Vec<Event>, Denial> {
        self.run("person/ops", Command::Revoke(target, None))
    }

    /// Applies `directory` as bundle number `n`, of which policy says `outcome` about every case.
    pub(super) fn apply(
        &mut self,
        n: u8,
        directory: &Directory,
        outcome: impl Fn(&Requirement) -> Outcome,
    ) -> Result<Vec<Event>, Denial> {
        let application = Application {
            bundle: BundleDigest::new([n; 32]),
            directory: directory.clone(),
            signers: BTreeSet::new(),
            replaces: self.state.bundle,
            verdicts: self.verdicts(n, outcome),
        };
        self.run("person/ops", Command::Apply(application))
    }
}

pub(super) fn refusal() -> Refusal {
    Refusal { policy: "p-no".into(), reason: "not today".into() }
}
