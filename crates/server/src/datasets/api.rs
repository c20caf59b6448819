//! Datasets over JSON. A name holds slashes, so it is one percent-encoded segment.

use axum::Json as Answer;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base::Cursor;
use db::catalog::{DeleteRequest, NameFilter};
use db::{PageRequest, Version};
use futures_util::stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::alike::Report;
use super::export::ExportFormat;
use super::from_traces::{FromTraces, Taken, add_traces};
use super::import::{ImportOptions, Preview};
use super::split::{Assign, Assigned};
use super::uploads::Upload;
use super::{
    DatasetDocument, Describe, Edits, Example, ExampleFilter, Fields, Found, KIND, Located, Saved,
    SplitFilter, Verdict, parse_name,
};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::catalog::parse_selector;
use crate::error::{AppError, Result};
use crate::extract::{Json, Query};
use crate::http::{Access, Route};
use crate::openapi::Doc;

/// Edits with examples of up to 1 MiB each.
const EDIT_BYTES: usize = 32 << 20;
/// Examples of a page unless asked for otherwise.
const ROWS: usize = 100;

pub(super) const READ: Access = Access::Needs(Permission::ReadDatasets);
pub(super) const WRITE: Access = Access::Needs(Permission::WriteDatasets);

pub(super) fn doc(summary: &'static str) -> Doc {
    Doc::new("datasets", summary)
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/v1/datasets", READ, list)
            .doc(doc("Datasets by name").query::<ListQuery>().answer::<DatasetList>()),
        Route::post("/api/v1/datasets", WRITE, create)
            .body_limit(EDIT_BYTES)
            .doc(doc("Make a dataset, with or without examples").body::<Create>().answer::<Saved>().status(201)),
        Route::get("/api/v1/datasets/{name}", READ, show)
            .doc(doc("A version of a dataset, without its examples").query::<VersionQuery>().answer::<DatasetJson>()),
        Route::delete("/api/v1/datasets/{name}", WRITE, delete)
            .doc(doc("Delete a dataset; saving a version under its name brings it back").query::<DeleteQuery>().status(204)),
        Route::get("/api/v1/datasets/{name}/versions", READ, versions)
            .doc(doc("A dataset's versions, newest first").query::<PageQuery>().answer::<Versions>()),
        Route::post("/api/v1/datasets/{name}/versions", WRITE, edit)
            .body_limit(EDIT_BYTES)
            .doc(doc("Save the next version: examples to put, patch and remove, and what changes about the dataset").body::<Edits>().answer::<Saved>().status(201)),
        Route::get("/api/v1/datasets/{name}/examples", READ, examples)
            .doc(doc("Examples of a version in their order").query::<ExamplesQuery>().answer::<Examples>()),
        Route::get("/api/v1/datasets/{name}/examples/{id}", READ, example)
            .doc(doc("One example of a version").query::<VersionQuery>().answer::<Located>()),
        Route::get("/api/v1/datasets/{name}/diff", READ, diff)
            .doc(doc("What differs between two versions, by example").query::<DiffQuery>().answer::<DiffJson>()),
        Route::get("/api/v1/datasets/{name}/export", READ, export)
            .doc(doc("Examples of a version as a file: CSV, JSON Lines or OpenAI's fine-tuning format").query::<ExportQuery>()),
        Route::post("/api/v1/datasets/{name}/examples/from-traces", WRITE, from_traces)
            .doc(doc("Add traces as examples: these, or all that a filter finds").body::<FromTraces>().answer::<Taken>().status(201)),
        Route::post("/api/v1/datasets/{name}/splits", WRITE, assign_splits)
            .doc(doc("Assign splits by shares, the same every time").body::<Assign>().answer::<Assigned>().status(201)),
        Route::get("/api/v1/datasets/{name}/alike", READ, alike)
            .doc(doc("Duplicates, near-duplicates, and leaks between splits and into prompts").query::<VersionQuery>().answer::<Report>()),
        Route::post("/api/v1/dataset-uploads", WRITE, upload)
            .body_limit(super::uploads::MAX_BYTES)
            .doc(doc("Send a file that will be imported; the body is the file").query::<UploadQuery>().answer::<Upload>().status(201)),
        Route::post("/api/v1/dataset-uploads/preview", WRITE, preview)
            .doc(doc("The first rows of uploads as examples, before anything is saved").body::<ImportRequest>().answer::<Preview>()),
        Route::post("/api/v1/datasets/{name}/import", WRITE, import)
            .doc(doc("Import uploads into a dataset, all rows or none").body::<ImportRequest>().answer::<Saved>().status(201)),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// Only names in this folder.
    folder: Option<String>,
    /// Only names with this tag.
    tag: Option<String>,
    /// Only names that hold each of these words.
    q: Option<String>,
    /// Where the page before ended.
    cursor: Option<String>,
    /// How many rows, at most 200.
    limit: Option<u32>,
}

