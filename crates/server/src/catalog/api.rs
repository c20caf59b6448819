//! Documents of every kind over JSON. A name holds slashes, so it is one
//! percent-encoded segment.
//!
//! The kind is part of the path, so the permission depends on the path: prompts
//! have their own two, all other kinds share two.

use axum::Json as Answer;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use db::catalog::{Dependent, Resolved};
use db::{
    DeleteRequest, Document, Listed, Move, MoveRequest, Name, NameFilter, NewVersion,
    RemoveOutcome, RemoveRequest, Scope, Similar,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::rows::{
    MoveBody, PageQuery, PointerRow, Pointers, SameContent, Saved, VersionDetail, VersionRow,
    Versions, cursor_text, page_request, saved_status,
};
use super::{moved_meanwhile, parse_label, parse_name, parse_selector};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Json, Query};
use crate::http::{Access, Route};
use crate::openapi::Doc;

/// A document and what stands around it.
const DOCUMENT_BODY_BYTES: usize = 5 << 20;

pub(super) fn routes() -> Vec<Route> {
    // Everybody who may read documents; those who only label may not know what kinds there are.
    let any = Access::Needs(Permission::ReadCatalog);
    let read = Access::OfKind(Permission::ReadPrompts, Permission::ReadCatalog);
    let write = Access::OfKind(Permission::WritePrompts, Permission::WriteCatalog);
    vec![
        Route::get("/api/v1/catalog/kinds", any, kinds)
            .doc(Doc::new("catalog", "The kinds of documents that this server knows and the caller may read").answer::<Kinds>()),
        Route::get("/api/v1/schemas/{kind}", read, schema)
            .doc(Doc::new("catalog", "The JSON Schema of a kind, for editors").answer::<Value>()),
        Route::get("/api/v1/catalog/{kind}/names", read, names)
            .doc(Doc::new("catalog", "Names by folder, tag and search, with their labels").query::<NamesQuery>().answer::<Names>()),
        Route::get("/api/v1/catalog/{kind}/folders", read, folders)
            .doc(Doc::new("catalog", "The sub-folders of a folder, with how many names are in each").query::<FolderQuery>().answer::<Folders>()),
        Route::post("/api/v1/catalog/{kind}/check", read, check)
            .body_limit(DOCUMENT_BODY_BYTES)
            .doc(Doc::new("catalog", "Check a document without saving it: its identity, what it refers to and what is like it").body::<CheckBody>().answer::<Checked>()),
        Route::get("/api/v1/catalog/{kind}/{name}/versions", read, versions)
            .doc(Doc::new("catalog", "The versions of a name, newest first").query::<PageQuery>().answer::<Versions>()),
        Route::post("/api/v1/catalog/{kind}/{name}/versions", write, save)
            .body_limit(DOCUMENT_BODY_BYTES)
            .doc(Doc::new("catalog", "Save a version; the same content again gives the version that holds it").body::<SaveBody>().answer::<SavedOfKind>().status(201)),
        Route::delete("/api/v1/catalog/{kind}/{name}/versions", write, delete)
            .doc(Doc::new("catalog", "Delete a name: its labels are removed and it is hidden; saving a version brings it back").query::<DeleteQuery>().answer::<DeletedName>()),
        Route::get("/api/v1/catalog/{kind}/{name}/versions/{version}", read, version)
            .doc(Doc::new("catalog", "One version with its content: a number, `latest`, a label or a digest").answer::<VersionDetail>()),
        Route::get("/api/v1/catalog/{kind}/{name}/diff", read, diff)
            .doc(Doc::new("catalog", "What differs between two versions, field by field").query::<DiffQuery>().answer::<Diff>()),
        Route::get("/api/v1/catalog/{kind}/{name}/pointers", read, pointers)
            .doc(Doc::new("catalog", "Where the labels point").answer::<Pointers>()),
        Route::put("/api/v1/catalog/{kind}/{name}/pointers/{label}", write, move_pointer)
            .doc(Doc::new("catalog", "Point a label to a version, in effect on the next request").body::<MoveBody>().answer::<PointerRow>()),
        Route::delete("/api/v1/catalog/{kind}/{name}/pointers/{label}", write, remove_pointer)
            .doc(Doc::new("catalog", "Remove a label; its history stays").query::<RemoveQuery>().answer::<PointerRow>()),
        Route::get("/api/v1/catalog/{kind}/{name}/moves", read, moves)
            .doc(Doc::new("catalog", "Every move of the labels, newest first").query::<MovesQuery>().answer::<Moves>()),
        Route::get("/api/v1/catalog/{kind}/{name}/tags", read, tags)
            .doc(Doc::new("catalog", "The tags of a name").answer::<Tags>()),
        Route::put("/api/v1/catalog/{kind}/{name}/tags", write, set_tags)
            .doc(Doc::new("catalog", "Replace the tags of a name").body::<Tags>().answer::<Tags>()),
        Route::get("/api/v1/catalog/{kind}/{name}/references", read, references)
            .doc(Doc::new("catalog", "What a version refers to, itself and through others, as the labels point now").query::<VersionQuery>().answer::<References>()),
        Route::get("/api/v1/catalog/{kind}/{name}/dependents", read, dependents)
            .doc(Doc::new("catalog", "The documents in use that refer to this name").answer::<Dependents>()),
        Route::get("/api/v1/catalog/{kind}/{name}/similar", read, similar)
            .doc(Doc::new("catalog", "Other names with nearly the same text").query::<VersionQuery>().answer::<SimilarNames>()),
    ]
}

