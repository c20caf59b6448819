//! The pages that show apps and releases; writing an app is `editor.rs`'s.
//!
//! Names hold slashes, so a page is `apps/show?name=…`.

use std::collections::{BTreeMap, HashSet};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base::Cursor;
use db::catalog::{NameFilter, Selector};
use db::{PageRequest, Scope, Version};
use gateway::AppDocument;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::drawing::{drawing, step_rows};
use super::starts::STARTS;
use super::{APP, RELEASE, ReleaseContent, parse_name};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::ui::{PageContext, redirect};

const WEEK_US: i64 = 7 * 86_400 * 1_000_000;
/// Versions and releases shown beside an app; the rest is in the API.
const SHOWN: u32 = 100;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadCatalog);
    let write = Access::Needs(Permission::WriteCatalog);
    vec![
        Route::get("/{project}/apps", read, list),
        Route::get("/{project}/apps/show", read, show),
        Route::post("/{project}/apps/releases", write, cut),
        Route::get("/{project}/apps/release", read, show_release),
        Route::get("/{project}/apps/diff", read, diff),
    ]
}

pub(crate) fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

pub(crate) fn show_href(page: &PageContext, name: &str) -> String {
    format!("{}/apps/show?name={}", page.root(), encode(name))
}

fn edit_href(page: &PageContext, name: &str, version: i64) -> String {
    format!(
        "{}/apps/edit?name={}&version={version}",
        page.root(),
        encode(name)
    )
}

pub(crate) fn release_href(page: &PageContext, name: &str, number: i64) -> String {
    format!(
        "{}/apps/release?name={}&number={number}",
        page.root(),
        encode(name)
    )
}

pub(crate) fn diff_href(page: &PageContext, name: &str, kind: &str, from: i64, to: i64) -> String {
    format!(
        "{}/apps/diff?name={}&kind={kind}&base={from}&version={to}",
        page.root(),
        encode(name)
    )
}

/// The page that shows one version of a document; none for kinds without pages.
pub(crate) fn document_href(
    page: &PageContext,
    kind: &str,
    name: &str,
    version: i64,
) -> Option<String> {
    match kind {
        APP => Some(format!("{}&version={version}", show_href(page, name))),
        RELEASE => Some(release_href(page, name, version)),
        crate::prompts::KIND => Some(format!(
            "{}/prompts/show?name={}&version={version}",
            page.root(),
            encode(name)
        )),
        _ => None,
    }
}

/// The page that compares two versions of a document; none for kinds without one.
pub(crate) fn change_href(
    page: &PageContext,
    kind: &str,
    name: &str,
    before: Option<i64>,
    after: Option<i64>,
) -> Option<String> {
    let (Some(before), Some(after)) = (before, after) else {
        return document_href(page, kind, name, before.or(after)?);
    };
    match kind {
        APP | RELEASE => Some(diff_href(page, name, kind, before, after)),
        crate::prompts::KIND => Some(format!(
            "{}/prompts/diff?name={}&base={before}&version={after}",
            page.root(),
            encode(name)
        )),
        _ => None,
    }
}

fn traces_href(page: &PageContext, name: &str) -> String {
    let filter = format!("app = {}", json!(name));
    format!("{}/traces?from=-7d&filter={}", page.root(), encode(&filter))
}

/// App → environment → number of the release that runs there.
pub(super) async fn running(
    app: &App,
    scope: Scope,
) -> Result<BTreeMap<String, BTreeMap<String, i64>>> {
    let environments = crate::projects::environments(&app.db, scope.project).await?;
    let mut running: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
    for pointer in app.catalog.pointer_index(scope.project, RELEASE).await? {
        if environments.contains(&pointer.label) {
            running
                .entry(pointer.name.as_str().to_owned())
                .or_default()
                .insert(pointer.label, pointer.number);
        }
    }
    Ok(running)
}

fn first_page(limit: u32) -> PageRequest {
    PageRequest {
        cursor: None,
        limit,
    }
}

