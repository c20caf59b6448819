//! The pages of guards: the list with what was found, and the editor with its test bench.
//!
//! The editor is one form: the policy as JSON, fields that add a rule to it, and a text to try it
//! on. Every button sends all of it, so that a draft is tried before it is saved and nothing that
//! was typed is lost. It all works without scripts.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base::Cursor;
use db::catalog::{NameFilter, Selector};
use db::{NewVersion, PageRequest};
use guard::{Point, Policy};
use serde::Deserialize;
use serde_json::{Value, json};

use super::asker::Asker;
use super::check::{self, Beside, Checked, FindingJson, Piece, Subject};
use super::curve;
use super::finds::{self, Wanted};
use super::marks::{self, Mark, Segment};
use super::measure::{self, Measured, What};
use super::traffic::{self, Hits, Tried};
use super::{Found, KIND, LIBRARY, form};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::traces::{AskText, encode};
use crate::ui::{PageContext, redirect};

/// Rows of the list: each reads a document.
const ROWS: u32 = 50;
/// Versions that the editor lists.
const VERSIONS: u32 = 20;
/// Calls that the button of the editor tries a draft on.
const TRIED_CALLS: usize = 200;
/// Bytes of a form: a policy and a text to try it on.
const FORM_BYTES: usize = 4 << 20;
/// The same with labelled texts.
const LABELLED_BYTES: usize = 16 << 20;
/// Finds of rules in shadow that the page shows.
const SHADOW_EXAMPLES: usize = 6;
/// Datasets that the page offers to measure with.
const DATASETS: u32 = 200;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadCatalog);
    let write = Access::Needs(Permission::WriteCatalog);
    let check = Access::Needs(Permission::CheckGuards);
    vec![
        Route::get("/{project}/guards", read, list),
        Route::get("/{project}/guards/edit", read, edit),
        Route::post("/{project}/guards/edit", write, save).body_limit(FORM_BYTES),
        Route::post("/{project}/guards/check", check, try_text).body_limit(FORM_BYTES),
        Route::post("/{project}/guards/try", check, try_calls).body_limit(FORM_BYTES),
        Route::post("/{project}/guards/measure", check, measure_draft).body_limit(LABELLED_BYTES),
        Route::post("/{project}/guards/labels", write, move_label),
    ]
}

type Fields = BTreeMap<String, String>;

fn edit_href(page: &PageContext, name: &str) -> String {
    format!("{}/guards/edit?name={}", page.root(), encode(name))
}

#[derive(Deserialize)]
struct ListQuery {
    cursor: Option<String>,
}

async fn list(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let request = PageRequest {
        cursor: query.cursor.map(Cursor::from_client),
        limit: ROWS,
    };
    let scope = identity.scope();
    let names = app
        .catalog
        .list_names(scope, KIND, &NameFilter::default(), &request)
        .await?;
    let hits = hits_of(&app, &identity, None).await?;
    let mut rows = Vec::new();
    for listed in names.items {
        let name = &listed.latest.name;
        let found = app
            .catalog
            .version(scope, KIND, name, &Selector::Latest)
            .await?;
        let Some(found) = found else { continue };
        let policy = Policy::read(&found.content).ok();
        let calls: usize = hits
            .rules
            .iter()
            .filter(|row| row.policy == name.as_str())
            .map(|row| row.calls_day)
            .sum();
        let labels: Vec<Value> = listed
            .labels
            .iter()
            .map(|(label, number)| json!({"name": label, "version": number}))
            .collect();
        rows.push(json!({
            "name": name, "href": edit_href(&page, name.as_str()), "version": found.version.number,
            "at": found.version.created_at, "labels": labels, "hits": calls,
            "description": policy.as_ref().map(|policy| policy.description.clone()),
            "rules": policy.as_ref().map(|policy| policy.rules.iter().map(|rule| rule.name.clone()).collect::<Vec<_>>()),
        }));
    }
    let next_href = names
        .next
        .map(|cursor| format!("{}/guards?cursor={}", page.root(), encode(cursor.as_str())));
    let starts: Vec<Value> = LIBRARY
        .templates(page.lang)
        .iter()
        .map(|template| start(&page, template))
        .collect();
    let decided = |word: &str| hits.decisions.get(word).copied().unwrap_or_default();
    let decisions =
        ["flagged", "edited", "blocked"].map(|word| (word.to_owned(), json!(decided(word))));
    let decisions = serde_json::Map::from_iter(decisions);
    let view = json!({
        "rows": rows, "starts": starts, "hits": hits_view(&page, &hits),
        "decisions": decisions, "finds_href": format!("{}/guards/finds", page.root()),
        "pager": {"prev_href": null, "next_href": next_href},
    });
    page.render("guards/list.html", view).await
}

