//! The surfaces of other products, over ours: Langfuse's prompt, dataset, run and score
//! routes and the spans that its clients send, and MLflow's registered models as far as
//! prompts need them.
//!
//! Their unmodified clients are the users (`compat/`). What a client saves is an
//! ordinary prompt of the project: it shows in the pages, is called through the
//! gateway, and moves by the same rules. Three things differ from the originals
//! on purpose: the same content again gives the version that holds it instead of
//! a twin; a version cannot be deleted, only a label or the whole prompt; a
//! protected label answers with a conflict until its move is approved.

mod content;
mod filter;
mod langfuse;
mod langfuse_datasets;
mod langfuse_runs;
mod langfuse_scores;
mod langfuse_spans;
mod mlflow;
mod otlp;
mod partials;
mod store;

use std::collections::HashMap;

use db::catalog::{DeleteRequest, Label, Name, NameFilter, RemoveRequest, Selector};
use db::{Document, Listed, NewVersion, PageRequest, SavedVersion, Scope, Version, WriteTx};
use serde_json::Value;

use crate::app::App;
use crate::error::{AppError, Result};
use crate::http::Route;
use crate::prompts::KIND;

/// Both surfaces.
pub fn routes() -> Vec<Route> {
    let mut routes = langfuse::routes();
    routes.extend(langfuse_datasets::routes());
    routes.extend(langfuse_runs::routes());
    routes.extend(langfuse_scores::routes());
    routes.extend(langfuse_spans::routes());
    routes.extend(mlflow::routes());
    routes
}

/// The code of everything that is missing from the registry, which MLflow's
/// client tells from a route that does not exist.
const MISSING: &str = "no_such_prompt";

fn missing(message: impl Into<String>) -> AppError {
    AppError::not_found(message).code(MISSING)
}

fn parse_name(text: &str) -> Result<Name> {
    crate::catalog::parse_name(text)
}

fn parse_label(text: &str) -> Result<Label> {
    crate::catalog::parse_label(text)
}

/// A version with its content, or a refusal that says what was looked for.
async fn find(app: &App, scope: Scope, name: &Name, selector: &Selector) -> Result<Document> {
    let living = Indexed::find(app, scope, name).await?.is_some();
    let found = match living {
        true => app.catalog.version(scope, KIND, name, selector).await?,
        // The versions of a deleted prompt stay readable in its history, not here.
        false => None,
    };
    found.ok_or_else(|| {
        missing(format!(
            "there is no prompt {name} with version or label {selector}"
        ))
    })
}

/// Checks a document that a foreign client's prompt was turned into and saves it.
async fn save_in(
    app: &App,
    tx: &mut WriteTx,
    scope: Scope,
    name: &Name,
    document: &Value,
    message: &str,
) -> Result<SavedVersion> {
    let new = NewVersion {
        kind: KIND,
        name,
        content: document,
        message,
    };
    Ok(app.catalog.save_version_in(tx, scope, new).await?)
}

/// One prompt with the numbers of its versions and its labels.
struct Indexed {
    name: String,
    /// Ascending.
    versions: Vec<i64>,
    /// Label and number, by label.
    labels: Vec<(String, i64)>,
    tags: Vec<String>,
    /// When the newest version was saved.
    updated_at: i64,
}

impl Indexed {
    /// A prompt, if there is one of this name.
    async fn find(app: &App, scope: Scope, name: &Name) -> Result<Option<Self>> {
        let listed = app.catalog.name(scope, KIND, name).await?;
        let Some(listed) = listed.filter(|listed| listed.deleted_at.is_none()) else {
            return Ok(None);
        };
        let mut versions = Vec::new();
        let mut page = PageRequest {
            cursor: None,
            limit: 200,
        };
        loop {
            let found = app.catalog.list_versions(scope, KIND, name, &page).await?;
            versions.extend(found.items.iter().map(|version| version.number));
            match found.next {
                Some(next) => page.cursor = Some(next),
                None => break,
            }
        }
        versions.reverse();
        Ok(Some(Self::new(listed, versions)))
    }

    /// Every prompt of the project, by name.
    async fn all(app: &App, scope: Scope) -> Result<Vec<Self>> {
        let mut numbers: HashMap<Name, Vec<i64>> = HashMap::new();
        for row in app.catalog.version_index(scope.project, KIND).await? {
            numbers.entry(row.name).or_default().push(row.number);
        }
        let (mut found, mut page) = (
            Vec::new(),
            PageRequest {
                cursor: None,
                limit: 200,
            },
        );
        loop {
            let names = app
                .catalog
                .list_names(scope, KIND, &NameFilter::default(), &page)
                .await?;
            found.extend(names.items.into_iter().map(|listed| {
                let versions = numbers.remove(&listed.latest.name).unwrap_or_default();
                Self::new(listed, versions)
            }));
            match names.next {
                Some(next) => page.cursor = Some(next),
                None => return Ok(found),
            }
        }
    }

    fn new(listed: Listed, versions: Vec<i64>) -> Self {
        Self {
            name: listed.latest.name.to_string(),
            versions,
            labels: listed.labels,
            tags: listed.tags,
            updated_at: listed.latest.created_at,
        }
    }

    fn latest(&self) -> i64 {
        self.versions.last().copied().unwrap_or_default()
    }

    fn labels_of(&self, number: i64) -> Vec<&str> {
        let own = self.labels.iter().filter(|(_, to)| *to == number);
        own.map(|(label, _)| label.as_str()).collect()
    }

    fn has_label(&self, label: &str) -> bool {
        label == "latest" || self.labels.iter().any(|(own, _)| own == label)
    }
}

/// Takes a label away from a prompt.
async fn remove_label(app: &App, scope: Scope, name: &Name, label: &str) -> Result<()> {
    let label = parse_label(label)?;
    let request = RemoveRequest {
        kind: KIND,
        name,
        label: &label,
        expected: None,
        reason: "",
        force: false,
    };
    app.catalog.remove_pointer(scope, request).await?;
    Ok(app.refresh_plan().await?)
}

/// Deletes a prompt, with what foreign clients attached to it.
async fn delete_prompt(app: &App, scope: Scope, name: &Name) -> Result<()> {
    let request = DeleteRequest {
        kind: KIND,
        name,
        reason: "",
        force: false,
    };
    let mut tx = app.db.begin_write().await?;
    app.catalog.delete_name_in(&mut tx, scope, request).await?;
    store::detach_all(&mut tx, scope, name.as_str()).await?;
    tx.commit().await?;
    Ok(app.refresh_plan().await?)
}

/// Who wrote a version, as the foreign registries show it.
async fn author(app: &App, scope: Scope, version: &Version) -> Result<String> {
    crate::members::actor_name(&app.db, scope.project, &version.author).await
}
