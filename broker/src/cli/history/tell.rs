//! One story, for people and for programs. Nothing that a workload or a person wrote may pass for
//! ours, move the cursor or turn the direction of writing.

use std::fmt::Write as _;
use std::time::Duration;

use dayfly_agent::render::{quoted, visible};
use dayfly_verifier::id::TextDigest;
use dayfly_verifier::request::{Answer, Narrowing, Request, Requirement};
use dayfly_verifier::resource::Operation;
use dayfly_verifier::scope::Scope;
use dayfly_verifier::time::Timestamp;
use serde_json::{Value as Json, json};

use super::Kept;
use crate::cli::audit_line::{because, ended, locked, revoked};
use crate::cli::console::{BAD, FAINT, GOOD, STRONG, WAITING, table};
use crate::cli::when::span;
use crate::core::event::{Decision, Terms};
use crate::record::story::{Last, Signature, Step, Story, What, actor};

/// The story in lines.
pub(super) fn text(story: &Story, kept: &Kept, now: Timestamp) -> String {
    let mut text = format!("{STRONG}grant {}{STRONG:#}\n", story.grant());
    for (name, value) in asked(story) {
        let _ = writeln!(text, "  {FAINT}{name:<10}{FAINT:#}{}", visible(&value, false));
    }
    text.push_str(&words(story, kept));
    let _ = writeln!(text, "\n{STRONG}what happened{STRONG:#}");
    for Step { seq, at, by, what } in &story.steps {
        let said = visible(&said(story, what), false);
        let by = visible(&actor(by), false);
        let _ =
            writeln!(text, "  {FAINT}{at}  entry {seq:<6}{FAINT:#} {}", sentence(what, &by, &said));
        if let What::Decided(_, signature) = what {
            let _ = writeln!(text, "{:44}{}", "", signed(signature));
        }
        if let Some(reason) = reason(what) {
            text.push_str(&quote("reason", &reason, kept));
        }
    }
    if !story.uses.is_empty() {
        let _ = writeln!(text, "\n{STRONG}what was done with it, as its gateway counted{STRONG:#}");
        let rows = story.uses.iter().map(|((operation, seen), count)| {
            let operation = operation.as_ref().map_or("another one", Operation::as_str);
            vec![format!("  {operation}"), seen.to_string(), count.to_string()]
        });
        text.push_str(&table(&["  operation", "outcome", "uses"], rows.collect()));
    }
    let _ = write!(text, "\n{}", end(story, now));
    text
}

/// Who asked for what, for whom and why.
fn asked(story: &Story) -> Vec<(&'static str, String)> {
    let Request { workload, principal, audience, task, purpose, holder_key, .. } = &story.request;
    let mut lines = vec![("asked by", workload.to_string())];
    lines.extend(principal.as_ref().map(|name| ("for", name.to_string())));
    lines.push(("at", format!("{} (entry {})", story.at, story.seq)));
    lines.extend(rights(&story.request.scope).into_iter().map(|right| ("to", right)));
    lines.push(("of", audience.to_string()));
    lines.push(("because", format!("purpose {purpose}, task {task}")));
    lines.push(("bound to", format!("key {holder_key}")));
    lines
}

fn rights(scope: &Scope) -> Vec<String> {
    let limits: Vec<String> = scope.constraints().map(ToString::to_string).collect();
    let limits =
        if limits.is_empty() { String::new() } else { format!(" if {}", limits.join(" and ")) };
    scope.rights().map(|right| format!("{right}{limits}")).collect()
}

/// The justification, as the words of the workload.
fn words(story: &Story, kept: &Kept) -> String {
    match &story.justification {
        None => "  the workload gave no reason in words of its own\n".to_owned(),
        Some(digest) => {
            let whose = "the workload's own words; nobody has checked them";
            quote(whose, digest, kept)
        }
    }
}

fn quote(what: &str, digest: &TextDigest, kept: &Kept) -> String {
    match kept.get(digest).and_then(Option::as_ref) {
        None => format!("  {what}: erased since\n"),
        Some(text) => match quoted(text) {
            Ok(quoted) => format!("  {what}:\n{quoted}"),
            Err(error) => format!("  {what}: {error}\n"),
        },
    }
}

