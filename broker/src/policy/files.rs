//! The files of a policy bundle, as bytes under one content address.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use dayfly_verifier::id::BundleDigest;
use dayfly_verifier::invalid::Invalid;
use sha2::{Digest as _, Sha256};

/// The files of a bundle, all of them needed, in the order in which they are hashed.
pub const FILE_NAMES: [&str; 5] =
    ["policy.cedar", "schema.cedarschema", "people.toml", "workloads.toml", "resources.toml"];
/// The longest file, in bytes.
pub const MAX_FILE_BYTES: usize = 256 * 1024;

/// The content of the files of a bundle, not yet looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleFiles {
    contents: [Vec<u8>; FILE_NAMES.len()],
}

impl BundleFiles {
    /// From named contents. Refuses a name that is unknown, missing or there twice, and a file
    /// that is too long; says all that is wrong.
    pub fn new(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Result<Self, Vec<Invalid>> {
        let mut found: [Option<Vec<u8>>; FILE_NAMES.len()] = Default::default();
        let mut problems = Vec::new();
        for (name, content) in files {
            let slot = FILE_NAMES.iter().zip(&mut found).find(|(known, _)| **known == name);
            let Some((known, slot)) = slot else {
                let rule = format!("`{}` is not a file of a bundle", name.escape_default());
                problems.push(Invalid::new("files", rule));
                continue;
            };
            if content.len() > MAX_FILE_BYTES {
                problems.push(Invalid::new(*known, "must not be longer than 256 KiB"));
            }
            if slot.replace(content).is_some() {
                problems.push(Invalid::new(*known, "must not be there twice"));
            }
        }
        for (name, slot) in FILE_NAMES.iter().zip(&found) {
            if slot.is_none() {
                problems.push(Invalid::new(*name, "is missing"));
            }
        }
        if problems.is_empty() {
            Ok(Self { contents: found.map(Option::unwrap_or_default) })
        } else {
            Err(problems)
        }
    }

    /// Reads the files of a bundle in `dir`; other files there are not looked at.
    pub fn read(dir: &Path) -> Result<Self, Vec<Invalid>> {
        let mut files = Vec::new();
        let mut problems = Vec::new();
        for name in FILE_NAMES {
            match read_bounded(&dir.join(name)) {
                Ok(content) => files.push((name.to_owned(), content)),
                Err(error) => problems.push(Invalid::new(name, format!("cannot be read: {error}"))),
            }
        }
        if problems.is_empty() { Self::new(files) } else { Err(problems) }
    }

    /// Names and contents, in the order in which they are hashed.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'static str, &[u8])> {
        FILE_NAMES.into_iter().zip(self.contents.iter().map(Vec::as_slice))
    }

    /// The contents, in the same order.
    pub(super) const fn contents(&self) -> &[Vec<u8>; FILE_NAMES.len()] {
        &self.contents
    }

    /// All of it as bytes, to be kept: each content in order, behind its length as eight big-endian
    /// bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for content in &self.contents {
            let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(content);
        }
        bytes
    }

    /// From what [`Self::to_bytes`] gave.
    pub fn from_bytes(mut bytes: &[u8]) -> Result<Self, Vec<Invalid>> {
        let mut files = Vec::new();
        for name in FILE_NAMES {
            let content = bytes.split_first_chunk().and_then(|(length, rest)| {
                rest.split_at_checked(usize::try_from(u64::from_be_bytes(*length)).ok()?)
            });
            let Some((content, rest)) = content else { break };
            files.push((name.to_owned(), content.to_vec()));
            bytes = rest;
        }
        if bytes.is_empty() {
            Self::new(files)
        } else {
            Err(vec![Invalid::new("bundle", "must hold its files and nothing else")])
        }
    }

    /// The content address: SHA-256 over name and content of each file in order, each part behind
    /// its length as eight big-endian bytes.
    #[must_use]
    pub fn digest(&self) -> BundleDigest {
        let mut hash = Sha256::new();
        for (name, content) in self.iter() {
            for part in [name.as_bytes(), content] {
                hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
                hash.update(part);
            }
        }
        BundleDigest::new(hash.finalize().into())
    }
}

/// Reads at most one byte more than a file may have, so that a longer one shows.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let most = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut content = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Vec<(String, Vec<u8>)> {
        FILE_NAMES.iter().map(|name| ((*name).to_owned(), name.as_bytes().to_vec())).collect()
    }

    fn rules(files: Vec<(String, Vec<u8>)>) -> Vec<String> {
        BundleFiles::new(files).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn refuses_what_is_missing_unknown_repeated_or_too_long() {
        assert_eq!(rules(files()[1..].to_vec()), ["policy.cedar: is missing"]);
        let with = |name: &str, content: Vec<u8>| {
            let mut files = files();
            files.push((name.to_owned(), content));
            files
        };
        assert_eq!(rules(with("x\n", vec![])), ["files: `x\\n` is not a file of a bundle"]);
        assert_eq!(rules(with("people.toml", vec![])), ["people.toml: must not be there twice"]);
        let mut long = files();
        long[0].1 = vec![b' '; MAX_FILE_BYTES + 1];
        assert_eq!(rules(long), ["policy.cedar: must not be longer than 256 KiB"]);
        assert_eq!(BundleFiles::read(Path::new("/nonexistent")).unwrap_err().len(), 5);
    }

    #[test]
    fn bytes_that_were_cut_or_extended_are_refused() {
        let whole = BundleFiles::new(files()).unwrap();
        let bytes = whole.to_bytes();
        assert_eq!(BundleFiles::from_bytes(&bytes).unwrap(), whole);
        for end in 0..bytes.len() {
            assert!(BundleFiles::from_bytes(&bytes[..end]).is_err(), "{end}");
        }
        assert!(BundleFiles::from_bytes(&[bytes, vec![0]].concat()).is_err());
    }

    #[test]
    fn the_address_depends_on_every_byte_and_its_file_but_not_on_the_order() {
        let digest = |files| BundleFiles::new(files).unwrap().digest();
        let whole = digest(files());
        let mut reversed = files();
        reversed.reverse();
        assert_eq!(digest(reversed), whole);
        for n in 0..FILE_NAMES.len() {
            let mut changed = files();
            changed[n].1[0] ^= 1;
            assert_ne!(digest(changed), whole);
        }
        let mut moved = files();
        let byte = moved[0].1.pop().unwrap();
        moved[1].1.insert(0, byte);
        assert_ne!(digest(moved), whole);
    }
}
