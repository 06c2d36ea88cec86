//! Entries for tests: one of every kind, with every optional part there once and absent once.
#![expect(clippy::arithmetic_side_effects, reason = "a test may overflow and fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use dayfly_verifier::claims::Claims;
use dayfly_verifier::holder::{Confirmation, HolderKey};
use dayfly_verifier::id::{
    BundleDigest, ChainHash, Epoch, ExchangeId, GrantId, KeyId, LockId, RequestDigest, RequestId,
    Seq, SnapshotDigest, TextDigest, TokenId, UseId,
};
use dayfly_verifier::request::{ConfirmBy, Narrowing, Request, Requirement, SignerKey};
use dayfly_verifier::scope::{Constraint, Limit, Right, Scope, Value};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use dayfly_verifier::uses::{About, Batch, Line, Seen};

use super::{JournalError, StoredEntry};
use crate::core::directory::{Directory, Person, Role, WorkloadRule};
use crate::core::event::{
    Actor, Answer, Decision, End, Entry, Event, Evidence, Head, IdentityChange, Lock, Report,
    Snapshot, Target, TaskOutcome, Terms,
};
use crate::core::verdict::Refusal;

pub(crate) const EPOCH: Epoch = Epoch::new([0xe0; 16]);
const GRANT: GrantId = GrantId::new([0x61; 16]);
const TOKEN: TokenId = TokenId::new([0x70; 16]);
const TEXT: TextDigest = TextDigest::new([0x7e; 32]);

pub(crate) fn time(ms: u64) -> Timestamp {
    Timestamp::from_ms(1_770_000_000_000 + ms).unwrap()
}

pub(crate) fn spiffe(path: &str) -> SpiffeId {
    format!("spiffe://shop.test/{path}").parse().unwrap()
}

pub(crate) fn holder_key() -> HolderKey {
    let public = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
    HolderKey::from_slice(public.as_bytes()).unwrap()
}

fn signer() -> SignerKey {
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOpKbHPpNbUPSPXTYWbTTB9RIuSvYRm4ylW2f2x8VyQU"
        .parse()
        .unwrap()
}

/// The head of the chain over `log`, or the first entry that it does not vouch for.
pub(crate) fn verify(
    log: impl IntoIterator<Item = (Head, Arc<[u8]>)>,
) -> Result<Head, JournalError> {
    log.into_iter().try_fold(Head::ORIGIN, |head, (claimed, bytes)| {
        StoredEntry::read_back(&head, claimed, bytes)?.decode(&head)?;
        Ok(claimed)
    })
}

/// An entry that opens a log.
pub(crate) fn opening() -> Entry {
    let founders = BTreeSet::from([signer()]);
    let event = Event::EpochOpened { epoch: EPOCH, parent: None, founders, format: 1 };
    Entry { by: Actor::Host, at: time(0), policy: None, event }
}

/// The directory of a shop with one operator, `olga`.
pub(crate) fn directory() -> Directory {
    let olga = Person {
        ids: BTreeSet::from([spiffe("person/olga")]),
        groups: BTreeSet::from(["dba".parse().unwrap()]),
        keys: BTreeSet::from([signer()]),
        roles: BTreeSet::from([Role::Operator, Role::Auditor, Role::PolicyAdmin]),
    };
    let rule = WorkloadRule {
        ids: "spiffe://shop.test/agent/**".parse().unwrap(),
        groups: BTreeSet::from(["agents".parse().unwrap()]),
        owners: BTreeSet::from(["olga".parse().unwrap()]),
        operators: BTreeSet::new(),
        exclusive: true,
    };
    Directory {
        people: BTreeMap::from([("olga".parse().unwrap(), olga)]),
        workloads: vec![rule],
        gateways: BTreeSet::from([spiffe("gateway/orders")]),
        bundle_signatures: 1,
    }
}

pub(crate) fn applied() -> Entry {
    let bundle = BundleDigest::new([0xb0; 32]);
    let signers = BTreeSet::from([signer()]);
    let event = Event::BundleApplied { bundle, directory: directory(), signers };
    Entry { by: Actor::Host, at: time(1), policy: None, event }
}

/// A harmless entry; different `n` differ.
pub(crate) fn revocation(n: u64) -> Entry {
    let target = Target::Task(format!("task-{n}").parse().unwrap());
    let by = Actor::Person("olga".parse().unwrap(), spiffe("person/olga"));
    Entry { by, at: time(2), policy: None, event: Event::Revoked { target, reason: None } }
}

