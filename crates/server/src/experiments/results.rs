//! What a run has shown so far: from the spans of its calls to figures per arm,
//! differences with intervals, and the state of the guards.
//!
//! One pass over the calls since the run's start, oldest first. Observations are
//! averaged per unit (user or session) and arm, so memory grows with units, not
//! with calls, and is bounded: units beyond [`MOST_UNITS`] are left out and
//! counted. The series over time shows what was known after the calls of each
//! bucket, with the scores that exist now.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use base::{ProjectId, SpanId, TraceId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stats::{Guard, GuardState, Interval, Running, Side, Summary, Verdict};
use telemetry::{
    Field, Filter, Literal, Op, QueryError, Reader, ScanQuery, Scanned, ScannedValue, Scope,
};

use super::document::{
    Direction, ExperimentDocument, Forbidden, Metric, MetricKind, Mode, TargetKind, Unit,
};
use super::store::Run;
use crate::scores::THUMBS;

/// Units per arm and metric that are told apart.
const MOST_UNITS: usize = 100_000;
/// Points of the series over time.
const POINTS: i64 = 60;
/// Pairs of a shadow experiment that are shown.
const PAIRS_SHOWN: usize = 20;
/// Traces that wait for the other half of their pair.
const MOST_HALVES: usize = 100_000;
/// Assignment is called broken when chance explains the arms' sizes this badly.
const MISMATCH: f64 = 0.001;

/// What a run has shown so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Results {
    /// When this was computed, microseconds since the epoch.
    pub at: i64,
    /// The arms, in the order of the document.
    pub arms: Vec<ArmResult>,
    /// Each candidate beside the control, by the primary metric.
    pub comparisons: Vec<Comparison>,
    /// Each guard on each candidate.
    pub guards: Vec<GuardResult>,
    /// The newest pairs of a shadow experiment: traces where both answers are.
    pub pairs: Vec<Pair>,
    /// Units that came after the limit of what is told apart.
    pub units_left_out: u64,
}

/// One arm's figures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ArmResult {
    /// Its name.
    pub name: String,
    /// The version it stands for.
    pub version: i64,
    /// Whether the others are compared with it.
    pub control: bool,
    /// Its present share.
    pub weight: f64,
    /// Calls.
    pub calls: u64,
    /// Calls since the present step of the ramp began.
    pub calls_in_step: u64,
    /// Users, sessions or calls: what is counted once.
    pub units: u64,
    /// Figures by metric: the primary one, the guards', feedback, cost, latency, error rate.
    pub figures: Vec<Figure>,
}

/// A mean over units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Figure {
    /// `score.NAME`, `latency` (ms), `cost` (dollars), `error_rate` or `blocked_rate` (shares).
    pub metric: String,
    /// Units with a value.
    pub units: u64,
    /// Their mean; for latency the geometric mean. Absent without units.
    pub mean: Option<f64>,
    /// The ends of its always-valid interval; absent while nothing is known.
    pub low: Option<f64>,
    /// The upper end.
    pub high: Option<f64>,
}

/// A candidate beside the control.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// The candidate.
    pub arm: String,
    /// The metric.
    pub metric: String,
    /// `difference` (candidate less control) or `ratio` (0.1: the candidate's is 10 % larger).
    pub scale: String,
    /// Whether it comes from pairs of answers to the same call.
    pub paired: bool,
    /// The estimate.
    pub estimate: Option<f64>,
    /// The ends of its always-valid interval; absent while nothing is known.
    pub low: Option<f64>,
    /// The upper end.
    pub high: Option<f64>,
    /// The always-valid p-value.
    pub p_value: f64,
    /// The exact always-valid p-value, for outcomes of yes and no with fixed shares.
    pub exact_p_value: Option<f64>,
    /// `better`, `worse`, `no_difference_shown` or `not_enough_data`.
    pub verdict: String,
    /// Whether more data cannot be expected to change it.
    pub is_final: bool,
    /// Units of the smaller arm.
    pub units: u64,
    /// Units of the smaller arm that a verdict needs.
    pub units_needed: u64,
    /// Whether the arms' sizes do not fit their shares: assignment is broken, do not trust the figures.
    pub share_mismatch: bool,
    /// What was known over time.
    pub series: Vec<Point>,
}

