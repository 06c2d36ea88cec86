//! A request, and the grant that it may become, as the broker tells of it.

use std::fmt;
use std::num::NonZeroU32;

use dayfly_proto::v1;
use dayfly_verifier::id::{GrantId, RequestDigest, RequestId};
use dayfly_verifier::scope::Scope;
use dayfly_verifier::time::Timestamp;

use crate::convert::{scope_from_wire, time};
use crate::errors::{Ended, Error, Reason};

/// Where a request or grant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It waits for approval.
    Pending,
    /// It may be exchanged.
    Granted,
    /// Policy refused it.
    RefusedByPolicy,
    /// A person denied it.
    Denied,
    /// Nobody granted it in time.
    Expired,
    /// Its holder took it back.
    Cancelled,
    /// Its holder completed it.
    Completed,
    /// It was revoked.
    Revoked,
    /// Policy would not grant it any more.
    Drifted,
    /// Its lease ended.
    Lapsed,
}

impl Standing {
    fn read(standing: v1::Standing) -> Option<Self> {
        match standing {
            v1::Standing::Unspecified => None,
            v1::Standing::Pending => Some(Self::Pending),
            v1::Standing::Granted => Some(Self::Granted),
            v1::Standing::RefusedByPolicy => Some(Self::RefusedByPolicy),
            v1::Standing::Denied => Some(Self::Denied),
            v1::Standing::Expired => Some(Self::Expired),
            v1::Standing::Cancelled => Some(Self::Cancelled),
            v1::Standing::Completed => Some(Self::Completed),
            v1::Standing::Revoked => Some(Self::Revoked),
            v1::Standing::Drifted => Some(Self::Drifted),
            v1::Standing::Lapsed => Some(Self::Lapsed),
        }
    }

    /// Why what stands so is refused; `None` while it is pending or granted.
    #[must_use]
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::Pending | Self::Granted => None,
            Self::RefusedByPolicy => Some(Reason::PolicyRefused),
            Self::Denied => Some(Reason::Denied),
            Self::Expired => Some(Reason::Expired),
            Self::Cancelled => Some(Reason::Cancelled),
            Self::Completed => Some(Reason::Completed),
            Self::Revoked => Some(Reason::Revoked),
            Self::Drifted => Some(Reason::Drifted),
            Self::Lapsed => Some(Reason::Lapsed),
        }
    }

    /// Its name, for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Granted => "granted",
            Self::RefusedByPolicy => "refused_by_policy",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Completed => "completed",
            Self::Revoked => "revoked",
            Self::Drifted => "drifted",
            Self::Lapsed => "lapsed",
        }
    }
}

impl fmt::Display for Standing {
    /// To stand behind "the request".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "waits for approval",
            Self::Granted => "is granted",
            Self::RefusedByPolicy => "was refused by policy",
            Self::Denied => "was denied",
            Self::Expired => "expired unanswered",
            Self::Cancelled => "was cancelled",
            Self::Completed => "was completed",
            Self::Revoked => "was revoked",
            Self::Drifted => "was taken back: policy would not grant it any more",
            Self::Lapsed => "has lapsed: its lease ended",
        })
    }
}

/// What a grant gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// When the lease starts.
    pub from: Timestamp,
    /// From when on nothing is allowed any more.
    pub until: Timestamp,
    /// What is allowed: what was asked for, or less.
    pub scope: Scope,
    /// How many uses; `None` for any number within the lease.
    pub uses: Option<NonZeroU32>,
}

/// A request as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The id that its workload drew.
    pub request: RequestId,
    /// The id by which everybody else names it.
    pub grant: GrantId,
    /// What decisions on it are about.
    pub digest: RequestDigest,
    /// Where it stands.
    pub standing: Standing,
    /// Why it stands so, where there is more to say.
    pub because: String,
    /// How many people of which group must approve.
    pub required: Vec<(String, u32)>,
    /// Who approved so far.
    pub approved_by: Vec<String>,
    /// When it expires unanswered.
    pub pending_until: Timestamp,
    /// What it gives; set from the grant on.
    pub terms: Option<Terms>,
}

impl Case {
    /// Takes the answer of a broker; refuses one that is about another request than `asked`, or
    /// that tells of a grant without terms.
    pub(crate) fn read(
        answer: Option<v1::AccessRequest>,
        asked: Option<&RequestId>,
    ) -> Result<Self, Error> {
        let answer = answer.ok_or(Error::answer("it tells of no request"))?;
        let case = Self::parse(&answer).ok_or(Error::answer("its request cannot be read"))?;
        if asked.is_some_and(|asked| *asked != case.request) {
            return Err(Error::answer("it is about another request"));
        }
        if case.standing == Standing::Granted && case.terms.is_none() {
            return Err(Error::answer("it tells of a grant without terms"));
        }
        Ok(case)
    }

    fn parse(answer: &v1::AccessRequest) -> Option<Self> {
        let mut required: Vec<_> =
            answer.requirement.iter().flat_map(|r| r.approvals.clone()).collect();
        required.sort();
        let terms = match &answer.terms {
            Some(terms) => Some(Terms {
                from: time(terms.from_ms).ok()?,
                until: time(terms.until_ms).ok()?,
                scope: scope_from_wire(terms.scope.as_ref()?).ok()?,
                uses: NonZeroU32::new(terms.uses),
            }),
            None => None,
        };
        Some(Self {
            request: answer.request_id.parse().ok()?,
            grant: answer.grant_id.parse().ok()?,
            digest: answer.digest.parse().ok()?,
            standing: Standing::read(answer.standing())?,
            because: answer.because.clone(),
            required,
            approved_by: answer.approved_by.clone(),
            pending_until: time(answer.pending_until_ms).ok()?,
            terms,
        })
    }

    /// The case itself if it is granted; how it ended if it is over; `None` while it is pending.
    pub(crate) fn decided(self) -> Option<Result<Self, Error>> {
        match self.standing {
            Standing::Pending => None,
            Standing::Granted => Some(Ok(self)),
            Standing::RefusedByPolicy
            | Standing::Denied
            | Standing::Expired
            | Standing::Cancelled
            | Standing::Completed
            | Standing::Revoked
            | Standing::Drifted
            | Standing::Lapsed => {
                let ended = Ended { standing: self.standing, because: self.because };
                Some(Err(Error::Ended(ended)))
            }
        }
    }
}
