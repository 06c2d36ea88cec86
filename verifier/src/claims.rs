//! What a token says, as the broker recorded it.

use crate::holder::Confirmation;
use crate::id::{Epoch, GrantId, KeyId, PersonId, RequestDigest, Seq, TaskId, TokenId};
use crate::scope::Scope;
use crate::spiffe::SpiffeId;
use crate::time::Timestamp;

/// The version of the token format that this crate writes and reads.
pub const FORMAT_VERSION: i64 = 1;

/// The content of a token's authority block, but for the place of its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The token's own id.
    pub token: TokenId,
    /// The grant that it was exchanged for.
    pub grant: GrantId,
    /// The digest of the request that became the grant.
    pub request: RequestDigest,
    /// The task that it is for.
    pub task: TaskId,
    /// The workload that it was issued to.
    pub subject: SpiffeId,
    /// The person on whose behalf the workload acts.
    pub principal: Option<PersonId>,
    /// The one gateway that accepts it.
    pub audience: SpiffeId,
    /// What it allows.
    pub scope: Scope,
    /// What its use must prove.
    pub holder: Confirmation,
    /// When it was issued, a whole second.
    pub issued_at: Timestamp,
    /// From when on it is refused, a whole second.
    pub expires_at: Timestamp,
    /// Whether each use is evaluated by the broker.
    pub online: bool,
    /// Whether each use is redeemed at the broker.
    pub counted: bool,
    /// The key that signs it.
    pub key: KeyId,
}

/// The place in the journal of the entry that recorded a token. Part of what is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    /// The epoch of the log.
    pub epoch: Epoch,
    /// The place in it.
    pub seq: Seq,
}
