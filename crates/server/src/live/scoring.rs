//! One trace of the live traffic: from its messages to a score.
//!
//! The judging is that of evaluations (`evaluations/judging.rs`); here is what a trace
//! offers instead of an example, and where the score goes. A trace has no expected answer,
//! so an evaluator that needs one says that it cannot score.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use base::{Id as _, ProjectId, ScoreId};
use gateway::Principal;
use serde_json::{Map, Value, json};
use telemetry::{Body, BodyContent, Kind, Score, Source, Span, Status};
use tokio::sync::watch;

use super::Instrument;
use super::store::{Claim, Ending, ScoreState};
use crate::app::App;
use crate::error::{AppError, Result};
use crate::evaluations::{
    About, Caller, Cell, ENVIRONMENT, Halted, Judged, Lanes, Look, Outcome, Plain, Ready, judge,
    message_text, stable_id,
};
use crate::evaluators::metric::Measure;
use crate::evaluators::{EvaluatorDocument, judge::family};

/// How often a call is tried.
const ATTEMPTS: u32 = 3;
/// Retrieved texts that an evaluator is shown.
const MOST_CONTEXTS: usize = 20;

/// What scoring shares within one live evaluation.
#[derive(Clone)]
pub(super) struct Shared {
    pub app: App,
    pub project: ProjectId,
    /// The live evaluation's name.
    pub live: String,
    pub lanes: Lanes,
    pub plain: Plain,
    pub stop: watch::Receiver<bool>,
}

/// How a claim was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun {
    /// Just now: nothing was called for it.
    Now,
    /// By a worker that stopped between calls: what is recorded is not called again.
    Waiting,
    /// By a worker that died: only what is recorded counts.
    Asked,
}

/// What a trace offers to an evaluator.
struct Subject {
    /// In the form of an example.
    value: Value,
    context: Vec<String>,
    answer: String,
    model: String,
}

/// Scores a trace and writes the score to telemetry. `None` when the server stops and no
/// call is under way.
pub(super) async fn score(
    shared: &Shared,
    instrument: &Instrument,
    claim: &Claim,
    begun: Begun,
) -> Result<Option<Ending>> {
    let ending = match subject(shared, claim).await? {
        Err((state, why)) => without(state, why),
        Ok(subject) => match ask(shared, instrument, claim, begun, &subject).await? {
            Some(judged) => ending_of(judged),
            None if begun == Begun::Asked => without(
                ScoreState::Unscored,
                "the server ended while this was judged; it is not paid for twice".to_owned(),
            ),
            None => return Ok(None),
        },
    };
    if let Some(value) = ending.value {
        append(shared, instrument, claim, value, &ending).await?;
    }
    Ok(Some(ending))
}

fn without(state: ScoreState, reason: String) -> Ending {
    Ending {
        state,
        value: None,
        label: None,
        reason,
        judge: None,
        cost: 0,
        unpriced: 0,
    }
}

/// What is written down where the evaluator itself is missing.
pub(super) fn unscored(reason: &str) -> Ending {
    without(ScoreState::Unscored, reason.to_owned())
}

fn ending_of(judged: Judged) -> Ending {
    let (state, value) = match judged.outcome {
        Outcome::Scored(value) => (ScoreState::Scored, Some(value)),
        Outcome::Error => (ScoreState::Error, None),
        Outcome::Unscored => (ScoreState::Unscored, None),
    };
    Ending {
        state,
        value,
        label: judged.label,
        reason: judged.reason,
        judge: judged.trace,
        cost: judged.bill.spent,
        unpriced: judged.bill.unpriced,
    }
}

