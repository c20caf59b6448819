//! The pages of improvements.

use std::collections::{BTreeMap, HashMap};

use axum::extract::State as Extracted;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::api::{page as page_of, start_improvement, step_of};
use super::view::{list_row, show_href, show_view, step_view};
use super::{Desk, Improvement, Raise};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::datasets::Example;
use crate::error::{AppError, Result};
use crate::evaluations::encode;
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::ui::{PageContext, redirect};

/// Rows of the list.
const ROWS: u32 = 50;
/// Places of the form.
const EVALUATORS: usize = 4;
/// What the form asks for, beside the evaluators.
const FIELDS: [&str; 15] = [
    "prompt",
    "version",
    "model",
    "dataset",
    "train",
    "selection",
    "held_out",
    "reflector",
    "guidance",
    "budget_calls",
    "budget_usd",
    "minibatch",
    "patience",
    "seed",
    "document",
];

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadEvaluations);
    let run = Access::Needs(Permission::RunEvaluations);
    vec![
        Route::get("/{project}/improvements", read, list),
        Route::post("/{project}/improvements", run, create),
        Route::get("/{project}/improvements/new", run, new),
        Route::get("/{project}/improvements/show", read, show),
        Route::get("/{project}/improvements/step", read, step),
        Route::post("/{project}/improvements/change", run, change),
    ]
}

#[derive(Deserialize)]
struct ListQuery {
    prompt: Option<String>,
    cursor: Option<String>,
}

async fn list(
    Extracted(app): Extracted<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let prompt = query.prompt.as_deref();
    let (items, next) = page_of(&app, &identity, prompt, query.cursor, ROWS).await?;
    let root = page.root();
    let of_prompt = prompt.map(|prompt| format!("prompt={}", encode(prompt)));
    let with = |path: &str, more: Option<String>| {
        let parts: Vec<String> = [of_prompt.clone(), more].into_iter().flatten().collect();
        match parts.is_empty() {
            true => format!("{root}/{path}"),
            false => format!("{root}/{path}?{}", parts.join("&")),
        }
    };
    let next_href =
        next.map(|cursor| with("improvements", Some(format!("cursor={}", encode(&cursor)))));
    let view = json!({
        "rows": items.iter().map(|one| list_row(&page, one)).collect::<Vec<_>>(), "prompt": query.prompt,
        "all_href": format!("{root}/improvements"), "new_href": with("improvements/new", None),
        "self_href": with("improvements", None), "active": items.iter().any(|one| one.state.is_active()),
        "pager": {"prev_href": null, "next_href": next_href},
    });
    page.render("improve/list.html", view).await
}

#[derive(Deserialize)]
struct NewQuery {
    prompt: Option<String>,
    version: Option<String>,
    dataset: Option<String>,
    /// An improvement to begin from.
    like: Option<String>,
}

async fn new(
    Extracted(app): Extracted<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<NewQuery>,
) -> Result<Response> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let given = [
        ("prompt", query.prompt),
        ("version", query.version),
        ("dataset", query.dataset),
    ];
    for (name, value) in given {
        values.extend(value.map(|value| (name.to_owned(), value)));
    }
    if let Some(id) = &query.like {
        let like = super::find(Desk::of(&app), identity.scope(), id).await?;
        let text = serde_json::to_string_pretty(&like.document.to_value()).unwrap_or_default();
        values.insert("document".to_owned(), text);
    }
    render_new(&app, &page, &identity, StatusCode::OK, &values, json!({})).await
}

/// Names of documents of a kind, for a choice.
async fn names(app: &App, identity: &Identity, kind: &str) -> Result<Vec<Value>> {
    let names = crate::catalog::offered_names(&app.catalog, identity.scope(), kind).await?;
    let option = |name: String| json!({"value": name, "label": name});
    Ok(names.into_iter().map(option).collect())
}

