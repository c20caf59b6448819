//! The worker of a feature's runs, and what its turn with one comes to.
//!
//! It stands apart from the worker for other jobs: a run may take hours, and its lease is
//! short, so that another server goes on soon after this one was killed. The lease is renewed
//! by the queue's worker; the feature's code only looks up now and then.

use std::future::Future;
use std::time::Duration;

use base::JobId;
use db::jobs::{JobContext, JobError, Worker, WorkerSettings};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};

use super::{Hold, Runs, State};
use crate::app::App;
use crate::error::AppError;

/// How long a worker may be silent before another takes over.
const LEASE: Duration = Duration::from_secs(10);
/// How often an idle worker looks for runs that another server put in.
const POLL: Duration = Duration::from_millis(500);
/// How often a worker looks whether somebody held or stopped its run.
const LOOK: Duration = Duration::from_millis(300);

/// How a worker's turn with a run ended.
pub(crate) enum End {
    /// Done, held, stopped or somebody else's: nothing more to do for this job.
    Finished,
    /// The server stops; the next one goes on at once.
    ServerStops,
}

/// Why a worker's turn with a run broke off.
pub(crate) enum Trouble {
    /// The same would happen again, so the run fails.
    Lasting(AppError),
    /// A later turn may do better.
    Passing(AppError),
}

impl Trouble {
    /// Of reading what the run was started with. What cannot be read now never can be.
    pub(crate) fn of_pinned(error: AppError) -> Self {
        match error.status.is_client_error() {
            true => Self::Lasting(error),
            false => Self::Passing(error),
        }
    }
}

impl From<AppError> for Trouble {
    fn from(error: AppError) -> Self {
        Self::Passing(error)
    }
}

/// What went wrong, for the run's reason or the queue.
pub(crate) fn explain(error: &AppError) -> String {
    match &error.source {
        Some(source) => format!("{}: {source:#}", error.message),
        None => error.message.clone(),
    }
}

/// When a worker looks up from its work: now and then, and when the server stops.
pub(crate) struct Looks {
    ticks: Interval,
    stopping: watch::Receiver<bool>,
}

impl Looks {
    pub(crate) fn new(app: &App) -> Self {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            ticks,
            stopping: app.stopping.subscribe(),
        }
    }

    /// Whether the server stops.
    pub(crate) fn server_stops(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits for the next look. Nothing is lost when this is dropped and called again.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.ticks.tick() => {}
            _ = self.stopping.changed() => {}
        }
    }
}

impl Runs {
    /// The worker that gives this feature's runs to `work`, one after the other.
    pub(crate) fn worker<F>(&'static self, app: &App, work: fn(App, Hold) -> F) -> Worker
    where
        F: Future<Output = Result<End, Trouble>> + Send + 'static,
    {
        let owner = format!(
            "{}-{}-{}",
            self.table,
            std::process::id(),
            app.ids.make::<JobId>()
        );
        let settings = WorkerSettings {
            concurrency: self.at_once,
            lease_ttl: LEASE,
            poll: POLL,
            ..WorkerSettings::new(owner)
        };
        let mut worker = Worker::new(app.db.clone(), settings);
        let app = app.clone();
        worker.register(self.noun, move |context| {
            let app = app.clone();
            async move { Box::pin(self.turn(app, context, work)).await }
        });
        worker
    }

    async fn turn<F>(
        &'static self,
        app: App,
        context: JobContext,
        work: fn(App, Hold) -> F,
    ) -> Result<(), JobError>
    where
        F: Future<Output = Result<End, Trouble>> + Send,
    {
        let job = &context.lease.job;
        let Some(project) = job.project else {
            return Err(JobError::Fatal("the job names no project".to_owned()));
        };
        let id = job.payload[self.noun].as_str().unwrap_or_default();
        let retry = |error: AppError| JobError::Retry(explain(&error));
        let taken = self.take(&app.db, project, id, &context.lease).await;
        let Some(hold) = taken.map_err(retry)? else {
            return Ok(());
        };
        match Box::pin(work(app.clone(), hold.clone())).await {
            Ok(End::Finished) => Ok(()),
            Ok(End::ServerStops) => {
                // Given back untried; where that fails, its lease runs out.
                let _ = db::jobs::release(&app.db, &context.lease).await;
                Ok(())
            }
            Err(Trouble::Lasting(error)) => {
                let reason = explain(&error);
                let gone = hold.let_go(&app.db, State::Running, State::Failed, &reason);
                gone.await.map_err(retry)?;
                (self.changed)(&app);
                Ok(())
            }
            Err(Trouble::Passing(error)) => Err(retry(error)),
        }
    }
}