/// One look.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Point {
    /// After the calls that began before this, seconds since the epoch.
    pub at_s: i64,
    /// The estimate.
    pub estimate: Option<f64>,
    /// The interval's lower end.
    pub low: Option<f64>,
    /// The interval's upper end.
    pub high: Option<f64>,
}

/// One guard on one candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GuardResult {
    /// The candidate.
    pub arm: String,
    /// The metric.
    pub metric: String,
    /// The limit.
    pub limit: f64,
    /// What is forbidden: `above` or `below`.
    pub direction: Forbidden,
    /// `no_data`, `watching`, `held` or `crossed`.
    pub state: String,
    /// The mean.
    pub mean: Option<f64>,
    /// The ends of the interval that shows it.
    pub low: Option<f64>,
    /// The upper end.
    pub high: Option<f64>,
}

/// Two answers to one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pair {
    /// The candidate.
    pub arm: String,
    /// When the call began, microseconds since the epoch.
    pub at: i64,
    /// The trace of the call.
    pub trace_id: String,
    /// The span of the answer that was returned.
    pub control_span: String,
    /// The span of the answer that nobody saw.
    pub shadow_span: String,
}

impl Results {
    /// A candidate's comparison.
    pub fn comparison(&self, arm: &str) -> Option<&Comparison> {
        self.comparisons.iter().find(|found| found.arm == arm)
    }
}

/// How the values of a metric are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    /// As they are.
    Plain,
    /// Their logarithm: differences are ratios.
    Log,
    /// From 0 to 1.
    Rate,
    /// Thumbs, from −1 to 1.
    Thumbs,
}

impl Scale {
    fn of(metric: &Metric) -> Self {
        match metric.kind {
            MetricKind::Latency => Self::Log,
            MetricKind::ErrorRate | MetricKind::BlockedRate => Self::Rate,
            MetricKind::Score if metric.name.as_deref() == Some(THUMBS) => Self::Thumbs,
            MetricKind::Score | MetricKind::Cost => Self::Plain,
        }
    }

    /// From the metric's own scale to that of the observations.
    fn inward(self, value: f64) -> f64 {
        match self {
            Self::Log => value.max(1e-6).ln(),
            Self::Thumbs => (value + 1.0) / 2.0,
            Self::Plain | Self::Rate => value,
        }
    }

    /// Back.
    fn outward(self, value: f64) -> f64 {
        match self {
            Self::Log => value.exp(),
            Self::Thumbs => 2.0 * value - 1.0,
            Self::Plain | Self::Rate => value,
        }
    }

    /// A difference of observations, as people read it.
    fn difference(self, value: f64) -> f64 {
        match self {
            Self::Log => value.exp_m1(),
            Self::Thumbs => 2.0 * value,
            Self::Plain | Self::Rate => value,
        }
    }

    /// A margin that people gave, as a difference of observations.
    fn margin(self, value: f64) -> f64 {
        match self {
            Self::Log => value.ln_1p(),
            Self::Thumbs => value / 2.0,
            Self::Plain | Self::Rate => value,
        }
    }

    fn is_bounded(self) -> bool {
        matches!(self, Self::Rate | Self::Thumbs)
    }
}

/// One metric of one arm: a mean per unit, and the sample of those means.
#[derive(Debug, Default)]
struct Sample {
    /// By unit: how many values, and their sum. Empty where every call is a unit.
    units: HashMap<u64, (u32, f64)>,
    summary: Summary,
    /// Units whose mean is exactly 1 and exactly 0.
    ones: u64,
    zeros: u64,
}

