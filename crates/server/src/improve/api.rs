//! Improvements over JSON.

use axum::Json as Answer;
use axum::extract::{Path, State as Extracted};
use axum::http::StatusCode;
use base::Cursor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Desk, ImproveDocument, Improvement, Phase, Progress, Raise, ResultRow, Standing, State, Step,
    StepKind, StepState, Verdict,
};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Json, Query};
use crate::http::{Access, Route};
use crate::openapi::Doc;

/// Rows of a page.
const ROWS: u32 = 50;
const MOST_ROWS: u32 = 200;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadEvaluations);
    let run = Access::Needs(Permission::RunEvaluations);
    let doc = |summary| Doc::new("improvements", summary);
    vec![
        Route::get("/api/v1/improvements", read, list).doc(
            doc("Improvements of prompts, the newest first")
                .query::<ListQuery>()
                .answer::<Improvements>(),
        ),
        Route::post("/api/v1/improvements", run, start).doc(
            doc("Start a search for a better text of a prompt")
                .body::<ImproveDocument>()
                .answer::<ImprovementJson>()
                .status(201),
        ),
        Route::get("/api/v1/improvements/{id}", read, show)
            .doc(doc("An improvement with every step and what came of it").answer::<Shown>()),
        Route::get("/api/v1/improvements/{id}/steps/{number}", read, step).doc(
            doc("One step: its text, and its answers with their scores").answer::<StepShown>(),
        ),
        Route::post("/api/v1/improvements/{id}/pause", run, pause).doc(
            doc("Begin no more calls; those under way end and count")
                .body::<Reason>()
                .answer::<ImprovementJson>(),
        ),
        Route::post("/api/v1/improvements/{id}/resume", run, resume).doc(
            doc("Let a paused improvement go on, with a raised budget if one is given")
                .body::<Resume>()
                .answer::<ImprovementJson>(),
        ),
        Route::post("/api/v1/improvements/{id}/stop", run, stop).doc(
            doc("End an improvement before its end; the versions that it made stay")
                .body::<Reason>()
                .answer::<ImprovementJson>(),
        ),
        Route::get(
            "/api/v1/improvements/{id}/events",
            read,
            super::events::events,
        )
        .doc(doc("Progress as server-sent events")),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// Only those of this prompt.
    prompt: Option<String>,
    /// Where the page before ended.
    cursor: Option<String>,
    /// How many rows, at most 200.
    limit: Option<u32>,
}

/// An improvement without its steps.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ImprovementJson {
    /// Names it.
    pub id: String,
    /// The prompt.
    pub prompt: String,
    /// The version that it began with.
    pub version: i64,
    /// Where it is.
    pub state: State,
    /// Why it is paused, stopped or failed.
    pub reason: String,
    /// What the search is at.
    pub phase: Phase,
    /// Why the search ended: `budget`, `patience`, `perfect`; empty before.
    pub ended_by: String,
    /// The dataset.
    pub dataset: String,
    /// Its version.
    pub dataset_version: i64,
    /// How many examples are for what.
    pub examples: ExampleCounts,
    /// Calls that were made.
    pub calls: i64,
    /// Calls that may be made.
    pub budget_calls: u64,
    /// What they cost, in US dollars.
    pub spent_usd: f64,
    /// What they may cost.
    pub budget_usd: Option<f64>,
    /// Calls whose price nobody knows.
    pub unpriced_calls: i64,
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
    /// The comparison on what was held out, once it was made.
    pub verdict: Option<Verdict>,
}

/// How many examples are for what.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct ExampleCounts {
    /// What the reflecting model is shown.
    pub train: usize,
    /// What decides during the search.
    pub selection: usize,
    /// What the search never sees.
    pub held_out: usize,
}

impl ImprovementJson {
    /// What is said of an improvement.
    pub fn of(improvement: &Improvement) -> Self {
        let rows = &improvement.pinned.rows;
        let dataset = &improvement.pinned.suite.dataset;
        #[expect(
            clippy::cast_precision_loss,
            reason = "nano-dollars are far below 2^53"
        )]
        let spent_usd = improvement.spent.0 as f64 / 1e9;
        Self {
            id: improvement.id.clone(),
            prompt: improvement.prompt.clone(),
            version: improvement.pinned.prompt.number,
            state: improvement.state,
            reason: improvement.reason.clone(),
            phase: improvement.phase,
            ended_by: improvement.ended_by.clone(),
            dataset: dataset.name.clone(),
            dataset_version: dataset.number,
            examples: ExampleCounts {
                train: rows.train.len(),
                selection: rows.selection.len(),
                held_out: rows.held_out.len(),
            },
            calls: improvement.calls,
            budget_calls: improvement.document.budget_calls,
            spent_usd,
            budget_usd: improvement.document.budget_usd,
            unpriced_calls: improvement.unpriced,
            started_by: improvement.started_by.clone(),
            created_at: improvement.created_at,
            started_at: improvement.started_at,
            ended_at: improvement.ended_at,
            warnings: crate::evaluations::Warning::all_english(&improvement.pinned.warnings),
            verdict: improvement.verdict.clone(),
        }
    }
}

