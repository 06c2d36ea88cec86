//! Finds secrets in whatever was written, in every form in which bytes are written down.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};

/// How much of a form is looked for at a time: less would be found by chance.
const PIECE: usize = 16;
/// A form is looked for from each of so many of its bytes on, so that a part of it is found, too.
const STEP: usize = 8;

/// Secrets, by the pieces of all their forms.
pub(super) struct Canaries {
    pieces: HashMap<[u8; PIECE], &'static str>,
    /// Which two bytes a piece begins with: most places of an output are passed by with this.
    begins: Vec<bool>,
}

impl Canaries {
    pub(super) fn new() -> Self {
        Self { pieces: HashMap::new(), begins: vec![false; 1 << 16] }
    }

    /// Looks for `secret` under `name` from now on: 24 bytes or more.
    pub(super) fn add(&mut self, name: &'static str, secret: &[u8]) {
        assert!(secret.len() >= PIECE + STEP, "{name} is too short to be looked for");
        for form in forms(secret) {
            for piece in form.windows(PIECE).step_by(STEP) {
                self.begins[begin(piece)] = true;
                self.pieces.insert(piece.try_into().unwrap(), name);
            }
        }
    }

    /// The names of all that stand in `output`.
    pub(super) fn hits(&self, output: &[u8]) -> BTreeSet<&'static str> {
        let pieces = output.windows(PIECE).filter(|piece| self.begins[begin(piece)]);
        pieces.filter_map(|piece| self.pieces.get(piece).copied()).collect()
    }
}

fn begin(piece: &[u8]) -> usize {
    usize::from(piece[0]) << 8 | usize::from(piece[1])
}

/// The ways in which a program writes bytes: as they are, in hexadecimal, in base64 behind any
/// number of other bytes, as Rust shows a list or a string of them, and as HTTP puts them in URLs.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let lower = hex::encode(secret);
    let list = |separator: &str| {
        let numbers: Vec<String> = secret.iter().map(u8::to_string).collect();
        numbers.join(separator)
    };
    let percent = secret.iter().fold(String::new(), |mut text, byte| {
        write!(text, "%{byte:02X}").unwrap();
        text
    });
    let mut forms = vec![secret.to_vec(), lower.to_uppercase().into(), lower.into()];
    forms.extend([list(", "), list(","), percent].map(Vec::from));
    forms.push(secret.escape_ascii().collect());
    for alphabet in [STANDARD, URL_SAFE] {
        let engine = GeneralPurpose::new(&alphabet, NO_PAD);
        for shift in 0..3 {
            // Whole groups of three bytes: what follows does not change how they are written.
            let rest = &secret[shift..];
            let whole = &rest[..rest.len() - rest.len() % 3];
            forms.push(engine.encode(whole).into());
        }
    }
    forms
}

/// An output in which each form stands among other things is found; one without is not.
#[test]
fn whatever_a_secret_is_written_as_it_is_found() {
    let secret: [u8; 32] = crate::parties::random();
    let mut canaries = Canaries::new();
    canaries.add("it", &secret);
    let found = |output: &[u8]| !canaries.hits(output).is_empty();
    for before in 0..7 {
        let mut among = vec![b'x'; before];
        among.extend_from_slice(&secret);
        among.extend_from_slice(b"and more");
        let shown = [
            among.clone(),
            hex::encode(&among).into(),
            hex::encode_upper(&among).into(),
            format!("{among:?}").into(),
            format!("{:?}", bytes::Bytes::from(among.clone())).into(),
            base64::engine::general_purpose::STANDARD.encode(&among).into(),
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&among).into(),
            serde_json::to_vec(&among).unwrap(),
        ];
        for output in shown {
            assert!(found(&output), "{}", String::from_utf8_lossy(&output));
        }
    }
    // A good part of it is enough, and another secret is not it.
    assert!(found(hex::encode(&secret[4..20]).as_bytes()));
    let other: [u8; 32] = crate::parties::random();
    for form in forms(&other) {
        assert!(!found(&form));
    }
}
