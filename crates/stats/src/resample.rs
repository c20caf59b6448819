//! Resampling: what a figure could have been with other rows, and what it would be if
//! the two systems were the same.
//!
//! The bootstrap draws rows with replacement (whole clusters, where rows share one) and
//! computes the figure again; it needs no formula for the figure, so it also serves
//! those of a whole data set, such as BLEU and F1. The permutation test exchanges the
//! two systems' results row by row, which changes nothing if they are the same. Both are
//! paired: a row is always drawn or exchanged with both its results.
//!
//! Everything follows from a seed, so a stored result can be computed again.

use std::collections::BTreeMap;

use crate::invalid::{Invalid, all_finite, same_length, valid_alpha};
use crate::random::Random;
use crate::sequential::Interval;
use crate::special::{length, normal_cdf, t_quantile};

/// Fewer resamples make the ends of an interval a matter of luck.
pub const LEAST_RESAMPLES: u32 = 200;
/// More only cost time.
pub const MOST_RESAMPLES: u32 = 100_000;
/// Up to this many units all sign changes are tried instead of a random part of them.
const EXACT_UNITS: usize = 12;

/// How often to resample, and from which seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resampling {
    /// How many resamples, from [`LEAST_RESAMPLES`] to [`MOST_RESAMPLES`].
    pub resamples: u32,
    /// Where the random numbers start.
    pub seed: u64,
}

impl Default for Resampling {
    fn default() -> Self {
        Self {
            resamples: 2_000,
            seed: 12_345,
        }
    }
}

impl Resampling {
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        if (LEAST_RESAMPLES..=MOST_RESAMPLES).contains(&self.resamples) {
            return Ok(());
        }
        Err(Invalid::OutOfRange {
            what: "resamples",
            value: f64::from(self.resamples),
            allowed: "from 200 to 100000",
        })
    }
}

/// The figure of the data and of its resamples.
#[derive(Debug, Clone, PartialEq)]
pub struct Bootstrap {
    /// The figure of the data itself; 0 when there is no row.
    pub estimate: f64,
    /// The figures of the resamples, ascending. Those that had no value are left out.
    pub draws: Vec<f64>,
    /// How many independent units were drawn from: clusters, or rows.
    pub units: usize,
    /// How many resamples had no value, because the figure is not defined for them.
    pub undefined: u32,
}

impl Bootstrap {
    /// The percentile interval: the middle 1 − α of the resamples.
    pub fn percentile(&self, alpha: f64) -> Interval {
        self.between(alpha / 2.0)
    }

    /// The percentile interval with its tails chosen so that it is as wide for normal data
    /// as Student's t says; the plain one is too narrow for few rows (Hesterberg 2015,
    /// "What teachers should know about the bootstrap": `α'/2 = Φ(−√(n/(n−1))·t(1−α/2, n−1))`).
    pub fn expanded(&self, alpha: f64) -> Interval {
        if self.units < 2 {
            return Interval::ALL;
        }
        let n = length(self.units);
        let t = t_quantile(1.0 - alpha / 2.0, n - 1.0);
        self.between(normal_cdf(-(n / (n - 1.0)).sqrt() * t))
    }

    /// The two-sided p-value of "the true figure is 0": how often a resample is as far from
    /// the mean of the resamples as the data is from 0.
    pub fn p_value(&self) -> f64 {
        let mean = self.mean();
        self.share(|draw| (draw - mean).abs() >= self.estimate.abs() - self.rounding())
    }

    /// The p-value that sacreBLEU prints for its paired bootstrap:
    /// `(#{|Δ*| − mean(|Δ*|) > |Δ|} + 1)/(B + 1)`. It looks at one side only, so comparing it
    /// with 5 % gives about 10 % of false alarms; for showing beside other tools' figures,
    /// not for verdicts.
    pub fn sacrebleu_p_value(&self) -> f64 {
        let sizes = self.draws.iter().map(|draw| draw.abs());
        let mean = sizes.sum::<f64>() / length(self.draws.len()).max(1.0);
        self.share(|draw| draw.abs() - mean > self.estimate.abs())
    }

    fn mean(&self) -> f64 {
        self.draws.iter().sum::<f64>() / length(self.draws.len()).max(1.0)
    }

    /// What rounding alone can do to a figure of this size.
    fn rounding(&self) -> f64 {
        1e-12 * self.estimate.abs()
    }

