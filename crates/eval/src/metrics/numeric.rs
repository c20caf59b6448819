//! Numbers in texts, compared with a tolerance.
//!
//! A number may be written with separators between groups of three (`1,234.5`), with full-width
//! digits, with a sign and an exponent. A decimal comma is not understood: `1,5` is ambiguous, and
//! guessing would score wrong answers as right.

use std::sync::LazyLock;

use regex::Regex;

use crate::text::nfkc;

/// Which number of a text counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The text must be a number and nothing else.
    Whole,
    /// The first.
    First,
    /// The last: models put the result at the end.
    Last,
}

static NUMBER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"[-+]?(?:[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?").ok()
});

/// The number of a text, finite.
pub fn find_number(text: &str, which: Which) -> Option<f64> {
    let text = nfkc(text).replace('\u{2212}', "-");
    let text = crate::text::trim(&text);
    let mut found = NUMBER.as_ref()?.find_iter(text);
    let found = match which {
        Which::Whole => found.next().filter(|one| one.as_str() == text),
        Which::First => found.next(),
        Which::Last => found.last(),
    }?;
    let number: f64 = found.as_str().replace(',', "").parse().ok()?;
    number.is_finite().then_some(number)
}

/// Whether two numbers are as near as both tolerances together allow: |a − b| ≤ absolute +
/// relative · |expected|.
pub fn is_close(output: f64, expected: f64, absolute: f64, relative: f64) -> bool {
    (output - expected).abs() <= absolute + relative * expected.abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let check = |text: &str, which: Which, expected: Option<f64>| {
            assert_eq!(find_number(text, which), expected, "{text}");
        };
        check("1,234.5", Which::Whole, Some(1234.5));
        check(" １２３ ", Which::Whole, Some(123.0));
        check("about 3", Which::Whole, None);
        check("from 3 to −4.5e1 kg", Which::First, Some(3.0));
        check("from 3 to −4.5e1 kg", Which::Last, Some(-45.0));
        check("1e999", Which::First, None);
        check("none", Which::Last, None);
        assert!(is_close(1.05, 1.0, 0.0, 0.05 + 1e-12));
        assert!(!is_close(1.06, 1.0, 0.0, 0.05));
    }
}
