//! The record of it all.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use dayfly_proto::v1::TailResponse;
use dayfly_verifier::id::Seq;

use super::super::people::Operator;
use super::{Since, Story};
use crate::cli::audit_line::line;
use crate::core::event::{Entry, Head};
use crate::core::state::State;
use crate::journal::{JournalError, Replay};

/// Reads the record, shows it, and checks the chain over it; then a copy with one changed bit.
pub(super) async fn audit(story: &mut Story, olga: &Operator) -> anyhow::Result<()> {
    story.scene("The record of all this");
    let since = Since::now();
    let mut record = Vec::new();
    for TailResponse { head, entry } in olga.record().await? {
        let head = head.context("an entry has no head")?;
        let (epoch, seq, hash) = (head.epoch.parse()?, Seq(head.seq), head.hash.parse()?);
        record.push((Head { epoch, seq, hash }, Arc::<[u8]>::from(&entry[..])));
    }
    let entries = read_back(record.clone())?;
    for (head, entry) in &entries {
        story.entry(&brief(&line(head, entry)));
    }
    let told =
        format!("{} entries, and their hash chain from the first to the last", entries.len());
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

/// Folds the record anew, from its first entry on, as an auditor does.
fn read_back(record: Vec<(Head, Arc<[u8]>)>) -> Result<Vec<(Head, Entry)>, JournalError> {
    let mut replay = Replay::from(State::default());
    record.into_iter().map(|(head, bytes)| Ok((head, replay.push(head, bytes)?))).collect()
}

/// A line of the record with ids cut to eight digits and times without their day, in one line.
fn brief(line: &str) -> String {
    const WIDTH: usize = 94;
    let short = line.replace("spiffe://shop.test/", "").replace(" (customer-support)", "");
    let words = short.strip_prefix("   ").unwrap_or(&short).split(' ').map(|word| {
        let digits = word.bytes().take_while(u8::is_ascii_hexdigit).count();
        let is_time = word.get(10..11) == Some("T") && word.get(23..24) == Some("Z");
        let is_use = word.len() == 36 && word.get(8..9) == Some("-");
        match (word.get(..8), word.get(11..23), word.get(24..), word.get(digits..)) {
            (_, Some(time), Some(rest), _) if is_time => format!("{time}{rest}"),
            (Some(id), .., Some(rest)) if digits >= 32 => format!("{id}{rest}"),
            (Some(id), ..) if is_use => id.to_owned(),
            _ => word.to_owned(),
        }
    });
    let brief = words.collect::<Vec<_>>().join(" ");
    match brief.char_indices().nth(WIDTH) {
        Some((at, _)) => format!("{}…", brief.get(..at).unwrap_or_default()),
        None => brief,
    }
}