fn reading(app: &App, identity: &Identity, kind: &str) -> Result<Scope> {
    require(
        app,
        identity,
        kind,
        Permission::ReadPrompts,
        Permission::ReadCatalog,
    )
}

fn writing(app: &App, identity: &Identity, kind: &str) -> Result<Scope> {
    require(
        app,
        identity,
        kind,
        Permission::WritePrompts,
        Permission::WriteCatalog,
    )
}

/// The route asked for the permission already, before it read the body. Here the kind is known for
/// certain, however the path spelled it.
fn require(
    app: &App,
    identity: &Identity,
    kind: &str,
    for_prompts: Permission,
    for_others: Permission,
) -> Result<Scope> {
    let is_prompt = kind == crate::prompts::KIND;
    identity.require(if is_prompt { for_prompts } else { for_others })?;
    app.catalog.kinds().get(kind)?;
    Ok(identity.scope())
}

#[derive(Serialize, JsonSchema)]
struct Kinds {
    /// The kinds, in the order in which they build on each other.
    items: Vec<KindRow>,
}

#[derive(Serialize, JsonSchema)]
struct KindRow {
    /// The kind's name, as paths and references use it.
    kind: String,
    /// Where its JSON Schema is.
    schema: String,
}

async fn kinds(State(app): State<App>, identity: Identity) -> Result<Answer<Kinds>> {
    let readable = app
        .catalog
        .kinds()
        .iter()
        .filter(|kind| reading(&app, &identity, kind.name).is_ok());
    let items = readable
        .map(|kind| KindRow {
            kind: kind.name.to_owned(),
            schema: format!("/api/v1/schemas/{}", kind.name),
        })
        .collect();
    Ok(Answer(Kinds { items }))
}

