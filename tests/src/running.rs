//! A broker of the example shop in this process, and identities to reach it with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dayfly_agent::files;
use dayfly_agent::join::join;
use dayfly_agent::session::Session;
use dayfly_agent::tls::Live;
use dayfly_broker::authority::{Authority, broker_id};
use dayfly_broker::config::Config;
use dayfly_broker::found::{self, Founding};
use dayfly_broker::journal::Sqlite;
use dayfly_broker::policy::files::BundleFiles;
use dayfly_broker::random::SystemRandom;
use dayfly_broker::serve::{Host, Listeners, Opened};
use dayfly_broker::shutdown::Shutdown;
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::time::{Clock as _, SystemClock};

const DOMAIN: &str = "shop.test";

/// The broker, and what is needed to join it.
pub(crate) struct World {
    dir: tempfile::TempDir,
    /// What gateways pin.
    pub(crate) trust_root: HolderKey,
    /// Where the broker serves everything but joining.
    pub(crate) address: SocketAddr,
    joins: String,
    authority: Authority,
}

impl World {
    /// Founds the broker and serves.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let at = dir.path().join("broker");
        let shop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/shop");
        let bundle = BundleFiles::read(&shop).map_err(|e| anyhow::anyhow!("{e:?}"))?;
        let founding = Founding { dir: at.clone(), trust_domain: DOMAIN.into(), bundle };
        founding.run(&SystemClock, &SystemRandom).await?;
        let trust_root = files::read_text(&at.join(found::TRUST_ROOT_PUBLIC))?.trim().parse()?;
        let any_port = |name: &str| name.starts_with("DAYFLY_LISTEN").then(|| "127.0.0.1:0".into());
        let config = Config::load(&at.join(found::CONFIG), any_port)?;
        let host = Host { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) };
        let opened = Opened::open(&config, &host, Shutdown::new()).await?;
        let listeners = Listeners::bind(&config).await?;
        let address = listeners.broker.local_addr()?;
        let joins = listeners.join.local_addr()?.to_string();
        tokio::spawn(opened.run(listeners));
        let store = Arc::new(Sqlite::open(&config.journal())?);
        let random = Arc::new(SystemRandom);
        let authority = Authority::open(DOMAIN, &config.keys(), store, random).await?;
        Ok(Self { dir, trust_root, address, joins, authority })
    }

    /// The directory with an identity `spiffe://shop.test/PATH`, newly joined.
    pub(crate) async fn identity(&self, path: &str) -> anyhow::Result<PathBuf> {
        let id = format!("spiffe://{DOMAIN}/{path}").parse()?;
        let (string, _) = self.authority.invite(&id, SystemClock.now()).await?;
        let dir = tempfile::Builder::new().prefix("id").tempdir_in(self.dir.path())?.keep();
        let dir = dir.join("identity");
        join(&string, &self.joins, &dir, Arc::new(SystemClock)).await?;
        Ok(dir)
    }

    /// The same, connected.
    pub(crate) async fn session(&self, path: &str) -> anyhow::Result<Arc<Session>> {
        Ok(Session::open(&self.identity(path).await?, Arc::new(SystemClock)).await?)
    }

    /// An identity of the broker, to serve something else under.
    pub(crate) fn live(&self) -> anyhow::Result<Live> {
        let identity = self.authority.for_broker(&broker_id(DOMAIN, None)?, SystemClock.now())?;
        Ok(Live::new(identity, Arc::new(SystemClock)))
    }
}
