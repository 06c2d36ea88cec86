//! The configuration: one TOML file, with the environment over it. All of it is checked before a
//! port opens; a field that is unknown, missing or wrong is named with the rule that it breaks.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dayfly_agent::files::{self, FileError};
use dayfly_agent::listen::Bounds;
use dayfly_verifier::invalid::Invalid;
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
    /// How many connections each of the two gRPC listeners has at once.
    pub bounds: Bounds,
    /// What it says of itself while it runs.
    pub log: Log,
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
    dir: Option<PathBuf>,
    keys: Option<PathBuf>,
    advertise: Option<String>,
    #[serde(default)]
    listen: WrittenListen,
    #[serde(default)]
    limits: WrittenLimits,
    #[serde(default)]
    connections: WrittenBounds,
    #[serde(default)]
    log: WrittenLog,
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
    /// Reads the file at `path`, with what `env` gives for a variable over it: `DAYFLY_` and the
    /// field in capitals, `DAYFLY_LISTEN_BROKER` for `listen.broker`.
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
        let Self { trust_domain, dir, keys, advertise, listen, limits, connections, log } = self;
        broker_id(&trust_domain)?;
        let dir = dir.map_or_else(|| near.to_owned(), |dir| near.join(dir));
        let keys = keys.map(|keys| near.join(keys));
        if let Some(advertise) = &advertise
            && !advertise.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
            })
        {
            return Err(Invalid::new("advertise", "must be `host:port`"));
        }
        let listen = listen.check()?;
        Ok(Config {
            trust_domain,
            dir,
            keys,
            listen,
            advertise,
            limits: limits.check()?,
            bounds: connections.check()?,
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
mod tests {
    use super::*;

    fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dayfly.toml");
        files::write_public(&path, text.as_bytes()).unwrap();
        let env = |name: &str| {
            env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Config::load(&path, env)
            .map_err(|error| error.to_string().replace(&path.display().to_string(), "dayfly.toml"))
    }

    #[test]
    fn refusals_name_the_field_and_the_rule() {
        let refused = |text: &str| load(text, &[]).unwrap_err();
        let cases = [
            ("", "line 1: missing field `trust_domain`"),
            ("trust_domain = \"Shop\"", "trust_domain: must be"),
            ("trust_domain = \"shop/x\"", "trust_domain: must be"),
            ("trust_domain = \"a\"\ntrust_domian = \"a\"", "line 2: unknown field `trust_domian`"),
            ("trust_domain = \"a\"\n[listen]\nbroker = \"7443\"", "listen.broker: must be an IP"),
            ("trust_domain = \"a\"\n[listen]\ngrpc = \"x\"", "line 3: unknown field `grpc`"),
            (
                "trust_domain = \"a\"\n[limits]\ntoken_seconds = 0",
                "limits.token_seconds: must be 1",
            ),
            ("trust_domain = \"a\"\n[limits]\ntoken_seconds = 901", "limits.token_seconds: must"),
            ("trust_domain = \"a\"\n[limits]\nlive_grants = 0", "limits.live_grants: must be 1"),
            ("trust_domain = \"a\"\n[limits]\nlive_grants = -1", "line 3: invalid value"),
            ("trust_domain = \"a\"\n[connections]\ntotal = 0", "connections.total: must be 1"),
            ("trust_domain = \"a\"\n[log]\nformat = \"xml\"", "log.format: must be `text`"),
            ("trust_domain = \"a\"\nadvertise = \"broker\"", "advertise: must be `host:port`"),
        ];
        for (text, message) in cases {
            let refused = refused(text);
            assert!(refused.contains(message), "{refused:?} lacks {message:?}");
        }
    }

    #[test]
    fn the_environment_goes_over_the_file() {
        let text = "trust_domain = \"shop.test\"\n[listen]\nbroker = \"10.0.0.1:1\"";
        let config = load(text, &[("DAYFLY_LISTEN_BROKER", "10.0.0.2:2")]).unwrap();
        assert_eq!(config.listen.broker.to_string(), "10.0.0.2:2");
        assert_eq!(config.listen.join.to_string(), "127.0.0.1:7444");
        assert_eq!(config.keys(), config.dir.join("keys"));
        let apart = load(text, &[("DAYFLY_KEYS", "/run/dayfly")]).unwrap();
        assert_eq!(apart.keys(), Path::new("/run/dayfly"));
        assert_eq!(apart.journal().file_name(), config.journal().file_name());
        assert_eq!(config.limits, Limits::default());
        assert!(load(text, &[("DAYFLY_LOG_FORMAT", "xml")]).is_err());
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dayfly.toml");
        files::write_public(&path, b"trust_domain = \"a\"").unwrap();
        assert!(Config::load(&path, |_| None).is_ok());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(Config::load(&path, |_| None), Err(ConfigError::File(_))));
    }
}
