//! Evaluations: suites, their durable runs, and what these show.
//!
//! | file | owns |
//! |---|---|
//! | `document.rs` | the document of a suite: data, candidates, evaluators, gates |
//! | `pin.rs` | what its references mean when an evaluation starts; the plan of its calls |
//! | `store.rs` | evaluations, answers, scores and the cache in the database |
//! | `work.rs` | the worker: what comes next, what is written down |
//! | `task.rs` | one task: an answer, or one evaluator's look at it; the cache |
//! | `examples.rs`, `purse.rs` | the examples that are taken; what may still be spent |
//! | `ask.rs`, `call.rs` | what a candidate is asked; one call that is never paid for twice |
//! | `meter.rs` | limits on calls and money, asked before each attempt |
//! | `judging.rs` | scoring one answer |
//! | `inquiry.rs`, `local.rs` | scoring by several questions to a model, or by a look inside a local one |
//! | `results.rs` | figures, intervals, verdicts, slices, differences |
//! | `plots.rs` | how scores are spread |
//! | `gate.rs` | whether a suite's gates hold, and evidence for the release board |
//! | `import/`, `import_page.rs` | test files of other tools as a dataset and a suite |
//! | `events.rs` | progress as server-sent events |
//! | `api.rs`, `pages.rs`, `view.rs` | JSON routes, pages, what templates are given |
//!
//! A **suite** is a document of the catalog; an **evaluation** is one run of it. An
//! evaluation pins everything when it starts. It is a durable run, as [`crate::runs`] says.

mod api;
mod ask;
mod call;
mod document;
mod events;
mod examples;
pub mod gate;
mod import;
mod import_page;
mod inquiry;
mod judging;
mod local;
mod meter;
mod pages;
mod pin;
mod plots;
mod purse;
mod results;
mod store;
mod task;
mod view;
mod warning;
mod work;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use base::ProjectId;
use db::catalog::{Name, Selector};
use db::jobs::Worker;
use db::{Db, Kind, Scope, WriteTx};
use serde_json::{Value, json};

use crate::app::App;
use crate::datasets::{DatasetDocument, Example};
use crate::error::{AppError, Result};
use crate::evaluators::EvaluatorDocument;
use crate::http::Route;
use crate::runs::{Logged, News, Runs, Successor};

pub(crate) use call::{Caller, Halted, Lanes, Plain, message_text, stable_id};
pub(crate) use judging::{About, Judged, Look, judge};
pub(crate) use pin::Ready;
pub(crate) use view::{comparison_view, encode, figure, signed};

pub use api::{EvaluationJson, Shown, StartRequest, show_json, start_json};
pub use document::{Candidate, EvaluatorUse, Gate, PromptUse, Sample, SuiteDocument};
pub use import::{Compare, ImportRequest, Imported, Note, SuiteFormat, import_suite};
pub use pin::{ENVIRONMENT, Pinned};
pub use plots::{CandidateDistribution, Distribution};
pub use results::{
    CandidateFigures, CellFigures, ComparisonJson, DifferenceRow, EvaluatorFigures, Results, Slice,
};
pub use store::{
    AnswerRow, CallProblem, Cell, Counters, Evaluation, JudgedAnswer, Outcome, ScoreRow,
};
pub use warning::Warning;

pub use crate::runs::State;

/// More of the calling code, for features that ask candidates: the same traces, the same way
/// not to pay twice.
pub(crate) mod calling {
    pub(crate) use super::ask::Asker;
    pub(crate) use super::call::{Bill, Request, chat_body, lane_of, principal};
    pub(crate) use super::meter::{Ended, Meter, Paid};
    pub(crate) use super::pin::{PinnedVersion, pin};
    pub(crate) use super::results::cluster_of;
}

/// The catalog's word for suites.
pub const KIND: &str = "suite";
/// Evaluations as durable runs.
static RUNS: Runs = Runs {
    table: "evaluations",
    noun: "evaluation",
    not_found,
    keeps_start: true,
    at_once: 4,
    changed: |app| app.evaluations.news.changed(),
};
/// How long an answer or score may stand in for a call, in microseconds: a provider changes
/// what is behind a model's name, and nobody asks the same for longer.
const CACHED_US: i64 = 90 * 24 * 3600 * 1_000_000;
/// Results that are remembered.
const REMEMBERED: usize = 32;

