//! What a bundle said before, by all that its policies could have read. A bundle never changes, so
//! the same question has the same answer; it is asked again only where a part of the question that
//! some policy reads is another.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dayfly_verifier::id::{PersonId, Purpose, TaskId};
use dayfly_verifier::scope::Scope;
use dayfly_verifier::spiffe::SpiffeId;
use dayfly_verifier::time::Timestamp;

use super::evaluate::Question;
use crate::core::verdict::{Holdings, Outcome};

/// The most answers that are kept; beyond it all are forgotten.
const MAX_KEPT: usize = 4096;

/// Answers of one bundle.
#[derive(Debug, Default)]
pub(super) struct Memo {
    reads: Reads,
    kept: Mutex<HashMap<Key, Outcome>>,
}

/// Which parts of the context the policies may read. The others are always told from one question
/// to the next by what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reads {
    now: bool,
    held: bool,
    task: bool,
}

impl Default for Reads {
    fn default() -> Self {
        Self { now: true, held: true, task: true }
    }
}

/// All that an answer may depend on.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    workload: SpiffeId,
    principal: Option<PersonId>,
    audience: SpiffeId,
    scope: Scope,
    task: Option<TaskId>,
    purpose: Purpose,
    lifetime: Option<Duration>,
    default_lease: Duration,
    uses: Option<NonZeroU32>,
    exactly: bool,
    now: Option<Timestamp>,
    holdings: Option<Holdings>,
}

impl Reads {
    /// By the text of the policies: a part whose name stands nowhere in it is not read, nor is any
    /// where the context as a whole is not, which is every place where no `.` or `has` follows it.
    pub(super) fn of(policies: &str) -> Self {
        let parts = policies.replace("context.", "").replace("context has ", "");
        let whole = parts.contains("context") || policies.contains('\\');
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let names = policies.split(|c| !is_of_name(c));
        let reads = |name| whole || names.clone().any(|other| other == name);
        Self { now: reads("now"), held: reads("held"), task: reads("task") }
    }
}

impl Memo {
    /// For policies that read no more than this.
    pub(super) fn new(reads: Reads) -> Self {
        Self { reads, kept: Mutex::default() }
    }

    /// The answer that was kept, or the one that `ask` gives.
    pub(super) fn answer(
        &self,
        question: &Question<'_>,
        holdings: Holdings,
        ask: impl FnOnce() -> Outcome,
    ) -> Outcome {
        let key = self.key(question, holdings);
        if let Some(kept) = self.kept(|kept| kept.get(&key).cloned()) {
            return kept;
        }
        let outcome = ask();
        self.kept(|kept| {
            if kept.len() >= MAX_KEPT {
                kept.clear();
            }
            kept.insert(key, outcome.clone());
        });
        outcome
    }

    fn key(&self, question: &Question<'_>, holdings: Holdings) -> Key {
        let Question { workload, principal, audience, scope, task, purpose, .. } = *question;
        let Question { lifetime, default_lease, uses, exactly, now, .. } = *question;
        Key {
            workload: workload.clone(),
            principal: principal.cloned(),
            audience: audience.clone(),
            scope: scope.clone(),
            task: self.reads.task.then(|| task.clone()),
            purpose: purpose.clone(),
            lifetime,
            default_lease,
            uses,
            exactly,
            now: self.reads.now.then_some(now),
            holdings: self.reads.held.then_some(holdings),
        }
    }

    /// A panic of another holder cannot leave half an answer.
    fn kept<T>(&self, with: impl FnOnce(&mut HashMap<Key, Outcome>) -> T) -> T {
        with(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_policies_may_read_is_never_taken_for_unread() {
        let reads = |text: &str| {
            let Reads { now, held, task } = Reads::of(text);
            [now, held, task]
        };
        assert_eq!(reads("permit (principal, action, resource);"), [false; 3]);
        assert_eq!(reads("when { context.lifetime < 5 && context has uses }"), [false; 3]);
        assert_eq!(reads("when { context.now.minute_of_day < 5 }"), [true, false, false]);
        assert_eq!(reads("when { context has held && true }"), [false, true, false]);
        assert_eq!(reads("@reason(\"not known, not upheld\") permit (p, a, r);"), [false; 3]);
        assert_eq!(reads("when { context[\"task\"] == \"t\" }"), [true; 3]);
        for whole in [
            "when { context == {a: 1} }",
            "when { [context].contains(context) }",
            "when { context\n.purpose == \"p\" }",
            "when { context  has uses }",
            "when { principal has \"n\\u{6f}w\" }",
        ] {
            assert_eq!(reads(whole), [true; 3], "{whole}");
        }
    }
}
