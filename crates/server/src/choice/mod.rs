//! Choosing a model: what is known of models, a shortlist by properties, rounds on growing
//! samples, finalists on everything, and the probability that each is the best.
//!
//! | file | owns |
//! |---|---|
//! | `catalog.toml`, `properties.rs` | what is known of models, filters, a project's own entries |
//! | `document.rs` | the task, the document that a choice ends in |
//! | `store.rs` | choices in the database |
//! | `work.rs` | the worker: one round after the other, each an ordinary evaluation |
//! | `weigh.rs` | from measurements to figures, to who is dropped, to the result by any weights |
//! | `cite.rs` | evidence for a release or a prompt |
//! | `chart.rs` | where the marks of the chart stand |
//! | `api.rs`, `pages.rs`, `view.rs` | JSON routes, pages, what templates are given |
//! | `card_page.rs` | the form of a project's own entry |
//!
//! A choice asks no model itself: each round is an evaluation, which measures, pays, is
//! held and goes on after a kill as evaluations do, and whose cache makes a larger sample
//! pay for its new examples only. A choice decides which evaluation is next. It is
//! a durable run as they are ([`crate::runs`]).

mod api;
mod card_page;
mod chart;
mod cite;
mod document;
mod pages;
mod properties;
mod store;
mod view;
mod weigh;
mod work;

use base::{Digest, ProjectId};
use db::jobs::Worker;
use db::{Db, Name, Reference, Scope, Selector};
use serde_json::{Value, json};

use crate::app::App;
use crate::error::{AppError, Result};
use crate::evaluations::{self, Evaluation, EvaluatorUse, Examined, Pinned, PromptUse};
use crate::http::Route;
use crate::runs::{Logged, Runs, State, Successor};

pub use api::{ChoiceJson, ChoiceShown};
pub use cite::{Cited, Subject};
pub use document::{
    ChoiceDocument, ChoiceLimits, ChoiceResult, ChoiceTask, Excluded, Finalist, KIND, ModelFigures,
    Round, Weights, kind,
};
pub use properties::{
    KIND as CARD_KIND, KnownModel, ModelCard, Wanted, kind as card_kind, known_models,
};
pub use store::{Choice, Progress};

/// Choices as durable runs. Their workers mostly wait.
static RUNS: Runs = Runs {
    table: "choices",
    noun: "choice",
    not_found,
    keeps_start: false,
    at_once: 16,
    // Nobody follows a choice: its pages ask again.
    changed: |_| {},
};

/// Pages and API.
pub fn routes() -> Vec<Route> {
    let mut routes = api::routes();
    routes.extend(pages::routes());
    routes
}

/// The worker that looks after choices.
pub fn worker(app: &App) -> Worker {
    RUNS.worker(app, work::run)
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

    fn evaluations(self) -> evaluations::Desk<'a> {
        evaluations::Desk::of(self.app)
    }
}

/// Starts a choice. Models whose properties break a limit are left out and named; every
/// other mistake is said before anything is asked.
///
/// # Errors
/// The task is wrong, names something that is not there, or leaves fewer than two models.
pub async fn start(desk: Desk<'_>, scope: Scope, name: &Name, task: &Value) -> Result<Choice> {
    let task = ChoiceTask::parse(task).map_err(db::CatalogError::Invalid)?;
    let (excluded, left) = shortlist(desk.app, scope, &task).await?;
    let suite = task.suite(&left, None, None).to_value();
    let examined = evaluations::examine(desk.evaluations(), scope, &suite).await?;
    weigh::Yardstick::of(&task, &examined.pinned)?;
    let Examined {
        pinned, examples, ..
    } = examined;
    let choice = Choice {
        id: RUNS.new_id(desk.db()),
        project: scope.project,
        name: name.to_string(),
        budget: task.budget_usd.map(nano),
        task: pinned_task(task, &pinned),
        progress: Progress {
            excluded,
            examples,
            dataset: pinned.dataset.digest.to_string(),
            rounds: Vec::new(),
            scales: None,
        },
        state: State::Queued,
        reason: String::new(),
        version: None,
        started_by: scope.actor.to_string(),
        created_at: desk.db().now_us(),
        ended_at: None,
    };
    let mut tx = desk.db().begin_write().await?;
    store::insert(&mut tx, &choice).await?;
    let detail = json!({"choice": choice.id, "models": left, "dataset": choice.task.dataset, "examples": examples});
    let logged = logged(&choice, detail);
    RUNS.start(desk.app, tx, scope, &choice.id, logged).await?;
    Ok(choice)
}

