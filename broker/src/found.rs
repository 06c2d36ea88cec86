//! The founding of a broker, once, on its host: authority, trust root, keys, and a journal that
//! begins with them and the first policy bundle. Nothing that is there already is ever replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dayfly_agent::files::{self, FileError};
use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::{Epoch, FeedId, KeyId};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::time::{Clock, Timestamp};
use dayfly_verifier::trust::{ListedKey, Signed, Statement};
use zeroize::Zeroizing;

use crate::authority::{Authority, AuthorityError, broker_id};
use crate::config::Listen;
use crate::core::directory::Role;
use crate::core::event::{Actor, Entry, Event, Head};
use crate::follow::keys::NoFeedKey;
use crate::journal::{Bundles as _, FORMAT, Journal as _, JournalError, Sqlite, chain};
use crate::keys::{KeyError, NumberedKey};
use crate::policy::bundle::Bundle;
use crate::policy::files::BundleFiles;
use crate::random::Random;
use crate::signer::{SignerError, TokenKey};

/// The configuration, in the directory of a broker.
pub const CONFIG: &str = "dayfly.toml";
/// The directory of keys, in it.
pub const KEYS: &str = "keys";
/// The trust root: kept off the broker once it is founded.
pub const TRUST_ROOT: &str = "trust-root.key";
/// What gateways pin.
pub const TRUST_ROOT_PUBLIC: &str = "trust-root.pub";
/// What the trust root says, byte for byte, and beside it its signature in hexadecimal.
pub const STATEMENT: &str = "trust.statement";
/// The signature over the statement that is about to be put in place.
const NEXT_SIGNATURE: &str = "trust.signature.next";
/// The signature over [`STATEMENT`].
pub const SIGNATURE: &str = "trust.signature";

/// How many entries a log is founded with.
pub const FOUNDING: u64 = 3;

/// How long the first keys are good.
const KEY_LIFE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What a broker is founded on.
#[derive(Debug, Clone)]
pub struct Founding {
    /// Where: the directory may exist, but must hold no broker.
    pub dir: PathBuf,
    /// Its trust domain.
    pub trust_domain: String,
    /// The first policy bundle.
    pub bundle: BundleFiles,
}

