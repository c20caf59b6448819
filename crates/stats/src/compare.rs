//! Two systems over the same rows: which does better, by how much, how sure.
//!
//! One entry point, [`compare`], looks at the data and takes the method that fits it:
//!
//! | data | method |
//! |---|---|
//! | some rows share a cluster | mean difference with cluster-robust error, Student's t |
//! | every score is 0 or 1 | exact McNemar test, Newcombe's interval of paired rates |
//! | scores within a known range | paired bootstrap, permutation test |
//! | few rows, very many, or no known range | mean difference, Student's t |
//! | all differences are the same | no spread to reckon with; the rows that were not seen |
//!
//! [`compare_corpus`] is for figures that only a whole data set has (BLEU, F1).
//!
//! The size of the sample must have been fixed before: whoever looks again and again at
//! growing data uses `sequential.rs`. "Better" and "worse" need both the interval and the
//! test; where the two disagree the more cautious one counts.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::interval::{PairedCounts, mcnemar_exact, paired_rates_interval};
use crate::invalid::{Invalid, all_finite, valid_alpha};
use crate::mean::{MeanEstimate, estimate_clustered_mean, estimate_mean};
use crate::multiple::holm;
use crate::resample::{Bootstrap, Resampling, bootstrap, bootstrap_mean, permutation_p_value};
use crate::sequential::Interval;
use crate::size::{detectable_paired_binary, detectable_paired_mean};
use crate::special::{length, normal_quantile};
use crate::verdict::{Better, Verdict};

/// Below this many rows the mean of a bounded metric is compared by Student's t.
const LEAST_FOR_BOOTSTRAP: usize = 30;
/// Above this many rows resampling only takes time: the mean is as good as normal.
const MOST_FOR_BOOTSTRAP: usize = 10_000;
/// Below this many rows a reader is warned that intervals of means may be too narrow.
const SMALL: usize = 100;
/// The same for clusters, whose number is what counts then.
const FEW_CLUSTERS: usize = 20;
/// With fewer clusters nothing is said.
const LEAST_CLUSTERS: usize = 5;
/// Fewer rows with a difference make a mean a matter of those few.
const FEW_DIFFER: usize = 10;

/// One row of the data set, scored under both systems.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// The score of the first system: the baseline.
    pub first: f64,
    /// The score of the second system: the candidate.
    pub second: f64,
    /// Rows with the same key are not independent of each other. `None` stands alone.
    pub cluster: Option<u64>,
}

impl Pair {
    /// A row that shares nothing with another.
    pub fn new(first: f64, second: f64) -> Self {
        Self {
            first,
            second,
            cluster: None,
        }
    }

    fn difference(&self) -> f64 {
        self.second - self.first
    }
}

/// What was decided before the data was seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// Which direction of the metric is good.
    pub better: Better,
    /// The chance of a false alarm: above 0, at most 0.5.
    pub alpha: f64,
    /// The chance of finding what is there, for the smallest detectable difference.
    pub power: f64,
    /// The largest difference that nobody would act on; 0 if every difference matters.
    pub margin: f64,
    /// With fewer rows nothing is said.
    pub least_rows: usize,
    /// The lowest and highest score that the metric can give, if it has both.
    pub range: Option<(f64, f64)>,
    /// How to resample.
    pub resampling: Resampling,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            better: Better::Higher,
            alpha: 0.05,
            power: 0.8,
            margin: 0.0,
            least_rows: 10,
            range: None,
            resampling: Resampling::default(),
        }
    }
}

impl Plan {
    /// Refuses a plan that makes no sense. [`compare`] does this first.
    pub fn check(&self) -> Result<(), Invalid> {
        let refuse = |what, value, allowed| {
            Err(Invalid::OutOfRange {
                what,
                value,
                allowed,
            })
        };
        valid_alpha(self.alpha)?;
        self.resampling.check()?;
        if !(self.power > self.alpha && self.power < 1.0) {
            return refuse("power", self.power, "above alpha and below 1");
        }
        if !(self.margin >= 0.0 && self.margin.is_finite()) {
            return refuse("margin", self.margin, "0 or more");
        }
        match self.range {
            Some((low, high)) if !(low < high && (high - low).is_finite()) => {
                refuse("range", low, "two numbers, the lower one first")
            }
            _ => Ok(()),
        }
    }
}