/// Pages and API.
pub fn routes() -> Vec<Route> {
    let mut routes = api::routes();
    routes.extend(pages::routes());
    routes.extend(import_page::routes());
    routes
}

/// Suites, as the catalog knows them.
pub fn kind() -> Kind {
    Kind {
        normal: |content| match SuiteDocument::parse(content) {
            Ok(document) => document.to_value(),
            Err(_) => content.clone(),
        },
        references: |content| {
            SuiteDocument::parse(content)
                .map(|document| document.references())
                .unwrap_or_default()
        },
        blobs: |content| {
            SuiteDocument::parse(content)
                .map(|document| document.modules())
                .unwrap_or_default()
        },
        check_blob: Some(
            |content, digest, bytes| match SuiteDocument::parse(content) {
                Ok(document) => document.check_module(digest, bytes),
                Err(_) => Ok(()),
            },
        ),
        ..Kind::new(
            KIND,
            || json!(schemars::schema_for!(SuiteDocument)),
            |content| SuiteDocument::parse(content).map(drop),
        )
    }
}

/// Forgets answers and scores that are too old to stand in for a call.
///
/// # Errors
/// The database cannot.
pub async fn drop_old_cache(app: &App) -> anyhow::Result<()> {
    let before = app.clock.now_us() - CACHED_US;
    let dropped = store::drop_cached_before(&app.db, before).await?;
    if dropped > 0 {
        tracing::info!(dropped, "old answers of evaluations were forgotten");
    }
    Ok(())
}

/// What evaluations share in this process: who waits for news, and figures that were
/// computed before. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Live {
    news: News,
    results: Arc<Mutex<HashMap<String, Remembered>>>,
}

type SlicesByField = HashMap<(usize, String), Vec<Slice>>;

#[derive(Debug, Clone)]
struct Remembered {
    /// The progress that the figures are of.
    counters: Counters,
    facts: Arc<results::Facts>,
    results: Arc<Results>,
    /// Slices that were asked for, by evaluator and field.
    slices: Arc<Mutex<SlicesByField>>,
    /// When they were last asked for: the oldest goes first.
    used: u64,
}

impl Live {
    fn known(&self, evaluation: &Evaluation) -> Option<Remembered> {
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        let used = results.values().map(|known| known.used).max().unwrap_or(0) + 1;
        let known = results.get_mut(&evaluation.id)?;
        if known.counters != evaluation.counters {
            return None;
        }
        known.used = used;
        Some(known.clone())
    }

    fn remember(
        &self,
        evaluation: &Evaluation,
        facts: &Arc<results::Facts>,
        computed: &Arc<Results>,
    ) {
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        let used = results.values().map(|known| known.used).max().unwrap_or(0) + 1;
        if results.len() >= REMEMBERED && !results.contains_key(&evaluation.id) {
            let oldest = results.iter().min_by_key(|(_, known)| known.used);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                results.remove(&oldest);
            }
        }
        results.insert(
            evaluation.id.clone(),
            Remembered {
                counters: evaluation.counters,
                facts: Arc::clone(facts),
                results: Arc::clone(computed),
                slices: Arc::default(),
                used,
            },
        );
    }
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

/// The worker that works on evaluations.
pub fn worker(app: &App) -> Worker {
    RUNS.worker(app, work::run)
}

/// A suite to run: by its name and version, or written out.
#[derive(Debug, Clone)]
pub enum SuiteSource {
    /// Of the catalog.
    Named(Name, Selector),
    /// Written out; the name is for people, and for evidence where it is not empty.
    Inline {
        /// The document.
        document: Value,
        /// A name for it; may be empty.
        name: String,
    },
}

