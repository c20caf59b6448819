//! Gates: what a suite demands, and what is told to whoever promotes.
//!
//! A gate looks at the bound of an interval, never at a mean, and at nothing unless
//! most examples have a score: a candidate that answers every second question
//! brilliantly has not shown anything.

use base::ProjectId;
use db::Scope;
use db::promotion::{NewEvidence, Outcome};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::document::Gate;
use super::results::{CellFigures, EvaluatorFigures, Results};
use super::store::{self, Evaluation};
use super::{Desk, results_of};
use crate::error::Result;
use crate::evaluators::Direction;

/// The share of examples that must be scored for a gate to say anything.
pub const LEAST_COVERAGE: f64 = 0.95;

/// How one gate stands for one candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GateResult {
    /// The evaluator whose score counts.
    pub evaluator: String,
    /// The candidate.
    pub candidate: String,
    /// What it is compared with; none where a bound is asked for.
    pub baseline: Option<String>,
    /// `at_least` or `not_worse_by`.
    pub rule: String,
    /// The bound or the margin.
    pub limit: f64,
    /// The figure that is held against it: the bound of the interval on the bad side.
    pub bound: Option<f64>,
    /// `pass`, `fail` or `inconclusive`.
    pub outcome: String,
    /// Why, in words.
    pub reason: String,
    /// The same for pages, which speak the reader's language.
    #[serde(skip)]
    #[schemars(skip)]
    pub why: Option<Why>,
}

/// Why a gate stands as it does.
#[derive(Debug, Clone, PartialEq)]
pub enum Why {
    /// Too many answers have no score.
    Coverage {
        /// Answers with a score.
        scored: u64,
        /// Answers with any outcome.
        outcomes: u64,
        /// Answers that could not be had.
        errors: u64,
        /// Answers that the evaluator could not score.
        unscored: u64,
    },
    /// There is no interval.
    FewExamples,
    /// There is no comparison.
    FewToCompare,
    /// The interval lies on the good side.
    GoodSide {
        /// What is asked for.
        limit: f64,
        /// The end of the interval that counts.
        bound: f64,
    },
    /// The interval lies on the bad side.
    BadSide {
        /// What is asked for.
        limit: f64,
        /// The end of the interval that counts.
        bound: f64,
    },
    /// The interval lies on both sides.
    BothSides {
        /// What is asked for.
        limit: f64,
        /// The end of the interval that counts.
        bound: f64,
    },
    /// The comparison is with another candidate.
    OtherBaseline {
        /// The one that it is with.
        compared: String,
        /// The one that it should be with.
        baseline: String,
    },
    /// Shown not to be worse by more than the margin.
    NotWorse {
        /// The one that it is compared with.
        baseline: String,
        /// How much worse would be fine.
        margin: f64,
        /// How much worse it is at most.
        most: f64,
    },
    /// Shown to be worse by more than the margin.
    Worse {
        /// The one that it is compared with.
        baseline: String,
        /// How much worse would be fine.
        margin: f64,
        /// How much worse it is at least.
        least: f64,
    },
    /// Neither is shown.
    NotShown {
        /// The one that it is compared with.
        baseline: String,
        /// How much worse would be fine.
        margin: f64,
        /// How much worse it may be.
        most: f64,
    },
}

