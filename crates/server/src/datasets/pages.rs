//! The pages of datasets: the list, the grid of examples, versions, differences,
//! settings, and what is alike. Examples one by one are in `example_page.rs`, files in
//! `import_page.rs`, traces in `traces_page.rs`.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use base::Cursor;
use db::PageRequest;
use db::catalog::{DeleteRequest, Listed, Name, NameFilter, Selector};
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{READ, WRITE, description_changes};
use super::split::Assign;
use super::{
    DatasetDocument, Datasets, Describe, Edits, Example, ExampleFilter, Fields, Found, KIND,
    SplitFilter, Verdict, parse_name,
};
use crate::app::App;
use crate::auth::Identity;
use crate::error::{AppError, Result};
use crate::extract::{Form, Query};
use crate::http::Route;
use crate::ui::{PageContext, redirect};

/// Examples of a page of the grid.
const ROWS: usize = 100;
/// Datasets and versions of a page.
const NAMES: u32 = 100;
/// Characters of a value in the grid.
const CELL: usize = 240;
/// Examples of each sort that a comparison shows.
const DIFFERENT: usize = 50;

pub(super) fn routes() -> Vec<Route> {
    let mut routes = vec![
        Route::get("/{project}/datasets", READ, list),
        Route::post("/{project}/datasets", WRITE, create),
        Route::get("/{project}/datasets/new", WRITE, new),
        Route::get("/{project}/datasets/show", READ, show),
        Route::get("/{project}/datasets/versions", READ, versions),
        Route::get("/{project}/datasets/diff", READ, diff),
        Route::get("/{project}/datasets/alike", READ, alike),
        Route::get("/{project}/datasets/settings", WRITE, settings),
        Route::post("/{project}/datasets/settings", WRITE, save_settings),
        Route::post("/{project}/datasets/splits", WRITE, assign_splits),
        Route::post("/{project}/datasets/delete", WRITE, delete),
    ];
    routes.extend(super::example_page::routes());
    routes.extend(super::import_page::routes());
    routes.extend(super::runs_page::routes());
    routes.extend(super::transform_page::routes());
    routes.extend(super::traces_page::routes());
    routes
}

pub(super) fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The address of one of a dataset's pages.
pub(super) fn href(page: &PageContext, place: &str, name: &str, more: &[(&str, &str)]) -> String {
    let mut href = format!("{}/datasets/{place}?name={}", page.root(), encode(name));
    for (key, value) in more.iter().filter(|(_, value)| !value.is_empty()) {
        href.push_str(&format!("&{key}={}", encode(value)));
    }
    href
}

/// A value as people read it: texts as they are, messages one after the other, else JSON.
pub(super) fn as_text(value: &Value) -> String {
    let message = |item: &Value| {
        let role = item.get("role")?.as_str()?;
        let content = match item.get("content") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => item
                .get("tool_calls")
                .map(Value::to_string)
                .unwrap_or_default(),
            Some(other) => other.to_string(),
        };
        Some(format!("{role}: {content}"))
    };
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if !items.is_empty() => {
            match items.iter().map(message).collect::<Option<Vec<_>>>() {
                Some(lines) => lines.join("\n"),
                None => value.to_string(),
            }
        }
        other => other.to_string(),
    }
}

pub(super) fn cell(value: Option<&Value>) -> String {
    value
        .map(|value| base::text::preview(&as_text(value), CELL))
        .unwrap_or_default()
}

