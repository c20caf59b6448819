//! The pages of those who run queues: the list, one queue with what came of it, its
//! document as a form, filling it, settling items, gold, and guests' links.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use db::{NewVersion, Problem};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::pages::{countable, encode, question_fields};
use super::{
    Desk, FillRequest, GoldRequest, ItemDetail, ItemState, NewGuest, QuestionKind, QueueDocument,
    QueueShown, Values, find_queue, words,
};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::evaluators::text_of;
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::ui::{PageContext, redirect};

/// Questions that the form has places for.
const QUESTIONS: usize = 6;
/// Items of a page.
const ITEMS: usize = 25;
/// Characters of a text in a row.
const PREVIEW_CHARS: usize = 140;
/// Names that a choice offers.
const OFFERED: u32 = 200;

/// Set where saving the form would lose what it does not show.
const ONLY_JSON: &str = "only_json";

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadReviews);
    let manage = Access::Needs(Permission::ManageReviews);
    vec![
        Route::get("/{project}/review-queues", read, list),
        Route::get("/{project}/review-queues/show", read, show),
        Route::get("/{project}/review-queues/item", read, item),
        Route::post("/{project}/review-queues/item", manage, settle).body_limit(2 << 20),
        Route::get("/{project}/review-queues/edit", manage, edit),
        Route::post("/{project}/review-queues/edit", manage, save),
        Route::get("/{project}/review-queues/fill", manage, fill),
        Route::post("/{project}/review-queues/fill", manage, fill_form),
        Route::post("/{project}/review-queues/gold", manage, gold),
        Route::post("/{project}/review-queues/guests", manage, make_guest),
        Route::post(
            "/{project}/review-queues/guests/revoke",
            manage,
            revoke_guest,
        ),
    ]
}

fn show_href(page: &PageContext, name: &str) -> String {
    format!("{}/review-queues/show?name={}", page.root(), encode(name))
}

fn item_href(page: &PageContext, id: &str) -> String {
    format!("{}/review-queues/item?id={}", page.root(), encode(id))
}

async fn list(State(app): State<App>, page: PageContext, identity: Identity) -> Result<Response> {
    let rows = super::queues(Desk::of(&app), identity.scope()).await?;
    let row = |row: &super::QueueRow| {
        let counts = &row.counts;
        json!({
            "name": row.name, "href": show_href(&page, &row.name), "description": row.description,
            "version": row.version, "questions": row.questions, "items": counts.items, "open": counts.open,
            "reserved": counts.reserved, "done": counts.done, "adjudicate": counts.adjudicate, "closed": counts.closed,
        })
    };
    let view = json!({
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
        "inbox_href": identity.role.allows(Permission::Label).then(|| format!("{}/review", page.root())),
    });
    page.render("review/list.html", view).await
}

#[derive(Deserialize)]
struct ShowQuery {
    name: String,
    state: Option<String>,
    cursor: Option<String>,
}

async fn show(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ShowQuery>,
) -> Result<Response> {
    let (desk, scope) = (Desk::of(&app), identity.scope());
    let shown = super::queue(desk, scope, &query.name).await?;
    let state = query.state.as_deref().and_then(ItemState::parse);
    let items = super::items(desk, scope, &query.name, state, query.cursor, ITEMS).await?;
    let guests = super::guests(desk, scope, &query.name).await?;
    let actors: BTreeSet<String> = shown.fills.iter().map(|fill| fill.by.clone()).collect();
    let names = actors.iter().map(String::as_str);
    let people = crate::members::actor_names(&app.db, scope.project, names).await?;
    let now = app.clock.now_us();
    let here = show_href(&page, &query.name);
    let word = state.map(ItemState::name).unwrap_or_default();
    let mut view = queue_view(&page, &shown);
    view["can_label"] = json!(identity.role.allows(Permission::Label));
    view["fills"] = json!(
        shown
            .fills
            .iter()
            .map(|fill| json!({
                "by": people.get(&fill.by), "at": fill.at, "added": fill.added, "drawn": fill.drawn,
                "population": fill.population, "what": fill_words(&page, &fill.request),
            }))
            .collect::<Vec<_>>()
    );
    view["guests"] = json!(
        guests
            .iter()
            .map(|guest| json!({
                "id": guest.id, "name": guest.name, "created_at": guest.created_at, "expires_at": guest.expires_at,
                "good": guest.is_good(now), "revoked": guest.revoked_at.is_some(),
            }))
            .collect::<Vec<_>>()
    );
    view["state"] = json!(word);
    view["states"] = json!(states(&here, &shown, word));
    view["items"] = json!(
        items
            .items
            .iter()
            .map(|item| item_row(&page, item))
            .collect::<Vec<_>>()
    );
    let more = |cursor: &String| {
        let state = match word {
            "" => String::new(),
            word => format!("&state={word}"),
        };
        format!("{here}{state}&cursor={}#items", encode(cursor))
    };
    view["pager"] = json!({"prev_href": null, "next_href": items.next_cursor.as_ref().map(more)});
    page.render("review/show.html", view).await
}

