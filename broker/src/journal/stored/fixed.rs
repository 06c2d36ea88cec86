//! Values of a fixed length: an entry has their text, which is checked whenever it is read; a
//! snapshot has their bytes, which cost a tenth of that or less. The log vouches for its digest.

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::str::FromStr;

use dayfly_verifier::holder::HolderKey;
use dayfly_verifier::id::{
    Epoch, ExchangeId, GrantId, RequestDigest, RequestId, TextDigest, TokenId, UseId,
};
use dayfly_verifier::invalid::Invalid;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Text;

/// What has a text, and bytes of a fixed length.
pub(super) trait Octets: Copy + Display + FromStr<Err: Display> {
    /// Its bytes.
    fn octets(&self) -> &[u8];

    /// From its bytes.
    fn of_octets(bytes: &[u8]) -> Result<Self, Invalid>;
}

/// Stands as its text in an entry, and as its bytes in a snapshot.
#[derive(Clone, Copy)]
pub(super) struct Fixed<T>(pub(super) T);

impl<T: Copy> From<&T> for Fixed<T> {
    fn from(value: &T) -> Self {
        Self(*value)
    }
}

impl<T: Octets> Serialize for Fixed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => Text(self.0).serialize(serializer),
            false => serializer.serialize_bytes(self.0.octets()),
        }
    }
}

impl<'de, T: Octets> Deserialize<'de> for Fixed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Reads the bytes where they stand.
        struct Read<T>(PhantomData<T>);

        impl<T: Octets> Visitor<'_> for Read<T> {
            type Value = Fixed<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Fixed<T>, E> {
                T::of_octets(bytes).map(Fixed).map_err(E::custom)
            }
        }

        match deserializer.is_human_readable() {
            true => Text::deserialize(deserializer).map(|text| Self(text.0)),
            false => deserializer.deserialize_bytes(Read(PhantomData)),
        }
    }
}

/// Implements it for ids.
macro_rules! octets {
    ($($id:ty),*) => {$(
        impl Octets for $id {
            fn octets(&self) -> &[u8] {
                self.as_bytes()
            }

            fn of_octets(bytes: &[u8]) -> Result<Self, Invalid> {
                Self::from_slice(bytes)
            }
        }
    )*};
}

octets!(Epoch, GrantId, TokenId, RequestDigest, TextDigest, RequestId, ExchangeId, UseId);

impl Octets for HolderKey {
    fn octets(&self) -> &[u8] {
        self.as_bytes()
    }

    /// Whether it is a key at all was seen when it came into the log, and costs a hundred times as
    /// much as the rest.
    fn of_octets(bytes: &[u8]) -> Result<Self, Invalid> {
        let bytes = bytes.try_into();
        bytes.map(Self::unchecked).map_err(|_| Invalid::new("key", "must be 32 bytes long"))
    }
}
