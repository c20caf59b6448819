//! Methods for counts of a sample whose size was fixed before: one rate, or two on the
//! same rows. Looking again and again at these breaks their promise, so pages that
//! refresh use `sequential.rs`.

use crate::sequential::Interval;
use crate::special::{beta_quantile, binomial_cdf, float, normal_quantile, normal_sf};

const UNIT: Interval = Interval {
    low: 0.0,
    high: 1.0,
};

/// Wilson's score interval (1927) of one rate:
/// `(p̂ + z²/2n ± z·√(p̂(1−p̂)/n + z²/4n²)) / (1 + z²/n)`.
pub fn wilson(successes: u64, n: u64, alpha: f64) -> Interval {
    if n == 0 {
        return UNIT;
    }
    let (s, n) = (float(successes.min(n)), float(n));
    let z = normal_quantile(1.0 - alpha / 2.0);
    let (p, square) = (s / n, z * z);
    let centre = p + square / (2.0 * n);
    let spread = z * (p * (1.0 - p) / n + square / (4.0 * n * n)).sqrt();
    let scale = 1.0 + square / n;
    Interval {
        // At the ends the formula is exactly 0 or 1; rounding must not leave them out.
        low: if s == 0.0 {
            0.0
        } else {
            ((centre - spread) / scale).max(0.0)
        },
        high: if s == n {
            1.0
        } else {
            ((centre + spread) / scale).min(1.0)
        },
    }
}

/// The exact interval of Clopper and Pearson (1934): never covers less than it promises,
/// usually more. `Beta(α/2; s, n−s+1)` to `Beta(1−α/2; s+1, n−s)`.
pub fn clopper_pearson(successes: u64, n: u64, alpha: f64) -> Interval {
    let s = float(successes.min(n));
    let f = float(n) - s;
    Interval {
        low: if s == 0.0 {
            0.0
        } else {
            beta_quantile(alpha / 2.0, s, f + 1.0)
        },
        high: if f == 0.0 {
            1.0
        } else {
            beta_quantile(1.0 - alpha / 2.0, s + 1.0, f)
        },
    }
}

/// Jeffreys' interval: equal tails of Beta(s + ½, n − s + ½), with 0 and 1 as ends when
/// nothing or everything succeeded (Brown, Cai, DasGupta 2001).
pub fn jeffreys(successes: u64, n: u64, alpha: f64) -> Interval {
    let s = float(successes.min(n));
    let f = float(n) - s;
    Interval {
        low: if s == 0.0 {
            0.0
        } else {
            beta_quantile(alpha / 2.0, s + 0.5, f + 0.5)
        },
        high: if f == 0.0 {
            1.0
        } else {
            beta_quantile(1.0 - alpha / 2.0, s + 0.5, f + 0.5)
        },
    }
}

/// Rows that two systems both answered, by who succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PairedCounts {
    /// Both succeeded.
    pub both: u64,
    /// Only the first succeeded.
    pub only_first: u64,
    /// Only the second succeeded.
    pub only_second: u64,
    /// Neither succeeded.
    pub neither: u64,
}

impl PairedCounts {
    /// All rows.
    pub fn rows(&self) -> u64 {
        self.both + self.only_first + self.only_second + self.neither
    }
}

/// The interval of the difference of two rates on the same rows, second less first: two
/// Wilson intervals, joined with the correlation φ of the rows (Newcombe 1998, "Improved
/// confidence intervals for the difference between binomial proportions based on paired
/// data", method 10). `lower = d − √(l₂² − 2φ·l₂·u₁ + u₁²)` with the distances of the two
/// rates from the ends of their own intervals; likewise above.
pub fn paired_rates_interval(counts: &PairedCounts, alpha: f64) -> Interval {
    let rows = counts.rows();
    if rows == 0 {
        return Interval {
            low: -1.0,
            high: 1.0,
        };
    }
    let n = float(rows);
    let side = |successes: u64| {
        let (rate, own) = (float(successes) / n, wilson(successes, rows, alpha));
        (rate, rate - own.low, own.high - rate)
    };
    let (first, first_down, first_up) = side(counts.both + counts.only_first);
    let (second, second_down, second_up) = side(counts.both + counts.only_second);
    let (phi, estimate) = (correlation(counts), second - first);
    let join = |a: f64, b: f64| (a * a - 2.0 * phi * a * b + b * b).max(0.0).sqrt();
    Interval {
        low: (estimate - join(second_down, first_up)).max(-1.0),
        high: (estimate + join(second_up, first_down)).min(1.0),
    }
}

/// φ of the four counts; a positive one is drawn to 0 by the method's continuity correction.
fn correlation(counts: &PairedCounts) -> f64 {
    let [a, b, c, d] = [
        counts.both,
        counts.only_first,
        counts.only_second,
        counts.neither,
    ]
    .map(float);
    let margins = (a + b) * (c + d) * (a + c) * (b + d);
    if margins == 0.0 {
        return 0.0;
    }
    let (cross, half) = (a * d - b * c, (a + b + c + d) / 2.0);
    let corrected = if cross > half {
        cross - half
    } else {
        cross.min(0.0)
    };
    corrected / margins.sqrt()
}

