//! The example bundle of the shop, with people whose keys are at hand.

use std::path::{Path, PathBuf};

use dayfly_agent::files;
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{LineEnding, PrivateKey};

/// The agent that asks in the shop.
pub const AGENT: &str = "spiffe://shop.test/agent/refunds";
/// The trust domain of the shop.
pub const TRUST_DOMAIN: &str = "shop.test";

/// A bundle in a directory, and the private keys of its people.
#[derive(Debug)]
pub struct Shop {
    /// The bundle.
    pub bundle: PathBuf,
    keys: PathBuf,
}

impl Shop {
    /// Writes the bundle of the shop below `dir`; everybody who signs in it gets a new key.
    #[must_use]
    pub fn open(dir: &Path) -> Self {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/shop");
        let shop = Self { bundle: dir.join("bundle"), keys: dir.join("ssh") };
        files::private_dir(&shop.bundle).unwrap();
        files::private_dir(&shop.keys).unwrap();
        for file in std::fs::read_dir(example).unwrap() {
            let file = file.unwrap();
            let text = std::fs::read_to_string(file.path()).unwrap();
            let text: String = text.lines().map(|line| shop.with_key(line) + "\n").collect();
            std::fs::write(shop.bundle.join(file.file_name()), text).unwrap();
        }
        shop
    }

    /// Where the private key of a person is, in the form of OpenSSH.
    #[must_use]
    pub fn key(&self, person: &str) -> PathBuf {
        self.keys.join(person)
    }

    /// The SPIFFE ID of a person of the shop.
    #[must_use]
    pub fn person(name: &str) -> String {
        format!("spiffe://{TRUST_DOMAIN}/person/{name}")
    }

    /// A line that lists a key lists a new one instead, whose private half is kept.
    fn with_key(&self, line: &str) -> String {
        let listed =
            line.strip_prefix("keys = [\"ssh-ed25519 ").and_then(|key| key.strip_suffix("\"]"));
        let Some((_, name)) = listed.and_then(|key| key.rsplit_once(' ')) else {
            return line.to_owned();
        };
        let mut seed = [0; 32];
        let random: &dyn dayfly_broker::random::Random = &dayfly_broker::random::SystemRandom;
        random.fill(&mut seed);
        let keypair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed));
        let key = PrivateKey::new(keypair, name).unwrap();
        let private = key.to_openssh(LineEnding::LF).unwrap();
        files::write_secret(&self.key(name), private.as_bytes()).unwrap();
        format!("keys = [\"{}\"]", key.public_key().to_openssh().unwrap())
    }
}
