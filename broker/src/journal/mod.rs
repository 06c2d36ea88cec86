//! The one log: compare-and-append, durable, in commit order without gaps. What stands in it is
//! the truth; the state is its fold. Must never report an append that may not survive a crash.

mod chain;
mod recorded;
mod replay;
mod side;
pub mod snapshot;
mod stored;

mod fault;
mod memory;
mod sqlite;

use std::time::Duration;

use async_trait::async_trait;
use dayfly_verifier::id::Seq;
use tokio::sync::watch;

#[cfg(test)]
pub(crate) use chain::tests_link;
pub use chain::{StoredEntry, chain};
pub use fault::{Faulty, Plan};
pub use memory::Memory;
pub use recorded::{NotThatHead, Recorded};
pub use replay::Replay;
pub use side::{Bundles, DOCUMENT_KEPT, Floor, FreeText, Invitation, Joins, Renew, Renewal, Texts};
pub use snapshot::Snapshots;
pub use sqlite::{ReadOnly, Sqlite};
pub use stored::VERSION as FORMAT;
pub use stored::{KINDS, decode};

use crate::core::event::Head;

/// The log, as brokers share it. Any number of brokers may append to one; each append names the
/// head at which it was decided.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Appends `entries` right after `after`, all or none, durably, and returns the new head.
    ///
    /// [`JournalError::Conflict`] when the log has gone on from `after`;
    /// [`JournalError::Diverged`] when it does not contain `after`; [`JournalError::Unknown`] when
    /// it cannot be told whether the append stands: neither success nor failure, until a
    /// [`Journal::confirm`] has shown which. Every other error means that nothing was appended.
    async fn append(
        &self,
        after: &Head,
        entries: &[StoredEntry],
    ) -> Result<Recorded<Head>, JournalError>;

    /// As [`Journal::append`], for what must not keep another broker from ever deciding:
    /// [`JournalError::Conflict`] also while it is another one's turn. Ends the own turn.
    async fn append_in_turn(
        &self,
        after: &Head,
        entries: &[StoredEntry],
    ) -> Result<Recorded<Head>, JournalError>;

    /// Asks for the turn of this broker, or goes on waiting for it, and says whether it has come.
    /// Turns come in the order in which brokers asked. One lasts until the append that it was for,
    /// or [`Journal::pass_turn`]; who does not ask again within half of [`TURN`] has left.
    async fn turn(&self) -> Result<bool, JournalError>;

    /// Ends the turn of this broker, or its wait for it.
    async fn pass_turn(&self) -> Result<(), JournalError>;

    /// The entries after `after`, in order, gapless, each continuing the hash chain, at most
    /// `limit`. [`JournalError::Diverged`] when the log does not contain `after`.
    async fn read(
        &self,
        after: &Head,
        limit: usize,
    ) -> Result<Vec<Recorded<StoredEntry>>, JournalError>;

    /// The head as it was when `seq` was its place; `None` if the log does not reach that far.
    async fn head_at(&self, seq: Seq) -> Result<Option<Recorded<Head>>, JournalError>;

    /// The head, as of a moment after this call began, with the durability of an append: it fails
    /// where an append would fail. An append of unknown outcome has stood, or never will, once
    /// this returns.
    async fn confirm(&self) -> Result<Recorded<Head>, JournalError>;

    /// A hint that the head may have moved. Losing a hint is harmless: readers also poll.
    fn moved(&self) -> watch::Receiver<()>;
}

/// How long the others wait for a broker whose turn it is, and which has not shown up since.
pub const TURN: Duration = Duration::from_secs(1);

/// A journal with what is kept beside it.
pub trait Store: Journal + Texts + Bundles + Joins + Snapshots {}

impl<T: Journal + Texts + Bundles + Joins + Snapshots> Store for T {}

/// What keeps a journal from doing what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The log has gone on since. Nothing was appended.
    #[error("the log has gone on since the head that the append names")]
    Conflict,
    /// It cannot be told whether the append stands.
    #[error("it is unknown whether the append stands: {0}")]
    Unknown(String),
    /// The store cannot be reached, or takes no writes. Nothing was changed.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The log does not contain the head that was named: it was replaced. Only a restore, which
    /// opens a new epoch, goes on from here.
    #[error("the log does not contain the head at {0}: it is not the log that was followed")]
    Diverged(Seq),
    /// The file of the log was replaced or removed while it was open: what is written to the one
    /// that is open is lost with this process.
    #[error("`{0}` is no longer the file that was opened: it was replaced or removed")]
    Replaced(String),
    /// The log, or what is kept beside it, is not what was written. It is never mended.
    #[error("{} {rule}", place(*seq))]
    Corrupt {
        /// The first entry that is wrong; 0 where it is none by itself.
        seq: Seq,
        /// What is wrong with it.
        rule: String,
    },
    /// The log was written by a later version. An older one must not guess what it means.
    #[error("{} was written by a later version: {what}", place(*seq))]
    Future {
        /// The first entry that is not understood; 0 where it is none by itself.
        seq: Seq,
        /// What was met.
        what: String,
    },
}

fn place(seq: Seq) -> String {
    if seq.0 == 0 { "the journal".into() } else { format!("entry {seq}") }
}

impl JournalError {
    /// What it comes to, for whoever may hear nothing of files and entries.
    #[must_use]
    pub const fn in_short(&self) -> &'static str {
        match self {
            Self::Conflict | Self::Unknown(_) | Self::Unavailable(_) => {
                "something that it rests on has failed"
            }
            Self::Diverged(_) => "the log is not the one that was followed",
            Self::Replaced(_) => "the file of the log was replaced or removed",
            Self::Corrupt { .. } => "the log is not what was written",
            Self::Future { .. } => "the log was written by a later version",
        }
    }

    /// Whether a broker that meets this must stop, rather than try again.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        match self {
            Self::Conflict | Self::Unknown(_) | Self::Unavailable(_) => false,
            Self::Diverged(_) | Self::Replaced(_) | Self::Corrupt { .. } | Self::Future { .. } => {
                true
            }
        }
    }
}

#[cfg(test)]
mod conformance;
#[cfg(test)]
pub(crate) mod samples;
