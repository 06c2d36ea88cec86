//! What the annotations of a policy demand, and how several demands combine.
//!
//! Cedar accepts any annotation without a word; here one that is unknown, misspelt, misplaced,
//! empty or unparsable refuses the bundle.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use cedar_policy::{Effect, Policy};
use dayfly_verifier::id::GroupId;
use dayfly_verifier::request::Requirement;

use crate::core::limits::MAX_USES;

/// The longest lease that a policy may allow.
pub const HARD_MAX_LEASE: Duration = Duration::from_secs(12 * 3600);
/// The longest lease where a policy does not say.
pub const MAX_LEASE: Duration = Duration::from_secs(3600);
/// The lease of a request that does not say.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(5 * 60);
/// The most people of one group that a policy may ask for.
const MAX_APPROVALS: u32 = 16;
/// The longest reason, in bytes.
const MAX_REASON_BYTES: usize = 512;

/// What a policy says besides yes or no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rule {
    /// It permits, and demands this.
    Permit(Demand),
    /// It forbids, for this reason.
    Forbid(String),
}

/// What policies demand, and which of them set the limits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Demand {
    approvals: BTreeMap<GroupId, NonZeroU32>,
    max_lease: Option<(Duration, String)>,
    max_uses: Option<(NonZeroU32, String)>,
    /// Each use is to be evaluated.
    online: bool,
}

/// The annotations of `policy`, whose name is `id`; or what is wrong with them.
pub(super) fn read(
    policy: &Policy,
    id: &str,
    groups: &BTreeSet<GroupId>,
) -> Result<Rule, Vec<String>> {
    let mut problems = Vec::new();
    let mut demand = Demand::default();
    let mut found = BTreeMap::new();
    for (name, value) in policy.annotations() {
        let read = match (policy.effect(), name) {
            (_, "id") => Ok(()),
            (Effect::Permit, "approvals") => {
                approvals(value, groups).map(|approvals| demand.approvals = approvals)
            }
            (Effect::Permit, "max_ttl") => {
                lease(value).map(|lease| demand.max_lease = Some((lease, id.to_owned())))
            }
            (Effect::Permit, "max_uses") => {
                count(value, MAX_USES).map(|uses| demand.max_uses = Some((uses, id.to_owned())))
            }
            (Effect::Permit, "online") if value.is_empty() => {
                demand.online = true;
                Ok(())
            }
            (Effect::Permit, "online") => Err("takes no value".into()),
            (Effect::Permit, "evidence" | "presence") => {
                Err("is not supported by this version".into())
            }
            (Effect::Forbid, "reason") => reason(value),
            (Effect::Permit, "reason") => Err("stands only on a forbid".into()),
            (
                Effect::Forbid,
                "approvals" | "max_ttl" | "max_uses" | "online" | "evidence" | "presence",
            ) => Err("stands only on a permit".into()),
            (Effect::Permit | Effect::Forbid, _) => Err("is not an annotation that we know".into()),
        };
        if let Err(rule) = read {
            problems.push(format!("`@{}` {rule}", name.escape_default()));
        }
        found.insert(name, value);
    }
    let rule = match policy.effect() {
        Effect::Permit => {
            if !found.contains_key("approvals") {
                let rule = "`@approvals` is missing: write who must approve, or \"none\"";
                problems.push(rule.into());
            }
            demand.max_lease.get_or_insert((MAX_LEASE, "default".into()));
            Rule::Permit(demand)
        }
        Effect::Forbid => {
            if !found.contains_key("reason") {
                problems.push("`@reason` is missing: requesters are shown it".into());
            }
            Rule::Forbid(found.get("reason").copied().unwrap_or_default().to_owned())
        }
    };
    if problems.is_empty() { Ok(rule) } else { Err(problems) }
}

/// `none`, or `dba:1, security:2`.
fn approvals(
    value: &str,
    groups: &BTreeSet<GroupId>,
) -> Result<BTreeMap<GroupId, NonZeroU32>, String> {
    let mut approvals = BTreeMap::new();
    if value == "none" {
        return Ok(approvals);
    }
    for item in value.split(',').map(str::trim) {
        let Some((group, people)) = item.split_once(':') else {
            return Err("must be \"none\", or groups with counts: \"dba:1, security:1\"".into());
        };
        let group: GroupId = group.parse().map_err(|_| "must name groups of people.toml")?;
        if !groups.contains(&group) {
            return Err(format!("names `{group}`, which is not a group of people.toml"));
        }
        let people = count(people, MAX_APPROVALS)?;
        if approvals.insert(group, people).is_some() {
            return Err("must not name a group twice".into());
        }
    }
    Ok(approvals)
}

/// A whole number from 1, in decimal digits alone.
fn count(text: &str, most: u32) -> Result<NonZeroU32, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let count = text.parse::<NonZeroU32>().ok().filter(|count| digits && count.get() <= most);
    count.ok_or_else(|| format!("must count from 1 to {most}, in digits"))
}

/// A whole number of seconds, minutes or hours: `90s`, `10m`, `1h`.
pub(crate) fn lease(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let lease = units.into_iter().find_map(|(unit, seconds)| {
        let number = count(text.strip_suffix(unit)?, u32::MAX).ok()?;
        Some(Duration::from_secs(u64::from(number.get()).checked_mul(seconds)?))
    });
    let lease = lease.filter(|lease| *lease <= HARD_MAX_LEASE);
    lease.ok_or_else(|| "must be a time such as \"90s\", \"10m\" or \"1h\", at most 12h".into())
}

fn reason(text: &str) -> Result<(), String> {
    let plain = !text.trim().is_empty() && !text.contains(char::is_control);
    if plain && text.len() <= MAX_REASON_BYTES {
        Ok(())
    } else {
        Err("must be a sentence of at most 512 bytes on one line".into())
    }
}

impl Demand {
    /// Both demands together: the most restrictive of each.
    pub(super) fn and(mut self, other: &Self) -> Self {
        for (group, people) in &other.approvals {
            let most = self.approvals.entry(group.clone()).or_insert(*people);
            *most = (*people).max(*most);
        }
        self.max_lease = least(self.max_lease, other.max_lease.clone());
        self.max_uses = least(self.max_uses, other.max_uses.clone());
        self.online |= other.online;
        self
    }

    /// The longest lease, and the policy that says so.
    pub(super) fn max_lease(&self) -> (Duration, &str) {
        self.max_lease.as_ref().map_or((MAX_LEASE, "default"), |(lease, by)| (*lease, by))
    }

    /// The same of a destructive operation: one use where no policy that permits it says how many.
    /// To be applied before demands are put together, so that a number which another right may be
    /// used does not stand in for it.
    pub(super) fn destructive(mut self) -> Self {
        self.max_uses.get_or_insert((NonZeroU32::MIN, "default".into()));
        self
    }

    /// The most uses, and the policy that says so.
    pub(super) fn max_uses(&self) -> Option<(NonZeroU32, &str)> {
        self.max_uses.as_ref().map(|(uses, by)| (*uses, by.as_str()))
    }

    /// The same, as requests carry it.
    pub(super) fn requirement(&self) -> Requirement {
        Requirement {
            approvals: self.approvals.clone(),
            max_lifetime: self.max_lease().0,
            max_uses: self.max_uses().map(|(uses, _)| uses),
            online: self.online,
            evidence: false,
            presence: false,
        }
    }
}

/// The lesser of two limits; no limit is the greatest.
fn least<T: Ord>(a: Option<(T, String)>, b: Option<(T, String)>) -> Option<(T, String)> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.0 < a.0 { b } else { a }),
        (a, b) => a.or(b),
    }
}