fn start(page: &PageContext, template: &crate::starts::Template) -> Value {
    let href = format!("{}/guards/edit?template={}", page.root(), template.id);
    json!({"title": template.title, "about": template.about, "href": href})
}

/// What policies found, for readers who may see calls.
async fn hits_of(app: &App, identity: &Identity, policy: Option<&str>) -> Result<Hits> {
    if !identity.role.allows(Permission::ReadTraces) {
        return Ok(Hits::default());
    }
    let week = Some("-7d".to_owned());
    traffic::hits(app, identity.scope(), policy, week).await
}

fn hits_view(page: &PageContext, hits: &Hits) -> Vec<Value> {
    let root = page.root();
    let row = |row: &traffic::RuleHits| {
        let finds = format!(
            "{root}/guards/finds?policy={}&rule={}",
            encode(&row.policy),
            encode(&row.rule)
        );
        let action = match row.action.as_str() {
            "" => None,
            action => Some(page.t(&format!("guards-action-{action}"))),
        };
        json!({
            "policy": row.policy, "href": edit_href(page, &row.policy), "rule": row.rule, "week": row.calls,
            "day": row.calls_day, "blocked": row.blocked, "at": row.last_at, "finds_href": finds,
            "shadow": row.shadow, "action": action,
        })
    };
    hits.rules.iter().map(row).collect()
}

/// Examples of what rules in shadow found in the last seven days, by rule.
async fn shadow_examples(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    name: &str,
) -> Result<Vec<Value>> {
    if !identity.role.allows(Permission::ReadTraces) {
        return Ok(Vec::new());
    }
    let wanted = Wanted {
        policy: Some(name.to_owned()),
        shadow: Some(true),
        limit: Some(SHADOW_EXAMPLES),
        ..Wanted::default()
    };
    let found = finds::list(app, identity.project.id, &wanted).await?;
    let root = page.root();
    let example = |find: &finds::FindJson| {
        let excerpt = find.excerpt.as_ref();
        json!({
            "rule": find.rule, "href": format!("{root}/guards/finds?find={}", find.id), "at": find.at,
            "reason": find.reason, "score": find.score, "before": excerpt.map(|it| &it.before),
            "found": excerpt.map(|it| &it.found), "after": excerpt.map(|it| &it.after),
        })
    };
    Ok(found
        .items
        .iter()
        .take(SHADOW_EXAMPLES)
        .map(example)
        .collect())
}

#[derive(Deserialize)]
struct EditQuery {
    name: Option<String>,
    version: Option<String>,
    template: Option<String>,
}

