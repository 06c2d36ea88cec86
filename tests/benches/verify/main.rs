//! What a decision at the gateway costs, against the cryptography that it cannot do without. In one
//! run, in one thread, rounds of the bare work and of the real one in turn; medians of rounds.
//!
//! `cargo bench -p dayfly-tests --bench verify [-- TOKENS]`
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::arithmetic_side_effects, reason = "figures are small")]

mod world;

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

use anyhow::Context as _;
use dayfly_tests::sizes::sizes;
use dayfly_verifier::verify::{Attempt, Outcome, Shown};
use ed25519_dalek::{Signer as _, SigningKey};

use world::{Held, METHOD, PATH, World};

const TOKENS: usize = 10_000;
const ROUNDS: usize = 20;

fn main() -> anyhow::Result<()> {
    let [tokens] = sizes([TOKENS], [ROUNDS]);
    let tokens = tokens.max(ROUNDS);
    println!("# verify: {tokens} tokens of one right and one constraint, each of its own holder");
    println!("# one thread; median of {ROUNDS} rounds, bare and real in turn");
    let world = World::new()?;
    let tokens = (0..tokens).map(|n| world.token(n)).collect::<anyhow::Result<Vec<_>>>()?;
    let share = tokens.len() / ROUNDS;
    never_seen(&world, &tokens, share)?;
    repeated(&world, &tokens)?;
    with_proof(&world, &tokens, share, 1, "verify_with_dpop_first")?;
    with_proof(&world, &tokens, share, 2, "verify_with_dpop")
}

/// Each token once: its signature is checked. Bare: the strict check of one signature, and the
/// derivation of the public half of the token's last secret.
fn never_seen(world: &World, tokens: &[Held], share: usize) -> anyhow::Result<()> {
    let key = SigningKey::from_bytes(&[3; 32]);
    let signature = key.sign(&[5; 700]);
    let public = key.verifying_key();
    let (mut bare, mut real) = (Vec::new(), Vec::new());
    for part in tokens.chunks(share) {
        bare.push(per_item(part, |held| {
            black_box(public.verify_strict(black_box(&[5; 700]), &signature))?;
            black_box(SigningKey::from_bytes(black_box(&held.seed)).verifying_key());
            Ok(())
        })?);
        real.push(per_item(part, |held| verify(world, held, Shown::Peer(&held.peer)))?);
    }
    figure("verify_never_seen", &mut real, &mut bare);
    Ok(())
}

/// Each token again, shown over mutual TLS. Bare: a look-up of its text in a map.
fn repeated(world: &World, tokens: &[Held]) -> anyhow::Result<()> {
    let texts = tokens.iter().map(|held| Box::<str>::from(held.token.expose()));
    let known: HashMap<Box<str>, usize> = texts.zip(0..).collect();
    let (mut bare, mut real) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(per_item(tokens, |held| {
            black_box(known.get(held.token.expose())).context("known")?;
            Ok(())
        })?);
        real.push(per_item(tokens, |held| verify(world, held, Shown::Peer(&held.peer)))?);
    }
    println!("# verify_repeated finds a token by its text: no base64, in the bare look-up neither");
    figure("verify_repeated", &mut real, &mut bare);
    Ok(())
}

/// Each token again, with a proof by DPoP that was never shown: the `nth` of its holder's. Of the
/// first, the holder's key is made ready to verify with, too. Bare: one strict signature check,
/// with a key that is ready.
fn with_proof(
    world: &World,
    tokens: &[Held],
    share: usize,
    nth: u8,
    name: &str,
) -> anyhow::Result<()> {
    let key = SigningKey::from_bytes(&[3; 32]);
    let signature = key.sign(&[5; 400]);
    let public = key.verifying_key();
    let proofs: Vec<String> = tokens.iter().map(|held| world.proof(held, nth)).collect();
    let pairs: Vec<(&Held, &String)> = tokens.iter().zip(&proofs).collect();
    let (mut bare, mut real) = (Vec::new(), Vec::new());
    for part in pairs.chunks(share) {
        bare.push(per_item(part, |_| {
            black_box(public.verify_strict(black_box(&[5; 400]), &signature))?;
            Ok(())
        })?);
        real.push(per_item(part, |(held, proof)| {
            verify(world, held, Shown::Dpop { proof, method: METHOD, path: PATH })
        })?);
    }
    figure(name, &mut real, &mut bare);
    Ok(())
}

fn verify(world: &World, held: &Held, shown: Shown<'_>) -> anyhow::Result<()> {
    let attempt = Attempt { token: held.token.expose(), shown, call: &world.call };
    match world.verifier.verify(&attempt)? {
        Outcome::Verified(verified) => drop(black_box(verified)),
        Outcome::MustAsk(_) => anyhow::bail!("the token is not counted"),
    }
    Ok(())
}

/// Microseconds for each of `items`.
#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn per_item<T>(items: &[T], mut work: impl FnMut(&T) -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let start = Instant::now();
    items.iter().try_for_each(&mut work)?;
    let count = u32::try_from(items.len())?;
    Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(count))
}

fn figure(name: &str, real: &mut [f64], bare: &mut [f64]) {
    let (real, bare) = (median(real), median(bare));
    println!("figure {name} {real:.2} us ratio {:.2}", real / bare);
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
