//! The pages of evaluations.

use std::collections::BTreeMap;

use axum::extract::State as Extracted;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use db::{NameFilter, PageRequest};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::api::{StartRequest, choose, page as page_of, start_evaluation};
use super::view::{encode, example_view, list_row, region_row, show_href, show_view, slice_view};
use super::{Desk, Evaluation};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::ui::{PageContext, redirect};

/// Rows of the list.
const ROWS: u32 = 50;
/// Examples of the compare page.
const EXAMPLES: usize = 25;
/// Places of the form.
const CANDIDATES: usize = 4;
const EVALUATORS: usize = 6;
/// Names that a choice offers.
const OFFERED: u32 = 200;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadEvaluations);
    let run = Access::Needs(Permission::RunEvaluations);
    vec![
        Route::get("/{project}/evaluations", read, list),
        Route::post("/{project}/evaluations", run, create),
        Route::get("/{project}/evaluations/new", run, new),
        Route::get("/{project}/evaluations/show", read, show),
        Route::get("/{project}/evaluations/example", read, example),
        Route::post("/{project}/evaluations/change", run, change),
    ]
}

#[derive(Deserialize)]
struct ListQuery {
    suite: Option<String>,
    cursor: Option<String>,
}

async fn list(
    Extracted(app): Extracted<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let (items, next) =
        page_of(&app, &identity, query.suite.as_deref(), query.cursor, ROWS).await?;
    let rows: Vec<Value> = items.iter().map(|one| list_row(&page, one)).collect();
    let suites = names(&app, &identity, super::KIND).await?;
    let root = page.root();
    let next_href = next.map(|cursor| {
        let suite = query
            .suite
            .as_deref()
            .map(|suite| format!("&suite={}", encode(suite)));
        format!(
            "{root}/evaluations?cursor={}{}",
            encode(&cursor),
            suite.unwrap_or_default()
        )
    });
    let with_suite = |path: &str| match &query.suite {
        Some(suite) => format!("{root}/{path}?suite={}", encode(suite)),
        None => format!("{root}/{path}"),
    };
    let view = json!({
        "new_href": with_suite("evaluations/new"), "self_href": with_suite("evaluations"),
        "rows": rows, "suite": query.suite, "active": items.iter().any(|one| one.state.is_active()),
        "suites": suites.iter().map(|name| json!({"name": name, "href": format!("{root}/evaluations?suite={}", encode(name))})).collect::<Vec<_>>(),
        "pager": {"prev_href": null, "next_href": next_href},
    });
    page.render("evaluations/list.html", view).await
}

/// Names of documents of a kind, for a choice.
async fn names(app: &App, identity: &Identity, kind: &str) -> Result<Vec<String>> {
    let page = PageRequest {
        cursor: None,
        limit: OFFERED,
    };
    let found = app
        .catalog
        .list_names(identity.scope(), kind, &NameFilter::default(), &page)
        .await?;
    Ok(found
        .items
        .into_iter()
        .map(|one| one.latest.name.to_string())
        .collect())
}

#[derive(Deserialize)]
struct NewQuery {
    dataset: Option<String>,
    prompt: Option<String>,
    suite: Option<String>,
    /// An evaluation to begin from.
    like: Option<String>,
}

async fn new(
    Extracted(app): Extracted<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<NewQuery>,
) -> Result<Response> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            values.insert(name.to_owned(), value);
        }
    };
    set("dataset", query.dataset);
    set("prompt1", query.prompt);
    set("suite", query.suite);
    if let Some(id) = &query.like {
        let like = super::find(Desk::of(&app), identity.scope(), id).await?;
        let text = serde_json::to_string_pretty(&like.document.to_value()).unwrap_or_default();
        set("document", Some(text));
    }
    render_new(&app, &page, &identity, StatusCode::OK, &values, json!({})).await
}

