//! Transforms over JSON and on a page: a form whose answer is the preview, and a button
//! that makes the version.

use std::collections::BTreeMap;

use axum::Json as Answer;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{READ, WRITE, doc};
use super::marking::Detector;
use super::pages::{head, href};
use super::transform::{Lengths, PreviewItem, TransformPreview, TransformRequest};
use super::{Saved, parse_name};
use crate::app::App;
use crate::auth::Identity;
use crate::error::{AppError, Result};
use crate::extract::{Form, Json, Query};
use crate::http::Route;
use crate::ui::{PageContext, redirect};

/// Examples of the page's preview.
const SHOWN: usize = 10;
/// Places for steps on the page.
const STEPS: usize = 5;
/// Characters of a text on the page.
const TEXT: usize = 600;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::post("/api/v1/datasets/{name}/transform/preview", READ, preview).doc(
            doc("What a transform would do, with the first examples before and after")
                .body::<PreviewRequest>()
                .answer::<TransformPreview>(),
        ),
        Route::post("/api/v1/datasets/{name}/transform", WRITE, apply).doc(
            doc("Prepare, measure or mark a text of every example, as a new version")
                .body::<ApplyRequest>()
                .answer::<Saved>()
                .status(201),
        ),
        Route::get("/{project}/datasets/transform", WRITE, show),
        Route::post("/{project}/datasets/transform", WRITE, save),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TransformPreviewRequest")]
struct PreviewRequest {
    /// What is done.
    transform: TransformRequest,
    /// How many examples are shown; 10 when absent, 100 at most.
    rows: Option<usize>,
}

