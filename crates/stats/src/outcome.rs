//! A mean beside what it leaves out.
//!
//! A row ends in one of three ways: it was scored, the system under test failed on it, or
//! the instrument (a metric, a judge) failed. A broken instrument never counts against the
//! system, and a mean without its coverage hides both kinds of failure, so they are one value.

use serde::Serialize;

use crate::compare::Pair;
use crate::interval::wilson;
use crate::invalid::{Invalid, all_finite, same_length, valid_alpha};
use crate::mean::{MeanEstimate, estimate_clustered_mean, estimate_mean};
use crate::sequential::Interval;
use crate::special::length;

/// How one row ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// It has a score.
    Scored(f64),
    /// The system under test failed.
    Error,
    /// The instrument failed: nothing is known about the system.
    Unscored,
}

impl Outcome {
    fn score(self) -> Option<f64> {
        match self {
            Self::Scored(score) => Some(score),
            Self::Error | Self::Unscored => None,
        }
    }
}

/// How many rows ended in which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Coverage {
    /// Rows with a score.
    pub scored: usize,
    /// Rows on which the system failed.
    pub errors: usize,
    /// Rows on which the instrument failed.
    pub unscored: usize,
}

impl Coverage {
    /// Counts outcomes.
    pub fn of(outcomes: &[Outcome]) -> Self {
        let mut counts = Self::default();
        for outcome in outcomes {
            match outcome {
                Outcome::Scored(_) => counts.scored += 1,
                Outcome::Error => counts.errors += 1,
                Outcome::Unscored => counts.unscored += 1,
            }
        }
        counts
    }

    /// All rows.
    pub fn rows(&self) -> usize {
        self.scored + self.errors + self.unscored
    }

    /// The share of rows that have a score; 0 without rows.
    pub fn share(&self) -> f64 {
        length(self.scored) / length(self.rows().max(1))
    }
}

/// The mean of the rows that have a score, and how many have none.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CoveredMean {
    /// The mean of the scored rows; `None` if there is none.
    pub mean: Option<f64>,
    /// Its standard error; `None` with fewer than two independent rows.
    pub standard_error: Option<f64>,
    /// Its interval: Wilson's where every score is 0 or 1, Student's t otherwise.
    pub interval: Interval,
    /// The mean with each error counted as the worst score: what a user of the system gets.
    /// `None` without a worst score, or without rows.
    pub strict_mean: Option<f64>,
    /// How many rows it is of, and how many it leaves out.
    pub coverage: Coverage,
}

/// The mean with its coverage. `clusters` has one key per row, if rows are not independent;
/// `worst` is the score that an error counts as in the strict mean.
pub fn covered_mean(
    outcomes: &[Outcome],
    clusters: Option<&[u64]>,
    worst: Option<f64>,
    alpha: f64,
) -> Result<CoveredMean, Invalid> {
    valid_alpha(alpha)?;
    all_finite("worst score", worst)?;
    let zeros = |outcome: &Outcome| outcome.score().unwrap_or(0.0);
    all_finite("scores", outcomes.iter().map(zeros))?;
    if let Some(clusters) = clusters {
        same_length("outcomes and clusters", outcomes.len(), clusters.len())?;
    }
    let coverage = Coverage::of(outcomes);
    let mut scores = Vec::with_capacity(coverage.scored);
    let mut keys = Vec::with_capacity(coverage.scored);
    for (row, outcome) in outcomes.iter().enumerate() {
        if let Some(score) = outcome.score() {
            scores.push(score);
            keys.extend(clusters.map(|clusters| clusters[row]));
        }
    }
    let found = match clusters {
        Some(_) => estimate_clustered_mean(&scores, &keys)?,
        None => estimate_mean(&scores)?,
    };
    let strict = |worst: f64| {
        let judged = length(coverage.scored + coverage.errors);
        (judged > 0.0).then(|| {
            (found.mean * length(coverage.scored) + worst * length(coverage.errors)) / judged
        })
    };
    Ok(CoveredMean {
        mean: (found.n > 0).then_some(found.mean),
        standard_error: (found.units > 1).then_some(found.standard_error),
        interval: interval(&scores, &found, alpha),
        strict_mean: worst.and_then(strict),
        coverage,
    })
}

fn interval(scores: &[f64], found: &MeanEstimate, alpha: f64) -> Interval {
    let ones = scores.iter().filter(|score| **score == 1.0).count();
    let zeros = scores.iter().filter(|score| **score == 0.0).count();
    if !scores.is_empty() && found.units == found.n && ones + zeros == scores.len() {
        return wilson(ones as u64, scores.len() as u64, alpha);
    }
    found.interval(alpha)
}