fn states(here: &str, shown: &QueueShown, word: &str) -> Vec<Value> {
    let counts = &shown.counts;
    [
        ("", counts.items),
        ("open", counts.open),
        ("adjudicate", counts.adjudicate),
        ("done", counts.done),
        ("closed", counts.closed),
    ]
    .iter()
    .map(|(state, count)| {
        let href = match *state {
            "" => format!("{here}#items"),
            state => format!("{here}&state={state}#items"),
        };
        json!({"key": state, "count": count, "href": href, "active": *state == word})
    })
    .collect()
}

/// What a fill asked for, in a few words.
fn fill_words(page: &PageContext, request: &Value) -> String {
    let pick = request["pick"].as_str().unwrap_or("all");
    let pick = page.t(&format!("review-pick-{pick}"));
    let source = &request["source"];
    let source = match source.as_object().and_then(|source| source.iter().next()) {
        Some((kind, inner)) => {
            let name = inner["name"].as_str().or_else(|| inner["filter"].as_str());
            let kind = page.t(&format!("review-source-{kind}"));
            match name {
                Some(name) if !name.is_empty() => format!("{kind} {name}"),
                _ => kind,
            }
        }
        None => String::new(),
    };
    format!("{source} · {pick}")
}

fn two(value: Option<f64>) -> Option<String> {
    value.map(|value| format!("{value:.2}").replace('-', "−"))
}

fn share(value: Option<f64>) -> Option<String> {
    value.map(|value| format!("{:.0} %", value * 100.0))
}

fn queue_view(page: &PageContext, shown: &QueueShown) -> Value {
    let root = page.root();
    let name = encode(&shown.name);
    let document = &shown.document;
    let export = |format: &str| {
        let href = format!("/api/v1/review/queues/{name}/export?format={format}");
        json!({"format": format, "href": href})
    };
    let exports = ["csv", "jsonl"].map(export);
    json!({
        "name": shown.name, "version": shown.version, "digest": shown.digest.trim_start_matches("sha256:").chars().take(12).collect::<String>(),
        "description": document.description, "raters": document.raters, "overlap": share(Some(document.overlap)),
        "blind": document.blind, "mask": document.mask, "into": document.into, "counts": shown.counts,
        "done_all": shown.counts.done + shown.counts.closed,
        "questions": document.questions.iter().map(|question| json!({"name": question.name, "title": question.title(), "kind": question.kind.name()})).collect::<Vec<_>>(),
        "edit_href": format!("{root}/review-queues/edit?name={name}"), "fill_href": format!("{root}/review-queues/fill?name={name}"),
        "label_href": format!("{root}/review/{name}"),
        "exports": exports,
        "people": shown.per_rater.iter().map(|row| json!({
            "who": row.who, "labelled": row.labelled, "skipped": row.skipped,
            "median": row.median_s.map(seconds), "last_at": row.last_at, "same": share(row.same), "kappa": two(row.kappa), "right": share(row.right),
        })).collect::<Vec<_>>(),
        "agreement": shown.agreement.iter().map(|row| json!({
            "question": row.question, "kind": row.kind.name(), "n": row.n, "same": share(row.same), "kappa": two(row.kappa),
            "weighted_kappa": two(row.weighted_kappa), "alpha": two(row.alpha),
        })).collect::<Vec<_>>(),
        "agreed": shown.agreement.iter().any(|row| row.n > 0),
    })
}

#[expect(clippy::cast_possible_truncation, reason = "seconds of a review")]
fn seconds(seconds: f64) -> i64 {
    (seconds * 1e6) as i64
}

