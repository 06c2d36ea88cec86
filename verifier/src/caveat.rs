//! Caveats: the restrictions that a holder adds to a token. A closed set, evaluated natively.
//!
//! Each caveat is one Datalog check of an exact shape ([`crate::wire`] reads and writes them;
//! `FORMAT.md` numbers the shapes). Nothing here interprets a program that a holder wrote.

mod text;

use std::collections::BTreeSet;

use crate::id::TaskId;
use crate::invalid::Invalid;
use crate::resource::{Operation, Resource};
use crate::scope::{Arguments, Constraint, Limit};
use crate::spiffe::SpiffeId;
use crate::time::Timestamp;

/// The most members of a caveat's set.
pub const MAX_SET: usize = 32;

/// What is so while one call is judged: the facts that the gateway states, each once.
#[derive(Debug, Clone, Copy)]
pub struct Ambient<'a> {
    /// The time of day, of which only the whole seconds count.
    pub time: Timestamp,
    /// The gateway's own SPIFFE ID.
    pub gateway: &'a SpiffeId,
    /// How the call acts.
    pub operation: &'a Operation,
    /// What it acts on.
    pub resource: &'a Resource,
    /// Its arguments, each name once.
    pub arguments: &'a Arguments,
    /// The task that the token was issued for.
    pub task: &'a TaskId,
}

/// A restriction that a holder added. It only takes away.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Caveat {
    /// Only before this time, a whole second.
    Before(Timestamp),
    /// Only these operations.
    Operation(BTreeSet<Operation>),
    /// Only these resources.
    Resource(BTreeSet<Resource>),
    /// Only resources below this one, by whole segments.
    Below(Resource),
    /// Only these gateways.
    Gateway(BTreeSet<SpiffeId>),
    /// Only these tasks.
    Task(BTreeSet<TaskId>),
    /// Only calls whose argument is there and satisfies this.
    Argument(Constraint),
}

impl Caveat {
    /// Refuses what has no place in a token: a time that is not a whole second, a set without
    /// members or with more than [`MAX_SET`], members of a set of different types.
    pub fn check(&self) -> Result<(), Invalid> {
        let members = match self {
            Self::Before(time) if *time != time.floor_to_second() => {
                return Err(Invalid::new("caveat", "the time must be a whole second"));
            }
            Self::Before(_) | Self::Below(_) => return Ok(()),
            Self::Argument(constraint) => return constraint.limit.check(),
            Self::Operation(set) => set.len(),
            Self::Resource(set) => set.len(),
            Self::Gateway(set) => set.len(),
            Self::Task(set) => set.len(),
        };
        if members == 0 || members > MAX_SET {
            return Err(Invalid::new("caveat", "a set must have 1 to 32 members"));
        }
        Ok(())
    }

    /// How many values it holds.
    pub(crate) fn values(&self) -> usize {
        match self {
            Self::Before(_) | Self::Below(_) => 1,
            Self::Operation(set) => set.len(),
            Self::Resource(set) => set.len(),
            Self::Gateway(set) => set.len(),
            Self::Task(set) => set.len(),
            Self::Argument(Constraint { limit: Limit::OneOf(values), .. }) => values.len(),
            Self::Argument(Constraint {
                limit: Limit::Equals(_) | Limit::AtMost(_) | Limit::AtLeast(_),
                ..
            }) => 1,
        }
    }

    /// Whether the caveat lets a call through.
    #[must_use]
    pub fn allows(&self, call: &Ambient<'_>) -> bool {
        match self {
            Self::Before(end) => call.time.floor_to_second() < *end,
            Self::Operation(set) => set.contains(call.operation),
            Self::Resource(set) => set.contains(call.resource),
            Self::Below(base) => call.resource.is_below(base),
            Self::Gateway(set) => set.contains(call.gateway),
            Self::Task(set) => set.contains(call.task),
            Self::Argument(constraint) => constraint.allows(call.arguments),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::scope::{Limit, Value};

    const END: u64 = 1_800_000_060;

    /// Whether `caveat` lets a refund of 5 through, `ms` milliseconds before [`END`].
    fn allows(caveat: &Caveat, ms: u64) -> bool {
        let arguments = Arguments::from([("amount".parse().unwrap(), Value::Int(5))]);
        caveat.allows(&Ambient {
            time: Timestamp::from_secs(END).unwrap().minus(Duration::from_millis(ms)),
            gateway: &"spiffe://shop.test/gateway/orders".parse().unwrap(),
            operation: &"refund".parse().unwrap(),
            resource: &"orders/prod/o-17".parse().unwrap(),
            arguments: &arguments,
            task: &"case-7".parse().unwrap(),
        })
    }

    #[test]
    fn an_end_is_too_late_from_its_first_moment_on() {
        let before = |secs| Caveat::Before(Timestamp::from_secs(secs).unwrap());
        assert!(allows(&before(END), 1));
        assert!(!allows(&before(END), 0));
        assert!(!allows(&before(END - 1), 999));
        assert!(allows(&before(END + 1), 0));
    }

    #[test]
    fn each_caveat_refuses_what_it_does_not_name() {
        fn set<T: std::str::FromStr<Err = Invalid> + Ord>(text: &str) -> BTreeSet<T> {
            text.split(' ').map(|one| one.parse().unwrap()).collect()
        }
        let amount =
            |limit| Caveat::Argument(Constraint { argument: "amount".parse().unwrap(), limit });
        let gateway = "spiffe://shop.test/gateway/orders";
        for (caveat, allowed) in [
            (Caveat::Operation(set("read refund")), true),
            (Caveat::Operation(set("read refunds")), false),
            (Caveat::Resource(set("orders/prod/o-17")), true),
            (Caveat::Resource(set("orders/prod orders/prod/o-1")), false),
            (Caveat::Below("orders/prod".parse().unwrap()), true),
            (Caveat::Below("orders/pro".parse().unwrap()), false),
            (Caveat::Below("orders/prod/o-17".parse().unwrap()), false),
            (Caveat::Gateway(set(gateway)), true),
            (Caveat::Gateway(set("spiffe://shop.test/gateway/order")), false),
            (Caveat::Task(set("case-7")), true),
            (Caveat::Task(set("case-70")), false),
            (amount(Limit::AtMost(5)), true),
            (amount(Limit::AtMost(4)), false),
            (amount(Limit::Equals(Value::text("5").unwrap())), false),
        ] {
            assert_eq!(allows(&caveat, 1), allowed, "{caveat}");
            assert_eq!(caveat.check(), Ok(()), "{caveat}");
        }
    }

    #[test]
    fn what_has_no_place_in_a_token_is_refused() {
        let many = (0..33).map(|n| format!("t{n}").parse().unwrap()).collect();
        let half = Timestamp::from_ms(END * 1000 + 500).unwrap();
        for bad in [Caveat::Task(many), Caveat::Task(BTreeSet::new()), Caveat::Before(half)] {
            assert!(bad.check().is_err(), "{bad}");
        }
    }
}