fn scope() -> Scope {
    let constraint = |argument: &str, limit| {
        let argument = argument.parse().unwrap();
        Constraint { argument, limit }
    };
    let right = |operation: &str, resource: &str| Right {
        operation: operation.parse().unwrap(),
        resource: resource.parse().unwrap(),
    };
    let text = |text: &str| Value::text(text).unwrap();
    Scope::new(
        [right("read", "orders-db/prod/customers"), right("refund", "orders-db/prod/orders/**")],
        [
            constraint("amount", Limit::AtMost(i64::MAX)),
            constraint("amount", Limit::AtLeast(i64::MIN)),
            constraint("dry_run", Limit::Equals(Value::Bool(true))),
            constraint("card", Limit::Equals(Value::Hidden([0xca; 32]))),
            constraint("order_id", Limit::OneOf(BTreeSet::from([text("o-17"), text("\"ö\n")]))),
        ],
    )
    .unwrap()
}

fn requirement() -> Requirement {
    let one = NonZeroU32::MIN;
    Requirement {
        approvals: BTreeMap::from([("dba".parse().unwrap(), one), ("sec".parse().unwrap(), one)]),
        max_lifetime: Duration::from_secs(600),
        max_uses: Some(one),
        online: false,
        evidence: true,
        presence: false,
    }
}

pub(crate) fn request() -> Request {
    Request {
        epoch: EPOCH,
        id: RequestId::draw(time(2), [1; 10]),
        filed_at: time(3),
        workload: spiffe("agent/refunds"),
        principal: Some("olga".parse().unwrap()),
        holder_key: holder_key(),
        confirmation: ConfirmBy::Key,
        audience: spiffe("gateway/orders"),
        scope: scope(),
        task: "case:4711".parse().unwrap(),
        purpose: "refund".parse().unwrap(),
        lifetime: Duration::from_secs(300),
        uses: None,
        requirement: requirement(),
    }
}

fn decision(answer: Answer, evidence: Option<Evidence>) -> Event {
    let digest = RequestDigest::new([0xd1; 32]);
    let person = "olga".parse().unwrap();
    let decision = Decision { person, digest, answer, reason: Some(TEXT), at: time(4), evidence };
    Event::DecisionRecorded { grant: GRANT, decision }
}

fn decided() -> [Event; 2] {
    let narrowing = Narrowing {
        lifetime: Some(Duration::from_secs(60)),
        uses: NonZeroU32::new(2),
        rights: Some(scope().rights().cloned().collect()),
        constraints: scope().constraints().cloned().collect(),
    };
    let evidence = Evidence {
        key: signer(),
        statement: b"{\"decision\":\"approve\"}".to_vec(),
        signature: "-----BEGIN SSH SIGNATURE-----\nAAAA\n".into(),
    };
    [decision(Answer::Approve(narrowing), Some(evidence)), decision(Answer::Deny, None)]
}

fn recorded() -> [Event; 3] {
    let terms = Terms {
        from: time(5),
        until: time(60_005),
        scope: scope(),
        uses: NonZeroU32::new(2),
        online: true,
    };
    let claims = Claims {
        token: TOKEN,
        grant: GRANT,
        request: RequestDigest::new([0xd1; 32]),
        task: "case:4711".parse().unwrap(),
        subject: spiffe("agent/refunds"),
        principal: None,
        audience: spiffe("gateway/orders"),
        scope: scope(),
        holder: Confirmation::Key(holder_key()),
        issued_at: time(0),
        expires_at: time(60_000),
        online: false,
        counted: true,
        key: KeyId(1),
    };
    let exchange = ExchangeId::draw(time(6), [2; 10]);
    let identity = Claims {
        holder: Confirmation::Identity,
        principal: Some("olga".parse().unwrap()),
        ..claims.clone()
    };
    [
        Event::Granted { grant: GRANT, terms },
        Event::TokenRecorded { exchange, claims },
        Event::TokenRecorded { exchange, claims: identity },
    ]
}

fn ends() -> Vec<Event> {
    let refusal = Refusal { policy: "night".into(), reason: "not at night".into() };
    let ends = [
        End::Cancelled,
        End::Completed(TaskOutcome::Succeeded),
        End::Completed(TaskOutcome::Failed),
        End::Drifted(refusal),
    ];
    ends.into_iter().map(|end| Event::Ended { grant: GRANT, end }).collect()
}

fn revocations() -> Vec<Event> {
    let targets = [
        Target::Grant(GRANT),
        Target::Token(TOKEN),
        Target::Block(vec![0xab; 64]),
        Target::Delegate(GRANT, holder_key()),
        Target::Workload(spiffe("agent/refunds")),
        Target::Task("case:4711".parse().unwrap()),
        Target::Prefix("orders-db/prod".parse().unwrap()),
        Target::Key(KeyId(1)),
    ];
    targets.into_iter().map(|target| Event::Revoked { target, reason: Some(TEXT) }).collect()
}