/// One step.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct StepJson {
    /// 0 is the start.
    pub number: i64,
    /// How it came about.
    pub kind: StepKind,
    /// What became of it.
    pub state: StepState,
    /// The text that it comes from.
    pub parent: Option<i64>,
    /// The second parent of a merge.
    pub other: Option<i64>,
    /// Its version of the prompt.
    pub version: Option<i64>,
    /// What the reflecting model thought, or why there was nothing to try.
    pub reason: String,
    /// The places of the examples that it was tried on first.
    pub places: Vec<i64>,
    /// The sum of the parent's scores on these.
    pub before: Option<f64>,
    /// The sum of its own.
    pub after: Option<f64>,
    /// Its mean score on the selection examples.
    pub mean: Option<f64>,
    /// Selection examples that it has a score on.
    pub scored: usize,
    /// Its gain over the start, per selection example.
    pub gain: f64,
    /// Selection examples on which no other text is better.
    pub wins: usize,
    /// Whether parents are drawn from it.
    pub frontier: bool,
    /// The call of the reflecting model.
    pub trace: Option<String>,
    /// What it said, where that was of no use.
    pub reply: Option<String>,
}

impl StepJson {
    /// What is said of a step.
    pub fn of(step: &Step, standing: Option<&Standing>) -> Self {
        let standing = standing.cloned().unwrap_or_default();
        Self {
            number: step.number,
            kind: step.kind,
            state: step.state,
            parent: step.parent,
            other: step.other,
            version: step.version,
            reason: step.reason.clone(),
            places: step.places.clone(),
            before: step.before,
            after: step.after,
            mean: standing.mean,
            scored: standing.scored,
            gain: standing.gain,
            wins: standing.wins.len(),
            frontier: standing.frontier,
            trace: step.trace.clone(),
            reply: step.reply.clone(),
        }
    }
}

/// An improvement with its steps.
#[derive(Serialize, JsonSchema)]
struct Shown {
    improvement: ImprovementJson,
    /// What was asked for.
    document: ImproveDocument,
    /// The step whose text is best so far.
    best: i64,
    /// Every step, the start first.
    steps: Vec<StepJson>,
}

/// A step with its answers.
#[derive(Serialize, JsonSchema)]
struct StepShown {
    step: StepJson,
    /// The prompt's document; none where there was nothing to try.
    content: Option<Value>,
    /// Its answers so far, by place.
    results: Vec<ResultJson>,
}

/// An answer with its scores.
#[derive(Serialize, JsonSchema)]
struct ResultJson {
    /// The number of the example in the dataset's order.
    place: i64,
    /// The example.
    example: String,
    /// What the example is for: `train`, `selection`, `held_out`.
    part: &'static str,
    /// The answer.
    answer: Option<String>,
    /// Why there is none.
    error: Option<String>,
    /// The number that the search goes by.
    score: Option<f64>,
    /// What each evaluator said, in their order.
    scores: Vec<Value>,
    /// The trace of the answer.
    trace: String,
    /// What it cost, in nano-dollars; none when nobody knows.
    cost: Option<i64>,
}

/// What an example is for.
pub(super) fn part(improvement: &Improvement, place: i64) -> &'static str {
    let rows = &improvement.pinned.rows;
    if rows.held_out.contains(&place) {
        "held_out"
    } else if rows.selection.contains(&place) {
        "selection"
    } else {
        "train"
    }
}

impl ResultJson {
    fn of(improvement: &Improvement, row: ResultRow) -> Self {
        let (answer, error) = match row.answer {
            Ok(text) => (Some(text), None),
            Err(why) => (None, Some(why)),
        };
        Self {
            place: row.place,
            example: row.example,
            part: part(improvement, row.place),
            answer,
            error,
            score: row.objective,
            scores: row.scores,
            trace: row.trace,
            cost: row.cost,
        }
    }
}

/// What an event of progress says.
pub(super) async fn progress(desk: Desk<'_>, improvement: &Improvement) -> Result<Value> {
    let Progress {
        steps,
        standings,
        best,
    } = super::progress(desk, improvement).await?;
    let json = ImprovementJson::of(improvement);
    let best_mean = standings.iter().find(|one| one.number == best);
    Ok(json!({
        "state": json.state, "reason": json.reason, "phase": json.phase, "calls": json.calls,
        "budget_calls": json.budget_calls, "spent_usd": json.spent_usd, "steps": steps.len() - 1,
        "accepted": steps.iter().filter(|step| step.state == StepState::Accepted).count() - 1,
        "best": best, "best_mean": best_mean.and_then(|one| one.mean),
    }))
}