    fn share(&self, counts: impl Fn(f64) -> bool) -> f64 {
        let hits = self.draws.iter().filter(|draw| counts(**draw)).count();
        (length(hits) + 1.0) / (length(self.draws.len()) + 1.0)
    }

    fn between(&self, tail: f64) -> Interval {
        if self.units < 2 || self.draws.is_empty() {
            return Interval::ALL;
        }
        Interval {
            low: quantile(&self.draws, tail),
            high: quantile(&self.draws, 1.0 - tail),
        }
    }
}

/// The quantile of ascending values, with a straight line between neighbours. They must not be empty.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and the length"
)]
pub(crate) fn quantile(ascending: &[f64], p: f64) -> f64 {
    let last = ascending.len() - 1;
    let at = p.clamp(0.0, 1.0) * length(last);
    let below = (at as usize).min(last);
    let above = (below + 1).min(last);
    ascending[below] + (at - length(below)) * (ascending[above] - ascending[below])
}

/// The independent units of some rows: rows with the same key belong together.
#[derive(Debug, Clone)]
pub(crate) enum Units {
    Rows(usize),
    Clusters(Vec<Vec<usize>>),
}

impl Units {
    /// `clusters` has one key per row, or is `None` when every row stands alone.
    pub(crate) fn new(rows: usize, clusters: Option<&[u64]>) -> Result<Self, Invalid> {
        let Some(keys) = clusters else {
            return Ok(Self::Rows(rows));
        };
        same_length("rows and clusters", rows, keys.len())?;
        let mut groups: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (row, key) in keys.iter().enumerate() {
            groups.entry(*key).or_default().push(row);
        }
        Ok(if groups.len() == rows {
            Self::Rows(rows)
        } else {
            Self::Clusters(groups.into_values().collect())
        })
    }

    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Rows(rows) => *rows,
            Self::Clusters(groups) => groups.len(),
        }
    }

    /// Draws as many units as there are and lists their rows.
    pub(crate) fn draw(&self, random: &mut Random, rows: &mut Vec<usize>) {
        rows.clear();
        for _ in 0..self.count() {
            let at = random.below(self.count());
            match self {
                Self::Rows(_) => rows.push(at),
                Self::Clusters(groups) => rows.extend_from_slice(&groups[at]),
            }
        }
    }
}

/// Resamples `rows` rows and computes a figure of each resample: `figure` is given the
/// numbers of the rows that were drawn, some of them several times, and returns `None`
/// where it is not defined (F1 without any positive row).
pub fn bootstrap(
    rows: usize,
    clusters: Option<&[u64]>,
    how: Resampling,
    mut figure: impl FnMut(&[usize]) -> Option<f64>,
) -> Result<Bootstrap, Invalid> {
    how.check()?;
    let units = Units::new(rows, clusters)?;
    let mut defined = |rows: &[usize]| figure(rows).filter(|value| value.is_finite());
    let all: Vec<usize> = (0..rows).collect();
    let estimate = if rows == 0 { None } else { defined(&all) };
    let Some(estimate) = estimate else {
        return Ok(Bootstrap {
            estimate: 0.0,
            draws: Vec::new(),
            units: units.count(),
            undefined: how.resamples,
        });
    };
    let (mut random, mut drawn) = (Random::new(how.seed), Vec::with_capacity(rows));
    let mut draws: Vec<f64> = (0..how.resamples)
        .filter_map(|_| {
            units.draw(&mut random, &mut drawn);
            defined(&drawn)
        })
        .collect();
    draws.sort_by(f64::total_cmp);
    let undefined = how.resamples - u32::try_from(draws.len()).unwrap_or(how.resamples);
    Ok(Bootstrap {
        estimate,
        draws,
        units: units.count(),
        undefined,
    })
}

