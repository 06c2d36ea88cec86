//! Reading the record: as it grows, and whether it is whole.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use clap::{Args, Subcommand};
use dayfly_agent::render::visible;
use dayfly_agent::session::OpenError;
use dayfly_proto::v1;
use dayfly_proto::v1::audit_service_client::AuditServiceClient;
use dayfly_verifier::id::{ChainHash, Epoch, Seq};
use dayfly_verifier::invalid::Invalid;
use serde_json::json;

use super::audit_line::line;
use super::erase::Erase;
use super::exit::{Exit, Refused};
use super::query::Query;
use super::{Context, block_on};
use crate::core::event::{Entry, Head};
use crate::core::state::State;
use crate::journal::{JournalError, ReadOnly, Replay, decode};

/// How many entries of a file are read at once.
const PAGE: usize = 1024;

/// Read the record of everything that happened, or check that it is whole.
#[derive(Debug, Args)]
pub struct Audit {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Tail(Tail),
    Query(Box<Query>),
    Verify(Verify),
    Erase(Erase),
}

/// Print the record, one entry a line, and go on as it grows.
///
/// With `--output json`, one JSON object a line: the head that the entry makes, and the entry.
#[derive(Debug, Args)]
struct Tail {
    /// Begin after this entry; 0 for the whole record.
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    after: u64,
    /// End at the present head.
    #[arg(long)]
    once: bool,
}

/// Recompute the hash chain over the record and fold it anew; the first bad entry is named.
///
/// Over the network, or with `--journal` on the file of a broker on this host, running or not.
/// The file is only read: nothing of it, nor beside it, is changed, and a disk that takes no writes
/// will do. What was written last may stand in journal.db-wal: keep it with the file.
///
/// Every head that was ever shown vouches for all entries up to it: with `--head` the record must
/// contain that very head, so that one that was cut or rewritten as a whole shows too.
#[derive(Debug, Args)]
struct Verify {
    /// The journal file of a broker on this host.
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// A head that the record must contain, as an earlier run, `status` or a gateway showed it.
    #[arg(long, value_name = "EPOCH:SEQ:HASH")]
    head: Option<Witnessed>,
}

/// A head that somebody has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Witnessed {
    /// Not every place that shows a head has room for it; the hash is over it, too.
    epoch: Option<Epoch>,
    seq: Seq,
    hash: ChainHash,
}

impl FromStr for Witnessed {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refused =
            || Invalid::new("head", "must be EPOCH:SEQ:HASH, as `audit verify` prints it");
        let (before, hash) = text.rsplit_once(':').ok_or_else(refused)?;
        let (epoch, seq) = match before.split_once(':') {
            Some((epoch, seq)) => (Some(epoch.parse()?), seq),
            None => (None, before),
        };
        // Place 0 is before every record: each of them would contain it.
        let seq = seq.parse::<u64>().ok().filter(|seq| *seq > 0).ok_or_else(refused)?;
        Ok(Self { epoch, seq: Seq(seq), hash: hash.parse()? })
    }
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Bad {
    #[error(transparent)]
    Entry(#[from] JournalError),
    #[error(
        "the record ends at entry {end}, and entry {seen} was seen: it was cut, or is another one"
    )]
    Cut { end: Seq, seen: Seq },
    #[error("entry {0} is not the one that was seen: the record was rewritten, or is another one")]
    Rewritten(Seq),
    #[error(
        "entry {seq} is of epoch {epoch}, and not of the one that was seen: \
         the record was restored since, or is another one"
    )]
    OtherEpoch { seq: Seq, epoch: Epoch },
}

/// A check in progress.
struct Check {
    replay: Replay,
    witnessed: Option<Witnessed>,
}

impl Check {
    fn new(witnessed: Option<Witnessed>) -> Self {
        Self { replay: Replay::from(State::default()), witnessed }
    }

    fn push(&mut self, claimed: Head, bytes: Arc<[u8]>) -> Result<(), Bad> {
        self.replay.push(claimed, bytes)?;
        let Head { epoch, seq, hash } = claimed;
        let Some(seen) = self.witnessed.filter(|seen| seen.seq == seq) else { return Ok(()) };
        if seen.epoch.is_some_and(|seen| seen != epoch) {
            Err(Bad::OtherEpoch { seq, epoch })
        } else if seen.hash != hash {
            Err(Bad::Rewritten(seq))
        } else {
            Ok(())
        }
    }

    fn finish(self) -> Result<Head, Bad> {
        let head = self.replay.state().head;
        match self.witnessed.filter(|witnessed| witnessed.seq > head.seq) {
            Some(Witnessed { seq: seen, .. }) => Err(Bad::Cut { end: head.seq, seen }),
            None => Ok(head),
        }
    }
}

