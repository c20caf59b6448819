//! The page of one item for those who run its queue: what its raters said, and settling it.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::manage::{item_href, show_href};
use super::pages::{countable, question_fields};
use super::{Desk, ItemDetail, ItemState, QuestionKind, QueueDocument, Values, find_queue, words};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::evaluators::text_of;
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::ui::{PageContext, redirect};

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadReviews);
    let manage = Access::Needs(Permission::ManageReviews);
    vec![
        Route::get("/{project}/review-queues/item", read, item),
        Route::post("/{project}/review-queues/item", manage, settle).body_limit(2 << 20),
    ]
}

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
