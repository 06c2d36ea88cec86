//! `dayfly demo`, as a newcomer runs it.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

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
fn a_demo_that_is_stopped_leaves_nothing_behind() {
    let scratch = tempfile::tempdir().unwrap();
    let mut demo = Command::new(DAYFLY);
    demo.arg("demo").env("TMPDIR", scratch.path()).stderr(Stdio::null());
    let mut demo = demo.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("everybody joined")));
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1);
    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(1));
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "keys are left behind");
}

#[test]
fn the_demo_tells_programs_the_same() {
    let output = demo(&["--output", "json", "demo"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let refused = events.iter().filter(|event| event["kind"] == "refused").count();
    assert!(refused >= 18, "{refused} refusals");
    let entries = events.iter().filter(|event| event["kind"] == "entry");
    let entries: Vec<&str> = entries.map(|event| event["what"].as_str().unwrap()).collect();
    assert!(entries.len() > 40, "{entries:?}");
    // A key that ends in a year does not read like one that has ended.
    let key = entries.iter().find(|entry| entry.contains("listed token key 1")).unwrap();
    let (_, end) = key.split_once("good until ").unwrap();
    assert!(end.len() == 10 && end.split('-').count() == 3, "{key}");
    let told = |what: &str| {
        events.iter().any(|event| event["what"].as_str().is_some_and(|said| said.contains(what)))
    };
    // The scenes are there, and say what they show.
    for what in [
        "handed on, offline",
        "its own token is untouched",
        "a retry of that use",
        "which has signed its last",
        "orders-2 silent for",
        "holds everywhere since",
        "one bit was changed",
    ] {
        assert!(told(what), "{what}");
    }
}
