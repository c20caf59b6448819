//! Evaluations over JSON.

use axum::Json as Answer;
use axum::extract::{Path, State as Extracted};
use axum::http::StatusCode;
use base::Cursor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Counters, Desk, DifferenceRow, Evaluation, ExampleDetail, Results, Slice, State, SuiteDocument,
    SuiteSource, gate,
};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::datasets::Example;
use crate::error::{AppError, Result};
use crate::extract::{Json, Query};
use crate::http::{Access, Route};
use crate::openapi::Doc;
use crate::traces::ListOf;

/// Rows of a page.
const ROWS: u32 = 50;
const MOST_ROWS: u32 = 200;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadEvaluations);
    let run = Access::Needs(Permission::RunEvaluations);
    let doc = |summary| Doc::new("evaluations", summary);
    vec![
        Route::get("/api/v1/evaluations", read, list).doc(
            doc("Evaluations, the newest first")
                .query::<ListQuery>()
                .answer::<Evaluations>(),
        ),
        Route::post("/api/v1/evaluations", run, start).doc(
            doc("Start an evaluation of a suite, by name or written out")
                .body::<StartRequest>()
                .answer::<EvaluationJson>()
                .status(201),
        ),
        Route::get("/api/v1/evaluations/{id}", read, show)
            .doc(doc("An evaluation with what it has shown so far").answer::<Shown>()),
        Route::post("/api/v1/evaluations/{id}/pause", run, pause).doc(
            doc("Begin no more calls; those under way end and count")
                .body::<Reason>()
                .answer::<EvaluationJson>(),
        ),
        Route::post("/api/v1/evaluations/{id}/resume", run, resume).doc(
            doc("Let a paused evaluation go on, with a raised budget if one is given")
                .body::<Resume>()
                .answer::<EvaluationJson>(),
        ),
        Route::post("/api/v1/evaluations/{id}/stop", run, stop).doc(
            doc("End an evaluation before its end; what was answered stays")
                .body::<Reason>()
                .answer::<EvaluationJson>(),
        ),
        Route::get("/api/v1/evaluations/{id}/examples", read, examples).doc(
            doc("Examples by what a candidate gained over the baseline, the worst losses first")
                .query::<ExamplesQuery>()
                .answer::<Differences>(),
        ),
        Route::get("/api/v1/evaluations/{id}/examples/{place}", read, example)
            .doc(doc("An example with every answer and score").answer::<ExampleJson>()),
        Route::get(
            "/api/v1/evaluations/{id}/distributions",
            read,
            distributions,
        )
        .doc(
            Doc::new("evaluations", "How each evaluator's scores are spread")
                .answer::<ListOf<super::Distribution>>(),
        ),
        Route::get("/api/v1/evaluations/{id}/slices", read, slices).doc(
            doc("How the candidates compare on each value of a metadata field")
                .query::<SlicesQuery>()
                .answer::<Slices>(),
        ),
        Route::get(
            "/api/v1/evaluations/{id}/events",
            read,
            super::events::events,
        )
        .doc(doc("Progress as server-sent events")),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// Only those of this suite.
    suite: Option<String>,
    /// Where the page before ended.
    cursor: Option<String>,
    /// How many rows, at most 200.
    limit: Option<u32>,
}

/// An evaluation without its figures.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct EvaluationJson {
    /// Names it.
    pub id: String,
    /// The suite's name; empty for one that was written out.
    pub suite: String,
    /// The suite's version; none for one that was written out.
    pub suite_version: Option<i64>,
    /// Where it is.
    pub state: State,
    /// Why it is paused, stopped or failed.
    pub reason: String,
    /// The dataset and its version.
    pub dataset: DatasetJson,
    /// The candidates' names, in order.
    pub candidates: Vec<String>,
    /// The evaluators' names, in order.
    pub evaluators: Vec<String>,
    /// How far it is.
    pub counters: Counters,
    /// What its calls have cost, in US dollars.
    pub spent_usd: f64,
    /// Calls whose price nobody knows.
    pub unpriced_calls: i64,
    /// What it may spend, in US dollars.
    pub budget_usd: Option<f64>,
    /// How long it will probably take still, in seconds.
    pub left_s: Option<i64>,
    /// Who started it.
    pub started_by: String,
    /// When it was asked for, microseconds since the epoch.
    pub created_at: i64,
    /// When a worker first took it.
    pub started_at: Option<i64>,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// What to know before believing it.
    pub warnings: Vec<String>,
    /// The gates, once it is done.
    pub gates: Option<Value>,
}

