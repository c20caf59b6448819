//! The pages of evaluators: the list, and the editor with a form and JSON.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use db::NewVersion;
use db::catalog::Selector;
use gateway::{LocalKind, LocalModels};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{EvaluatorDocument, LIBRARY};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::catalog::{self, ListQuery};
use crate::error::{AppError, Result};
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::ui::form;
use crate::ui::{PageContext, redirect};

/// Rows of the list: each reads a document.
const ROWS: u32 = 50;
/// What the form makes, in the order of the choice.
const TYPES: [&str; 8] = [
    "metric",
    "judge",
    "rag",
    "embedding",
    "bertscore",
    "perplexity",
    "http",
    "wasm",
];
/// Places of the form.
const CRITERIA: usize = 4;
const LABELS: usize = 6;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadCatalog);
    let write = Access::Needs(Permission::WriteCatalog);
    vec![
        Route::get("/{project}/evaluators", read, list),
        Route::get("/{project}/evaluators/edit", read, edit),
        Route::post("/{project}/evaluators/edit", write, save),
    ]
}

fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn edit_href(page: &PageContext, name: &str) -> String {
    format!("{}/evaluators/edit?name={}", page.root(), encode(name))
}

async fn list(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let scope = identity.scope();
    let latest = catalog::latest(&app.catalog, scope, super::KIND, query, ROWS).await?;
    let mut rows = Vec::new();
    for (listed, found) in &latest.rows {
        let name = &listed.latest.name;
        let document = EvaluatorDocument::parse(&found.content).ok();
        rows.push(json!({
            "name": name, "href": edit_href(&page, name.as_str()), "version": found.version.number,
            "type": document.as_ref().map(EvaluatorDocument::type_name),
            "signature": document.as_ref().map(EvaluatorDocument::signature),
            "description": document.as_ref().map(EvaluatorDocument::description),
            "at": found.version.created_at,
        }));
    }
    let next_href = latest.next_href(&format!("{}/evaluators", page.root()));
    let view = json!({"rows": rows, "pager": {"prev_href": null, "next_href": next_href}});
    page.render("evaluators/list.html", view).await
}

#[derive(Deserialize)]
struct EditQuery {
    name: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    template: Option<String>,
}

async fn edit(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<EditQuery>,
) -> Result<Response> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    if let Some(text) = &query.name {
        let name: db::Name = text.parse().map_err(|_| not_found(text))?;
        let found = app
            .catalog
            .version(identity.scope(), super::KIND, &name, &Selector::Latest)
            .await?;
        let found = found.ok_or_else(|| not_found(text))?;
        values = values_of(&found.content);
        values.insert("name".to_owned(), name.to_string());
        values.insert("version".to_owned(), found.version.number.to_string());
    }
    let template = query.template.as_deref();
    if let Some(template) = template.and_then(|id| LIBRARY.find(page.lang, id)) {
        values = values_of(&template.document);
        values.insert("name".to_owned(), format!("quality/{}", template.id));
    }
    let kind = query.kind.or_else(|| values.get("type").cloned());
    values.insert(
        "type".to_owned(),
        kind.unwrap_or_else(|| "metric".to_owned()),
    );
    render(
        &app,
        &page,
        &identity,
        StatusCode::OK,
        &values,
        &[],
        json!({}),
    )
    .await
}

fn not_found(name: &str) -> AppError {
    AppError::not_found(format!("there is no evaluator {name:?}")).code("evaluator_not_found")
}