/// How two systems were compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Exact McNemar test and Newcombe's interval.
    #[serde(rename = "mcnemar")]
    McNemar,
    /// Paired bootstrap and permutation test.
    PairedBootstrap,
    /// Student's t of the differences.
    PairedT,
    /// Student's t with cluster-robust standard error.
    ClusterRobust,
    /// Paired bootstrap of a figure of the whole data set.
    CorpusBootstrap,
    /// All differences are the same; only unseen rows are uncertain.
    NoSpread,
    /// Nothing was computed.
    None,
}

impl Method {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::McNemar => "mcnemar",
            Self::PairedBootstrap => "paired_bootstrap",
            Self::PairedT => "paired_t",
            Self::ClusterRobust => "cluster_robust",
            Self::CorpusBootstrap => "corpus_bootstrap",
            Self::NoSpread => "no_spread",
            Self::None => "none",
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::McNemar => "exact McNemar test, Newcombe interval",
            Self::PairedBootstrap => "paired bootstrap interval, permutation test",
            Self::PairedT => "paired t test and interval",
            Self::ClusterRobust => "t test and interval with cluster-robust standard error",
            Self::CorpusBootstrap => "paired bootstrap of the whole figure",
            Self::NoSpread => "bound for rows that were not seen",
            Self::None => "none",
        }
    }
}

/// Why that method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Some rows share a cluster.
    RowsShareClusters,
    /// Every score is 0 or 1.
    EveryScoreIsZeroOrOne,
    /// The metric has a lowest and a highest score.
    ScoresAreBounded,
    /// The metric has no known range.
    ScoresAreUnbounded,
    /// Too few rows to resample.
    FewRows,
    /// So many rows that the mean is as good as normal.
    ManyRows,
    /// The figure belongs to the data set, not to a row.
    FigureOfTheDataSet,
    /// Every row has the same difference.
    AllDifferencesEqual,
    /// Fewer rows than the plan asks for, or too few clusters.
    NotEnoughData,
}

impl Reason {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RowsShareClusters => "rows_share_clusters",
            Self::EveryScoreIsZeroOrOne => "every_score_is_zero_or_one",
            Self::ScoresAreBounded => "scores_are_bounded",
            Self::ScoresAreUnbounded => "scores_are_unbounded",
            Self::FewRows => "few_rows",
            Self::ManyRows => "many_rows",
            Self::FigureOfTheDataSet => "figure_of_the_data_set",
            Self::AllDifferencesEqual => "all_differences_equal",
            Self::NotEnoughData => "not_enough_data",
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::RowsShareClusters => "rows share clusters",
            Self::EveryScoreIsZeroOrOne => "every score is 0 or 1",
            Self::ScoresAreBounded => "scores lie in a known range",
            Self::ScoresAreUnbounded => "scores have no known range",
            Self::FewRows => "there are few rows",
            Self::ManyRows => "there are very many rows",
            Self::FigureOfTheDataSet => "the figure belongs to the whole data set",
            Self::AllDifferencesEqual => "every row has the same difference",
            Self::NotEnoughData => "there is not enough data",
        }
    }
}

/// What a reader should know before believing a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Caution {
    /// Fewer than 100 rows: intervals of means may be too narrow.
    SmallSample,
    /// Fewer than 20 clusters.
    FewClusters,
    /// Fewer than ten rows differ at all.
    FewRowsDiffer,
    /// All scores of both systems are the same number.
    OneValueOnly,
    /// Some resamples had no value of the figure.
    FigureOftenUndefined,
}

impl Caution {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SmallSample => "small_sample",
            Self::FewClusters => "few_clusters",
            Self::FewRowsDiffer => "few_rows_differ",
            Self::OneValueOnly => "one_value_only",
            Self::FigureOftenUndefined => "figure_often_undefined",
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::SmallSample => "fewer than 100 rows: the interval may be too narrow",
            Self::FewClusters => "fewer than 20 clusters: the interval may be too narrow",
            Self::FewRowsDiffer => "fewer than 10 rows differ: the result hangs on those",
            Self::OneValueOnly => "every score is the same number: is the metric right?",
            Self::FigureOftenUndefined => "some resamples had no value of this figure",
        }
    }
}