/// Starts an evaluation.
///
/// # Errors
/// The suite is wrong, names something that is not there, or has no examples.
pub async fn start(desk: Desk<'_>, scope: Scope, source: &SuiteSource) -> Result<Evaluation> {
    let (suite, suite_version, content) = match source {
        SuiteSource::Named(name, selector) => {
            let found = desk
                .app
                .catalog
                .version(scope, KIND, name, selector)
                .await?;
            let found = found.ok_or_else(|| {
                AppError::not_found(format!("there is no suite {name}@{selector}"))
                    .code("suite_not_found")
            })?;
            (name.to_string(), Some(found.version.number), found.content)
        }
        SuiteSource::Inline { document, name } => (name.clone(), None, document.clone()),
    };
    let Examined {
        document,
        pinned,
        examples,
    } = examine(desk, scope, &content).await?;
    let evaluation = Evaluation {
        id: RUNS.new_id(desk.db()),
        project: scope.project,
        suite,
        suite_version,
        counters: planned(&document, &pinned, examples),
        document,
        pinned,
        state: State::Queued,
        reason: String::new(),
        started_by: scope.actor.to_string(),
        created_at: desk.db().now_us(),
        started_at: None,
        ended_at: None,
        worked_us: 0,
        spent: base::NanoUsd(0),
        unpriced: 0,
        gates: None,
    };
    let mut tx = desk.db().begin_write().await?;
    store::insert(&mut tx, &evaluation).await?;
    let detail = json!({
        "suite": evaluation.suite, "dataset": evaluation.pinned.dataset.name, "examples": examples,
        "candidates": evaluation.document.candidates.iter().map(|one| &one.name).collect::<Vec<_>>(),
    });
    let object = evaluation.id.as_str();
    let logged = Logged { object, detail };
    RUNS.start(desk.app, tx, scope, object, logged).await?;
    Ok(evaluation)
}

/// A suite that could be started now.
#[derive(Debug, Clone)]
pub struct Examined {
    /// What it says.
    pub document: SuiteDocument,
    /// What its references stand for.
    pub pinned: Pinned,
    /// How many examples it would take.
    pub examples: u64,
}

/// Looks at a suite as [`start`] does, without starting it.
///
/// # Errors
/// As there.
pub async fn examine(desk: Desk<'_>, scope: Scope, content: &Value) -> Result<Examined> {
    let document = SuiteDocument::parse(content).map_err(db::CatalogError::Invalid)?;
    let pinned = pin::pin(desk.app, scope, &document).await?;
    let dataset = dataset_document(desk.app, scope.project, &pinned).await?;
    let examples = examples_of(&document, &dataset);
    if examples == 0 {
        let message = match &document.split {
            Some(split) => format!(
                "the dataset {} has no examples in the split {split:?}",
                pinned.dataset.name
            ),
            None => format!("the dataset {} has no examples", pinned.dataset.name),
        };
        return Err(AppError::invalid(message)
            .code("no_examples")
            .at("/dataset"));
    }
    Ok(Examined {
        document,
        pinned,
        examples,
    })
}

fn examples_of(document: &SuiteDocument, dataset: &DatasetDocument) -> u64 {
    let all = match &document.split {
        Some(split) => dataset.splits.get(split).copied().unwrap_or(0),
        None => dataset.count,
    };
    all.min(document.limit.unwrap_or(u64::MAX))
}

fn planned(document: &SuiteDocument, pinned: &Pinned, examples: u64) -> Counters {
    let candidates = document.candidates.len() as u64;
    let pairwise = pinned
        .evaluators
        .iter()
        .filter(|one| one.document.is_pairwise())
        .count() as u64;
    let single = pinned.evaluators.len() as u64 - pairwise;
    let cells = examples.saturating_mul(u64::from(document.repeats));
    let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    Counters {
        examples: whole(examples),
        answers_total: whole(cells.saturating_mul(candidates)),
        scores_total: whole(
            cells.saturating_mul(single * candidates + pairwise * candidates.saturating_sub(1)),
        ),
        ..Counters::default()
    }
}

