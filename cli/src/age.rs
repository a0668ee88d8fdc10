//! Times for people: how long ago, and when in UTC.

use muster_model::time::Timestamp;
use time::OffsetDateTime;

/// How long before `now` something was, with one unit: `12s`, `5m`, `3h`, `2d`.
#[must_use]
pub fn age(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.since(then).0 / 1000;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `2026-11-24 06:28:41`, UTC.
#[must_use]
pub fn utc(at: Timestamp) -> String {
    match moment(at) {
        Some(at) => format!("{} {}", at.date(), clock(at)),
        None => at.0.to_string(),
    }
}

/// `06:28:41`, UTC.
#[must_use]
pub fn utc_clock(at: Timestamp) -> String {
    moment(at).map_or_else(|| at.0.to_string(), clock)
}

fn moment(at: Timestamp) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(at.0 / 1000).ok()?).ok()
}

fn clock(at: OffsetDateTime) -> String {
    format!("{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_one_unit() {
        let ago =
            |seconds: u64| age(Timestamp(1_000_000_000_000), Timestamp(1_000_000_000_000 - seconds * 1000));
        assert_eq!([ago(0), ago(119), ago(120), ago(7_200), ago(200_000)], ["0s", "119s", "2m", "2h", "2d"]);
        assert_eq!(age(Timestamp(1), Timestamp(5_000)), "0s");
    }

    #[test]
    fn a_time_is_utc_and_absurd_ones_do_not_panic() {
        assert_eq!(utc(Timestamp(1_795_501_721_000)), "2026-11-24 06:28:41");
        assert_eq!(utc_clock(Timestamp(u64::MAX)), u64::MAX.to_string());
    }
}
