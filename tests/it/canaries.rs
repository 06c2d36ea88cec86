//! Secrets stand where they must, and nowhere else: not in what any process says of itself at its
//! most talkative, not in answers and errors, not in the record.
#![expect(clippy::arithmetic_side_effects, reason = "a test may overflow and fail")]

mod acts;
mod scan;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ssh_key::private::{Ed25519Keypair, PrivateKey};

use crate::guarded::Opening;
use crate::parties::random;
use crate::process::Process;
use crate::world::{SHOP, World, ssh};
use acts::{ask_and_decide, give_back, hold, join, operate, use_it, wrong_calls};
use scan::Canaries;

const AGENT: &str = "agent/refunds";

/// All that was written by anybody, what must not be in it, and what is meant to be.
struct Watch {
    world: World,
    secrets: Canaries,
    said: Vec<(String, Vec<u8>, BTreeSet<&'static str>)>,
}

impl Watch {
    /// Something that was written, in which only the secrets named in `meant` may stand.
    fn hear(&mut self, what: &str, said: impl Into<Vec<u8>>, meant: &[&'static str]) {
        self.said.push((what.to_owned(), said.into(), meant.iter().copied().collect()));
    }

    /// Runs a command as `path`, which must end with `code`, and hears what it says.
    fn run(&mut self, path: &str, args: &[&str], code: i32, meant: &[&'static str]) -> String {
        let dir = self.world.identity(path);
        let command = self.world.command(Some(&dir), args, &[]);
        self.ended(command, code, meant)
    }

    fn ended(&mut self, mut command: Command, code: i32, meant: &[&'static str]) -> String {
        let Output { status, stdout, stderr } = command.output().unwrap();
        let what = format!("{command:?}");
        let error = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(code), "{what}: {error}");
        self.hear(&format!("the output of {what}"), stdout.clone(), meant);
        self.hear(&format!("the errors of {what}"), stderr.clone(), meant);
        String::from_utf8(stdout).unwrap().trim_end().to_owned()
    }

    /// A text that nobody else writes.
    fn text(&mut self, name: &'static str) -> String {
        let text = format!("canary-{}", hex::encode(random::<16>()));
        self.secrets.add(name, text.as_bytes());
        text
    }

    fn file(&self, name: &str) -> String {
        self.world.path(name).to_str().unwrap().to_owned()
    }

    /// Writes a file that only its owner may read.
    fn keep(&self, name: &str, content: &str) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.world.path(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        self.file(name)
    }

    /// Fails with all that stands where it must not.
    fn judge(self) {
        let mut leaks = BTreeMap::<String, BTreeSet<&str>>::new();
        for (what, said, meant) in &self.said {
            let hits = self.secrets.hits(said);
            let leaked: BTreeSet<&str> = hits.difference(meant).copied().collect();
            if !leaked.is_empty() {
                leaks.insert(what.clone(), leaked);
            }
        }
        assert!(leaks.is_empty(), "{leaks:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a44_no_secret_is_written_where_it_need_not_be() {
    let signing = PrivateKey::from(Ed25519Keypair::from_seed(&random()));
    let (public, ours) = (signing.public_key().to_openssh().unwrap(), ssh("ana"));
    let ours = ours.public_key().to_openssh().unwrap();
    let world = World::start_with("", |_, text| text.replace(&ours, &public));
    let mut watch = Watch { world, secrets: Canaries::new(), said: Vec::new() };
    let secret = signing.key_data().ed25519().unwrap().private.to_bytes();
    watch.secrets.add("an approver's key", &secret);
    let key = watch.keep("key-ana", &signing.to_openssh(ssh_key::LineEnding::LF).unwrap());
    talkative(&mut watch);

    join(&mut watch);
    let opening = Opening { log: Some(watch.world.path("gateway.log")), ..usual() };
    let dir = watch.world.identity("gateway/orders");
    let gateway = format!("{SHOP}/gateway/orders");
    let process = Process::start(&watch.world, &gateway, &dir, &opening);
    let (request, grant) = ask_and_decide(&mut watch, &key);
    let token = hold(&mut watch, &request);
    use_it(&mut watch, &process, &request, &token).await;
    wrong_calls(&mut watch, &request, &grant).await;
    operate(&mut watch, &grant);
    give_back(&mut watch, &request);
    drop(process);

    watch.world.kill();
    gather(&mut watch);
    listen(&mut watch);
    watch.judge();
}

fn usual() -> Opening {
    Opening::usual(Duration::from_secs(20))
}

/// The broker writes all that it can, in JSON.
fn talkative(watch: &mut Watch) {
    watch.world.kill();
    let config = watch.world.config();
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.contains("filter = \"info\""));
    std::fs::write(config, text.replace("filter = \"info\"", "filter = \"trace\"")).unwrap();
    watch.world.serve();
}

/// The keys that lie in files.
fn gather(watch: &mut Watch) {
    let mut found = 0;
    for (path, content) in files(watch.world.path("").as_path()) {
        let text = String::from_utf8_lossy(&content);
        let name = if path.contains("/requests/") { "a holder key" } else { "a private key" };
        if let Some((_, pem)) = text.split_once("-----BEGIN PRIVATE KEY-----\n") {
            let pem: String = pem.lines().take_while(|line| !line.starts_with('-')).collect();
            // The seed, behind what says that it is one (RFC 8410, section 7).
            watch.secrets.add(name, &STANDARD.decode(pem).unwrap()[16..48]);
            found += 1;
        }
        for field in ["private = \"", "secret = \"", "\"holder_secret\": \""] {
            for (at, _) in text.match_indices(field) {
                let secret = &text[at + field.len()..][..64];
                watch.secrets.add(name, &hex::decode(secret).unwrap());
                found += 1;
            }
        }
        if path.ends_with("/delegate.key") {
            watch.secrets.add("a holder key", &hex::decode(text.trim()).unwrap());
        }
    }
    assert!(found > 10, "{found} keys");
}

/// Where which secrets are kept, by the end or a part of the path.
const KEPT: [(&str, &[&str]); 12] = [
    ("/token", &["a token"]),
    ("/narrow", &["a token"]),
    ("/handed", &["a token"]),
    ("/delegate.key", &["a holder key"]),
    ("/requests/", &["a holder key", "a justification"]),
    ("key.pem", &["a private key"]),
    (".key", &["a private key"]),
    ("/key-ana", &["an approver's key"]),
    ("/odd-key", &["a file that is no key"]),
    ("/odd-token", &["a file that is no token"]),
    // The texts beside the log can be erased; they are looked for below, table by table.
    ("/journal.db", &["a justification", "a reason", "a reason of an operator"]),
    ("/journal.db-wal", &["a justification", "a reason", "a reason of an operator"]),
];

/// All files, the logs of all processes among them, and the tables of the log.
fn listen(watch: &mut Watch) {
    let all = files(watch.world.path("").as_path());
    for log in ["/broker.log", "/gateway.log"] {
        let (_, content) = all.iter().find(|(path, _)| path.ends_with(log)).unwrap();
        assert!(content.len() > 100_000, "{log}: {}", content.len());
        assert!(String::from_utf8_lossy(content).contains("\"level\":\"TRACE\""), "{log}");
    }
    for (path, content) in all {
        let kept =
            |place: &str| path.ends_with(place) || place.ends_with('/') && path.contains(place);
        let meant = KEPT.iter().filter(|(place, _)| kept(place));
        let meant: Vec<&'static str> = meant.flat_map(|(_, meant)| meant.iter().copied()).collect();
        watch.hear(&path, content, &meant);
    }
    let store = rusqlite::Connection::open(watch.world.path("broker/journal.db")).unwrap();
    let mut tables = store.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").unwrap();
    let tables = tables.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let tables: Vec<String> = tables.map(Result::unwrap).collect();
    assert!(tables.contains(&"entry".to_owned()) && tables.contains(&"text".to_owned()));
    for table in tables.iter().filter(|name| *name != "text") {
        let mut rows = store.prepare(&format!("SELECT * FROM \"{table}\"")).unwrap();
        let columns = rows.column_count();
        let mut rows = rows.query([]).unwrap();
        let mut content = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            for column in 0..columns {
                let value = row.get_ref(column).unwrap();
                content.extend(value.as_bytes_or_null().unwrap_or(None).unwrap_or_default());
                content.push(b'\n');
            }
        }
        watch.hear(&format!("the table {table}"), content, &[]);
    }
}

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let (mut found, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                found.push((path.to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()));
            }
        }
    }
    found
}
