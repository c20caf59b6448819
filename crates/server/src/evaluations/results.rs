//! From answers and scores to figures, intervals and verdicts.
//!
//! The unit is the example: repetitions of one example are averaged before anything
//! else happens, and examples that share a cluster are not counted as independent.
//! A mean is of what was scored; how much that is stands beside it, and an answer
//! that could not be had is an error of the candidate, never a score.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use base::Digest;
use eval::Statistics;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stats::{Better, Pair, Plan, Resampling};

use super::store::{AnswerFigure, Cell, Evaluation, Outcome, ScoreFigure};
use crate::evaluators::metric::{self, Measure};
use crate::evaluators::{Direction, EvaluatorDocument, JudgeMode};

/// A word of the API: one of a few when it is made, any when another version's answer is read.
type Word = Cow<'static, str>;

/// The chance that an interval misses.
const ALPHA: f64 = 0.05;

/// What an evaluation has shown so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Results {
    /// The candidate that the others are compared with.
    pub baseline: String,
    /// What each candidate did.
    pub candidates: Vec<CandidateFigures>,
    /// What each evaluator says.
    pub evaluators: Vec<EvaluatorFigures>,
}

/// What a candidate did, whatever its answers are worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CandidateFigures {
    /// Its name.
    pub name: String,
    /// Answers that were given.
    pub answers: u64,
    /// Answers that could not be had.
    pub errors: u64,
    /// The most frequent errors.
    pub error_kinds: BTreeMap<String, u64>,
    /// Prompt tokens per answer.
    pub mean_input_tokens: Option<f64>,
    /// Completion tokens per answer.
    pub mean_output_tokens: Option<f64>,
    /// US dollars per answer, of those whose price is known.
    pub mean_cost_usd: Option<f64>,
    /// The time that half of the answers took at most, in milliseconds.
    pub p50_latency_ms: Option<f64>,
    /// The time that 95 % of the answers took at most, in milliseconds.
    pub p95_latency_ms: Option<f64>,
}

/// What an evaluator says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EvaluatorFigures {
    /// Its name.
    pub name: String,
    /// `metric`, `judge` or `http`.
    pub r#type: String,
    /// What its numbers are signed with.
    pub signature: String,
    /// Its content.
    pub digest: String,
    /// Which direction is good.
    pub better: Direction,
    /// The largest difference that nobody would act on.
    pub margin: f64,
    /// Whether it compares each candidate with the baseline instead of giving each a number.
    pub pairwise: bool,
    /// Whether the figure is of the whole data, not the mean of its rows.
    pub of_corpus: bool,
    /// What it says of each candidate.
    pub cells: Vec<CellFigures>,
}

/// What an evaluator says of a candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CellFigures {
    /// The candidate.
    pub candidate: String,
    /// The mean, or the figure of the whole data.
    pub value: Option<f64>,
    /// The lower end of its 95 % interval.
    pub low: Option<f64>,
    /// The upper end.
    pub high: Option<f64>,
    /// How the interval was made: `wilson`, `t`, `clustered`, `bootstrap`.
    pub interval: Option<Word>,
    /// Examples that were scored.
    pub scored: u64,
    /// Examples without an answer to score.
    pub errors: u64,
    /// Examples that the evaluator could not score.
    pub unscored: u64,
    /// Scored examples over all that have an outcome.
    pub coverage: Option<f64>,
    /// Of a judge of pairs: how often both orders agreed.
    pub swap_consistency: Option<f64>,
    /// Of repetitions that are right or wrong: the chance that one of all is right.
    pub pass_at_k: Option<f64>,
    /// And that all of them are.
    pub pass_all_k: Option<f64>,
    /// Beside the baseline; none for the baseline itself.
    pub comparison: Option<ComparisonJson>,
}

