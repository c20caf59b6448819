//! The pages of runs over a dataset that other tools sent: all of them beside each other
//! and beside this server's evaluations, and one of them, example by example.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use base::Cursor;
use db::Scope;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{READ, WRITE};
use super::pages::{cell, encode, head, href};
use super::parse_name;
use super::runs::{
    self, ClientScore, ItemFilter, Run, RunFilter, RunItem, ScoreFilter, ScoreSummary,
};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Form, Query};
use crate::http::Route;
use crate::ui::{PageContext, redirect};

/// Runs of the page, and items of a run's page.
const RUNS: i64 = 100;
const ITEMS: i64 = 100;
/// Columns of scores.
const NAMES: usize = 12;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/{project}/datasets/runs", READ, list),
        Route::get("/{project}/datasets/run", READ, show),
        Route::post("/{project}/datasets/run/delete", WRITE, delete),
    ]
}

#[derive(Deserialize)]
struct ListQuery {
    name: String,
}

async fn list(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let scope = identity.scope();
    let dataset = app
        .datasets
        .latest(scope, &parse_name(&query.name)?)
        .await?;
    let name = dataset.version.name.as_str();
    let filter = RunFilter {
        datasets: vec![name.to_owned()],
        ..RunFilter::default()
    };
    let found = runs::list_runs(&app.db, scope.project, &filter, None, RUNS).await?;
    let ids: Vec<String> = found.iter().map(|run| run.id.clone()).collect();
    let summaries = runs::summaries(&app.db, scope.project, &ids).await?;
    let mut names: Vec<&String> = summaries.values().flat_map(|own| own.keys()).collect();
    names.sort();
    names.dedup();
    names.truncate(NAMES);
    let people = crate::members::actor_names(
        &app.db,
        scope.project,
        found.iter().map(|run| run.author.as_str()),
    )
    .await?;
    let row = |run: &Run| {
        let own = summaries.get(&run.id);
        let cells = names.iter().map(|name| {
            let summary = own.and_then(|own| own.get(*name));
            summary_view(summary, run.items)
        });
        json!({
            "href": run_href(&page, &run.id), "name": run.name, "description": base::text::preview(&run.description, 120),
            "items": run.items, "failed": run.failed, "ended_at": run.ended_at, "author": people[&run.author],
            "cells": cells.collect::<Vec<_>>(),
        })
    };
    let view = json!({
        "head": head(&page, &dataset, dataset.version.number, "runs"), "names": names,
        "rows": found.iter().map(row).collect::<Vec<_>>(), "cut": found.len() >= usize::try_from(RUNS).unwrap_or(0),
        "evaluations": evaluations(&app, &page, &identity, scope, name).await?,
    });
    page.render("datasets/runs.html", view).await
}

fn summary_view(summary: Option<&ScoreSummary>, items: i64) -> Value {
    let Some(summary) = summary else {
        return Value::Null;
    };
    let covered = i64::try_from(summary.count).is_ok_and(|count| count >= items);
    json!({"mean": summary.mean.map(|mean| format!("{mean:.3}")), "count": summary.count, "complete": covered})
}

fn run_href(page: &PageContext, id: &str) -> String {
    format!("{}/datasets/run?id={}", page.root(), encode(id))
}

/// This server's own evaluations of the dataset, among the newest ones.
async fn evaluations(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    scope: Scope,
    name: &str,
) -> Result<Vec<Value>> {
    if !identity.role.allows(Permission::ReadEvaluations) {
        return Ok(Vec::new());
    }
    let desk = crate::evaluations::Desk::of(app);
    let newest = crate::evaluations::list(desk, scope, None, None, 100).await?;
    let own = newest
        .iter()
        .filter(|one| one.pinned.dataset.name == name)
        .take(20);
    let row = |one: &crate::evaluations::Evaluation| {
        json!({
            "href": format!("{}/evaluations/show?id={}", page.root(), encode(&one.id)),
            "title": if one.suite.is_empty() { name } else { &one.suite }, "state": one.state.name(),
            "version": one.pinned.dataset.number, "created_at": one.created_at,
            "candidates": one.document.candidates.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(),
        })
    };
    Ok(own.map(row).collect())
}

#[derive(Deserialize)]
struct ShowQuery {
    id: String,
    cursor: Option<String>,
}

