//! Langfuse's experiments and dataset runs: the same runs under two names, for its newer
//! and its older clients. Newer ones make a run by tracing (`langfuse_spans.rs`), older
//! ones link a trace to an item by hand; both derive the same id for the same run name.

use axum::Json as Answer;
use axum::extract::{Path, State};
use base::{Cursor, Digest};
use db::Scope;
use serde::Deserialize;
use serde_json::{Value, json};

use super::langfuse_datasets::{Paging, find_item};
use super::langfuse_scores::{moment, page, score_json, several};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::datasets::parse_name;
use crate::datasets::runs::{
    self, ItemFilter, Run, RunFacts, RunFilter, RunItem, ScoreFilter, list_items, list_runs,
};
use crate::error::{AppError, Result};
use crate::extract::{Query, Raw, parse_json};
use crate::http::{Access, Route};
use crate::openapi::Doc;
use crate::traces::time::{format_rfc3339, parse_time};

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadDatasets);
    let write = Access::Needs(Permission::WriteDatasets);
    let doc = |summary| Doc::new("langfuse", summary);
    vec![
        Route::get("/api/public/experiments", read, experiments)
            .doc(doc("Runs over datasets, the newest first")),
        Route::get("/api/public/experiment-items", read, experiment_items)
            .doc(doc("What runs did with each example, the newest first")),
        Route::get("/api/public/dataset-run-items", read, run_items)
            .doc(doc("The items of one run, by pages")),
        Route::post("/api/public/dataset-run-items", write, add_run_item)
            .body_limit(1 << 20)
            .doc(doc(
                "Link a trace to an item of a dataset, as part of a run",
            )),
        Route::get("/api/public/datasets/{name}/runs", read, dataset_runs)
            .doc(doc("The runs over a dataset, by pages")),
        Route::get("/api/public/datasets/{name}/runs/{run}", read, dataset_run)
            .doc(doc("One run with its items")),
        Route::delete(
            "/api/public/datasets/{name}/runs/{run}",
            write,
            delete_dataset_run,
        )
        .doc(doc("Remove a run; its traces stay")),
    ]
}

fn refuse_filter(filter: Option<&String>) -> Result<()> {
    match filter {
        None => Ok(()),
        Some(_) => {
            Err(AppError::invalid("this server does not know the parameter filter").at("filter"))
        }
    }
}

fn groups(fields: Option<&str>, known: &[&str]) -> Result<Vec<String>> {
    let groups = several(fields);
    match groups.iter().find(|group| !known.contains(&group.as_str())) {
        None => Ok(groups),
        Some(group) => {
            Err(AppError::invalid(format!("there is no group {group:?} of fields")).at("fields"))
        }
    }
}

