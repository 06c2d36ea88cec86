//! One entry of the record in one line for a person. Must never let what an entry holds end the
//! line, move the cursor or turn the direction of writing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use dayfly_agent::render::visible;
use dayfly_verifier::request::Request;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::uses::Seen;

use crate::core::event::{
    Actor, Answer, Decision, End, Entry, Event, Head, IdentityChange, Lock, Report, Target,
    TaskOutcome,
};
use crate::core::verdict::Refusal;

/// The place, the time, who, and what. Ids in full, so that they can be copied.
#[must_use]
pub(super) fn line(head: &Head, entry: &Entry) -> String {
    let Entry { by, at, policy: _, event } = entry;
    let mut line = format!("{:>6}  {at}  ", head.seq);
    let who = match by {
        Actor::Workload(id) | Actor::Gateway(id) | Actor::Broker(id) => id.to_string(),
        Actor::Person(name, _) => name.to_string(),
        Actor::Host => "host".into(),
    };
    // Writing to a string cannot fail.
    let _ = write!(line, "{who}  {}", what(event));
    visible(&line, false)
}

fn what(event: &Event) -> String {
    match event {
        Event::EpochOpened { epoch, parent: None, .. } => format!("opened the record {epoch}"),
        Event::EpochOpened { epoch, parent: Some(Head { seq, .. }), .. } => {
            format!("opened epoch {epoch} after entry {seq} of the one before")
        }
        Event::BundleApplied { bundle, signers, .. } => {
            format!("put bundle {bundle} into force (signatures: {})", signers.len())
        }
        Event::KeyAdded { key, not_after, .. } => {
            format!("listed token key {key}, good until {not_after}")
        }
        Event::KeyRetired { key } => format!("retired token key {key}"),
        Event::RequestFiled { request, .. } => {
            format!("asked for {}: {}", request.grant_id(), asked(request))
        }
        Event::RequestRefused { request, refusal, .. } => {
            let (id, why) = (request.grant_id(), because(refusal));
            format!("was refused {id}: {}; {why}", asked(request))
        }
        Event::RequirementChanged { grant, .. } => format!("{grant} needs other approvals now"),
        Event::DecisionRecorded { grant, decision } => decided(grant, decision),
        Event::DecisionWithdrawn { grant, person } => {
            format!("withdrew the approval of {person} on {grant}")
        }
        Event::Granted { grant, terms } => {
            let uses = terms.uses.map_or_else(String::new, |uses| format!(", {uses} uses"));
            format!("granted {grant} until {}{uses}", terms.until)
        }
        Event::TokenRecorded { claims, .. } => {
            let (token, grant, end) = (claims.token, claims.grant, claims.expires_at);
            format!("recorded token {token} of {grant}, good until {end}")
        }
        Event::ExchangeAnswered { grant, token, .. } => {
            format!("answered an exchange of {grant} with token {token}")
        }
        Event::UseRedeemed { grant, token, use_id } => {
            format!("redeemed use {use_id} of {grant} by token {token}")
        }
        Event::Ended { grant, end } => ended(grant, end),
        Event::IdentityChanged { id, change } => identity(id, *change),
        Event::Revoked { target, .. } => format!("revoked {}", revoked(target)),
        Event::UsesReported(report) => reported(report),
        Event::Locked { lock, until, .. } => {
            format!("set lock {} on {} until {until}", lock.id, locked(lock))
        }
        Event::Unlocked { lock } => format!("lifted lock {lock}"),
        Event::OptedOut { instance } => {
            format!("follows as {instance} without refusing when it hears nothing")
        }
        Event::SnapshotTaken(taken) => format!("kept a snapshot up to entry {}", taken.of.seq),
    }
}

fn asked(request: &Request) -> String {
    let rights: Vec<String> = request.scope.rights().map(ToString::to_string).collect();
    let limits: Vec<String> = request.scope.constraints().map(ToString::to_string).collect();
    let mut asked = rights.join(", ");
    if !limits.is_empty() {
        let _ = write!(asked, " where {}", limits.join(" and "));
    }
    let _ =
        write!(asked, " at {} for task {} ({})", request.audience, request.task, request.purpose);
    if let Some(principal) = &request.principal {
        let _ = write!(asked, " on behalf of {principal}");
    }
    asked
}

pub(super) fn because(refusal: &Refusal) -> String {
    format!("policy {}: {}", refusal.policy, refusal.reason)
}

