//! The pages of experiments. Names hold slashes, so a page is `experiments/show?name=…`.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base::Cursor;
use db::{NameFilter, PageRequest};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::api::{promote_arm, stop_run};
use super::view::{document_view, encode, list_row, run_view, show_href};
use super::{Desk, Promoted, RunState, TargetKind};
use crate::app::App;
use crate::auth::{Identity, Permission};
use crate::error::{AppError, Result};
use crate::extract::{Form, Query};
use crate::http::{Access, Route};
use crate::ui::{PageContext, redirect};

/// Rows of the list: each reads a document.
const ROWS: u32 = 50;
/// Names and versions that the form offers; others can be typed.
const OFFERED: u32 = 200;
const MESSAGE_CHARS: usize = 60;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Needs(Permission::ReadCatalog);
    let write = Access::Needs(Permission::WriteCatalog);
    let run = Access::Needs(Permission::RunExperiments);
    vec![
        Route::get("/{project}/experiments", read, list),
        Route::post("/{project}/experiments", write, create),
        Route::get("/{project}/experiments/new", write, new),
        Route::get("/{project}/experiments/show", read, show),
        Route::post("/{project}/experiments/start", run, start),
        Route::post("/{project}/experiments/stop", run, stop),
        Route::post("/{project}/experiments/promote", run, promote),
    ]
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
    let (desk, scope) = (Desk::of(&app), identity.scope());
    let request = PageRequest {
        cursor: query.cursor.clone().map(Cursor::from_client),
        limit: ROWS,
    };
    let names = super::names(&app.catalog, scope, &request).await?;
    let runs = super::recent_runs(desk, scope).await?;
    let mut rows = Vec::new();
    for (name, version) in &names.items {
        let run = runs.iter().find(|run| run.experiment == name.as_str());
        let shown = run.map_or(*version, |run| run.version);
        let document = super::find(desk, scope, name, Some(shown)).await?.document;
        rows.push(list_row(&page, name.as_str(), &document, run));
    }
    let next_href = names.next.map(|cursor| {
        let cursor = encode(cursor.as_str());
        format!("{}/experiments?cursor={cursor}", page.root())
    });
    let prev_href = query.cursor.map(|_| format!("{}/experiments", page.root()));
    let view = json!({"rows": rows, "pager": {"prev_href": prev_href, "next_href": next_href}});
    page.render("experiments/list.html", view).await
}

/// The form's fields, as they are typed. A comma separates the steps of a ramp.
#[derive(Deserialize, Default)]
#[serde(default)]
struct NewForm {
    name: String,
    description: String,
    kind: String,
    target: String,
    pointer: String,
    mode: String,
    unit: String,
    control: String,
    candidate: String,
    share: String,
    ramp: String,
    step_minutes: String,
    step_calls: String,
    metric: String,
    score: String,
    better: String,
    guard: String,
    guard_score: String,
    guard_direction: String,
    guard_limit: String,
    minimum_sample: String,
    alpha: String,
    equivalence: String,
}

impl NewForm {
    /// What the form shows first.
    fn empty() -> Self {
        let text = str::to_owned;
        Self {
            kind: text("prompt"),
            pointer: text("production"),
            mode: text("split"),
            unit: text("user"),
            share: text("50"),
            ramp: text("1, 5, 25, 100"),
            step_minutes: text("60"),
            step_calls: text("100"),
            metric: text("score"),
            score: text(crate::scores::THUMBS),
            guard_direction: text("above"),
            minimum_sample: text("1000"),
            alpha: text("5"),
            ..Self::default()
        }
    }

