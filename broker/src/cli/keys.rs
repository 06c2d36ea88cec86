//! Token-signing keys: what there is, one more, one less, one taken back. The trust root signs
//! here and nowhere else; it is read from its file and never kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use dayfly_proto::v1::{self, KeyStanding, revocation_target::Target};
use dayfly_verifier::id::KeyId;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::time::{Clock as _, SystemClock, Timestamp};
use dayfly_verifier::trust::{ListedKey, Statement};
use serde_json::json;
use zeroize::Zeroizing;

use super::exit::{Exit, Refused};
use super::host::load;
use super::number::whole;
use super::operate::seq_of;
use super::revoke::take_back;
use super::when::time_of_ms;
use super::{Context, block_on};
use crate::config::{Config, DEFAULT_PATH};
use crate::found::{
    FoundError, pinned_root, read_statement, statement_by, token_key_file, token_keys,
    write_statement,
};
use crate::keys::NumberedKey;
use crate::random::{Random as _, SystemRandom};
use crate::signer::{SignerError, TokenKey};

/// See, rotate, retire and kill the keys that sign tokens.
///
/// A key is made on the broker's host and listed by the trust root. The broker reads both without a
/// restart, and signs with the new key once every gateway has acknowledged the statement.
#[derive(Debug, Args)]
pub struct Keys {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    List(List),
    Rotate(Rotate),
    Sign(Sign),
    Retire(Retire),
    Kill(Kill),
}

/// List the keys, how each stands, and how many gateway instances know it.
#[derive(Debug, Args)]
struct List {}

/// Make a key on the broker's host, and have the trust root list it.
///
/// Without `--root` the key is made, and the command is printed that lists it where the trust root
/// is kept.
#[derive(Debug, Args)]
struct Rotate {
    /// The configuration file of the broker on this host.
    #[arg(long, value_name = "FILE", env = "DAYFLY_CONFIG", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// The trust root, if it is at hand.
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// How long the key is good.
    #[arg(long, value_name = "DAYS", default_value_t = 365,
        value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

/// Sign a new trust statement, where the trust root is kept.
///
/// Keys whose time is over are left out. Bring `trust.statement` and `trust.signature` back to the
/// broker's directory: it reads them within seconds.
#[derive(Debug, Args)]
struct Sign {
    /// The trust root.
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// The directory with the `trust.statement` and `trust.signature` that are in force.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// A key to list, as `keys rotate` printed it: its number, public half and end.
    #[arg(long, value_name = "KEY:PUBLIC:END", value_parser = to_add)]
    add: Vec<(KeyId, ListedKey)>,
    /// A key to list no more: gateways then refuse what it signed.
    #[arg(long, value_name = "KEY", value_parser = whole::<u32>)]
    drop: Vec<u32>,
}

/// Let a key sign nothing more. What it signed lives out.
#[derive(Debug, Args)]
struct Retire {
    /// Its number.
    #[arg(value_name = "KEY", value_parser = whole::<u32>)]
    key: u32,
}

/// Take back a key, and with it all that it signed or would sign, for good.
///
/// Grants stay: with another key in use, their holders exchange them anew.
#[derive(Debug, Args)]
struct Kill {
    /// Its number.
    #[arg(value_name = "KEY", value_parser = whole::<u32>)]
    key: u32,
    /// Why, for the record: at most 2 KiB.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Wait until it holds at every gateway, and tell how far each is, as `dayfly revoke` does.
    #[arg(long)]
    wait: bool,
}

impl Keys {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        match self.verb {
            Verb::List(verb) => verb.run(context),
            Verb::Rotate(verb) => verb.run(context),
            Verb::Sign(verb) => verb.run(context),
            Verb::Retire(verb) => verb.run(context),
            Verb::Kill(verb) => verb.run(context),
        }
    }
}

impl List {
    fn run(self, context: &Context) -> Result<(), Refused> {
        let Self {} = self;
        block_on(async {
            let mut client = context.operator().await?;
            let listed = client.list_keys(v1::ListKeysRequest {}).await;
            let v1::ListKeysResponse { keys, trust_version } =
                listed.map_err(|e| context.status(e))?.into_inner();
            let head = ["key", "standing", "until", "held here", "known by"];
            let rows = keys.iter().map(|key| {
                vec![
                    key.key.to_string(),
                    standing(key),
                    time_of_ms(key.not_after_ms),
                    if key.held { "yes" } else { "no" }.to_owned(),
                    format!("{} of {}", key.known_by, key.instances),
                ]
            });
            let json = || {
                let key = |key: &v1::TokenKey| {
                    json!({
                        "key": key.key, "standing": standing(key), "public_key": key.public_key,
                        "not_after_ms": key.not_after_ms, "held": key.held,
                        "known_by": key.known_by, "instances": key.instances,
                        "trust_version": trust_version,
                    })
                };
                keys.iter().map(key).collect()
            };
            context.console.table(&head, rows.collect(), json);
            Ok(())
        })
    }
}

