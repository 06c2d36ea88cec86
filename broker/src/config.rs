//! The configuration: one TOML file, with the environment over it. All of it is checked before a
//! port opens; a field that is unknown, missing or wrong is named with the rule that it breaks.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dayfly_agent::files::{self, FileError};
use dayfly_agent::listen::Bounds;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::spiffe::SpiffeId;
use serde::Deserialize;

use crate::authority::broker_id;
use crate::core::limits::Limits;
use crate::found::KEYS;

/// Where the configuration is looked for, unless another file is named. Never in the directory
/// that the command happens to run in.
pub const DEFAULT_PATH: &str = "/etc/dayfly/dayfly.toml";

/// A broker's configuration, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The trust domain that the broker serves.
    pub trust_domain: String,
    /// The broker's own ID: with its `name` at the end, where it has one.
    pub id: SpiffeId,
    /// The other brokers that serve the same directory.
    pub peers: Vec<Peer>,
    /// Where its keys and its journal are: `keys/`, `journal.db`, `trust.statement` and so on.
    pub dir: PathBuf,
    /// Where its keys are, if they are kept apart from the journal.
    pub keys: Option<PathBuf>,
    /// Where it listens.
    pub listen: Listen,
    /// Where others reach it, if that is not where it listens: `host:port`.
    pub advertise: Option<String>,
    /// The limits that can be set.
    pub limits: Limits,
    /// How many entries come between two snapshots of the fold, at least.
    pub snapshot_every: u64,
    /// How many connections each of the two gRPC listeners has at once.
    pub bounds: Bounds,
    /// What it says of itself while it runs.
    pub log: Log,
}

/// Another broker that serves the same directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its ID.
    pub id: SpiffeId,
    /// Where others reach it: `host:port`.
    pub address: String,
}

