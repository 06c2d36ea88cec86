//! All that is wrong with a bundle, told at once: file, place, rule.

use std::fmt::Display;

use dayfly_verifier::invalid::Invalid;
use serde::de::DeserializeOwned;

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Invalid>);

impl Problems {
    /// Notes that `rule` is broken at `place` of `file`.
    pub(super) fn add(&mut self, file: &str, place: impl Display, rule: impl Into<String>) {
        self.0.push(Invalid::new(format!("{file} {place}"), rule.into()));
    }

    /// The value, or notes why there is none.
    pub(super) fn take<T>(
        &mut self,
        file: &str,
        place: impl Display,
        result: Result<T, Invalid>,
    ) -> Option<T> {
        result.map_err(|invalid| self.add(file, place, invalid.rule)).ok()
    }

    /// `text` as a `T`, or notes why it is none.
    pub(super) fn parse<T: std::str::FromStr<Err = Invalid>>(
        &mut self,
        file: &str,
        place: impl Display,
        text: &str,
    ) -> Option<T> {
        self.take(file, place, text.parse())
    }

    /// The content of a file as text.
    pub(super) fn text<'a>(&mut self, file: &str, content: &'a [u8]) -> Option<&'a str> {
        let text = std::str::from_utf8(content);
        text.map_err(|_| self.add(file, "line 1", "must be UTF-8")).ok()
    }

    /// A TOML file, or notes where its form is wrong. Unknown and repeated members are.
    pub(super) fn toml<T: DeserializeOwned>(&mut self, file: &str, content: &[u8]) -> Option<T> {
        let text = self.text(file, content)?;
        let refused = |error: toml::de::Error| {
            let start = error.span().map_or(0, |span| span.start);
            let rule: Vec<_> = error.message().split_whitespace().collect();
            self.add(file, line(text, start), rule.join(" "));
        };
        toml::from_str(text).map_err(refused).ok()
    }

    /// `value` if nothing was found.
    pub(super) fn or<T>(self, value: Option<T>) -> Result<T, Vec<Invalid>> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            Some(_) | None => Err(self.0),
        }
    }
}

/// `line 7`, of the byte at `offset` of `text`.
pub(super) fn line(text: &str, offset: usize) -> String {
    let before = text.as_bytes().iter().take(offset);
    format!("line {}", before.filter(|byte| **byte == b'\n').count().saturating_add(1))
}
