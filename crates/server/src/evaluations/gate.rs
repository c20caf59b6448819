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

fn enough(cell: &CellFigures) -> std::result::Result<(), String> {
    let outcomes = cell.scored + cell.errors + cell.unscored;
    #[expect(clippy::cast_precision_loss, reason = "counts of examples")]
    let enough = outcomes > 0 && cell.scored as f64 >= LEAST_COVERAGE * outcomes as f64;
    if enough {
        return Ok(());
    }
    Err(format!(
        "only {} of {outcomes} answers are scored ({} errors, {} unscored)",
        cell.scored, cell.errors, cell.unscored
    ))
}

fn at_least(evaluator: &EvaluatorFigures, cell: &CellFigures, limit: f64) -> GateResult {
    let (bound, other, holds): (_, _, fn(f64, f64) -> bool) = match evaluator.better {
        Direction::Higher => (cell.low, cell.high, |bound, limit| bound >= limit),
        Direction::Lower => (cell.high, cell.low, |bound, limit| bound <= limit),
    };
    let (outcome, reason) = match (enough(cell), bound) {
        (Err(why), _) => (Outcome::Inconclusive, why),
        (Ok(()), None) => (
            Outcome::Inconclusive,
            "there are too few examples for an interval".to_owned(),
        ),
        (Ok(()), Some(bound)) if holds(bound, limit) => (
            Outcome::Pass,
            format!("the 95 % interval lies on the good side of {limit}: its bound is {bound:.4}"),
        ),
        (Ok(()), Some(bound)) if other.is_some_and(|other| !holds(other, limit)) => (
            Outcome::Fail,
            format!(
                "the whole 95 % interval lies on the bad side of {limit}: its bound is {bound:.4}"
            ),
        ),
        (Ok(()), Some(bound)) => (
            Outcome::Inconclusive,
            format!(
                "the 95 % interval reaches over {limit}: its bound is {bound:.4}; more examples may tell"
            ),
        ),
    };
    GateResult {
        evaluator: evaluator.name.clone(),
        candidate: cell.candidate.clone(),
        baseline: None,
        rule: "at_least".to_owned(),
        limit,
        bound,
        outcome: outcome.name().to_owned(),
        reason,
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
    let (outcome, reason) = match (covered, known, bounds) {
        (_, None, _) => (
            Outcome::Inconclusive,
            format!(
                "the candidate is compared with {}, not with {baseline}",
                results.baseline
            ),
        ),
        (Err(why), _, _) => (Outcome::Inconclusive, why),
        (Ok(()), _, None) => (
            Outcome::Inconclusive,
            "there are too few examples to compare".to_owned(),
        ),
        (Ok(()), _, Some((most, _))) if most < margin || (most <= margin && margin > 0.0) => (
            Outcome::Pass,
            format!(
                "shown not to be worse than {baseline} by more than {margin}: by {most:.4} at most"
            ),
        ),
        (Ok(()), _, Some((_, least))) if least > margin => (
            Outcome::Fail,
            format!(
                "shown to be worse than {baseline} by more than {margin}: by {least:.4} at least"
            ),
        ),
        (Ok(()), _, Some((most, _))) => (
            Outcome::Inconclusive,
            format!(
                "not shown: it may be worse than {baseline} by {most:.4}; the margin is {margin}"
            ),
        ),
    };
    GateResult {
        evaluator: evaluator.name.clone(),
        candidate: cell.candidate.clone(),
        baseline: Some(baseline),
        rule: "not_worse_by".to_owned(),
        limit: margin,
        bound: bounds.map(|(most, _)| -most),
        outcome: outcome.name().to_owned(),
        reason,
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
    let link = format!(
        "/{}/evaluations/show?id={}",
        desk.project_name(evaluation.project).await,
        evaluation.id
    );
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
