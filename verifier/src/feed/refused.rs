//! Why a message of the feed is not believed, and what is to be done about it.

/// Why a message was not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Refused {
    /// No trust statement is known.
    #[error("no trust statement is known yet")]
    NoTrust,
    /// No listed feed key signed the head, or that key has ended.
    #[error("no listed feed key signed the head")]
    Unsigned,
    /// The head is of another feed.
    #[error("the head is of another feed")]
    OtherFeed,
    /// The head is of another epoch than the trust statement names.
    #[error("the head is of another epoch than the trust statement names")]
    OtherEpoch,
    /// The head lies behind the high-water mark. Denies until a good snapshot.
    #[error("the head goes back behind what was adopted")]
    Behind,
    /// The log is not the one that was adopted: a head stands at the high-water mark and says
    /// something else, or what was told on from there does not follow from it. Denies until the
    /// trust root names another epoch.
    #[error("the log contradicts what was adopted")]
    Beside,
    /// Folding the entries does not yield the signed hash: something is missing, or too much.
    /// Denies until a good snapshot.
    #[error("the entries do not yield the signed hash")]
    Gap,
    /// The entries are not those that the head was signed with.
    #[error("the snapshot is not the one that was signed")]
    SnapshotDigest,
    /// An entry has no place or no end, or they are out of order.
    #[error("the entries are malformed or out of order")]
    Malformed,
    /// The snapshot is over 256 MiB.
    #[error("the snapshot is too large")]
    TooLarge,
    /// There is no snapshot to which this could be added.
    #[error("there is no complete snapshot to add to")]
    NoSnapshot,
}

/// What to do about a [`Refused`] message. In every case the stream it came by is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Subscribe anew, for a snapshot.
    Resync,
    /// Fetch the trust statement, then subscribe anew.
    FetchTrust,
    /// Raise an alarm and ask another broker.
    OtherBroker,
}

impl Refused {
    /// What to do about it.
    #[must_use]
    pub const fn remedy(self) -> Remedy {
        match self {
            Self::Gap | Self::SnapshotDigest | Self::Malformed | Self::NoSnapshot => Remedy::Resync,
            Self::NoTrust | Self::Unsigned | Self::OtherEpoch => Remedy::FetchTrust,
            Self::OtherFeed | Self::Behind | Self::Beside | Self::TooLarge => Remedy::OtherBroker,
        }
    }
}
