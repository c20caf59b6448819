//! Models and choices over JSON.

use axum::Json as Answer;
use axum::extract::{Path, State as Extracted};
use axum::http::StatusCode;
use base::Cursor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::properties::Wanted;
use super::{
    Choice, ChoiceLimits, ChoiceResult, ChoiceTask, Cited, Desk, Excluded, KnownModel, Round,
    Subject, Weights, cite, usd,
};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Json, Query};
use crate::http::{Access, Route};
use crate::openapi::Doc;
use crate::runs::State;

/// Rows of a page.
const ROWS: u32 = 50;
const MOST_ROWS: u32 = 200;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadEvaluations);
    let run = Access::Needs(Permission::RunEvaluations);
    let doc = |summary| Doc::new("choices", summary);
    vec![
        Route::get(
            "/api/v1/model-catalog",
            Access::Needs(Permission::ReadModels),
            models,
        )
        .doc(
            doc("Models with their properties and prices, those that can be called first")
                .query::<ModelsQuery>()
                .answer::<Models>(),
        ),
        Route::get("/api/v1/choices", read, list).doc(
            doc("Choices of a model, the newest first")
                .query::<ListQuery>()
                .answer::<Choices>(),
        ),
        Route::post("/api/v1/choices", run, start).doc(
            doc("Start a choice: a shortlist on growing samples, then the finalists on everything")
                .body::<StartChoice>()
                .answer::<ChoiceJson>()
                .status(201),
        ),
        Route::get("/api/v1/choices/{id}", read, show).doc(
            doc("A choice with its rounds and result, weighed otherwise if asked")
                .query::<WeighQuery>()
                .answer::<ChoiceShown>(),
        ),
        Route::post("/api/v1/choices/{id}/pause", run, pause).doc(
            doc("Hold a choice and the evaluation that it waits for")
                .body::<Reason>()
                .answer::<ChoiceJson>(),
        ),
        Route::post("/api/v1/choices/{id}/resume", run, resume).doc(
            doc("Let a paused choice go on, with a raised budget if one is given")
                .body::<Resume>()
                .answer::<ChoiceJson>(),
        ),
        Route::post("/api/v1/choices/{id}/stop", run, stop).doc(
            doc("End a choice before its end; what was measured stays")
                .body::<Reason>()
                .answer::<ChoiceJson>(),
        ),
        Route::post(
            "/api/v1/choices/{id}/evidence",
            Access::Needs(Permission::Propose),
            evidence,
        )
        .doc(
            doc("Give a choice as evidence for a release or a prompt, under the choice's name")
                .body::<Subject>()
                .answer::<Cited>()
                .status(201),
        ),
    ]
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ModelsQuery {
    /// Only models whose name, title or maker holds this.
    q: Option<String>,
    /// `true`: only those that can be called; `false`: only the others.
    callable: Option<bool>,
    /// `true`: open weights; `false`: not.
    open: Option<bool>,
    /// Only of this licence.
    licence: Option<String>,
    /// Only of this maker.
    vendor: Option<String>,
    /// Only those that run there.
    region: Option<String>,
    /// Only those that are meant for this language.
    language: Option<String>,
    /// Only those that take this.
    input: Option<String>,
    /// `true`: can be fine-tuned; `false`: not.
    tunable: Option<bool>,
    /// At least this much context.
    context_tokens: Option<u64>,
    /// At most this price for a million prompt tokens, in US dollars.
    input_usd: Option<f64>,
    /// At most this price for a million completion tokens, in US dollars.
    output_usd: Option<f64>,
}

#[derive(Serialize, JsonSchema)]
struct Models {
    /// The models.
    items: Vec<KnownModel>,
}

async fn models(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Query(query): Query<ModelsQuery>,
) -> Result<Answer<Models>> {
    let list = |word: Option<String>| word.into_iter().collect();
    let wanted = Wanted {
        open: query.open,
        licences: list(query.licence),
        vendors: list(query.vendor),
        regions: list(query.region),
        languages: list(query.language),
        input: list(query.input),
        tunable: query.tunable,
        context_tokens: query.context_tokens,
        input_usd: query.input_usd,
        output_usd: query.output_usd,
    };
    let mut items = super::known_models(&app, identity.scope()).await?;
    items.retain(|model| {
        wanted.unmet(model).is_empty()
            && query
                .callable
                .is_none_or(|callable| callable == model.callable)
            && query.q.as_deref().is_none_or(|text| holds(model, text))
    });
    Ok(Answer(Models { items }))
}

