//! One task of an evaluation: an answer of a candidate, or one evaluator's look at it. What
//! was asked before under the same conditions comes from the cache.
//!
//! Tasks change nothing: what they come to is handed to the worker, which writes it.

use std::sync::Arc;

use base::Digest;
use serde_json::{Value, json};

use super::ask::Asker;
use super::call::{Bill, Caller, Halted, tags};
use super::judging::{About, Judged, Look, judge};
use super::store::{self, AnswerRow, Cell, Evaluation, Outcome, ScoreRow};
use crate::datasets::Example;
use crate::error::{AppError, Result};
use crate::evaluators::{EvaluatorDocument, metric::Measure};

/// Something to do.
#[derive(Debug, Clone)]
pub(super) enum Task {
    Answer(Cell),
    Score { cell: Cell, evaluator: usize },
}

impl Task {
    pub(super) fn cell(&self) -> Cell {
        match self {
            Self::Answer(cell) | Self::Score { cell, .. } => *cell,
        }
    }
}

/// What came back of a task.
pub(super) enum Done {
    Answer {
        row: AnswerRow,
        bill: Bill,
        cache: Option<(String, Value)>,
        measured: Vec<ScoreRow>,
    },
    Score {
        row: ScoreRow,
        bill: Bill,
        cache: Option<(String, Value)>,
    },
    Halted(Task),
}

/// What tasks share.
pub(super) struct Shared {
    pub(super) caller: Caller,
    pub(super) evaluation: Evaluation,
    pub(super) askers: Vec<Asker>,
    /// By evaluator; none for those that ask somebody.
    pub(super) measures: Vec<Option<Measure>>,
    pub(super) names: Vec<String>,
}

/// Answers one example with one candidate, and measures the answer.
pub(super) async fn answer(
    shared: &Shared,
    cell: Cell,
    example: &Example,
    value: &Arc<Value>,
) -> Result<Done> {
    let (Some(asker), Some(name)) = (
        shared.askers.get(cell.candidate),
        shared.names.get(cell.candidate),
    ) else {
        return Err(AppError::internal(anyhow::anyhow!(
            "there is no candidate {}",
            cell.candidate
        )));
    };
    let mut row = AnswerRow {
        cell,
        example: example.id.clone(),
        answer: Ok(String::new()),
        trace: String::new(),
        input_tokens: 0,
        output_tokens: 0,
        cost: Some(0),
        latency_us: 0,
        cached: false,
        attempts: 0,
    };
    let inputs = match asker.inputs(value) {
        Ok(inputs) => inputs,
        Err(problem) => {
            row.answer = Err(problem);
            return Ok(Done::Answer {
                row,
                bill: Bill::default(),
                cache: None,
                measured: Vec::new(),
            });
        }
    };
    let key = answer_key(shared, cell, &inputs.messages, &inputs.variables)?;
    if let Some(key) = &key
        && let Some(kept) = store::cached(&shared.caller.app.db, shared.caller.project, key).await?
        && restore_answer(&mut row, &kept)
    {
        let measured = measure(shared, cell, value, &row);
        return Ok(Done::Answer {
            row,
            bill: Bill::default(),
            cache: None,
            measured,
        });
    }
    let request = asker.request(&shared.caller.evaluation, cell, &example.id, &inputs);
    let called = match shared.caller.call(&request).await? {
        Ok(called) => called,
        Err(Halted) => return Ok(Done::Halted(Task::Answer(cell))),
    };
    tracing::debug!(evaluation.id = %shared.caller.evaluation, candidate = name, place = cell.place, "an example was answered");
    row.trace = called.trace.to_string();
    row.input_tokens = called.bill.input_tokens;
    row.output_tokens = called.bill.output_tokens;
    row.cost = called.bill.cost();
    row.latency_us = called.latency_us;
    row.attempts = called.attempts;
    row.answer = called.answer.map(|said| said.text);
    let measured = measure(shared, cell, value, &row);
    let cache = key
        .filter(|_| row.answer.is_ok())
        .map(|key| (key, keep_answer(&row)));
    Ok(Done::Answer {
        row,
        bill: called.bill,
        cache,
        measured,
    })
}

/// What an answer is kept under; none where it must be new.
fn answer_key(
    shared: &Shared,
    cell: Cell,
    messages: &[Value],
    variables: &serde_json::Map<String, Value>,
) -> Result<Option<String>> {
    let suite = &shared.evaluation.document;
    let pinned = shared.evaluation.pinned.candidates.get(cell.candidate);
    let Some(pinned) = pinned.filter(|_| suite.cache && suite.repeats == 1) else {
        return Ok(None);
    };
    let identity =
        json!({"candidate": pinned.digest, "messages": messages, "variables": variables});
    let digest = Digest::of_json(&identity).map_err(db::CatalogError::from)?;
    Ok(Some(format!("answer/{}", digest.hex())))
}

fn keep_answer(row: &AnswerRow) -> Value {
    json!({
        "text": row.answer.as_deref().unwrap_or_default(), "trace": row.trace, "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens, "cost": row.cost, "latency_us": row.latency_us,
    })
}

fn restore_answer(row: &mut AnswerRow, kept: &Value) -> bool {
    let (Some(text), Some(trace)) = (kept["text"].as_str(), kept["trace"].as_str()) else {
        return false;
    };
    row.answer = Ok(text.to_owned());
    row.trace = trace.to_owned();
    row.input_tokens = kept["input_tokens"].as_i64().unwrap_or(0);
    row.output_tokens = kept["output_tokens"].as_i64().unwrap_or(0);
    row.cost = kept["cost"].as_i64();
    row.latency_us = kept["latency_us"].as_i64().unwrap_or(0);
    row.cached = true;
    true
}