pub(super) fn start_links(page: &PageContext, selected: Option<&str>) -> Vec<Value> {
    let links = STARTS.iter().map(|key| {
        json!({"key": key, "href": format!("{}/apps/edit?start={key}", page.root()), "selected": selected == Some(*key)})
    });
    links.collect()
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
    let request = PageRequest {
        cursor: query.cursor.clone().map(Cursor::from_client),
        limit: SHOWN,
    };
    let filter = NameFilter {
        search: query.q.clone(),
        ..NameFilter::default()
    };
    let names = app
        .catalog
        .list_names(scope, APP, &filter, &request)
        .await?;
    let digests: Vec<base::Digest> = names.items.iter().map(|row| row.latest.digest).collect();
    let documents = app.catalog.documents(scope.project, &digests).await?;
    let running = running(&app, scope).await?;
    let environments = crate::projects::environments(&app.db, scope.project).await?;
    let calls = crate::traces::count_by_app(&app, scope, app.clock.now_us() - WEEK_US).await?;
    let authors = names.items.iter().map(|row| row.latest.author.as_str());
    let people = crate::members::actor_names(&app.db, scope.project, authors).await?;
    let rows: Vec<Value> = names
        .items
        .iter()
        .map(|listed| {
            let name = listed.latest.name.as_str();
            let document = documents.get(&listed.latest.digest);
            let description = document.and_then(|content| content["description"].as_str());
            let steps = document.map_or(0, |content| count_steps(&content["steps"]));
            let here = running.get(name);
            let runs: Vec<Value> = environments
                .iter()
                .filter_map(|environment| {
                    let number = *here?.get(environment)?;
                    Some(json!({"environment": environment, "release": number, "href": release_href(&page, name, number)}))
                })
                .collect();
            json!({
                "name": name, "href": show_href(&page, name), "description": description.unwrap_or_default(),
                "version": listed.latest.number, "steps": steps, "runs": runs,
                "updated_at": listed.latest.created_at, "updated_by": people[&listed.latest.author],
                "calls_7d": calls.get(name).copied().unwrap_or(0), "calls_href": traces_href(&page, name),
            })
        })
        .collect();
    let next_href = names
        .next
        .map(|cursor| format!("{}/apps?cursor={}", page.root(), encode(cursor.as_str())));
    let q = query.q.unwrap_or_default();
    let view = json!({
        "any": !rows.is_empty() || !q.is_empty() || query.cursor.is_some(), "q": q, "rows": rows,
        "starts": start_links(&page, None),
        "pager": {"prev_href": query.cursor.map(|_| format!("{}/apps", page.root())), "next_href": next_href},
    });
    page.render("apps/list.html", view).await
}

pub(super) fn count_steps(steps: &Value) -> usize {
    let steps = steps.as_array().map(Vec::as_slice).unwrap_or_default();
    steps
        .iter()
        .map(|step| 1 + count_steps(&step["steps"]))
        .sum()
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
    render_show(&app, &page, &identity, &query, None).await
}

/// A release that was refused: what was said with it, and why.
struct Refused<'a> {
    message: &'a str,
    errors: Value,
}

