//! The record of it all.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use dayfly_proto::v1::TailResponse;
use dayfly_verifier::id::Seq;
use dayfly_verifier::time::Timestamp;
use serde_json::Value as Json;

use super::super::people::Operator;
use super::{Since, Story};
use crate::core::event::Head;
use crate::core::state::State;
use crate::journal::{JournalError, Replay};

/// Reads the record, shows it, and checks the chain over it; then a copy with one changed byte.
pub(super) async fn audit(story: &mut Story, olga: &Operator) -> anyhow::Result<()> {
    story.scene("The record of all this");
    let since = Since::now();
    let mut record = Vec::new();
    for TailResponse { head, entry } in olga.record().await? {
        let head = head.context("an entry has no head")?;
        let (epoch, seq, hash) = (head.epoch.parse()?, Seq(head.seq), head.hash.parse()?);
        record.push((Head { epoch, seq, hash }, Arc::<[u8]>::from(&entry[..])));
    }
    for (head, entry) in &record {
        story.entry(head.seq.0, &summary(entry).context("an entry cannot be read")?);
    }
    let head = read_back(record.clone())?;
    let told = format!("{} entries, and their hash chain from the first to the last", head.seq);
    story.allowed(&told, since);

    let since = Since::now();
    let middle = record.len().checked_div(2).unwrap_or(0);
    let (_, entry) = record.get_mut(middle).context("the record is empty")?;
    let mut changed = entry.to_vec();
    *changed.last_mut().context("an entry is empty")? ^= 1;
    *entry = changed.into();
    ensure!(read_back(record).is_err(), "a changed record must not verify");
    story.refused("a copy of the record in which one bit was changed", since);
    Ok(())
}

/// Folds the record anew, from its first entry on: the head that it ends in.
fn read_back(record: Vec<(Head, Arc<[u8]>)>) -> Result<Head, JournalError> {
    let mut replay = Replay::from(State::default());
    for (head, entry) in record {
        replay.push(head, entry)?;
    }
    Ok(replay.state().head)
}

/// When, who, and what: the words of the stored entry.
fn summary(entry: &[u8]) -> Option<String> {
    let entry: Json = serde_json::from_slice(entry).ok()?;
    let at = Timestamp::from_ms(entry.get("at_ms")?.as_u64()?).ok()?.to_string();
    let time = at.get(11..23)?;
    let by = match entry.get("by")? {
        Json::String(host) => host.clone(),
        by => {
            let (kind, who) = by.as_object()?.iter().next()?;
            let name = who.get("name").unwrap_or(who).as_str()?;
            let name = name.strip_prefix("spiffe://shop.test/").unwrap_or(name);
            if name.contains('/') { name.to_owned() } else { format!("{kind}/{name}") }
        }
    };
    let event = entry.get("event")?;
    let kind = event.as_object().and_then(|event| event.keys().next().map(String::as_str));
    let kind = kind.or_else(|| event.as_str())?.replace('_', " ");
    Some(format!("{time}  {by:<16}  {kind}"))
}
