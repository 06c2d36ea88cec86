//! The dossier against its published vectors, and the laws that hold for every request.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use crate::dossier::{
    BadSignature, MAX_CANONICAL_BYTES, Salt, Statement, Unverified, parse_canonical,
    verify_decision,
};
use crate::holder::HolderKey;
use crate::id::{Epoch, GrantId, RequestDigest, RequestId};
use crate::request::{Answer, ConfirmBy, Narrowing, Request, Requirement};
use crate::scope::{Constraint, Limit, Right, Scope, Value};
use crate::time::Timestamp;
use proptest::prelude::*;
use serde_json::Value as Json;

fn vectors(text: &str) -> Json {
    serde_json::from_str(text).unwrap()
}

fn requests() -> Json {
    vectors(include_str!("../../../tests/vectors/request.json"))
}

fn decisions() -> Json {
    vectors(include_str!("../../../tests/vectors/decision.json"))
}

fn list<'a>(json: &'a Json, name: &str) -> &'a [Json] {
    json[name].as_array().unwrap()
}

fn text<'a>(json: &'a Json, name: &str) -> &'a str {
    json[name].as_str().unwrap()
}

#[test]
fn bad_request_vectors_are_refused() {
    let vectors = requests();
    assert_eq!(list(&vectors, "bad").len(), 55);
    for vector in list(&vectors, "bad") {
        let refused = parse_canonical(text(vector, "bytes").as_bytes()).is_err();
        assert!(refused, "{}: {}", vector["number"], vector["note"]);
    }
}

#[test]
fn good_request_vectors_hold() {
    let vectors = requests();
    assert_eq!(list(&vectors, "good").len(), 9);
    for vector in list(&vectors, "good") {
        let canonical = text(vector, "canonical").as_bytes();
        let request = parse_canonical(canonical).unwrap();
        assert_eq!(request.canonical(), canonical, "{}", vector["number"]);
        assert_eq!(request.digest().to_string(), text(vector, "digest"));
        assert_eq!(request.grant_id().to_string(), text(vector, "grant"));
    }
}

#[test]
fn bad_decision_vectors_are_refused_for_their_reason() {
    let vectors = decisions();
    let grant = text(&vectors, "grant").parse().unwrap();
    let digest = text(&vectors, "digest").parse().unwrap();
    assert_eq!(list(&vectors, "bad").len(), 35);
    for vector in list(&vectors, "bad") {
        let statement = text(vector, "statement").as_bytes();
        let refused = match verify_decision(statement, text(vector, "signature"), &grant, &digest) {
            Ok(_) => "not",
            Err(Unverified::Statement(_)) => "statement",
            Err(Unverified::OtherRequest) => "other_request",
            Err(Unverified::OtherDigest) => "other_digest",
            Err(Unverified::Signature(bad)) => match bad {
                // Whether a kind is unknown or unwanted depends on the features of `ssh-key`.
                BadSignature::Form | BadSignature::KeyKind
                    if text(vector, "refused") == "other_kind" =>
                {
                    "other_kind"
                }
                BadSignature::Form => "form",
                BadSignature::Namespace => "namespace",
                BadSignature::KeyKind => "key_kind",
                BadSignature::NotPresent => "not_present",
                BadSignature::Mismatch => "mismatch",
            },
        };
        assert_eq!(refused, text(vector, "refused"), "{}: {}", vector["number"], vector["note"]);
    }
}

#[test]
fn a_key_of_small_order_is_nobodys() {
    let point = ssh_key::public::Ed25519PublicKey({
        let mut identity = [0; 32];
        identity[0] = 1;
        identity
    });
    let key = ssh_key::PublicKey::from(ssh_key::public::KeyData::Ed25519(point));
    assert!(key.to_openssh().unwrap().parse::<crate::request::SignerKey>().is_err());
}

#[test]
fn good_decision_vectors_hold() {
    let vectors = decisions();
    let grant: GrantId = text(&vectors, "grant").parse().unwrap();
    let digest = text(&vectors, "digest").parse().unwrap();
    assert_eq!(list(&vectors, "good").len(), 5);
    for vector in list(&vectors, "good") {
        let bytes = text(vector, "statement").as_bytes();
        let verified = verify_decision(bytes, text(vector, "signature"), &grant, &digest).unwrap();
        assert_eq!(verified.statement().to_bytes(), bytes, "{}", vector["number"]);
        assert_eq!(verified.key().as_str(), text(vector, "key"));
        assert_eq!(Json::from(verified.shows_presence()), vector["presence"]);
        assert_eq!(verified.statement().person.as_str(), "alice");
    }
}

