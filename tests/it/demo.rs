//! `dayfly demo`, as a newcomer runs it.

use std::process::{Command, Output};

use crate::world::DAYFLY;

/// Runs it, and looks whether it left anything behind.
fn demo(arguments: &[&str]) -> Output {
    let scratch = tempfile::tempdir().unwrap();
    let output =
        Command::new(DAYFLY).args(arguments).env("TMPDIR", scratch.path()).output().unwrap();
    let left = std::fs::read_dir(scratch.path()).unwrap().count();
    assert_eq!(left, 0, "something is left behind");
    output
}

#[test]
fn the_demo_comes_out_as_it_must_and_is_plain_when_piped() {
    let output = demo(&["demo"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("All of it came out as it must"), "{text}");
    assert!(!text.contains('\u{1b}'), "colours in a pipe");
    assert_eq!(errors, "");
}

#[test]
fn the_demo_tells_programs_the_same() {
    let output = demo(&["--output", "json", "demo"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let refused = events.iter().filter(|event| event["kind"] == "refused").count();
    assert!(refused >= 10, "{refused} refusals");
    assert!(events.iter().any(|event| event["kind"] == "entry"));
}
