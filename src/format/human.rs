//! Times, durations and sizes as docker words them.

/// Nanoseconds since 1970, UTC.
pub type Nanoseconds = u64;

const SECOND: u64 = 1_000_000_000;

/// `About a minute`, `3 days`: docker's rough duration.
pub fn duration(nanoseconds: u64) -> String {
    let seconds = nanoseconds / SECOND;
    let minutes = seconds / 60;
    // Rounded to the nearest hour.
    let hours = (seconds + 1800) / 3600;
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (seconds, ..) if seconds < 60 => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, minutes, _) if minutes < 60 => format!("{minutes} minutes"),
        (_, _, 1) => "About an hour".to_owned(),
        (_, _, hours) if hours < 48 => format!("{hours} hours"),
        (_, _, hours) if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        (_, _, hours) if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        (_, _, hours) if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        (seconds, ..) => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// `4.26MB`: powers of 1000, three digits.
pub fn size(bytes: u64) -> String {
    significant(bytes, 3)
}

/// `9.537MiB`: powers of 1024, four digits.
pub fn binary_size(bytes: u64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], 4)
}

/// As [`size`] with so many digits.
pub(super) fn significant(bytes: u64, digits: usize) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], digits)
}

/// In the manner of C's `%.*g`.
fn scaled(bytes: u64, base: f64, units: &[&str; 7], digits: usize) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let before_point = if value >= 1000.0 {
        4
    } else if value >= 100.0 {
        3
    } else if value >= 10.0 {
        2
    } else {
        1
    };
    let mut text = format!("{value:.*}", digits.saturating_sub(before_point));
    // 999.6 has become 1000: %g goes to 1e+03, as docker prints it.
    if text.split('.').next().is_some_and(|whole| whole.len() > digits) {
        text = format!("1e+{:02}", digits);
    }
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    format!("{text}{}", units[unit])
}

/// `2025-01-02T03:04:05.123456789Z`: RFC 3339, without zeros at the end; `None` is Go's zero time.
pub fn rfc3339(time: Option<Nanoseconds>) -> String {
    let Some(time) = time else {
        return "0001-01-01T00:00:00Z".to_owned();
    };
    let (year, month, day, hour, minute, second) = civil(time / SECOND);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    match time % SECOND {
        0 => {}
        part => text += format!(".{part:09}").trim_end_matches('0'),
    }
    text + "Z"
}

/// `2025-01-02T03:04:05.123456789Z`, always with nine digits.
pub fn rfc3339_nano(time: Nanoseconds) -> String {
    let whole = rfc3339(Some(time / SECOND * SECOND));
    format!("{}.{:09}Z", whole.trim_end_matches('Z'), time % SECOND)
}

/// `2025-01-02 03:04:05 +0000 UTC`: the form of docker's CreatedAt.
pub fn created_at(seconds: u64) -> String {
    let (year, month, day, hour, minute, second) = civil(seconds);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} +0000 UTC")
}

/// Year, month, day, hour, minute, second of seconds since 1970 (the civil calendar, counted from March).
fn civil(seconds: u64) -> (u64, u64, u64, u64, u64, u64) {
    let (days, of_day) = (seconds / 86400 + 719_468, seconds % 86400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day, of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// At most `width` columns, the last one `…` where something is missing.
pub(super) fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_dockers() {
        let (minute, hour, day) = (60, 3600, 86400);
        let table = [
            (0, "Less than a second"),
            (1, "1 second"),
            (2, "2 seconds"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (2 * minute, "2 minutes"),
            (59 * minute + 59, "59 minutes"),
            (hour, "About an hour"),
            (89 * minute, "About an hour"),
            (90 * minute, "2 hours"),
            (47 * hour, "47 hours"),
            (48 * hour, "2 days"),
            (13 * day, "13 days"),
            (14 * day, "2 weeks"),
            (59 * day, "8 weeks"),
            (60 * day, "2 months"),
            (700 * day, "23 months"),
            (730 * day, "2 years"),
            (20_000 * day, "54 years"),
        ];
        for (seconds, text) in table {
            assert_eq!(duration(seconds * SECOND), text, "{seconds}");
        }
    }

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1500, "1.5kB"),
            (4_261_550, "4.26MB"),
            (12_345_678, "12.3MB"),
            (126_000_000, "126MB"),
            (1_234_567_890, "1.23GB"),
            (999_999, "1e+03kB"),
            (u64::MAX, "18.4EB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(significant(4_261_550, 4), "4.262MB");
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(rfc3339(Some(1_735_787_045_123_456_789)), "2025-01-02T03:04:05.123456789Z");
        assert_eq!(rfc3339(Some(951_782_400_500_000_000)), "2000-02-29T00:00:00.5Z");
        assert_eq!(rfc3339(None), "0001-01-01T00:00:00Z");
        assert_eq!(created_at(0), "1970-01-01 00:00:00 +0000 UTC");
        assert_eq!(created_at(4_107_542_399), "2100-02-28 23:59:59 +0000 UTC");
    }
}