fn preview(text: &str) -> String {
    let short: String = text.chars().take(PREVIEW_CHARS).collect();
    match text.chars().count() > PREVIEW_CHARS {
        true => format!("{short}…"),
        false => short,
    }
}

fn item_row(page: &PageContext, item: &ItemDetail) -> Value {
    let answer = item
        .snapshot
        .output
        .as_ref()
        .or(item.snapshot.answers.first());
    let labels = item
        .labels
        .iter()
        .filter(|label| label.current && label.kind == "label");
    json!({
        "href": item_href(page, &item.id), "state": item.state.name(), "kind": item.kind,
        "input": preview(&words(&item.snapshot.input)), "output": answer.map(|answer| preview(&words(answer))),
        "labels": labels.count(), "wanted": item.wanted, "drawn": item.drawn, "differs": item.differs,
    })
}

// -- one item --------------------------------------------------------------------------------

#[derive(Deserialize)]
struct ItemQuery {
    id: String,
}

async fn item(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ItemQuery>,
) -> Result<Response> {
    let (desk, scope) = (Desk::of(&app), identity.scope());
    let found = super::item(desk, scope, &query.id).await?;
    let queue = find_queue(desk, scope, &found.queue).await?;
    let view = item_view(&page, &queue.document, &found, &BTreeMap::new(), None);
    page.render("review/adjudicate.html", view).await
}

/// What a rater's answer reads like.
fn answer_text(kind: QuestionKind, value: &Value, text: &str) -> Vec<String> {
    match (kind, value) {
        (QuestionKind::Spans, Value::Array(spans)) => spans
            .iter()
            .map(|span| {
                let place = |field: &str| {
                    let at = span[field].as_u64().unwrap_or(0);
                    usize::try_from(at).unwrap_or(0)
                };
                let (start, end) = (place("start"), place("end"));
                let part: String = text
                    .chars()
                    .skip(start)
                    .take(end.saturating_sub(start))
                    .collect();
                format!("{}: {part}", text_of(&span["label"]))
            })
            .collect(),
        (_, Value::Array(items)) => items.iter().map(text_of).collect(),
        (_, Value::String(text)) => vec![text.clone()],
        (_, other) => vec![text_of(other)],
    }
}

fn item_view(
    page: &PageContext,
    document: &QueueDocument,
    found: &ItemDetail,
    errors: &BTreeMap<String, String>,
    typed: Option<&Values>,
) -> Value {
    let snapshot = &found.snapshot;
    let who = |rater: &str| {
        found
            .who
            .get(rater)
            .cloned()
            .unwrap_or_else(|| rater.to_owned())
    };
    let labels: Vec<_> = found
        .labels
        .iter()
        .filter(|label| label.current && label.kind != "skip")
        .collect();
    let raters: Vec<Value> = labels
        .iter()
        .map(|label| json!({"who": who(&label.rater), "settled": label.kind == "adjudication", "at": label.at, "took_us": label.took_us, "comment": label.comment}))
        .collect();
    // Whoever settles begins with the answers that count already, or with those that all gave.
    let begin = typed.unwrap_or(&found.resolved);
    let questions: Vec<Value> = document
        .questions
        .iter()
        .enumerate()
        .filter(|(_, question)| question.applies_to(snapshot))
        .map(|(index, question)| {
            let text = snapshot.text(question.target());
            let cells: Vec<Value> = labels
                .iter()
                .map(|label| match label.values.get(&question.name) {
                    Some(value) => json!({"lines": answer_text(question.kind, value, &text), "use": value.to_string()}),
                    None => json!({"lines": null, "use": null}),
                })
                .collect();
            let mut view = question_fields(index, question);
            let value = begin.get(&question.name);
            let chosen: Vec<String> = match value {
                Some(Value::Array(items)) => items.iter().map(text_of).collect(),
                Some(value) => vec![text_of(value)],
                None => Vec::new(),
            };
            view["chosen"] = json!(chosen);
            view["text"] = json!(value.map(|value| field_text(question.kind, value)).unwrap_or_default());
            view["json"] = json!(matches!(question.kind, QuestionKind::Correction | QuestionKind::Expected)
                && value.is_some_and(|value| !value.is_string()));
            view["error"] = json!(errors.get(&question.name));
            json!({"field": view, "cells": cells, "differs": found.differs.contains(&question.name)})
        })
        .collect();
    let facts: Vec<Value> = found
        .facts
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| json!({"name": name, "value": text_of(value)}))
        .collect();
    let trace = found.facts["trace"]
        .as_str()
        .or_else(|| found.facts["source"]["trace"].as_str());
    json!({
        "id": found.id, "queue": found.queue, "queue_href": show_href(page, &found.queue), "state": found.state.name(),
        "kind": found.kind, "wanted": found.wanted, "drawn": found.drawn,
        "input": countable(&words(&snapshot.input)), "output": snapshot.output.as_ref().map(|output| countable(&words(output))),
        "answers": snapshot.answers.iter().map(|answer| countable(&words(answer))).collect::<Vec<_>>(),
        "expected": snapshot.expected.as_ref().map(words), "context": snapshot.context,
        "facts": facts, "trace_href": trace.map(|trace| format!("{}/traces/{trace}", page.root())),
        "raters": raters, "questions": questions, "can_settle": found.state != ItemState::Open,
        "form_error": errors.get(""),
    })
}

