//! Pulls as jobs: they survive a restart, are tried again when the network
//! fails, and can be watched.
//!
//! The queue knows that a pull exists and how it ended; how far it is lives in
//! memory, in the process that runs it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use base::JobId;
use db::jobs::{Job, JobContext, JobError, JobState, NewJob, Worker};
use db::{Actor, PageRequest, audit, jobs};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::{PullError, PullFault};
use super::progress::Progress;
use super::pull::{Puller, pull_now};
use super::reference::ModelRef;
use crate::app::App;
use crate::error::{AppError, Result};

/// The name of the handler.
const PULL: &str = "model.pull";

/// Pulls that a list looks back at.
const SHOWN: usize = 20;

/// What a pull works on.
#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    #[serde(rename = "ref")]
    source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    actor: String,
}

/// The running pulls of this process, and what they found out about the network.
#[derive(Debug, Default)]
pub struct Pulls {
    running: Mutex<HashMap<JobId, Progress>>,
    network: AtomicU8,
}

impl Pulls {
    fn set(&self, id: JobId, progress: Progress) {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, progress);
    }

    fn get(&self, id: JobId) -> Option<Progress> {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned()
    }

    fn forget(&self, id: JobId) {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
    }

    /// Remembers whether the hub answered, right or wrong.
    pub(super) fn note(&self, source: &ModelRef, failed: Option<&PullError>) {
        if let ModelRef::Hub(_) = source {
            let offline = failed.is_some_and(|error| error.fault == PullFault::Unreachable);
            self.network
                .store(if offline { 2 } else { 1 }, Ordering::Relaxed);
        }
    }

    /// Whether the hub answered the last time: `ok`, `offline` or `unknown`.
    pub fn network(&self) -> &'static str {
        match self.network.load(Ordering::Relaxed) {
            1 => "ok",
            2 => "offline",
            _ => "unknown",
        }
    }
}

/// Removes a pull's progress when its attempt ends, however it ends.
struct Watched<'a> {
    pulls: &'a Pulls,
    id: JobId,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.pulls.forget(self.id);
    }
}

/// A pull as it is shown.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PullState {
    /// Names the pull.
    pub id: String,
    /// What is pulled.
    #[serde(rename = "ref")]
    pub source: String,
    /// `queued`, `running`, `stopping`, `stopped`, `done` or `failed`.
    pub state: &'static str,
    /// How far it is; zeros where it does not run.
    #[serde(flatten)]
    pub progress: Progress,
    /// Why it failed, or why its last attempt did.
    pub error: Option<String>,
    /// When it was asked for, microseconds since the epoch.
    pub created_at: i64,
    /// When it ended.
    pub finished_at: Option<i64>,
}

/// Tells the worker how to pull.
pub fn register_jobs(app: &App, worker: &mut Worker) {
    let app = app.clone();
    worker.register(PULL, move |context| run(app.clone(), context));
}

/// Puts a pull into the queue. One that waits or runs for the same reference is found, not doubled.
pub(super) async fn enqueue(
    app: &App,
    actor: Actor,
    source: &ModelRef,
    name: Option<&str>,
) -> Result<JobId> {
    let payload = Payload {
        source: source.to_string(),
        name: name.map(str::to_owned),
        actor: actor.to_string(),
    };
    put(app, actor, payload).await
}

async fn put(app: &App, actor: Actor, payload: Payload) -> Result<JobId> {
    if let Some(running) = recent(app)
        .await?
        .into_iter()
        .find(|pull| pull.source == payload.source && is_open(pull))
    {
        return running
            .id
            .parse()
            .map_err(|error: base::BadId| AppError::internal(error));
    }
    let mut tx = app.db.begin_write().await?;
    let source = payload.source.clone();
    let value = serde_json::to_value(&payload).map_err(anyhow::Error::from)?;
    let id = jobs::enqueue(&mut tx, NewJob::new(PULL, value)).await?;
    audit::write(
        &mut tx,
        None,
        actor,
        "model.ask",
        &source,
        &json!({"job": id.to_string()}),
    )
    .await?;
    tx.commit().await?;
    Ok(id)
}

