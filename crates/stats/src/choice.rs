//! Choosing one of many: who is the best how surely, who can be left out early, and what
//! is worth its price.
//!
//! All of it is paired: a row of the data set has one score per candidate, and resamples
//! take a row with all of them.

use serde::Serialize;

use crate::interval::mcnemar_exact;
use crate::invalid::{Invalid, all_finite, same_length, valid_alpha};
use crate::mean::{estimate_clustered_mean, estimate_mean};
use crate::random::Random;
use crate::resample::{Resampling, Units};
use crate::special::length;
use crate::verdict::Better;

/// The rows of one data set, each with one score per candidate, in the same order.
#[derive(Debug, Clone, Copy)]
pub struct Scoreboard<'a> {
    /// One list per row, one score per candidate.
    pub rows: &'a [Vec<f64>],
    /// One key per row, if rows are not independent.
    pub clusters: Option<&'a [u64]>,
    /// Which direction of the metric is good.
    pub better: Better,
}

impl Scoreboard<'_> {
    fn check(&self) -> Result<(), Invalid> {
        if let Some(clusters) = self.clusters {
            same_length("rows and clusters", self.rows.len(), clusters.len())?;
        }
        for row in self.rows {
            same_length("rows of scores", self.candidates(), row.len())?;
            all_finite("scores of a row", row.iter().copied())?;
        }
        Ok(())
    }

    fn candidates(&self) -> usize {
        self.rows.first().map_or(0, Vec::len)
    }

    /// A score with its sign changed where low is good.
    fn score(&self, row: usize, candidate: usize) -> f64 {
        match self.better {
            Better::Higher => self.rows[row][candidate],
            Better::Lower => -self.rows[row][candidate],
        }
    }

    fn mean(&self, candidate: usize) -> f64 {
        let scores = (0..self.rows.len()).map(|row| self.score(row, candidate));
        scores.sum::<f64>() / length(self.rows.len().max(1))
    }
}

/// How likely each candidate is the best: the share of resamples of the rows in which its
/// mean is the best, ties shared evenly. With fewer than two independent rows nothing is
/// known and everybody has the same share. Sums to 1.
pub fn probability_of_best(board: &Scoreboard<'_>, how: Resampling) -> Result<Vec<f64>, Invalid> {
    board.check()?;
    how.check()?;
    let candidates = board.candidates();
    let units = Units::new(board.rows.len(), board.clusters)?;
    if units.count() < 2 {
        return Ok(vec![1.0 / length(candidates.max(1)); candidates]);
    }
    let (mut random, mut drawn) = (Random::new(how.seed), Vec::new());
    let (mut shares, mut sums) = (vec![0.0; candidates], vec![0.0; candidates]);
    for _ in 0..how.resamples {
        units.draw(&mut random, &mut drawn);
        sums.fill(0.0);
        for row in &drawn {
            for (candidate, sum) in sums.iter_mut().enumerate() {
                *sum += board.score(*row, candidate);
            }
        }
        share_win(&sums, &mut shares);
    }
    let all = f64::from(how.resamples);
    Ok(shares.into_iter().map(|share| share / all).collect())
}

fn share_win(sums: &[f64], shares: &mut [f64]) {
    let best = sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // Equal scores added in the same order have equal sums.
    let winners = sums.iter().filter(|sum| **sum == best).count();
    for (share, sum) in shares.iter_mut().zip(sums) {
        if *sum == best {
            *share += 1.0 / length(winners);
        }
    }
}

/// One round of successive halving that never drops on a guess.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Halving {
    /// How many candidates are wanted in the end.
    pub keep: usize,
    /// How many candidates there were in the first round.
    pub started_with: usize,
    /// How many rounds there are at most.
    pub rounds: u32,
    /// The chance that a candidate that belongs to the best `keep` is ever dropped.
    pub alpha: f64,
    /// With fewer rows nobody is dropped.
    pub least_rows: usize,
}

/// What a round means for one candidate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Fate {
    /// Whether it stays.
    pub stays: bool,
    /// Its place by mean score, from 0; ties by order.
    pub place: usize,
    /// How many of the leading `keep` are shown to be better.
    pub shown_better: usize,
    /// The largest p-value among the comparisons with the leaders; 1 for a leader.
    pub p_value: f64,
}

