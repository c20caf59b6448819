//! Times as people and programs write them: microseconds, RFC 3339, or relative
//! to now (`-1h`). One reader for the API, the pages and the command line.
//!
//! A bare number is always microseconds since the epoch, the unit of every
//! `_at` field; seconds would silently mean 1970, so small numbers are refused.

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;
/// 2001-09-09 in microseconds; a smaller number is seconds or milliseconds by mistake.
const LEAST_US: i64 = 1_000_000_000_000_000;

/// Reads a time, relative to `now_us` where it is relative.
///
/// # Errors
/// What is wrong with it, and which forms there are.
pub fn parse_time(text: &str, now_us: i64) -> Result<i64, String> {
    let text = text.trim();
    let parsed = if text == "now" {
        Some(now_us)
    } else if let Some(ago) = text.strip_prefix('-') {
        parse_duration_us(ago).and_then(|ago_us| now_us.checked_sub(ago_us))
    } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok().filter(|us| *us >= LEAST_US)
    } else {
        parse_rfc3339(text)
    };
    parsed.ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        format!(
            "{shown:?} is not a time; write microseconds since 1970, 2026-11-21T09:30:00Z, 2026-11-21, \
             or how long ago: -15m, -1h, -7d"
        )
    })
}

/// Reads `90s`, `15m`, `1h`, `7d` or `2w`.
pub fn parse_duration_us(text: &str) -> Option<i64> {
    let unit_us = match text.chars().last()? {
        's' => SECOND_US,
        'm' => 60 * SECOND_US,
        'h' => 3600 * SECOND_US,
        'd' => DAY_US,
        'w' => 7 * DAY_US,
        _ => return None,
    };
    let digits = &text[..text.len() - 1];
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<i64>().ok()?.checked_mul(unit_us)
}

/// A time as RFC 3339 in UTC with milliseconds: `2026-11-21T09:30:00.125Z`.
pub fn format_rfc3339(us: i64) -> String {
    let (days, of_day_us) = (us.div_euclid(DAY_US), us.rem_euclid(DAY_US));
    let (year, month, day) = date_of_days(days);
    let seconds = of_day_us / SECOND_US;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let millis = of_day_us % SECOND_US / 1000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

fn parse_rfc3339(text: &str) -> Option<i64> {
    if !text.is_ascii() {
        return None;
    }
    let (date, time) = match text.len() {
        10 => (text, None),
        11.. => match &text[10..11] {
            "T" | "t" | " " => (&text[..10], Some(&text[11..])),
            _ => return None,
        },
        _ => return None,
    };
    let day_us = days_of_date(date)?.checked_mul(DAY_US)?;
    match time {
        None => Some(day_us),
        Some(time) => day_us.checked_add(time_of_day_us(time)?),
    }
}

/// `HH:MM[:SS[.fraction]]` and a zone (`Z`, `+09:00`; absent is UTC), as
/// microseconds to add to the day.
fn time_of_day_us(text: &str) -> Option<i64> {
    let zone_at = text.find(['Z', 'z', '+', '-']).unwrap_or(text.len());
    let (clock, zone) = text.split_at(zone_at);
    let mut parts = clock.split(':');
    let hour = two_digits(parts.next()?, 23)?;
    let minute = two_digits(parts.next()?, 59)?;
    let (second, fraction_us) = match parts.next() {
        None => (0, 0),
        Some(rest) => {
            let (second, fraction) = rest.split_once('.').unwrap_or((rest, "0"));
            (two_digits(second, 60)?, fraction_us(fraction)?)
        }
    };
    if parts.next().is_some() {
        return None;
    }
    Some((hour * 3600 + minute * 60 + second) * SECOND_US + fraction_us - zone_offset_us(zone)?)
}

fn fraction_us(digits: &str) -> Option<i64> {
    if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    format!("{digits:0<6}")[..6].parse().ok()
}

fn zone_offset_us(zone: &str) -> Option<i64> {
    if matches!(zone, "" | "Z" | "z") {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = zone[1..].split_once(':')?;
    Some(sign * (two_digits(hours, 23)? * 3600 + two_digits(minutes, 59)? * 60) * SECOND_US)
}

fn two_digits(text: &str, most: i64) -> Option<i64> {
    let good = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| good && *number <= most)
}

/// Days since 1970-01-01 of `YYYY-MM-DD` in the Gregorian calendar.
fn days_of_date(date: &str) -> Option<i64> {
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let digits = year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit());
    let (month, day) = (two_digits(month, 12)?, two_digits(day, 31)?);
    if !digits || parts.next().is_some() || month == 0 {
        return None;
    }
    let days = days_before(year.parse().ok()?, month) + day - 1;
    // The round trip refuses 31 February and its like.
    (date_of_days(days).2 == day && day > 0).then_some(days)
}

/// Days from 1970-01-01 to the first of this month. The year is counted from
/// March, so that the leap day is its last and every month begins at a fixed place.
fn days_before(year: i64, month: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let from_march = (month + 9) % 12;
    let day_of_year = (153 * from_march + 2) / 5;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + day_of_year - 719_468
}

fn date_of_days(days: i64) -> (i64, i64, i64) {
    // The average Gregorian year is 365.2425 days; the guess is off by one at most.
    let mut year = 1970 + (days * 400).div_euclid(146_097);
    while days_before(year + 1, 1) <= days {
        year += 1;
    }
    while days_before(year, 1) > days {
        year -= 1;
    }
    let month = (1..=12)
        .rev()
        .find(|month| days_before(year, *month) <= days)
        .unwrap_or(1);
    (year, month, days - days_before(year, month) + 1)
}