/// Two candidates over the same examples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ComparisonJson {
    /// `better`, `worse`, `equivalent`, `no_difference_shown` or `not_enough_data`.
    pub verdict: Word,
    /// Candidate less baseline.
    pub difference: f64,
    /// The lower end of its 95 % interval.
    pub low: Option<f64>,
    /// The upper end.
    pub high: Option<f64>,
    /// The one-sided bounds, for gates.
    pub one_sided_low: Option<f64>,
    /// As above.
    pub one_sided_high: Option<f64>,
    /// Of "there is no difference".
    pub p_value: f64,
    /// The same after correcting for all comparisons of this evaluator.
    pub adjusted_p_value: Option<f64>,
    /// The smallest true difference that so many examples would probably show.
    pub detectable: Option<f64>,
    /// Examples on which the candidate is better.
    pub wins: u64,
    /// Examples on which it is worse.
    pub losses: u64,
    /// Examples without a difference.
    pub ties: u64,
    /// Examples that both were scored on.
    pub rows: u64,
    /// How many independent units they are.
    pub units: u64,
    /// How they were compared.
    pub method: Word,
    /// Why so.
    pub method_reason: Word,
    /// What to know before believing it.
    pub cautions: Vec<Word>,
}

impl ComparisonJson {
    /// What is said of a comparison.
    pub(crate) fn of(found: &stats::Comparison) -> Self {
        Self {
            verdict: found.verdict.as_str().into(),
            difference: found.difference,
            low: finite(found.interval.low),
            high: finite(found.interval.high),
            one_sided_low: finite(found.one_sided.low),
            one_sided_high: finite(found.one_sided.high),
            p_value: found.p_value,
            adjusted_p_value: found.adjusted_p_value,
            detectable: found.detectable,
            wins: found.wins as u64,
            losses: found.losses as u64,
            ties: found.ties as u64,
            rows: found.rows as u64,
            units: found.units as u64,
            method: found.method.as_str().into(),
            method_reason: found.reason.as_str().into(),
            cautions: found
                .cautions
                .iter()
                .map(|caution| caution.as_str().into())
                .collect(),
        }
    }
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// Everything that figures are made of.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub answers: Vec<AnswerFigure>,
    pub scores: Vec<ScoreFigure>,
    /// By evaluator: the details that its figure needs.
    pub details: HashMap<usize, Vec<(Cell, Value)>>,
    /// The cluster of each place.
    pub clusters: HashMap<i64, u64>,
    /// Every column, once somebody asked.
    pub columns: OnceLock<HashMap<(usize, usize), Column>>,
}

impl Facts {
    /// Every column, by evaluator and candidate.
    pub(super) fn columns(&self) -> &HashMap<(usize, usize), Column> {
        self.columns.get_or_init(|| columns(self))
    }
}

/// The cluster that a metadata value stands for.
pub(crate) fn cluster_of(value: &Value) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&Digest::of(value.to_string().as_bytes()).0[..8]);
    u64::from_le_bytes(first)
}

/// Which evaluators' figures need the details of their scores.
pub(super) fn needs_details(document: &EvaluatorDocument) -> bool {
    match document {
        EvaluatorDocument::Metric(metric) => {
            metric::parse(metric).is_ok_and(|metric| metric.entry().corpus)
        }
        EvaluatorDocument::Judge(judge) => judge.mode == JudgeMode::Pairwise,
        _ => false,
    }
}

/// Scores of one evaluator and candidate by example.
#[derive(Debug, Clone, Default)]
pub(super) struct Column {
    /// The mean of an example's repetitions.
    pub means: BTreeMap<i64, f64>,
    /// Each repetition's value.
    pub values: BTreeMap<i64, Vec<f64>>,
    pub errors: u64,
    pub unscored: u64,
}

impl Column {
    /// The means of these examples.
    fn only(&self, places: &[i64]) -> Self {
        let means = places
            .iter()
            .filter_map(|place| Some((*place, *self.means.get(place)?)));
        Self {
            means: means.collect(),
            ..Self::default()
        }
    }