async fn edit(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<EditQuery>,
) -> Result<Response> {
    let mut fields = Fields::new();
    if let Some(text) = &query.name {
        let name = super::parse_name(text)?;
        let version = match query.version.as_deref() {
            Some(version) => crate::catalog::parse_selector(version)?,
            None => Selector::Latest,
        };
        let found = app
            .catalog
            .version(identity.scope(), KIND, &name, &version)
            .await?;
        let found = found.ok_or_else(|| {
            AppError::not_found(format!("there is no policy {text:?}")).code("policy_not_found")
        })?;
        fields.insert("name".to_owned(), name.to_string());
        fields.insert("version".to_owned(), found.version.number.to_string());
        fields.insert("document".to_owned(), pretty(&found.content));
    } else {
        let template = query.template.as_deref();
        let template = template.and_then(|id| LIBRARY.find(page.lang, id));
        let document = match template {
            Some(template) => template.document.clone(),
            None => json!({"rules": []}),
        };
        if let Some(template) = template {
            fields.insert("name".to_owned(), template.id.clone());
        }
        fields.insert("document".to_owned(), pretty(&document));
    }
    for tick in ["r_at_input", "r_at_output"] {
        fields.insert(tick.to_owned(), "on".to_owned());
    }
    let drawing = Drawing::default();
    render(&app, &page, &identity, StatusCode::OK, &fields, drawing).await
}

fn pretty(document: &Value) -> String {
    serde_json::to_string_pretty(document).unwrap_or_default()
}

/// What a page shows beside what was typed.
#[derive(Default)]
struct Drawing {
    errors: Value,
    problems: Vec<db::Problem>,
    note: Option<&'static str>,
    checked: Option<(String, Checked)>,
    tried: Option<Tried>,
    measured: Option<Measured>,
}

fn get<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).map(String::as_str).unwrap_or_default()
}

/// The document as it was typed.
fn document_of(fields: &Fields) -> std::result::Result<Value, Vec<db::Problem>> {
    serde_json::from_str(get(fields, "document")).map_err(|error| {
        let why = format!("the JSON cannot be read: {error}");
        vec![db::Problem::new("", why)]
    })
}

async fn save(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(mut fields): Form<Fields>,
) -> Result<Response> {
    let action = get(&fields, "action").to_owned();
    let mut document = match document_of(&fields) {
        Ok(document) => document,
        Err(problems) => return refuse(&app, &page, &identity, &fields, problems).await,
    };
    if action == "threshold" && curve::set_threshold(&mut document, &fields).is_none() {
        let why = db::Problem::new("", "there is no such rule, or no such threshold");
        return refuse(&app, &page, &identity, &fields, vec![why]).await;
    }
    if action == "add" || action == "threshold" || action.starts_with("remove-") {
        if action != "threshold" {
            change_rules(&mut document, &action, &fields);
        }
        fields.insert("document".to_owned(), pretty(&document));
        if action == "add" {
            forget_rule(&mut fields);
        }
        let drawing = Drawing {
            problems: super::check_document(&document).err().unwrap_or_default(),
            note: Some("guards-not-saved"),
            ..Drawing::default()
        };
        return render(&app, &page, &identity, StatusCode::OK, &fields, drawing).await;
    }
    if let Err(problems) = super::check_document(&document) {
        return refuse(&app, &page, &identity, &fields, problems).await;
    }
    let name: std::result::Result<db::Name, db::Problem> = get(&fields, "name").trim().parse();
    let name = match name {
        Ok(name) => name,
        Err(problem) => {
            let drawing = Drawing {
                errors: json!({"name": problem.message}),
                ..Drawing::default()
            };
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            return render(&app, &page, &identity, status, &fields, drawing).await;
        }
    };
    let new = NewVersion {
        kind: KIND,
        name: &name,
        content: &document,
        message: get(&fields, "message").trim(),
    };
    let saved = app.catalog.save_version(identity.scope(), new).await?;
    let number = saved.version.number.to_string();
    let text = page.t_with("guards-saved", &[("version", &number)]);
    Ok(redirect(edit_href(&page, name.as_str()))
        .ok(text)
        .into_response())
}

