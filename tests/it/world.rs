//! A broker as its own process, made and reached as its users would: `dayfly init`, `serve`,
//! `invite`, `join`, over mutual TLS.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dayfly_agent::session::Session;
use dayfly_verifier::time::{Clock as _, SystemClock};
use ssh_key::private::{Ed25519Keypair, KeypairData};

use crate::parties::random;

/// The built binary.
pub(crate) const DAYFLY: &str = env!("CARGO_BIN_EXE_dayfly");
/// The trust domain of the shop.
pub(crate) const SHOP: &str = "spiffe://shop.test";

/// How long a broker may take to be ready, on a busy machine.
const START: Duration = Duration::from_secs(120);

/// A broker of the example shop, in a directory of its own.
pub(crate) struct World {
    dir: tempfile::TempDir,
    serving: Option<Child>,
    broker: SocketAddr,
    join: SocketAddr,
    http: SocketAddr,
}

impl World {
    /// Founds the shop's broker and serves, with `limits` in its configuration.
    pub(crate) fn start(limits: &str) -> Self {
        Self::start_with(limits, |_, text| text)
    }

    /// The same, with the files of the shop's bundle changed by `change`.
    pub(crate) fn start_with(limits: &str, change: impl Fn(&str, String) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [broker, join, http] = [free_port(), free_port(), free_port()];
        let mut world = Self { dir, serving: None, broker, join, http };
        world.write_bundle("policy", change);
        let (at, policy) = (world.path("broker"), world.path("policy"));
        let founded = Command::new(DAYFLY)
            .args(["init", "--trust-domain", "shop.test", "--dir"])
            .arg(&at)
            .arg("--policy")
            .arg(&policy)
            .output()
            .unwrap();
        assert!(founded.status.success(), "{founded:?}");
        let config = world.config();
        let mut text = std::fs::read_to_string(&config).unwrap();
        text.push_str(&format!("\n[limits]\n{limits}\n"));
        std::fs::write(&config, text).unwrap();
        world.serve();
        world
    }

    /// A path in the world's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.path("broker/dayfly.toml")
    }

    /// The address of everything but joining.
    pub(crate) fn address(&self) -> SocketAddr {
        self.broker
    }

    /// The address of joining.
    pub(crate) fn join_address(&self) -> SocketAddr {
        self.join
    }

    /// The address of health and metrics.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    /// The public half of the trust root.
    pub(crate) fn trust_root(&self) -> String {
        std::fs::read_to_string(self.path("broker/trust-root.pub")).unwrap().trim().to_owned()
    }

    /// Starts the broker, and waits until it is ready.
    pub(crate) fn serve(&mut self) {
        let at = [self.broker, self.join, self.http];
        self.serving = Some(serve(&self.config(), at, &self.path("broker.log")));
    }

    /// The process of the broker.
    pub(crate) fn process(&mut self) -> &mut Child {
        self.serving.as_mut().unwrap()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut serving) = self.serving.take() {
            serving.kill().unwrap();
            serving.wait().unwrap();
        }
    }

    /// All that the broker wrote.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("broker.log")).unwrap_or_default()
    }

    /// `GET` on the plain HTTP listener; `None` while nobody listens.
    pub(crate) fn get(&self, path: &str) -> Option<String> {
        get(self.http, path)
    }

    /// The identity directory of `path` (`agent/refunds`), joined at first use.
    pub(crate) fn identity(&self, path: &str) -> PathBuf {
        let dir = self.path(&format!("id-{}", path.replace('/', "-")));
        if !dir.exists() {
            let id = format!("{SHOP}/{path}");
            let invited = self.dayfly(None, &["invite", &id, "--config"], &[&self.config()]);
            assert!(invited.status.success(), "{invited:?}");
            let string = String::from_utf8(invited.stdout).unwrap();
            let at = self.join.to_string();
            let joined = self.dayfly(Some(&dir), &["join", string.trim(), "--broker", &at], &[]);
            assert!(joined.status.success(), "{joined:?}");
        }
        dir
    }

    /// A connection as `path`.
    pub(crate) async fn session(&self, path: &str) -> Arc<Session> {
        let dir = self.identity(path);
        Session::open(&dir, Arc::new(SystemClock)).await.unwrap()
    }

    /// Runs `dayfly` with these arguments, and paths after them.
    pub(crate) fn dayfly(&self, identity: Option<&Path>, args: &[&str], paths: &[&Path]) -> Output {
        self.command(identity, args, paths).output().unwrap()
    }

    /// Runs `dayfly` as the identity of `path`.
    pub(crate) fn run(&self, path: &str, args: &[&str]) -> Output {
        self.dayfly(Some(&self.identity(path)), args, &[])
    }

    /// `dayfly` with these arguments, not yet run.
    pub(crate) fn command(
        &self,
        identity: Option<&Path>,
        args: &[&str],
        paths: &[&Path],
    ) -> Command {
        let mut command = Command::new(DAYFLY);
        command.args(args).args(paths).stdin(Stdio::null());
        command.env_remove("DAYFLY_IDENTITY").env_remove("DAYFLY_CONFIG");
        command.env("HOME", self.dir.path()).env_remove("SSH_AUTH_SOCK");
        command.envs(identity.map(|dir| ("DAYFLY_IDENTITY", dir)));
        command
    }

    /// Writes the shop's bundle with keys that this test holds, each file changed by `change`.
    pub(crate) fn write_bundle(
        &self,
        name: &str,
        change: impl Fn(&str, String) -> String,
    ) -> PathBuf {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/shop");
        let dir = self.path(name);
        std::fs::create_dir_all(&dir).unwrap();
        for entry in std::fs::read_dir(example).unwrap() {
            let file = entry.unwrap();
            let name = file.file_name().into_string().unwrap();
            let mut text = std::fs::read_to_string(file.path()).unwrap();
            if name == "people.toml" {
                text = with_our_keys(&text);
            }
            std::fs::write(dir.join(&name), change(&name, text)).unwrap();
        }
        dir
    }

    /// The key file of a person, as `ssh-keygen` would write it.
    pub(crate) fn key_file(&self, name: &str) -> PathBuf {
        let file = self.path(&format!("key-{name}"));
        let text = ssh(name).to_openssh(ssh_key::LineEnding::LF).unwrap();
        std::fs::write(&file, text.as_bytes()).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        file
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!("the broker's last words:\n{}", last.join("\n"));
        }
    }
}