fn report() -> Event {
    let about = Some(About { grant: GRANT, token: TOKEN });
    let operation = Some("refund".parse().unwrap());
    let reason = || "expired".parse().unwrap();
    let seen =
        [Seen::Allowed, Seen::Refused(reason()), Seen::LetPass(reason()), Seen::Cut(reason())];
    let mut counts: Vec<_> =
        seen.map(|seen| (Line { about, operation: operation.clone(), seen }, 7)).into();
    let nobody = Seen::Refused("no_token".parse().unwrap());
    counts.insert(0, (Line { about: None, operation: None, seen: nobody }, 1));
    let instance = "orders-1".parse().unwrap();
    let batch = Batch { instance, number: 3, from: time(1), until: time(9), counts, missed: 4 };
    let digest = batch.digest(&spiffe("gateway/orders"));
    Event::UsesReported(Report { batch, unplaced: 5, digest })
}

fn locks() -> [Event; 3] {
    let id = LockId::new([0x10; 16]);
    let whole = Lock {
        id,
        workload: Some(spiffe("agent/refunds")),
        task: Some("case:4711".parse().unwrap()),
        prefix: Some("orders-db/prod".parse().unwrap()),
        person: Some("olga".parse().unwrap()),
    };
    let bare = Lock { id, workload: None, task: None, prefix: None, person: None };
    [
        Event::Locked { lock: whole, until: time(60_000), reason: Some(TEXT) },
        Event::Locked { lock: bare, until: time(60_000), reason: None },
        Event::Unlocked { lock: id },
    ]
}

/// Every kind of event; what it says need not fit together.
pub(crate) fn events() -> Vec<Event> {
    let parent = Head { epoch: Epoch::new([0xef; 16]), seq: Seq(7), hash: ChainHash::new([9; 32]) };
    let bare = Request {
        principal: None,
        confirmation: ConfirmBy::Identity,
        uses: NonZeroU32::new(3),
        requirement: Requirement { approvals: BTreeMap::new(), max_uses: None, ..requirement() },
        ..request()
    };
    let refusal = Refusal { policy: "default".into(), reason: "no policy permits it".into() };
    let exchange = ExchangeId::draw(time(7), [3; 10]);
    let use_id = UseId::draw(time(7), [4; 10]);
    let mut events = vec![
        opening().event,
        applied().event,
        Event::KeyAdded { key: KeyId(1), public: holder_key(), not_after: time(86_400_000) },
        Event::KeyRetired { key: KeyId(1) },
        Event::RequestFiled { request: request(), justification: Some(TEXT), until: time(300_003) },
        Event::RequestRefused { request: bare, justification: None, refusal },
        Event::RequirementChanged { grant: GRANT, requirement: requirement() },
        Event::DecisionWithdrawn { grant: GRANT, person: "olga".parse().unwrap() },
        Event::ExchangeAnswered { grant: GRANT, exchange, token: TOKEN },
        Event::UseRedeemed { grant: GRANT, token: TOKEN, use_id },
        Event::EpochOpened {
            epoch: Epoch::new([0xe1; 16]),
            parent: Some(parent),
            founders: BTreeSet::new(),
            format: 1,
        },
    ];
    events.extend(decided());
    events.extend(recorded());
    events.extend(ends());
    events.extend(revocations());
    events.push(report());
    events.extend(identities());
    events.extend(locks());
    events.push(Event::OptedOut { instance: "orders-1".parse().unwrap() });
    let digest = SnapshotDigest::new([0xd1; 32]);
    events.push(Event::SnapshotTaken(Snapshot { of: parent, fold: 1, digest }));
    events
}

fn identities() -> Vec<Event> {
    let changes =
        [IdentityChange::Invited, IdentityChange::Joined { generation: 3 }, IdentityChange::Locked];
    let of = |change| Event::IdentityChanged { id: spiffe("agent/refunds"), change };
    changes.map(of).into()
}

/// Every kind of entry, by every kind of actor.
pub(crate) fn entries() -> Vec<Entry> {
    let actors = [
        Actor::Host,
        Actor::Workload(spiffe("agent/refunds")),
        Actor::Person("olga".parse().unwrap(), spiffe("person/olga")),
        Actor::Gateway(spiffe("gateway/orders")),
        Actor::Broker(spiffe("broker/1")),
    ];
    let policies = [None, Some(BundleDigest::new([0xb0; 32]))];
    let envelopes = actors.iter().cycle().zip(policies.iter().cycle());
    let numbered = events().into_iter().zip(envelopes).zip(0..);
    numbered
        .map(|((event, (by, policy)), n)| Entry {
            by: by.clone(),
            at: time(n),
            policy: *policy,
            event,
        })
        .collect()
}
