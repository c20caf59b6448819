//! Apps and releases: what is deployed, and what exactly runs.
//!
//! An app is a document of steps; the gateway knows how to check and run one,
//! this feature keeps it in the catalog, draws it, tries it out and cuts
//! releases of it. Which release runs in which environment is a label of the
//! release, moved like any other (see `releases`). An app without a release in
//! an environment cannot be called there.

mod api;
mod draft;
mod drawing;
mod editor;
mod graph;
mod locate;
mod pages;
mod plan;
mod release;
mod starts;

use base::ProjectId;
use db::catalog::{Admission, Candidate, Name, Reference, is_folder_on};
use db::sqlx::AnyConnection;
use db::{CatalogError, Kind, NewVersion, Problem, SavedVersion, Scope};
use gateway::AppDocument;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::{AppError, Result};
use crate::http::Route;

pub use draft::{Tried, run_draft, stream_draft};
pub(crate) use pages::{change_href, change_rows, document_href, encode, show_href};
pub use plan::{Compiled, for_plan, load_release};
pub use release::{
    DocumentChange, Pinned, PinnedApp, RELEASE, ReleaseContent, compare, cut_release,
    cut_release_in, find_release, release_kind,
};

/// The catalog's word for apps.
pub const APP: &str = "app";

/// Pages and API.
pub fn routes() -> Vec<Route> {
    let mut routes = pages::routes();
    routes.extend(editor::routes());
    routes.extend(api::routes());
    routes
}

/// Apps, as the catalog knows them.
pub fn kind() -> Kind {
    Kind {
        normal: |content| match AppDocument::parse(content) {
            Ok(document) => json!(document),
            Err(_) => content.clone(),
        },
        references,
        admit,
        ..Kind::new(APP, || json!(schemars::schema_for!(AppDocument)), validate)
    }
}

fn validate(content: &Value) -> std::result::Result<(), Vec<Problem>> {
    match AppDocument::parse(content) {
        Ok(_) => Ok(()),
        Err(problems) => Err(problems
            .into_iter()
            .map(|problem| Problem::new(problem.path, problem.message))
            .collect()),
    }
}

fn references(content: &Value) -> Vec<Reference> {
    let Ok(document) = AppDocument::parse(content) else {
        return Vec::new();
    };
    let texts = document.references().into_iter();
    texts
        .filter_map(|reference| Reference::parse_at(&reference.path, &reference.text).ok())
        .collect()
}

/// The name of an app that a caller typed.
///
/// # Errors
/// What is wrong with it; `at` is `name`.
pub fn parse_name(text: &str) -> Result<Name> {
    text.parse().map_err(|problem: Problem| {
        AppError::invalid(problem.message)
            .code("bad_app_name")
            .at("name")
    })
}

/// Saves a version of an app; the same content again gives the version that holds it.
///
/// # Errors
/// The name cannot be called as a model, or the document is wrong: `at` says where.
pub async fn save_app(
    app: &App,
    scope: Scope,
    name: &Name,
    content: &Value,
    message: &str,
) -> Result<SavedVersion> {
    let new = NewVersion {
        kind: APP,
        name,
        content,
        message,
    };
    let saved = app.catalog.save_version(scope, new).await?;
    app.refresh_plan().await?;
    Ok(saved)
}

/// `model: "NAME"` must mean one thing: what begins like a local model, an app's
/// long form or a provider's models would never be looked up as an app.
fn admit<'a>(connection: &'a mut AnyConnection, candidate: Candidate<'a>) -> Admission<'a> {
    Box::pin(async move {
        let Candidate { project, name, .. } = candidate;
        let Some((first, _)) = name.as_str().split_once('/') else {
            return Ok(());
        };
        let why = if matches!(first, "local" | "app") {
            format!("names that begin with {first}/ mean something else")
        } else if crate::providers::is_provider(connection, project, first).await? {
            format!("{first}/ are the models of a provider")
        } else {
            return Ok(());
        };
        Err(CatalogError::NameTaken {
            kind: APP.to_owned(),
            name: name.clone(),
            why,
        })
    })
}

/// Whether apps of the project would be hidden by a provider of this name.
///
/// # Errors
/// The database cannot be read.
pub async fn would_be_hidden(
    connection: &mut AnyConnection,
    project: ProjectId,
    provider: &str,
) -> std::result::Result<bool, db::DbError> {
    is_folder_on(connection, project, APP, provider).await
}
