//! Experiments: a split of live calls between versions, and what it shows.
//!
//! | file | owns |
//! |---|---|
//! | `document.rs` | the document: target, arms, metric, guards, ramp; its check |
//! | `store.rs` | runs in the database |
//! | `results.rs` | from spans and scores to figures, intervals and verdicts |
//! | `live.rs` | the worker: guards that stop, ramps that go on, bandits that learn; cached results |
//! | `api.rs`, `pages.rs`, `view.rs` | JSON routes, pages, what templates are given |
//!
//! What an experiment *is* is a document of the catalog, with versions like any
//! other. What it *does* is a run: at most one per target, held by the database.
//! A run changes the plan and nothing else; the pointer stays where it is, so
//! that ending a run, for whatever reason, is going back to it.

mod api;
mod document;
mod live;
mod pages;
mod results;
mod store;
mod view;

use std::collections::HashMap;
use std::str::FromStr as _;
use std::sync::Arc;

use base::{ProjectId, Random};
use db::catalog::{Catalog, Label, Name, NameFilter, Selector};
use db::promotion::{NewEvidence, Outcome, Requested};
use db::{Actor, Db, Kind, NewVersion, Page, PageRequest, Problem, SavedVersion, Scope, Version};
use serde_json::{Value, json};

use crate::app::App;
use crate::error::{AppError, Result};
use crate::http::Route;

pub use api::RunJson;
pub use document::{ExperimentDocument, Mode, TargetKind, Unit};
pub use live::{Cache, read_results, results, tick};
pub use results::{ArmResult, Comparison, Figure, GuardResult, Results};
pub use store::{Run, RunArm, RunState};

/// The catalog's word for experiments.
pub const KIND: &str = "experiment";
/// The catalog's word for what an app's environments run.
pub const RELEASE: &str = "release";

/// Pages and API.
pub fn routes() -> Vec<Route> {
    let mut routes = pages::routes();
    routes.extend(api::routes());
    routes
}

/// Experiments, as the catalog knows them.
pub fn kind() -> Kind {
    Kind {
        references: |content| {
            ExperimentDocument::parse(content)
                .map(|document| document.references())
                .unwrap_or_default()
        },
        ..Kind::new(
            KIND,
            || json!(schemars::schema_for!(ExperimentDocument)),
            |content| ExperimentDocument::parse(content).map(drop),
        )
    }
}

/// What the operations work on: the server's parts, or those of a command.
#[derive(Clone, Copy)]
pub struct Desk<'a> {
    /// The metadata database.
    pub db: &'a Db,
    /// The catalog in it.
    pub catalog: &'a Catalog,
    /// For the key of a run.
    pub random: &'a dyn Random,
}

impl<'a> Desk<'a> {
    /// The server's.
    pub fn of(app: &'a App) -> Self {
        Self {
            db: &app.db,
            catalog: &app.catalog,
            random: app.random.as_ref(),
        }
    }

    fn promotion(self) -> db::Promotion {
        db::Promotion::new(self.db.clone(), self.catalog.clone())
    }
}

/// An experiment with what it says.
#[derive(Debug, Clone)]
pub struct Found {
    /// Which version.
    pub version: Version,
    /// What it says.
    pub document: ExperimentDocument,
}

/// A name that a caller typed.
///
/// # Errors
/// What is wrong with it.
pub fn parse_name(text: &str) -> Result<Name> {
    Name::from_str(text).map_err(|problem| {
        AppError::invalid(problem.message)
            .code("bad_name")
            .at("name")
    })
}

/// Saves a version. Whether the arms' versions exist is checked now, so that a typing
/// mistake is found while the form is open; a run asks again.
///
/// # Errors
/// The document is wrong, or names a version that does not exist.
pub async fn save_version(
    desk: Desk<'_>,
    scope: Scope,
    name: &Name,
    content: &Value,
    message: &str,
) -> Result<SavedVersion> {
    let document = ExperimentDocument::parse(content).map_err(db::CatalogError::Invalid)?;
    resolve_arms(desk, scope, &document).await?;
    let new = NewVersion {
        kind: KIND,
        name,
        content,
        message,
    };
    Ok(desk.catalog.save_version(scope, new).await?)
}

/// A version of an experiment, the latest if none is named.
///
/// # Errors
/// 404 when there is none.
pub async fn find(
    desk: Desk<'_>,
    scope: Scope,
    name: &Name,
    version: Option<i64>,
) -> Result<Found> {
    let selector = version.map_or(Selector::Latest, Selector::Number);
    let found = desk.catalog.version(scope, KIND, name, &selector).await?;
    let found = found.ok_or_else(|| {
        AppError::not_found(format!("there is no experiment {:?}", name.as_str()))
            .code("experiment_not_found")
    })?;
    let document = ExperimentDocument::parse(&found.content).map_err(db::CatalogError::Invalid)?;
    Ok(Found {
        version: found.version,
        document,
    })
}

