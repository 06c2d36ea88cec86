//! What the trust root says, as this broker has it. Must never take an older statement for a newer
//! one, nor say that a gateway knows a key that it has not acknowledged.

use std::collections::BTreeMap;
use std::time::Duration;

use dayfly_verifier::id::KeyId;
use dayfly_verifier::trust::{ListedKey, Signed, Statement, Untrusted};

/// A statement of the trust root that was verified, and what this broker remembers of those before.
pub struct Trust {
    signed: Signed,
    statement: Statement,
    /// The version that listed each token key first, as far as this process has seen.
    since: BTreeMap<KeyId, u64>,
    /// The same of the feed keys.
    feed_since: BTreeMap<KeyId, u64>,
    taken_at: Duration,
}

impl Trust {
    /// The first statement that this process has, which `signed` was verified to be.
    #[must_use]
    pub fn new(signed: Signed, statement: Statement, uptime: Duration) -> Self {
        let now = |keys: &BTreeMap<KeyId, ListedKey>| {
            keys.keys().map(|key| (*key, statement.version)).collect()
        };
        let (since, feed_since) = (now(&statement.token_keys), now(&statement.feed_keys));
        Self { signed, statement, since, feed_since, taken_at: uptime }
    }

    /// The statement that follows, taken at `uptime`; refuses one that does not.
    pub fn next(
        &self,
        signed: Signed,
        statement: Statement,
        uptime: Duration,
    ) -> Result<Self, Untrusted> {
        self.statement.admits(&statement)?;
        let mut next = Self::new(signed, statement, uptime);
        let (now, before) = (&next.statement, &self.statement);
        stays(&mut next.since, &now.token_keys, &self.since, &before.token_keys);
        stays(&mut next.feed_since, &now.feed_keys, &self.feed_since, &before.feed_keys);
        Ok(next)
    }

    /// Byte for byte as it was signed.
    #[must_use]
    pub const fn signed(&self) -> &Signed {
        &self.signed
    }

    /// What it says.
    #[must_use]
    pub const fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The version from which on a gateway knows a token key; `None` if the trust root does not
    /// list it.
    #[must_use]
    pub fn since(&self, key: KeyId) -> Option<u64> {
        self.since.get(&key).copied()
    }

    /// The version from which on a gateway knows a feed key; `None` if the trust root does not
    /// list it.
    #[must_use]
    pub fn feed_since(&self, key: KeyId) -> Option<u64> {
        self.feed_since.get(&key).copied()
    }

    /// For how long this broker has had it at `uptime`.
    #[must_use]
    pub const fn age(&self, uptime: Duration) -> Duration {
        uptime.saturating_sub(self.taken_at)
    }

    /// Whether an instance that believes `version`, and has this bound, has had all the time at
    /// `uptime` that it may take to fetch this statement.
    #[must_use]
    pub fn is_overdue(&self, version: u64, bound: Duration, uptime: Duration) -> bool {
        version < self.statement.version && uptime > self.taken_at.saturating_add(bound)
    }

    /// Whether such an instance allows nothing more at `uptime`, whatever it does meanwhile: since
    /// it was overdue no heartbeat made it fresh, and what one before did has passed by now.
    #[must_use]
    pub fn is_powerless(&self, version: u64, bound: Duration, uptime: Duration) -> bool {
        self.is_overdue(version, bound.saturating_mul(2), uptime)
    }
}

/// What was listed before as it is `now` is known since then.
fn stays(
    since: &mut BTreeMap<KeyId, u64>,
    now: &BTreeMap<KeyId, ListedKey>,
    known: &BTreeMap<KeyId, u64>,
    before: &BTreeMap<KeyId, ListedKey>,
) {
    for (key, since) in since {
        let same = before.get(key) == now.get(key);
        *since = known.get(key).filter(|_| same).copied().unwrap_or(*since);
    }
}
