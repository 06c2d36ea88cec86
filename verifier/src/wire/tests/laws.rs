//! Laws over random tokens and calls: writing and reading are inverse, any bytes are read or
//! refused, what a holder adds never widens.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const OPERATIONS: [&str; 3] = ["read", "refund", "write"];
const RESOURCES: [&str; 7] = ["a", "a/b", "a/b/c", "a/bc", "a/bc/d", "admin", "ab"];
const GATEWAYS: [&str; 2] = [GATEWAY, "spiffe://shop.test/gateway/orders2"];
const TASKS: [&str; 3] = ["ticket-17", "ticket-18", "time"];
const ARGUMENTS: [&str; 3] = ["amount", "code", "time"];

/// One of a few texts, as what it is: few, so that what is asked for is often what is there.
fn one<T: std::str::FromStr + std::fmt::Debug + Clone>(
    of: &'static [&'static str],
) -> impl Strategy<Value = T>
where
    T::Err: std::fmt::Debug,
{
    select(of).prop_map(|text| text.parse().unwrap())
}

fn some<T: std::str::FromStr + std::fmt::Debug + Clone + Ord>(
    of: &'static [&'static str],
) -> impl Strategy<Value = BTreeSet<T>>
where
    T::Err: std::fmt::Debug,
{
    btree_set(one(of), 1..=of.len().min(3))
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        select(vec![i64::MIN, -1, 0, 1, 7, i64::MAX]).prop_map(Value::Int),
        select(vec!["", "7", "x\"\\\n", "amount"]).prop_map(|t| Value::text(t).unwrap()),
        any::<bool>().prop_map(Value::Bool),
        select(vec![0, 7]).prop_map(|n| Value::Hidden([n; 32])),
    ]
}

fn limit() -> impl Strategy<Value = Limit> {
    let ints = || select(vec![i64::MIN, -1, 0, 1, 7, i64::MAX]);
    prop_oneof![
        value().prop_map(Limit::Equals),
        btree_set(value(), 1..5)
            .prop_map(Limit::OneOf)
            .prop_filter("of one type", |limit| limit.check().is_ok()),
        ints().prop_map(Limit::AtMost),
        ints().prop_map(Limit::AtLeast),
    ]
}

fn constrained() -> impl Strategy<Value = Constraint> {
    (one(&ARGUMENTS), limit()).prop_map(|(argument, limit)| Constraint { argument, limit })
}

fn time() -> impl Strategy<Value = Timestamp> {
    // Often one of a few whole seconds, so that calls meet the ends of tokens and caveats.
    let ms = prop_oneof![0..200_000u64, (0..4u64).prop_map(|n| n * 40_000)];
    ms.prop_map(|ms| Timestamp::from_ms(ISSUED * 1000 + ms).unwrap())
}

pub(super) fn any_caveat() -> impl Strategy<Value = Caveat> {
    prop_oneof![
        time().prop_map(|time| Caveat::Before(time.floor_to_second())),
        some(&OPERATIONS).prop_map(Caveat::Operation),
        some(&RESOURCES).prop_map(Caveat::Resource),
        one(&RESOURCES).prop_map(Caveat::Below),
        some(&GATEWAYS).prop_map(Caveat::Gateway),
        some(&TASKS).prop_map(Caveat::Task),
        constrained().prop_map(Caveat::Argument),
    ]
}

fn any_scope() -> impl Strategy<Value = Scope> {
    let pattern = (one(&RESOURCES), any::<bool>()).prop_map(|(base, below)| match below {
        true => crate::resource::ResourcePattern::Below(base),
        false => crate::resource::ResourcePattern::Exact(base),
    });
    let right =
        (one(&OPERATIONS), pattern).prop_map(|(operation, resource)| Right { operation, resource });
    (btree_set(right, 1..4), btree_set(constrained(), 0..3))
        .prop_map(|(rights, constraints)| Scope::new(rights, constraints).unwrap())
}

fn confirmation() -> impl Strategy<Value = Confirmation> {
    prop_oneof![
        3 => (0..2u8).prop_map(|n| Confirmation::Key(holder_key(n))),
        1 => Just(Confirmation::Identity),
    ]
}

