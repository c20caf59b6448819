//! Langfuse's dataset and dataset-item routes over our datasets.
//!
//! An item is an example: `expectedOutput` is `expected`, the source is the lineage.
//! Each write is a version. Three things differ: an item needs an input; an archived item
//! is one in the split `archived`; times are those of the dataset's newest version, since
//! an example has none of its own.

use axum::Json as Answer;
use axum::extract::{Path, State};
use base::Cursor;
use db::catalog::{Name, NameFilter};
use db::{PageRequest, Scope};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::datasets::{
    Describe, Edits, Example, ExampleFilter, Fields, Found, KIND, Source, parse_name,
};
use crate::error::{AppError, Result};
use crate::extract::{Query, Raw, parse_json};
use crate::http::{Access, Route};
use crate::openapi::Doc;
use crate::traces::time::{format_rfc3339, parse_time};

/// The split of items that are archived.
const ARCHIVED: &str = "archived";
const MOST: i64 = 100;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadDatasets);
    let write = Access::Needs(Permission::WriteDatasets);
    let doc = |summary| Doc::new("langfuse", summary);
    vec![
        Route::get("/api/public/v2/datasets", read, list).doc(doc("Datasets, by pages")),
        Route::post("/api/public/v2/datasets", write, create)
            .doc(doc("Make a dataset, or describe one anew")),
        Route::get("/api/public/v2/datasets/{name}", read, show).doc(doc("One dataset")),
        Route::get("/api/public/datasets", read, list).doc(doc("Datasets, by pages")),
        Route::post("/api/public/datasets", write, create)
            .doc(doc("Make a dataset, or describe one anew")),
        Route::get("/api/public/datasets/{name}", read, show).doc(doc("One dataset")),
        Route::get("/api/public/dataset-items", read, items)
            .doc(doc("The items of a dataset, by pages")),
        Route::post("/api/public/dataset-items", write, save_item)
            .body_limit(4 << 20)
            .doc(doc("Add an item, or replace the one with its id")),
        Route::get("/api/public/dataset-items/{id}", read, item)
            .doc(doc("One item, in whichever dataset")),
        Route::delete("/api/public/dataset-items/{id}", write, delete_item)
            .doc(doc("Remove an item")),
    ]
}

#[derive(Deserialize)]
pub(super) struct Paging {
    pub(super) page: Option<i64>,
    pub(super) limit: Option<i64>,
}

impl Paging {
    /// The number of the page, from 1, and how many it holds.
    pub(super) fn read(&self) -> Result<(i64, i64)> {
        let (page, limit) = (self.page.unwrap_or(1), self.limit.unwrap_or(50));
        if page < 1 || limit < 1 {
            return Err(AppError::invalid("page and limit are numbers from 1").at("page"));
        }
        Ok((page, limit.min(MOST)))
    }

    pub(super) fn meta(page: i64, limit: i64, total: i64) -> Value {
        json!({"page": page, "limit": limit, "totalItems": total, "totalPages": total.div_euclid(limit) + i64::from(total % limit > 0)})
    }
}

/// Every dataset of the project, by name.
async fn names(app: &App, scope: Scope) -> Result<Vec<Name>> {
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
        found.extend(names.items.into_iter().map(|listed| listed.latest.name));
        match names.next {
            Some(next) => page.cursor = Some(Cursor::from_client(next.as_str())),
            None => return Ok(found),
        }
    }
}

async fn list(
    State(app): State<App>,
    identity: Identity,
    Query(paging): Query<Paging>,
) -> Result<Answer<Value>> {
    let (page, limit) = paging.read()?;
    let scope = identity.scope();
    let names = names(&app, scope).await?;
    let skipped = usize::try_from((page - 1).saturating_mul(limit)).unwrap_or(usize::MAX);
    let mut data = Vec::new();
    for name in names
        .iter()
        .skip(skipped)
        .take(usize::try_from(limit).unwrap_or(0))
    {
        data.push(dataset_json(
            scope,
            &app.datasets.latest(scope, name).await?,
        ));
    }
    let total = i64::try_from(names.len()).unwrap_or(i64::MAX);
    Ok(Answer(
        json!({"data": data, "meta": Paging::meta(page, limit, total)}),
    ))
}

