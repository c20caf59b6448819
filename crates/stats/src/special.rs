//! The few special functions that the others need. Accuracy is far beyond what
//! any sample justifies; the tests pin it against published values.

use std::f64::consts::PI;

/// ln Γ(x) for x > 0: Stirling's series at x ≥ 10, reached by ln Γ(x) = ln Γ(x+1) − ln x.
pub(crate) fn ln_gamma(x: f64) -> f64 {
    let (mut at, mut shift) = (x, 0.0);
    while at < 10.0 {
        shift += at.ln();
        at += 1.0;
    }
    let inverse = 1.0 / at;
    let square = inverse * inverse;
    // Bernoulli numbers over 2k(2k−1): 1/12, −1/360, 1/1260, −1/1680, 1/1188.
    let series = inverse
        * (1.0 / 12.0
            + square
                * (-1.0 / 360.0
                    + square * (1.0 / 1260.0 + square * (-1.0 / 1680.0 + square / 1188.0))));
    (at - 0.5) * at.ln() - at + 0.5 * (2.0 * PI).ln() + series - shift
}

/// ln B(a, b).
pub(crate) fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// Φ(x), the normal distribution function: Φ = ½ + φ(x)·(x + x³/3 + x⁵/(3·5) + …),
/// which converges for every x; beyond ±9 it is 0 or 1 in a double.
pub(crate) fn normal_cdf(x: f64) -> f64 {
    if x.abs() > 9.0 {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while term.abs() > 1e-17 * sum.abs() && odd < 1000.0 {
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    (0.5 + sum * (-0.5 * x * x).exp() / (2.0 * PI).sqrt()).clamp(0.0, 1.0)
}

/// The normal quantile, by bisection of Φ.
pub(crate) fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-9.0, 9.0);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if normal_cdf(middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_values() {
        for (x, expected) in [
            (0.5, 0.572_364_942_924_700_1),
            (1.0, 0.0),
            (5.0, 24.0_f64.ln()),
            (100.0, 359.134_205_369_575_4),
        ] {
            assert!((ln_gamma(x) - expected).abs() < 1e-10, "ln gamma({x})");
        }
        for (p, expected) in [
            (0.5, 0.0),
            (0.8, 0.841_621_233_572_914),
            (0.95, 1.644_853_626_951_473),
            (0.975, 1.959_963_984_540_054),
        ] {
            assert!(
                (normal_quantile(p) - expected).abs() < 1e-9,
                "quantile({p})"
            );
        }
        assert!((normal_cdf(-1.0) - 0.158_655_253_931_457).abs() < 1e-12);
        assert!((ln_beta(2.0, 3.0) - (1.0_f64 / 12.0).ln()).abs() < 1e-12);
    }
}
