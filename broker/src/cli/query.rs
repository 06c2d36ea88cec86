//! `audit query`: the entries about something, in order, page by page.

use clap::Args;
use dayfly_agent::session::OpenError;
use dayfly_proto::v1;
use dayfly_proto::v1::audit_service_client::AuditServiceClient;
use dayfly_proto::v1::query_response::Message;
use dayfly_verifier::id::{GrantId, PersonId, TaskId};
use dayfly_verifier::resource::Resource;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;
use tonic::transport::Channel;

use super::Context;
use super::audit::{read, show};
use super::exit::{Exit, Refused};
use super::when::moment;
use crate::core::event::{Entry, Head};
use crate::journal::{KINDS, decode};

/// The most entries that are asked for at once.
const PAGE: u32 = 1000;

/// Find the entries about something. Everything that is named must hold.
///
/// The broker reads every entry of the span of time for it (about a second for a hundred thousand
/// of them): name a span where the record is long. `history` tells one request in plain words. The
/// revocation of a single block is about no grant, task or workload: `--kind revoked` finds it.
#[derive(Debug, Args)]
pub(super) struct Query {
    /// About this request or grant.
    #[arg(long, value_name = "ID")]
    grant: Option<GrantId>,
    /// About requests for this task.
    #[arg(long, value_name = "TASK")]
    task: Option<TaskId>,
    /// About requests of this workload.
    #[arg(long, value_name = "SPIFFE_ID")]
    workload: Option<SpiffeId>,
    /// By this person, a decision of theirs, or about what was asked on their behalf.
    #[arg(long, value_name = "NAME")]
    person: Option<PersonId>,
    /// About requests whose rights reach this resource or something below it.
    #[arg(long, value_name = "RESOURCE")]
    resource: Option<Resource>,
    /// From this time on: `2026-01-31T09:00:00Z`, or how long ago, as `15m`, `8h`, `7d`.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Before this time.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// Of this kind, as it stands in the entries; can be repeated.
    #[arg(long = "kind", value_name = "KIND", value_parser = KINDS)]
    kinds: Vec<String>,
    /// After this place: where the page before ended.
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    after: u64,
    /// Show so many.
    #[arg(long, value_name = "COUNT", default_value_t = 100, conflicts_with = "all")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Show all of them.
    #[arg(long)]
    all: bool,
}

impl Query {
    /// Runs the verb.
    pub(super) async fn run(self, context: &Context) -> Result<(), Refused> {
        let text = |value: Option<String>| value.unwrap_or_default();
        let ms = |time: Option<Timestamp>| {
            time.map_or(0, |time| i64::try_from(time.as_ms()).unwrap_or(i64::MAX))
        };
        let mut request = v1::QueryRequest {
            grant_id: text(self.grant.map(|id| id.to_string())),
            task: text(self.task.map(|id| id.to_string())),
            workload: text(self.workload.map(|id| id.to_string())),
            person: text(self.person.map(|id| id.to_string())),
            resource: text(self.resource.map(|resource| resource.to_string())),
            from_ms: ms(self.since),
            until_ms: ms(self.until),
            kinds: self.kinds,
            after_seq: self.after,
            limit: if self.all { PAGE } else { self.limit },
        };
        let mut client = AuditServiceClient::new(context.session().await?.channel());
        let mut any = false;
        loop {
            let page = page(context, &mut client, request.clone()).await?;
            any |= !page.found.is_empty();
            show(context, &page.found);
            match page.next {
                None => break,
                Some(_) if context.console.is_unread() => break,
                Some(next) if self.all => request.after_seq = next,
                Some(next) => {
                    context.console.aside(&format!("there may be more: add --after {next}"));
                    break;
                }
            }
        }
        if !any {
            context.console.aside("no entry is about that");
        }
        Ok(())
    }
}

/// What one query found.
pub(super) struct Page {
    /// As the broker sent them: their chain is not checked.
    pub(super) found: Vec<(Head, std::sync::Arc<[u8]>)>,
    /// After which place to go on, if there may be more.
    pub(super) next: Option<u64>,
}

/// Asks for one page.
pub(super) async fn page(
    context: &Context,
    client: &mut AuditServiceClient<Channel>,
    request: v1::QueryRequest,
) -> Result<Page, Refused> {
    let failed = |status| context.refused(OpenError::from_status(status));
    let mut stream = client.query(request).await.map_err(failed)?.into_inner();
    let mut found = Vec::new();
    while let Some(told) = stream.message().await.map_err(failed)? {
        match told.message {
            Some(Message::Found(entry)) => found.push(read(entry)?),
            Some(Message::End(v1::QueryEnd { looked_to_seq, more })) => {
                return Ok(Page { found, next: more.then_some(looked_to_seq) });
            }
            None => {}
        }
    }
    let error = anyhow::anyhow!("the broker ended its answer before it was whole");
    Err(Refused::new(Exit::Unavailable, error))
}

/// All that one query finds, page by page, read. What this version cannot read refuses.
pub(super) async fn all(
    context: &Context,
    client: &mut AuditServiceClient<Channel>,
    mut request: v1::QueryRequest,
) -> Result<Vec<(Head, Entry)>, Refused> {
    request.limit = PAGE;
    let mut entries = Vec::new();
    loop {
        let page = page(context, client, request.clone()).await?;
        for (head, bytes) in page.found {
            let entry = decode(head.seq, &bytes).map_err(|e| Refused::new(Exit::Failed, e))?;
            entries.push((head, entry));
        }
        match page.next {
            Some(next) => request.after_seq = next,
            None => return Ok(entries),
        }
    }
}
