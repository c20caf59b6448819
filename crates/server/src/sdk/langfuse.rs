//! Langfuse's prompt routes, `/api/public/v2/prompts`, and what its client asks
//! before it uses them. Keys come as a Basic pair: the visible prefix and the
//! key. A folder is a `/` in the name, percent-encoded in paths.

use axum::Json as Answer;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use db::catalog::Selector;
use db::{Document, MoveOutcome, MoveRequest, Scope, Version, WriteTx};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::content::Body;
use super::{Indexed, author, find, missing, parse_label, parse_name, save_in};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Query, Raw, parse_json};
use crate::http::{Access, Route};
use crate::openapi::Doc;
use crate::prompts::{KIND, PRODUCTION};
use crate::traces::time::format_rfc3339;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadPrompts);
    let write = Access::Needs(Permission::WritePrompts);
    let doc = |summary| Doc::new("langfuse", summary);
    vec![
        Route::get("/api/public/health", Access::Public, health),
        Route::get("/api/public/projects", read, projects).doc(doc(
            "The key's project, as Langfuse's clients check their keys",
        )),
        Route::get("/api/public/v2/prompts", read, list).doc(doc("Prompts, by pages")),
        Route::post("/api/public/v2/prompts", write, create)
            .body_limit(5 << 20)
            .doc(doc("Save a version of a prompt and give it labels")),
        Route::get("/api/public/v2/prompts/{name}", read, get)
            .doc(doc("One version, by number or label (default production)")),
        Route::delete("/api/public/v2/prompts/{name}", write, delete)
            .doc(doc("Delete a prompt, or take a label away")),
        Route::patch(
            "/api/public/v2/prompts/{name}/versions/{version}",
            write,
            update,
        )
        .doc(doc("Give a version labels; others lose them")),
    ]
}

async fn health() -> Answer<Value> {
    Answer(json!({"status": "OK", "version": env!("CARGO_PKG_VERSION")}))
}

async fn projects(State(app): State<App>, identity: Identity) -> Result<Answer<Value>> {
    let projects = crate::projects::list(&app.db).await?;
    let own = projects
        .into_iter()
        .filter(|project| project.id == identity.project.id);
    let shown = own.map(|project| {
        json!({"id": project.id.to_string(), "name": project.name, "metadata": {},
               "organization": {"id": "meguri", "name": "Meguri"}})
    });
    Ok(Answer(json!({"data": shown.collect::<Vec<_>>()})))
}

#[derive(Deserialize)]
struct Which {
    version: Option<i64>,
    label: Option<String>,
    resolve: Option<bool>,
}

impl Which {
    fn selector(&self) -> Result<Selector> {
        match (self.version, self.label.as_deref()) {
            (Some(_), Some(_)) => {
                Err(AppError::invalid("version and label cannot be asked for together").at("label"))
            }
            (Some(number), None) => Ok(Selector::Number(number)),
            (None, Some("latest")) => Ok(Selector::Latest),
            (None, Some(label)) => parse_label(label).map(Selector::Label),
            (None, None) => parse_label(PRODUCTION).map(Selector::Label),
        }
    }
}

async fn get(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Query(which): Query<Which>,
) -> Result<Answer<Value>> {
    let scope = identity.scope();
    let name = parse_name(&name)?;
    let found = find(&app, scope, &name, &which.selector()?).await?;
    let resolve = which.resolve.unwrap_or(true);
    show(&app, scope, found, resolve).await.map(Answer)
}

