//! `dayfly keys sign`: the next trust statement. The trust root signs here and nowhere else; it is
//! read from its file and never kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use dayfly_verifier::id::KeyId;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::time::{Clock as _, SystemClock, Timestamp};
use dayfly_verifier::trust::{ListedKey, Statement};
use serde_json::json;

use super::super::Context;
use super::super::exit::Refused;
use super::super::number::whole;
use super::{KeysError, refused};
use crate::found::{statement_by, write_statement};
use crate::keys::NumberedKey;

/// Sign a new trust statement, where the trust root is kept.
///
/// Keys whose time is over are left out. Bring `trust.statement` and `trust.signature` back to the
/// broker's directory: it reads them within seconds.
#[derive(Debug, Args)]
pub(super) struct Sign {
    /// The trust root.
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// The directory with the `trust.statement` and `trust.signature` that are in force.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// A token key to list, as `keys rotate` printed it: its number, public half and end.
    #[arg(long, value_name = "KEY:PUBLIC:END", value_parser = to_add)]
    add: Vec<(KeyId, ListedKey)>,
    /// A token key to list no more: gateways then refuse what it signed.
    #[arg(long, value_name = "KEY", value_parser = whole::<u32>)]
    drop: Vec<u32>,
    /// A feed key to list, as `keys rotate --feed` printed it.
    #[arg(long, value_name = "KEY:PUBLIC:END", value_parser = to_add)]
    add_feed: Vec<(KeyId, ListedKey)>,
    /// A feed key to list no more: gateways then believe nothing that it signs.
    #[arg(long, value_name = "KEY", value_parser = whole::<u32>)]
    drop_feed: Vec<u32>,
}

/// What the next statement lists that the one before did not, and the other way round.
#[derive(Default)]
pub(super) struct Change {
    pub(super) add: Vec<(KeyId, ListedKey)>,
    pub(super) drop: Vec<u32>,
    pub(super) add_feed: Vec<(KeyId, ListedKey)>,
    pub(super) drop_feed: Vec<u32>,
}

impl Sign {
    pub(super) fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { root, dir, add, drop, add_feed, drop_feed } = self;
        let root = NumberedKey::read(&root).map_err(refused)?;
        let statement = signed_anew(&dir, &root, Change { add, drop, add_feed, drop_feed });
        let statement = statement.map_err(refused)?;
        let numbers = |keys: &BTreeMap<KeyId, ListedKey>| -> Vec<u32> {
            keys.keys().map(|key| key.0).collect()
        };
        let (keys, feed_keys) = (numbers(&statement.token_keys), numbers(&statement.feed_keys));
        let (version, dir) = (statement.version, dir.display());
        let text = || {
            format!(
                "trust statement {version} lists the token keys {} and the feed keys {}\n\
                 Bring {dir}/trust.statement and {dir}/trust.signature to the broker's directory.",
                spelt(&keys),
                spelt(&feed_keys),
            )
        };
        let json = || json!({ "trust_version": version, "keys": keys, "feed_keys": feed_keys });
        context.console.result(text, json);
        Ok(())
    }
}