/// A version of a dataset.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct DatasetJson {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: i64,
    /// Its content.
    pub digest: String,
}

impl EvaluationJson {
    /// What is said of an evaluation.
    pub fn of(evaluation: &Evaluation) -> Self {
        let dataset = &evaluation.pinned.dataset;
        #[expect(
            clippy::cast_precision_loss,
            reason = "nano-dollars are far below 2^53"
        )]
        let spent_usd = evaluation.spent.0 as f64 / 1e9;
        Self {
            id: evaluation.id.clone(),
            suite: evaluation.suite.clone(),
            suite_version: evaluation.suite_version,
            state: evaluation.state,
            reason: evaluation.reason.clone(),
            dataset: DatasetJson {
                name: dataset.name.clone(),
                version: dataset.number,
                digest: dataset.digest.to_string(),
            },
            candidates: evaluation
                .document
                .candidates
                .iter()
                .map(|one| one.name.clone())
                .collect(),
            evaluators: evaluation
                .pinned
                .evaluators
                .iter()
                .map(|one| one.name.clone())
                .collect(),
            counters: evaluation.counters,
            spent_usd,
            unpriced_calls: evaluation.unpriced,
            budget_usd: evaluation.document.budget_usd,
            left_s: left_s(evaluation),
            started_by: evaluation.started_by.clone(),
            created_at: evaluation.created_at,
            started_at: evaluation.started_at,
            ended_at: evaluation.ended_at,
            warnings: super::Warning::all_english(&evaluation.pinned.warnings),
            gates: evaluation.gates.clone(),
        }
    }
}

/// How long an evaluation will probably take still, at the speed that it had so far.
pub(super) fn left_s(evaluation: &Evaluation) -> Option<i64> {
    let counters = &evaluation.counters;
    let done = counters.answers_ok
        + counters.answers_failed
        + counters.scores_ok
        + counters.scores_error
        + counters.scores_unscored;
    let left = counters.answers_total + counters.scores_total - done;
    let known = evaluation.state.is_active() && done > 0 && evaluation.worked_us > 0;
    known.then(|| {
        left.max(0)
            .saturating_mul(evaluation.worked_us / done.max(1))
            / 1_000_000
    })
}

/// What an event of progress says.
pub(super) fn progress(evaluation: &Evaluation) -> Value {
    let json = EvaluationJson::of(evaluation);
    json!({
        "state": json.state, "reason": json.reason, "counters": json.counters, "spent_usd": json.spent_usd,
        "left_s": json.left_s,
    })
}

#[derive(Serialize, JsonSchema)]
struct Evaluations {
    /// The evaluations.
    items: Vec<EvaluationJson>,
    /// What to ask the next page with.
    next_cursor: Option<String>,
}

async fn list(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Evaluations>> {
    let limit = query.limit.unwrap_or(ROWS).clamp(1, MOST_ROWS);
    let (items, next) = page(&app, &identity, query.suite.as_deref(), query.cursor, limit).await?;
    Ok(Answer(Evaluations {
        items: items.iter().map(EvaluationJson::of).collect(),
        next_cursor: next,
    }))
}

/// A page of evaluations, and what to ask the next one with.
pub(super) async fn page(
    app: &App,
    identity: &Identity,
    suite: Option<&str>,
    cursor: Option<String>,
    limit: u32,
) -> Result<(Vec<Evaluation>, Option<String>)> {
    let before: Option<(i64, String)> = cursor
        .map(|cursor| Cursor::from_client(cursor).key())
        .transpose()
        .map_err(db::CatalogError::from)?;
    let scope = identity.scope();
    let mut items = super::list(Desk::of(app), scope, suite, before, i64::from(limit) + 1).await?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = items.last().filter(|_| more);
    let next = next.map(|last| {
        Cursor::new(&(last.created_at, last.id.clone()))
            .as_str()
            .to_owned()
    });
    Ok((items, next))
}

/// What is to be evaluated.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    /// A suite of the catalog: `NAME` or `NAME@SELECTOR`; the newest version when none is said.
    #[serde(default)]
    pub suite: Option<String>,
    /// A suite that is written out.
    #[serde(default)]
    #[schemars(with = "Option<SuiteDocument>")]
    pub document: Option<Value>,
    /// The name of one that is written out: where it names a suite, its evidence counts for that.
    #[serde(default)]
    pub name: Option<String>,
}

