//! Tokens that a hostile holder, thief or delegate would make.

use proptest::prelude::*;

use super::laws::{any_call, any_caveat, any_claims, any_steps, chain_of, resign, towards};
use super::reference::{by_library, datalog, handed_on_by_library};
use super::*;
use crate::wire::terms::Symbols;
use crate::wire::write::Writer;

/// Blocks outside the profile: authority facts from a later block, rules, unbound variables, and
/// every construct that costs or means more than a caveat.
const OUTSIDE: [&str; 52] = [
    r#"right("refund", "orders/dev/1")"#,
    r#"right_below("refund", "orders/")"#,
    r#"holder(hex:00)"#,
    r#"proven(hex:00)"#,
    r#"gateway("spiffe://shop.test/gateway/other")"#,
    r#"time(2000-01-01T00:00:00Z)"#,
    r#"operation("read")"#,
    r#"arg("amount", 1)"#,
    r#"delegate(hex:2bc2800b3316e009209ffd757dab19ccf0ae84bc7ae90654e1e81712d270f653)"#,
    r#"right($o, $r) <- operation($o), resource($r)"#,
    r#"proven($x) <- holder($x)"#,
    r#"operation($o) <- right($o, $r)"#,
    r#"check all operation($o), $o == "read""#,
    r#"reject if operation("refund")"#,
    r#"reject if time($t), $t > 2030-01-01T00:00:00Z"#,
    r#"check if true"#,
    r#"check if operation($o)"#,
    r#"check if time($t)"#,
    r#"check if operation("read") or operation("refund")"#,
    r#"check if operation("read"), resource("a")"#,
    r#"check if operation($o), $o == "read", $o == "read""#,
    r#"check if operation($o), $o != "read""#,
    r#"check if operation($o), $o == "read" || true"#,
    r#"check if operation($o), !($o == "read")"#,
    r#"check if operation($o), ($o == "read")"#,
    r#"check if operation($o), "read" == $o"#,
    r#"check if operation($o), $o.matches("re.*")"#,
    r#"check if operation($o), !$o.matches("(")"#,
    r#"check if operation($o), ["read"].any($p -> $p == $o)"#,
    r#"check if operation($o), $o.extern::f("read")"#,
    r#"check if operation($o), $o.type() == "string""#,
    r#"check if operation($o), $o.length() == 4"#,
    r#"check if operation($o), $o.starts_with("re")"#,
    r#"check if operation($o), ["read", 1].contains($o)"#,
    r#"check if operation($o), [["read"]].contains($o)"#,
    r#"check if operation($o), $o.contains("read")"#,
    r#"check if operation("Read")"#,
    r#"check if operation(1)"#,
    r#"check if resource($r), $r.starts_with("orders/prod")"#,
    r#"check if resource($r), $r.starts_with("/")"#,
    r#"check if resource($r), $r.starts_with("orders//")"#,
    r#"check if resource($r), $r.ends_with("/17")"#,
    r#"check if resource("orders/../prod")"#,
    r#"check if gateway("orders")"#,
    r#"check if time($t), $t > 2020-01-01T00:00:00Z"#,
    r#"check if time($t), $t < 5"#,
    r#"check if arg("amount", $v), $v < 500"#,
    r#"check if arg("amount", $v), $v <= "500""#,
    r#"check if arg("amount", $v), $v + 1 <= 500"#,
    r#"check if arg("iban", hex:00)"#,
    r#"check if arg("amount", null)"#,
    r#"check if right("refund", "orders/prod/1") trusting previous"#,
];