impl Audit {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        match self.verb {
            Verb::Tail(tail) => block_on(tail.run(context)),
            Verb::Query(query) => block_on(query.run(context)),
            Verb::Verify(verify) => block_on(verify.run(context)),
            Verb::Erase(erase) => block_on(erase.run(context)),
        }
    }
}

impl Tail {
    async fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { after, once } = self;
        let mut entries = Entries::open(context, after, once).await?;
        while let Some(entry) = entries.next().await? {
            show(context, &[entry]);
            if context.console.is_unread() {
                break;
            }
        }
        Ok(())
    }
}

/// Shows entries, one a line.
pub(super) fn show(context: &Context, entries: &[(Head, Arc<[u8]>)]) {
    for (head, bytes) in entries {
        context.console.result(
            || told(head, decode(head.seq, bytes)),
            || {
                json!({
                    "seq": head.seq.0, "epoch": head.epoch.to_string(),
                    "hash": head.hash.to_string(), "entry": text(bytes),
                })
            },
        );
    }
}

/// An entry in one line. What cannot be read is shown, not hidden: but nothing of what it says is
/// believed.
fn told(head: &Head, read: Result<Entry, JournalError>) -> String {
    match read {
        Ok(entry) => line(head, &entry),
        Err(error) => visible(&format!("{:>6}  unreadable: {error}", head.seq), false),
    }
}

/// An entry as JSON; as a string, with what is not UTF-8 replaced, if it is none.
fn text(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into())
}

impl Verify {
    async fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { journal, head } = self;
        let mut check = Check::new(head);
        match journal {
            Some(path) if !path.exists() => {
                let error = anyhow::anyhow!("there is no journal `{}`", path.display());
                let next = "name the file journal.db in the directory of a broker";
                return Err(Refused::new(Exit::Config, error).next(next));
            }
            Some(path) => {
                let mut file = ReadOnly::open(&path).map_err(unreadable)?;
                let mut head = Head::ORIGIN;
                loop {
                    let page = file.read(&head, PAGE).map_err(unreadable)?;
                    for entry in &page {
                        head = *entry.head();
                        check.push(head, entry.bytes().clone()).map_err(bad)?;
                    }
                    if page.len() < PAGE {
                        break;
                    }
                }
            }
            None => {
                let mut entries = Entries::open(context, 0, true).await?;
                while let Some((head, bytes)) = entries.next().await? {
                    check.push(head, bytes).map_err(bad)?;
                }
            }
        }
        let Head { epoch, seq, hash } = check.finish().map_err(bad)?;
        context.console.result(
            || format!("the record is whole: {seq} entries\nhead {epoch}:{seq}:{hash}"),
            || {
                let head = format!("{epoch}:{seq}:{hash}");
                json!({"whole": true, "entries": seq.0, "epoch": epoch.to_string(), "head": head})
            },
        );
        Ok(())
    }
}

fn bad(bad: Bad) -> Refused {
    let step = "keep the record as it is, and compare with the heads that gateways have seen";
    Refused::new(Exit::Failed, bad).next(step)
}

/// A journal file that cannot be read is not known to be good; one that can, and is wrong, is bad.
fn unreadable(error: JournalError) -> Refused {
    if error.is_fatal() {
        return bad(error.into());
    }
    let step = "see that you may read it, and that journal.db-wal and -shm lie beside it if, and \
                as, they did where it comes from: until it is read, nothing is known";
    Refused::new(Exit::Unavailable, error).next(step)
}

/// Entries as a broker sends them: nothing of it is believed.
struct Entries<'a> {
    context: &'a Context,
    stream: tonic::Streaming<v1::TailResponse>,
}

impl<'a> Entries<'a> {
    async fn open(context: &'a Context, after: u64, once: bool) -> Result<Self, Refused> {
        let session = context.session().await?;
        let mut client = AuditServiceClient::new(session.channel());
        let asked = client.tail(v1::TailRequest { after_seq: after, once }).await;
        let stream = asked.map_err(|s| context.refused(OpenError::from_status(s)))?.into_inner();
        Ok(Self { context, stream })
    }

    async fn next(&mut self) -> Result<Option<(Head, Arc<[u8]>)>, Refused> {
        let told = self.stream.message().await;
        let told = told.map_err(|s| self.context.refused(OpenError::from_status(s)))?;
        told.map(read).transpose()
    }
}

/// An entry as a broker sent it.
pub(super) fn read(told: v1::TailResponse) -> Result<(Head, Arc<[u8]>), Refused> {
    let v1::TailResponse { head, entry } = told;
    let head = read_head(head.unwrap_or_default());
    let head = head.map_err(|invalid| Refused::new(Exit::Failed, invalid))?;
    Ok((head, Arc::from(&*entry)))
}

