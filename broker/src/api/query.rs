//! A search in the record. It reads every entry of the span of time that may matter, page by page,
//! and holds back nothing but what was not asked for: there is no index that could hide an entry.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dayfly_proto::v1;
use dayfly_proto::v1::query_response::Message;
use dayfly_verifier::id::Seq;
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::time::Timestamp;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::Status;

use super::{Broker, status};
use crate::core::event::Head;
use crate::journal::{JournalError, KINDS, Store, decode};
use crate::record::trail::{REACH, Trail, Wanted};
use crate::sequencer::{Failure, Fault};

/// How many entries are read at once.
const PAGE: usize = 256;
/// How many entries are told, unless it is asked otherwise, and at most.
const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1000;

pub(super) type Told = Result<v1::QueryResponse, Status>;

/// What is asked, checked.
pub(super) struct Asked {
    wanted: Wanted,
    after: Seq,
    limit: u32,
}

pub(super) fn parse(request: v1::QueryRequest) -> Result<Asked, Invalid> {
    let v1::QueryRequest {
        grant_id,
        task,
        workload,
        person,
        resource,
        from_ms,
        until_ms,
        kinds,
        after_seq,
        limit,
    } = request;
    let time = |field: &'static str, ms: i64| {
        let read = u64::try_from(ms).ok().and_then(|ms| Timestamp::from_ms(ms).ok());
        let read = read.ok_or_else(|| Invalid::new(field, "must be a time in milliseconds"))?;
        Ok((ms != 0).then_some(read))
    };
    if kinds.iter().any(|kind| !KINDS.contains(&kind.as_str())) {
        return Err(Invalid::new("kinds", format!("must be among {}", KINDS.join(", "))));
    }
    if limit > MAX_LIMIT {
        return Err(Invalid::new("limit", "must be 1 to 1000"));
    }
    let wanted = Wanted {
        grant: given(&grant_id)?,
        task: given(&task)?,
        workload: given(&workload)?,
        resource: given(&resource)?,
        person: given(&person)?,
        since: time("from_ms", from_ms)?,
        until: time("until_ms", until_ms)?,
        kinds: BTreeSet::from_iter(kinds),
    };
    let limit = if limit == 0 { DEFAULT_LIMIT } else { limit };
    Ok(Asked { wanted, after: Seq(after_seq), limit })
}

fn given<T: std::str::FromStr<Err = Invalid>>(text: &str) -> Result<Option<T>, Invalid> {
    (!text.is_empty()).then(|| text.parse()).transpose()
}

/// One search and how far it has come.
pub(super) struct Search {
    pub(super) broker: Arc<Broker>,
    pub(super) asked: Asked,
    pub(super) tell: mpsc::Sender<Told>,
    /// How long a reader may take for what was found last.
    pub(super) patience: Duration,
    /// There are only so many searches at once.
    pub(super) _room: OwnedSemaphorePermit,
}

impl Search {
    pub(super) async fn run(self) {
        if let Err(status) = self.look().await {
            // The reader may have gone.
            let _ = self.tell.send_timeout(Err(status), self.patience).await;
        }
    }

    async fn look(&self) -> Result<(), Status> {
        let Asked { wanted, after, limit } = &self.asked;
        let store = &*self.broker.store;
        // What an entry is about may stand in an earlier one.
        let names_cases = wanted.names_cases() || wanted.person.is_some();
        let reach = |since: Timestamp| if names_cases { since.minus(REACH) } else { since };
        let start = match wanted.since {
            Some(since) => first_at(store, self.end_of_log(), reach(since)).await,
            None => Ok(Head::ORIGIN),
        };
        let mut head = start.map_err(|error| status::unavailable(&error))?;
        if !names_cases && *after > head.seq {
            let at = store.head_at(*after).await.map_err(|error| status::unavailable(&error))?;
            head = at.map_or(head, |at| *at);
        }
        let mut trail = Trail::new(wanted.clone());
        let mut left = *limit;
        loop {
            let page = tokio::select! {
                page = store.read(&head, PAGE) => page,
                () = self.tell.closed() => return Ok(()),
                () = self.broker.shutdown.begins() => {
                    return Err(status::failure(&Failure::Fault(Fault::Stopped)));
                }
            };
            let page = page.map_err(|error| status::unavailable(&error))?;
            for stored in &page {
                head = *stored.head();
                let entry = decode(head.seq, stored.bytes());
                let entry = entry.map_err(|error| status::unavailable(&error))?;
                if wanted.until.is_some_and(|until| entry.at >= until) {
                    return self.end(head.seq, false).await;
                }
                if !trail.takes(&entry) || head.seq <= *after {
                    continue;
                }
                if self.tell(Message::Found(super::audit::told(stored))).await.is_err() {
                    return Ok(());
                }
                left = left.saturating_sub(1);
                if left == 0 {
                    return self.end(head.seq, true).await;
                }
            }
            if page.len() < PAGE {
                return self.end(head.seq, false).await;
            }
        }
    }

    fn end_of_log(&self) -> Seq {
        self.broker.sequencer.state().head.seq
    }

    async fn end(&self, looked_to: Seq, more: bool) -> Result<(), Status> {
        let end = v1::QueryEnd { looked_to_seq: looked_to.0, more };
        let _gone = self.tell(Message::End(end)).await;
        Ok(())
    }

    /// Fails where nobody reads: searches that are opened and left keep others from theirs.
    async fn tell(&self, message: Message) -> Result<(), SendTimeoutError<Told>> {
        let told = Ok(v1::QueryResponse { message: Some(message) });
        self.tell.send_timeout(told, self.patience).await
    }
}

/// The head before the first entry that is not earlier than `since`. Time does not run backwards
/// in the log: so this takes one entry for each doubling of its length.
async fn first_at(store: &dyn Store, mut end: Seq, since: Timestamp) -> Result<Head, JournalError> {
    let mut before = Head::ORIGIN;
    while before.seq < end {
        let middle = Seq(before.seq.0.midpoint(end.0));
        let Some(head) = store.head_at(middle).await? else { break };
        let next = store.read(&head, 1).await?;
        match next.first() {
            Some(entry) if decode(entry.head().seq, entry.bytes())?.at < since => {
                before = *entry.head();
            }
            Some(_) | None => end = middle,
        }
    }
    Ok(before)
}