async fn render_show(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    query: &ShowQuery,
    refused: Option<Refused<'_>>,
) -> Result<Response> {
    let scope = identity.scope();
    let name = parse_name(&query.name)?;
    let selector = query.version.map_or(Selector::Latest, Selector::Number);
    let found = app.catalog.version(scope, APP, &name, &selector).await?;
    let found = found.ok_or_else(|| {
        AppError::not_found(format!(
            "there is no app {:?} with this version",
            name.as_str()
        ))
    })?;
    let href = show_href(page, name.as_str());
    let versions = app
        .catalog
        .list_versions(scope, APP, &name, &first_page(SHOWN))
        .await?
        .items;
    let releases = release_rows(app, page, scope, &name).await?;
    let authors = versions.iter().map(|row| row.author.as_str());
    let people = crate::members::actor_names(&app.db, scope.project, authors).await?;
    let version_rows: Vec<Value> = versions
        .iter()
        .enumerate()
        .map(|(index, row)| {
            let before = versions.get(index + 1);
            json!({
                "version": row.number, "href": format!("{href}&version={}", row.number), "short_digest": row.digest.short(),
                "created_at": row.created_at, "created_by": people[&row.author], "message": row.message,
                "selected": row.number == found.version.number,
                "diff_href": before.map(|before| diff_href(page, name.as_str(), APP, before.number, row.number)),
            })
        })
        .collect();
    let document = AppDocument::parse(&found.content).ok();
    let cut_environment = crate::releases::open_first(app, scope).await?;
    let (message, errors) = match refused {
        Some(refused) => (refused.message.to_owned(), refused.errors),
        None => (String::new(), json!({})),
    };
    let has_errors = errors.as_object().is_some_and(|errors| !errors.is_empty());
    let view = json!({
        "name": name.as_str(), "href": href, "edit_href": edit_href(page, name.as_str(), found.version.number),
        "traces_href": traces_href(page, name.as_str()), "version": found.version.number,
        "digest": found.version.digest.to_string(), "short_digest": found.version.digest.short(),
        "is_latest": versions.first().is_some_and(|newest| newest.number == found.version.number),
        "message": found.version.message,
        "description": found.content["description"].as_str().unwrap_or_default(),
        "graph": document.as_ref().map(|document| drawing(page, document)),
        "steps": document.as_ref().map(|document| step_rows(page, document)).unwrap_or_default(),
        "models": document.as_ref().map(model_rows).unwrap_or_default(),
        "tools": tool_rows(&found.content),
        "inputs": input_rows(&found.content),
        "versions": version_rows, "releases": releases, "cut_environment": cut_environment,
        "errors": errors, "values": {"message": message},
        "snippet": snippet(app, page, name.as_str(), &found.content),
    });
    let status = if has_errors {
        StatusCode::UNPROCESSABLE_ENTITY
    } else {
        StatusCode::OK
    };
    page.render_with_status(status, "apps/show.html", view)
        .await
}

async fn release_rows(
    app: &App,
    page: &PageContext,
    scope: Scope,
    name: &db::catalog::Name,
) -> Result<Vec<Value>> {
    let releases: Vec<Version> = app
        .catalog
        .list_versions(scope, RELEASE, name, &first_page(SHOWN))
        .await?
        .items;
    let digests: Vec<base::Digest> = releases.iter().map(|row| row.digest).collect();
    let documents = app.catalog.documents(scope.project, &digests).await?;
    let pointers = app.catalog.pointers(scope, RELEASE, name).await?;
    let bad = crate::releases::quarantined(app, scope, RELEASE, name).await?;
    let authors = releases.iter().map(|row| row.author.as_str());
    let people = crate::members::actor_names(&app.db, scope.project, authors).await?;
    let rows = releases.iter().enumerate().map(|(index, row)| {
        let environments: Vec<&str> = pointers
            .iter()
            .filter(|pointer| pointer.number == row.number)
            .map(|pointer| pointer.label.as_str())
            .collect();
        let content = documents.get(&row.digest);
        let before = releases.get(index + 1);
        json!({
            "number": row.number, "href": release_href(page, name.as_str(), row.number),
            "version": content.and_then(|content| content["app"]["number"].as_i64()),
            "created_at": row.created_at, "created_by": people[&row.author], "message": row.message,
            "environments": environments, "quarantined": bad.iter().any(|one| one.digest == row.digest),
            "diff_href": before.map(|before| diff_href(page, name.as_str(), RELEASE, before.number, row.number)),
        })
    });
    Ok(rows.collect())
}

fn model_rows(document: &AppDocument) -> Vec<Value> {
    let rows = document.models.iter();
    rows.map(|(name, routes)| json!({"name": name, "routes": routes}))
        .collect()
}

fn tool_rows(content: &Value) -> Vec<Value> {
    let tools = content["tools"].as_object().into_iter().flatten();
    tools
        .map(|(name, tool)| {
            json!({
                "name": name, "method": tool["method"].as_str().unwrap_or("GET"),
                "url": tool["url"].as_str().unwrap_or_default(),
            })
        })
        .collect()
}