fn field_text(kind: QuestionKind, value: &Value) -> String {
    match (kind, value) {
        (QuestionKind::Spans, value) => super::pages::spans_text(value),
        (_, Value::String(text)) => text.clone(),
        (_, other) => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}

async fn settle(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response> {
    let (desk, scope) = (Desk::of(&app), identity.scope());
    let field = |name: &str| {
        let found = fields.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    };
    let id = field("id");
    let reason = field("comment");
    let found = super::item(desk, scope, id).await?;
    let done = match field("action") {
        "settle" => {
            let queue = find_queue(desk, scope, &found.queue).await?;
            let asks: Vec<String> = queue
                .document
                .questions
                .iter()
                .filter(|question| question.applies_to(&found.snapshot))
                .map(|question| question.name.clone())
                .collect();
            let (values, mut errors) = super::pages::answers_of(&fields, &queue, &asks);
            if let Err(problems) = super::check_values(&queue.document, &found.snapshot, &values) {
                for problem in problems {
                    let question = super::pages::question_at(&problem.path).unwrap_or_default();
                    errors.entry(question).or_insert(problem.message);
                }
            }
            if !errors.is_empty() {
                let view = item_view(&page, &queue.document, &found, &errors, Some(&values));
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                return page
                    .render_with_status(status, "review/adjudicate.html", view)
                    .await;
            }
            super::adjudicate(&app, scope, id, &values, reason).await
        }
        "close" => super::close(desk, scope, id, reason).await,
        "reopen" => super::reopen(&app, scope, id, reason).await,
        other => Err(AppError::invalid(format!("there is no action {other:?}")).at("action")),
    };
    match done {
        Ok(state) => {
            let text = page.t(&format!("review-now-{}", state.name()));
            let next = next_to_settle(desk, &identity, &found, field("action")).await?;
            let to = next.unwrap_or_else(|| found.id.clone());
            Ok(redirect(item_href(&page, &to)).ok(text).into_response())
        }
        Err(error) if error.status == StatusCode::CONFLICT => {
            let to = redirect(item_href(&page, id));
            Ok(to.err(error.message.clone()).into_response())
        }
        Err(error) => Err(error),
    }
}

/// After one item is settled, the next that waits for it.
async fn next_to_settle(
    desk: Desk<'_>,
    identity: &Identity,
    found: &ItemDetail,
    action: &str,
) -> Result<Option<String>> {
    if action != "settle" {
        return Ok(None);
    }
    let waiting = Some(ItemState::Adjudicate);
    let page = super::items(desk, identity.scope(), &found.queue, waiting, None, 1).await?;
    Ok(page.items.into_iter().next().map(|item| item.id))
}

// -- the document as a form ------------------------------------------------------------------

#[derive(Deserialize)]
struct EditQuery {
    name: Option<String>,
}

type Fields = BTreeMap<String, String>;

async fn edit(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<EditQuery>,
) -> Result<Response> {
    let values = match &query.name {
        Some(name) => {
            let queue = find_queue(Desk::of(&app), identity.scope(), name).await?;
            let mut values = fields_of(&queue.document);
            values.insert("name".to_owned(), queue.name);
            values.insert("version".to_owned(), queue.version.to_string());
            values
        }
        None => fields_of(&QueueDocument {
            description: String::new(),
            guidelines: String::new(),
            questions: Vec::new(),
            raters: 1,
            overlap: 1.0,
            blind: true,
            mask: false,
            reserve_s: 900,
            adjudicate: true,
            into: None,
            gold: None,
        }),
    };
    render_edit(
        &app,
        &page,
        &identity,
        StatusCode::OK,
        &values,
        json!({}),
        &[],
    )
    .await
}

/// The fields that a document fills; with [`ONLY_JSON`] where they do not tell all of it.
fn fields_of(document: &QueueDocument) -> Fields {
    let mut fields = Fields::new();
    let mut put = |name: &str, value: String| {
        fields.insert(name.to_owned(), value);
    };
    put("description", document.description.clone());
    put("guidelines", document.guidelines.clone());
    put("raters", document.raters.to_string());
    put("overlap", (document.overlap * 100.0).to_string());
    put(
        "reserve_min",
        (f64::from(document.reserve_s) / 60.0).to_string(),
    );
    put(
        "into",
        document
            .dataset()
            .map(|name| name.to_string())
            .unwrap_or_default(),
    );
    for (name, is_on) in [
        ("blind", document.blind),
        ("mask", document.mask),
        ("adjudicate", document.adjudicate),
    ] {
        if is_on {
            put(name, "on".to_owned());
        }
    }
    for (index, question) in document.questions.iter().enumerate().take(QUESTIONS) {
        let at = |field: &str| format!("{field}{}", index + 1);
        put(&at("question"), question.name.clone());
        put(&at("kind"), question.kind.name().to_owned());
        put(&at("title"), question.label.clone());
        put(&at("help"), question.help.clone());
        put(&at("options"), question.options.join("\n"));
        if question.required {
            put(&at("required"), "on".to_owned());
        }
        if let Some(scale) = &question.scale {
            put(&at("min"), scale.min.to_string());
            put(&at("max"), scale.max.to_string());
        }
        if let Some(super::Target::Input) = question.target {
            put(&at("target"), "input".to_owned());
        }
    }
    put(
        "document",
        serde_json::to_string_pretty(&document.to_value()).unwrap_or_default(),
    );
    let told = document_of(&fields).map(|told| QueueDocument::parse(&told));
    if told != Ok(Ok(document.clone())) && !document.questions.is_empty() {
        fields.insert(ONLY_JSON.to_owned(), "on".to_owned());
    }
    fields
}

async fn render_edit(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    status: StatusCode,
    values: &Fields,
    errors: Value,
    problems: &[Problem],
) -> Result<Response> {
    let datasets = names(app, identity, crate::datasets::KIND).await?;
    let is_new = values.get("version").is_none_or(String::is_empty);
    let kinds = [
        "",
        "choice",
        "multi",
        "rating",
        "text",
        "spans",
        "pairwise",
        "expected",
        "correction",
    ];
    let kinds = kinds.map(|kind| match kind {
        "" => json!({"value": "", "label": "–"}),
        kind => json!({"value": kind, "label": page.t(&format!("review-kind-{kind}"))}),
    });
    let mut all: Vec<String> = [
        "name",
        "version",
        "description",
        "guidelines",
        "raters",
        "overlap",
        "reserve_min",
        "into",
        "blind",
        "mask",
        "adjudicate",
        "document",
    ]
    .map(str::to_owned)
    .to_vec();
    for index in 1..=QUESTIONS {
        let fields = [
            "question", "kind", "title", "help", "options", "required", "min", "max", "target",
        ];
        all.extend(fields.map(|field| format!("{field}{index}")));
    }
    let every: Fields = all
        .into_iter()
        .map(|name| {
            let value = values.get(&name).cloned().unwrap_or_default();
            (name, value)
        })
        .collect();
    let shown = (1..=QUESTIONS)
        .rev()
        .find(|index| !every[&format!("question{index}")].is_empty())
        .unwrap_or(0)
        .max(1);
    let view = json!({
        "values": every, "errors": errors, "is_new": is_new, "kinds": kinds,
        "numbers": (1..=QUESTIONS).collect::<Vec<_>>(), "filled": shown,
        "datasets": datasets, "back_href": match values.get("name").filter(|_| !is_new) {
            Some(name) => show_href(page, name),
            None => format!("{}/review-queues", page.root()),
        },
        "problems": problems.iter().map(|problem| json!({"path": problem.path, "message": problem.message})).collect::<Vec<_>>(),
    });
    page.render_with_status(status, "review/edit.html", view)
        .await
}

/// Names of documents of a kind, for a choice.
async fn names(app: &App, identity: &Identity, kind: &str) -> Result<Vec<String>> {
    let page = db::PageRequest {
        cursor: None,
        limit: OFFERED,
    };
    let filter = db::NameFilter::default();
    let found = app
        .catalog
        .list_names(identity.scope(), kind, &filter, &page)
        .await?;
    let names = found.items.into_iter();
    Ok(names.map(|one| one.latest.name.to_string()).collect())
}

async fn save(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<Fields>,
) -> Result<Response> {
    identity.require(Permission::WriteCatalog)?;
    let again = |errors: Value, problems: Vec<Problem>| {
        let (app, page, identity, form) =
            (app.clone(), page.clone(), identity.clone(), form.clone());
        async move {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            render_edit(&app, &page, &identity, status, &form, errors, &problems).await
        }
    };
    let content = match document_of(&form) {
        Ok(content) => content,
        Err(message) => return again(json!({"form": message}), Vec::new()).await,
    };
    if let Err(problems) = QueueDocument::parse(&content) {
        return again(json!({}), problems).await;
    }
    let name = form.get("name").map(|name| name.trim()).unwrap_or_default();
    let parsed: std::result::Result<db::Name, Problem> = name.parse();
    let name = match parsed {
        Ok(name) => name,
        Err(problem) => return again(json!({"name": problem.message}), Vec::new()).await,
    };
    let new = NewVersion {
        kind: super::KIND,
        name: &name,
        content: &content,
        message: "",
    };
    let saved = app.catalog.save_version(identity.scope(), new).await?;
    let number = saved.version.number.to_string();
    let text = page.t_with("review-saved", &[("version", &number)]);
    let to = redirect(show_href(&page, name.as_str()));
    Ok(to.ok(text).into_response())
}

/// The document that the form says: its JSON where that was sent, else its fields.
fn document_of(form: &Fields) -> std::result::Result<Value, String> {
    let get = |name: &str| {
        form.get(name)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
    };
    if get("action") == Some("json") {
        let text = get("document").unwrap_or_default();
        return serde_json::from_str(text)
            .map_err(|error| format!("the JSON cannot be read: {error}"));
    }
    let number = |name: &str| -> std::result::Result<Option<f64>, String> {
        let Some(text) = get(name) else {
            return Ok(None);
        };
        let parsed: Option<f64> = text.parse().ok().filter(|number: &f64| number.is_finite());
        parsed
            .map(Some)
            .ok_or_else(|| format!("{text:?} is no number"))
    };
    let mut document = Map::new();
    for field in ["description", "guidelines"] {
        if let Some(text) = get(field) {
            document.insert(field.to_owned(), json!(text.replace("\r\n", "\n")));
        }
    }
    if let Some(raters) = get("raters") {
        let raters: u32 = raters
            .parse()
            .map_err(|_| format!("{raters:?} is no whole number"))?;
        document.insert("raters".to_owned(), json!(raters));
    }
    if let Some(percent) = number("overlap")? {
        document.insert("overlap".to_owned(), json!(percent / 100.0));
    }
    if let Some(minutes) = number("reserve_min")? {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to what a u32 holds"
        )]
        let seconds = (minutes * 60.0).round().clamp(0.0, 1e9) as u32;
        document.insert("reserve_s".to_owned(), json!(seconds));
    }
    for flag in ["blind", "mask"] {
        document.insert(flag.to_owned(), json!(get(flag).is_some()));
    }
    document.insert("adjudicate".to_owned(), json!(get("adjudicate").is_some()));
    if let Some(into) = get("into") {
        document.insert("into".to_owned(), json!(format!("dataset:{into}")));
    }
    let mut questions = Vec::new();
    for index in 1..=QUESTIONS {
        let of = |field: &str| get(&format!("{field}{index}"));
        let (Some(name), kind) = (of("question"), of("kind")) else {
            continue;
        };
        let kind = kind.ok_or_else(|| format!("the question {name:?} needs a type"))?;
        let mut question =
            json!({"name": name, "type": kind, "required": of("required").is_some()});
        for (field, key) in [("title", "label"), ("help", "help")] {
            if let Some(text) = of(field) {
                question[key] = json!(text);
            }
        }
        if matches!(kind, "choice" | "multi" | "spans") {
            let options = of("options").unwrap_or_default().lines();
            let options: Vec<&str> = options
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .collect();
            question["options"] = json!(options);
        }
        let (min, max) = (
            number(&format!("min{index}"))?,
            number(&format!("max{index}"))?,
        );
        if let (Some(min), Some(max), "rating") = (min, max, kind) {
            question["scale"] = json!({"min": min, "max": max});
        }
        if let ("spans", Some(target)) = (kind, of("target")) {
            question["target"] = json!(target);
        }
        questions.push(question);
    }
    document.insert("questions".to_owned(), Value::Array(questions));
    Ok(Value::Object(document))
}