async fn render_new(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    status: StatusCode,
    values: &BTreeMap<String, String>,
    errors: Value,
) -> Result<Response> {
    let options = |names: Vec<String>, prefix: &str| -> Vec<Value> {
        let option = |name: String| json!({"value": format!("{prefix}{name}"), "label": name});
        names.into_iter().map(option).collect()
    };
    let mut evaluators = options(
        names(app, identity, crate::evaluators::KIND).await?,
        "evaluator:",
    );
    let metrics = eval::METRICS
        .iter()
        .filter(|entry| !needs_parameters(entry.id));
    evaluators.extend(metrics.map(|entry| {
        json!({"value": format!("metric:{}", entry.id), "label": format!("{} – {}", entry.id, entry.about)})
    }));
    let models: Vec<Value> = crate::playground::chat_models(app, identity)
        .into_iter()
        .map(|model| json!({"value": model["id"], "label": model["id"]}))
        .collect();
    let numbers = |count: usize| (1..=count).collect::<Vec<usize>>();
    let values = every_field(values);
    let view = json!({
        "values": values, "errors": errors,
        "suites": options(names(app, identity, super::KIND).await?, ""),
        "datasets": options(names(app, identity, crate::datasets::KIND).await?, ""),
        "prompts": options(names(app, identity, crate::prompts::KIND).await?, ""),
        "apps": options(names(app, identity, crate::apps::RELEASE).await?, ""),
        "models": models, "evaluators": evaluators,
        "candidate_numbers": numbers(CANDIDATES), "evaluator_numbers": numbers(EVALUATORS),
    });
    page.render_with_status(status, "evaluations/new.html", view)
        .await
}

/// Every field of the form: those that nobody filled are empty, for templates are strict.
fn every_field(typed: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut names: Vec<String> = [
        "suite",
        "dataset",
        "split",
        "limit",
        "cluster_by",
        "budget_usd",
        "repeats",
        "concurrency",
        "save_as",
        "document",
    ]
    .map(str::to_owned)
    .to_vec();
    for index in 1..=CANDIDATES {
        let fields = ["name", "prompt", "version", "model", "app"];
        names.extend(fields.map(|field| format!("{field}{index}")));
    }
    names.extend((1..=EVALUATORS).map(|index| format!("e{index}")));
    let field = |name: String| {
        let value = typed.get(&name).cloned().unwrap_or_default();
        (name, value)
    };
    names.into_iter().map(field).collect()
}

/// Metrics that mean nothing without a parameter are made in the editor.
fn needs_parameters(id: &str) -> bool {
    let definition = json!({"id": id});
    eval::Metric::parse(&definition).is_err()
}

async fn create(
    Extracted(app): Extracted<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<BTreeMap<String, String>>,
) -> Result<Response> {
    match start_form(&app, &identity, &form).await {
        Ok(evaluation) => {
            let to = redirect(show_href(&page, &evaluation.id));
            Ok(to.ok(page.t("evaluations-started")).into_response())
        }
        Err(error) if error.status.is_client_error() => {
            let field = match error.at.as_deref() {
                Some(at) if at.starts_with("/dataset") || at.starts_with("/split") => "dataset",
                Some("name") => "save_as",
                Some(at) if at.starts_with("/evaluators") => "e1",
                Some(at) if at.starts_with("/candidates") => "name1",
                Some(at) if at.starts_with("/budget") => "budget_usd",
                _ => "form",
            };
            let place = error.at.as_deref().filter(|_| field == "form");
            let message = match place {
                Some(at) => format!("{at}: {}", error.message),
                None => error.message.clone(),
            };
            let errors = json!({field: message});
            render_new(
                &app,
                &page,
                &identity,
                StatusCode::UNPROCESSABLE_ENTITY,
                &form,
                errors,
            )
            .await
        }
        Err(error) => Err(error),
    }
}