async fn start(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Json(request): Json<StartRequest>,
) -> Result<(StatusCode, Answer<EvaluationJson>)> {
    let evaluation = start_evaluation(&app, identity.scope(), &request).await?;
    Ok((StatusCode::CREATED, Answer(EvaluationJson::of(&evaluation))))
}

/// Starts what a request asks for.
pub(super) async fn start_evaluation(
    app: &App,
    scope: db::Scope,
    request: &StartRequest,
) -> Result<Evaluation> {
    let source = match (&request.suite, &request.document) {
        (Some(text), None) => {
            let text = text.strip_prefix("suite:").unwrap_or(text);
            let (name, selector) = text.split_once('@').unwrap_or((text, "latest"));
            let bad = |problem: db::Problem| {
                AppError::invalid(problem.message)
                    .code("bad_name")
                    .at("suite")
            };
            SuiteSource::Named(name.parse().map_err(bad)?, selector.parse().map_err(bad)?)
        }
        (None, Some(document)) => SuiteSource::Inline {
            document: document.clone(),
            name: inline_name(request.name.as_deref())?,
        },
        _ => {
            return Err(AppError::invalid(
                "say what to evaluate: either \"suite\" or \"document\"",
            )
            .at("suite"));
        }
    };
    super::start(Desk::of(app), scope, &source).await
}

fn inline_name(name: Option<&str>) -> Result<String> {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Ok(String::new());
    };
    let parsed: std::result::Result<db::Name, _> = name.parse();
    match parsed {
        Ok(name) => Ok(name.to_string()),
        Err(problem) => Err(AppError::invalid(problem.message)
            .code("bad_name")
            .at("name")),
    }
}

/// For commands: starts, as the route does.
///
/// # Errors
/// As the route.
pub async fn start_json(
    app: &App,
    scope: db::Scope,
    request: &StartRequest,
) -> Result<EvaluationJson> {
    Ok(EvaluationJson::of(
        &start_evaluation(app, scope, request).await?,
    ))
}

/// An evaluation with what it has shown so far.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Shown {
    /// The evaluation.
    pub evaluation: EvaluationJson,
    /// The suite, as it was when the evaluation began.
    pub document: SuiteDocument,
    /// What it has shown.
    pub results: Results,
    /// How the gates stand with these figures.
    pub gates: Vec<gate::GateResult>,
}

/// For commands: shows, as the route does.
///
/// # Errors
/// As the route.
pub async fn show_json(app: &App, scope: db::Scope, id: &str) -> Result<Shown> {
    let desk = Desk::of(app);
    let evaluation = super::find(desk, scope, id).await?;
    let results = super::results_of(desk, &evaluation).await?;
    Ok(Shown {
        evaluation: EvaluationJson::of(&evaluation),
        gates: gate::judge(&evaluation.document.gate, &results),
        document: evaluation.document,
        results: (*results).clone(),
    })
}