/// Who is left out by properties, and who is left.
async fn shortlist(
    app: &App,
    scope: Scope,
    task: &ChoiceTask,
) -> Result<(Vec<Excluded>, Vec<String>)> {
    let mut excluded = Vec::new();
    let mut left = Vec::new();
    let models = properties::look_up(app, scope, &task.models).await?;
    for (index, (id, model)) in task.models.iter().zip(models).enumerate() {
        let unmet = task.limits.properties.unmet(&model);
        if !unmet.is_empty() {
            excluded.push(Excluded {
                model: id.clone(),
                unmet,
            });
            continue;
        }
        if model.price.is_none() {
            return Err(AppError::invalid(format!(
                "nobody knows the price of {id}, so its cost cannot be weighed"
            ))
            .code("unpriced_model")
            .at(format!("/models/{index}"))
            .hint("set its price with PUT /api/v1/prices; a price of 0 says that it is free"));
        }
        left.push(id.clone());
    }
    if left.len() < 2 {
        let names: Vec<String> = excluded
            .iter()
            .map(|one| {
                let unmet: Vec<&str> = one.unmet.iter().map(|unmet| unmet.name()).collect();
                format!("{} ({})", one.model, unmet.join(", "))
            })
            .collect();
        return Err(AppError::invalid(format!(
            "the limits leave fewer than two models: out are {}",
            names.join(", ")
        ))
        .code("nothing_to_choose")
        .at("/limits/properties"));
    }
    Ok((excluded, left))
}

/// The task with every reference at the version that it stands for now, so that all
/// rounds measure the same.
fn pinned_task(mut task: ChoiceTask, pinned: &Pinned) -> ChoiceTask {
    task.dataset = format!("dataset:{}@{}", pinned.dataset.name, pinned.dataset.number);
    let prompt = pinned
        .candidates
        .first()
        .and_then(|one| one.prompt.as_ref());
    if let (Some(PromptUse::Reference(text)), Some(prompt)) = (&mut task.prompt, prompt) {
        *text = format!("prompt:{}@{}", prompt.name, prompt.number);
    }
    for (used, pinned) in task.evaluators.iter_mut().zip(&pinned.evaluators) {
        let Some(number) = pinned.version else {
            continue;
        };
        let at_number = |text: &str| {
            let reference = Reference::parse_at("", text).ok()?;
            Some(format!("evaluator:{}@{number}", reference.name))
        };
        match used {
            EvaluatorUse::Reference(text) => {
                if let Some(pinned) = at_number(text) {
                    *text = pinned;
                }
            }
            EvaluatorUse::Inline(inline) => {
                if let Some(pinned) = inline.evaluator.as_str().and_then(at_number) {
                    inline.evaluator = json!(pinned);
                }
            }
        }
    }
    task
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "budgets are at most a million dollars"
)]
fn nano(usd: f64) -> i64 {
    (usd * 1e9) as i64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nano-dollars are far below 2^53"
)]
fn usd(nano: i64) -> f64 {
    nano as f64 / 1e9
}

/// One choice of the project.
///
/// # Errors
/// 404 when there is none.
pub async fn find(desk: Desk<'_>, scope: Scope, id: &str) -> Result<Choice> {
    let found = store::find(desk.db(), scope.project, id).await?;
    found.ok_or_else(not_found)
}

fn not_found() -> AppError {
    AppError::not_found("there is no such choice").code("choice_not_found")
}

/// The newest choices before this one.
///
/// # Errors
/// The database cannot be read.
pub async fn list(
    desk: Desk<'_>,
    scope: Scope,
    before: Option<(i64, String)>,
    limit: i64,
) -> Result<Vec<Choice>> {
    store::list(desk.db(), scope.project, before, limit).await
}

/// Holds a choice and the evaluation that it waits for.
///
/// # Errors
/// It has ended, or is held already.
pub async fn pause(desk: Desk<'_>, scope: Scope, id: &str, reason: &str) -> Result<Choice> {
    let found = find(desk, scope, id).await?;
    let logged = logged(&found, json!({"choice": id}));
    RUNS.pause(desk.app, scope, id, reason, logged).await?;
    let changed = find(desk, scope, id).await?;
    if let Some(evaluation) = current(desk, &changed).await?
        && evaluation.state.is_active()
    {
        let paused = evaluations::pause(desk.evaluations(), scope, &evaluation.id, reason).await;
        unless_too_late(paused)?;
    }
    Ok(changed)
}

/// Ends a choice before its end, and the evaluation that it waits for; what was measured stays.
///
/// # Errors
/// It has ended.
pub async fn stop(desk: Desk<'_>, scope: Scope, id: &str, reason: &str) -> Result<Choice> {
    let found = find(desk, scope, id).await?;
    let logged = logged(&found, json!({"choice": id}));
    RUNS.stop(desk.app, scope, id, reason, logged).await?;
    let changed = find(desk, scope, id).await?;
    if let Some(evaluation) = current(desk, &changed).await?
        && !evaluation.state.is_final()
    {
        let stopped = evaluations::stop(desk.evaluations(), scope, &evaluation.id, reason).await;
        unless_too_late(stopped)?;
    }
    Ok(changed)
}