/// Why no broker was founded.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// There is one already, or something of one.
    #[error("`{}` already holds a broker, or keys of one: name another directory", .0.display())]
    Taken(PathBuf),
    /// The bundle is refused, for all of these reasons.
    #[error("the policy bundle is refused: {}", join(.0))]
    Bundle(Vec<Invalid>),
    /// A value is not what it should be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The authority cannot be founded.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A key cannot be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The token-signing key cannot be made.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// No feed key may sign.
    #[error(transparent)]
    FeedKey(#[from] NoFeedKey),
    /// The journal cannot be made.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

fn join(problems: &[Invalid]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Founding {
    /// Founds the broker. The configuration file is written last: without it nothing was founded.
    pub async fn run(&self, clock: &dyn Clock, random: &dyn Random) -> Result<Head, FoundError> {
        let Self { dir, trust_domain, bundle: bundle_files } = self;
        let file = |name: &str| dir.join(name);
        let kept = [CONFIG, "journal.db", TRUST_ROOT, TRUST_ROOT_PUBLIC, STATEMENT, SIGNATURE];
        let has_keys = std::fs::read_dir(file(KEYS)).is_ok_and(|mut keys| keys.next().is_some());
        if has_keys || kept.into_iter().any(|name| file(name).exists()) {
            return Err(FoundError::Taken(dir.clone()));
        }
        broker_id(trust_domain, None)?;
        let bundle = Bundle::load(bundle_files).map_err(FoundError::Bundle)?;
        let operable = bundle.directory().operable();
        operable.map_err(|invalid| FoundError::Bundle(vec![invalid]))?;
        let now = clock.now();
        let not_after = now.plus(KEY_LIFE).floor_to_second();
        files::private_dir(dir)?;
        let keys = file(KEYS);
        Authority::found(trust_domain, &keys, now)?;

        let mut seed = Zeroizing::new([0; 64]);
        random.fill(&mut *seed);
        let token_key = TokenKey::generate(KeyId(1), not_after, &seed)?;
        token_key.write(&keys.join(token_key_file(token_key.id())))?;
        let feed_key = NumberedKey::generate(KeyId(1), not_after, random);
        feed_key.write(&keys.join(feed_key_file(feed_key.id)))?;
        let root = NumberedKey::generate(KeyId(0), not_after, random);
        root.write(&file(TRUST_ROOT))?;
        files::write_public(&file(TRUST_ROOT_PUBLIC), format!("{}\n", root.public()?).as_bytes())?;

        let (mut epoch, mut feed) = ([0; 16], [0; 16]);
        random.fill(&mut epoch);
        random.fill(&mut feed);
        let (epoch, feed) = (Epoch::new(epoch), FeedId::new(feed));
        let listed = ListedKey { public: token_key.public(), not_after };
        let statement = Statement {
            version: 1,
            feed,
            epoch,
            token_keys: BTreeMap::from([(token_key.id(), listed)]),
            feed_keys: BTreeMap::from([(feed_key.id, feed_key.listed()?)]),
        };
        write_statement(dir, &statement.sign(&root.signing)?)?;

        let journal = Sqlite::create(&file("journal.db"))?;
        journal.put_bundle(&bundle.digest(), &bundle_files.to_bytes()).await?;
        let entries = first_entries(epoch, &bundle, &token_key, now);
        let head = *journal.append(&Head::ORIGIN, &chain(&Head::ORIGIN, &entries)?).await?;
        files::write_public(
            &file(CONFIG),
            configuration(trust_domain, &Listen::default()).as_bytes(),
        )?;
        Ok(head)
    }
}

/// The log begins with what `init` on the host put down.
fn first_entries(
    epoch: Epoch,
    bundle: &Bundle,
    token_key: &TokenKey,
    now: Timestamp,
) -> [Entry; 3] {
    let directory = bundle.directory().clone();
    let admins = directory.people.values().filter(|p| p.roles.contains(&Role::PolicyAdmin));
    let founders = admins.flat_map(|admin| admin.keys.iter().cloned()).collect();
    let entry = |policy, event| Entry { by: Actor::Host, at: now, policy, event };
    let opened = Event::EpochOpened { epoch, parent: None, founders, format: FORMAT };
    let applied =
        Event::BundleApplied { bundle: bundle.digest(), directory, signers: BTreeSet::new() };
    let (key, public) = (token_key.id(), token_key.public());
    let added = Event::KeyAdded { key, public, not_after: token_key.not_after() };
    [entry(None, opened), entry(None, applied), entry(Some(bundle.digest()), added)]
}

/// Keeps what the trust root says where the broker finds it. Its signature lies ready before the
/// statement is put in place, so that one of them fits wherever this is cut off.
pub fn write_statement(dir: &Path, signed: &Signed) -> Result<(), FileError> {
    let (signature, next) = (hex::encode(signed.signature), dir.join(NEXT_SIGNATURE));
    files::write_public(&next, signature.as_bytes())?;
    files::write_public(&dir.join(STATEMENT), &signed.statement)?;
    files::write_public(&dir.join(SIGNATURE), signature.as_bytes())?;
    // If it stays behind, it is the one in force, or fits no statement.
    let _removed = std::fs::remove_file(next);
    Ok(())
}

/// What the trust root says, as it is kept; checked against its public half. Byte for byte, and
/// read.
pub fn read_statement(dir: &Path) -> Result<(Signed, Statement), FoundError> {
    statement_by(dir, &pinned_root(dir)?)
}

/// The public half of the trust root, as it is kept.
pub fn pinned_root(dir: &Path) -> Result<HolderKey, FoundError> {
    let text = files::read_text(&dir.join(TRUST_ROOT_PUBLIC))?;
    Ok(text.trim().parse()?)
}

/// What this trust root says, as it is kept.
pub fn statement_by(dir: &Path, root: &HolderKey) -> Result<(Signed, Statement), FoundError> {
    let read = |name: &'static str| {
        let statement = files::read_trusted(&dir.join(STATEMENT))?;
        let text = files::read_text(&dir.join(name))?;
        let mut signature = [0; 64];
        hex::decode_to_slice(text.trim(), &mut signature)
            .map_err(|_| Invalid::new(name, "must be 128 hexadecimal digits"))?;
        let signed = Signed { statement, signature };
        let statement = signed.verify(root);
        let statement = statement.map_err(|error| Invalid::new(STATEMENT, error.to_string()))?;
        Ok((signed, statement))
    };
    read(SIGNATURE).or_else(|error: FoundError| {
        // They are being written, or were not written to the end; or they are by now.
        let other = read(NEXT_SIGNATURE).or_else(|_| read(SIGNATURE));
        other.map_err(|_| error)
    })
}

/// The name of the file of a token-signing key.
#[must_use]
pub fn token_key_file(key: KeyId) -> String {
    format!("token-{key}.key")
}

/// All token-signing keys in the directory `keys`, of which a broker needs one at least to start.
pub fn all_token_keys(keys: &Path) -> Result<Vec<TokenKey>, SignerError> {
    let found = token_keys(keys, |_| false)?;
    if found.is_empty() {
        let path = keys.join(token_key_file(KeyId(1)));
        let rule = "is missing, and no other key there signs tokens".into();
        return Err(SignerError::File { path, rule });
    }
    Ok(found)
}

/// The token-signing keys in the directory `keys`, by their files `token-N.key`, but those that are
/// `known`. A file whose key has another number than its name is refused.
pub fn token_keys(
    keys: &Path,
    known: impl Fn(&KeyId) -> bool,
) -> Result<Vec<TokenKey>, SignerError> {
    let refused = |path: &Path, rule: String| SignerError::File { path: path.into(), rule };
    let files = key_files(keys, token_key_file, known);
    let files = files.map_err(|error| refused(keys, format!("cannot be read: {error}")))?;
    let read = |(number, path): (KeyId, PathBuf)| {
        let key = TokenKey::read(&path)?;
        let named = key.id() == number;
        named.then_some(key).ok_or_else(|| refused(&path, OTHER_NUMBER.into()))
    };
    files.into_iter().map(read).collect()
}

/// The name of the file of a key that signs heads of the feed.
#[must_use]
pub fn feed_key_file(key: KeyId) -> String {
    format!("feed-{key}.key")
}

/// The feed keys in the directory `keys`, by their files `feed-N.key`, but those that are `known`.
/// A file whose key has another number than its name is refused.
pub fn feed_keys(
    keys: &Path,
    known: impl Fn(&KeyId) -> bool,
) -> Result<Vec<NumberedKey>, KeyError> {
    let refused = |path: &Path, field: &'static str, rule: String| {
        KeyError::Invalid(path.display().to_string(), Invalid::new(field, rule))
    };
    let files = key_files(keys, feed_key_file, known);
    let unread = |error| refused(keys, "directory", format!("cannot be read: {error}"));
    let read = |(number, path): (KeyId, PathBuf)| {
        let key = NumberedKey::read(&path)?;
        let named = key.id == number;
        named.then_some(key).ok_or_else(|| refused(&path, "content", OTHER_NUMBER.into()))
    };
    let files = files.map_err(unread)?;
    files.into_iter().map(read).collect()
}