async fn schema(
    State(app): State<App>,
    identity: Identity,
    Path(kind): Path<String>,
) -> Result<Answer<Value>> {
    reading(&app, &identity, &kind)?;
    Ok(Answer((app.catalog.kinds().get(&kind)?.schema)()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NamesQuery {
    /// Only names in this folder.
    folder: Option<String>,
    /// Only names right in the folder, not those in its sub-folders.
    #[serde(default)]
    direct: bool,
    /// Only names with this tag.
    tag: Option<String>,
    /// Only names that hold each of these words, in the name or a tag.
    search: Option<String>,
    /// Deleted names as well.
    #[serde(default)]
    deleted: bool,
    /// Where the page before ended.
    cursor: Option<String>,
    /// How many rows, at most 200.
    limit: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
struct NameRow {
    /// The name.
    name: String,
    /// Its newest version.
    latest: VersionRow,
    /// Label → version.
    labels: std::collections::BTreeMap<String, i64>,
    /// Its tags.
    tags: Vec<String>,
    /// When it was deleted, microseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_at: Option<i64>,
}

impl From<Listed> for NameRow {
    fn from(listed: Listed) -> Self {
        Self {
            name: listed.latest.name.to_string(),
            latest: listed.latest.into(),
            labels: listed.labels.into_iter().collect(),
            tags: listed.tags,
            deleted_at: listed.deleted_at,
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct Names {
    /// The names, in order.
    items: Vec<NameRow>,
    /// What to ask the next page with.
    next_cursor: Option<String>,
}

async fn names(
    State(app): State<App>,
    identity: Identity,
    Path(kind): Path<String>,
    Query(query): Query<NamesQuery>,
) -> Result<Answer<Names>> {
    let scope = reading(&app, &identity, &kind)?;
    let filter = NameFilter {
        folder: query.folder.as_deref().map(parse_name).transpose()?,
        direct: query.direct,
        tag: query.tag,
        search: query.search,
        include_deleted: query.deleted,
    };
    let page = page_request(query.cursor, query.limit);
    let page = app.catalog.list_names(scope, &kind, &filter, &page).await?;
    Ok(Answer(Names {
        items: page.items.into_iter().map(NameRow::from).collect(),
        next_cursor: cursor_text(page.next),
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FolderQuery {
    /// The folder; without it, the top.
    folder: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct FolderRow {
    /// The whole path.
    path: String,
    /// How many names it holds, its own sub-folders included.
    names: usize,
}

#[derive(Serialize, JsonSchema)]
struct TagRow {
    /// The tag.
    tag: String,
    /// How many names have it.
    names: usize,
}

#[derive(Serialize, JsonSchema)]
struct Folders {
    /// The sub-folders, in order.
    items: Vec<FolderRow>,
    /// How many names lie right in the folder.
    names_here: usize,
    /// How many names it holds in all.
    names: usize,
    /// The tags in use below the folder.
    tags: Vec<TagRow>,
}

async fn folders(
    State(app): State<App>,
    identity: Identity,
    Path(kind): Path<String>,
    Query(query): Query<FolderQuery>,
) -> Result<Answer<Folders>> {
    let scope = reading(&app, &identity, &kind)?;
    let folder = query.folder.as_deref().map(parse_name).transpose()?;
    let listing = app.catalog.folders(scope, &kind, folder.as_ref()).await?;
    let folder_row = |folder: db::Folder| FolderRow {
        path: folder.path.to_string(),
        names: folder.names,
    };
    let tag_row = |(tag, names)| TagRow { tag, names };
    Ok(Answer(Folders {
        items: listing.folders.into_iter().map(folder_row).collect(),
        names_here: listing.names_here,
        names: listing.names,
        tags: listing.tags.into_iter().map(tag_row).collect(),
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CheckBody {
    /// The document.
    content: Value,
}

#[derive(Serialize, JsonSchema)]
struct SimilarRow {
    /// The other name.
    name: String,
    /// Its most similar version.
    version: i64,
    /// The estimated share of the text that is the same, from 0.7 to 1.
    similarity: f64,
}

impl From<Similar> for SimilarRow {
    fn from(similar: Similar) -> Self {
        Self {
            name: similar.name.to_string(),
            version: similar.number,
            similarity: similar.similarity,
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct ResolvedRow {
    /// The reference as text.
    reference: String,
    /// The other document's kind.
    kind: String,
    /// Its name.
    name: String,
    /// The version that the reference stands for now.
    version: i64,
    /// That version's content.
    digest: String,
}

impl From<Resolved> for ResolvedRow {
    fn from(resolved: Resolved) -> Self {
        Self {
            reference: resolved.text,
            kind: resolved.kind,
            name: resolved.name.to_string(),
            version: resolved.number,
            digest: resolved.digest.to_string(),
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct Checked {
    /// The content's identity.
    digest: String,
    /// What it refers to, itself and through others.
    references: Vec<ResolvedRow>,
    /// Names with the same or nearly the same text.
    similar: Vec<SimilarRow>,
}

async fn check(
    State(app): State<App>,
    identity: Identity,
    Path(kind): Path<String>,
    Json(body): Json<CheckBody>,
) -> Result<Answer<Checked>> {
    let scope = reading(&app, &identity, &kind)?;
    let digest = app.catalog.check(&kind, &body.content)?;
    let resolution = app
        .catalog
        .resolve_document(scope, &kind, &body.content)
        .await?;
    let similar = app.catalog.similar(scope, &kind, &body.content).await?;
    let references = resolution.references.into_iter();
    Ok(Answer(Checked {
        digest: digest.to_string(),
        references: references.map(ResolvedRow::from).collect(),
        similar: similar.into_iter().map(SimilarRow::from).collect(),
    }))
}

fn no_name(kind: &str, name: &Name) -> AppError {
    AppError::not_found(format!("there is no {kind} {name}"))
}

async fn versions(
    State(app): State<App>,
    identity: Identity,
    Path((kind, name)): Path<(String, String)>,
    Query(query): Query<PageQuery>,
) -> Result<Answer<Versions>> {
    let scope = reading(&app, &identity, &kind)?;
    let name = parse_name(&name)?;
    let is_first = query.cursor.is_none();
    let page = app
        .catalog
        .list_versions(scope, &kind, &name, &query.page())
        .await?;
    if page.items.is_empty() && is_first {
        return Err(no_name(&kind, &name));
    }
    Ok(Answer(page.into()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SaveBody {
    /// The document.
    content: Value,
    /// What this version changes.
    #[serde(default)]
    message: String,
}

#[derive(Serialize, JsonSchema)]
struct SavedOfKind {
    /// The kind.
    kind: String,
    /// The version that holds the content.
    #[serde(flatten)]
    saved: Saved,
    /// Whether the name had been deleted and is back.
    revived: bool,
    /// Other names with the same content.
    same_content: Vec<SameContent>,
    /// Other names with nearly the same text.
    similar: Vec<SimilarRow>,
}

async fn save(
    State(app): State<App>,
    identity: Identity,
    Path((kind, name)): Path<(String, String)>,
    Json(body): Json<SaveBody>,
) -> Result<(StatusCode, Answer<SavedOfKind>)> {
    let scope = writing(&app, &identity, &kind)?;
    let name = parse_name(&name)?;
    let new = NewVersion {
        kind: &kind,
        name: &name,
        content: &body.content,
        message: &body.message,
    };
    let saved = app.catalog.save_version(scope, new).await?;
    app.refresh_plan().await?;
    let status = saved_status(&saved);
    let answer = SavedOfKind {
        kind,
        saved: Saved::from(&saved),
        revived: saved.revived,
        same_content: SameContent::of(&saved),
        similar: saved.similar.into_iter().map(SimilarRow::from).collect(),
    };
    Ok((status, Answer(answer)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DeleteQuery {
    /// Why.
    #[serde(default)]
    reason: String,
    /// Delete it although documents in use refer to it.
    #[serde(default)]
    force: bool,
}

#[derive(Serialize, JsonSchema)]
struct DeletedName {
    /// The labels that were removed, where they pointed last.
    pointers: Vec<PointerRow>,
    /// The documents in use that refer to the name and now lead nowhere.
    dependents: Vec<DependentRow>,
}

async fn delete(
    State(app): State<App>,
    identity: Identity,
    Path((kind, name)): Path<(String, String)>,
    Query(query): Query<DeleteQuery>,
) -> Result<Answer<DeletedName>> {
    let scope = writing(&app, &identity, &kind)?;
    let name = parse_name(&name)?;
    let request = DeleteRequest {
        kind: &kind,
        name: &name,
        reason: &query.reason,
        force: query.force,
    };
    let deleted = app.catalog.delete_name(scope, request).await?;
    app.refresh_plan().await?;
    let dependents = deleted.dependents.into_iter();
    Ok(Answer(DeletedName {
        pointers: deleted.pointers.into_iter().map(PointerRow::from).collect(),
        dependents: dependents.map(DependentRow::from).collect(),
    }))
}

async fn find(app: &App, scope: Scope, kind: &str, name: &Name, version: &str) -> Result<Document> {
    let selector = parse_selector(version)?;
    let found = app.catalog.version(scope, kind, name, &selector).await?;
    found.ok_or_else(|| AppError::not_found(format!("{kind} {name} has no version {selector}")))
}

async fn version(
    State(app): State<App>,
    identity: Identity,
    Path((kind, name, version)): Path<(String, String, String)>,
) -> Result<Answer<VersionDetail>> {
    let scope = reading(&app, &identity, &kind)?;
    let found = find(&app, scope, &kind, &parse_name(&name)?, &version).await?;
    Ok(Answer(found.into()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DiffQuery {
    /// The earlier version: a number, `latest`, a label or a digest.
    from: String,
    /// The later version.
    to: String,
}

#[derive(Serialize, JsonSchema)]
struct ChangeRow {
    /// Where: a JSON Pointer.
    path: String,
    /// What was there; absent where it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Value>,
    /// What is there; absent where it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Value>,
}

#[derive(Serialize, JsonSchema)]
struct Diff {
    /// The earlier version.
    from: VersionRow,
    /// The later version.
    to: VersionRow,
    /// What differs, field by field.
    changes: Vec<ChangeRow>,
}

async fn diff(
    State(app): State<App>,
    identity: Identity,
    Path((kind, name)): Path<(String, String)>,
    Query(query): Query<DiffQuery>,
) -> Result<Answer<Diff>> {
    let scope = reading(&app, &identity, &kind)?;
    let name = parse_name(&name)?;
    let from = find(&app, scope, &kind, &name, &query.from).await?;
    let to = find(&app, scope, &kind, &name, &query.to).await?;
    let changes = db::diff(&from.content, &to.content);
    let row = |change: db::Change| ChangeRow {
        path: change.path,
        before: change.before,
        after: change.after,
    };
    Ok(Answer(Diff {
        from: from.version.into(),
        to: to.version.into(),
        changes: changes.into_iter().map(row).collect(),
    }))
}

async fn pointers(
    State(app): State<App>,
    identity: Identity,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Answer<Pointers>> {
    let scope = reading(&app, &identity, &kind)?;
    let name = parse_name(&name)?;
    let pointers = app.catalog.pointers(scope, &kind, &name).await?;
    Ok(Answer(pointers.into()))
}

async fn move_pointer(
    State(app): State<App>,
    identity: Identity,
    Path((kind, name, label)): Path<(String, String, String)>,
    Json(body): Json<MoveBody>,
) -> Result<Answer<PointerRow>> {
    let scope = writing(&app, &identity, &kind)?;
    let (name, label) = (parse_name(&name)?, parse_label(&label)?);
    let request = MoveRequest {
        kind: &kind,
        name: &name,
        label: &label,
        to: body.version,
        expected: body.expected_revision,
        reason: &body.reason,
    };
    let pointer = super::move_pointer(&app, scope, request).await?;
    Ok(Answer(pointer.into()))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RemoveQuery {
    /// Remove only if the label still has this revision.
    expected_revision: Option<i64>,
    /// Why.
    #[serde(default)]
    reason: String,
    /// Remove it although documents in use refer to it.
    #[serde(default)]
    force: bool,
}

async fn remove_pointer(
    State(app): State<App>,
    identity: Identity,
    Path((kind, name, label)): Path<(String, String, String)>,
    Query(query): Query<RemoveQuery>,
) -> Result<Answer<PointerRow>> {
    let scope = writing(&app, &identity, &kind)?;
    let (name, label) = (parse_name(&name)?, parse_label(&label)?);
    let request = RemoveRequest {
        kind: &kind,
        name: &name,
        label: &label,
        expected: query.expected_revision,
        reason: &query.reason,
        force: query.force,
    };
    match app.catalog.remove_pointer(scope, request).await? {
        RemoveOutcome::Removed(pointer) => {
            app.refresh_plan().await?;
            Ok(Answer(pointer.into()))
        }
        RemoveOutcome::Conflict(current) => Err(moved_meanwhile(&label, current.as_ref())),
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MovesQuery {
    /// Only the moves of this label.
    label: Option<String>,
    /// Where the page before ended.
    cursor: Option<String>,
    /// How many rows, at most 200.
    limit: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
struct MoveRow {
    /// The label.
    label: String,
    /// `move`, `rollback` or `remove`.
    action: String,
    /// Where it pointed before.
    from: Option<i64>,
    /// Where it points since; null after a removal.
    to: Option<i64>,
    /// The label's revision after the move.
    revision: i64,
    /// Who.
    actor: String,
    /// Why.
    reason: String,
    /// The approved proposal that this carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    proposal: Option<String>,
    /// When, microseconds since the epoch.
    moved_at: i64,
}

impl From<Move> for MoveRow {
    fn from(moved: Move) -> Self {
        let is_removal = moved.action == db::MoveAction::Remove;
        Self {
            label: moved.label,
            action: moved.action.name().to_owned(),
            from: moved.from,
            to: (!is_removal).then_some(moved.to),
            revision: moved.revision,
            actor: moved.actor,
            reason: moved.reason,
            proposal: moved.proposal,
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
    Path((kind, name)): Path<(String, String)>,
    Query(query): Query<MovesQuery>,
) -> Result<Answer<Moves>> {
    let scope = reading(&app, &identity, &kind)?;
    let name = parse_name(&name)?;
    let label = query.label.as_deref().map(parse_label).transpose()?;
    let page = page_request(query.cursor, query.limit);
    let page = app
        .catalog
        .moves(scope, &kind, &name, label.as_ref(), &page)
        .await?;
    Ok(Answer(Moves {
        items: page.items.into_iter().map(MoveRow::from).collect(),
        next_cursor: cursor_text(page.next),
    }))
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Tags {
    /// The tags; any text of up to 64 characters.
    tags: Vec<String>,
}

async fn tags(
    State(app): State<App>,
    identity: Identity,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Answer<Tags>> {
    let scope = reading(&app, &identity, &kind)?;
    let name = parse_name(&name)?;
    let found = app.catalog.name(scope, &kind, &name).await?;
    let listed = found.ok_or_else(|| no_name(&kind, &name))?;
    Ok(Answer(Tags { tags: listed.tags }))
}

async fn set_tags(
    State(app): State<App>,
    identity: Identity,
    Path((kind, name)): Path<(String, String)>,
    Json(body): Json<Tags>,
) -> Result<Answer<Tags>> {
    let scope = writing(&app, &identity, &kind)?;
    let name = parse_name(&name)?;
    let tags = app
        .catalog
        .set_tags(scope, &kind, &name, &body.tags)
        .await?;
    Ok(Answer(Tags { tags }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct VersionQuery {
    /// A number, `latest` (which it is without this), a label or a digest.
    version: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct ReferenceRow {
    /// Where in the document: a JSON Pointer.
    path: String,
    /// The reference as text.
    reference: String,
}

#[derive(Serialize, JsonSchema)]
struct References {
    /// What the document itself refers to.
    items: Vec<ReferenceRow>,
    /// Everything that it leads to, itself and through others, as the labels point now.
    resolved: Vec<ResolvedRow>,
}

async fn references(
    State(app): State<App>,
    identity: Identity,
    Path((kind, name)): Path<(String, String)>,
    Query(query): Query<VersionQuery>,
) -> Result<Answer<References>> {
    let scope = reading(&app, &identity, &kind)?;
    let name = parse_name(&name)?;
    let wanted = query.version.as_deref().unwrap_or("latest");
    let found = find(&app, scope, &kind, &name, wanted).await?;
    let own = app.catalog.references_of(&kind, &found.content)?;
    let number = found.version.number;
    let resolution = app.catalog.resolve(scope, &kind, &name, number).await?;
    let own_row = |reference: db::Reference| ReferenceRow {
        reference: reference.to_string(),
        path: reference.path,
    };
    let resolved = resolution.references.into_iter();
    Ok(Answer(References {
        items: own.into_iter().map(own_row).collect(),
        resolved: resolved.map(ResolvedRow::from).collect(),
    }))
}

#[derive(Serialize, JsonSchema)]
struct DependentRow {
    /// The referring document's kind.
    kind: String,
    /// Its name.
    name: String,
    /// The version that refers.
    version: i64,
    /// Whether that is the newest version.
    is_latest: bool,
    /// The labels that point to it.
    labels: Vec<String>,
    /// Where in the document: a JSON Pointer.
    path: String,
    /// What it refers to, as text.
    reference: String,
}

impl From<Dependent> for DependentRow {
    fn from(dependent: Dependent) -> Self {
        Self {
            kind: dependent.kind,
            name: dependent.name.to_string(),
            version: dependent.number,
            is_latest: dependent.is_latest,
            labels: dependent.labels,
            path: dependent.path,
            reference: dependent.reference,
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct Dependents {
    /// The documents, by kind and name.
    items: Vec<DependentRow>,
}

async fn dependents(
    State(app): State<App>,
    identity: Identity,
    Path((kind, name)): Path<(String, String)>,
) -> Result<Answer<Dependents>> {
    let scope = reading(&app, &identity, &kind)?;
    let name = parse_name(&name)?;
    let found = app.catalog.dependents(scope, &kind, &name).await?;
    Ok(Answer(Dependents {
        items: found.into_iter().map(DependentRow::from).collect(),
    }))
}

#[derive(Serialize, JsonSchema)]
struct SimilarNames {
    /// The names, the most similar first.
    items: Vec<SimilarRow>,
}

async fn similar(
    State(app): State<App>,
    identity: Identity,
    Path((kind, name)): Path<(String, String)>,
    Query(query): Query<VersionQuery>,
) -> Result<Answer<SimilarNames>> {
    let scope = reading(&app, &identity, &kind)?;
    let name = parse_name(&name)?;
    let wanted = query.version.as_deref().unwrap_or("latest");
    let found = find(&app, scope, &kind, &name, wanted).await?;
    let similar = app.catalog.similar(scope, &kind, &found.content).await?;
    let others = similar.into_iter().filter(|other| other.name != name);
    Ok(Answer(SimilarNames {
        items: others.map(SimilarRow::from).collect(),
    }))
}