    fn add(&mut self, place: i64, outcome: Outcome) {
        match outcome {
            Outcome::Scored(value) => self.values.entry(place).or_default().push(value),
            Outcome::Error => self.errors += 1,
            Outcome::Unscored => self.unscored += 1,
        }
    }
}

fn columns(facts: &Facts) -> HashMap<(usize, usize), Column> {
    let mut columns: HashMap<(usize, usize), Column> = HashMap::new();
    for score in &facts.scores {
        let key = (score.evaluator, score.cell.candidate);
        columns
            .entry(key)
            .or_default()
            .add(score.cell.place, score.outcome);
    }
    for column in columns.values_mut() {
        let means = column.values.iter();
        #[expect(clippy::cast_precision_loss, reason = "a handful of repetitions")]
        let mean = |values: &Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        column.means = means
            .map(|(place, values)| (*place, mean(values)))
            .collect();
    }
    columns
}

/// The figures of an evaluation.
pub(super) fn compute(evaluation: &Evaluation, facts: &Facts) -> Results {
    let suite = &evaluation.document;
    let columns = facts.columns();
    let baseline = suite.baseline();
    let name = |index: usize| {
        suite
            .candidates
            .get(index)
            .map(|c| c.name.clone())
            .unwrap_or_default()
    };
    let evaluators = evaluation.pinned.evaluators.iter().enumerate();
    let evaluators = evaluators.map(|(index, pinned)| {
        let margin = suite.margin.get(&pinned.name).copied().unwrap_or(0.0);
        let judging = Judging {
            index,
            document: &pinned.document,
            plan: plan_of(&pinned.document, margin, suite.seed),
            baseline,
            facts,
            columns,
            corpus: Corpus::of(&pinned.document, facts.details.get(&index)),
            repeats: suite.repeats,
        };
        EvaluatorFigures {
            name: pinned.name.clone(),
            r#type: pinned.document.type_name().to_owned(),
            signature: pinned.signature.clone(),
            digest: pinned.digest.to_string(),
            better: pinned.document.better(),
            margin,
            pairwise: pinned.document.is_pairwise(),
            of_corpus: judging.corpus.is_some(),
            cells: judging.cells(suite.candidates.len(), &name),
        }
    });
    Results {
        baseline: name(baseline),
        evaluators: evaluators.collect(),
        candidates: (0..suite.candidates.len())
            .map(|index| candidate_figures(name(index), index, &facts.answers))
            .collect(),
    }
}

fn plan_of(document: &EvaluatorDocument, margin: f64, seed: u64) -> Plan {
    Plan {
        better: match document.better() {
            Direction::Higher => Better::Higher,
            Direction::Lower => Better::Lower,
        },
        alpha: ALPHA,
        margin,
        range: document.range(),
        resampling: Resampling {
            seed: if seed == 0 {
                Resampling::default().seed
            } else {
                seed
            },
            ..Resampling::default()
        },
        ..Plan::default()
    }
}

/// The parts of figures that only the whole data has.
struct Corpus {
    measure: Measure,
    rows: HashMap<(usize, i64), Vec<Statistics>>,
}

impl Corpus {
    fn of(document: &EvaluatorDocument, details: Option<&Vec<(Cell, Value)>>) -> Option<Self> {
        let EvaluatorDocument::Metric(evaluator) = document else {
            return None;
        };
        let measure = Measure::new(evaluator, &eval::Resources::default()).ok()?;
        if !measure.is_of_corpus() {
            return None;
        }
        let mut rows: HashMap<(usize, i64), Vec<Statistics>> = HashMap::new();
        for (cell, detail) in details? {
            if let Some(statistics) = metric::statistics(detail) {
                rows.entry((cell.candidate, cell.place))
                    .or_default()
                    .push(statistics);
            }
        }
        Some(Self { measure, rows })
    }

    fn figure(&self, candidate: usize, places: impl Iterator<Item = i64> + Clone) -> Option<f64> {
        let of_place = |place: i64| self.rows.get(&(candidate, place)).into_iter().flatten();
        self.measure.combine(places.flat_map(of_place))
    }
}

