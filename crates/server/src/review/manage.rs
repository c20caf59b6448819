//! The pages of those who run queues: the list, one queue with what came of it, gold, and
//! guests' links. What is done to a queue's items and to its document have files of their own.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::pages::encode;
use super::{Desk, GoldRequest, ItemDetail, ItemState, NewGuest, QueueShown, words};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::Result;
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::ui::form::{self, Fields};
use crate::ui::{PageContext, redirect};

/// Items of a page.
const ITEMS: usize = 25;
/// Characters of a text in a row.
const PREVIEW_CHARS: usize = 140;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadReviews);
    let manage = Access::Needs(Permission::ManageReviews);
    vec![
        Route::get("/{project}/review-queues", read, list),
        Route::get("/{project}/review-queues/show", read, show),
        Route::post("/{project}/review-queues/gold", manage, gold),
        Route::post("/{project}/review-queues/guests", manage, make_guest),
        Route::post(
            "/{project}/review-queues/guests/revoke",
            manage,
            revoke_guest,
        ),
    ]
}

/// The page of a queue.
pub(super) fn show_href(page: &PageContext, name: &str) -> String {
    format!("{}/review-queues/show?name={}", page.root(), encode(name))
}

/// The page of an item.
pub(super) fn item_href(page: &PageContext, id: &str) -> String {
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

async fn gold(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<Fields>,
) -> Result<Response> {
    identity.require(Permission::WriteDatasets)?;
    let name = form.get("name").cloned().unwrap_or_default();
    let get = |field: &str| form::typed(&form, field).map(str::to_owned);
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

/// Names of documents of a kind, for a choice.
pub(super) async fn names(app: &App, identity: &Identity, kind: &str) -> Result<Vec<String>> {
    crate::catalog::offered_names(&app.catalog, identity.scope(), kind).await
}