/// The names of experiments in order, each with its newest version's number.
///
/// # Errors
/// The database cannot be read, or the cursor was not made here.
pub async fn names(
    catalog: &Catalog,
    scope: Scope,
    page: &PageRequest,
) -> Result<Page<(Name, i64)>> {
    let names = catalog
        .list_names(scope, KIND, &NameFilter::default(), page)
        .await?;
    let row = |listed: db::Listed| (listed.latest.name, listed.latest.number);
    Ok(Page {
        items: names.items.into_iter().map(row).collect(),
        next: names.next,
    })
}

/// One run of an experiment with the document that it runs; the newest if none is named.
///
/// # Errors
/// 404 when there is none.
pub async fn find_run(
    desk: Desk<'_>,
    scope: Scope,
    name: &Name,
    id: Option<&str>,
) -> Result<(Run, ExperimentDocument)> {
    let runs = runs(desk, scope, name).await?;
    let wanted = |run: &Run| id.is_none_or(|id| run.id == id);
    let Some(run) = runs.into_iter().find(wanted) else {
        find(desk, scope, name, None).await?;
        let message = format!("the experiment {:?} has no such run", name.as_str());
        return Err(AppError::not_found(message).code("run_not_found"));
    };
    let document = find(desk, scope, name, Some(run.version)).await?.document;
    Ok((run, document))
}

/// The runs of an experiment, newest first.
///
/// # Errors
/// The database cannot be read.
pub async fn runs(desk: Desk<'_>, scope: Scope, name: &Name) -> Result<Vec<Run>> {
    store::list(desk.db, scope.project, Some(name.as_str()), 50).await
}

/// The newest runs of all experiments.
///
/// # Errors
/// The database cannot be read.
pub async fn recent_runs(desk: Desk<'_>, scope: Scope) -> Result<Vec<Run>> {
    store::list(desk.db, scope.project, None, 500).await
}

/// The versions that the arms stand for now.
async fn resolve_arms(
    desk: Desk<'_>,
    scope: Scope,
    document: &ExperimentDocument,
) -> Result<Vec<RunArm>> {
    let target = Name::from_str(&document.target.name)
        .map_err(|problem| db::CatalogError::Invalid(vec![problem]))?;
    check_environment(desk, scope, document).await?;
    let weights = document.first_weights();
    let mut arms: Vec<RunArm> = Vec::new();
    for (index, arm) in document.arms.iter().enumerate() {
        let (field, selector) = match (arm.version, &arm.label) {
            (Some(number), _) => ("version", Selector::Number(number)),
            (None, label) => {
                let label = label.as_deref().unwrap_or(crate::prompts::PRODUCTION);
                let label = Label::from_str(label)
                    .map_err(|problem| db::CatalogError::Invalid(vec![problem]))?;
                ("label", Selector::Label(label))
            }
        };
        let at = format!("/arms/{index}/{field}");
        let found = desk
            .catalog
            .version(scope, document.arm_kind(), &target, &selector)
            .await?;
        let version = found.map(|found| found.version).ok_or_else(|| {
            let what = document.arm_kind();
            AppError::invalid(format!("there is no {what} {target} {field} {selector}"))
                .code("unknown_version")
                .at(at.clone())
        })?;
        if arms.iter().any(|other| other.number == version.number) {
            let message = format!(
                "another arm is version {} too; there would be nothing to compare",
                version.number
            );
            return Err(AppError::invalid(message).code("same_version").at(at));
        }
        arms.push(RunArm {
            name: arm.name.clone(),
            number: version.number,
            digest: version.digest,
            weight: weights.get(index).copied().unwrap_or_default(),
            control: index == document.control(),
        });
    }
    Ok(arms)
}

/// An environment that is not there has no calls to split.
async fn check_environment(
    desk: Desk<'_>,
    scope: Scope,
    document: &ExperimentDocument,
) -> Result<()> {
    let Some(wanted) = &document.target.environment else {
        return Ok(());
    };
    let known = desk.promotion().environments(scope).await?.environments;
    if known.iter().any(|environment| &environment.name == wanted) {
        return Ok(());
    }
    let names: Vec<&str> = known
        .iter()
        .map(|environment| environment.name.as_str())
        .collect();
    let message = format!(
        "there is no environment {wanted:?}; there are {}",
        names.join(", ")
    );
    Err(AppError::invalid(message)
        .code("unknown_environment")
        .at("/target/environment"))
}

