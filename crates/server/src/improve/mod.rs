//! Prompt improvement: a durable search for a better text of a prompt.
//!
//! | file | owns |
//! |---|---|
//! | `document.rs` | what is asked for |
//! | `begin.rs` | what its references mean when it starts; which examples are for what |
//! | `search.rs` | whose child comes next, what is better, what is merged: pure |
//! | `reflect.rs` | what the reflecting model is asked, and when its proposal may be tried |
//! | `merge.rs` | merging the changes of two texts |
//! | `answer.rs` | one answer to one example, with its scores |
//! | `work.rs` | the worker: from step to step |
//! | `verdict.rs` | the final comparison on what was held out |
//! | `store.rs` | improvements, steps, results and calls in the database |
//! | `events.rs` | progress as server-sent events |
//! | `api.rs`, `pages.rs`, `view.rs` | JSON routes, pages, what templates are given |
//!
//! The search never reads an example that is held out, and each of its decisions follows from
//! what is in the database and the seed, so that a worker which takes it over goes on as if
//! nothing had happened; an improvement is a durable run, as [`crate::runs`] says. Calls are those
//! of [`crate::evaluations`]: their traces' ids follow from what is asked, and none is paid for
//! twice.

mod answer;
mod api;
mod begin;
mod document;
mod events;
mod merge;
mod pages;
mod reflect;
mod search;
mod store;
mod verdict;
mod view;
mod work;

use base::NanoUsd;
use db::jobs::Worker;
use db::{Db, Scope};
use serde_json::{Value, json};

use crate::app::App;
use crate::error::{AppError, Result};
use crate::evaluations::Warning;
use crate::http::Route;
use crate::runs::{Logged, Runs, Successor};

pub use api::{ExampleCounts, ImprovementJson, StepJson};
pub use begin::{Pinned, Rows};
pub use document::{ImproveDocument, RowLimits, Shares, Splits};
pub use store::{Improvement, Phase, ResultRow, Step, StepKind, StepState};
pub use verdict::{Compared, Verdict};

pub use crate::runs::State;

/// Improvements as durable runs.
static RUNS: Runs = Runs {
    table: "improvements",
    noun: "improvement",
    not_found,
    keeps_start: true,
    at_once: 2,
    changed: |app| app.improvements.changed(),
};

/// Pages and API.
pub fn routes() -> Vec<Route> {
    let mut routes = api::routes();
    routes.extend(pages::routes());
    routes
}

/// What the operations work on.
#[derive(Clone, Copy)]
pub struct Desk<'a> {
    /// The server's parts.
    pub app: &'a App,
}

impl<'a> Desk<'a> {
    /// The server's.
    pub fn of(app: &'a App) -> Self {
        Self { app }
    }

    fn db(self) -> &'a Db {
        &self.app.db
    }
}

/// The worker that works on improvements.
pub fn worker(app: &App) -> Worker {
    RUNS.worker(app, work::run)
}

/// Starts an improvement.
///
/// # Errors
/// The document is wrong, names something that is not there, or its budget is too small.
pub async fn start(desk: Desk<'_>, scope: Scope, content: &Value) -> Result<Improvement> {
    let document = ImproveDocument::parse(content).map_err(db::CatalogError::Invalid)?;
    let mut pinned = begin::begin(desk.app, scope, &document).await?;
    let held_out = begin::held_out_key(&pinned);
    let before = store::with_held_out(desk.db(), scope.project, &held_out).await?;
    if before > 0 {
        pinned
            .warnings
            .push(Warning::HeldOutBefore { times: before });
    }
    let improvement = Improvement {
        id: RUNS.new_id(desk.db()),
        project: scope.project,
        prompt: pinned.prompt.name.clone(),
        document,
        pinned,
        state: State::Queued,
        reason: String::new(),
        phase: Phase::Start,
        ended_by: String::new(),
        started_by: scope.actor.to_string(),
        created_at: desk.db().now_us(),
        started_at: None,
        ended_at: None,
        worked_us: 0,
        calls: 0,
        spent: NanoUsd(0),
        unpriced: 0,
        failures: 0,
        verdict: None,
    };
    let mut tx = desk.db().begin_write().await?;
    store::insert(&mut tx, &improvement, &held_out).await?;
    let detail = json!({
        "prompt": improvement.prompt, "version": improvement.pinned.prompt.number,
        "dataset": improvement.pinned.suite.dataset.name, "reflector": improvement.document.reflector,
        "budget_calls": improvement.document.budget_calls,
    });
    let object = improvement.id.as_str();
    let logged = Logged { object, detail };
    RUNS.start(desk.app, tx, scope, object, logged).await?;
    Ok(improvement)
}

/// One improvement of the project.
///
/// # Errors
/// 404 when there is none.
pub async fn find(desk: Desk<'_>, scope: Scope, id: &str) -> Result<Improvement> {
    let found = store::find(desk.db(), scope.project, id).await?;
    found.ok_or_else(not_found)
}

fn not_found() -> AppError {
    AppError::not_found("there is no such improvement").code("improvement_not_found")
}

