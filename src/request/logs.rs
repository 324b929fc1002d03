//! `logs --since` and `--until`: a point in time, in docker's forms.

use jiff::tz::TimeZone;

/// Nanoseconds since 1970, UTC.
pub type Nanoseconds = i128;

const SECOND: i128 = 1_000_000_000;

/// Reads `2013-01-02T13:23:37Z` (time, seconds, fraction and zone may be missing), seconds since 1970
/// with a fraction if wanted, or a duration back from `now`: `42m`, `1h30m`. A time without a zone is the user's.
///
/// # Errors
/// The forms that are understood.
pub fn time(flag: &str, text: &str, now: Nanoseconds) -> Result<Nanoseconds, super::Invalid> {
    time_in(flag, text, now, &TimeZone::system())
}

/// The same on the clock of this zone.
fn time_in(flag: &str, text: &str, now: Nanoseconds, zone: &TimeZone) -> Result<Nanoseconds, super::Invalid> {
    let found = seconds(text).or_else(|| duration(text).map(|back| now - back)).or_else(|| date(text, zone));
    found.ok_or_else(|| {
        super::Invalid::value(
            flag,
            text,
            "write a time such as 2013-01-02T13:23:37Z, seconds since 1970, or 42m for 42 minutes ago",
        )
        .by_engine()
    })
}

fn digits(text: &str) -> Option<i128> {
    let all = !text.is_empty() && text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| all)
}

/// A fraction of a second, up to nine digits.
fn fraction(text: &str) -> Option<i128> {
    digits(text).filter(|_| text.len() <= 9)?;
    digits(&format!("{text:0<9}"))
}

fn seconds(text: &str) -> Option<i128> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    Some(digits(whole)? * SECOND + fraction(part)?)
}

/// Go's durations: `1h30m`, `1.5s`, `300ms`.
pub(super) fn duration(text: &str) -> Option<i128> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest.is_empty() {
        return None;
    }
    let mut total = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(number_end);
        if number.is_empty() {
            return None;
        }
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let unit = match unit {
            "ns" => 1,
            "us" | "µs" => 1000,
            "ms" => 1_000_000,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3600 * SECOND,
            _ => return None,
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let whole = if whole.is_empty() { 0 } else { digits(whole).filter(|whole| *whole < 1 << 40)? };
        total += whole * unit + fraction(part)? * unit / SECOND;
        rest = next;
    }
    Some(sign * total)
}

fn date(text: &str, here: &TimeZone) -> Option<i128> {
    let (day, clock) = text.split_once('T').unwrap_or((text, ""));
    // A zone may follow the day alone: 2006-01-02Z, 2006-01-02+01:00.
    let (day, clock) = match (clock.is_empty(), day.get(10..)) {
        (true, Some(zone)) => (day.get(..10)?, zone),
        _ => (day, clock),
    };
    let mut parts = day.split('-');
    let (year, month, day) = (digits(parts.next()?)?, digits(parts.next()?)?, digits(parts.next()?)?);
    let fits =
        parts.next().is_none() && (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !fits || text.ends_with('T') {
        return None;
    }
    let zone_at = clock.find(['Z', '+', '-']).unwrap_or(clock.len());
    let (clock, zone) = clock.split_at(zone_at);
    let there = days(year, month, day) * 86400 * SECOND + time_of_day(clock)?;
    Some(there - if zone.is_empty() { offset_here(there, here)? } else { offset(zone)? })
}

fn time_of_day(text: &str) -> Option<i128> {
    if text.is_empty() {
        return Some(0);
    }
    let (clock, part) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = clock.split(':');
    let hour = digits(parts.next()?)?;
    let minute = parts.next().map_or(Some(0), digits)?;
    let second = parts.next().map_or(Some(0), digits)?;
    let fits = parts.next().is_none() && hour < 24 && minute < 60 && second < 61;
    fits.then_some(((hour * 60 + minute) * 60 + second) * SECOND + fraction(part)?)
}

/// Of a time on the user's clock.
fn offset_here(there: i128, here: &TimeZone) -> Option<i128> {
    let civil = TimeZone::UTC.to_datetime(jiff::Timestamp::from_nanosecond(there).ok()?);
    let time = here.to_timestamp(civil).ok()?;
    Some(there - time.as_nanosecond())
}

fn offset(zone: &str) -> Option<i128> {
    let (sign, zone) = match zone {
        "Z" => return Some(0),
        _ => match (zone.strip_prefix('+'), zone.strip_prefix('-')) {
            (Some(zone), _) => (1, zone),
            (_, Some(zone)) => (-1, zone),
            _ => return None,
        },
    };
    let (hours, minutes) = zone.split_once(':')?;
    Some(sign * (digits(hours)? * 60 + digits(minutes)?) * 60 * SECOND)
}

/// Days from 1970-01-01 (the civil calendar, counted from March so that the leap day comes last).
fn days(year: i128, month: i128, day: i128) -> i128 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_dockers_forms() {
        let now = 1_000_000 * SECOND;
        let table = [
            ("1136073600", 1_136_073_600 * SECOND),
            ("1136073600.5", 1_136_073_600 * SECOND + SECOND / 2),
            ("1136073600.000000001", 1_136_073_600 * SECOND + 1),
            ("42m", now - 42 * 60 * SECOND),
            ("1h30m", now - 5400 * SECOND),
            ("1.5s", now - 3 * SECOND / 2),
            ("300ms", now - 300_000_000),
            ("2013-01-02T13:23:37Z", 1_357_133_017 * SECOND),
            ("2013-01-02T13:23:37.25Z", 1_357_133_017 * SECOND + SECOND / 4),
            ("2013-01-02T13:23:37+01:00", 1_357_129_417 * SECOND),
            ("2013-01-02T13:23:37-01:30", 1_357_138_417 * SECOND),
            ("2013-01-02T13:23:37", 1_357_133_017 * SECOND),
            ("2013-01-02T13:23", 1_357_132_980 * SECOND),
            ("2013-01-02", 1_357_084_800 * SECOND),
            ("2013-01-02Z", 1_357_084_800 * SECOND),
            ("2000-02-29", 951_782_400 * SECOND),
            ("1970-01-01", 0),
        ];
        for (text, expected) in table {
            assert_eq!(time_in("--since", text, now, &TimeZone::UTC).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "x",
            "42",
            "42q",
            "m",
            "1h-30m",
            "2013",
            "2013-13-01",
            "2013-01-32",
            "2013-01-02T",
            "2013-01-02T25:00",
            "2013-01-02T13:23:37X",
            "99999999999999999999",
            "1.1.1",
            "-",
            "2013-01-02 13:00",
            "1.0000000001",
        ] {
            let result = time_in("--since", text, 0, &TimeZone::UTC);
            // A bare number is seconds since 1970.
            assert_eq!(result.is_ok(), matches!(text, "42" | "2013"), "{text}: {result:?}");
        }
    }

    #[test]
    fn a_time_without_a_zone_is_the_users() {
        let east = TimeZone::fixed(jiff::tz::offset(2));
        for (text, expected) in [
            ("1970-01-02T02:00:00", 86400 * SECOND),
            ("1970-01-02T02:00:00Z", 93600 * SECOND),
            ("1970-01-02", 79200 * SECOND),
        ] {
            assert_eq!(time_in("--since", text, 0, &east).unwrap(), expected, "{text}");
        }
    }
}
