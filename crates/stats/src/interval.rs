//! Methods for a sample whose size was fixed before: looking again and again
//! at these breaks their promise, so pages that refresh use `sequential.rs`.

use crate::sequential::Interval;
use crate::special::{ln_gamma, normal_quantile};

/// Wilson's score interval (1927) of one rate:
/// `(p̂ + z²/2n ± z·√(p̂(1−p̂)/n + z²/4n²)) / (1 + z²/n)`.
pub fn wilson(successes: u64, n: u64, alpha: f64) -> Interval {
    if n == 0 {
        return Interval {
            low: 0.0,
            high: 1.0,
        };
    }
    #[expect(clippy::cast_precision_loss, reason = "samples are far below 2^53")]
    let (s, n) = (successes.min(n) as f64, n as f64);
    let z = normal_quantile(1.0 - alpha / 2.0);
    let (p, square) = (s / n, z * z);
    let centre = p + square / (2.0 * n);
    let spread = z * (p * (1.0 - p) / n + square / (4.0 * n * n)).sqrt();
    let scale = 1.0 + square / n;
    Interval {
        low: ((centre - spread) / scale).max(0.0),
        high: ((centre + spread) / scale).min(1.0),
    }
}

/// McNemar's exact test on the pairs that differ: `only_first` of them succeeded only
/// with the first system, `only_second` only with the second.
/// `p = min(1, 2·P(X ≤ min))` for X ~ Binomial(sum, ½).
pub fn mcnemar_exact(only_first: u64, only_second: u64) -> f64 {
    let n = only_first + only_second;
    let least = only_first.min(only_second);
    #[expect(clippy::cast_precision_loss, reason = "samples are far below 2^53")]
    let at = |k: u64| {
        let (n, k) = (n as f64, k as f64);
        let choose = ln_gamma(n + 1.0) - ln_gamma(k + 1.0) - ln_gamma(n - k + 1.0);
        (choose - n * std::f64::consts::LN_2).exp()
    };
    (2.0 * (0..=least).map(at).sum::<f64>()).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // Wilson, 8 of 10: (0.8+0.19207 ± 1.96·√(0.016+0.0096037))/1.384146 = 0.49016…0.94332.
        let eight = wilson(8, 10, 0.05);
        assert!((eight.low - 0.490_16).abs() < 1e-4 && (eight.high - 0.943_32).abs() < 1e-4);
        assert_eq!(
            wilson(0, 0, 0.05),
            Interval {
                low: 0.0,
                high: 1.0
            }
        );
        assert!(wilson(0, 30, 0.05).low == 0.0);
        // 2·(1 + 10 + 45)/1024.
        assert!((mcnemar_exact(2, 8) - 112.0 / 1024.0).abs() < 1e-12);
        assert_eq!(mcnemar_exact(5, 5), 1.0);
        assert_eq!(mcnemar_exact(0, 0), 1.0);
    }
}