fn change_rules(document: &mut Value, action: &str, fields: &Fields) {
    let Some(document) = document.as_object_mut() else {
        return;
    };
    let rules = document.entry("rules").or_insert_with(|| json!([]));
    let Some(rules) = rules.as_array_mut() else {
        return;
    };
    match action.strip_prefix("remove-") {
        None => rules.push(form::rule(fields)),
        Some(index) => {
            if let Ok(index) = index.parse::<usize>()
                && index < rules.len()
            {
                rules.remove(index);
            }
        }
    }
}

/// The next rule begins with an empty form, at the same places.
fn forget_rule(fields: &mut Fields) {
    for name in ["r_name", "r_values", "r_number", "r_threshold", "r_with"] {
        fields.remove(name);
    }
}

async fn refuse(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    fields: &Fields,
    problems: Vec<db::Problem>,
) -> Result<Response> {
    let drawing = Drawing {
        problems,
        ..Drawing::default()
    };
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    render(app, page, identity, status, fields, drawing).await
}

/// The draft, ready to run; or what is wrong with it.
fn draft(
    app: &App,
    identity: &Identity,
    fields: &Fields,
) -> std::result::Result<Found, Vec<db::Problem>> {
    let document = document_of(fields)?;
    let blobs = app.catalog.blobs(identity.project.id);
    Ok(Found {
        name: get(fields, "name").to_owned(),
        number: 0,
        digest: None,
        ready: super::compile_with(&document, BTreeMap::new(), blobs.as_ref())?,
    })
}

async fn try_text(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(fields): Form<Fields>,
) -> Result<Response> {
    let found = match draft(&app, &identity, &fields) {
        Ok(found) => found,
        Err(problems) => return refuse(&app, &page, &identity, &fields, problems).await,
    };
    let point = check::point_of(get(&fields, "point")).unwrap_or(Point::Input);
    let text = get(&fields, "text").replace("\r\n", "\n");
    let system = get(&fields, "system");
    let beside = Beside {
        system: (!system.is_empty()).then(|| system.to_owned()),
        ..Beside::default()
    };
    let subject = Subject::Text(Piece::new(point, text.as_str()));
    let asker = Asker::new(&app, &identity, page.request.id);
    let checked = check::check(&found, subject, &beside, Some(&asker)).await?;
    let drawing = Drawing {
        checked: Some((text, checked)),
        ..Drawing::default()
    };
    render(&app, &page, &identity, StatusCode::OK, &fields, drawing).await
}

async fn try_calls(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(fields): Form<Fields>,
) -> Result<Response> {
    identity.require(Permission::ReadTraces)?;
    let found = match draft(&app, &identity, &fields) {
        Ok(found) => found,
        Err(problems) => return refuse(&app, &page, &identity, &fields, problems).await,
    };
    let calls = AskText::default();
    let tried = traffic::try_on(&app, identity.scope(), &found, &calls, Some(TRIED_CALLS)).await?;
    let drawing = Drawing {
        tried: Some(tried),
        ..Drawing::default()
    };
    render(&app, &page, &identity, StatusCode::OK, &fields, drawing).await
}

async fn measure_draft(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(fields): Form<Fields>,
) -> Result<Response> {
    let found = match draft(&app, &identity, &fields) {
        Ok(found) => found,
        Err(problems) => return refuse(&app, &page, &identity, &fields, problems).await,
    };
    let measured = match measured(&app, &page, &identity, &found, &fields).await {
        Ok(measured) => measured,
        Err(error)
            if error.status == StatusCode::BAD_REQUEST || error.status == StatusCode::NOT_FOUND =>
        {
            let drawing = Drawing {
                errors: json!({"m_dataset": error.message}),
                ..Drawing::default()
            };
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            return render(&app, &page, &identity, status, &fields, drawing).await;
        }
        Err(error) => return Err(error),
    };
    let drawing = Drawing {
        measured: Some(measured),
        ..Drawing::default()
    };
    render(&app, &page, &identity, StatusCode::OK, &fields, drawing).await
}