fn spelt(keys: &[u32]) -> String {
    if keys.is_empty() {
        return "(none)".to_owned();
    }
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The statement that follows the one in `dir`, with its keys changed, signed and written there.
/// Keys whose time is over are left out.
pub(super) fn signed_anew(
    dir: &Path,
    root: &NumberedKey,
    change: Change,
) -> Result<Statement, KeysError> {
    let (_, before) = statement_by(dir, &root.public()?)?;
    let next = changed(before, change, SystemClock.now())?;
    write_statement(dir, &next.sign(&root.signing)?)?;
    Ok(next)
}

/// The statement that follows `before` at `now`.
fn changed(before: Statement, change: Change, now: Timestamp) -> Result<Statement, Invalid> {
    let Change { add, drop, add_feed, drop_feed } = change;
    let mut next = Statement { version: before.version.saturating_add(1), ..before };
    listed("", &mut next.token_keys, add, &drop)?;
    listed("-feed", &mut next.feed_keys, add_feed, &drop_feed)?;
    next.token_keys.retain(|_, key| now < key.not_after);
    next.feed_keys.retain(|_, key| now < key.not_after);
    if next.feed_keys.is_empty() {
        let rule = "must leave a feed key whose time is not over, without which gateways refuse \
                    everything: make one with `dayfly keys rotate --feed`, and name it";
        return Err(Invalid::new("add-feed", rule));
    }
    Ok(next)
}

/// Drops keys that are listed, then lists others. A number stays that of its key: under another one
/// all that it signed would be refused, by a slip of the hand.
fn listed(
    kind: &str,
    keys: &mut BTreeMap<KeyId, ListedKey>,
    add: Vec<(KeyId, ListedKey)>,
    drop: &[u32],
) -> Result<(), Invalid> {
    for key in drop {
        if keys.remove(&KeyId(*key)).is_none() {
            let rule = format!("must be a key that is listed, not {key}");
            return Err(Invalid::new(format!("drop{kind}"), rule));
        }
    }
    for (key, listed) in add {
        if keys.insert(key, listed).is_some_and(|before| before != listed) {
            let rule = format!("must not be another key under the number {key}: it is listed");
            return Err(Invalid::new(format!("add{kind}"), rule));
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

#[cfg(test)]
mod tests {
    use dayfly_verifier::holder::HolderKey;
    use dayfly_verifier::id::{Epoch, FeedId};

    use super::*;

    const END: u64 = 1_800_000_000;

    fn key(number: u32, seed: u8) -> (KeyId, ListedKey) {
        let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key();
        let public = HolderKey::from_slice(key.as_bytes()).unwrap();
        (KeyId(number), ListedKey { public, not_after: at(END + u64::from(number)) })
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs).unwrap()
    }

    /// Token key 1 and feed key 1, then this, at `secs`: the numbers that are listed.
    fn lists(change: Change, secs: u64) -> Result<[Vec<u32>; 2], String> {
        let (feed, epoch) = (FeedId::new([1; 16]), Epoch::new([2; 16]));
        let (token_keys, feed_keys) = ([key(1, 1)].into(), [key(1, 101)].into());
        let before = Statement { version: 7, feed, epoch, token_keys, feed_keys };
        let next =
            changed(before, change, at(secs)).map_err(|invalid| invalid.field.to_string())?;
        assert_eq!(next.version, 8);
        Ok([next.token_keys, next.feed_keys].map(|keys| keys.keys().map(|key| key.0).collect()))
    }

    fn tokens(add: Option<(KeyId, ListedKey)>, drop: &[u32]) -> Change {
        Change { add: Vec::from_iter(add), drop: drop.to_vec(), ..Change::default() }
    }

    fn feed(add: Option<(KeyId, ListedKey)>, drop: &[u32]) -> Change {
        let (add_feed, drop_feed) = (Vec::from_iter(add), drop.to_vec());
        Change { add_feed, drop_feed, ..Change::default() }
    }

    #[test]
    fn a_number_stays_that_of_its_key_and_only_what_is_listed_is_dropped() {
        assert_eq!(lists(tokens(Some(key(1, 3)), &[]), 0).unwrap_err(), "add");
        assert_eq!(lists(tokens(None, &[7]), 0).unwrap_err(), "drop");
        assert_eq!(lists(tokens(Some(key(2, 2)), &[]), 0).unwrap(), [vec![1, 2], vec![1]]);
        assert_eq!(lists(tokens(Some(key(2, 2)), &[1]), 0).unwrap(), [vec![2], vec![1]]);
        assert_eq!(lists(tokens(Some(key(1, 1)), &[]), 0).unwrap(), [vec![1], vec![1]]);
        assert_eq!(lists(tokens(Some(key(1, 3)), &[1]), 0).unwrap()[0], [1], "it was said");
        assert_eq!(lists(tokens(None, &[1]), 0).unwrap(), [vec![], vec![1]]);
    }

    #[test]
    fn a_statement_without_token_keys_is_told_as_such() {
        assert_eq!((spelt(&[]), spelt(&[1, 2])), ("(none)".to_owned(), "1, 2".to_owned()));
    }

    #[test]
    fn feed_keys_are_changed_by_the_same_rules_and_one_is_left() {
        assert_eq!(lists(feed(Some(key(1, 103)), &[]), 0).unwrap_err(), "add-feed");
        assert_eq!(lists(feed(None, &[2]), 0).unwrap_err(), "drop-feed");
        assert_eq!(lists(feed(None, &[1]), 0).unwrap_err(), "add-feed");
        assert_eq!(lists(feed(Some(key(2, 102)), &[]), 0).unwrap(), [vec![1], vec![1, 2]]);
        assert_eq!(lists(feed(Some(key(2, 102)), &[1]), 0).unwrap(), [vec![1], vec![2]]);
        // Those that have ended are left out, be it with all that there is.
        assert_eq!(lists(feed(Some(key(9, 102)), &[]), END + 1).unwrap(), [vec![], vec![9]]);
        assert_eq!(lists(tokens(Some(key(9, 2)), &[]), END + 1).unwrap_err(), "add-feed");
        assert_eq!(lists(feed(None, &[]), END).unwrap(), [vec![1], vec![1]]);
    }
}
