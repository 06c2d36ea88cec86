//! The world of the demo: a broker on loopback, its people, and the identities of all who act.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use dayfly_agent::files;
use dayfly_agent::join::join;
use dayfly_agent::session::Session;
use dayfly_agent::sign::Signer;
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::SystemClock;
use ssh_key::private::{Ed25519Keypair, PrivateKey};
use tokio::task::JoinHandle;

use super::draw;
use crate::config::Config;
use crate::found::{self, Founding};
use crate::invite;
use crate::policy::files::BundleFiles;
use crate::random::SystemRandom;
use crate::serve::{Host, Listeners, Opened, ServeError};
use crate::shutdown::Shutdown;

/// The trust domain of the example bundle.
const DOMAIN: &str = "shop.test";

/// The example bundle of the repository, as it is.
const BUNDLE: [(&str, &str); 5] = [
    ("people.toml", include_str!("../../../../deploy/examples/shop/people.toml")),
    ("policy.cedar", include_str!("../../../../deploy/examples/shop/policy.cedar")),
    ("resources.toml", include_str!("../../../../deploy/examples/shop/resources.toml")),
    ("schema.cedarschema", include_str!("../../../../deploy/examples/shop/schema.cedarschema")),
    ("workloads.toml", include_str!("../../../../deploy/examples/shop/workloads.toml")),
];

/// A directory that is gone when this is dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let name = format!("dayfly-demo-{}", hex::encode(draw::<8>()?));
        let path = std::env::temp_dir().join(name);
        files::private_dir(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind holds keys of a broker that is gone.
        let _removed = std::fs::remove_dir_all(&self.0);
    }
}

/// The broker, running, and what is needed to join it.
pub(super) struct Stage {
    pub(super) scratch: Scratch,
    /// What gateways pin.
    pub(super) trust_root: HolderKey,
    /// The bundle in force, file by file.
    pub(super) bundle: Vec<(String, String)>,
    /// Where the broker serves everything but joining.
    pub(super) address: SocketAddr,
    config: Config,
    join_address: String,
    shutdown: Shutdown,
    running: JoinHandle<Result<(), ServeError>>,
}

impl Stage {
    /// Founds a broker and runs it, with new keys for the people of the example bundle.
    pub(super) async fn set() -> anyhow::Result<Self> {
        let scratch = Scratch::new()?;
        let mut bundle = Vec::new();
        for (name, content) in BUNDLE {
            bundle.push((name.to_owned(), content.to_owned()));
        }
        for person in ["ana", "caro"] {
            let key = new_ssh_key(&scratch.path(person))?;
            replace_key(&mut bundle, person, &key)?;
        }
        let dir = scratch.path("broker");
        let files = bundle.iter().map(|(name, text)| (name.clone(), text.clone().into_bytes()));
        let files = BundleFiles::new(files).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        let founding = Founding { dir: dir.clone(), trust_domain: DOMAIN.into(), bundle: files };
        founding.run(&SystemClock, &SystemRandom).await?;
        let trust_root = files::read_text(&dir.join(found::TRUST_ROOT_PUBLIC))?.trim().parse()?;

        let any_port = |name: &str| name.starts_with("DAYFLY_LISTEN").then(|| "127.0.0.1:0".into());
        let config = Config::load(&dir.join(found::CONFIG), any_port)?;
        let host = Host { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) };
        let shutdown = Shutdown::new();
        let opened = Opened::open(&config, &host, shutdown.clone()).await?;
        let listeners = Listeners::bind(&config).await?;
        let address = listeners.broker.local_addr()?;
        let join_address = listeners.join.local_addr()?.to_string();
        let running = tokio::spawn(opened.run(listeners));
        Ok(Self { scratch, trust_root, bundle, address, config, join_address, shutdown, running })
    }

    /// Invites to the ID `spiffe://shop.test/PATH`, joins with it, and says in which directory it
    /// is kept.
    pub(super) async fn join(&self, path: &str) -> anyhow::Result<(SpiffeId, PathBuf)> {
        let id: SpiffeId = format!("spiffe://{DOMAIN}/{path}").parse()?;
        let host = Host { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) };
        let (string, _) = invite::on_this_host(&self.config, &host, &id).await?;
        let dir = self.scratch.path(&path.replace('/', "-"));
        join(&string, &self.join_address, &dir, Arc::new(SystemClock)).await?;
        Ok((id, dir))
    }

    /// Joins, and connects.
    pub(super) async fn enter(&self, path: &str) -> anyhow::Result<Arc<Session>> {
        let (_, dir) = self.join(path).await?;
        Ok(Session::open(&dir, Arc::new(SystemClock)).await?)
    }

    /// The key with which a person signs.
    pub(super) fn signer(&self, person: &str) -> anyhow::Result<Signer> {
        Ok(Signer::from_file(&self.scratch.path(person), None)?)
    }

    /// Ends the broker, and says how it ended.
    pub(super) async fn strike(self) -> anyhow::Result<()> {
        self.shutdown.begin();
        self.shutdown.cut();
        self.running.await.context("the broker broke")??;
        Ok(())
    }
}

/// Makes a key file as `ssh-keygen -t ed25519` does, without a passphrase, and tells its public
/// half as `authorized_keys` holds it.
fn new_ssh_key(path: &Path) -> anyhow::Result<String> {
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&draw()?));
    files::write_secret(path, key.to_openssh(ssh_key::LineEnding::LF)?.as_bytes())?;
    Ok(key.public_key().to_openssh()?)
}

/// Puts the key of a person in the place of the example's.
fn replace_key(bundle: &mut [(String, String)], person: &str, key: &str) -> anyhow::Result<()> {
    let people = bundle.iter_mut().find(|(name, _)| name == "people.toml");
    let (_, text) = people.context("the bundle has no people")?;
    let example = text.lines().find(|line| line.ends_with(&format!(" {person}\"]")));
    let example = example.context("the example has no key for them")?.to_owned();
    *text = text.replace(&example, &format!("keys = [\"{key}\"]"));
    Ok(())
}
