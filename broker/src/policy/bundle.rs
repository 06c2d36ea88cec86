//! A policy bundle, read and checked whole: who is who, what there is, and what is permitted.

use dayfly_verifier::id::{BundleDigest, Purpose};
use dayfly_verifier::invalid::Invalid;

use crate::core::directory::Directory;

use super::files::BundleFiles;

/// A policy bundle that may be put into force. Immutable; share it in an `Arc`.
#[derive(Debug)]
pub struct Bundle {
    digest: BundleDigest,
    directory: Directory,
}

impl Bundle {
    /// Reads and checks the whole bundle; says all that is wrong with it, each problem with the
    /// file, the place in it and the rule.
    pub fn load(_files: &BundleFiles) -> Result<Self, Vec<Invalid>> {
        Err(vec![Invalid::new("bundle", "cannot be read yet")])
    }

    /// Its content address.
    #[must_use]
    pub const fn digest(&self) -> BundleDigest {
        self.digest
    }

    /// Who is who, as it says.
    #[must_use]
    pub const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The purposes that requests may name.
    pub fn purposes(&self) -> impl Iterator<Item = &Purpose> {
        std::iter::empty()
    }
}
