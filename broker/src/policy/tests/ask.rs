//! Questions in words, and their answers.

use std::num::NonZeroU32;
use std::time::Duration;

use dayfly_verifier::id::BundleDigest;
use dayfly_verifier::request::Requirement;
use dayfly_verifier::scope::Scope;
use dayfly_verifier::time::Timestamp;

use super::Bundle;
use crate::core::verdict::{Basis, Holdings, Outcome, Refusal};
use crate::policy::evaluate::{Question, evaluate};

/// A question in words.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) workload: String,
    pub(super) principal: Option<&'static str>,
    pub(super) audience: String,
    pub(super) rights: Vec<String>,
    pub(super) constraints: Vec<String>,
    pub(super) task: &'static str,
    pub(super) purpose: &'static str,
    pub(super) lifetime: Option<u64>,
    pub(super) uses: Option<NonZeroU32>,
    pub(super) now_ms: u64,
    pub(super) held: Holdings,
}

impl Ask {
    fn new(domain: &str, gateway: &str, purpose: &'static str, rights: &[&str]) -> Self {
        Self {
            workload: format!("spiffe://{domain}/agent/a"),
            principal: None,
            audience: format!("spiffe://{domain}/gateway/{gateway}"),
            rights: rights.iter().map(|right| (*right).to_owned()).collect(),
            constraints: Vec::new(),
            task: "task-1",
            purpose,
            lifetime: None,
            uses: None,
            now_ms: 0,
            held: Holdings::default(),
        }
    }

    pub(super) fn shop(rights: &[&str]) -> Self {
        Self::new("shop.test", "orders", "customer-support", rights)
    }

    pub(super) fn files(rights: &[&str]) -> Self {
        Self::new("example.test", "files", "work", rights)
    }

    pub(super) fn wher(mut self, constraints: &[&str]) -> Self {
        self.constraints = constraints.iter().map(|one| (*one).to_owned()).collect();
        self
    }

    pub(super) fn with<T>(&self, ask: impl FnOnce(&Question<'_>, Holdings) -> T) -> T {
        let rights = self.rights.iter().map(|right| right.parse().unwrap());
        let constraints = self.constraints.iter().map(|one| one.parse().unwrap());
        let principal = self.principal.map(|name| name.parse().unwrap());
        let question = Question {
            workload: &self.workload.parse().unwrap(),
            principal: principal.as_ref(),
            audience: &self.audience.parse().unwrap(),
            scope: &Scope::new(rights, constraints).unwrap(),
            task: &self.task.parse().unwrap(),
            purpose: &self.purpose.parse().unwrap(),
            lifetime: self.lifetime.map(Duration::from_secs),
            default_lease: Duration::from_secs(300),
            uses: self.uses,
            exactly: true,
            now: Timestamp::from_ms(self.now_ms).unwrap(),
        };
        ask(&question, self.held)
    }

    pub(super) fn outcome(&self, bundle: &Bundle) -> Outcome {
        self.with(|question, held| {
            let verdict = evaluate(bundle, question, basis(held));
            assert_eq!(verdict.basis.bundle, bundle.digest());
            assert_eq!((verdict.basis.environment, verdict.basis.holdings), (7, held));
            verdict.outcome
        })
    }

    pub(super) fn permitted(&self, bundle: &Bundle) -> Requirement {
        match self.outcome(bundle) {
            Outcome::Permitted(requirement) => requirement,
            Outcome::Refused(refusal) => panic!("refused: {refusal:?}"),
        }
    }

    /// The policy that refuses, and why.
    pub(super) fn refused(&self, bundle: &Bundle) -> (String, String) {
        match self.outcome(bundle) {
            Outcome::Permitted(requirement) => panic!("permitted: {requirement:?}"),
            Outcome::Refused(Refusal { policy, reason }) => (policy, reason),
        }
    }
}

/// What is asked on: another bundle is in force than the one that is asked.
pub(super) fn basis(holdings: Holdings) -> Basis {
    Basis { bundle: BundleDigest::new([9; 32]), environment: 7, holdings, granted: false }
}

pub(super) fn demands(approvals: &[(&str, u32)], lease: u64, uses: Option<u32>) -> Requirement {
    let count = |n| NonZeroU32::new(n).unwrap();
    Requirement {
        approvals: approvals.iter().map(|(g, n)| (g.parse().unwrap(), count(*n))).collect(),
        max_lifetime: Duration::from_secs(lease),
        max_uses: uses.map(count),
        online: false,
        evidence: false,
        presence: false,
    }
}
