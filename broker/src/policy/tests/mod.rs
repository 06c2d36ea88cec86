//! Tests of policy: what refuses a bundle, what a bundle refuses, and that the most restrictive
//! answer wins.
#![expect(clippy::arithmetic_side_effects, reason = "a test may panic")]

mod ask;
mod bundle;
mod evaluate;
mod law;

use std::path::{Path, PathBuf};

use super::bundle::Bundle;
use super::files::{BundleFiles, FILE_NAMES};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples").join(name)
}

/// The files of an example, with `from` replaced by `to` in `file`, which must hold it.
fn changed(name: &str, changes: &[(&str, &str, &str)]) -> BundleFiles {
    let files = BundleFiles::read(&example(name)).unwrap();
    let mut files: Vec<_> = files
        .iter()
        .map(|(name, content)| (name.to_owned(), String::from_utf8(content.to_vec()).unwrap()))
        .collect();
    for (file, from, to) in changes {
        let (_, text) = files.iter_mut().find(|(name, _)| name == file).unwrap();
        assert!(text.contains(from), "{file} does not hold {from:?}");
        *text = text.replacen(from, to, 1);
    }
    BundleFiles::new(files.into_iter().map(|(name, text)| (name, text.into_bytes()))).unwrap()
}

/// The smallest example, changed.
fn minimal(changes: &[(&str, &str, &str)]) -> Bundle {
    Bundle::load(&changed("minimal", changes)).unwrap()
}

/// The smallest example with other policies.
fn with_policies(policies: &str) -> Result<Bundle, Vec<String>> {
    let files = BundleFiles::read(&example("minimal")).unwrap();
    let files = files.iter().map(|(name, content)| {
        let policy = name == FILE_NAMES[0];
        (name.to_owned(), if policy { policies.as_bytes().to_vec() } else { content.to_vec() })
    });
    Bundle::load(&BundleFiles::new(files).unwrap()).map_err(told)
}

fn told(problems: Vec<dayfly_verifier::invalid::Invalid>) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// What is wrong with a changed example.
fn problems(name: &str, file: &str, from: &str, to: &str) -> Vec<String> {
    told(Bundle::load(&changed(name, &[(file, from, to)])).unwrap_err())
}
