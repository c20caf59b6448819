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

/// The normal quantile: bisection of Φ, finished by Newton's steps.
pub(crate) fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-9.0, 9.0);
    for _ in 0..20 {
        let middle = 0.5 * (low + high);
        if normal_cdf(middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    // Far out Φ has too few digits for a step; there the bracket is as good as it gets.
    let step = |x: f64| x - (normal_cdf(x) - p) * (2.0 * PI).sqrt() * (0.5 * x * x).exp();
    step(step(0.5 * (low + high))).clamp(low, high)
}

/// 1 − Φ(x), accurate in the tail, where 1 − Φ has no digits left: from 4 on by the
/// continued fraction φ(x)/(x + 1/(x + 2/(x + …))).
pub(crate) fn normal_sf(x: f64) -> f64 {
    if x < 4.0 {
        return 1.0 - normal_cdf(x);
    }
    let below = (1..60).rev().fold(x, |below, k| x + f64::from(k) / below);
    (-0.5 * x * x).exp() / (2.0 * PI).sqrt() / below
}

/// The distribution function of Beta(a, b) at x (the regularised incomplete beta
/// function), by its continued fraction, evaluated by Lentz's method.
pub(crate) fn beta_cdf(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // The fraction converges fast on the near side of the mean only.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - beta_cdf_near(1.0 - x, b, a);
    }
    beta_cdf_near(x, a, b)
}

fn beta_cdf_near(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let nonzero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let front = (a * x.ln() + b * (-x).ln_1p() - ln_beta(a, b)).exp() / a;
    let mut c = 1.0;
    let mut d = 1.0 / nonzero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    let mut m = 0.0;
    // It takes about √max(a, b) steps; the bound only guards against parameters without sense.
    for _ in 0..20_000 {
        m += 1.0;
        let before = fraction;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        for step in [even, odd] {
            d = 1.0 / nonzero(1.0 + step * d);
            c = nonzero(1.0 + step / c);
            fraction *= d * c;
        }
        if (fraction - before).abs() <= 1e-15 * fraction.abs() {
            break;
        }
    }
    (front * fraction).clamp(0.0, 1.0)
}

/// The quantile of Beta(a, b), by bisection.
pub(crate) fn beta_quantile(p: f64, a: f64, b: f64) -> f64 {
    bisect(0.0, 1.0, |x| beta_cdf(x, a, b) < p)
}

/// P(X ≤ k) for X ~ Binomial(n, p).
pub(crate) fn binomial_cdf(k: u64, n: u64, p: f64) -> f64 {
    if k >= n {
        return 1.0;
    }
    beta_cdf(1.0 - p, float(n - k), float(k) + 1.0)
}

/// P(T > t) for Student's t with these degrees of freedom, accurate in both tails.
pub(crate) fn t_sf(t: f64, degrees: f64) -> f64 {
    let tail = |t: f64| 0.5 * beta_cdf(degrees / (degrees + t * t), degrees / 2.0, 0.5);
    if t >= 0.0 { tail(t) } else { 1.0 - tail(t) }
}

/// The quantile of Student's t, by Newton's method from the normal quantile. On the upper half
/// the tail is convex and the normal quantile lies below, so every step goes up and none too far.
pub(crate) fn t_quantile(p: f64, degrees: f64) -> f64 {
    if p < 0.5 {
        return -t_quantile(1.0 - p, degrees);
    }
    let constant =
        ln_gamma((degrees + 1.0) / 2.0) - ln_gamma(degrees / 2.0) - 0.5 * (degrees * PI).ln();
    let density = |t: f64| (constant - (degrees + 1.0) / 2.0 * (t * t / degrees).ln_1p()).exp();
    let mut t = normal_quantile(p).max(0.0);
    for _ in 0..1_000 {
        let step = (t_sf(t, degrees) - (1.0 - p)) / density(t);
        t += step;
        if step.is_nan() || step <= 1e-14 * t {
            break;
        }
    }
    t
}

/// Where `below` turns from true to false between two points.
pub(crate) fn bisect(mut low: f64, mut high: f64, below: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if below(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// A count as a float.
#[expect(clippy::cast_precision_loss, reason = "samples are far below 2^53")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// A length as a float.
#[expect(clippy::cast_precision_loss, reason = "samples are far below 2^53")]
pub(crate) fn length(count: usize) -> f64 {
    count as f64
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
    #[test]
    fn distributions() {
        // Values of scipy 1.17.1.
        let near = |found: f64, expected: f64| {
            assert!(
                (found - expected).abs() <= 1e-10 * expected.abs(),
                "{found} is not {expected}"
            );
        };
        near(normal_sf(5.0), 2.866_515_718_791_93e-7);
        near(normal_sf(12.0), 1.776_482_112_077_65e-33);
        near(t_quantile(0.975, 1.0), 12.706_204_736_174_7);
        near(t_quantile(0.975, 9.0), 2.262_157_162_798_2);
        near(t_quantile(0.025, 9.0), -2.262_157_162_798_2);
        near(t_quantile(0.975, 1e6), 1.959_966_356_814_1);
        assert_eq!(t_sf(0.0, 3.0), 0.5);
        near(beta_quantile(0.975, 9.0, 2.0), 0.974_789_273_673_166);
        near(binomial_cdf(2, 10, 0.5), 56.0 / 1024.0);
        assert_eq!(binomial_cdf(4, 4, 0.5), 1.0);
    }
}