fn dataset_json(scope: Scope, found: &Found) -> Value {
    let (version, document) = (&found.version, &found.document);
    let at = format_rfc3339(version.created_at);
    json!({
        "id": version.name.as_str(), "name": version.name.as_str(), "projectId": scope.project.to_string(),
        "description": Some(&document.description).filter(|text| !text.is_empty()), "metadata": document.metadata,
        "inputSchema": document.fields.input, "expectedOutputSchema": document.fields.expected,
        "createdAt": at, "updatedAt": at,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewDataset {
    name: String,
    description: Option<String>,
    metadata: Option<Value>,
    input_schema: Option<Value>,
    expected_output_schema: Option<Value>,
}

async fn create(
    State(app): State<App>,
    identity: Identity,
    Raw(body): Raw,
) -> Result<Answer<Value>> {
    let new: NewDataset = parse_json(&body)?;
    let (scope, name) = (identity.scope(), parse_name(&new.name)?);
    let found = app.datasets.find_latest(scope, &name).await?;
    let mut fields = found
        .as_ref()
        .map(|found| found.document.fields.clone())
        .unwrap_or_default();
    fields = Fields {
        input: new.input_schema.or(fields.input.take()),
        expected: new.expected_output_schema.or(fields.expected.take()),
        ..fields
    };
    let describe = Describe {
        description: new.description,
        fields: Some(fields),
        metadata: new.metadata,
        ..Describe::default()
    };
    let edits = Edits {
        describe,
        ..Edits::default()
    };
    match found {
        None => app.datasets.create(scope, &name, edits).await?,
        Some(_) => app.datasets.edit(scope, &name, edits).await?,
    };
    app.refresh_plan().await?;
    Ok(Answer(dataset_json(
        scope,
        &app.datasets.latest(scope, &name).await?,
    )))
}

async fn show(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
) -> Result<Answer<Value>> {
    let scope = identity.scope();
    Ok(Answer(dataset_json(
        scope,
        &app.datasets.latest(scope, &parse_name(&name)?).await?,
    )))
}

fn item_json(found: &Found, example: &Example) -> Value {
    let at = format_rfc3339(found.version.created_at);
    let status = if example.split.as_deref() == Some(ARCHIVED) {
        "ARCHIVED"
    } else {
        "ACTIVE"
    };
    let name = found.version.name.as_str();
    json!({
        "id": example.id, "status": status, "input": example.input, "expectedOutput": example.expected,
        "metadata": (!example.metadata.is_empty()).then_some(&example.metadata),
        "sourceTraceId": example.source.trace, "sourceObservationId": example.source.span,
        "datasetId": name, "datasetName": name, "createdAt": at, "updatedAt": at, "version": at, "mediaReferences": [],
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ItemsQuery {
    dataset_name: Option<String>,
    source_trace_id: Option<String>,
    source_observation_id: Option<String>,
    version: Option<String>,
    page: Option<i64>,
    limit: Option<i64>,
}

async fn items(
    State(app): State<App>,
    identity: Identity,
    Query(query): Query<ItemsQuery>,
) -> Result<Answer<Value>> {
    let scope = identity.scope();
    let paging = Paging {
        page: query.page,
        limit: query.limit,
    };
    let (page, limit) = paging.read()?;
    let name = query
        .dataset_name
        .as_deref()
        .ok_or_else(|| AppError::invalid("name the dataset").at("datasetName"))?;
    let name = parse_name(name)?;
    let Some(found) = at_time(&app, scope, &name, query.version.as_deref()).await? else {
        return Ok(Answer(
            json!({"data": [], "meta": Paging::meta(page, limit, 0)}),
        ));
    };
    let from = u64::try_from((page - 1).saturating_mul(limit)).unwrap_or(u64::MAX);
    let wanted = usize::try_from(limit).unwrap_or(0);
    if query.source_trace_id.is_none() && query.source_observation_id.is_none() {
        let shown = app
            .datasets
            .page(scope, &found, &ExampleFilter::default(), from, wanted)
            .await?;
        let data: Vec<Value> = shown
            .items
            .iter()
            .map(|located| item_json(&found, &located.example))
            .collect();
        let total = i64::try_from(found.document.count).unwrap_or(i64::MAX);
        return Ok(Answer(
            json!({"data": data, "meta": Paging::meta(page, limit, total)}),
        ));
    }
    let takes = |example: &Example| {
        let trace =
            query.source_trace_id.is_none() || example.source.trace == query.source_trace_id;
        trace
            && (query.source_observation_id.is_none()
                || example.source.span == query.source_observation_id)
    };
    let (mut data, mut total) = (Vec::new(), 0_u64);
    let mut reading = app.datasets.reading(scope, &found)?;
    while let Some(examples) = reading.next().await? {
        for example in examples.iter().filter(|example| takes(example)) {
            if total >= from && data.len() < wanted {
                data.push(item_json(&found, example));
            }
            total += 1;
        }
    }
    let total = i64::try_from(total).unwrap_or(i64::MAX);
    Ok(Answer(
        json!({"data": data, "meta": Paging::meta(page, limit, total)}),
    ))
}

/// The version that was the newest at this time; `None` before there was one.
async fn at_time(
    app: &App,
    scope: Scope,
    name: &Name,
    time: Option<&str>,
) -> Result<Option<Found>> {
    let latest = app.datasets.latest(scope, name).await?;
    let Some(time) = time else {
        return Ok(Some(latest));
    };
    let until =
        parse_time(time, app.clock.now_us()).map_err(|why| AppError::invalid(why).at("version"))?;
    let mut page = PageRequest {
        cursor: None,
        limit: 200,
    };
    loop {
        let versions = app.catalog.list_versions(scope, KIND, name, &page).await?;
        if let Some(version) = versions
            .items
            .iter()
            .find(|version| version.created_at <= until)
        {
            let selector = db::Selector::Number(version.number);
            return app.datasets.version(scope, name, &selector).await.map(Some);
        }
        match versions.next {
            Some(next) => page.cursor = Some(next),
            None => return Ok(None),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewItem {
    dataset_name: String,
    id: Option<String>,
    input: Option<Value>,
    expected_output: Option<Value>,
    metadata: Option<Value>,
    source_trace_id: Option<String>,
    source_observation_id: Option<String>,
    status: Option<String>,
}

async fn save_item(
    State(app): State<App>,
    identity: Identity,
    Raw(body): Raw,
) -> Result<Answer<Value>> {
    let new: NewItem = parse_json(&body)?;
    let (scope, name) = (identity.scope(), parse_name(&new.dataset_name)?);
    let before = match &new.id {
        Some(id) => {
            let found = app.datasets.latest(scope, &name).await?;
            app.datasets
                .example(scope, &found, id)
                .await
                .ok()
                .map(|located| located.example)
        }
        None => None,
    };
    let before = before.unwrap_or_default();
    let archived = match new.status.as_deref() {
        Some("ARCHIVED") => Some(ARCHIVED.to_owned()),
        // Whoever does not speak of the status leaves it.
        None => before.split.clone(),
        Some(_) => before.split.clone().filter(|split| split != ARCHIVED),
    };
    let example = Example {
        id: new.id.unwrap_or_default(),
        // What is left out of an update stays as it was.
        input: new.input.unwrap_or(before.input),
        expected: new.expected_output.or(before.expected),
        metadata: match new.metadata {
            None => before.metadata,
            Some(Value::Object(map)) => map,
            Some(other) => Map::from_iter([("value".to_owned(), other)]),
        },
        split: archived,
        source: Source {
            trace: new.source_trace_id.or(before.source.trace),
            span: new.source_observation_id.or(before.source.span),
            ..before.source
        },
        marks: Vec::new(),
        ..before
    };
    let saved = app
        .datasets
        .edit(
            scope,
            &name,
            Edits {
                put: vec![example],
                ..Edits::default()
            },
        )
        .await?;
    app.refresh_plan().await?;
    let found = app.datasets.latest(scope, &name).await?;
    let id = saved.ids.first().map(String::as_str).unwrap_or_default();
    let located = app.datasets.example(scope, &found, id).await?;
    Ok(Answer(item_json(&found, &located.example)))
}

/// The dataset that has an example with this id; names in order, the first one counts.
pub(super) async fn find_item(app: &App, scope: Scope, id: &str) -> Result<(Found, Example)> {
    for name in names(app, scope).await? {
        let found = app.datasets.latest(scope, &name).await?;
        match app.datasets.example(scope, &found, id).await {
            Ok(located) => return Ok((found, located.example)),
            Err(error) if error.code == "no_such_example" => {}
            Err(error) => return Err(error),
        }
    }
    Err(AppError::not_found(format!("there is no dataset item {id:?}")).code("no_such_example"))
}

async fn item(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<Answer<Value>> {
    let (found, example) = find_item(&app, identity.scope(), &id).await?;
    Ok(Answer(item_json(&found, &example)))
}

async fn delete_item(
    State(app): State<App>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<Answer<Value>> {
    let scope = identity.scope();
    let (found, _) = find_item(&app, scope, &id).await?;
    let edits = Edits {
        remove: vec![id],
        ..Edits::default()
    };
    app.datasets.edit(scope, &found.version.name, edits).await?;
    app.refresh_plan().await?;
    Ok(Answer(
        json!({"message": "Dataset item successfully deleted"}),
    ))
}
