//! What is refused at the edge, under which name.

use dayfly_verifier::scope::{Constraint, Limit, Value};
use proptest::prelude::*;

use super::*;
use crate::api::parse;

fn base() -> v1::RequestAccessRequest {
    let key = SigningKey::from_bytes(&[1; 32]);
    let scope = Scope::new(["read a/b".parse().unwrap()], []).unwrap();
    v1::RequestAccessRequest {
        request_id: RequestId::draw(Timestamp::from_ms(START_MS).unwrap(), [1; 10]).to_string(),
        holder_key: key.verifying_key().to_bytes().to_vec().into(),
        audience: "spiffe://shop.test/gateway/orders".into(),
        scope: Some(render::scope(&scope)),
        task: "task-1".into(),
        purpose: "testing".into(),
        proof: Some(v1::HolderProof { at_ms: 1, signature: vec![0; 64].into() }),
        ..Default::default()
    }
}

fn field(filing: v1::RequestAccessRequest) -> String {
    match parse::filed(filing) {
        Ok(_) => "nothing".into(),
        Err(invalid) => invalid.field.into_owned(),
    }
}

#[test]
fn every_field_is_refused_by_its_name() {
    assert_eq!(field(base()), "nothing");
    type Change = fn(&mut v1::RequestAccessRequest);
    let changes: [(&str, Change); 17] = [
        ("request_id", |f| f.request_id = "936da01f-9abd-4d9d-80c7-02af85c822a8".into()),
        ("principal", |f| f.principal = "a b".into()),
        ("holder_key", |f| f.holder_key = vec![0; 32].into()),
        ("holder_key", |f| f.holder_key = vec![1; 31].into()),
        ("audience", |f| f.audience = "orders".into()),
        ("scope", |f| f.scope = None),
        ("scope.rights", |f| f.scope = Some(v1::Scope::default())),
        ("scope.rights[0].resource", |f| {
            f.scope.as_mut().unwrap().rights[0].resource = "a//b".into()
        }),
        ("scope.rights[0].operation", |f| {
            f.scope.as_mut().unwrap().rights[0].operation = "A".into()
        }),
        ("task", |f| f.task = "../x".into()),
        ("purpose", |f| f.purpose = String::new()),
        ("justification", |f| f.justification = "ä".repeat(1025)),
        ("lifetime_seconds", |f| f.lifetime_seconds = 43_201),
        ("uses", |f| f.uses = 10_001),
        ("proof", |f| f.proof = None),
        ("proof.signature", |f| f.proof.as_mut().unwrap().signature = vec![0; 63].into()),
        ("proof.at_ms", |f| f.proof.as_mut().unwrap().at_ms = -1),
    ];
    for (name, change) in changes {
        let mut filing = base();
        change(&mut filing);
        assert_eq!(field(filing), name);
    }
}

#[test]
fn constraints_are_whole_and_distinct() {
    use v1::constraint::Limit as Wire;
    use v1::value::Kind;
    let one = |limit| v1::Constraint { argument: "amount".into(), limit };
    let value = |kind| v1::Value { kind };
    let set = |values| one(Some(Wire::OneOf(v1::Values { values })));
    let int = |n| value(Some(Kind::Int(n)));
    let bad = [
        one(None),
        one(Some(Wire::Equals(value(None)))),
        one(Some(Wire::Equals(value(Some(Kind::Hidden(vec![0; 32].into())))))),
        one(Some(Wire::Equals(value(Some(Kind::Text("x".repeat(257))))))),
        set(vec![]),
        set(vec![int(1), int(1)]),
        set(vec![int(1), value(Some(Kind::Bool(true)))]),
        set((0..33).map(int).collect()),
        v1::Constraint { argument: "Amount".into(), limit: Some(Wire::AtMost(1)) },
    ];
    for constraint in bad {
        assert!(parse::constraint(constraint.clone()).is_err(), "{constraint:?}");
    }
}

#[test]
fn a_revocation_names_one_thing() {
    use v1::revocation_target::Target as Wire;
    let parsed = |target| parse::target(Some(v1::RevocationTarget { target }));
    assert!(parse::target(None).is_err() && parsed(None).is_err());
    let bad = [
        Wire::Grant("x".into()),
        Wire::Token(String::new()),
        Wire::Block(vec![0; 63].into()),
        Wire::Delegate(v1::Delegate { grant: "00".repeat(16), holder_key: "00".repeat(32) }),
        Wire::Workload("spiffe://shop.test/agent/**".into()),
        Wire::Task("a b".into()),
        Wire::ResourcePrefix("orders/**".into()),
    ];
    for target in bad {
        assert!(parsed(Some(target.clone())).is_err(), "{target:?}");
    }
    assert!(parsed(Some(Wire::Key(u32::MAX))).is_ok());
}

fn limit() -> impl Strategy<Value = Limit> {
    prop_oneof![
        any::<i64>().prop_map(Limit::AtMost),
        any::<i64>().prop_map(Limit::AtLeast),
        any::<i64>().prop_map(|n| Limit::Equals(Value::Int(n))),
        "\\PC{0,40}".prop_map(|text| Limit::Equals(Value::text(&text).unwrap())),
        prop::collection::btree_set(any::<i64>().prop_map(Value::Int), 1..9).prop_map(Limit::OneOf),
    ]
}

proptest! {
    #[test]
    fn what_is_rendered_parses_to_the_same(
        resources in prop::collection::btree_set("[a-z]{1,8}(/[a-z]{1,8}){0,3}(/\\*\\*)?", 1..5),
        limits in prop::collection::btree_set(limit(), 0..5),
    ) {
        let rights = resources.iter().map(|resource| format!("read {resource}").parse().unwrap());
        let constraints = limits
            .into_iter()
            .map(|limit| Constraint { argument: "amount".parse().unwrap(), limit });
        let scope = Scope::new(rights, constraints).unwrap();
        prop_assert_eq!(parse::scope(Some(render::scope(&scope))).unwrap(), scope);
    }

    /// Every number at its edges is a value or a refusal, never a panic or another number.
    #[test]
    fn a57_numbers_at_their_edges(
        lifetime in prop_oneof![
            Just(0), Just(1), Just(43_200), Just(43_201), Just(u64::MAX), any::<u64>()
        ],
        uses in prop_oneof![
            Just(0), Just(1), Just(10_000), Just(10_001), Just(u32::MAX), any::<u32>()
        ],
        at_ms in prop_oneof![
            Just(i64::MIN), Just(-1), Just(0), Just(253_402_300_799_999), Just(253_402_300_800_000),
            Just(i64::MAX), any::<i64>()
        ],
    ) {
        let mut filing = base();
        (filing.lifetime_seconds, filing.uses) = (lifetime, uses);
        filing.proof.as_mut().unwrap().at_ms = at_ms;
        let in_range = lifetime <= 43_200
            && uses <= 10_000
            && (0..=253_402_300_799_999).contains(&at_ms);
        match parse::filed(filing) {
            Err(_) => prop_assert!(!in_range),
            Ok(filed) => {
                prop_assert!(in_range);
                prop_assert_eq!(filed.filing.lifetime.map_or(0, |life| life.as_secs()), lifetime);
                prop_assert_eq!(filed.filing.uses.map_or(0, Into::into), uses);
                prop_assert_eq!(render::ms(filed.proof.at), at_ms);
            }
        }
    }
}