/// The inputs that an app declares, in its order; the one that it has when it declares none.
pub(super) fn input_fields(content: &Value) -> Vec<(String, Value, bool)> {
    let Some(properties) = content["inputs"]["properties"].as_object() else {
        return vec![("question".to_owned(), json!({"type": "string"}), true)];
    };
    let required: HashSet<&str> = content["inputs"]["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    properties
        .iter()
        .map(|(name, schema)| {
            (
                name.clone(),
                schema.clone(),
                required.contains(name.as_str()),
            )
        })
        .collect()
}

fn input_rows(content: &Value) -> Vec<Value> {
    input_fields(content)
        .into_iter()
        .map(|(name, schema, required)| {
            json!({
                "name": name, "type": schema["type"].as_str().unwrap_or("any"), "required": required,
                "text": schema["description"].as_str().unwrap_or_default(),
            })
        })
        .collect()
}

/// The value that a form begins with: the declared default, or the first example.
pub(super) fn sample(schema: &Value) -> Option<&Value> {
    schema
        .get("default")
        .or_else(|| schema["examples"].as_array()?.first())
}

fn snippet(app: &App, page: &PageContext, name: &str, content: &Value) -> Value {
    let declared = content["inputs"]["properties"].is_object();
    let inputs: Map<String, Value> = input_fields(content)
        .into_iter()
        .map(|(name, schema, _)| {
            let value = sample(&schema).cloned().unwrap_or_else(|| json!("…"));
            (name, value)
        })
        .collect();
    json!({
        "url": app.config.public_url(), "key": "$MEGURI_API_KEY", "app": name,
        "question": page.t("apps-question"),
        "inputs": if declared { Value::Object(inputs).to_string() } else { String::new() },
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CutForm {
    name: String,
    version: i64,
    #[serde(default)]
    message: String,
    /// The environment to run it in at once.
    run_in: Option<String>,
}

async fn cut(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<CutForm>,
) -> Result<Response> {
    let name = parse_name(&form.name)?;
    let version = Selector::Number(form.version);
    let message = form.message.trim();
    match super::cut_release(&app, identity.scope(), &name, &version, message).await {
        Ok(saved) => {
            let number = saved.version.number;
            if let Some(environment) = &form.run_in {
                identity.require(Permission::Propose)?;
                let label = environment
                    .parse::<db::Label>()
                    .map_err(db::CatalogError::from)?;
                let request = db::MoveRequest {
                    kind: RELEASE,
                    name: &name,
                    label: &label,
                    to: number,
                    expected: None,
                    reason: message,
                };
                crate::releases::promote(&app, &identity, request).await?;
            }
            let args = [("n", number.to_string())];
            let args = [(args[0].0, args[0].1.as_str())];
            let flash = if saved.already_existed {
                page.t_with("apps-same-release-flash", &args)
            } else {
                page.t_with("apps-cut-flash", &args)
            };
            Ok(redirect(show_href(&page, name.as_str()))
                .ok(flash)
                .into_response())
        }
        Err(error) if error.status == StatusCode::BAD_REQUEST => {
            let text = match &error.at {
                Some(at) if !at.is_empty() => format!("{at}: {}", error.message),
                _ => error.message.clone(),
            };
            let refused = Refused {
                message,
                errors: json!({"form": text}),
            };
            let query = ShowQuery {
                name: form.name.clone(),
                version: Some(form.version),
            };
            render_show(&app, &page, &identity, &query, Some(refused)).await
        }
        Err(error) => Err(error),
    }
}

#[derive(Deserialize)]
struct ReleaseQuery {
    name: String,
    number: i64,
}

async fn show_release(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ReleaseQuery>,
) -> Result<Response> {
    let scope = identity.scope();
    let name = parse_name(&query.name)?;
    let selector = Selector::Number(query.number);
    let (version, content) = super::find_release(&app.catalog, scope, &name, &selector).await?;
    let pointers = app.catalog.pointers(scope, RELEASE, &name).await?;
    let environments: Vec<&str> = pointers
        .iter()
        .filter(|pointer| pointer.number == version.number)
        .map(|pointer| pointer.label.as_str())
        .collect();
    let bad = crate::releases::quarantined(&app, scope, RELEASE, &name).await?;
    let quarantine = bad.into_iter().find(|one| one.digest == version.digest);
    let actors = [
        Some(version.author.as_str()),
        quarantine.as_ref().map(|one| one.actor.as_str()),
    ];
    let people =
        crate::members::actor_names(&app.db, scope.project, actors.into_iter().flatten()).await?;
    let others: Vec<Value> = app
        .catalog
        .list_versions(scope, RELEASE, &name, &first_page(8))
        .await?
        .items
        .iter()
        .filter(|other| other.number != version.number)
        .map(|other| {
            let (from, to) = (other.number.min(version.number), other.number.max(version.number));
            json!({"number": other.number, "href": diff_href(&page, name.as_str(), RELEASE, from, to)})
        })
        .collect();
    let view = json!({
        "name": name.as_str(), "app_href": show_href(&page, name.as_str()), "number": version.number,
        "digest": version.digest.to_string(), "short_digest": version.digest.short(), "message": version.message,
        "created_at": version.created_at, "created_by": people[&version.author],
        "version": content.app.number, "environments": environments,
        "version_href": format!("{}&version={}", show_href(&page, name.as_str()), content.app.number),
        "quarantined": quarantine.map(|one| json!({"reason": one.reason, "by": people[&one.actor], "at": one.at})),
        "documents": pinned_rows(&page, &content), "others": others,
    });
    page.render("apps/release.html", view).await
}

fn pinned_rows(page: &PageContext, content: &ReleaseContent) -> Vec<Value> {
    let rows = content.documents.iter().map(|(reference, pinned)| {
        let digest: Option<base::Digest> = pinned.digest.parse().ok();
        json!({
            "reference": reference, "kind": pinned.kind, "name": pinned.name, "number": pinned.number,
            "href": document_href(page, &pinned.kind, &pinned.name, pinned.number),
            "short_digest": digest.map(|digest| digest.short()).unwrap_or_default(),
        })
    });
    rows.collect()
}

#[derive(Deserialize)]
struct DiffQuery {
    name: String,
    kind: Option<String>,
    base: i64,
    version: i64,
}

async fn diff(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<DiffQuery>,
) -> Result<Response> {
    let scope = identity.scope();
    let name = parse_name(&query.name)?;
    let kind = match query.kind.as_deref() {
        Some(RELEASE) => RELEASE,
        _ => APP,
    };
    let (old, new) = (
        document_of(&app, scope, kind, &name, query.base).await?,
        document_of(&app, scope, kind, &name, query.version).await?,
    );
    let (documents, old, new) = if kind == RELEASE {
        let (before, after) = (
            ReleaseContent::deserialize(old).map_err(anyhow::Error::from)?,
            ReleaseContent::deserialize(new).map_err(anyhow::Error::from)?,
        );
        let documents = change_rows(&page, &before, &after);
        (
            documents,
            document_of(&app, scope, APP, &name, before.app.number).await?,
            document_of(&app, scope, APP, &name, after.app.number).await?,
        )
    } else {
        (Vec::new(), old, new)
    };
    let fields: Vec<Value> = db::catalog::diff(&old, &new)
        .into_iter()
        .map(|change| {
            json!({
                "path": change.path, "before": change.before.as_ref().map(shown), "after": change.after.as_ref().map(shown),
            })
        })
        .collect();
    let numbers: Vec<i64> = app
        .catalog
        .list_versions(scope, kind, &name, &first_page(SHOWN))
        .await?
        .items
        .iter()
        .map(|version| version.number)
        .collect();
    let view = json!({
        "name": name.as_str(), "href": show_href(&page, name.as_str()), "kind": kind, "base": query.base,
        "version": query.version, "numbers": numbers, "same": documents.is_empty() && fields.is_empty(),
        "documents": documents, "fields": fields,
    });
    page.render("apps/diff.html", view).await
}

/// What differs between two releases, with where to look.
pub(crate) fn change_rows(
    page: &PageContext,
    before: &ReleaseContent,
    after: &ReleaseContent,
) -> Vec<Value> {
    super::compare(before, after)
        .into_iter()
        .map(|change| {
            json!({
                "reference": change.reference, "kind": change.kind, "name": change.name,
                "before": change.before, "after": change.after,
                "href": change_href(page, &change.kind, &change.name, change.before, change.after),
            })
        })
        .collect()
}

async fn document_of(
    app: &App,
    scope: Scope,
    kind: &str,
    name: &db::catalog::Name,
    number: i64,
) -> Result<Value> {
    let found = app
        .catalog
        .version(scope, kind, name, &Selector::Number(number))
        .await?;
    let found = found.ok_or_else(|| {
        AppError::not_found(format!(
            "the {kind} {:?} has no version {number}",
            name.as_str()
        ))
    })?;
    Ok(found.content)
}

/// A value as a table cell shows it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}