/// Whether the candidate may pass a gate: it must not be worse than the baseline by more
/// than a margin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NonInferiority {
    /// The bound lies on the allowed side of the margin.
    Shown,
    /// It is shown to be worse by more than the margin.
    Refuted,
    /// The data allows both.
    NotShown,
}

/// What the data shows about the second system beside the first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The one word.
    pub verdict: Verdict,
    /// How many rows both systems were scored on.
    pub rows: usize,
    /// How many independent units they are: clusters, or rows.
    pub units: usize,
    /// The first system's mean score (or figure); 0 without rows.
    pub first: f64,
    /// The second system's.
    pub second: f64,
    /// Second less first.
    pub difference: f64,
    /// The two-sided interval of the difference at 1 − α.
    pub interval: Interval,
    /// The interval at 1 − 2α, each of whose ends alone errs with α: for equivalence and gates.
    pub one_sided: Interval,
    /// The two-sided p-value of "there is no difference".
    pub p_value: f64,
    /// The p-value after correction for many comparisons; see [`correct_for_many`].
    pub adjusted_p_value: Option<f64>,
    /// The smallest true difference that this many rows find with the planned power; `None`
    /// where nothing can be said about it.
    pub detectable: Option<f64>,
    /// Rows on which the second system is better.
    pub wins: usize,
    /// Rows on which it is worse.
    pub losses: usize,
    /// Rows without a difference.
    pub ties: usize,
    /// How it was compared.
    pub method: Method,
    /// Why so.
    pub reason: Reason,
    /// What to know before believing it.
    pub cautions: Vec<Caution>,
    /// Which direction of the metric is good.
    pub better: Better,
    /// The chance of a false alarm that was planned.
    pub alpha: f64,
    /// The planned power.
    pub power: f64,
}

/// What a method found out.
struct Found {
    interval: Interval,
    one_sided: Interval,
    p_value: f64,
    detectable: Option<f64>,
    method: Method,
    reason: Reason,
}

/// Compares the second system with the first, row by row.
pub fn compare(pairs: &[Pair], plan: &Plan) -> Result<Comparison, Invalid> {
    plan.check()?;
    all_finite(
        "scores of the first system",
        pairs.iter().map(|pair| pair.first),
    )?;
    all_finite(
        "scores of the second system",
        pairs.iter().map(|pair| pair.second),
    )?;
    let differences: Vec<f64> = pairs.iter().map(Pair::difference).collect();
    all_finite("differences", differences.iter().copied())?;
    let range = plan.range.or_else(|| unit_range(pairs));
    if let (Some((low, high)), Some(_)) = (range, plan.range) {
        within(
            "scores of the first system",
            pairs.iter().map(|pair| pair.first),
            low,
            high,
        )?;
        within(
            "scores of the second system",
            pairs.iter().map(|pair| pair.second),
            low,
            high,
        )?;
    }
    let clusters = cluster_keys(pairs);
    let mean = estimate_clustered_mean(&differences, &clusters)?;
    let mut comparison = counted(pairs, &mean, plan);
    let found = choose(pairs, &differences, &clusters, &mean, range, plan)?;
    comparison.cautions = cautions(pairs, &comparison, &found);
    Ok(conclude(comparison, found, range, plan))
}

