//! How the scores of an evaluation are spread: counts for the API, bars for the page.
//!
//! All candidates of an evaluator share one scale, so that their bars can be held against
//! each other. Scores of a few values have a bar each; others fall into equal parts of
//! their range. The unit is the example, as everywhere: repetitions are averaged first.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::results::Facts;
use super::store::Evaluation;
use super::view::{figure, percent};
use crate::ui::PageContext;

/// Values that have a bar each, at most.
const MOST_VALUES: usize = 12;
/// Parts of a range.
const PARTS: usize = 20;
/// The size of a plot, in its own units.
const WIDTH: f64 = 240.0;
const HEIGHT: f64 = 56.0;

/// How an evaluator's scores are spread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Distribution {
    /// The evaluator.
    pub evaluator: String,
    /// `values` where each score has a bar of its own, `parts` where the range is cut.
    pub bars: String,
    /// What the bars stand for: the scores themselves, or the lower end of each part and the
    /// upper end of the last.
    pub edges: Vec<f64>,
    /// The candidates, in the suite's order.
    pub candidates: Vec<CandidateDistribution>,
}

/// How one candidate's scores are spread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CandidateDistribution {
    /// The candidate.
    pub candidate: String,
    /// Examples that were scored.
    pub scored: u64,
    /// The lowest score.
    pub low: Option<f64>,
    /// The highest.
    pub high: Option<f64>,
    /// Half of the examples have this score or a lower one.
    pub median: Option<f64>,
    /// The mean of the examples.
    pub mean: Option<f64>,
    /// How many examples each bar has.
    pub counts: Vec<u64>,
}

/// How every evaluator's scores are spread.
pub(super) fn distributions(evaluation: &Evaluation, facts: &Facts) -> Vec<Distribution> {
    let evaluators = evaluation.pinned.evaluators.iter().enumerate();
    let found = evaluators.filter_map(|(index, pinned)| {
        let baseline = evaluation.document.baseline();
        let sorted = |candidate: usize| {
            let column = facts.columns().get(&(index, candidate));
            let mut values: Vec<f64> = column
                .map(|column| column.means.values().copied().collect())
                .unwrap_or_default();
            values.sort_by(f64::total_cmp);
            values
        };
        let candidates = evaluation.document.candidates.iter().enumerate();
        let values: Vec<(&str, Vec<f64>)> = candidates
            // A judge of pairs gives the baseline no score of its own.
            .filter(|(at, _)| !(pinned.document.is_pairwise() && *at == baseline))
            .map(|(at, candidate)| (candidate.name.as_str(), sorted(at)))
            .collect();
        let bars = Bars::of(values.iter().flat_map(|(_, values)| values).copied())?;
        Some(Distribution {
            evaluator: pinned.name.clone(),
            bars: bars.name().to_owned(),
            edges: bars.edges(),
            candidates: values
                .iter()
                .map(|(name, values)| spread(name, values, &bars))
                .collect(),
        })
    });
    found.collect()
}

fn spread(name: &str, sorted: &[f64], bars: &Bars) -> CandidateDistribution {
    let mut counts = vec![0; bars.count()];
    for value in sorted {
        if let Some(count) = counts.get_mut(bars.place(*value)) {
            *count += 1;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "counts of examples")]
    let mean = (!sorted.is_empty()).then(|| sorted.iter().sum::<f64>() / sorted.len() as f64);
    CandidateDistribution {
        candidate: name.to_owned(),
        scored: sorted.len() as u64,
        low: sorted.first().copied(),
        high: sorted.last().copied(),
        median: sorted.get(sorted.len().saturating_sub(1) / 2).copied(),
        mean,
        counts,
    }
}

/// What the bars of a plot stand for.
enum Bars {
    Values(Vec<f64>),
    Parts { low: f64, high: f64 },
}

impl Bars {
    /// `None` where there is no score at all.
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let (mut known, mut low, mut high): (Vec<f64>, f64, f64) =
            (Vec::new(), f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            (low, high) = (low.min(value), high.max(value));
            if known.len() <= MOST_VALUES && !known.contains(&value) {
                known.push(value);
            }
        }
        if known.is_empty() {
            return None;
        }
        if known.len() > MOST_VALUES {
            return Some(Self::Parts { low, high });
        }
        known.sort_by(f64::total_cmp);
        Some(Self::Values(known))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Values(_) => "values",
            Self::Parts { .. } => "parts",
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Values(values) => values.len(),
            Self::Parts { .. } => PARTS,
        }
    }

    fn edges(&self) -> Vec<f64> {
        match self {
            Self::Values(values) => values.clone(),
            #[expect(clippy::cast_precision_loss, reason = "a handful of parts")]
            Self::Parts { low, high } => (0..=PARTS)
                .map(|part| low + (high - low) * part as f64 / PARTS as f64)
                .collect(),
        }
    }

    /// The bar of a score; the highest score is in the last part.
    fn place(&self, value: f64) -> usize {
        match self {
            Self::Values(values) => values
                .iter()
                .position(|known| known.total_cmp(&value).is_eq() || *known == value)
                .unwrap_or(0),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a number from 0 to the parts; a float becomes the nearest that there is"
            )]
            Self::Parts { low, high } => {
                let part = (value - low) / (high - low) * PARTS as f64;
                (part as usize).min(PARTS - 1)
            }
        }
    }
}