#[test]
fn a09_only_caveats_stand_in_holder_blocks() {
    for source in OUTSIDE {
        let written = by_library(&minted(&claims()), &format!("{source};"), 1);
        assert_eq!(decode(&written).err(), Some(Malformed::Profile(1)), "{source}");
        // No better where a caveat stands beside it, in a later block, or in a delegation.
        let beside = format!(r#"{source}; check if operation("refund");"#);
        let written = by_library(&minted(&claims()), &beside, 1);
        assert_eq!(decode(&written).err(), Some(Malformed::Profile(1)), "{source}");
        let caveat = [Caveat::Operation(BTreeSet::from(["refund".parse().unwrap()]))];
        let second = attenuate(&minted(&claims()), &caveat, &fresh(1)).unwrap();
        let second = Decoded::read(second.expose()).unwrap();
        let written = by_library(&second, &format!("{source};"), 2);
        assert_eq!(decode(&written).err(), Some(Malformed::Profile(2)), "{source}");
        let key = hex::encode(holder_key(1).as_bytes());
        let handed = format!("delegate(hex:{key}); {source};");
        let written = handed_on_by_library(&minted(&claims()), &holder(0), &handed);
        assert_eq!(decode(&written).err(), Some(Malformed::Profile(1)), "{source}");
    }
}

/// An array is as long as it is written, however often it names one thing.
#[test]
fn a09_an_array_that_repeats_itself_is_no_longer_than_another() {
    for (members, refused) in [(32, None), (33, Some(Malformed::Profile(1)))] {
        let list = vec!["5"; members].join(", ");
        let source = format!(r#"check if arg("amount", $v), [{list}].contains($v);"#);
        let written = by_library(&minted(&claims()), &source, 1);
        assert_eq!(decode(&written).err(), refused, "{members}");
    }
}

/// Facts with unbound variables cannot be written by the library's text; by hand they can.
#[test]
fn a09_variables_in_facts_and_unbound_variables_are_refused() {
    let variable = schema::Term { content: Some(schema::Content::Variable(5)) };
    let read = |symbols: &Symbols, known: usize, facts, checks: Vec<schema::Check>| {
        let symbols = symbols.clone().since(known);
        let block = schema::Block { symbols, facts, checks, version: None };
        let delegates = !block.facts.is_empty();
        let version = Some(caveats::version(&block, delegates));
        let block = schema::Block { version, ..block };
        decode(&with_block(&minted(&claims()), &block, delegates)).err()
    };
    let mut symbols = Symbols::default();
    let key = schema::Content::Bytes(holder_key(1).as_bytes().to_vec());
    let good = schema::Fact { predicate: predicate(symbols.number(DELEGATE), key) };
    let mut bad = good.clone();
    bad.predicate.terms = vec![variable.clone()];
    assert_eq!(read(&symbols, 0, vec![good], vec![]), None);
    assert_eq!(read(&symbols, 0, vec![bad], vec![]), Some(Malformed::Profile(1)));

    let mut symbols = minted_symbols();
    let known = symbols.len();
    let operation = symbols.number("operation");
    let (o, p) = (variable_of(&mut symbols, "o"), variable_of(&mut symbols, "p"));
    let read_text = schema::Content::Text(symbols.number("read"));
    let about = |variable: &schema::Content| {
        let value = |content: &schema::Content| {
            schema::Operator::Value(schema::Term { content: Some(content.clone()) })
        };
        let same = schema::Operator::Binary(schema::Binary { kind: schema::op::SAME });
        let ops = [value(variable), value(&read_text), same];
        let ops = ops.map(|operator| schema::Op { operator: Some(operator) }).into();
        let query = schema::Query {
            head: terms::head(),
            body: vec![predicate(operation, o.clone())],
            expressions: vec![schema::Expression { ops }],
        };
        schema::Check { queries: vec![query] }
    };
    let (good, unbound) = (about(&o), about(&p));
    let mut headed = good.clone();
    headed.queries[0].head.terms.push(variable);
    let mut named = good.clone();
    named.queries[0].head.name = 3;
    assert_eq!(read(&symbols, known, vec![], vec![good]), None);
    for bad in [unbound, headed, named] {
        let refused = read(&symbols, known, vec![], vec![bad]);
        assert_eq!(refused, Some(Malformed::Profile(1)));
    }
}

/// One token is for one gateway, whoever signs that it is for two.
#[test]
fn a06_a_second_audience_is_not_of_this_format() {
    let bare = minted(&claims());
    for other in ["spiffe://shop.test/gateway/other", GATEWAY] {
        let mut symbols = minted_symbols();
        let mut container = bare.container.clone();
        let mut block: schema::Block = schema::read(&container.authority.block).unwrap();
        let is_audience = |fact: &schema::Fact, symbols: &Symbols| {
            symbols.get(fact.predicate.name) == Some("audience")
        };
        let place = block.facts.iter().position(|fact| is_audience(fact, &symbols)).unwrap();
        let (name, other) = (symbols.number("audience"), symbols.number(other));
        let second = schema::Fact { predicate: predicate(name, schema::Content::Text(other)) };
        block.facts.insert(place + 1, second);
        block.symbols = symbols.since(0);
        container.authority.block = prost::Message::encode_to_vec(&block);
        resign(&mut container, &bare);
        let written = prost::Message::encode_to_vec(&container);
        assert_eq!(decode(&written).err(), Some(Malformed::Authority));
    }
}

/// `bare` with `block` appended and signed by the right keys, whatever it holds.
fn with_block(bare: &Decoded, block: &schema::Block, by_holder: bool) -> Vec<u8> {
    let mut container = bare.container.clone();
    let external = by_holder.then(|| schema::ExternalSignature {
        signature: vec![0; 64],
        key: schema::PublicKey { algorithm: 0, key: holder_key(0).as_bytes().to_vec() },
    });
    let next = SigningKey::from_bytes(&fresh(1)).verifying_key().to_bytes().to_vec();
    container.blocks.push(schema::SignedBlock {
        block: prost::Message::encode_to_vec(block),
        next_key: schema::PublicKey { algorithm: 0, key: next },
        signature: Vec::new(),
        version: (by_holder || block.version == Some(6)).then_some(1),
        external,
    });
    container.proof.next_secret = Some(fresh(1).to_vec());
    resign(&mut container, bare);
    prost::Message::encode_to_vec(&container)
}

#[test]
fn a11_versions_are_those_that_a_block_needs_and_no_others() {
    let mut written = Writer::after(minted_symbols());
    caveats::write(&Caveat::Below("orders/prod/eu".parse().unwrap()), &mut written);
    let written: schema::Block = schema::read(&written.finish(3)).unwrap();
    let block = |version| schema::Block { version, ..written.clone() };
    let bare = minted(&claims());
    assert!(decode(&with_block(&bare, &block(Some(3)), false)).unwrap().check(&root()).is_ok());
    for version in [None, Some(0), Some(2), Some(4), Some(5), Some(6), Some(7), Some(u32::MAX)] {
        let written = with_block(&bare, &block(version), false);
        assert_eq!(decode(&written).err(), Some(Malformed::Profile(1)), "{version:?}");
    }
    for version in [Some(0), Some(1), Some(2), Some(u32::MAX)] {
        let written = with_block(&bare, &block(Some(3)), false);
        let mut container: schema::Biscuit = schema::read(&written).unwrap();
        container.blocks[0].version = version;
        resign(&mut container, &bare);
        assert!(!accepted(&container), "{version:?}");
        container.blocks[0].version = None;
        container.authority.version = version;
        resign(&mut container, &bare);
        assert!(!accepted(&container), "{version:?}");
    }
    // The external signature of a delegation covers the block before in version 1 alone.
    let handed = delegate(&bare, &holder(0), &holder_key(1), &[], &fresh(1)).unwrap();
    let handed = Decoded::read(handed.expose()).unwrap();
    for version in [None, Some(0), Some(1), Some(2)] {
        let mut container = handed.container.clone();
        container.blocks[0].version = version;
        resign(&mut container, &bare);
        assert_eq!(accepted(&container), version == Some(1), "{version:?}");
    }
}

/// The predicate of that name, with one term.
fn predicate(name: u64, term: schema::Content) -> schema::Predicate {
    schema::Predicate { name, terms: vec![schema::Term { content: Some(term) }] }
}

fn variable_of(symbols: &mut Symbols, name: &str) -> schema::Content {
    schema::Content::Variable(u32::try_from(symbols.number(name)).unwrap())
}

fn minted_symbols() -> Symbols {
    template::read(&minted(&claims()).container.authority.block).unwrap().2
}

#[test]
fn a10_only_the_present_holder_hands_a_token_on() {
    let bare = minted(&claims());
    let key = |n| hex::encode(holder_key(n).as_bytes());
    let stranger = handed_on_by_library(&bare, &holder(1), &format!("delegate(hex:{});", key(1)));
    assert_eq!(decode(&stranger).err(), Some(Malformed::Delegation(1)));
    // The first holder handed it on, and has nothing more to say.
    let handed = delegate(&bare, &holder(0), &holder_key(1), &[], &fresh(1)).unwrap();
    let handed = Decoded::read(handed.expose()).unwrap();
    let again = handed_on_by_library(&handed, &holder(0), &format!("delegate(hex:{});", key(2)));
    assert_eq!(decode(&again).err(), Some(Malformed::Delegation(2)));
    // A token that is bound to an identity is nobody's to hand on.
    let named = minted(&Claims { holder: Confirmation::Identity, ..claims() });
    let refused = delegate(&named, &holder(0), &holder_key(1), &[], &fresh(1));
    assert_eq!(refused.err(), Some(IssueError::Malformed(Malformed::Delegation(1))));
    // Exactly one key, of 32 bytes, that is a good one.
    for source in [
        String::new(),
        format!("delegate(hex:{}); delegate(hex:{});", key(1), key(2)),
        format!("delegate(hex:{}, 1);", key(1)),
        format!("delegate(\"{}\");", key(1)),
        "delegate(hex:00);".into(),
        format!("delegate(hex:01{});", "00".repeat(31)),
        format!("delegates(hex:{});", key(1)),
    ] {
        let written = handed_on_by_library(&bare, &holder(0), &source);
        assert_eq!(decode(&written).err(), Some(Malformed::Profile(1)), "{source}");
    }
}

/// Who has the bytes of a token can append blocks to it, but not hand it on.
#[test]
fn a10_a_delegation_that_the_holder_did_not_sign_is_refused() {
    use ed25519_dalek::Signer as _;
    let bare = minted(&claims());
    let handed = delegate(&bare, &holder(0), &holder_key(1), &[], &fresh(1)).unwrap();
    let handed = Decoded::read(handed.expose()).unwrap();
    let secret = bare.container.proof.next_secret.as_deref().unwrap().try_into().unwrap();
    let appended = |external: &[u8]| {
        let mut container = handed.container.clone();
        let block = &mut container.blocks[0];
        block.external.as_mut().unwrap().signature = external.to_vec();
        let message = chain::message(block, Some(&bare.container.authority.signature));
        let signature = SigningKey::from_bytes(&secret).sign(&message);
        block.signature = signature.to_bytes().to_vec();
        container
    };
    let signed = handed.container.blocks[0].external.clone().unwrap().signature;
    assert!(accepted(&appended(&signed)));
    let block = &handed.container.blocks[0].block;
    let over = |previous: &[u8]| chain::external_message(block, previous);
    let right = over(&bare.container.authority.signature);
    // By a stranger, over another token, over nothing, of no shape.
    let other = minted(&Claims { token: TokenId::new([5; 16]), ..claims() });
    for bad in [
        holder(1).sign(&right).to_bytes(),
        holder(0).sign(&over(&other.container.authority.signature)).to_bytes(),
        holder(0).sign(block).to_bytes(),
        [0; 64],
    ] {
        assert!(!accepted(&appended(&bad)));
    }
}

/// The caveat that says nothing in this setting.
pub(super) fn idle() -> Vec<Caveat> {
    vec![Caveat::Below("orders".parse().unwrap())]
}

#[test]
fn three_delegations_and_eight_blocks_are_counted_before_any_signature() {
    let grow = |mut token: Decoded, n: u8| {
        for n in 1..=n {
            token = Decoded::read(attenuate(&token, &idle(), &fresh(n)).unwrap().expose()).unwrap();
        }
        token
    };
    let eight = grow(minted(&claims()), 8);
    let ninth = attenuate(&eight, &idle(), &fresh(9)).err();
    assert_eq!(ninth, Some(IssueError::Malformed(Malformed::TooManyBlocks)));
    let mut container = eight.container.clone();
    container.blocks.push(container.blocks[0].clone());
    container.blocks[0].signature = vec![0; 64];
    assert_eq!(
        decode(&prost::Message::encode_to_vec(&container)).err(),
        Some(Malformed::TooManyBlocks)
    );

    let mut token = minted(&claims());
    for n in 0..3 {
        let next = delegate(&token, &holder(n), &holder_key(n + 1), &[], &fresh(n)).unwrap();
        token = Decoded::read(next.expose()).unwrap();
    }
    let fourth = delegate(&token, &holder(3), &holder_key(4), &[], &fresh(9)).err();
    assert_eq!(fourth, Some(IssueError::Malformed(Malformed::TooManyBlocks)));
    assert!(token.check(&root()).is_ok());
}

/// Two good tokens, each block a part of one and the rest of the other: what a signature vouches
/// for is what is read, and not what stands beside it.
#[test]
fn a59_no_part_of_a_block_stands_under_the_signature_of_another() {
    let handed_on = |claims: &Claims, n: u8| {
        let token = attenuate(&minted(claims), &idle(), &fresh(n)).unwrap();
        let token = Decoded::read(token.expose()).unwrap();
        let next = delegate(&token, &holder(0), &holder_key(n), &idle(), &fresh(n + 1)).unwrap();
        Decoded::read(next.expose()).unwrap().container.clone()
    };
    let other_claims = Claims { token: TokenId::new([9; 16]), ..claims() };
    let (one, other) = (handed_on(&claims(), 1), handed_on(&other_claims, 3));
    assert!(accepted(&one) && accepted(&other));
    type Swap = fn(&mut schema::SignedBlock, &schema::SignedBlock);
    let swaps: [Swap; 4] = [
        |to, from| to.block.clone_from(&from.block),
        |to, from| to.next_key.clone_from(&from.next_key),
        |to, from| to.signature.clone_from(&from.signature),
        |to, from| to.external.clone_from(&from.external),
    ];
    for (place, swap) in (0..3).flat_map(|place| swaps.map(|swap| (place, swap))) {
        let mut container = one.clone();
        let from = match place {
            0 => &other.authority,
            place => &other.blocks[place - 1],
        };
        let to = match place {
            0 => &mut container.authority,
            place => &mut container.blocks[place - 1],
        };
        swap(to, from);
        assert_eq!(accepted(&container), container == one, "block {place}");
    }
}

/// How many chains of blocks are put together: `DAYFLY_TEST_CHAINS`, or some.
fn chains() -> u32 {
    std::env::var("DAYFLY_TEST_CHAINS").ok().and_then(|n| n.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(chains()))]

    /// Every selection and order of blocks but the token's own, with the proof that the thief has.
    #[test]
    fn a08_strip_reorder_truncate_duplicate(
        claims in any_claims(), steps in any_steps(),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let token = chain_of(&claims, &steps).pop().unwrap();
        let whole = &token.container;
        let mut blocks = vec![whole.authority.clone()];
        blocks.extend(whole.blocks.iter().cloned());
        let pick = |index: &prop::sample::Index| blocks[index.index(blocks.len())].clone();
        let picked: Vec<_> = order.iter().map(pick).collect();
        let mut container = whole.clone();
        container.blocks = picked.clone();
        prop_assert_eq!(accepted(&container), container == *whole);
        if let [authority, blocks @ ..] = picked.as_slice() {
            container.authority = authority.clone();
            container.blocks = blocks.to_vec();
            prop_assert_eq!(accepted(&container), container == *whole);
        }
    }

    /// Blocks put together from hostile parts: let in or not, never wider than without.
    #[test]
    fn a09_hostile_blocks_never_widen(
        claims in any_claims(), call in any_call(), how in 0..8u8,
        parts in proptest::collection::vec(proptest::sample::select(&OUTSIDE[..]), 0..3),
        caveat in any_caveat(), style in 0..4u8,
    ) {
        let caveat = datalog(&caveat, style);
        let source: String = parts.iter().map(|part| format!("{part};")).collect();
        let bare = minted(&claims);
        let written = by_library(&bare, &format!("{source}{caveat};"), 1);
        match decode(&written) {
            Ok(token) => {
                prop_assert!(parts.is_empty());
                let call = towards(token.unverified(), call, how);
                prop_assert!(!ours(token.unverified(), &call) || ours(bare.unverified(), &call));
            }
            Err(malformed) => prop_assert_eq!(malformed, Malformed::Profile(1)),
        }
    }
}
