//! What was found out about Biscuits, each as a regression test: a hostile token is refused by its
//! bounds, its encoding or the profile, before anything of it is evaluated.

use biscuit_auth::builder::BlockBuilder;
use prost::Message as _;

use super::hostile::idle;
use super::laws::resign;
use super::reference::by_library;
use super::*;
use crate::proof::{DpopProof, HolderProof, Nonces};

fn text(token: &Decoded) -> String {
    URL_SAFE_NO_PAD.encode(bytes(token))
}

/// Another spelling of the same token must not be another token to caches and replay guards.
#[test]
fn there_is_one_text_form() {
    let token = minted(&claims());
    let good = text(&token);
    assert!(Decoded::read(&good).is_ok());
    let mut spellings = vec![
        String::new(),
        format!("{good}="),
        format!("{good}=="),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{good}A"),
        format!("biscuit:{good}"),
        base64::engine::general_purpose::URL_SAFE.encode([bytes(&token), vec![0]].concat()),
    ];
    let standard = good.replace('_', "/").replace('-', "+");
    assert_ne!(standard, good);
    spellings.push(standard);
    for spelling in spellings {
        assert!(Decoded::read(&spelling).is_err(), "{spelling}");
    }
    // The unused bits of the last character are zero: no other character may stand there.
    let last = good.chars().last().unwrap();
    let accepted = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['-', '_']);
    let accepted = accepted.filter(|c| {
        let other = format!("{}{c}", &good[..good.len() - 1]);
        Decoded::read(&other).is_ok_and(|token| token.check(&root()).is_ok())
    });
    assert_eq!(accepted.collect::<Vec<_>>(), [last]);
}

#[test]
fn unknown_fields_and_long_encodings_are_refused() {
    let good = bytes(&minted(&claims()));
    assert!(decode(&good).is_ok());
    // Field 15 as a varint, field 16 as bytes, the known field 1 a second time.
    for extra in [&[0x78, 0x01][..], &[0x82, 0x01, 0x01, 0x00], &[0x08, 0x03]] {
        assert_eq!(decode(&[&good, extra].concat()).err(), Some(Malformed::Container));
    }
    // The key hint as a varint of two bytes instead of one.
    assert_eq!(good[..2], [0x08, 0x03]);
    let long = [&[0x08, 0x83, 0x00], &good[2..]].concat();
    assert_eq!(decode(&long).err(), Some(Malformed::Container));
    for field in [&[0x78, 0x01][..], &[0x12, 0x01, b'x']] {
        // An unknown field, and a context, inside a block that the right key signed.
        let bare = minted(&claims());
        let token = attenuate(&bare, &idle(), &fresh(1)).unwrap();
        let mut container = Decoded::read(token.expose()).unwrap().container.clone();
        container.blocks[0].block.extend_from_slice(field);
        resign(&mut container, &bare);
        assert_eq!(decode(&container.encode_to_vec()).err(), Some(Malformed::Profile(1)));
        container.authority.block.extend_from_slice(field);
        resign(&mut container, &bare);
        assert_eq!(decode(&container.encode_to_vec()).err(), Some(Malformed::Authority));
    }
}

#[test]
fn the_key_hint_is_the_key_that_was_signed_for() {
    let mut container = minted(&claims()).container.clone();
    for hint in [None, Some(0), Some(4), Some(u32::MAX)] {
        container.root_key_id = hint;
        assert_eq!(decode(&container.encode_to_vec()).err(), Some(Malformed::KeyHint));
    }
}