fn decided(grant: &impl std::fmt::Display, decision: &Decision) -> String {
    let person = &decision.person;
    match &decision.answer {
        Answer::Approve(narrowing) if *narrowing == Default::default() => {
            format!("approval of {grant} by {person}")
        }
        Answer::Approve(_) => format!("approval of {grant} by {person}, narrowed"),
        Answer::Deny => format!("denial of {grant} by {person}"),
    }
}

pub(super) fn ended(grant: &impl std::fmt::Display, end: &End) -> String {
    match end {
        End::Cancelled => format!("cancelled {grant}"),
        End::Completed(TaskOutcome::Succeeded) => format!("completed {grant}"),
        End::Completed(TaskOutcome::Failed) => format!("completed {grant}: the task failed"),
        End::Drifted(refusal) => format!("{grant} drifted: {}", because(refusal)),
    }
}

/// `counted 14 uses, batch 3 of orders-1: 12 allowed, 2 refused: expired; 1 not told apart`.
fn reported(Report { batch, unplaced, digest: _ }: &Report) -> String {
    let mut by_outcome: BTreeMap<&Seen, u64> = BTreeMap::new();
    for (line, count) in &batch.counts {
        let sum = by_outcome.entry(&line.seen).or_default();
        *sum = sum.saturating_add(*count);
    }
    let outcomes: Vec<String> =
        by_outcome.iter().map(|(seen, count)| format!("{count} {seen}")).collect();
    let total = batch.total().saturating_add(*unplaced);
    let mut text = format!(
        "counted {total} uses, batch {} of {}: {}",
        batch.number,
        batch.instance,
        outcomes.join(", ")
    );
    let more = [(*unplaced, "of grants not known here"), (batch.missed, "not told apart")];
    for (count, what) in more.into_iter().filter(|(count, _)| *count > 0) {
        let _ = write!(text, "; {count} {what}");
    }
    text
}

fn identity(id: &SpiffeId, change: IdentityChange) -> String {
    match change {
        IdentityChange::Invited => format!("invited {id} to join"),
        IdentityChange::Joined { generation } => {
            format!("let {id} join, with its certificate {generation}")
        }
        IdentityChange::Locked => {
            format!("locked {id}: one of its certificates was renewed twice")
        }
    }
}

pub(super) fn revoked(target: &Target) -> String {
    match target {
        Target::Grant(grant) => format!("grant {grant}"),
        Target::Token(token) => format!("token {token}"),
        Target::Block(block) => format!("block {}", hex::encode(block)),
        Target::Delegate(grant, key) => format!("what {grant} delegated to {key}"),
        Target::Workload(id) => format!("all that {id} holds"),
        Target::Task(task) => format!("all that is held for task {task}"),
        Target::Prefix(resource) => format!("all that reaches {resource}"),
        Target::Key(key) => format!("all that token key {key} signed"),
    }
}

/// `task case:4711 and what reaches orders-db/prod`: what matches all of it is refused.
pub(super) fn locked(lock: &Lock) -> String {
    let Lock { id: _, workload, task, prefix, person } = lock;
    let parts = [
        workload.as_ref().map(|id| format!("workload {id}")),
        task.as_ref().map(|task| format!("task {task}")),
        prefix.as_ref().map(|prefix| format!("what reaches {prefix}")),
        person.as_ref().map(|name| format!("person {name}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "everything".into() } else { parts.join(" and ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{chain, samples};

    #[test]
    fn every_kind_of_entry_has_its_line() {
        let entries = samples::entries();
        let chained = chain(&Head::ORIGIN, &entries).unwrap();
        let lines = entries.iter().zip(&chained).map(|(entry, stored)| line(stored.head(), entry));
        insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn a43_what_an_entry_holds_stays_in_its_line() {
        let hostile = "a\nb\r\u{1b}[2J\u{202e}\u{2028}\0\u{85}\u{9b}x";
        let refusal = Refusal { policy: hostile.into(), reason: hostile.into() };
        let entry = |event| Entry { event, ..samples::opening() };
        let request = samples::request();
        let entries = [
            entry(Event::RequestRefused {
                request: request.clone(),
                justification: None,
                refusal: refusal.clone(),
            }),
            entry(Event::Ended { grant: request.grant_id(), end: End::Drifted(refusal) }),
        ];
        for entry in entries {
            let line = line(&Head::ORIGIN, &entry);
            assert!(line.contains("[2J"), "it is shown: {line}");
            let bad = |c: &char| c.is_control() || "\u{202e}\u{2028}".contains(*c);
            assert_eq!(line.chars().find(bad), None, "{line:?}");
        }
    }
}