impl Sample {
    /// Takes in a value; false when there is no room for another unit.
    fn add(&mut self, unit: Option<u64>, value: f64) -> bool {
        let Some(unit) = unit else {
            self.summary.add(value);
            self.count(value, 1);
            return true;
        };
        let room = self.units.len() < MOST_UNITS;
        match self.units.get_mut(&unit) {
            Some((n, sum)) => {
                let before = *sum / f64::from(*n);
                *n = n.saturating_add(1);
                *sum += value;
                let after = *sum / f64::from(*n);
                self.summary.replace(before, after);
                self.count(before, -1);
                self.count(after, 1);
            }
            None if room => {
                self.units.insert(unit, (1, value));
                self.summary.add(value);
                self.count(value, 1);
            }
            None => return false,
        }
        true
    }

    fn count(&mut self, mean: f64, change: i64) {
        if mean == 1.0 {
            self.ones = self.ones.saturating_add_signed(change);
        } else if mean == 0.0 {
            self.zeros = self.zeros.saturating_add_signed(change);
        }
    }

    /// Yes and no of each unit, if there is nothing else.
    fn as_counts(&self) -> Option<(u64, u64)> {
        (self.ones + self.zeros == self.summary.n).then_some((self.ones, self.summary.n))
    }
}

/// A call that waits for the other half of its pair.
struct Half {
    arm: usize,
    value: Option<f64>,
    span: SpanId,
}

/// Everything that is computed for a run.
struct Computation<'a> {
    run: &'a Run,
    document: &'a ExperimentDocument,
    metrics: Vec<Metric>,
    scales: Vec<Scale>,
    arms: Vec<ArmState>,
    control: usize,
    /// Differences of pairs, by candidate.
    pairs: Vec<Sample>,
    halves: HashMap<TraceId, Vec<Half>>,
    pairs_seen: std::collections::VecDeque<Pair>,
    units_left_out: u64,
    bucket_us: i64,
    bucket: Option<i64>,
    running: Vec<Running>,
    series: Vec<Vec<Point>>,
}

#[derive(Default)]
struct ArmState {
    calls: u64,
    calls_in_step: u64,
    units: HashMap<u64, ()>,
    unit_calls: u64,
    samples: Vec<Sample>,
}

/// Computes a run's results. Blocks.
///
/// # Errors
/// See [`QueryError`].
pub(super) fn compute(
    reader: &Reader,
    project: ProjectId,
    run: &Run,
    document: &ExperimentDocument,
    now_us: i64,
) -> Result<Results, QueryError> {
    let mut computation = Computation::new(run, document, now_us);
    let query = computation.query(project, now_us);
    reader.scan(&query, |row| computation.take_row(row))?;
    Ok(computation.finish(now_us))
}

/// The metrics that are shown, the primary one first, none twice.
fn metrics_of(document: &ExperimentDocument) -> Vec<Metric> {
    let plain = |kind, name: Option<&str>| Metric {
        kind,
        name: name.map(str::to_owned),
        better: None,
    };
    let guards = document.guards.iter().map(|guard| guard.metric.clone());
    let usual = [
        plain(MetricKind::Score, Some(THUMBS)),
        plain(MetricKind::ErrorRate, None),
        plain(MetricKind::Latency, None),
        plain(MetricKind::Cost, None),
    ];
    let blocked =
        (document.target.kind == TargetKind::Guard).then(|| plain(MetricKind::BlockedRate, None));
    let mut metrics: Vec<Metric> = vec![document.metric.clone()];
    for metric in guards.chain(blocked).chain(usual) {
        if !metrics.iter().any(|known| known.label() == metric.label()) {
            metrics.push(metric);
        }
    }
    metrics
}

// The columns of the scan; the scores follow.
const ARM: usize = 0;
const UNIT: usize = 1;
const STATUS: usize = 2;
const LATENCY: usize = 3;
const COST: usize = 4;
const FINISH: usize = 5;
const ERROR: usize = 6;
const SCORES: usize = 7;