async fn show(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ShowQuery>,
) -> Result<Response> {
    let project = identity.project.id;
    let run = runs::find_run(&app.db, project, &query.id).await?;
    let after = query.cursor.as_deref().map(Cursor::from_client);
    let after: Option<(i64, String)> = after
        .map(|cursor| cursor.key())
        .transpose()
        .map_err(|error| AppError::invalid(error.to_string()).at("cursor"))?;
    let filter = ItemFilter {
        runs: vec![run.id.clone()],
        ..ItemFilter::default()
    };
    let mut items = runs::list_items(&app.db, project, &filter, after.as_ref(), ITEMS + 1).await?;
    let more = items.len() > usize::try_from(ITEMS).unwrap_or(0);
    items.truncate(usize::try_from(ITEMS).unwrap_or(0));
    let scores = runs::scores_of_items(&app.db, project, &items).await?;
    let of_run = ScoreFilter {
        runs: vec![run.id.clone()],
        ..ScoreFilter::default()
    };
    let of_run = runs::list_scores(&app.db, project, &of_run, None, 100).await?;
    let summaries = runs::summaries(&app.db, project, std::slice::from_ref(&run.id)).await?;
    let empty = Default::default();
    let own = summaries.get(&run.id).unwrap_or(&empty);
    let people =
        crate::members::actor_names(&app.db, project, std::iter::once(run.author.as_str())).await?;
    let row = |item: &RunItem| {
        let key = (item.trace.clone(), item.item.clone());
        item_view(
            &page,
            run.dataset.as_deref(),
            item,
            scores.get(&key).map_or(&[], Vec::as_slice),
        )
    };
    let next = items.last().filter(|_| more).map(|last| {
        let cursor = Cursor::new(&last.key());
        format!("{}&cursor={}", run_href(&page, &run.id), cursor.as_str())
    });
    let back = match &run.dataset {
        Some(dataset) => href(&page, "runs", dataset, &[]),
        None => format!("{}/datasets", page.root()),
    };
    let view = json!({
        "id": run.id, "name": run.name, "dataset": run.dataset, "back_href": back, "description": run.description,
        "metadata": (!run.metadata.is_null()).then(|| base::text::preview(&run.metadata.to_string(), 2000)),
        "items": run.items, "failed": run.failed, "started_at": run.started_at, "ended_at": run.ended_at,
        "author": people[&run.author],
        "means": own.iter().map(|(name, summary)| json!({"name": name, "summary": summary_view(Some(summary), run.items)})).collect::<Vec<_>>(),
        "scores": of_run.iter().map(score_view).collect::<Vec<_>>(),
        "rows": items.iter().map(row).collect::<Vec<_>>(),
        "first_href": query.cursor.as_ref().map(|_| run_href(&page, &run.id)), "next_href": next,
        "traces_href": format!("{}/traces?range=30d&filter={}", page.root(), encode(&format!("tag.run = {}", json!(run.name)))),
    });
    page.render("datasets/run.html", view).await
}

fn item_view(
    page: &PageContext,
    dataset: Option<&str>,
    item: &RunItem,
    scores: &[ClientScore],
) -> Value {
    let shown = |value: &Value| (!value.is_null()).then(|| cell(Some(value)));
    json!({
        "id": item.item, "href": dataset.map(|name| href(page, "example", name, &[("id", &item.item)])),
        "trace_href": format!("{}/traces/{}", page.root(), item.trace), "failed": item.failed,
        "input": shown(&item.input), "output": shown(&item.output), "expected": shown(&item.expected),
        "us": item.ended_at - item.started_at, "scores": scores.iter().map(score_view).collect::<Vec<_>>(),
    })
}

fn score_view(score: &ClientScore) -> Value {
    let value = match score.shown() {
        Value::Number(_) => score
            .value
            .map(|value| {
                let text = format!("{value:.3}");
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            })
            .unwrap_or_default(),
        Value::String(text) => text,
        other => other.to_string(),
    };
    json!({"name": score.name, "value": value, "comment": score.comment.clone().unwrap_or_default()})
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteForm {
    id: String,
}

async fn delete(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<DeleteForm>,
) -> Result<Response> {
    let scope = identity.scope();
    let run = runs::find_run(&app.db, scope.project, &form.id).await?;
    runs::delete_run(&app.db, scope, &form.id).await?;
    let back = match &run.dataset {
        Some(dataset) => href(&page, "runs", dataset, &[]),
        None => format!("{}/datasets", page.root()),
    };
    Ok(redirect(back)
        .ok(page.t("datasets-run-deleted"))
        .into_response())
}