fn is_open(pull: &PullState) -> bool {
    matches!(pull.state, "queued" | "running" | "stopping")
}

async fn run(app: App, context: JobContext) -> Result<(), JobError> {
    let id = context.lease.job.id;
    let payload: Payload = serde_json::from_value(context.lease.job.payload.clone())
        .map_err(|error| JobError::Fatal(format!("the job's payload is not readable: {error}")))?;
    let _watched = Watched {
        pulls: &app.engine.pulls,
        id,
    };
    app.engine.pulls.set(id, Progress::default());
    match Box::pin(pull(&app, id, &payload)).await {
        Ok(()) => {
            let refreshed = app.engine.refresh().await;
            refreshed.map_err(|error| {
                JobError::Retry(format!("reading the installed models: {error:#}"))
            })
        }
        Err(error) if error.is_temporary() => Err(JobError::Retry(error.message)),
        Err(error) => Err(JobError::Fatal(error.message)),
    }
}

async fn pull(app: &App, id: JobId, payload: &Payload) -> Result<(), PullError> {
    let puller = Puller::new(app.db.clone(), app.egress.clone(), &app.config)?;
    let source: ModelRef = payload.source.parse()?;
    let actor = payload.actor.parse().unwrap_or(Actor::System);
    let pulls = &app.engine.pulls;
    let tell = |progress| pulls.set(id, progress);
    let done = pull_now(&puller, &source, payload.name.as_deref(), actor, &tell).await;
    pulls.note(&source, done.as_ref().err());
    match done {
        Ok(model) => {
            tracing::info!(model.name = %model.name, source = %model.source, "model {} is installed", model.name);
            Ok(())
        }
        Err(error) => {
            tracing::warn!(job.id = %id, source = %payload.source, "a pull failed: {error}");
            Err(error)
        }
    }
}

/// The last pulls, newest first.
pub(super) async fn recent(app: &App) -> Result<Vec<PullState>> {
    let page = PageRequest {
        limit: 200,
        ..PageRequest::default()
    };
    let jobs = jobs::list(&app.db, None, &page)
        .await
        .map_err(anyhow::Error::from)?;
    let pulls = jobs
        .items
        .into_iter()
        .filter(|job| job.kind == PULL)
        .take(SHOWN);
    Ok(pulls.map(|job| state(app, job)).collect())
}

/// One pull.
pub(super) async fn find(app: &App, id: &str) -> Result<PullState> {
    let unknown = || AppError::not_found(format!("there is no pull {id:?}"));
    let id: JobId = id.parse().map_err(|_| unknown())?;
    let job = jobs::get(&app.db, None, id)
        .await?
        .filter(|job| job.kind == PULL)
        .ok_or_else(unknown)?;
    Ok(state(app, job))
}

/// Stops a pull. What has come of its files stays for the next attempt.
pub(super) async fn cancel(app: &App, actor: Actor, id: &str) -> Result<()> {
    let pull = find(app, id).await?;
    let mut tx = app.db.begin_write().await?;
    let id: JobId = pull
        .id
        .parse()
        .map_err(|error: base::BadId| AppError::internal(error))?;
    if jobs::cancel(&mut tx, None, id).await? {
        audit::write(
            &mut tx,
            None,
            actor,
            "model.cancel",
            &pull.source,
            &json!({"job": pull.id}),
        )
        .await?;
        tx.commit().await?;
    }
    Ok(())
}

fn state(app: &App, job: Job) -> PullState {
    let source = job
        .payload
        .get("ref")
        .and_then(|source| source.as_str())
        .unwrap_or_default()
        .to_owned();
    let (state, error) = match job.state {
        JobState::Ready => ("queued", job.error),
        JobState::Leased if job.cancel_requested => ("stopping", None),
        JobState::Leased => ("running", None),
        JobState::Done => ("done", None),
        JobState::Dead => ("failed", job.error),
        JobState::Cancelled => ("stopped", None),
    };
    PullState {
        id: job.id.to_string(),
        source,
        state,
        progress: app.engine.pulls.get(job.id).unwrap_or_default(),
        error,
        created_at: job.created_at,
        finished_at: job.finished_at,
    }
}
