//! Live evaluations over JSON. A name holds slashes, so it is one percent-encoded segment.

use axum::Json as Answer;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use base::Cursor;
use db::Scope;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::store::{self, ScoreState, Scored};
use super::{Figures, Found, HourRow, LiveDocument, LiveState};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Json, Query};
use crate::http::{Access, Route};
use crate::openapi::Doc;

/// Rows of a page.
const ROWS: u32 = 50;
const MOST_ROWS: u32 = 200;
/// The longest range of figures, in hours.
const MOST_HOURS: i64 = 24 * 31;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadEvaluations);
    let run = Access::Needs(Permission::RunEvaluations);
    let doc = |summary| Doc::new("live evaluations", summary);
    vec![
        Route::get("/api/v1/live-evaluations", read, list).doc(
            doc("Live evaluations with what became of the traces of the last 24 hours")
                .answer::<LiveList>(),
        ),
        Route::post("/api/v1/live-evaluations", run, save).doc(
            doc("Save a version of a live evaluation; it counts from now on")
                .body::<Save>()
                .answer::<LiveJson>()
                .status(201),
        ),
        Route::get("/api/v1/live-evaluations/{name}", read, show).doc(
            doc("A live evaluation and its figures by the hour")
                .query::<ShowQuery>()
                .answer::<Shown>(),
        ),
        Route::get("/api/v1/live-evaluations/{name}/traces", read, traces).doc(
            doc("The traces that were taken, the newest first")
                .query::<TracesQuery>()
                .answer::<Traces>(),
        ),
        Route::post("/api/v1/live-evaluations/{name}/pause", run, pause).doc(
            doc("Take no more traces; those that come meanwhile are never taken")
                .body::<Reason>()
                .answer::<LiveJson>(),
        ),
        Route::post("/api/v1/live-evaluations/{name}/resume", run, resume).doc(
            doc("Take traces again, those that come from now on")
                .body::<Reason>()
                .answer::<LiveJson>(),
        ),
    ]
}

/// An evaluator, as it is meant now.
#[derive(Debug, Serialize, JsonSchema)]
struct InstrumentJson {
    /// Its name.
    name: String,
    /// Its version.
    version: i64,
    /// Its content: what scores are told apart by.
    digest: String,
    /// What its numbers are signed with.
    signature: String,
}

/// A live evaluation.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct LiveJson {
    /// Its name.
    name: String,
    /// The version that counts.
    version: i64,
    /// That version's content.
    digest: String,
    /// What it says.
    content: LiveDocument,
    /// Whether traces are evaluated.
    state: LiveState,
    /// Why they are not, where its evaluator cannot work.
    problem: Option<String>,
    /// Why it was held or let go on, by whom, and when (microseconds since the epoch).
    held: Option<HeldJson>,
    /// Its evaluator.
    evaluator: Option<InstrumentJson>,
    /// What became of the traces of the last 24 hours.
    last_day: Figures,
}

/// Who held a live evaluation, or let it go on.
#[derive(Debug, Serialize, JsonSchema)]
struct HeldJson {
    /// Why.
    reason: String,
    /// Who.
    by: String,
    /// When.
    at: i64,
}

/// The figures of the last 24 hours.
pub(super) async fn last_day(app: &App, found: &Found) -> Result<Figures> {
    let from = app.clock.now_us() - super::DAY_US;
    super::figures(app, found.project, found.name.as_str(), (from, i64::MAX)).await
}

async fn json(app: &App, found: Found) -> Result<LiveJson> {
    let last_day = last_day(app, &found).await?;
    let state = found.state();
    let held = found
        .held
        .filter(|held| held.paused || !held.reason.is_empty());
    let (evaluator, problem) = match found.instrument {
        Ok(instrument) => {
            let evaluator = InstrumentJson {
                signature: instrument.document.signature(),
                name: instrument.name,
                version: instrument.version,
                digest: instrument.digest.to_string(),
            };
            (Some(evaluator), None)
        }
        Err(problem) => (None, Some(problem)),
    };
    Ok(LiveJson {
        name: found.name.to_string(),
        version: found.version.number,
        digest: found.version.digest.to_string(),
        content: found.document,
        state,
        problem,
        held: held.map(|held| HeldJson {
            reason: held.reason,
            by: held.by,
            at: held.at,
        }),
        evaluator,
        last_day,
    })
}

#[derive(Serialize, JsonSchema)]
struct LiveList {
    /// By name.
    items: Vec<LiveJson>,
    /// Always none: a project has a few.
    next_cursor: Option<String>,
}

