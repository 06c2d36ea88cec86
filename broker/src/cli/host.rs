//! What is done on a host: found a broker, run it, invite to it, join it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use dayfly_agent::identity::IdentityDir;
use dayfly_agent::join::{JoinString, join};
use dayfly_agent::session::Session;
use dayfly_agent::tls::Identity;
use dayfly_proto::v1::CreateJoinRequest;
use dayfly_proto::v1::operator_service_client::OperatorServiceClient;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::{Clock as _, SystemClock, Timestamp};
use serde_json::json;

use super::exit::{Exit, Refused};
use super::policy::must_be_directory;
use super::when::time;
use super::{Context, block_on};
use crate::authority::AuthorityError;
use crate::config::{Config, ConfigError, DEFAULT_PATH};
use crate::core::event::Head;
use crate::found::{self, FoundError, Founding};
use crate::invite::{self, InviteError};
use crate::journal::JournalError;
use crate::policy::files::BundleFiles;
use crate::random::SystemRandom;
use crate::serve::{Host, Listeners, Opened, ServeError};
use crate::shutdown::Shutdown;
use crate::telemetry::start_logging;

/// Found a broker: its authority, keys, journal and configuration, in one directory.
///
/// Writes the trust root to a file of its own. Gateways believe no key that it has not signed:
/// move it off this host once the broker is founded.
#[derive(Debug, Args)]
pub struct Init {
    /// The directory to make; it must hold no broker yet.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The trust domain whose identities the broker gives and serves, as in `shop.test`.
    #[arg(long, value_name = "NAME")]
    trust_domain: String,
    /// The directory with the first policy bundle: who may ask for what, and who must approve.
    #[arg(long, value_name = "DIR")]
    policy: PathBuf,
}

/// Run the broker until it is told to stop (SIGTERM or SIGINT; a second one cuts what still runs).
#[derive(Debug, Args)]
pub struct Serve {
    /// The configuration file, as `dayfly init` wrote it.
    #[arg(long, value_name = "FILE", env = "DAYFLY_CONFIG", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Only look, as a start would, at the configuration, keys, journal and bundle; open no port.
    #[arg(long)]
    check: bool,
}

/// Print a join string for an identity: good for one join within ten minutes.
///
/// On the broker's host, with `--config`, whether the broker runs or not; elsewhere as an
/// operator, over the network, and then neither for a person nor for what the bundle does not
/// list. An operator who invites a workload counts as one who operates it: its requests are for
/// others to approve. A locked identity is unlocked when somebody joins with it.
#[derive(Debug, Args)]
pub struct Invite {
    /// The SPIFFE ID to give, as in `spiffe://shop.test/agent/refunds`.
    #[arg(value_name = "SPIFFE_ID")]
    id: String,
    /// The configuration file of the broker on this host.
    #[arg(long, value_name = "FILE", env = "DAYFLY_CONFIG")]
    config: Option<PathBuf>,
}

/// Trade a join string for an identity, and keep it in the identity directory.
///
/// The key is made here and never leaves the directory, which must hold no identity yet, or one
/// that has ended. An identity lives an hour; every command
/// renews it in the second half of its life, and `--stay` keeps it renewed: with that, an identity
/// that is good is gone on with and the string left unused, so that a supervisor can start the same
/// command again.
#[derive(Debug, Args)]
pub struct Join {
    /// The join string from `dayfly invite`; none to go on with the identity that is there.
    #[arg(value_name = "STRING", env = "DAYFLY_JOIN", hide_env_values = true)]
    string: Option<String>,
    /// The join address of the broker.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7444")]
    broker: String,
    /// Keep running, and renew the identity whenever half of its life is over.
    #[arg(long)]
    stay: bool,
}

