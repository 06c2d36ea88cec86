//! Searches in the record: what cannot be asked, and that nothing which was asked for is held
//! back. What must be found is read off the entries themselves.

use dayfly_proto::v1::audit_service_server::AuditService as _;
use dayfly_proto::v1::query_response::Message;
use dayfly_verifier::id::Seq;
use futures_util::StreamExt as _;
use tonic::Code;

use super::*;
use crate::api::audit::Audit;
use crate::core::event::{Entry, Event, Head};
use crate::journal::decode;

const SMALL: &str = "refund orders/prod/o-17";
/// More than two pages of what is read at once.
const MANY: u64 = 600;

/// What was found, by place, and whether there may be more.
type Found = (Vec<u64>, bool);

async fn find(audit: &Audit, asked: v1::QueryRequest) -> Result<Found, Status> {
    let mut told = audit.query(Request::new(asked)).await?.into_inner();
    let mut found = Vec::new();
    while let Some(message) = told.next().await {
        match message?.message.unwrap() {
            Message::Found(entry) => found.push(entry.head.unwrap().seq),
            Message::End(end) => return Ok((found, end.more)),
        }
    }
    panic!("the search had no end")
}

impl World {
    /// The whole record.
    async fn record(&self) -> Vec<(Head, Entry)> {
        let log = self.broker.store.read(&Head::ORIGIN, 10_000).await.unwrap();
        log.iter().map(|e| (*e.head(), decode(e.head().seq, e.bytes()).unwrap())).collect()
    }

    /// Exchanges one grant until the record has `MANY` entries, a millisecond apart.
    async fn long_record(&self) -> Vec<(Head, Entry)> {
        let agent = self.agent("agent/a", 1);
        for n in 0_u64.. {
            let n = u8::try_from(n % 250).unwrap();
            let filed = self.file(&agent, self.filing(&agent, n, SMALL)).await.unwrap();
            for id in 0..100 {
                self.forward(1);
                self.exchange(&agent, &filed.request_id, id).await.unwrap();
            }
            self.cancel(&agent, &filed.request_id).await.unwrap();
            if self.broker.sequencer.state().head.seq >= Seq(MANY) {
                break;
            }
        }
        self.record().await
    }
}

