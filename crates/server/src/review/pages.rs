//! The pages of those who label: the inbox, one item at a time, and the way in for guests.
//!
//! An item is a form that works without scripts. With them `ui/src/review` sends the same
//! answers to the API, and the item after is asked for before it is needed.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use db::Problem;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Desk, Given, ItemShown, MyLabel, Question, QuestionKind, Queue, Rater, Span, Target, Values,
    words,
};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::ui::{PageContext, redirect};

/// A label with corrected texts and many marked places.
const FORM_BYTES: usize = 2 << 20;
/// One's own labels that can be gone through.
const MOST_MINE: i64 = 200;
/// Grades up to which each is a button of its own.
const MOST_BUTTONS: usize = 11;

pub(super) fn routes() -> Vec<Route> {
    let rate = Access::Needs(Permission::Label);
    vec![
        Route::get(super::LINK_PATH, Access::Public, enter),
        Route::get("/{project}/review", rate, inbox),
        Route::get("/{project}/review/{name}", rate, item),
        Route::post("/{project}/review/{name}", rate, answer).body_limit(FORM_BYTES),
    ]
}

pub(super) fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}

fn item_href(page: &PageContext, queue: &str) -> String {
    format!("{}/review/{}", page.root(), encode(queue))
}

#[derive(Deserialize)]
struct EnterQuery {
    token: Option<String>,
}

/// A guest comes in by their link. The token leaves the address bar at once. Without one
/// this is where a guest is after signing out.
async fn enter(
    State(app): State<App>,
    page: PageContext,
    Query(query): Query<EnterQuery>,
) -> Result<Response> {
    let Some(token) = query.token.filter(|token| !token.is_empty()) else {
        return page.render("review/left.html", json!({})).await;
    };
    // The cookie is set on a response whose address is only known behind it.
    let mut cookies = ().into_response();
    let entered = super::enter_guest(&app, &token, &mut cookies).await;
    // Whoever comes by a link has no account: asking them to sign in would lead nowhere.
    let (_, path) = entered.map_err(|error| match error.status {
        StatusCode::UNAUTHORIZED => AppError::not_found(error.message.clone())
            .code("link_over")
            .hint("ask whoever sent it for another one"),
        _ => error,
    })?;
    let mut response = redirect(path).into_response();
    for cookie in cookies.headers().get_all(axum::http::header::SET_COOKIE) {
        response
            .headers_mut()
            .append(axum::http::header::SET_COOKIE, cookie.clone());
    }
    Ok(response)
}

async fn inbox(State(app): State<App>, page: PageContext, identity: Identity) -> Result<Response> {
    let rater = Rater::of(&identity)?;
    let rows = super::inbox(Desk::of(&app), &rater).await?;
    let row = |row: &super::InboxRow| {
        let progress = &row.progress;
        json!({
            "name": row.queue, "href": item_href(&page, &row.queue), "description": row.description,
            "labelled": progress.labelled, "skipped": progress.skipped, "left": progress.left,
            "total": progress.labelled + progress.left,
        })
    };
    let view = json!({
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
        "guest": identity.guest.as_ref().map(|guest| guest.name.as_str()),
        "queues_href": identity.role.allows(Permission::ReadReviews).then(|| format!("{}/review-queues", page.root())),
    });
    page.render("review/inbox.html", view).await
}

#[derive(Default, Deserialize)]
struct ItemQuery {
    /// One that the rater holds or has labelled.
    item: Option<String>,
    /// Items that the rater has before them already, separated by commas.
    besides: Option<String>,
}

async fn item(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Path((_, name)): Path<(String, String)>,
    Query(query): Query<ItemQuery>,
) -> Result<Response> {
    let rater = Rater::of(&identity)?;
    let desk = Desk::of(&app);
    let queue = rater.queue(desk, &name).await?;
    let shown = match &query.item {
        Some(id) => match super::my_item(desk, &rater, id).await {
            Ok(shown) => Some(shown),
            // It went to somebody else meanwhile.
            Err(error) if error.status == StatusCode::NOT_FOUND => {
                let to = redirect(item_href(&page, &name)).err(page.t("review-gone"));
                return Ok(to.into_response());
            }
            Err(error) => return Err(error),
        },
        None => {
            let besides: Vec<String> = query
                .besides
                .as_deref()
                .unwrap_or_default()
                .split(',')
                .filter(|id| !id.is_empty())
                .map(str::to_owned)
                .collect();
            match super::next_item(desk, &rater, &name, &besides).await {
                Ok(shown) => shown,
                Err(error) if error.code == "too_many_held" => None,
                Err(error) => return Err(error),
            }
        }
    };
    let typed = shown.as_ref().map(|shown| Typed::of(&queue, shown));
    let view = view(&app, &page, &rater, &queue, shown.as_ref(), typed.as_ref()).await?;
    page.render("review/item.html", view).await
}

