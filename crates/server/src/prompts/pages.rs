//! The pages of prompts. Names hold slashes, so a page is `prompts/show?name=…`.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base::Cursor;
use db::catalog::{Document, Name, Selector};
use db::{Listed, NameFilter, PageRequest, Version};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{KIND, PRODUCTION, diff, parse_label, parse_name};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::setup::form_errors;
use crate::ui::{PageContext, redirect};
use gateway::{MessageRole, PromptDocument, PromptItem};

const WEEK_US: i64 = 7 * 86_400 * 1_000_000;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadPrompts);
    let write = Access::Needs(Permission::WritePrompts);
    vec![
        Route::get("/{project}/prompts", read, list),
        Route::post("/{project}/prompts", write, create).body_limit(5 << 20),
        Route::get("/{project}/prompts/new", write, new),
        Route::get("/{project}/prompts/show", read, show),
        Route::get("/{project}/prompts/diff", read, show_diff),
        Route::post("/{project}/prompts/versions", write, save).body_limit(5 << 20),
        Route::post("/{project}/prompts/labels", write, move_label),
    ]
}

fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn show_href(page: &PageContext, name: &str) -> String {
    format!("{}/prompts/show?name={}", page.root(), encode(name))
}

fn traces_href(page: &PageContext, name: &str, version: Option<i64>) -> String {
    let mut filter = format!("prompt = {}", json!(name));
    if let Some(version) = version {
        filter.push_str(&format!(" and prompt_version = {version}"));
    }
    format!("{}/traces?from=-7d&filter={}", page.root(), encode(&filter))
}

#[derive(Deserialize)]
struct ListQuery {
    q: Option<String>,
    cursor: Option<String>,
}

async fn list(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let scope = identity.scope();
    let q = query.q.unwrap_or_default();
    let wanted = q.to_lowercase();
    // A search looks at the first page of a thousand names; a plain list pages through all.
    let request = PageRequest {
        cursor: query.cursor.clone().map(Cursor::from_client),
        limit: 200,
    };
    let names = app
        .catalog
        .list_names(scope, KIND, &NameFilter::default(), &request)
        .await?;
    let calls = crate::traces::count_by_prompt(&app, scope, app.clock.now_us() - WEEK_US).await?;
    let mut rows = Vec::new();
    for listed in names
        .items
        .iter()
        .filter(|listed| listed.latest.name.as_str().to_lowercase().contains(&wanted))
    {
        rows.push(list_row(&app, &page, scope, listed, &calls).await?);
    }
    let next_href = names
        .next
        .map(|cursor| format!("{}/prompts?cursor={}", page.root(), encode(cursor.as_str())));
    let view = json!({
        "q": q, "any": !names.items.is_empty(), "rows": rows,
        "pager": {"prev_href": query.cursor.map(|_| format!("{}/prompts", page.root())), "next_href": next_href},
    });
    page.render("prompts/list.html", view).await
}

async fn list_row(
    app: &App,
    page: &PageContext,
    scope: db::Scope,
    listed: &Listed,
    calls: &BTreeMap<String, i64>,
) -> Result<Value> {
    let name = listed.latest.name.as_str();
    let content = content_of(
        app,
        scope,
        &listed.latest.name,
        &Selector::Number(listed.latest.number),
    )
    .await?;
    let summary = content
        .map(|(_, content)| content.system())
        .unwrap_or_default();
    let labels: Vec<Value> = listed
        .labels
        .iter()
        .map(|(name, version)| json!({"name": name, "version": version}))
        .collect();
    Ok(json!({
        "name": name, "href": show_href(page, name), "version": listed.latest.number, "labels": labels,
        "summary": base::text::preview(summary.lines().next().unwrap_or_default(), 120),
        "updated_at": listed.latest.created_at,
        "updated_by": crate::members::actor_name(&app.db, scope.project, &listed.latest.author).await?,
        "calls_7d": calls.get(name).copied().unwrap_or(0), "calls_href": traces_href(page, name, None),
    }))
}