impl Why {
    /// The sentence of the API.
    fn english(&self) -> String {
        match self {
            Self::Coverage {
                scored,
                outcomes,
                errors,
                unscored,
            } => format!(
                "only {scored} of {outcomes} answers are scored ({errors} errors, {unscored} unscored)"
            ),
            Self::FewExamples => "there are too few examples for an interval".to_owned(),
            Self::FewToCompare => "there are too few examples to compare".to_owned(),
            Self::GoodSide { limit, bound } => format!(
                "the 95 % interval lies on the good side of {limit}: its bound is {bound:.4}"
            ),
            Self::BadSide { limit, bound } => format!(
                "the whole 95 % interval lies on the bad side of {limit}: its bound is {bound:.4}"
            ),
            Self::BothSides { limit, bound } => format!(
                "the 95 % interval reaches over {limit}: its bound is {bound:.4}; more examples may tell"
            ),
            Self::OtherBaseline { compared, baseline } => {
                format!("the candidate is compared with {compared}, not with {baseline}")
            }
            Self::NotWorse {
                baseline,
                margin,
                most,
            } => format!(
                "shown not to be worse than {baseline} by more than {margin}: by {most:.4} at most"
            ),
            Self::Worse {
                baseline,
                margin,
                least,
            } => format!(
                "shown to be worse than {baseline} by more than {margin}: by {least:.4} at least"
            ),
            Self::NotShown {
                baseline,
                margin,
                most,
            } => format!(
                "not shown: it may be worse than {baseline} by {most:.4}; the margin is {margin}"
            ),
        }
    }

    /// The text's name and arguments in the catalogues.
    pub(super) fn message(&self) -> (&'static str, Vec<(&'static str, String)>) {
        let number = |value: &f64| format!("{value:.4}");
        let side =
            |limit: &f64, bound: &f64| vec![("limit", limit.to_string()), ("bound", number(bound))];
        let by = |baseline: &str, margin: &f64, size: &f64| {
            vec![
                ("baseline", baseline.to_owned()),
                ("margin", margin.to_string()),
                ("size", number(size)),
            ]
        };
        match self {
            Self::Coverage {
                scored,
                outcomes,
                errors,
                unscored,
            } => (
                "evaluations-why-coverage",
                vec![
                    ("scored", scored.to_string()),
                    ("outcomes", outcomes.to_string()),
                    ("errors", errors.to_string()),
                    ("unscored", unscored.to_string()),
                ],
            ),
            Self::FewExamples => ("evaluations-why-few", Vec::new()),
            Self::FewToCompare => ("evaluations-why-few-pairs", Vec::new()),
            Self::GoodSide { limit, bound } => ("evaluations-why-good-side", side(limit, bound)),
            Self::BadSide { limit, bound } => ("evaluations-why-bad-side", side(limit, bound)),
            Self::BothSides { limit, bound } => ("evaluations-why-both-sides", side(limit, bound)),
            Self::OtherBaseline { compared, baseline } => (
                "evaluations-why-other-baseline",
                vec![
                    ("compared", compared.clone()),
                    ("baseline", baseline.clone()),
                ],
            ),
            Self::NotWorse {
                baseline,
                margin,
                most,
            } => ("evaluations-why-not-worse", by(baseline, margin, most)),
            Self::Worse {
                baseline,
                margin,
                least,
            } => ("evaluations-why-worse", by(baseline, margin, least)),
            Self::NotShown {
                baseline,
                margin,
                most,
            } => ("evaluations-why-not-shown", by(baseline, margin, most)),
        }
    }
}

impl GateResult {
    /// Whether nothing speaks against promoting.
    pub fn holds(&self) -> bool {
        self.outcome == "pass"
    }
}

/// Judges every gate of a suite on these results.
pub fn judge(gates: &[Gate], results: &Results) -> Vec<GateResult> {
    let mut found = Vec::new();
    for gate in gates {
        let Some(evaluator) = results
            .evaluators
            .iter()
            .find(|one| one.name == gate.evaluator)
        else {
            continue;
        };
        let candidates: Vec<&CellFigures> = match &gate.candidate {
            Some(name) => evaluator
                .cells
                .iter()
                .filter(|cell| cell.candidate == *name)
                .collect(),
            None if evaluator.cells.len() == 1 => evaluator.cells.iter().collect(),
            None => {
                let others = evaluator.cells.iter();
                others
                    .filter(|cell| cell.candidate != results.baseline)
                    .collect()
            }
        };
        for cell in candidates {
            found.push(match (gate.at_least, gate.not_worse_by) {
                (Some(limit), _) => at_least(evaluator, cell, limit),
                (None, margin) => not_worse(gate, evaluator, cell, results, margin.unwrap_or(0.0)),
            });
        }
    }
    found
}

