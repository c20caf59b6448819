//! How many observations a question needs, before it is asked.
//!
//! Normal-approximation formulas with level α and power 1 − β; z(p) is the normal
//! quantile. Sequential tests need more in the worst case and less when the
//! difference is large: these figures are the scale, not a promise.

use crate::special::normal_quantile;

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
    fn the_published_table() {
        // ψ = 0.2, power 80 %, α = 5 %.
        near(paired_binary(0.2, 0.05, 0.05, 0.8), 620);
        near(paired_binary(0.2, 0.03, 0.05, 0.8), 1_740);
        near(paired_binary(0.2, 0.02, 0.05, 0.8), 3_920);
        near(non_inferiority_pairs(0.2, 0.05, 0.05, 0.8), 494);
        near(non_inferiority_pairs(0.2, 0.03, 0.05, 0.8), 1_373);
        near(two_rates(0.9, 0.03, 0.05, 0.8), 1_570);
        assert_eq!(rule_of_three(30), 0.1);
        assert_eq!(rule_of_three(300), 0.01);
        assert_eq!(rule_of_three(0), 1.0);
        let n = two_means(4.0, 0.5, 0.05, 0.8);
        assert!((detectable_difference(4.0, n, 0.05, 0.8) - 0.5).abs() < 0.005);
    }
}
