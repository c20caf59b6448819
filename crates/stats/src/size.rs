//! How many observations a question needs, before it is asked.
//!
//! Normal-approximation formulas with level α and power 1 − β; z(p) is the normal
//! quantile. Sequential tests need more in the worst case and less when the
//! difference is large: these figures are the scale, not a promise.

use crate::invalid::{Invalid, all_finite};
use crate::mean::MeanEstimate;
use crate::special::{float, ln_gamma, normal_cdf, normal_quantile, t_quantile};

fn z_two_sided(alpha: f64) -> f64 {
    normal_quantile(1.0 - alpha / 2.0)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to what fits; a float converts saturating"
)]
fn whole(n: f64) -> u64 {
    if n.is_nan() {
        u64::MAX
    } else {
        n.ceil().max(1.0) as u64
    }
}

/// Units per arm to find a difference δ of two rates around `rate`:
/// `n = 2p(1−p)(z(1−α/2) + z(1−β))² / δ²`.
pub fn two_rates(rate: f64, delta: f64, alpha: f64, power: f64) -> u64 {
    two_means(rate * (1.0 - rate), delta, alpha, power)
}

/// Units per arm to find a difference δ of two means with this variance per unit:
/// `n = 2σ²(z(1−α/2) + z(1−β))² / δ²`.
pub fn two_means(variance: f64, delta: f64, alpha: f64, power: f64) -> u64 {
    let z = z_two_sided(alpha) + normal_quantile(power);
    whole(2.0 * variance * z * z / (delta * delta))
}

/// The smallest difference of two means that `n` units per arm can be expected to show:
/// [`two_means`] solved for δ.
pub fn detectable_difference(variance: f64, n: u64, alpha: f64, power: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "samples are far below 2^53")]
    let n = n.max(1) as f64;
    (z_two_sided(alpha) + normal_quantile(power)) * (2.0 * variance / n).sqrt()
}

/// Pairs to find a gap δ of two rates when a share ψ of the pairs differs:
/// `n = (z(1−α/2)√ψ + z(1−β)√(ψ−δ²))² / δ²`.
pub fn paired_binary(discordant: f64, delta: f64, alpha: f64, power: f64) -> u64 {
    let spread = (discordant - delta * delta).max(0.0).sqrt();
    let root = z_two_sided(alpha) * discordant.sqrt() + normal_quantile(power) * spread;
    whole(root * root / (delta * delta))
}

/// Pairs to show that a rate is worse by less than the margin m, one-sided:
/// `n = (z(1−α) + z(1−β))²·ψ / m²`.
pub fn non_inferiority_pairs(discordant: f64, margin: f64, alpha: f64, power: f64) -> u64 {
    let z = normal_quantile(1.0 - alpha) + normal_quantile(power);
    whole(z * z * discordant / (margin * margin))
}

/// The highest rate that n observations without a failure leave possible at 95 %: `3/n`.
pub fn rule_of_three(n: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "samples are far below 2^53")]
    let n = n as f64;
    if n < 3.0 { 1.0 } else { 3.0 / n }
}

/// The power of the paired t test with `n` pairs for a true mean difference of `effect`
/// standard deviations: the chance that a noncentral t lies beyond the critical value,
/// `P(T' > t) = ∫ Φ(√n·effect − t·s) f(s) ds` with s the relative error of the estimated
/// standard deviation, √(χ²/ν). 0 with fewer than two pairs.
pub fn paired_mean_power(effect: f64, n: u64, alpha: f64) -> Result<f64, Invalid> {
    all_finite("effect", [effect])?;
    crate::invalid::valid_alpha(alpha)?;
    if n < 2 {
        return Ok(0.0);
    }
    Ok(power_at(
        effect.abs() * float(n).sqrt(),
        float(n) - 1.0,
        alpha,
    ))
}

/// The power of a two-sided t test whose statistic is `shift` standard errors from 0.
fn power_at(shift: f64, degrees: f64, alpha: f64) -> f64 {
    if degrees > 1e5 {
        let z = z_two_sided(alpha);
        return normal_cdf(shift - z) + normal_cdf(-shift - z);
    }
    let critical = t_quantile(1.0 - alpha / 2.0, degrees);
    let constant =
        degrees / 2.0 * (degrees / 2.0).ln() + std::f64::consts::LN_2 - ln_gamma(degrees / 2.0);
    let density = |s: f64| (constant + (degrees - 1.0) * s.ln() - degrees * s * s / 2.0).exp();
    let at = |s: f64| {
        (normal_cdf(shift - critical * s) + normal_cdf(-shift - critical * s)) * density(s)
    };
    // All of the mass lies within nine standard deviations, 1/√(2ν), of 1. With few degrees of
    // freedom it is cut off at 0, and the steps must be fine there.
    let steps: u32 = if degrees < 10.0 { 400 } else { 60 };
    let reach = if degrees < 10.0 { 12.0 } else { 9.0 } / (2.0 * degrees).sqrt();
    let low = (1.0 - reach).max(1e-12);
    // Beyond this no statistic is significant. It is near 0 where the critical value is large
    // (few degrees, small alpha), and steps over the rest would miss it.
    let significant = (shift.abs() + 9.0) / critical;
    let high = (1.0 + reach).min(significant).max(low);
    let step = (high - low) / f64::from(steps);
    // Simpson's rule.
    let inner = |k: u32| at(low + f64::from(k) * step) * if k % 2 == 1 { 4.0 } else { 2.0 };
    let sum: f64 = (1..steps).map(inner).sum::<f64>() + at(low) + at(high);
    (sum * step / 3.0).clamp(0.0, 1.0)
}

