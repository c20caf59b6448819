//! The final comparison: the start and the best text on the examples that were held out.
//!
//! Paired by example, with the statistics of every comparison in the product. Nothing here is
//! read during the search.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stats::{Better, Pair, Plan, Resampling};

use super::store::{Improvement, ResultRow};
use crate::evaluations::ComparisonJson;
use crate::evaluators::Direction;

/// The chance that an interval misses.
const ALPHA: f64 = 0.05;

/// What the search was worth, on examples that it never saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// The step whose text is best; 0 when nothing is better than the start.
    pub best: i64,
    /// Its version of the prompt.
    pub version: Option<i64>,
    /// Examples that were held out.
    pub rows: u64,
    /// By what the search went by; none when nothing was better and nothing had to be compared.
    pub objective: Option<Compared>,
    /// By each evaluator.
    pub evaluators: Vec<Compared>,
    /// Answers that the start could not give.
    pub errors_start: u64,
    /// Answers that the best text could not give.
    pub errors_best: u64,
    /// US dollars per answer of the start.
    pub cost_start_usd: Option<f64>,
    /// And of the best text.
    pub cost_best_usd: Option<f64>,
    /// Tokens of prompt and answer per call of the start.
    pub tokens_start: Option<f64>,
    /// And of the best text.
    pub tokens_best: Option<f64>,
}

/// The start and the best text by one measure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Compared {
    /// The evaluator; `objective` for what the search went by.
    pub name: String,
    /// Which direction is good.
    pub better: Direction,
    /// The mean of the start, over the examples that both have a score on.
    pub start: f64,
    /// The mean of the best text.
    pub best: f64,
    /// The difference with its interval and the word for it.
    pub comparison: ComparisonJson,
}

/// Compares the two. `start` and `best` are their answers to the examples that were held out.
pub(super) fn compare(
    improvement: &Improvement,
    (number, version): (i64, Option<i64>),
    start: &[ResultRow],
    best: &[ResultRow],
    has_range: bool,
    clusters: &HashMap<i64, u64>,
) -> Verdict {
    let evaluators = improvement.pinned.suite.evaluators.iter().enumerate();
    let evaluators = evaluators.filter_map(|(index, one)| {
        let of = |row: &ResultRow| row.scores.get(index)?["value"].as_f64();
        let plan = plan_of(
            improvement,
            one.document.better(),
            one.document.range(),
            0.0,
        );
        compared(
            &one.name,
            one.document.better(),
            &pairs(start, best, of, clusters),
            &plan,
        )
    });
    let range = has_range.then_some((0.0, 1.0));
    let plan = plan_of(
        improvement,
        Direction::Higher,
        range,
        improvement.document.margin,
    );
    let by_objective = pairs(start, best, |row| row.objective, clusters);
    let errors = |rows: &[ResultRow]| rows.iter().filter(|row| row.answer.is_err()).count() as u64;
    Verdict {
        best: number,
        version,
        rows: improvement.pinned.rows.held_out.len() as u64,
        objective: compared("objective", Direction::Higher, &by_objective, &plan),
        evaluators: evaluators.collect(),
        errors_start: errors(start),
        errors_best: errors(best),
        cost_start_usd: mean_cost(start),
        cost_best_usd: mean_cost(best),
        tokens_start: mean_tokens(start),
        tokens_best: mean_tokens(best),
    }
}

/// What is said when the start is the best text: nothing was compared, and nobody looked at the
/// examples.
pub(super) fn nothing_better(improvement: &Improvement) -> Verdict {
    Verdict {
        best: 0,
        version: Some(improvement.pinned.prompt.number),
        rows: improvement.pinned.rows.held_out.len() as u64,
        objective: None,
        evaluators: Vec::new(),
        errors_start: 0,
        errors_best: 0,
        cost_start_usd: None,
        cost_best_usd: None,
        tokens_start: None,
        tokens_best: None,
    }
}

fn plan_of(
    improvement: &Improvement,
    better: Direction,
    range: Option<(f64, f64)>,
    margin: f64,
) -> Plan {
    let drawn = Resampling::default();
    Plan {
        better: match better {
            Direction::Higher => Better::Higher,
            Direction::Lower => Better::Lower,
        },
        alpha: ALPHA,
        margin,
        range,
        resampling: Resampling {
            seed: match improvement.document.seed {
                0 => drawn.seed,
                seed => seed,
            },
            ..drawn
        },
        ..Plan::default()
    }
}

fn pairs(
    start: &[ResultRow],
    best: &[ResultRow],
    of: impl Fn(&ResultRow) -> Option<f64>,
    clusters: &HashMap<i64, u64>,
) -> Vec<Pair> {
    let before: HashMap<i64, f64> = start
        .iter()
        .filter_map(|row| Some((row.place, of(row)?)))
        .collect();
    let both = best.iter().filter_map(|row| {
        Some(Pair {
            first: *before.get(&row.place)?,
            second: of(row)?,
            cluster: clusters.get(&row.place).copied(),
        })
    });
    both.collect()
}

fn compared(name: &str, better: Direction, pairs: &[Pair], plan: &Plan) -> Option<Compared> {
    if pairs.is_empty() {
        return None;
    }
    let found = stats::compare(pairs, plan).ok()?;
    Some(Compared {
        name: name.to_owned(),
        better,
        start: found.first,
        best: found.second,
        comparison: ComparisonJson::of(&found),
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nano-dollars are far below 2^53"
)]
fn mean_cost(rows: &[ResultRow]) -> Option<f64> {
    let known: Vec<i64> = rows
        .iter()
        .filter(|row| row.answer.is_ok())
        .filter_map(|row| row.cost)
        .collect();
    (!known.is_empty()).then(|| known.iter().sum::<i64>() as f64 / known.len() as f64 / 1e9)
}

#[expect(clippy::cast_precision_loss, reason = "tokens are far below 2^53")]
fn mean_tokens(rows: &[ResultRow]) -> Option<f64> {
    let known: Vec<i64> = rows
        .iter()
        .filter(|row| row.answer.is_ok())
        .map(|row| row.input_tokens + row.output_tokens)
        .collect();
    (!known.is_empty()).then(|| known.iter().sum::<i64>() as f64 / known.len() as f64)
}