/// The dataset of an evaluation, whatever became of its name.
pub(crate) async fn dataset_document(
    app: &App,
    project: ProjectId,
    pinned: &Pinned,
) -> Result<DatasetDocument> {
    let digest = pinned.dataset.digest;
    let mut found = app.catalog.documents(project, &[digest]).await?;
    let content = found.remove(&digest).ok_or_else(|| {
        AppError::not_found(format!(
            "the dataset {} cannot be read any more",
            pinned.dataset.name
        ))
        .code("dataset_gone")
    })?;
    Ok(DatasetDocument::parse(&content).map_err(db::CatalogError::Invalid)?)
}

/// What is installed for metrics and text preparation, all of it: [`resources_for`] loads
/// only what is used.
pub(crate) async fn resources(app: &App) -> eval::Resources {
    load_resources(app, vec![crate::data::JA_DICTIONARY, crate::data::VADER]).await
}

/// What is installed of what these evaluators use.
pub(crate) async fn resources_for<'a>(
    app: &App,
    evaluators: impl IntoIterator<Item = &'a EvaluatorDocument>,
) -> eval::Resources {
    let wanted = evaluators.into_iter().filter_map(EvaluatorDocument::data);
    load_resources(app, wanted.collect()).await
}

async fn load_resources(app: &App, wanted: Vec<&'static str>) -> eval::Resources {
    if wanted.is_empty() {
        return eval::Resources::default();
    }
    let library = Arc::clone(&app.data);
    // A blocking task fails only where the runtime ends; then nobody waits for its result.
    let loading = tokio::task::spawn_blocking(move || library.load(&wanted));
    loading.await.unwrap_or_default()
}

/// One evaluation of the project.
///
/// # Errors
/// 404 when there is none.
pub async fn find(desk: Desk<'_>, scope: Scope, id: &str) -> Result<Evaluation> {
    let found = store::find(desk.db(), scope.project, id).await?;
    found.ok_or_else(not_found)
}

fn not_found() -> AppError {
    AppError::not_found("there is no such evaluation").code("evaluation_not_found")
}

/// The newest evaluations before this one, of one suite or of all.
///
/// # Errors
/// The database cannot be read.
pub async fn list(
    desk: Desk<'_>,
    scope: Scope,
    suite: Option<&str>,
    before: Option<(i64, String)>,
    limit: i64,
) -> Result<Vec<Evaluation>> {
    store::list(desk.db(), scope.project, suite, before, limit).await
}

/// Holds an evaluation: calls that are under way end and count, no more begin.
///
/// # Errors
/// It has ended, or is held already.
pub async fn pause(desk: Desk<'_>, scope: Scope, id: &str, reason: &str) -> Result<Evaluation> {
    RUNS.pause(desk.app, scope, id, reason, Logged::of(id))
        .await?;
    find(desk, scope, id).await
}

/// Ends an evaluation before its end; what was answered stays.
///
/// # Errors
/// It has ended.
pub async fn stop(desk: Desk<'_>, scope: Scope, id: &str, reason: &str) -> Result<Evaluation> {
    RUNS.stop(desk.app, scope, id, reason, Logged::of(id))
        .await?;
    find(desk, scope, id).await
}

/// Lets a held evaluation go on, with a raised budget where one is given.
///
/// # Errors
/// It is not held, or the budget is no amount.
pub async fn resume(
    desk: Desk<'_>,
    scope: Scope,
    id: &str,
    budget_usd: Option<f64>,
) -> Result<Evaluation> {
    let mut tx = RUNS.begin_resume(desk.app, scope, id).await?;
    let successor = match budget_usd {
        None => Successor::SameWorker,
        Some(budget) => {
            raise_budget(&mut tx, scope.project, id, budget).await?;
            Successor::NewWorker
        }
    };
    let detail = json!({"budget_usd": budget_usd});
    let logged = Logged { object: id, detail };
    RUNS.resume(desk.app, tx, scope, id, successor, logged)
        .await?;
    find(desk, scope, id).await
}

