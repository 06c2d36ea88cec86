//! Points in time. Spans are [`Duration`]s.

use std::fmt;
use std::time::Duration;

use crate::invalid::Invalid;

/// The last millisecond that a timestamp can name: 9999-12-31T23:59:59.999Z.
const LAST_MS: u64 = 253_402_300_799_999;

/// A point in time: whole milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From milliseconds since the epoch of Unix time; refuses what lies beyond the year 9999.
    pub fn from_ms(ms: u64) -> Result<Self, Invalid> {
        if ms > LAST_MS {
            return Err(Invalid::new("time", "must not lie beyond the year 9999"));
        }
        Ok(Self(ms))
    }

    /// From whole seconds since the epoch of Unix time.
    pub fn from_secs(secs: u64) -> Result<Self, Invalid> {
        secs.checked_mul(1000)
            .ok_or_else(|| Invalid::new("time", "must not lie beyond the year 9999"))
            .and_then(Self::from_ms)
    }

    /// Milliseconds since the epoch of Unix time.
    #[must_use]
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch of Unix time, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// The same time with its milliseconds cut off.
    #[must_use]
    pub const fn floor_to_second(self) -> Self {
        Self(self.as_secs().saturating_mul(1000))
    }

    /// `span` later, at most the last time that can be named.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(ms).min(LAST_MS))
    }

    /// `span` earlier, at least the epoch of Unix time.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(ms))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds: `2026-01-31T12:00:00.000Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(self.0 / 86_400_000);
        let ms = self.0 % 86_400_000;
        let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z", ms % 1000)
    }
}

/// Year, month and day of a count of days since 1970-01-01, in the proleptic Gregorian calendar:
/// years are counted from March, so that the leap day is the last day of its year.
#[expect(clippy::arithmetic_side_effects, reason = "the argument is at most LAST_MS in days")]
const fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

/// Where the time comes from. The shell hands one in; tests hand in one that they move by hand.
pub trait Clock: Send + Sync {
    /// The time of day. It may jump, forwards and backwards.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment of this boot, never going back, counting suspend: what
    /// staleness is measured by.
    fn uptime(&self) -> Duration;
}

/// The clock of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Timestamp::default().plus(since)
    }

    fn uptime(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let secs = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
        Duration::new(secs, nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_year_9999_is_refused() {
        assert!(Timestamp::from_ms(LAST_MS + 1).is_err());
        assert!(Timestamp::from_secs(u64::MAX).is_err());
        assert_eq!(Timestamp::from_ms(LAST_MS).unwrap().to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn prints_rfc_3339() {
        let print = |secs| Timestamp::from_secs(secs).unwrap().to_string();
        assert_eq!(print(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(print(951_782_400), "2000-02-29T00:00:00.000Z");
        assert_eq!(print(1_709_251_199), "2024-02-29T23:59:59.000Z");
        assert_eq!(print(4_107_542_399), "2100-02-28T23:59:59.000Z");
    }

    #[test]
    fn arithmetic_saturates() {
        let last = Timestamp::from_ms(LAST_MS).unwrap();
        assert_eq!(last.plus(Duration::MAX), last);
        assert_eq!(Timestamp::default().minus(Duration::from_secs(1)), Timestamp::default());
        assert_eq!(Timestamp::default().since(last), Duration::ZERO);
    }
}
