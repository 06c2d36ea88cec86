//! The library's authorizer is the reference: for every token inside the profile and every call,
//! it and this crate agree. It is told the listed ambient facts, each once, and nothing else.

use biscuit_auth::builder::BlockBuilder;
use proptest::prelude::*;

use super::laws::{any_call, any_caveat, any_claims, any_steps, chain_of, towards};
use super::*;

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

fn literal(value: &Value) -> String {
    match value {
        Value::Text(text) => quoted(text),
        Value::Int(_) | Value::Bool(_) | Value::Hidden(_) => value.to_string(),
    }
}

/// A caveat in Datalog, in one of the ways in which another library's user may write it.
pub(super) fn datalog(caveat: &Caveat, style: u8) -> String {
    let among = |predicate: &str, members: Vec<String>| {
        let list = members.join(", ");
        match (style % 4, members.as_slice()) {
            (0, [one]) => format!("check if {}", predicate.replace("$x", one)),
            (1, [one]) => format!("check if {predicate}, $x == {one}"),
            (2, [one]) => format!("check if {predicate}, $x === {one}"),
            (3, _) => format!("check if {predicate}, [{list}].contains($x)"),
            (_, _) => format!("check if {predicate}, {{{list}}}.contains($x)"),
        }
    };
    let names = |set: Vec<&str>| set.into_iter().map(quoted).collect::<Vec<_>>();
    match caveat {
        Caveat::Before(end) => {
            let (op, secs) = if style.is_multiple_of(2) { ("<", 0) } else { ("<=", 1) };
            let end = Timestamp::from_secs(end.as_secs() - secs).unwrap().to_string();
            format!("check if time($t), $t {op} {}", end.replace(".000", ""))
        }
        Caveat::Operation(set) => {
            among("operation($x)", names(set.iter().map(|o| o.as_str()).collect()))
        }
        Caveat::Resource(set) => {
            among("resource($x)", names(set.iter().map(|r| r.as_str()).collect()))
        }
        Caveat::Gateway(set) => {
            among("gateway($x)", names(set.iter().map(|g| g.as_str()).collect()))
        }
        Caveat::Task(set) => among("task($x)", names(set.iter().map(|t| t.as_str()).collect())),
        Caveat::Below(base) => format!("check if resource($r), $r.starts_with(\"{base}/\")"),
        Caveat::Argument(Constraint { argument, limit }) => {
            let about = format!("arg({}, $x)", quoted(argument.as_str()));
            match limit {
                Limit::Equals(value) => among(&about, vec![literal(value)]),
                Limit::OneOf(values) => among(&about, values.iter().map(literal).collect()),
                Limit::AtMost(most) => format!("check if {about}, $x <= {most}"),
                Limit::AtLeast(least) => format!("check if {about}, $x >= {least}"),
            }
        }
    }
}

/// What the same caveat is once it was read: a set of one value and that value are the same to
/// whoever is judged by them, but not to whoever compares caveats.
fn read_as(caveat: &Caveat, style: u8) -> Caveat {
    let Caveat::Argument(Constraint { argument, limit }) = caveat else { return caveat.clone() };
    let mut limit = limit.clone();
    if let Limit::Equals(value) = &limit
        && style % 4 == 3
    {
        limit = Limit::OneOf(BTreeSet::from([value.clone()]));
    } else if let Limit::OneOf(set) = &limit
        && set.len() == 1
        && style % 4 < 3
    {
        limit = Limit::Equals(set.first().unwrap().clone());
    }
    Caveat::Argument(Constraint { argument: argument.clone(), limit })
}

/// `token` with a block that the library wrote.
pub(super) fn by_library(token: &Decoded, source: &str, n: u8) -> Vec<u8> {
    let block = BlockBuilder::new().code(source).unwrap();
    let next = library_key(&fresh(n));
    library(token).unwrap().append_with_keypair(&next, block).unwrap().to_vec().unwrap()
}

