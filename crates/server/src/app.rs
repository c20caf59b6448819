//! What every handler and command shares, and how it is opened and closed.
//!
//! [`App`] is wiring only: it owns the leaf crates and knows which of them talks
//! to which. Features keep no state of their own here.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base::{Clock, Ids, Random, SystemClock, SystemRandom};
use db::{BlobStore, Catalog, DatabaseUrl, Db, Kinds, Promotion};
use gateway::{Egress, EgressConfig, Gateway};
use telemetry::Telemetry;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::http::Hosts;
use crate::models::LocalEngine;
use crate::secrets::Secrets;
use crate::ui::Ui;

/// How long the database may hold up the end; records of calls do not depend on it.
const CLOSE: Duration = Duration::from_secs(5);
/// The largest blob. Data sets are many small ones; this only stops a stream without an end.
const MAX_BLOB_BYTES: u64 = 1 << 30;

/// The wired-up product. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

impl std::ops::Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// The parts of [`App`].
pub struct Inner {
    /// The settings that the server runs with.
    pub config: Config,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The random source.
    pub random: Arc<dyn Random>,
    /// Makes ids.
    pub ids: Ids,
    /// The metadata database.
    pub db: Db,
    /// Documents, versions and pointers.
    pub catalog: Catalog,
    /// Examples.
    pub datasets: crate::datasets::Datasets,
    /// Protected labels, proposals, rollback.
    pub promotion: Promotion,
    /// Spans and scores.
    pub telemetry: Telemetry,
    /// The data plane.
    pub gateway: Gateway,
    /// Calls that this process makes itself, as they are settled.
    pub calls: crate::traces::Calls,
    /// The one client for outgoing connections.
    pub egress: Egress,
    /// Models that run in this process.
    pub engine: Arc<LocalEngine>,
    /// Documents of releases that were read and compiled already.
    pub compiled: crate::apps::Compiled,
    /// Encrypts what the database must not hold in the clear.
    pub secrets: Secrets,
    /// Templates, translations, assets.
    pub ui: Ui,
    /// The names that this server answers to.
    pub hosts: Hosts,
    /// Keys that were used since they were last written down.
    pub keys_used: crate::keys::Used,
    /// Slows down password guessing.
    pub sign_in_limits: crate::sessions::Attempts,
    /// What running experiments have shown, a few seconds old at most.
    pub experiments: crate::experiments::Cache,
    /// Data that some metrics need.
    pub data: Arc<crate::data::Library>,
    /// News and figures of evaluations.
    pub evaluations: crate::evaluations::Live,
    /// News of improvements.
    pub improvements: crate::runs::News,
    /// Turns true when the server begins to stop: answers without an end of their own end then.
    pub stopping: watch::Sender<bool>,
    plan_memory: tokio::sync::Mutex<crate::plan::Memory>,
}

/// The metadata database of a data directory, as the server and the command line open it.
///
/// # Errors
/// The directory or database cannot be used; the message says what to do.
pub async fn open_database(config: &Config) -> anyhow::Result<Db> {
    create_private_dir(&config.data_dir)?;
    let url: DatabaseUrl = match &config.database_url {
        Some(url) => url.parse()?,
        None => DatabaseUrl::sqlite(config.data_dir.join("meguri.db")),
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ids = Ids::new(Arc::clone(&clock), Arc::new(SystemRandom));
    let db = Db::open(&url, ids, clock).await?;
    crate::projects::ensure_default(&db).await?;
    Ok(db)
}

/// The blob store of a data directory.
///
/// # Errors
/// Its folder cannot be made.
pub fn open_blobs(config: &Config, db: &Db) -> anyhow::Result<BlobStore> {
    let folder = config.data_dir.join("blobs");
    Ok(BlobStore::open(folder, db.ids().clone(), MAX_BLOB_BYTES)?)
}

/// The catalog of a data directory, with every kind of this release.
///
/// # Errors
/// As [`open_blobs`].
pub fn open_catalog(config: &Config, db: &Db) -> anyhow::Result<Catalog> {
    Ok(Catalog::new(db.clone(), kinds()).with_blobs(open_blobs(config, db)?))
}

fn create_private_dir(path: &Path) -> anyhow::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(path)
        .with_context(|| format!("creating the data directory {}", path.display()))
}

/// The document kinds that this release knows.
pub fn kinds() -> Kinds {
    Kinds::new([
        crate::prompts::kind(),
        crate::guards::kind(),
        crate::guards::words::kind(),
        crate::apps::kind(),
        crate::apps::release_kind(),
        crate::experiments::kind(),
        crate::datasets::kind(),
        crate::evaluators::kind(),
        crate::evaluations::kind(),
        crate::review::kind(),
        crate::live::kind(),
        crate::choice::card_kind(),
        crate::choice::kind(),
    ])
}