async fn raise_budget(
    tx: &mut WriteTx,
    project: ProjectId,
    id: &str,
    budget_usd: f64,
) -> Result<()> {
    let found = store::find_in(tx, project, id).await?;
    let document = SuiteDocument {
        budget_usd: Some(budget_usd),
        ..found.ok_or_else(not_found)?.document
    };
    SuiteDocument::parse(&document.to_value()).map_err(db::CatalogError::Invalid)?;
    Ok(store::set_document(tx, project, id, &document).await?)
}

/// The figures of an evaluation as far as it is.
///
/// # Errors
/// The database or the dataset cannot be read.
pub async fn results_of(desk: Desk<'_>, evaluation: &Evaluation) -> Result<Arc<Results>> {
    Ok(computed(desk, evaluation).await?.1)
}

async fn computed(
    desk: Desk<'_>,
    evaluation: &Evaluation,
) -> Result<(Arc<results::Facts>, Arc<Results>)> {
    let live = &desk.app.evaluations;
    if let Some(known) = live.known(evaluation) {
        return Ok((known.facts, known.results));
    }
    let facts = Arc::new(facts(desk, evaluation).await?);
    let (own, of) = (Arc::clone(&facts), evaluation.clone());
    let results = tokio::task::spawn_blocking(move || results::compute(&of, &own)).await;
    let results = Arc::new(results.map_err(AppError::internal)?);
    live.remember(evaluation, &facts, &results);
    Ok((facts, results))
}

async fn facts(desk: Desk<'_>, evaluation: &Evaluation) -> Result<results::Facts> {
    let (db, project, id) = (desk.db(), evaluation.project, evaluation.id.as_str());
    let (answers, scores) = tokio::try_join!(
        store::answer_figures(db, project, id),
        store::score_figures(db, project, id)
    )?;
    let mut facts = results::Facts {
        answers,
        scores,
        ..results::Facts::default()
    };
    for (index, pinned) in evaluation.pinned.evaluators.iter().enumerate() {
        if results::needs_details(&pinned.document) {
            facts
                .details
                .insert(index, store::details(db, project, id, index).await?);
        }
    }
    if let Some(field) = &evaluation.document.cluster_by {
        let values = field_values(desk, evaluation, field).await?;
        let clusters = values
            .iter()
            .map(|(place, value)| (*place, results::cluster_of(value)));
        facts.clusters = clusters.collect();
    }
    Ok(facts)
}

/// The values of a metadata field, by place.
async fn field_values(
    desk: Desk<'_>,
    evaluation: &Evaluation,
    field: &str,
) -> Result<Vec<(i64, Value)>> {
    let mut found = Vec::new();
    each_example(desk, evaluation, |place, example| {
        if let Some(value) = example.metadata.get(field) {
            found.push((place, value.clone()));
        }
        true
    })
    .await?;
    Ok(found)
}

/// Goes through the examples in their order, until told to stop.
///
/// # Errors
/// The dataset cannot be read.
pub(crate) async fn each_example(
    desk: Desk<'_>,
    evaluation: &Evaluation,
    mut work: impl FnMut(i64, Example) -> bool,
) -> Result<()> {
    let dataset = dataset_document(desk.app, evaluation.project, &evaluation.pinned).await?;
    let scope = Scope {
        project: evaluation.project,
        actor: db::Actor::System,
    };
    let mut reading = desk.app.datasets.reading_document(scope, &dataset)?;
    let mut place = 0;
    while let Some(examples) = reading.next().await? {
        for example in examples {
            if !work(place, example) {
                return Ok(());
            }
            place += 1;
        }
    }
    Ok(())
}

