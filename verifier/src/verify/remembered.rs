//! Tokens whose signatures were found good, by the text in which they were shown.
//!
//! A text is one that is remembered only if every byte of it is the same: nothing rests on a hash.
//! Each token has one text alone ([`crate::wire`]), so that nobody makes room here be taken twice.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use moka::Equivalent;
use moka::sync::Cache;
use zeroize::Zeroizing;

use super::verified::Signed;
use crate::caveat::Caveat;

/// How long a token is remembered: as long as the longest-lived one is good.
const FOR: Duration = Duration::from_secs(15 * 60);
/// The heaviest token that is remembered: holders add caveats as they like, and a token of 4 KiB
/// can hold many times its size in values that it spells out once.
const MAX_WEIGHT: usize = 4;
/// How many values of caveats weigh as much as a token without any.
const VALUES_PER_WEIGHT: usize = 8;
/// How many bytes of text do.
const TEXT_BYTES_PER_WEIGHT: usize = 2048;
/// How many bytes at the end of a text are hashed. They hold most of the last signature, at least:
/// nobody can make two good tokens that have them in common.
const HASHED_BYTES: usize = 256;

/// All that is remembered, within a bound.
pub(super) struct Remembered(pub(super) Cache<Text, Arc<Signed>>);

impl Remembered {
    /// Room for so many tokens of the usual weight.
    pub(super) fn new(tokens: u64) -> Self {
        let weigh = |text: &Text, token: &Arc<Signed>| {
            u32::try_from(weight(&text.0, token)).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(tokens).weigher(weigh).time_to_live(FOR).build())
    }

    pub(super) fn get(&self, text: &str) -> Option<Arc<Signed>> {
        self.0.get(&Shown(text))
    }

    /// Remembers what was read from `text`, unless it is too heavy.
    pub(super) fn keep(&self, text: &str, token: &Arc<Signed>) {
        if weight(text, token) <= MAX_WEIGHT {
            self.0.insert(Text(Zeroizing::new(text.into())), Arc::clone(token));
        }
    }
}

/// What a token takes of the room: 1, and more if its text is long or its caveats, which its
/// holders wrote, hold many values.
fn weight(text: &str, token: &Signed) -> usize {
    let values = token.content().caveats().map(Caveat::values).fold(0, usize::saturating_add);
    let long = text.len().div_ceil(TEXT_BYTES_PER_WEIGHT);
    values.div_ceil(VALUES_PER_WEIGHT).max(long).max(1)
}

/// The text of a token: a secret in part, never printed, wiped on drop.
#[derive(PartialEq, Eq)]
pub(super) struct Text(Zeroizing<Box<str>>);

/// A text that is looked for.
struct Shown<'a>(&'a str);

impl Equivalent<Text> for Shown<'_> {
    fn equivalent(&self, kept: &Text) -> bool {
        *self.0 == **kept.0
    }
}

impl Hash for Shown<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let bytes = self.0.as_bytes();
        let end = bytes.last_chunk::<HASHED_BYTES>().map_or(bytes, <[u8; HASHED_BYTES]>::as_slice);
        state.write(end);
    }
}

impl Hash for Text {
    /// As when it is looked for.
    fn hash<H: Hasher>(&self, state: &mut H) {
        Shown(&self.0).hash(state);
    }
}