#[test]
fn texts_are_digested_with_their_salt() {
    let vectors = decisions();
    for vector in list(&vectors, "texts") {
        let salt = Salt::from_slice(&hex::decode(text(vector, "salt")).unwrap()).unwrap();
        let digest = salt.digest(text(vector, "text")).unwrap();
        assert_eq!(digest.to_string(), text(vector, "digest"));
        let other = Salt::new([9; 16]).digest(text(vector, "text")).unwrap();
        assert_ne!(other, digest);
    }
    assert!(Salt::new([0; 16]).digest(&"x".repeat(2049)).is_err());
    assert!(Salt::from_slice(&[0; 15]).is_err());
}

#[test]
fn what_is_longer_than_can_be_shown_is_refused() {
    let value = |n: usize| Value::text(&format!("{n:0>256}")).unwrap();
    let set = |name: usize| Constraint {
        argument: format!("a{name}").parse().unwrap(),
        limit: Limit::OneOf((0..32).map(value).collect()),
    };
    let right = Right { operation: "read".parse().unwrap(), resource: "a".parse().unwrap() };
    let mut request =
        parse_canonical(text(&requests()["good"][0], "canonical").as_bytes()).unwrap();
    request.scope = Scope::new([right], (0..16).map(set)).unwrap();
    let canonical = request.canonical();
    assert!(canonical.len() > MAX_CANONICAL_BYTES);
    assert!(parse_canonical(&canonical).is_err());
}

/// A key with a known small number as its secret.
fn holder_key(seed: u8) -> HolderKey {
    let secret = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
    HolderKey::from_slice(secret.verifying_key().as_bytes()).unwrap()
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::Int),
        ".{0,40}".prop_map(|text| Value::text(&text).unwrap()),
        any::<bool>().prop_map(Value::Bool),
        any::<[u8; 32]>().prop_map(Value::Hidden),
    ]
}

fn constraint() -> impl Strategy<Value = Constraint> {
    let limit = prop_oneof![
        value().prop_map(Limit::Equals),
        proptest::collection::btree_set(any::<i64>().prop_map(Value::Int), 1..9)
            .prop_map(Limit::OneOf),
        any::<i64>().prop_map(Limit::AtMost),
        any::<i64>().prop_map(Limit::AtLeast),
    ];
    ("[a-z][a-z0-9_]{0,9}", limit)
        .prop_map(|(name, limit)| Constraint { argument: name.parse().unwrap(), limit })
}

fn right() -> impl Strategy<Value = Right> {
    ("[a-z][a-z0-9._-]{0,9}", "[a-zA-Z0-9_:@-]{1,9}(/[a-zA-Z0-9_:@-]{1,9}){0,3}(/\\*\\*)?")
        .prop_map(|(operation, resource)| Right {
            operation: operation.parse().unwrap(),
            resource: resource.parse().unwrap(),
        })
}

fn scope() -> impl Strategy<Value = Scope> {
    let rights = proptest::collection::btree_set(right(), 1..5);
    let constraints = proptest::collection::btree_set(constraint(), 0..5);
    (rights, constraints).prop_map(|(r, c)| Scope::new(r, c).unwrap())
}

