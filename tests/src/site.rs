//! The built binary, in processes of its own.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;

use crate::shop::{Shop, TRUST_DOMAIN};

/// A broker of the shop as an operator runs it, and those who work with it.
pub struct Site {
    /// The bundle and the keys of its people.
    pub shop: Shop,
    binary: PathBuf,
    dir: TempDir,
    /// The ports, once a broker has told them.
    ports: Option<Ports>,
}

/// Where a broker listens.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// Everything but joining.
    pub broker: SocketAddr,
    /// Joining.
    pub join: SocketAddr,
    /// Health and metrics.
    pub http: SocketAddr,
}

/// A running broker. Dropping it kills it.
pub struct Serving {
    /// The process.
    pub child: Child,
    /// Where it listens.
    pub ports: Ports,
    log: Arc<Mutex<String>>,
}

impl Site {
    /// Founds a broker with `dayfly init`.
    #[must_use]
    pub fn found(binary: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let shop = Shop::open(dir.path());
        let site = Self { shop, binary: binary.into(), dir, ports: None };
        let (broker, bundle) = (site.broker(), site.shop.bundle.clone());
        let init = ["init", "--trust-domain", TRUST_DOMAIN, "--dir"];
        let mut init = site.command(init);
        init.arg(broker).arg("--policy").arg(bundle);
        done(&mut init);
        site
    }

    /// The directory of the broker.
    #[must_use]
    pub fn broker(&self) -> PathBuf {
        self.dir.path().join("broker")
    }

    /// The configuration of the broker.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.broker().join("dayfly.toml")
    }

    /// A directory for something else, below the site's.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command with these arguments, and nothing of the environment that could change it.
    pub fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).stdin(Stdio::null());
        for name in ["DAYFLY_CONFIG", "DAYFLY_IDENTITY", "DAYFLY_OUTPUT", "DAYFLY_JOIN"] {
            command.env_remove(name);
        }
        command
    }

    /// A command that is run as one of those who joined.
    pub fn cli(
        &self,
        who: &str,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Command {
        let mut command = self.command(arguments);
        command.arg("--identity").arg(self.path(who));
        command
    }

    /// `dayfly serve`, not yet started: at the ports of the last one, or at ones that are free.
    pub fn serve_command(&self) -> Command {
        let mut serve = self.command(["serve", "--config"]);
        serve.arg(self.config()).env("DAYFLY_LOG_FORMAT", "json");
        let port = |of: fn(&Ports) -> SocketAddr| match &self.ports {
            Some(ports) => of(ports).to_string(),
            None => "127.0.0.1:0".to_owned(),
        };
        serve.env("DAYFLY_LISTEN_BROKER", port(|ports| ports.broker));
        serve.env("DAYFLY_LISTEN_JOIN", port(|ports| ports.join));
        serve.env("DAYFLY_LISTEN_HTTP", port(|ports| ports.http));
        serve
    }

    /// Starts the broker, and waits until it serves.
    pub fn serve(&mut self) -> Serving {
        let mut child = self.serve_command().stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let ports = loop {
            let mut line = String::new();
            let read = lines.read_line(&mut line).unwrap();
            let so_far = log.lock().unwrap_or_else(PoisonError::into_inner).clone();
            assert_ne!(read, 0, "the broker ended before it served: {so_far}");
            log.lock().unwrap_or_else(PoisonError::into_inner).push_str(&line);
            if let Some(ports) = ports(&line) {
                break ports;
            }
        };
        self.ports = Some(ports);
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut log = kept.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&line);
                log.push('\n');
            }
        });
        Serving { child, ports, log }
    }

    /// Prints a join string on the broker's host.
    #[must_use]
    pub fn invite(&self, id: &str) -> String {
        let mut invite = self.command(["invite", id, "--config"]);
        let output = done(invite.arg(self.config()));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Invites `id` and joins as it, under the name `who`.
    pub fn join(&self, serving: &Serving, who: &str, id: &str) {
        let string = self.invite(id);
        let address = serving.ports.join.to_string();
        done(&mut self.cli(who, ["join", &string, "--broker", &address]));
    }
}

impl Serving {
    /// The status and the body of what the plain HTTP listener answers.
    #[must_use]
    pub fn http(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.ports.http).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap(), body.to_owned())
    }

    /// What it has logged so far: one JSON object a line.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells it to stop, and waits for its exit code.
    pub fn stop(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// Runs a command that must do what was asked.
pub fn done(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    output
}

/// Runs a command to its end: the exit code, what it wrote, and what it said on standard error.
pub fn ended(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// Changes the mode of a file.
pub fn chmod(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The ports in the line that a broker logs when it serves.
fn ports(line: &str) -> Option<Ports> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let port = |name: &str| line.get(name)?.as_str()?.parse().ok();
    (line.get("message")? == "serving").then_some(())?;
    Some(Ports { broker: port("broker")?, join: port("join")?, http: port("http")? })
}