/// Compares a figure of the whole data set, such as corpus BLEU or F1: `figures` is given
/// numbers of rows, some of them several times, and returns the first and the second
/// system's figure over these, or `None` where one is not defined. `clusters` has one key
/// per row, if rows are not independent.
pub fn compare_corpus(
    rows: usize,
    clusters: Option<&[u64]>,
    plan: &Plan,
    mut figures: impl FnMut(&[usize]) -> Option<[f64; 2]>,
) -> Result<Comparison, Invalid> {
    plan.check()?;
    let all: Vec<usize> = (0..rows).collect();
    let whole = if rows == 0 { None } else { figures(&all) };
    let whole = whole.filter(|both| both.iter().all(|figure| figure.is_finite()));
    let [first, second] = whole.unwrap_or([0.0, 0.0]);
    let drawn = bootstrap(rows, clusters, plan.resampling, |rows| {
        figures(rows).map(|[first, second]| second - first)
    })?;
    let mut comparison = empty(plan);
    (comparison.rows, comparison.units) = (rows, drawn.units);
    (comparison.first, comparison.second, comparison.difference) = (first, second, second - first);
    let often_undefined = drawn.undefined * 20 > plan.resampling.resamples;
    if whole.is_none() || rows < plan.least_rows || drawn.undefined * 2 > plan.resampling.resamples
    {
        return Ok(conclude(comparison, nothing(), None, plan));
    }
    if drawn.units < rows && drawn.units < LEAST_CLUSTERS {
        return Ok(conclude(comparison, nothing(), None, plan));
    }
    let found = Found {
        p_value: drawn.p_value(),
        detectable: detectable_from_draws(&drawn, plan),
        ..resampled(
            &drawn,
            plan,
            Method::CorpusBootstrap,
            Reason::FigureOfTheDataSet,
        )
    };
    if often_undefined {
        comparison.cautions.push(Caution::FigureOftenUndefined);
    }
    comparison.cautions.extend(few_units(&comparison));
    Ok(conclude(comparison, found, None, plan))
}

/// Corrects the verdicts of many comparisons made together (slices of one data set,
/// candidates beside one baseline) by Holm's method: what is no longer shown says so.
/// Equivalence is not touched: it does not come from these p-values.
pub fn correct_for_many(comparisons: &mut [Comparison]) {
    let (mut places, mut p_values) = (Vec::new(), Vec::new());
    for (place, comparison) in comparisons.iter().enumerate() {
        // Where nothing was tested there is nothing to correct for.
        if comparison.verdict != Verdict::NotEnoughData {
            places.push(place);
            p_values.push(comparison.p_value);
        }
    }
    for (place, adjusted) in places.into_iter().zip(holm(&p_values)) {
        let comparison = &mut comparisons[place];
        comparison.adjusted_p_value = Some(adjusted);
        let shown = matches!(comparison.verdict, Verdict::Better | Verdict::Worse);
        if shown && adjusted > comparison.alpha {
            comparison.verdict = Verdict::NoDifferenceShown;
        }
    }
}

impl Comparison {
    /// Whether the second system is shown not to be worse than the first by more than
    /// `margin`: a question of the interval's bound, never of the mean.
    pub fn non_inferiority(&self, margin: f64) -> NonInferiority {
        if self.verdict == Verdict::NotEnoughData || margin.is_nan() || margin < 0.0 {
            return NonInferiority::NotShown;
        }
        // As losses: how much worse the second may be, at least and at most.
        let (least, most) = match self.better {
            Better::Higher => (-self.one_sided.high, -self.one_sided.low),
            Better::Lower => (self.one_sided.low, self.one_sided.high),
        };
        if most < margin || (most == margin && margin > 0.0) {
            NonInferiority::Shown
        } else if least > margin {
            NonInferiority::Refuted
        } else {
            NonInferiority::NotShown
        }
    }
}

/// The range of a metric that was not told one: scores from 0 to 1.
fn unit_range(pairs: &[Pair]) -> Option<(f64, f64)> {
    let unit = |score: f64| (0.0..=1.0).contains(&score);
    let all = pairs
        .iter()
        .all(|pair| unit(pair.first) && unit(pair.second));
    all.then_some((0.0, 1.0))
}

fn within(
    what: &'static str,
    mut scores: impl Iterator<Item = f64>,
    low: f64,
    high: f64,
) -> Result<(), Invalid> {
    match scores.find(|score| !(low..=high).contains(score)) {
        Some(value) => Err(Invalid::OutOfRange {
            what,
            value,
            allowed: "within the metric's range",
        }),
        None => Ok(()),
    }
}