async fn measured(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    found: &Found,
    fields: &Fields,
) -> Result<Measured> {
    let (dataset, lines) = (get(fields, "m_dataset").trim(), get(fields, "m_jsonl"));
    let items = match (dataset, lines.trim()) {
        ("", "") => {
            let why = "choose a dataset, or paste labelled texts";
            return Err(AppError::invalid(why).at("m_dataset"));
        }
        ("", lines) => measure::of_lines(lines)?,
        (name, _) => {
            identity.require(Permission::ReadDatasets)?;
            measure::of_dataset(&app.datasets, identity.scope(), name, None).await?
        }
    };
    let rule = get(fields, "m_rule");
    let what = What {
        point: check::point_of(get(fields, "m_point")).unwrap_or(Point::Input),
        rule: (!rule.is_empty()).then(|| rule.to_owned()),
    };
    let asker = Asker::new(app, identity, page.request.id);
    measure::measure(found, items, what, Some(&asker)).await
}

/// Names of datasets, for readers who may see them.
async fn dataset_names(app: &App, identity: &Identity) -> Result<Vec<String>> {
    if !identity.role.allows(Permission::ReadDatasets) {
        return Ok(Vec::new());
    }
    let request = PageRequest {
        cursor: None,
        limit: DATASETS,
    };
    let kind = crate::datasets::KIND;
    let names = app
        .catalog
        .list_names(identity.scope(), kind, &NameFilter::default(), &request)
        .await?;
    let names = names.items.into_iter().map(|listed| listed.latest.name);
    Ok(names.map(|name| name.to_string()).collect())
}

async fn render(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    status: StatusCode,
    fields: &Fields,
    drawing: Drawing,
) -> Result<Response> {
    let document = document_of(fields).ok();
    let policy = document
        .as_ref()
        .and_then(|document| Policy::read(document).ok());
    let is_new = get(fields, "version").is_empty();
    let name = get(fields, "name");
    let kept = match is_new {
        true => json!(null),
        false => kept_view(app, page, identity, name).await?,
    };
    let hits = match is_new {
        true => Hits::default(),
        false => hits_of(app, identity, Some(name)).await?,
    };
    let shadows = match hits.rules.iter().any(|rule| rule.shadow) {
        true => shadow_examples(app, page, identity, name).await?,
        false => Vec::new(),
    };
    let errors = match drawing.errors {
        Value::Null => json!({}),
        errors => errors,
    };
    let options = |words: &[&str], prefix: &str| -> Vec<Value> {
        let option = |word: &&str| json!({"value": word, "label": page.t(&format!("{prefix}{}", word.replace('_', "-")))});
        words.iter().map(option).collect()
    };
    let text_fields = form::FIELDS.iter().chain(&[
        "name",
        "version",
        "document",
        "message",
        "text",
        "point",
        "system",
        "m_rule",
        "m_dataset",
        "m_jsonl",
        "m_point",
    ]);
    let values: BTreeMap<&str, &str> = text_fields.map(|name| (*name, get(fields, name))).collect();
    let ticks: BTreeMap<&str, bool> = form::TICKS
        .iter()
        .map(|name| (*name, fields.contains_key(*name)))
        .collect();
    let problems = drawing.problems.iter();
    let view = json!({
        "is_new": is_new, "values": values, "ticks": ticks, "errors": errors, "note": drawing.note.map(|key| page.t(key)),
        "problems": problems.map(|problem| json!({"path": problem.path, "message": problem.message})).collect::<Vec<_>>(),
        "rules": policy.as_ref().map(|policy| rules_view(page, policy)).unwrap_or_default(),
        "checks": options(&form::CHECKS, "guards-check-"), "actions": options(&form::ACTIONS, "guards-action-"),
        "points": options(&form::POINTS, "guards-point-"),
        "starts": LIBRARY.templates(page.lang).iter().map(|template| start(page, template)).collect::<Vec<_>>(),
        "checked": drawing.checked.as_ref().map(|(text, checked)| checked_view(page, text, checked)),
        "measured": drawing.measured.as_ref().map(|measured| curve::view(page, measured)),
        "datasets": dataset_names(app, identity).await?,
        "tried": drawing.tried.as_ref().map(|tried| tried_view(page, tried)),
        "hits": hits_view(page, &hits), "shadows": shadows, "kept": kept,
        "finds_href": format!("{}/guards/finds?policy={}", page.root(), encode(name)),
    });
    page.render_with_status(status, "guards/edit.html", view)
        .await
}

