//! Money as whole nano-dollars, and prices per million tokens.
//!
//! Floats never hold money: a million calls of 0.1 cent must add up to exactly
//! 1,000 dollars. `i64` nano-dollars reach 9.2 billion dollars.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

use serde::{Deserialize, Serialize};

/// An amount in billionths of a US dollar.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct NanoUsd(pub i64);

/// A price for one kind of token, in nano-dollars per million tokens: "$0.15
/// per million" is `Price(150_000_000)`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Price(pub i64);

impl Price {
    /// The cost of this many tokens, rounded half up to a whole nano-dollar.
    /// Saturates instead of overflowing.
    pub fn of(self, tokens: u64) -> NanoUsd {
        let exact = i128::from(self.0) * i128::from(tokens);
        let rounded = (exact + 500_000).div_euclid(1_000_000);
        NanoUsd(i64::try_from(rounded).unwrap_or(i64::MAX))
    }
}

impl Add for NanoUsd {
    type Output = Self;

    /// Saturating: a sum that overflows is shown as the largest amount, never as a negative one.
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sum for NanoUsd {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self(0), Add::add)
    }
}

impl fmt::Display for NanoUsd {
    /// Dollars with as many digits as the amount has, at least two: `$1.50`, `$0.000123`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nanos = self.0.unsigned_abs();
        let fraction = format!("{:09}", nanos % 1_000_000_000);
        let shown = fraction.trim_end_matches('0');
        write!(f, "{sign}${}.{:0<2}", nanos / 1_000_000_000, shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_round_half_up_and_never_overflow() {
        let check = |price, tokens, nanos| assert_eq!(Price(price).of(tokens), NanoUsd(nanos));
        check(150_000_000, 1_000_000, 150_000_000);
        check(150_000_000, 7, 1050);
        check(37_500_000, 1, 38);
        check(i64::MAX, u64::MAX, i64::MAX);
        check(0, 5, 0);
    }

    #[test]
    fn amounts_read_as_dollars() {
        assert_eq!(NanoUsd(1_500_000_000).to_string(), "$1.50");
        assert_eq!(NanoUsd(123_000).to_string(), "$0.000123");
        assert_eq!(NanoUsd(0).to_string(), "$0.00");
        assert_eq!(NanoUsd(-5).to_string(), "-$0.000000005");
    }
}
