//! Trees over JSON, so that a pipeline can plan and apply on a server that it has
//! no data directory of.

use axum::Json as Answer;
use axum::extract::State;
use base::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::apply::{Applied, ApplyRequest, impossible};
use super::plan::{Action, Options, Plan};
use super::{Files, Finding, Tree};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::Json;
use crate::http::{Access, Route};
use crate::openapi::Doc;

/// The largest tree that is sent in one request.
const MAX_BODY_BYTES: usize = 64 << 20;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadCatalog);
    let write = Access::Needs(Permission::WriteCatalog);
    vec![
        Route::get("/api/v1/gitops/export", read, export)
            .doc(Doc::new("gitops", "The project as a tree of files").answer::<ExportedTree>()),
        Route::post("/api/v1/gitops/plan", write, plan)
            .body_limit(MAX_BODY_BYTES)
            .doc(
                Doc::new("gitops", "What applying a tree would do; changes nothing")
                    .body::<SentTree>()
                    .answer::<Planned>(),
            ),
        Route::post("/api/v1/gitops/apply", write, apply)
            .body_limit(MAX_BODY_BYTES)
            .doc(
                Doc::new(
                    "gitops",
                    "Apply a tree in one transaction; protected labels become proposals",
                )
                .body::<SentTree>()
                .answer::<Applied>(),
            ),
    ]
}

/// A tree.
#[derive(Serialize, JsonSchema)]
struct ExportedTree {
    /// Path → text.
    files: Files,
}

/// A tree, and what may be done with it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SentTree {
    /// Path → text.
    files: Files,
    /// Delete names and remove labels that the tree does not have.
    #[serde(default)]
    allow_delete: bool,
    /// Undo what was changed in the project since the last apply.
    #[serde(default)]
    overwrite_drift: bool,
    /// Apply only if the plan is still this one: the field `digest` of a plan.
    expected: Option<String>,
    /// Why, for the versions and moves.
    message: Option<String>,
}

/// A plan, and what makes it this one.
#[derive(Serialize, JsonSchema)]
struct Planned {
    /// What `expected` of an apply compares.
    digest: Option<String>,
    /// The plan. Where the tree itself is wrong, it has findings and no steps.
    #[serde(flatten)]
    plan: Plan,
}

impl SentTree {
    fn options(&self) -> Options {
        Options {
            allow_delete: self.allow_delete,
            overwrite_drift: self.overwrite_drift,
        }
    }

    async fn read(&mut self, app: &App) -> Result<(Tree, Vec<Finding>)> {
        let files = std::mem::take(&mut self.files);
        let kinds = app.catalog.kinds().clone();
        let checked = tokio::task::spawn_blocking(move || super::parse(&files, &kinds))
            .await
            .map_err(AppError::internal)?;
        Ok((checked.tree, checked.findings))
    }
}

async fn export(State(app): State<App>, identity: Identity) -> Result<Answer<ExportedTree>> {
    identity.require(Permission::ReadPrompts)?;
    let tree = super::export(&app.db, &app.catalog, identity.scope()).await?;
    let kinds = app.catalog.kinds().clone();
    let files = tokio::task::spawn_blocking(move || super::render(&tree, &kinds))
        .await
        .map_err(AppError::internal)?;
    Ok(Answer(ExportedTree { files }))
}

async fn plan(
    State(app): State<App>,
    identity: Identity,
    Json(mut sent): Json<SentTree>,
) -> Result<Answer<Planned>> {
    identity.require(Permission::ReadPrompts)?;
    let (tree, mut findings) = sent.read(&app).await?;
    if super::has_errors(&findings) {
        let plan = Plan {
            findings,
            ..Plan::default()
        };
        return Ok(Answer(Planned { digest: None, plan }));
    }
    let scope = identity.scope();
    let mut plan = super::plan(&app.db, &app.catalog, scope, &tree, sent.options()).await?;
    let digest = Some(plan.identity()?.to_string());
    findings.append(&mut plan.findings);
    plan.findings = findings;
    Ok(Answer(Planned { digest, plan }))
}

async fn apply(
    State(app): State<App>,
    identity: Identity,
    Json(mut sent): Json<SentTree>,
) -> Result<Answer<Applied>> {
    let expected = sent.expected.as_deref().map(str::parse::<Digest>);
    let expected = expected
        .transpose()
        .map_err(|error| AppError::invalid(format!("expected: {error}")).at("expected"))?;
    let (tree, findings) = sent.read(&app).await?;
    if super::has_errors(&findings) {
        return Err(impossible(&findings));
    }
    let scope = identity.scope();
    // What the tree would do decides what its sender must be allowed to do. The plan is made again
    // in the transaction, and must then be this one.
    let seen = super::plan(&app.db, &app.catalog, scope, &tree, sent.options()).await?;
    check_permissions(&identity, &seen)?;
    let seen = seen.identity()?;
    if expected.is_some_and(|expected| expected != seen) {
        let message = "the project is no longer as this plan saw it";
        return Err(AppError::conflict(message)
            .code("state_moved")
            .hint("make a new plan"));
    }
    let request = ApplyRequest {
        tree: &tree,
        options: sent.options(),
        expected: Some(seen),
        message: sent.message.as_deref().unwrap_or("applied from files"),
        is_source: true,
    };
    let applied = super::apply(&app.db, &app.catalog, scope, request).await?;
    app.refresh_plan().await?;
    Ok(Answer(applied))
}

fn check_permissions(identity: &Identity, plan: &Plan) -> Result<()> {
    for step in &plan.steps {
        match step.action {
            Action::Environment | Action::Order | Action::Protect | Action::Unprotect => {
                identity.require(Permission::ManageEnvironments)?;
            }
            Action::Move | Action::Remove => identity.require(Permission::Propose)?,
            Action::Create | Action::Update | Action::Tag | Action::Delete => {}
        }
        if step.kind == crate::prompts::KIND {
            identity.require(Permission::WritePrompts)?;
        }
    }
    Ok(())
}
