//! Rights of which each use is the broker's to decide.

use std::future::Future;
use std::pin::Pin;

use super::Verified;
use crate::claims::Claims;
use crate::id::{LockId, TokenId, UseId};
use crate::reject::Reject;

/// The broker's answer about one use, when it arrives.
pub type Redemption<'a> = Pin<Box<dyn Future<Output = Result<(), NotRedeemed>> + Send + 'a>>;

/// Asks the broker about uses, each of them: a counted one is spent there, an online one is judged
/// by policy as it is now. Whatever is not known is [`NotRedeemed::Unanswered`], and that within a
/// bounded time.
///
/// Of a counted use `Ok` only when the broker said, for this very call, that the use is recorded
/// and was not before: a use id that was spent earlier is [`NotRedeemed::Repeated`], since
/// whoever spent it may have acted on it. Of an online use `Ok` only when the broker allowed it
/// in answer to this very call. Any error is safe: a lost answer may cost a use, and never gives
/// one. Answering `Ok` without asking gives uses away.
pub trait Redeem: Send + Sync {
    /// Spends the use `use_id` of the grant of `token`.
    fn redeem(&self, token: TokenId, use_id: UseId) -> Redemption<'_>;

    /// Whether policy allows a use of the grant of `token` now.
    fn reevaluate(&self, token: TokenId) -> Redemption<'_>;
}

/// Why a use was not spent, or not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotRedeemed {
    /// No use is left, or the grant has ended.
    #[error("no use of the grant is left")]
    Spent,
    /// Policy does not allow it now, or the grant has ended.
    #[error("policy does not allow this use at present")]
    Drifted,
    /// The use id was spent before.
    #[error("the use id was spent before")]
    Repeated,
    /// A lock refuses it: on something that the grant reaches, be it the resource of this use or
    /// another.
    #[error("a lock refuses it")]
    Locked(LockId),
    /// The use id was drawn too far from the broker's time to be remembered safely.
    #[error("the use id was drawn too long ago, or ahead of time")]
    StaleId,
    /// It cannot be told.
    #[error("the broker could not be asked")]
    Unanswered,
}

impl From<NotRedeemed> for Reject {
    fn from(why: NotRedeemed) -> Self {
        match why {
            NotRedeemed::Spent => Self::Spent,
            NotRedeemed::Drifted => Self::Drifted,
            NotRedeemed::Repeated => Self::UseRepeated,
            NotRedeemed::Locked(lock) => Self::Locked(lock),
            NotRedeemed::StaleId => Self::NoUseId,
            NotRedeemed::Unanswered => Self::Unanswered,
        }
    }
}

/// A token that clears an attempt but for the broker, who decides each use of it.
pub struct MustAsk {
    verified: Verified,
}

impl MustAsk {
    pub(super) const fn new(verified: Verified) -> Self {
        Self { verified }
    }

    /// What the token says.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        self.verified.claims()
    }

    /// Asks, and looks at the state once more after the answer. `use_id` is drawn by the client
    /// for this use and no other; only counted rights need one. What is both online and counted is
    /// spent only after policy allowed it.
    pub async fn ask(self, broker: &dyn Redeem, use_id: Option<UseId>) -> Result<Verified, Reject> {
        let claims = self.verified.claims();
        if claims.counted && use_id.is_none() {
            return Err(Reject::NoUseId);
        }
        if claims.online {
            broker.reevaluate(claims.token).await?;
        }
        if let Some(use_id) = use_id.filter(|_| claims.counted) {
            broker.redeem(claims.token, use_id).await?;
        }
        match self.verified.cancellation().reason() {
            Some(reason) => Err(reason),
            None => Ok(self.verified),
        }
    }
}