/// One evaluator's figures in the making.
struct Judging<'a> {
    index: usize,
    document: &'a EvaluatorDocument,
    plan: Plan,
    baseline: usize,
    facts: &'a Facts,
    columns: &'a HashMap<(usize, usize), Column>,
    corpus: Option<Corpus>,
    repeats: u32,
}

impl Judging<'_> {
    fn cells(&self, candidates: usize, name: &impl Fn(usize) -> String) -> Vec<CellFigures> {
        let empty = Column::default();
        let mut comparisons: Vec<(usize, stats::Comparison)> = Vec::new();
        let mut cells = Vec::new();
        for candidate in 0..candidates {
            let column = self.columns.get(&(self.index, candidate)).unwrap_or(&empty);
            cells.push(self.cell(candidate, column, name(candidate)));
            if candidate != self.baseline
                && let Some(found) = self.compare(candidate, column)
            {
                comparisons.push((candidate, found));
            }
        }
        let (places, mut found): (Vec<usize>, Vec<stats::Comparison>) =
            comparisons.into_iter().unzip();
        if found.len() > 1 {
            stats::correct_for_many(&mut found);
        }
        for (place, found) in places.into_iter().zip(&found) {
            if let Some(cell) = cells.get_mut(place) {
                cell.comparison = Some(ComparisonJson::of(found));
            }
        }
        cells
    }

    fn cell(&self, candidate: usize, column: &Column, name: String) -> CellFigures {
        let scored = column.values.values().map(Vec::len).sum::<usize>() as u64;
        let outcomes = scored + column.errors + column.unscored;
        let (value, low, high, interval) = self.estimate(candidate, column);
        #[expect(clippy::cast_precision_loss, reason = "counts of examples")]
        let coverage = (outcomes > 0).then(|| scored as f64 / outcomes as f64);
        let (pass_at_k, pass_all_k) = self.repeated(column);
        CellFigures {
            candidate: name,
            value,
            low,
            high,
            interval,
            scored,
            errors: column.errors,
            unscored: column.unscored,
            coverage,
            swap_consistency: self.swap_consistency(candidate),
            pass_at_k,
            pass_all_k,
            comparison: None,
        }
    }

    fn estimate(
        &self,
        candidate: usize,
        column: &Column,
    ) -> (Option<f64>, Option<f64>, Option<f64>, Option<Word>) {
        let values: Vec<f64> = column.means.values().copied().collect();
        let places: Vec<i64> = column.means.keys().copied().collect();
        if values.is_empty() {
            return (None, None, None, None);
        }
        let clusters: Vec<u64> = places.iter().map(|place| self.cluster(*place)).collect();
        let clustered = !self.facts.clusters.is_empty();
        if let Some(corpus) = &self.corpus {
            let figure = corpus.figure(candidate, places.iter().copied());
            let interval = stats::bootstrap_interval(
                places.len(),
                clustered.then_some(clusters.as_slice()),
                ALPHA,
                self.plan.resampling,
                |rows| {
                    corpus.figure(
                        candidate,
                        rows.iter().filter_map(|row| places.get(*row).copied()),
                    )
                },
            );
            let ends = interval.ok().filter(|_| values.len() > 1);
            return (
                figure,
                ends.and_then(|ends| finite(ends.low)),
                ends.and_then(|ends| finite(ends.high)),
                Some("bootstrap".into()),
            );
        }
        let rate = !clustered && values.iter().all(|value| *value == 0.0 || *value == 1.0);
        if rate {
            let right = values.iter().filter(|value| **value == 1.0).count() as u64;
            let n = values.len() as u64;
            let ends = stats::wilson(right, n, ALPHA);
            #[expect(clippy::cast_precision_loss, reason = "counts of examples")]
            let mean = right as f64 / n as f64;
            return (
                Some(mean),
                finite(ends.low),
                finite(ends.high),
                Some("wilson".into()),
            );
        }
        let found = match clustered {
            true => stats::estimate_clustered_mean(&values, &clusters),
            false => stats::estimate_mean(&values),
        };
        let Ok(found) = found else {
            return (None, None, None, None);
        };
        let ends = found.interval(ALPHA);
        let method = if clustered { "clustered" } else { "t" };
        (
            Some(found.mean),
            finite(ends.low),
            finite(ends.high),
            Some(method.into()),
        )
    }

    fn cluster(&self, place: i64) -> u64 {
        let known = self.facts.clusters.get(&place).copied();
        // An example without the field stands alone.
        known.unwrap_or_else(|| cluster_of(&Value::from(place)))
    }

    /// The candidate beside the baseline, on the examples of this column.
    fn compare(&self, candidate: usize, column: &Column) -> Option<stats::Comparison> {
        let cluster = |place: i64| {
            let clustered = !self.facts.clusters.is_empty();
            clustered.then(|| self.cluster(place))
        };
        if self.document.is_pairwise() {
            // A share of wins is compared with the share of losses.
            let pairs: Vec<Pair> = column
                .means
                .iter()
                .map(|(place, value)| Pair {
                    first: 1.0 - value,
                    second: *value,
                    cluster: cluster(*place),
                })
                .collect();
            return stats::compare(&pairs, &self.plan).ok();
        }
        let baseline = self.columns.get(&(self.index, self.baseline))?;
        let both: Vec<(i64, f64, f64)> = column
            .means
            .iter()
            .filter_map(|(place, second)| Some((*place, *baseline.means.get(place)?, *second)))
            .collect();
        if let Some(corpus) = &self.corpus {
            let places: Vec<i64> = both.iter().map(|(place, _, _)| *place).collect();
            let clusters: Vec<u64> = places.iter().map(|place| self.cluster(*place)).collect();
            let clusters = (!self.facts.clusters.is_empty()).then_some(clusters.as_slice());
            let figures = |rows: &[usize]| {
                let drawn = || rows.iter().filter_map(|row| places.get(*row).copied());
                Some([
                    corpus.figure(self.baseline, drawn())?,
                    corpus.figure(candidate, drawn())?,
                ])
            };
            return stats::compare_corpus(places.len(), clusters, &self.plan, figures).ok();
        }
        let pairs: Vec<Pair> = both
            .into_iter()
            .map(|(place, first, second)| Pair {
                first,
                second,
                cluster: cluster(place),
            })
            .collect();
        stats::compare(&pairs, &self.plan).ok()
    }

    fn swap_consistency(&self, candidate: usize) -> Option<f64> {
        if !self.document.is_pairwise() {
            return None;
        }
        let details = self.facts.details.get(&self.index)?;
        let own = details
            .iter()
            .filter(|(cell, _)| cell.candidate == candidate);
        let (mut consistent, mut compared) = (0, 0);
        for (_, detail) in own {
            consistent += detail["consistent"].as_u64().unwrap_or(0);
            compared += detail["compared"].as_u64().unwrap_or(0);
        }
        #[expect(clippy::cast_precision_loss, reason = "counts of examples")]
        (compared > 0).then(|| consistent as f64 / compared as f64)
    }

    /// pass@k and pass^k over all repetitions, for answers that are right or wrong.
    fn repeated(&self, column: &Column) -> (Option<f64>, Option<f64>) {
        let k = u64::from(self.repeats);
        let binary = column
            .values
            .values()
            .flatten()
            .all(|value| *value == 0.0 || *value == 1.0);
        if k < 2 || !binary {
            return (None, None);
        }
        let full: Vec<u64> = column
            .values
            .values()
            .filter(|values| values.len() as u64 == k)
            .map(|values| values.iter().filter(|value| **value == 1.0).count() as u64)
            .collect();
        let mean = |of: fn(u64, u64, u64) -> Result<f64, stats::Invalid>| {
            let each: Vec<f64> = full
                .iter()
                .filter_map(|passed| of(k, *passed, k).ok())
                .collect();
            #[expect(clippy::cast_precision_loss, reason = "counts of examples")]
            (!each.is_empty()).then(|| each.iter().sum::<f64>() / each.len() as f64)
        };
        (mean(stats::pass_at_k), mean(stats::pass_all_k))
    }
}