/// Starts a run of an experiment's version, the latest if none is named.
///
/// # Errors
/// An arm's version is missing or quarantined, or another experiment splits the same target.
pub async fn start(
    desk: Desk<'_>,
    scope: Scope,
    name: &Name,
    version: Option<i64>,
    reason: &str,
) -> Result<Run> {
    let found = find(desk, scope, name, version).await?;
    let arms = resolve_arms(desk, scope, &found.document).await?;
    let mut key = [0; 32];
    desk.random.fill(&mut key);
    let now = desk.db.now_us();
    let run = Run {
        id: store::new_id(desk.db),
        project: scope.project,
        experiment: name.as_str().to_owned(),
        version: found.version.number,
        digest: found.version.digest,
        target: found.document.target_text(),
        state: RunState::Running,
        key,
        arms,
        step: 0,
        step_at: now,
        revision: 1,
        started_by: scope.actor.to_string(),
        started_at: now,
        ended_by: None,
        ended_at: None,
        reason: reason.trim().chars().take(2000).collect(),
        winner: None,
        outcome: None,
    };
    if let Some((_, problem)) = lost_arm(desk, &run, found.document.arm_kind()).await? {
        return Err(AppError::conflict(problem).code("arm_not_usable"));
    }
    let mut tx = desk.db.begin_write().await?;
    tx.serialise().await?;
    if let Some(other) = store::on_target(&mut tx, scope, &run.target).await? {
        return Err(target_busy(&run.target, &other.experiment));
    }
    store::insert(&mut tx, &run)
        .await
        .map_err(|error| match error.fault {
            db::Fault::Duplicate => target_busy(&run.target, "another experiment"),
            _ => error.into(),
        })?;
    let detail = json!({
        "run": run.id, "version": run.version, "target": run.target,
        "arms": run.arms.iter().map(|arm| json!({"name": arm.name, "version": arm.number, "weight": arm.weight})).collect::<Vec<_>>(),
    });
    write_audit(
        &mut tx,
        scope,
        "experiment.start",
        &run,
        &run.reason,
        detail,
    )
    .await?;
    tx.bump_plan().await?;
    tx.commit().await?;
    Ok(run)
}

fn target_busy(target: &str, other: &str) -> AppError {
    AppError::conflict(format!("{target} is split by {other} already"))
        .code("target_busy")
        .hint("stop that run first; a target has one experiment at a time")
}

async fn write_audit(
    tx: &mut db::WriteTx,
    scope: Scope,
    action: &str,
    run: &Run,
    reason: &str,
    detail: Value,
) -> Result<()> {
    let line = db::audit::Line::new(scope, action, &run.experiment);
    Ok(line.detail(detail).reason(reason).write(tx).await?)
}

/// The run that splits calls now.
///
/// # Errors
/// 409 when it does not run.
pub async fn current_run(desk: Desk<'_>, scope: Scope, name: &Name) -> Result<Run> {
    let runs = store::running(desk.db, scope.project).await?;
    let found = runs.into_iter().find(|run| run.experiment == name.as_str());
    match found {
        Some(run) => Ok(run),
        None => {
            find(desk, scope, name, None).await?;
            let message = format!("the experiment {:?} does not run", name.as_str());
            Err(AppError::conflict(message).code("not_running"))
        }
    }
}

/// Why a run ends, and what is kept of it.
#[derive(Debug, Clone, Default)]
pub struct End<'a> {
    /// In words.
    pub reason: &'a str,
    /// The arm that was promoted.
    pub winner: Option<&'a str>,
    /// The last figures.
    pub results: Option<&'a Results>,
}

/// Ends a run: calls follow the pointer again.
///
/// # Errors
/// 409 when it was changed or ended meanwhile.
pub async fn end(desk: Desk<'_>, scope: Scope, run: &Run, end: End<'_>) -> Result<Run> {
    let mut ended = run.clone();
    ended.state = match end.winner {
        Some(_) => RunState::Concluded,
        None => RunState::Stopped,
    };
    ended.ended_by = Some(scope.actor.to_string());
    ended.ended_at = Some(desk.db.now_us());
    ended.reason = end.reason.trim().chars().take(2000).collect();
    ended.winner = end.winner.map(str::to_owned);
    // Without figures they are computed from the spans: those of an earlier verdict would be stale.
    ended.outcome = end
        .results
        .and_then(|results| serde_json::to_value(results).ok());
    let detail = json!({"run": run.id, "target": run.target, "winner": ended.winner});
    let action = match ended.state {
        RunState::Concluded => "experiment.conclude",
        _ => "experiment.stop",
    };
    change(desk, scope, &ended, action, &ended.reason, detail).await?;
    Ok(ended)
}