// -- filling ---------------------------------------------------------------------------------

async fn fill(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<Fields>,
) -> Result<Response> {
    render_fill(&app, &page, &identity, StatusCode::OK, &query, None).await
}

async fn render_fill(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    status: StatusCode,
    typed: &Fields,
    error: Option<&AppError>,
) -> Result<Response> {
    let name = typed.get("name").cloned().unwrap_or_default();
    let queue = find_queue(Desk::of(app), identity.scope(), &name).await?;
    let mut values: Fields = [
        "name",
        "source",
        "filter",
        "q",
        "from",
        "to",
        "dataset",
        "split",
        "unlabelled",
        "evaluation",
        "candidate",
        "against",
        "pick",
        "score",
        "threshold",
        "highest",
        "limit",
        "random",
        "seed",
        "traces",
    ]
    .map(|field| (field.to_owned(), String::new()))
    .into();
    for (field, default) in [
        ("source", "traces"),
        ("pick", "all"),
        ("limit", "100"),
        ("random", "0"),
        ("from", "-7d"),
    ] {
        values.insert(field.to_owned(), default.to_owned());
    }
    values.extend(typed.clone());
    let desk = crate::evaluations::Desk::of(app);
    let evaluations = crate::evaluations::list(desk, identity.scope(), None, None, 50).await?;
    let none = std::iter::once(json!({"value": "", "label": "–"}));
    let evaluations: Vec<Value> = none
        .chain(evaluations.iter().map(|one| {
            let suite = match one.suite.as_str() {
                "" => one.pinned.dataset.name.as_str(),
                suite => suite,
            };
            let candidates = one.document.candidates.iter().map(|one| one.name.as_str());
            let candidates: Vec<&str> = candidates.collect();
            json!({"value": one.id, "label": format!("{suite} · {}", candidates.join(", "))})
        }))
        .collect();
    let choices = crate::calibration::choices(app, identity.scope(), None).await?;
    let pairs = queue
        .document
        .questions
        .iter()
        .any(|question| question.kind == QuestionKind::Pairwise);
    let options = |prefix: &str, words: &[&str]| -> Vec<Value> {
        let option =
            |word: &&str| json!({"value": word, "label": page.t(&format!("{prefix}{word}"))});
        words.iter().map(option).collect()
    };
    let view = json!({
        "name": queue.name, "back_href": show_href(page, &queue.name), "values": values, "pairs": pairs,
        "error": error.map(|error| match &error.at {
            Some(at) => format!("{at}: {}", error.message),
            None => error.message.clone(),
        }),
        "sources": options("review-source-", &["traces", "dataset", "evaluation"]),
        "picks": options("review-pick-", &["all", "random", "worst", "uncertain", "disagreement", "bad_feedback"]),
        "datasets": names(app, identity, crate::datasets::KIND).await?, "evaluations": evaluations,
        "scores": choices.evaluators.into_iter().chain(choices.against.iter().filter_map(|one| one.strip_prefix("score:")).map(str::to_owned)).collect::<BTreeSet<_>>(),
    });
    page.render_with_status(status, "review/fill.html", view)
        .await
}

