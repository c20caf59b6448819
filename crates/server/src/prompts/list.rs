//! The list of prompts: folders, tags, search; tagging and deleting.

use std::collections::{BTreeMap, HashMap};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base::{Cursor, Digest};
use db::PageRequest;
use db::catalog::{DeleteRequest, FolderListing, Listed, NameFilter};
use gateway::PromptDocument;
use serde::Deserialize;
use serde_json::{Value, json};

use super::pages::{WEEK_US, encode, show_href, traces_href};
use super::{KIND, parse_name};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::ui::{PageContext, redirect};

/// Rows of a page.
const ROWS: u32 = 100;
/// Tags offered as filters; the most used ones.
const TAGS: usize = 20;

pub(super) fn routes() -> Vec<Route> {
    let write = Access::Needs(Permission::WritePrompts);
    vec![
        Route::get(
            "/{project}/prompts",
            Access::Needs(Permission::ReadPrompts),
            list,
        ),
        Route::post("/{project}/prompts/tags", write, set_tags),
        Route::post("/{project}/prompts/delete", write, delete),
    ]
}

#[derive(Deserialize)]
struct ListQuery {
    q: Option<String>,
    folder: Option<String>,
    tag: Option<String>,
    cursor: Option<String>,
}

impl ListQuery {
    /// The address of this list with other keys; an empty value leaves a key out.
    fn href(&self, page: &PageContext, change: &[(&str, &str)]) -> String {
        let now = [("folder", &self.folder), ("tag", &self.tag), ("q", &self.q)];
        let mut keys: BTreeMap<&str, &str> = BTreeMap::new();
        for (key, value) in now {
            keys.insert(key, value.as_deref().unwrap_or_default());
        }
        keys.extend(change.iter().copied());
        let pairs = keys.iter().filter(|(_, value)| !value.is_empty());
        let query: Vec<String> = pairs
            .map(|(key, value)| format!("{key}={}", encode(value)))
            .collect();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{}/prompts{mark}{}", page.root(), query.join("&"))
    }
}

async fn list(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let scope = identity.scope();
    let folder = query.folder.as_deref().map(parse_name).transpose()?;
    let narrowed = query.q.is_some() || query.tag.is_some();
    let filter = NameFilter {
        folder: folder.clone(),
        // Folders stand above the list as ways to narrow it; what they hold is listed anyway.
        direct: false,
        tag: query.tag.clone(),
        search: query.q.clone(),
        include_deleted: false,
    };
    let request = PageRequest {
        cursor: query.cursor.clone().map(Cursor::from_client),
        limit: ROWS,
    };
    let listing = app.catalog.folders(scope, KIND, folder.as_ref()).await?;
    let names = app
        .catalog
        .list_names(scope, KIND, &filter, &request)
        .await?;
    let rows = rows(&app, &page, scope, &names.items, query.folder.as_deref()).await?;
    let next_href = names
        .next
        .map(|cursor| query.href(&page, &[("cursor", cursor.as_str())]));
    let new_name = query
        .folder
        .as_ref()
        .map(|folder| format!("?name={}", encode(&format!("{folder}/"))));
    let view = json!({
        "q": query.q.clone().unwrap_or_default(), "folder": query.folder.clone().unwrap_or_default(),
        "tag": query.tag.clone().unwrap_or_default(), "crumbs": crumbs(&page, query.folder.as_deref()),
        "top_href": format!("{}/prompts", page.root()),
        "folders": if narrowed { Vec::new() } else { folders(&page, &listing, query.folder.as_deref()) },
        "tags": tags(&page, &listing, &query), "total": if narrowed { rows.len() } else { listing.names }, "rows": rows,
        "any": listing.names > 0 || narrowed || query.folder.is_some(),
        "new_href": format!("{}/prompts/new{}", page.root(), new_name.unwrap_or_default()),
        "clear_href": query.href(&page, &[("q", ""), ("tag", "")]),
        "pager": {"prev_href": query.cursor.as_ref().map(|_| query.href(&page, &[])), "next_href": next_href},
    });
    page.render("prompts/list.html", view).await
}

fn crumbs(page: &PageContext, folder: Option<&str>) -> Vec<Value> {
    let mut path = String::new();
    let parts = folder.into_iter().flat_map(|folder| folder.split('/'));
    parts
        .map(|part| {
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(part);
            json!({"label": part, "href": format!("{}/prompts?folder={}", page.root(), encode(&path))})
        })
        .collect()
}

fn folders(page: &PageContext, listing: &FolderListing, folder: Option<&str>) -> Vec<Value> {
    let row = |found: &db::catalog::Folder| {
        let path = found.path.as_str();
        json!({
            "name": below(path, folder), "count": found.names,
            "href": format!("{}/prompts?folder={}", page.root(), encode(path)),
        })
    };
    listing.folders.iter().map(row).collect()
}

