//! One mean with its standard error: of scores, or of paired differences.
//!
//! Independent rows: `SE = sd/√n`, Student's t with n − 1 degrees of freedom.
//!
//! Rows that share a source (a document, a conversation, repeats of one question) are
//! not independent: their errors are added up inside each cluster first. The plain
//! cluster-robust formula `SE² = Σ_g S_g²/n²`, with `S_g` the sum of the deviations of
//! cluster g (Miller, "Adding error bars to evals", arXiv 2411.00640), is too small with
//! few or uneven clusters, so ours is the bias-reduced CR2 form of Bell and McCaffrey
//! (2002), which for a mean is
//!
//! ```text
//! SE² = (1/n²) Σ_g S_g² / (1 − n_g/n)
//! ```
//!
//! with Student's t and Satterthwaite's degrees of freedom, the smaller of those for
//! independent rows and for rows that are alike within a cluster (Imbens and Kolesár 2016
//! choose between them by an estimate). Equal clusters give G − 1 either way.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::invalid::{Invalid, all_finite, same_length};
use crate::sequential::Interval;
use crate::special::{length, t_quantile, t_sf};
use crate::summary::Summary;

/// A mean and how well it is known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MeanEstimate {
    /// The mean; 0 when there is no observation.
    pub mean: f64,
    /// Its standard error; 0 when there are fewer than two units or no spread at all.
    pub standard_error: f64,
    /// Degrees of freedom of the t distribution; 0 when there are fewer than two units.
    pub degrees: f64,
    /// How many observations.
    pub n: usize,
    /// How many independent units: the clusters, or `n`.
    pub units: usize,
}

impl MeanEstimate {
    /// The two-sided interval at 1 − α. With fewer than two units nothing is known.
    pub fn interval(&self, alpha: f64) -> Interval {
        if self.units < 2 {
            return Interval::ALL;
        }
        let half_width = if self.standard_error > 0.0 {
            t_quantile(1.0 - alpha / 2.0, self.degrees) * self.standard_error
        } else {
            0.0
        };
        Interval::around(self.mean, half_width)
    }

    /// The two-sided p-value of "the true mean is this".
    pub fn p_value(&self, mean: f64) -> f64 {
        (2.0 * self.above(mean).min(self.below(mean))).min(1.0)
    }

    /// The p-value of two one-sided tests (Schuirmann 1987) of "the true mean is at least
    /// `margin` away from 0": small when the mean is shown to be within ±margin.
    pub fn equivalence_p_value(&self, margin: f64) -> f64 {
        self.above(-margin).max(self.below(margin))
    }

    /// The one-sided p-value of "the true mean is at most this".
    fn above(&self, mean: f64) -> f64 {
        if self.units < 2 {
            return 1.0;
        }
        let gap = self.mean - mean;
        if self.standard_error > 0.0 {
            return t_sf(gap / self.standard_error, self.degrees);
        }
        if gap > 0.0 { 0.0 } else { 1.0 }
    }

    fn below(&self, mean: f64) -> f64 {
        let mirrored = Self {
            mean: -self.mean,
            ..*self
        };
        mirrored.above(-mean)
    }
}

/// The mean of independent observations.
pub fn estimate_mean(values: &[f64]) -> Result<MeanEstimate, Invalid> {
    all_finite("values", values.iter().copied())?;
    Ok(of_summary(&values.iter().copied().collect()))
}

pub(crate) fn of_summary(sample: &Summary) -> MeanEstimate {
    let n = usize::try_from(sample.n).unwrap_or(usize::MAX);
    let (standard_error, degrees) = if n < 2 {
        (0.0, 0.0)
    } else {
        let count = sample.count();
        ((sample.variance() / count).sqrt(), count - 1.0)
    };
    MeanEstimate {
        mean: sample.mean,
        standard_error,
        degrees,
        n,
        units: n,
    }
}

/// The mean of observations that share a cluster where their keys are equal.
pub fn estimate_clustered_mean(values: &[f64], clusters: &[u64]) -> Result<MeanEstimate, Invalid> {
    same_length("values and clusters", values.len(), clusters.len())?;
    all_finite("values", values.iter().copied())?;
    let sample: Summary = values.iter().copied().collect();
    let mut groups: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    for (value, cluster) in values.iter().zip(clusters) {
        let group = groups.entry(*cluster).or_default();
        group.0 += 1.0;
        group.1 += value - sample.mean;
    }
    if groups.len() == values.len() {
        return Ok(of_summary(&sample));
    }
    let (mut mean, n) = (of_summary(&sample), length(values.len()));
    mean.units = groups.len();
    (mean.standard_error, mean.degrees) = if groups.len() < 2 {
        (0.0, 0.0)
    } else {
        let spread = |(size, sum): &(f64, f64)| sum * sum / (1.0 - size / n);
        let squares: f64 = groups.values().map(spread).sum();
        let sizes: Vec<f64> = groups.values().map(|group| group.0 / n).collect();
        (squares.sqrt() / n, degrees(&sizes))
    };
    // Rounding of the mean leaves specks of deviation where there is none.
    if sample.squares <= f64::EPSILON * f64::EPSILON * n * sample.mean * sample.mean {
        mean.standard_error = 0.0;
    }
    Ok(mean)
}