async fn fill_form(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<Fields>,
) -> Result<Response> {
    let name = form.get("name").cloned().unwrap_or_default();
    let done = async {
        let request = fill_request(&form)?;
        super::api::may_read(&identity, &request)?;
        super::fill(&app, identity.scope(), &name, &request).await
    };
    match done.await {
        Ok(filled) => {
            let counts =
                [filled.added, filled.known, filled.left_out].map(|count| count.to_string());
            let text = page.t_with(
                "review-filled",
                &[
                    ("added", &counts[0]),
                    ("known", &counts[1]),
                    ("left", &counts[2]),
                ],
            );
            Ok(redirect(show_href(&page, &name)).ok(text).into_response())
        }
        Err(error) if error.status.is_client_error() && error.status != StatusCode::NOT_FOUND => {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            render_fill(&app, &page, &identity, status, &form, Some(&error)).await
        }
        Err(error) => Err(error),
    }
}

fn fill_request(form: &Fields) -> Result<FillRequest> {
    let get = |name: &str| {
        form.get(name)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
    };
    let mut object = Map::new();
    let mut put = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            object.insert(name.to_owned(), json!(value));
        }
    };
    let source = match get("source").unwrap_or("traces") {
        "dataset" => {
            put("name", get("dataset"));
            put("split", get("split"));
            if get("unlabelled").is_some() {
                object.insert("unlabelled".to_owned(), json!(true));
            }
            json!({"dataset": object})
        }
        "evaluation" => {
            put("id", get("evaluation"));
            put("candidate", get("candidate"));
            put("against", get("against"));
            json!({"evaluation": object})
        }
        _ => match get("traces") {
            Some(ids) => {
                let ids = ids.split_whitespace();
                json!({"picked": ids.map(|trace| json!({"trace": trace})).collect::<Vec<_>>()})
            }
            None => {
                for field in ["from", "to", "filter", "q"] {
                    put(field, get(field));
                }
                json!({"traces": object})
            }
        },
    };
    let mut request = json!({"source": source, "pick": get("pick").unwrap_or("all")});
    if let Some(score) = get("score") {
        request["score"] = json!(score);
    }
    request["highest"] = json!(get("highest").is_some());
    for field in ["threshold", "limit", "random", "seed"] {
        if let Some(text) = get(field) {
            let number: Option<Value> = serde_json::from_str(text).ok().filter(Value::is_number);
            let wrong = || AppError::invalid(format!("{text:?} is no number")).at(field.to_owned());
            request[field] = number.ok_or_else(wrong)?;
        }
    }
    FillRequest::deserialize(&request).map_err(|error| AppError::invalid(error.to_string()))
}