fn limited(limit: u32) -> v1::QueryRequest {
    v1::QueryRequest { limit, ..v1::QueryRequest::default() }
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_by_its_field() {
    let world = World::new().await;
    let audit = Audit::new(world.broker.clone());
    type Change = fn(&mut v1::QueryRequest);
    let changes: [(&str, Change); 9] = [
        ("limit", |asked| asked.limit = 1001),
        ("kinds", |asked| asked.kinds = vec!["granted".into(), "nothing".into()]),
        ("from_ms", |asked| asked.from_ms = -1),
        ("until_ms", |asked| asked.until_ms = i64::MAX),
        ("grant", |asked| asked.grant_id = "00".into()),
        ("task", |asked| asked.task = "../x".into()),
        ("spiffe_id", |asked| asked.workload = "spiffe://shop.test/agent/**".into()),
        ("resource", |asked| asked.resource = "orders/**".into()),
        ("person", |asked| asked.person = "a b".into()),
    ];
    for (field, change) in changes {
        let mut asked = v1::QueryRequest::default();
        change(&mut asked);
        let status = find(&audit, asked).await.unwrap_err();
        assert_eq!(reason(&status), "INVALID", "{field}");
    }
    assert!(find(&audit, limited(1000)).await.is_ok());
}

#[tokio::test]
async fn the_pages_of_a_search_are_together_all_that_there_is() {
    let world = World::new().await;
    let record = world.long_record().await;
    let audit = Audit::new(world.broker.clone());
    let every: Vec<u64> = record.iter().map(|(head, _)| head.seq.0).collect();
    // A hundred, unless it is asked otherwise; and never more than that.
    assert_eq!(find(&audit, limited(0)).await.unwrap(), (every[..100].to_vec(), true));
    assert_eq!(find(&audit, limited(1000)).await.unwrap(), (every.clone(), false));
    let workload = "spiffe://shop.test/agent/a".to_owned();
    let about: Vec<u64> = every[3..].to_vec();
    for (asked, expected) in
        [(limited(170), every), (v1::QueryRequest { workload, ..limited(256) }, about)]
    {
        let (mut found, mut more) = (Vec::new(), true);
        while more {
            let after_seq = found.last().copied().unwrap_or_default();
            let page = v1::QueryRequest { after_seq, ..asked.clone() };
            let (page, rest) = find(&audit, page).await.unwrap();
            assert!(page.len() <= usize::try_from(asked.limit).unwrap());
            found.extend(page);
            more = rest;
        }
        assert_eq!(found, expected);
    }
}

/// From its first moment on, and before its last.
#[tokio::test]
async fn a_span_of_time_holds_what_lies_in_it_and_nothing_else() {
    let world = World::new().await;
    let record = world.long_record().await;
    let audit = Audit::new(world.broker.clone());
    let ms = |n: usize| render::ms(record[n].1.at);
    let last = record.len().checked_sub(1).unwrap();
    let token = |event: &Event| matches!(event, Event::TokenRecorded { .. });
    for (from, until) in [(0, last), (5, 5), (5, 6), (100, 500), (255, 257), (300, last), (last, 0)]
    {
        let asked = v1::QueryRequest { from_ms: ms(from), until_ms: ms(until), ..limited(1000) };
        let within = |at: Timestamp| (ms(from)..ms(until)).contains(&render::ms(at));
        let expected = record.iter().filter(|(_, entry)| within(entry.at));
        let seqs: Vec<u64> = expected.clone().map(|(head, _)| head.seq.0).collect();
        assert_eq!(find(&audit, asked.clone()).await.unwrap().0, seqs, "{from} {until}");
        let tokens = expected.filter(|(_, entry)| token(&entry.event));
        let tokens: Vec<u64> = tokens.map(|(head, _)| head.seq.0).collect();
        let kinds = vec!["token_recorded".to_owned()];
        let of_kind = v1::QueryRequest { kinds, ..asked.clone() };
        assert_eq!(find(&audit, of_kind).await.unwrap().0, tokens, "{from} {until}");
        // What it is about stands in an entry before the span.
        let workload = "spiffe://shop.test/agent/a".to_owned();
        let about: Vec<u64> = seqs.into_iter().filter(|seq| *seq > 3).collect();
        let by_workload = v1::QueryRequest { workload, ..asked };
        assert_eq!(find(&audit, by_workload).await.unwrap().0, about, "{from} {until}");
    }
}

#[tokio::test]
async fn a50_only_so_many_searches_run_at_once_and_one_that_nobody_reads_ends() {
    let world = World::new().await;
    world.long_record().await;
    let audit = Audit::new(world.broker.clone());
    let mut unread = Vec::new();
    for _ in 0..4 {
        unread.push(audit.query(Request::new(limited(1000))).await.unwrap());
    }
    let status = find(&audit, limited(1)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    unread.pop();
    let again = async {
        while find(&audit, limited(1)).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), again).await.unwrap();
}

/// Its room is wanted by others; and what came of it does not pass for all that there is.
#[tokio::test]
async fn a50_a_search_that_is_held_and_not_read_ends_without_its_end() {
    let world = World::new().await;
    world.long_record().await;
    let audit = Audit::new(world.broker.clone()).patient(Duration::from_millis(1));
    let mut unread = Vec::new();
    for _ in 0..4 {
        unread.push(audit.query(Request::new(limited(1000))).await.unwrap().into_inner());
    }
    let all_ended = async {
        while audit.searches.available_permits() < 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all_ended).await.unwrap();
    for told in unread {
        let told: Vec<_> = told.collect().await;
        let ended = |told: &Result<v1::QueryResponse, Status>| {
            matches!(told.as_ref().unwrap().message, Some(Message::End(_)))
        };
        assert!(!told.is_empty() && !told.iter().any(ended));
    }
}
