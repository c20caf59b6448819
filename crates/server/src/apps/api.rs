//! Apps and releases over JSON. A name holds slashes, so it is one percent-encoded segment.

use axum::Json as Answer;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use db::PageRequest;
use db::catalog::{NameFilter, Selector};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{APP, DocumentChange, RELEASE, ReleaseContent, parse_name};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::catalog::parse_selector;
use crate::catalog::rows::{
    Saved, VersionDetail, VersionRow, Versions, cursor_text, page_request, saved_status,
};
use crate::error::{AppError, Result};
use crate::extract::{Json, Query};
use crate::http::{Access, RequestContext, Route};
use crate::openapi::Doc;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadCatalog);
    let write = Access::Needs(Permission::WriteCatalog);
    vec![
        Route::get("/api/v1/apps", read, list)
            .doc(Doc::new("apps", "Apps by name, with the release of each environment").query::<ListQuery>().answer::<Apps>()),
        Route::post("/api/v1/apps", write, save)
            .body_limit(5 << 20)
            .doc(Doc::new("apps", "Save a version of an app; the same content again gives the version that holds it").body::<Save>().answer::<Saved>().status(201)),
        Route::post("/api/v1/apps/try", write, try_draft)
            .body_limit(5 << 20)
            .doc(Doc::new("apps", "Run an app's document as it is, saved or not; the calls are recorded like any other").body::<Try>().answer::<Tried>()),
        Route::get("/api/v1/apps/{name}/versions/{version}", read, version)
            .doc(Doc::new("apps", "One version of an app with its document: a number, `latest` or a digest").answer::<VersionDetail>()),
        Route::get("/api/v1/apps/{name}/releases", read, releases)
            .doc(Doc::new("apps", "An app's releases, newest first").query::<ListQuery>().answer::<Versions>()),
        Route::post("/api/v1/apps/{name}/releases", write, cut)
            .doc(Doc::new("apps", "Cut a release: the app with everything it refers to, as it points now").body::<Cut>().answer::<Saved>().status(201)),
        Route::get("/api/v1/apps/{name}/releases/{version}", read, release)
            .doc(Doc::new("apps", "One release: a number, `latest`, an environment or a digest").answer::<ReleaseDetail>()),
        Route::get("/api/v1/apps/{name}/releases/{version}/changes", read, changes)
            .doc(Doc::new("apps", "Which documents differ from another release").query::<ChangesQuery>().answer::<Changes>()),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// Only names that hold these words; releases ignore it.
    search: Option<String>,
    /// Where the page before ended.
    cursor: Option<String>,
    /// How many rows, at most 200.
    limit: Option<u32>,
}

impl ListQuery {
    fn page(&self) -> PageRequest {
        page_request(self.cursor.clone(), self.limit)
    }
}

#[derive(Serialize, JsonSchema)]
struct AppRow {
    /// The app's name: what `model` says.
    name: String,
    /// Its newest version.
    latest: VersionRow,
    /// Environment → number of the release that runs there.
    releases: std::collections::BTreeMap<String, i64>,
}

#[derive(Serialize, JsonSchema)]
struct Apps {
    /// The apps, by name.
    items: Vec<AppRow>,
    /// What to ask the next page with.
    next_cursor: Option<String>,
}

