//! SPIFFE IDs, read strictly.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::invalid::Invalid;

/// The longest SPIFFE ID, in bytes (SPIFFE ID standard, section 2.3).
const MAX_LEN: usize = 2048;

/// A SPIFFE ID: `spiffe://trust-domain/path`, with at least one path segment.
///
/// Compared byte for byte, never normalised: upper case in the trust domain, percent encoding,
/// `.` and `..`, empty segments, a port, user information, a query and a fragment are refused
/// (SPIFFE ID standard, sections 2.1 and 2.2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId(Arc<str>);

impl SpiffeId {
    /// The ID as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain: the part between `spiffe://` and the first `/` after it.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.parts().0
    }

    /// The segments of the path, at least one.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.parts().1.split('/')
    }

    /// Whether it is kept for brokers: `spiffe://trust-domain/dayfly/broker`, or below it. The
    /// embedded authority never gives one to anybody else.
    #[must_use]
    pub fn is_broker(&self) -> bool {
        self.segments().take(2).eq(["dayfly", "broker"])
    }

    fn parts(&self) -> (&str, &str) {
        let rest = self.0.strip_prefix("spiffe://").unwrap_or_default();
        rest.split_once('/').unwrap_or_default()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SpiffeId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refused = |rule: &'static str| Err(Invalid::new("spiffe_id", rule));
        if text.len() > MAX_LEN {
            return refused("must not be longer than 2048 bytes");
        }
        let Some(rest) = text.strip_prefix("spiffe://") else {
            return refused("must begin with `spiffe://`");
        };
        let Some((domain, path)) = rest.split_once('/') else {
            return refused("must have a path");
        };
        check_trust_domain(domain)?;
        for segment in path.split('/') {
            if segment.is_empty() {
                return refused("must not have an empty path segment or end in `/`");
            }
            if segment == "." || segment == ".." {
                return refused("must not have `.` or `..` as a path segment");
            }
            if !segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
                return refused("path segments may only hold a-z A-Z 0-9 - . _");
            }
        }
        Ok(Self(text.into()))
    }
}

/// Refuses what is not a trust domain: 1 to 255 of `a-z 0-9 . - _` (SPIFFE ID standard, 2.1).
pub fn check_trust_domain(domain: &str) -> Result<(), Invalid> {
    let alphabet = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    if domain.is_empty() || domain.len() > 255 || !domain.bytes().all(alphabet) {
        let rule = "the trust domain must be 1 to 255 of the characters a-z 0-9 . - _";
        return Err(Invalid::new("spiffe_id", rule));
    }
    Ok(())
}

/// A pattern over SPIFFE IDs: one ID exactly, or all below a path (`spiffe://shop.test/agent/**`).
///
/// Matching goes by whole segments: `/ns/a/**` does not match `/ns/ab/x`, nor `/ns/a` itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpiffePattern {
    /// This ID and no other.
    Exact(SpiffeId),
    /// Every ID of the same trust domain whose path continues this one by at least one segment.
    Below(SpiffeId),
}

impl SpiffePattern {
    /// Whether `id` is one of those meant.
    #[must_use]
    pub fn matches(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Exact(exact) => exact == id,
            Self::Below(base) => {
                id.as_str().strip_prefix(base.as_str()).is_some_and(|rest| rest.starts_with('/'))
            }
        }
    }
}

impl fmt::Display for SpiffePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(id) => id.fmt(f),
            Self::Below(base) => write!(f, "{base}/**"),
        }
    }
}

impl FromStr for SpiffePattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.strip_suffix("/**") {
            Some(base) => base.parse().map(Self::Below),
            None => text.parse().map(Self::Exact),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a33_every_byte_in_both_positions() {
        for byte in 0..=255u8 {
            let Ok(text) = String::from_utf8(vec![byte]) else { continue };
            let in_domain = format!("spiffe://a{text}b/x").parse::<SpiffeId>().is_ok();
            let in_path = format!("spiffe://a/x{text}y").parse::<SpiffeId>().is_ok();
            let lower = byte.is_ascii_lowercase() || byte.is_ascii_digit();
            // A slash in the domain ends it, and what follows is the path.
            assert_eq!(in_domain, lower || b".-_/".contains(&byte), "domain {byte:#x}");
            assert_eq!(in_path, byte.is_ascii_alphanumeric() || b".-_/".contains(&byte), "{byte}");
        }
    }

    #[test]
    fn a33_refuses_the_known_traps() {
        let long = format!("spiffe://a/{}", "x".repeat(MAX_LEN));
        let many = [
            "",
            "spiffe:/a/b",
            "SPIFFE://a/b",
            "spiffe://A/b",
            "spiffe://a",
            "spiffe://a/",
            "spiffe://a/b/",
            "spiffe://a//b",
            "spiffe://a/./b",
            "spiffe://a/../b",
            "spiffe:///b",
            "spiffe://a:80/b",
            "spiffe://u@a/b",
            "spiffe://a/b?c",
            "spiffe://a/b#c",
            "spiffe://a/%62",
            "spiffe://a/b\0",
            "spiffe://a/b\n",
            " spiffe://a/b",
            "https://a/b",
            "spiffe://\u{430}/b",
            "spiffe://a/\u{430}",
            &long,
        ];
        for bad in many {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn parse_and_print_are_inverse() {
        let id: SpiffeId = "spiffe://shop.test/agent/refunds-1".parse().unwrap();
        assert_eq!(id.to_string().parse::<SpiffeId>().unwrap(), id);
        assert_eq!(id.trust_domain(), "shop.test");
        assert_eq!(id.segments().collect::<Vec<_>>(), ["agent", "refunds-1"]);
    }

    #[test]
    fn patterns_match_by_whole_segments() {
        let pattern: SpiffePattern = "spiffe://t/ns/a/**".parse().unwrap();
        let matches = |text: &str| pattern.matches(&text.parse().unwrap());
        assert!(matches("spiffe://t/ns/a/x") && matches("spiffe://t/ns/a/x/y"));
        assert!(!matches("spiffe://t/ns/ab/x") && !matches("spiffe://t/ns/a"));
        assert!(!matches("spiffe://tt/ns/a/x"));
        assert!("spiffe://t/**".parse::<SpiffePattern>().is_err());
    }
}
