//! The pages of promotion: the board of what runs where, the inbox of what
//! waits for approval, and the rules of the environments.
//!
//! Only pages: what a move, an approval or a rollback does, and who may, is
//! decided in `promotion` and in the catalog below it, so that no page is a way
//! around a rule.

mod board;
mod environments;
mod inbox;

use std::collections::HashSet;

use base::{Digest, ProjectId};
use db::catalog::{Label, Name};
use db::promotion::{Quarantine, Requested};
use db::{MoveRequest, Problem, Scope};
use serde_json::{Value, json};

use crate::app::App;
use crate::auth::Identity;
use crate::error::{AppError, Result};
use crate::http::Route;
use crate::ui::{PageContext, Redirect};

/// The pages.
pub fn routes() -> Vec<Route> {
    let mut routes = board::routes();
    routes.extend(inbox::routes());
    routes.extend(environments::routes());
    routes
}

/// The first environment, if nothing guards moves into it.
///
/// # Errors
/// The database cannot be read.
pub async fn open_first(app: &App, scope: Scope) -> Result<Option<String>> {
    let all = app.promotion.environments(scope).await?;
    let first = all.environments.into_iter().next();
    Ok(first
        .filter(|environment| {
            let protection = environment.protection.as_ref();
            protection.is_none_or(|protection| !protection.rules.guards_moves())
        })
        .map(|environment| environment.name))
}

/// The contents of a name that may not run anywhere now.
///
/// # Errors
/// The database cannot be read.
pub async fn quarantined(
    app: &App,
    scope: Scope,
    kind: &str,
    name: &Name,
) -> Result<Vec<Quarantine>> {
    let all = app.promotion.active_quarantines(scope.project).await?;
    Ok(all
        .into_iter()
        .filter(|one| one.kind == kind && one.name == *name)
        .collect())
}

/// The contents of a kind that may not run anywhere now, by name.
///
/// # Errors
/// The database cannot be read.
pub async fn quarantined_digests(
    app: &App,
    project: ProjectId,
    kind: &str,
) -> Result<HashSet<(String, Digest)>> {
    let all = app.promotion.active_quarantines(project).await?;
    Ok(all
        .into_iter()
        .filter(|one| one.kind == kind)
        .map(|one| (one.name.as_str().to_owned(), one.digest))
        .collect())
}

/// Asks for a move: it happens, or becomes a proposal where the label is protected.
///
/// # Errors
/// There is no such version, or its content is quarantined.
pub async fn promote(
    app: &App,
    identity: &Identity,
    request: MoveRequest<'_>,
) -> Result<Requested> {
    let requested = app
        .promotion
        .request_move(identity.scope(), request)
        .await?;
    app.refresh_plan().await?;
    Ok(requested)
}

/// What a person reads after asking for a move.
pub(crate) fn flash(
    page: &PageContext,
    to: Redirect,
    request: &MoveRequest<'_>,
    requested: &Requested,
) -> Redirect {
    let label = request.label.as_str();
    let number = numbered(request.kind, request.to);
    let args = [("label", label), ("n", number.as_str())];
    match requested {
        Requested::Moved(_) => to.ok(page.t_with("releases-moved-flash", &args)),
        Requested::Unchanged(_) => to.ok(page.t_with("releases-unchanged-flash", &args)),
        Requested::Proposed(_) => to.ok(page.t_with("releases-proposed-flash", &args)),
        Requested::Conflict(_) => to.err(page.t_with("releases-conflict-flash", &args)),
    }
}

/// `r3` for a release, `v3` for anything else.
pub(crate) fn numbered(kind: &str, number: i64) -> String {
    let letter = if kind == crate::apps::RELEASE {
        'r'
    } else {
        'v'
    };
    format!("{letter}{number}")
}

fn parse_name(text: &str) -> Result<Name> {
    text.parse()
        .map_err(|problem: Problem| AppError::invalid(problem.message).at("name"))
}

fn parse_label(text: &str) -> Result<Label> {
    text.parse()
        .map_err(|problem: Problem| AppError::invalid(problem.message).at("label"))
}

/// The page of a name of this kind.
fn name_href(page: &PageContext, kind: &str, name: &str) -> String {
    if kind == crate::prompts::KIND {
        let name = crate::apps::encode(name);
        format!("{}/prompts/show?name={name}", page.root())
    } else {
        crate::apps::show_href(page, name)
    }
}

/// What differs between two versions, in rows with links: the pinned documents of
/// releases, the one document itself of other kinds.
async fn changes(
    app: &App,
    page: &PageContext,
    scope: Scope,
    kind: &str,
    name: &Name,
    (from, to): (i64, i64),
) -> Result<Vec<Value>> {
    if from == to {
        return Ok(Vec::new());
    }
    if kind != crate::apps::RELEASE {
        let href = crate::apps::change_href(page, kind, name.as_str(), Some(from), Some(to));
        let reference = format!("{kind}:{}", name.as_str());
        return Ok(vec![json!({
            "reference": reference, "kind": kind, "name": name.as_str(), "before": from, "after": to, "href": href,
        })]);
    }
    let number = db::catalog::Selector::Number;
    let (_, before) = crate::apps::find_release(&app.catalog, scope, name, &number(from)).await?;
    let (_, after) = crate::apps::find_release(&app.catalog, scope, name, &number(to)).await?;
    Ok(crate::apps::change_rows(page, &before, &after))
}

/// Gates as the templates show them.
async fn gate_rows(
    app: &App,
    scope: Scope,
    report: &db::promotion::GateReport,
) -> Result<Vec<Value>> {
    let actors = report
        .gates
        .iter()
        .filter_map(|gate| Some(gate.evidence.as_ref()?.actor.as_str()));
    let people = crate::members::actor_names(&app.db, scope.project, actors).await?;
    let rows = report.gates.iter().map(|gate| {
        let evidence = gate.evidence.as_ref();
        json!({
            "name": gate.name, "required": gate.required, "outcome": gate.outcome, "why": gate.why,
            "passes_at": gate.passes_at, "by": evidence.map(|evidence| &people[&evidence.actor]),
            "at": evidence.map(|evidence| evidence.at), "link": evidence.map_or("", |evidence| evidence.link.as_str()),
        })
    });
    Ok(rows.collect())
}
