//! The paired bootstrap of sacreBLEU 2.6.0, for any metric: rows are drawn with numpy's generator
//! (PCG64 seeded by its `SeedSequence`, numbers below a bound by Lemire's method), so the same seed
//! draws the same rows. sacreBLEU sums in 32-bit floats, we in whole numbers; means and intervals
//! therefore agree to about 1e-3 and not to the last bit.
//!
//! This is what papers on translation report. For decisions use the tests of the crate `stats`.

use super::{Metric, Outcome, Statistics};

/// sacreBLEU's seed.
pub const DEFAULT_SEED: u64 = 12_345;
/// sacreBLEU's number of samples.
pub const DEFAULT_SAMPLES: usize = 1_000;

/// Two systems over the same rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedBootstrap {
    /// The baseline over all rows.
    pub baseline: f64,
    /// The system over all rows.
    pub system: f64,
    /// Mean of the system over the samples.
    pub mean: f64,
    /// Half the width of the system's 95 % interval.
    pub half_width: f64,
    /// Probability of a difference as large by chance, two-sided.
    pub p: f64,
}

impl Metric {
    /// Compares a system with a baseline by drawing rows `samples` times. None when the two have
    /// not the same number of rows, when there are none, or when a sample has no score.
    pub fn paired_bootstrap(
        &self,
        baseline: &[Statistics],
        system: &[Statistics],
        samples: usize,
        seed: u64,
    ) -> Option<PairedBootstrap> {
        let rows = u32::try_from(system.len()).ok()?;
        if baseline.len() != system.len() || rows == 0 || samples == 0 {
            return None;
        }
        let score = |outcome: Outcome| outcome.value();
        let of_baseline = score(self.combine(baseline.iter()))?;
        let of_system = score(self.combine(system.iter()))?;
        let mut generator = Pcg64::new(seed);
        let (mut scores, mut differences) = (Vec::new(), Vec::new());
        let mut picked = vec![0; system.len()];
        for _ in 0..samples {
            picked.fill_with(|| generator.below(rows) as usize);
            let sample =
                |from: &[Statistics]| score(self.combine(picked.iter().map(|at| &from[*at])));
            let (first, second) = (sample(baseline)?, sample(system)?);
            scores.push(second);
            differences.push((second - first).abs());
        }
        let mean_difference = mean(&differences);
        let observed = (of_baseline - of_system).abs();
        let larger = differences
            .iter()
            .filter(|difference| **difference - mean_difference > observed)
            .count();
        scores.sort_by(f64::total_cmp);
        let cut = samples / 40;
        Some(PairedBootstrap {
            baseline: of_baseline,
            system: of_system,
            mean: mean(&scores),
            half_width: 0.5 * (scores[samples - cut - 1] - scores[cut]),
            p: (larger + 1) as f64 / (samples + 1) as f64,
        })
    }
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

/// PCG XSL RR 128/64, as `numpy.random.default_rng(seed)`.
struct Pcg64 {
    state: u128,
    increment: u128,
    /// The upper half of a number whose lower half was used.
    half: Option<u32>,
}

impl Pcg64 {
    fn new(seed: u64) -> Pcg64 {
        let [a, b, c, d] = seed_sequence(seed);
        let mut generator = Pcg64 {
            state: 0,
            increment: (u128::from(c) << 64 | u128::from(d)) << 1 | 1,
            half: None,
        };
        generator.step();
        generator.state = generator
            .state
            .wrapping_add(u128::from(a) << 64 | u128::from(b));
        generator.step();
        generator
    }

    fn step(&mut self) {
        self.state = self
            .state
            .wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645)
            .wrapping_add(self.increment);
    }

    fn next_u64(&mut self) -> u64 {
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    fn next_u32(&mut self) -> u32 {
        if let Some(half) = self.half.take() {
            return half;
        }
        let both = self.next_u64();
        self.half = Some((both >> 32) as u32);
        both as u32
    }

    /// A number below a bound that is not 0 (Lemire 2019).
    fn below(&mut self, bound: u32) -> u32 {
        let mut product = u64::from(self.next_u32()) * u64::from(bound);
        if (product as u32) < bound {
            let threshold = bound.wrapping_neg() % bound;
            while (product as u32) < threshold {
                product = u64::from(self.next_u32()) * u64::from(bound);
            }
        }
        (product >> 32) as u32
    }
}

/// numpy's `SeedSequence(seed).generate_state(4, uint64)`.
fn seed_sequence(seed: u64) -> [u64; 4] {
    let entropy = [seed as u32, (seed >> 32) as u32, 0, 0];
    let mut constant = 0x43b0_d7e5_u32;
    let mut pool = entropy.map(|word| hash(word, &mut constant, 0x931e_8875));
    for source in 0..4 {
        for target in 0..4 {
            if source != target {
                let hashed = hash(pool[source], &mut constant, 0x931e_8875);
                let mixed = 0xca01_f9dd_u32
                    .wrapping_mul(pool[target])
                    .wrapping_sub(0x4973_f715_u32.wrapping_mul(hashed));
                pool[target] = mixed ^ (mixed >> 16);
            }
        }
    }
    let mut constant = 0x8b51_f9dd_u32;
    let mut word = |at: usize| u64::from(hash(pool[at % 4], &mut constant, 0x58f3_8ded));
    let mut state = [0; 4];
    for (at, part) in state.iter_mut().enumerate() {
        *part = word(2 * at) | word(2 * at + 1) << 32;
    }
    state
}

fn hash(word: u32, constant: &mut u32, multiplier: u32) -> u32 {
    let word = word ^ *constant;
    *constant = constant.wrapping_mul(multiplier);
    let word = word.wrapping_mul(*constant);
    word ^ (word >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `numpy.random.default_rng(12345).choice(BOUND, 12)`, numpy 2.4.
    #[test]
    fn draws_what_numpy_draws() {
        for (bound, expected) in [
            (7, [4, 1, 5, 2, 1, 5, 4, 4, 6, 2, 5, 2]),
            (
                10_000,
                [
                    6992, 2273, 7886, 3167, 2041, 7973, 6426, 6762, 9884, 3911, 8394, 3328,
                ],
            ),
        ] {
            let mut generator = Pcg64::new(DEFAULT_SEED);
            let drawn: Vec<u32> = (0..12).map(|_| generator.below(bound)).collect();
            assert_eq!(drawn, expected);
        }
    }
}