/// A version as Langfuse sends it.
async fn show(app: &App, scope: Scope, found: Document, resolve: bool) -> Result<Value> {
    let Document { version, content } = found;
    let indexed = Indexed::find(app, scope, &version.name).await?;
    let indexed = indexed.ok_or_else(|| missing(format!("there is no prompt {}", version.name)))?;
    let mut labels = indexed.labels_of(version.number);
    if indexed.latest() == version.number {
        labels.push("latest");
    }
    let body = Body::of_document(&content);
    let body = if resolve {
        super::partials::resolve(app, scope, body, &content).await?
    } else {
        super::partials::to_tags(body, &content)
    };
    let at = format_rfc3339(version.created_at);
    Ok(json!({
        "id": version.id.to_string(), "projectId": scope.project.to_string(),
        "name": version.name.as_str(), "version": version.number, "type": body.kind(), "prompt": body.to_langfuse(),
        "config": config_of(&content), "labels": labels, "tags": indexed.tags,
        "commitMessage": message_of(&version), "createdAt": at, "updatedAt": at,
        "createdBy": author(app, scope, &version).await?, "isActive": null, "resolutionGraph": null,
    }))
}

fn message_of(version: &Version) -> Option<&str> {
    Some(version.message.as_str()).filter(|message| !message.is_empty())
}

fn config_of(content: &Value) -> Value {
    content.get("config").cloned().unwrap_or_else(|| json!({}))
}

/// What a client creates. Unknown fields are theirs to add.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Create {
    name: String,
    prompt: Value,
    #[serde(rename = "type")]
    kind: Option<String>,
    config: Option<Value>,
    labels: Option<Vec<String>>,
    tags: Option<Vec<String>>,
    commit_message: Option<String>,
}

async fn create(
    State(app): State<App>,
    identity: Identity,
    Raw(body): Raw,
) -> Result<(StatusCode, Answer<Value>)> {
    let new: Create = parse_json(&body)?;
    let scope = identity.scope();
    let name = parse_name(&new.name)?;
    let document = document_of(&new)?;
    let labels = new.labels.unwrap_or_default();
    let mut tx = app.db.begin_write().await?;
    let message = new.commit_message.as_deref().unwrap_or_default();
    let saved = save_in(&app, &mut tx, scope, &name, &document, message).await?;
    set_labels(&app, &mut tx, scope, &saved.version, &labels).await?;
    if let Some(tags) = new.tags {
        app.catalog
            .set_tags_in(&mut tx, scope, KIND, &name, &tags)
            .await?;
    }
    tx.commit().await?;
    app.refresh_plan().await?;
    let found = find(&app, scope, &name, &Selector::Number(saved.version.number)).await?;
    Ok((
        StatusCode::CREATED,
        Answer(show(&app, scope, found, false).await?),
    ))
}

fn document_of(new: &Create) -> Result<Value> {
    let body = Body::read(&new.prompt, "prompt")?;
    let wanted = new.kind.as_deref().unwrap_or("text");
    if wanted != body.kind() {
        let message = format!(
            "a prompt of type {wanted:?} cannot have a {} as its prompt",
            body.kind()
        );
        return Err(AppError::invalid(message).at("prompt"));
    }
    let (body, partials) = super::partials::from_tags(body)?;
    let mut extra = Map::new();
    if let Some(config) = &new.config
        && !config.is_null()
        && config.as_object().is_none_or(|map| !map.is_empty())
    {
        extra.insert("config".to_owned(), config.clone());
    }
    if !partials.is_empty() {
        extra.insert("partials".to_owned(), Value::Object(partials));
    }
    Ok(body.to_document(extra))
}

