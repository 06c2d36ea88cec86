//! Points in time. Spans are [`Duration`]s.

use std::fmt;
use std::str::FromStr;
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

impl FromStr for Timestamp {
    type Err = Invalid;

    /// From RFC 3339 in UTC, with or without milliseconds: `2026-01-31T12:00:00Z`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refused = || Invalid::new("time", "must be like 2026-01-31T12:00:00Z, in UTC");
        let whole = text.strip_suffix('Z').ok_or_else(refused)?;
        let (whole, ms) = whole.split_once('.').unwrap_or((whole, "000"));
        let digits = |text: &str, at: std::ops::Range<usize>| -> Option<u64> {
            let part = text.get(at).filter(|part| part.bytes().all(|b| b.is_ascii_digit()))?;
            part.parse().ok()
        };
        let read = || {
            let part = |at| digits(whole, at);
            let day = days_from_civil(part(0..4)?, part(5..7)?, part(8..10)?)?;
            let seconds = [(part(11..13)?, 3600), (part(14..16)?, 60), (part(17..19)?, 1)];
            let seconds = seconds
                .iter()
                .try_fold(0u64, |sum, (n, unit)| sum.checked_add(n.checked_mul(*unit)?))?;
            let seconds = day.checked_mul(86_400)?.checked_add(seconds)?;
            seconds.checked_mul(1000)?.checked_add(digits(ms, 0..3)?)
        };
        let time = Self::from_ms(read().ok_or_else(refused)?)?;
        // One form for each time: whatever is not in it, a thirtieth of February or a
        // twenty-fifth hour, prints as another.
        let printed = time.to_string();
        let same = printed.strip_suffix('Z').map(|whole| whole.split_once('.').unwrap_or_default());
        if same == Some((whole, ms)) { Ok(time) } else { Err(refused()) }
    }
}

/// Days since 1970-01-01 of a day of the proleptic Gregorian calendar: the inverse of
/// [`civil_from_days`] for days that there are; `None` before 1970.
#[expect(clippy::arithmetic_side_effects, reason = "a year has four digits, the rest is bounded")]
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
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
    fn reads_what_it_prints_and_nothing_that_is_no_time() {
        for day in (0..2_932_897).step_by(11) {
            let time = Timestamp::from_ms(day * 86_400_000 + 86_399_999 * (day % 2)).unwrap();
            assert_eq!(time.to_string().parse(), Ok(time));
        }
        let short = "2024-02-29T23:59:59Z".parse();
        assert_eq!(short, Timestamp::from_secs(1_709_251_199));
        for bad in [
            "",
            "Z",
            "now",
            "2024-02-29",
            "2024-02-29T23:59:59",
            "2024-02-29T23:59:59+00:00",
            "2024-02-29 23:59:59Z",
            "2024-02-29t23:59:59z",
            "2023-02-29T00:00:00Z",
            "2024-02-30T00:00:00Z",
            "2024-04-31T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-00-01T00:00:00Z",
            "2024-01-00T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T23:60:00Z",
            "2024-01-01T23:59:60Z",
            "2024-01-01T23:59:59.Z",
            "2024-01-01T23:59:59.1Z",
            "2024-01-01T23:59:59.1234Z",
            "2024-01-01T+3:59:59Z",
            "1969-12-31T23:59:59Z",
            "10000-01-01T00:00:00Z",
            "02024-01-01T00:00:00Z",
        ] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn arithmetic_saturates() {
        let last = Timestamp::from_ms(LAST_MS).unwrap();
        assert_eq!(last.plus(Duration::MAX), last);
        assert_eq!(Timestamp::default().minus(Duration::from_secs(1)), Timestamp::default());
        assert_eq!(Timestamp::default().since(last), Duration::ZERO);
    }
}