impl Init {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { dir, trust_domain, policy } = self;
        must_be_directory(&policy)?;
        let bundle = BundleFiles::read(&policy).map_err(FoundError::Bundle).map_err(founding)?;
        let founding_of = Founding { dir: dir.clone(), trust_domain: trust_domain.clone(), bundle };
        let head = block_on(async {
            founding_of.run(&SystemClock, &SystemRandom).await.map_err(founding)
        })?;
        let config = dir.join(found::CONFIG);
        let (config, root) = (config.display(), dir.join(found::TRUST_ROOT));
        let root = root.display();
        let text = || {
            format!(
                "founded the broker of {trust_domain}\n\
                 \n\
                 Next:\n  \
                 dayfly serve --config {config}\n  \
                 dayfly invite --config {config} spiffe://{trust_domain}/...\n\
                 Move {root} off this host: whoever has it can make gateways\n\
                 believe any key."
            )
        };
        let json = || {
            json!({
                "trust_domain": trust_domain, "config": config.to_string(),
                "trust_root": root.to_string(), "epoch": head.epoch.to_string(), "seq": head.seq.0,
            })
        };
        context.console.result(text, json);
        Ok(())
    }
}

impl Serve {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        let config = load(&self.config)?;
        if !self.check {
            start_logging(&config.log);
        }
        block_on(async {
            let host = Host { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) };
            let shutdown = Shutdown::new();
            let opened = Opened::open(&config, &host, shutdown.clone()).await.map_err(serving)?;
            if self.check {
                let Head { epoch, seq, hash: _ } = opened.head();
                let (key, end) = opened.feed_key();
                let text = || {
                    format!(
                        "a broker would start here: entry {seq} of epoch {epoch}\n\
                         feed key {key} would sign the feed, until {}",
                        time(end)
                    )
                };
                let json = || {
                    json!({
                        "epoch": epoch.to_string(), "seq": seq.0,
                        "feed_key": key.0, "feed_key_ends_ms": end.as_ms(),
                    })
                };
                context.console.result(text, json);
                return Ok(());
            }
            let listeners = Listeners::bind(&config).await.map_err(ServeError::Listen);
            let listeners = listeners.map_err(serving)?;
            tokio::spawn(async {
                if let Err(error) = shutdown.follow_signals().await {
                    tracing::error!(%error, "signals cannot be followed");
                }
            });
            opened.run(listeners).await.map_err(serving)
        })
    }
}

impl Invite {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        let id: SpiffeId = self.id.parse().map_err(|error| {
            let next = "name all of the ID, as in spiffe://shop.test/agent/refunds";
            Refused::new(Exit::Usage, anyhow::Error::from(error)).next(next)
        })?;
        let (string, until) = block_on(async {
            match &self.config {
                Some(config) => on_this_host(&load(config)?, &id).await,
                None => as_operator(context, &id).await,
            }
        })?;
        let json = || json!({ "spiffe_id": id.to_string(), "join": string, "expires_at": until.to_string() });
        context.console.progress(&format!("for {id}, one use, until {}", time(until)));
        context.console.result(|| string.clone(), json);
        Ok(())
    }
}

async fn on_this_host(config: &Config, id: &SpiffeId) -> Result<(String, Timestamp), Refused> {
    let host = Host { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) };
    let invited = invite::on_this_host(config, &host, id).await;
    let (string, until) = invited.map_err(|error| match error {
        InviteError::Authority(AuthorityError::Invalid(invalid)) => {
            Refused::new(Exit::Usage, invalid)
        }
        InviteError::Authority(error) => serving(error.into()),
        InviteError::Journal(error) => serving(error.into()),
        InviteError::Failed(_) => Refused::new(Exit::Unavailable, error),
    })?;
    Ok((string.to_text().to_string(), until))
}

async fn as_operator(context: &Context, id: &SpiffeId) -> Result<(String, Timestamp), Refused> {
    let session = context.session().await?;
    let request = CreateJoinRequest { spiffe_id: id.to_string() };
    let answer = OperatorServiceClient::new(session.channel()).create_join(request).await;
    let answer = answer.map_err(|status| context.status(status))?;
    let answer = answer.into_inner();
    let until = u64::try_from(answer.expires_at_ms).ok().and_then(|ms| Timestamp::from_ms(ms).ok());
    let until = until.ok_or_else(|| {
        Refused::new(Exit::Unavailable, anyhow::anyhow!("the broker does not say until when"))
    })?;
    Ok((answer.join_string, until))
}

