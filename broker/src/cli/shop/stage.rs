//! A broker on loopback, its people, and the identities of all who act.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use dayfly_agent::files;
use dayfly_agent::identity::IdentityError;
use dayfly_agent::join::join;
use dayfly_agent::session::{OpenError, Session};
use dayfly_agent::sign::Signer;
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::KeyId;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::SystemClock;
use ssh_key::private::{Ed25519Keypair, PrivateKey};
use tokio::task::JoinHandle;

use super::draw;
use crate::cli::keys;
use crate::config::{Config, Listen};
use crate::found::{self, Founding};
use crate::invite;
use crate::keys::NumberedKey;
use crate::policy::files::BundleFiles;
use crate::random::SystemRandom;
use crate::serve::{Host, Listeners, Opened, ServeError};
use crate::shutdown::Shutdown;

/// The trust domain of the example bundle.
pub(in crate::cli) const DOMAIN: &str = "shop.test";

/// The example bundle of the repository, as it is.
const BUNDLE: [(&str, &str); 5] = [
    ("people.toml", include_str!("../../../../deploy/examples/shop/people.toml")),
    ("policy.cedar", include_str!("../../../../deploy/examples/shop/policy.cedar")),
    ("resources.toml", include_str!("../../../../deploy/examples/shop/resources.toml")),
    ("schema.cedarschema", include_str!("../../../../deploy/examples/shop/schema.cedarschema")),
    ("workloads.toml", include_str!("../../../../deploy/examples/shop/workloads.toml")),
];

/// Whose keys are at hand, in the place of the example's.
const SIGNERS: [&str; 2] = ["ana", "caro"];

/// The directory of a shop: `broker/` as `dayfly init` makes it, `policy/` with the bundle,
/// `keys/` with which people sign, and `identities/`, each with what `dayfly join` writes.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Place(pub(in crate::cli) PathBuf);

impl Place {
    /// Where the policy bundle is.
    pub(in crate::cli) fn policy(&self) -> PathBuf {
        self.0.join("policy")
    }

    /// Where the key is with which a person signs.
    pub(in crate::cli) fn key(&self, person: &str) -> PathBuf {
        self.0.join("keys").join(person)
    }

    /// Where the identity `spiffe://shop.test/PATH` is kept.
    pub(in crate::cli) fn identity(&self, path: &str) -> PathBuf {
        self.0.join("identities").join(path.replace('/', "-"))
    }

    fn broker(&self) -> PathBuf {
        self.0.join("broker")
    }

    /// The broker's configuration. Where it is there, all of the shop is.
    pub(in crate::cli) fn config(&self) -> PathBuf {
        self.broker().join(found::CONFIG)
    }

    /// Founds the broker of the shop, to listen at these addresses, with new keys for its people.
    /// What a founding that broke off left behind is done again.
    pub(in crate::cli) async fn found(&self, listen: &Listen) -> anyhow::Result<()> {
        files::private_dir(&self.0.join("keys"))?;
        files::private_dir(&self.policy())?;
        for (name, content) in BUNDLE {
            let mut content = content.to_owned();
            if name == "people.toml" {
                for person in SIGNERS {
                    content = replace_key(&content, person, &new_ssh_key(&self.key(person))?)?;
                }
            }
            files::write_public(&self.policy().join(name), content.as_bytes())?;
        }
        let bundle = BundleFiles::read(&self.policy());
        let bundle = bundle.map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        let dir = self.0.join("broker.new");
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        let founding = Founding { dir: dir.clone(), trust_domain: DOMAIN.into(), bundle };
        founding.run(&SystemClock, &SystemRandom).await?;
        let config = found::configuration(DOMAIN, listen);
        files::write_public(&dir.join(found::CONFIG), config.as_bytes())?;
        std::fs::rename(&dir, self.broker())?;
        Ok(())
    }
}

/// The broker of a shop, running, and what is needed to join it.
pub(in crate::cli) struct Stage {
    pub(in crate::cli) place: Place,
    /// What gateways pin.
    pub(in crate::cli) trust_root: HolderKey,
    /// Where the broker serves everything but joining.
    pub(in crate::cli) address: SocketAddr,
    /// Where it serves joining.
    pub(in crate::cli) join_address: SocketAddr,
    /// Where it shows its health and its numbers.
    pub(in crate::cli) http_address: SocketAddr,
    /// Begins to end as soon as the broker does.
    pub(in crate::cli) shutdown: Shutdown,
    config: Config,
    running: JoinHandle<Result<(), ServeError>>,
}

