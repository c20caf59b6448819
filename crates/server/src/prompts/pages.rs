//! The page of one prompt: a version, its history, its labels. Names hold
//! slashes, so a page is `prompts/show?name=…`.

use std::collections::HashMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use db::catalog::{Document, Name, Selector};
use db::{Move, PageRequest, Pointer, Version};
use gateway::{MessageRole, PromptDocument, PromptItem};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{KIND, PRODUCTION, parse_label, parse_name};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::ui::{PageContext, redirect};

pub(super) const WEEK_US: i64 = 7 * 86_400 * 1_000_000;
/// Versions that a page lists.
const VERSIONS: u32 = 200;
/// Moves that a page lists.
const MOVES: u32 = 50;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadPrompts);
    let write = Access::Needs(Permission::WritePrompts);
    vec![
        Route::get("/{project}/prompts/show", read, show),
        Route::post("/{project}/prompts/labels", write, move_label),
    ]
}

pub(super) fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

pub(super) fn show_href(page: &PageContext, name: &str) -> String {
    format!("{}/prompts/show?name={}", page.root(), encode(name))
}

pub(super) fn traces_href(page: &PageContext, name: &str, version: Option<i64>) -> String {
    let mut filter = format!("prompt = {}", json!(name));
    if let Some(version) = version {
        filter.push_str(&format!(" and prompt_version = {version}"));
    }
    format!("{}/traces?from=-7d&filter={}", page.root(), encode(&filter))
}

pub(super) fn diff_href(page: &PageContext, name: &str, base: i64, version: i64) -> String {
    format!(
        "{}/prompts/diff?name={}&base={base}&version={version}",
        page.root(),
        encode(name)
    )
}

/// A version with its document.
pub(super) async fn content_of(
    app: &App,
    scope: db::Scope,
    name: &Name,
    selector: &Selector,
) -> Result<Option<(Version, PromptDocument)>> {
    let found = app.catalog.version(scope, KIND, name, selector).await?;
    let Some(Document { version, content }) = found else {
        return Ok(None);
    };
    let content = PromptDocument::deserialize(content).map_err(anyhow::Error::from)?;
    Ok(Some((version, content)))
}

/// The newest versions of a name.
pub(super) async fn versions_of(app: &App, scope: db::Scope, name: &Name) -> Result<Vec<Version>> {
    let request = PageRequest {
        cursor: None,
        limit: VERSIONS,
    };
    Ok(app
        .catalog
        .list_versions(scope, KIND, name, &request)
        .await?
        .items)
}

#[derive(Deserialize)]
struct ShowQuery {
    name: String,
    version: Option<i64>,
}

/// What the page of a prompt is made of.
struct Shown {
    name: Name,
    version: Version,
    document: PromptDocument,
    versions: Vec<Version>,
    pointers: Vec<Pointer>,
    moves: Vec<Move>,
    people: HashMap<String, String>,
}

async fn show(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ShowQuery>,
) -> Result<Response> {
    let name = parse_name(&query.name)?;
    let selector = query.version.map_or(Selector::Latest, Selector::Number);
    let scope = identity.scope();
    let shown = read(&app, scope, name, &selector).await?;
    let name = shown.name.as_str();
    let href = show_href(&page, name);
    let number = shown.version.number;
    let tags = app
        .catalog
        .name(scope, KIND, &shown.name)
        .await?
        .map(|listed| listed.tags)
        .unwrap_or_default();
    let label_here = shown
        .pointers
        .iter()
        .find(|pointer| pointer.number == number);
    let call_ref = match label_here {
        Some(pointer) => format!("{name}@{}", pointer.label),
        None => format!("{name}@{number}"),
    };
    let since = app.clock.now_us() - WEEK_US;
    let stats = crate::traces::prompt_stats(&app, scope, name, number, since).await?;
    let latest = shown
        .versions
        .first()
        .map_or(number, |latest| latest.number);
    let against = shown
        .versions
        .iter()
        .map(|row| row.number)
        .find(|other| *other != number);
    let view = json!({
        "name": name, "href": href, "digest": shown.version.digest.to_string(), "short_digest": shown.version.digest.short(),
        "version": number, "message": shown.version.message, "is_latest": latest == number,
        "description": shown.document.description, "messages": messages(&shown.document), "settings": settings(&shown.document),
        "inputs": inputs(&shown.document), "text": as_text(&shown.document),
        "versions": shown.version_rows(&page, &href), "labels": shown.label_rows(&href), "moves": shown.move_rows(),
        "label_names": label_names(&app, scope, &shown.pointers).await?, "tags": tags,
        "waiting": super::waiting_moves(&app, scope, &shown.name).await?,
        "traces_href": traces_href(&page, name, Some(number)),
        "edit_href": format!("{}/prompts/edit?name={}&version={number}", page.root(), encode(name)),
        "improve_href": format!("{}/improvements/new?prompt={}&version={number}", page.root(), encode(name)),
        "compare_href": format!("{}/compare?prompts={}", page.root(), encode(&json!([format!("{name}@v{number}")]).to_string())),
        "diff_href": against.map(|other| diff_href(&page, name, other.min(number), other.max(number))),
        "playground_href": format!("{}/playground?prompt={}&version={number}", page.root(), encode(name)),
        "stats": stats, "call_ref": call_ref,
    });
    page.render("prompts/show.html", view).await
}