async fn render(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    status: StatusCode,
    values: &BTreeMap<String, String>,
    problems: &[db::Problem],
    errors: Value,
) -> Result<Response> {
    let metrics: Vec<Value> = eval::METRICS
        .iter()
        .map(|entry| json!({"value": entry.id, "label": format!("{} – {}", entry.id, entry.about)}))
        .collect();
    let chosen = values.get("metric").map(String::as_str).unwrap_or_default();
    let entry = eval::METRICS.iter().find(|entry| entry.id == chosen);
    let parameters: Vec<Value> = entry
        .map(|entry| entry.parameters)
        .unwrap_or_default()
        .iter()
        .map(|parameter| json!({"name": parameter.name, "about": parameter.about}))
        .collect();
    let models: Vec<Value> = crate::playground::chat_models(app, identity)
        .into_iter()
        .map(|model| json!({"value": model["id"], "label": model["id"]}))
        .collect();
    let numbers = |count: usize| (1..=count).collect::<Vec<usize>>();
    let root = page.root();
    let types = TYPES.map(|kind| {
        json!({"key": kind, "href": format!("{root}/evaluators/edit?type={kind}"), "selected": values.get("type").is_some_and(|known| known == kind)})
    });
    let is_new = values.get("version").is_none_or(String::is_empty);
    let starts = LIBRARY.templates(page.lang).iter().map(|template| {
        let href = format!("{root}/evaluators/edit?template={}", template.id);
        json!({"title": template.title, "about": template.about, "href": href})
    });
    let starts: Vec<Value> = starts.collect();
    let local = LocalModels::list(app.engine.as_ref());
    let local_of = |kind: LocalKind| -> Vec<Value> {
        let names = local.iter().filter(|model| model.kind == kind);
        names
            .map(|model| format!("local/{}", model.name))
            .map(|name| json!({"value": name, "label": name}))
            .collect()
    };
    let name = values.get("name").map(String::as_str).unwrap_or_default();
    let calibration_href = format!("{root}/calibration?evaluator={}", encode(name));
    let values = every_field(
        values,
        entry.map(|entry| entry.parameters).unwrap_or_default(),
    );
    let module = values.get("module").map(String::as_str).unwrap_or_default();
    let module_bytes = super::modules::size_of(&app.catalog, identity.scope(), module).await;
    let view = json!({
        "module_bytes": module_bytes, "most_bytes": super::wasm::MODULE_BYTES,
        "values": values, "errors": errors, "is_new": is_new, "types": types, "calibration_href": calibration_href,
        "starts": starts, "embedders": local_of(LocalKind::Embedding), "readers": local_of(LocalKind::Chat),
        "metrics": metrics, "parameters": parameters, "models": models,
        "criteria_numbers": numbers(CRITERIA), "label_numbers": numbers(LABELS),
        "problems": problems.iter().map(|problem| json!({"path": problem.path, "message": problem.message})).collect::<Vec<_>>(),
    });
    page.render_with_status(status, "evaluators/edit.html", view)
        .await
}

/// Every field of the form: those that nobody filled are empty, for templates are strict.
fn every_field(
    typed: &BTreeMap<String, String>,
    parameters: &[eval::metrics::Parameter],
) -> BTreeMap<String, String> {
    let mut names: Vec<String> = [
        "type",
        "version",
        "name",
        "description",
        "document",
        "metric",
        "output",
        "better",
        "model",
        "mode",
        "samples",
        "min",
        "max",
        "anchors",
        "jury",
        "allow_same_family",
        "uses_input",
        "uses_expected",
        "uses_context",
        "url",
        "credential",
        "timeout_ms",
        "rag_metric",
        "embedding_model",
        "contexts",
        "layer",
        "idf",
        "given",
        "module",
        "fuel",
        "memory_mib",
        "parameters",
    ]
    .map(str::to_owned)
    .to_vec();
    for index in 1..=CRITERIA {
        names.extend([format!("criterion{index}"), format!("meaning{index}")]);
    }
    for index in 1..=LABELS {
        names.extend([format!("label{index}"), format!("value{index}")]);
    }
    names.extend(
        parameters
            .iter()
            .map(|parameter| format!("p.{}", parameter.name)),
    );
    let field = |name: String| {
        let value = typed.get(&name).cloned().unwrap_or_default();
        (name, value)
    };
    names.into_iter().map(field).collect()
}

async fn save(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<BTreeMap<String, String>>,
) -> Result<Response> {
    save_fields(&app, &page, &identity, &form).await
}

/// The page again, with what is wrong with its fields.
pub(super) async fn refuse(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    form: &BTreeMap<String, String>,
    errors: Value,
) -> Result<Response> {
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    render(app, page, identity, status, form, &[], errors).await
}