/// `signing`, `waiting`, `retired`.
fn standing(key: &v1::TokenKey) -> String {
    let name = KeyStanding::try_from(key.standing).unwrap_or(KeyStanding::Unspecified);
    name.as_str_name().trim_start_matches("KEY_STANDING_").to_lowercase()
}

impl Rotate {
    fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { config, root, days } = self;
        let config = load(&config)?;
        let root = root.map(|root| NumberedKey::read(&root)).transpose().map_err(refused)?;
        let (_, statement) = read_statement(&config.dir).map_err(refused)?;
        let pinned = pinned_root(&config.dir).map_err(refused)?;
        if let Some(root) = &root
            && root.public().map_err(refused)? != pinned
        {
            let other =
                Invalid::new("root", "must be the trust root that this broker's gateways pin");
            return Err(refused(other));
        }
        let key = made(&config, &statement, days).map_err(refused)?;
        let (id, public, until) = (key.id(), key.public(), key.not_after());
        let listed = ListedKey { public, not_after: until };
        let add = format!("{id}:{public}:{}", until.as_ms());
        let Some(root) = root else {
            let text = || {
                format!(
                    "made key {id}, good until {until}; the trust root does not list it yet\n\
                     \n\
                     Next, where the trust root is kept, with trust.statement and trust.signature \
                     beside it:\n  \
                     dayfly keys sign --root trust-root.key --add {add}\n\
                     and bring both files back to {}",
                    config.dir.display()
                )
            };
            context.console.result(text, || json!({ "key": id.0, "listed": false, "add": add }));
            return Ok(());
        };
        let statement = signed_anew(&config.dir, &root, |keys| change(keys, [(id, listed)], &[]));
        let statement = statement.map_err(refused)?;
        let version = statement.version;
        let text = || {
            format!(
                "made key {id}, good until {until}; listed in trust statement {version}\n\
                 A running broker reads it within seconds, and signs with it once every gateway \
                 has it.\n\
                 \n\
                 Next:\n  \
                 dayfly keys list\n  \
                 dayfly keys retire KEY   # the old one, once the new one signs"
            )
        };
        context
            .console
            .result(text, || json!({ "key": id.0, "listed": true, "trust_version": version }));
        Ok(())
    }
}

/// Another token key on this host, which the trust root lists, good for `days`: its number.
pub(super) fn rotate(config: &Config, root: &NumberedKey, days: u32) -> Result<KeyId, KeysError> {
    let (_, statement) = read_statement(&config.dir)?;
    let key = made(config, &statement, days)?;
    let listed = ListedKey { public: key.public(), not_after: key.not_after() };
    signed_anew(&config.dir, root, |keys| change(keys, [(key.id(), listed)], &[]))?;
    Ok(key.id())
}

/// A new key in its file: of the number after every one that is listed or lies there.
fn made(config: &Config, statement: &Statement, days: u32) -> Result<TokenKey, KeysError> {
    let held = token_keys(&config.keys(), |_| false)?;
    let taken = held.iter().map(TokenKey::id).chain(statement.token_keys.keys().copied());
    let last = taken.map(|key| key.0).max().unwrap_or_default();
    let id = last.checked_add(1).map(KeyId);
    let id = id.ok_or_else(|| Invalid::new("key", "numbers are used up"))?;
    let life = Duration::from_secs(u64::from(days).saturating_mul(24 * 60 * 60));
    let not_after = SystemClock.now().plus(life).floor_to_second();
    let mut seed = Zeroizing::new([0; 64]);
    SystemRandom.fill(&mut *seed);
    let key = TokenKey::generate(id, not_after, &seed)?;
    key.write(&config.keys().join(token_key_file(id)))?;
    Ok(key)
}

impl Sign {
    fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { root, dir, add, drop } = self;
        let root = NumberedKey::read(&root).map_err(refused)?;
        let statement = signed_anew(&dir, &root, |keys| change(keys, add, &drop));
        let statement = statement.map_err(refused)?;
        let keys: Vec<u32> = statement.token_keys.keys().map(|key| key.0).collect();
        let (version, dir) = (statement.version, dir.display());
        let text = || {
            let keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
            let keys = keys.join(", ");
            format!(
                "trust statement {version} lists the token keys {keys}\n\
                 Bring {dir}/trust.statement and {dir}/trust.signature to the broker's directory."
            )
        };
        context.console.result(text, || json!({ "trust_version": version, "keys": keys }));
        Ok(())
    }
}