async fn ask(
    shared: &Shared,
    instrument: &Instrument,
    claim: &Claim,
    begun: Begun,
    subject: &Subject,
) -> Result<Option<Judged>> {
    if let EvaluatorDocument::Metric(metric) = &instrument.document {
        let documents = [&instrument.document];
        let resources = crate::evaluations::resources_for(&shared.app, documents).await;
        let measure = Measure::new(metric, &resources)
            .map_err(|problem| db::CatalogError::Invalid(vec![problem]))?;
        let (value, answer) = (subject.value.clone(), subject.answer.clone());
        let measured = tokio::task::spawn_blocking(move || measure.measure(&value, &answer)).await;
        let measured = measured.map_err(AppError::internal)?;
        let mut judged = Judged::unscored(String::new(), measured.detail);
        match measured.value {
            Ok(value) => judged.outcome = Outcome::Scored(value),
            Err(why) => judged.reason = why,
        }
        return Ok(Some(judged));
    }
    let (jurors, may_be_family) = instrument.document.judges();
    if !may_be_family
        && let Some(juror) = jurors
            .iter()
            .find(|juror| family(juror) == family(&subject.model))
    {
        let why = format!(
            "the judge {juror} and {} are of one family, and judges prefer their own",
            subject.model
        );
        return Ok(Some(Judged::unscored(why, Value::Null)));
    }
    // A program may do something each time that it is asked, and leaves no record here.
    if begun == Begun::Asked && matches!(instrument.document, EvaluatorDocument::Http(_)) {
        return Ok(None);
    }
    let caller = caller(shared, instrument, claim, begun);
    let tags = [
        (super::TAG, shared.live.clone()),
        ("evaluator", instrument.name.clone()),
        ("judged", claim.trace.to_string()),
    ];
    let about = About {
        cell: Cell {
            place: 0,
            candidate: 0,
            repetition: 0,
        },
        evaluator: 0,
        tags: BTreeMap::from(tags.map(|(name, value)| (name.to_owned(), value))),
    };
    let look = Look {
        value: &subject.value,
        expected: None,
        context: &subject.context,
        answer: &subject.answer,
        other: None,
    };
    match judge(&caller, &about, &instrument.document, &look).await? {
        Ok(judged) => Ok(Some(judged)),
        Err(Halted) => Ok(None),
    }
}

/// The ids of the calls follow from trace and evaluator alone, whoever makes them.
fn caller(shared: &Shared, instrument: &Instrument, claim: &Claim, begun: Begun) -> Caller {
    Caller {
        app: shared.app.clone(),
        project: shared.project,
        principal: Arc::new(Principal {
            key_id: None,
            user_id: None,
            project: shared.project,
            environment: ENVIRONMENT.to_owned(),
            role: "evaluation".to_owned(),
            expires_at: None,
        }),
        evaluation: format!("live/{}/{}", claim.trace, instrument.digest),
        created_at: claim.taken_at,
        ready: Ready::default(),
        plan: Mutex::default(),
        is_takeover: begun != Begun::Now,
        only_recorded: begun == Begun::Asked,
        meter: None,
        attempts: ATTEMPTS,
        lanes: shared.lanes.clone(),
        plain: shared.plain.clone(),
        stop: shared.stop.clone(),
    }
}

type Offered = std::result::Result<Subject, (ScoreState, String)>;

