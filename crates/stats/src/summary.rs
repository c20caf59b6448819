//! Count, mean and variance of a stream, without keeping the stream.
//!
//! Updated by Welford's recurrence and merged by Chan, Golub and LeVeque's
//! formula, because sums of squares lose every digit when the mean is large
//! (latencies in microseconds are).

use serde::{Deserialize, Serialize};

/// What is known of a sample: one observation per unit.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// How many observations.
    pub n: u64,
    /// Their mean; 0 when there are none.
    pub mean: f64,
    /// The sum of squared deviations from the mean.
    pub squares: f64,
}

impl Summary {
    /// Takes in one observation; what is not finite is left out.
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.n += 1;
        let before = value - self.mean;
        self.mean += before / self.count();
        self.squares += before * (value - self.mean);
    }

    /// Changes one observation that was taken in before: a user's mean moves with each call.
    pub fn replace(&mut self, before: f64, after: f64) {
        if self.n == 0 || !before.is_finite() || !after.is_finite() {
            return;
        }
        let mean = self.mean;
        let change = after - before;
        self.mean += change / self.count();
        // (after − mean')² − (before − mean)² and the move of the mean under all the others.
        self.squares += change * (after - self.mean + before - mean);
        self.squares = self.squares.max(0.0);
    }

    /// Takes in another sample.
    pub fn merge(&mut self, other: &Self) {
        if other.n == 0 {
            return;
        }
        let (mine, theirs) = (self.count(), other.count());
        let gap = other.mean - self.mean;
        let both = mine + theirs;
        self.n += other.n;
        self.mean += gap * theirs / both;
        self.squares += other.squares + gap * gap * mine * theirs / both;
    }

    /// The unbiased variance of one observation; 0 below two observations.
    pub fn variance(&self) -> f64 {
        if self.n < 2 {
            0.0
        } else {
            (self.squares / (self.count() - 1.0)).max(0.0)
        }
    }

    /// The sum of the observations.
    pub fn sum(&self) -> f64 {
        self.mean * self.count()
    }

    #[expect(clippy::cast_precision_loss, reason = "samples are far below 2^53")]
    pub(crate) fn count(&self) -> f64 {
        self.n as f64
    }
}

impl FromIterator<f64> for Summary {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut summary = Self::default();
        values.into_iter().for_each(|value| summary.add(value));
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hand_computed() {
        let summary: Summary = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]
            .into_iter()
            .collect();
        assert_eq!((summary.n, summary.mean), (8, 5.0));
        assert!((summary.variance() - 32.0 / 7.0).abs() < 1e-12);
        assert_eq!(Summary::default().variance(), 0.0);
        let large: Summary = [1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0]
            .into_iter()
            .collect();
        assert!((large.variance() - 30.0).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn replacing_is_as_if_it_had_come_so(
            values in prop::collection::vec(-1e3..1e3_f64, 1..40), at in 0_usize..40, new in -1e3..1e3_f64
        ) {
            let at = at % values.len();
            let mut replaced: Summary = values.iter().copied().collect();
            replaced.replace(values[at], new);
            let mut fresh = values;
            fresh[at] = new;
            let fresh: Summary = fresh.into_iter().collect();
            prop_assert!((replaced.mean - fresh.mean).abs() < 1e-9);
            prop_assert!((replaced.variance() - fresh.variance()).abs() < 1e-5);
        }

        #[test]
        fn merging_parts_is_adding_all(values in prop::collection::vec(-1e3..1e3_f64, 0..60), cut in 0_usize..60) {
            let cut = cut.min(values.len());
            let mut merged: Summary = values[..cut].iter().copied().collect();
            merged.merge(&values[cut..].iter().copied().collect());
            let whole: Summary = values.iter().copied().collect();
            prop_assert_eq!(merged.n, whole.n);
            prop_assert!((merged.mean - whole.mean).abs() < 1e-9);
            prop_assert!((merged.variance() - whole.variance()).abs() < 1e-6);
        }
    }
}