async fn render_new(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    status: StatusCode,
    typed: &BTreeMap<String, String>,
    errors: Value,
) -> Result<Response> {
    let named = names(app, identity, crate::evaluators::KIND).await?;
    let mut evaluators: Vec<Value> = named
        .into_iter()
        .map(|one| {
            let name = one["value"].as_str().unwrap_or_default();
            json!({"value": format!("evaluator:{name}"), "label": name})
        })
        .collect();
    // Metrics that mean nothing without a parameter are made in the editor.
    let metrics = eval::METRICS
        .iter()
        .filter(|entry| eval::Metric::parse(&json!({"id": entry.id})).is_ok());
    evaluators.extend(metrics.map(|entry| {
        json!({"value": format!("metric:{}", entry.id), "label": format!("{} – {}", entry.id, entry.about)})
    }));
    let models: Vec<Value> = crate::playground::chat_models(app, identity)
        .into_iter()
        .map(|model| json!({"value": model["id"], "label": model["id"]}))
        .collect();
    // Templates are strict: fields that nobody filled are empty.
    let fields = FIELDS
        .map(str::to_owned)
        .into_iter()
        .chain((1..=EVALUATORS).map(|index| format!("e{index}")));
    let values: BTreeMap<String, String> = fields
        .map(|name| {
            let value = typed.get(&name).cloned().unwrap_or_default();
            (name, value)
        })
        .collect();
    let view = json!({
        "values": values, "errors": errors, "models": models, "evaluators": evaluators,
        "prompts": names(app, identity, crate::prompts::KIND).await?,
        "datasets": names(app, identity, crate::datasets::KIND).await?,
        "evaluator_numbers": (1..=EVALUATORS).collect::<Vec<usize>>(),
    });
    page.render_with_status(status, "improve/new.html", view)
        .await
}

async fn create(
    Extracted(app): Extracted<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<BTreeMap<String, String>>,
) -> Result<Response> {
    let started = match document_of(&form) {
        Ok(document) => start_improvement(&app, &identity, &document).await,
        Err(error) => Err(error),
    };
    match started {
        Ok(improvement) => {
            let to = redirect(show_href(&page, &improvement.id));
            Ok(to.ok(page.t("improve-started")).into_response())
        }
        Err(error) if error.status.is_client_error() => {
            let at = error.at.clone().unwrap_or_default();
            let first = at
                .trim_start_matches('/')
                .split('/')
                .next()
                .unwrap_or_default();
            let field = match first {
                "splits" => "train",
                "evaluators" | "weights" => "e1",
                other if FIELDS.contains(&other) => other,
                _ => "form",
            };
            let message = match field {
                "form" if !at.is_empty() => format!("{at}: {}", error.message),
                _ => error.message.clone(),
            };
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            render_new(
                &app,
                &page,
                &identity,
                status,
                &form,
                json!({field: message}),
            )
            .await
        }
        Err(error) => Err(error),
    }
}

/// What the fields say.
fn document_of(form: &BTreeMap<String, String>) -> Result<Value> {
    let get = |name: &str| {
        let value = form.get(name).map(|value| value.trim());
        value.filter(|value| !value.is_empty())
    };
    if let Some(text) = get("document") {
        return serde_json::from_str(text).map_err(|error| {
            AppError::invalid(format!("the JSON cannot be read: {error}")).at("/document")
        });
    }
    let needed = |name: &'static str, message: &str| {
        get(name).ok_or_else(|| AppError::invalid(message).at(format!("/{name}")))
    };
    let mut document = Map::new();
    let prompt = needed("prompt", "choose a prompt")?;
    let selector = get("version").unwrap_or("latest");
    document.insert(
        "prompt".to_owned(),
        json!(format!("prompt:{prompt}@{selector}")),
    );
    let dataset = needed("dataset", "choose a dataset")?;
    document.insert(
        "dataset".to_owned(),
        json!(format!("dataset:{dataset}@latest")),
    );
    document.insert(
        "reflector".to_owned(),
        json!(needed("reflector", "choose the model that reflects")?),
    );
    for field in ["model", "guidance"] {
        document.extend(get(field).map(|value| (field.to_owned(), json!(value))));
    }
    if let (Some(train), Some(selection), Some(held_out)) =
        (get("train"), get("selection"), get("held_out"))
    {
        let splits = json!({"train": train, "selection": selection, "held_out": held_out});
        document.insert("splits".to_owned(), splits);
    } else if ["train", "selection", "held_out"]
        .iter()
        .any(|name| get(name).is_some())
    {
        let message = "name all three splits, or none of them";
        return Err(AppError::invalid(message).at("/train"));
    }
    let evaluators: Vec<Value> = (1..=EVALUATORS)
        .filter_map(|index| get(&format!("e{index}")))
        .map(|chosen| match chosen.strip_prefix("metric:") {
            Some(id) => json!({"name": id, "evaluator": {"type": "metric", "metric": {"id": id}}}),
            None => json!(format!("{chosen}@latest")),
        })
        .collect();
    document.insert("evaluators".to_owned(), Value::Array(evaluators));
    for field in [
        "budget_calls",
        "budget_usd",
        "minibatch",
        "patience",
        "seed",
    ] {
        let Some(text) = get(field) else { continue };
        let parsed: Option<Value> = serde_json::from_str(text).ok();
        let number = parsed.filter(Value::is_number).ok_or_else(|| {
            AppError::invalid(format!("{text:?} is no number")).at(format!("/{field}"))
        })?;
        document.insert(field.to_owned(), number);
    }
    Ok(Value::Object(document))
}