/// The fewest pairs whose t test finds a true mean difference of `effect` standard deviations
/// with this power; `None` if the effect is 0 or more than 2⁴⁰ pairs would be needed.
pub fn paired_mean_pairs(effect: f64, alpha: f64, power: f64) -> Result<Option<u64>, Invalid> {
    valid_power(alpha, power)?;
    let enough = |n: u64| Ok(paired_mean_power(effect, n, alpha)? >= power);
    let mut high = 2_u64;
    while !enough(high)? {
        if high >= 1 << 40 {
            return Ok(None);
        }
        high *= 2;
    }
    let mut low = high / 2;
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if enough(middle)? {
            high = middle;
        } else {
            low = middle;
        }
    }
    Ok(Some(high.max(2)))
}

fn valid_power(alpha: f64, power: f64) -> Result<(), Invalid> {
    crate::invalid::valid_alpha(alpha)?;
    if power > alpha && power < 1.0 {
        return Ok(());
    }
    Err(Invalid::OutOfRange {
        what: "power",
        value: power,
        allowed: "above alpha and below 1",
    })
}

/// The smallest mean difference that as many units with the same spread find with this
/// power. The spread is that of the estimate: cluster-robust if that is.
pub fn detectable_paired_mean(mean: &MeanEstimate, alpha: f64, power: f64) -> f64 {
    if mean.units < 2 || mean.degrees < 1.0 {
        return f64::INFINITY;
    }
    // On the scale of normal quantiles power is almost a straight line of the shift, so the
    // secant method needs a handful of steps.
    let wanted = normal_quantile(power);
    let miss = |shift: f64| normal_quantile(power_at(shift, mean.degrees, alpha)) - wanted;
    let mut before = t_quantile(1.0 - alpha / 2.0, mean.degrees) + wanted;
    let mut miss_before = miss(before);
    let mut shift = before - miss_before;
    for _ in 0..40 {
        let missed = miss(shift);
        let slope = (missed - miss_before) / (shift - before);
        (before, miss_before) = (shift, missed);
        if missed.abs() < 1e-7 || !slope.is_normal() {
            break;
        }
        shift = (shift - missed / slope).clamp(0.0, 1e6);
    }
    shift * mean.standard_error
}

/// The power of McNemar's test over `n` pairs of which a share ψ differs, for a gap δ of the
/// two rates: `Φ((δ√n − z(1−α/2)√ψ)/√(ψ−δ²))`, [`paired_binary`] solved for the power. The exact
/// test has a little less when few pairs differ.
pub fn paired_binary_power(discordant: f64, delta: f64, n: u64, alpha: f64) -> f64 {
    let delta = delta.abs().min(discordant);
    let spread = (discordant - delta * delta).max(f64::MIN_POSITIVE).sqrt();
    normal_cdf((delta * float(n).sqrt() - z_two_sided(alpha) * discordant.sqrt()) / spread)
}

/// The smallest gap of two rates that `n` pairs find with this power when a share ψ of them
/// differs; `None` if even all of them in one direction would not be found. [`paired_binary`]
/// solved for δ: the larger root of `(n + z²)δ² − 2aδ√n + a² − z²ψ = 0` with a = z(1−α/2)√ψ
/// and z = z(1−β).
pub fn detectable_paired_binary(discordant: f64, n: u64, alpha: f64, power: f64) -> Option<f64> {
    let (n, z) = (float(n), normal_quantile(power));
    let critical = z_two_sided(alpha) * discordant.sqrt();
    let within = discordant * (n + z * z) - critical * critical;
    if !(discordant > 0.0 && n > 0.0 && within >= 0.0) {
        return None;
    }
    let delta = (critical * n.sqrt() + z * within.sqrt()) / (n + z * z);
    (delta <= discordant).then_some(delta.max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: u64, expected: u64) {
        let off = found.abs_diff(expected);
        assert!(
            off * 100 <= expected,
            "{found} is not within 1 % of {expected}"
        );
    }

    #[test]
    fn one_degree_of_freedom_has_power_too() {
        // scipy's noncentral t: nct.sf(c, 1, d) + nct.cdf(-c, 1, d), d = 0.3782·√2, c = 63.66.
        let found = paired_mean_power(0.3782, 2, 0.01).unwrap();
        assert!((found - 0.011_396_958_689_940_142).abs() < 1e-9, "{found}");
    }

    #[test]
    fn the_published_table() {
        // ψ = 0.2, power 80 %, α = 5 %.
        near(paired_binary(0.2, 0.05, 0.05, 0.8), 620);
        near(paired_binary(0.2, 0.03, 0.05, 0.8), 1_740);
        near(paired_binary(0.2, 0.02, 0.05, 0.8), 3_920);
        near(non_inferiority_pairs(0.2, 0.05, 0.05, 0.8), 494);
        near(non_inferiority_pairs(0.2, 0.03, 0.05, 0.8), 1_373);
        near(two_rates(0.9, 0.03, 0.05, 0.8), 1_570);
        // The same formula the other way round.
        for n in [100, 620, 5_000] {
            let gap = detectable_paired_binary(0.2, n, 0.05, 0.8).unwrap();
            near(paired_binary(0.2, gap, 0.05, 0.8), n);
            assert!((paired_binary_power(0.2, gap, n, 0.05) - 0.8).abs() < 1e-9);
        }
        assert_eq!(detectable_paired_binary(0.2, 10, 0.05, 0.8), None);
        assert_eq!(detectable_paired_binary(0.0, 10, 0.05, 0.8), None);
        assert_eq!(rule_of_three(30), 0.1);
        assert_eq!(rule_of_three(300), 0.01);
        assert_eq!(rule_of_three(0), 1.0);
        let n = two_means(4.0, 0.5, 0.05, 0.8);
        assert!((detectable_difference(4.0, n, 0.05, 0.8) - 0.5).abs() < 0.005);
    }
}