const OTHER_NUMBER: &str = "holds a key of another number";

/// The files in the directory `keys` that are named as the file of a key, `name` of its number is,
/// but those of numbers that are `known`.
fn key_files(
    keys: &Path,
    name: fn(KeyId) -> String,
    known: impl Fn(&KeyId) -> bool,
) -> std::io::Result<Vec<(KeyId, PathBuf)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(keys)? {
        let file = entry?.file_name();
        let number = file.to_str().and_then(|file| {
            let number = file.strip_suffix(".key")?.rsplit('-').next()?;
            let number = KeyId(number.parse().ok()?);
            (name(number) == file && !known(&number)).then_some(number)
        });
        files.extend(number.map(|number| (number, keys.join(file))));
    }
    Ok(files)
}

/// The configuration of a broker that is found where its file is, and listens at `listen`.
#[must_use]
pub fn configuration(trust_domain: &str, listen: &Listen) -> String {
    let Listen { broker, join, http } = listen;
    format!(
        "# The configuration of a Dayfly broker. The environment goes over what is under [listen]\n\
         # and [log]: DAYFLY_LISTEN_BROKER for `broker`.\n\
         trust_domain = \"{trust_domain}\"\n\
         \n\
         [listen]\n\
         broker = \"{broker}\"  # gRPC over mutual TLS: everything but joining\n\
         join = \"{join}\"    # joining, by those who have no certificate yet\n\
         http = \"{http}\"    # /healthz, /readyz, /metrics, in the clear\n\
         \n\
         [log]\n\
         filter = \"info\"\n\
         format = \"text\"            # or `json`\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SystemRandom;

    #[test]
    fn a_statement_that_was_written_half_way_is_the_old_one_or_the_new_one() {
        let end = Timestamp::from_secs(1_800_000_000).unwrap();
        let root = NumberedKey::generate(KeyId(0), end, &SystemRandom);
        let signed = |version| {
            let (feed, epoch) = (FeedId::new([1; 16]), Epoch::new([2; 16]));
            let key = || NumberedKey::generate(KeyId(1), end, &SystemRandom).listed().unwrap();
            let keys = || BTreeMap::from([(KeyId(1), key())]);
            let (token_keys, feed_keys) = (keys(), keys());
            let statement = Statement { version, feed, epoch, token_keys, feed_keys };
            statement.sign(&root.signing).unwrap()
        };
        // What stands in the way of one file cuts the writing off there.
        for (cut, version) in [(NEXT_SIGNATURE, 1), (STATEMENT, 1), (SIGNATURE, 2)] {
            let dir = tempfile::tempdir().unwrap();
            let (file, aside) = (dir.path().join(cut), dir.path().join("aside"));
            let read = || statement_by(dir.path(), &root.public().unwrap()).unwrap().1.version;
            write_statement(dir.path(), &signed(1)).unwrap();
            assert_eq!(read(), 1);
            let there = file.exists();
            if there {
                std::fs::rename(&file, &aside).unwrap();
            }
            std::fs::create_dir(&file).unwrap();
            assert!(write_statement(dir.path(), &signed(2)).is_err());
            std::fs::remove_dir(&file).unwrap();
            if there {
                std::fs::rename(&aside, &file).unwrap();
            }
            assert_eq!(read(), version, "{cut}");
            write_statement(dir.path(), &signed(3)).unwrap();
            assert_eq!(read(), 3);
            // Whatever fits, it is by this root.
            let other = NumberedKey::generate(KeyId(0), end, &SystemRandom).public().unwrap();
            assert!(statement_by(dir.path(), &other).is_err());
        }
    }
}
