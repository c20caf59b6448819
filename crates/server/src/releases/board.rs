//! The board: names down, environments across.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base::Cursor;
use db::promotion::{BoardCell, BoardRow, Environment, RollbackRequest, RolledBack};
use db::{Move, MoveRequest, PageRequest, Scope};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{changes, gate_rows, name_href, numbered, parse_label, parse_name};
use crate::app::App;
use crate::apps::RELEASE;
use crate::auth::{Identity, Permission};
use crate::error::Result;
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::ui::{PageContext, redirect};

/// Names of a kind on one page of the board.
const ROWS: u32 = 50;
/// Moves that are looked at for where a rollback could go.
const MOVES: u32 = 200;
/// Earlier versions that a rollback offers.
const BACK: usize = 8;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get(
            "/{project}/releases",
            Access::Needs(Permission::ReadCatalog),
            show,
        ),
        Route::post(
            "/{project}/releases/promote",
            Access::Needs(Permission::Propose),
            promote,
        ),
        Route::post(
            "/{project}/releases/rollback",
            Access::Needs(Permission::RollBack),
            roll_back,
        ),
        Route::post(
            "/{project}/releases/lift",
            Access::Needs(Permission::ManageEnvironments),
            lift,
        ),
    ]
}

#[derive(Deserialize)]
struct BoardQuery {
    /// Where the page before ended, of releases.
    cursor: Option<String>,
    /// The same, of prompts.
    prompts: Option<String>,
}

async fn show(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<BoardQuery>,
) -> Result<Response> {
    let scope = identity.scope();
    let all = app.promotion.environments(scope).await?;
    let mut groups = Vec::new();
    for (kind, key, cursor) in [
        (RELEASE, "cursor", query.cursor),
        (crate::prompts::KIND, "prompts", query.prompts),
    ] {
        groups.push(group(&app, &page, scope, kind, key, cursor).await?);
    }
    let environments: Vec<Value> = all.environments.iter().map(environment).collect();
    let waiting = app.promotion.count_waiting(scope).await?;
    let quarantines = quarantines(&app, &page, scope).await?;
    let view = json!({
        "environments": environments, "groups": groups, "waiting": waiting, "quarantines": quarantines,
    });
    page.render("releases/board.html", view).await
}

fn environment(environment: &Environment) -> Value {
    let rules = environment
        .protection
        .as_ref()
        .map(|protection| &protection.rules);
    json!({
        "name": environment.name, "approvals": rules.map_or(0, |rules| rules.approvals),
        "gates": rules.map_or(0, |rules| rules.gates.len()),
        "auto": rules.is_some_and(|rules| rules.delivery == db::promotion::Delivery::Auto),
    })
}

async fn quarantines(app: &App, page: &PageContext, scope: Scope) -> Result<Vec<Value>> {
    let all = app.promotion.active_quarantines(scope.project).await?;
    let actors = all.iter().map(|one| one.actor.as_str());
    let people = crate::members::actor_names(&app.db, scope.project, actors).await?;
    let rows = all.iter().map(|one| {
        let name = one.name.as_str();
        json!({
            "id": one.id, "kind": one.kind, "name": name, "number": one.number, "reason": one.reason,
            "href": crate::apps::document_href(page, &one.kind, name, one.number),
            "by": people[&one.actor], "at": one.at,
        })
    });
    Ok(rows.collect())
}

async fn group(
    app: &App,
    page: &PageContext,
    scope: Scope,
    kind: &str,
    key: &str,
    cursor: Option<String>,
) -> Result<Value> {
    let request = PageRequest {
        cursor: cursor.map(Cursor::from_client),
        limit: ROWS,
    };
    let board = app.promotion.board(scope, kind, &request).await?;
    let mut rows = Vec::new();
    for row in &board.rows.items {
        // A prompt has a place here once one of its labels is an environment.
        let is_anywhere = row
            .cells
            .iter()
            .any(|cell| cell.pointer.is_some() || !cell.proposals.is_empty());
        if kind == RELEASE || is_anywhere {
            rows.push(board_row(app, page, scope, kind, row, &board.environments).await?);
        }
    }
    let more_href = board.rows.next.map(|cursor| {
        let cursor = crate::apps::encode(cursor.as_str());
        format!("{}/releases?{key}={cursor}", page.root())
    });
    Ok(json!({"kind": kind, "rows": rows, "more_href": more_href}))
}

