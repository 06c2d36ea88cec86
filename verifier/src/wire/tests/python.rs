//! Tokens to which another library's users added blocks: read inside the grammar, and refused by
//! the profile's name outside of it.

use std::io::Write as _;
use std::process::Command;

use super::*;

const CASES: &str = include_str!("../../../tests/vectors/python/cases.txt");
/// What `attenuate.py` made of them once.
const TOKENS: &str = include_str!("../../../tests/vectors/python/tokens.txt");

/// The caveats and the holder that the one added block gives, or why it is refused.
fn read(text: &str) -> Result<(String, Confirmation), Malformed> {
    // The library pads its base64; the one text form of a token has no padding.
    let token = Decoded::read(text.trim_end_matches('='))?.check(&root()).unwrap();
    let [link] = token.content().links.as_slice() else { panic!("not one block: {text}") };
    let caveats = link.caveats.iter().map(ToString::to_string).collect::<Vec<_>>();
    Ok((caveats.join("; "), token.content().holder()))
}

fn held_to_the_cases(tokens: &str) {
    let cases = CASES.lines().filter(|line| !line.starts_with('#'));
    let cases: Vec<Vec<_>> = cases.map(|line| line.split(" | ").collect()).collect();
    assert_eq!(cases.len(), tokens.lines().count());
    for (case, token) in cases.iter().zip(tokens.lines()) {
        let [how, expected, source] = case[..] else { panic!("{case:?}") };
        let expected = match (how, expected) {
            (_, "profile") => Err(Malformed::Profile(1)),
            ("stranger", _) => Err(Malformed::Delegation(1)),
            ("handed", caveats) => Ok((caveats.into(), Confirmation::Key(holder_key(1)))),
            (_, caveats) => Ok((caveats.into(), Confirmation::Key(holder_key(0)))),
        };
        assert_eq!(read(token), expected, "{source}");
    }
}

#[test]
fn what_biscuit_python_adds_is_read_inside_the_grammar_and_refused_outside() {
    held_to_the_cases(TOKENS);
    let refused = Malformed::Profile(1).to_string();
    assert!(refused.contains("closed profile"), "{refused}");
}

/// The same, with tokens that the library makes now. Needs a Python that has it (biscuit-python
/// 0.4.0): `DAYFLY_TEST_PYTHON` names it, and without that there is nothing to run.
#[test]
fn what_biscuit_python_adds_now_is_read_alike() {
    let Some(python) = std::env::var_os("DAYFLY_TEST_PYTHON") else {
        // Past the harness, which keeps what passing tests print to itself.
        let mut terminal = std::io::stderr().lock();
        let why = "not run against biscuit-python: DAYFLY_TEST_PYTHON names no Python that has it";
        return writeln!(terminal, "{why}").unwrap();
    };
    let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");
    let path = |name: &str| format!("{vectors}/{name}");
    let mut script = Command::new(python);
    script.args(["python/attenuate.py", "token/minimal.txt", "python/cases.txt"].map(path));
    let made = script.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let tokens = String::from_utf8(made.stdout).unwrap();
    assert_ne!(tokens, TOKENS, "its keys are drawn anew");
    held_to_the_cases(&tokens);
}