/// Rows that both systems were scored on, and why others were not.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PairedRows {
    /// The rows with two scores.
    pub pairs: Vec<Pair>,
    /// Where they are in the lists that were given.
    pub rows: Vec<usize>,
    /// Rows that only the first system has a score on: the second failed or was not judged.
    pub only_first: usize,
    /// Rows that only the second system has a score on.
    pub only_second: usize,
    /// Rows without any score.
    pub neither: usize,
}

/// Pairs two systems' outcomes row by row. A comparison is over the rows that both were
/// scored on; if one system fails on the hard rows the counts say so, the comparison cannot.
/// With `worst`, an error counts as that score instead of leaving its row out.
pub fn pair_outcomes(
    first: &[Outcome],
    second: &[Outcome],
    clusters: Option<&[u64]>,
    worst: Option<f64>,
) -> Result<PairedRows, Invalid> {
    same_length("outcomes of the two systems", first.len(), second.len())?;
    if let Some(clusters) = clusters {
        same_length("outcomes and clusters", first.len(), clusters.len())?;
    }
    let score = |outcome: Outcome| match outcome {
        Outcome::Error => worst,
        other => other.score(),
    };
    let mut paired = PairedRows::default();
    for (row, (first, second)) in first.iter().zip(second).enumerate() {
        match (score(*first), score(*second)) {
            (Some(first), Some(second)) => {
                let cluster = clusters.map(|clusters| clusters[row]);
                paired.rows.push(row);
                paired.pairs.push(Pair {
                    first,
                    second,
                    cluster,
                });
            }
            (Some(_), None) => paired.only_first += 1,
            (None, Some(_)) => paired.only_second += 1,
            (None, None) => paired.neither += 1,
        }
    }
    Ok(paired)
}

#[cfg(test)]
mod tests {
    use super::Outcome::{Error, Scored, Unscored};
    use super::*;

    #[test]
    fn three_outcomes() {
        let rows = [
            Scored(1.0),
            Scored(0.0),
            Error,
            Unscored,
            Scored(1.0),
            Scored(1.0),
        ];
        let found = covered_mean(&rows, None, Some(0.0), 0.05).unwrap();
        assert_eq!((found.mean, found.strict_mean), (Some(0.75), Some(0.6)));
        let counts = Coverage {
            scored: 4,
            errors: 1,
            unscored: 1,
        };
        assert_eq!(found.coverage, counts);
        assert!((counts.share() - 4.0 / 6.0).abs() < 1e-12);
        assert_eq!(found.interval, wilson(3, 4, 0.05));
        // Two conversations of two rows each: the interval is that of two units.
        let keys = [1, 1, 1, 1, 2, 2];
        let found = covered_mean(&rows, Some(&keys), None, 0.05).unwrap();
        assert!(found.interval.high > 1.5 && found.strict_mean.is_none());
    }

    #[test]
    fn nothing_and_nonsense() {
        let none = covered_mean(&[Error, Unscored], None, Some(0.0), 0.05).unwrap();
        assert_eq!((none.mean, none.standard_error), (None, None));
        assert_eq!(
            (none.strict_mean, none.interval),
            (Some(0.0), Interval::ALL)
        );
        let empty = covered_mean(&[], None, Some(0.0), 0.05).unwrap();
        assert_eq!((empty.strict_mean, empty.coverage.share()), (None, 0.0));
        let one = covered_mean(&[Scored(0.4)], None, None, 0.05).unwrap();
        assert_eq!((one.mean, one.standard_error), (Some(0.4), None));
        assert!(covered_mean(&[Scored(f64::NAN)], None, None, 0.05).is_err());
        assert!(covered_mean(&[Error], None, None, 0.0).is_err());
        assert!(covered_mean(&[Error], Some(&[1, 2]), None, 0.05).is_err());
    }

    #[test]
    fn pairing() {
        let first = [Scored(1.0), Error, Scored(0.0), Unscored];
        let second = [Scored(0.5), Scored(1.0), Unscored, Error];
        let found = pair_outcomes(&first, &second, Some(&[7, 7, 8, 8]), None).unwrap();
        assert_eq!(
            (found.only_first, found.only_second, found.neither),
            (1, 1, 1)
        );
        assert_eq!((found.rows[0], found.pairs[0].cluster), (0, Some(7)));
        let strict = pair_outcomes(&first, &second, None, Some(0.0)).unwrap();
        assert_eq!((strict.pairs.len(), strict.only_second), (2, 1));
        assert!(pair_outcomes(&first, &[], None, None).is_err());
    }
}