/// What the fields of the form hold, and what is wrong with it.
#[derive(Default)]
struct Typed {
    values: Values,
    /// Texts that stand in fields as they were typed.
    texts: BTreeMap<String, String>,
    comment: String,
    errors: BTreeMap<String, String>,
    form_error: Option<String>,
}

impl Typed {
    fn of(queue: &Queue, shown: &ItemShown) -> Self {
        let mut typed = Self {
            values: shown.mine.clone().unwrap_or_default(),
            comment: shown.comment.clone(),
            ..Self::default()
        };
        for question in &queue.document.questions {
            let value = typed.values.get(&question.name);
            let text = match (question.kind, value) {
                (QuestionKind::Spans, Some(value)) => spans_text(value),
                (QuestionKind::Correction, None) => shown
                    .snapshot
                    .output
                    .as_ref()
                    .map(editable)
                    .unwrap_or_default(),
                (QuestionKind::Correction | QuestionKind::Expected, Some(value)) => editable(value),
                (QuestionKind::Text, Some(value)) => crate::evaluators::text_of(value),
                _ => continue,
            };
            typed.texts.insert(question.name.clone(), text);
        }
        typed
    }
}

/// A value as a field shows it: a text itself, anything else as JSON.
fn editable(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}

/// Marked places as lines: `START-END LABEL`.
pub(super) fn spans_text(value: &Value) -> String {
    let spans: Vec<Span> = serde_json::from_value(value.clone()).unwrap_or_default();
    let line = |span: &Span| format!("{}-{} {}", span.start, span.end, span.label);
    spans.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn spans_of(text: &str) -> std::result::Result<Value, String> {
    let mut spans = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let parsed = line.split_once(' ').and_then(|(place, label)| {
            let (start, end) = place.split_once('-')?;
            let (start, end): (usize, usize) = (start.parse().ok()?, end.parse().ok()?);
            Some(json!({"start": start, "end": end, "label": label.trim()}))
        });
        spans.push(parsed.ok_or_else(|| format!("{line:?} is not START-END LABEL"))?);
    }
    Ok(Value::Array(spans))
}

/// The fields of a posted form, in their order; a name may be there many times.
type Fields = Vec<(String, String)>;

fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    let found = fields.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str())
}

/// The answers in a form, where question number N is the field `q.N`.
fn answers(fields: &Fields, queue: &Queue, asks: &[String]) -> (Values, Typed) {
    let mut values = Values::new();
    let mut typed = Typed {
        comment: field(fields, "comment").unwrap_or_default().to_owned(),
        ..Typed::default()
    };
    for (index, question) in queue.document.questions.iter().enumerate() {
        if !asks.contains(&question.name) {
            continue;
        }
        let key = format!("q.{index}");
        let given: Vec<&str> = fields
            .iter()
            .filter(|(name, _)| *name == key)
            .map(|(_, value)| value.as_str())
            .collect();
        let text = given.first().copied().unwrap_or_default();
        let value = match question.kind {
            QuestionKind::Multi => Ok(Some(json!(given))),
            QuestionKind::Spans => spans_of(text).map(Some),
            QuestionKind::Expected | QuestionKind::Correction => {
                let is_json = field(fields, &format!("json.{index}")).is_some();
                whole(text, is_json)
            }
            _ if text.trim().is_empty() => Ok(None),
            _ => Ok(Some(json!(text))),
        };
        typed.texts.insert(question.name.clone(), text.to_owned());
        match value {
            Ok(Some(value)) => {
                values.insert(question.name.clone(), value);
            }
            Ok(None) => {}
            Err(message) => {
                typed.errors.insert(question.name.clone(), message);
            }
        }
    }
    typed.values = values.clone();
    (values, typed)
}

/// The answers in a form, and which of its fields cannot be read.
pub(super) fn answers_of(
    fields: &Fields,
    queue: &Queue,
    asks: &[String],
) -> (Values, BTreeMap<String, String>) {
    let (values, typed) = answers(fields, queue, asks);
    (values, typed.errors)
}

/// An answer that somebody typed: JSON where the application answered JSON.
fn whole(text: &str, is_json: bool) -> std::result::Result<Option<Value>, String> {
    match (text.trim().is_empty(), is_json) {
        (true, _) => Ok(None),
        (false, false) => Ok(Some(json!(text.replace("\r\n", "\n")))),
        (false, true) => serde_json::from_str(text)
            .map(Some)
            .map_err(|error| format!("this is no JSON: {error}")),
    }
}