/// Saves what a form says, or shows it again with what is wrong.
pub(super) async fn save_fields(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    form: &BTreeMap<String, String>,
) -> Result<Response> {
    let name = form.get("name").map(|name| name.trim()).unwrap_or_default();
    let bad = |errors: Value, problems: Vec<db::Problem>| (errors, problems);
    let outcome = async {
        let content = match document_of(form) {
            Ok(content) => content,
            Err(message) => return Ok(Err(bad(json!({"form": message}), Vec::new()))),
        };
        if let Err(problems) = EvaluatorDocument::parse(&content) {
            return Ok(Err(bad(json!({}), problems)));
        }
        let parsed: std::result::Result<db::Name, db::Problem> = name.parse();
        let name = match parsed {
            Ok(name) => name,
            Err(problem) => return Ok(Err(bad(json!({"name": problem.message}), Vec::new()))),
        };
        let new = NewVersion {
            kind: super::KIND,
            name: &name,
            content: &content,
            message: form.get("message").map(String::as_str).unwrap_or_default(),
        };
        match app.catalog.save_version(identity.scope(), new).await {
            // A module that is not there, or is none that could run.
            Err(db::CatalogError::Invalid(problems)) => Ok(Err(bad(json!({}), problems))),
            saved => Ok::<_, AppError>(Ok((name, saved?))),
        }
    };
    match outcome.await? {
        Ok((name, saved)) => {
            let number = saved.version.number.to_string();
            let text = page.t_with("evaluators-saved", &[("version", &number)]);
            Ok(redirect(edit_href(page, name.as_str()))
                .ok(text)
                .into_response())
        }
        Err((errors, problems)) => {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            render(app, page, identity, status, form, &problems, errors).await
        }
    }
}

/// The fields that a document fills; with a note where they do not tell all of it.
fn values_of(content: &Value) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let pretty = serde_json::to_string_pretty(content).unwrap_or_default();
    values.insert("document".to_owned(), pretty);
    let mut put = |name: &str, value: &Value| {
        if !value.is_null() {
            values.insert(name.to_owned(), super::text_of(value));
        }
    };
    for field in [
        "type",
        "description",
        "output",
        "better",
        "model",
        "mode",
        "samples",
        "url",
        "credential",
        "timeout_ms",
        "embedding_model",
        "contexts",
        "layer",
        "given",
        "module",
        "fuel",
        "memory_mib",
    ] {
        put(field, &content[field]);
    }
    if content["type"] == "wasm" {
        put("parameters", &content["parameters"]);
    }
    if content["type"] == "rag" {
        put("rag_metric", &content["metric"]);
    }
    if content["idf"] == true {
        put("idf", &json!("on"));
    }
    for (name, value) in content["metric"].as_object().into_iter().flatten() {
        match name.as_str() {
            "id" => put("metric", value),
            other => put(&format!("p.{other}"), value),
        }
    }
    put("min", &content["scale"]["min"]);
    put("max", &content["scale"]["max"]);
    for (index, criterion) in content["criteria"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        put(&format!("criterion{}", index + 1), &criterion["name"]);
        put(&format!("meaning{}", index + 1), &criterion["description"]);
    }
    for (index, (label, value)) in content["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .enumerate()
    {
        put(&format!("label{}", index + 1), &json!(label));
        put(&format!("value{}", index + 1), value);
    }
    let anchors = content["anchors"].as_object().into_iter().flatten();
    let anchors: Vec<String> = anchors
        .map(|(grade, meaning)| format!("{grade}: {}", super::text_of(meaning)))
        .collect();
    put("anchors", &json!(anchors.join("\n")));
    let jury = content["jury"].as_array().into_iter().flatten();
    let jury: Vec<&str> = jury.filter_map(Value::as_str).collect();
    put("jury", &json!(jury.join(", ")));
    for shown in content["uses"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        put(&format!("uses_{shown}"), &json!("on"));
    }
    if content["allow_same_family"] == true {
        put("allow_same_family", &json!("on"));
    }
    let told = document_of(&values).map(|told| EvaluatorDocument::parse(&told));
    if told != Ok(EvaluatorDocument::parse(content)) {
        form::allow_only_json(&mut values);
    }
    values
}

