//! `dayfly keys rotate`: another key on the broker's host, listed by the trust root where that is
//! at hand.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use dayfly_verifier::id::KeyId;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::time::{Clock as _, SystemClock};
use dayfly_verifier::trust::{ListedKey, Statement};
use serde_json::json;
use zeroize::Zeroizing;

use super::super::Context;
use super::super::exit::Refused;
use super::super::host::load;
use super::sign::{Change, signed_anew};
use super::{KeysError, refused};
use crate::config::{Config, DEFAULT_PATH};
use crate::found::{
    feed_key_file, feed_keys, pinned_root, read_statement, token_key_file, token_keys,
};
use crate::keys::NumberedKey;
use crate::random::{Random as _, SystemRandom};
use crate::signer::TokenKey;

/// Make a key on the broker's host, and have the trust root list it.
///
/// Without `--root` the key is made, and the command is printed that lists it where the trust root
/// is kept. The broker need not run.
#[derive(Debug, Args)]
pub(super) struct Rotate {
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
    /// A key that signs the feed, which tells gateways what is taken back, not one for tokens.
    #[arg(long)]
    feed: bool,
}

impl Rotate {
    pub(super) fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { config, root, days, feed } = self;
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
        let make = if feed { made_for_feed } else { made };
        let (id, listed) = make(&config, &statement, days).map_err(refused)?;
        let (kind, option) = if feed { ("feed key", "--add-feed") } else { ("key", "--add") };
        let ListedKey { public, not_after: until } = listed;
        let add = format!("{id}:{public}:{}", until.as_ms());
        let Some(root) = root else {
            let text = || {
                format!(
                    "made {kind} {id}, good until {until}; the trust root does not list it yet\n\
                     \n\
                     Next, where the trust root is kept, with trust.statement and trust.signature \
                     beside it:\n  \
                     dayfly keys sign --root trust-root.key {option} {add}\n\
                     and bring both files back to {}",
                    config.dir.display()
                )
            };
            context.console.result(text, || json!({ "key": id.0, "listed": false, "add": add }));
            return Ok(());
        };
        let statement = signed_anew(&config.dir, &root, adding(feed, id, listed));
        let version = statement.map_err(refused)?.version;
        let old = if feed {
            "The old one stays listed until it ends: gateways that come back show heads by it."
        } else {
            "  dayfly keys retire KEY   # the old one, once the new one signs"
        };
        let text = || {
            format!(
                "made {kind} {id}, good until {until}; listed in trust statement {version}\n\
                 A running broker reads it within seconds, and signs with it once every gateway \
                 has it.\n\
                 \n\
                 Next:\n  \
                 dayfly keys list\n\
                 {old}"
            )
        };
        context
            .console
            .result(text, || json!({ "key": id.0, "listed": true, "trust_version": version }));
        Ok(())
    }
}

/// Another token key on this host, which the trust root lists, good for `days`: its number.
pub(in super::super) fn rotate(
    config: &Config,
    root: &NumberedKey,
    days: u32,
) -> Result<KeyId, KeysError> {
    let (_, statement) = read_statement(&config.dir)?;
    let (id, listed) = made(config, &statement, days)?;
    signed_anew(&config.dir, root, adding(false, id, listed))?;
    Ok(id)
}

fn adding(feed: bool, id: KeyId, listed: ListedKey) -> Change {
    let (add, add_feed) =
        if feed { (None, Some((id, listed))) } else { (Some((id, listed)), None) };
    Change { add: Vec::from_iter(add), add_feed: Vec::from_iter(add_feed), ..Change::default() }
}

/// A new token key in its file: of the number after every one that is listed or lies there.
fn made(
    config: &Config,
    statement: &Statement,
    days: u32,
) -> Result<(KeyId, ListedKey), KeysError> {
    let held = token_keys(&config.keys(), |_| false)?;
    let id = next(held.iter().map(TokenKey::id).chain(statement.token_keys.keys().copied()))?;
    let mut seed = Zeroizing::new([0; 64]);
    SystemRandom.fill(&mut *seed);
    let key = TokenKey::generate(id, end_after(days), &seed)?;
    key.write(&config.keys().join(token_key_file(id)))?;
    Ok((id, ListedKey { public: key.public(), not_after: key.not_after() }))
}

/// The same, of a key that signs the feed.
fn made_for_feed(
    config: &Config,
    statement: &Statement,
    days: u32,
) -> Result<(KeyId, ListedKey), KeysError> {
    let held = feed_keys(&config.keys(), |_| false)?;
    let id = next(held.iter().map(|key| key.id).chain(statement.feed_keys.keys().copied()))?;
    let key = NumberedKey::generate(id, end_after(days), &SystemRandom);
    key.write(&config.keys().join(feed_key_file(id)))?;
    Ok((id, key.listed()?))
}

fn next(taken: impl Iterator<Item = KeyId>) -> Result<KeyId, Invalid> {
    let last = taken.map(|key| key.0).max().unwrap_or_default();
    let next = last.checked_add(1).map(KeyId);
    next.ok_or_else(|| Invalid::new("key", "numbers are used up"))
}

fn end_after(days: u32) -> dayfly_verifier::time::Timestamp {
    let life = Duration::from_secs(u64::from(days).saturating_mul(24 * 60 * 60));
    SystemClock.now().plus(life).floor_to_second()
}