/// The statement that follows the one in `dir`, with its token keys changed, signed and written
/// there. Keys whose time is over are left out.
fn signed_anew(
    dir: &Path,
    root: &NumberedKey,
    change: impl FnOnce(&mut BTreeMap<KeyId, ListedKey>) -> Result<(), Invalid>,
) -> Result<Statement, KeysError> {
    let (_, before) = statement_by(dir, &root.public()?)?;
    let now = SystemClock.now();
    let mut next = Statement { version: before.version.saturating_add(1), ..before };
    change(&mut next.token_keys)?;
    next.token_keys.retain(|_, key| now < key.not_after);
    write_statement(dir, &next.sign(&root.signing)?)?;
    Ok(next)
}

/// Drops keys that are listed, then lists others. A number stays that of its key: under another one
/// all that it signed would be refused, by a slip of the hand.
fn change(
    keys: &mut BTreeMap<KeyId, ListedKey>,
    add: impl IntoIterator<Item = (KeyId, ListedKey)>,
    drop: &[u32],
) -> Result<(), Invalid> {
    for key in drop {
        if keys.remove(&KeyId(*key)).is_none() {
            return Err(Invalid::new("drop", format!("must be a key that is listed, not {key}")));
        }
    }
    for (key, listed) in add {
        if keys.insert(key, listed).is_some_and(|before| before != listed) {
            let rule = format!("must not be another key under the number {key}: it is listed");
            return Err(Invalid::new("add", rule));
        }
    }
    Ok(())
}

fn to_add(text: &str) -> Result<(KeyId, ListedKey), String> {
    let shape = || "must be KEY:PUBLIC:END, as `dayfly keys rotate` printed it".to_owned();
    let mut parts = text.splitn(3, ':');
    let mut next = || parts.next().ok_or_else(shape);
    let (key, public, end) = (next()?, next()?, next()?);
    let key = key.parse().map(KeyId).map_err(|_| shape())?;
    let public = public.parse().map_err(|error: Invalid| error.to_string())?;
    let end: u64 = end.parse().map_err(|_| shape())?;
    let not_after = Timestamp::from_ms(end).map_err(|error| error.to_string())?;
    Ok((key, ListedKey { public, not_after }))
}

impl Retire {
    fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { key } = self;
        block_on(async {
            let mut client = context.operator().await?;
            let retired = client.retire_key(v1::RetireKeyRequest { key }).await;
            let retired = retired.map_err(|e| context.status(e))?.into_inner();
            let seq = seq_of(retired.head)?;
            context.console.result(
                || {
                    format!(
                        "key {key} signs nothing more since entry {seq}; what it signed lives out"
                    )
                },
                || json!({ "key": key, "seq": seq }),
            );
            Ok(())
        })
    }
}

impl Kill {
    fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { key, reason, wait } = self;
        let target = Some(v1::RevocationTarget { target: Some(Target::Key(key)) });
        block_on(take_back(context, v1::RevokeRequest { target, reason }, wait))
    }
}

/// Key files and statements that are refused are bad configuration.
fn refused(error: impl Into<KeysError>) -> Refused {
    Refused::new(Exit::Config, error.into())
}

/// What is wrong with a key, a statement, or where they lie.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeysError {
    #[error(transparent)]
    Found(#[from] FoundError),
    #[error(transparent)]
    Key(#[from] crate::keys::KeyError),
    #[error(transparent)]
    Signer(#[from] SignerError),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    File(#[from] dayfly_agent::files::FileError),
    #[error(transparent)]
    Untrusted(#[from] dayfly_verifier::trust::Untrusted),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stays_that_of_its_key_and_only_what_is_listed_is_dropped() {
        let listed = |seed: u8| {
            let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key();
            let public = dayfly_verifier::holder::HolderKey::from_slice(key.as_bytes()).unwrap();
            ListedKey { public, not_after: Timestamp::from_secs(1_800_000_000).unwrap() }
        };
        let changed = |add: Option<(u32, u8)>, drop: &[u32]| {
            let mut keys = BTreeMap::from([(KeyId(1), listed(1))]);
            let add = add.map(|(key, seed)| (KeyId(key), listed(seed)));
            change(&mut keys, add, drop).map(|()| keys.keys().map(|key| key.0).collect::<Vec<_>>())
        };
        assert_eq!(changed(Some((2, 2)), &[]).unwrap(), [1, 2]);
        assert_eq!(changed(Some((2, 2)), &[1]).unwrap(), [2]);
        assert_eq!(changed(Some((1, 1)), &[]).unwrap(), [1]);
        assert_eq!(changed(Some((1, 3)), &[1]).unwrap(), [1], "it was said");
        changed(Some((1, 3)), &[]).unwrap_err();
        changed(None, &[7]).unwrap_err();
    }
}