fn read_head(head: v1::Head) -> Result<Head, Invalid> {
    let v1::Head { epoch, seq, hash } = head;
    Ok(Head { epoch: epoch.parse()?, seq: Seq(seq), hash: hash.parse()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{chain, samples};

    fn log() -> Vec<(Head, Arc<[u8]>)> {
        let entries: Vec<_> =
            std::iter::once(samples::opening()).chain((1..6).map(samples::revocation)).collect();
        let chained = chain(&Head::ORIGIN, &entries).unwrap();
        chained.iter().map(|entry| (*entry.head(), entry.bytes().clone())).collect()
    }

    fn check(log: &[(Head, Arc<[u8]>)], seen: Option<&str>) -> Result<Head, Bad> {
        let mut check = Check::new(seen.map(|text| text.parse().unwrap()));
        for (head, bytes) in log {
            check.push(*head, bytes.clone())?;
        }
        check.finish()
    }

    #[test]
    fn a25_a_record_that_was_cut_or_rewritten_is_told_from_the_one_that_was_seen() {
        let log = log();
        let seen = |place: usize| format!("{}:{}", log[place].0.seq, log[place].0.hash);
        assert_eq!(check(&log, None), Ok(log[5].0));
        for place in 0..6 {
            assert_eq!(check(&log, Some(&seen(place))), Ok(log[5].0));
        }
        assert_eq!(check(&log[..4], Some(&seen(5))), Err(Bad::Cut { end: Seq(4), seen: Seq(6) }));
        let other = format!("3:{}", log[3].0.hash);
        assert_eq!(check(&log, Some(&other)), Err(Bad::Rewritten(Seq(3))));
        let mut changed = log.clone();
        changed[2].1 = log[1].1.clone();
        let bad = check(&changed, None);
        assert!(matches!(bad, Err(Bad::Entry(JournalError::Corrupt { seq: Seq(3), .. }))));
    }

    /// Any byte of a megabyte of entries, and of what is claimed of them.
    #[test]
    fn a25_any_changed_byte_is_found_and_its_entry_named() {
        let entries = std::iter::once(samples::opening()).chain((1..7000).map(samples::revocation));
        let log = chain(&Head::ORIGIN, &entries.collect::<Vec<_>>()).unwrap();
        let size: usize = log.iter().map(|entry| entry.bytes().len()).sum();
        assert!(size > 1_000_000, "{size}");
        let mut check = Check::new(None);
        let mut bits = (0..8).cycle();
        for entry in &log {
            let (head, bytes) = (*entry.head(), entry.bytes());
            let mut found = |claimed: Head, bytes: &[u8]| {
                let bad = check.push(claimed, Arc::from(bytes));
                let named = matches!(
                    bad, Err(Bad::Entry(JournalError::Corrupt { seq, .. })) if seq == head.seq
                );
                assert!(named, "{}: {bad:?}", head.seq);
            };
            let mut changed = bytes.to_vec();
            for place in 0..bytes.len() {
                changed[place] ^= 1 << bits.next().unwrap();
                found(head, &changed);
                changed[place] = bytes[place];
            }
            for place in 0..32 {
                let mut hash = *head.hash.as_bytes();
                hash[place] ^= 1 << bits.next().unwrap();
                found(Head { hash: ChainHash::new(hash), ..head }, bytes);
            }
            check.push(head, bytes.clone()).unwrap();
        }
        assert_eq!(check.finish(), Ok(*log.last().unwrap().head()));
    }

    #[test]
    fn a43_what_an_unreadable_entry_holds_stays_in_its_line() {
        let rule = "is not an entry: unknown field `\n\u{1b}[2J\u{202e}`".to_owned();
        let shown = told(&Head::ORIGIN, Err(JournalError::Corrupt { seq: Seq(0), rule }));
        assert!(shown.contains("unreadable") && shown.contains("[2J"), "{shown}");
        assert_eq!(shown.chars().find(|c| c.is_control() || *c == '\u{202e}'), None, "{shown:?}");
    }

    #[test]
    fn a_head_is_read_in_one_form() {
        let (epoch, hash) = ("cd".repeat(16), "ab".repeat(32));
        assert!(format!("7:{hash}").parse::<Witnessed>().is_ok());
        assert!(format!("{epoch}:7:{hash}").parse::<Witnessed>().is_ok());
        assert!(format!("{hash}:7:{epoch}").parse::<Witnessed>().is_err());
        let numbers = [format!("-1:{hash}"), format!("0:{hash}"), format!("7:{hash}0")];
        let numbers = numbers.iter().map(String::as_str);
        for bad in ["", "7", ":", "7:", &hash].into_iter().chain(numbers) {
            assert!(bad.parse::<Witnessed>().is_err(), "{bad}");
        }
    }
}
