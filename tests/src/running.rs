//! A broker of the example shop in this process, by the clock of this machine: for measuring.

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
pub struct Running {
    dir: tempfile::TempDir,
    /// What gateways pin.
    pub trust_root: HolderKey,
    /// Where the broker serves everything but joining.
    pub address: SocketAddr,
    /// The file of its journal.
    pub journal: PathBuf,
    joins: String,
    authority: Authority,
}

impl Running {
    /// Founds the broker and serves.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("broker");
        let shop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/shop");
        let bundle = BundleFiles::read(&shop).unwrap();
        let founding = Founding { dir: at.clone(), trust_domain: DOMAIN.into(), bundle };
        founding.run(&SystemClock, &SystemRandom).await.unwrap();
        let trust_root = files::read_text(&at.join(found::TRUST_ROOT_PUBLIC)).unwrap();
        let trust_root = trust_root.trim().parse().unwrap();
        let any_port = |name: &str| name.starts_with("DAYFLY_LISTEN").then(|| "127.0.0.1:0".into());
        let config = Config::load(&at.join(found::CONFIG), any_port).unwrap();
        let host = Host { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) };
        let opened = Opened::open(&config, &host, Shutdown::new()).await.unwrap();
        let listeners = Listeners::bind(&config).await.unwrap();
        let address = listeners.broker.local_addr().unwrap();
        let joins = listeners.join.local_addr().unwrap().to_string();
        tokio::spawn(opened.run(listeners));
        let store = Arc::new(Sqlite::open(&config.journal()).unwrap());
        let random = Arc::new(SystemRandom);
        let authority = Authority::open(DOMAIN, &config.keys(), store, random).await.unwrap();
        let journal = config.journal();
        Self { dir, trust_root, address, journal, joins, authority }
    }

    /// The directory with an identity `spiffe://shop.test/PATH`, newly joined.
    pub async fn identity(&self, path: &str) -> PathBuf {
        let id = format!("spiffe://{DOMAIN}/{path}").parse().unwrap();
        let (string, _) = self.authority.invite(&id, SystemClock.now()).await.unwrap();
        let dir = tempfile::Builder::new().prefix("id").tempdir_in(self.dir.path()).unwrap().keep();
        let dir = dir.join("identity");
        join(&string, &self.joins, &dir, Arc::new(SystemClock)).await.unwrap();
        dir
    }

    /// The same, which takes what serves at `address` for the broker.
    pub async fn identity_at(&self, path: &str, address: SocketAddr) -> PathBuf {
        let dir = self.identity(path).await;
        let brokers = dir.join("identity.toml");
        let text = std::fs::read_to_string(&brokers).unwrap();
        let text = text.replace(&self.address.to_string(), &address.to_string());
        std::fs::write(&brokers, text).unwrap();
        dir
    }

    /// The same, connected to the broker.
    pub async fn session(&self, path: &str) -> Arc<Session> {
        Session::open(&self.identity(path).await, Arc::new(SystemClock)).await.unwrap()
    }

    /// An identity of the broker, to serve something else under.
    pub fn live(&self) -> Live {
        let id = broker_id(DOMAIN, None).unwrap();
        let identity = self.authority.for_broker(&id, SystemClock.now()).unwrap();
        Live::new(identity, Arc::new(SystemClock))
    }
}