/// Writes a changed run, its audit line, and counts the plan.
async fn change(
    desk: Desk<'_>,
    scope: Scope,
    run: &Run,
    action: &str,
    reason: &str,
    detail: Value,
) -> Result<()> {
    let mut tx = desk.db.begin_write().await?;
    tx.serialise().await?;
    if !store::update(&mut tx, run).await? {
        return Err(
            AppError::conflict("this run was changed or ended by somebody else first")
                .code("changed_meanwhile"),
        );
    }
    write_audit(&mut tx, scope, action, run, reason, detail).await?;
    tx.bump_plan().await?;
    Ok(tx.commit().await?)
}

/// What promoting an arm did to the target's pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Promoted {
    /// It points to the arm's version.
    Moved,
    /// The label is protected: this proposal waits for approvals.
    Proposed(String),
}

/// Moves the target's pointer to an arm's version and ends the run. A protected label gets
/// a proposal; the run ends all the same, and calls follow the pointer until it is approved.
///
/// # Errors
/// There is no such arm, or the pointer could not be moved; the run then goes on.
pub async fn promote(
    desk: Desk<'_>,
    scope: Scope,
    name: &Name,
    arm: &str,
    reason: &str,
    results: Option<&Results>,
) -> Result<(Run, Promoted)> {
    let run = current_run(desk, scope, name).await?;
    let found = find(desk, scope, name, Some(run.version)).await?;
    let Some(winner) = run.arms.iter().find(|known| known.name == arm) else {
        let names: Vec<&str> = run.arms.iter().map(|arm| arm.name.as_str()).collect();
        let message = format!("there is no arm {arm:?}; the arms are {}", names.join(", "));
        return Err(AppError::invalid(message).code("unknown_arm").at("arm"));
    };
    let why = match reason.trim() {
        "" => format!("experiment {name}: {arm} promoted"),
        reason => reason.to_owned(),
    };
    let promoted = move_target(desk, scope, &found.document, winner.number, &why).await?;
    let ending = End {
        reason: &why,
        winner: Some(arm),
        results,
    };
    let ended = end(desk, scope, &run, ending).await?;
    Ok((ended, promoted))
}

async fn move_target(
    desk: Desk<'_>,
    scope: Scope,
    document: &ExperimentDocument,
    to: i64,
    reason: &str,
) -> Result<Promoted> {
    let problem = |problem: Problem| AppError::from(db::CatalogError::Invalid(vec![problem]));
    let name = Name::from_str(&document.target.name).map_err(problem)?;
    let label = Label::from_str(document.pointer()).map_err(problem)?;
    let request = db::MoveRequest {
        kind: document.arm_kind(),
        name: &name,
        label: &label,
        to,
        expected: None,
        reason,
    };
    match desk.promotion().request_move(scope, request).await? {
        Requested::Moved(_) | Requested::Unchanged(_) => Ok(Promoted::Moved),
        Requested::Proposed(proposal) => Ok(Promoted::Proposed(proposal.id)),
        Requested::Conflict(_) => {
            let target = document.target_text();
            let message = format!("somebody else moved {target} first");
            Err(AppError::conflict(message).code("moved_meanwhile"))
        }
    }
}

/// The gate that an experiment gives evidence for: `experiment/NAME`. Gates are plain
/// words, so a name that is none goes by the first 16 hex digits of its SHA-256.
fn gate_of(experiment: &str) -> String {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._/-".contains(&byte);
    if experiment.len() <= 50 && experiment.bytes().all(plain) {
        return format!("experiment/{experiment}");
    }
    let digest = base::Digest::of(experiment.as_bytes()).hex();
    format!("experiment/{}", digest.get(..16).unwrap_or_default())
}

