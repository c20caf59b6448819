//! The pages of models' properties and of choices.
//!
//! The shortlist is a form of its own: its filters and its marks travel together, so
//! that nothing that was chosen is lost when a filter changes. Marks are fields `m:MODEL`.

use std::collections::BTreeMap;

use axum::extract::State as Extracted;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::api::{give_evidence, holds, page as page_of, start_choice};
use super::card_page;
use super::properties::{ModelTask, Wanted};
use super::view::{encode, list_row, model_row, number, show_href, show_view};
use super::{Choice, ChoiceLimits, Desk, KnownModel, Subject, Weights, names};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::evaluations::{EvaluatorUse, PromptUse};
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::ui::{PageContext, redirect};

/// Rows of the list.
const ROWS: u32 = 50;
/// Places for evaluators in the form.
const EVALUATORS: usize = 4;
const MARK: &str = "m:";

type Fields = BTreeMap<String, String>;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadEvaluations);
    let run = Access::Needs(Permission::RunEvaluations);
    let write = Access::Needs(Permission::WriteCatalog);
    vec![
        Route::get("/{project}/choices", read, list),
        Route::post("/{project}/choices", run, create),
        Route::get(
            "/{project}/choices/models",
            Access::Needs(Permission::ReadModels),
            models,
        ),
        Route::get("/{project}/choices/models/edit", write, card_page::edit),
        Route::post("/{project}/choices/models/edit", write, card_page::save),
        Route::get("/{project}/choices/new", run, new),
        Route::get("/{project}/choices/show", read, show),
        Route::post("/{project}/choices/change", run, change),
        Route::post(
            "/{project}/choices/evidence",
            Access::Needs(Permission::Propose),
            evidence,
        ),
    ]
}

pub(super) fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    let value = fields.get(name).map(|value| value.trim());
    value.filter(|value| !value.is_empty())
}

/// A number that was typed.
fn typed(fields: &Fields, name: &'static str) -> Result<Option<f64>> {
    let Some(text) = field(fields, name) else {
        return Ok(None);
    };
    let parsed: Option<f64> = text.parse().ok();
    let good = parsed.filter(|number| number.is_finite());
    good.map(Some)
        .ok_or_else(|| AppError::invalid(format!("{text:?} is no number")).at(name))
}

fn whole(fields: &Fields, name: &'static str) -> Result<Option<u64>> {
    let Some(text) = field(fields, name) else {
        return Ok(None);
    };
    let parsed: Option<u64> = text.parse().ok();
    parsed
        .map(Some)
        .ok_or_else(|| AppError::invalid(format!("{text:?} is no whole number")).at(name))
}

fn flag(fields: &Fields, name: &str) -> Option<bool> {
    match field(fields, name) {
        Some("yes") => Some(true),
        Some("no") => Some(false),
        _ => None,
    }
}