#[derive(Serialize, JsonSchema)]
struct Improvements {
    /// The improvements.
    items: Vec<ImprovementJson>,
    /// What to ask the next page with.
    next_cursor: Option<String>,
}

async fn list(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Improvements>> {
    let limit = query.limit.unwrap_or(ROWS).clamp(1, MOST_ROWS);
    let (items, next) = page(
        &app,
        &identity,
        query.prompt.as_deref(),
        query.cursor,
        limit,
    )
    .await?;
    Ok(Answer(Improvements {
        items: items.iter().map(ImprovementJson::of).collect(),
        next_cursor: next,
    }))
}

/// A page of improvements, and what to ask the next one with.
pub(super) async fn page(
    app: &App,
    identity: &Identity,
    prompt: Option<&str>,
    cursor: Option<String>,
    limit: u32,
) -> Result<(Vec<Improvement>, Option<String>)> {
    let before: Option<(i64, String)> = cursor
        .map(|cursor| Cursor::from_client(cursor).key())
        .transpose()
        .map_err(db::CatalogError::from)?;
    let (desk, scope) = (Desk::of(app), identity.scope());
    let mut items = super::list(desk, scope, prompt, before, i64::from(limit) + 1).await?;
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

async fn start(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Json(content): Json<Value>,
) -> Result<(StatusCode, Answer<ImprovementJson>)> {
    let improvement = start_improvement(&app, &identity, &content).await?;
    Ok((
        StatusCode::CREATED,
        Answer(ImprovementJson::of(&improvement)),
    ))
}

/// Starts what a request asks for. What is found becomes versions of a prompt, so whoever
/// starts it must be allowed to write those.
pub(super) async fn start_improvement(
    app: &App,
    identity: &Identity,
    content: &Value,
) -> Result<Improvement> {
    identity.require(Permission::WritePrompts)?;
    super::start(Desk::of(app), identity.scope(), content).await
}

async fn show(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<Answer<Shown>> {
    let desk = Desk::of(&app);
    let improvement = super::find(desk, identity.scope(), &id).await?;
    let progress = super::progress(desk, &improvement).await?;
    let standings = progress.standings.iter().map(Some);
    let steps = progress.steps.iter().zip(standings);
    Ok(Answer(Shown {
        improvement: ImprovementJson::of(&improvement),
        document: improvement.document.clone(),
        best: progress.best,
        steps: steps
            .map(|(step, standing)| StepJson::of(step, standing))
            .collect(),
    }))
}

/// A step of an improvement.
pub(super) fn step_of(progress: &Progress, number: i64) -> Result<(&Step, Option<&Standing>)> {
    let step = progress.steps.iter().find(|step| step.number == number);
    let step = step.ok_or_else(|| {
        AppError::not_found(format!("the improvement has no step {number}")).code("no_such_step")
    })?;
    let standing = progress.standings.iter().find(|one| one.number == number);
    Ok((step, standing))
}

async fn step(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Path((id, number)): Path<(String, i64)>,
) -> Result<Answer<StepShown>> {
    let desk = Desk::of(&app);
    let improvement = super::find(desk, identity.scope(), &id).await?;
    let progress = super::progress(desk, &improvement).await?;
    let (step, standing) = step_of(&progress, number)?;
    let results = super::results(desk, &improvement, number).await?;
    Ok(Answer(StepShown {
        step: StepJson::of(step, standing),
        content: step.content.clone(),
        results: results
            .into_iter()
            .map(|row| ResultJson::of(&improvement, row))
            .collect(),
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Reason {
    /// Why, for the people who look at it later.
    #[serde(default)]
    reason: String,
}

async fn pause(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Path(id): Path<String>,
    Json(request): Json<Reason>,
) -> Result<Answer<ImprovementJson>> {
    let done = super::pause(Desk::of(&app), identity.scope(), &id, &request.reason).await?;
    Ok(Answer(ImprovementJson::of(&done)))
}

async fn stop(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Path(id): Path<String>,
    Json(request): Json<Reason>,
) -> Result<Answer<ImprovementJson>> {
    let done = super::stop(Desk::of(&app), identity.scope(), &id, &request.reason).await?;
    Ok(Answer(ImprovementJson::of(&done)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Resume {
    /// The calls that may be made in all, in place of those that were allowed before.
    #[serde(default)]
    budget_calls: Option<u64>,
    /// The US dollars that may be spent in all.
    #[serde(default)]
    budget_usd: Option<f64>,
}

async fn resume(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Path(id): Path<String>,
    Json(request): Json<Resume>,
) -> Result<Answer<ImprovementJson>> {
    let raise = Raise {
        budget_calls: request.budget_calls,
        budget_usd: request.budget_usd,
    };
    let done = super::resume(Desk::of(&app), identity.scope(), &id, raise).await?;
    Ok(Answer(ImprovementJson::of(&done)))
}