    /// The document that the fields describe; what is not a number is left for the check to refuse.
    fn document(&self) -> Result<Value> {
        let mut document = Map::new();
        if !self.description.trim().is_empty() {
            document.insert("description".to_owned(), json!(self.description.trim()));
        }
        let field = if self.kind == "app" {
            "environment"
        } else {
            "label"
        };
        document.insert(
            "target".to_owned(),
            json!({"kind": self.kind, "name": self.target.trim(), field: self.pointer.trim()}),
        );
        let mode = self.mode.as_str();
        document.insert("mode".to_owned(), json!(mode));
        document.insert("unit".to_owned(), json!(self.unit));
        document.insert("arms".to_owned(), self.arms()?);
        if mode == "canary" {
            document.insert("ramp".to_owned(), self.steps()?);
        }
        let mut metric = metric_of(&self.metric, &self.score);
        if !self.better.is_empty() {
            metric["better"] = json!(self.better);
        }
        document.insert("metric".to_owned(), metric);
        if !self.guard.is_empty() {
            let limit = number("guard_limit", &self.guard_limit)?;
            let limit = if self.guard == "error_rate" || self.guard == "blocked_rate" {
                limit / 100.0
            } else {
                limit
            };
            document.insert(
                "guards".to_owned(),
                json!([{
                    "metric": metric_of(&self.guard, &self.guard_score),
                    "limit": limit, "direction": self.guard_direction,
                }]),
            );
        }
        document.insert(
            "minimum_sample".to_owned(),
            json!(whole("minimum_sample", &self.minimum_sample)?),
        );
        document.insert(
            "alpha".to_owned(),
            json!(number("alpha", &self.alpha)? / 100.0),
        );
        if !self.equivalence.trim().is_empty() {
            let margin = number("equivalence", &self.equivalence)?;
            let in_percent = matches!(
                self.metric.as_str(),
                "latency" | "error_rate" | "blocked_rate"
            );
            let margin = if in_percent { margin / 100.0 } else { margin };
            document.insert("equivalence".to_owned(), json!(margin));
        }
        Ok(Value::Object(document))
    }

    fn arms(&self) -> Result<Value> {
        let arm = |name: &str, at: &'static str, version: &str| -> Result<Value> {
            let version = version.trim();
            if version.is_empty() {
                return Err(AppError::invalid("say which version").at(at));
            }
            // Digits are a version's number; anything else is a label.
            Ok(match version.trim_start_matches('v').parse::<i64>() {
                Ok(number) => json!({"name": name, "version": number}),
                Err(_) => json!({"name": name, "label": version}),
            })
        };
        let mut control = arm("control", "control", &self.control)?;
        control["control"] = json!(true);
        let mut candidate = arm("candidate", "candidate", &self.candidate)?;
        match self.mode.as_str() {
            "canary" | "bandit" => {}
            "shadow" => candidate["weight"] = json!(number("share", &self.share)? / 100.0),
            _ => {
                let share = number("share", &self.share)?;
                candidate["weight"] = json!(share);
                control["weight"] = json!(100.0 - share);
            }
        }
        Ok(json!([control, candidate]))
    }

    fn steps(&self) -> Result<Value> {
        let seconds = whole("step_minutes", &self.step_minutes)?.saturating_mul(60);
        let calls = whole("step_calls", &self.step_calls)?;
        let step = |text: &str| -> Result<Value> {
            let weight = number("ramp", text)? / 100.0;
            Ok(json!({"weight": weight, "at_least_s": seconds, "at_least_calls": calls}))
        };
        let texts = self
            .ramp
            .split([',', '、'])
            .filter(|text| !text.trim().is_empty());
        Ok(Value::Array(texts.map(step).collect::<Result<_>>()?))
    }

    fn values(&self) -> Value {
        json!({
            "name": self.name, "description": self.description, "kind": self.kind, "target": self.target,
            "pointer": self.pointer, "mode": self.mode, "unit": self.unit, "control": self.control,
            "candidate": self.candidate, "share": self.share, "ramp": self.ramp, "step_minutes": self.step_minutes,
            "step_calls": self.step_calls, "metric": self.metric, "score": self.score, "better": self.better,
            "guard": self.guard, "guard_score": self.guard_score, "guard_direction": self.guard_direction,
            "guard_limit": self.guard_limit, "minimum_sample": self.minimum_sample, "alpha": self.alpha,
            "equivalence": self.equivalence,
        })
    }
}

fn metric_of(kind: &str, score: &str) -> Value {
    if kind == "score" {
        json!({"kind": kind, "name": score.trim()})
    } else {
        json!({"kind": kind})
    }
}

fn number(at: &'static str, text: &str) -> Result<f64> {
    let typed = text.trim().trim_end_matches('%').trim();
    let number = typed
        .parse::<f64>()
        .ok()
        .filter(|number| number.is_finite());
    number.ok_or_else(|| {
        AppError::invalid(format!("{text:?} is not a number"))
            .code("not_a_number")
            .at(at)
    })
}

fn whole(at: &'static str, text: &str) -> Result<u64> {
    text.trim().parse().map_err(|_| {
        AppError::invalid(format!("{text:?} is not a whole number"))
            .code("not_a_number")
            .at(at)
    })
}

