//! How far two or more raters agree: people, judges, or one of each.
//!
//! Raw agreement flatters where one label is frequent, so it stands beside coefficients
//! that take off what chance would give. None of them has a value when everybody used one
//! label only; that is `None`, not 0 and not 1.

use serde::Serialize;

use crate::invalid::Invalid;
use crate::special::{float, length};

/// How much a disagreement counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// Any two different labels alike.
    None,
    /// By the distance of their places in the list.
    Linear,
    /// By its square.
    Quadratic,
}

/// Who gave which label: `counts[i][j]` items got label `i` from the first rater (the
/// truth, the person) and label `j` from the second (the judge).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Confusion {
    /// Rows are the first rater's labels, columns the second's.
    pub counts: Vec<Vec<u64>>,
}

/// What one label's items show.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LabelAgreement {
    /// How often the first rater gave it.
    pub first: u64,
    /// How often the second rater gave it.
    pub second: u64,
    /// How often both did.
    pub both: u64,
    /// `2·both/(first + second)`: of all uses of the label, the share that the other rater
    /// confirms. `None` if nobody used it.
    pub agreement: Option<f64>,
}

impl Confusion {
    /// Counts pairs of labels, each given by its place in a list of `labels`.
    pub fn count(labels: usize, pairs: &[(usize, usize)]) -> Result<Self, Invalid> {
        let mut counts = vec![vec![0; labels]; labels];
        for (first, second) in pairs {
            let worst = *first.max(second);
            if worst >= labels {
                return Err(Invalid::OutOfRange {
                    what: "label",
                    value: length(worst),
                    allowed: "a place in the list of labels",
                });
            }
            counts[*first][*second] += 1;
        }
        Ok(Self { counts })
    }

    /// All items.
    pub fn items(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// The share of items with the same label from both; `None` without items.
    pub fn percent_agreement(&self) -> Option<f64> {
        let same: u64 = (0..self.counts.len()).map(|at| self.counts[at][at]).sum();
        (self.items() > 0).then(|| float(same) / float(self.items()))
    }

    /// Cohen's κ (1960), weighted κ with weights (1968): `1 − Σ w·observed / Σ w·expected`, where
    /// what is expected has the same margins and no connection. `None` without items, or
    /// when both raters used one and the same label throughout.
    pub fn kappa(&self, weights: Weights) -> Option<f64> {
        let n = float(self.items());
        let (first, second) = self.margins();
        let (mut observed, mut expected) = (0.0, 0.0);
        for (i, row) in self.counts.iter().enumerate() {
            for (j, count) in row.iter().enumerate() {
                let weight = disagreement(i, j, weights);
                observed += weight * float(*count);
                expected += weight * float(first[i]) * float(second[j]) / n.max(1.0);
            }
        }
        (expected > 0.0).then(|| 1.0 - observed / expected)
    }

    /// Each label by itself.
    pub fn by_label(&self) -> Vec<LabelAgreement> {
        let (first, second) = self.margins();
        let one = |at: usize| {
            let (both, uses) = (self.counts[at][at], first[at] + second[at]);
            LabelAgreement {
                first: first[at],
                second: second[at],
                both,
                agreement: (uses > 0).then(|| 2.0 * float(both) / float(uses)),
            }
        };
        (0..self.counts.len()).map(one).collect()
    }

    fn margins(&self) -> (Vec<u64>, Vec<u64>) {
        let first = self.counts.iter().map(|row| row.iter().sum()).collect();
        let column = |at: usize| self.counts.iter().map(|row| row[at]).sum();
        (first, (0..self.counts.len()).map(column).collect())
    }
}

fn disagreement(i: usize, j: usize, weights: Weights) -> f64 {
    let gap = length(i.abs_diff(j));
    match weights {
        Weights::None => f64::from(u8::from(i != j)),
        Weights::Linear => gap,
        Weights::Quadratic => gap * gap,
    }
}

/// What ratings mean, which decides how much a disagreement counts in [`krippendorff`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Labels without an order.
    Nominal,
    /// An order without distances: stars, grades.
    Ordinal,
    /// Numbers whose differences mean something.
    Interval,
}

