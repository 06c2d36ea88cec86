//! What stands in `deploy/` is true of the binary: every command line is understood, every
//! variable is read, every metric is exported.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use dayfly_tests::shop::Shop;
use dayfly_tests::site::{Site, chmod, ended};

use crate::world::DAYFLY;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The words of these characters that begin with `prefix`.
fn words(text: &str, prefix: &str, belongs: fn(char) -> bool) -> BTreeSet<String> {
    let words = text.split(|c: char| !belongs(c)).filter(|word| word.starts_with(prefix));
    words.filter(|word| *word != prefix).map(str::to_owned).collect()
}

#[test]
fn dashboard_and_alerts_name_what_the_broker_exports() {
    let mut site = Site::found(DAYFLY);
    let serving = site.serve();
    // A method is counted once it was called.
    site.join(&serving, "olga", &Shop::person("olga"));
    assert_eq!(ended(&mut site.cli("olga", ["status"])).0, Some(0));
    let (status, page) = serving.http("/metrics");
    assert_eq!(status, 200);
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let exported: BTreeSet<&str> =
        samples.map(|line| line.split(['{', ' ']).next().unwrap()).collect();

    let rules = read("broker/src/caller.rs");
    let monitoring = ["alerts.yml", "alerts.test.yml", "dashboard.json"];
    let monitoring = monitoring.map(|name| format!("deploy/monitoring/{name}"));
    for path in monitoring.iter().map(String::as_str).chain(["deploy/README.md"]) {
        let text = read(path);
        let named = words(&text, "dayfly_", |c| c.is_ascii_lowercase() || c == '_');
        assert!(named.len() > 5, "{path} names only {named:?}");
        for name in named {
            assert!(exported.contains(name.as_str()), "{path}: no broker exports `{name}`");
        }
        for method in words(&text, "/dayfly.v1.", |c| c.is_alphanumeric() || "./".contains(c)) {
            assert!(rules.contains(&format!("\"{method}\"")), "{path}: no method `{method}`");
        }
    }
}

#[test]
fn what_can_be_set_is_read() {
    let code = ["broker/src/config.rs", "broker/src/cli/mod.rs", "broker/src/cli/host.rs"];
    let code = code.map(read).concat();
    let files = [
        "deploy/README.md",
        "deploy/container/Containerfile",
        "deploy/container/compose.yaml",
        "deploy/systemd/dayfly.service",
        "deploy/systemd/dayfly.service.d/sealed-keys.conf",
        "deploy/systemd/dayfly-second.service.d/second.conf",
    ];
    for path in files {
        for name in words(&read(path), "DAYFLY_", |c| c.is_ascii_uppercase() || c == '_') {
            assert!(code.contains(&format!("\"{name}\"")), "{path}: nobody reads `{name}`");
        }
    }
}

/// The words of a line of shell up to the end of its command, as far as such lines go here:
/// quotes, and no escapes.
fn command(line: &str) -> Vec<String> {
    let (mut words, mut quote) = (vec![String::new()], None);
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => words.last_mut().unwrap().push(c),
            None if "'\"".contains(c) => quote = Some(c),
            None if "|>;&)#".contains(c) => break,
            None if c.is_whitespace() => words.push(String::new()),
            None => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty() && word != "\\");
    words
}

/// Every command of ours in the shell blocks of a document.
fn commands(document: &str) -> Vec<Vec<String>> {
    let blocks = document.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut found = Vec::new();
    for line in blocks.flat_map(|block| {
        let block = block.replace("\\\n", " ");
        block.lines().map(str::to_owned).collect::<Vec<_>>()
    }) {
        // Never a part of a path, nor the name of the user.
        let before = ["(", "&&", "|", "sudo -u dayfly"];
        let begins = |at: &usize| {
            let said = line[..*at].trim();
            said.is_empty() || before.iter().any(|before| said.ends_with(before))
        };
        let places = line.match_indices("dayfly ").map(|(at, _)| at).filter(begins);
        found.extend(places.map(|at| command(&line[at..])));
    }
    found
}

/// That the command line is understood: with `--help` behind it, it tells about the same verb.
fn is_understood(path: &str, command: &[String]) {
    // What the documents have from an earlier command.
    let values = [
        ("$request", "01a20416-305e-7416-bbf5-a31b9b80cad9"),
        ("$grant", "df0a7cc01c402a26d8ebb2800d18cf33"),
        ("$HEAD", &format!("7:{}", "0".repeat(64))),
        ("$DIGEST", &"0".repeat(64)),
    ];
    let filled = command[1..].iter().map(|word| {
        let fill = |word: String, (name, value): &(&str, &str)| word.replace(name, value);
        values.iter().fold(word.clone(), fill)
    });
    let output = Command::new(DAYFLY).args(filled).arg("--help").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{path}: {command:?}: {said}");
}

#[test]
fn the_command_lines_of_the_documents_are_understood() {
    for path in ["README.md", "deploy/README.md"] {
        let commands = commands(&read(path));
        assert!(commands.len() > 5, "{path}: {commands:?}");
        for command in commands.iter().filter(|command| command.len() > 1) {
            is_understood(path, command);
        }
    }
}

