//! Thompson sampling over rates.
//!
//! Each arm's success rate has the posterior Beta(1+s, 1+f); an arm's weight is how
//! often it is the best in draws from those (Thompson 1933). Weights change with
//! what was seen, so data of a bandit must never go into a fixed-split test.

/// The least share of any arm: without it an unlucky start would end an arm for
/// good, and later weighting by propensity would divide by almost nothing.
pub const FLOOR: f64 = 0.05;

/// Draws per decision: the weight's own error is then below one per cent.
const DRAWS: u32 = 4_000;

/// The next weights of the arms, which sum to 1. `arms` has (successes, failures) of each,
/// fractions allowed; `uniform` gives numbers in [0, 1).
pub fn thompson_weights(arms: &[(f64, f64)], mut uniform: impl FnMut() -> f64) -> Vec<f64> {
    if arms.is_empty() {
        return Vec::new();
    }
    let mut wins = vec![0_u32; arms.len()];
    for _ in 0..DRAWS {
        let mut best = (0, f64::NEG_INFINITY);
        for (index, (successes, failures)) in arms.iter().enumerate() {
            let drawn = beta(
                1.0 + successes.max(0.0),
                1.0 + failures.max(0.0),
                &mut uniform,
            );
            if drawn > best.1 {
                best = (index, drawn);
            }
        }
        wins[best.0] += 1;
    }
    let shares = wins.iter().map(|wins| f64::from(*wins) / f64::from(DRAWS));
    floored(shares.collect())
}

/// Lifts every share to the floor and takes it from those above it.
fn floored(shares: Vec<f64>) -> Vec<f64> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "an experiment has a handful of arms"
    )]
    let floor = FLOOR.min(1.0 / shares.len() as f64);
    let below = |share: &f64| (floor - share).max(0.0);
    let missing: f64 = shares.iter().map(below).sum();
    let spare: f64 = shares.iter().map(|share| (share - floor).max(0.0)).sum();
    let lift = |share: f64| {
        if share <= floor {
            floor
        } else {
            share - missing * (share - floor) / spare
        }
    };
    shares.into_iter().map(lift).collect()
}

fn beta(a: f64, b: f64, uniform: &mut impl FnMut() -> f64) -> f64 {
    let (x, y) = (gamma(a, uniform), gamma(b, uniform));
    x / (x + y)
}

/// A Gamma(shape, 1) draw for shape ≥ 1, by the method of Marsaglia and Tsang (2000).
fn gamma(shape: f64, uniform: &mut impl FnMut() -> f64) -> f64 {
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    // Accepts 95 of 100 proposals; the bound only guards against a broken source of randomness.
    for _ in 0..1_000 {
        let x = normal(uniform);
        let v = (1.0 + c * x).powi(3);
        if v <= 0.0 {
            continue;
        }
        let u = uniform().max(f64::MIN_POSITIVE);
        if u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
    shape
}

/// A standard normal draw, by the method of Box and Muller.
fn normal(uniform: &mut impl FnMut() -> f64) -> f64 {
    let radius = (-2.0 * (1.0 - uniform()).max(f64::MIN_POSITIVE).ln()).sqrt();
    radius * (2.0 * std::f64::consts::PI * uniform()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    #[test]
    fn the_better_arm_gets_more_and_nobody_less_than_the_floor() {
        let mut random = StdRng::seed_from_u64(1);
        let equal = thompson_weights(&[(5.0, 5.0), (5.0, 5.0)], || random.random());
        assert!((equal[0] - 0.5).abs() < 0.05, "{equal:?}");
        let clear = thompson_weights(&[(10.0, 90.0), (90.0, 10.0), (0.0, 500.0)], || {
            random.random()
        });
        assert!((clear.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(
            clear[1] > 0.85 && clear.iter().all(|share| *share >= FLOOR - 1e-12),
            "{clear:?}"
        );
        assert!(thompson_weights(&[], || 0.5).is_empty());
        assert_eq!(thompson_weights(&[(1.0, 2.0)], || random.random()), [1.0]);
    }

    #[test]
    fn draws_have_the_mean_of_their_distribution() {
        let mut random = StdRng::seed_from_u64(2);
        for (a, b) in [(1.0, 1.0), (3.0, 1.0), (40.0, 160.0)] {
            let mean = (0..4_000)
                .map(|_| beta(a, b, &mut || random.random()))
                .sum::<f64>()
                / 4_000.0;
            assert!((mean - a / (a + b)).abs() < 0.02, "{a} {b} {mean}");
        }
    }

    #[test]
    fn a_broken_source_does_not_hang() {
        let weights = thompson_weights(&[(1.0, 1.0), (2.0, 1.0)], || 0.0);
        assert!(weights.iter().all(|share| share.is_finite()));
    }
}