fn candidate_figures(name: String, index: usize, answers: &[AnswerFigure]) -> CandidateFigures {
    let own: Vec<&AnswerFigure> = answers
        .iter()
        .filter(|answer| answer.cell.candidate == index)
        .collect();
    let good: Vec<&AnswerFigure> = own.iter().copied().filter(|answer| answer.is_ok).collect();
    let mut error_kinds: BTreeMap<String, u64> = BTreeMap::new();
    for answer in own.iter().filter(|answer| !answer.is_ok) {
        let kind = answer.error.clone().unwrap_or_else(|| "error".to_owned());
        *error_kinds.entry(kind).or_default() += 1;
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "tokens and nano-dollars are far below 2^53"
    )]
    let mean = |of: fn(&AnswerFigure) -> Option<i64>| {
        let known: Vec<f64> = good
            .iter()
            .filter_map(|answer| of(answer))
            .map(|value| value as f64)
            .collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    };
    let mut latencies: Vec<i64> = good.iter().map(|answer| answer.latency_us).collect();
    latencies.sort_unstable();
    #[expect(
        clippy::cast_precision_loss,
        reason = "microseconds are far below 2^53"
    )]
    let quantile = |percent: usize| {
        let at = (latencies.len() * percent).div_ceil(100).saturating_sub(1);
        latencies.get(at).map(|us| *us as f64 / 1000.0)
    };
    CandidateFigures {
        name,
        answers: good.len() as u64,
        errors: (own.len() - good.len()) as u64,
        error_kinds,
        mean_input_tokens: mean(|answer| Some(answer.input_tokens)),
        mean_output_tokens: mean(|answer| Some(answer.output_tokens)),
        mean_cost_usd: mean(|answer| answer.cost).map(|nano| nano / 1e9),
        p50_latency_ms: quantile(50),
        p95_latency_ms: quantile(95),
    }
}