/// The question that a problem is about.
pub(super) fn question_at(path: &str) -> Option<String> {
    let name = path.strip_prefix("/values/")?.split('/').next()?;
    Some(name.replace("~1", "/").replace("~0", "~"))
}

async fn answer(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Path((_, name)): Path<(String, String)>,
    Form(fields): Form<Fields>,
) -> Result<Response> {
    let rater = Rater::of(&identity)?;
    let desk = Desk::of(&app);
    let queue = rater.queue(desk, &name).await?;
    let here = item_href(&page, &name);
    let id = field(&fields, "item").unwrap_or_default().to_owned();
    let fence = field(&fields, "fence").and_then(|fence| fence.parse().ok());
    let fence = fence.unwrap_or(-1);
    let done = match field(&fields, "action").unwrap_or("label") {
        "label" => {
            let shown = super::my_item(desk, &rater, &id).await?;
            let (values, mut typed) = answers(&fields, &queue, &shown.asks);
            if typed.errors.is_empty()
                && let Err(problems) =
                    super::check_values(&queue.document, &shown.snapshot, &values)
            {
                tell(&mut typed, problems);
            }
            if !typed.errors.is_empty() || typed.form_error.is_some() {
                let view = view(&app, &page, &rater, &queue, Some(&shown), Some(&typed)).await?;
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                return page
                    .render_with_status(status, "review/item.html", view)
                    .await;
            }
            let given = Given {
                fence,
                values,
                comment: typed.comment,
            };
            super::label(&app, &rater, &id, &given).await.map(drop)
        }
        "skip" => {
            let why = field(&fields, "comment").unwrap_or_default();
            super::skip(desk, &rater, &id, fence, why).await.map(drop)
        }
        "undo" => match super::undo(&app, &rater, &name).await {
            Ok(shown) => {
                let to = format!("{here}?item={}", encode(&shown.id));
                return Ok(redirect(to).into_response());
            }
            Err(error) => Err(error),
        },
        "release" => {
            super::release(desk, &rater, &name).await?;
            let to = redirect(format!("{}/review", page.root()));
            return Ok(to.ok(page.t("review-left-queue")).into_response());
        }
        other => Err(AppError::invalid(format!("there is no action {other:?}")).at("action")),
    };
    match done {
        Ok(()) => Ok(redirect(here).into_response()),
        Err(error) if error.status == StatusCode::CONFLICT => {
            let text = match error.code {
                "nothing_to_undo" => page.t("review-nothing-to-undo"),
                _ => page.t("review-gone"),
            };
            Ok(redirect(here).err(text).into_response())
        }
        Err(error) => Err(error),
    }
}

fn tell(typed: &mut Typed, problems: Vec<Problem>) {
    for problem in problems {
        match question_at(&problem.path) {
            Some(question) => {
                typed.errors.entry(question).or_insert(problem.message);
            }
            None => typed.form_error = Some(problem.message),
        }
    }
}

/// Where a rater can go from an item: back through what they labelled, and forth again.
fn neighbours(
    page: &PageContext,
    queue: &str,
    mine: &[MyLabel],
    shown: Option<&ItemShown>,
) -> (Option<String>, Option<String>) {
    let here = item_href(page, queue);
    let href = |label: &MyLabel| format!("{here}?item={}", encode(&label.item));
    let labelled: Vec<&MyLabel> = mine.iter().filter(|mine| mine.kind == "label").collect();
    let at = shown.and_then(|shown| labelled.iter().position(|mine| mine.item == shown.id));
    match at {
        None => (labelled.first().map(|mine| href(mine)), None),
        Some(0) => (labelled.get(1).map(|mine| href(mine)), Some(here)),
        Some(at) => (
            labelled.get(at + 1).map(|mine| href(mine)),
            labelled.get(at - 1).map(|mine| href(mine)),
        ),
    }
}