async fn subject(shared: &Shared, claim: &Claim) -> Result<Offered> {
    let (project, trace, wanted) = (shared.project, claim.trace, claim.span);
    let found = crate::traces::read(&shared.app.telemetry, move |reader| {
        let Some(found) = reader.trace(project, trace)? else {
            return Ok(None);
        };
        let Some(stored) = found
            .spans
            .iter()
            .find(|stored| stored.span.span_id == wanted)
        else {
            return Ok(None);
        };
        let bodies = reader.span_bodies(project, trace, wanted, None)?;
        let mut context = Vec::new();
        let retrieved = found
            .spans
            .iter()
            .filter(|stored| stored.span.kind == Kind::Retrieval);
        for stored in retrieved.take(MOST_CONTEXTS) {
            let bodies = reader.span_bodies(project, trace, stored.span.span_id, None)?;
            context.extend(
                bodies
                    .unwrap_or_default()
                    .output
                    .into_iter()
                    .filter_map(whole),
            );
        }
        Ok(Some((
            stored.span.clone(),
            bodies.unwrap_or_default(),
            context,
        )))
    })
    .await?;
    let Some((span, bodies, context)) = found else {
        let why = "the trace is not there any more".to_owned();
        return Ok(Err((ScoreState::Unscored, why)));
    };
    if span.status != Status::Ok {
        let kind = span.error_type.as_deref().unwrap_or(span.status.as_str());
        let why = format!("the call failed, so there is no answer: {kind}");
        return Ok(Err((ScoreState::Error, why)));
    }
    let answer: Option<Vec<Value>> = bodies.output.into_iter().map(whole).collect();
    let answer = answer
        .as_deref()
        .and_then(<[Value]>::last)
        .map(message_text);
    let Some(answer) = answer else {
        let why = "the trace holds no answer any more".to_owned();
        return Ok(Err((ScoreState::Unscored, why)));
    };
    let input: Option<Vec<Value>> = bodies.input.into_iter().map(whole).collect();
    let model = span.response_model.clone().or(span.request_model.clone());
    let context: Vec<String> = context
        .iter()
        .map(message_text)
        .take(MOST_CONTEXTS)
        .collect();
    let value = json!({
        "input": input_of(input.unwrap_or_default()), "expected": null, "context": context,
        "metadata": metadata(&span),
    });
    Ok(Ok(Subject {
        value,
        context,
        answer,
        model: model.unwrap_or_default(),
    }))
}

fn whole(body: Body) -> Option<Value> {
    match body.content {
        BodyContent::Whole(value) => Some(value),
        BodyContent::Cut(_) | BodyContent::Gone => None,
    }
}

/// What was asked: the words of a single question, else the conversation, else the inputs.
fn input_of(mut messages: Vec<Value>) -> Value {
    let one = match messages.as_slice() {
        [only] => Some(only),
        _ => None,
    };
    if let Some(text) = one.and_then(|only| only["content"].as_str()) {
        return json!(text);
    }
    match messages.len() {
        1 if messages[0].get("role").is_none() => messages.remove(0),
        _ => Value::Array(messages),
    }
}

fn metadata(span: &Span) -> Value {
    let mut metadata = match &span.metadata {
        Value::Object(fields) => fields.clone(),
        _ => Map::new(),
    };
    metadata.insert("environment".to_owned(), json!(span.environment));
    if let Some(model) = span.response_model.as_ref().or(span.request_model.as_ref()) {
        metadata.insert("model".to_owned(), json!(model));
    }
    if let Some(prompt) = &span.prompt {
        metadata.insert("prompt".to_owned(), json!(prompt.name));
    }
    for (tag, value) in &span.tags {
        metadata.insert(format!("tag.{tag}"), json!(value));
    }
    Value::Object(metadata)
}

/// The score stands on the trace, beside what people think of it. Its id follows from what
/// it judges, so writing it twice changes nothing.
async fn append(
    shared: &Shared,
    instrument: &Instrument,
    claim: &Claim,
    value: f64,
    ending: &Ending,
) -> Result<()> {
    let name = format!("live/{}/{}/score", claim.trace, instrument.digest);
    let score = Score {
        score_id: ScoreId::from_uuid_bytes(stable_id(claim.taken_at, &name)),
        project: shared.project,
        trace_id: claim.trace,
        span_id: None,
        name: claim.score.clone(),
        value: Some(value),
        label: ending.label.clone(),
        comment: Some(ending.reason.clone()).filter(|reason| !reason.is_empty()),
        source: Source::Judge,
        author: Some(instrument.author()),
        at_us: shared.app.clock.now_us(),
        supersedes: None,
    };
    let not_stored =
        |cause: String| AppError::unavailable(format!("a score was not stored: {cause}"));
    let ack = shared
        .app
        .telemetry
        .append(score)
        .map_err(|full| not_stored(full.to_string()))?;
    ack.await.map_err(|error| not_stored(error.to_string()))
}