/// The reason that was given for it, kept aside.
pub(super) const fn reason(what: &What) -> Option<TextDigest> {
    match what {
        What::Decided(decision, _) => decision.reason,
        What::Revoked(_, reason) | What::Locked(_, _, reason) => *reason,
        What::Demanded(_)
        | What::Refused(_)
        | What::Withdrawn(_)
        | What::Granted(_)
        | What::Token(_)
        | What::Answered(_)
        | What::Redeemed(..)
        | What::Ended(_)
        | What::Unlocked(_) => None,
    }
}

/// A sentence that says who did it, where that is not the broker on its own account.
fn sentence(what: &What, by: &str, said: &str) -> String {
    match what {
        What::Demanded(_) | What::Refused(_) | What::Granted(_) => said.to_owned(),
        What::Decided(decision, _) if decision.answer == Answer::Deny => {
            format!("{BAD}{by} {said}{BAD:#}")
        }
        What::Decided(..) => format!("{GOOD}{by} {said}{GOOD:#}"),
        What::Ended(_) | What::Revoked(..) | What::Locked(..) => {
            format!("{WAITING}{by} {said}{WAITING:#}")
        }
        What::Withdrawn(_)
        | What::Token(_)
        | What::Answered(_)
        | What::Redeemed(..)
        | What::Unlocked(_) => format!("{by} {said}"),
    }
}

fn said(story: &Story, what: &What) -> String {
    match what {
        What::Demanded(requirement) => format!("policy demands {}", demanded(requirement)),
        What::Refused(refusal) => format!("refused: {}", because(refusal)),
        What::Decided(decision, _) => decided(decision),
        What::Withdrawn(_) => "took the approval back".to_owned(),
        What::Granted(terms) => granted(terms),
        What::Token(claims) => {
            format!("exchanged it for token {}, good until {}", claims.token, claims.expires_at)
        }
        What::Answered(token) => format!("exchanged it again and got the same token {token}"),
        What::Redeemed(token, use_id) => format!("spent use {use_id} by token {token}"),
        What::Ended(end) => ended(&"it", end),
        What::Revoked(target, _) => {
            let whole = *target == crate::core::event::Target::Grant(story.grant());
            if whole { "revoked it".into() } else { format!("revoked {}", revoked(target)) }
        }
        What::Locked(lock, until, _) => {
            format!("set lock {} on {} until {until}", lock.id, locked(lock))
        }
        What::Unlocked(lock) => format!("lifted lock {lock}"),
    }
}

fn demanded(requirement: &Requirement) -> String {
    let Requirement { approvals, max_lifetime, max_uses, online, evidence, presence } = requirement;
    let groups: Vec<String> =
        approvals.iter().map(|(group, count)| format!("{group}: {count}")).collect();
    let mut said = match groups.as_slice() {
        [] => "nobody's approval".to_owned(),
        groups => format!("approvals of {}", groups.join(", ")),
    };
    let _ = write!(said, ", at most {}", span(*max_lifetime));
    if let Some(uses) = max_uses {
        let _ = write!(said, ", at most {uses} uses");
    }
    let flags = [
        (*online, "each use is asked about"),
        (*evidence, "evidence beside the token"),
        (*presence, "signatures with a touch"),
    ];
    for (_, flag) in flags.iter().filter(|(set, _)| *set) {
        let _ = write!(said, ", {flag}");
    }
    said
}

fn decided(decision: &Decision) -> String {
    let narrowing = match &decision.answer {
        Answer::Deny => return format!("denied it ({})", decision.at),
        Answer::Approve(narrowing) => narrowing,
    };
    let Narrowing { lifetime, uses, rights, constraints } = narrowing;
    let mut less = Vec::new();
    less.extend(lifetime.map(|lifetime| format!("at most {}", span(lifetime))));
    less.extend(uses.map(|uses| format!("at most {uses} uses")));
    less.extend(rights.iter().flatten().map(|right| format!("only {right}")));
    less.extend(constraints.iter().map(|limit| format!("only if {limit}")));
    let less = if less.is_empty() { String::new() } else { format!(", {}", less.join(", ")) };
    format!("approved it{less}")
}

