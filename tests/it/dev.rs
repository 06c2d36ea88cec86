//! `dayfly dev`, as it is used: what it prints is pasted into terminals, line by line.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use dayfly_agent::identity::NewKey;
use dayfly_broker::authority::Authority;
use dayfly_broker::journal::Sqlite;
use dayfly_broker::random::SystemRandom;
use dayfly_verifier::time::{Clock as _, SystemClock};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::world::DAYFLY;

/// What must come of the lines, in order, but for those that only set a terminal up: how each
/// begins, its exit code, and what it says.
const OUTCOMES: [(&str, i32, &str); 14] = [
    ("dayfly request", 10, "waits for approval"),
    ("dayfly pending", 0, "case-17"),
    ("dayfly approve", 0, "granted"),
    ("dayfly wait", 0, "is granted"),
    ("dayfly exchange", 0, "good for"),
    ("token=", 0, ""),
    ("nonce()", 0, ""),
    ("proof()", 0, ""),
    ("order()", 0, ""),
    ("order", 0, r#"{"order":"o-17","paid":120000,"refunded":0}"#),
    ("dayfly grants", 0, "orders/prod/o-17"),
    ("dayfly revoke", 0, "effective on 1 of 1"),
    ("order", 0, r#""error":"revoked""#),
    ("dayfly audit", 0, "revoked all that is held for task case-17"),
];

/// `dayfly dev`, running.
struct Dev {
    process: Child,
    printed: String,
}

impl Dev {
    fn command(dir: &Path) -> Command {
        let mut command = Command::new(DAYFLY);
        command.args(["dev", "--dir"]).arg(dir);
        command
    }

    /// Starts it, and waits until it has printed all that it prints.
    fn start(dir: &Path) -> Self {
        let (out, err) = (Stdio::piped(), Stdio::piped());
        let mut process = Self::command(dir).stdout(out).stderr(err).spawn().unwrap();
        let mut printed = String::new();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        while !printed.contains("Ctrl-C") {
            if lines.read_line(&mut printed).unwrap() == 0 {
                let mut said = String::new();
                process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
                panic!("it ended: {printed}{said}");
            }
        }
        Self { process, printed }
    }

    /// Which lines go into which terminal.
    fn steps(&self) -> Vec<(String, String)> {
        let mut steps = Vec::new();
        let mut terminal = "";
        for line in self.printed.lines() {
            if let Some(line) = line.strip_prefix("    ") {
                steps.push((terminal.to_owned(), line.to_owned()));
            } else if line.starts_with(|c: char| c.is_ascii_digit()) {
                terminal = line[1..].split(':').next().unwrap().trim();
            }
        }
        steps
    }

    /// Ctrl-C.
    fn stop(mut self) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let mut said = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(self.process.wait().unwrap().success(), "{said}");
        assert!(said.contains("stopped"), "{said}");
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ended = (self.process.kill(), self.process.wait());
    }
}

/// A shell that goes on from line to line.
struct Terminal {
    shell: Child,
    keys: ChildStdin,
    screen: BufReader<ChildStdout>,
}

impl Terminal {
    fn open() -> Self {
        let mut shell = Command::new("sh");
        shell.stdin(Stdio::piped()).stdout(Stdio::piped());
        for name in ["DAYFLY_IDENTITY", "DAYFLY_CONFIG", "DAYFLY_OUTPUT", "DAYFLY_SIGNING_KEY"] {
            shell.env_remove(name);
        }
        let mut shell = shell.spawn().unwrap();
        let mut keys = shell.stdin.take().unwrap();
        writeln!(keys, "exec 2>&1").unwrap();
        let screen = BufReader::new(shell.stdout.take().unwrap());
        Self { shell, keys, screen }
    }

    /// What a line says, and its exit code.
    fn run(&mut self, line: &str) -> (String, i32) {
        writeln!(self.keys, "{line}\nprintf 'end of line %s\\n' $?").unwrap();
        let mut said = String::new();
        loop {
            let before = said.len();
            assert_ne!(self.screen.read_line(&mut said).unwrap(), 0, "the shell ended: {said}");
            if let Some(code) = said[before..].strip_prefix("end of line ") {
                let code = code.trim().parse().unwrap();
                said.truncate(before);
                return (said, code);
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ended = (self.shell.kill(), self.shell.wait());
    }
}

/// Pastes everything, and looks what comes of it.
fn paste(dev: &Dev) {
    let mut terminals = std::collections::BTreeMap::new();
    let mut outcomes = OUTCOMES.iter();
    for (terminal, line) in dev.steps() {
        let (said, code) = terminals.entry(terminal).or_insert_with(Terminal::open).run(&line);
        if line.starts_with("export ") {
            assert_eq!(code, 0, "{line}\n{said}");
            continue;
        }
        let (begins, ends, says) = outcomes.next().unwrap();
        assert!(line.starts_with(begins), "{line} in the place of {begins}");
        assert_eq!(code, *ends, "{line}\n{said}");
        assert!(said.contains(says), "{line}\n{said}");
    }
    assert!(outcomes.next().is_none(), "fewer lines than are known");
    assert_eq!(terminals.len(), 4);
}

/// Puts an identity into `dir` that is over by an hour.
pub(crate) fn outdate(broker: &Path, id: &str, dir: &Path) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let long_ago = SystemClock.now().minus(Duration::from_secs(2 * 60 * 60));
    let key = NewKey::generate().unwrap();
    let svid = runtime.block_on(async {
        let store = Arc::new(Sqlite::open(&broker.join("journal.db")).unwrap());
        let random = Arc::new(SystemRandom);
        let authority = Authority::open("shop.test", &broker.join("keys"), store, random).await;
        let authority = authority.unwrap();
        let (string, _) = authority.invite(&id.parse().unwrap(), long_ago).await.unwrap();
        authority.join(&string.id, &string.secret[..], key.csr(), long_ago).await.unwrap()
    });
    std::fs::write(dir.join("key.pem"), key.pem().as_bytes()).unwrap();
    let pem = dayfly_agent::identity::pem(&[svid.certificate]);
    std::fs::write(dir.join("svid.pem"), pem).unwrap();
}

#[test]
fn whatever_is_pasted_works_and_goes_on_after_a_restart() {
    let scratch = tempfile::tempdir().unwrap();
    // A path that a shell would take apart.
    let dir = scratch.path().join("it's a shop");
    let read = |name: &str| CertificateDer::from_pem_file(dir.join(name).join("svid.pem")).unwrap();
    let [agent, ana, olga] =
        ["agent-refunds", "person-ana", "person-olga"].map(|name| format!("identities/{name}"));

    let first = Dev::start(&dir);
    assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    paste(&first);
    let printed = first.printed.clone();
    first.stop();

    let before = [&agent, &ana, &olga].map(|name| read(name));
    outdate(&dir.join("broker"), "spiffe://shop.test/person/ana", &dir.join(&ana));
    std::fs::remove_file(dir.join(&olga).join("svid.pem")).unwrap();
    let again = Dev::start(&dir);
    assert_eq!(again.printed, printed, "the addresses changed");
    assert_eq!(read(&agent), before[0], "joined without need");
    assert_ne!(read(&ana), before[1]);
    assert_ne!(read(&olga), before[2]);
    paste(&again);
    let other = Dev::command(&dir).output().unwrap();
    refused(&other, 1, "another `dayfly dev` runs");
    again.stop();
}

fn refused(output: &Output, code: i32, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(why), "{said}");
    assert!(said.contains("next:"), "{said}");
}

#[test]
fn a41_no_shop_is_kept_where_others_could_reach_it() {
    let scratch = tempfile::tempdir().unwrap();
    let make = |name: &str, mode: u32| {
        let dir = scratch.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)).unwrap();
        dir
    };
    for mode in [0o755, 0o710, 0o707] {
        let open = make(&format!("open{mode:o}"), mode);
        refused(&Dev::command(&open).output().unwrap(), 64, "chmod 700");
    }
    let theirs = make("theirs", 0o700);
    // Only root can give something away.
    if std::os::unix::fs::chown(&theirs, Some(65_534), None).is_ok() {
        refused(&Dev::command(&theirs).output().unwrap(), 64, "belong to the user");
    }
    let own = make("own", 0o700);
    let link = scratch.path().join("link");
    symlink(&own, &link).unwrap();
    refused(&Dev::command(&link).output().unwrap(), 64, "symbolic link");
    refused(&Dev::command(&link.join("")).output().unwrap(), 64, "symbolic link");
    std::fs::write(own.join("thesis.tex"), "").unwrap();
    refused(&Dev::command(&own).output().unwrap(), 64, "did not make");
    assert_eq!(std::fs::read_dir(&own).unwrap().count(), 1, "something was put there");
}