fn rules_view(page: &PageContext, policy: &Policy) -> Vec<Value> {
    let row = |rule: &guard::Rule| {
        let document = json!(rule);
        let word = |path: &str| {
            let word = document.pointer(path).and_then(Value::as_str);
            word.unwrap_or_default().replace('_', "-")
        };
        let at: Vec<String> = rule
            .at
            .iter()
            .map(|point| {
                let word = check::point_name(*point).replace('_', "-");
                page.t(&format!("guards-point-{word}"))
            })
            .collect();
        json!({
            "name": rule.name, "at": at.join(", "), "shadow": rule.shadow,
            "check": page.t(&format!("guards-check-{}", word("/check/type"))),
            "action": page.t(&format!("guards-action-{}", word("/action/type"))),
            "closed": rule.on_failure == guard::OnFailure::Closed,
        })
    };
    policy.rules.iter().map(row).collect()
}

/// What is kept under the name: versions, labels, and what may be moved.
async fn kept_view(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    name: &str,
) -> Result<Value> {
    let Ok(name) = name.parse::<db::Name>() else {
        return Ok(json!(null));
    };
    let scope = identity.scope();
    let request = PageRequest {
        cursor: None,
        limit: VERSIONS,
    };
    let versions = app
        .catalog
        .list_versions(scope, KIND, &name, &request)
        .await?
        .items;
    let pointers = app.catalog.pointers(scope, KIND, &name).await?;
    let authors = versions.iter().map(|version| version.author.as_str());
    let movers = pointers.iter().map(|pointer| pointer.moved_by.as_str());
    let people = crate::members::actor_names(&app.db, scope.project, authors.chain(movers)).await?;
    let mut names = crate::projects::environments(&app.db, scope.project).await?;
    for label in [crate::prompts::PRODUCTION]
        .into_iter()
        .chain(pointers.iter().map(|pointer| pointer.label.as_str()))
    {
        if !names.iter().any(|known| known == label) {
            names.push(label.to_owned());
        }
    }
    let href = edit_href(page, name.as_str());
    let labels_of = |number: i64| -> Vec<&str> {
        let here = pointers.iter().filter(|pointer| pointer.number == number);
        here.map(|pointer| pointer.label.as_str()).collect()
    };
    let version_row = |version: &db::Version| {
        json!({
            "version": version.number, "href": format!("{href}&version={}", version.number),
            "at": version.created_at, "by": people.get(&version.author), "message": version.message,
            "labels": labels_of(version.number),
        })
    };
    let label_row = |pointer: &db::Pointer| {
        json!({
            "name": pointer.label, "version": pointer.number, "at": pointer.moved_at,
            "by": people.get(&pointer.moved_by), "href": format!("{href}&version={}", pointer.number),
        })
    };
    Ok(json!({
        "versions": versions.iter().map(version_row).collect::<Vec<_>>(),
        "labels": pointers.iter().map(label_row).collect::<Vec<_>>(), "label_names": names,
    }))
}