fn enough(cell: &CellFigures) -> std::result::Result<(), Why> {
    let outcomes = cell.scored + cell.errors + cell.unscored;
    #[expect(clippy::cast_precision_loss, reason = "counts of examples")]
    let enough = outcomes > 0 && cell.scored as f64 >= LEAST_COVERAGE * outcomes as f64;
    if enough {
        return Ok(());
    }
    Err(Why::Coverage {
        scored: cell.scored,
        outcomes,
        errors: cell.errors,
        unscored: cell.unscored,
    })
}

fn at_least(evaluator: &EvaluatorFigures, cell: &CellFigures, limit: f64) -> GateResult {
    let (bound, other, holds): (_, _, fn(f64, f64) -> bool) = match evaluator.better {
        Direction::Higher => (cell.low, cell.high, |bound, limit| bound >= limit),
        Direction::Lower => (cell.high, cell.low, |bound, limit| bound <= limit),
    };
    let (outcome, why) = match (enough(cell), bound) {
        (Err(why), _) => (Outcome::Inconclusive, why),
        (Ok(()), None) => (Outcome::Inconclusive, Why::FewExamples),
        (Ok(()), Some(bound)) if holds(bound, limit) => {
            (Outcome::Pass, Why::GoodSide { limit, bound })
        }
        (Ok(()), Some(bound)) if other.is_some_and(|other| !holds(other, limit)) => {
            (Outcome::Fail, Why::BadSide { limit, bound })
        }
        (Ok(()), Some(bound)) => (Outcome::Inconclusive, Why::BothSides { limit, bound }),
    };
    GateResult {
        evaluator: evaluator.name.clone(),
        candidate: cell.candidate.clone(),
        baseline: None,
        rule: "at_least".to_owned(),
        limit,
        bound,
        outcome: outcome.name().to_owned(),
        reason: why.english(),
        why: Some(why),
    }
}

fn not_worse(
    gate: &Gate,
    evaluator: &EvaluatorFigures,
    cell: &CellFigures,
    results: &Results,
    margin: f64,
) -> GateResult {
    let baseline = gate
        .baseline
        .clone()
        .unwrap_or_else(|| results.baseline.clone());
    let base_cell = evaluator
        .cells
        .iter()
        .find(|cell| cell.candidate == baseline);
    let covered = match base_cell.filter(|_| !evaluator.pairwise) {
        Some(base_cell) => enough(cell).and_then(|()| enough(base_cell)),
        None => enough(cell),
    };
    let known = cell
        .comparison
        .as_ref()
        .filter(|_| baseline == results.baseline);
    // How much worse at most, and at least.
    let bounds = known
        .filter(|found| found.verdict != "not_enough_data")
        .and_then(|found| match evaluator.better {
            Direction::Higher => Some((-found.one_sided_low?, -found.one_sided_high?)),
            Direction::Lower => Some((found.one_sided_high?, found.one_sided_low?)),
        });
    let named = || baseline.clone();
    let (outcome, why) = match (covered, known, bounds) {
        (_, None, _) => (
            Outcome::Inconclusive,
            Why::OtherBaseline {
                compared: results.baseline.clone(),
                baseline: named(),
            },
        ),
        (Err(why), _, _) => (Outcome::Inconclusive, why),
        (Ok(()), _, None) => (Outcome::Inconclusive, Why::FewToCompare),
        (Ok(()), _, Some((most, _))) if most < margin || (most <= margin && margin > 0.0) => {
            let baseline = named();
            let why = Why::NotWorse {
                baseline,
                margin,
                most,
            };
            (Outcome::Pass, why)
        }
        (Ok(()), _, Some((_, least))) if least > margin => {
            let baseline = named();
            let why = Why::Worse {
                baseline,
                margin,
                least,
            };
            (Outcome::Fail, why)
        }
        (Ok(()), _, Some((most, _))) => {
            let baseline = named();
            let why = Why::NotShown {
                baseline,
                margin,
                most,
            };
            (Outcome::Inconclusive, why)
        }
    };
    GateResult {
        evaluator: evaluator.name.clone(),
        candidate: cell.candidate.clone(),
        baseline: Some(baseline),
        rule: "not_worse_by".to_owned(),
        limit: margin,
        bound: bounds.map(|(most, _)| -most),
        outcome: outcome.name().to_owned(),
        reason: why.english(),
        why: Some(why),
    }
}