/// A name as it reads inside of a folder.
fn below<'a>(name: &'a str, folder: Option<&str>) -> &'a str {
    let rest = folder.and_then(|folder| name.strip_prefix(folder)?.strip_prefix('/'));
    rest.unwrap_or(name)
}

fn tags(page: &PageContext, listing: &FolderListing, query: &ListQuery) -> Vec<Value> {
    let chosen = query.tag.as_deref();
    let mut tags: Vec<&(String, usize)> = listing.tags.iter().collect();
    tags.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let shown = tags
        .iter()
        .enumerate()
        .filter(|(at, tag)| *at < TAGS || Some(tag.0.as_str()) == chosen);
    let chip = |(_, tag): (usize, &&(String, usize))| {
        let (name, count) = (tag.0.as_str(), tag.1);
        let is_active = Some(name) == chosen;
        json!({"name": name, "count": count, "active": is_active, "href": query.href(page, &[("tag", if is_active { "" } else { name })])})
    };
    shown.map(chip).collect()
}

async fn rows(
    app: &App,
    page: &PageContext,
    scope: db::Scope,
    names: &[Listed],
    folder: Option<&str>,
) -> Result<Vec<Value>> {
    let calls = crate::traces::count_by_prompt(app, scope, app.clock.now_us() - WEEK_US).await?;
    let digests: Vec<Digest> = names.iter().map(|listed| listed.latest.digest).collect();
    let documents: HashMap<Digest, Value> = app.catalog.documents(scope.project, &digests).await?;
    let authors = names.iter().map(|listed| listed.latest.author.as_str());
    let people = crate::members::actor_names(&app.db, scope.project, authors).await?;
    let row = |listed: &Listed| {
        let name = listed.latest.name.as_str();
        let labels: Vec<Value> = listed
            .labels
            .iter()
            .map(|(name, version)| json!({"name": name, "version": version}))
            .collect();
        let summary = documents
            .get(&listed.latest.digest)
            .map(summary)
            .unwrap_or_default();
        json!({
            "name": name, "label": below(name, folder), "href": show_href(page, name), "version": listed.latest.number,
            "labels": labels, "tags": listed.tags, "summary": summary, "updated_at": listed.latest.created_at,
            "updated_by": people[&listed.latest.author],
            "calls_7d": calls.get(name).copied().unwrap_or(0), "calls_href": traces_href(page, name, None),
        })
    };
    Ok(names.iter().map(row).collect())
}

/// What a prompt is about, in a line: its own words for it, else the beginning of its text.
fn summary(document: &Value) -> String {
    let Ok(document) = PromptDocument::deserialize(document) else {
        return String::new();
    };
    let text = if document.description.is_empty() {
        document.system()
    } else {
        document.description
    };
    base::text::preview(text.lines().next().unwrap_or_default(), 120)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TagsForm {
    name: String,
    /// Separated by commas.
    #[serde(default)]
    tags: String,
}

async fn set_tags(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<TagsForm>,
) -> Result<Response> {
    let name = parse_name(&form.name)?;
    let split = form
        .tags
        .split([',', '、', '，'])
        .map(str::trim)
        .filter(|tag| !tag.is_empty());
    let tags: Vec<String> = split.map(str::to_owned).collect();
    let to = redirect(show_href(&page, name.as_str()));
    match app
        .catalog
        .set_tags(identity.scope(), KIND, &name, &tags)
        .await
    {
        Ok(_) => Ok(to.ok(page.t("prompts-tagged-flash")).into_response()),
        Err(error) => refused(to, error.into()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteForm {
    name: String,
    /// The name again, typed by hand.
    #[serde(default)]
    confirm: String,
    #[serde(default)]
    reason: String,
}

async fn delete(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<DeleteForm>,
) -> Result<Response> {
    let name = parse_name(&form.name)?;
    let back = redirect(show_href(&page, name.as_str()));
    if form.confirm.trim() != name.as_str() {
        return Ok(back
            .err(page.t("prompts-delete-other-name"))
            .into_response());
    }
    let request = DeleteRequest {
        kind: KIND,
        name: &name,
        reason: form.reason.trim(),
        force: false,
    };
    match app.catalog.delete_name(identity.scope(), request).await {
        Ok(_) => {
            app.refresh_plan().await?;
            let to = redirect(format!("{}/prompts", page.root()));
            Ok(to
                .ok(page.t_with("prompts-deleted-flash", &[("name", name.as_str())]))
                .into_response())
        }
        Err(error) => refused(back, error.into()),
    }
}

/// A refusal that the person can do something about is said on the page that they came from.
fn refused(back: crate::ui::Redirect, error: AppError) -> Result<Response> {
    match error.status {
        StatusCode::BAD_REQUEST | StatusCode::CONFLICT => {
            Ok(back.err(error.message).into_response())
        }
        _ => Err(error),
    }
}
