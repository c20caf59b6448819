//! Filling a queue as a form.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use super::manage::{names, show_href};
use super::{Desk, FillRequest, QuestionKind, find_queue};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::ui::form::{self, Fields};
use crate::ui::{PageContext, redirect};

pub(super) fn routes() -> Vec<Route> {
    let manage = Access::Needs(Permission::ManageReviews);
    vec![
        Route::get("/{project}/review-queues/fill", manage, fill),
        Route::post("/{project}/review-queues/fill", manage, fill_form),
    ]
}

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
    let get = |name: &str| form::typed(form, name);
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