async fn find(app: &App, identity: &Identity, name: &str, version: Option<i64>) -> Result<Found> {
    let selector = version.map_or(Selector::Latest, Selector::Number);
    app.datasets
        .version(identity.scope(), &parse_name(name)?, &selector)
        .await
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
    let filter = NameFilter {
        search: query.q.clone(),
        ..NameFilter::default()
    };
    let request = PageRequest {
        cursor: query.cursor.clone().map(Cursor::from_client),
        limit: NAMES,
    };
    let names = app
        .catalog
        .list_names(scope, KIND, &filter, &request)
        .await?;
    let digests: Vec<_> = names
        .items
        .iter()
        .map(|listed| listed.latest.digest)
        .collect();
    let documents = app.catalog.documents(scope.project, &digests).await?;
    let authors = names
        .items
        .iter()
        .map(|listed| listed.latest.author.as_str());
    let people = crate::members::actor_names(&app.db, scope.project, authors).await?;
    let row = |listed: &Listed| {
        let document = documents.get(&listed.latest.digest);
        let document = document
            .and_then(|document| DatasetDocument::deserialize(document).ok())
            .unwrap_or_default();
        let name = listed.latest.name.as_str();
        json!({
            "name": name, "href": href(&page, "show", name, &[]), "version": listed.latest.number,
            "count": document.count, "splits": splits_of(&document), "description": base::text::preview(&document.description, 120),
            "updated_at": listed.latest.created_at, "updated_by": people[&listed.latest.author],
        })
    };
    let q = query.q.clone().unwrap_or_default();
    let rows: Vec<Value> = names.items.iter().map(row).collect();
    let base_href = format!("{}/datasets?q={}", page.root(), encode(&q));
    let view = json!({
        "q": q, "any": !rows.is_empty() || query.q.is_some() || query.cursor.is_some(), "rows": rows,
        "clear_href": format!("{}/datasets", page.root()),
        "pager": {
            "prev_href": query.cursor.as_ref().map(|_| base_href.clone()),
            "next_href": names.next.map(|cursor| format!("{base_href}&cursor={}", cursor.as_str())),
        },
    });
    page.render("datasets/list.html", view).await
}

fn splits_of(document: &DatasetDocument) -> Vec<Value> {
    let split = |(name, count): (&String, &u64)| json!({"name": name, "count": count});
    document.splits.iter().map(split).collect()
}

#[derive(Deserialize)]
struct NewQuery {
    name: Option<String>,
}