/// The plots of the page: per evaluator one for each candidate, all on one scale.
pub(super) fn view(page: &PageContext, found: &[Distribution]) -> Vec<Value> {
    let rows = found.iter().map(|one| {
        let most = one.candidates.iter().flat_map(|own| &own.counts).max();
        let most = most.copied().unwrap_or(1).max(1);
        let labels: Vec<String> = labels(one);
        json!({
            "evaluator": one.evaluator, "labels": labels,
            "low": one.edges.first().copied().map(figure), "high": one.edges.last().copied().map(figure),
            "candidates": one.candidates.iter().map(|own| plot(page, one, own, most, &labels)).collect::<Vec<_>>(),
        })
    });
    rows.collect()
}

fn labels(one: &Distribution) -> Vec<String> {
    match one.bars.as_str() {
        "values" => one.edges.iter().copied().map(figure).collect(),
        _ => one
            .edges
            .iter()
            .zip(one.edges.iter().skip(1))
            .map(|(from, to)| format!("{} … {}", figure(*from), figure(*to)))
            .collect(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of examples and bars")]
fn plot(
    page: &PageContext,
    of: &Distribution,
    own: &CandidateDistribution,
    most: u64,
    labels: &[String],
) -> Value {
    let slot = WIDTH / own.counts.len().max(1) as f64;
    let gap = (slot * 0.12).min(3.0);
    let bars = own.counts.iter().enumerate().map(|(at, count)| {
        let height = HEIGHT * *count as f64 / most as f64;
        // What there is, is seen, however little.
        let height = if *count > 0 { height.max(1.0) } else { 0.0 };
        json!({
            "x": round(slot * at as f64 + gap / 2.0), "width": round(slot - gap),
            "y": round(HEIGHT - height), "height": round(height),
            "label": labels.get(at), "count": count,
        })
    });
    let bars: Vec<Value> = bars.collect();
    json!({
        "candidate": own.candidate, "scored": own.scored, "width": WIDTH, "height": HEIGHT, "bars": bars,
        "mean_x": own.mean.and_then(|mean| mean_x(of, mean, slot)).map(round),
        "mean": own.mean.map(figure), "median": own.median.map(figure), "counts": own.counts,
        "says": says(page, own, labels),
    })
}

/// Where a score lies on the axis.
#[expect(clippy::cast_precision_loss, reason = "a handful of bars")]
fn mean_x(of: &Distribution, mean: f64, slot: f64) -> Option<f64> {
    if of.bars == "parts" {
        let (low, high) = (of.edges.first()?, of.edges.last()?);
        return Some((mean - low) / (high - low) * WIDTH);
    }
    // Bars of single values stand side by side, whatever lies between them.
    let after = of.edges.iter().position(|edge| *edge >= mean)?;
    let middle = |at: usize| slot * (at as f64 + 0.5);
    if after == 0 {
        return Some(middle(0));
    }
    let (low, high) = (of.edges.get(after - 1)?, of.edges.get(after)?);
    Some(middle(after - 1) + (mean - low) / (high - low) * slot)
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The plot in words.
fn says(page: &PageContext, own: &CandidateDistribution, labels: &[String]) -> String {
    let name = ("candidate", own.candidate.as_str());
    let known = own.low.zip(own.high).zip(own.median.zip(own.mean));
    let Some(((low, high), (median, mean))) = known else {
        return page.t_with("evaluations-distribution-none", &[name]);
    };
    let mode = own.counts.iter().enumerate();
    let mode = mode.max_by_key(|(at, count)| (**count, usize::MAX - at));
    let (at, count) = mode.map_or((0, 0), |(at, count)| (at, *count));
    #[expect(clippy::cast_precision_loss, reason = "counts of examples")]
    let share = percent(count as f64 / own.scored.max(1) as f64);
    let (n, low, high) = (own.scored.to_string(), figure(low), figure(high));
    let (median, mean) = (figure(median), figure(mean));
    let arguments = [
        name,
        ("n", n.as_str()),
        ("low", low.as_str()),
        ("high", high.as_str()),
        ("median", median.as_str()),
        ("mean", mean.as_str()),
        ("mode", labels.get(at).map_or("–", String::as_str)),
        ("share", share.as_str()),
    ];
    page.t_with("evaluations-distribution-says", &arguments)
}