async fn content_of(
    app: &App,
    scope: db::Scope,
    name: &Name,
    selector: &Selector,
) -> Result<Option<(Version, PromptDocument)>> {
    let Some(Document { version, content }) =
        app.catalog.version(scope, KIND, name, selector).await?
    else {
        return Ok(None);
    };
    let content = PromptDocument::deserialize(content).map_err(anyhow::Error::from)?;
    Ok(Some((version, content)))
}

async fn new(page: PageContext) -> Result<Response> {
    let view = json!({"values": {"name": "", "system": "", "message": ""}, "errors": {}});
    page.render("prompts/new.html", view).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PromptForm {
    #[serde(default)]
    name: String,
    #[serde(default)]
    system: String,
    #[serde(default)]
    message: String,
}

async fn create(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<PromptForm>,
) -> Result<Response> {
    match save_form(&app, &identity, &form).await {
        Ok((name, version)) => Ok(redirect(format!(
            "{}&version={version}",
            show_href(&page, name.as_str())
        ))
        .into_response()),
        Err(error) if error.status == StatusCode::BAD_REQUEST => {
            let view = json!({
                "values": {"name": form.name, "system": form.system, "message": form.message},
                "errors": document_errors(&page, &error),
            });
            page.render_with_status(StatusCode::UNPROCESSABLE_ENTITY, "prompts/new.html", view)
                .await
        }
        Err(error) => Err(error),
    }
}

/// Browsers send CRLF; a document's identity must not depend on where it was typed.
async fn save_form(app: &App, identity: &Identity, form: &PromptForm) -> Result<(Name, i64)> {
    let name = parse_name(&form.name)?;
    let text = form.system.replace("\r\n", "\n");
    let content = PromptDocument::of_system(text.trim_end());
    let saved =
        super::save_version(app, identity.scope(), &name, &content, form.message.trim()).await?;
    Ok((name, saved.version.number))
}

/// The document's problems all belong to its text, as this form shows it.
fn document_errors(page: &PageContext, error: &AppError) -> Value {
    match error.at.as_deref() {
        Some(at) if at.starts_with("/messages") => json!({"system": error.message}),
        _ => form_errors(page, error),
    }
}

#[derive(Deserialize)]
struct ShowQuery {
    name: String,
    version: Option<i64>,
}

async fn show(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ShowQuery>,
) -> Result<Response> {
    let name = parse_name(&query.name)?;
    let selector = query.version.map_or(Selector::Latest, Selector::Number);
    render_show(&app, &page, &identity, &name, &selector, None).await
}

/// A draft that was refused, and why.
struct Refused<'a> {
    form: &'a PromptForm,
    errors: Value,
}

