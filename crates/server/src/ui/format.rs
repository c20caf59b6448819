//! How values read on pages: money, times, sizes. Pure functions behind template filters.

use base::NanoUsd;
use minijinja::Environment;

use crate::traces::time::format_rfc3339;

pub(super) fn add_filters(environment: &mut Environment<'static>) {
    environment.add_filter("usd", |nanos: i64| usd(nanos));
    environment.add_filter("int", |number: i64| grouped(number));
    environment.add_filter("ms", |micros: i64| duration(micros));
    environment.add_filter("iso", |micros: i64| format_rfc3339(micros));
    environment.add_filter("datetime", |micros: i64| datetime(micros));
    environment.add_filter("bytes", |count: i64| bytes(count));
    environment.add_filter("percent", |ratio: f64| percent(ratio));
    environment.add_filter("markdown", |text: String| {
        minijinja::Value::from_safe_string(super::markdown::html(&text))
    });
    environment.add_filter("reveal", |text: String| base::text::reveal(&text));
}

/// Dollars: cents from one cent on, four significant digits below.
fn usd(nanos: i64) -> String {
    let dollars = nanos.unsigned_abs() as f64 / 1e9;
    let sign = if nanos < 0 { "-" } else { "" };
    if nanos == 0 {
        "$0".to_owned()
    } else if dollars >= 0.01 {
        let cents = (dollars * 100.0).round() as i64;
        format!("{sign}${}.{:02}", grouped(cents / 100), cents % 100)
    } else {
        let exact = NanoUsd(nanos).to_string();
        let first = exact
            .find(|c: char| c.is_ascii_digit() && c != '0')
            .unwrap_or(0);
        exact
            .chars()
            .take(first + 4)
            .collect::<String>()
            .trim_end_matches('0')
            .to_owned()
    }
}

/// Digits in groups of three.
fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut out = String::with_capacity(digits.len() + 4);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if number < 0 { format!("-{out}") } else { out }
}

/// A duration in the unit that gives two to four digits.
fn duration(micros: i64) -> String {
    let millis = micros as f64 / 1e3;
    if micros.abs() < 1000 {
        format!("{micros} µs")
    } else if millis < 10.0 {
        format!("{millis:.1} ms")
    } else if millis < 1000.0 {
        format!("{millis:.0} ms")
    } else if millis < 60_000.0 {
        format!("{:.2} s", millis / 1e3)
    } else {
        let seconds = micros / 1_000_000;
        format!("{} min {} s", seconds / 60, seconds % 60)
    }
}

/// Date and time in UTC, for readers without scripts.
fn datetime(micros: i64) -> String {
    let iso = format_rfc3339(micros);
    format!("{} {} UTC", &iso[..10], &iso[11..19])
}

fn bytes(count: i64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut size = count as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit < units.len() - 1 {
        size /= 1000.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{size:.1} {}", units[unit])
    }
}

fn percent(ratio: f64) -> String {
    let percent = ratio * 100.0;
    if percent == 0.0 || percent >= 10.0 {
        format!("{percent:.0} %")
    } else {
        format!("{percent:.1} %")
    }
}