/// Who goes on to the next round. A candidate is dropped only if each of the `keep` leaders
/// is shown to be better, by the exact McNemar test where scores are 0 or 1 and Student's t
/// (cluster-robust) otherwise, at the level `α/(rounds·(started_with − 1))`. If a candidate
/// truly belongs to the best `keep`, at least one leader is not better than it, and that
/// one would have to be shown better by mistake in some round: the chance of that is below α.
pub fn halve(board: &Scoreboard<'_>, how: &Halving) -> Result<Vec<Fate>, Invalid> {
    board.check()?;
    valid_alpha(how.alpha)?;
    let candidates = board.candidates();
    let mut order: Vec<usize> = (0..candidates).collect();
    let means: Vec<f64> = order
        .iter()
        .map(|candidate| board.mean(*candidate))
        .collect();
    order.sort_by(|a, b| means[*b].total_cmp(&means[*a]));
    let keep = how.keep.max(1);
    let opponents = how.started_with.max(candidates).max(2) - 1;
    let level = how.alpha / (f64::from(how.rounds.max(1)) * length(opponents));
    let mut fates = Vec::with_capacity(candidates);
    for candidate in 0..candidates {
        let place = order
            .iter()
            .position(|other| *other == candidate)
            .unwrap_or(0);
        let (mut shown_better, mut largest) = (0, if place < keep { 1.0 } else { 0.0_f64 });
        if place >= keep {
            for leader in &order[..keep] {
                let p_value = worse_p_value(board, candidate, *leader, how.least_rows)?;
                shown_better += usize::from(p_value <= level);
                largest = largest.max(p_value);
            }
        }
        fates.push(Fate {
            stays: shown_better < keep,
            place,
            shown_better,
            p_value: largest,
        });
    }
    Ok(fates)
}

/// The two-sided p-value of "candidate and leader are the same"; 1 unless the leader is ahead.
fn worse_p_value(
    board: &Scoreboard<'_>,
    candidate: usize,
    leader: usize,
    least_rows: usize,
) -> Result<f64, Invalid> {
    let rows = board.rows.len();
    let gap = |row: usize| board.score(row, leader) - board.score(row, candidate);
    let gaps: Vec<f64> = (0..rows).map(gap).collect();
    if rows < least_rows.max(2) || gaps.iter().sum::<f64>() <= 0.0 {
        return Ok(1.0);
    }
    let binary = |row: &Vec<f64>| {
        let both = [row[candidate], row[leader]];
        both.iter().all(|score| *score == 0.0 || *score == 1.0)
    };
    if board.clusters.is_none() && board.rows.iter().all(binary) {
        let ahead = gaps.iter().filter(|gap| **gap > 0.0).count() as u64;
        let behind = gaps.iter().filter(|gap| **gap < 0.0).count() as u64;
        return Ok(mcnemar_exact(ahead, behind));
    }
    let mean = match board.clusters {
        Some(clusters) => estimate_clustered_mean(&gaps, clusters)?,
        None => estimate_mean(&gaps)?,
    };
    // A gap that is the same everywhere has no error to divide by; as many equal signs do.
    Ok(if mean.standard_error > 0.0 {
        mean.p_value(0.0)
    } else {
        mcnemar_exact(mean.units as u64, 0)
    })
}

/// One candidate, measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alternative {
    /// Its quality: more is better.
    pub quality: f64,
    /// The latency that 95 of 100 calls stay below.
    pub p95_latency_ms: f64,
    /// What a call costs.
    pub cost_nanousd: f64,
}

/// What a choice must not break. `None` does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    /// The least quality.
    pub least_quality: Option<f64>,
    /// The highest latency.
    pub most_p95_latency_ms: Option<f64>,
    /// The highest cost of a call.
    pub most_cost_nanousd: Option<f64>,
}

/// How much each property matters: any numbers from 0 up, not all 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Priorities {
    /// Weight of quality.
    pub quality: f64,
    /// Weight of speed.
    pub latency: f64,
    /// Weight of cost.
    pub cost: f64,
}

/// A property of an alternative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Property {
    /// Quality.
    Quality,
    /// The 95th percentile of latency.
    Latency,
    /// Cost per call.
    Cost,
}

/// Where an alternative stands among the others.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing {
    /// The limits that it breaks; whoever breaks one is out.
    pub breaks: Vec<Property>,
    /// One that is at least as good in everything and better in something; the first found.
    pub dominated_by: Option<usize>,
    /// Whether it is on the Pareto front of those within the limits: nobody dominates it.
    pub on_front: bool,
    /// The weighted sum, from 0 to 1: in each property the best within the limits has 1 and the worst 0.
    pub utility: Option<f64>,
}