pub(super) fn any_claims() -> impl Strategy<Value = Claims> {
    let life = prop_oneof![1..200u64, (1..5u64).prop_map(|n| n * 40)];
    let named = (one(&TASKS), of(one(&["alice", "bob"])), any::<[bool; 2]>(), any::<[u8; 16]>());
    (any_scope(), confirmation(), life, named).prop_map(
        |(scope, holder, life, (task, principal, [online, counted], token))| Claims {
            scope,
            holder,
            task,
            principal,
            online,
            counted,
            token: TokenId::new(token),
            expires_at: Timestamp::from_secs(ISSUED + life).unwrap(),
            ..claims()
        },
    )
}

/// What holders did to a token, in turn: caveats, and whether the block hands the token on.
pub(super) type Steps = Vec<(Vec<Caveat>, bool)>;

pub(super) fn any_steps() -> impl Strategy<Value = Steps> {
    vec((vec(any_caveat(), 1..3), prop::bool::weighted(0.3)), 0..4)
}

/// The token of `claims` after each of the steps, the bare one first. The `n`th delegate is the
/// `n`th holder; a step that cannot be done ends it.
pub(super) fn chain_of(claims: &Claims, steps: &Steps) -> Vec<Decoded> {
    let mut tokens = vec![minted(claims)];
    let mut from = (0..2).find(|n| claims.holder == Confirmation::Key(holder_key(*n)));
    for ((caveats, hands_on), n) in steps.iter().zip(2u8..) {
        let last = tokens.last().unwrap();
        let next = match (hands_on, from) {
            (false, _) => attenuate(last, caveats, &fresh(n)),
            (true, Some(by)) => delegate(last, &holder(by), &holder_key(n), caveats, &fresh(n)),
            (true, None) => break,
        };
        from = if *hands_on { Some(n) } else { from };
        match next {
            Ok(token) => tokens.push(Decoded::read(token.expose()).unwrap()),
            Err(IssueError::Malformed(Malformed::TooManyBlocks | Malformed::TooLong)) => break,
            Err(other) => panic!("{other}"),
        }
    }
    tokens
}

pub(super) fn any_call() -> impl Strategy<Value = Call> {
    let what = (one(&OPERATIONS), one(&RESOURCES));
    let gateway = prop_oneof![4 => Just(GATEWAYS[0]), 1 => Just(GATEWAYS[1])];
    (time(), gateway, what, btree_map(one(&ARGUMENTS), value(), 0..4), confirmation()).prop_map(
        |(time, gateway, (operation, resource), arguments, proven)| Call {
            time,
            gateway: gateway.parse().unwrap(),
            operation,
            resource,
            arguments,
            proven,
        },
    )
}

/// `call`, made to be what the token asks for in most respects: random calls are mostly refused.
pub(super) fn towards(content: &Content, call: Call, how: u8) -> Call {
    let claims = &content.claims;
    let mut call = call;
    if how & 1 == 0 {
        call.proven = claims.holder;
        call.gateway = claims.audience.clone();
    }
    if how & 2 == 0 {
        let right = claims.scope.rights().next().unwrap();
        call.operation = right.operation.clone();
        call.resource = match &right.resource {
            crate::resource::ResourcePattern::Exact(exact) => exact.clone(),
            crate::resource::ResourcePattern::Below(base) => format!("{base}/x").parse().unwrap(),
        };
    }
    if how & 4 == 0 {
        let caveats = content.caveats().filter_map(|caveat| {
            if let Caveat::Argument(constraint) = caveat { Some(constraint) } else { None }
        });
        for Constraint { argument, limit } in claims.scope.constraints().chain(caveats) {
            let value = match limit {
                Limit::Equals(value) => value.clone(),
                Limit::OneOf(values) => values.first().unwrap().clone(),
                Limit::AtMost(n) | Limit::AtLeast(n) => Value::Int(*n),
            };
            call.arguments.insert(argument.clone(), value);
        }
    }
    call
}