/// These examples of an evaluation, by place. Only the chunks that hold them are read.
async fn examples_at(
    desk: Desk<'_>,
    evaluation: &Evaluation,
    places: &[i64],
) -> Result<HashMap<i64, Example>> {
    let dataset = dataset_document(desk.app, evaluation.project, &evaluation.pinned).await?;
    let scope = Scope {
        project: evaluation.project,
        actor: db::Actor::System,
    };
    let mut found = HashMap::new();
    let mut begin = 0;
    for chunk in &dataset.chunks {
        let end = begin + i64::try_from(chunk.count).unwrap_or(0);
        if places.iter().any(|place| (begin..end).contains(place)) {
            let part = DatasetDocument {
                chunks: vec![chunk.clone()],
                ..DatasetDocument::default()
            };
            let mut reading = desk.app.datasets.reading_document(scope, &part)?;
            let examples = reading.next().await?.unwrap_or_default();
            let located = examples.into_iter().zip(begin..);
            let wanted = located.filter(|(_, place)| places.contains(place));
            found.extend(wanted.map(|(example, place)| (place, example)));
        }
        begin = end;
    }
    Ok(found)
}

/// The metadata fields of the first examples, for choosing slices.
///
/// # Errors
/// The dataset cannot be read.
pub(crate) async fn metadata_fields(
    desk: Desk<'_>,
    evaluation: &Evaluation,
) -> Result<Vec<String>> {
    const LOOKED_AT: i64 = 200;
    let mut fields = std::collections::BTreeSet::new();
    each_example(desk, evaluation, |place, example| {
        fields.extend(example.metadata.keys().cloned());
        place < LOOKED_AT
    })
    .await?;
    Ok(fields.into_iter().take(50).collect())
}

/// How the candidates compare on each value of a metadata field.
///
/// # Errors
/// There is no such evaluator, or the dataset cannot be read.
pub async fn slices(
    desk: Desk<'_>,
    evaluation: &Evaluation,
    evaluator: usize,
    field: &str,
) -> Result<Vec<Slice>> {
    const REMEMBERED: usize = 64;
    let (facts, _) = computed(desk, evaluation).await?;
    let known = desk.app.evaluations.known(evaluation);
    let known = known.map(|known| known.slices).unwrap_or_default();
    let lock = || known.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (evaluator, field.to_owned());
    if let Some(found) = lock().get(&key) {
        return Ok(found.clone());
    }
    let mut groups: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (place, value) in field_values(desk, evaluation, field).await? {
        groups
            .entry(crate::evaluators::text_of(&value))
            .or_default()
            .push(place);
    }
    let of = evaluation.clone();
    let found =
        tokio::task::spawn_blocking(move || results::slices(&of, &facts, evaluator, &groups)).await;
    let found = found.map_err(AppError::internal)?;
    let mut slices = lock();
    if slices.len() < REMEMBERED {
        slices.insert(key, found.clone());
    }
    Ok(found)
}

/// How each evaluator's scores are spread.
///
/// # Errors
/// The database cannot be read.
pub async fn distributions(desk: Desk<'_>, evaluation: &Evaluation) -> Result<Vec<Distribution>> {
    let (facts, _) = computed(desk, evaluation).await?;
    Ok(plots::distributions(evaluation, &facts))
}

/// The examples of an evaluation, those where a candidate lost most first.
///
/// # Errors
/// The database cannot be read.
pub async fn differences(
    desk: Desk<'_>,
    evaluation: &Evaluation,
    evaluator: usize,
    candidate: usize,
) -> Result<Vec<DifferenceRow>> {
    let (facts, _) = computed(desk, evaluation).await?;
    Ok(results::differences(
        evaluation, &facts, evaluator, candidate,
    ))
}

/// What one evaluator said of every answer that it scored, with the trace of the answer.
///
/// # Errors
/// The database cannot be read.
pub async fn judged(
    desk: Desk<'_>,
    evaluation: &Evaluation,
    evaluator: usize,
) -> Result<Vec<JudgedAnswer>> {
    store::judged(desk.db(), evaluation.project, &evaluation.id, evaluator).await
}

/// What one evaluator kept beside each of its scores.
///
/// # Errors
/// The database cannot be read.
pub async fn details(
    desk: Desk<'_>,
    evaluation: &Evaluation,
    evaluator: usize,
) -> Result<Vec<(Cell, Value)>> {
    store::details(desk.db(), evaluation.project, &evaluation.id, evaluator).await
}