/// Krippendorff's α and what it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Alpha {
    /// 1 is full agreement, 0 what chance gives; `None` when there is nothing to compare, or
    /// all ratings are the same.
    pub value: Option<f64>,
    /// Items with at least two ratings.
    pub items: usize,
    /// Ratings of these.
    pub ratings: usize,
}

/// Krippendorff's `α = 1 − D_o/D_e` (Krippendorff 2011, "Computing Krippendorff's
/// alpha-reliability"). `ratings` has one list per item with one place per rater; a rating
/// that is missing is `None`, and items with fewer than two ratings say nothing. Labels
/// without an order are given as any numbers that tell them apart.
pub fn krippendorff(ratings: &[Vec<Option<f64>>], level: Level) -> Result<Alpha, Invalid> {
    for (at, item) in ratings.iter().enumerate() {
        if item.iter().flatten().any(|rating| !rating.is_finite()) {
            return Err(Invalid::NotFinite {
                what: "ratings of items",
                at,
            });
        }
    }
    let items: Vec<Vec<f64>> = ratings
        .iter()
        .map(|item| item.iter().flatten().copied().collect())
        .filter(|item: &Vec<f64>| item.len() >= 2)
        .collect();
    let scale = Scale::new(&items, level);
    let total = items.iter().map(Vec::len).sum::<usize>();
    let observed: f64 = items
        .iter()
        .map(|item| scale.disagreement(&scale.counts(item)) / (length(item.len()) - 1.0))
        .sum();
    let expected = scale.disagreement(&scale.totals) / (length(total) - 1.0);
    Ok(Alpha {
        value: (total > 0 && expected > 0.0).then(|| 1.0 - observed / expected),
        items: items.len(),
        ratings: total,
    })
}

/// The different ratings, ascending, and where each lies on a line on which a disagreement
/// counts as the square of the distance; labels without an order have no such line.
struct Scale {
    values: Vec<f64>,
    totals: Vec<(usize, f64)>,
    line: Option<Vec<f64>>,
}

impl Scale {
    fn new(items: &[Vec<f64>], level: Level) -> Self {
        let mut values: Vec<f64> = items.iter().flatten().copied().collect();
        values.sort_by(f64::total_cmp);
        values.dedup_by(|a, b| a == b);
        let mut scale = Self {
            values,
            totals: Vec::new(),
            line: None,
        };
        let all: Vec<f64> = items.iter().flatten().copied().collect();
        scale.totals = scale.counts(&all);
        scale.line = match level {
            Level::Nominal => None,
            Level::Interval => Some(scale.values.clone()),
            Level::Ordinal => Some(scale.ranks()),
        };
        scale
    }

    /// Mean ranks: the distance of two values is how many ratings lie between their middles.
    fn ranks(&self) -> Vec<f64> {
        let mut before = 0.0;
        let middle = |(_, count): &(usize, f64)| {
            before += count;
            before - count / 2.0
        };
        self.totals.iter().map(middle).collect()
    }

    /// How often each of the values occurs, those that do.
    fn counts(&self, ratings: &[f64]) -> Vec<(usize, f64)> {
        let place = |rating: &f64| self.values.partition_point(|value| value < rating);
        let mut places: Vec<usize> = ratings.iter().map(place).collect();
        places.sort_unstable();
        let count = |same: &[usize]| (same[0], length(same.len()));
        places.chunk_by(|a, b| a == b).map(count).collect()
    }