async fn board_row(
    app: &App,
    page: &PageContext,
    scope: Scope,
    kind: &str,
    row: &BoardRow,
    environments: &[Environment],
) -> Result<Value> {
    let request = PageRequest {
        cursor: None,
        limit: MOVES,
    };
    let moves = app
        .catalog
        .moves(scope, kind, &row.name, None, &request)
        .await?
        .items;
    let bad = super::quarantined(app, scope, kind, &row.name).await?;
    let bad: Vec<i64> = bad.iter().map(|one| one.number).collect();
    let mut cells = Vec::new();
    for (index, cell) in row.cells.iter().enumerate() {
        let around = Around {
            kind,
            row,
            before: index
                .checked_sub(1)
                .and_then(|before| row.cells.get(before)),
            rules: environments
                .get(index)
                .and_then(|environment| environment.protection.as_ref())
                .map_or(0, |protection| protection.rules.approvals),
            back: earlier(&moves, cell, &bad),
        };
        cells.push(board_cell(app, page, scope, cell, &around).await?);
    }
    Ok(json!({
        "name": row.name.as_str(), "href": name_href(page, kind, row.name.as_str()), "latest": row.latest, "cells": cells,
    }))
}

/// The versions that a label pointed to before, newest move first, each once.
fn earlier(moves: &[Move], cell: &BoardCell, bad: &[i64]) -> Vec<i64> {
    let Some(now) = &cell.pointer else {
        return Vec::new();
    };
    let mut numbers = Vec::new();
    let own = moves.iter().filter(|one| one.label == cell.environment);
    for number in own.flat_map(|one| [Some(one.to), one.from]).flatten() {
        let is_good = number != now.number && !bad.contains(&number) && !numbers.contains(&number);
        if is_good && numbers.len() < BACK {
            numbers.push(number);
        }
    }
    numbers
}

/// What a cell needs to know of its neighbours.
struct Around<'a> {
    kind: &'a str,
    row: &'a BoardRow,
    before: Option<&'a BoardCell>,
    /// Approvals that the environment asks for.
    rules: u32,
    back: Vec<i64>,
}

async fn board_cell(
    app: &App,
    page: &PageContext,
    scope: Scope,
    cell: &BoardCell,
    around: &Around<'_>,
) -> Result<Value> {
    let (kind, name) = (around.kind, &around.row.name);
    let now = cell.pointer.as_ref();
    let before = around
        .before
        .and_then(|before| Some((before.environment.as_str(), before.pointer.as_ref()?.number)));
    let authors = cell.proposals.iter().map(|one| one.author.as_str());
    let actors = authors.chain(now.map(|pointer| pointer.moved_by.as_str()));
    let people = crate::members::actor_names(&app.db, scope.project, actors).await?;
    let (mut differs, mut diff_href) = (Vec::new(), None);
    if let (Some(now), Some((_, earlier))) = (now, before)
        && cell.differs
    {
        differs = changes(app, page, scope, kind, name, (earlier, now.number)).await?;
        diff_href =
            crate::apps::change_href(page, kind, name.as_str(), Some(earlier), Some(now.number));
    }
    let next = match &cell.next {
        Some(next) => Some(candidate(app, page, scope, cell, next, around).await?),
        None => None,
    };
    let proposals = cell.proposals.iter().map(|one| {
        json!({
            "href": format!("{}/approvals#p-{}", page.root(), one.id), "number": one.number, "by": people[&one.author],
            "approved": one.approved_by(), "needed": one.rules.approvals, "state": one.state.name(),
        })
    });
    Ok(json!({
        "id": cell_id(kind, name.as_str(), &cell.environment), "environment": cell.environment,
        "now": now.map(|pointer| json!({
            "number": pointer.number, "since": pointer.moved_at, "by": people[&pointer.moved_by],
            "href": crate::apps::document_href(page, kind, name.as_str(), pointer.number), "quarantined": cell.quarantined,
        })),
        "before": before.map(|(environment, _)| environment), "changes": differs, "diff_href": diff_href,
        "next": next, "proposals": proposals.collect::<Vec<_>>(),
        "back": now.filter(|_| !around.back.is_empty())
            .map(|pointer| json!({"numbers": around.back, "revision": pointer.revision})),
    }))
}

