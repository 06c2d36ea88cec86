//! The record of it all.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use dayfly_proto::v1::TailResponse;
use dayfly_verifier::id::Seq;
use dayfly_verifier::time::{Clock as _, SystemClock, Timestamp};

use super::super::people::Operator;
use super::{Since, Story};
use crate::cli::audit_line::line;
use crate::cli::when::same_day;
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
    let now = SystemClock.now();
    for (head, entry) in &entries {
        story.entry(&brief(&line(head, entry), now));
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

/// A line of the record with ids cut to eight digits, of today's times the time of day and of
/// others the day, in one line.
fn brief(line: &str, now: Timestamp) -> String {
    const WIDTH: usize = 94;
    let short = line.replace("spiffe://shop.test/", "").replace(" (customer-support)", "");
    let words = short.strip_prefix("   ").unwrap_or(&short).split(' ').map(|word| {
        let digits = word.bytes().take_while(u8::is_ascii_hexdigit).count();
        let at = word.get(..24).and_then(|text| text.parse::<Timestamp>().ok());
        let is_use = word.len() == 36 && word.get(8..9) == Some("-");
        match (at, word.get(..8), word.get(digits..)) {
            (Some(at), ..) => {
                let time = if same_day(at, now) { word.get(11..23) } else { word.get(..10) };
                format!("{}{}", time.unwrap_or(word), word.get(24..).unwrap_or_default())
            }
            (None, Some(id), Some(rest)) if digits >= 32 => format!("{id}{rest}"),
            // Its beginning is a time.
            (None, ..) if is_use => word.get(28..).unwrap_or(word).to_owned(),
            (None, ..) => word.to_owned(),
        }
    });
    let brief = words.collect::<Vec<_>>().join(" ");
    match brief.char_indices().nth(WIDTH) {
        Some((at, _)) => format!("{}…", brief.get(..at).unwrap_or_default()),
        None => brief,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_that_is_not_today_shows() {
        let now = "2026-11-22T19:10:36Z".parse().unwrap();
        let line = "     1  2026-11-22T19:10:35.120Z  host  listed token key 1, good until \
                    2027-11-22T19:10:35.000Z";
        let brief = brief(line, now);
        assert_eq!(brief, "  1  19:10:35.120  host  listed token key 1, good until 2027-11-22");
    }
}
