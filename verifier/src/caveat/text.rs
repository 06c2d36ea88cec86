//! Caveats as people write them: the inverse of how they print.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::Caveat;
use crate::invalid::Invalid;
use crate::resource::ResourcePattern;

impl fmt::Display for Caveat {
    /// As it is written on the command line: `before 2026-01-31T12:00:00.000Z`,
    /// `operation in [read]`, `resource in orders/prod/**`, `arg amount <= 500`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Before(end) => write!(f, "before {end}"),
            Self::Operation(set) => list(f, "operation", set),
            Self::Resource(set) => list(f, "resource", set),
            Self::Below(base) => write!(f, "resource in {base}/**"),
            Self::Gateway(set) => list(f, "gateway", set),
            Self::Task(set) => list(f, "task", set),
            Self::Argument(constraint) => write!(f, "arg {constraint}"),
        }
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, name: &str, set: &BTreeSet<T>) -> fmt::Result {
    let members: Vec<String> = set.iter().map(T::to_string).collect();
    write!(f, "{name} in [{}]", members.join(", "))
}

impl FromStr for Caveat {
    type Err = Invalid;

    /// From `before 2026-01-31T12:00:00Z`, `operation in read`, `operation in [read, refund]`,
    /// `resource in orders/prod/o-17`, `resource in orders/prod/**`, `gateway in ..`,
    /// `task in ..`, or `arg` and a constraint: `arg amount <= 100`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (about, rest) = text.trim().split_once(char::is_whitespace).ok_or_else(shapes)?;
        let rest = rest.trim_start();
        let caveat = match about {
            "before" => Self::Before(rest.parse()?),
            "operation" => Self::Operation(set(about, rest)?),
            "resource" if rest.ends_with("/**") => Self::Below(below(members_of(about, rest)?)?),
            "resource" => Self::Resource(set(about, rest)?),
            "gateway" => Self::Gateway(set(about, rest)?),
            "task" => Self::Task(set(about, rest)?),
            "arg" => Self::Argument(rest.parse()?),
            _ => return Err(shapes()),
        };
        caveat.check()?;
        Ok(caveat)
    }
}

fn shapes() -> Invalid {
    let rule = "must be `before TIME`, `operation in ..`, `resource in ..`, `gateway in ..`, \
        `task in ..` or `arg NAME <= ..`";
    Invalid::new("caveat", rule)
}

/// What stands behind `in`.
fn members_of<'a>(about: &str, rest: &'a str) -> Result<&'a str, Invalid> {
    let members = rest.strip_prefix("in").filter(|members| members.starts_with([' ', '\t', '[']));
    let missing = || Invalid::new("caveat", format!("`{about}` must be followed by `in`"));
    members.map(str::trim_start).ok_or_else(missing)
}

/// `one`, or `[one, two]`, each once.
fn set<T: FromStr<Err = Invalid> + Ord>(about: &str, rest: &str) -> Result<BTreeSet<T>, Invalid> {
    let members = members_of(about, rest)?;
    let inside = members.strip_prefix('[').map(|open| open.strip_suffix(']'));
    let inside = match inside {
        None => members,
        Some(Some(inside)) => inside,
        Some(None) => return Err(Invalid::new("caveat", "`[` must be closed by `]`")),
    };
    let mut set = BTreeSet::new();
    for member in inside.split(',') {
        if !set.insert(member.trim().parse()?) {
            return Err(Invalid::new("caveat", "a set must name each member once"));
        }
    }
    Ok(set)
}

fn below(pattern: &str) -> Result<crate::resource::Resource, Invalid> {
    match pattern.parse()? {
        ResourcePattern::Below(base) => Ok(base),
        ResourcePattern::Exact(_) => Err(shapes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::{Constraint, Limit, Value};
    use crate::time::Timestamp;

    #[test]
    fn what_is_written_is_what_is_meant() {
        fn set<T: FromStr<Err = Invalid> + Ord>(text: &str) -> BTreeSet<T> {
            text.split(' ').map(|one| one.parse().unwrap()).collect()
        }
        let argument = |argument: &str, limit| {
            Caveat::Argument(Constraint { argument: argument.parse().unwrap(), limit })
        };
        let end = Timestamp::from_secs(1_800_000_000).unwrap();
        let gateway = "spiffe://shop.test/gateway/orders";
        for (text, meant) in [
            ("before 2027-01-15T08:00:00Z", Caveat::Before(end)),
            ("before 2027-01-15T08:00:00.000Z", Caveat::Before(end)),
            ("operation in read", Caveat::Operation(set("read"))),
            ("  operation   in[ read ,refund ] ", Caveat::Operation(set("read refund"))),
            ("resource in orders/prod/o-17", Caveat::Resource(set("orders/prod/o-17"))),
            ("resource in [a, a/b]", Caveat::Resource(set("a a/b"))),
            ("resource in orders/prod/**", Caveat::Below("orders/prod".parse().unwrap())),
            (&format!("gateway in {gateway}"), Caveat::Gateway(set(gateway))),
            ("task in [case:7, 8]", Caveat::Task(set("case:7 8"))),
            ("arg amount <= 100", argument("amount", Limit::AtMost(100))),
            ("arg operation in [1, 2]", {
                let two = BTreeSet::from([Value::Int(1), Value::Int(2)]);
                argument("operation", Limit::OneOf(two))
            }),
        ] {
            assert_eq!(text.parse(), Ok(meant), "{text}");
        }
    }

    #[test]
    fn what_is_no_caveat_is_refused() {
        for bad in [
            "",
            "before",
            "before now",
            "before 2027-01-15T08:00:00.500Z",
            "after 2027-01-15T08:00:00Z",
            "operation",
            "operation read",
            "operation inread",
            "operation = read",
            "operation in",
            "operation in []",
            "operation in [read",
            "operation in read]",
            "operation in read refund",
            "operation in [read, read]",
            "operation in [read,]",
            "operation in Read",
            "operation in \"read\"",
            "resource in orders/prod/",
            "resource in orders/**/a",
            "resource in [a, b/**]",
            "resource in [a/**]",
            "resource in a, b/**",
            "resource under orders/prod",
            "gateway in orders",
            "task in [a b]",
            "amount <= 100",
            "arg amount < 100",
            "arg amount",
            "argument amount <= 100",
            "not operation in read",
        ] {
            assert!(bad.parse::<Caveat>().is_err(), "{bad:?}");
        }
        let many: Vec<String> = (0..33).map(|n| format!("t{n}")).collect();
        assert!(format!("task in [{}]", many.join(",")).parse::<Caveat>().is_err());
    }
}
