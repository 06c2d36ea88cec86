//! Numbers on the command line, and what is said of what is none.

use std::num::NonZeroU32;
use std::str::FromStr;

/// A whole number.
pub(super) fn whole<N: FromStr>(text: &str) -> Result<N, &'static str> {
    text.parse().map_err(|_| "must be a whole number")
}

/// How many times.
pub(super) fn count(text: &str) -> Result<NonZeroU32, &'static str> {
    text.parse().map_err(|_| "must be a whole number, at least 1")
}