async fn new(page: PageContext, Query(query): Query<NewQuery>) -> Result<Response> {
    let view = json!({"name": query.name.unwrap_or_default(), "description": "", "errors": {}});
    page.render("datasets/new.html", view).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewForm {
    #[serde(default)]
    name: String,
    #[serde(default)]
    description: String,
    /// `import` goes on to the import.
    #[serde(default)]
    then: String,
}

async fn create(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<NewForm>,
) -> Result<Response> {
    let made = async {
        let name = parse_name(&form.name)?;
        let describe = Describe {
            description: Some(form.description.clone()),
            ..Describe::default()
        };
        app.datasets
            .create(
                identity.scope(),
                &name,
                Edits {
                    describe,
                    ..Edits::default()
                },
            )
            .await?;
        app.refresh_plan().await?;
        Ok::<_, AppError>(name)
    };
    match made.await {
        Ok(name) => {
            let place = if form.then == "import" {
                "import"
            } else {
                "show"
            };
            Ok(redirect(href(&page, place, name.as_str(), &[]))
                .ok(page.t("datasets-made"))
                .into_response())
        }
        Err(error) if error.status.is_client_error() => {
            let view = json!({
                "name": form.name, "description": form.description,
                "errors": {error.at.clone().filter(|at| at == "name").unwrap_or_else(|| "form".to_owned()): error.message},
            });
            page.render_with_status(error.status, "datasets/new.html", view)
                .await
        }
        Err(error) => Err(error),
    }
}

#[derive(Deserialize)]
pub(super) struct ShowQuery {
    pub(super) name: String,
    pub(super) version: Option<i64>,
    pub(super) split: Option<String>,
    pub(super) q: Option<String>,
    pub(super) verdict: Option<String>,
    pub(super) labelled: Option<bool>,
    pub(super) from: Option<u64>,
}

impl ShowQuery {
    pub(super) fn filter(&self) -> ExampleFilter {
        ExampleFilter {
            split: self.split.as_deref().map(SplitFilter::parse),
            text: self.q.clone(),
            verdict: match self.verdict.as_deref() {
                Some("good") => Some(Verdict::Good),
                Some("bad") => Some(Verdict::Bad),
                _ => None,
            },
            labelled: self.labelled,
        }
    }

    /// This page with other keys; an empty value leaves a key out.
    fn href(&self, page: &PageContext, change: &[(&str, &str)]) -> String {
        self.href_of(page, "show", change)
    }

    fn href_of(&self, page: &PageContext, place: &str, change: &[(&str, &str)]) -> String {
        let version = self
            .version
            .map(|version| version.to_string())
            .unwrap_or_default();
        let labelled = self
            .labelled
            .map(|labelled| labelled.to_string())
            .unwrap_or_default();
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let mut keys: BTreeMap<&str, String> = BTreeMap::from([
            ("version", version),
            ("split", text(&self.split)),
            ("q", text(&self.q)),
            ("verdict", text(&self.verdict)),
            ("labelled", labelled),
        ]);
        for (key, value) in change {
            keys.insert(key, (*value).to_owned());
        }
        let pairs: Vec<(&str, &str)> = keys
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
            .collect();
        href(page, place, &self.name, &pairs)
    }
}

async fn show(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ShowQuery>,
) -> Result<Response> {
    let scope = identity.scope();
    let found = find(&app, &identity, &query.name, query.version).await?;
    let latest = match query.version {
        None => found.version.number,
        Some(_) => {
            find(&app, &identity, &query.name, None)
                .await?
                .version
                .number
        }
    };
    let (filter, from) = (query.filter(), query.from.unwrap_or(0));
    let shown = app
        .datasets
        .page(scope, &found, &filter, from, ROWS)
        .await?;
    let is_latest = found.version.number == latest;
    let name = found.version.name.as_str();
    let version = if is_latest {
        String::new()
    } else {
        found.version.number.to_string()
    };
    let rows: Vec<Value> = shown
        .items
        .iter()
        .map(|located| row(&page, name, &version, located))
        .collect();
    let total = filter.count(&found);
    let at = |from: u64| query.href(&page, &[("from", &from.to_string())]);
    let prev = Datasets::place_before(&found, &filter, from, ROWS)
        .map(at)
        .or_else(|| (from > 0).then(|| at(0)));
    let document = &found.document;
    let export =
        |format: &str| json!({"format": format, "href": export_href(&query, name, format)});
    let exports = ["csv", "jsonl", "openai_chat"].map(export);
    let view = json!({
        "head": head(&page, &found, latest, "show"),
        "base": found.version.number, "is_latest": is_latest, "api_name": crate::traces::encode(name),
        "q": query.q.clone().unwrap_or_default(), "split": query.split.clone().unwrap_or_default(),
        "verdict": query.verdict.clone().unwrap_or_default(),
        "labelled": query.labelled.map(|labelled| labelled.to_string()).unwrap_or_default(),
        "version": query.version, "description": document.description, "count": document.count, "total": total,
        "splits": split_links(&page, &query, document), "split_names": document.splits.keys().collect::<Vec<_>>(),
        "labels": document.labels, "rows": rows, "is_filtered": filter != ExampleFilter::default(),
        "clear_href": href(&page, "show", name, &[("version", &version)]),
        "new_href": href(&page, "example", name, &[("new", "1")]),
        "pager": {"prev_href": prev, "next_href": shown.next.map(at)},
        "first": shown.items.first().map_or(0, |located| located.place + 1),
        "last": shown.items.last().map_or(0, |located| located.place + 1),
        "exports": exports,
    });
    page.render("datasets/show.html", view).await
}

/// The same examples as on the screen, as a file.
fn export_href(query: &ShowQuery, name: &str, format: &str) -> String {
    let mut href = format!(
        "/api/v1/datasets/{}/export?format={format}",
        crate::traces::encode(name)
    );
    let version = query.version.map(|version| version.to_string());
    let labelled = query.labelled.map(|labelled| labelled.to_string());
    let keys = [
        ("version", &version),
        ("split", &query.split),
        ("q", &query.q),
        ("verdict", &query.verdict),
        ("labelled", &labelled),
    ];
    for (key, value) in keys {
        if let Some(value) = value {
            href.push_str(&format!("&{key}={}", encode(value)));
        }
    }
    if format == "csv" {
        href.push_str("&bom=true");
    }
    href
}

fn row(page: &PageContext, name: &str, version: &str, located: &super::Located) -> Value {
    let example = &located.example;
    let metadata = (!example.metadata.is_empty()).then(|| json!(example.metadata));
    json!({
        "place": located.place + 1, "id": example.id,
        "href": href(page, "example", name, &[("id", &example.id), ("version", version)]),
        "input": cell(Some(&example.input)), "expected": cell(example.expected.as_ref()), "has_expected": example.expected.is_some(),
        "split": example.split.clone().unwrap_or_default(), "verdict": example.verdict.map(Verdict::name),
        "metadata": cell(metadata.as_ref()), "marks": example.marks.len(),
        "source": if example.source.trace.is_some() { "trace" } else if example.source.import.is_some() { "import" } else { "person" },
    })
}

fn split_links(page: &PageContext, query: &ShowQuery, document: &DatasetDocument) -> Vec<Value> {
    let chosen = query.split.as_deref();
    let link = |key: &str, label: &str, count: u64| json!({"key": key, "label": label, "count": count, "active": chosen.unwrap_or_default() == key, "href": query.href(page, &[("split", key), ("from", "")])});
    let mut links = vec![link("", &page.t("datasets-all"), document.count)];
    links.extend(
        document
            .splits
            .iter()
            .map(|(split, count)| link(split, split, *count)),
    );
    let without = document.without_split();
    if without > 0 && !document.splits.is_empty() {
        links.push(link("~none", &page.t("datasets-no-split"), without));
    }
    links
}

/// What stands above every page of a dataset.
pub(super) fn head(page: &PageContext, found: &Found, latest: i64, tab: &str) -> Value {
    let name = found.version.name.as_str();
    let tab_of =
        |key: &str| json!({"key": key, "href": href(page, key, name, &[]), "active": key == tab});
    let tabs = ["show", "runs", "transform", "versions", "alike", "settings"].map(tab_of);
    json!({
        "name": name, "version": found.version.number, "latest": latest, "list_href": format!("{}/datasets", page.root()),
        "show_href": href(page, "show", name, &[]), "import_href": href(page, "import", name, &[]),
        "tabs": tabs,
    })
}

#[derive(Deserialize)]
struct NameQuery {
    name: String,
}

async fn versions(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<NameQuery>,
) -> Result<Response> {
    let scope = identity.scope();
    let found = find(&app, &identity, &query.name, None).await?;
    let name = found.version.name.clone();
    let request = PageRequest {
        cursor: None,
        limit: 200,
    };
    let listed = app
        .catalog
        .list_versions(scope, KIND, &name, &request)
        .await?
        .items;
    let digests: Vec<_> = listed.iter().map(|version| version.digest).collect();
    let documents = app.catalog.documents(scope.project, &digests).await?;
    let people = crate::members::actor_names(
        &app.db,
        scope.project,
        listed.iter().map(|version| version.author.as_str()),
    )
    .await?;
    let row = |version: &db::Version| {
        let document = documents.get(&version.digest);
        let count = document
            .and_then(|document| document["count"].as_u64())
            .unwrap_or(0);
        let number = version.number.to_string();
        let before = (version.number > 1).then(|| {
            href(
                &page,
                "diff",
                name.as_str(),
                &[("from", &(version.number - 1).to_string()), ("to", &number)],
            )
        });
        json!({
            "number": version.number, "message": version.message, "author": people[&version.author], "at": version.created_at,
            "count": count, "href": href(&page, "show", name.as_str(), &[("version", &number)]), "diff_href": before,
            "digest": version.digest.short(),
        })
    };
    let rows: Vec<Value> = listed.iter().map(row).collect();
    let view = json!({"head": head(&page, &found, found.version.number, "versions"), "rows": rows});
    page.render("datasets/versions.html", view).await
}

#[derive(Deserialize)]
struct DiffQuery {
    name: String,
    from: Option<i64>,
    to: Option<i64>,
}

async fn diff(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<DiffQuery>,
) -> Result<Response> {
    let scope = identity.scope();
    let to = find(&app, &identity, &query.name, query.to).await?;
    let from = query.from.unwrap_or(to.version.number - 1).max(1);
    let from = find(&app, &identity, &query.name, Some(from)).await?;
    let latest = find(&app, &identity, &query.name, None)
        .await?
        .version
        .number;
    let difference = app.datasets.difference(scope, &from, &to).await?;
    let (mut added, mut changed, mut removed) = (Vec::new(), Vec::new(), Vec::new());
    for id in difference.added.iter().take(DIFFERENT) {
        added.push(fields_of(
            &app.datasets.example(scope, &to, id).await?.example,
        ));
    }
    for id in difference.removed.iter().take(DIFFERENT) {
        removed.push(fields_of(
            &app.datasets.example(scope, &from, id).await?.example,
        ));
    }
    for id in difference.changed.iter().take(DIFFERENT) {
        let before = app.datasets.example(scope, &from, id).await?.example;
        let after = app.datasets.example(scope, &to, id).await?.example;
        let (before, after) = (json!(before), json!(after));
        let change = |change: db::catalog::Change| json!({"path": change.path, "before": cell(change.before.as_ref()), "after": cell(change.after.as_ref())});
        let changes: Vec<Value> = db::catalog::diff(&before, &after)
            .into_iter()
            .map(change)
            .collect();
        changed.push(json!({"id": id, "changes": changes, "href": href(&page, "example", &query.name, &[("id", id)])}));
    }
    let field = |change: db::catalog::Change| json!({"path": change.path, "before": cell(change.before.as_ref()), "after": cell(change.after.as_ref())});
    let fields: Vec<Value> = description_changes(&from.document, &to.document)
        .into_iter()
        .map(field)
        .collect();
    let view = json!({
        "head": head(&page, &to, latest, "versions"), "from": from.version.number, "to": to.version.number, "latest": latest,
        "name": query.name, "fields": fields,
        "added": {"count": difference.added.len(), "items": added}, "changed": {"count": difference.changed.len(), "items": changed},
        "removed": {"count": difference.removed.len(), "items": removed},
    });
    page.render("datasets/diff.html", view).await
}

fn fields_of(example: &Example) -> Value {
    json!({
        "id": example.id, "input": cell(Some(&example.input)), "expected": cell(example.expected.as_ref()),
        "split": example.split.clone().unwrap_or_default(),
    })
}

async fn alike(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<NameQuery>,
) -> Result<Response> {
    let found = find(&app, &identity, &query.name, None).await?;
    let report = app.datasets.find_alike(identity.scope(), &found).await?;
    let example_href = |id: &str| href(&page, "example", &query.name, &[("id", id)]);
    let twin = |twin: &super::alike::Twin| json!({"id": twin.id, "href": example_href(&twin.id), "input": twin.input, "split": twin.split});
    let pair = |pair: &super::alike::Pair| json!({"a": twin(&pair.a), "b": twin(&pair.b), "similarity": pair.similarity});
    let shown = |shown: &super::alike::Shown| {
        json!({
            "example": twin(&shown.example), "prompt": shown.prompt, "version": shown.version, "index": shown.index + 1,
            "text": shown.text, "similarity": shown.similarity,
            "prompt_href": format!("{}/prompts/show?name={}&version={}", page.root(), encode(&shown.prompt), shown.version),
        })
    };
    let view = json!({
        "head": head(&page, &found, found.version.number, "alike"), "examples": report.examples, "copies": report.copies,
        "same": report.same.iter().map(|group| group.iter().map(twin).collect::<Vec<_>>()).collect::<Vec<_>>(),
        "nearly": report.nearly, "alike": report.alike.iter().map(pair).collect::<Vec<_>>(),
        "leaks": report.leaks, "leaking": report.leaking.iter().map(pair).collect::<Vec<_>>(),
        "shown": report.shown, "shown_by": report.shown_by.iter().map(shown).collect::<Vec<_>>(),
    });
    page.render("datasets/alike.html", view).await
}

async fn settings(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<NameQuery>,
) -> Result<Response> {
    let found = find(&app, &identity, &query.name, None).await?;
    let pretty = |schema: &Option<Value>| {
        schema
            .as_ref()
            .map(|schema| format!("{schema:#}"))
            .unwrap_or_default()
    };
    let document = &found.document;
    let form = SettingsForm {
        name: query.name,
        base: found.version.number,
        description: document.description.clone(),
        labels: document.labels.join("\n"),
        input: pretty(&document.fields.input),
        expected: pretty(&document.fields.expected),
        metadata: pretty(&document.fields.metadata),
    };
    let view = settings_view(&page, &found, &form, &BTreeMap::new());
    page.render("datasets/settings.html", view).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsForm {
    name: String,
    base: i64,
    #[serde(default)]
    description: String,
    /// One a line.
    #[serde(default)]
    labels: String,
    #[serde(default)]
    input: String,
    #[serde(default)]
    expected: String,
    #[serde(default)]
    metadata: String,
}

fn settings_view(
    page: &PageContext,
    found: &Found,
    form: &SettingsForm,
    errors: &BTreeMap<String, String>,
) -> Value {
    json!({
        "head": head(page, found, found.version.number, "settings"), "base": form.base, "name": form.name,
        "description": form.description, "labels": form.labels,
        "schemas": [
            {"name": "input", "text": form.input}, {"name": "expected", "text": form.expected}, {"name": "metadata", "text": form.metadata},
        ],
        "count": found.document.count, "splits": splits_of(&found.document), "errors": errors,
    })
}

async fn save_settings(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<SettingsForm>,
) -> Result<Response> {
    let name = parse_name(&form.name)?;
    match describe(&app, &identity, &name, &form).await {
        Ok(()) => {
            let to = href(&page, "settings", name.as_str(), &[]);
            Ok(redirect(to).ok(page.t("datasets-saved")).into_response())
        }
        Err(error) if error.status.is_client_error() => {
            let found = find(&app, &identity, &form.name, None).await?;
            let at = error.at.clone().unwrap_or_default();
            let field = ["input", "expected", "metadata", "labels", "description"]
                .into_iter()
                .find(|field| {
                    at.starts_with(&format!("/fields/{field}"))
                        || at.starts_with(&format!("/{field}"))
                });
            let errors =
                BTreeMap::from([(field.unwrap_or("form").to_owned(), error.message.clone())]);
            let view = settings_view(&page, &found, &form, &errors);
            page.render_with_status(error.status, "datasets/settings.html", view)
                .await
        }
        Err(error) => Err(error),
    }
}

async fn describe(app: &App, identity: &Identity, name: &Name, form: &SettingsForm) -> Result<()> {
    let schema = |field: &str, text: &str| {
        if text.trim().is_empty() {
            return Ok(None);
        }
        let parsed = serde_json::from_str(text);
        parsed.map(Some).map_err(|error| {
            AppError::invalid(format!("this is no JSON: {error}")).at(format!("/fields/{field}"))
        })
    };
    let fields = Fields {
        input: schema("input", &form.input)?,
        expected: schema("expected", &form.expected)?,
        metadata: schema("metadata", &form.metadata)?,
    };
    let labels = form
        .labels
        .lines()
        .map(str::trim)
        .filter(|label| !label.is_empty())
        .map(str::to_owned)
        .collect();
    let describe = Describe {
        description: Some(form.description.replace("\r\n", "\n")),
        fields: Some(fields),
        labels: Some(labels),
        metadata: None,
    };
    let edits = Edits {
        describe,
        base: Some(form.base),
        ..Edits::default()
    };
    app.datasets.edit(identity.scope(), name, edits).await?;
    app.refresh_plan().await?;
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SplitsForm {
    name: String,
    /// `train 80, test 20`.
    shares: String,
    #[serde(default)]
    seed: String,
    #[serde(default)]
    only_unassigned: bool,
    #[serde(default)]
    keep_alike_together: bool,
}

async fn assign_splits(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<SplitsForm>,
) -> Result<Response> {
    let name = parse_name(&form.name)?;
    let to = redirect(href(&page, "settings", name.as_str(), &[]));
    let assigned = async {
        let assign = Assign {
            shares: parse_shares(&form.shares)?,
            seed: form.seed.clone(),
            only_unassigned: form.only_unassigned,
            keep_alike_together: form.keep_alike_together,
            message: String::new(),
        };
        app.datasets
            .assign_splits(identity.scope(), &name, &assign)
            .await
    };
    match assigned.await {
        Ok(assigned) => {
            app.refresh_plan().await?;
            let splits: Vec<String> = assigned
                .splits
                .iter()
                .map(|(split, count)| format!("{split} {count}"))
                .collect();
            Ok(to
                .ok(page.t_with("datasets-assigned", &[("splits", &splits.join(", "))]))
                .into_response())
        }
        Err(error) if error.status.is_client_error() => Ok(to.err(error.message).into_response()),
        Err(error) => Err(error),
    }
}

/// Reads `train 80, test 20` and `train=0.8 test=0.2`.
fn parse_shares(text: &str) -> Result<BTreeMap<String, f64>> {
    let bad = || {
        AppError::invalid(format!(
            "write splits with their shares, such as \"train 80, test 20\", not {text:?}"
        ))
        .at("shares")
    };
    let words: Vec<&str> = text
        .split([
            ' ', ',', '=', ':', '%', '、', '，', '：', '\n', '\r', '\u{3000}',
        ])
        .filter(|word| !word.is_empty())
        .collect();
    if !words.len().is_multiple_of(2) {
        return Err(bad());
    }
    words
        .chunks(2)
        .map(|pair| Ok((pair[0].to_owned(), pair[1].parse().map_err(|_| bad())?)))
        .collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteForm {
    name: String,
    confirm: String,
}

async fn delete(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<DeleteForm>,
) -> Result<Response> {
    let name = parse_name(&form.name)?;
    if parse_name(&form.confirm).ok().as_ref() != Some(&name) {
        let to = redirect(href(&page, "settings", name.as_str(), &[]));
        return Ok(to.err(page.t("datasets-delete-mistyped")).into_response());
    }
    let request = DeleteRequest {
        kind: KIND,
        name: &name,
        reason: "",
        force: false,
    };
    match app
        .catalog
        .delete_name(identity.scope(), request)
        .await
        .map_err(AppError::from)
    {
        Ok(_) => {
            let to = redirect(format!("{}/datasets", page.root()));
            Ok(to
                .ok(page.t_with("datasets-deleted", &[("name", name.as_str())]))
                .into_response())
        }
        Err(error) if error.status.is_client_error() => {
            let to = redirect(href(&page, "settings", name.as_str(), &[]));
            Ok(to.err(error.message).into_response())
        }
        Err(error) => Err(error),
    }
}
