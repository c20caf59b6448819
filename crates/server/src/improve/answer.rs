//! One answer to one example, with its scores and the one number that the search goes by.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::store::{Improvement, ResultRow};
use crate::app::App;
use crate::datasets::Example;
use crate::error::Result;
use crate::evaluations::calling::{Asker, Meter, PinnedVersion, principal};
use crate::evaluations::{
    About, Caller, Cell, Halted, Judged, Lanes, Look, Outcome, Plain, Ready, judge,
};
use crate::evaluators::metric::Measure;
use crate::evaluators::{Direction, EvaluatorDocument};

/// How much of an answer is kept.
const KEPT_BYTES: usize = 32 << 10;

/// An example of the search.
#[derive(Debug)]
pub(super) struct Row {
    pub example: Example,
    /// The same as JSON.
    pub value: Value,
}

/// A text, ready to be asked.
pub(super) struct Rig {
    pub number: i64,
    pub asker: Asker,
    pub caller: Caller,
}

/// How each evaluator's number becomes one from 0 to 1.
pub(super) struct Scale {
    weight: f64,
    better: Direction,
    range: Option<(f64, f64)>,
    measure: Option<Measure>,
}

/// What every call of an improvement shares.
pub(super) struct Line {
    pub lanes: Lanes,
    pub meter: Arc<Meter>,
    pub plain: Plain,
    pub is_takeover: bool,
    pub stop: watch::Receiver<bool>,
}

impl Rig {
    /// Gets a step's text ready.
    ///
    /// # Errors
    /// What it stands on cannot be read any more.
    pub(super) async fn new(
        app: &App,
        improvement: &Improvement,
        line: &Line,
        number: i64,
        content: &Value,
        version: PinnedVersion,
    ) -> Result<Self> {
        let suite = improvement.document.suite(content.clone());
        let suite = suite.map_err(db::CatalogError::Invalid)?;
        let mut pinned = improvement.pinned.suite.clone();
        if let Some(candidate) = pinned.candidates.first_mut() {
            candidate.prompt = Some(version);
        }
        let ready = Ready::load(app, improvement.project, &suite, &pinned).await?;
        let askers = Asker::all(&suite, &pinned, &ready.documents);
        let asker = askers.map_err(|problem| db::CatalogError::Invalid(vec![problem]))?;
        let asker = asker.into_iter().next().ok_or_else(|| {
            crate::error::AppError::internal(anyhow::anyhow!("a suite without a candidate"))
        })?;
        let caller = Caller {
            app: app.clone(),
            project: improvement.project,
            principal: Arc::new(principal(&improvement.started_by, improvement.project)),
            evaluation: improvement.id.clone(),
            created_at: improvement.created_at,
            ready,
            plan: Mutex::default(),
            is_takeover: line.is_takeover,
            attempts: improvement.document.attempts,
            lanes: line.lanes.clone(),
            plain: Plain::clone(&line.plain),
            only_recorded: false,
            meter: Some(Arc::clone(&line.meter)),
            stop: line.stop.clone(),
        };
        Ok(Self {
            number,
            asker,
            caller,
        })
    }
}

/// The evaluators of an improvement, ready to measure.
///
/// # Errors
/// A metric's definition cannot be read any more.
pub(super) async fn scales(app: &App, improvement: &Improvement) -> Result<Vec<Scale>> {
    let documents = improvement.pinned.suite.evaluators.iter();
    let documents = documents.map(|one| &one.document);
    let resources = crate::evaluations::resources_for(app, documents).await;
    let evaluators = improvement.pinned.suite.evaluators.iter();
    let scales = evaluators.map(|one| {
        let measure = match &one.document {
            EvaluatorDocument::Metric(metric) => Some(
                Measure::new(metric, &resources)
                    .map_err(|problem| db::CatalogError::Invalid(vec![problem]))?,
            ),
            _ => None,
        };
        Ok(Scale {
            weight: improvement.document.weight(&one.name),
            better: one.document.better(),
            range: one.document.range(),
            measure,
        })
    });
    scales.collect()
}

/// The number of a perfect answer; none where an evaluator that counts has no best.
pub(super) fn perfect(scales: &[Scale]) -> Option<f64> {
    let mut counted = scales.iter().filter(|scale| scale.weight > 0.0);
    counted.all(|scale| scale.range.is_some()).then_some(1.0)
}

