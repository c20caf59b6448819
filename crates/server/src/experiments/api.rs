//! Experiments over JSON. A name holds slashes, so it is one percent-encoded segment.

use axum::Json as Answer;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Desk, End, ExperimentDocument, Found, Promoted, Results, Run, RunState};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::catalog::rows::{PageQuery, Saved, cursor_text};
use crate::error::Result;
use crate::extract::{Json, Query};
use crate::http::{Access, Route};
use crate::openapi::Doc;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadCatalog);
    let write = Access::Needs(Permission::WriteCatalog);
    let run = Access::Needs(Permission::RunExperiments);
    let doc = |summary| Doc::new("experiments", summary);
    vec![
        Route::get("/api/v1/experiments", read, list).doc(
            doc("Experiments by name, each with its newest run")
                .query::<PageQuery>()
                .answer::<Experiments>(),
        ),
        Route::post("/api/v1/experiments", write, save).doc(
            doc("Save a version of an experiment")
                .body::<Save>()
                .answer::<Saved>()
                .status(201),
        ),
        Route::get("/api/v1/experiments/{name}", read, show).doc(
            doc("An experiment: its document and its runs")
                .query::<ShowQuery>()
                .answer::<Experiment>(),
        ),
        Route::get("/api/v1/experiments/{name}/results", read, results).doc(
            doc("What a run has shown so far; the newest run if none is named")
                .query::<ResultsQuery>()
                .answer::<RunResults>(),
        ),
        Route::post("/api/v1/experiments/{name}/start", run, start).doc(
            doc("Start splitting calls, in effect on the next request")
                .body::<Start>()
                .answer::<RunJson>()
                .status(201),
        ),
        Route::post("/api/v1/experiments/{name}/stop", run, stop).doc(
            doc("End the run; calls follow the pointer again")
                .body::<Stop>()
                .answer::<RunJson>(),
        ),
        Route::post("/api/v1/experiments/{name}/promote", run, promote).doc(
            doc("Move the target's pointer to an arm and end the run")
                .body::<Promote>()
                .answer::<PromotedJson>(),
        ),
    ]
}

/// A run without its figures.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RunJson {
    /// Names it.
    id: String,
    /// The version of the experiment's document.
    version: i64,
    /// What is split: `prompt:NAME@LABEL` or `app:NAME@ENVIRONMENT`.
    target: String,
    /// Where it is.
    state: RunState,
    /// The arms with their present shares.
    arms: Vec<ArmJson>,
    /// The step of a canary's ramp, from 1.
    step: i64,
    /// Who started it.
    started_by: String,
    /// When, microseconds since the epoch.
    started_at: i64,
    /// Who ended it; `system` for guards.
    ended_by: Option<String>,
    /// When, microseconds since the epoch.
    ended_at: Option<i64>,
    /// Why it was started or ended.
    reason: String,
    /// The arm that was promoted.
    winner: Option<String>,
}

/// An arm of a run.
#[derive(Debug, Serialize, JsonSchema)]
struct ArmJson {
    /// Its name.
    name: String,
    /// The version that it stands for.
    version: i64,
    /// That version's content.
    digest: String,
    /// Its present share; of a shadow, the share of calls that it gets copies of.
    weight: f64,
    /// Whether the others are compared with it.
    control: bool,
}