/// The addresses that a broker listens at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// gRPC over mutual TLS: everything but joining.
    pub broker: SocketAddr,
    /// gRPC over TLS without client certificates: joining alone.
    pub join: SocketAddr,
    /// Plain HTTP: `/healthz`, `/readyz`, `/metrics`.
    pub http: SocketAddr,
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A filter: `info`, or `warn,dayfly_broker=debug`.
    pub filter: String,
    /// In which form.
    pub format: LogFormat,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not TOML, or not with the fields that there are.
    #[error("`{}` is refused: {reason}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the reader says, with the line.
        reason: String,
    },
    /// A field breaks a rule.
    #[error("`{}` is refused: {invalid}", .path.display())]
    Invalid {
        /// The file. The value may come from the environment.
        path: PathBuf,
        /// The field and the rule.
        invalid: Invalid,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    trust_domain: String,
    name: Option<String>,
    dir: Option<PathBuf>,
    keys: Option<PathBuf>,
    advertise: Option<String>,
    #[serde(default)]
    peer: Vec<WrittenPeer>,
    #[serde(default)]
    listen: WrittenListen,
    #[serde(default)]
    limits: WrittenLimits,
    #[serde(default)]
    connections: WrittenBounds,
    #[serde(default)]
    journal: WrittenJournal,
    #[serde(default)]
    log: WrittenLog,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPeer {
    name: Option<String>,
    address: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct WrittenJournal {
    snapshot_every: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct WrittenListen {
    broker: Option<String>,
    join: Option<String>,
    http: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct WrittenLimits {
    pending_seconds: Option<u64>,
    lease_seconds: Option<u64>,
    token_seconds: Option<u64>,
    live_grants: Option<u32>,
    pending_requests: Option<u32>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct WrittenBounds {
    total: Option<usize>,
    per_address: Option<usize>,
    per_identity: Option<usize>,
    handshakes: Option<usize>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct WrittenLog {
    filter: Option<String>,
    format: Option<String>,
}

impl Config {
    /// Reads the file at `path`, with what `env` gives for a variable over it: `DAYFLY_KEYS`,
    /// `DAYFLY_ADVERTISE`, and `DAYFLY_LISTEN_..` and `DAYFLY_LOG_..` for the fields under
    /// `[listen]` and `[log]`. Other fields stand in the file alone.
    pub fn load(path: &Path, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let text = files::read_text(path)?;
        let mut written: Written = toml::from_str(&text).map_err(|error| {
            let line = error.span().and_then(|span| text.get(..span.start));
            let line = line.map_or(0, |before| before.matches('\n').count()).saturating_add(1);
            let reason = format!("line {line}: {}", error.message().trim_end());
            ConfigError::Syntax { path: path.to_owned(), reason }
        })?;
        let over = |field: &mut Option<String>, name: &str| {
            if let Some(value) = env(name) {
                *field = Some(value);
            }
        };
        if let Some(keys) = env("DAYFLY_KEYS") {
            written.keys = Some(keys.into());
        }
        over(&mut written.listen.broker, "DAYFLY_LISTEN_BROKER");
        over(&mut written.listen.join, "DAYFLY_LISTEN_JOIN");
        over(&mut written.listen.http, "DAYFLY_LISTEN_HTTP");
        over(&mut written.advertise, "DAYFLY_ADVERTISE");
        over(&mut written.log.filter, "DAYFLY_LOG_FILTER");
        over(&mut written.log.format, "DAYFLY_LOG_FORMAT");
        let near = path.parent().unwrap_or(Path::new("."));
        written
            .check(near)
            .map_err(|invalid| ConfigError::Invalid { path: path.to_owned(), invalid })
    }

    /// Where the keys are.
    #[must_use]
    pub fn keys(&self) -> PathBuf {
        self.keys.clone().unwrap_or_else(|| self.dir.join(KEYS))
    }

    /// Where the journal is.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.dir.join("journal.db")
    }
}

impl Written {
    /// Paths are relative to the directory `near`, where the file is.
    fn check(self, near: &Path) -> Result<Config, Invalid> {
        let Self { trust_domain, name, dir, keys, advertise, peer, .. } = self;
        let Self { listen, limits, connections, journal, log, .. } = self;
        let id = broker_id(&trust_domain, name.as_deref())?;
        let peers = peer.into_iter().map(|peer| peer.check(&trust_domain));
        let peers = peers.collect::<Result<Vec<_>, _>>()?;
        if peers.iter().any(|peer| peer.id == id) {
            return Err(Invalid::new("peer.name", "must not be this broker's own"));
        }
        let dir = dir.map_or_else(|| near.to_owned(), |dir| near.join(dir));
        let keys = keys.map(|keys| near.join(keys));
        advertise.as_deref().map_or(Ok(()), |at| host_and_port("advertise", at))?;
        let listen = listen.check()?;
        Ok(Config {
            trust_domain,
            id,
            peers,
            dir,
            keys,
            listen,
            advertise,
            limits: limits.check()?,
            bounds: connections.check()?,
            snapshot_every: journal.check()?,
            log: log.check()?,
        })
    }
}

impl Default for Listen {
    fn default() -> Self {
        let local = |port: u16| (std::net::Ipv4Addr::LOCALHOST, port).into();
        Self { broker: local(7443), join: local(7444), http: local(7480) }
    }
}

impl WrittenPeer {
    fn check(self, domain: &str) -> Result<Peer, Invalid> {
        let Self { name, address } = self;
        host_and_port("peer.address", &address)?;
        let id = broker_id(domain, name.as_deref());
        let id = id.map_err(|invalid| Invalid { field: "peer.name".into(), ..invalid })?;
        Ok(Peer { id, address })
    }
}

fn host_and_port(field: &'static str, written: &str) -> Result<(), Invalid> {
    match written.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p != 0) => {
            Ok(())
        }
        _ => Err(Invalid::new(field, "must be `host:port`")),
    }
}

impl WrittenJournal {
    fn check(self) -> Result<u64, Invalid> {
        let every = self.snapshot_every.unwrap_or(10_000);
        match every {
            100..=1_000_000 => Ok(every),
            _ => Err(Invalid::new("journal.snapshot_every", "must be 100 to 1000000")),
        }
    }
}

impl WrittenListen {
    fn check(self) -> Result<Listen, Invalid> {
        let Self { broker, join, http } = self;
        let default = Listen::default();
        let address = |field: &'static str, written: Option<String>, default: SocketAddr| {
            let Some(written) = written else { return Ok(default) };
            let rule = "must be an IP address and a port, as in `127.0.0.1:7443`";
            written.parse().map_err(|_| Invalid::new(field, rule))
        };
        Ok(Listen {
            broker: address("listen.broker", broker, default.broker)?,
            join: address("listen.join", join, default.join)?,
            http: address("listen.http", http, default.http)?,
        })
    }
}

impl WrittenLimits {
    fn check(self) -> Result<Limits, Invalid> {
        let Self { pending_seconds, lease_seconds, token_seconds, live_grants, pending_requests } =
            self;
        let default = Limits::default();
        let span =
            |field: &'static str, written: Option<u64>, default: Duration, most: u64| match written
            {
                None => Ok(default),
                Some(secs) if (1..=most).contains(&secs) => Ok(Duration::from_secs(secs)),
                Some(_) => Err(Invalid::new(field, format!("must be 1 to {most}"))),
            };
        let count = |field: &'static str, written: Option<u32>, default: u32| match written {
            None => Ok(default),
            Some(count) if (1..=10_000).contains(&count) => Ok(count),
            Some(_) => Err(Invalid::new(field, "must be 1 to 10000")),
        };
        const HOUR: u64 = 60 * 60;
        Ok(Limits {
            pending_life: span(
                "limits.pending_seconds",
                pending_seconds,
                default.pending_life,
                24 * HOUR,
            )?,
            default_lease: span(
                "limits.lease_seconds",
                lease_seconds,
                default.default_lease,
                HOUR,
            )?,
            token_life: span("limits.token_seconds", token_seconds, default.token_life, HOUR / 4)?,
            live_grants: count("limits.live_grants", live_grants, default.live_grants)?,
            pending_requests: count(
                "limits.pending_requests",
                pending_requests,
                default.pending_requests,
            )?,
        })
    }
}

impl WrittenBounds {
    fn check(self) -> Result<Bounds, Invalid> {
        let Self { total, per_address, per_identity, handshakes } = self;
        let default = Bounds::default();
        let count = |field: &'static str, written: Option<usize>, default: usize| match written {
            None => Ok(default),
            Some(count) if (1..=1_000_000).contains(&count) => Ok(count),
            Some(_) => Err(Invalid::new(field, "must be 1 to 1000000")),
        };
        Ok(Bounds {
            connections: count("connections.total", total, default.connections)?,
            per_address: count("connections.per_address", per_address, default.per_address)?,
            per_identity: count("connections.per_identity", per_identity, default.per_identity)?,
            handshakes: count("connections.handshakes", handshakes, default.handshakes)?,
        })
    }
}

impl WrittenLog {
    fn check(self) -> Result<Log, Invalid> {
        let Self { filter, format } = self;
        let filter = filter.unwrap_or_else(|| "info".to_owned());
        if tracing_subscriber::EnvFilter::try_new(&filter).is_err() {
            return Err(Invalid::new("log.filter", "must be a level, or targets with levels"));
        }
        let format = match format.as_deref() {
            None | Some("text") => LogFormat::Text,
            Some("json") => LogFormat::Json,
            Some(_) => return Err(Invalid::new("log.format", "must be `text` or `json`")),
        };
        Ok(Log { filter, format })
    }
}

#[cfg(test)]
mod tests;