/// The document that a form says: its JSON where that is what was sent, else its fields.
fn document_of(form: &BTreeMap<String, String>) -> std::result::Result<Value, String> {
    if let Some(sent) = form::sent_json(form) {
        return sent;
    }
    let get = |name: &str| form::typed(form, name);
    let mut document = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            document.insert(name.to_owned(), value);
        }
    };
    let text = |name: &str| get(name).map(Value::from);
    let number = |name: &str| -> std::result::Result<Option<Value>, String> {
        let Some(text) = get(name) else {
            return Ok(None);
        };
        let parsed: Option<Value> = serde_json::from_str(text).ok();
        parsed
            .filter(Value::is_number)
            .map(Some)
            .ok_or_else(|| format!("{text:?} is no number"))
    };
    let kind = get("type").unwrap_or("metric");
    put("type", Some(json!(kind)));
    put("description", text("description"));
    match kind {
        "judge" => {
            put("model", Some(json!(get("model").unwrap_or_default())));
            let mode = get("mode").unwrap_or("score");
            put("mode", Some(json!(mode)));
            put("samples", number("samples")?);
            let criteria: Vec<Value> = (1..=CRITERIA)
                .filter_map(|index| {
                    let name = get(&format!("criterion{index}"));
                    let meaning = get(&format!("meaning{index}"));
                    (name.is_some() || meaning.is_some()).then(|| {
                        json!({"name": name.unwrap_or_default(), "description": meaning.unwrap_or_default()})
                    })
                })
                .collect();
            put("criteria", Some(json!(criteria)));
            let uses = ["input", "expected", "context"].into_iter();
            let uses: Vec<&str> = uses
                .filter(|shown| get(&format!("uses_{shown}")).is_some())
                .collect();
            put("uses", Some(json!(uses)));
            let jury: Vec<&str> = get("jury")
                .unwrap_or_default()
                .split([',', '\n'])
                .map(str::trim)
                .filter(|model| !model.is_empty())
                .collect();
            put("jury", (!jury.is_empty()).then(|| json!(jury)));
            put(
                "allow_same_family",
                get("allow_same_family").map(|_| json!(true)),
            );
            if mode == "score" {
                if let (Some(min), Some(max)) = (number("min")?, number("max")?) {
                    put("scale", Some(json!({"min": min, "max": max})));
                }
                put("anchors", anchors(get("anchors").unwrap_or_default())?);
            }
            if mode == "classify" {
                let mut labels = Map::new();
                for index in 1..=LABELS {
                    if let Some(label) = get(&format!("label{index}")) {
                        let value = number(&format!("value{index}"))?.unwrap_or_else(|| json!(0));
                        labels.insert(label.to_owned(), value);
                    }
                }
                put("labels", Some(Value::Object(labels)));
            }
        }
        "rag" => {
            put("metric", text("rag_metric"));
            put("model", Some(json!(get("model").unwrap_or_default())));
            put("embedding_model", text("embedding_model"));
            put("output", text("output"));
            put("contexts", text("contexts"));
            put(
                "allow_same_family",
                get("allow_same_family").map(|_| json!(true)),
            );
        }
        "embedding" | "bertscore" | "perplexity" => {
            put("model", Some(json!(get("model").unwrap_or_default())));
            put("output", text("output"));
            if kind == "bertscore" {
                put("layer", number("layer")?);
                put("idf", get("idf").map(|_| json!(true)));
            }
            if kind == "perplexity" {
                put("given", text("given"));
            }
        }
        "http" => {
            put("url", Some(json!(get("url").unwrap_or_default())));
            put("credential", text("credential"));
            put("timeout_ms", number("timeout_ms")?);
            put("better", text("better"));
        }
        "wasm" => {
            put("module", Some(json!(get("module").unwrap_or_default())));
            put("fuel", number("fuel")?);
            put("memory_mib", number("memory_mib")?);
            if let Some(text) = get("parameters") {
                let parameters: Value = serde_json::from_str(text)
                    .map_err(|error| format!("the parameters are no JSON: {error}"))?;
                put("parameters", Some(parameters));
            }
            put("better", text("better"));
        }
        _ => {
            let mut metric = Map::new();
            metric.insert("id".to_owned(), json!(get("metric").unwrap_or_default()));
            for (name, value) in form {
                let Some(name) = name.strip_prefix("p.") else {
                    continue;
                };
                if !value.trim().is_empty() {
                    metric.insert(name.to_owned(), parameter(value.trim()));
                }
            }
            put("metric", Some(Value::Object(metric)));
            put("output", text("output"));
            put("better", text("better"));
        }
    }
    Ok(Value::Object(document))
}

/// A parameter as it was typed: JSON where it is JSON, else a text.
fn parameter(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| json!(text))
}

/// Lines `GRADE: MEANING`.
fn anchors(text: &str) -> std::result::Result<Option<Value>, String> {
    let mut anchors = Map::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (grade, meaning) = line
            .split_once([':', '：'])
            .ok_or_else(|| format!("{line:?} is no anchor; write GRADE: MEANING"))?;
        anchors.insert(grade.trim().to_owned(), json!(meaning.trim()));
    }
    Ok((!anchors.is_empty()).then_some(Value::Object(anchors)))
}