#[test]
fn what_starts_the_broker_is_understood() {
    let mut started = 0;
    for path in ["dayfly.service", "dayfly.service.d/sealed-keys.conf"] {
        let path = format!("deploy/systemd/{path}");
        let unit = read(&path);
        let lines = unit.lines().filter(|line| line.starts_with("ExecStart"));
        for (_, line) in lines.filter_map(|line| line.split_once("=/usr/bin/dayfly ")) {
            is_understood(&path, &command(&format!("dayfly {line}")));
            started += 1;
        }
    }
    let path = "deploy/container/Containerfile";
    let listed = |text: &str| -> Vec<String> { serde_json::from_str(text.trim()).unwrap() };
    let file = read(path);
    let entry = file.lines().find_map(|line| line.strip_prefix("ENTRYPOINT ")).unwrap();
    assert_eq!(listed(entry), ["/usr/bin/dayfly"]);
    for line in file.lines() {
        if let Some((_, arguments)) = line.trim().split_once("CMD ") {
            let mut command = listed(arguments);
            if line.starts_with("CMD ") {
                command.insert(0, listed(entry).remove(0));
            }
            is_understood(path, &command);
            started += 1;
        }
    }
    assert_eq!(started, 4, "serve and probe, in a unit and in a container");
}

#[test]
fn a_probe_tells_a_supervisor_how_the_broker_is() {
    let mut site = Site::found(DAYFLY);
    let serving = site.serve();
    let http = serving.ports.http.to_string();
    let config = site.config();
    let probe = |arguments: &[&str]| {
        let mut probe = site.command(["probe"].iter().chain(arguments));
        ended(probe.arg("--config").arg(&config).env("DAYFLY_LISTEN_HTTP", &http))
    };
    assert_eq!(probe(&[]), (Some(0), "ready\n".to_owned(), String::new()));
    assert_eq!(probe(&["--alive"]).1, "ok\n");
    assert_eq!(probe(&["--output", "json"]).1, "{\"says\":\"ready\"}\n");
    assert_eq!(serving.stop(), Some(0));
    let (code, shown, said) = probe(&["--wait", "1s"]);
    assert_eq!((code, shown.as_str()), (Some(20), ""), "{said}");
    assert!(said.contains(&http), "it does not say whom it asked: {said}");
    let missing = ended(&mut site.command(["probe", "--config", "/nonexistent"]));
    assert_eq!(missing.0, Some(64), "{}", missing.2);
    // Whoever else answers there does not make it well.
    let other = std::net::TcpListener::bind(&http).unwrap();
    let answers = ["HTTP/1.1 503 x\r\n\r\nnot ready\n", "HTTP/1.1 200", "ready", ""];
    let answering = std::thread::spawn(move || {
        for answer in answers {
            use std::io::{Read as _, Write as _};
            let (mut stream, _) = other.accept().unwrap();
            let _asked = stream.read(&mut [0; 512]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    for answer in answers {
        assert_eq!(probe(&[]).0, Some(20), "{answer:?}");
    }
    answering.join().unwrap();
}

#[test]
fn keys_may_stand_apart_from_the_journal_and_are_then_the_only_ones() {
    let mut site = Site::found(DAYFLY);
    let (within, apart) = (site.broker().join("keys"), site.path("apart"));
    std::fs::rename(&within, &apart).unwrap();
    let (code, _, said) = ended(&mut site.serve_command());
    assert_eq!(code, Some(64), "it serves without keys: {said}");
    let mut config = std::fs::read_to_string(site.config()).unwrap();
    config.insert_str(0, &format!("keys = \"{}\"\n", apart.display()));
    std::fs::write(site.config(), config).unwrap();
    let serving = site.serve();
    site.join(&serving, "olga", &Shop::person("olga"));
    assert_eq!(serving.stop(), Some(0));
    chmod(&apart.join("token-1.key"), 0o440);
    let (code, _, said) = ended(&mut site.serve_command());
    assert_eq!(code, Some(64), "a group can read its key: {said}");
}

#[test]
fn all_that_the_binary_is_made_of_gets_into_the_image() {
    let ignore = read(".dockerignore");
    assert!(ignore.lines().any(|line| line == "*"), "everything gets in");
    let let_in: Vec<PathBuf> = ignore
        .lines()
        .filter_map(|line| line.strip_prefix('!'))
        .map(|at| root().join(at))
        .collect();
    let let_in: Vec<PathBuf> = let_in.iter().map(|at| at.canonicalize().unwrap()).collect();
    let gets_in = |path: &Path| {
        let path = path.canonicalize().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(let_in.iter().any(|at| path.starts_with(at)), "left out: {}", path.display());
    };
    let manifest = read("Cargo.toml");
    let members = manifest.split_once("members = [").unwrap().1.split_once(']').unwrap().0;
    for member in members.split('"').skip(1).step_by(2) {
        gets_in(&root().join(member).join("Cargo.toml"));
        let mut folders = vec![root().join(member)];
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() && !path.ends_with("target") {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let source = std::fs::read_to_string(&path).unwrap();
                    for included in source.split(concat!("include", "_str!(\"")).skip(1) {
                        gets_in(&folder.join(included.split('"').next().unwrap()));
                    }
                }
            }
        }
    }
}