/// McNemar's exact test on the rows that differ: `only_first` of them succeeded only
/// with the first system, `only_second` only with the second.
/// `p = min(1, 2·P(X ≤ min))` for X ~ Binomial(sum, ½).
pub fn mcnemar_exact(only_first: u64, only_second: u64) -> f64 {
    let (n, least) = (only_first + only_second, only_first.min(only_second));
    (2.0 * binomial_cdf(least, n, 0.5)).min(1.0)
}

/// McNemar's mid-p test: the exact p-value less the probability of what was observed
/// (Fagerland, Lydersen, Laake 2013). Less cautious than the exact one, which often errs
/// far more rarely than it promises.
pub fn mcnemar_mid_p(only_first: u64, only_second: u64) -> f64 {
    let (n, least) = (only_first + only_second, only_first.min(only_second));
    if only_first == only_second {
        // Twice P(X ≤ k) counts the middle twice; taking it off once leaves 1, and half of it more.
        return (1.0 - 0.5 * at_half(least, n)).min(1.0);
    }
    (2.0 * binomial_cdf(least, n, 0.5) - at_half(least, n)).clamp(0.0, 1.0)
}

/// P(X = k) for X ~ Binomial(n, ½).
fn at_half(k: u64, n: u64) -> f64 {
    let before = if k == 0 {
        0.0
    } else {
        binomial_cdf(k - 1, n, 0.5)
    };
    binomial_cdf(k, n, 0.5) - before
}

/// McNemar's test for many rows that differ: `(|b − c| − 1)²/(b + c)` is χ² with one degree
/// of freedom (with Edwards' continuity correction).
pub fn mcnemar_chi_square(only_first: u64, only_second: u64) -> f64 {
    let n = only_first + only_second;
    if n == 0 {
        return 1.0;
    }
    let gap = (float(only_first.abs_diff(only_second)) - 1.0).max(0.0);
    (2.0 * normal_sf(gap / float(n).sqrt())).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // Wilson, 8 of 10: (0.8+0.19207 ± 1.96·√(0.016+0.0096037))/1.384146 = 0.49016…0.94332.
        let eight = wilson(8, 10, 0.05);
        assert!((eight.low - 0.490_16).abs() < 1e-4 && (eight.high - 0.943_32).abs() < 1e-4);
        assert_eq!(wilson(0, 0, 0.05), UNIT);
        assert!(wilson(0, 30, 0.05).low == 0.0 && wilson(30, 30, 0.05).high == 1.0);
        // 2·(1 + 10 + 45)/1024; mid-p takes off P(X = 2) = 45/1024.
        assert!((mcnemar_exact(2, 8) - 112.0 / 1024.0).abs() < 1e-12);
        assert!((mcnemar_mid_p(2, 8) - 67.0 / 1024.0).abs() < 1e-12);
        assert_eq!(mcnemar_exact(5, 5), 1.0);
        assert_eq!(mcnemar_exact(0, 0), 1.0);
        assert!((mcnemar_mid_p(5, 5) - (1.0 - 126.0 / 1024.0)).abs() < 1e-12);
        // (|10 − 30| − 1)²/40 = 9.025.
        assert!((mcnemar_chi_square(10, 30) - 0.002_663).abs() < 1e-6);
        assert_eq!(mcnemar_chi_square(0, 0), 1.0);
        // None of n: the upper end solves (1 − p)ⁿ = α/2.
        let none = clopper_pearson(0, 20, 0.05);
        assert!((none.high - (1.0 - 0.025_f64.powf(1.0 / 20.0))).abs() < 1e-12);
        assert_eq!(clopper_pearson(0, 0, 0.05), UNIT);
        assert_eq!(jeffreys(0, 0, 0.05), UNIT);
        assert!(jeffreys(0, 20, 0.05).high < none.high);
    }

    #[test]
    fn difference_of_paired_rates() {
        let counts = PairedCounts {
            both: 40,
            only_first: 5,
            only_second: 15,
            neither: 40,
        };
        let found = paired_rates_interval(&counts, 0.05);
        assert!(found.low > 0.0 && found.high < 0.2, "{found:?}");
        let mirrored = PairedCounts {
            only_first: 15,
            only_second: 5,
            ..counts
        };
        let other = paired_rates_interval(&mirrored, 0.05);
        assert!((found.low + other.high).abs() < 1e-12 && (found.high + other.low).abs() < 1e-12);
        // Nobody ever succeeded: still no certainty.
        let none = PairedCounts {
            neither: 20,
            ..PairedCounts::default()
        };
        let found = paired_rates_interval(&none, 0.05);
        assert!(found.low < -0.1 && found.high > 0.1);
        assert_eq!(
            paired_rates_interval(&PairedCounts::default(), 0.05).low,
            -1.0
        );
    }
}
