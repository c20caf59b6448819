//! BERTScore: how well the tokens of an answer and of what was expected find each
//! other, by the vectors that an encoder gave them.
//!
//! The rules are those of the Python package bert-score 0.3.13: each token takes the
//! cosine of its best partner on the other side; `[CLS]` and `[SEP]` have no weight
//! but may be partners; idf comes from the expected answers alone; of several
//! expected answers precision, recall and F1 each take their best. Vectors come in as
//! numbers: this crate knows no model.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

/// A text as the encoder sees it: `[CLS]`, its tokens, `[SEP]`.
#[derive(Debug, Clone, Copy)]
pub struct Encoded<'a> {
    /// Token ids.
    pub ids: &'a [u32],
    /// One vector per token, of any length above 0.
    pub vectors: &'a [Vec<f32>],
}

/// The three numbers of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BertScore {
    /// How well the answer's tokens are found in what was expected.
    pub precision: f64,
    /// How well the expected tokens are found in the answer.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
}

impl BertScore {
    /// Nothing of one is found in the other.
    pub const ZERO: Self = Self {
        precision: 0.0,
        recall: 0.0,
        f1: 0.0,
    };

    /// The better of each.
    #[must_use]
    pub fn best(self, other: Self) -> Self {
        Self {
            precision: self.precision.max(other.precision),
            recall: self.recall.max(other.recall),
            f1: self.f1.max(other.f1),
        }
    }

    /// With the numbers of unrelated texts at 0.
    #[must_use]
    pub fn rescaled(self, base: Self) -> Self {
        let stretch = |value: f64, base: f64| (value - base) / (1.0 - base);
        Self {
            precision: stretch(self.precision, base.precision),
            recall: stretch(self.recall, base.recall),
            f1: stretch(self.f1, base.f1),
        }
    }
}

/// How many of the expected answers have each token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frequencies {
    texts: u32,
    counts: HashMap<u32, u32>,
}

impl Frequencies {
    /// Adds an expected answer.
    pub fn add(&mut self, ids: &[u32]) {
        self.texts += 1;
        for id in ids.iter().collect::<HashSet<_>>() {
            *self.counts.entry(*id).or_default() += 1;
        }
    }

    /// ln((N + 1) ÷ (df + 1)); of a token that nobody expected, ln(N + 1).
    pub fn weight(&self, id: u32) -> f64 {
        let count = self.counts.get(&id).copied().unwrap_or(0);
        ((f64::from(self.texts) + 1.0) / (f64::from(count) + 1.0)).ln()
    }
}

/// Scores a pair; nothing where idf gives no token of a side any weight.
pub fn score(
    answer: Encoded<'_>,
    expected: Encoded<'_>,
    idf: Option<&Frequencies>,
) -> Option<BertScore> {
    // The two ends alone: there is no text.
    if answer.ids.len() <= 2 || expected.ids.len() <= 2 {
        return Some(BertScore::ZERO);
    }
    let (ours, theirs) = (normalised(answer.vectors), normalised(expected.vectors));
    let mut best_of_ours = vec![f64::NEG_INFINITY; ours.len()];
    let mut best_of_theirs = vec![f64::NEG_INFINITY; theirs.len()];
    for (one, best) in ours.iter().zip(&mut best_of_ours) {
        for (other, best_of_other) in theirs.iter().zip(&mut best_of_theirs) {
            let cosine: f64 = one.iter().zip(other).map(|(a, b)| a * b).sum();
            let cosine = cosine.clamp(-1.0, 1.0);
            *best = best.max(cosine);
            *best_of_other = best_of_other.max(cosine);
        }
    }
    let precision = weighted(answer.ids, &best_of_ours, idf)?;
    let recall = weighted(expected.ids, &best_of_theirs, idf)?;
    let f1 = 2.0 * precision * recall / (precision + recall);
    let f1 = if f1.is_nan() { 0.0 } else { f1 };
    Some(BertScore {
        precision,
        recall,
        f1,
    })
}

fn normalised(vectors: &[Vec<f32>]) -> Vec<Vec<f64>> {
    let unit = |vector: &Vec<f32>| {
        let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        let length = length.sqrt().max(f64::MIN_POSITIVE);
        vector.iter().map(|x| f64::from(*x) / length).collect()
    };
    vectors.iter().map(unit).collect()
}

/// The mean of what the tokens found, by their weight. The ends, and tokens like them, have none.
fn weighted(ids: &[u32], best: &[f64], idf: Option<&Frequencies>) -> Option<f64> {
    let ends = [ids.first().copied(), ids.last().copied()];
    let (mut sum, mut weights) = (0.0, 0.0);
    for (id, best) in ids.iter().zip(best) {
        if ends.contains(&Some(*id)) {
            continue;
        }
        let weight = idf.map_or(1.0, |idf| idf.weight(*id));
        sum += weight * best;
        weights += weight;
    }
    (weights > 0.0).then(|| sum / weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_partners_without_weight() {
        let ids = [101, 7, 102];
        let other = [101, 8, 102];
        // The answer's only token is like [SEP] of the other side and unlike its token.
        let answer = [vec![1.0, 0.0], vec![0.0, 1.0], vec![0.6, 0.8]];
        let expected = [vec![1.0, 0.0], vec![1.0, 0.0], vec![0.0, 2.0]];
        let one = Encoded {
            ids: &ids,
            vectors: &answer,
        };
        let two = Encoded {
            ids: &other,
            vectors: &expected,
        };
        let found = score(one, two, None).unwrap();
        assert!((found.precision - 1.0).abs() < 1e-9, "{found:?}");
        assert!((found.recall - 1.0).abs() < 1e-9, "{found:?}");
        let empty = Encoded {
            ids: &[101, 102],
            vectors: &expected[..2],
        };
        assert_eq!(score(empty, two, None), Some(BertScore::ZERO));
        let mut idf = Frequencies::default();
        idf.add(&other);
        // The only expected answer has the token: it weighs nothing.
        assert_eq!(score(one, two, Some(&idf)), None);
    }
}