async fn view(
    app: &App,
    page: &PageContext,
    rater: &Rater,
    queue: &Queue,
    shown: Option<&ItemShown>,
    typed: Option<&Typed>,
) -> Result<Value> {
    let desk = Desk::of(app);
    let (mine, _) = super::my_labels(desk, rater, &queue.name, None, MOST_MINE).await?;
    let (prev_href, next_href) = neighbours(page, &queue.name, &mine, shown);
    let here = item_href(page, &queue.name);
    let inbox = super::inbox_queue(desk, rater, &queue.name).await?;
    Ok(json!({
        "queue": queue.name, "description": queue.document.description, "guidelines": queue.document.guidelines,
        "blind": queue.document.blind, "here": here, "inbox_href": format!("{}/review", page.root()),
        "prev_href": prev_href, "next_href": next_href, "can_undo": !mine.is_empty(),
        "progress": {"labelled": inbox.progress.labelled, "skipped": inbox.progress.skipped, "left": inbox.progress.left,
            "total": inbox.progress.labelled + inbox.progress.left},
        "item": shown.zip(typed).map(|(shown, typed)| item_view(&here, queue, shown, typed)),
    }))
}

/// A text whose places are counted in characters. A page would read a line's end of two
/// characters as one, so the first of them is shown as a sign.
pub(super) fn countable(text: &str) -> String {
    text.replace('\r', "\u{240D}")
}

fn item_view(here: &str, queue: &Queue, shown: &ItemShown, typed: &Typed) -> Value {
    let snapshot = &shown.snapshot;
    let questions: Vec<Value> = queue
        .document
        .questions
        .iter()
        .enumerate()
        .filter(|(_, question)| shown.asks.contains(&question.name))
        .map(|(index, question)| question_view(index, question, shown, typed))
        .collect();
    json!({
        "id": shown.id, "fence": shown.fence, "until": shown.until, "place": shown.place, "of": shown.of,
        "prefetch_href": format!("{here}?besides={}", encode(&shown.id)),
        "again": shown.mine.is_some(), "comment": typed.comment, "form_error": typed.form_error,
        "input": countable(&shown.texts.input),
        "output": snapshot.output.is_some().then(|| countable(&shown.texts.output)),
        "answers": snapshot.answers.iter().map(|answer| countable(&words(answer))).collect::<Vec<_>>(),
        "context": snapshot.context, "expected": snapshot.expected.as_ref().map(words),
        "facts": shown.facts.as_ref().map(facts_view).unwrap_or_default(),
        "questions": questions,
    })
}

/// What is known beyond the texts, as rows.
fn facts_view(facts: &Map<String, Value>) -> Vec<Value> {
    let mut rows = Vec::new();
    for (name, value) in facts {
        match value {
            Value::Object(fields) => rows.extend(fields.iter().map(
                |(name, value)| json!({"name": name, "value": crate::evaluators::text_of(value)}),
            )),
            other => rows.push(json!({"name": name, "value": crate::evaluators::text_of(other)})),
        }
    }
    rows
}

/// One question with its control.
pub(super) fn question_fields(index: usize, question: &Question) -> Value {
    let grades = match question.kind {
        QuestionKind::Rating => question.scale().grades(),
        _ => Vec::new(),
    };
    let scale = question.scale();
    let mut options: Vec<Value> = question
        .options
        .iter()
        .map(|option| json!({"value": option, "label": option}))
        .collect();
    if question.kind == QuestionKind::Pairwise {
        let words = if question.ties {
            &["a", "b", "tie"][..]
        } else {
            &["a", "b"]
        };
        options.extend(
            words
                .iter()
                .map(|word| json!({"value": word, "label": word})),
        );
    }
    if grades.len() <= MOST_BUTTONS {
        options.extend(
            grades
                .iter()
                .map(|grade| json!({"value": grade.to_string(), "label": grade.to_string()})),
        );
    }
    json!({
        "index": index, "name": question.name, "title": question.title(), "help": question.help,
        "kind": question.kind.name(), "required": question.required, "options": options,
        "min": scale.min, "max": scale.max, "step": scale.step,
        "target": match question.target() { Target::Input => "input", Target::Output => "output" },
    })
}

fn question_view(index: usize, question: &Question, shown: &ItemShown, typed: &Typed) -> Value {
    let mut view = question_fields(index, question);
    let value = typed.values.get(&question.name);
    let chosen: Vec<String> = match value {
        Some(Value::Array(items)) => items.iter().map(crate::evaluators::text_of).collect(),
        Some(value) => vec![crate::evaluators::text_of(value)],
        None => Vec::new(),
    };
    let is_json = match question.kind {
        QuestionKind::Correction => snapshot_is_json(shown.snapshot.output.as_ref()),
        _ => false,
    };
    view["chosen"] = json!(chosen);
    view["text"] = json!(typed.texts.get(&question.name).cloned().unwrap_or_default());
    view["json"] = json!(is_json);
    view["error"] = json!(typed.errors.get(&question.name));
    view
}

fn snapshot_is_json(output: Option<&Value>) -> bool {
    output.is_some_and(|output| !output.is_string())
}