/// Points labels at a version in the caller's transaction.
pub(super) async fn set_labels(
    app: &App,
    tx: &mut WriteTx,
    scope: Scope,
    version: &Version,
    labels: &[String],
) -> Result<()> {
    // The newest version has it by itself.
    for label in labels.iter().filter(|label| *label != "latest") {
        let label = parse_label(label)?;
        let request = MoveRequest {
            kind: KIND,
            name: &version.name,
            label: &label,
            to: version.number,
            expected: None,
            reason: "",
        };
        if let MoveOutcome::Conflict(_) = app.catalog.move_pointer_in(tx, scope, request).await? {
            return Err(AppError::conflict(format!(
                "somebody else moved the label {}",
                label.as_str()
            )));
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Update {
    new_labels: Vec<String>,
}

async fn update(
    State(app): State<App>,
    identity: Identity,
    Path((name, number)): Path<(String, i64)>,
    Raw(body): Raw,
) -> Result<Answer<Value>> {
    let update: Update = parse_json(&body)?;
    let scope = identity.scope();
    let name = parse_name(&name)?;
    let found = find(&app, scope, &name, &Selector::Number(number)).await?;
    let mut tx = app.db.begin_write().await?;
    set_labels(&app, &mut tx, scope, &found.version, &update.new_labels).await?;
    tx.commit().await?;
    app.refresh_plan().await?;
    show(&app, scope, found, false).await.map(Answer)
}

async fn delete(
    State(app): State<App>,
    identity: Identity,
    Path(name): Path<String>,
    Query(which): Query<Which>,
) -> Result<StatusCode> {
    let scope = identity.scope();
    let name = parse_name(&name)?;
    if which.version.is_some() {
        return Err(AppError::conflict(format!(
            "versions of {name} stay as they are: they may be in use and in records"
        ))
        .hint("take its labels away, or delete the whole prompt"));
    }
    match which.label.as_deref() {
        Some(label) => super::remove_label(&app, scope, &name, label).await?,
        None => super::delete_prompt(&app, scope, &name).await?,
    }
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListQuery {
    name: Option<String>,
    label: Option<String>,
    tag: Option<String>,
    page: Option<usize>,
    limit: Option<usize>,
    from_updated_at: Option<String>,
    to_updated_at: Option<String>,
    /// A JSON filter that newer clients can send; not understood here.
    filter: Option<String>,
}

async fn list(
    State(app): State<App>,
    identity: Identity,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Value>> {
    let scope = identity.scope();
    if query.filter.is_some() {
        return Err(
            AppError::invalid("this server does not know the parameter filter").at("filter"),
        );
    }
    let (from, to) = (
        time(query.from_updated_at.as_deref(), "fromUpdatedAt")?,
        time(query.to_updated_at.as_deref(), "toUpdatedAt")?,
    );
    let (page, limit) = (
        query.page.unwrap_or(1).max(1),
        query.limit.unwrap_or(50).clamp(1, 100),
    );
    let mut rows = Vec::new();
    for entry in Indexed::all(&app, scope).await? {
        let named = query.name.as_ref().is_none_or(|name| *name == entry.name);
        let labelled = query
            .label
            .as_ref()
            .is_none_or(|label| entry.has_label(label));
        let tagged = query
            .tag
            .as_ref()
            .is_none_or(|tag| entry.tags.contains(tag));
        let in_time = from.is_none_or(|from| entry.updated_at >= from)
            && to.is_none_or(|to| entry.updated_at < to);
        if named && labelled && tagged && in_time {
            rows.push(entry);
        }
    }
    let total = rows.len();
    let mut data = Vec::new();
    for entry in rows.into_iter().skip((page - 1) * limit).take(limit) {
        data.push(meta(&app, scope, &entry).await?);
    }
    Ok(Answer(json!({
        "data": data,
        "meta": {"page": page, "limit": limit, "totalItems": total, "totalPages": total.div_ceil(limit)},
    })))
}

async fn meta(app: &App, scope: Scope, entry: &Indexed) -> Result<Value> {
    let name = parse_name(&entry.name)?;
    let content = find(app, scope, &name, &Selector::Latest)
        .await
        .map_err(|_| missing(format!("{name} was deleted just now")))?
        .content;
    let mut labels: Vec<&str> = entry
        .labels
        .iter()
        .map(|(label, _)| label.as_str())
        .collect();
    labels.push("latest");
    Ok(json!({
        "name": entry.name, "type": Body::of_document(&content).kind(),
        "versions": entry.versions, "labels": labels, "tags": entry.tags,
        "lastUpdatedAt": format_rfc3339(entry.updated_at), "lastConfig": config_of(&content),
    }))
}

fn time(text: Option<&str>, at: &'static str) -> Result<Option<i64>> {
    let read = |text: &str| {
        crate::traces::time::parse_time(text, 0)
            .map_err(|problem| AppError::invalid(problem).at(at))
    };
    text.map(read).transpose()
}
