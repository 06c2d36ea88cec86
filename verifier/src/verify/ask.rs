//! Rights of which each use is the broker's to decide.

use std::future::Future;
use std::pin::Pin;

use super::Verified;
use crate::claims::Claims;
use crate::id::{TokenId, UseId};
use crate::reject::Reject;

/// The broker's answer about one use, when it arrives.
pub type Redemption<'a> = Pin<Box<dyn Future<Output = Result<(), NotRedeemed>> + Send + 'a>>;

/// Spends one use of a counted grant at the broker.
///
/// `Ok` only when the broker said, for this very call, that the use is recorded and was not before:
/// a use id that was spent earlier is [`NotRedeemed::Repeated`], since whoever spent it may have
/// acted on it. Whatever is not known is [`NotRedeemed::Unanswered`]. Any error is safe: a lost
/// answer may cost a use, and never gives one. Answering `Ok` without asking gives uses away.
pub trait Redeem: Send + Sync {
    /// Spends the use `use_id` of the grant of `token`.
    fn redeem(&self, token: TokenId, use_id: UseId) -> Redemption<'_>;
}

/// Why a use was not spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotRedeemed {
    /// No use is left, or the grant has ended.
    #[error("no use of the grant is left")]
    Spent,
    /// The use id was spent before.
    #[error("the use id was spent before")]
    Repeated,
    /// It cannot be told.
    #[error("the broker could not be asked")]
    Unanswered,
}

impl From<NotRedeemed> for Reject {
    fn from(why: NotRedeemed) -> Self {
        match why {
            NotRedeemed::Spent => Self::Spent,
            NotRedeemed::Repeated => Self::UseRepeated,
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
    /// for this use and no other.
    ///
    /// Rights whose uses are *evaluated* by the broker are refused: there is no one to ask yet.
    pub async fn ask(self, broker: &dyn Redeem, use_id: Option<UseId>) -> Result<Verified, Reject> {
        let claims = self.verified.claims();
        if claims.online {
            return Err(Reject::Unanswered);
        }
        let use_id = use_id.ok_or(Reject::NoUseId)?;
        broker.redeem(claims.token, use_id).await?;
        match self.verified.cancellation().reason() {
            Some(reason) => Err(reason),
            None => Ok(self.verified),
        }
    }
}