/// One key per row: equal where the given keys are equal, its own where there is none.
fn cluster_keys(pairs: &[Pair]) -> Vec<u64> {
    let mut known: BTreeMap<u64, u64> = BTreeMap::new();
    let mut next = 0;
    let mut fresh = || {
        next += 1;
        next
    };
    let key = |pair: &Pair| match pair.cluster {
        Some(cluster) => *known.entry(cluster).or_insert_with(&mut fresh),
        None => fresh(),
    };
    pairs.iter().map(key).collect()
}

fn empty(plan: &Plan) -> Comparison {
    Comparison {
        verdict: Verdict::NotEnoughData,
        rows: 0,
        units: 0,
        first: 0.0,
        second: 0.0,
        difference: 0.0,
        interval: Interval::ALL,
        one_sided: Interval::ALL,
        p_value: 1.0,
        adjusted_p_value: None,
        detectable: None,
        wins: 0,
        losses: 0,
        ties: 0,
        method: Method::None,
        reason: Reason::NotEnoughData,
        cautions: Vec::new(),
        better: plan.better,
        alpha: plan.alpha,
        power: plan.power,
    }
}

/// What can be counted whatever the method.
fn counted(pairs: &[Pair], mean: &MeanEstimate, plan: &Plan) -> Comparison {
    let average =
        |score: fn(&Pair) -> f64| pairs.iter().map(score).sum::<f64>() / length(pairs.len().max(1));
    let above = pairs.iter().filter(|pair| pair.second > pair.first).count();
    let below = pairs.iter().filter(|pair| pair.second < pair.first).count();
    let (wins, losses) = match plan.better {
        Better::Higher => (above, below),
        Better::Lower => (below, above),
    };
    Comparison {
        rows: pairs.len(),
        units: mean.units,
        first: average(|pair| pair.first),
        second: average(|pair| pair.second),
        difference: mean.mean,
        wins,
        losses,
        ties: pairs.len() - above - below,
        ..empty(plan)
    }
}

/// Takes the method that fits the data, and applies it.
fn choose(
    pairs: &[Pair],
    differences: &[f64],
    clusters: &[u64],
    mean: &MeanEstimate,
    range: Option<(f64, f64)>,
    plan: &Plan,
) -> Result<Found, Invalid> {
    let (rows, clustered) = (mean.n, mean.units < mean.n);
    if rows < plan.least_rows.max(2) || (clustered && mean.units < LEAST_CLUSTERS) {
        return Ok(nothing());
    }
    let binary = pairs
        .iter()
        .all(|pair| is_binary(pair.first) && is_binary(pair.second));
    if binary && !clustered {
        return Ok(by_mcnemar(pairs, plan));
    }
    if mean.standard_error == 0.0 {
        return without_spread(mean, differences, clusters, range, plan);
    }
    if clustered {
        return Ok(by_t(
            mean,
            plan,
            Method::ClusterRobust,
            Reason::RowsShareClusters,
        ));
    }
    let reason = match range {
        None => Reason::ScoresAreUnbounded,
        Some(_) if rows < LEAST_FOR_BOOTSTRAP => Reason::FewRows,
        Some(_) if rows > MOST_FOR_BOOTSTRAP => Reason::ManyRows,
        Some(_) => return by_bootstrap(differences, plan),
    };
    Ok(by_t(mean, plan, Method::PairedT, reason))
}

fn is_binary(score: f64) -> bool {
    score == 0.0 || score == 1.0
}

fn nothing() -> Found {
    Found {
        interval: Interval::ALL,
        one_sided: Interval::ALL,
        p_value: 1.0,
        detectable: None,
        method: Method::None,
        reason: Reason::NotEnoughData,
    }
}

fn by_mcnemar(pairs: &[Pair], plan: &Plan) -> Found {
    let mut counts = PairedCounts::default();
    for pair in pairs {
        match (pair.first == 1.0, pair.second == 1.0) {
            (true, true) => counts.both += 1,
            (true, false) => counts.only_first += 1,
            (false, true) => counts.only_second += 1,
            (false, false) => counts.neither += 1,
        }
    }
    let differ = counts.only_first + counts.only_second;
    // None differed among these: up to 3 in n may, so that is what can be planned with.
    let share = crate::special::float(differ.max(3)) / length(pairs.len());
    Found {
        interval: paired_rates_interval(&counts, plan.alpha),
        one_sided: paired_rates_interval(&counts, 2.0 * plan.alpha),
        p_value: mcnemar_exact(counts.only_first, counts.only_second),
        detectable: detectable_paired_binary(share.min(1.0), counts.rows(), plan.alpha, plan.power),
        method: Method::McNemar,
        reason: Reason::EveryScoreIsZeroOrOne,
    }
}

