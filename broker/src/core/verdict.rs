//! What policy said, and of what it was speaking.

use dayfly_verifier::id::BundleDigest;
use dayfly_verifier::request::Requirement;

/// The outcome of one evaluation of policy, with all that it read. A verdict on a state that has
/// moved on is not used: `decide` answers [`super::denial::Denial::Reevaluate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What was read.
    pub basis: Basis,
    /// What policy said.
    pub outcome: Outcome,
}

/// What an evaluation read besides the request itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basis {
    /// The bundle.
    pub bundle: BundleDigest,
    /// The version of the environment facts set by operators.
    pub environment: u64,
    /// What is held live.
    pub holdings: Holdings,
    /// Whether what is spoken of was granted: then policy was asked about what was given, and
    /// otherwise about what was asked for.
    pub granted: bool,
}

/// How many grants are live, the one that is spoken of left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Holdings {
    /// Of the same workload.
    pub workload: u32,
    /// Of the same task.
    pub task: u32,
    /// Of workloads with an owner in common.
    pub owner: u32,
}

/// What policy said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Yes, if the requirement is met.
    Permitted(Requirement),
    /// No.
    Refused(Refusal),
}

/// Why policy refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The policy that refused (its `@id`), or `default` where none permitted, or `error`.
    pub policy: String,
    /// Its `@reason`, or a sentence of ours; safe to show to the requester.
    pub reason: String,
}
