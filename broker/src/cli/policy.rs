//! Policy bundles: check one, ask one, put one into force.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use dayfly_proto::v1::operator_service_client::OperatorServiceClient;
use dayfly_proto::v1::{ApplyBundleRequest, ApplyBundleResponse, BundleFile, DriftedGrant};
use dayfly_verifier::id::{PersonId, Purpose, TaskId};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::request::Requirement;
use dayfly_verifier::scope::{Constraint, Right, Scope};
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::{Clock as _, SystemClock};
use serde_json::{Value as Json, json};

use super::console::{BAD, GOOD, WAITING, table};
use super::exit::{Exit, Refused};
use super::number::count;
use super::operate::seq_of;
use super::request::span;
use super::{Context, block_on};
use crate::core::verdict::{Basis, Holdings, Outcome, Refusal};
use crate::policy::bundle::Bundle;
use crate::policy::evaluate::{Finding, Question, default_uses, evaluate, examine};
use crate::policy::files::BundleFiles;
use crate::policy::requirement::DEFAULT_LEASE;

/// Check, ask and apply policy bundles.
#[derive(Debug, Args)]
pub struct Policy {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Check(Check),
    Explain(Box<Explain>),
    Apply(Apply),
}

/// Check a bundle whole, and say all that is wrong with it: file, place, rule.
#[derive(Debug, Args)]
struct Check {
    /// The directory with the bundle.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Say what a bundle would answer to a request, and which policies say so.
///
/// Reads the bundle alone: no broker is asked, and nothing is held live. Exits 0 if the request
/// would be permitted, after the approvals that it names, and 11 if it would be refused.
#[derive(Debug, Args)]
struct Explain {
    /// The directory with the bundle.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Who asks: a SPIFFE ID.
    #[arg(long, value_name = "SPIFFE_ID")]
    workload: SpiffeId,
    /// A right, as in 'refund orders/prod/o-17' or 'read orders/staging/**'; may be repeated.
    #[arg(long = "allow", value_name = "RIGHT", required = true)]
    rights: Vec<Right>,
    /// A constraint, as in 'amount <= 500' or 'order_id = "o-17"'; may be repeated.
    #[arg(long = "where", value_name = "CONSTRAINT")]
    constraints: Vec<Constraint>,
    /// Why; the one purpose of the bundle if it has but one.
    #[arg(long, value_name = "NAME")]
    purpose: Option<Purpose>,
    /// For which gateway; the one that guards the first right if none is named.
    #[arg(long = "for", value_name = "SPIFFE_ID")]
    audience: Option<SpiffeId>,
    /// On whose behalf.
    #[arg(long, value_name = "PERSON")]
    principal: Option<PersonId>,
    /// For which task.
    #[arg(long, value_name = "ID", default_value = "explain")]
    task: TaskId,
    /// The lease, like 90s, 10m or 1h.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    ttl: Option<Duration>,
    /// The number of uses.
    #[arg(long, value_name = "N", value_parser = count)]
    uses: Option<NonZeroU32>,
}

/// Put a bundle into force at the broker. Grants that it would not give end at once.
#[derive(Debug, Args)]
struct Apply {
    /// The directory with the bundle.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Only say which requests and grants it would end.
    #[arg(long)]
    dry_run: bool,
}

impl Policy {
    /// Runs the verb.
    pub fn run(self, context: &Context) -> Result<(), Refused> {
        match self.verb {
            Verb::Check(check) => check.run(context),
            Verb::Explain(explain) => explain.run(context),
            Verb::Apply(apply) => block_on(apply.run(context)),
        }
    }
}

/// Refuses what is no directory, before each file of it is found to be missing.
pub(super) fn must_be_directory(dir: &Path) -> Result<(), Refused> {
    if dir.is_dir() {
        return Ok(());
    }
    let error = anyhow::anyhow!("there is no directory `{}`", dir.display());
    Err(Refused::new(Exit::Config, error).next("name the directory that holds policy.cedar"))
}

/// Reads and checks the bundle; shows all that is wrong with it.
fn load(context: &Context, dir: &Path) -> Result<(BundleFiles, Bundle), Refused> {
    must_be_directory(dir)?;
    let loaded =
        BundleFiles::read(dir).and_then(|files| Bundle::load(&files).map(|bundle| (files, bundle)));
    loaded.map_err(|problems| {
        let rows = |Invalid { field, rule }: &Invalid| vec![field.to_string(), rule.to_string()];
        let json = |Invalid { field, rule }: &Invalid| json!({ "place": field, "rule": rule });
        context.console.table(
            &["place", "rule"],
            problems.iter().map(rows).collect(),
            || json!({ "problems": problems.iter().map(json).collect::<Vec<_>>() }),
        );
        let count = problems.len();
        let error = anyhow::anyhow!("the bundle has {count} problem(s)");
        Refused::new(Exit::Config, error).next("mend what stands above, then check it again")
    })
}

impl Check {
    fn run(self, context: &Context) -> Result<(), Refused> {
        let (_, bundle) = load(context, &self.dir)?;
        let (digest, directory) = (bundle.digest(), bundle.directory());
        let (people, gateways) = (directory.people.len(), directory.gateways.len());
        let text = || format!("{GOOD}good{GOOD:#}  {digest}\npeople {people}, gateways {gateways}");
        let json = || json!({ "digest": digest.to_string(), "problems": [] });
        context.console.result(text, json);
        Ok(())
    }
}

impl Explain {
    fn run(self, context: &Context) -> Result<(), Refused> {
        let (_, bundle) = load(context, &self.dir)?;
        let usage = |error: Invalid| Refused::new(Exit::Usage, error);
        let scope = Scope::new(self.rights.clone(), self.constraints).map_err(usage)?;
        let purpose = match self.purpose {
            Some(purpose) => purpose,
            None => only_purpose(&bundle)?,
        };
        let guard = self.rights.first().and_then(|right| bundle.guard(&right.resource));
        let audience = self.audience.as_ref().or(guard).ok_or_else(|| {
            Refused::new(Exit::Denied, anyhow::anyhow!("no gateway guards the first resource"))
        })?;
        let question = Question {
            workload: &self.workload,
            principal: self.principal.as_ref(),
            audience,
            scope: &scope,
            task: &self.task,
            purpose: &purpose,
            lifetime: self.ttl,
            uses: self.uses.or_else(|| default_uses(&bundle, &scope)),
            default_lease: DEFAULT_LEASE,
            exactly: true,
            now: SystemClock.now(),
        };
        let holdings = Holdings::default();
        let findings = examine(&bundle, &question, holdings).unwrap_or_default();
        let bundle_digest = bundle.digest();
        let basis = Basis { bundle: bundle_digest, environment: 0, holdings, granted: false };
        let verdict = evaluate(&bundle, &question, basis);
        show(context, &findings, &verdict.outcome);
        match verdict.outcome {
            Outcome::Permitted(_) => Ok(()),
            Outcome::Refused(Refusal { policy, reason }) => {
                let error = anyhow::anyhow!("policy `{policy}` refuses: {reason}");
                Err(Refused::new(Exit::Denied, error))
            }
        }
    }
}

fn only_purpose(bundle: &Bundle) -> Result<Purpose, Refused> {
    let mut purposes = bundle.purposes();
    match (purposes.next(), purposes.next()) {
        (Some(only), None) => Ok(only.clone()),
        _ => {
            let all: Vec<_> = bundle.purposes().map(Purpose::as_str).collect();
            let error = anyhow::anyhow!("--purpose must be one of {}", all.join(", "));
            Err(Refused::new(Exit::Usage, error))
        }
    }
}

fn show(context: &Context, findings: &[Finding], outcome: &Outcome) {
    let row = |finding: &Finding| {
        let Finding { operation, resource, policies, outcome } = finding;
        let policies = if policies.is_empty() { "-".to_owned() } else { policies.join(", ") };
        vec![operation.to_string(), resource.clone(), policies, sentence(outcome)]
    };
    let text = || {
        let rows = findings.iter().map(row).collect();
        let points = table(&["operation", "resource", "policies", "answer"], rows);
        let (style, word) = match outcome {
            Outcome::Permitted(needs) if needs.approvals.is_empty() => (GOOD, "granted at once"),
            Outcome::Permitted(_) => (WAITING, "needs approval"),
            Outcome::Refused(_) => (BAD, "refused"),
        };
        format!("{points}\n{style}{word}{style:#}  {}", sentence(outcome))
    };
    context.console.result(text, || {
        let points = findings.iter().map(|finding| {
            json!({
                "operation": finding.operation.as_str(),
                "resource": finding.resource,
                "policies": finding.policies,
                "answer": outcome_json(&finding.outcome),
            })
        });
        json!({ "answer": outcome_json(outcome), "points": points.collect::<Vec<_>>() })
    });
}

fn sentence(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Refused(Refusal { policy, reason }) => format!("{policy}: {reason}"),
        Outcome::Permitted(requirement) => {
            let Requirement { approvals, max_lifetime, max_uses, online, .. } = requirement;
            let approvals: Vec<_> =
                approvals.iter().map(|(group, people)| format!("{group}:{people}")).collect();
            let approvals =
                if approvals.is_empty() { "nobody".to_owned() } else { approvals.join(", ") };
            let uses =
                max_uses.map_or("any number of".to_owned(), |uses| format!("at most {uses}"));
            let each = if *online { ", each evaluated" } else { "" };
            format!("by {approvals}; at most {} s; {uses} uses{each}", max_lifetime.as_secs())
        }
    }
}