/// A dataset in a list.
#[derive(Serialize, JsonSchema)]
struct DatasetRow {
    /// Its name.
    name: String,
    /// Its newest version.
    version: i64,
    /// The identity of that version.
    digest: String,
    /// Tags.
    tags: Vec<String>,
    /// Who saved the newest version.
    updated_by: String,
    /// When, microseconds since the epoch.
    updated_at: i64,
}

#[derive(Serialize, JsonSchema)]
struct DatasetList {
    /// By name.
    items: Vec<DatasetRow>,
    /// What to ask the next page with.
    next_cursor: Option<String>,
}

async fn list(
    State(app): State<App>,
    identity: Identity,
    Query(query): Query<ListQuery>,
) -> Result<Answer<DatasetList>> {
    let filter = NameFilter {
        folder: query.folder.as_deref().map(parse_name).transpose()?,
        tag: query.tag,
        search: query.q,
        ..NameFilter::default()
    };
    let request = page_request(query.cursor, query.limit);
    let page = app
        .catalog
        .list_names(identity.scope(), KIND, &filter, &request)
        .await?;
    let row = |listed: db::Listed| DatasetRow {
        name: listed.latest.name.as_str().to_owned(),
        version: listed.latest.number,
        digest: listed.latest.digest.to_string(),
        tags: listed.tags,
        updated_by: listed.latest.author,
        updated_at: listed.latest.created_at,
    };
    Ok(Answer(DatasetList {
        items: page.items.into_iter().map(row).collect(),
        next_cursor: page.next.map(|cursor| cursor.as_str().to_owned()),
    }))
}

