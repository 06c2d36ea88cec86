//! An access request, what policy demands of it, and what an approval takes away from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::holder::{Confirmation, HolderKey};
use crate::id::{Epoch, GrantId, GroupId, PersonId, Purpose, RequestId, TaskId};
use crate::invalid::Invalid;
use crate::scope::{Constraint, Right, Scope};
use crate::spiffe::SpiffeId;
use crate::time::Timestamp;

/// What a workload asks for, with what policy demands of it: all that decisions are about, and
/// all that the request digest covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The epoch of the log in which it was filed.
    pub epoch: Epoch,
    /// Its id, drawn by the workload.
    pub id: RequestId,
    /// When it was filed, by the broker's clock.
    pub filed_at: Timestamp,
    /// Who asks.
    pub workload: SpiffeId,
    /// On whose behalf.
    pub principal: Option<PersonId>,
    /// The key that proves every later step, and to which tokens are bound.
    pub holder_key: HolderKey,
    /// What a use of the token must prove.
    pub confirmation: ConfirmBy,
    /// The one gateway for which it is.
    pub audience: SpiffeId,
    /// What is to be allowed.
    pub scope: Scope,
    /// For which task.
    pub task: TaskId,
    /// Why, as a name of the policy bundle.
    pub purpose: Purpose,
    /// The lease that is asked for, whole seconds.
    pub lifetime: Duration,
    /// The number of uses that is asked for; `None` for any number within the lease.
    pub uses: Option<NonZeroU32>,
    /// What policy demands before it may be granted.
    pub requirement: Requirement,
}

impl Request {
    /// The id of the grant that it may become, by which everybody but its workload names it.
    #[must_use]
    pub fn grant_id(&self) -> GrantId {
        GrantId::derive(&self.epoch, &self.workload, &self.id)
    }

    /// What tokens of its grant are bound to.
    #[must_use]
    pub const fn holder(&self) -> Confirmation {
        match self.confirmation {
            ConfirmBy::Key => Confirmation::Key(self.holder_key),
            ConfirmBy::Identity => Confirmation::Identity,
        }
    }
}

/// How a workload wants its token to be confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfirmBy {
    /// By the holder key.
    Key,
    /// By its SPIFFE ID, which the policy bundle must mark exclusive.
    Identity,
}

/// What policy demands before a request may be granted, and the limits that it sets.
///
/// The most restrictive combination of all policies that permitted the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// How many distinct people of each group must approve; empty if nobody needs to.
    pub approvals: BTreeMap<GroupId, NonZeroU32>,
    /// The longest lease, whole seconds.
    pub max_lifetime: Duration,
    /// The most uses; `None` for any number within the lease.
    pub max_uses: Option<NonZeroU32>,
    /// Whether each use is evaluated by the broker.
    pub online: bool,
    /// Whether gateways want the dossier beside the token.
    pub evidence: bool,
    /// Whether approvers must sign with a key that shows their presence.
    pub presence: bool,
}

/// What an approval takes away. `None` and empty take nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Narrowing {
    /// A shorter lease, whole seconds.
    pub lifetime: Option<Duration>,
    /// Fewer uses.
    pub uses: Option<NonZeroU32>,
    /// Only these rights, each inside those asked for.
    pub rights: Option<BTreeSet<Right>>,
    /// Constraints that hold in addition.
    pub constraints: BTreeSet<Constraint>,
}

/// What a person says to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Yes, to no more than this.
    Approve(Narrowing),
    /// No.
    Deny,
}

/// A public key with which a person signs decisions, as in an `authorized_keys` file, without its
/// comment: `ssh-ed25519 AAAA...`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignerKey(Arc<str>);

impl SignerKey {
    /// The key as text, in one form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SignerKey {
    type Err = Invalid;

    /// From a line of an `authorized_keys` file without options; a comment is dropped. Refuses
    /// every kind of key but `ssh-ed25519` and `sk-ssh-ed25519@openssh.com`, and keys of small
    /// order, under which anybody could sign.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refused = |rule: &'static str| Invalid::new("key", rule);
        let mut key = ssh_key::PublicKey::from_openssh(text.trim())
            .map_err(|_| refused("must be an OpenSSH public key, as in authorized_keys"))?;
        let data = key.key_data();
        let point = data.ed25519().or_else(|| data.sk_ed25519().map(|key| key.public_key()));
        let point = point.ok_or_else(|| refused("must be ssh-ed25519 or sk-ssh-ed25519"))?;
        HolderKey::from_slice(&point.0).map_err(|invalid| invalid.of("key"))?;
        key.set_comment("");
        let line = key.to_openssh().map_err(|_| refused("must be an OpenSSH public key"))?;
        Ok(Self(line.trim_end().into()))
    }
}