async fn preview(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Json(request): Json<PreviewRequest>,
) -> Result<Answer<TransformPreview>> {
    let resources = crate::evaluations::resources(&app).await;
    let (name, rows) = (parse_name(&name)?, request.rows.unwrap_or(SHOWN));
    let preview = app.datasets.preview_transform(
        identity.scope(),
        &name,
        &request.transform,
        rows,
        resources,
    );
    Ok(Answer(preview.await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TransformApplyRequest")]
struct ApplyRequest {
    /// What is done.
    transform: TransformRequest,
    /// The version that was looked at; another newest version is a conflict.
    base: Option<i64>,
}

async fn apply(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Json(request): Json<ApplyRequest>,
) -> Result<(StatusCode, Answer<Saved>)> {
    let resources = crate::evaluations::resources(&app).await;
    let name = parse_name(&name)?;
    let saved = app.datasets.transform(
        identity.scope(),
        &name,
        &request.transform,
        request.base,
        resources,
    );
    let saved = saved.await?;
    app.refresh_plan().await?;
    Ok((StatusCode::CREATED, Answer(saved)))
}

/// The transform that the fields of the page say.
fn request(fields: &BTreeMap<String, String>) -> TransformRequest {
    let get = |name: &str| {
        fields
            .get(name)
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    };
    let some = |name: &str| Some(get(name)).filter(|text| !text.is_empty());
    let several = |name: &str| -> Vec<String> {
        let text = get(name);
        let parts = text.split([',', ' ']).map(str::trim);
        parts
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let steps = (1..=STEPS).filter_map(|number| some(&format!("step{number}")));
    let marked = Detector::NAMES
        .iter()
        .filter(|kind| !get(&format!("mark_{kind}")).is_empty());
    TransformRequest {
        field: get("field"),
        steps: steps.collect(),
        into: some("into"),
        facts: several("facts"),
        mark: marked.map(|kind| (*kind).to_owned()).collect(),
        split: some("split"),
    }
}

async fn show(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(fields): Query<BTreeMap<String, String>>,
) -> Result<Response> {
    render(&app, &page, &identity, &fields).await
}

async fn render(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    fields: &BTreeMap<String, String>,
) -> Result<Response> {
    let scope = identity.scope();
    let named = fields.get("name").map(String::as_str).unwrap_or_default();
    let dataset = app.datasets.latest(scope, &parse_name(named)?).await?;
    let (name, version) = (dataset.version.name.clone(), dataset.version.number);
    let (mut found, mut error, mut status) = (None, None, StatusCode::OK);
    if fields.contains_key("field") {
        let resources = crate::evaluations::resources(app).await;
        let looked = app
            .datasets
            .preview_transform(scope, &name, &request(fields), SHOWN, resources)
            .await;
        match looked {
            Ok(preview) => found = Some(preview),
            Err(refusal) if refusal.status.is_client_error() => {
                status = refusal.status;
                error = Some(refusal.message);
            }
            Err(refusal) => return Err(refusal),
        }
    }
    let mut values: BTreeMap<String, String> = ["name", "field", "into", "facts", "split"]
        .iter()
        .map(|name| (*name).to_owned())
        .chain((1..=STEPS).map(|number| format!("step{number}")))
        .chain(Detector::NAMES.iter().map(|kind| format!("mark_{kind}")))
        .map(|name| {
            let value = fields.get(&name).cloned().unwrap_or_default();
            (name, value)
        })
        .collect();
    if values["field"].is_empty() {
        values.insert("field".to_owned(), "/input".to_owned());
    }
    let view = json!({
        "head": head(page, &dataset, version, "transform"), "values": values, "error": error,
        "name": name.as_str(), "base": version, "step_numbers": (1..=STEPS).collect::<Vec<_>>(),
        "steps": step_names(), "kinds": Detector::NAMES, "splits": dataset.document.splits.keys().collect::<Vec<_>>(),
        "preview": found.as_ref().map(preview_view),
    });
    page.render_with_status(status, "datasets/transform.html", view)
        .await
}

/// Steps that the page offers; others can be typed.
fn step_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "nfkc",
        "lower",
        "whitespace",
        "punctuation",
        "tokenise:unicode-word",
        "tokenise:ja-mecab",
        "base-form",
        "stem:porter",
        "stop-words:en",
        "stop-words:ja",
        "cut:200",
    ]
    .map(str::to_owned)
    .to_vec();
    names.extend(
        eval::text::SNOWBALL
            .iter()
            .map(|language| format!("stem:{language}")),
    );
    names
}

fn preview_view(preview: &TransformPreview) -> Value {
    let pair = |(name, count): (&String, &u64)| json!({"name": name, "count": count});
    let lengths = |of: &Lengths| json!({"least": of.least, "median": of.median, "mean": format!("{:.1}", of.mean), "most": of.most});
    json!({
        "examples": preview.examples, "with_field": preview.with_field, "changed": preview.changed, "emptied": preview.emptied,
        "marks": preview.marks.iter().map(pair).collect::<Vec<_>>(), "languages": preview.languages.iter().map(pair).collect::<Vec<_>>(),
        "before": lengths(&preview.before), "after": lengths(&preview.after),
        "rows": preview.items.iter().map(row).collect::<Vec<_>>(),
    })
}

fn row(item: &PreviewItem) -> Value {
    let facts = item
        .metadata
        .iter()
        .filter(|(name, _)| *name != "personal_data");
    let facts = facts.map(|(name, value)| json!({"name": name, "value": base::text::preview(&super::pages::as_text(value), 80)}));
    json!({
        "id": item.id, "before": base::text::preview(&item.before, TEXT), "after": base::text::preview(&item.after, TEXT),
        "same": item.before == item.after, "facts": facts.collect::<Vec<_>>(),
        "marks": item.marks.iter().map(|mark| json!({"kind": mark.kind, "path": mark.path, "start": mark.start, "end": mark.end})).collect::<Vec<_>>(),
    })
}

async fn save(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(fields): Form<BTreeMap<String, String>>,
) -> Result<Response> {
    let named = fields.get("name").map(String::as_str).unwrap_or_default();
    let name = parse_name(named)?;
    let base = match fields.get("base").filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => Some(
            text.parse()
                .map_err(|_| AppError::invalid("base is the number of a version").at("base"))?,
        ),
    };
    let resources = crate::evaluations::resources(&app).await;
    let done = app
        .datasets
        .transform(identity.scope(), &name, &request(&fields), base, resources)
        .await;
    match done {
        Ok(saved) => {
            app.refresh_plan().await?;
            let (version, changed) = (saved.version.to_string(), saved.changed.to_string());
            let arguments = [("version", version.as_str()), ("n", changed.as_str())];
            let to = redirect(href(&page, "show", name.as_str(), &[]));
            Ok(to
                .ok(page.t_with("datasets-transformed", &arguments))
                .into_response())
        }
        Err(error) if error.status.is_client_error() && error.code != "no_such_dataset" => {
            let to = redirect(href(&page, "transform", name.as_str(), &[]));
            Ok(to.err(error.message).into_response())
        }
        Err(error) => Err(error),
    }
}