fn by_t(mean: &MeanEstimate, plan: &Plan, method: Method, reason: Reason) -> Found {
    Found {
        interval: mean.interval(plan.alpha),
        one_sided: mean.interval(2.0 * plan.alpha),
        p_value: mean.p_value(0.0),
        detectable: Some(detectable_paired_mean(mean, plan.alpha, plan.power)),
        method,
        reason,
    }
}

fn by_bootstrap(differences: &[f64], plan: &Plan) -> Result<Found, Invalid> {
    let drawn = bootstrap_mean(differences, None, plan.resampling)?;
    let mean = estimate_mean(differences)?;
    Ok(Found {
        p_value: permutation_p_value(differences, None, plan.resampling)?,
        detectable: Some(detectable_paired_mean(&mean, plan.alpha, plan.power)),
        ..resampled(
            &drawn,
            plan,
            Method::PairedBootstrap,
            Reason::ScoresAreBounded,
        )
    })
}

fn resampled(drawn: &Bootstrap, plan: &Plan, method: Method, reason: Reason) -> Found {
    Found {
        interval: drawn.expanded(plan.alpha),
        one_sided: drawn.expanded(2.0 * plan.alpha),
        method,
        reason,
        ..nothing()
    }
}

/// The spread of the resamples is the figure's standard error.
fn detectable_from_draws(drawn: &Bootstrap, plan: &Plan) -> Option<f64> {
    let spread: crate::summary::Summary = drawn.draws.iter().copied().collect();
    let z = normal_quantile(1.0 - plan.alpha / 2.0) + normal_quantile(plan.power);
    (spread.variance() > 0.0).then(|| z * spread.variance().sqrt())
}

/// Every difference is the same number. The rows that were seen have no spread; a share of
/// up to `1 − (α/2)^(1/units)` of all rows may still be different (the rule of three, two-sided),
/// by as much as the metric's range allows.
fn without_spread(
    mean: &MeanEstimate,
    differences: &[f64],
    clusters: &[u64],
    range: Option<(f64, f64)>,
    plan: &Plan,
) -> Result<Found, Invalid> {
    let around = |alpha: f64| {
        let unseen = 1.0 - (alpha / 2.0).powf(1.0 / length(mean.units));
        match range {
            Some((low, high)) => Interval {
                low: mean.mean - unseen * (mean.mean + (high - low)),
                high: mean.mean + unseen * ((high - low) - mean.mean),
            },
            None => mean.interval(alpha),
        }
    };
    Ok(Found {
        interval: around(plan.alpha),
        one_sided: around(2.0 * plan.alpha),
        p_value: permutation_p_value(differences, Some(clusters), plan.resampling)?,
        detectable: None,
        method: Method::NoSpread,
        reason: Reason::AllDifferencesEqual,
    })
}

fn cautions(pairs: &[Pair], comparison: &Comparison, found: &Found) -> Vec<Caution> {
    let mut cautions: Vec<Caution> = Vec::new();
    let exact = found.method == Method::McNemar;
    if !exact {
        cautions.extend(few_units(comparison));
    }
    let differ = comparison.wins + comparison.losses;
    if !exact && found.method != Method::None && (1..FEW_DIFFER).contains(&differ) {
        cautions.push(Caution::FewRowsDiffer);
    }
    let one = |pair: &Pair| pair.first == pairs[0].first && pair.second == pairs[0].first;
    if pairs.len() > 1 && pairs.iter().all(one) {
        cautions.push(Caution::OneValueOnly);
    }
    cautions
}

