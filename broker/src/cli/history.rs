//! `history`: what became of requests, in plain words, told from the record and verified again.

mod tell;

use std::collections::BTreeMap;

use clap::Args;
use dayfly_agent::session::OpenError;
use dayfly_proto::v1;
use dayfly_proto::v1::audit_service_client::AuditServiceClient;
use dayfly_verifier::id::{GrantId, TaskId, TextDigest};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::{Clock as _, SystemClock};
use serde_json::Value as Json;
use tonic::Code;
use tonic::transport::Channel;

use super::exit::{Exit, Refused};
use super::{Context, block_on, query};
use crate::core::event::{Entry, Event, Head};
use crate::journal::FreeText;
use crate::record::story::{Directories, Story};

/// Tell what became of a request, or of all requests for a task or of a workload: who asked for
/// what and why, who approved it with which signature, what came of it, and how it ended.
///
/// It is told from the record. Signatures are verified again, on this machine. The revocation of a
/// single block (`revoke --block`) is not told: the record does not say of which token it was.
#[derive(Debug, Args)]
pub struct History {
    /// The id of a request or grant, a task, or the SPIFFE ID of a workload.
    #[arg(value_name = "GRANT|TASK|WORKLOAD", value_parser = about)]
    about: About,
    /// Tell no more than so many requests, the latest ones.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

#[derive(Debug, Clone)]
enum About {
    Grant(GrantId),
    Task(TaskId),
    Workload(SpiffeId),
}

/// What is left of the texts that entries name.
type Kept = BTreeMap<TextDigest, Option<String>>;

fn about(text: &str) -> Result<About, String> {
    if text.starts_with("spiffe:") {
        return text.parse().map(About::Workload).map_err(|error| format!("{error}"));
    }
    match text.parse() {
        Ok(grant) => Ok(About::Grant(grant)),
        Err(_) => text.parse().map(About::Task).map_err(|error| format!("{error}")),
    }
}

impl History {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { about, limit } = self;
        block_on(async {
            let mut client = AuditServiceClient::new(context.session().await?.channel());
            let mut request = v1::QueryRequest::default();
            match about {
                About::Grant(grant) => request.grant_id = grant.to_string(),
                About::Task(task) => request.task = task.to_string(),
                About::Workload(workload) => request.workload = workload.to_string(),
            }
            let entries = query::all(context, &mut client, request).await?;
            let directories = directories(context, &mut client).await?;
            let (stories, earlier) = Story::latest(&entries, &directories, limit.into());
            if stories.is_empty() {
                let error = anyhow::anyhow!("the record tells of no such request");
                let next = "see `dayfly grants --all`, or `dayfly audit query --help`";
                return Err(Refused::new(Exit::Denied, error).next(next));
            }
            let kept = texts(context, &mut client, &stories).await?;
            let now = SystemClock.now();
            let told = || {
                let told = stories.iter().map(|story| tell::text(story, &kept, now));
                told.collect::<Vec<_>>().join("\n\n")
            };
            let json = || stories.iter().map(|story| tell::json(story, &kept, now)).collect();
            context.console.result(told, || Json::Array(json()));
            if earlier > 0 {
                context.console.aside(&format!("{earlier} earlier ones are left out: add --limit"));
            }
            match stories.iter().all(Story::holds) {
                true => Ok(()),
                false => {
                    let error = anyhow::anyhow!("a signature in the record does not hold");
                    Err(Refused::new(Exit::Failed, error).next("run `dayfly audit verify`"))
                }
            }
        })
    }
}

/// Who was who, as the entries say that put bundles into force.
async fn directories(
    context: &Context,
    client: &mut AuditServiceClient<Channel>,
) -> Result<Directories, Refused> {
    let kinds = vec!["bundle_applied".to_owned()];
    let request = v1::QueryRequest { kinds, ..v1::QueryRequest::default() };
    let applied = query::all(context, client, request).await?;
    let directory = |(_, entry): (Head, Entry)| {
        let Event::BundleApplied { bundle, directory, .. } = entry.event else { return None };
        Some((bundle, directory))
    };
    Ok(applied.into_iter().filter_map(directory).collect())
}

/// The texts that `stories` name, each held against its digest; `None` where it was erased.
async fn texts(
    context: &Context,
    client: &mut AuditServiceClient<Channel>,
    stories: &[Story],
) -> Result<Kept, Refused> {
    let of = |story: &Story| {
        let reasons = story.steps.iter().filter_map(|step| tell::reason(&step.what));
        reasons.chain(story.justification).collect::<Vec<_>>()
    };
    let mut kept = Kept::new();
    for digest in stories.iter().flat_map(of) {
        let asked = v1::GetTextRequest { digest: digest.to_string() };
        let text = match client.get_text(asked).await {
            Ok(answer) => Some(matching(&digest, answer.into_inner())?),
            Err(status) if status.code() == Code::NotFound => None,
            Err(status) => return Err(context.refused(OpenError::from_status(status))),
        };
        kept.insert(digest, text);
    }
    Ok(kept)
}

/// The text of an answer, which must be the one that the record names.
fn matching(digest: &TextDigest, answer: v1::GetTextResponse) -> Result<String, Refused> {
    let v1::GetTextResponse { text, salt } = answer;
    let salt = <[u8; 16]>::try_from(salt.as_ref()).unwrap_or_default();
    match FreeText::new(text, salt) {
        Ok(text) if text.digest() == *digest => Ok(text.body().to_owned()),
        Ok(_) | Err(_) => {
            let error = anyhow::anyhow!("the broker shows another text than the record names");
            Err(Refused::new(Exit::Failed, error))
        }
    }
}