impl<'a> Computation<'a> {
    fn new(run: &'a Run, document: &'a ExperimentDocument, now_us: i64) -> Self {
        let metrics = metrics_of(document);
        let arm = |_| ArmState {
            samples: metrics.iter().map(|_| Sample::default()).collect(),
            ..ArmState::default()
        };
        let arms: Vec<ArmState> = run.arms.iter().map(arm).collect();
        let until_us = run.ended_at.unwrap_or(now_us);
        let width_s = crate::traces::bucket_s(until_us - run.started_at, POINTS);
        Self {
            run,
            document,
            scales: metrics.iter().map(Scale::of).collect(),
            control: run.arms.iter().position(|arm| arm.control).unwrap_or(0),
            pairs: run.arms.iter().map(|_| Sample::default()).collect(),
            running: vec![Running::default(); arms.len()],
            series: vec![Vec::new(); arms.len()],
            halves: HashMap::new(),
            pairs_seen: std::collections::VecDeque::new(),
            units_left_out: 0,
            bucket_us: width_s * 1_000_000,
            bucket: None,
            metrics,
            arms,
        }
    }

    /// Every call since the run began: the record that the gateway marked, which for an app is
    /// its own and for a prompt may be a step's. Feedback is given to the whole trace; where two
    /// answers lie in one trace, only what was given to the answer itself counts.
    fn query(&self, project: ProjectId, now_us: i64) -> ScanQuery {
        let name = Literal::Text(self.run.experiment.clone());
        let filter = Filter::default().and(Field::Experiment, Op::Equal, name);
        let unit = match self.document.unit {
            Unit::Session => Field::Session,
            Unit::User | Unit::Request => Field::User,
        };
        let mut fields = vec![
            Field::Arm,
            unit,
            Field::Status,
            Field::LatencyMs,
            Field::CostUsd,
            Field::FinishReason,
            Field::ErrorType,
        ];
        fields.extend(
            self.metrics
                .iter()
                .filter_map(|metric| metric.name.clone())
                .map(Field::Score),
        );
        ScanQuery {
            project,
            from_us: Some(self.run.started_at),
            to_us: Some(self.run.ended_at.unwrap_or(now_us).saturating_add(1)),
            filter: filter.unwrap_or_default(),
            scope: Scope::Spans,
            fields,
            scores_of_trace: self.document.mode != Mode::Shadow,
        }
    }

    fn take_row(&mut self, row: &Scanned<'_>) {
        let text = |index: usize| row.values.get(index)?.as_ref()?.text();
        let Some(arm) =
            text(ARM).and_then(|name| self.run.arms.iter().position(|arm| arm.name == name))
        else {
            return;
        };
        self.look_before(row.start_us);
        let unit = self.unit_of(text(UNIT), row.trace);
        let state = &mut self.arms[arm];
        state.calls += 1;
        state.calls_in_step += u64::from(row.start_us >= self.run.step_at);
        match unit {
            Some(unit) if state.units.len() < MOST_UNITS => {
                state.units.insert(unit, ());
            }
            Some(unit) if !state.units.contains_key(&unit) => self.units_left_out += 1,
            Some(_) => {}
            None => state.unit_calls += 1,
        }
        let mut primary = None;
        let mut score = SCORES;
        for index in 0..self.metrics.len() {
            let value = observe(&self.metrics[index], row.values, &mut score);
            let Some(value) = value.map(|value| self.scales[index].inward(value)) else {
                continue;
            };
            if index == 0 {
                primary = Some(value);
            }
            self.arms[arm].samples[index].add(unit, value);
        }
        if self.document.mode == Mode::Shadow {
            self.pair(arm, primary, unit, row);
        }
    }

