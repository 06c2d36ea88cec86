//! What the script has in store for a request.

use std::num::NonZeroU32;
use std::time::Duration;

use dayfly_verifier::request::{Narrowing, Requirement};

/// Who approves.
pub const APPROVER: &str = "ana";
/// The group that must approve.
const GROUP: &str = "approvers";

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Policy asks for nobody: it is granted as it is filed.
    Grant,
    /// A person approves, to no more than this.
    Approve { after: Duration, narrowing: Narrowing },
    /// A person denies.
    Deny { after: Duration, person: String },
    /// Nobody says anything.
    Never,
    /// Policy refuses it as it is filed.
    Refuse { policy: String, reason: String },
}

impl Answer {
    pub(super) const fn after(&self) -> Option<Duration> {
        match self {
            Self::Approve { after, .. } | Self::Deny { after, .. } => Some(*after),
            Self::Grant | Self::Never | Self::Refuse { .. } => None,
        }
    }

    /// What policy demands, so that there is something to wait for.
    pub(super) fn requirement(&self) -> Requirement {
        let one = match self {
            Self::Approve { .. } | Self::Deny { .. } | Self::Never => GROUP.parse().ok(),
            Self::Grant | Self::Refuse { .. } => None,
        };
        Requirement {
            approvals: one.map(|group| (group, NonZeroU32::MIN)).into_iter().collect(),
            max_lifetime: Duration::from_secs(12 * 60 * 60),
            max_uses: None,
            online: false,
            evidence: false,
            presence: false,
        }
    }
}