impl From<Run> for RunJson {
    fn from(run: Run) -> Self {
        let arm = |arm: super::RunArm| ArmJson {
            name: arm.name,
            version: arm.number,
            digest: arm.digest.to_string(),
            weight: arm.weight,
            control: arm.control,
        };
        Self {
            id: run.id,
            version: run.version,
            target: run.target,
            state: run.state,
            arms: run.arms.into_iter().map(arm).collect(),
            step: run.step + 1,
            started_by: run.started_by,
            started_at: run.started_at,
            ended_by: run.ended_by,
            ended_at: run.ended_at,
            reason: run.reason,
            winner: run.winner,
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct ExperimentRow {
    /// The experiment's name.
    name: String,
    /// The number of its newest version.
    version: i64,
    /// Its newest run.
    run: Option<RunJson>,
}

#[derive(Serialize, JsonSchema)]
struct Experiments {
    /// The experiments, by name.
    items: Vec<ExperimentRow>,
    /// What to ask the next page with.
    next_cursor: Option<String>,
}

async fn list(
    State(app): State<App>,
    identity: Identity,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Experiments>> {
    let scope = identity.scope();
    let names = super::names(&app.catalog, scope, &query.page()).await?;
    let mut runs = super::recent_runs(Desk::of(&app), scope).await?;
    let mut items = Vec::new();
    for (name, version) in names.items {
        let newest = runs.iter().position(|run| run.experiment == name.as_str());
        items.push(ExperimentRow {
            name: name.as_str().to_owned(),
            version,
            run: newest.map(|at| runs.swap_remove(at).into()),
        });
    }
    Ok(Answer(Experiments {
        items,
        next_cursor: cursor_text(names.next),
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Save {
    /// The experiment's name; `/` makes folders.
    name: String,
    /// The document.
    #[schemars(with = "ExperimentDocument")]
    content: Value,
    /// What this version changes.
    #[serde(default)]
    message: String,
}

async fn save(
    State(app): State<App>,
    identity: Identity,
    Json(new): Json<Save>,
) -> Result<(StatusCode, Answer<Saved>)> {
    let name = super::parse_name(&new.name)?;
    let desk = Desk::of(&app);
    let saved =
        super::save_version(desk, identity.scope(), &name, &new.content, &new.message).await?;
    Ok((StatusCode::CREATED, Answer(Saved::from(&saved))))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ShowQuery {
    /// The version; the newest if absent.
    version: Option<i64>,
}

#[derive(Serialize, JsonSchema)]
struct Experiment {
    /// Its name.
    name: String,
    /// The version that is shown.
    version: i64,
    /// The content's identity.
    digest: String,
    /// What it says.
    content: ExperimentDocument,
    /// Its runs, newest first.
    runs: Vec<RunJson>,
}

async fn show(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Query(query): Query<ShowQuery>,
) -> Result<Answer<Experiment>> {
    let name = super::parse_name(&name)?;
    let (desk, scope) = (Desk::of(&app), identity.scope());
    let Found { version, document } = super::find(desk, scope, &name, query.version).await?;
    let runs = super::runs(desk, scope, &name).await?;
    Ok(Answer(Experiment {
        name: name.as_str().to_owned(),
        version: version.number,
        digest: version.digest.to_string(),
        content: document,
        runs: runs.into_iter().map(RunJson::from).collect(),
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ResultsQuery {
    /// The run; the newest if absent.
    run: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct RunResults {
    /// The run.
    run: RunJson,
    /// What it has shown.
    results: Results,
}

async fn results(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Query(query): Query<ResultsQuery>,
) -> Result<Answer<RunResults>> {
    let name = super::parse_name(&name)?;
    let (run, document) = super::find_run(
        Desk::of(&app),
        identity.scope(),
        &name,
        query.run.as_deref(),
    )
    .await?;
    let results = super::results(&app, &run, &document).await?;
    Ok(Answer(RunResults {
        run: run.into(),
        results: (*results).clone(),
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Start {
    /// The version of the experiment; the newest if absent.
    version: Option<i64>,
    /// Why.
    #[serde(default)]
    reason: String,
}

async fn start(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Json(start): Json<Start>,
) -> Result<(StatusCode, Answer<RunJson>)> {
    let name = super::parse_name(&name)?;
    let (desk, scope) = (Desk::of(&app), identity.scope());
    let run = super::start(desk, scope, &name, start.version, &start.reason).await?;
    app.refresh_plan().await?;
    Ok((StatusCode::CREATED, Answer(run.into())))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Stop {
    /// Why.
    #[serde(default)]
    reason: String,
}

async fn stop(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Json(stop): Json<Stop>,
) -> Result<Answer<RunJson>> {
    let name = super::parse_name(&name)?;
    Ok(Answer(
        stop_run(&app, &identity, &name, &stop.reason).await?.into(),
    ))
}

/// Ends the run with the figures that it has now.
pub(super) async fn stop_run(
    app: &App,
    identity: &Identity,
    name: &db::Name,
    reason: &str,
) -> Result<Run> {
    let (desk, scope) = (Desk::of(app), identity.scope());
    let run = super::current_run(desk, scope, name).await?;
    let document = super::find(desk, scope, name, Some(run.version))
        .await?
        .document;
    // Figures must not be in the way of stopping.
    let results = super::results(app, &run, &document).await.ok();
    let ending = End {
        reason,
        results: results.as_deref(),
        ..End::default()
    };
    let ended = super::end(desk, scope, &run, ending).await?;
    app.refresh_plan().await?;
    Ok(ended)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Promote {
    /// The arm to promote.
    arm: String,
    /// Why.
    #[serde(default)]
    reason: String,
}

#[derive(Serialize, JsonSchema)]
struct PromotedJson {
    /// The run, ended.
    run: RunJson,
    /// The proposal that waits for approvals, where the label is protected; absent where it moved.
    proposal: Option<String>,
}

async fn promote(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Json(promote): Json<Promote>,
) -> Result<Answer<PromotedJson>> {
    let name = super::parse_name(&name)?;
    let (run, promoted) =
        promote_arm(&app, &identity, &name, &promote.arm, &promote.reason).await?;
    Ok(Answer(PromotedJson {
        run: run.into(),
        proposal: match promoted {
            Promoted::Moved => None,
            Promoted::Proposed(id) => Some(id),
        },
    }))
}

/// Promotes an arm with the figures that the run has now. It moves a pointer, so it needs
/// the permission to do that as well.
pub(super) async fn promote_arm(
    app: &App,
    identity: &Identity,
    name: &db::Name,
    arm: &str,
    reason: &str,
) -> Result<(Run, Promoted)> {
    identity.require(Permission::Propose)?;
    let (desk, scope) = (Desk::of(app), identity.scope());
    let run = super::current_run(desk, scope, name).await?;
    let document = super::find(desk, scope, name, Some(run.version))
        .await?
        .document;
    let results = super::results(app, &run, &document).await.ok();
    let done = super::promote(desk, scope, name, arm, reason, results.as_deref()).await?;
    app.refresh_plan().await?;
    Ok(done)
}
