//! Times as clients read and write them: ISO 8601, with an offset.

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, Utc};
use herald_schemas::ids::UnixMs;

const DAY_MS: UnixMs = 86_400_000;

/// Such as `2026-01-31T12:00:00.000+00:00`.
pub(crate) fn format(at: UnixMs) -> String {
    let time = DateTime::<Utc>::from_timestamp_millis(at).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Millis, false)
}

/// ISO 8601 with an offset; without one it is UTC's, and a date alone is its midnight.
pub(crate) fn parse(text: &str) -> Option<UnixMs> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_millis());
    }
    for form in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, form) {
            return Some(time.and_utc().timestamp_millis());
        }
    }
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis())
}

/// The end of a range: of a date alone, its whole day.
pub(crate) fn end(text: &str) -> Option<UnixMs> {
    let is_date = NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok();
    let length = if is_date { DAY_MS } else { 1 };
    Some(parse(text)?.saturating_add(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_back_as_itself() {
        assert_eq!(format(1_700_000_000_123), "2023-11-14T22:13:20.123+00:00");
        for (text, expected) in [
            ("2023-11-14T22:13:20.123+00:00", Some(1_700_000_000_123)),
            ("2023-11-15T01:13:20+03:00", Some(1_700_000_000_000)),
            ("2023-11-14T22:13:20Z", Some(1_700_000_000_000)),
            ("2023-11-14 22:13:20", Some(1_700_000_000_000)),
            ("2023-11-14", Some(1_699_920_000_000)),
            ("tomorrow", None),
            ("2023-02-30", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
