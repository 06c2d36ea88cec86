//! Symbol tables and terms: what Datalog's numbers stand for.

use super::schema::{Content, Literal, Member, Predicate, Term};
use crate::caveat::MAX_SET;
use crate::scope::Value;
use crate::time::Timestamp;

/// The symbols that every Biscuit knows (Biscuit specification, section "Symbol table").
const DEFAULT: [&str; 28] = [
    "read",
    "write",
    "resource",
    "operation",
    "right",
    "time",
    "role",
    "owner",
    "tenant",
    "namespace",
    "user",
    "team",
    "service",
    "admin",
    "email",
    "group",
    "member",
    "ip_address",
    "client",
    "client_ip",
    "domain",
    "path",
    "version",
    "cluster",
    "node",
    "hostname",
    "nonce",
    "query",
];

/// The length of `ip_address`.
const LONGEST_DEFAULT: usize = 10;

/// The number of the first symbol that a token brings.
const OFFSET: u64 = 1024;

/// The number of `query`, the head of every check.
pub(super) const QUERY: u64 = 27;

/// The symbols that a block may speak of.
#[derive(Clone, Default)]
pub(super) struct Symbols(Vec<String>);

impl Symbols {
    /// Those that a block brings, before anything is known of them: a text may have two numbers.
    pub(super) const fn unchecked(new: Vec<String>) -> Self {
        Self(new)
    }

    /// Adds the symbols that a block brings; `None` if one of them is known already, which would
    /// let one text have two numbers.
    pub(super) fn extend(&mut self, new: Vec<String>) -> Option<()> {
        if self.repeats(&new) {
            return None;
        }
        self.0.extend(new);
        Some(())
    }

    /// Whether one of `new` is known, or stands there twice. In 4 KiB a stranger sends a thousand
    /// of them, before any signature: they are put in order, never compared each with each.
    fn repeats(&self, new: &[String]) -> bool {
        let known = DEFAULT.iter().copied().chain(self.0.iter().map(String::as_str));
        meet(known, new.iter().map(String::as_str).collect())
    }

    /// The symbols of a block: all that it speaks of, but for the first `known`.
    pub(super) fn since(mut self, known: usize) -> Vec<String> {
        self.0.drain(..known.min(self.0.len()));
        self.0
    }

    /// How many there are beside those that every Biscuit knows.
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// The text that a number stands for.
    pub(super) fn get(&self, number: u64) -> Option<&str> {
        match number.checked_sub(OFFSET) {
            Some(own) => self.0.get(usize::try_from(own).ok()?).map(String::as_str),
            None => DEFAULT.get(usize::try_from(number).ok()?).copied(),
        }
    }

    /// The number that stands for a text, which is added if it is new.
    pub(super) fn number(&mut self, text: &str) -> u64 {
        let short = text.len() <= LONGEST_DEFAULT;
        let known = if short { DEFAULT.iter().position(|known| *known == text) } else { None };
        if let Some(known) = known {
            return known as u64;
        }
        let own = self.0.iter().position(|known| known == text).unwrap_or_else(|| {
            self.0.push(text.to_owned());
            self.0.len().saturating_sub(1)
        });
        OFFSET.saturating_add(own as u64)
    }

    /// What a term says; `None` for a variable, a set and an array.
    pub(super) fn atom<'a>(&'a self, term: &'a Term) -> Option<Atom<'a>> {
        match term.content.as_ref()? {
            Content::Integer(int) => Some(Atom::Int(*int)),
            Content::Text(number) => self.get(*number).map(Atom::Text),
            Content::Date(secs) => Some(Atom::Date(*secs)),
            Content::Bytes(bytes) => Some(Atom::Bytes(bytes)),
            Content::Bool(bool) => Some(Atom::Bool(*bool)),
            Content::Variable(_) | Content::Set(_) | Content::Array(_) => None,
        }
    }

    /// What the members of a set or array say; `None` for any other term, and for more than
    /// [`MAX_SET`] as they are written, repeated ones too.
    pub(super) fn atoms<'a>(&'a self, term: &'a Term) -> Option<Vec<Atom<'a>>> {
        let (Content::Set(members) | Content::Array(members)) = term.content.as_ref()? else {
            return None;
        };
        if members.members.len() > MAX_SET {
            return None;
        }
        let atom = |member: &'a Member| match member.literal.as_ref()? {
            Literal::Integer(int) => Some(Atom::Int(*int)),
            Literal::Text(number) => self.get(*number).map(Atom::Text),
            Literal::Bytes(bytes) => Some(Atom::Bytes(bytes)),
            Literal::Bool(bool) => Some(Atom::Bool(*bool)),
        };
        members.members.iter().map(atom).collect()
    }
}

