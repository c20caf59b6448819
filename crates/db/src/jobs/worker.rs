//! The loop that leases jobs and runs their handlers.
//!
//! Each running job has one task that owns its lease: it extends the lease
//! beside the handler and drops the handler when the lease is lost or the job
//! cancelled. A handler must therefore not block its thread; long computing
//! goes to a blocking thread, and what it writes goes through
//! [`complete_in`](super::complete_in) or is safe to write twice.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

use super::{Lease, LeaseCheck, complete, extend, fail, finish_cancelled, lease, release};
use crate::{Db, DbError};

/// How an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobError {
    /// Another attempt may succeed.
    Retry(String),
    /// No attempt will succeed: the job is dead.
    Fatal(String),
}

/// What a handler gets.
#[derive(Debug, Clone)]
pub struct JobContext {
    /// The database.
    pub db: Db,
    /// The job and the fence that proves it is ours.
    pub lease: Lease,
}

type Running = Pin<Box<dyn Future<Output = Result<(), JobError>> + Send>>;
type Handler = Arc<dyn Fn(JobContext) -> Running + Send + Sync>;

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// Shown as the holder of leases; different for every process.
    pub owner: String,
    /// How many jobs run at once.
    pub concurrency: usize,
    /// How long a lease lasts; extended at a third of it.
    pub lease_ttl: Duration,
    /// How often an idle worker looks for jobs that other processes put in or whose time has come.
    pub poll: Duration,
    /// How long running jobs may go on after the stop signal.
    pub stop_grace: Duration,
}

impl WorkerSettings {
    /// Four jobs at once, leases of 30 seconds, a look every second, ten seconds to stop.
    pub fn new(owner: impl Into<String>) -> Self {
        Self {
            owner: owner.into(),
            concurrency: 4,
            lease_ttl: Duration::from_secs(30),
            poll: Duration::from_secs(1),
            stop_grace: Duration::from_secs(10),
        }
    }
}

/// Runs jobs of the kinds that it has handlers for.
pub struct Worker {
    db: Db,
    settings: WorkerSettings,
    handlers: HashMap<&'static str, Handler>,
}

impl Worker {
    /// A worker without handlers.
    pub fn new(db: Db, settings: WorkerSettings) -> Self {
        Self {
            db,
            settings,
            handlers: HashMap::new(),
        }
    }

    /// Adds the handler of a kind.
    pub fn register<F, R>(&mut self, kind: &'static str, handler: F)
    where
        F: Fn(JobContext) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), JobError>> + Send + 'static,
    {
        self.handlers
            .insert(kind, Arc::new(move |context| Box::pin(handler(context))));
    }

    /// Works until `stop` becomes true (or its sender is gone), then lets running
    /// jobs finish for a while and gives the rest back to the queue.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut running = JoinSet::new();
        while !*stop.borrow() {
            // Made before looking, so that a job put in while we look still wakes us.
            let added = self.db.jobs_added().notified();
            let found = match self.fill(&mut running, &stop).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(%error, "cannot lease jobs; trying again");
                    false
                }
            };
            if found && running.len() < self.settings.concurrency {
                continue;
            }
            tokio::select! {
                _ = timeout(self.settings.poll, added), if running.len() < self.settings.concurrency => {}
                Some(_) = running.join_next(), if !running.is_empty() => {}
                changed = stop.changed() => if changed.is_err() { break },
            }
        }
        self.drain(running).await;
    }

    /// One round over the kinds, one job of each at most, so that a full kind starves no other.
    async fn fill(
        &self,
        running: &mut JoinSet<()>,
        stop: &watch::Receiver<bool>,
    ) -> Result<bool, DbError> {
        let ttl_us = micros(self.settings.lease_ttl);
        let mut found = false;
        for (kind, handler) in &self.handlers {
            while running.try_join_next().is_some() {}
            if running.len() >= self.settings.concurrency {
                break;
            }
            if let Some(lease) = lease(&self.db, kind, &self.settings.owner, ttl_us).await? {
                found = true;
                let attempt = Attempt {
                    db: self.db.clone(),
                    lease,
                    lease_ttl: self.settings.lease_ttl,
                    stop_grace: self.settings.stop_grace,
                };
                running.spawn(attempt.run(Arc::clone(handler), stop.clone()));
            }
        }
        Ok(found)
    }

    /// Each attempt ends itself after the grace; the margin is for its last write.
    async fn drain(&self, mut running: JoinSet<()>) {
        let deadline = Instant::now() + self.settings.stop_grace + Duration::from_secs(5);
        while let Ok(Some(_)) = timeout_at(deadline, running.join_next()).await {}
        // What is left is dropped; its leases run out and somebody takes the jobs over.
        running.shutdown().await;
    }
}