/// An evaluation that ended meanwhile needs neither holding nor stopping.
fn unless_too_late(changed: Result<Evaluation>) -> Result<()> {
    match changed {
        Err(error) if error.status != axum::http::StatusCode::CONFLICT => Err(error),
        _ => Ok(()),
    }
}

/// The audit log knows choices by their names, which several may share.
fn logged(choice: &Choice, detail: Value) -> Logged<'_> {
    Logged {
        object: &choice.name,
        detail,
    }
}

/// Lets a held choice go on, with a raised budget where one is given.
///
/// # Errors
/// It is not held, or the budget is no amount.
pub async fn resume(
    desk: Desk<'_>,
    scope: Scope,
    id: &str,
    budget_usd: Option<f64>,
) -> Result<Choice> {
    if budget_usd.is_some_and(|budget| !(budget.is_finite() && budget > 0.0 && budget <= 1e6)) {
        return Err(AppError::invalid("a budget is a number of dollars above 0").at("budget_usd"));
    }
    let mut tx = RUNS.begin_resume(desk.app, scope, id).await?;
    let found = store::find_in(&mut tx, scope.project, id).await?;
    let found = found.ok_or_else(not_found)?;
    if let Some(budget) = budget_usd {
        store::set_budget(&mut tx, scope.project, id, nano(budget)).await?;
    }
    let logged = logged(&found, json!({"choice": id, "budget_usd": budget_usd}));
    // A worker that has not seen yet that the choice was held has another budget in mind.
    let successor = Successor::NewWorker;
    RUNS.resume(desk.app, tx, scope, id, successor, logged)
        .await?;
    find(desk, scope, id).await
}

/// The evaluation that a choice waits for.
async fn current(desk: Desk<'_>, choice: &Choice) -> Result<Option<Evaluation>> {
    let Some(round) = choice.current() else {
        return Ok(None);
    };
    let scope = scope_of(choice);
    Ok(Some(
        evaluations::find(desk.evaluations(), scope, &round.evaluation).await?,
    ))
}

/// Who a choice works for: whoever started it.
fn scope_of(choice: &Choice) -> Scope {
    Scope {
        project: choice.project,
        actor: choice.started_by.parse().unwrap_or(db::Actor::System),
    }
}

/// What a choice has shown, by these weights and limits. None before its last round is done.
///
/// # Errors
/// The evaluation cannot be read, or the weights are none.
pub async fn result_of(
    desk: Desk<'_>,
    choice: &Choice,
    weights: Weights,
    limits: &ChoiceLimits,
) -> Result<Option<ChoiceResult>> {
    let last = choice.progress.rounds.last();
    let Some(round) = last.filter(|round| round.is_final && round.done) else {
        return Ok(None);
    };
    let as_asked = weights == choice.task.weights && *limits == choice.task.limits;
    if let Some(version) = choice.version.filter(|_| as_asked)
        && let Some(document) = saved(desk, choice, version).await?
    {
        return Ok(Some(document.result));
    }
    let evaluation =
        evaluations::find(desk.evaluations(), scope_of(choice), &round.evaluation).await?;
    let sheet = sheet_of(desk, choice, &round.models, &evaluation).await?;
    let (limits, seed) = (limits.clone(), choice.task.seed);
    let found =
        tokio::task::spawn_blocking(move || weigh::weigh(&sheet, weights, &limits, seed)).await;
    Ok(Some(found.map_err(AppError::internal)??))
}

async fn sheet_of(
    desk: Desk<'_>,
    choice: &Choice,
    models: &[String],
    evaluation: &Evaluation,
) -> Result<weigh::Sheet> {
    let yardstick = weigh::Yardstick::of(&choice.task, &evaluation.pinned)?;
    let measured = evaluations::measurements(desk.evaluations(), evaluation).await?;
    Ok(weigh::Sheet::new(models, &measured, &yardstick))
}

/// The document that a choice ended in.
async fn saved(desk: Desk<'_>, choice: &Choice, version: i64) -> Result<Option<ChoiceDocument>> {
    let Ok(name) = choice.name.parse::<Name>() else {
        return Ok(None);
    };
    let found = desk
        .app
        .catalog
        .version(scope_of(choice), KIND, &name, &Selector::Number(version))
        .await?;
    Ok(found.and_then(|found| serde_json::from_value(found.content).ok()))
}

/// The digest of a dataset as progress keeps it.
fn digest_of(progress: &Progress) -> Option<Digest> {
    progress.dataset.parse().ok()
}

/// Names of documents of a kind, for a choice in a form.
async fn names(app: &App, project: ProjectId, kind: &str) -> Result<Vec<String>> {
    let scope = Scope {
        project,
        actor: db::Actor::System,
    };
    crate::catalog::offered_names(&app.catalog, scope, kind).await
}