async fn list(State(app): State<App>, identity: Identity) -> Result<Answer<LiveList>> {
    let mut items = Vec::new();
    for found in super::all(&app, identity.scope()).await? {
        items.push(json(&app, found).await?);
    }
    Ok(Answer(LiveList {
        items,
        next_cursor: None,
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Save {
    /// The live evaluation's name; `/` makes folders.
    name: String,
    /// The document.
    #[schemars(with = "LiveDocument")]
    content: Value,
    /// What this version changes.
    #[serde(default)]
    message: String,
}

async fn save(
    State(app): State<App>,
    identity: Identity,
    Json(new): Json<Save>,
) -> Result<(StatusCode, Answer<LiveJson>)> {
    let name = super::parse_name(&new.name)?;
    let found = super::save(&app, identity.scope(), &name, &new.content, &new.message).await?;
    Ok((StatusCode::CREATED, Answer(json(&app, found).await?)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ShowQuery {
    /// How many hours back, at most 744; 24 if absent.
    hours: Option<i64>,
}

#[derive(Serialize, JsonSchema)]
struct Shown {
    /// The live evaluation.
    live_evaluation: LiveJson,
    /// Its figures by the hour, oldest first; hours without traces are left out.
    hours: Vec<HourRow>,
}

/// The figures by the hour.
pub(super) async fn hours(app: &App, scope: Scope, name: &str, hours: i64) -> Result<Vec<HourRow>> {
    let from = app.clock.now_us() - hours.clamp(1, MOST_HOURS) * store::HOUR_US;
    store::hours(&app.db, scope.project, name, from).await
}

async fn show(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Query(query): Query<ShowQuery>,
) -> Result<Answer<Shown>> {
    let name = super::parse_name(&name)?;
    let scope = identity.scope();
    let found = super::find(&app, scope, &name).await?;
    let hours = hours(&app, scope, name.as_str(), query.hours.unwrap_or(24)).await?;
    Ok(Answer(Shown {
        live_evaluation: json(&app, found).await?,
        hours,
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TracesQuery {
    /// Only those that are `pending`, `scored`, `error` or `unscored`.
    pub(super) state: Option<String>,
    /// Where the page before ended.
    pub(super) cursor: Option<String>,
    /// How many rows, at most 200.
    pub(super) limit: Option<u32>,
}

/// A trace that was taken.
#[derive(Serialize, JsonSchema)]
struct TraceJson {
    /// The trace.
    trace_id: String,
    /// How it was judged.
    state: ScoreState,
    /// The score.
    value: Option<f64>,
    /// The word that the score stands for.
    label: Option<String>,
    /// The evaluator's reason, or why there is no score.
    reason: String,
    /// The trace of the evaluator's first call.
    judge_trace_id: Option<String>,
    /// The evaluator's content.
    evaluator: String,
    /// What it cost, in US dollars.
    cost_usd: f64,
    /// When it was taken, microseconds since the epoch.
    at: i64,
}

#[derive(Serialize, JsonSchema)]
struct Traces {
    /// The newest first.
    items: Vec<TraceJson>,
    /// What to ask the next page with.
    next_cursor: Option<String>,
}

/// A page of the traces that were taken, and where the next one begins.
pub(super) async fn page(
    app: &App,
    scope: Scope,
    name: &str,
    query: TracesQuery,
) -> Result<(Vec<Scored>, Option<String>)> {
    let state = match query.state.as_deref() {
        None | Some("") => None,
        Some(word) => Some(ScoreState::of(word).ok_or_else(|| {
            AppError::invalid("a state is pending, scored, error or unscored").at("state")
        })?),
    };
    let before: Option<(i64, String)> = query
        .cursor
        .map(|cursor| Cursor::from_client(cursor).key())
        .transpose()
        .map_err(db::CatalogError::from)?;
    let limit = query.limit.unwrap_or(ROWS).clamp(1, MOST_ROWS);
    let wanted = i64::from(limit) + 1;
    let mut rows = store::scored(&app.db, scope.project, name, state, before, wanted).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more);
    let next = next.map(|last| {
        Cursor::new(&(last.taken_at, last.trace.clone()))
            .as_str()
            .to_owned()
    });
    Ok((rows, next))
}

async fn traces(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Query(query): Query<TracesQuery>,
) -> Result<Answer<Traces>> {
    let name = super::parse_name(&name)?;
    let scope = identity.scope();
    super::find(&app, scope, &name).await?;
    let (rows, next_cursor) = page(&app, scope, name.as_str(), query).await?;
    let row = |row: Scored| TraceJson {
        trace_id: row.trace,
        state: row.state,
        value: row.value,
        label: row.label,
        reason: row.reason,
        judge_trace_id: row.judge,
        evaluator: row.evaluator.to_string(),
        #[expect(
            clippy::cast_precision_loss,
            reason = "nano-dollars are far below 2^53"
        )]
        cost_usd: row.cost as f64 / 1e9,
        at: row.taken_at,
    };
    Ok(Answer(Traces {
        items: rows.into_iter().map(row).collect(),
        next_cursor,
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Reason {
    /// Why, for the audit log.
    #[serde(default)]
    reason: String,
}

async fn pause(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Json(body): Json<Reason>,
) -> Result<Answer<LiveJson>> {
    let name = super::parse_name(&name)?;
    let found = super::hold(&app, identity.scope(), &name, true, &body.reason).await?;
    Ok(Answer(json(&app, found).await?))
}

async fn resume(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Json(body): Json<Reason>,
) -> Result<Answer<LiveJson>> {
    let name = super::parse_name(&name)?;
    let found = super::hold(&app, identity.scope(), &name, false, &body.reason).await?;
    Ok(Answer(json(&app, found).await?))
}