#[derive(Deserialize)]
struct ShowQuery {
    id: String,
}

async fn show(
    Extracted(app): Extracted<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ShowQuery>,
) -> Result<Response> {
    let desk = Desk::of(&app);
    let improvement = super::find(desk, identity.scope(), &query.id).await?;
    let progress = super::progress(desk, &improvement).await?;
    let mut view = show_view(&page, &improvement, &progress);
    let people = crate::members::actor_names(
        &app.db,
        identity.project.id,
        std::iter::once(improvement.started_by.as_str()),
    )
    .await?;
    view["started_by"] = people[&improvement.started_by].clone().into();
    page.render("improve/show.html", view).await
}

#[derive(Deserialize)]
struct StepQuery {
    id: String,
    number: i64,
}

async fn step(
    Extracted(app): Extracted<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<StepQuery>,
) -> Result<Response> {
    let desk = Desk::of(&app);
    let improvement = super::find(desk, identity.scope(), &query.id).await?;
    let progress = super::progress(desk, &improvement).await?;
    let found = step_of(&progress, query.number)?;
    let results = super::results(desk, &improvement, query.number).await?;
    // A dataset whose chunks are gone must not hide what is known of the step.
    let inputs = examples(&app, &identity, &improvement)
        .await
        .unwrap_or_default();
    let view = step_view(&page, &improvement, &progress, found, &results, &inputs);
    page.render("improve/step.html", view).await
}

/// The examples of an improvement, by place.
async fn examples(
    app: &App,
    identity: &Identity,
    improvement: &Improvement,
) -> Result<HashMap<i64, Example>> {
    let suite = &improvement.pinned.suite;
    let dataset = crate::evaluations::dataset_document(app, improvement.project, suite).await?;
    let wanted = improvement.pinned.rows.all();
    let mut reading = app.datasets.reading_document(identity.scope(), &dataset)?;
    let (mut found, mut place) = (HashMap::new(), 0);
    while let Some(examples) = reading.next().await? {
        for example in examples {
            if wanted.contains(&place) {
                found.insert(place, example);
            }
            place += 1;
        }
    }
    Ok(found)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    id: String,
    action: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    budget_calls: Option<String>,
    #[serde(default)]
    budget_usd: Option<String>,
}

impl Change {
    /// Fields that nobody filled raise nothing.
    fn raise(&self) -> Result<Raise> {
        fn number<T: std::str::FromStr>(text: Option<&String>, at: &str) -> Result<Option<T>> {
            let text = text.map(|text| text.trim()).filter(|text| !text.is_empty());
            text.map(|text| {
                text.parse()
                    .map_err(|_| AppError::invalid(format!("{text:?} is no number")).at(at))
            })
            .transpose()
        }
        Ok(Raise {
            budget_calls: number(self.budget_calls.as_ref(), "budget_calls")?,
            budget_usd: number(self.budget_usd.as_ref(), "budget_usd")?,
        })
    }
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
        "stop" => super::stop(desk, scope, &form.id, &form.reason).await,
        "resume" => match form.raise() {
            Ok(raise) => super::resume(desk, scope, &form.id, raise).await,
            Err(error) => Err(error),
        },
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