/// Every metric's score of an answer.
fn measure(shared: &Shared, cell: Cell, value: &Value, row: &AnswerRow) -> Vec<ScoreRow> {
    let Ok(text) = &row.answer else {
        return Vec::new();
    };
    let measures = shared.measures.iter().enumerate();
    measures
        .filter_map(|(evaluator, measure)| {
            Some(measured_row(
                cell,
                evaluator,
                measure.as_ref()?,
                value,
                text,
            ))
        })
        .collect()
}

/// A metric's score of an answer.
pub(super) fn measured_row(
    cell: Cell,
    evaluator: usize,
    measure: &Measure,
    value: &Value,
    text: &str,
) -> ScoreRow {
    let measured = measure.measure(value, text);
    let (outcome, reason) = match measured.value {
        Ok(value) => (Outcome::Scored(value), String::new()),
        Err(why) => (Outcome::Unscored, why),
    };
    ScoreRow {
        cell,
        evaluator,
        outcome,
        reason,
        label: None,
        detail: measured.detail,
        trace: None,
        cost: 0,
        cached: false,
    }
}

/// A score as it is written.
pub(super) fn score_row(cell: Cell, evaluator: usize, judged: Judged, cached: bool) -> ScoreRow {
    ScoreRow {
        cell,
        evaluator,
        outcome: judged.outcome,
        reason: judged.reason,
        label: judged.label,
        detail: judged.detail,
        trace: judged.trace.map(|trace| trace.to_string()),
        cost: judged.bill.spent,
        cached,
    }
}

/// What an evaluator is asked about.
pub(super) struct Subject<'a> {
    pub(super) example: &'a Example,
    pub(super) value: &'a Value,
    pub(super) digest: Digest,
    pub(super) own: Option<Arc<str>>,
    pub(super) other: Option<Arc<str>>,
}

/// What a score depends on beside the evaluator's document: a local name may mean another model
/// tomorrow, and some evaluators look at the whole data.
fn add_local_identity(shared: &Shared, evaluator: &EvaluatorDocument, identity: &mut Value) {
    let engine = &shared.caller.app.engine;
    let models = evaluator.models().into_iter();
    let digests = models.filter_map(|model| engine.digest(model.strip_prefix("local/")?));
    let digests: Vec<Digest> = digests.collect();
    if !digests.is_empty() {
        identity["models"] = json!(digests);
    }
    if evaluator.uses_dataset() {
        let (evaluation, dataset) = (&shared.evaluation, &shared.evaluation.pinned.dataset);
        identity["dataset"] = json!([dataset.digest, evaluation.document.split]);
    }
}

/// Asks one evaluator about one cell.
pub(super) async fn score(
    shared: &Shared,
    cell: Cell,
    evaluator: usize,
    subject: Subject<'_>,
) -> Result<Done> {
    let pinned = shared.evaluation.pinned.evaluators.get(evaluator);
    let (Some(pinned), Some(name)) = (pinned, shared.names.get(cell.candidate)) else {
        return Err(AppError::internal(anyhow::anyhow!(
            "there is no evaluator {evaluator}"
        )));
    };
    let own = subject.own.as_deref().unwrap_or_default();
    let other = subject
        .other
        .as_deref()
        .filter(|_| pinned.document.is_pairwise());
    let suite = &shared.evaluation.document;
    let key = match suite.cache && suite.repeats == 1 {
        true => {
            let mut identity = json!({"evaluator": pinned.digest, "example": subject.digest, "answer": own, "other": other});
            add_local_identity(shared, &pinned.document, &mut identity);
            let digest = Digest::of_json(&identity).map_err(db::CatalogError::from)?;
            Some(format!("score/{}", digest.hex()))
        }
        false => None,
    };
    if let Some(key) = &key
        && let Some(kept) = store::cached(&shared.caller.app.db, shared.caller.project, key).await?
        && let Some(value) = kept["value"].as_f64()
    {
        let judged = Judged {
            outcome: Outcome::Scored(value),
            label: kept["label"].as_str().map(str::to_owned),
            reason: kept["reason"].as_str().unwrap_or_default().to_owned(),
            detail: kept["detail"].clone(),
            trace: kept["trace"].as_str().and_then(|trace| trace.parse().ok()),
            bill: Bill {
                spent: kept["cost"].as_i64().unwrap_or(0),
                ..Bill::default()
            },
        };
        let row = score_row(cell, evaluator, judged, true);
        return Ok(Done::Score {
            row,
            bill: Bill::default(),
            cache: None,
        });
    }
    let mut tags = tags(&shared.caller.evaluation, name, &subject.example.id);
    tags.insert("evaluator".to_owned(), pinned.name.clone());
    let about = About {
        cell,
        evaluator,
        tags,
    };
    let look = Look {
        value: subject.value,
        expected: subject.example.expected.as_ref(),
        context: &subject.example.context,
        answer: own,
        other,
    };
    let judged = match judge(&shared.caller, &about, &pinned.document, &look).await? {
        Ok(judged) => judged,
        Err(Halted) => return Ok(Done::Halted(Task::Score { cell, evaluator })),
    };
    let bill = judged.bill;
    let row = score_row(cell, evaluator, judged, false);
    let cache = key.zip(row.outcome.value()).map(|(key, value)| {
        let kept = json!({
            "value": value, "label": row.label, "reason": row.reason, "detail": row.detail, "trace": row.trace,
            "cost": row.cost,
        });
        (key, kept)
    });
    Ok(Done::Score { row, bill, cache })
}