/// Cuts a list that has one row too many, and says where the next page begins.
fn cut<T>(found: &mut Vec<T>, limit: i64, key: impl Fn(&T) -> (i64, String)) -> Value {
    let limit = usize::try_from(limit).unwrap_or(0);
    let more = found.len() > limit;
    found.truncate(limit);
    match found.last().filter(|_| more) {
        Some(last) => json!({"cursor": Cursor::new(&key(last)).as_str()}),
        None => json!({}),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExperimentsQuery {
    fields: Option<String>,
    limit: Option<i64>,
    score_limit: Option<i64>,
    cursor: Option<String>,
    from_start_time: Option<String>,
    to_start_time: Option<String>,
    id: Option<String>,
    name: Option<String>,
    dataset_id: Option<String>,
    filter: Option<String>,
}

async fn experiments(
    State(app): State<App>,
    identity: Identity,
    Query(query): Query<ExperimentsQuery>,
) -> Result<Answer<Value>> {
    refuse_filter(query.filter.as_ref())?;
    let (limit, after) = page(query.limit, query.cursor.as_deref())?;
    let groups = groups(query.fields.as_deref(), &["core", "metadata", "scores"])?;
    let has = |group: &str| groups.iter().any(|wanted| wanted == group);
    let filter = RunFilter {
        ids: several(query.id.as_deref()),
        names: several(query.name.as_deref()),
        datasets: several(query.dataset_id.as_deref()),
        from: moment(&app, query.from_start_time.as_deref(), "fromStartTime")?,
        until: moment(&app, query.to_start_time.as_deref(), "toStartTime")?,
    };
    let project = identity.project.id;
    let mut found = list_runs(&app.db, project, &filter, after.as_ref(), limit + 1).await?;
    let meta = cut(&mut found, limit, |run| (run.ended_at, run.id.clone()));
    let mut data = Vec::new();
    for run in &found {
        let mut shown = json!({
            "id": run.id, "name": run.name, "description": some(&run.description), "datasetId": run.dataset,
            "startTime": format_rfc3339(run.started_at), "endTime": format_rfc3339(run.ended_at), "itemCount": run.items,
        });
        if has("metadata") {
            shown["metadata"] = object(&run.metadata);
        }
        if has("scores") {
            let filter = ScoreFilter {
                runs: vec![run.id.clone()],
                ..ScoreFilter::default()
            };
            let limit = query.score_limit.unwrap_or(50).clamp(1, 50);
            let scores = runs::list_scores(&app.db, project, &filter, None, limit).await?;
            shown["scores"] = scores_json(project, &scores);
        }
        data.push(shown);
    }
    Ok(Answer(json!({"data": data, "meta": meta})))
}

fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// What Langfuse's types want to be an object.
fn object(value: &Value) -> Value {
    match value {
        Value::Object(_) | Value::Null => value.clone(),
        other => json!({"value": other}),
    }
}

fn scores_json(project: base::ProjectId, scores: &[runs::ClientScore]) -> Value {
    let groups = ["details".to_owned(), "subject".to_owned()];
    let project = project.to_string();
    scores
        .iter()
        .map(|score| score_json(&project, score, &groups))
        .collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ItemsQuery {
    fields: Option<String>,
    limit: Option<i64>,
    score_limit: Option<usize>,
    cursor: Option<String>,
    from_start_time: Option<String>,
    to_start_time: Option<String>,
    experiment_id: Option<String>,
    experiment_name: Option<String>,
    experiment_item_id: Option<String>,
    dataset_id: Option<String>,
    filter: Option<String>,
}

async fn experiment_items(
    State(app): State<App>,
    identity: Identity,
    Query(query): Query<ItemsQuery>,
) -> Result<Answer<Value>> {
    refuse_filter(query.filter.as_ref())?;
    let (limit, after) = page(query.limit, query.cursor.as_deref())?;
    let known = [
        "core",
        "dataset",
        "io",
        "metadata",
        "itemMetadata",
        "experimentMetadata",
        "scores",
    ];
    let mut groups = groups(query.fields.as_deref(), &known)?;
    if groups.is_empty() {
        groups = vec!["core".to_owned(), "dataset".to_owned()];
    }
    let filter = ItemFilter {
        runs: several(query.experiment_id.as_deref()),
        run_names: several(query.experiment_name.as_deref()),
        items: several(query.experiment_item_id.as_deref()),
        datasets: several(query.dataset_id.as_deref()),
        from: moment(&app, query.from_start_time.as_deref(), "fromStartTime")?,
        until: moment(&app, query.to_start_time.as_deref(), "toStartTime")?,
    };
    let project = identity.project.id;
    let mut found = list_items(&app.db, project, &filter, after.as_ref(), limit + 1).await?;
    let meta = cut(&mut found, limit, RunItem::key);
    let mut ids: Vec<String> = found.iter().map(|item| item.run.clone()).collect();
    ids.sort();
    ids.dedup();
    let of = RunFilter {
        ids,
        ..RunFilter::default()
    };
    let known = match of.ids.is_empty() {
        true => Vec::new(),
        false => list_runs(&app.db, project, &of, None, 1000).await?,
    };
    let scores = match groups.iter().any(|group| group == "scores") {
        true => runs::scores_of_items(&app.db, project, &found).await?,
        false => Default::default(),
    };
    let score_limit = query.score_limit.unwrap_or(50).clamp(1, 50);
    let data: Vec<Value> = found
        .iter()
        .filter_map(|item| {
            let run = known.iter().find(|run| run.id == item.run)?;
            let mut shown = item_json(run, item, &groups);
            let key = (item.trace.clone(), item.item.clone());
            if let Some(own) = scores.get(&key) {
                let own = own.get(..score_limit).unwrap_or(own);
                shown["scores"] = scores_json(project, own);
            }
            Some(shown)
        })
        .collect();
    Ok(Answer(json!({"data": data, "meta": meta})))
}

fn item_json(run: &Run, item: &RunItem, groups: &[String]) -> Value {
    let has = |group: &str| groups.iter().any(|wanted| wanted == group);
    let mut shown = json!({
        "id": if item.span.is_empty() { &item.trace } else { &item.span }, "traceId": item.trace,
        "startTime": format_rfc3339(item.started_at), "endTime": format_rfc3339(item.ended_at),
        "level": if item.failed { "ERROR" } else { "DEFAULT" }, "environment": item.environment,
        "experimentId": run.id, "experimentName": run.name, "experimentItemId": item.item,
    });
    if has("dataset") {
        shown["experimentDatasetId"] = json!(run.dataset);
        shown["experimentItemVersion"] = json!(item.item_version);
    }
    if has("io") {
        shown["input"] = item.input.clone();
        shown["output"] = item.output.clone();
        shown["expectedOutput"] = item.expected.clone();
    }
    if has("metadata") {
        shown["metadata"] = object(&item.metadata);
    }
    if has("itemMetadata") {
        shown["experimentItemMetadata"] = object(&item.item_metadata);
    }
    if has("experimentMetadata") {
        shown["experimentMetadata"] = object(&run.metadata);
        shown["experimentDescription"] = json!(some(&run.description));
    }
    shown
}

/// The id of a dataset's run of this name, as Langfuse's clients derive it.
fn run_id(scope: Scope, dataset: &str, name: &str) -> String {
    let parts = json!([
        "langfuse-experiment-v1",
        scope.project.to_string(),
        dataset,
        name
    ]);
    let digest = Digest::of(parts.to_string().as_bytes()).to_string();
    let hex = digest.strip_prefix("sha256:").unwrap_or(&digest);
    hex.get(..16).unwrap_or(hex).to_owned()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewRunItem {
    run_name: String,
    run_description: Option<String>,
    metadata: Option<Value>,
    dataset_item_id: String,
    observation_id: Option<String>,
    trace_id: Option<String>,
    created_at: Option<String>,
}

async fn add_run_item(
    State(app): State<App>,
    identity: Identity,
    Raw(body): Raw,
) -> Result<Answer<Value>> {
    let new: NewRunItem = parse_json(&body)?;
    let scope = identity.scope();
    let now = app.clock.now_us();
    let at = match &new.created_at {
        Some(text) => {
            parse_time(text, now).map_err(|why| AppError::invalid(why).at("createdAt"))?
        }
        None => now,
    };
    let name = new.run_name.trim();
    if name.is_empty() || name.len() > 500 || name.contains('\0') {
        return Err(AppError::invalid("a run's name has 1 to 500 bytes").at("runName"));
    }
    let trace = new
        .trace_id
        .as_deref()
        .and_then(|id| id.parse::<base::TraceId>().ok());
    let Some(trace) = trace else {
        let message = "name the trace: 32 hex digits";
        return Err(AppError::invalid(message).at("traceId"));
    };
    let span = new.observation_id.as_deref().filter(|id| !id.is_empty());
    let span: Option<base::SpanId> = span
        .map(str::parse)
        .transpose()
        .map_err(|_| AppError::invalid("a span's id is 16 hex digits").at("observationId"))?;
    let (found, example) = find_item(&app, scope, &new.dataset_item_id).await?;
    let dataset = found.version.name.as_str().to_owned();
    let facts = RunFacts {
        id: run_id(scope, &dataset, name),
        name: name.to_owned(),
        dataset: Some(dataset),
        description: new.run_description.map(|text| text.replace('\0', "")),
        metadata: new.metadata.unwrap_or_default(),
    };
    let item = RunItem {
        run: facts.id.clone(),
        item: example.id.clone(),
        trace: trace.to_string(),
        span: span.map(|span| span.to_string()).unwrap_or_default(),
        started_at: at,
        ended_at: at,
        failed: false,
        environment: identity.principal.environment.clone(),
        item_version: None,
        input: example.input,
        output: Value::Null,
        expected: example.expected.unwrap_or_default(),
        metadata: Value::Null,
        item_metadata: Value::Object(example.metadata),
    };
    let mut tx = app.db.begin_write().await?;
    runs::record_item(&mut tx, scope, &facts, &item).await?;
    tx.commit().await?;
    Ok(Answer(run_item_json(&facts.name, &item)))
}

fn run_item_json(run: &str, item: &RunItem) -> Value {
    let at = format_rfc3339(item.started_at);
    json!({
        "id": format!("{}-{}-{}", item.run, item.item, item.trace), "datasetRunId": item.run, "datasetRunName": run,
        "datasetItemId": item.item, "traceId": item.trace, "observationId": some(&item.span), "createdAt": at, "updatedAt": at,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RunItemsQuery {
    dataset_id: String,
    run_name: String,
    page: Option<i64>,
    limit: Option<i64>,
}

/// Every item of a run, the newest first; runs are as long as datasets.
async fn items_of(app: &App, scope: Scope, run: &str) -> Result<Vec<RunItem>> {
    let filter = ItemFilter {
        runs: vec![run.to_owned()],
        ..ItemFilter::default()
    };
    let (mut items, mut after): (Vec<RunItem>, Option<(i64, String)>) = (Vec::new(), None);
    loop {
        let found = list_items(&app.db, scope.project, &filter, after.as_ref(), 10_000).await?;
        let is_last = found.len() < 10_000;
        after = found.last().map(RunItem::key);
        items.extend(found);
        if is_last || items.len() >= 100_000 {
            return Ok(items);
        }
    }
}

async fn run_items(
    State(app): State<App>,
    identity: Identity,
    Query(query): Query<RunItemsQuery>,
) -> Result<Answer<Value>> {
    let scope = identity.scope();
    let paging = Paging {
        page: query.page,
        limit: query.limit,
    };
    let (number, limit) = paging.read()?;
    let run = named(&app, scope, &query.dataset_id, &query.run_name).await?;
    let items = items_of(&app, scope, &run.id).await?;
    let skipped = usize::try_from((number - 1).saturating_mul(limit)).unwrap_or(usize::MAX);
    let shown = items
        .iter()
        .skip(skipped)
        .take(usize::try_from(limit).unwrap_or(0));
    let data: Vec<Value> = shown.map(|item| run_item_json(&run.name, item)).collect();
    Ok(Answer(
        json!({"data": data, "meta": Paging::meta(number, limit, run.items)}),
    ))
}

/// The run of this name over a dataset.
async fn named(app: &App, scope: Scope, dataset: &str, name: &str) -> Result<Run> {
    let filter = RunFilter {
        names: vec![name.to_owned()],
        datasets: vec![parse_name(dataset)?.as_str().to_owned()],
        ..RunFilter::default()
    };
    let found = list_runs(&app.db, scope.project, &filter, None, 1)
        .await?
        .pop();
    found.ok_or_else(|| {
        AppError::not_found(format!("the dataset {dataset} has no run {name:?}"))
            .code("run_not_found")
    })
}

fn run_json(run: &Run) -> Value {
    json!({
        "id": run.id, "name": run.name, "description": some(&run.description), "metadata": run.metadata,
        "datasetId": run.dataset, "datasetName": run.dataset,
        "createdAt": format_rfc3339(run.started_at), "updatedAt": format_rfc3339(run.ended_at),
    })
}

async fn dataset_runs(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Query(paging): Query<Paging>,
) -> Result<Answer<Value>> {
    let (number, limit) = paging.read()?;
    let scope = identity.scope();
    let dataset = app.datasets.latest(scope, &parse_name(&name)?).await?;
    let filter = RunFilter {
        datasets: vec![dataset.version.name.as_str().to_owned()],
        ..RunFilter::default()
    };
    let found = list_runs(&app.db, scope.project, &filter, None, 1000).await?;
    let total = i64::try_from(found.len()).unwrap_or(i64::MAX);
    let skipped = usize::try_from((number - 1).saturating_mul(limit)).unwrap_or(usize::MAX);
    let shown = found.iter().skip(skipped);
    let data: Vec<Value> = shown
        .take(usize::try_from(limit).unwrap_or(0))
        .map(run_json)
        .collect();
    Ok(Answer(
        json!({"data": data, "meta": Paging::meta(number, limit, total)}),
    ))
}

async fn dataset_run(
    State(app): State<App>,
    identity: Identity,
    Path((name, run)): Path<(String, String)>,
) -> Result<Answer<Value>> {
    let scope = identity.scope();
    let run = named(&app, scope, &name, &run).await?;
    let items = items_of(&app, scope, &run.id).await?;
    let mut shown = run_json(&run);
    shown["datasetRunItems"] = items
        .iter()
        .map(|item| run_item_json(&run.name, item))
        .collect();
    Ok(Answer(shown))
}

async fn delete_dataset_run(
    State(app): State<App>,
    identity: Identity,
    Path((name, run)): Path<(String, String)>,
) -> Result<Answer<Value>> {
    let scope = identity.scope();
    let run = named(&app, scope, &name, &run).await?;
    runs::delete_run(&app.db, scope, &run.id).await?;
    Ok(Answer(
        json!({"message": "Dataset run successfully deleted"}),
    ))
}