impl App {
    /// Opens everything in the data directory.
    ///
    /// # Errors
    /// Another server holds the directory, or one of its parts cannot be opened.
    pub async fn open(config: Config) -> anyhow::Result<Self> {
        let db = open_database(&config).await?;
        let clock = Arc::clone(db.clock());
        let random: Arc<dyn Random> = Arc::new(SystemRandom);
        let ids = db.ids().clone();
        let telemetry = crate::traces::open_telemetry(&config, Arc::clone(&clock))?;
        let egress = Egress::new(EgressConfig::default());
        let engine = Arc::new(LocalEngine::new(
            db.clone(),
            &config.data_dir,
            config.file.engine.threads,
        ));
        let calls = crate::traces::Calls::default();
        let recorder = crate::traces::recorder(telemetry.clone(), calls.clone());
        let gateway = Gateway::new(
            egress.clone(),
            Arc::clone(&engine) as Arc<dyn gateway::LocalModels>,
            Arc::new(recorder),
            Arc::clone(&clock),
            ids.clone(),
        );
        let blobs = open_blobs(&config, &db)?;
        let catalog = Catalog::new(db.clone(), kinds()).with_blobs(blobs);
        let app = Self(Arc::new(Inner {
            promotion: Promotion::new(db.clone(), catalog.clone()),
            datasets: crate::datasets::Datasets::new(db.clone(), catalog.clone()),
            catalog,
            compiled: crate::apps::Compiled::default(),
            secrets: Secrets::open(&config.data_dir, random.as_ref())?,
            ui: Ui::new()?,
            hosts: Hosts::new(&config),
            keys_used: crate::keys::Used::default(),
            sign_in_limits: crate::sessions::Attempts::default(),
            experiments: crate::experiments::Cache::default(),
            data: Arc::new(crate::data::Library::of(&config.data_dir)),
            evaluations: crate::evaluations::Live::default(),
            improvements: crate::runs::News::default(),
            stopping: watch::Sender::new(false),
            plan_memory: tokio::sync::Mutex::default(),
            config,
            clock,
            random,
            ids,
            db,
            telemetry,
            gateway,
            calls,
            egress,
            engine,
        }));
        app.engine.refresh().await?;
        app.refresh_plan().await?;
        Ok(app)
    }

    /// Rebuilds the plan if the database has changed since the last time. Calls
    /// at the same moment share one rebuild.
    ///
    /// # Errors
    /// The database cannot be read; the old plan stays in force.
    pub async fn refresh_plan(&self) -> anyhow::Result<()> {
        let mut memory = self.plan_memory.lock().await;
        let revision = self.db.plan_revision().await?;
        if revision != memory.revision {
            let begin = std::time::Instant::now();
            let plan = crate::plan::build(self, revision, &mut memory).await?;
            self.gateway.set_plan(plan);
            self.engine.refresh().await?;
            memory.revision = revision;
            let duration_ms = begin.elapsed().as_secs_f64() * 1000.0;
            tracing::debug!(revision, duration_ms, "the plan was rebuilt");
        }
        Ok(())
    }

    /// Starts the background work: following changes that other processes make,
    /// writing down when keys were used, jobs, dropping what is too old.
    pub fn start_background(&self, tasks: &mut JoinSet<()>) {
        let stop = self.stopping.subscribe();
        tasks.spawn(every(
            Duration::from_millis(250),
            self.clone(),
            stop.clone(),
            "plan",
            async |app: &App| app.refresh_plan().await,
        ));
        tasks.spawn(every(
            Duration::from_secs(5),
            self.clone(),
            stop.clone(),
            "keys",
            async |app: &App| crate::keys::write_last_used(app).await,
        ));
        tasks.spawn(every(
            Duration::from_secs(5),
            self.clone(),
            stop.clone(),
            "promotion",
            async |app: &App| crate::promotion::sweep(app).await,
        ));
        tasks.spawn(every(
            Duration::from_secs(3600),
            self.clone(),
            stop.clone(),
            "sessions",
            async |app: &App| crate::sessions::drop_expired(app).await,
        ));
        tasks.spawn(every(
            Duration::from_secs(3600),
            self.clone(),
            stop.clone(),
            "retention",
            async |app: &App| crate::traces::drop_expired(app).await.map(drop),
        ));
        tasks.spawn(every(
            Duration::from_secs(3600),
            self.clone(),
            stop.clone(),
            "evaluations",
            async |app: &App| crate::evaluations::drop_old_cache(app).await,
        ));
        tasks.spawn(every(
            Duration::from_secs(5),
            self.clone(),
            stop.clone(),
            "experiments",
            async |app: &App| crate::experiments::tick(app).await,
        ));
        tasks.spawn(every(
            Duration::from_secs(5),
            self.clone(),
            stop.clone(),
            "review",
            async |app: &App| crate::review::send_unsent(app).await,
        ));
        crate::jobs::start(self, tasks, stop);
    }

    /// Ends in order: background work has stopped, records are on disk, connections closed.
    pub async fn close(&self) {
        self.gateway.close().await;
        match tokio::time::timeout(CLOSE, crate::keys::write_last_used(self)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error.message = %format!("{error:#}"), "the last use of keys was not written")
            }
            Err(_) => {
                tracing::warn!("the last use of keys was not written: the database does not answer")
            }
        }
        let telemetry = self.telemetry.clone();
        let _ = tokio::task::spawn_blocking(move || telemetry.shutdown()).await;
        let _ = tokio::time::timeout(CLOSE, self.db.close()).await;
    }
}

/// Runs work again and again until the server stops; a failure is logged and
/// tried again the next time.
async fn every(
    period: Duration,
    app: App,
    mut stop: watch::Receiver<bool>,
    what: &'static str,
    work: impl AsyncFn(&App) -> anyhow::Result<()>,
) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = work(&app).await {
            tracing::warn!(task = what, error.message = %format!("{error:#}"), "background work failed; it will be tried again");
        }
    }
}