// -- gold and guests -------------------------------------------------------------------------

async fn gold(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<Fields>,
) -> Result<Response> {
    identity.require(Permission::WriteDatasets)?;
    let name = form.get("name").cloned().unwrap_or_default();
    let get = |field: &str| {
        let value = form.get(field).map(|value| value.trim().to_owned());
        value.filter(|value| !value.is_empty())
    };
    let request = GoldRequest {
        dataset: get("dataset"),
        split: get("split"),
        drawn_only: get("drawn_only").is_some(),
    };
    let to = redirect(show_href(&page, &name));
    match super::gold(&app, identity.scope(), &name, &request).await {
        Ok(made) => {
            let (taken, open) = (made.taken.to_string(), made.unsettled.to_string());
            let text = page.t_with("review-gold-made", &[("taken", &taken), ("open", &open)]);
            Ok(to.ok(text).into_response())
        }
        Err(error) if error.status.is_client_error() && error.status != StatusCode::NOT_FOUND => {
            Ok(to.err(error.message.clone()).into_response())
        }
        Err(error) => Err(error),
    }
}

async fn make_guest(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<Fields>,
) -> Result<Response> {
    let queue = form.get("name").cloned().unwrap_or_default();
    let days = form.get("days").and_then(|days| days.trim().parse().ok());
    let new = NewGuest {
        name: form.get("guest").cloned().unwrap_or_default(),
        days,
        expires_at: None,
    };
    match super::make_guest(&app, identity.scope(), &queue, &new).await {
        Ok(made) => {
            let view = json!({
                "queue": queue, "back_href": show_href(&page, &queue), "name": made.guest.name,
                "link": made.link, "expires_at": made.guest.expires_at,
            });
            let mut response = page.render("review/guest.html", view).await?;
            // Shown once, and nowhere kept.
            let headers = response.headers_mut();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            Ok(response)
        }
        Err(error) if error.status == StatusCode::BAD_REQUEST => {
            let to = redirect(show_href(&page, &queue));
            Ok(to.err(error.message.clone()).into_response())
        }
        Err(error) => Err(error),
    }
}

async fn revoke_guest(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<Fields>,
) -> Result<Response> {
    let get = |field: &str| form.get(field).cloned().unwrap_or_default();
    super::revoke_guest(&app, identity.scope(), &get("id")).await?;
    let to = redirect(show_href(&page, &get("name")));
    Ok(to.ok(page.t("review-guest-revoked")).into_response())
}