/// [`bootstrap`] of the mean, from the units' sums instead of their rows.
pub fn bootstrap_mean(
    values: &[f64],
    clusters: Option<&[u64]>,
    how: Resampling,
) -> Result<Bootstrap, Invalid> {
    how.check()?;
    all_finite("values", values.iter().copied())?;
    let units: Vec<(f64, f64)> = match Units::new(values.len(), clusters)? {
        Units::Rows(_) => values.iter().map(|value| (*value, 1.0)).collect(),
        Units::Clusters(groups) => groups
            .iter()
            .map(|rows| {
                (
                    rows.iter().map(|row| values[*row]).sum(),
                    length(rows.len()),
                )
            })
            .collect(),
    };
    let mut random = Random::new(how.seed);
    let mut draw = || {
        let (mut total, mut rows) = (0.0, 0.0);
        for _ in 0..units.len() {
            let (sum, size) = units[random.below(units.len())];
            (total, rows) = (total + sum, rows + size);
        }
        total / rows
    };
    let mut draws: Vec<f64> = if units.is_empty() {
        Vec::new()
    } else {
        (0..how.resamples).map(|_| draw()).collect()
    };
    draws.sort_by(f64::total_cmp);
    Ok(Bootstrap {
        estimate: values.iter().sum::<f64>() / length(values.len().max(1)),
        undefined: if draws.is_empty() { how.resamples } else { 0 },
        draws,
        units: units.len(),
    })
}

/// The interval of any figure of rows with two raters, judges or labels: the expanded
/// percentile interval, or everything when fewer than half of the resamples have a value.
pub fn bootstrap_interval(
    rows: usize,
    clusters: Option<&[u64]>,
    alpha: f64,
    how: Resampling,
    figure: impl FnMut(&[usize]) -> Option<f64>,
) -> Result<Interval, Invalid> {
    valid_alpha(alpha)?;
    let found = bootstrap(rows, clusters, how, figure)?;
    if found.undefined * 2 > how.resamples {
        return Ok(Interval::ALL);
    }
    Ok(found.expanded(alpha))
}

/// The paired permutation test (approximate randomisation) of "the mean difference is 0":
/// under it each difference could as well have had the other sign. Two-sided. With up to 12
/// units every combination of signs is tried, so the p-value is exact; with more a random
/// part, and then `p = (as far from 0 + 1)/(tried + 1)`. Rows of a cluster change together.
pub fn permutation_p_value(
    differences: &[f64],
    clusters: Option<&[u64]>,
    how: Resampling,
) -> Result<f64, Invalid> {
    how.check()?;
    all_finite("differences", differences.iter().copied())?;
    let sums: Vec<f64> = match Units::new(differences.len(), clusters)? {
        Units::Rows(_) => differences.to_vec(),
        Units::Clusters(groups) => groups
            .iter()
            .map(|rows| rows.iter().map(|row| differences[*row]).sum())
            .collect(),
    };
    // A unit without a difference stays where it is under either sign.
    let sums: Vec<f64> = sums.into_iter().filter(|sum| *sum != 0.0).collect();
    let seen = sums.iter().sum::<f64>().abs();
    // Sums in another order differ by rounding; what is equal must count as equal.
    let limit = seen - 1e-12 * sums.iter().map(|sum| sum.abs()).sum::<f64>();
    if sums.len() <= EXACT_UNITS {
        let all = 1_u64 << sums.len();
        let far = (0..all).filter(|signs| signed(&sums, || *signs).abs() >= limit);
        return Ok(length(far.count()) / crate::special::float(all));
    }
    let mut random = Random::new(how.seed);
    let far = (0..how.resamples).filter(|_| signed(&sums, || random.next()).abs() >= limit);
    Ok((length(far.count()) + 1.0) / (f64::from(how.resamples) + 1.0))
}

/// The sum with signs taken from random bits, 64 at a time.
fn signed(sums: &[f64], mut bits: impl FnMut() -> u64) -> f64 {
    let mut total = 0.0;
    for part in sums.chunks(64) {
        let mut signs = bits();
        for sum in part {
            total += if signs & 1 == 0 { *sum } else { -*sum };
            signs >>= 1;
        }
    }
    total
}