async fn start_form(
    app: &App,
    identity: &Identity,
    form: &BTreeMap<String, String>,
) -> Result<Evaluation> {
    let get = |name: &str| {
        form.get(name)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
    };
    let scope = identity.scope();
    if get("action") == Some("suite") {
        let suite = get("suite").ok_or_else(|| AppError::invalid("choose a suite").at("form"))?;
        let request = StartRequest {
            suite: Some(suite.to_owned()),
            document: None,
            name: None,
        };
        return start_evaluation(app, scope, &request).await;
    }
    let document = match get("document") {
        Some(text) => serde_json::from_str(text).map_err(|error| {
            AppError::invalid(format!("the suite's JSON cannot be read: {error}")).at("form")
        })?,
        None => document_of(form)?,
    };
    if let Some(name) = get("save_as") {
        identity.require(Permission::WriteCatalog)?;
        let bad = |problem: db::Problem| {
            AppError::invalid(problem.message)
                .code("bad_name")
                .at("name")
        };
        let name: db::Name = name.parse().map_err(bad)?;
        let new = db::NewVersion {
            kind: super::KIND,
            name: &name,
            content: &document,
            message: "",
        };
        let saved = app.catalog.save_version(scope, new).await?;
        let request = StartRequest {
            suite: Some(format!("{name}@{}", saved.version.number)),
            document: None,
            name: None,
        };
        return start_evaluation(app, scope, &request).await;
    }
    let request = StartRequest {
        suite: None,
        document: Some(document),
        name: None,
    };
    start_evaluation(app, scope, &request).await
}

/// The suite that the fields say.
fn document_of(form: &BTreeMap<String, String>) -> Result<Value> {
    let get = |name: &str| {
        form.get(name)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
    };
    let number = |name: &str| -> Result<Option<Value>> {
        let Some(text) = get(name) else {
            return Ok(None);
        };
        let parsed: std::result::Result<Value, _> = serde_json::from_str(text);
        let number = parsed.ok().filter(Value::is_number);
        number
            .map(Some)
            .ok_or_else(|| AppError::invalid(format!("{text:?} is no number")).at("form"))
    };
    let mut document = Map::new();
    let dataset =
        get("dataset").ok_or_else(|| AppError::invalid("choose a dataset").at("/dataset"))?;
    document.insert(
        "dataset".to_owned(),
        json!(format!("dataset:{dataset}@latest")),
    );
    let mut candidates = Vec::new();
    for index in 1..=CANDIDATES {
        let of = |field: &str| get(&format!("{field}{index}"));
        let mut candidate = Map::new();
        if let Some(prompt) = of("prompt") {
            let selector = of("version").unwrap_or("latest");
            candidate.insert(
                "prompt".to_owned(),
                json!(format!("prompt:{prompt}@{selector}")),
            );
        }
        if let Some(model) = of("model") {
            candidate.insert("model".to_owned(), json!(model));
        }
        if let Some(app) = of("app") {
            candidate.insert("app".to_owned(), json!(app));
        }
        if candidate.is_empty() {
            continue;
        }
        let named = of("name").map_or_else(|| format!("candidate {index}"), str::to_owned);
        candidate.insert("name".to_owned(), json!(named));
        candidates.push(Value::Object(candidate));
    }
    document.insert("candidates".to_owned(), Value::Array(candidates));
    let mut evaluators: Vec<Value> = Vec::new();
    for index in 1..=EVALUATORS {
        let Some(chosen) = get(&format!("e{index}")) else {
            continue;
        };
        evaluators.push(match chosen.strip_prefix("metric:") {
            Some(id) => json!({"name": id, "evaluator": {"type": "metric", "metric": {"id": id}}}),
            None => json!(format!("{chosen}@latest")),
        });
    }
    document.insert("evaluators".to_owned(), Value::Array(evaluators));
    for field in ["split", "cluster_by"] {
        if let Some(value) = get(field) {
            document.insert(field.to_owned(), json!(value));
        }
    }
    for field in ["limit", "repeats", "concurrency", "budget_usd"] {
        if let Some(value) = number(field)? {
            document.insert(field.to_owned(), value);
        }
    }
    Ok(Value::Object(document))
}

#[derive(Deserialize)]
struct ShowQuery {
    id: String,
    evaluator: Option<String>,
    candidate: Option<String>,
    field: Option<String>,
}