fn granted(Terms { from, until, scope, uses, online: _ }: &Terms) -> String {
    let uses = uses.map_or_else(|| "any number of uses".to_owned(), |uses| format!("{uses} uses"));
    let life = Duration::from_millis(until.as_ms().saturating_sub(from.as_ms()));
    format!("granted for {}, {uses}: {}", span(life), rights(scope).join(", "))
}

fn signed(signature: &Signature) -> String {
    match signature {
        Signature::Good { fingerprint, presence } => {
            let touched = if *presence { ", touched for it" } else { "" };
            format!("{FAINT}signed with {fingerprint}{touched}; verified again just now{FAINT:#}")
        }
        Signature::Bad(why) => format!("{BAD}THE SIGNATURE DOES NOT HOLD: {why}{BAD:#}"),
        Signature::None => {
            format!("{FAINT}without a signature: a denial only takes away{FAINT:#}")
        }
    }
}

const fn ends(step: &Step) -> bool {
    matches!(step.what, What::Ended(_) | What::Revoked(..) | What::Refused(_) | What::Decided(..))
}

/// How it stands at `now`. That its time is over is nowhere written.
fn end(story: &Story, now: Timestamp) -> String {
    match story.last {
        Last::Pending(until) if now < until => {
            format!(
                "{WAITING}it waits for approval until {until}{}{WAITING:#}",
                under_lock(story, now)
            )
        }
        Last::Pending(until) => format!("nobody granted it in time: it expired at {until}"),
        Last::Granted(until) if now < until => {
            format!("{GOOD}it is live until {until}{}{GOOD:#}", under_lock(story, now))
        }
        Last::Granted(until) => format!("its lease ended by itself at {until}"),
        Last::Over(at) => match story.steps.iter().rev().find(|step| step.at == at && ends(step)) {
            Some(Step { by, what, .. }) => {
                let (by, said) = (visible(&actor(by), false), visible(&said(story, what), false));
                format!("it is over since {at}: {}", sentence(what, &by, &said))
            }
            None => format!("it is over since {at}"),
        },
    }
}

fn under_lock(story: &Story, now: Timestamp) -> String {
    let until = story.locked_until(now);
    until.map(|until| format!("; a lock refuses it until {until}")).unwrap_or_default()
}

/// The story for programs.
pub(super) fn json(story: &Story, kept: &Kept, now: Timestamp) -> Json {
    let Request { workload, principal, audience, task, purpose, scope, holder_key, .. } =
        &story.request;
    let text = |digest: &TextDigest| kept.get(digest).cloned().flatten();
    let steps = story.steps.iter().map(|Step { seq, at, by, what }| {
        let mut step = json!({
            "seq": seq.0, "at": at.to_string(), "by": actor(by), "what": said(story, what),
        });
        if let (What::Decided(_, signature), Some(step)) = (what, step.as_object_mut()) {
            step.insert("signature".into(), signature_json(signature));
        }
        if let (Some(reason), Some(step)) = (reason(what), step.as_object_mut()) {
            step.insert("reason".into(), text(&reason).into());
        }
        step
    });
    let uses = story.uses.iter().map(|((operation, seen), count)| {
        let operation = operation.as_ref().map(Operation::as_str);
        json!({ "operation": operation, "outcome": seen.to_string(), "count": count })
    });
    let plain = |end: String| anstream::adapter::strip_str(&end).to_string();
    json!({
        "grant_id": story.grant().to_string(), "seq": story.seq.0, "at": story.at.to_string(),
        "workload": workload.as_str(), "principal": principal.as_ref().map(|name| name.as_str()),
        "audience": audience.as_str(), "task": task.as_str(), "purpose": purpose.as_str(),
        "rights": rights(scope), "holder_key": holder_key.to_string(),
        "justification": story.justification.as_ref().and_then(text),
        "justification_erased": story.justification.as_ref().is_some_and(|d| text(d).is_none()),
        "steps": steps.collect::<Vec<_>>(), "uses": uses.collect::<Vec<_>>(),
        "end": plain(end(story, now)),
    })
}

fn signature_json(signature: &Signature) -> Json {
    match signature {
        Signature::Good { fingerprint, presence } => {
            json!({ "holds": true, "key": fingerprint, "presence": presence })
        }
        Signature::Bad(why) => json!({ "holds": false, "why": why }),
        Signature::None => Json::Null,
    }
}