fn few_units(comparison: &Comparison) -> Option<Caution> {
    let clustered = comparison.units < comparison.rows;
    if clustered && comparison.units < FEW_CLUSTERS {
        Some(Caution::FewClusters)
    } else if !clustered && comparison.rows < SMALL {
        Some(Caution::SmallSample)
    } else {
        None
    }
}

/// Puts together what was counted and what was found, and says the word.
fn conclude(
    mut comparison: Comparison,
    found: Found,
    range: Option<(f64, f64)>,
    plan: &Plan,
) -> Comparison {
    let possible = match range {
        Some((low, high)) => high - low,
        None => f64::INFINITY,
    };
    let cut = |interval: Interval| Interval {
        low: interval.low.max(-possible),
        high: interval.high.min(possible),
    };
    comparison.interval = cut(found.interval);
    comparison.one_sided = cut(found.one_sided);
    comparison.p_value = found.p_value;
    comparison.detectable = found.detectable;
    (comparison.method, comparison.reason) = (found.method, found.reason);
    comparison.verdict = if found.method == Method::None {
        Verdict::NotEnoughData
    } else {
        verdict(&comparison, plan)
    };
    comparison
}

/// A difference that is shown to be too small to matter is "equivalent", even if it is
/// shown to be there. Otherwise the interval must leave out 0 and the test must agree.
fn verdict(comparison: &Comparison, plan: &Plan) -> Verdict {
    let (whole, inner) = (comparison.interval, comparison.one_sided);
    if plan.margin > 0.0 && -plan.margin <= inner.low && inner.high <= plan.margin {
        return Verdict::Equivalent;
    }
    if whole.holds(0.0) || comparison.p_value > plan.alpha {
        return Verdict::NoDifferenceShown;
    }
    if (whole.low > 0.0) == (plan.better == Better::Higher) {
        Verdict::Better
    } else {
        Verdict::Worse
    }
}

impl fmt::Display for Comparison {
    /// Some lines for a terminal or a report.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = Number(100.0 * (1.0 - self.alpha));
        writeln!(f, "{}: {}", self.verdict.as_str(), self.in_words())?;
        writeln!(
            f,
            "difference {} ({percent} % interval {} to {}, p {}), {} -> {}",
            Number(self.difference),
            Number(self.interval.low),
            Number(self.interval.high),
            Number(self.p_value),
            Number(self.first),
            Number(self.second),
        )?;
        if let Some(adjusted) = self.adjusted_p_value {
            writeln!(f, "p {} after Holm's correction", Number(adjusted))?;
        }
        write!(f, "{} rows", self.rows)?;
        if self.units < self.rows {
            write!(f, " in {} clusters", self.units)?;
        }
        if self.method != Method::CorpusBootstrap {
            write!(
                f,
                ": {} won, {} lost, {} tied",
                self.wins, self.losses, self.ties
            )?;
        }
        if let Some(detectable) = self.detectable {
            let power = Number(100.0 * self.power);
            write!(
                f,
                "\nsmallest difference found {power} times in 100: {}",
                Number(detectable)
            )?;
        }
        write!(
            f,
            "\nmethod: {}, because {}",
            self.method.in_words(),
            self.reason.in_words()
        )?;
        for caution in &self.cautions {
            write!(f, "\ncaution: {}", caution.in_words())?;
        }
        Ok(())
    }
}

impl Comparison {
    fn in_words(&self) -> &'static str {
        match self.verdict {
            Verdict::Better => "the second system does better",
            Verdict::Worse => "the second system does worse",
            Verdict::Equivalent => "the difference is too small to matter",
            Verdict::NoDifferenceShown => "the data allows a gain and a loss; this is not equality",
            Verdict::NotEnoughData => "too few rows to say anything",
        }
    }
}

/// A number with four significant digits, as short as it gets.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        if value == 0.0 || !value.is_finite() {
            return write!(f, "{}", if value == 0.0 { 0.0 } else { value });
        }
        let size = value.abs().log10().floor();
        if size < -5.0 {
            return write!(f, "{value:.1e}");
        }
        let scale = 10.0_f64.powf((3.0 - size).max(0.0));
        write!(f, "{}", (value * scale).round() / scale)
    }
}
