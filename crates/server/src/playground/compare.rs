//! The compare page: drafts and versions, models and rows of inputs beside each other.
//!
//! The page only prepares; the island calls the public API like any client. Drafts
//! come by form, because nothing that is unsaved is kept on the server or in the
//! browser's storage.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use db::PageRequest;
use db::catalog::{NameFilter, Selector};
use gateway::PromptDocument;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::prompts::{DraftForm, KIND, parse_name};
use crate::ui::PageContext;

/// Columns that the page begins with at most; more can be added by hand.
const MOST_GIVEN: usize = 12;

pub(super) fn routes() -> Vec<Route> {
    let infer = Access::Needs(Permission::Infer);
    vec![
        Route::get("/{project}/compare", infer, show),
        Route::post("/{project}/compare", infer, show_drafts).body_limit(5 << 20),
    ]
}

/// What the page begins with.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// `{title, name, version, document}`; a draft has no version.
    pub(crate) given: Vec<Value>,
    /// The models that are chosen.
    pub(crate) models: Vec<String>,
    /// `{inputs, message}`.
    pub(crate) rows: Vec<Value>,
    /// Whether the form for candidates is open.
    pub(crate) generate: bool,
}

#[derive(Deserialize)]
struct Start {
    /// A JSON list of `name@selector`.
    prompts: Option<String>,
    /// A JSON list of models.
    models: Option<String>,
    generate: Option<bool>,
}

async fn show(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(start): Query<Start>,
) -> Result<Response> {
    let mut comparison = Comparison {
        models: list(start.models.as_deref()),
        generate: start.generate.unwrap_or(false),
        ..Comparison::default()
    };
    for wanted in list(start.prompts.as_deref()).iter().take(MOST_GIVEN) {
        comparison
            .given
            .extend(saved(&app, &identity, wanted).await?);
    }
    render_compare(&app, &page, &identity, comparison).await
}

/// A list of texts of an address; anything else is an empty one, as a cut-off link is no error.
fn list(text: Option<&str>) -> Vec<String> {
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// A version as a column; none where it does not exist any more.
async fn saved(app: &App, identity: &Identity, wanted: &str) -> Result<Option<Value>> {
    let (name, selector) = wanted.rsplit_once('@').unwrap_or((wanted, "latest"));
    let name = parse_name(name)?;
    let number = selector
        .strip_prefix('v')
        .and_then(|number| number.parse().ok());
    let selector = match number {
        Some(number) => Selector::Number(number),
        None => selector
            .parse()
            .map_err(|problem: db::Problem| AppError::invalid(problem.message).at("prompts"))?,
    };
    let found = app
        .catalog
        .version(identity.scope(), KIND, &name, &selector)
        .await?;
    Ok(found.map(|found| {
        json!({"title": name.as_str(), "name": name.as_str(), "version": found.version.number, "document": found.content})
    }))
}

/// Drafts from the editor: one by its fields, or several as JSON.
async fn show_drafts(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(fields): Form<BTreeMap<String, String>>,
) -> Result<Response> {
    let mut comparison = Comparison::default();
    if let Some(against) = fields.get("against") {
        comparison
            .given
            .extend(saved(&app, &identity, against).await?);
    }
    match fields.get("drafts") {
        Some(drafts) => comparison.given.extend(drafts_of(drafts)?),
        None => {
            let form = DraftForm::read(&fields);
            comparison.given.push(json!({"title": page.t("compare-draft"), "name": form.name, "version": null, "document": form.document}));
        }
    }
    if let Some(rows) = fields.get("rows") {
        comparison.rows = rows_of(rows)?;
    }
    render_compare(&app, &page, &identity, comparison).await
}

fn drafts_of(text: &str) -> Result<Vec<Value>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Draft {
        title: String,
        #[serde(default)]
        name: String,
        document: Value,
    }
    let drafts: Vec<Draft> = serde_json::from_str(text).map_err(|error| {
        AppError::invalid(format!("the drafts were not understood: {error}")).at("drafts")
    })?;
    let given = |draft: Draft| json!({"title": draft.title, "name": draft.name, "version": null, "document": draft.document});
    Ok(drafts.into_iter().take(MOST_GIVEN).map(given).collect())
}

fn rows_of(text: &str) -> Result<Vec<Value>> {
    #[derive(Deserialize)]
    struct Row {
        #[serde(default)]
        inputs: serde_json::Map<String, Value>,
        #[serde(default)]
        message: String,
    }
    let rows: Vec<Row> = serde_json::from_str(text).map_err(|error| {
        AppError::invalid(format!("the rows were not understood: {error}")).at("rows")
    })?;
    Ok(rows
        .into_iter()
        .map(|row| json!({"inputs": row.inputs, "message": row.message}))
        .collect())
}

/// Shows the page.
///
/// # Errors
/// The database cannot be read.
pub(crate) async fn render_compare(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    mut comparison: Comparison,
) -> Result<Response> {
    let models = super::chat_models(app, identity);
    comparison
        .models
        .retain(|wanted| models.iter().any(|model| model["id"] == wanted.as_str()));
    let request = PageRequest {
        cursor: None,
        limit: 200,
    };
    let names = app
        .catalog
        .list_names(identity.scope(), KIND, &NameFilter::default(), &request)
        .await?;
    let prompts: Vec<&str> = names
        .items
        .iter()
        .map(|listed| listed.latest.name.as_str())
        .collect();
    let drafts: Vec<Value> = comparison.given.iter().map(plain).collect();
    let view = json!({
        "models": !models.is_empty(), "drafts": drafts,
        "props": {
            "given": comparison.given, "models": models, "chosen": comparison.models, "rows": comparison.rows,
            "prompts": prompts, "can_save": identity.role.allows(Permission::WritePrompts), "generate": comparison.generate,
        },
    });
    page.render("playground/compare.html", view).await
}

/// A column for readers without scripts.
fn plain(given: &Value) -> Value {
    let document = PromptDocument::deserialize(&given["document"]).unwrap_or_default();
    json!({
        "title": given["title"], "name": given["name"], "base": given["version"],
        "document": given["document"].to_string(), "text": crate::prompts::as_text(&document),
    })
}