pub(super) fn words(fields: &Fields, name: &str) -> Vec<String> {
    let texts = field(fields, name).unwrap_or_default().split([',', '、']);
    let words = texts.map(str::trim).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

fn marked(fields: &Fields) -> Vec<String> {
    let marks = fields.keys().filter_map(|key| key.strip_prefix(MARK));
    marks.map(str::to_owned).collect()
}

fn wanted(fields: &Fields) -> Result<Wanted> {
    Ok(Wanted {
        open: flag(fields, "open"),
        licences: words(fields, "licence"),
        vendors: words(fields, "vendor"),
        regions: words(fields, "region"),
        languages: words(fields, "language"),
        input: words(fields, "input"),
        tunable: flag(fields, "tunable"),
        context_tokens: whole(fields, "context_tokens")?,
        input_usd: typed(fields, "input_usd")?,
        output_usd: typed(fields, "output_usd")?,
    })
}

async fn list(
    Extracted(app): Extracted<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<Fields>,
) -> Result<Response> {
    let cursor = field(&query, "cursor").map(str::to_owned);
    let (items, next) = page_of(&app, &identity, cursor, ROWS).await?;
    let rows: Vec<Value> = items.iter().map(|one| list_row(&page, one)).collect();
    let root = page.root();
    let next_href = next.map(|cursor| format!("{root}/choices?cursor={}", encode(&cursor)));
    let view = json!({
        "rows": rows, "active": items.iter().any(|one| one.state.is_active()),
        "self_href": format!("{root}/choices"), "pager": {"prev_href": null, "next_href": next_href},
    });
    page.render("choice/list.html", view).await
}

/// How the models' table is sorted.
fn sort(models: &mut [KnownModel], by: &str) {
    let (by, descending) = match by.strip_prefix('-') {
        Some(by) => (by, true),
        None => (by, false),
    };
    let text = |text: Option<&String>| text.map(|text| text.to_lowercase()).unwrap_or_default();
    // What is not known stands at the end, whichever way it is sorted.
    let order = |a: Option<f64>, b: Option<f64>| match (a, b) {
        (Some(a), Some(b)) if descending => b.total_cmp(&a),
        (Some(a), Some(b)) => a.total_cmp(&b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    };
    #[expect(clippy::cast_precision_loss, reason = "tokens are far below 2^53")]
    let context = |model: &KnownModel| model.properties.context_tokens.map(|tokens| tokens as f64);
    models.sort_by(|a, b| match by {
        "context" => order(context(a), context(b)),
        "input" => order(a.price.map(|p| p.input_usd), b.price.map(|p| p.input_usd)),
        "output" => order(a.price.map(|p| p.output_usd), b.price.map(|p| p.output_usd)),
        "vendor" => {
            let (a, b) = (
                text(a.properties.vendor.as_ref()),
                text(b.properties.vendor.as_ref()),
            );
            if descending { b.cmp(&a) } else { a.cmp(&b) }
        }
        "model" if descending => b.id.cmp(&a.id),
        "model" => a.id.cmp(&b.id),
        _ => std::cmp::Ordering::Equal,
    });
}

const FILTERS: [&str; 12] = [
    "q",
    "callable",
    "open",
    "licence",
    "vendor",
    "region",
    "language",
    "input",
    "tunable",
    "context_tokens",
    "input_usd",
    "output_usd",
];

async fn models(
    Extracted(app): Extracted<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<Fields>,
) -> Result<Response> {
    let all = super::known_models(&app, identity.scope()).await?;
    let chosen = marked(&query);
    // A filter that cannot be read filters nothing, and says so.
    let (wanted, problem) = match wanted(&query) {
        Ok(wanted) => (wanted, None),
        Err(error) => (Wanted::default(), Some(error.message)),
    };
    let fits = |model: &KnownModel| {
        wanted.unmet(model).is_empty()
            && flag(&query, "callable").is_none_or(|callable| callable == model.callable)
            && field(&query, "q").is_none_or(|text| holds(model, text))
    };
    let mut shown: Vec<KnownModel> = all.iter().filter(|model| fits(model)).cloned().collect();
    let by = field(&query, "sort").unwrap_or_default();
    sort(&mut shown, by);
    let options = |of: fn(&KnownModel) -> Vec<String>| {
        let words: std::collections::BTreeSet<String> = all.iter().flat_map(of).collect();
        let option = |word: String| json!({"value": word, "label": word});
        words.into_iter().map(option).collect::<Vec<Value>>()
    };
    let hidden: Vec<&String> = chosen
        .iter()
        .filter(|id| !shown.iter().any(|model| model.id == **id))
        .collect();
    let values: BTreeMap<&str, &str> = FILTERS
        .iter()
        .map(|name| (*name, field(&query, name).unwrap_or_default()))
        .collect();
    let filtered = values.values().any(|value| !value.is_empty());
    let view = json!({
        "rows": shown.iter().map(|model| model_row(&page, model, chosen.contains(&model.id))).collect::<Vec<_>>(),
        "total": all.len(), "values": values, "filtered": filtered, "problem": problem, "chosen": chosen.len(), "hidden": hidden,
        "vendors": options(|model| model.properties.vendor.clone().into_iter().collect()),
        "licences": options(|model| model.properties.licence.clone().into_iter().collect()),
        "regions": options(|model| model.properties.regions.clone()),
        "languages": options(|model| model.properties.languages.clone()),
        "inputs": options(|model| model.properties.input.clone()),
        "sort": by, "sorts": sorts(&page, &query, by),
    });
    page.render("choice/models.html", view).await
}

/// Where a click on a column's head leads.
fn sorts(page: &PageContext, query: &Fields, by: &str) -> Value {
    let href = |column: &str| {
        let next = if by == column {
            format!("-{column}")
        } else {
            column.to_owned()
        };
        let mut pairs = url::form_urlencoded::Serializer::new(String::new());
        for (key, value) in query.iter().filter(|(key, _)| *key != "sort") {
            pairs.append_pair(key, value);
        }
        let pairs = pairs.append_pair("sort", &next).finish();
        format!("{}/choices/models?{pairs}", page.root())
    };
    let columns = ["model", "vendor", "context", "input", "output"];
    let all = columns
        .iter()
        .map(|column| ((*column).to_owned(), json!(href(column))));
    Value::Object(all.collect())
}

async fn new(
    Extracted(app): Extracted<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<Fields>,
) -> Result<Response> {
    let mut values = query.clone();
    if let Some(id) = field(&query, "like") {
        let like = super::find(Desk::of(&app), identity.scope(), id).await?;
        values.extend(fields_of(&like));
    }
    render_new(&app, &page, &identity, StatusCode::OK, &values, json!({})).await
}

/// The fields of the form, as another choice had them.
fn fields_of(like: &Choice) -> Fields {
    let task = &like.task;
    let mut fields = Fields::new();
    let mut set = |name: String, value: String| {
        if !value.is_empty() {
            fields.insert(name, value);
        }
    };
    let name_of = |text: &str| {
        let rest = text.split_once(':').map_or(text, |(_, rest)| rest);
        let name = rest.split_once('@').map_or(rest, |(name, _)| name);
        name.to_owned()
    };
    set("name".to_owned(), like.name.clone());
    set("description".to_owned(), task.description.clone());
    set("dataset".to_owned(), name_of(&task.dataset));
    set("split".to_owned(), task.split.clone().unwrap_or_default());
    set(
        "cluster_by".to_owned(),
        task.cluster_by.clone().unwrap_or_default(),
    );
    if let Some(PromptUse::Reference(text)) = &task.prompt {
        set("prompt".to_owned(), name_of(text));
    }
    for model in &task.models {
        set(format!("{MARK}{model}"), "on".to_owned());
    }
    for (index, used) in task.evaluators.iter().enumerate() {
        let chosen = match used {
            EvaluatorUse::Reference(text) => format!("evaluator:{}", name_of(text)),
            EvaluatorUse::Inline(inline) => {
                let id = inline.evaluator["metric"]["id"]
                    .as_str()
                    .unwrap_or_default();
                format!("metric:{id}")
            }
        };
        set(format!("e{}", index + 1), chosen);
        if let Some(weight) = task.quality.get(used.name()) {
            set(format!("w{}", index + 1), number(*weight));
        }
    }
    set("quality".to_owned(), number(task.weights.quality));
    set("speed".to_owned(), number(task.weights.speed));
    set("cost".to_owned(), number(task.weights.cost));
    let limits = &task.limits;
    set(
        "p95_latency_ms".to_owned(),
        limits.p95_latency_ms.map(number).unwrap_or_default(),
    );
    set(
        "usd_per_1000".to_owned(),
        limits.usd_per_1000.map(number).unwrap_or_default(),
    );
    set(
        "least_quality".to_owned(),
        limits.quality.map(number).unwrap_or_default(),
    );
    let wanted = &limits.properties;
    let yes_no = |flag: Option<bool>| flag.map_or("", |flag| if flag { "yes" } else { "no" });
    set("open".to_owned(), yes_no(wanted.open).to_owned());
    set("region".to_owned(), wanted.regions.join(", "));
    set("language".to_owned(), wanted.languages.join(", "));
    let context = wanted.context_tokens.map(|tokens| tokens.to_string());
    set("context_tokens".to_owned(), context.unwrap_or_default());
    set("finalists".to_owned(), task.finalists.to_string());
    set("first_sample".to_owned(), task.first_sample.to_string());
    set(
        "budget_usd".to_owned(),
        task.budget_usd.map(number).unwrap_or_default(),
    );
    fields
}

async fn render_new(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    status: StatusCode,
    values: &Fields,
    errors: Value,
) -> Result<Response> {
    let options = |names: Vec<String>, prefix: &str| -> Vec<Value> {
        let option = |name: String| json!({"value": format!("{prefix}{name}"), "label": name});
        names.into_iter().map(option).collect()
    };
    let project = identity.project.id;
    let mut evaluators = options(
        names(app, project, crate::evaluators::KIND).await?,
        "evaluator:",
    );
    let metrics = eval::METRICS
        .iter()
        .filter(|entry| eval::Metric::parse(&json!({"id": entry.id})).is_ok());
    evaluators.extend(metrics.map(|entry| {
        json!({"value": format!("metric:{}", entry.id), "label": format!("{} – {}", entry.id, entry.about)})
    }));
    let chosen = marked(values);
    let known = super::known_models(app, identity.scope()).await?;
    let can_chat =
        |model: &&KnownModel| model.callable && model.properties.task != Some(ModelTask::Embedding);
    let rows: Vec<Value> = known
        .iter()
        .filter(can_chat)
        .map(|model| model_row(page, model, chosen.contains(&model.id)))
        .collect();
    let others: Vec<&String> = chosen
        .iter()
        .filter(|id| !rows.iter().any(|row| row["id"] == ***id))
        .collect();
    let view = json!({
        "values": every_field(values), "errors": errors, "models": rows, "others": others, "chosen": chosen.len(),
        "datasets": options(names(app, project, crate::datasets::KIND).await?, ""),
        "prompts": options(names(app, project, crate::prompts::KIND).await?, ""),
        "evaluators": evaluators, "evaluator_numbers": (1..=EVALUATORS).collect::<Vec<_>>(),
    });
    page.render_with_status(status, "choice/new.html", view)
        .await
}

/// Every field of the form: those that nobody filled are empty, for templates are strict.
fn every_field(given: &Fields) -> Fields {
    let mut all: Fields = [
        "name",
        "description",
        "dataset",
        "split",
        "cluster_by",
        "prompt",
        "version",
        "more",
        "p95_latency_ms",
        "usd_per_1000",
        "least_quality",
        "open",
        "region",
        "language",
        "context_tokens",
        "finalists",
        "first_sample",
        "budget_usd",
    ]
    .iter()
    .map(|name| ((*name).to_owned(), String::new()))
    .collect();
    let weights = Weights::default();
    for (name, weight) in [
        ("quality", weights.quality),
        ("speed", weights.speed),
        ("cost", weights.cost),
    ] {
        all.insert(name.to_owned(), number(weight));
    }
    for index in 1..=EVALUATORS {
        all.insert(format!("e{index}"), String::new());
        all.insert(format!("w{index}"), String::new());
    }
    all.extend(
        given
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    all
}

async fn create(
    Extracted(app): Extracted<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<Fields>,
) -> Result<Response> {
    let started = match task_of(&form) {
        Ok(task) => {
            let name = field(&form, "name").unwrap_or_default();
            start_choice(&app, &identity, name, &task).await
        }
        Err(error) => Err(error),
    };
    match started {
        Ok(choice) => {
            let to = redirect(show_href(&page, &choice.id));
            Ok(to.ok(page.t("choices-started")).into_response())
        }
        Err(error) if error.status.is_client_error() => {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            let errors = errors_of(&error);
            render_new(&app, &page, &identity, status, &form, errors).await
        }
        Err(error) => Err(error),
    }
}

/// The field that a mistake belongs to.
fn errors_of(error: &AppError) -> Value {
    let at = error.at.as_deref().unwrap_or_default();
    let place = at.trim_start_matches('/');
    let first = place.split('/').next().unwrap_or_default();
    let known = [
        "name",
        "dataset",
        "split",
        "cluster_by",
        "prompt",
        "finalists",
        "first_sample",
        "budget_usd",
        "quality",
        "speed",
        "cost",
        "p95_latency_ms",
        "usd_per_1000",
        "least_quality",
        "context_tokens",
    ];
    let name = match (first, place) {
        ("evaluators", _) => "e1",
        ("limits", "limits/quality") => "least_quality",
        ("limits", _) => place.rsplit('/').next().unwrap_or_default(),
        ("weights", _) => "quality",
        (first, _) => first,
    };
    let mut errors = Map::new();
    if known.contains(&name) || name == "e1" {
        errors.insert(name.to_owned(), json!(error.message));
    } else {
        let message = match at {
            "" => error.message.clone(),
            at => format!("{at}: {}", error.message),
        };
        errors.insert("form".to_owned(), json!(message));
    }
    Value::Object(errors)
}

/// The task that the fields say.
fn task_of(form: &Fields) -> Result<Value> {
    let mut task = Map::new();
    let mut set = |name: &str, value: Value| {
        task.insert(name.to_owned(), value);
    };
    let dataset = field(form, "dataset")
        .ok_or_else(|| AppError::invalid("choose a dataset").at("dataset"))?;
    set("dataset", json!(format!("dataset:{dataset}@latest")));
    for name in ["description", "split", "cluster_by"] {
        if let Some(text) = field(form, name) {
            set(name, json!(text));
        }
    }
    if let Some(prompt) = field(form, "prompt") {
        let version = field(form, "version").unwrap_or("latest");
        set("prompt", json!(format!("prompt:{prompt}@{version}")));
    }
    let mut models = marked(form);
    models.extend(words(form, "more"));
    set("models", json!(models));
    let mut evaluators = Vec::new();
    let mut quality = Map::new();
    for index in 1..=EVALUATORS {
        let Some(chosen) = field(form, &format!("e{index}")) else {
            continue;
        };
        let (name, used) = match chosen.strip_prefix("metric:") {
            Some(id) => (
                id.to_owned(),
                json!({"name": id, "evaluator": {"type": "metric", "metric": {"id": id}}}),
            ),
            None => {
                let name = chosen.strip_prefix("evaluator:").unwrap_or(chosen);
                (name.to_owned(), json!(format!("evaluator:{name}@latest")))
            }
        };
        evaluators.push(used);
        let weight = field(form, &format!("w{index}"));
        if let Some(text) = weight {
            let weight: Option<f64> = text.parse().ok();
            let weight = weight.filter(|weight| weight.is_finite()).ok_or_else(|| {
                AppError::invalid(format!("{text:?} is no number")).at("evaluators")
            })?;
            quality.insert(name, json!(weight));
        } else {
            quality.insert(name, json!(1.0));
        }
    }
    set("evaluators", json!(evaluators));
    set("quality", Value::Object(quality));
    let weights = Weights::default();
    set(
        "weights",
        json!({
            "quality": typed(form, "quality")?.unwrap_or(weights.quality),
            "speed": typed(form, "speed")?.unwrap_or(weights.speed),
            "cost": typed(form, "cost")?.unwrap_or(weights.cost),
        }),
    );
    let limits = ChoiceLimits {
        p95_latency_ms: typed(form, "p95_latency_ms")?,
        usd_per_1000: typed(form, "usd_per_1000")?,
        quality: typed(form, "least_quality")?,
        properties: wanted(form)?,
    };
    set("limits", serde_json::to_value(limits).unwrap_or_default());
    for name in ["finalists", "first_sample"] {
        if let Some(number) = whole(form, name)? {
            set(name, json!(number));
        }
    }
    if let Some(budget) = typed(form, "budget_usd")? {
        set("budget_usd", json!(budget));
    }
    Ok(Value::Object(task))
}

async fn show(
    Extracted(app): Extracted<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<Fields>,
) -> Result<Response> {
    let desk = Desk::of(&app);
    let id = field(&query, "id").unwrap_or_default();
    let choice = super::find(desk, identity.scope(), id).await?;
    let asked = (choice.task.weights, choice.task.limits.clone());
    // Weights that cannot be read are said, and the choice's own are shown.
    let (weights, limits, mut problem) = match weighed(&query, &choice) {
        Ok((weights, limits)) => (weights, limits, None),
        Err(error) => (asked.0, asked.1.clone(), Some(error.message)),
    };
    let (weights, limits, result) = match super::result_of(desk, &choice, weights, &limits).await {
        Ok(result) => (weights, limits, result),
        Err(error) if error.status.is_client_error() => {
            problem = Some(error.message);
            let result = super::result_of(desk, &choice, asked.0, &asked.1).await?;
            (asked.0, asked.1, result)
        }
        Err(error) => return Err(error),
    };
    let current = super::current(desk, &choice).await?;
    let mut view = show_view(
        &page,
        &choice,
        current.as_ref(),
        result.as_ref(),
        (weights, &limits),
    );
    view["problem"] = json!(problem);
    let started_by = &choice.started_by;
    let who = crate::members::actor_name(&app.db, identity.project.id, started_by).await?;
    view["started_by"] = json!(who);
    let subjects = match choice.version {
        Some(_) => {
            let project = identity.project.id;
            let option = |kind: &str, name: String| json!({"value": format!("{kind}:{name}"), "label": name});
            let apps = names(&app, project, crate::apps::RELEASE).await?;
            let prompts = names(&app, project, crate::prompts::KIND).await?;
            let apps = apps
                .into_iter()
                .map(|name| option(crate::apps::RELEASE, name));
            let prompts = prompts
                .into_iter()
                .map(|name| option(crate::prompts::KIND, name));
            apps.chain(prompts).collect::<Vec<_>>()
        }
        None => Vec::new(),
    };
    view["subjects"] = json!(subjects);
    page.render("choice/show.html", view).await
}

/// The weights and limits of the address, over those of the choice.
fn weighed(query: &Fields, choice: &Choice) -> Result<(Weights, ChoiceLimits)> {
    let task = &choice.task;
    let weights = Weights {
        quality: typed(query, "quality")?.unwrap_or(task.weights.quality),
        speed: typed(query, "speed")?.unwrap_or(task.weights.speed),
        cost: typed(query, "cost")?.unwrap_or(task.weights.cost),
    };
    // A form that was sent says of each limit whether it holds; a bare address keeps them.
    let limit = |name: &'static str, own: Option<f64>| match query.contains_key(name) {
        true => typed(query, name),
        false => Ok(own),
    };
    let limits = ChoiceLimits {
        p95_latency_ms: limit("p95_latency_ms", task.limits.p95_latency_ms)?,
        usd_per_1000: limit("usd_per_1000", task.limits.usd_per_1000)?,
        quality: limit("least_quality", task.limits.quality)?,
        properties: task.limits.properties.clone(),
    };
    Ok((weights, limits))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeForm {
    id: String,
    action: String,
    #[serde(default)]
    budget_usd: String,
}

async fn change(
    Extracted(app): Extracted<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<ChangeForm>,
) -> Result<Response> {
    let (desk, scope) = (Desk::of(&app), identity.scope());
    let budget = Fields::from([("budget_usd".to_owned(), form.budget_usd.clone())]);
    let changed = match form.action.as_str() {
        "pause" => super::pause(desk, scope, &form.id, "").await,
        "stop" => super::stop(desk, scope, &form.id, "").await,
        "resume" => match typed(&budget, "budget_usd") {
            Ok(budget) => super::resume(desk, scope, &form.id, budget).await,
            Err(error) => Err(error),
        },
        _ => Err(AppError::invalid("there is no such action").at("action")),
    };
    answer(&page, &form.id, changed.map(|_| None))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EvidenceForm {
    id: String,
    /// `KIND:NAME`.
    subject: String,
    #[serde(default)]
    version: String,
}

async fn evidence(
    Extracted(app): Extracted<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<EvidenceForm>,
) -> Result<Response> {
    let (kind, name) = form.subject.split_once(':').unwrap_or_default();
    let subject = Subject {
        kind: kind.to_owned(),
        name: name.to_owned(),
        version: Some(form.version.clone()),
    };
    let cited = give_evidence(&app, &identity, &form.id, &subject).await;
    let said = cited.map(|cited| {
        let outcome = page.t(&format!("evaluations-outcome-{}", cited.outcome));
        Some(format!("{outcome}: {}", cited.reason))
    });
    answer(&page, &form.id, said)
}

/// Back to the choice, with what happened; a mistake is said there too.
fn answer(page: &PageContext, id: &str, said: Result<Option<String>>) -> Result<Response> {
    let to = redirect(show_href(page, id));
    match said {
        Ok(None) => Ok(to.into_response()),
        Ok(Some(text)) => Ok(to.ok(text).into_response()),
        Err(error) if error.status == StatusCode::NOT_FOUND && error.code == "choice_not_found" => {
            Err(error)
        }
        Err(error) if error.status.is_client_error() => {
            Ok(to.err(error.message.clone()).into_response())
        }
        Err(error) => Err(error),
    }
}