async fn read(app: &App, scope: db::Scope, name: Name, selector: &Selector) -> Result<Shown> {
    let found = content_of(app, scope, &name, selector).await?;
    let (version, document) = found.ok_or_else(|| {
        AppError::not_found(format!(
            "there is no prompt {:?} with this version",
            name.as_str()
        ))
    })?;
    let versions = versions_of(app, scope, &name).await?;
    let pointers = app.catalog.pointers(scope, KIND, &name).await?;
    let request = PageRequest {
        cursor: None,
        limit: MOVES,
    };
    let moves = app
        .catalog
        .moves(scope, KIND, &name, None, &request)
        .await?
        .items;
    let actors = versions.iter().map(|row| row.author.as_str());
    let actors = actors
        .chain(pointers.iter().map(|row| row.moved_by.as_str()))
        .chain(moves.iter().map(|row| row.actor.as_str()));
    let people = crate::members::actor_names(&app.db, scope.project, actors).await?;
    Ok(Shown {
        name,
        version,
        document,
        versions,
        pointers,
        moves,
        people,
    })
}

impl Shown {
    fn version_rows(&self, page: &PageContext, href: &str) -> Vec<Value> {
        let labels = |number: i64| -> Vec<&str> {
            let here = self
                .pointers
                .iter()
                .filter(|pointer| pointer.number == number);
            here.map(|pointer| pointer.label.as_str()).collect()
        };
        let name = self.name.as_str();
        let row = |(index, row): (usize, &Version)| {
            let before = self.versions.get(index + 1);
            json!({
                "version": row.number, "href": format!("{href}&version={}", row.number), "short_digest": row.digest.short(),
                "created_at": row.created_at, "created_by": self.people[&row.author], "message": row.message,
                "labels": labels(row.number), "selected": row.number == self.version.number,
                "diff_href": before.map(|before| diff_href(page, name, before.number, row.number)),
            })
        };
        self.versions.iter().enumerate().map(row).collect()
    }

    fn label_rows(&self, href: &str) -> Vec<Value> {
        let row = |pointer: &Pointer| {
            json!({
                "name": pointer.label, "version": pointer.number, "revision": pointer.revision,
                "href": format!("{href}&version={}", pointer.number), "moved_at": pointer.moved_at,
                "moved_by": self.people[&pointer.moved_by],
            })
        };
        self.pointers.iter().map(row).collect()
    }

    fn move_rows(&self) -> Vec<Value> {
        let row = |(index, row): (usize, &Move)| {
            let newest =
                self.moves.iter().position(|other| other.label == row.label) == Some(index);
            json!({
                "label": row.label, "from": row.from, "to": row.to, "at": row.moved_at,
                "by": self.people[&row.actor], "reason": row.reason, "undo": newest && row.from.is_some(),
            })
        };
        self.moves.iter().enumerate().map(row).collect()
    }
}

/// Labels that a form offers: the usual ones, the project's environments, and those in use.
async fn label_names(app: &App, scope: db::Scope, pointers: &[Pointer]) -> Result<Vec<String>> {
    let mut names = super::labels_of_project(app, scope).await?;
    for pointer in pointers {
        if !names.contains(&pointer.label) {
            names.push(pointer.label.clone());
        }
    }
    Ok(names)
}