/// The weighted mean of what counts, each from 0 (worst) to 1 (best); an evaluator without a
/// range counts as it is, and is then the only one. None where one of them gave no score.
fn objective(scales: &[Scale], judged: &[Judged]) -> Option<f64> {
    let (mut sum, mut weights) = (0.0, 0.0);
    for (scale, judged) in scales.iter().zip(judged) {
        if scale.weight <= 0.0 {
            continue;
        }
        let value = judged.outcome.value()?;
        let upward = match (scale.range, scale.better) {
            (Some((low, high)), Direction::Higher) => (value - low) / (high - low),
            (Some((low, high)), Direction::Lower) => (high - value) / (high - low),
            (None, Direction::Higher) => value,
            (None, Direction::Lower) => -value,
        };
        sum += scale.weight * upward;
        weights += scale.weight;
    }
    let mean = sum / weights;
    mean.is_finite().then_some(mean)
}

/// Answers an example and scores the answer.
///
/// # Errors
/// The database or telemetry fails; what goes wrong with the answer is in the row.
pub(super) async fn answer(
    improvement: &Improvement,
    scales: &[Scale],
    rig: &Rig,
    row: &Row,
    place: i64,
    failures: i64,
) -> Result<std::result::Result<ResultRow, Halted>> {
    let cell = Cell {
        place,
        candidate: usize::try_from(rig.number).unwrap_or(0),
        // Another name for what went wrong before, so that it is asked anew.
        repetition: failures,
    };
    let mut result = ResultRow {
        number: rig.number,
        place,
        example: row.example.id.clone(),
        answer: Err(String::new()),
        objective: None,
        scores: Vec::new(),
        trace: String::new(),
        cost: Some(0),
        input_tokens: 0,
        output_tokens: 0,
        latency_us: 0,
        failures,
    };
    let inputs = match rig.asker.inputs(&row.value) {
        Ok(inputs) => inputs,
        Err(problem) => {
            result.answer = Err(problem.message);
            return Ok(Ok(result));
        }
    };
    let tags = tags(improvement, rig.number, &row.example.id);
    let mut request = rig
        .asker
        .request(&improvement.id, cell, &row.example.id, &inputs);
    request.tags = tags.clone();
    let called = match rig.caller.call(&request).await? {
        Ok(called) => called,
        Err(halted) => return Ok(Err(halted)),
    };
    result.trace = called.trace.to_string();
    result.cost = called.bill.cost();
    result.input_tokens = called.bill.input_tokens;
    result.output_tokens = called.bill.output_tokens;
    result.latency_us = called.latency_us;
    let text = match called.answer {
        Ok(said) => said.text,
        Err(problem) => {
            result.answer = Err(format!("{}: {}", problem.kind, problem.message));
            return Ok(Ok(result));
        }
    };
    let mut judged = Vec::new();
    for (index, (scale, evaluator)) in scales
        .iter()
        .zip(&improvement.pinned.suite.evaluators)
        .enumerate()
    {
        if let Some(measure) = &scale.measure {
            judged.push(measured(measure, &row.value, &text));
            continue;
        }
        let mut tags = tags.clone();
        tags.insert("evaluator".to_owned(), evaluator.name.clone());
        let about = About {
            cell,
            evaluator: index,
            tags,
        };
        let look = Look {
            value: &row.value,
            expected: row.example.expected.as_ref(),
            context: &row.example.context,
            answer: &text,
            other: None,
        };
        match judge(&rig.caller, &about, &evaluator.document, &look).await? {
            Ok(one) => judged.push(one),
            Err(halted) => return Ok(Err(halted)),
        }
    }
    result.objective = objective(scales, &judged);
    result.scores = judged.iter().map(said).collect();
    result.answer = Ok(base::text::cut_bytes(&text, KEPT_BYTES).to_owned());
    Ok(Ok(result))
}

fn measured(measure: &Measure, value: &Value, text: &str) -> Judged {
    let measured = measure.measure(value, text);
    match measured.value {
        Ok(value) => Judged {
            outcome: Outcome::Scored(value),
            ..Judged::unscored("", Value::Null)
        },
        Err(why) => Judged::unscored(why, Value::Null),
    }
}

fn said(judged: &Judged) -> Value {
    json!({
        "outcome": judged.outcome.name(), "value": judged.outcome.value(), "label": judged.label,
        "reason": judged.reason, "trace": judged.trace.map(|trace| trace.to_string()),
    })
}

/// Tags of every call of an improvement.
pub(super) fn tags(
    improvement: &Improvement,
    number: i64,
    example: &str,
) -> std::collections::BTreeMap<String, String> {
    [
        ("improvement", improvement.id.clone()),
        ("step", number.to_string()),
        ("example", example.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}
