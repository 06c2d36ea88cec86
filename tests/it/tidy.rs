//! The house rules that no compiler checks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below `folder` with this extension, by their path from the root.
fn files(folder: &str, extension: &str) -> BTreeMap<String, String> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.insert(name, std::fs::read_to_string(path).unwrap());
            }
        }
    }
    found
}

fn sources() -> BTreeMap<String, String> {
    ["proto", "verifier", "agent", "broker", "tests"]
        .iter()
        .flat_map(|folder| files(folder, "rs"))
        .collect()
}

fn documents() -> String {
    ["README.md", "ARCHITECTURE.md", "verifier/FORMAT.md"].map(read).concat()
}

/// Fails with all that is wrong, not only the first.
fn nothing_wrong(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn files_and_lines_are_short() {
    let mut wrong = Vec::new();
    for (path, source) in sources() {
        // Tests are read one at a time: a list of them may be a little longer.
        let tests = path.ends_with("/tests.rs") || path.contains("/tests/");
        let (lines, most) = (source.lines().count(), if tests { 450 } else { 400 });
        if lines > most {
            wrong.push(format!("{path}: {lines} lines, at most {most}"));
        }
        // Text that is shown or signed cannot always be broken; the formatter breaks the rest.
        let long = |line: &str| line.chars().count() > 100 && !line.contains('"');
        let long = source.lines().enumerate().filter(|(_, line)| long(line));
        wrong.extend(long.map(|(n, _)| format!("{path}:{}: over 100 characters", n + 1)));
    }
    nothing_wrong(wrong);
}

#[test]
fn functions_are_short() {
    let mut wrong = Vec::new();
    for (path, source) in sources() {
        let lines: Vec<&str> = source.lines().collect();
        for (n, line) in lines.iter().enumerate().filter(|(_, line)| begins_function(line)) {
            let indent = line.len() - line.trim_start().len();
            let end = format!("{}}}", " ".repeat(indent));
            let ends = |line: &&str| {
                **line == end
                    || (line.len() > indent
                        && line.ends_with(';')
                        && !line.starts_with(&" ".repeat(indent + 1)))
            };
            let length = lines[n..].iter().position(ends).map_or(1, |last| last + 1);
            if !line.ends_with('}') && !line.ends_with(';') && length > 70 {
                wrong.push(format!("{path}:{}: a function of {length} lines, at most 70", n + 1));
            }
        }
    }
    nothing_wrong(wrong);
}

fn begins_function(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let before = ["pub", "pub(crate)", "pub(super)", "const", "async", "extern"];
    words.find(|word| !before.contains(word)) == Some("fn")
}

#[test]
fn every_module_says_what_it_is_for() {
    let tests = |path: &str| path.ends_with("/tests.rs") || path.contains("/tests/");
    let all = sources().into_iter().filter(|(path, _)| !tests(path));
    let silent = all.filter(|(_, source)| !source.starts_with("//!"));
    nothing_wrong(silent.map(|(path, _)| format!("{path}: has no `//!` head")).collect());
}

#[test]
fn the_core_is_pure() {
    let forbidden = [
        "async ",
        "await",
        "tokio",
        "tonic",
        "prost",
        "serde",
        "rusqlite",
        "tracing",
        "axum",
        "rand",
        "getrandom",
        "SystemTime",
        "Instant",
        "std::fs",
        "std::net",
        "std::env",
        "std::thread",
        "std::sync::Mutex",
        "RwLock",
        "Atomic",
        "crate::journal",
        "crate::policy",
        "crate::api",
        "crate::cli",
        "crate::sequencer",
        "crate::signer",
        "crate::follow",
    ];
    let mut wrong = Vec::new();
    for (path, source) in files("broker/src/core", "rs") {
        if path.contains("/tests/") {
            continue;
        }
        let code =
            source.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
        for (n, line) in code {
            let words = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
            let words: BTreeSet<&str> = words.collect();
            let meets = |name: &&&str| match name.trim().contains("::") {
                true => line.contains(**name),
                false => words.contains(name.trim()),
            };
            let found = forbidden.iter().filter(meets);
            wrong.extend(found.map(|name| format!("{path}:{}: {name} in the core", n + 1)));
        }
    }
    nothing_wrong(wrong);
}

/// The variants of an enum, as its source lists them.
fn variants(path: &str, name: &str) -> Vec<String> {
    let source = read(path);
    let body = source.split_once(&format!("pub enum {name} {{\n")).unwrap().1;
    let body = body.split_once("\n}\n").unwrap().0;
    let capital = |line: &&str| {
        line.strip_prefix("    ")
            .is_some_and(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
    };
    let end = |c: char| !c.is_alphanumeric();
    let lines = body.lines().filter(capital);
    lines.map(|line| line.trim().split(end).next().unwrap().to_owned()).collect()
}

#[test]
fn every_refusal_is_documented() {
    let documents = documents();
    let mut wrong = Vec::new();
    let enums = [("broker/src/core/denial.rs", "Denial"), ("verifier/src/reject.rs", "Reject")];
    for (path, name) in enums {
        let variants = variants(path, name);
        assert!(variants.len() > 10, "{name}: {variants:?}");
        let absent = variants.iter().filter(|one| !documents.contains(&format!("`{one}`")));
        wrong.extend(absent.map(|one| format!("{name}::{one} stands in no document")));
    }
    nothing_wrong(wrong);
}

#[test]
fn every_field_of_the_interface_is_read_or_written() {
    let mut code = String::new();
    for folder in ["broker/src/api", "broker/src/follow"] {
        code.extend(files(folder, "rs").into_values());
    }
    let separator = |c: char| !(c.is_alphanumeric() || c == '_');
    let words: BTreeSet<&str> = code.split(separator).collect();
    let mut wrong = Vec::new();
    for (path, source) in files("proto", "proto") {
        let fields = source.lines().filter_map(|line| {
            let (before, number) = line.trim().strip_suffix(';')?.split_once(" = ")?;
            number.parse::<u32>().ok()?;
            before.contains(' ').then(|| before.rsplit(' ').next().unwrap().to_owned())
        });
        let used = |field: &String| {
            words.contains(field.as_str()) || words.contains(variant(field).as_str())
        };
        let unused = fields.filter(|field| !used(field));
        wrong.extend(unused.map(|field| format!("{path}: nobody uses `{field}`")));
    }
    nothing_wrong(wrong);
}

/// What a member of a `oneof` is called in Rust: `at_most`, `AtMost`.
fn variant(field: &str) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    field.split('_').map(capital).collect()
}

/// `a05_audience_swap`: the names of tests that show an attack to fail.
fn attack_tests(text: &str) -> BTreeSet<String> {
    let names = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    let is_attack = |name: &&str| {
        let bytes = name.as_bytes();
        bytes.len() > 4
            && bytes[0] == b'a'
            && bytes[1..3].iter().all(u8::is_ascii_digit)
            && bytes[3] == b'_'
    };
    names.filter(is_attack).map(str::to_owned).collect()
}

#[test]
fn attacks_are_claimed_where_they_are_tested_and_nowhere_else() {
    let written = sources().into_values().flat_map(|source| {
        let heads = source.lines().filter_map(|line| line.trim().split_once("fn a"));
        let heads = heads.map(|(_, rest)| format!("a{}", rest.split('(').next().unwrap()));
        attack_tests(&heads.collect::<Vec<_>>().join(" "))
    });
    let written: BTreeSet<String> = written.collect();
    let claimed = attack_tests(&read("tests/ATTACKS.md"));
    let unclaimed = written.difference(&claimed).map(|name| format!("{name}: not in the table"));
    let untested =
        claimed.difference(&written).map(|name| format!("{name}: there is no such test"));
    nothing_wrong(unclaimed.chain(untested).collect());
}

#[test]
fn nothing_is_left_to_do() {
    let marks = ["TO".to_owned() + "DO", "FIX".to_owned() + "ME", "To be wri".to_owned() + "tten"];
    let mut wrong = Vec::new();
    for (path, source) in sources() {
        let found = marks.iter().filter(|mark| source.contains(mark.as_str()));
        wrong.extend(found.map(|mark| format!("{path}: {mark}")));
    }
    nothing_wrong(wrong);
}