/// `token`, handed on by the library with a block signed by `from`.
pub(super) fn handed_on_by_library(token: &Decoded, from: &SigningKey, source: &str) -> Vec<u8> {
    let from = library_key(&from.to_bytes());
    let token = library(token).unwrap();
    let request = token.third_party_request().unwrap();
    let block = BlockBuilder::new().code(source).unwrap();
    let block = request.create_block(&from.private(), block).unwrap();
    let next = library_key(&fresh(9));
    let token = token.append_third_party_with_keypair(from.public(), block, next).unwrap();
    token.to_vec().unwrap()
}

#[test]
fn a_token_without_its_ambient_facts_is_refused_by_the_library() {
    let token = library(&minted(&full_claims())).unwrap();
    let mut bare = AuthorizerBuilder::new().policy("allow if true").unwrap().build(&token).unwrap();
    assert!(bare.authorize().is_err());
}

#[test]
fn the_library_accepts_and_refuses_what_the_template_says() {
    let claims = claims();
    let token = library(&minted(&claims)).unwrap();
    let good = Call {
        time: Timestamp::from_secs(ISSUED + 119).unwrap(),
        gateway: claims.audience.clone(),
        operation: "refund".parse().unwrap(),
        resource: "orders/prod/o-17".parse().unwrap(),
        arguments: Arguments::new(),
        proven: claims.holder,
    };
    assert!(theirs(&token, &claims, &good));
    let late = Call { time: claims.expires_at, ..good.clone() };
    let away =
        Call { gateway: "spiffe://shop.test/gateway/order".parse().unwrap(), ..good.clone() };
    let other = Call { operation: "read".parse().unwrap(), ..good.clone() };
    let beside = Call { resource: "orders/prod-archive/1".parse().unwrap(), ..good.clone() };
    let base = Call { resource: "orders/prod".parse().unwrap(), ..good.clone() };
    let stolen = Call { proven: Confirmation::Key(holder_key(1)), ..good.clone() };
    let named = Call { proven: Confirmation::Identity, ..good.clone() };
    for bad in [late, away, other, beside, base, stolen, named] {
        assert!(!theirs(&token, &claims, &bad), "{bad:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_library_agrees_on_every_token_and_call(
        claims in any_claims(), steps in any_steps(), call in any_call(), how in 0..8u8,
    ) {
        let token = chain_of(&claims, &steps).pop().unwrap();
        let reference = library(&token).unwrap();
        let content = token.check(&root()).unwrap().content;
        let call = towards(&content, call, how);
        prop_assert_eq!(ours(&content, &call), theirs(&reference, &claims, &call));
    }

    #[test]
    fn blocks_that_the_library_wrote_are_read_and_mean_the_same(
        claims in any_claims(), caveat in any_caveat(), style in 0..4u8, call in any_call(),
        how in 0..8u8,
    ) {
        let written = by_library(&minted(&claims), &format!("{};", datalog(&caveat, style)), 1);
        let token = decode(&written).unwrap();
        let reference = library(&token).unwrap();
        let content = token.check(&root()).unwrap().content;
        prop_assert_eq!(&content.links[0].caveats, &[read_as(&caveat, style)]);
        let call = towards(&content, call, how);
        prop_assert_eq!(ours(&content, &call), theirs(&reference, &claims, &call));
    }

    #[test]
    fn delegations_that_the_library_wrote_are_read_and_mean_the_same(
        caveat in any_caveat(), style in 0..4u8, call in any_call(), how in 0..8u8,
    ) {
        let key = hex::encode(holder_key(1).as_bytes());
        let source = format!("delegate(hex:{key}); {};", datalog(&caveat, style));
        let token = decode(&handed_on_by_library(&minted(&claims()), &holder(0), &source)).unwrap();
        let reference = library(&token).unwrap();
        let content = token.check(&root()).unwrap().content;
        prop_assert_eq!(content.holder(), Confirmation::Key(holder_key(1)));
        prop_assert_eq!(&content.links[0].caveats, &[read_as(&caveat, style)]);
        let call = towards(&content, call, how);
        prop_assert_eq!(ours(&content, &call), theirs(&reference, &claims(), &call));
    }
}
