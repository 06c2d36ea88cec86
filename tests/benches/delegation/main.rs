//! What it costs a holder to narrow a token and to hand it on, and a gateway to judge one that was
//! handed on three times, against the cryptography that they cannot do without. In one run, in one
//! thread, rounds of the bare work and of the real one in turn; medians of rounds.
//!
//! `cargo bench -p dayfly-tests --bench delegation [-- TOKENS]`
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::arithmetic_side_effects, reason = "figures are small")]

#[path = "../verify/world.rs"]
mod world;

use std::hint::black_box;
use std::time::Instant;

use dayfly_tests::sizes::sizes;
use dayfly_verifier::caveat::Caveat;
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::scope::{Constraint, Limit};
use dayfly_verifier::verify::{Attempt, Outcome, Peer, Shown};
use dayfly_verifier::wire::{Decoded, attenuate, delegate};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use world::{Held, METHOD, PATH, World};

const TOKENS: usize = 4_000;
const ROUNDS: usize = 20;
/// How many times a token is handed on, each time with a caveat.
const DEEP: u8 = 3;
/// The signatures of such a token: the broker's, and two for each time that it was handed on.
const SIGNATURES: usize = 7;
/// About as much as one of them is over.
const SIGNED: [u8; 300] = [5; 300];

fn main() -> anyhow::Result<()> {
    let [tokens] = sizes([TOKENS], [ROUNDS]);
    let tokens = tokens.max(ROUNDS);
    println!(
        "# delegation: {tokens} tokens of one right and one constraint, each of its own holder"
    );
    println!("# one thread; median of {ROUNDS} rounds, bare and real in turn; from text to text");
    let world = World::new()?;
    let held = (0..tokens).map(|n| world.token(n)).collect::<anyhow::Result<Vec<_>>>()?;
    let caveats = [at_most(500)?];
    let share = tokens / ROUNDS;
    measure(
        "attenuate",
        &held,
        share,
        |_| bare_signing(1),
        |held| {
            let token = Decoded::read(held.token.expose())?;
            drop(black_box(attenuate(&token, &caveats, &Zeroizing::new(held.seed))?));
            Ok(())
        },
    )?;
    let (_, to) = other(1, [6; 32])?;
    measure(
        "delegate",
        &held,
        share,
        |_| bare_signing(2),
        |held| {
            let (token, from) =
                (Decoded::read(held.token.expose())?, SigningKey::from_bytes(&held.seed));
            let next = Zeroizing::new(held.seed);
            drop(black_box(delegate(&token, &from, &to, &caveats, &next)?));
            Ok(())
        },
    )?;

    let deep = held.into_iter().map(three_deep).collect::<anyhow::Result<Vec<_>>>()?;
    let bare = Bare::new();
    measure(
        "verify_three_deep",
        &deep,
        share,
        |_| bare.checks(SIGNATURES),
        |held| verify(&world, held, Shown::Peer(&held.peer)),
    )?;
    // The gateway remembers the tokens by now, and sees each proof for the first time.
    let proof = |held| (held, world.proof(held, 0));
    let proofs: Vec<(&Held, String)> = deep.iter().map(proof).collect();
    measure(
        "verify_three_deep_again_with_dpop",
        &proofs,
        share,
        |_| bare.check(),
        |(held, proof)| verify(&world, held, Shown::Dpop { proof, method: METHOD, path: PATH }),
    )
}

fn at_most(most: i64) -> anyhow::Result<Caveat> {
    let argument = "amount".parse()?;
    Ok(Caveat::Argument(Constraint { argument, limit: Limit::AtMost(most) }))
}

/// The key of the `n`th who gets what was `seed`'s.
fn other(n: u8, mut seed: [u8; 32]) -> anyhow::Result<(SigningKey, HolderKey)> {
    seed.iter_mut().rev().take(1).for_each(|byte| *byte = n);
    let key = SigningKey::from_bytes(&seed);
    let public = HolderKey::from_slice(key.verifying_key().as_bytes())?;
    Ok((key, public))
}

/// Handed on three times, each time with a caveat.
fn three_deep(mut held: Held) -> anyhow::Result<Held> {
    let mut from = SigningKey::from_bytes(&held.seed);
    for n in 1..=DEEP {
        let (key, public) = other(n, held.seed)?;
        let token = Decoded::read(held.token.expose())?;
        let caveats = [at_most(500)?];
        held.token = delegate(&token, &from, &public, &caveats, &Zeroizing::new([n; 32]))?;
        held.peer = Peer { key: Some(public), ..held.peer };
        held.seed = key.to_bytes();
        from = key;
    }
    Ok(held)
}

fn verify(world: &World, held: &Held, shown: Shown<'_>) -> anyhow::Result<()> {
    let attempt = Attempt { token: held.token.expose(), shown, call: &world.call };
    match world.verifier.verify(&attempt)? {
        Outcome::Verified(verified) => drop(black_box(verified)),
        Outcome::MustAsk(_) => anyhow::bail!("the token is not counted"),
    }
    Ok(())
}

/// What a new block costs at least: its own signature, that of whoever hands it on, the public half
/// of each secret that signs, and of the one that signs the next.
fn bare_signing(signatures: usize) -> anyhow::Result<()> {
    for _ in 0..signatures {
        let key = SigningKey::from_bytes(black_box(&[3; 32]));
        black_box(key.sign(black_box(&SIGNED)));
    }
    black_box(SigningKey::from_bytes(black_box(&[4; 32])).verifying_key());
    Ok(())
}

/// What a check costs at least.
struct Bare {
    key: VerifyingKey,
    signature: Signature,
}

impl Bare {
    fn new() -> Self {
        let key = SigningKey::from_bytes(&[3; 32]);
        Self { signature: key.sign(&SIGNED), key: key.verifying_key() }
    }

    fn check(&self) -> anyhow::Result<()> {
        black_box(self.key.verify_strict(black_box(&SIGNED), &self.signature))?;
        Ok(())
    }

    /// That many strict checks, all but the first by keys that stand in the token, and the public
    /// half of its last secret.
    fn checks(&self, signatures: usize) -> anyhow::Result<()> {
        self.check()?;
        for _ in 1..signatures {
            let key = VerifyingKey::from_bytes(black_box(self.key.as_bytes()))?;
            black_box(key.verify_strict(black_box(&SIGNED), &self.signature))?;
        }
        black_box(SigningKey::from_bytes(black_box(&[4; 32])).verifying_key());
        Ok(())
    }
}

/// Prints the figure of the `real` work over `items`, in rounds of `share`.
fn measure<T>(
    name: &str,
    items: &[T],
    share: usize,
    mut bare: impl FnMut(&T) -> anyhow::Result<()>,
    mut real: impl FnMut(&T) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (mut bares, mut reals) = (Vec::new(), Vec::new());
    for part in items.chunks(share) {
        bares.push(per_item(part, &mut bare)?);
        reals.push(per_item(part, &mut real)?);
    }
    let (bare, real) = (median(&mut bares), median(&mut reals));
    println!("figure {name} {real:.2} us ratio {:.2}", real / bare);
    Ok(())
}

/// Microseconds for each of `items`.
#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn per_item<T>(items: &[T], work: impl FnMut(&T) -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let start = Instant::now();
    items.iter().try_for_each(work)?;
    let count = u32::try_from(items.len())?;
    Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(count))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