/// The messages as a page shows them; a text is one message without a role.
fn messages(document: &PromptDocument) -> Vec<Value> {
    if let Some(template) = &document.template {
        return vec![json!({"role": null, "content": template, "placeholder": null})];
    }
    let row = |item: &PromptItem| match item {
        PromptItem::Message(message) => {
            json!({"role": message.role.as_str(), "content": message.content, "placeholder": null})
        }
        PromptItem::Placeholder(place) => {
            json!({"role": null, "content": "", "placeholder": place.placeholder})
        }
    };
    document.messages.iter().map(row).collect()
}

/// Everything of a document but its texts and inputs, as fields with JSON.
fn settings(document: &PromptDocument) -> Vec<Value> {
    let Value::Object(fields) = document.to_value() else {
        return Vec::new();
    };
    let shown = fields.into_iter().filter(|(key, _)| {
        !matches!(
            key.as_str(),
            "messages" | "template" | "inputs" | "description" | "type"
        )
    });
    let row = |(key, value): (String, Value)| {
        let text = match &value {
            Value::String(text) => text.clone(),
            other => serde_json::to_string_pretty(other).unwrap_or_default(),
        };
        json!({"key": key, "value": text, "block": text.contains('\n')})
    };
    shown.map(row).collect()
}

/// The declared inputs as rows.
fn inputs(document: &PromptDocument) -> Vec<Value> {
    let Some(schema) = &document.inputs else {
        return Vec::new();
    };
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let nothing = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&nothing);
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let row = |(name, property): (&String, &Value)| {
        json!({
            "name": name, "type": text(&property["type"]), "required": required.contains(&name.as_str()),
            "default": text(&property["default"]), "description": text(&property["description"]),
        })
    };
    properties.iter().map(row).collect()
}

/// A prompt as one text: the text alone where there is only one, or every message under its role.
pub(crate) fn as_text(content: &PromptDocument) -> String {
    only_text(content).map_or_else(|| conversation(content), str::to_owned)
}

/// The one text of a prompt that is nothing but a system message or a template.
pub(super) fn only_text(content: &PromptDocument) -> Option<&str> {
    match content.messages.as_slice() {
        [] => Some(content.template.as_deref().unwrap_or_default()),
        [PromptItem::Message(only)] if only.role == MessageRole::System => Some(&only.content),
        _ => None,
    }
}

/// Every message under its role.
pub(super) fn conversation(content: &PromptDocument) -> String {
    let line = |item: &PromptItem| match item {
        PromptItem::Message(message) => {
            format!("[{}]\n{}\n", message.role.as_str(), message.content)
        }
        PromptItem::Placeholder(place) => format!("[{{{}}}]\n", place.placeholder),
    };
    match &content.template {
        Some(template) => template.clone(),
        None => content.messages.iter().map(line).collect(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LabelForm {
    name: String,
    label: String,
    version: i64,
    expected_revision: Option<i64>,
    #[serde(default)]
    reason: String,
}

async fn move_label(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<LabelForm>,
) -> Result<Response> {
    let (name, label) = (parse_name(&form.name)?, parse_label(form.label.trim())?);
    let to = redirect(format!(
        "{}&version={}",
        show_href(&page, name.as_str()),
        form.version
    ));
    let request = db::MoveRequest {
        kind: KIND,
        name: &name,
        label: &label,
        to: form.version,
        expected: form.expected_revision,
        reason: form.reason.trim(),
    };
    let number = form.version.to_string();
    let args = [("label", label.as_str()), ("n", number.as_str())];
    match super::request_move(&app, identity.scope(), request).await {
        Ok(super::Asked::Moved) => Ok(to
            .ok(page.t_with("prompts-moved-flash", &args))
            .into_response()),
        Ok(super::Asked::Proposed) => Ok(to
            .ok(page.t_with("prompts-proposed-flash", &args))
            .into_response()),
        Err(error) if error.code == "moved_meanwhile" => {
            Ok(to.err(page.t("prompts-conflict-flash")).into_response())
        }
        Err(error) if error.status == StatusCode::CONFLICT => {
            Ok(to.err(error.message).into_response())
        }
        Err(error) => Err(error),
    }
}

/// The label that callers get first comes first.
pub(super) fn with_usual_labels(environments: Vec<String>) -> Vec<String> {
    let mut names = vec![PRODUCTION.to_owned(), "staging".to_owned()];
    names.extend(
        environments
            .into_iter()
            .filter(|name| name != PRODUCTION && name != "staging"),
    );
    names
}