/// The SSH key of a person.
pub(crate) fn ssh(name: &str) -> ssh_key::PrivateKey {
    let mut seed = [0; 32];
    seed.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed));
    ssh_key::PrivateKey::new(pair, name).unwrap()
}

fn with_our_keys(people: &str) -> String {
    let mut name = "";
    let mut text = String::new();
    for line in people.lines() {
        if let Some(person) = line.strip_prefix("[person.") {
            name = person.trim_end_matches(']');
        }
        if line.starts_with("keys = ") {
            let key = ssh(name).public_key().to_openssh().unwrap();
            text.push_str(&format!("keys = [\"{key}\"]\n"));
        } else {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Starts a broker that listens at these addresses, for everything but joining, for joining and for
/// HTTP, and waits until it is ready.
pub(crate) fn serve(config: &Path, [broker, join, http]: [SocketAddr; 3], log: &Path) -> Child {
    let mut serving = Command::new(DAYFLY)
        .args(["serve", "--config"])
        .arg(config)
        .env("DAYFLY_LISTEN_BROKER", broker.to_string())
        .env("DAYFLY_LISTEN_JOIN", join.to_string())
        .env("DAYFLY_LISTEN_HTTP", http.to_string())
        .env("DAYFLY_ADVERTISE", broker.to_string())
        .env("DAYFLY_LOG_FORMAT", "json")
        .stdout(Stdio::null())
        .stderr(Stdio::from(std::fs::File::create(log).unwrap()))
        .spawn()
        .unwrap();
    let ready = || get(http, "/readyz").is_some_and(|answer| answer.contains(" 200 "));
    let deadline = SystemClock.uptime().saturating_add(START);
    while !ready() {
        let said = || std::fs::read_to_string(log).unwrap_or_default();
        assert!(serving.try_wait().unwrap().is_none(), "{}", said());
        if SystemClock.uptime() > deadline {
            serving.kill().unwrap();
            serving.wait().unwrap();
            panic!("it is not ready after {START:?}: {}", said());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    serving
}

/// `GET` on a plain HTTP listener; `None` while nobody listens.
pub(crate) fn get(http: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(http).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A port at which nobody listens, below those that the system gives to whoever connects. No other
/// test of this process gets it, not even while whoever listens there is started anew.
pub(crate) fn free_port() -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = 10_000_u16.saturating_add(u16::from_le_bytes(random()) % 20_000);
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port))
            && GIVEN.lock().unwrap().insert(port)
        {
            return listener.local_addr().unwrap();
        }
    }
}