impl Stage {
    /// Runs the broker that was founded at `place`.
    pub(in crate::cli) async fn open(place: Place) -> anyhow::Result<Self> {
        let config = Config::load(&place.config(), |_| None)?;
        let trust_root = files::read_text(&place.broker().join(found::TRUST_ROOT_PUBLIC))?;
        let trust_root = trust_root.trim().parse()?;
        let shutdown = Shutdown::new();
        let opened = Opened::open(&config, &host(), shutdown.clone()).await?;
        let listeners = Listeners::bind(&config).await.map_err(ServeError::Listen)?;
        let address = listeners.broker.local_addr()?;
        let join_address = listeners.join.local_addr()?;
        let http_address = listeners.http.local_addr()?;
        let ends = shutdown.clone();
        let running = tokio::spawn(async move {
            let ended = opened.run(listeners).await;
            ends.begin();
            ended
        });
        Ok(Self {
            place,
            trust_root,
            address,
            join_address,
            http_address,
            shutdown,
            config,
            running,
        })
    }

    /// Invites to the ID `spiffe://shop.test/PATH`, and joins with it: anew, if it is there.
    pub(in crate::cli) async fn join(&self, path: &str) -> anyhow::Result<()> {
        let id: SpiffeId = format!("spiffe://{DOMAIN}/{path}").parse()?;
        let (string, _) = invite::on_this_host(&self.config, &host(), &id).await?;
        let dir = self.place.identity(path);
        // Requests that were made under the identity stay where they are.
        match std::fs::remove_file(dir.join("svid.pem")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        join(&string, &self.join_address.to_string(), &dir, Arc::new(SystemClock)).await?;
        Ok(())
    }

    /// Connects as `spiffe://shop.test/PATH`; joins first where there is no such identity, or none
    /// that is good any more.
    pub(in crate::cli) async fn enter(&self, path: &str) -> anyhow::Result<Arc<Session>> {
        let open = async || Session::open(&self.place.identity(path), Arc::new(SystemClock)).await;
        match open().await {
            Err(error) if wants_joining(&error) => {
                self.join(path).await?;
                Ok(open().await?)
            }
            opened => Ok(opened?),
        }
    }

    /// Keeps an identity good for as long as this runs: renews it, and joins anew where it ran
    /// out while nobody did, as on a machine that slept.
    pub(in crate::cli) async fn keep(&self, path: &str, session: &Session) {
        loop {
            let ended = session.keep_renewed().await;
            tracing::warn!(path, %ended, "an identity ran out; joining anew");
            let joined = async {
                self.join(path).await?;
                anyhow::Ok(session.renew().await?)
            };
            if let Err(error) = joined.await {
                tracing::warn!(path, %error, "cannot join anew; trying again");
            }
        }
    }

    /// Makes another token key, and has the trust root list it.
    pub(in crate::cli) fn rotate(&self) -> anyhow::Result<KeyId> {
        let root = NumberedKey::read(&self.config.dir.join(found::TRUST_ROOT))?;
        Ok(keys::rotate(&self.config, &root, 1)?)
    }

    /// The key with which a person signs.
    pub(in crate::cli) fn signer(&self, person: &str) -> anyhow::Result<Signer> {
        Ok(Signer::from_file(&self.place.key(person), None)?)
    }

    /// The policy bundle, file by file.
    pub(in crate::cli) fn bundle(&self) -> anyhow::Result<Vec<(String, String)>> {
        let read = |(name, _): &(&str, &str)| {
            Ok(((*name).to_owned(), files::read_text(&self.place.policy().join(name))?))
        };
        BUNDLE.iter().map(read).collect()
    }

    /// Ends the broker, and says how it ended.
    pub(in crate::cli) async fn end(self) -> anyhow::Result<()> {
        self.shutdown.begin();
        self.running.await.context("the broker broke")??;
        Ok(())
    }
}

fn host() -> Host {
    Host { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) }
}

/// Whether joining anew is what helps.
fn wants_joining(error: &OpenError) -> bool {
    match error {
        OpenError::Identity(identity) => match **identity {
            IdentityError::Missing(_) | IdentityError::Invalid { .. } => true,
            IdentityError::Taken(_) | IdentityError::File(_) | IdentityError::Key(_) => false,
        },
        OpenError::Ended(..) | OpenError::Refused(..) => true,
        OpenError::Unreachable(..)
        | OpenError::NotOurBroker(..)
        | OpenError::Tls(..)
        | OpenError::Status(_)
        | OpenError::Answer(_) => false,
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
fn replace_key(people: &str, person: &str, key: &str) -> anyhow::Result<String> {
    let example = people.lines().find(|line| line.ends_with(&format!(" {person}\"]")));
    let example = example.context("the example has no key for them")?;
    Ok(people.replace(example, &format!("keys = [\"{key}\"]")))
}
