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
    /// The weighted sum by [`Scales`], from 0 to 1.
    pub utility: Option<f64>,
}

/// What counts as 0 and as 1 in each property, so that they can be weighed. Quality is put
/// on a range; latency and cost are 1 where there is none of them and 0 at a most. Nothing
/// is stretched over the alternatives at hand: two that are nearly the same stay so.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Scales {
    /// The quality that counts 0, and the one that counts 1.
    pub quality: (f64, f64),
    /// The latency that counts 0.
    pub most_p95_latency_ms: f64,
    /// The cost of a call that counts 0.
    pub most_cost_nanousd: f64,
}

impl Scales {
    /// Quality on its range, or between the worst and the best where it has none; latency
    /// and cost up to their limit, or to the most of any where there is none.
    pub fn of(alternatives: &[Alternative], limits: &Limits, range: Option<(f64, f64)>) -> Self {
        let most = |of: fn(&Alternative) -> f64| alternatives.iter().map(of).fold(0.0, f64::max);
        let qualities = || alternatives.iter().map(|one| one.quality);
        Self {
            quality: range.unwrap_or_else(|| {
                (
                    qualities().fold(f64::INFINITY, f64::min),
                    qualities().fold(f64::NEG_INFINITY, f64::max),
                )
            }),
            most_p95_latency_ms: limits
                .most_p95_latency_ms
                .unwrap_or_else(|| most(|one| one.p95_latency_ms)),
            most_cost_nanousd: limits
                .most_cost_nanousd
                .unwrap_or_else(|| most(|one| one.cost_nanousd)),
        }
    }

    /// The weighted sum. Beyond the ends of a scale it goes on straight.
    pub fn utility(&self, one: &Alternative, priorities: &Priorities) -> f64 {
        let (low, high) = self.quality;
        // Where all are alike, all are the best.
        let quality = if high > low {
            (one.quality - low) / (high - low)
        } else {
            1.0
        };
        let left = |value: f64, most: f64| if most > 0.0 { 1.0 - value / most } else { 1.0 };
        let parts = priorities.quality * quality
            + priorities.latency * left(one.p95_latency_ms, self.most_p95_latency_ms)
            + priorities.cost * left(one.cost_nanousd, self.most_cost_nanousd);
        parts / (priorities.quality + priorities.latency + priorities.cost)
    }
}