/// The permutation test of a figure of the whole data set: `difference` is told for each row
/// whether the two systems' results are exchanged, and returns second less first.
/// `p = (as far from 0 + 1)/(tried + 1)`; 1 when the figure is not defined for the data.
pub fn randomisation_p_value(
    rows: usize,
    clusters: Option<&[u64]>,
    how: Resampling,
    mut difference: impl FnMut(&[bool]) -> Option<f64>,
) -> Result<f64, Invalid> {
    how.check()?;
    let units = Units::new(rows, clusters)?;
    let mut exchanged = vec![false; rows];
    let Some(seen) = difference(&exchanged).filter(|seen| seen.is_finite()) else {
        return Ok(1.0);
    };
    let (mut random, limit) = (Random::new(how.seed), seen.abs() * (1.0 - 1e-12));
    let mut far = 0_u32;
    for _ in 0..how.resamples {
        match &units {
            Units::Rows(_) => exchanged
                .iter_mut()
                .for_each(|row| *row = random.below(2) == 1),
            Units::Clusters(groups) => {
                for rows in groups {
                    let change = random.below(2) == 1;
                    rows.iter().for_each(|row| exchanged[*row] = change);
                }
            }
        }
        // A figure without a value is no evidence against "the same".
        let found = difference(&exchanged).filter(|found| found.is_finite());
        far += u32::from(found.is_none_or(|found| found.abs() >= limit));
    }
    Ok((f64::from(far) + 1.0) / (f64::from(how.resamples) + 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOW: Resampling = Resampling {
        resamples: 1_000,
        seed: 3,
    };

    #[test]
    fn seeds_decide() {
        let values: Vec<f64> = (0..40).map(|at| f64::from(at % 7)).collect();
        let first = bootstrap_mean(&values, None, HOW).unwrap();
        assert_eq!(first, bootstrap_mean(&values, None, HOW).unwrap());
        let other = Resampling { seed: 4, ..HOW };
        assert_ne!(first, bootstrap_mean(&values, None, other).unwrap());
        assert!(first.draws.is_sorted() && first.undefined == 0);
        let (plain, wide) = (first.percentile(0.05), first.expanded(0.05));
        assert!(wide.low <= plain.low && plain.high <= wide.high && wide != plain);
        assert!(plain.holds(first.estimate));
    }

    #[test]
    fn all_signs_of_few() {
        // 1 + 2 + 3 = 6: only +++ and −−− are as far; 2 of 8.
        assert_eq!(permutation_p_value(&[1.0, 2.0, 3.0], None, HOW), Ok(0.25));
        assert_eq!(permutation_p_value(&[0.0; 50], None, HOW), Ok(1.0));
        assert_eq!(permutation_p_value(&[], None, HOW), Ok(1.0));
        // Three clusters with the sums 1, 2, 3.
        let rows = [0.5, 0.5, 2.0, 1.0, 2.0];
        let keys = [1, 1, 2, 3, 3];
        assert_eq!(permutation_p_value(&rows, Some(&keys), HOW), Ok(0.25));
        // Many equal differences: as far only if all signs are the same.
        assert!(permutation_p_value(&[0.1; 30], None, HOW).unwrap() < 0.002);
    }

    #[test]
    fn figures_of_the_whole() {
        let (first, second) = ([0.2, 0.4, 0.1, 0.3], [0.3, 0.5, 0.3, 0.4]);
        let difference = |exchanged: &[bool]| {
            let gap = |row: usize| second[row] - first[row];
            let signed = |row: usize| if exchanged[row] { -gap(row) } else { gap(row) };
            Some((0..4).map(signed).sum::<f64>() / 4.0)
        };
        let found = randomisation_p_value(4, None, HOW, difference).unwrap();
        assert!((found - 0.125).abs() < 0.04, "{found}");
        assert_eq!(randomisation_p_value(0, None, HOW, |_| None), Ok(1.0));
        let never = bootstrap_interval(9, None, 0.05, HOW, |_| None).unwrap();
        assert_eq!(never, Interval::ALL);
        let empty = bootstrap_mean(&[], None, HOW).unwrap();
        assert_eq!(empty.percentile(0.05), Interval::ALL);
        assert!(bootstrap_mean(&[f64::INFINITY], None, HOW).is_err());
        let few = Resampling {
            resamples: 5,
            ..HOW
        };
        assert!(bootstrap_mean(&[1.0], None, few).is_err());
        assert!(bootstrap_mean(&[1.0], Some(&[]), HOW).is_err());
    }

    #[test]
    fn clusters_are_drawn_whole() {
        let keys = [1, 1, 2, 2, 3, 3];
        let whole = bootstrap(6, Some(&keys), HOW, |rows| {
            assert!(rows.len() == 6 && rows.chunks(2).all(|pair| keys[pair[0]] == keys[pair[1]]));
            Some(length(rows[0]))
        });
        assert_eq!(whole.unwrap().units, 3);
    }
}