/// Whether a model's name, title or maker holds a text.
pub(super) fn holds(model: &KnownModel, text: &str) -> bool {
    let text = text.trim().to_lowercase();
    let card = &model.properties;
    let mut texts = [Some(&model.id), card.title.as_ref(), card.vendor.as_ref()]
        .into_iter()
        .flatten();
    texts.any(|one| one.to_lowercase().contains(&text))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// Where the page before ended.
    cursor: Option<String>,
    /// How many rows, at most 200.
    limit: Option<u32>,
}

/// A choice.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ChoiceJson {
    /// Names it.
    pub id: String,
    /// What its result is called in the catalog.
    pub name: String,
    /// Where it is.
    pub state: State,
    /// Why it is paused, stopped or failed.
    pub reason: String,
    /// What was asked, with its references at the versions that are measured.
    pub task: ChoiceTask,
    /// How many examples there are in all.
    pub examples: u64,
    /// Models that were left out by their properties.
    pub excluded: Vec<Excluded>,
    /// The rounds so far; the last one may be under way.
    pub rounds: Vec<Round>,
    /// What rounds that are done have cost, in US dollars.
    pub spent_usd: f64,
    /// What it may spend, in US dollars.
    pub budget_usd: Option<f64>,
    /// The version of the result in the catalog.
    pub version: Option<i64>,
    /// Who started it.
    pub started_by: String,
    /// When it was asked for, microseconds since the epoch.
    pub created_at: i64,
    /// When it ended.
    pub ended_at: Option<i64>,
}