struct Attempt {
    db: Db,
    lease: Lease,
    lease_ttl: Duration,
    stop_grace: Duration,
}

enum Outcome {
    Finished(Result<(), JobError>),
    Cancelled,
    Lost,
    Stopped,
}

impl Attempt {
    async fn run(mut self, handler: Handler, stop: watch::Receiver<bool>) {
        let context = JobContext {
            db: self.db.clone(),
            lease: self.lease.clone(),
        };
        // On a task of its own, so that a panic in a handler is an attempt that failed, not a worker that died.
        let mut task = JoinSet::new();
        task.spawn(handler(context));
        let outcome = self.watch(&mut task, stop).await;
        task.shutdown().await;
        if let Err(error) = self.record(outcome).await {
            // The lease runs out and the job is tried again.
            tracing::warn!(job.id = %self.lease.job.id, %error, "cannot record how job {} ended", self.lease.job.id);
        }
    }

    async fn watch(
        &mut self,
        task: &mut JoinSet<Result<(), JobError>>,
        mut stop: watch::Receiver<bool>,
    ) -> Outcome {
        let mut beat = interval(self.lease_ttl / 3);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.tick().await;
        let grace = self.stop_grace;
        let mut stopped = std::pin::pin!(async move {
            while !*stop.borrow() && stop.changed().await.is_ok() {}
            tokio::time::sleep(grace).await;
        });
        loop {
            tokio::select! {
                Some(ended) = task.join_next() => return finished(ended),
                _ = beat.tick() => match self.extend().await {
                    LeaseCheck::Held => {}
                    LeaseCheck::CancelRequested => return Outcome::Cancelled,
                    LeaseCheck::Lost => return Outcome::Lost,
                },
                () = &mut stopped => return Outcome::Stopped,
            }
        }
    }

    /// A database that cannot be reached does not lose us the lease; time does.
    async fn extend(&mut self) -> LeaseCheck {
        let ttl_us = micros(self.lease_ttl);
        match extend(&self.db, &mut self.lease, ttl_us).await {
            Ok(check) => check,
            Err(_) if self.db.now_us() < self.lease.until => LeaseCheck::Held,
            Err(_) => LeaseCheck::Lost,
        }
    }

    async fn record(&self, outcome: Outcome) -> Result<(), DbError> {
        let job = &self.lease.job;
        let held = match outcome {
            Outcome::Finished(Ok(())) => complete(&self.db, &self.lease).await?,
            Outcome::Finished(Err(JobError::Retry(message))) => {
                fail(&self.db, &self.lease, &message, true).await?
            }
            Outcome::Finished(Err(JobError::Fatal(message))) => {
                fail(&self.db, &self.lease, &message, false).await?
            }
            Outcome::Cancelled => finish_cancelled(&self.db, &self.lease).await?,
            Outcome::Stopped => release(&self.db, &self.lease).await?,
            Outcome::Lost => false,
        };
        if !held {
            // Also when the handler completed the job itself, in its own transaction.
            tracing::debug!(job.id = %job.id, "job {} was no longer ours when its attempt ended", job.id);
        }
        Ok(())
    }
}

fn finished(ended: Result<Result<(), JobError>, tokio::task::JoinError>) -> Outcome {
    Outcome::Finished(
        ended
            .unwrap_or_else(|panic| Err(JobError::Retry(format!("the handler panicked: {panic}")))),
    )
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
