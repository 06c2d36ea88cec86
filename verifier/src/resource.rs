//! What is acted on, and how.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::invalid::Invalid;

/// The longest resource path, in bytes.
pub const MAX_RESOURCE_BYTES: usize = 256;
/// The most segments that a resource path may have.
pub const MAX_RESOURCE_SEGMENTS: usize = 16;

/// A resource: a path of segments, `orders-db/prod/customers`.
///
/// A segment holds `a-z A-Z 0-9 - _ . : @` and is neither `.` nor `..`; compared byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource(Arc<str>);

impl Resource {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments of the path, at least one.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// Whether this is `base` or lies below it, by whole segments.
    #[must_use]
    pub fn is_at_or_below(&self, base: &Self) -> bool {
        self == base || self.is_below(base)
    }

    /// Whether this lies below `base`, by whole segments: `a/bc` is not below `a/b`.
    #[must_use]
    pub fn is_below(&self, base: &Self) -> bool {
        self.as_str().strip_prefix(base.as_str()).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Resource {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refused = |rule: &'static str| Err(Invalid::new("resource", rule));
        if text.len() > MAX_RESOURCE_BYTES {
            return refused("must not be longer than 256 bytes");
        }
        if text.split('/').count() > MAX_RESOURCE_SEGMENTS {
            return refused("must not have more than 16 segments");
        }
        for segment in text.split('/') {
            if segment.is_empty() {
                return refused("must not have an empty segment");
            }
            if segment == "." || segment == ".." {
                return refused("must not have `.` or `..` as a segment");
            }
            if !segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:@".contains(&b)) {
                return refused("segments may only hold a-z A-Z 0-9 - _ . : @");
            }
        }
        Ok(Self(text.into()))
    }
}

/// Which resources a right reaches: one exactly, or one with all below it (`orders-db/prod/**`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourcePattern {
    /// This resource and no other.
    Exact(Resource),
    /// What lies below this resource, by whole segments; not the resource itself.
    Below(Resource),
}

impl ResourcePattern {
    /// Whether `resource` is one of those meant.
    #[must_use]
    pub fn matches(&self, resource: &Resource) -> bool {
        match self {
            Self::Exact(exact) => exact == resource,
            Self::Below(base) => resource.is_below(base),
        }
    }

    /// Whether everything that `other` matches is matched by this too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Exact(resource)) => self.matches(resource),
            (Self::Below(base), Self::Below(inner)) => inner.is_at_or_below(base),
            (Self::Exact(_), Self::Below(_)) => false,
        }
    }

    /// The resource named in the pattern, without the `/**`.
    #[must_use]
    pub const fn base(&self) -> &Resource {
        match self {
            Self::Exact(resource) | Self::Below(resource) => resource,
        }
    }
}

impl fmt::Display for ResourcePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(resource) => resource.fmt(f),
            Self::Below(base) => write!(f, "{base}/**"),
        }
    }
}

impl FromStr for ResourcePattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.strip_suffix("/**") {
            Some(base) => base.parse().map(Self::Below),
            None => text.parse().map(Self::Exact),
        }
    }
}

/// How a resource is acted on: `read`, `delete`, `refund`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Operation(Arc<str>);

impl Operation {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Operation {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let lower = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
        let starts = text.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
        if !starts || text.len() > 64 || !text.bytes().all(lower) {
            let rule = "must be 1 to 64 of the characters a-z 0-9 - _ . and begin with a letter";
            return Err(Invalid::new("operation", rule));
        }
        Ok(Self(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_a_resource() {
        let deep = vec!["a"; 17].join("/");
        let long = "a".repeat(257);
        for bad in ["", "/", "a/", "/a", "a//b", "a/../b", "./a", "a b", "a/*", "ä", &deep, &long]
        {
            assert!(bad.parse::<Resource>().is_err(), "{bad:?}");
        }
        for bad in ["", "Read", "1read", "re ad", "read/", &"r".repeat(65)] {
            assert!(bad.parse::<Operation>().is_err(), "{bad:?}");
        }
        for bad in ["**", "/**", "a/*", "a/**/b", "a**"] {
            assert!(bad.parse::<ResourcePattern>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_subtree_goes_by_segments() {
        let pattern: ResourcePattern = "db/customers/**".parse().unwrap();
        let matches = |text: &str| pattern.matches(&text.parse().unwrap());
        assert!(matches("db/customers/7"));
        assert!(!matches("db/customers-archive") && !matches("db/customers-archive/7"));
        assert!(!matches("db/customers") && !matches("db"));
    }

    #[test]
    fn covering_is_matching_of_all_that_the_other_matches() {
        let covers = |a: &str, b: &str| {
            a.parse::<ResourcePattern>().unwrap().covers(&b.parse::<ResourcePattern>().unwrap())
        };
        assert!(covers("a/**", "a/b") && covers("a/**", "a/b/**") && covers("a/**", "a/**"));
        assert!(covers("a", "a"));
        assert!(!covers("a", "a/**") && !covers("a/**", "a") && !covers("a/b/**", "a/**"));
        assert!(!covers("a/b/**", "a/bc/**"));
    }
}