async fn list(
    State(app): State<App>,
    identity: Identity,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Apps>> {
    let scope = identity.scope();
    let filter = NameFilter {
        search: query.search.clone(),
        ..NameFilter::default()
    };
    let page = app
        .catalog
        .list_names(scope, APP, &filter, &query.page())
        .await?;
    let mut running = super::pages::running(&app, scope).await?;
    let items = page.items.into_iter().map(|listed| {
        let name = listed.latest.name.as_str().to_owned();
        AppRow {
            releases: running.remove(&name).unwrap_or_default(),
            name,
            latest: listed.latest.into(),
        }
    });
    Ok(Answer(Apps {
        items: items.collect(),
        next_cursor: cursor_text(page.next),
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Save {
    /// The app's name; `/` makes folders.
    name: String,
    /// The document: see the JSON Schema of the kind `app`.
    content: Value,
    /// What this version changes.
    #[serde(default)]
    message: String,
}

async fn save(
    State(app): State<App>,
    identity: Identity,
    Json(new): Json<Save>,
) -> Result<(StatusCode, Answer<Saved>)> {
    let name = parse_name(&new.name)?;
    let made = super::save_app(&app, identity.scope(), &name, &new.content, &new.message).await?;
    Ok((saved_status(&made), Answer(Saved::from(&made))))
}

async fn version(
    State(app): State<App>,
    identity: Identity,
    Path((name, selector)): Path<(String, String)>,
) -> Result<Answer<VersionDetail>> {
    let (parsed, selector) = (parse_name(&name)?, parse_selector(&selector)?);
    let found = app
        .catalog
        .version(identity.scope(), APP, &parsed, &selector)
        .await?;
    let found = found.ok_or_else(|| {
        AppError::not_found(format!("the app {name:?} has no version {selector}"))
    })?;
    Ok(Answer(found.into()))
}

async fn releases(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Versions>> {
    let parsed = parse_name(&name)?;
    let page = app
        .catalog
        .list_versions(identity.scope(), RELEASE, &parsed, &query.page())
        .await?;
    Ok(Answer(page.into()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Cut {
    /// The app's version: a number or `latest`, which it is when not given.
    version: Option<String>,
    /// What this release brings.
    #[serde(default)]
    message: String,
}

async fn cut(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Json(cut): Json<Cut>,
) -> Result<(StatusCode, Answer<Saved>)> {
    let name = parse_name(&name)?;
    let version = match cut.version.as_deref() {
        Some(text) => parse_selector(text)?,
        None => Selector::Latest,
    };
    let made = super::cut_release(&app, identity.scope(), &name, &version, &cut.message).await?;
    Ok((saved_status(&made), Answer(Saved::from(&made))))
}

#[derive(Serialize, JsonSchema)]
struct ReleaseDetail {
    /// The release.
    #[serde(flatten)]
    row: VersionRow,
    /// What it pins.
    content: ReleaseContent,
}

async fn release(
    State(app): State<App>,
    identity: Identity,
    Path((name, selector)): Path<(String, String)>,
) -> Result<Answer<ReleaseDetail>> {
    let (name, selector) = (parse_name(&name)?, parse_selector(&selector)?);
    let (version, content) =
        super::find_release(&app.catalog, identity.scope(), &name, &selector).await?;
    Ok(Answer(ReleaseDetail {
        row: version.into(),
        content,
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ChangesQuery {
    /// The release to compare with: a number, `latest`, an environment or a digest.
    base: String,
}

#[derive(Serialize, JsonSchema)]
struct Changes {
    /// The release that was compared with.
    base: i64,
    /// The release at hand.
    version: i64,
    /// The documents that differ, from `base` to `version`.
    items: Vec<DocumentChange>,
}

async fn changes(
    State(app): State<App>,
    identity: Identity,
    Path((name, selector)): Path<(String, String)>,
    Query(query): Query<ChangesQuery>,
) -> Result<Answer<Changes>> {
    let (name, selector) = (parse_name(&name)?, parse_selector(&selector)?);
    let base = query
        .base
        .parse::<Selector>()
        .map_err(|problem| AppError::invalid(problem.message).at("base"))?;
    let scope = identity.scope();
    let (before, old) = super::find_release(&app.catalog, scope, &name, &base).await?;
    let (after, new) = super::find_release(&app.catalog, scope, &name, &selector).await?;
    Ok(Answer(Changes {
        base: before.number,
        version: after.number,
        items: super::compare(&old, &new),
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Try {
    /// The document to run.
    content: Value,
    /// Its inputs.
    #[serde(default)]
    inputs: Map<String, Value>,
    /// Answer with server-sent events: `trace` with the id at once, then the chunks of a chat completion, `error` where it fails.
    #[serde(default)]
    stream: bool,
}

/// How a trial ended.
#[derive(Serialize, JsonSchema)]
struct Tried {
    /// Whether it answered.
    ok: bool,
    /// The answer, or what went wrong.
    text: String,
    /// The trace of the run and all its steps.
    trace_id: String,
}

async fn try_draft(
    State(app): State<App>,
    identity: Identity,
    request: RequestContext,
    Json(draft): Json<Try>,
) -> Result<Response> {
    if draft.stream {
        return super::stream_draft(&app, &identity, request.id, &draft.content, draft.inputs)
            .await;
    }
    let tried = super::run_draft(&app, &identity, request.id, &draft.content, draft.inputs).await?;
    Ok(Answer(Tried {
        ok: tried.is_ok,
        text: tried.text,
        trace_id: tried.trace_id.to_string(),
    })
    .into_response())
}