/// The places of the examples that a random sample takes; none where it takes all.
async fn sampled_places(
    desk: Desk<'_>,
    evaluation: &Evaluation,
) -> Result<Option<std::collections::HashSet<i64>>> {
    let suite = &evaluation.document;
    let (Sample::Random, Some(limit)) = (suite.sample, suite.limit) else {
        return Ok(None);
    };
    let mut drawn: Vec<(u64, i64)> = Vec::new();
    each_example(desk, evaluation, |place, example| {
        if suite
            .split
            .as_ref()
            .is_none_or(|split| example.split.as_ref() == Some(split))
        {
            let key = json!([suite.seed, example.id]);
            drawn.push((results::cluster_of(&key), place));
        }
        true
    })
    .await?;
    drawn.sort_unstable();
    drawn.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(Some(drawn.into_iter().map(|(_, place)| place).collect()))
}

/// What one candidate did with one example, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    /// Answers that could not be had.
    pub errors: u64,
    /// How long each answer took, in milliseconds.
    pub latencies_ms: Vec<f64>,
    /// What each answer cost in nano-dollars, where that is known.
    pub costs: Vec<f64>,
    /// By evaluator, the mean of what was scored.
    pub scores: Vec<Option<f64>>,
}

/// What was measured, example by example: for whoever weighs figures otherwise than
/// [`Results`] does.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measurements {
    /// By place, one per candidate in the suite's order.
    pub rows: BTreeMap<i64, Vec<Measured>>,
    /// The cluster of each place, where the suite has clusters.
    pub clusters: HashMap<i64, u64>,
}

/// What an evaluation has measured so far.
///
/// # Errors
/// The database or the dataset cannot be read.
pub async fn measurements(desk: Desk<'_>, evaluation: &Evaluation) -> Result<Measurements> {
    let (facts, _) = computed(desk, evaluation).await?;
    let evaluators = evaluation.pinned.evaluators.len();
    let empty = Measured {
        scores: vec![None; evaluators],
        ..Measured::default()
    };
    let empty = vec![empty; evaluation.document.candidates.len()];
    let mut rows: BTreeMap<i64, Vec<Measured>> = BTreeMap::new();
    for answer in &facts.answers {
        let row = rows
            .entry(answer.cell.place)
            .or_insert_with(|| empty.clone());
        let Some(own) = row.get_mut(answer.cell.candidate) else {
            continue;
        };
        if !answer.is_ok {
            own.errors += 1;
            continue;
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "microseconds and nano-dollars are far below 2^53"
        )]
        {
            own.latencies_ms.push(answer.latency_us as f64 / 1000.0);
            own.costs.extend(answer.cost.map(|cost| cost as f64));
        }
    }
    for ((evaluator, candidate), column) in facts.columns() {
        for (place, mean) in &column.means {
            let own = rows.get_mut(place).and_then(|row| row.get_mut(*candidate));
            if let Some(score) = own.and_then(|own| own.scores.get_mut(*evaluator)) {
                *score = Some(*mean);
            }
        }
    }
    Ok(Measurements {
        rows,
        clusters: facts.clusters.clone(),
    })
}

/// One example with everything that was answered and scored.
#[derive(Debug, Clone)]
pub struct ExampleDetail {
    /// The example.
    pub example: Example,
    /// Every candidate's answers.
    pub answers: Vec<AnswerRow>,
    /// Every evaluator's scores.
    pub scores: Vec<ScoreRow>,
}

/// One example with everything that was answered and scored.
///
/// # Errors
/// 404 when the evaluation has no example at this place.
pub async fn example(desk: Desk<'_>, evaluation: &Evaluation, place: i64) -> Result<ExampleDetail> {
    let found = examples_at(desk, evaluation, &[place])
        .await?
        .remove(&place);
    let here = Some((place, place));
    Ok(ExampleDetail {
        example: found.ok_or_else(|| {
            AppError::not_found("the evaluation has no such example").code("no_such_example")
        })?,
        answers: store::answers(desk.db(), evaluation.project, &evaluation.id, here).await?,
        scores: store::scores(desk.db(), evaluation.project, &evaluation.id, here).await?,
    })
}