fn count() -> impl Strategy<Value = NonZeroU32> {
    (1..=u32::MAX).prop_map(|count| NonZeroU32::new(count).unwrap())
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let approvals = proptest::collection::btree_map(
        "[a-zA-Z0-9][a-zA-Z0-9._-]{0,9}".prop_map(|group| group.parse().unwrap()),
        count(),
        0..4,
    );
    let flags = any::<(bool, bool, bool)>();
    (approvals, any::<u64>(), proptest::option::of(count()), flags).prop_map(
        |(approvals, seconds, max_uses, (online, evidence, presence))| Requirement {
            approvals,
            max_lifetime: Duration::from_secs(seconds),
            max_uses,
            online,
            evidence,
            presence,
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let name = || "[a-zA-Z0-9][a-zA-Z0-9._-]{0,20}";
    let path = || "spiffe://[a-z0-9.-]{1,12}/[a-zA-Z0-9_-]{1,12}";
    let who = (any::<[u8; 16]>(), any::<[u8; 10]>(), path(), proptest::option::of(name()));
    let what = (any::<u8>(), any::<bool>(), path(), scope(), name(), name());
    let limits = (any::<u64>(), proptest::option::of(count()), requirement(), 0..1u64 << 47);
    (who, what, limits).prop_map(|(who, what, limits)| {
        let (epoch, random, workload, principal) = who;
        let (key, by_key, audience, scope, task, purpose) = what;
        let (seconds, uses, requirement, at) = limits;
        let filed_at = Timestamp::from_ms(at).unwrap();
        Request {
            epoch: Epoch::new(epoch),
            id: RequestId::draw(filed_at, random),
            filed_at,
            workload: workload.parse().unwrap(),
            principal: principal.map(|name| name.parse().unwrap()),
            holder_key: holder_key(key),
            confirmation: if by_key { ConfirmBy::Key } else { ConfirmBy::Identity },
            audience: audience.parse().unwrap(),
            scope,
            task: task.parse().unwrap(),
            purpose: purpose.parse().unwrap(),
            lifetime: Duration::from_secs(seconds),
            uses,
            requirement,
        }
    })
}

/// Every request that differs from `a` in one field, which it has from `b`. A new field of a
/// request or a requirement does not compile until it stands here.
fn single_changes(a: &Request, b: &Request) -> Vec<(&'static str, Request)> {
    let Request {
        epoch,
        id,
        filed_at,
        workload,
        principal,
        holder_key,
        confirmation,
        audience,
        scope,
        task,
        purpose,
        lifetime,
        uses,
        requirement: Requirement { approvals, max_lifetime, max_uses, online, evidence, presence },
    } = b.clone();
    let with = |change: &dyn Fn(&mut Request)| {
        let mut changed = a.clone();
        change(&mut changed);
        changed
    };
    vec![
        ("epoch", with(&|r| r.epoch = epoch)),
        ("id", with(&|r| r.id = id)),
        ("filed_at", with(&|r| r.filed_at = filed_at)),
        ("workload", with(&|r| r.workload = workload.clone())),
        ("principal", with(&|r| r.principal = principal.clone())),
        ("holder_key", with(&|r| r.holder_key = holder_key)),
        ("confirmation", with(&|r| r.confirmation = confirmation)),
        ("audience", with(&|r| r.audience = audience.clone())),
        ("scope", with(&|r| r.scope = scope.clone())),
        ("task", with(&|r| r.task = task.clone())),
        ("purpose", with(&|r| r.purpose = purpose.clone())),
        ("lifetime", with(&|r| r.lifetime = lifetime)),
        ("uses", with(&|r| r.uses = uses)),
        ("approvals", with(&|r| r.requirement.approvals = approvals.clone())),
        ("max_lifetime", with(&|r| r.requirement.max_lifetime = max_lifetime)),
        ("max_uses", with(&|r| r.requirement.max_uses = max_uses)),
        ("online", with(&|r| r.requirement.online = online)),
        ("evidence", with(&|r| r.requirement.evidence = evidence)),
        ("presence", with(&|r| r.requirement.presence = presence)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn a13_any_single_field_changes_the_digest(a in request(), b in request()) {
        let mut seen = BTreeMap::from([(a.canonical(), "unchanged")]);
        for (field, changed) in single_changes(&a, &b) {
            if changed != a {
                prop_assert_ne!(changed.digest(), a.digest(), "{}", field);
                prop_assert_eq!(seen.insert(changed.canonical(), field), None, "{}", field);
            }
        }
    }

    #[test]
    fn writing_and_reading_are_inverse(request in request()) {
        let canonical = request.canonical();
        prop_assert_eq!(parse_canonical(&canonical).unwrap(), request);
    }

    #[test]
    fn any_other_byte_reads_as_another_request_or_none(
        request in request(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = request.canonical();
        let at = at.index(bytes.len());
        if bytes[at] != byte {
            bytes[at] = byte;
            if let Ok(other) = parse_canonical(&bytes) {
                prop_assert_ne!(&other, &request);
                prop_assert_ne!(other.digest(), request.digest());
            }
        }
    }

    #[test]
    fn any_bytes_read_or_refuse(bytes in any::<Vec<u8>>(), text in ".{0,200}") {
        let _request = parse_canonical(&bytes);
        let _statement = Statement::parse(text.as_bytes());
    }

    #[test]
    fn statements_read_as_they_were_written(
        request in request(), lifetime in proptest::option::of(1..u64::MAX),
        uses in proptest::option::of(count()),
        rights in proptest::option::of(proptest::collection::btree_set(right(), 1..4)),
        constraints in proptest::collection::btree_set(constraint(), 0..4), deny in any::<bool>(),
    ) {
        let narrowing =
            Narrowing { lifetime: lifetime.map(Duration::from_secs), uses, rights, constraints };
        let statement = Statement {
            grant: request.grant_id(),
            digest: request.digest(),
            person: "alice".parse().unwrap(),
            answer: if deny { Answer::Deny } else { Answer::Approve(narrowing) },
            reason: None,
            at: request.filed_at,
        };
        prop_assert_eq!(Statement::parse(&statement.to_bytes()).unwrap(), statement);
    }
}

#[test]
fn an_empty_set_of_rights_is_not_the_absence_of_narrowing() {
    let none = Narrowing { rights: Some(BTreeSet::new()), ..Narrowing::default() };
    let statement = Statement {
        grant: GrantId::new([1; 16]),
        digest: RequestDigest::new([2; 32]),
        person: "alice".parse().unwrap(),
        answer: Answer::Approve(none),
        reason: None,
        at: Timestamp::default(),
    };
    assert!(Statement::parse(&statement.to_bytes()).is_err());
}
