//! Times and spans as people write and read them. All times are UTC.

use std::time::Duration;

use dayfly_verifier::time::{Clock as _, SystemClock, Timestamp};

const SECONDS_A_DAY: u64 = 24 * 60 * 60;

/// The time of day, `14:03:07Z`; with its date, `2027-01-31T14:03:07Z`, where that is not today.
pub(super) fn time(at: Timestamp) -> String {
    time_on(at, SystemClock.now())
}

/// The same of a time as it stands in messages; nothing for what is none.
pub(super) fn time_of_ms(ms: i64) -> String {
    let at = u64::try_from(ms).ok().and_then(|ms| Timestamp::from_ms(ms).ok());
    at.map(time).unwrap_or_default()
}

fn time_on(at: Timestamp, now: Timestamp) -> String {
    let text = at.to_string();
    let whole = text.split('.').next().unwrap_or_default();
    match whole.split_once('T') {
        Some((_, time)) if same_day(at, now) => format!("{time}Z"),
        Some(_) | None => format!("{whole}Z"),
    }
}

/// Whether both are of one day.
pub(super) const fn same_day(one: Timestamp, other: Timestamp) -> bool {
    one.as_secs() / SECONDS_A_DAY == other.as_secs() / SECONDS_A_DAY
}

/// A span as people say it, rounded down: `7s`, `4m 12s`, `2h 01m`, `364d 5h`.
pub(super) fn span(span: Duration) -> String {
    let (minutes, seconds) = (span.as_secs() / 60, span.as_secs() % 60);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    match (hours / 24, hours % 24) {
        (0, 0) if minutes == 0 => format!("{seconds}s"),
        (0, 0) => format!("{minutes}m {seconds:02}s"),
        (0 | 1, _) => format!("{hours}h {minutes:02}m"),
        (days, hours) => format!("{days}d {hours}h"),
    }
}

/// A moment as people write it: a time or a day of RFC 3339 in UTC, or how long ago.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    let rule = "must be as `2026-01-31T09:00:00Z`, or how long ago, as `15m`";
    if let Ok(time) = text.parse().or_else(|_| format!("{text}T00:00:00Z").parse()) {
        return Ok(time);
    }
    let (count, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(rule)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => SECONDS_A_DAY,
        _ => return Err(rule.to_owned()),
    };
    let count: u64 = count.parse().map_err(|_| rule)?;
    let ago = seconds.checked_mul(count).ok_or(rule)?;
    Ok(SystemClock.now().minus(Duration::from_secs(ago)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_stands_where_it_is_not_today() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-11-22T19:10:36.123Z");
        let said = |text| time_on(at(text), now);
        assert_eq!(said("2026-11-22T00:00:00Z"), "00:00:00Z");
        assert_eq!(said("2026-11-22T23:59:59.999Z"), "23:59:59Z");
        for other in ["2026-11-23T00:00:00Z", "2026-11-21T23:59:59Z", "2027-11-22T19:10:36Z"] {
            assert_eq!(said(other), other);
        }
        assert_eq!(time_of_ms(-1), "");
    }

    #[test]
    fn spans_read_as_people_say_them() {
        let said = |secs| span(Duration::from_secs(secs));
        assert_eq!([said(7), said(252), said(7300)], ["7s", "4m 12s", "2h 01m"]);
        assert_eq!([said(3600), said(172_799), said(172_800)], ["1h 00m", "47h 59m", "2d 0h"]);
    }

    #[test]
    fn moments_read_as_they_are_printed() {
        let read = |text: &str| moment(text).unwrap().to_string();
        assert_eq!(read("2024-02-29"), "2024-02-29T00:00:00.000Z");
        assert_eq!(read("2024-02-29T01:02:03Z"), "2024-02-29T01:02:03.000Z");
        assert_eq!(read("2024-02-29T01:02:03.004Z"), "2024-02-29T01:02:03.004Z");
        assert!(moment("15m").unwrap() < SystemClock.now());
        for bad in ["2023-02-29", "2026-13-01", "2026-1-01", "2026-01-01T24:00:00Z", "2026", ""] {
            assert!(moment(bad).is_err(), "{bad}");
        }
        for bad in ["m", "15", "15x", "-1m", "2026-01-01T00:00:00+01:00"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }
}
