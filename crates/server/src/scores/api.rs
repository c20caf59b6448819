//! The JSON routes about scores.

use axum::Json as JsonAnswer;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use super::NewScore;
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::Result;
use crate::extract::{Json, Query};
use crate::http::{Access, Route};
use crate::openapi::Doc;
use crate::traces::{ListOf, ScoreJson};

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::post(
            "/api/v1/scores",
            Access::Needs(Permission::WriteScores),
            create,
        )
        .doc(
            Doc::new(
                "scores",
                "Judge a trace or a span; stored when this answers",
            )
            .body::<NewScore>()
            .answer::<ScoreJson>()
            .status(201),
        ),
        Route::get(
            "/api/v1/scores",
            Access::Needs(Permission::ReadTraces),
            list,
        )
        .doc(
            Doc::new("scores", "Current scores of a trace")
                .query::<ListParams>()
                .answer::<ListOf<ScoreJson>>(),
        ),
    ]
}

async fn create(
    State(app): State<App>,
    identity: Identity,
    Json(new): Json<NewScore>,
) -> Result<(StatusCode, JsonAnswer<ScoreJson>)> {
    let score = super::create_score(&app, &identity, new).await?;
    Ok((StatusCode::CREATED, JsonAnswer(ScoreJson::of(&score))))
}

/// What `GET /api/v1/scores` takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListParams {
    /// The trace.
    trace_id: String,
}

async fn list(
    State(app): State<App>,
    identity: Identity,
    Query(params): Query<ListParams>,
) -> Result<JsonAnswer<ListOf<ScoreJson>>> {
    let trace_id = crate::traces::trace_id(&params.trace_id)?;
    let trace = crate::traces::find_trace(&app, identity.project.id, trace_id).await?;
    Ok(JsonAnswer(ListOf {
        items: trace.scores.iter().map(ScoreJson::of).collect(),
        next_cursor: None,
    }))
}