async fn show(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<Answer<Shown>> {
    Ok(Answer(show_json(&app, identity.scope(), &id).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Reason {
    /// Why.
    #[serde(default)]
    reason: String,
}

async fn pause(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Path(id): Path<String>,
    Json(body): Json<Reason>,
) -> Result<Answer<EvaluationJson>> {
    let changed = super::pause(Desk::of(&app), identity.scope(), &id, &body.reason).await?;
    Ok(Answer(EvaluationJson::of(&changed)))
}

async fn stop(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Path(id): Path<String>,
    Json(body): Json<Reason>,
) -> Result<Answer<EvaluationJson>> {
    let changed = super::stop(Desk::of(&app), identity.scope(), &id, &body.reason).await?;
    Ok(Answer(EvaluationJson::of(&changed)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Resume {
    /// A new budget in US dollars, for one that is used up.
    #[serde(default)]
    budget_usd: Option<f64>,
}

async fn resume(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Path(id): Path<String>,
    Json(body): Json<Resume>,
) -> Result<Answer<EvaluationJson>> {
    let changed = super::resume(Desk::of(&app), identity.scope(), &id, body.budget_usd).await?;
    Ok(Answer(EvaluationJson::of(&changed)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExamplesQuery {
    /// The evaluator; the first if absent.
    evaluator: Option<String>,
    /// The candidate; the first that is not the baseline if absent.
    candidate: Option<String>,
    /// How many rows to leave out.
    offset: Option<usize>,
    /// How many rows, at most 200.
    limit: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
struct Differences {
    /// The evaluator.
    evaluator: String,
    /// The candidate.
    candidate: String,
    /// The examples, the worst losses first.
    items: Vec<DifferenceRow>,
    /// How many there are in all.
    total: usize,
}

/// The evaluator's and the candidate's number.
pub(super) fn choose(
    evaluation: &Evaluation,
    evaluator: Option<&str>,
    candidate: Option<&str>,
) -> Result<(usize, usize)> {
    let none = |what: &str, name: &str| {
        AppError::not_found(format!("the evaluation has no {what} {name:?}")).code("not_found")
    };
    let evaluators = &evaluation.pinned.evaluators;
    let evaluator = match evaluator {
        None => 0,
        Some(name) => {
            let found = evaluators.iter().position(|one| one.name == name);
            found.ok_or_else(|| none("evaluator", name))?
        }
    };
    let candidates = &evaluation.document.candidates;
    let baseline = evaluation.document.baseline();
    let candidate = match candidate {
        None => (0..candidates.len())
            .find(|index| *index != baseline)
            .unwrap_or(baseline),
        Some(name) => {
            let found = candidates.iter().position(|one| one.name == name);
            found.ok_or_else(|| none("candidate", name))?
        }
    };
    Ok((evaluator, candidate))
}

async fn examples(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Path(id): Path<String>,
    Query(query): Query<ExamplesQuery>,
) -> Result<Answer<Differences>> {
    let desk = Desk::of(&app);
    let evaluation = super::find(desk, identity.scope(), &id).await?;
    let (evaluator, candidate) = choose(
        &evaluation,
        query.evaluator.as_deref(),
        query.candidate.as_deref(),
    )?;
    let rows = super::differences(desk, &evaluation, evaluator, candidate).await?;
    let total = rows.len();
    let limit = query.limit.unwrap_or(ROWS).clamp(1, MOST_ROWS);
    let items = rows
        .into_iter()
        .skip(query.offset.unwrap_or(0))
        .take(limit as usize);
    Ok(Answer(Differences {
        evaluator: evaluation
            .pinned
            .evaluators
            .get(evaluator)
            .map(|one| one.name.clone())
            .unwrap_or_default(),
        candidate: evaluation
            .document
            .candidates
            .get(candidate)
            .map(|one| one.name.clone())
            .unwrap_or_default(),
        items: items.collect(),
        total,
    }))
}

#[derive(Serialize, JsonSchema)]
struct ExampleJson {
    /// The example.
    example: Example,
    /// Every candidate's answers.
    answers: Vec<AnswerJson>,
    /// Every evaluator's scores.
    scores: Vec<ScoreJson>,
}

#[derive(Serialize, JsonSchema)]
struct AnswerJson {
    /// The candidate.
    candidate: String,
    /// Which repetition, from 0.
    repetition: i64,
    /// The answer; none when there is an error.
    text: Option<String>,
    /// A short word for what went wrong.
    error: Option<String>,
    /// The same for people.
    message: Option<String>,
    /// The trace of the call.
    trace: String,
    /// Prompt tokens.
    input_tokens: i64,
    /// Completion tokens.
    output_tokens: i64,
    /// What the call cost, in US dollars; none when nobody knows.
    cost_usd: Option<f64>,
    /// How long it took, in milliseconds.
    latency_ms: f64,
    /// Whether an earlier evaluation paid for it.
    cached: bool,
    /// How often it was tried.
    attempts: i64,
}

#[derive(Serialize, JsonSchema)]
struct ScoreJson {
    /// The evaluator.
    evaluator: String,
    /// The candidate.
    candidate: String,
    /// Which repetition, from 0.
    repetition: i64,
    /// `scored`, `error` or `unscored`.
    outcome: String,
    /// The score; there if and only if it is scored.
    value: Option<f64>,
    /// A word that goes with it.
    label: Option<String>,
    /// The judge's reason, or why there is no score.
    reason: String,
    /// Raw replies, distributions, parts of the metric.
    detail: Value,
    /// The judge's first call.
    trace: Option<String>,
    /// Whether an earlier evaluation paid for it.
    cached: bool,
}

async fn example(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Path((id, place)): Path<(String, String)>,
) -> Result<Answer<ExampleJson>> {
    let desk = Desk::of(&app);
    let evaluation = super::find(desk, identity.scope(), &id).await?;
    let no_such =
        || AppError::not_found("the evaluation has no such example").code("no_such_example");
    let place: i64 = place.parse().map_err(|_| no_such())?;
    let ExampleDetail {
        example,
        answers,
        scores,
    } = super::example(desk, &evaluation, place).await?;
    let candidate = |index: usize| {
        let found = evaluation.document.candidates.get(index);
        found.map(|one| one.name.clone()).unwrap_or_default()
    };
    let answers = answers.into_iter().map(|row| {
        let problem = row.answer.as_ref().err();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        AnswerJson {
            candidate: candidate(row.cell.candidate),
            repetition: row.cell.repetition,
            error: problem.map(|problem| problem.kind.clone()),
            message: problem.map(|problem| problem.message.clone()),
            text: row.answer.ok(),
            trace: row.trace,
            input_tokens: row.input_tokens,
            output_tokens: row.output_tokens,
            cost_usd: row.cost.map(|nano| nano as f64 / 1e9),
            latency_ms: row.latency_us as f64 / 1e3,
            cached: row.cached,
            attempts: row.attempts,
        }
    });
    let scores = scores.into_iter().map(|row| ScoreJson {
        evaluator: evaluation
            .pinned
            .evaluators
            .get(row.evaluator)
            .map(|one| one.name.clone())
            .unwrap_or_default(),
        candidate: candidate(row.cell.candidate),
        repetition: row.cell.repetition,
        outcome: row.outcome.name().to_owned(),
        value: row.outcome.value(),
        label: row.label,
        reason: row.reason,
        detail: row.detail,
        trace: row.trace,
        cached: row.cached,
    });
    Ok(Answer(ExampleJson {
        example,
        answers: answers.collect(),
        scores: scores.collect(),
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SlicesQuery {
    /// The metadata field.
    field: String,
    /// The evaluator; the first if absent.
    evaluator: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Slices {
    /// The evaluator.
    evaluator: String,
    /// The candidates, in the order of the means.
    candidates: Vec<String>,
    /// The values, the most frequent ones first.
    items: Vec<Slice>,
}

async fn distributions(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<Answer<ListOf<super::Distribution>>> {
    let desk = Desk::of(&app);
    let evaluation = super::find(desk, identity.scope(), &id).await?;
    Ok(Answer(ListOf {
        items: super::distributions(desk, &evaluation).await?,
        next_cursor: None,
    }))
}

async fn slices(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Path(id): Path<String>,
    Query(query): Query<SlicesQuery>,
) -> Result<Answer<Slices>> {
    let desk = Desk::of(&app);
    let evaluation = super::find(desk, identity.scope(), &id).await?;
    let (evaluator, _) = choose(&evaluation, query.evaluator.as_deref(), None)?;
    Ok(Answer(Slices {
        evaluator: evaluation
            .pinned
            .evaluators
            .get(evaluator)
            .map(|one| one.name.clone())
            .unwrap_or_default(),
        candidates: evaluation
            .document
            .candidates
            .iter()
            .map(|one| one.name.clone())
            .collect(),
        items: super::slices(desk, &evaluation, evaluator, &query.field).await?,
    }))
}
