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
//! pay for its new examples only. A choice decides which evaluation is next. Its worker
//! holds a lease and a fence as theirs do.

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

use std::time::Duration;

use base::{Digest, ProjectId};
use db::jobs::{NewJob, Worker, WorkerSettings};
use db::{Db, Name, Reference, Scope, Selector, WriteTx};
use serde_json::{Value, json};

use crate::app::App;
use crate::error::{AppError, Result};
use crate::evaluations::{self, Evaluation, EvaluatorUse, Examined, Pinned, PromptUse, State};
use crate::http::Route;

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

/// The queue's word for the work on a choice.
const JOB: &str = "choice";
/// A worker's losses before its job is given up: each kill of the server is one.
const MOST_LOSSES: i64 = 1000;
/// How long a worker may be silent before another takes over.
const LEASE: Duration = Duration::from_secs(10);
/// Choices that are looked after at once in this process; they mostly wait.
const AT_ONCE: usize = 16;

/// Pages and API.
pub fn routes() -> Vec<Route> {
    let mut routes = api::routes();
    routes.extend(pages::routes());
    routes
}

/// The worker that looks after choices.
pub fn worker(app: &App) -> Worker {
    let owner = format!(
        "choices-{}-{}",
        std::process::id(),
        app.ids.make::<base::JobId>()
    );
    let settings = WorkerSettings {
        concurrency: AT_ONCE,
        lease_ttl: LEASE,
        poll: Duration::from_millis(500),
        ..WorkerSettings::new(owner)
    };
    let mut worker = Worker::new(app.db.clone(), settings);
    let app = app.clone();
    worker.register(JOB, move |context| {
        let app = app.clone();
        async move { Box::pin(work::run(app, context)).await }
    });
    worker
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
        id: store::new_id(desk.db()),
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
        holder: None,
        version: None,
        started_by: scope.actor.to_string(),
        created_at: desk.db().now_us(),
        ended_at: None,
    };
    let mut tx = desk.db().begin_write().await?;
    store::insert(&mut tx, &choice).await?;
    hand_to_job(&mut tx, &choice, choice.budget).await?;
    let detail = json!({"choice": choice.id, "models": left, "dataset": choice.task.dataset, "examples": examples});
    audit(&mut tx, scope, "choice.start", &choice.name, "", detail).await?;
    tx.commit().await?;
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

async fn hand_to_job(tx: &mut WriteTx, choice: &Choice, budget: Option<i64>) -> Result<()> {
    let job = NewJob {
        project: Some(choice.project),
        max_attempts: MOST_LOSSES,
        ..NewJob::new(JOB, json!({"choice": choice.id}))
    };
    let job = db::jobs::enqueue(tx, job).await?.to_string();
    store::set_holder(tx, choice.project, &choice.id, &job, budget).await
}

async fn audit(
    tx: &mut WriteTx,
    scope: Scope,
    action: &str,
    object: &str,
    reason: &str,
    detail: Value,
) -> Result<()> {
    let line = db::audit::Line::new(scope, action, object);
    Ok(line.detail(detail).reason(reason).write(tx).await?)
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
    let from = [State::Queued, State::Running];
    let changed = change(
        desk,
        scope,
        id,
        &from,
        State::Paused,
        "choice.pause",
        reason,
    )
    .await?;
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
    let from = [State::Queued, State::Running, State::Paused];
    let changed = change(
        desk,
        scope,
        id,
        &from,
        State::Stopped,
        "choice.stop",
        reason,
    )
    .await?;
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

async fn change(
    desk: Desk<'_>,
    scope: Scope,
    id: &str,
    from: &[State],
    to: State,
    action: &str,
    reason: &str,
) -> Result<Choice> {
    let reason: String = reason.trim().chars().take(2000).collect();
    let mut tx = desk.db().begin_write().await?;
    tx.serialise().await?;
    let found = store::find_in(&mut tx, scope.project, id)
        .await?
        .ok_or_else(not_found)?;
    if !store::set_state(&mut tx, scope.project, id, from, to, &reason).await? {
        let message = format!("the choice is {} already", found.state.name());
        return Err(AppError::conflict(message).code("wrong_state"));
    }
    let detail = json!({"choice": id});
    audit(&mut tx, scope, action, &found.name, &reason, detail).await?;
    tx.commit().await?;
    find(desk, scope, id).await
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
    let mut tx = desk.db().begin_write().await?;
    tx.serialise().await?;
    let found = store::find_in(&mut tx, scope.project, id)
        .await?
        .ok_or_else(not_found)?;
    if found.state != State::Paused {
        let message = format!(
            "the choice is {}; only a paused one can go on",
            found.state.name()
        );
        return Err(AppError::conflict(message).code("wrong_state"));
    }
    let budget = budget_usd.map(nano).or(found.budget);
    let from = [State::Paused];
    store::set_state(&mut tx, scope.project, id, &from, State::Queued, "").await?;
    hand_to_job(&mut tx, &found, budget).await?;
    let detail = json!({"choice": id, "budget_usd": budget_usd});
    audit(&mut tx, scope, "choice.resume", &found.name, "", detail).await?;
    tx.commit().await?;
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
    let page = db::PageRequest {
        cursor: None,
        limit: 200,
    };
    let found = app
        .catalog
        .list_names(scope, kind, &db::NameFilter::default(), &page)
        .await?;
    Ok(found
        .items
        .into_iter()
        .map(|one| one.latest.name.to_string())
        .collect())
}