/// The Pareto front over quality, latency and cost of what is within the limits, and each
/// one's utility by these priorities. The best choice is the one with the highest utility;
/// with any priorities above 0 it lies on the front.
pub fn rank_alternatives(
    alternatives: &[Alternative],
    limits: &Limits,
    priorities: &Priorities,
) -> Result<Vec<Standing>, Invalid> {
    check_alternatives(alternatives, limits, priorities)?;
    let breaks: Vec<Vec<Property>> = alternatives.iter().map(|one| broken(one, limits)).collect();
    let inside: Vec<usize> = (0..alternatives.len())
        .filter(|at| breaks[*at].is_empty())
        .collect();
    let ranges: [(f64, f64); 3] = std::array::from_fn(|property| {
        let values = inside.iter().map(|at| goods(&alternatives[*at])[property]);
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        })
    });
    let standing = |(at, breaks): (usize, Vec<Property>)| {
        let own = goods(&alternatives[at]);
        let allowed = breaks.is_empty();
        let dominated_by = inside
            .iter()
            .copied()
            .find(|other| allowed && dominates(&goods(&alternatives[*other]), &own));
        Standing {
            on_front: allowed && dominated_by.is_none(),
            utility: allowed.then(|| utility(&own, &ranges, priorities)),
            breaks,
            dominated_by,
        }
    };
    Ok(breaks.into_iter().enumerate().map(standing).collect())
}

/// The three properties, more of each being better.
fn goods(one: &Alternative) -> [f64; 3] {
    [one.quality, -one.p95_latency_ms, -one.cost_nanousd]
}

fn dominates(one: &[f64; 3], other: &[f64; 3]) -> bool {
    one.iter().zip(other).all(|(a, b)| a >= b) && one != other
}

fn utility(own: &[f64; 3], ranges: &[(f64, f64); 3], priorities: &Priorities) -> f64 {
    let weights = [priorities.quality, priorities.latency, priorities.cost];
    let part = |property: usize| {
        let (low, high) = ranges[property];
        // Where all are alike, all are the best.
        let scaled = if high > low {
            (own[property] - low) / (high - low)
        } else {
            1.0
        };
        weights[property] * scaled
    };
    (0..3).map(part).sum::<f64>() / weights.iter().sum::<f64>()
}

fn broken(one: &Alternative, limits: &Limits) -> Vec<Property> {
    let below = |value: f64, limit: Option<f64>| limit.is_some_and(|limit| value < limit);
    let above = |value: f64, limit: Option<f64>| limit.is_some_and(|limit| value > limit);
    [
        (Property::Quality, below(one.quality, limits.least_quality)),
        (
            Property::Latency,
            above(one.p95_latency_ms, limits.most_p95_latency_ms),
        ),
        (
            Property::Cost,
            above(one.cost_nanousd, limits.most_cost_nanousd),
        ),
    ]
    .into_iter()
    .filter_map(|(property, is_broken)| is_broken.then_some(property))
    .collect()
}