/// The newest improvements before this one, of one prompt or of all.
///
/// # Errors
/// The database cannot be read.
pub async fn list(
    desk: Desk<'_>,
    scope: Scope,
    prompt: Option<&str>,
    before: Option<(i64, String)>,
    limit: i64,
) -> Result<Vec<Improvement>> {
    store::list(desk.db(), scope.project, prompt, before, limit).await
}

/// What was tried and what came of it, for showing it.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Every step, the start first.
    pub steps: Vec<Step>,
    /// By step: what is known of its answers.
    pub standings: Vec<Standing>,
    /// The best step so far.
    pub best: i64,
}

/// How a step's text stands on the selection examples.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// The step.
    pub number: i64,
    /// Its mean score, where there is one.
    pub mean: Option<f64>,
    /// Examples that it has a score on.
    pub scored: usize,
    /// Its gain over the start, as a mean over all selection examples.
    pub gain: f64,
    /// Examples on which nobody is better.
    pub wins: Vec<i64>,
    /// Its scores, by place.
    pub scores: std::collections::BTreeMap<i64, f64>,
    /// Whether it is on the frontier that parents are drawn from.
    pub frontier: bool,
}

/// What was tried and what came of it.
///
/// # Errors
/// The database cannot be read.
pub async fn progress(desk: Desk<'_>, improvement: &Improvement) -> Result<Progress> {
    let (db, project, id) = (desk.db(), improvement.project, improvement.id.as_str());
    let steps = store::steps(db, project, id).await?;
    let scores = store::objectives(db, project, id).await?;
    let members = work::members(&steps);
    let known = search::Known {
        seed: improvement.document.seed,
        members: &members,
        scores: &scores,
        selection: &improvement.pinned.rows.selection,
        train: &improvement.pinned.rows.train,
    };
    let (wins, frontier, best) = (known.wins(), known.frontier(), known.best());
    let selection = &improvement.pinned.rows.selection;
    let standings = steps.iter().map(|step| {
        let own = scores.get(&step.number);
        let on: std::collections::BTreeMap<i64, f64> = selection
            .iter()
            .filter_map(|place| Some((*place, *own?.get(place)?)))
            .collect();
        #[expect(clippy::cast_precision_loss, reason = "counts of examples")]
        let mean = (!on.is_empty()).then(|| on.values().sum::<f64>() / on.len() as f64);
        #[expect(clippy::cast_precision_loss, reason = "counts of examples")]
        let gain = known.gain(step.number) / selection.len().max(1) as f64;
        Standing {
            number: step.number,
            mean,
            scored: on.len(),
            gain,
            wins: wins.get(&step.number).cloned().unwrap_or_default(),
            scores: on,
            frontier: frontier.contains_key(&step.number),
        }
    });
    Ok(Progress {
        standings: standings.collect(),
        best,
        steps,
    })
}

/// The answers of one step, by place.
///
/// # Errors
/// The database cannot be read.
pub async fn results(
    desk: Desk<'_>,
    improvement: &Improvement,
    number: i64,
) -> Result<Vec<ResultRow>> {
    store::results(desk.db(), improvement.project, &improvement.id, number).await
}

/// Holds an improvement: calls that are under way end and count, no more begin.
///
/// # Errors
/// It has ended, or is held already.
pub async fn pause(desk: Desk<'_>, scope: Scope, id: &str, reason: &str) -> Result<Improvement> {
    RUNS.pause(desk.app, scope, id, reason, Logged::of(id))
        .await?;
    find(desk, scope, id).await
}

/// Ends an improvement before its end; the versions that it made stay.
///
/// # Errors
/// It has ended.
pub async fn stop(desk: Desk<'_>, scope: Scope, id: &str, reason: &str) -> Result<Improvement> {
    RUNS.stop(desk.app, scope, id, reason, Logged::of(id))
        .await?;
    find(desk, scope, id).await
}

/// A raised budget.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Raise {
    /// Calls in all.
    pub budget_calls: Option<u64>,
    /// US dollars in all.
    pub budget_usd: Option<f64>,
}

/// Lets a held improvement go on, with a raised budget where one is given. Answers that could
/// not be had are asked for anew.
///
/// # Errors
/// It is not held, or the budget is no amount.
pub async fn resume(desk: Desk<'_>, scope: Scope, id: &str, raise: Raise) -> Result<Improvement> {
    let mut tx = RUNS.begin_resume(desk.app, scope, id).await?;
    let found = store::find_in(&mut tx, scope.project, id).await?;
    let found = found.ok_or_else(not_found)?;
    let document = ImproveDocument {
        budget_calls: raise.budget_calls.unwrap_or(found.document.budget_calls),
        budget_usd: raise.budget_usd.or(found.document.budget_usd),
        ..found.document
    };
    ImproveDocument::parse(&document.to_value()).map_err(db::CatalogError::Invalid)?;
    store::set_document(&mut tx, scope.project, id, &document).await?;
    store::ask_errors_again(&mut tx, scope.project, id).await?;
    let detail = json!({"budget_calls": raise.budget_calls, "budget_usd": raise.budget_usd});
    let logged = Logged { object: id, detail };
    // A worker that still ends its calls begins anew by itself, with the raised budget.
    let successor = Successor::SameWorker;
    RUNS.resume(desk.app, tx, scope, id, successor, logged)
        .await?;
    find(desk, scope, id).await
}