    /// Whose observation this is; `None` where every call is its own.
    fn unit_of(&self, name: Option<&str>, trace: TraceId) -> Option<u64> {
        if self.document.unit == Unit::Request {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        match name {
            Some(name) => (0_u8, name).hash(&mut hasher),
            // A call that names no user counts on its own.
            None => (1_u8, trace.0).hash(&mut hasher),
        }
        Some(hasher.finish())
    }

    /// Joins the answer of the control and those of the shadows of one trace.
    fn pair(&mut self, arm: usize, value: Option<f64>, unit: Option<u64>, row: &Scanned<'_>) {
        if self.halves.len() >= MOST_HALVES && !self.halves.contains_key(&row.trace) {
            self.units_left_out += 1;
            return;
        }
        let halves = self.halves.entry(row.trace).or_default();
        if halves.len() >= 2 * self.arms.len() {
            return;
        }
        halves.push(Half {
            arm,
            value,
            span: row.span,
        });
        let newest = halves.len() - 1;
        let mut found = Vec::new();
        for other in &halves[..newest] {
            let mine = &halves[newest];
            let (control, shadow) = match (other.arm == self.control, mine.arm == self.control) {
                (true, false) => (other, mine),
                (false, true) => (mine, other),
                _ => continue,
            };
            let difference = control
                .value
                .zip(shadow.value)
                .map(|(control, shadow)| shadow - control);
            found.push((shadow.arm, difference, control.span, shadow.span));
        }
        for (arm, difference, control_span, shadow_span) in found {
            if let Some(difference) = difference {
                self.pairs[arm].add(unit, difference);
            }
            if self.pairs_seen.len() == PAIRS_SHOWN {
                self.pairs_seen.pop_front();
            }
            self.pairs_seen.push_back(Pair {
                arm: self.run.arms[arm].name.clone(),
                at: row.start_us,
                trace_id: row.trace.to_string(),
                control_span: control_span.to_string(),
                shadow_span: shadow_span.to_string(),
            });
        }
    }

    /// Looks once when the calls of a bucket are all there.
    fn look_before(&mut self, start_us: i64) {
        let bucket = (start_us - self.run.started_at).div_euclid(self.bucket_us);
        match self.bucket {
            // A span that was written late comes out of order and counts from now on.
            Some(known) if bucket <= known => {}
            Some(known) => {
                self.look(known);
                self.bucket = Some(bucket);
            }
            None => self.bucket = Some(bucket),
        }
    }

    fn look(&mut self, bucket: i64) {
        let at_s = (self.run.started_at + (bucket + 1) * self.bucket_us) / 1_000_000;
        for arm in self.candidates() {
            let found = self.difference(arm);
            self.running[arm].look(found.interval, found.p_value);
            let scale = self.scales[0];
            let ends = shown(found.interval, |end| scale.difference(end));
            self.series[arm].push(Point {
                at_s,
                estimate: found.enough.then(|| scale.difference(found.estimate)),
                low: ends.0,
                high: ends.1,
            });
        }
    }

    fn candidates(&self) -> Vec<usize> {
        (0..self.arms.len())
            .filter(|arm| *arm != self.control)
            .collect()
    }

    fn is_paired(&self) -> bool {
        self.document.mode == Mode::Shadow
    }

    /// Each candidate may err with an equal part of alpha.
    #[expect(clippy::cast_precision_loss, reason = "a handful of arms")]
    fn alpha(&self) -> f64 {
        self.document.alpha / (self.arms.len() - 1).max(1) as f64
    }

    fn difference(&self, arm: usize) -> stats::Difference {
        let planned = self.document.minimum_sample;
        if self.is_paired() {
            return stats::paired(&self.pairs[arm].summary, planned, self.alpha());
        }
        let sample = |arm: usize| &self.arms[arm].samples[0].summary;
        stats::difference(sample(self.control), sample(arm), planned, self.alpha())
    }

    fn finish(mut self, now_us: i64) -> Results {
        if let Some(bucket) = self.bucket {
            self.look(bucket);
        }
        let arms = (0..self.arms.len())
            .map(|arm| self.arm_result(arm))
            .collect();
        let comparisons = self
            .candidates()
            .into_iter()
            .map(|arm| self.comparison(arm))
            .collect();
        let guards = self.guard_results();
        Results {
            at: now_us,
            arms,
            comparisons,
            guards,
            units_left_out: self.units_left_out,
            pairs: self.pairs_seen.into_iter().rev().collect(),
        }
    }

    fn arm_result(&self, index: usize) -> ArmResult {
        let (arm, state) = (&self.run.arms[index], &self.arms[index]);
        let figure = |(metric, (scale, sample)): (&Metric, (&Scale, &Sample))| {
            let interval = if scale.is_bounded() {
                stats::rate_interval(sample.summary.sum(), sample.summary.n, self.document.alpha)
            } else {
                let planned = self.document.minimum_sample;
                stats::mean_interval(
                    &sample.summary,
                    planned,
                    stats::MIN_PER_ARM,
                    self.document.alpha,
                )
            };
            let any = sample.summary.n > 0;
            let ends = if any {
                shown(interval, |end| scale.outward(end))
            } else {
                (None, None)
            };
            Figure {
                metric: metric.label(),
                units: sample.summary.n,
                mean: any.then(|| scale.outward(sample.summary.mean)),
                low: ends.0,
                high: ends.1,
            }
        };
        ArmResult {
            name: arm.name.clone(),
            version: arm.number,
            control: arm.control,
            weight: arm.weight,
            calls: state.calls,
            calls_in_step: state.calls_in_step,
            units: state.units.len() as u64 + state.unit_calls,
            figures: self
                .metrics
                .iter()
                .zip(self.scales.iter().zip(&state.samples))
                .map(figure)
                .collect(),
        }
    }

    fn comparison(&mut self, arm: usize) -> Comparison {
        let scale = self.scales[0];
        let found = self.difference(arm);
        let running = self.running[arm];
        let units = if self.is_paired() {
            self.pairs[arm].summary.n
        } else {
            let n = |arm: usize| self.arms[arm].samples[0].summary.n;
            n(self.control).min(n(arm))
        };
        let units_needed = self.document.minimum_sample.max(stats::MIN_PER_ARM);
        let better = match self.metrics[0].better() {
            Direction::Higher => stats::Better::Higher,
            Direction::Lower => stats::Better::Lower,
        };
        let margin = scale.margin(self.document.equivalence);
        let exact = self.exact_p_value(arm);
        let (mut verdict, mut is_final) = stats::decide(
            running.interval,
            better,
            margin,
            found.enough && units >= units_needed,
        );
        // Where there is an exact test too, the more cautious of the two counts.
        if matches!(verdict, Verdict::Better | Verdict::Worse)
            && exact.is_some_and(|p| p > self.alpha())
        {
            (verdict, is_final) = (Verdict::NoDifferenceShown, false);
        }
        // Shares that follow success make fixed-share methods invalid: a bandit gets no verdict.
        if self.document.mode == Mode::Bandit {
            (verdict, is_final) = (Verdict::NotEnoughData, false);
        }
        let ends = shown(running.interval, |end| scale.difference(end));
        Comparison {
            arm: self.run.arms[arm].name.clone(),
            metric: self.metrics[0].label(),
            scale: if scale == Scale::Log {
                "ratio"
            } else {
                "difference"
            }
            .to_owned(),
            paired: self.is_paired(),
            estimate: (units > 0).then(|| scale.difference(found.estimate)),
            low: ends.0,
            high: ends.1,
            p_value: running.p_value,
            exact_p_value: exact,
            verdict: verdict.as_str().to_owned(),
            is_final,
            units,
            units_needed,
            share_mismatch: self.share_mismatch(arm),
            series: std::mem::take(&mut self.series[arm]),
        }
    }

    /// The candidate's share of the units that went to it or to the control, where it never changed.
    fn fixed_share(&self, arm: usize) -> Option<f64> {
        let weight = |arm: usize| self.run.arms[arm].weight;
        let sum = weight(arm) + weight(self.control);
        (self.document.mode == Mode::Split && sum > 0.0).then(|| weight(arm) / sum)
    }

    /// For outcomes of yes and no under fixed shares: exact from the first unit on.
    fn exact_p_value(&self, arm: usize) -> Option<f64> {
        if !self.scales[0].is_bounded() {
            return None;
        }
        let share = self.fixed_share(arm)?;
        let counts = |arm: usize| self.arms[arm].samples[0].as_counts();
        let log = stats::rates_e_value(counts(self.control)?, counts(arm)?, share);
        Some((-log).exp().min(1.0))
    }

    fn share_mismatch(&self, arm: usize) -> bool {
        let units = |arm: usize| self.arms[arm].units.len() as u64 + self.arms[arm].unit_calls;
        self.fixed_share(arm).is_some_and(|share| {
            stats::share_e_value(units(self.control), units(arm), share) >= -MISMATCH.ln()
        })
    }

    fn guard_results(&self) -> Vec<GuardResult> {
        let candidates = self.candidates();
        #[expect(clippy::cast_precision_loss, reason = "a handful of guards and arms")]
        let alpha =
            self.document.alpha / (self.document.guards.len() * candidates.len()).max(1) as f64;
        let mut results = Vec::new();
        for guard in &self.document.guards {
            let label = guard.metric.label();
            let Some(index) = self
                .metrics
                .iter()
                .position(|metric| metric.label() == label)
            else {
                continue;
            };
            let scale = self.scales[index];
            let rule = Guard {
                limit: scale.inward(guard.limit),
                forbidden: match guard.direction {
                    Forbidden::Above => Side::Above,
                    Forbidden::Below => Side::Below,
                },
                bounded: scale.is_bounded(),
                alpha,
            };
            for arm in &candidates {
                let summary = &self.arms[*arm].samples[index].summary;
                let (state, interval) = stats::check_guard(summary, &rule);
                let any = summary.n > 0;
                let ends = if any {
                    shown(interval, |end| scale.outward(end))
                } else {
                    (None, None)
                };
                results.push(GuardResult {
                    arm: self.run.arms[*arm].name.clone(),
                    metric: label.clone(),
                    limit: guard.limit,
                    direction: guard.direction,
                    state: guard_word(state).to_owned(),
                    mean: any.then(|| scale.outward(summary.mean)),
                    low: ends.0,
                    high: ends.1,
                });
            }
        }
        results
    }
}

/// The ends of an interval that people can read; an end at infinity is none.
fn shown(interval: Interval, scale: impl Fn(f64) -> f64) -> (Option<f64>, Option<f64>) {
    let end = |end: f64| end.is_finite().then(|| scale(end));
    (end(interval.low), end(interval.high))
}

/// The value of a metric for one call, on its own scale. `score` is the column of the next score.
fn observe(metric: &Metric, values: &[Option<ScannedValue>], score: &mut usize) -> Option<f64> {
    let number = |index: usize| values.get(index)?.as_ref()?.number();
    let status = values.get(STATUS).and_then(|value| value.as_ref()?.text());
    match metric.kind {
        MetricKind::Score => {
            *score += 1;
            let value = number(*score - 1)?;
            // A thumb that was taken back is no opinion.
            (metric.name.as_deref() != Some(THUMBS) || value != 0.0).then_some(value)
        }
        // How long failures took says nothing about how long answers take.
        MetricKind::Latency => number(LATENCY).filter(|_| status == Some("ok")),
        MetricKind::Cost => number(COST),
        MetricKind::ErrorRate => Some(share(status == Some("error"))),
        MetricKind::BlockedRate => {
            let word = |index: usize| values.get(index)?.as_ref()?.text();
            let is_cut = word(FINISH) == Some("content_filter");
            Some(share(is_cut || word(ERROR) == Some("guard_blocked")))
        }
    }
}

fn share(is_one: bool) -> f64 {
    if is_one { 1.0 } else { 0.0 }
}

fn guard_word(state: GuardState) -> &'static str {
    match state {
        GuardState::NoData => "no_data",
        GuardState::Watching => "watching",
        GuardState::Held => "held",
        GuardState::Crossed => "crossed",
    }
}

/// What a bandit counts of each arm: successes and failures, in units.
pub(super) fn rewards(results: &Results, metric: &Metric) -> Vec<(f64, f64)> {
    let reward = |arm: &ArmResult| {
        let figure = arm
            .figures
            .iter()
            .find(|figure| figure.metric == metric.label());
        let Some((figure, mean)) = figure.and_then(|figure| Some((figure, figure.mean?))) else {
            return (0.0, 0.0);
        };
        let scale = Scale::of(metric);
        let share = match metric.better() {
            Direction::Higher => scale.inward(mean),
            Direction::Lower => 1.0 - scale.inward(mean),
        };
        let share = share.clamp(0.0, 1.0);
        #[expect(clippy::cast_precision_loss, reason = "units are far below 2^53")]
        let n = figure.units as f64;
        (share * n, (1.0 - share) * n)
    };
    results.arms.iter().map(reward).collect()
}