impl Join {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { string, broker, stay } = self;
        let dir = context.identity_dir()?;
        let needless = stay && string.is_some() && is_good(&dir);
        if needless {
            let dir = dir.display();
            let said = format!("the identity in {dir} is good; the join string was not used");
            context.console.progress(&said);
        }
        block_on(async {
            let session = match string.filter(|_| !needless) {
                Some(string) => {
                    let string: JoinString = string.parse().map_err(|error: Invalid| {
                        let next = "paste all of what `dayfly invite` printed";
                        Refused::new(Exit::Usage, error).next(next)
                    })?;
                    let joined = join(&string, &broker, &dir, Arc::new(SystemClock)).await;
                    show(context, &dir, &*joined.map_err(|error| context.refused(error))?);
                    None
                }
                None => {
                    let session = context.session().await?;
                    show(context, &dir, &session.identity());
                    Some(session)
                }
            };
            if !stay {
                return Ok(());
            }
            let session = match session {
                Some(session) => session,
                None => context.session().await?,
            };
            stay_until_told(context, &session).await
        })
    }
}

/// Whether the directory holds an identity that has not ended.
fn is_good(dir: &Path) -> bool {
    let loaded = IdentityDir::open(dir).and_then(|dir| dir.load());
    loaded.is_ok_and(|identity| SystemClock.now() < identity.until())
}

fn show(context: &Context, dir: &Path, identity: &Identity) {
    let (id, until, dir) = (identity.id().to_string(), identity.until(), dir.display());
    let text = || format!("joined as {id} until {}\nidentity in {dir}", time(until));
    let json =
        || json!({ "spiffe_id": id, "until": until.to_string(), "identity": dir.to_string() });
    context.console.result(text, json);
}

async fn stay_until_told(context: &Context, session: &Session) -> Result<(), Refused> {
    let shutdown = Shutdown::new();
    tokio::spawn(shutdown.clone().follow_signals());
    context.console.progress("keeping it renewed; stop with SIGTERM or Ctrl-C");
    tokio::select! {
        () = shutdown.begins() => Ok(()),
        ended = session.keep_renewed() => Err(context.refused(ended)),
    }
}

/// The configuration of the broker on this host, with the environment over it.
pub(super) fn load(path: &Path) -> Result<Config, Refused> {
    let env = |name: &str| std::env::var(name).ok();
    Config::load(path, env).map_err(|error| {
        let missing = matches!(&error, ConfigError::File(file) if file.is_missing());
        let refused = Refused::new(Exit::Config, error);
        if missing {
            refused.next("dayfly init, then name the file that it wrote with --config")
        } else {
            refused
        }
    })
}

fn founding(error: FoundError) -> Refused {
    let exit = match &error {
        FoundError::Bundle(_) => Exit::Config,
        FoundError::Taken(_) | FoundError::Invalid(_) => Exit::Usage,
        FoundError::File(_)
        | FoundError::Authority(_)
        | FoundError::Key(_)
        | FoundError::FeedKey(_)
        | FoundError::Signer(_)
        | FoundError::Journal(_) => Exit::Failed,
    };
    Refused::new(exit, error)
}

/// Keys and files that are refused are bad configuration; a store that does not answer is not.
fn serving(error: ServeError) -> Refused {
    let exit = match &error {
        ServeError::Journal(JournalError::Unavailable(_)) => Exit::Unavailable,
        ServeError::Authority(AuthorityError::Store(_)) => Exit::Unavailable,
        ServeError::Founding(FoundError::FeedKey(_)) => {
            let next = "make a key with `dayfly keys rotate --feed`, and have the trust root list \
                        it as that says; one that is listed already, bring here";
            return Refused::new(Exit::Config, error).next(next);
        }
        ServeError::Key(_) | ServeError::Authority(_) | ServeError::Founding(_) => Exit::Config,
        ServeError::Journal(_)
        | ServeError::Bundle(_)
        | ServeError::Tls(_)
        | ServeError::Reflection(_) => Exit::Failed,
        ServeError::Listen(_) => {
            let next = "stop what listens there, or name another address under [listen]";
            return Refused::new(Exit::Failed, error).next(next);
        }
    };
    Refused::new(exit, error)
}
