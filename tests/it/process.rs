//! A gateway in a process of its own: one that can be killed, and stopped.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use dayfly_agent::session::Session;
use dayfly_broker::config::{Log, LogFormat};
use dayfly_broker::telemetry::start_logging;
use dayfly_verifier::time::SystemClock;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::guarded::{Gateway, Opening};
use crate::world::World;

/// What the processes below are told.
const TOLD: [&str; 7] = [
    "DOOR_IDENTITY",
    "DOOR_TRUST_ROOT",
    "DOOR_INSTANCE",
    "DOOR_STALENESS",
    "DOOR_LISTEN",
    "DOOR_URL",
    "DOOR_LOG",
];

/// Not a test: what a gateway process runs. It says where it listens, and ends with its input.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by other tests, in a process of its own"]
async fn a_gateway_process() {
    let [Some(dir), Some(root), Some(instance), Some(staleness), Some(listen), base_url, log] =
        TOLD.map(|name| std::env::var(name).ok())
    else {
        return;
    };
    if log.is_some() {
        start_logging(&Log { filter: "trace".into(), format: LogFormat::Json });
    }
    let opening = Opening {
        instance,
        listen: Some(listen.parse().unwrap()),
        base_url,
        ..Opening::usual(Duration::from_secs(staleness.parse().unwrap()))
    };
    let session = Session::open(Path::new(&dir), Arc::new(SystemClock)).await.unwrap();
    let gateway = Gateway::run(session, &root, opening).await;
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nlistening {}", gateway.address).unwrap();
    out.flush().unwrap();
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()).unwrap())
        .await
        .unwrap();
}

/// A gateway in a process of its own.
pub(crate) struct Process {
    child: Child,
    /// It ends when this is dropped.
    _input: ChildStdin,
    pub(crate) gateway: Gateway,
}

impl Process {
    /// The gateway `audience` with the identity in `dir`, run in this way.
    pub(crate) fn start(world: &World, audience: &str, dir: &Path, opening: &Opening) -> Self {
        let listen = opening.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        let told = [
            Some(dir.as_os_str().to_owned()),
            Some(world.trust_root().into()),
            Some((&opening.instance).into()),
            Some(opening.max_staleness.as_secs().to_string().into()),
            Some(listen.to_string().into()),
            opening.base_url.as_ref().map(Into::into),
            opening.log.as_ref().map(Into::into),
        ];
        let told = TOLD.into_iter().zip(told).filter_map(|(name, told)| Some((name, told?)));
        let log = opening.log.as_ref();
        let log = log.map_or(Stdio::null(), |log| Stdio::from(File::create(log).unwrap()));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["process::a_gateway_process", "--exact", "--ignored", "--nocapture"])
            .envs(told)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("listening ")?.parse().ok())
            .unwrap();
        let input = child.stdin.take().unwrap();
        let mut gateway = Gateway::elsewhere(address, audience);
        if let Some(base_url) = &opening.base_url {
            gateway.reached_as(base_url);
        }
        Self { child, _input: input, gateway }
    }

    /// Stops it. When this returns, none of its threads runs.
    pub(crate) fn stop(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::STOP).unwrap();
        let status = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
        assert!(status.is_some_and(|(_, status)| status.stopped()));
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).unwrap();
    }
}

/// `kill -9`.
impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}