/// One value of a metadata field, and how the candidates compare there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Slice {
    /// The value.
    pub value: String,
    /// Examples with it that were scored.
    pub examples: u64,
    /// The mean of each candidate, in the suite's order.
    pub means: Vec<Option<f64>>,
    /// Each candidate beside the baseline, in the suite's order; none for the baseline.
    pub comparisons: Vec<Option<ComparisonJson>>,
}

/// How the candidates compare on each value of a field, the most frequent values first.
/// Verdicts are corrected for all slices together.
pub(super) fn slices(
    evaluation: &Evaluation,
    facts: &Facts,
    evaluator: usize,
    groups: &BTreeMap<String, Vec<i64>>,
) -> Vec<Slice> {
    const MOST_SLICES: usize = 50;
    let suite = &evaluation.document;
    let Some(pinned) = evaluation.pinned.evaluators.get(evaluator) else {
        return Vec::new();
    };
    let columns = facts.columns();
    let margin = suite.margin.get(&pinned.name).copied().unwrap_or(0.0);
    let judging = Judging {
        index: evaluator,
        document: &pinned.document,
        plan: plan_of(&pinned.document, margin, suite.seed),
        baseline: suite.baseline(),
        facts,
        columns,
        corpus: Corpus::of(&pinned.document, facts.details.get(&evaluator)),
        repeats: suite.repeats,
    };
    let mut ordered: Vec<(&String, &Vec<i64>)> = groups.iter().collect();
    ordered.sort_by_key(|(value, places)| (std::cmp::Reverse(places.len()), (*value).clone()));
    ordered.truncate(MOST_SLICES);
    let empty = Arc::new(Column::default());
    let mut found: Vec<stats::Comparison> = Vec::new();
    let mut at: Vec<(usize, usize)> = Vec::new();
    let mut rows = Vec::new();
    for (value, places) in ordered {
        let mut means = Vec::new();
        let mut examples = 0;
        for candidate in 0..suite.candidates.len() {
            let column = columns.get(&(evaluator, candidate)).unwrap_or(&empty);
            // Only its own part: to go through all of it for every slice would take the square.
            let column = column.only(places);
            let own: Vec<f64> = column.means.values().copied().collect();
            examples = examples.max(own.len() as u64);
            let figure = match &judging.corpus {
                Some(corpus) => corpus.figure(candidate, places.iter().copied()),
                #[expect(clippy::cast_precision_loss, reason = "counts of examples")]
                None => (!own.is_empty()).then(|| own.iter().sum::<f64>() / own.len() as f64),
            };
            means.push(figure);
            if candidate != judging.baseline
                && let Some(comparison) = judging.compare(candidate, &column)
            {
                at.push((rows.len(), candidate));
                found.push(comparison);
            }
        }
        rows.push(Slice {
            value: value.clone(),
            examples,
            comparisons: vec![None; means.len()],
            means,
        });
    }
    if found.len() > 1 {
        stats::correct_for_many(&mut found);
    }
    for ((row, candidate), comparison) in at.into_iter().zip(&found) {
        if let Some(place) = rows
            .get_mut(row)
            .and_then(|row: &mut Slice| row.comparisons.get_mut(candidate))
        {
            *place = Some(ComparisonJson::of(comparison));
        }
    }
    rows
}

