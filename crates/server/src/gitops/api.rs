//! Trees over HTTP, so that a pipeline can export, plan and apply on a server that it
//! has no data directory of. `meguri … --url` is the client.

use axum::Json as Answer;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use base::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::apply::Applied;
use super::blobs::{self, BlobOf, MAX_BLOB_BYTES};
use super::calls::{self, ExportedTree, Planned, SentTree, Validated};
use super::plan::{Action, Plan};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Json, Query, Raw};
use crate::http::{Access, Route};
use crate::openapi::Doc;

/// The largest tree that is sent in one request.
pub const MAX_SENT_BYTES: usize = 64 << 20;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadCatalog);
    let write = Access::Needs(Permission::WriteCatalog);
    vec![
        Route::get("/api/v1/gitops/export", read, export)
            .doc(Doc::new("gitops", "The project as a tree of files").answer::<ExportedTree>()),
        Route::post("/api/v1/gitops/validate", read, validate)
            .body_limit(MAX_SENT_BYTES)
            .doc(
                Doc::new("gitops", "What is wrong with a tree in itself")
                    .body::<SentTree>()
                    .answer::<Validated>(),
            ),
        Route::post("/api/v1/gitops/plan", read, plan)
            .body_limit(MAX_SENT_BYTES)
            .doc(
                Doc::new("gitops", "What applying a tree would do; changes nothing")
                    .body::<SentTree>()
                    .answer::<Planned>(),
            ),
        Route::post("/api/v1/gitops/apply", write, apply)
            .body_limit(MAX_SENT_BYTES)
            .doc(
                Doc::new(
                    "gitops",
                    "Apply a tree in one transaction; protected labels become proposals",
                )
                .body::<SentTree>()
                .answer::<Applied>(),
            ),
        Route::get("/api/v1/gitops/blobs/{digest}", read, blob).doc(
            Doc::new("gitops", "The bytes of a blob that a document needs").query::<NeededBy>(),
        ),
        Route::put("/api/v1/gitops/blobs/{digest}", write, put_blob)
            .body_limit(MAX_BLOB_BYTES)
            .doc(
                Doc::new(
                    "gitops",
                    "Send a blob, as bytes, before the tree that needs it",
                )
                .answer::<Sent>(),
            ),
    ]
}

/// The document that needs a blob.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NeededBy {
    /// The kind of the document.
    kind: String,
    /// The digest of the document.
    document: String,
}

/// What became of a blob that was sent.
#[derive(Serialize, JsonSchema)]
struct Sent {
    /// The blob.
    digest: String,
    /// Whether the server had it already.
    already_existed: bool,
}

async fn export(State(app): State<App>, identity: Identity) -> Result<Answer<ExportedTree>> {
    identity.require(Permission::ReadPrompts)?;
    let exported = calls::export_files(&app.db, &app.catalog, identity.scope());
    Ok(Answer(exported.await?))
}

async fn validate(
    State(app): State<App>,
    identity: Identity,
    Json(sent): Json<SentTree>,
) -> Result<Answer<Validated>> {
    identity.require(Permission::ReadPrompts)?;
    Ok(Answer(
        calls::validate_files(app.catalog.kinds(), sent).await?,
    ))
}

async fn plan(
    State(app): State<App>,
    identity: Identity,
    Json(sent): Json<SentTree>,
) -> Result<Answer<Planned>> {
    identity.require(Permission::ReadPrompts)?;
    let (scope, project) = (
        identity.scope(),
        crate::projects::name_of(&app.db, identity.project.id).await?,
    );
    let planned = calls::plan_files(&app.db, &app.catalog, scope, &project, sent);
    Ok(Answer(planned.await?))
}

async fn apply(
    State(app): State<App>,
    identity: Identity,
    Json(sent): Json<SentTree>,
) -> Result<Answer<Applied>> {
    sent.check_project(&crate::projects::name_of(&app.db, identity.project.id).await?)?;
    let allowed = |plan: &Plan| check_permissions(&identity, plan);
    let scope = identity.scope();
    let applied = calls::apply_files(&app.db, &app.catalog, scope, sent, allowed).await?;
    app.refresh_plan().await?;
    Ok(Answer(applied))
}

async fn blob(
    State(app): State<App>,
    identity: Identity,
    Path(digest): Path<String>,
    Query(needed): Query<NeededBy>,
) -> Result<impl IntoResponse> {
    identity.require(Permission::ReadPrompts)?;
    if needed.kind == crate::datasets::KIND {
        // The blobs of datasets are what their pages show.
        identity.require(Permission::ReadDatasets)?;
    }
    let blob = BlobOf {
        digest,
        kind: needed.kind,
        document: needed.document,
    };
    let (_, bytes) = blobs::read_blob(&app.catalog, identity.project.id, &blob).await?;
    let kind = (header::CONTENT_TYPE, "application/octet-stream");
    Ok(([kind], bytes))
}

async fn put_blob(
    State(app): State<App>,
    identity: Identity,
    Path(digest): Path<String>,
    Raw(bytes): Raw,
) -> Result<Answer<Sent>> {
    let wanted: Digest = digest
        .parse()
        .map_err(|error| AppError::invalid(format!("{error}")).at("digest"))?;
    let is_new = blobs::put_blob(&app.catalog, identity.project.id, wanted, bytes.into()).await?;
    Ok(Answer(Sent {
        digest: wanted.to_string(),
        already_existed: !is_new,
    }))
}

/// Each step needs what doing it by itself needs; the refusal says which step of which file.
fn check_permissions(identity: &Identity, plan: &Plan) -> Result<()> {
    for step in &plan.steps {
        let mut needed = match step.action {
            Action::Environment | Action::Order | Action::Protect | Action::Unprotect => {
                vec![Permission::ManageEnvironments]
            }
            Action::Move | Action::Remove => vec![Permission::Propose],
            Action::Create | Action::Update | Action::Tag | Action::Delete => Vec::new(),
        };
        if step.kind == crate::prompts::KIND {
            needed.push(Permission::WritePrompts);
        }
        for permission in needed {
            identity.require(permission).map_err(|mut error| {
                let place = step.file.as_ref().map(|file| format!("{file}: "));
                let place = place.unwrap_or_default();
                error.message = format!("{place}{}: {}", step.in_words(), error.message);
                error.at = step.file.clone();
                error
            })?;
        }
    }
    Ok(())
}