/// Satterthwaite's degrees of freedom from the clusters' shares of the observations: the
/// CR2 variance is a sum of dependent squares, and (tr M)²/tr(M²) of its matrix M says how
/// many independent ones it is worth.
fn degrees(shares: &[f64]) -> f64 {
    independent_rows(shares).min(alike_rows(shares))
}

/// M_gh = a_g·a_h·(δ_gh/f_g − 1) with a_g = f_g/√(1 − f_g): rows independent of each other.
fn independent_rows(shares: &[f64]) -> f64 {
    let squares: f64 = shares.iter().map(|f| f * f).sum();
    let weight = |f: f64| f * f / (1.0 - f);
    let all: f64 = shares.iter().copied().map(weight).sum();
    let same: f64 = shares.iter().map(|f| weight(*f).powi(2)).sum();
    1.0 / (squares + all * all - same)
}

/// M_gh = a_g·a_h·(δ_gh − f_g − f_h + Σf²) with a_g = f_g/√(1 − f_g): every row of a cluster
/// has the cluster's deviation. Written out so that it takes one pass, not one per pair.
fn alike_rows(shares: &[f64]) -> f64 {
    let s: f64 = shares.iter().map(|f| f * f).sum();
    let (mut trace, mut diagonal) = (0.0, 0.0);
    let (mut w0, mut w1, mut w2) = (0.0, 0.0, 0.0);
    for f in shares {
        let w = f * f / (1.0 - f);
        let own = s - 2.0 * f;
        trace += w * (1.0 + own);
        diagonal += w * w * ((1.0 + own).powi(2) - own * own);
        (w0, w1, w2) = (w0 + w, w1 + w * f, w2 + w * f * f);
    }
    let pairs = s * s * w0 * w0 + 2.0 * w0 * w2 - 4.0 * s * w0 * w1 + 2.0 * w1 * w1;
    trace * trace / (diagonal + pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // Mean 5, variance 32/7, SE √(4/7).
        let found = estimate_mean(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert!((found.standard_error - (4.0_f64 / 7.0).sqrt()).abs() < 1e-12);
        assert_eq!((found.mean, found.degrees, found.units), (5.0, 7.0, 8));
        // Two clusters of two: deviations −1 −1 +1 +1, S = ∓2, SE² = (4 + 4)/(1 − ½)/16 = 1.
        let found = estimate_clustered_mean(&[0.0, 0.0, 2.0, 2.0], &[1, 1, 2, 2]).unwrap();
        assert!((found.standard_error - 1.0).abs() < 1e-12, "{found:?}");
        assert!((found.degrees - 1.0).abs() < 1e-12 && found.units == 2);
    }

    #[test]
    fn equal_clusters_have_one_degree_less_than_clusters() {
        for groups in [2_usize, 5, 40] {
            let shares = vec![1.0 / length(groups); groups];
            let wanted = length(groups) - 1.0;
            assert!((independent_rows(&shares) - wanted).abs() < 1e-9);
            assert!((alike_rows(&shares) - wanted).abs() < 1e-9);
        }
        let uneven = degrees(&[0.5, 0.1, 0.1, 0.1, 0.1, 0.1]);
        assert!(uneven > 1.0 && uneven < 4.0, "{uneven}");
    }

    #[test]
    fn little_data_says_nothing() {
        for values in [vec![], vec![3.0]] {
            let found = estimate_mean(&values).unwrap();
            assert_eq!(found.interval(0.05), Interval::ALL);
            assert_eq!(found.p_value(0.0), 1.0);
            assert_eq!(found.equivalence_p_value(1.0), 1.0);
        }
        let one_cluster = estimate_clustered_mean(&[1.0, 2.0], &[4, 4]).unwrap();
        assert_eq!(one_cluster.interval(0.05), Interval::ALL);
        let same = estimate_mean(&[0.3; 9]).unwrap();
        assert!(same.interval(0.05).high - same.interval(0.05).low < 1e-12);
        assert_eq!(same.p_value(0.0), 0.0);
        let bad = estimate_mean(&[1.0, f64::NAN]).unwrap_err();
        assert_eq!(
            bad.to_string(),
            "values: number 1 (counted from 0) is not finite"
        );
        assert!(estimate_clustered_mean(&[1.0], &[]).is_err());
    }
}