#[test]
fn sealed_tokens_are_refused() {
    let sealed = library(&minted(&claims())).unwrap().seal().unwrap().to_vec().unwrap();
    assert_eq!(decode(&sealed).err(), Some(Malformed::Sealed));
    let mut container = minted(&claims()).container.clone();
    container.proof.next_secret = None;
    assert_eq!(decode(&container.encode_to_vec()).err(), Some(Malformed::Container));
    container.proof.next_secret = Some(vec![1; 31]);
    assert_eq!(decode(&container.encode_to_vec()).err(), Some(Malformed::Container));
    // The proof of another token ends no chain but its own.
    container.proof.next_secret = Some(vec![1; 32]);
    let token = decode(&container.encode_to_vec()).unwrap();
    assert_eq!(token.check(&root()).err(), Some(BadSignature { block: 0 }));
}

/// 761 bytes kept the library's authorizer busy for 44 s; a regex in 354 bytes for 0.18 s.
#[test]
fn costly_programs_are_refused_unread() {
    let chain: String = (0..24).map(|n| format!("f($a{n}), ")).collect();
    let facts: String = (0..30).map(|n| format!("f({n}); ")).collect();
    let many = "operation($a), ".repeat(12);
    let any = "[1,2,3].any($p -> [1,2,3].any($q -> [1,2,3].any($r -> $p + $q + $r > 99)))";
    for source in [
        format!("{facts} check if {chain} $a0 == 99;"),
        format!("check if {many} operation(\"refund\");"),
        format!("check if operation($o), {any};"),
        format!("check if operation($o), $o.matches(\"{}\");", "(a|aa)*".repeat(20)),
        format!("check if operation($o), $o == \"read\" {};", "|| true".repeat(40)),
    ] {
        let written = by_library(&minted(&claims()), &source, 1);
        assert_eq!(decode(&written).err(), Some(Malformed::Profile(1)), "{source}");
    }
}

#[test]
fn two_hundred_blocks_are_not_two_hundred_signatures() {
    let mut token = library(&minted(&claims())).unwrap();
    for n in 0..9 {
        let block = BlockBuilder::new().code("check if operation(\"refund\");").unwrap();
        token = token.append_with_keypair(&library_key(&fresh(n)), block).unwrap();
        let read = decode(&token.to_vec().unwrap());
        assert_eq!(read.err(), (n == 8).then_some(Malformed::TooManyBlocks));
    }
    let long = "A".repeat(MAX_TEXT_BYTES + 1);
    assert_eq!(Decoded::read(&long).err(), Some(Malformed::TooLong));
    let mut container = minted(&claims()).container.clone();
    container.authority.block = vec![0; MAX_BYTES];
    assert_eq!(decode(&container.encode_to_vec()).err(), Some(Malformed::TooLong));
}

/// With a key of small order, or a signature that is not canonical, anybody could sign.
#[test]
fn signatures_are_strict() {
    let small = {
        let mut identity = [0u8; 32];
        identity[0] = 1;
        VerifyingKey::from_bytes(&identity).unwrap()
    };
    // R = A = the identity and S = 0 satisfies the equation that a lax verifier checks.
    let mut forged = minted(&claims()).container.clone();
    forged.authority.signature = [small.as_bytes().as_slice(), &[0; 32]].concat();
    let message = chain::message(&forged.authority, None);
    let signature = ed25519_dalek::Signature::from_slice(&forged.authority.signature).unwrap();
    use ed25519_dalek::Verifier as _;
    assert!(small.verify(&message, &signature).is_ok(), "the trap is not there any more");
    let token = decode(&forged.encode_to_vec()).unwrap();
    assert_eq!(token.check(&small).err(), Some(BadSignature { block: 0 }));
    // S + L is the same scalar in other bytes.
    let mut container = minted(&claims()).container.clone();
    let order = hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let mut carry = 0u16;
    for (byte, add) in container.authority.signature[32..].iter_mut().zip(order.unwrap()) {
        carry += u16::from(*byte) + u16::from(add);
        *byte = carry.to_le_bytes()[0];
        carry >>= 8;
    }
    let token = decode(&container.encode_to_vec()).unwrap();
    assert_eq!(token.check(&root()).err(), Some(BadSignature { block: 0 }));
}