    /// The disagreements of all ordered pairs of these ratings. On a line that is
    /// `2(n·Σx² − (Σx)²)` around the mean; so many different values take no more than one pass.
    fn disagreement(&self, counts: &[(usize, f64)]) -> f64 {
        let n: f64 = counts.iter().map(|(_, count)| count).sum();
        let Some(line) = &self.line else {
            let same: f64 = counts.iter().map(|(_, count)| count * count).sum();
            return n * n - same;
        };
        let mean = counts
            .iter()
            .map(|(at, count)| count * line[*at])
            .sum::<f64>()
            / n.max(1.0);
        let square = |(at, count): &(usize, f64)| count * (line[*at] - mean).powi(2);
        2.0 * n * counts.iter().map(square).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kappa_by_hand() {
        // 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: p_o = 0.7, p_e = 0.5·0.6 + 0.5·0.4 = 0.5.
        let found = Confusion {
            counts: vec![vec![20, 5], vec![10, 15]],
        };
        assert_eq!(found.percent_agreement(), Some(0.7));
        assert!((found.kappa(Weights::None).unwrap() - 0.4).abs() < 1e-12);
        assert_eq!(found.by_label()[0].agreement, Some(40.0 / 55.0));
        let listed = Confusion::count(3, &[(0, 0), (1, 2), (2, 2)]).unwrap();
        assert_eq!(listed.counts, [[1, 0, 0], [0, 0, 1], [0, 0, 1]]);
        assert_eq!(listed.items(), 3);
        assert_eq!(listed.by_label()[1].agreement, Some(0.0));
        assert!(Confusion::count(2, &[(0, 2)]).is_err());
    }

    #[test]
    fn one_class_has_no_kappa() {
        let one = Confusion::count(2, &[(1, 1); 9]).unwrap();
        assert_eq!(
            (one.kappa(Weights::None), one.percent_agreement()),
            (None, Some(1.0))
        );
        let none = Confusion::count(2, &[]).unwrap();
        assert_eq!(
            (none.kappa(Weights::Linear), none.percent_agreement()),
            (None, None)
        );
        let empty = Confusion::count(0, &[]).unwrap();
        assert_eq!(empty.kappa(Weights::None), None);
        // One rater never changes: no more than chance.
        let lazy = Confusion::count(2, &[(0, 0), (1, 0)]).unwrap();
        assert_eq!(lazy.kappa(Weights::None), Some(0.0));
    }

    /// The example of Krippendorff (2011), with his results.
    #[test]
    fn alpha_of_the_paper() {
        let rows = [
            [1, 1, 0, 1],
            [2, 2, 3, 2],
            [3, 3, 3, 3],
            [3, 3, 3, 3],
            [2, 2, 2, 2],
            [1, 2, 3, 4],
            [4, 4, 4, 4],
            [1, 1, 2, 1],
            [2, 2, 2, 2],
            [0, 5, 5, 5],
            [0, 0, 1, 1],
            [0, 0, 3, 0],
        ];
        let rating = |value: &i32| (*value > 0).then(|| f64::from(*value));
        let rows: Vec<Vec<Option<f64>>> = rows
            .iter()
            .map(|row| row.iter().map(rating).collect())
            .collect();
        for (level, expected) in [
            (Level::Nominal, 0.743),
            (Level::Ordinal, 0.815),
            (Level::Interval, 0.849),
        ] {
            let found = krippendorff(&rows, level).unwrap();
            assert!(
                (found.value.unwrap() - expected).abs() < 0.000_6,
                "{level:?} {found:?}"
            );
            assert_eq!((found.items, found.ratings), (11, 40));
        }
    }

    #[test]
    fn alpha_of_nothing() {
        let nothing = |rows: &[Vec<Option<f64>>]| {
            [Level::Nominal, Level::Ordinal, Level::Interval]
                .iter()
                .all(|level| krippendorff(rows, *level).unwrap().value.is_none())
        };
        assert!(nothing(&[]));
        assert!(nothing(&[vec![], vec![Some(1.0)], vec![None, None]]));
        assert!(nothing(&[
            vec![Some(3.0), Some(3.0)],
            vec![Some(3.0), Some(3.0), None]
        ]));
        let bad = krippendorff(&[vec![Some(f64::NAN), Some(1.0)]], Level::Nominal);
        assert!(bad.is_err());
        // One item only, rated differently: worse than chance cannot be told from chance.
        let one = krippendorff(&[vec![Some(1.0), Some(2.0)]], Level::Nominal).unwrap();
        assert_eq!(one.value, Some(0.0));
    }
}
