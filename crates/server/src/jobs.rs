//! Background jobs: which feature handles which kind.

use db::jobs::{Worker, WorkerSettings};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::app::App;

/// Starts the worker that runs every feature's jobs until `stop` turns true.
pub fn start(app: &App, tasks: &mut JoinSet<()>, stop: watch::Receiver<bool>) {
    let owner = format!("{}-{}", std::process::id(), app.ids.make::<base::JobId>());
    let mut worker = Worker::new(app.db.clone(), WorkerSettings::new(owner));
    crate::models::register_jobs(app, &mut worker);
    tasks.spawn(worker.run(stop.clone()));
    tasks.spawn(crate::improve::worker(app).run(stop.clone()));
    tasks.spawn(crate::evaluations::worker(app).run(stop.clone()));
    tasks.spawn(crate::live::run(app.clone(), stop.clone()));
    tasks.spawn(crate::choice::worker(app).run(stop));
}