impl ChoiceJson {
    /// What is said of a choice.
    pub fn of(choice: &Choice) -> Self {
        Self {
            id: choice.id.clone(),
            name: choice.name.clone(),
            state: choice.state,
            reason: choice.reason.clone(),
            task: choice.task.clone(),
            examples: choice.progress.examples,
            excluded: choice.progress.excluded.clone(),
            rounds: choice.progress.rounds.clone(),
            spent_usd: choice
                .progress
                .rounds
                .iter()
                .map(|round| round.spent_usd)
                .sum(),
            budget_usd: choice.budget.map(usd),
            version: choice.version,
            started_by: choice.started_by.clone(),
            created_at: choice.created_at,
            ended_at: choice.ended_at,
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct Choices {
    /// The choices.
    items: Vec<ChoiceJson>,
    /// What to ask the next page with.
    next_cursor: Option<String>,
}

async fn list(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Choices>> {
    let limit = query.limit.unwrap_or(ROWS).clamp(1, MOST_ROWS);
    let (items, next_cursor) = page(&app, &identity, query.cursor, limit).await?;
    Ok(Answer(Choices {
        items: items.iter().map(ChoiceJson::of).collect(),
        next_cursor,
    }))
}

/// A page of choices, and what to ask the next one with.
pub(super) async fn page(
    app: &App,
    identity: &Identity,
    cursor: Option<String>,
    limit: u32,
) -> Result<(Vec<Choice>, Option<String>)> {
    let before: Option<(i64, String)> = cursor
        .map(|cursor| Cursor::from_client(cursor).key())
        .transpose()
        .map_err(db::CatalogError::from)?;
    let scope = identity.scope();
    let mut items = super::list(Desk::of(app), scope, before, i64::from(limit) + 1).await?;
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

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StartChoice {
    /// What the result is called in the catalog, and the evidence that cites it.
    name: String,
    /// What is asked.
    #[schemars(with = "ChoiceTask")]
    task: Value,
}

async fn start(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Json(request): Json<StartChoice>,
) -> Result<(StatusCode, Answer<ChoiceJson>)> {
    let choice = start_choice(&app, &identity, &request.name, &request.task).await?;
    Ok((StatusCode::CREATED, Answer(ChoiceJson::of(&choice))))
}

/// Starts what a request asks for.
pub(super) async fn start_choice(
    app: &App,
    identity: &Identity,
    name: &str,
    task: &Value,
) -> Result<Choice> {
    // The result is a document of the catalog.
    identity.require(Permission::WriteCatalog)?;
    let name: db::Name = name.trim().parse().map_err(|problem: db::Problem| {
        AppError::invalid(problem.message)
            .code("bad_name")
            .at("name")
    })?;
    super::start(Desk::of(app), identity.scope(), &name, task).await
}

#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WeighQuery {
    /// The weight of quality; the task's when absent.
    quality: Option<f64>,
    /// The weight of speed.
    speed: Option<f64>,
    /// The weight of cost.
    cost: Option<f64>,
    /// Another limit on the 95th percentile of latency, in milliseconds.
    p95_latency_ms: Option<f64>,
    /// Another limit on the cost of a thousand answers, in US dollars.
    usd_per_1000: Option<f64>,
    /// Another limit on quality.
    least_quality: Option<f64>,
}

/// A choice with what it has shown.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ChoiceShown {
    /// The choice.
    pub choice: ChoiceJson,
    /// What it has shown, by the weights and limits that were asked; none before its end.
    pub result: Option<ChoiceResult>,
}

async fn show(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Path(id): Path<String>,
    Query(query): Query<WeighQuery>,
) -> Result<Answer<ChoiceShown>> {
    let desk = Desk::of(&app);
    let choice = super::find(desk, identity.scope(), &id).await?;
    let asked = &choice.task;
    let weights = Weights {
        quality: query.quality.unwrap_or(asked.weights.quality),
        speed: query.speed.unwrap_or(asked.weights.speed),
        cost: query.cost.unwrap_or(asked.weights.cost),
    };
    let limits = ChoiceLimits {
        p95_latency_ms: query.p95_latency_ms.or(asked.limits.p95_latency_ms),
        usd_per_1000: query.usd_per_1000.or(asked.limits.usd_per_1000),
        quality: query.least_quality.or(asked.limits.quality),
        properties: asked.limits.properties.clone(),
    };
    let result = super::result_of(desk, &choice, weights, &limits).await?;
    Ok(Answer(ChoiceShown {
        choice: ChoiceJson::of(&choice),
        result,
    }))
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
) -> Result<Answer<ChoiceJson>> {
    let changed = super::pause(Desk::of(&app), identity.scope(), &id, &body.reason).await?;
    Ok(Answer(ChoiceJson::of(&changed)))
}

async fn stop(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Path(id): Path<String>,
    Json(body): Json<Reason>,
) -> Result<Answer<ChoiceJson>> {
    let changed = super::stop(Desk::of(&app), identity.scope(), &id, &body.reason).await?;
    Ok(Answer(ChoiceJson::of(&changed)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Resume {
    /// A new budget for all rounds together in US dollars, for one that is used up.
    #[serde(default)]
    budget_usd: Option<f64>,
}

async fn resume(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Path(id): Path<String>,
    Json(body): Json<Resume>,
) -> Result<Answer<ChoiceJson>> {
    let changed = super::resume(Desk::of(&app), identity.scope(), &id, body.budget_usd).await?;
    Ok(Answer(ChoiceJson::of(&changed)))
}

async fn evidence(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Path(id): Path<String>,
    Json(subject): Json<Subject>,
) -> Result<(StatusCode, Answer<Cited>)> {
    let cited = give_evidence(&app, &identity, &id, &subject).await?;
    Ok((StatusCode::CREATED, Answer(cited)))
}

/// Gives a choice as evidence.
pub(super) async fn give_evidence(
    app: &App,
    identity: &Identity,
    id: &str,
    subject: &Subject,
) -> Result<Cited> {
    let desk = Desk::of(app);
    let choice = super::find(desk, identity.scope(), id).await?;
    let project = crate::projects::name_of(&app.db, identity.project.id).await?;
    let link = format!("/{project}/choices/show?id={}", choice.id);
    cite::cite(desk, identity.scope(), &choice, subject, &link).await
}