fn page_request(cursor: Option<String>, limit: Option<u32>) -> PageRequest {
    PageRequest {
        cursor: cursor.map(Cursor::from_client),
        limit: limit.unwrap_or(0),
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Create {
    /// Where it shall live: `support/questions`.
    name: String,
    /// What it is for.
    #[serde(default)]
    description: String,
    /// JSON Schemas of the fields.
    #[serde(default)]
    fields: Fields,
    /// The labels that `expected` may be.
    #[serde(default)]
    labels: Vec<String>,
    /// The first examples.
    #[serde(default)]
    examples: Vec<Example>,
    /// Why, for the history.
    #[serde(default)]
    message: String,
}

async fn create(
    State(app): State<App>,
    identity: Identity,
    Json(body): Json<Create>,
) -> Result<(StatusCode, Answer<Saved>)> {
    let name = parse_name(&body.name)?;
    let edits = Edits {
        put: body.examples,
        describe: Describe {
            description: Some(body.description),
            fields: Some(body.fields),
            labels: Some(body.labels),
            metadata: None,
        },
        message: body.message,
        ..Edits::default()
    };
    let saved = app.datasets.create(identity.scope(), &name, edits).await?;
    app.refresh_plan().await?;
    Ok((StatusCode::CREATED, Answer(saved)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VersionQuery {
    /// A number, `latest` (the default), a label or a digest.
    pub(super) version: Option<String>,
}

impl VersionQuery {
    pub(super) async fn find(&self, app: &App, identity: &Identity, name: &str) -> Result<Found> {
        find(app, identity, name, self.version.as_deref()).await
    }
}

pub(super) async fn find(
    app: &App,
    identity: &Identity,
    name: &str,
    version: Option<&str>,
) -> Result<Found> {
    let selector = parse_selector(version.unwrap_or("latest"))?;
    app.datasets
        .version(identity.scope(), &parse_name(name)?, &selector)
        .await
}

/// A version of a dataset without its examples.
#[derive(Serialize, JsonSchema)]
struct DatasetJson {
    /// The dataset's name.
    name: String,
    /// Which version, and who saved it.
    #[serde(flatten)]
    row: VersionRow,
    /// What it is for.
    description: String,
    /// JSON Schemas of the fields.
    fields: Fields,
    /// The labels that `expected` may be; none for any.
    labels: Vec<String>,
    /// How many examples each split has.
    splits: std::collections::BTreeMap<String, u64>,
    /// How many examples there are.
    count: u64,
}

impl DatasetJson {
    fn of(found: Found) -> Self {
        let Found { version, document } = found;
        let DatasetDocument {
            description,
            fields,
            labels,
            splits,
            count,
            ..
        } = document;
        Self {
            name: version.name.as_str().to_owned(),
            row: version.into(),
            description,
            fields,
            labels,
            splits,
            count,
        }
    }
}

async fn show(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Query(query): Query<VersionQuery>,
) -> Result<Answer<DatasetJson>> {
    Ok(Answer(DatasetJson::of(
        query.find(&app, &identity, &name).await?,
    )))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DeleteQuery {
    /// Delete it although other documents refer to it.
    force: Option<bool>,
}

async fn delete(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Query(query): Query<DeleteQuery>,
) -> Result<StatusCode> {
    let name = parse_name(&name)?;
    app.datasets.latest(identity.scope(), &name).await?;
    let request = DeleteRequest {
        kind: KIND,
        name: &name,
        reason: "",
        force: query.force.unwrap_or(false),
    };
    app.catalog.delete_name(identity.scope(), request).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PageQuery {
    /// Where the page before ended.
    cursor: Option<String>,
    /// How many rows, at most 200.
    limit: Option<u32>,
}

/// A version without its content.
#[derive(Serialize, JsonSchema)]
struct VersionRow {
    /// The number under the name.
    version: i64,
    /// The content's identity.
    digest: String,
    /// Why it was saved.
    message: String,
    /// Who saved it.
    created_by: String,
    /// When, microseconds since the epoch.
    created_at: i64,
}

impl From<Version> for VersionRow {
    fn from(version: Version) -> Self {
        Self {
            version: version.number,
            digest: version.digest.to_string(),
            message: version.message,
            created_by: version.author,
            created_at: version.created_at,
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct Versions {
    /// Newest first.
    items: Vec<VersionRow>,
    /// What to ask the next page with.
    next_cursor: Option<String>,
}

async fn versions(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Versions>> {
    let (scope, name) = (identity.scope(), parse_name(&name)?);
    app.datasets.latest(scope, &name).await?;
    let request = page_request(query.cursor, query.limit);
    let page = app
        .catalog
        .list_versions(scope, KIND, &name, &request)
        .await?;
    Ok(Answer(Versions {
        items: page.items.into_iter().map(VersionRow::from).collect(),
        next_cursor: page.next.map(|cursor| cursor.as_str().to_owned()),
    }))
}

async fn edit(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Json(edits): Json<Edits>,
) -> Result<(StatusCode, Answer<Saved>)> {
    let saved = app
        .datasets
        .edit(identity.scope(), &parse_name(&name)?, edits)
        .await?;
    app.refresh_plan().await?;
    Ok((StatusCode::CREATED, Answer(saved)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExamplesQuery {
    /// A number, `latest` (the default), a label or a digest.
    version: Option<String>,
    /// Only examples of this split; `~none` for those in none.
    split: Option<String>,
    /// Only examples in which this text occurs, whatever its case.
    q: Option<String>,
    /// Only examples with this verdict.
    verdict: Option<Verdict>,
    /// Only examples with (true) or without (false) an expected output.
    labelled: Option<bool>,
    /// Where the page before ended.
    cursor: Option<String>,
    /// How many, 100 unless told, at most 1000.
    limit: Option<i64>,
}

#[derive(Serialize, JsonSchema)]
struct Examples {
    /// The version that they are of.
    version: i64,
    /// The examples, in their order.
    items: Vec<Located>,
    /// How many the filter finds in all, where that is known.
    total: Option<u64>,
    /// What to ask the next page with. A page that took long to search may be short or empty
    /// and still have one.
    next_cursor: Option<String>,
}

async fn examples(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Query(query): Query<ExamplesQuery>,
) -> Result<Answer<Examples>> {
    let found = find(&app, &identity, &name, query.version.as_deref()).await?;
    let filter = ExampleFilter {
        split: query.split.as_deref().map(SplitFilter::parse),
        text: query.q,
        verdict: query.verdict,
        labelled: query.labelled,
    };
    let from = match query.cursor {
        None => 0,
        Some(cursor) => Cursor::from_client(cursor)
            .key()
            .map_err(db::CatalogError::from)?,
    };
    let limit = query
        .limit
        .map_or(ROWS, |limit| usize::try_from(limit).unwrap_or(1));
    let page = app
        .datasets
        .page(identity.scope(), &found, &filter, from, limit)
        .await?;
    Ok(Answer(Examples {
        version: found.version.number,
        items: page.items,
        total: filter.count(&found),
        next_cursor: page
            .next
            .map(|place| Cursor::new(&place).as_str().to_owned()),
    }))
}

async fn example(
    State(app): State<App>,
    identity: Identity,
    Path((name, id)): Path<(String, String)>,
    Query(query): Query<VersionQuery>,
) -> Result<Answer<Located>> {
    let found = query.find(&app, &identity, &name).await?;
    Ok(Answer(
        app.datasets.example(identity.scope(), &found, &id).await?,
    ))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DiffQuery {
    /// The earlier version.
    from: String,
    /// The later version; `latest` unless told.
    to: Option<String>,
    /// How many examples of each sort to show, 20 unless told, at most 200.
    limit: Option<i64>,
}

/// What differs between two versions.
#[derive(Serialize, JsonSchema)]
struct DiffJson {
    /// The earlier version.
    from: i64,
    /// The later version.
    to: i64,
    /// Examples that only the later one has.
    added: Different,
    /// Examples that both have, with other content.
    changed: Different,
    /// Examples that only the earlier one has.
    removed: Different,
    /// What changed about the dataset itself.
    fields: Vec<FieldChange>,
}

/// Some of the examples that differ.
#[derive(Serialize, JsonSchema)]
struct Different {
    /// How many there are.
    count: usize,
    /// The first of them.
    items: Vec<Pair>,
}

/// An example before and after.
#[derive(Serialize, JsonSchema)]
pub(super) struct Pair {
    /// As it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) before: Option<Example>,
    /// As it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<Example>,
}

/// A change outside of the examples.
#[derive(Serialize, JsonSchema)]
struct FieldChange {
    /// Where: a JSON Pointer.
    path: String,
    /// What was there.
    before: Option<serde_json::Value>,
    /// What is there.
    after: Option<serde_json::Value>,
}

async fn diff(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Query(query): Query<DiffQuery>,
) -> Result<Answer<DiffJson>> {
    let from = find(&app, &identity, &name, Some(&query.from)).await?;
    let to = find(&app, &identity, &name, query.to.as_deref()).await?;
    let limit = usize::try_from(query.limit.unwrap_or(20).clamp(0, 200)).unwrap_or(0);
    let scope = identity.scope();
    let difference = app.datasets.difference(scope, &from, &to).await?;
    let mut shown = [Vec::new(), Vec::new(), Vec::new()];
    for (sort, ids) in [&difference.added, &difference.changed, &difference.removed]
        .into_iter()
        .enumerate()
    {
        for id in ids.iter().take(limit) {
            let before = match sort {
                0 => None,
                _ => Some(app.datasets.example(scope, &from, id).await?.example),
            };
            let after = match sort {
                2 => None,
                _ => Some(app.datasets.example(scope, &to, id).await?.example),
            };
            shown[sort].push(Pair { before, after });
        }
    }
    let [added, changed, removed] = shown;
    let different = |ids: &[String], items| Different {
        count: ids.len(),
        items,
    };
    Ok(Answer(DiffJson {
        from: from.version.number,
        to: to.version.number,
        added: different(&difference.added, added),
        changed: different(&difference.changed, changed),
        removed: different(&difference.removed, removed),
        fields: description_changes(&from.document, &to.document)
            .into_iter()
            .map(|change| FieldChange {
                path: change.path,
                before: change.before,
                after: change.after,
            })
            .collect(),
    }))
}

/// What changed about a dataset itself.
pub(super) fn description_changes(
    from: &DatasetDocument,
    to: &DatasetDocument,
) -> Vec<db::catalog::Change> {
    let bare = |document: &DatasetDocument| {
        DatasetDocument {
            description: document.description.clone(),
            fields: document.fields.clone(),
            labels: document.labels.clone(),
            metadata: document.metadata.clone(),
            ..DatasetDocument::default()
        }
        .to_value()
    };
    db::catalog::diff(&bare(from), &bare(to))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExportQuery {
    /// `csv`, `jsonl` or `openai_chat`.
    format: ExportFormat,
    /// A number, `latest` (the default), a label or a digest.
    version: Option<String>,
    /// Only examples of this split; `~none` for those in none.
    split: Option<String>,
    /// Only examples in which this text occurs.
    q: Option<String>,
    /// Only examples with this verdict.
    verdict: Option<Verdict>,
    /// Only examples with or without an expected output.
    labelled: Option<bool>,
    /// Begin CSV with a byte order mark, which some spreadsheets need to see that it is UTF-8.
    bom: Option<bool>,
}

async fn export(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Query(query): Query<ExportQuery>,
) -> Result<Response> {
    let found = find(&app, &identity, &name, query.version.as_deref()).await?;
    let filter = ExampleFilter {
        split: query.split.as_deref().map(SplitFilter::parse),
        text: query.q,
        verdict: query.verdict,
        labelled: query.labelled,
    };
    let reading = app.datasets.reading(identity.scope(), &found)?;
    let format = query.format;
    let header = format.header(query.bom.unwrap_or(false));
    let lines = stream::try_unfold(
        (reading, filter, Some(header)),
        move |(mut reading, filter, header)| async move {
            if let Some(header) = header {
                return Ok(Some((Bytes::from(header), (reading, filter, None))));
            }
            let Some(examples) = reading.next().await? else {
                return Ok::<_, AppError>(None);
            };
            let taken = examples.iter().filter(|example| filter.takes(example));
            let text: String = taken.map(|example| format.line(example)).collect();
            Ok(Some((Bytes::from(text), (reading, filter, None))))
        },
    );
    let headers = [
        (header::CONTENT_TYPE, format.media_type().to_owned()),
        (header::CONTENT_DISPOSITION, disposition(&found, format)),
    ];
    Ok((headers, Body::from_stream(lines)).into_response())
}

/// The file's name says which version it is; letters beyond ASCII in their encoded form.
fn disposition(found: &Found, format: ExportFormat) -> String {
    let name = found.version.name.as_str().replace('/', "-");
    let file = format!("{name}-v{}.{}", found.version.number, format.ending());
    let plain: String = file
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') {
                c
            } else {
                '_'
            }
        })
        .collect();
    format!(
        "attachment; filename=\"{plain}\"; filename*=UTF-8''{}",
        crate::traces::encode(&file)
    )
}

async fn from_traces(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Json(asked): Json<FromTraces>,
) -> Result<(StatusCode, Answer<Taken>)> {
    identity.require(Permission::ReadTraces)?;
    let taken = add_traces(&app, identity.scope(), &parse_name(&name)?, asked).await?;
    app.refresh_plan().await?;
    Ok((StatusCode::CREATED, Answer(taken)))
}

async fn assign_splits(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Json(assign): Json<Assign>,
) -> Result<(StatusCode, Answer<Assigned>)> {
    let assigned = app
        .datasets
        .assign_splits(identity.scope(), &parse_name(&name)?, &assign)
        .await?;
    app.refresh_plan().await?;
    Ok((StatusCode::CREATED, Answer(assigned)))
}

async fn alike(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Query(query): Query<VersionQuery>,
) -> Result<Answer<Report>> {
    let found = query.find(&app, &identity, &name).await?;
    Ok(Answer(
        app.datasets.find_alike(identity.scope(), &found).await?,
    ))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UploadQuery {
    /// What the file is called; its ending says what it is.
    name: String,
}

async fn upload(
    State(app): State<App>,
    identity: Identity,
    Query(query): Query<UploadQuery>,
    body: Body,
) -> Result<(StatusCode, Answer<Upload>)> {
    let upload = super::uploads::store(&app, identity.project.id, &query.name, body).await?;
    Ok((StatusCode::CREATED, Answer(upload)))
}

/// An import of uploads.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ImportRequest {
    /// The files.
    uploads: Vec<Upload>,
    /// How they are read.
    #[serde(default)]
    options: ImportOptions,
}

async fn preview(
    State(app): State<App>,
    identity: Identity,
    Json(request): Json<ImportRequest>,
) -> Result<Answer<Preview>> {
    let project = identity.project.id;
    let files = super::uploads::files(&app, project, &request.uploads)?;
    let scratch = super::uploads::scratch(&app, project);
    Ok(Answer(
        super::import::preview(files, request.options, scratch).await?,
    ))
}

async fn import(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Json(request): Json<ImportRequest>,
) -> Result<(StatusCode, Answer<Saved>)> {
    let (name, project) = (parse_name(&name)?, identity.project.id);
    let files = super::uploads::files(&app, project, &request.uploads)?;
    let scratch = super::uploads::scratch(&app, project);
    let saved = app
        .datasets
        .import(identity.scope(), &name, files, request.options, scratch)
        .await?;
    super::uploads::remove(&app, project, &request.uploads).await;
    app.refresh_plan().await?;
    Ok((StatusCode::CREATED, Answer(saved)))
}