/// The form, with what the address says in it: a link from a prompt says which, and the
/// form asks for itself again when its target changes, to offer that one's versions.
async fn new(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Response> {
    let mut values = NewForm::empty().values();
    for (name, value) in query.iter().filter(|(_, value)| !value.is_empty()) {
        if let Some(field) = values.get_mut(name) {
            *field = json!(value);
        }
    }
    let form = NewForm::deserialize(values).map_err(anyhow::Error::from)?;
    render_new(&app, &page, &identity, StatusCode::OK, &form, json!({})).await
}

async fn render_new(
    app: &App,
    page: &PageContext,
    identity: &Identity,
    status: StatusCode,
    form: &NewForm,
    errors: Value,
) -> Result<Response> {
    let scope = identity.scope();
    let target = match form.kind.as_str() {
        "app" => crate::apps::APP,
        "guard" => crate::guards::KIND,
        _ => crate::prompts::KIND,
    };
    let request = PageRequest {
        cursor: None,
        limit: OFFERED,
    };
    let filter = NameFilter::default();
    let names = app
        .catalog
        .list_names(scope, target, &filter, &request)
        .await?;
    let targets: Vec<&str> = names
        .items
        .iter()
        .map(|one| one.latest.name.as_str())
        .collect();
    let versions = versions(app, identity, form).await?;
    // One that is not offered stands among the others, so that nothing typed is lost.
    let offer = |chosen: &str| {
        let is_there = chosen.is_empty() || versions.iter().any(|(value, _)| value == chosen);
        let own = (!is_there).then(|| (chosen.to_owned(), chosen.to_owned()));
        let all = versions.iter().chain(own.as_ref());
        all.map(|(value, label)| json!({"value": value, "label": label}))
            .collect::<Vec<_>>()
    };
    let view = json!({
        "values": form.values(), "errors": errors, "targets": targets, "known": !versions.is_empty(),
        "controls": offer(form.control.trim()), "candidates": offer(form.candidate.trim()),
    });
    page.render_with_status(status, "experiments/new.html", view)
        .await
}

/// What arms can be: labels, then the newest versions, each as the form sends it and as
/// people read it. Nothing where the target is not known.
async fn versions(app: &App, identity: &Identity, form: &NewForm) -> Result<Vec<(String, String)>> {
    let Ok(name) = form.target.trim().parse::<db::Name>() else {
        return Ok(Vec::new());
    };
    let scope = identity.scope();
    let kind = match form.kind.as_str() {
        "app" => TargetKind::App,
        "guard" => TargetKind::Guard,
        _ => TargetKind::Prompt,
    };
    let kind = kind.arm_kind();
    let request = PageRequest {
        cursor: None,
        limit: OFFERED,
    };
    let versions = app
        .catalog
        .list_versions(scope, kind, &name, &request)
        .await?;
    let pointers = app.catalog.pointers(scope, kind, &name).await?;
    let labels = pointers.iter().map(|pointer| {
        let label = format!("{} → v{}", pointer.label, pointer.number);
        (pointer.label.clone(), label)
    });
    let numbers = versions.items.iter().map(|version| {
        let mut label = format!("v{}", version.number);
        if !version.message.is_empty() {
            let message = base::text::reveal(&version.message);
            label = format!("{label} · {}", base::text::preview(&message, MESSAGE_CHARS));
        }
        (version.number.to_string(), label)
    });
    Ok(labels.chain(numbers).collect())
}

async fn create(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<NewForm>,
) -> Result<Response> {
    match save_form(&app, &identity, &form).await {
        Ok(name) => Ok(redirect(show_href(&page, name.as_str())).into_response()),
        Err(error) if error.status == StatusCode::BAD_REQUEST => {
            let errors = json!({field_of(error.at.as_deref()): error.message});
            render_new(
                &app,
                &page,
                &identity,
                StatusCode::UNPROCESSABLE_ENTITY,
                &form,
                errors,
            )
            .await
        }
        Err(error) => Err(error),
    }
}

async fn save_form(app: &App, identity: &Identity, form: &NewForm) -> Result<db::Name> {
    let name = super::parse_name(&form.name)?;
    let document = form.document()?;
    let desk = Desk::of(app);
    super::save_version(desk, identity.scope(), &name, &document, "").await?;
    Ok(name)
}

/// The field that shows a problem of the document.
fn field_of(at: Option<&str>) -> &str {
    let Some(at) = at else { return "form" };
    match at {
        "/target/name" => "target",
        "/metric/name" => "score",
        "/minimum_sample" => "minimum_sample",
        "/alpha" => "alpha",
        "/equivalence" => "equivalence",
        _ if at.starts_with("/target/") => "pointer",
        _ if at.starts_with("/arms/0/weight") || at.starts_with("/arms/1/weight") => "share",
        _ if at.starts_with("/arms/0") => "control",
        _ if at.starts_with("/arms/1") => "candidate",
        _ if at.starts_with("/ramp") => "ramp",
        _ if at.starts_with("/guards/0/metric") => "guard_score",
        _ if at.starts_with("/guards") => "guard_limit",
        _ if at.starts_with('/') => "form",
        field => field,
    }
}

#[derive(Deserialize)]
struct ShowQuery {
    name: String,
    run: Option<String>,
}

async fn show(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Query(query): Query<ShowQuery>,
) -> Result<Response> {
    let name = super::parse_name(&query.name)?;
    let (desk, scope) = (Desk::of(&app), identity.scope());
    let newest = super::find(desk, scope, &name, None).await?;
    let runs = super::runs(desk, scope, &name).await?;
    let (run, document) = match runs.is_empty() {
        true => (None, newest.document.clone()),
        false => {
            let found = super::find_run(desk, scope, &name, query.run.as_deref()).await?;
            (Some(found.0), found.1)
        }
    };
    let mut trouble = None;
    let run_shown = match &run {
        Some(run) => {
            let results = super::results(&app, run, &document).await;
            // The buttons must work even where the figures do not.
            let results = results.map_err(|error| trouble = Some(error.message)).ok();
            let now_us = app.clock.now_us();
            Some(run_view(&page, run, &document, results.as_deref(), now_us))
        }
        None => None,
    };
    let actors = runs.iter().map(|run| run.started_by.as_str());
    let actors = actors.chain(runs.iter().filter_map(|run| run.ended_by.as_deref()));
    let people = crate::members::actor_names(&app.db, scope.project, actors).await?;
    let href = show_href(&page, name.as_str());
    let shown = run.as_ref().map(|run| run.id.as_str());
    let run_rows: Vec<Value> = runs
        .iter()
        .map(|run| {
            json!({
                "href": format!("{href}&run={}", run.id), "state": run.state.name(), "version": run.version,
                "started_at": run.started_at, "started_by": people[&run.started_by], "ended_at": run.ended_at,
                "ended_by": run.ended_by.as_ref().map(|by| people[by].clone()), "reason": run.reason,
                "winner": run.winner, "selected": shown == Some(run.id.as_str()),
            })
        })
        .collect();
    let running = runs.iter().any(|run| run.state == RunState::Running);
    let view = json!({
        "name": name.as_str(), "href": href, "version": newest.version.number,
        "shown_version": run.as_ref().map_or(newest.version.number, |run| run.version),
        "document": document_view(&page, &document), "run": run_shown, "running": running,
        "runs": run_rows, "trouble": trouble,
        "self_href": match &query.run { Some(run) => format!("{href}&run={}", encode(run)), None => href.clone() },
    });
    page.render("experiments/show.html", view).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    name: String,
    #[serde(default)]
    arm: String,
    #[serde(default)]
    reason: String,
}

/// Back to the page, with what happened or why it did not.
fn back(page: &PageContext, name: &str, done: Result<String>) -> Result<Response> {
    let to = redirect(show_href(page, name));
    match done {
        Ok(text) => Ok(to.ok(text).into_response()),
        Err(error) if error.status.is_server_error() => Err(error),
        Err(error) if error.status == StatusCode::NOT_FOUND => Err(error),
        Err(error) => Ok(to.err(error.to_string()).into_response()),
    }
}

async fn start(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<Change>,
) -> Result<Response> {
    let name = super::parse_name(&form.name)?;
    let desk = Desk::of(&app);
    let started = super::start(desk, identity.scope(), &name, None, &form.reason).await;
    app.refresh_plan().await?;
    let done = started.map(|run| page.t_with("experiments-started", &[("target", &run.target)]));
    back(&page, name.as_str(), done)
}

async fn stop(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<Change>,
) -> Result<Response> {
    let name = super::parse_name(&form.name)?;
    let stopped = stop_run(&app, &identity, &name, &form.reason).await;
    let done = stopped.map(|run| page.t_with("experiments-stopped", &[("target", &run.target)]));
    back(&page, name.as_str(), done)
}

async fn promote(
    State(app): State<App>,
    page: PageContext,
    identity: Identity,
    Form(form): Form<Change>,
) -> Result<Response> {
    let name = super::parse_name(&form.name)?;
    let promoted = promote_arm(&app, &identity, &name, &form.arm, &form.reason).await;
    let done = promoted.map(|(run, promoted)| {
        let key = match promoted {
            Promoted::Moved => "experiments-promoted",
            Promoted::Proposed(_) => "experiments-proposed",
        };
        page.t_with(key, &[("target", &run.target), ("arm", &form.arm)])
    });
    back(&page, name.as_str(), done)
}