async fn render_show(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    name: &Name,
    selector: &Selector,
    refused: Option<Refused<'_>>,
) -> Result<Response> {
    let scope = identity.scope();
    let missing = || {
        AppError::not_found(format!(
            "there is no prompt {:?} with this version",
            name.as_str()
        ))
    };
    let (version, content) = content_of(app, scope, name, selector)
        .await?
        .ok_or_else(missing)?;
    let versions = app
        .catalog
        .list_versions(
            scope,
            KIND,
            name,
            &PageRequest {
                cursor: None,
                limit: 200,
            },
        )
        .await?
        .items;
    let pointers = app.catalog.pointers(scope, KIND, name).await?;
    let moves = app
        .catalog
        .moves(
            scope,
            KIND,
            name,
            None,
            &PageRequest {
                cursor: None,
                limit: 50,
            },
        )
        .await?
        .items;
    let href = show_href(page, name.as_str());
    let actors = versions.iter().map(|row| row.author.as_str());
    let actors = actors
        .chain(pointers.iter().map(|row| row.moved_by.as_str()))
        .chain(moves.iter().map(|row| row.actor.as_str()));
    let people = crate::members::actor_names(&app.db, scope.project, actors).await?;

    let mut version_rows = Vec::new();
    for (index, row) in versions.iter().enumerate() {
        let labels: Vec<&str> = pointers
            .iter()
            .filter(|p| p.number == row.number)
            .map(|p| p.label.as_str())
            .collect();
        let diff_href = versions
            .get(index + 1)
            .map(|before| diff_href(page, name.as_str(), before.number, row.number));
        version_rows.push(json!({
            "version": row.number, "href": format!("{href}&version={}", row.number), "short_digest": row.digest.short(),
            "created_at": row.created_at, "created_by": people[&row.author], "message": row.message,
            "labels": labels, "selected": row.number == version.number, "diff_href": diff_href,
        }));
    }
    let mut labels = Vec::new();
    for pointer in &pointers {
        labels.push(json!({
            "name": pointer.label, "version": pointer.number, "revision": pointer.revision,
            "href": format!("{href}&version={}", pointer.number), "moved_at": pointer.moved_at,
            "moved_by": people[&pointer.moved_by],
        }));
    }
    let mut move_rows = Vec::new();
    for (index, row) in moves.iter().enumerate() {
        let newest = moves.iter().position(|other| other.label == row.label) == Some(index);
        move_rows.push(json!({
            "label": row.label, "from": row.from, "to": row.to, "at": row.moved_at,
            "by": people[&row.actor], "reason": row.reason, "undo": newest && row.from.is_some(),
        }));
    }
    let mut label_names: Vec<&str> = vec![PRODUCTION, "staging"];
    label_names.extend(
        pointers
            .iter()
            .map(|p| p.label.as_str())
            .filter(|l| *l != PRODUCTION && *l != "staging"),
    );
    let system = content.system();
    let label_here = pointers
        .iter()
        .find(|pointer| pointer.number == version.number);
    let call_ref = match label_here {
        Some(pointer) => format!("{}@{}", name.as_str(), pointer.label),
        None => format!("{}@{}", name.as_str(), version.number),
    };
    let stats = crate::traces::prompt_stats(
        app,
        scope,
        name.as_str(),
        version.number,
        app.clock.now_us() - WEEK_US,
    )
    .await?;
    let (errors, values, status) = match &refused {
        Some(refused) => (
            refused.errors.clone(),
            json!({"system": refused.form.system, "message": refused.form.message}),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        None => (
            json!({}),
            json!({"system": system, "message": ""}),
            StatusCode::OK,
        ),
    };
    let view = json!({
        "name": name.as_str(), "href": href, "digest": version.digest.to_string(), "short_digest": version.digest.short(),
        "version": version.number, "system": system, "message": version.message,
        "is_latest": versions.first().is_some_and(|latest| latest.number == version.number),
        "versions": version_rows, "labels": labels, "moves": move_rows, "label_names": label_names,
        "traces_href": traces_href(page, name.as_str(), Some(version.number)),
        "playground_href": format!("{}/playground?prompt={}&version={}", page.root(), encode(name.as_str()), version.number),
        "stats": stats, "errors": errors, "values": values,
        "snippet": crate::playground::snippet(app, page, identity, None, Some(&call_ref)), "call_ref": call_ref,
    });
    page.render_with_status(status, "prompts/show.html", view)
        .await
}

fn diff_href(page: &PageContext, name: &str, base: i64, version: i64) -> String {
    format!(
        "{}/prompts/diff?name={}&base={base}&version={version}",
        page.root(),
        encode(name)
    )
}

#[derive(Deserialize)]
struct DiffQuery {
    name: String,
    base: i64,
    version: i64,
    mode: Option<String>,
}

async fn show_diff(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<DiffQuery>,
) -> Result<Response> {
    let name = parse_name(&query.name)?;
    let scope = identity.scope();
    let missing = |number: i64| {
        AppError::not_found(format!(
            "the prompt {:?} has no version {number}",
            name.as_str()
        ))
    };
    let old = content_of(&app, scope, &name, &Selector::Number(query.base))
        .await?
        .ok_or_else(|| missing(query.base))?;
    let new = content_of(&app, scope, &name, &Selector::Number(query.version))
        .await?
        .ok_or_else(|| missing(query.version))?;
    let pointers = app.catalog.pointers(scope, KIND, &name).await?;
    let versions = app
        .catalog
        .list_versions(
            scope,
            KIND,
            &name,
            &PageRequest {
                cursor: None,
                limit: 200,
            },
        )
        .await?
        .items;
    let versions: Vec<Value> = versions
        .iter()
        .map(|row| {
            let labels: Vec<&str> = pointers
                .iter()
                .filter(|p| p.number == row.number)
                .map(|p| p.label.as_str())
                .collect();
            json!({"version": row.number, "labels": labels})
        })
        .collect();
    let split = query.mode.as_deref() == Some("split");
    let difference = diff::compare(&as_text(&old.1), &as_text(&new.1));
    let author = |version: &Version| version.author.clone();
    let mut meta = Vec::new();
    for (key, before, after) in [
        (
            "author",
            crate::members::actor_name(&app.db, scope.project, &author(&old.0)).await?,
            crate::members::actor_name(&app.db, scope.project, &author(&new.0)).await?,
        ),
        ("message", old.0.message.clone(), new.0.message.clone()),
    ] {
        if before != after {
            meta.push(json!({"key": key, "old": before, "new": after}));
        }
    }
    let href = diff_href(&page, name.as_str(), query.base, query.version);
    let view = json!({
        "name": name.as_str(), "href": show_href(&page, name.as_str()), "base": query.base, "version": query.version,
        "mode": if split { "split" } else { "unified" },
        "mode_href": {"unified": href, "split": format!("{href}&mode=split")},
        "versions": versions, "same": difference.same, "added": difference.added, "removed": difference.removed,
        "unified": if split { json!([]) } else { json!(difference.unified) },
        "split": if split { json!(difference.split) } else { json!([]) },
        "meta": meta,
    });
    page.render("prompts/diff.html", view).await
}

/// A prompt as one text: the system text alone, or every message under its role.
fn as_text(content: &PromptDocument) -> String {
    let line = |item: &PromptItem| match item {
        PromptItem::Message(message) => {
            format!("[{}]\n{}\n", message.role.as_str(), message.content)
        }
        PromptItem::Placeholder(place) => format!("[{{{}}}]\n", place.placeholder),
    };
    match content.messages.as_slice() {
        [] => content.template.clone().unwrap_or_default(),
        [PromptItem::Message(only)] if only.role == MessageRole::System => only.content.clone(),
        many => many.iter().map(line).collect(),
    }
}

async fn save(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<PromptForm>,
) -> Result<Response> {
    match save_form(&app, &identity, &form).await {
        Ok((name, version)) => {
            let to = redirect(format!(
                "{}&version={version}",
                show_href(&page, name.as_str())
            ));
            Ok(to
                .ok(page.t_with("prompts-saved-flash", &[("n", &version.to_string())]))
                .into_response())
        }
        Err(error) if error.status == StatusCode::BAD_REQUEST => {
            let name = parse_name(&form.name)?;
            let errors = document_errors(&page, &error);
            render_show(
                &app,
                &page,
                &identity,
                &name,
                &Selector::Latest,
                Some(Refused {
                    form: &form,
                    errors,
                }),
            )
            .await
        }
        Err(error) => Err(error),
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
    let moved = super::move_label(
        &app,
        identity.scope(),
        &name,
        &label,
        form.version,
        form.expected_revision,
        form.reason.trim(),
    );
    match moved.await {
        Ok(pointer) => {
            let args = [
                ("label", pointer.label.as_str()),
                ("n", &pointer.number.to_string()),
            ];
            Ok(to
                .ok(page.t_with("prompts-moved-flash", &args))
                .into_response())
        }
        Err(error) if error.status == StatusCode::CONFLICT => {
            Ok(to.err(page.t("prompts-conflict-flash")).into_response())
        }
        Err(error) => Err(error),
    }
}