fn check_alternatives(
    alternatives: &[Alternative],
    limits: &Limits,
    priorities: &Priorities,
) -> Result<(), Invalid> {
    all_finite("quality", alternatives.iter().map(|one| one.quality))?;
    all_finite(
        "p95 latency",
        alternatives.iter().map(|one| one.p95_latency_ms),
    )?;
    all_finite("cost", alternatives.iter().map(|one| one.cost_nanousd))?;
    let limits = [
        limits.least_quality,
        limits.most_p95_latency_ms,
        limits.most_cost_nanousd,
    ];
    all_finite("limits", limits.into_iter().flatten())?;
    let weights = [priorities.quality, priorities.latency, priorities.cost];
    all_finite("priorities", weights)?;
    let least = weights.iter().copied().fold(f64::INFINITY, f64::min);
    let sum: f64 = weights.iter().sum();
    if least < 0.0 || sum <= 0.0 || !sum.is_finite() {
        return Err(Invalid::OutOfRange {
            what: "the smallest priority",
            value: least,
            allowed: "0 or more, and not all of them 0",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOW: Resampling = Resampling {
        resamples: 1_000,
        seed: 5,
    };

    fn board(rows: &[Vec<f64>]) -> Scoreboard<'_> {
        Scoreboard {
            rows,
            clusters: None,
            better: Better::Higher,
        }
    }

    /// Scores that differ by candidate and by row, without chance.
    fn graded(rows: u32, means: &[f64]) -> Vec<Vec<f64>> {
        let noise = |row: u32, candidate: usize| {
            f64::from((row * 7 + u32::try_from(candidate).unwrap() * 3) % 11) / 11.0 - 5.0 / 11.0
        };
        let scores = |row: u32| {
            let one = |(candidate, mean): (usize, &f64)| mean + 0.2 * noise(row, candidate);
            means.iter().enumerate().map(one).collect()
        };
        (0..rows).map(scores).collect()
    }

    #[test]
    fn the_best() {
        let rows = graded(60, &[0.5, 0.52, 0.9]);
        let shares = probability_of_best(&board(&rows), HOW).unwrap();
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9 && shares[2] > 0.999);
        let low = Scoreboard {
            better: Better::Lower,
            ..board(&rows)
        };
        assert!(probability_of_best(&low, HOW).unwrap()[2] < 0.001);
        let same = vec![vec![0.3, 0.3]; 20];
        assert_eq!(probability_of_best(&board(&same), HOW).unwrap(), [0.5, 0.5]);
        assert_eq!(
            probability_of_best(&board(&same[..1]), HOW).unwrap(),
            [0.5, 0.5]
        );
        assert!(probability_of_best(&board(&[]), HOW).unwrap().is_empty());
        assert!(probability_of_best(&board(&[vec![1.0], vec![]]), HOW).is_err());
        assert!(probability_of_best(&board(&[vec![f64::NAN]]), HOW).is_err());
    }

    #[test]
    fn dropping_needs_proof() {
        let how = Halving {
            keep: 2,
            started_with: 4,
            rounds: 3,
            alpha: 0.05,
            least_rows: 20,
        };
        let rows = graded(80, &[0.9, 0.1, 0.88, 0.87]);
        let fates = halve(&board(&rows), &how).unwrap();
        let stays: Vec<bool> = fates.iter().map(|fate| fate.stays).collect();
        // The last is third by its mean, but not shown to be worse than both leaders.
        assert_eq!(stays, [true, false, true, true], "{fates:?}");
        assert_eq!((fates[1].shown_better, fates[1].place), (2, 3));
        let few = halve(&board(&rows[..19]), &how).unwrap();
        assert!(few.iter().all(|fate| fate.stays));
        assert!(halve(&board(&[]), &how).unwrap().is_empty());
        // Yes and no, and a gap that is always the same.
        let yes_no = vec![vec![1.0, 0.0]; 40];
        let one = Halving { keep: 1, ..how };
        assert!(!halve(&board(&yes_no), &one).unwrap()[1].stays);
        let constant = vec![vec![0.6, 0.5]; 40];
        assert!(!halve(&board(&constant), &one).unwrap()[1].stays);
        let clustered = Scoreboard {
            clusters: Some(&[1; 40]),
            ..board(&constant)
        };
        assert!(halve(&clustered, &one).unwrap()[1].stays);
    }

    #[test]
    fn the_front() {
        let one = |quality, p95_latency_ms, cost_nanousd| Alternative {
            quality,
            p95_latency_ms,
            cost_nanousd,
        };
        let all = [
            one(0.9, 2_000.0, 500.0),
            one(0.8, 400.0, 50.0),
            one(0.79, 500.0, 60.0),
            one(0.95, 9_000.0, 900.0),
            one(0.5, 100.0, 0.0),
        ];
        let limits = Limits {
            most_p95_latency_ms: Some(3_000.0),
            ..Limits::default()
        };
        let equal = Priorities {
            quality: 1.0,
            latency: 1.0,
            cost: 1.0,
        };
        let found = rank_alternatives(&all, &limits, &equal).unwrap();
        let front: Vec<bool> = found.iter().map(|standing| standing.on_front).collect();
        assert_eq!(front, [true, true, false, false, true]);
        assert_eq!(found[2].dominated_by, Some(1));
        assert_eq!(
            (found[3].breaks.as_slice(), found[3].utility),
            (&[Property::Latency][..], None)
        );
        // Quality alone: the best within the limits has all of it, the worst nothing.
        let quality = Priorities {
            latency: 0.0,
            cost: 0.0,
            ..equal
        };
        let found = rank_alternatives(&all, &limits, &quality).unwrap();
        assert_eq!((found[0].utility, found[4].utility), (Some(1.0), Some(0.0)));
        let twins = [all[1], all[1]];
        let found = rank_alternatives(&twins, &limits, &equal).unwrap();
        assert!(
            found
                .iter()
                .all(|one| one.on_front && one.utility == Some(1.0))
        );
        assert!(rank_alternatives(&[], &limits, &equal).unwrap().is_empty());
        let nothing = Priorities {
            quality: 0.0,
            ..quality
        };
        assert!(rank_alternatives(&all, &limits, &nothing).is_err());
        assert!(rank_alternatives(&[one(f64::NAN, 1.0, 1.0)], &limits, &equal).is_err());
    }
}