/// Signs every block of a chain anew, by the keys that [`chain_of`] gave it.
pub(super) fn resign(container: &mut schema::Biscuit, bare: &Decoded) {
    let first = bare.container.proof.next_secret.as_deref().unwrap().try_into().unwrap();
    let mut known: Vec<SigningKey> = (0..20).map(holder).collect();
    known.extend((0..20).map(|n| SigningKey::from_bytes(&fresh(n))));
    known.push(SigningKey::from_bytes(&first));
    let key_of = |public: &[u8]| {
        known.iter().find(|key| key.verifying_key().as_bytes()[..] == *public).unwrap()
    };
    use ed25519_dalek::Signer as _;
    let message = chain::message(&container.authority, None);
    container.authority.signature = signer().sign(&message).unwrap().to_vec();
    let mut previous = container.authority.clone();
    for block in &mut container.blocks {
        if let Some(external) = &mut block.external {
            let message = chain::external_message(&block.block, &previous.signature);
            let key = key_of(&external.key.key);
            external.signature = key.sign(&message).to_bytes().to_vec();
        }
        let message = chain::message(block, Some(&previous.signature));
        block.signature = key_of(&previous.next_key.key).sign(&message).to_bytes().to_vec();
        previous = block.clone();
    }
}

proptest! {
    #[test]
    fn reading_is_the_inverse_of_writing(claims in any_claims(), steps in any_steps()) {
        let tokens = chain_of(&claims, &steps);
        for (token, blocks) in tokens.into_iter().zip(0..) {
            let again = decode(&bytes(&token)).unwrap();
            prop_assert!(again.unverified() == token.unverified());
            let content = token.check(&root()).unwrap().content;
            prop_assert!(content.claims == claims && content.record == record());
            prop_assert_eq!(content.links.len(), blocks);
            for (link, (caveats, hands_on)) in content.links.iter().zip(&steps) {
                prop_assert_eq!(&link.caveats, caveats);
                prop_assert_eq!(link.delegate.is_some(), *hands_on);
            }
        }
    }

    #[test]
    fn a_caveat_is_read_as_it_is_printed(caveat in any_caveat(), text in ".{0,60}") {
        prop_assert_eq!(caveat.to_string().parse(), Ok(caveat));
        let _ = text.parse::<Caveat>();
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..600), text in ".{0,200}") {
        prop_assert!(decode(&bytes).is_err());
        prop_assert!(Decoded::read(&text).is_err());
        let _ = template::read(&bytes);
        let _: Option<schema::Block> = schema::read(&bytes);
    }

    /// The signatures do not help the reader here: the mutated block is signed by its right keys.
    #[test]
    fn a_mutated_block_is_refused_or_means_what_the_library_says(
        claims in any_claims(), steps in any_steps(), at in any::<prop::sample::Index>(),
        which in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
        call in any_call(), how in 0..8u8,
    ) {
        let token = chain_of(&claims, &steps).pop().unwrap();
        let mut container = token.container.clone();
        let block = match which.index(container.blocks.len() + 1).checked_sub(1) {
            Some(n) => &mut container.blocks[n].block,
            None => &mut container.authority.block,
        };
        let at = at.index(block.len());
        if cut { block.truncate(at) } else { block[at] = byte }
        resign(&mut container, &minted(&claims));
        if let Ok(token) = decode(&prost::Message::encode_to_vec(&container)) {
            let reference = library(&token).unwrap();
            let content = token.check(&root()).unwrap().content;
            let call = towards(&content, call, how);
            prop_assert_eq!(ours(&content, &call), theirs(&reference, &content.claims, &call));
        }
    }

    #[test]
    fn one_changed_byte_is_never_accepted(
        claims in any_claims(), steps in any_steps(), at in any::<prop::sample::Index>(),
        flip in 1..=255u8,
    ) {
        let token = chain_of(&claims, &steps).pop().unwrap();
        let mut bytes = bytes(&token);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(decode(&bytes).is_err() || decode(&bytes).unwrap().check(&root()).is_err());
    }

    /// Judged by the library: what is added to a token takes nothing but away.
    #[test]
    fn attenuation_never_widens(
        claims in any_claims(), steps in any_steps(), call in any_call(), how in 0..8u8,
    ) {
        let tokens = chain_of(&claims, &steps);
        let call = towards(tokens.last().unwrap().unverified(), call, how);
        let mut before = true;
        for token in tokens {
            let now = theirs(&library(&token).unwrap(), &claims, &call);
            prop_assert!(before || !now);
            prop_assert_eq!(now, ours(token.unverified(), &call));
            before = now;
        }
    }
}
