//! Prompts over JSON. A name holds slashes, so it is one percent-encoded segment.

use axum::Json as Answer;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use db::{Listed, Move, NameFilter, PageRequest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::drafts::{AlikeAnswer, AlikeRequest, RenderAnswer, RenderRequest, TryRequest};
use super::generate::{Candidates, GenerateRequest};
use super::{KIND, drafts, library, parse_document, parse_label, parse_name};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::catalog::rows::{
    MoveBody, PointerRow, Pointers, SameContent, Saved, VersionDetail, VersionRow, Versions,
    cursor_text, page_request, saved_status,
};
use crate::error::{AppError, Result};
use crate::extract::{Json, Query};
use crate::http::{Access, RequestContext, Route};
use crate::openapi::Doc;
use crate::ui::Lang;
use gateway::{CallContext, PromptDocument};

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadPrompts);
    let write = Access::Needs(Permission::WritePrompts);
    let infer = Access::Needs(Permission::Infer);
    vec![
        Route::get("/api/v1/prompts", read, list)
            .doc(Doc::new("prompts", "Prompts by name, with their labels").query::<ListQuery>().answer::<Prompts>()),
        Route::post("/api/v1/prompts", write, create)
            .body_limit(5 << 20)
            .doc(Doc::new("prompts", "Save a version of a prompt; the same content again gives the version that holds it").body::<Create>().answer::<SavedPrompt>().status(201)),
        Route::get("/api/v1/prompts/templates", read, templates)
            .doc(Doc::new("prompts", "Starting points for new prompts").query::<TemplatesQuery>().answer::<Templates>()),
        Route::post("/api/v1/prompts/render", read, render)
            .body_limit(5 << 20)
            .doc(Doc::new("prompts", "Render a draft: its messages, its variables, its problems with their places, its tokens").body::<RenderRequest>().answer::<RenderAnswer>()),
        Route::post("/api/v1/prompts/similar", read, similar)
            .body_limit(5 << 20)
            .doc(Doc::new("prompts", "Where a draft, or nearly the same, is saved already").body::<AlikeRequest>().answer::<AlikeAnswer>()),
        Route::post("/api/v1/prompts/try", infer, try_draft)
            .body_limit(usize::MAX)
            .doc(Doc::new("prompts", "Call a model with a draft that is not saved; answers as chat completions do, streamed or not").body::<TryRequest>()),
        Route::post("/api/v1/prompts/generate", infer, generate)
            .body_limit(1 << 20)
            .doc(Doc::new("prompts", "Have a model write candidates for a task, each by another technique").body::<GenerateRequest>().answer::<Candidates>()),
        Route::get("/api/v1/prompts/{name}/versions", read, versions)
            .doc(Doc::new("prompts", "A prompt's versions, newest first").query::<ListQuery>().answer::<Versions>()),
        Route::post("/api/v1/prompts/{name}/versions", write, save)
            .body_limit(5 << 20)
            .doc(Doc::new("prompts", "Save a version").body::<Save>().answer::<SavedPrompt>().status(201)),
        Route::get("/api/v1/prompts/{name}/versions/{version}", read, version)
            .doc(Doc::new("prompts", "One version with its content: a number, `latest`, a label or a digest").answer::<VersionDetail>()),
        Route::get("/api/v1/prompts/{name}/labels", read, labels)
            .doc(Doc::new("prompts", "Where the labels point").answer::<Pointers>()),
        Route::put("/api/v1/prompts/{name}/labels/{label}", write, move_label)
            .doc(Doc::new("prompts", "Point a label to a version, in effect on the next request").body::<MoveBody>().answer::<PointerRow>()),
        Route::get("/api/v1/prompts/{name}/moves", read, moves)
            .doc(Doc::new("prompts", "Every move of the labels, newest first").query::<ListQuery>().answer::<Moves>()),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// Only names in this folder.
    folder: Option<String>,
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
struct PromptRow {
    /// The prompt's name.
    name: String,
    /// Its newest version.
    latest: VersionRow,
    /// Label → version.
    labels: std::collections::BTreeMap<String, i64>,
}

impl From<Listed> for PromptRow {
    fn from(listed: Listed) -> Self {
        let name = listed.latest.name.as_str().to_owned();
        Self {
            name,
            latest: listed.latest.into(),
            labels: listed.labels.into_iter().collect(),
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct Prompts {
    /// The prompts, by name.
    items: Vec<PromptRow>,
    /// What to ask the next page with.
    next_cursor: Option<String>,
}

async fn list(
    State(app): State<App>,
    identity: Identity,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Prompts>> {
    let filter = NameFilter {
        folder: query.folder.as_deref().map(parse_name).transpose()?,
        ..NameFilter::default()
    };
    let page = app
        .catalog
        .list_names(identity.scope(), KIND, &filter, &query.page())
        .await?;
    Ok(Answer(Prompts {
        items: page.items.into_iter().map(PromptRow::from).collect(),
        next_cursor: cursor_text(page.next),
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Create {
    /// The prompt's name; `/` makes folders.
    name: String,
    /// The document.
    #[schemars(with = "PromptDocument")]
    content: Value,
    /// What this version changes.
    #[serde(default)]
    message: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Save {
    /// The document.
    #[schemars(with = "PromptDocument")]
    content: Value,
    /// What this version changes.
    #[serde(default)]
    message: String,
}

#[derive(Serialize, JsonSchema)]
struct SavedPrompt {
    /// The version that holds the content.
    #[serde(flatten)]
    saved: Saved,
    /// Other prompts with the same content.
    same_content: Vec<SameContent>,
}

async fn create(
    State(app): State<App>,
    identity: Identity,
    Json(new): Json<Create>,
) -> Result<(StatusCode, Answer<SavedPrompt>)> {
    save_content(&app, &identity, &new.name, &new.content, &new.message).await
}

async fn save(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Json(new): Json<Save>,
) -> Result<(StatusCode, Answer<SavedPrompt>)> {
    save_content(&app, &identity, &name, &new.content, &new.message).await
}

async fn save_content(
    app: &App,
    identity: &Identity,
    name: &str,
    content: &Value,
    message: &str,
) -> Result<(StatusCode, Answer<SavedPrompt>)> {
    let name = parse_name(name)?;
    let content = parse_document(content)?;
    let saved = super::save_version(app, identity.scope(), &name, &content, message).await?;
    let answer = SavedPrompt {
        saved: Saved::from(&saved),
        same_content: SameContent::of(&saved),
    };
    Ok((saved_status(&saved), Answer(answer)))
}

fn no_prompt(name: &str) -> AppError {
    AppError::not_found(format!("there is no prompt {name:?}"))
}

async fn versions(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Versions>> {
    let parsed = parse_name(&name)?;
    let page = app
        .catalog
        .list_versions(identity.scope(), KIND, &parsed, &query.page())
        .await?;
    if page.items.is_empty() && query.cursor.is_none() {
        return Err(no_prompt(&name));
    }
    Ok(Answer(page.into()))
}

async fn version(
    State(app): State<App>,
    identity: Identity,
    Path((name, selector)): Path<(String, String)>,
) -> Result<Answer<VersionDetail>> {
    let parsed = parse_name(&name)?;
    let selector = crate::catalog::parse_selector(&selector)?;
    let found = app
        .catalog
        .version(identity.scope(), KIND, &parsed, &selector)
        .await?;
    let found = found.ok_or_else(|| {
        AppError::not_found(format!("the prompt {name:?} has no version {selector}"))
    })?;
    Ok(Answer(found.into()))
}

async fn labels(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
) -> Result<Answer<Pointers>> {
    let parsed = parse_name(&name)?;
    let pointers = app
        .catalog
        .pointers(identity.scope(), KIND, &parsed)
        .await?;
    Ok(Answer(pointers.into()))
}

async fn move_label(
    State(app): State<App>,
    identity: Identity,
    Path((name, label)): Path<(String, String)>,
    Json(change): Json<MoveBody>,
) -> Result<Answer<PointerRow>> {
    let (name, label) = (parse_name(&name)?, parse_label(&label)?);
    let scope = identity.scope();
    let moved = super::move_label(
        &app,
        scope,
        &name,
        &label,
        change.version,
        change.expected_revision,
        &change.reason,
    );
    Ok(Answer(moved.await?.into()))
}

/// The catalog's row of a move, as these routes had it before there were rollbacks and removals.
#[derive(Serialize, JsonSchema)]
struct MoveRow {
    /// The label.
    label: String,
    /// Where it pointed before.
    from: Option<i64>,
    /// Where it points since.
    to: i64,
    /// The label's revision after the move.
    revision: i64,
    /// Who.
    actor: String,
    /// Why.
    reason: String,
    /// When, microseconds since the epoch.
    moved_at: i64,
}

impl From<Move> for MoveRow {
    fn from(moved: Move) -> Self {
        Self {
            label: moved.label,
            from: moved.from,
            to: moved.to,
            revision: moved.revision,
            actor: moved.actor,
            reason: moved.reason,
            moved_at: moved.moved_at,
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct Moves {
    /// The moves, newest first.
    items: Vec<MoveRow>,
    /// What to ask the next page with.
    next_cursor: Option<String>,
}

async fn moves(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Moves>> {
    let parsed = parse_name(&name)?;
    let page = app
        .catalog
        .moves(identity.scope(), KIND, &parsed, None, &query.page())
        .await?;
    Ok(Answer(Moves {
        items: page.items.into_iter().map(MoveRow::from).collect(),
        next_cursor: cursor_text(page.next),
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TemplatesQuery {
    /// `en` or `ja`; `en` when nothing is said.
    lang: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Templates {
    /// The starting points.
    items: Vec<library::Template>,
}

async fn templates(Query(query): Query<TemplatesQuery>) -> Result<Answer<Templates>> {
    let lang = match query.lang.as_deref() {
        None => Lang::En,
        Some(code) => Lang::from_code(code).ok_or_else(|| {
            AppError::invalid(format!(
                "{code:?} is no language of the templates; en and ja are"
            ))
            .at("lang")
        })?,
    };
    Ok(Answer(Templates {
        items: library::templates(lang).to_vec(),
    }))
}

async fn render(
    State(app): State<App>,
    identity: Identity,
    Json(request): Json<RenderRequest>,
) -> Answer<RenderAnswer> {
    Answer(drafts::render(&app, &identity, request))
}

async fn similar(
    State(app): State<App>,
    identity: Identity,
    Json(request): Json<AlikeRequest>,
) -> Result<Answer<AlikeAnswer>> {
    Ok(Answer(drafts::find_alike(&app, &identity, request).await?))
}

async fn try_draft(
    State(app): State<App>,
    identity: Identity,
    request: RequestContext,
    headers: HeaderMap,
    Json(draft): Json<TryRequest>,
) -> Result<Response> {
    let context = CallContext::from_headers(request.id, &headers)
        .map_err(|error| AppError::invalid(error.message))?;
    drafts::try_draft(&app, &identity, context, draft).await
}

async fn generate(
    State(app): State<App>,
    identity: Identity,
    Json(request): Json<GenerateRequest>,
) -> Result<Answer<Candidates>> {
    Ok(Answer(
        super::generate::generate(&app, &identity, request).await?,
    ))
}