async fn show(
    Extracted(app): Extracted<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ShowQuery>,
) -> Result<Response> {
    let desk = Desk::of(&app);
    let evaluation = super::find(desk, identity.scope(), &query.id).await?;
    let results = super::results_of(desk, &evaluation).await?;
    let chosen = choose(
        &evaluation,
        query.evaluator.as_deref(),
        query.candidate.as_deref(),
    )?;
    let (evaluator, candidate) = chosen;
    let all = super::differences(desk, &evaluation, evaluator, candidate).await?;
    let total = all.len();
    let worse = all
        .iter()
        .filter(|row| row.gain.is_some_and(|gain| gain < 0.0))
        .count();
    let better = all
        .iter()
        .filter(|row| row.gain.is_some_and(|gain| gain > 0.0))
        .count();
    let shown: Vec<_> = all.into_iter().take(EXAMPLES).collect();
    let places: Vec<i64> = shown.iter().map(|row| row.place).collect();
    // A dataset whose chunks are gone must not hide what is known of the evaluation.
    let examples = super::examples_at(desk, &evaluation, &places)
        .await
        .unwrap_or_default();
    let rows: Vec<Value> = shown
        .iter()
        .map(|row| {
            region_row(
                &page,
                &evaluation,
                evaluator,
                candidate,
                row,
                examples.get(&row.place),
            )
        })
        .collect();
    let fields = super::metadata_fields(desk, &evaluation)
        .await
        .unwrap_or_default();
    let slices = match query.field.as_deref().filter(|field| !field.is_empty()) {
        Some(field) => super::slices(desk, &evaluation, evaluator, field).await?,
        None => Vec::new(),
    };
    let people = crate::members::actor_names(
        &app.db,
        identity.project.id,
        std::iter::once(evaluation.started_by.as_str()),
    )
    .await?;
    let mut view = show_view(&page, &evaluation, &results, chosen);
    view["started_by"] = people[&evaluation.started_by].clone().into();
    view["examples"] = json!({"rows": rows, "total": total, "worse": worse, "better": better});
    let spread = super::distributions(desk, &evaluation).await?;
    view["distributions"] = json!(super::plots::view(&page, &spread));
    view["fields"] = json!(fields);
    view["field"] = json!(query.field.unwrap_or_default());
    view["slices"] = json!(
        slices
            .iter()
            .map(|slice| slice_view(&page, slice))
            .collect::<Vec<_>>()
    );
    page.render("evaluations/show.html", view).await
}

#[derive(Deserialize)]
struct ExampleQuery {
    id: String,
    place: i64,
    evaluator: Option<String>,
    candidate: Option<String>,
}

async fn example(
    Extracted(app): Extracted<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ExampleQuery>,
) -> Result<Response> {
    let desk = Desk::of(&app);
    let evaluation = super::find(desk, identity.scope(), &query.id).await?;
    let chosen = choose(
        &evaluation,
        query.evaluator.as_deref(),
        query.candidate.as_deref(),
    )?;
    let detail = super::example(desk, &evaluation, query.place).await?;
    let order = super::differences(desk, &evaluation, chosen.0, chosen.1).await?;
    let at = order.iter().position(|row| row.place == query.place);
    let beside = |step: i64| {
        let at = i64::try_from(at?).ok()? + step;
        order.get(usize::try_from(at).ok()?).map(|row| row.place)
    };
    let view = example_view(
        &page,
        &evaluation,
        chosen,
        query.place,
        &detail,
        beside(-1),
        beside(1),
    );
    page.render("evaluations/example.html", view).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    id: String,
    action: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    budget_usd: Option<f64>,
}

async fn change(
    Extracted(app): Extracted<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<Change>,
) -> Result<Response> {
    let (desk, scope) = (Desk::of(&app), identity.scope());
    let done = match form.action.as_str() {
        "pause" => super::pause(desk, scope, &form.id, &form.reason).await,
        "resume" => super::resume(desk, scope, &form.id, form.budget_usd).await,
        "stop" => super::stop(desk, scope, &form.id, &form.reason).await,
        other => Err(AppError::invalid(format!("there is no action {other:?}")).at("action")),
    };
    let to = redirect(show_href(&page, &form.id));
    match done {
        Ok(_) => Ok(to.into_response()),
        Err(error) if error.status.is_server_error() || error.status == StatusCode::NOT_FOUND => {
            Err(error)
        }
        Err(error) => Ok(to.err(error.to_string()).into_response()),
    }
}