/// Tells promotion what the experiment has shown of an arm's content, as the gate
/// that [`gate_of`] names.
async fn add_evidence(
    desk: Desk<'_>,
    run: &Run,
    document: &ExperimentDocument,
    arm: &RunArm,
    outcome: Outcome,
    detail: &Value,
) -> Result<()> {
    let name = Name::from_str(&document.target.name)
        .map_err(|problem| db::CatalogError::Invalid(vec![problem]))?;
    let project = crate::projects::list(desk.db).await?;
    let project = project.into_iter().find(|known| known.id == run.project);
    let link = project.map_or_else(String::new, |project| {
        let query: String =
            url::form_urlencoded::byte_serialize(run.experiment.as_bytes()).collect();
        format!(
            "/{}/experiments/show?name={query}&run={}",
            project.name, run.id
        )
    });
    let evidence = NewEvidence {
        kind: document.arm_kind(),
        name: &name,
        digest: arm.digest,
        gate: &gate_of(&run.experiment),
        outcome,
        detail,
        link: &link,
    };
    let scope = system_scope(run.project);
    desk.promotion().add_evidence(scope, evidence).await?;
    Ok(())
}

/// The first arm whose version cannot serve any more, and why.
async fn lost_arm(desk: Desk<'_>, run: &Run, kind: &str) -> Result<Option<(RunArm, String)>> {
    let scope = system_scope(run.project);
    let (_, name) = run.target.split_once(':').unwrap_or_default();
    let (name, _) = name.rsplit_once('@').unwrap_or_default();
    let name = Name::from_str(name).map_err(|problem| db::CatalogError::Invalid(vec![problem]))?;
    let listed = desk.catalog.name(scope, kind, &name).await?;
    if listed.is_none_or(|listed| listed.deleted_at.is_some())
        && let Some(arm) = run.arms.first()
    {
        return Ok(Some((arm.clone(), format!("{kind} {name} was deleted"))));
    }
    for arm in &run.arms {
        let selector = Selector::Number(arm.number);
        let found = desk.catalog.version(scope, kind, &name, &selector).await?;
        if found.is_none_or(|found| found.version.digest != arm.digest) {
            let problem = format!(
                "version {} of {kind} {name}, the arm {:?}, is gone",
                arm.number, arm.name
            );
            return Ok(Some((arm.clone(), problem)));
        }
    }
    let quarantines = desk.promotion().active_quarantines(run.project).await?;
    let hit = |arm: &&RunArm| {
        let mut of_name = quarantines
            .iter()
            .filter(|row| row.kind == kind && row.name == name);
        of_name.any(|row| row.digest == arm.digest)
    };
    if let Some(arm) = run.arms.iter().find(hit) {
        let problem = format!(
            "version {} of {kind} {name}, the arm {:?}, is quarantined",
            arm.number, arm.name
        );
        return Ok(Some((arm.clone(), problem)));
    }
    Ok(None)
}

/// What the program does by itself.
fn system_scope(project: ProjectId) -> Scope {
    Scope {
        project,
        actor: Actor::System,
    }
}

/// The experiments that split a project's calls, as the gateway wants them.
///
/// # Errors
/// The database cannot be read.
pub async fn for_plan(
    app: &App,
    project: ProjectId,
) -> Result<HashMap<gateway::Target, Arc<gateway::Experiment>>> {
    let desk = Desk::of(app);
    let mut experiments = HashMap::new();
    for run in store::running(desk.db, project).await? {
        let Ok(name) = Name::from_str(&run.experiment) else {
            continue;
        };
        let found = find(desk, system_scope(project), &name, Some(run.version)).await?;
        let (target, experiment) = planned(&run, &found.document);
        experiments.insert(target, Arc::new(experiment));
    }
    Ok(experiments)
}

fn planned(run: &Run, document: &ExperimentDocument) -> (gateway::Target, gateway::Experiment) {
    let name = document.target.name.clone();
    let target = match document.target.kind {
        TargetKind::Prompt => gateway::Target::Prompt {
            name,
            label: document.pointer().to_owned(),
        },
        TargetKind::App => gateway::Target::App {
            name,
            environment: document.pointer().to_owned(),
        },
        TargetKind::Guard => gateway::Target::Guard {
            name,
            label: document.pointer().to_owned(),
        },
    };
    let arm = |arm: &RunArm| gateway::Arm {
        name: arm.name.clone(),
        number: arm.number,
        digest: arm.digest,
        weight: arm.weight,
    };
    let is_shadow = |arm: &&RunArm| document.mode == Mode::Shadow && !arm.control;
    let experiment = gateway::Experiment {
        name: run.experiment.clone(),
        version: run.version,
        unit: match document.unit {
            Unit::User => gateway::Unit::User,
            Unit::Session => gateway::Unit::Session,
            Unit::Request => gateway::Unit::Request,
        },
        key: run.key,
        arms: run
            .arms
            .iter()
            .filter(|arm| !is_shadow(arm))
            .map(arm)
            .collect(),
        shadows: run.arms.iter().filter(is_shadow).map(arm).collect(),
    };
    (target, experiment)
}