/// A literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Atom<'a> {
    Int(i64),
    Text(&'a str),
    /// Whole seconds of Unix time.
    Date(u64),
    Bytes(&'a [u8]),
    Bool(bool),
}

impl<'a> Atom<'a> {
    pub(super) const fn date(time: Timestamp) -> Self {
        Self::Date(time.as_secs())
    }

    pub(super) const fn text(self) -> Option<&'a str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(super) const fn bytes(self) -> Option<&'a [u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    pub(super) const fn int(self) -> Option<i64> {
        if let Self::Int(int) = self { Some(int) } else { None }
    }

    pub(super) const fn bool(self) -> Option<bool> {
        if let Self::Bool(bool) = self { Some(bool) } else { None }
    }

    pub(super) fn as_date(self) -> Option<Timestamp> {
        if let Self::Date(secs) = self { Timestamp::from_secs(secs).ok() } else { None }
    }

    pub(super) fn of(value: &'a Value) -> Self {
        match value {
            Value::Int(int) => Self::Int(*int),
            Value::Text(text) => Self::Text(text),
            Value::Bool(bool) => Self::Bool(*bool),
            Value::Hidden(digest) => Self::Bytes(digest),
        }
    }

    pub(super) fn value(self) -> Option<Value> {
        match self {
            Self::Int(int) => Some(Value::Int(int)),
            Self::Text(text) => Value::text(text).ok(),
            Self::Bool(bool) => Some(Value::Bool(bool)),
            Self::Bytes(bytes) => bytes.try_into().ok().map(Value::Hidden),
            Self::Date(_) => None,
        }
    }
}

/// Whether one of `new` is among `known`, or stands there twice.
fn meet<T: Ord>(mut known: impl Iterator<Item = T>, mut new: Vec<T>) -> bool {
    new.sort_unstable();
    known.any(|symbol| new.binary_search(&symbol).is_ok())
        || new.windows(2).any(|pair| pair.first() == pair.last())
}

/// The head that every check has.
pub(super) const fn head() -> Predicate {
    Predicate { name: QUERY, terms: Vec::new() }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::cmp::Ordering;

    use super::*;

    /// Counts how often it is compared.
    struct Counted<'a>(usize, &'a Cell<usize>);

    impl Ord for Counted<'_> {
        fn cmp(&self, other: &Self) -> Ordering {
            self.1.set(self.1.get().saturating_add(1));
            self.0.cmp(&other.0)
        }
    }

    impl PartialOrd for Counted<'_> {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    impl PartialEq for Counted<'_> {
        fn eq(&self, other: &Self) -> bool {
            self.cmp(other).is_eq()
        }
    }

    impl Eq for Counted<'_> {}

    /// As many as fit in a token, whatever order a stranger puts them in.
    #[test]
    fn a48_a_thousand_symbols_are_not_compared_each_with_each() {
        const MOST: usize = 1024;
        let orders: [fn(usize) -> usize; 4] = [
            |n| n,
            |n| MOST - n,
            |n| n * 617 % MOST,
            |n| if n % 2 == 0 { n } else { MOST * 2 - n },
        ];
        for order in orders {
            let compared = Cell::new(0);
            let symbols = |from: usize, count: usize| {
                (0..count).map(|n| Counted(from + order(n), &compared)).collect::<Vec<_>>()
            };
            // A thousand by one block, and a few by a thousand before: none is a repeat.
            assert!(!meet(symbols(5_000, 28).into_iter(), symbols(0, MOST)));
            assert!(!meet(symbols(5_000, MOST).into_iter(), symbols(0, 8)));
            assert!(compared.get() < 40 * MOST, "{} comparisons", compared.get());
        }
    }

    #[test]
    fn what_every_biscuit_knows_is_never_brought() {
        let mut symbols = Symbols::default();
        for (number, text) in DEFAULT.iter().enumerate() {
            assert_eq!(symbols.number(text), number as u64, "{text}");
            assert_eq!(symbols.get(number as u64), Some(*text));
        }
        assert_eq!(symbols.number("right_below"), OFFSET);
        assert_eq!(symbols.since(0), ["right_below"]);
    }

    #[test]
    fn a_symbol_that_is_known_or_stands_twice_is_found_wherever_it_stands() {
        let new = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let mut symbols = Symbols::default();
        symbols.extend(new(&["m", "c", "x"])).unwrap();
        for repeated in [
            &["m"][..],
            &["a", "c", "z"],
            &["x", "a"],
            &["read"],
            &["z", "a", "hostname"],
            &["z", "a", "z"],
            &["a", "a"],
        ] {
            assert!(symbols.clone().extend(new(repeated)).is_none(), "{repeated:?}");
        }
        assert!(symbols.extend(new(&["b", "n", ""])).is_some());
    }
}