fn outcome_json(outcome: &Outcome) -> Json {
    match outcome {
        Outcome::Refused(Refusal { policy, reason }) => {
            json!({ "permitted": false, "policy": policy, "reason": reason })
        }
        Outcome::Permitted(requirement) => {
            let Requirement { approvals, max_lifetime, max_uses, online, .. } = requirement;
            let approvals: serde_json::Map<_, _> = approvals
                .iter()
                .map(|(group, people)| (group.to_string(), people.get().into()))
                .collect();
            json!({
                "permitted": true,
                "approvals": approvals,
                "max_lifetime_seconds": max_lifetime.as_secs(),
                "max_uses": max_uses.map(NonZeroU32::get),
                "online": online,
            })
        }
    }
}

impl Apply {
    async fn run(self, context: &Context) -> Result<(), Refused> {
        let Self { dir, dry_run } = self;
        let (files, bundle) = load(context, &dir)?;
        let session = context.session().await?;
        let files = files.iter().map(|(name, content)| BundleFile {
            name: name.to_owned(),
            content: content.to_vec().into(),
        });
        let request =
            ApplyBundleRequest { files: files.collect(), signatures: Vec::new(), dry_run };
        let mut client = OperatorServiceClient::new(session.channel())
            .max_decoding_message_size(dayfly_agent::session::MAX_ANSWER_BYTES);
        let answer = client.apply_bundle(request).await;
        let answer = answer.map_err(|status| context.status(status))?;
        let ApplyBundleResponse { bundle_digest, head, drifted } = answer.into_inner();
        if bundle_digest != bundle.digest().to_string() {
            let error = anyhow::anyhow!("the broker speaks of another bundle: {bundle_digest}");
            return Err(Refused::new(Exit::Failed, error));
        }
        let seq = seq_of(head)?;
        let row =
            |one: &DriftedGrant| vec![one.grant_id.clone(), one.policy.clone(), one.reason.clone()];
        let text = || {
            let done = if dry_run { "would be applied" } else { "applied" };
            let ends = if dry_run { "would end" } else { "ended" };
            let rows = drifted.iter().map(row).collect();
            let count = drifted.len();
            let rows =
                if count == 0 { String::new() } else { table(&["id", "policy", "reason"], rows) };
            format!(
                "{done}: {bundle_digest} (at {seq}); {count} request(s) or grant(s) {ends}\n{rows}"
            )
        };
        context.console.result(text, || {
            let json = |one: &DriftedGrant| {
                json!({ "id": one.grant_id, "policy": one.policy, "reason": one.reason })
            };
            json!({
                "digest": bundle_digest, "seq": seq, "applied": !dry_run,
                "ended": drifted.iter().map(json).collect::<Vec<_>>(),
            })
        });
        Ok(())
    }
}