/// The Pareto front over quality, latency and cost of what is within the limits, and each
/// one's utility by these priorities. The best choice is the one with the highest utility;
/// with any priorities above 0 it lies on the front.
pub fn rank_alternatives(
    alternatives: &[Alternative],
    limits: &Limits,
    priorities: &Priorities,
    scales: &Scales,
) -> Result<Vec<Standing>, Invalid> {
    check_alternatives(alternatives, limits, priorities)?;
    let breaks: Vec<Vec<Property>> = alternatives.iter().map(|one| broken(one, limits)).collect();
    let inside: Vec<usize> = (0..alternatives.len())
        .filter(|at| breaks[*at].is_empty())
        .collect();
    let standing = |(at, breaks): (usize, Vec<Property>)| {
        let own = goods(&alternatives[at]);
        let allowed = breaks.is_empty();
        let dominated_by = inside
            .iter()
            .copied()
            .find(|other| allowed && dominates(&goods(&alternatives[*other]), &own));
        Standing {
            on_front: allowed && dominated_by.is_none(),
            utility: allowed.then(|| scales.utility(&alternatives[at], priorities)),
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

/// What one answer was worth, how long it took and what it cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weighed {
    /// Its quality.
    pub quality: f64,
    /// How long it took.
    pub latency_ms: f64,
    /// What it cost.
    pub cost_nanousd: f64,
}

/// By what the best is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChoiceRule {
    /// What must not be broken.
    pub limits: Limits,
    /// What matters how much.
    pub priorities: Priorities,
    /// What counts as 0 and as 1.
    pub scales: Scales,
}

/// How likely each candidate is the best choice: the share of resamples of the rows in which
/// it keeps the limits and has the highest utility of all that keep them, ties shared
/// evenly. Sums to 1, less the share of resamples in which nobody keeps the limits. With
/// fewer than two independent rows nothing is known and everybody has the same share.
///
/// `rows` has one list per row, one answer per candidate, in the same order.
pub fn probability_of_best_choice(
    rows: &[Vec<Weighed>],
    clusters: Option<&[u64]>,
    rule: &ChoiceRule,
    how: Resampling,
) -> Result<Vec<f64>, Invalid> {
    how.check()?;
    let candidates = rows.first().map_or(0, Vec::len);
    for row in rows {
        same_length("rows of answers", candidates, row.len())?;
        let figures = row.iter();
        all_finite(
            "answers of a row",
            figures.flat_map(|one| [one.quality, one.latency_ms, one.cost_nanousd]),
        )?;
    }
    let units = Units::new(rows.len(), clusters)?;
    if units.count() < 2 {
        return Ok(vec![1.0 / length(candidates.max(1)); candidates]);
    }
    check_alternatives(&[], &rule.limits, &rule.priorities)?;
    let slowest: Vec<Vec<usize>> = (0..candidates).map(|at| slowest_first(rows, at)).collect();
    let (mut random, mut drawn) = (Random::new(how.seed), Vec::new());
    let (mut shares, mut times) = (vec![0.0; candidates], vec![0_usize; rows.len()]);
    let mut utilities = vec![f64::NEG_INFINITY; candidates];
    for _ in 0..how.resamples {
        units.draw(&mut random, &mut drawn);
        times.fill(0);
        for row in &drawn {
            times[*row] += 1;
        }
        for (at, utility) in utilities.iter_mut().enumerate() {
            let one = resampled(rows, at, &drawn, &times, &slowest[at]);
            *utility = match broken(&one, &rule.limits).is_empty() {
                true => rule.scales.utility(&one, &rule.priorities),
                false => f64::NEG_INFINITY,
            };
        }
        if utilities.iter().any(|utility| utility.is_finite()) {
            share_win(&utilities, &mut shares);
        }
    }
    let all = f64::from(how.resamples);
    Ok(shares.into_iter().map(|share| share / all).collect())
}

fn slowest_first(rows: &[Vec<Weighed>], candidate: usize) -> Vec<usize> {
    let latency = |row: &usize| rows[*row][candidate].latency_ms;
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by(|a, b| latency(b).total_cmp(&latency(a)));
    order
}

/// A candidate's figures in one resample. The 95th percentile is found from the slow end,
/// where a twentieth of the rows is looked at, not all.
fn resampled(
    rows: &[Vec<Weighed>],
    candidate: usize,
    drawn: &[usize],
    times: &[usize],
    slowest: &[usize],
) -> Alternative {
    let (mut quality, mut cost_nanousd) = (0.0, 0.0);
    for row in drawn {
        let answer = &rows[*row][candidate];
        quality += answer.quality;
        cost_nanousd += answer.cost_nanousd;
    }
    let (mut above, mut p95_latency_ms) = (0, 0.0);
    // The nearest rank: as many are slower as fit into 5 %.
    let slower = drawn.len() - (drawn.len() * 95).div_ceil(100);
    for row in slowest {
        above += times[*row];
        if above > slower {
            p95_latency_ms = rows[*row][candidate].latency_ms;
            break;
        }
    }
    let n = length(drawn.len().max(1));
    Alternative {
        quality: quality / n,
        p95_latency_ms,
        cost_nanousd: cost_nanousd / n,
    }
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
        let scales = Scales::of(&all, &limits, Some((0.0, 1.0)));
        assert_eq!(scales.most_p95_latency_ms, 3_000.0);
        assert_eq!(scales.most_cost_nanousd, 900.0);
        let found = rank_alternatives(&all, &limits, &equal, &scales).unwrap();
        let front: Vec<bool> = found.iter().map(|standing| standing.on_front).collect();
        assert_eq!(front, [true, true, false, false, true]);
        assert_eq!(found[2].dominated_by, Some(1));
        assert_eq!(
            (found[3].breaks.as_slice(), found[3].utility),
            (&[Property::Latency][..], None)
        );
        // By hand: (0.9 + (1 − 2000/3000) + (1 − 500/900)) / 3.
        assert!((found[0].utility.unwrap() - 0.559_259_259_259).abs() < 1e-9);
        // Quality alone: its own range counts, not who is there.
        let quality = Priorities {
            latency: 0.0,
            cost: 0.0,
            ..equal
        };
        let found = rank_alternatives(&all, &limits, &quality, &scales).unwrap();
        assert_eq!((found[0].utility, found[4].utility), (Some(0.9), Some(0.5)));
        let unknown = Scales::of(&all, &limits, None);
        let found = rank_alternatives(&all, &limits, &quality, &unknown).unwrap();
        assert_eq!(found[4].utility, Some(0.0));
        let twins = [one(0.8, 0.0, 0.0), one(0.8, 0.0, 0.0)];
        let free = Scales::of(&twins, &Limits::default(), None);
        let found = rank_alternatives(&twins, &limits, &equal, &free).unwrap();
        assert!(
            found
                .iter()
                .all(|one| one.on_front && one.utility == Some(1.0))
        );
        let none = rank_alternatives(&[], &limits, &equal, &scales);
        assert!(none.unwrap().is_empty());
        let nothing = Priorities {
            quality: 0.0,
            ..quality
        };
        assert!(rank_alternatives(&all, &limits, &nothing, &scales).is_err());
        let unknown = [one(f64::NAN, 1.0, 1.0)];
        assert!(rank_alternatives(&unknown, &limits, &equal, &scales).is_err());
    }

    #[test]
    fn the_best_choice() {
        let row = |row: u32| {
            let noise = f64::from(row * 7 % 11) / 11.0;
            let one = |quality, latency_ms, cost_nanousd| Weighed {
                quality: quality + 0.1 * noise,
                latency_ms: latency_ms * (1.0 + noise),
                cost_nanousd,
            };
            vec![
                one(0.85, 2_000.0, 900.0),
                one(0.8, 400.0, 90.0),
                one(0.2, 100.0, 10.0),
            ]
        };
        let rows: Vec<Vec<Weighed>> = (0..60).map(row).collect();
        let share = |limits: Limits, priorities: Priorities| {
            let alternatives: Vec<Alternative> = (0..3)
                .map(|at| {
                    resampled(
                        &rows,
                        at,
                        &(0..60).collect::<Vec<_>>(),
                        &[1; 60],
                        &slowest_first(&rows, at),
                    )
                })
                .collect();
            let scales = Scales::of(&alternatives, &limits, Some((0.0, 1.0)));
            let rule = ChoiceRule {
                limits,
                priorities,
                scales,
            };
            probability_of_best_choice(&rows, None, &rule, HOW).unwrap()
        };
        let weights = |quality, latency, cost| Priorities {
            quality,
            latency,
            cost,
        };
        let any = Limits::default();
        assert!(share(any, weights(1.0, 0.0, 0.0))[0] > 0.999);
        assert!(share(any, weights(0.5, 0.25, 0.25))[1] > 0.999);
        assert!(share(any, weights(0.05, 0.5, 0.45))[2] > 0.999);
        // The first is out in nearly every resample: 18 % of its calls take longer than the limit.
        let limits = Limits {
            most_p95_latency_ms: Some(3_500.0),
            ..any
        };
        assert!(share(limits, weights(1.0, 0.0, 0.0))[1] > 0.9);
        let nobody = Limits {
            least_quality: Some(2.0),
            ..any
        };
        assert!(share(nobody, weights(1.0, 0.0, 0.0)).iter().sum::<f64>() < 1e-9);
        let rule = ChoiceRule {
            limits: any,
            priorities: weights(1.0, 0.0, 0.0),
            scales: Scales::of(&[], &any, Some((0.0, 1.0))),
        };
        let one = probability_of_best_choice(&rows[..1], None, &rule, HOW).unwrap();
        assert!((one[0] - 1.0 / 3.0).abs() < 1e-9);
        let none = probability_of_best_choice(&[], None, &rule, HOW).unwrap();
        assert!(none.is_empty());
        let broken = vec![rows[0].clone(), Vec::new()];
        assert!(probability_of_best_choice(&broken, None, &rule, HOW).is_err());
    }
}