/// A text with its finds marked, and what became of it.
fn checked_view(page: &PageContext, text: &str, checked: &Checked) -> Value {
    let outcome = |word: &str| page.t(&format!("guards-outcome-{}", word.replace('_', "-")));
    let finding = |finding: &FindingJson| {
        json!({
            "rule": finding.rule, "detector": finding.detector, "tier": page.t(&format!("guards-tier-{}", finding.tier)),
            "score": finding.score, "start": finding.start_char, "end": finding.end_char, "reason": finding.reason,
            "reading": finding.reading, "outcome": outcome(&finding.outcome), "mark": marks::style(&finding.outcome),
        })
    };
    json!({
        "verdict": checked.decision.name(), "verdict_text": page.t(&format!("guards-verdict-{}", checked.decision.name())),
        "ended": checked.ended.as_ref().map(|ended| json!({"rule": ended.rule, "reason": ended.reason, "rewrite": ended.rewrite})),
        "segments": segments(page, text, &checked.findings), "text": checked.text, "is_edited": checked.text.as_deref() != Some(text),
        "findings": checked.findings.iter().map(finding).collect::<Vec<_>>(),
        "rules_us": checked.timing_us.rules, "linear_us": checked.timing_us.linear,
    })
}

/// The text in pieces, those that were found with their marks.
fn segments(page: &PageContext, text: &str, findings: &[FindingJson]) -> Vec<Segment> {
    let numbered = findings.iter().enumerate();
    let real = numbered.filter(|(_, finding)| finding.end > finding.start);
    let marks: Vec<Mark> = real
        .map(|(at, finding)| {
            let outcome = page.t(&format!(
                "guards-outcome-{}",
                finding.outcome.replace('_', "-")
            ));
            let args = [
                ("outcome", outcome.as_str()),
                ("rule", finding.rule.as_str()),
            ];
            Mark {
                range: finding.start..finding.end,
                outcome: finding.outcome.clone(),
                title: page.t_with("guards-mark-title", &args),
                number: Some(at + 1),
            }
        })
        .collect();
    marks::segments(text, &marks)
}

fn tried_view(page: &PageContext, tried: &Tried) -> Value {
    let root = page.root();
    let example = |example: &traffic::Example| {
        json!({
            "href": format!("{root}/traces/{}", example.trace_id), "at": example.at, "before": example.before,
            "found": example.found, "after": example.after, "mark": marks::style(&example.finding.outcome),
            "reason": example.finding.reason, "score": example.finding.score,
        })
    };
    let rule = |rule: &traffic::RuleTried| {
        json!({
            "rule": rule.rule, "shadow": rule.shadow, "findings": rule.findings, "calls": rule.calls,
            "examples": rule.examples.iter().map(example).collect::<Vec<_>>(),
        })
    };
    let decision = |word: &str| tried.decisions.get(word).copied().unwrap_or_default();
    json!({
        "calls": tried.calls, "texts": tried.texts, "p50_us": tried.p50_us, "p99_us": tried.p99_us,
        "pass": decision("pass"), "edited": decision("edited"), "blocked": decision("blocked") + decision("rewrite"),
        "rules": tried.rules.iter().map(rule).collect::<Vec<_>>(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LabelForm {
    name: String,
    label: String,
    version: i64,
    #[serde(default)]
    reason: String,
}

async fn move_label(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<LabelForm>,
) -> Result<Response> {
    let name = super::parse_name(&form.name)?;
    let label = crate::catalog::parse_label(form.label.trim())?;
    let to = redirect(edit_href(&page, name.as_str()));
    let request = db::MoveRequest {
        kind: KIND,
        name: &name,
        label: &label,
        to: form.version,
        expected: None,
        reason: form.reason.trim(),
    };
    let number = form.version.to_string();
    let args = [("label", label.as_str()), ("n", number.as_str())];
    match crate::promotion::request_move(&app, identity.scope(), request).await {
        Ok((_, None)) => Ok(to
            .ok(page.t_with("prompts-moved-flash", &args))
            .into_response()),
        Ok((_, Some(_))) => Ok(to
            .ok(page.t_with("prompts-proposed-flash", &args))
            .into_response()),
        Err(error) if error.status == StatusCode::CONFLICT => {
            Ok(to.err(error.message).into_response())
        }
        Err(error) => Err(error),
    }
}
