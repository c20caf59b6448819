//! The page and the route that take another tool's test file.

use axum::Json as Answer;
use axum::extract::State as Extracted;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::import::{Compare, ImportRequest, Imported, SuiteFormat, import_suite};
use super::view::encode;
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::Result;
use crate::extract::{Form, Json};
use crate::http::{Access, Route};
use crate::openapi::Doc;
use crate::ui::PageContext;

pub(super) fn routes() -> Vec<Route> {
    let write = Access::Needs(Permission::WriteCatalog);
    vec![
        Route::post("/api/v1/evaluations/import", write, import)
            .body_limit(24 << 20)
            .doc(
                Doc::new(
                    "evaluations",
                    "Make a dataset and a suite of another tool's test file; nothing is called",
                )
                .body::<ImportRequest>()
                .answer::<Imported>()
                .status(201),
            ),
        Route::get("/{project}/evaluations/import", write, new),
        Route::post("/{project}/evaluations/import", write, create).body_limit(48 << 20),
    ]
}

async fn import(
    Extracted(app): Extracted<App>,
    identity: Identity,
    Json(request): Json<ImportRequest>,
) -> Result<(StatusCode, Answer<Imported>)> {
    identity.require(Permission::WriteDatasets)?;
    let imported = import_suite(&app, identity.scope(), &request).await?;
    Ok((StatusCode::CREATED, Answer(imported)))
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Fields {
    name: String,
    text: String,
    format: Option<SuiteFormat>,
    model: Option<String>,
    prompt: Option<String>,
    judge: Option<String>,
    compare: Option<Compare>,
}

async fn new(page: PageContext) -> Result<Response> {
    let view = json!({"values": values(&Fields::default()), "errors": {}, "imported": null});
    page.render("evaluations/import.html", view).await
}

fn values(fields: &Fields) -> Value {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    json!({
        "name": fields.name, "text": fields.text, "model": text(&fields.model), "prompt": text(&fields.prompt), "judge": text(&fields.judge),
        "format": fields.format.map(|format| json!(format)).unwrap_or(json!("")),
        "compare": json!(fields.compare.unwrap_or_default()),
    })
}

async fn create(
    Extracted(app): Extracted<App>,
    page: PageContext,
    identity: Identity,
    Form(fields): Form<Fields>,
) -> Result<Response> {
    identity.require(Permission::WriteDatasets)?;
    let some = |text: &Option<String>| {
        text.as_deref()
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let request = ImportRequest {
        name: fields.name.trim().to_owned(),
        text: fields.text.clone(),
        format: fields.format,
        model: some(&fields.model),
        prompt: some(&fields.prompt),
        judge: some(&fields.judge),
        compare: fields.compare.unwrap_or_default(),
    };
    match import_suite(&app, identity.scope(), &request).await {
        Ok(imported) => {
            let root = page.root();
            let view = json!({
                "values": values(&Fields::default()), "errors": {}, "imported": imported,
                "dataset_href": format!("{root}/datasets/show?name={}", encode(&imported.dataset)),
                "run_href": imported.suite.as_ref().map(|suite| format!("{root}/evaluations/new?suite={}", encode(suite))),
            });
            page.render("evaluations/import.html", view).await
        }
        Err(error) if error.status.is_client_error() => {
            let field = match error.at.as_deref() {
                Some("name") => "name",
                Some("text") => "text",
                _ => "form",
            };
            let view = json!({"values": values(&fields), "errors": {field: error.message}, "imported": null});
            page.render_with_status(error.status, "evaluations/import.html", view)
                .await
        }
        Err(error) => Err(error),
    }
}
