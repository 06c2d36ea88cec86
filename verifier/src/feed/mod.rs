//! Following a broker's feed: from messages that may come late, twice or forged, to a view that
//! may be believed, and to its end when nothing fresh is heard.
//!
//! [`Follower`] is a state machine without I/O: messages and times go in, what to do comes out.
//! [`Enforcer`] holds the view that verification reads, and the uses that are under way. With the
//! feature `feed`, [`client`] joins both to a broker over gRPC.
//!
//! Unknown is no: before the first complete snapshot, after the staleness bound, and while a head
//! was shown that goes back, every use is refused.

mod enforcer;
mod entry;
mod follower;
mod head;
#[cfg(feature = "feed")]
mod keeper;
mod mark;
mod profile;
#[cfg(feature = "feed")]
mod redeem;
mod refused;
#[cfg(feature = "feed")]
mod report;
mod view;
#[cfg(feature = "feed")]
mod wire;

#[cfg(feature = "feed")]
pub mod client;

pub use enforcer::{Ended, Enforcer, Rests, Running};
pub use entry::{Malformed, feed_start, fold_hash, snapshot_digest};
pub use follower::{Challenge, Follower, Message, Wants};
pub use head::{Head, SignedHead};
pub use mark::{End, Mark, MarkError, Store};
pub use profile::{Profile, Source};
#[cfg(feature = "feed")]
pub use redeem::Redeemer;
pub use refused::{Refused, Remedy};
#[cfg(feature = "feed")]
pub use report::Reporter;
pub use view::GatewayView;
