//! The import of files: the wizard, which needs scripts to send files, and a field to
//! paste into, which does not.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::WRITE;
use super::import::{Format, ImportOptions, Mode};
use super::pages::{head, href};
use super::{parse_name, uploads};
use crate::app::App;
use crate::auth::Identity;
use crate::error::{AppError, Result};
use crate::extract::{Form, Query};
use crate::http::Route;
use crate::ui::{PageContext, redirect};

/// The largest pasted text, as a form encodes it.
const PASTE_BYTES: usize = 8 << 20;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/{project}/datasets/import", WRITE, show),
        Route::post("/{project}/datasets/import", WRITE, paste).body_limit(PASTE_BYTES),
    ]
}

#[derive(Deserialize)]
struct ShowQuery {
    name: String,
}

async fn show(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ShowQuery>,
) -> Result<Response> {
    let view = view(
        &app,
        &page,
        &identity,
        &query.name,
        &PasteForm::default(),
        &BTreeMap::new(),
    )
    .await?;
    page.render("datasets/import.html", view).await
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PasteForm {
    name: String,
    text: String,
    format: String,
    split: String,
    mode: String,
}

async fn view(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    name: &str,
    form: &PasteForm,
    errors: &BTreeMap<&str, String>,
) -> Result<Value> {
    let found = app
        .datasets
        .latest(identity.scope(), &parse_name(name)?)
        .await?;
    let name = found.version.name.as_str();
    Ok(json!({
        "head": head(page, &found, found.version.number, "show"), "name": name, "api_name": crate::traces::encode(name),
        "count": found.document.count, "text": form.text, "format": form.format, "split": form.split, "mode": form.mode,
        "show_href": href(page, "show", name, &[]), "split_names": found.document.splits.keys().collect::<Vec<_>>(), "errors": errors,
    }))
}

async fn paste(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<PasteForm>,
) -> Result<Response> {
    match import(&app, &identity, &form).await {
        Ok(saved) => {
            let to = redirect(href(&page, "show", &form.name, &[]));
            let count = saved.added.to_string();
            Ok(to
                .ok(page.t_with("datasets-imported", &[("count", &count)]))
                .into_response())
        }
        Err(error) if error.status.is_client_error() && error.code != "no_such_dataset" => {
            let errors = BTreeMap::from([("text", error.message.clone())]);
            let view = view(&app, &page, &identity, &form.name, &form, &errors).await?;
            page.render_with_status(error.status, "datasets/import.html", view)
                .await
        }
        Err(error) => Err(error),
    }
}

async fn import(app: &App, identity: &Identity, form: &PasteForm) -> Result<super::Saved> {
    let (name, project) = (parse_name(&form.name)?, identity.project.id);
    if form.text.trim().is_empty() {
        return Err(AppError::invalid("there is nothing to import").at("text"));
    }
    let (format, file) = match form.format.as_str() {
        "csv" => (Format::Csv, "pasted.csv"),
        "tsv" => (Format::Tsv, "pasted.tsv"),
        "json" => (Format::Json, "pasted.json"),
        "promptfoo" => (Format::Promptfoo, "pasted.yaml"),
        _ => (Format::Jsonl, "pasted.jsonl"),
    };
    let upload = uploads::store(app, project, file, Body::from(form.text.clone())).await?;
    let uploads = [upload];
    let files = uploads::files(app, project, &uploads)?;
    let options = ImportOptions {
        // The ending says as much, but tests of promptfoo are told from tables by looking.
        format: (format != Format::Csv).then_some(format),
        split: Some(form.split.trim().to_owned()),
        mode: if form.mode == "replace" {
            Mode::Replace
        } else {
            Mode::Append
        },
        ..ImportOptions::default()
    };
    let scratch = uploads::scratch(app, project);
    let imported = app
        .datasets
        .import(identity.scope(), &name, files, options, scratch)
        .await;
    uploads::remove(app, project, &uploads).await;
    app.refresh_plan().await?;
    imported
}