async fn candidate(
    app: &App,
    page: &PageContext,
    scope: Scope,
    cell: &BoardCell,
    next: &db::promotion::Candidate,
    around: &Around<'_>,
) -> Result<Value> {
    let (kind, name) = (around.kind, &around.row.name);
    let now = cell.pointer.as_ref();
    let differs = match now {
        Some(now) => changes(app, page, scope, kind, name, (now.number, next.number)).await?,
        None => Vec::new(),
    };
    Ok(json!({
        "number": next.number, "quarantined": next.quarantined, "passes": next.report.passes, "approvals": around.rules,
        "href": crate::apps::document_href(page, kind, name.as_str(), next.number),
        "gates": gate_rows(app, scope, &next.report).await?, "changes": differs, "new": now.is_none(),
        "diff_href": now.and_then(|now| crate::apps::change_href(page, kind, name.as_str(), Some(now.number), Some(next.number))),
        "revision": now.map_or(0, |pointer| pointer.revision),
    }))
}

/// An id for the dialogs of a cell: names hold letters that an id in a page must not.
fn cell_id(kind: &str, name: &str, environment: &str) -> String {
    let digest = base::Digest::of(format!("{kind}\n{name}\n{environment}").as_bytes());
    format!("c{}", &digest.hex()[..12])
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PromoteForm {
    kind: String,
    name: String,
    label: String,
    number: i64,
    expected: i64,
    #[serde(default)]
    reason: String,
}

async fn promote(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<PromoteForm>,
) -> Result<Response> {
    let (name, label) = (parse_name(&form.name)?, parse_label(&form.label)?);
    let request = MoveRequest {
        kind: &form.kind,
        name: &name,
        label: &label,
        to: form.number,
        expected: Some(form.expected),
        reason: form.reason.trim(),
    };
    let requested = super::promote(&app, &identity, request).await?;
    let to = redirect(format!("{}/releases", page.root()));
    Ok(super::flash(&page, to, &request, &requested).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RollbackForm {
    kind: String,
    name: String,
    label: String,
    to: i64,
    expected: i64,
    #[serde(default)]
    reason: String,
    quarantine: Option<String>,
}

async fn roll_back(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<RollbackForm>,
) -> Result<Response> {
    let (name, label) = (parse_name(&form.name)?, parse_label(&form.label)?);
    let request = RollbackRequest {
        kind: &form.kind,
        name: &name,
        label: &label,
        to: Some(form.to),
        expected: Some(form.expected),
        reason: form.reason.trim(),
        quarantine: form.quarantine.is_some(),
    };
    let done = app.promotion.roll_back(identity.scope(), request).await?;
    app.refresh_plan().await?;
    let to = redirect(format!("{}/releases", page.root()));
    let to = match done {
        RolledBack::Done { pointer, .. } => {
            let number = numbered(&form.kind, pointer.number);
            let args = [("label", label.as_str()), ("n", number.as_str())];
            to.ok(page.t_with("releases-back-flash", &args))
        }
        RolledBack::Conflict(_) => {
            to.err(page.t_with("releases-conflict-flash", &[("label", label.as_str())]))
        }
    };
    Ok(to.into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LiftForm {
    id: String,
    #[serde(default)]
    reason: String,
}

async fn lift(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<LiftForm>,
) -> Result<Response> {
    app.promotion
        .lift_quarantine(identity.scope(), &form.id, form.reason.trim())
        .await?;
    app.refresh_plan().await?;
    Ok(redirect(format!("{}/releases", page.root()))
        .ok(page.t("releases-lifted-flash"))
        .into_response())
}
