//! Figures of a classifier from its scores. They are exact: ties count half in the area under
//! the curve, and a threshold is a score that was seen.

use serde::{Deserialize, Serialize};

/// A share with its 95 % Wilson interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// How many.
    pub hits: usize,
    /// Of how many.
    pub of: usize,
    /// hits / of; 0 of nothing.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Share {
    /// `hits` of `of`.
    pub fn new(hits: usize, of: usize) -> Self {
        let (low, high) = wilson(hits, of);
        let value = if of == 0 {
            0.0
        } else {
            hits as f64 / of as f64
        };
        Self {
            hits,
            of,
            value,
            low,
            high,
        }
    }

    /// The share of `scores` at or above `threshold`.
    pub fn reaching(scores: &[f32], threshold: f32) -> Self {
        let hits = scores.iter().filter(|score| **score >= threshold).count();
        Self::new(hits, scores.len())
    }
}

/// The 95 % Wilson interval of a share; 0..1 for nothing.
pub fn wilson(hits: usize, of: usize) -> (f64, f64) {
    const Z: f64 = 1.959_963_984_540_054;
    if of == 0 {
        return (0.0, 1.0);
    }
    let (n, p) = (of as f64, hits as f64 / of as f64);
    let middle = p + Z * Z / (2.0 * n);
    let reach = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    // At the ends rounding would leave a crumb.
    let low = if hits == 0 {
        0.0
    } else {
        ((middle - reach) / scale).max(0.0)
    };
    let high = if hits == of {
        1.0
    } else {
        ((middle + reach) / scale).min(1.0)
    };
    (low, high)
}

/// The area under the ROC curve: how often a positive scores above a negative. Nothing when one
/// of the two is missing.
pub fn auc(positive: &[f32], negative: &[f32]) -> Option<f64> {
    if positive.is_empty() || negative.is_empty() {
        return None;
    }
    let mut all: Vec<(f32, bool)> = positive
        .iter()
        .map(|score| (*score, true))
        .chain(negative.iter().map(|score| (*score, false)))
        .collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut wins = 0.0;
    let mut below = 0.0;
    for tied in all.chunk_by(|a, b| a.0 == b.0) {
        let positives = tied.iter().filter(|(_, positive)| *positive).count() as f64;
        let negatives = tied.len() as f64 - positives;
        wins += positives * (below + negatives / 2.0);
        below += negatives;
    }
    Some(wins / (positive.len() as f64 * negative.len() as f64))
}

/// The lowest threshold that at most `share` of the negatives reach, just above a score that
/// was seen. Without negatives it is ½.
pub fn threshold_at(negative: &[f32], share: f64) -> f32 {
    if negative.is_empty() {
        return 0.5;
    }
    let mut sorted = negative.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let allowed = (share.clamp(0.0, 1.0) * sorted.len() as f64).floor() as usize;
    match sorted.get(allowed) {
        Some(first_refused) => first_refused.next_up(),
        None => 0.0,
    }
}

/// Recall at the threshold that at most 1 % of the negatives reach. Nothing when one of the two
/// is missing.
pub fn recall_at_one_percent(positive: &[f32], negative: &[f32]) -> Option<f64> {
    if positive.is_empty() || negative.is_empty() {
        return None;
    }
    Some(Share::reaching(positive, threshold_at(negative, 0.01)).value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_small_sets_are_known() {
        assert_eq!(auc(&[0.9, 0.8], &[0.1, 0.2]), Some(1.0));
        assert_eq!(auc(&[0.5], &[0.5]), Some(0.5));
        assert_eq!(auc(&[0.9, 0.1], &[0.5]), Some(0.5));
        assert_eq!(auc(&[], &[0.5]), None);
        let negatives: Vec<f32> = (0..100u8).map(|n| f32::from(n) / 100.0).collect();
        let threshold = threshold_at(&negatives, 0.01);
        assert_eq!(Share::reaching(&negatives, threshold).hits, 1);
        assert_eq!(
            recall_at_one_percent(&[0.985, 0.5, 0.99], &negatives),
            Some(2.0 / 3.0)
        );
        assert_eq!(threshold_at(&[0.2], 0.01), 0.2f32.next_up());
    }

    #[test]
    fn ties_never_break_the_promise() {
        let negatives = vec![0.7; 50];
        assert_eq!(
            Share::reaching(&negatives, threshold_at(&negatives, 0.01)).hits,
            0
        );
    }

    #[test]
    fn wilson_is_the_textbooks() {
        let (low, high) = wilson(8, 10);
        assert!((low - 0.490_162).abs() < 1e-5 && (high - 0.943_317).abs() < 1e-5);
        assert_eq!(wilson(0, 0), (0.0, 1.0));
        assert_eq!(wilson(0, 30).0, 0.0);
        assert_eq!(wilson(30, 30).1, 1.0);
    }
}