/// Whether all of them hold.
pub fn all_pass(gates: &[GateResult]) -> bool {
    gates.iter().all(|gate| gate.outcome == "pass")
}

/// Judges the gates of a finished evaluation and tells the release board.
pub(super) async fn conclude(desk: Desk<'_>, id: &str, project: ProjectId) -> Result<Value> {
    let Some(evaluation) = store::find(desk.db(), project, id).await? else {
        return Ok(json!([]));
    };
    let results = results_of(desk, &evaluation).await?;
    let gates = judge(&evaluation.document.gate, &results);
    if !evaluation.suite.is_empty() {
        for (index, candidate) in evaluation.document.candidates.iter().enumerate() {
            let own: Vec<&GateResult> = gates
                .iter()
                .filter(|gate| gate.candidate == candidate.name)
                .collect();
            if !own.is_empty() {
                give_evidence(desk, &evaluation, &results, index, &own).await;
            }
        }
    }
    serde_json::to_value(&gates).map_err(crate::error::AppError::internal)
}

/// Evidence for the candidate's content under the suite's name. Content that is not in
/// the catalog, or not any more, has nobody to tell.
async fn give_evidence(
    desk: Desk<'_>,
    evaluation: &Evaluation,
    results: &Results,
    index: usize,
    gates: &[&GateResult],
) {
    let Some(candidate) = evaluation.pinned.candidates.get(index) else {
        return;
    };
    let subject = match (&candidate.prompt, &candidate.release) {
        (Some(prompt), _) if prompt.number > 0 => Some((crate::prompts::KIND, prompt)),
        (None, Some(release)) => Some((crate::apps::RELEASE, release)),
        _ => None,
    };
    let Some((kind, version)) = subject else {
        return;
    };
    let Ok(name) = version.name.parse() else {
        return;
    };
    let outcome = match () {
        () if gates.iter().all(|gate| gate.outcome == "pass") => Outcome::Pass,
        () if gates.iter().any(|gate| gate.outcome == "fail") => Outcome::Fail,
        () => Outcome::Inconclusive,
    };
    let evaluators = results.evaluators.iter();
    let detail = json!({
        "evaluation": evaluation.id, "suite": evaluation.suite, "suite_version": evaluation.suite_version,
        "dataset": {"name": evaluation.pinned.dataset.name, "digest": evaluation.pinned.dataset.digest},
        "examples": evaluation.counters.examples, "candidate": gates.first().map(|gate| &gate.candidate),
        "model": evaluation.document.candidates.get(index).and_then(|candidate| candidate.model.as_ref()),
        "gates": gates,
        "evaluators": evaluators.map(|one| json!({"name": one.name, "digest": one.digest, "signature": one.signature})).collect::<Vec<_>>(),
    });
    let project = crate::projects::name_of(desk.db(), evaluation.project).await;
    let link = project
        .map(|project| format!("/{project}/evaluations/show?id={}", evaluation.id))
        .unwrap_or_default();
    let scope = Scope {
        project: evaluation.project,
        actor: evaluation.started_by.parse().unwrap_or(db::Actor::System),
    };
    let new = NewEvidence {
        kind,
        name: &name,
        digest: version.digest,
        gate: &evaluation.suite,
        outcome,
        detail: &detail,
        link: &link,
    };
    if let Err(error) = desk.app.promotion.add_evidence(scope, new).await {
        tracing::warn!(evaluation.id = %evaluation.id, %error, "the evidence of evaluation {} was not added", evaluation.id);
    }
}