#[test]
fn keys_of_other_algorithms_and_lengths_are_refused() {
    let token = attenuate(&minted(&claims()), &idle(), &fresh(1)).unwrap();
    let good = Decoded::read(token.expose()).unwrap().container.clone();
    let refused = |change: &dyn Fn(&mut schema::Biscuit)| {
        let mut container = good.clone();
        change(&mut container);
        assert_eq!(decode(&container.encode_to_vec()).err(), Some(Malformed::Container));
    };
    refused(&|c| c.authority.next_key.algorithm = 1);
    refused(&|c| c.blocks[0].next_key.algorithm = 1);
    refused(&|c| c.blocks[0].next_key.key.push(0));
    refused(&|c| c.blocks[0].signature.push(0));
    refused(&|c| c.authority.signature.clear());
}

/// One text with two numbers, or a number of the holder's own for a well-known word, could mean one
/// thing to us and another to the library.
#[test]
fn symbols_have_one_number() {
    let bare = minted(&claims());
    for symbol in ["operation", "query", "for_task", "ticket-17"] {
        let token = attenuate(&bare, &idle(), &fresh(1)).unwrap();
        let mut container = Decoded::read(token.expose()).unwrap().container.clone();
        let mut block: schema::Block = schema::read(&container.blocks[0].block).unwrap();
        block.symbols.push(symbol.into());
        container.blocks[0].block = block.encode_to_vec();
        resign(&mut container, &bare);
        assert_eq!(decode(&container.encode_to_vec()).err(), Some(Malformed::Profile(1)));
    }
    // Nor is the authority block one that brings a text twice, known or not, used or not.
    for symbol in ["operation", "query", "for_task", "ticket-17", "nobody uses it"] {
        for (at, used) in [(0, false), (0, true), (usize::MAX, false), (usize::MAX, true)] {
            let mut container = bare.container.clone();
            let mut block: schema::Block = schema::read(&container.authority.block).unwrap();
            let at = at.min(block.symbols.len());
            block.symbols.insert(at, symbol.into());
            if used {
                block.facts[0].predicate.name = 1024 + at as u64;
            }
            container.authority.block = block.encode_to_vec();
            resign(&mut container, &bare);
            let refused = decode(&container.encode_to_vec()).err();
            assert_eq!(refused, Some(Malformed::Authority), "{symbol} at {at}, used: {used}");
        }
    }
}

/// A proof by the wrong key, or claims of another key, must not turn into a panic or a yes.
#[test]
fn a_token_is_checked_with_the_key_it_is_given() {
    let other = LocalSigner::new(KeyId(3), &[6; 32], Zeroizing::new([8; 32]));
    let token = minted(&claims());
    assert_eq!(token.key_id(), KeyId(3));
    assert_eq!(token.check(&other.public()).err(), Some(BadSignature { block: 0 }));
}

/// The library's `{:?}` of a key or a token prints its secrets. Of these there is no `{:?}`: where
/// one gets it, it is not clear any more which `unprinted` is meant, and this does not compile.
#[test]
fn what_is_secret_has_no_debug_form() {
    trait Unprinted<Which> {
        fn unprinted() {}
    }
    impl<T: ?Sized> Unprinted<()> for T {}
    impl<T: ?Sized + std::fmt::Debug> Unprinted<u8> for T {}
    <Token as Unprinted<_>>::unprinted();
    <Decoded as Unprinted<_>>::unprinted();
    <Checked as Unprinted<_>>::unprinted();
    <Content as Unprinted<_>>::unprinted();
    <schema::Biscuit as Unprinted<_>>::unprinted();
    <schema::Proof as Unprinted<_>>::unprinted();
    <LocalSigner as Unprinted<_>>::unprinted();
    <HolderProof as Unprinted<_>>::unprinted();
    <DpopProof<'static> as Unprinted<_>>::unprinted();
    <Nonces as Unprinted<_>>::unprinted();
}