/// An example on which a candidate differs from the baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DifferenceRow {
    /// The number of the example in the dataset's order.
    pub place: i64,
    /// The baseline's score.
    pub baseline: Option<f64>,
    /// The candidate's.
    pub candidate: Option<f64>,
    /// How much better the candidate is; negative where it is worse, whichever direction is good.
    pub gain: Option<f64>,
}

/// Every example with an outcome for this evaluator, the worst losses first.
pub(super) fn differences(
    evaluation: &Evaluation,
    facts: &Facts,
    evaluator: usize,
    candidate: usize,
) -> Vec<DifferenceRow> {
    let columns = facts.columns();
    let empty = Column::default();
    let own = columns.get(&(evaluator, candidate)).unwrap_or(&empty);
    let pinned = evaluation.pinned.evaluators.get(evaluator);
    let (mut sign, mut pairwise) = (1.0, false);
    if let Some(pinned) = pinned {
        pairwise = pinned.document.is_pairwise();
        if pinned.document.better() == Direction::Lower {
            sign = -1.0;
        }
    }
    let baseline = match pairwise {
        true => &empty,
        false => columns
            .get(&(evaluator, evaluation.document.baseline()))
            .unwrap_or(&empty),
    };
    let mut places: Vec<i64> = own
        .means
        .keys()
        .chain(baseline.means.keys())
        .copied()
        .collect();
    let others = facts
        .scores
        .iter()
        .filter(|score| score.evaluator == evaluator && score.cell.candidate == candidate);
    places.extend(others.map(|score| score.cell.place));
    places.sort_unstable();
    places.dedup();
    let mut rows: Vec<DifferenceRow> = places
        .into_iter()
        .map(|place| {
            let (first, second) = (
                baseline.means.get(&place).copied(),
                own.means.get(&place).copied(),
            );
            let gain = match pairwise {
                true => second.map(|value| value - 0.5),
                false => first
                    .zip(second)
                    .map(|(first, second)| (second - first) * sign),
            };
            DifferenceRow {
                place,
                baseline: first,
                candidate: second,
                gain,
            }
        })
        .collect();
    // What has no score for the candidate comes first: it may be the worst loss of all.
    let rank = |row: &DifferenceRow| match (row.gain, row.candidate) {
        (Some(gain), _) => gain,
        (None, None) => f64::NEG_INFINITY,
        (None, Some(_)) => 0.0,
    };
    rows.sort_by(|a, b| rank(a).total_cmp(&rank(b)).then(a.place.cmp(&b.place)));
    rows
}
