//! The numbers of the rules. A configured number never enters the fold: an event carries what
//! came of it.

use std::time::Duration;

/// The longest lease of a grant, whatever policy says.
pub const MAX_LEASE: Duration = Duration::from_secs(12 * 60 * 60);
/// The longest life of a token, whatever is configured.
pub const MAX_TOKEN_LIFE: Duration = Duration::from_secs(15 * 60);
/// The longest that a request may wait, whatever is configured.
pub const MAX_PENDING_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// How far from now an id may have been drawn to be taken as a new one.
pub const ID_WINDOW: Duration = Duration::from_secs(5 * 60);
/// How far from now a decision may have been made.
pub const DECISION_WINDOW: Duration = Duration::from_secs(2 * 60);
/// How long the end of a request or grant is remembered: longer than any id that could repeat it
/// is taken for a new one, so that a repeat is never taken for a new request.
pub const RETENTION: Duration = Duration::from_secs(60 * 60);
/// How many requests of one workload are remembered at once, however they ended: each is an entry,
/// and is kept until [`RETENTION`] after its end.
pub const MAX_REQUESTS: u32 = 1_024;

/// The longest that a lock lasts before it is set anew.
pub const MAX_LOCK_LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How many locks are in force at once: each is looked at by every decision.
pub const MAX_LOCKS: usize = 256;
/// How many locks are remembered: one that was lifted is, until what would have been its end.
pub const MAX_LOCKS_REMEMBERED: usize = 4_096;

/// How many uses a grant may count: each that was redeemed is remembered as long as the grant.
pub const MAX_USES: u32 = 10_000;

/// How many exchanges may be answered with one token: each answer is an entry.
pub const MAX_ANSWERS: u32 = 256;

/// How long the last batch of uses of a gateway instance is remembered, so that it counts once.
pub const REPORT_MEMORY: Duration = Duration::from_secs(24 * 60 * 60);
/// How old a batch of uses may be. Less than [`REPORT_MEMORY`], so that none is taken twice.
pub const REPORT_AGE: Duration = Duration::from_secs(12 * 60 * 60);
/// How long an instance must wait between two batches: each is an entry.
pub const REPORT_EVERY: Duration = Duration::from_millis(500);
/// How many instances of one gateway are remembered.
pub const MAX_INSTANCES: usize = 256;

/// What may be configured, within the bounds above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long a request waits for its approvals.
    pub pending_life: Duration,
    /// The lease of a request that asks for none.
    pub default_lease: Duration,
    /// How long a token lives, at most.
    pub token_life: Duration,
    /// How many grants of one workload may be live at once.
    pub live_grants: u32,
    /// How many requests of one workload may be pending at once.
    pub pending_requests: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pending_life: Duration::from_secs(5 * 60),
            default_lease: Duration::from_secs(5 * 60),
            token_life: Duration::from_secs(2 * 60),
            live_grants: 16,
            pending_requests: 8,
        }
    }
}
