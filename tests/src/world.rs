//! A broker in this process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dayfly_agent::join::{JoinString, join};
use dayfly_agent::session::Session;
use dayfly_broker::config::Config;
use dayfly_broker::found::{CONFIG, Founding};
use dayfly_broker::invite::on_this_host;
use dayfly_broker::policy::files::BundleFiles;
use dayfly_broker::serve::{Host, Listeners, Opened, ServeError};
use dayfly_broker::shutdown::Shutdown;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::clock::{ByHand, Seeded};
use crate::shop::{Shop, TRUST_DOMAIN};

/// A broker of the shop in this process, on loopback, on ports that the system gave.
pub struct World {
    /// The clock of the broker and of all whom the world brings in.
    pub clock: Arc<ByHand>,
    /// The bundle and the keys of its people.
    pub shop: Shop,
    /// The configuration of the broker, with the ports that it has.
    pub config: Config,
    host: Host,
    dir: TempDir,
    running: Option<(Shutdown, JoinHandle<Result<(), ServeError>>)>,
}

impl World {
    /// Founds and starts a broker. The same seed gives the same ids.
    pub async fn start(seed: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let shop = Shop::open(dir.path());
        let clock = Arc::new(ByHand::default());
        let host = Host { clock: clock.clone(), random: Arc::new(Seeded::new(seed)) };
        let broker = dir.path().join("broker");
        let bundle = BundleFiles::read(&shop.bundle).unwrap();
        let founding = Founding { dir: broker.clone(), trust_domain: TRUST_DOMAIN.into(), bundle };
        founding.run(&*host.clock, &*host.random).await.unwrap();
        // Ports from the system, so that worlds do not meet.
        let env = |name: &str| name.starts_with("DAYFLY_LISTEN_").then(|| "127.0.0.1:0".to_owned());
        let config = Config::load(&broker.join(CONFIG), env).unwrap();
        let mut world = Self { clock, shop, config, host, dir, running: None };
        world.serve().await;
        world
    }

    /// Starts the broker; after [`Self::stop`], again, at the same addresses.
    pub async fn serve(&mut self) {
        let shutdown = Shutdown::new();
        let opened = Opened::open(&self.config, &self.host, shutdown.clone()).await.unwrap();
        let listeners = Listeners::bind(&self.config).await.unwrap();
        let listen = &mut self.config.listen;
        listen.broker = listeners.broker.local_addr().unwrap();
        listen.join = listeners.join.local_addr().unwrap();
        listen.http = listeners.http.local_addr().unwrap();
        self.running = Some((shutdown, tokio::spawn(opened.run(listeners))));
    }

    /// Where it tells how it is.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.config.listen.http
    }

    /// Ends the broker in both steps, and waits until it has.
    pub async fn stop(&mut self) {
        if let Some((shutdown, serving)) = self.running.take() {
            shutdown.begin();
            serving.await.unwrap().unwrap();
        }
    }

    /// Joins as `id`, in a directory of its own, which is returned.
    pub async fn join(&self, id: &str) -> PathBuf {
        let dir = self.dir.path().join(id.rsplit('/').next().unwrap());
        self.join_in(id, &dir).await;
        dir
    }

    /// Joins as `id`, in the directory `dir`.
    pub async fn join_in(&self, id: &str, dir: &Path) {
        let invited = on_this_host(&self.config, &self.host, &id.parse().unwrap()).await;
        let string: JoinString = invited.unwrap().0;
        let address = self.config.listen.join.to_string();
        join(&string, &address, dir, self.clock.clone()).await.unwrap();
    }

    /// Connects as `id`, after joining.
    pub async fn session(&self, id: &str) -> Arc<Session> {
        Session::open(&self.join(id).await, self.clock.clone()).await.unwrap()
    }

    /// Connects as each of these people of the shop.
    pub async fn people(&self, names: &[&str]) -> BTreeMap<String, Arc<Session>> {
        let mut sessions = BTreeMap::new();
        for name in names {
            let id = Shop::person(name);
            sessions.insert((*name).to_owned(), self.session(&id).await);
        }
        sessions
    }
}
