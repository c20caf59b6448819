//! Live evaluation: evaluators on the traffic, sampled.
//!
//! | file | owns |
//! |---|---|
//! | `document.rs` | the document: filter, sample, limits, evaluator, the score's name |
//! | `work.rs` | the worker: follows stored traces, draws, claims, writes scores |
//! | `scoring.rs` | one trace: from its messages to a score |
//! | `store.rs` | positions, claims and counts in the database |
//! | `api.rs`, `pages.rs` | JSON routes and pages |
//!
//! A trace is **claimed** in the transaction that moves the position past it; a pair of
//! trace and evaluator is claimed once, whoever asks. After a kill a claim is finished from
//! what telemetry has of its calls, and given up where a call may have been paid for
//! whose record is not there: a live sample may have holes, it may not cost twice.
//! Traces beyond a limit are left out, not put off: a score that comes days later says
//! nothing about today. Nothing that runs in the environment of evaluations is looked at,
//! so a judge's own calls never are.

mod api;
mod document;
mod pages;
mod scoring;
mod store;
mod work;

use base::{Digest, ProjectId};
use db::catalog::Name;
use db::{Kind, NewVersion, PageRequest, Scope, Selector, Version};
use serde_json::{Value, json};

use crate::app::App;
use crate::error::{AppError, Result};
use crate::evaluators::EvaluatorDocument;
use crate::http::Route;

pub use document::LiveDocument;
pub use pages::rows;
pub use store::{Figures, Held, HourRow, ScoreState, Scored};
pub use work::run;

/// The catalog's word for live evaluations.
pub const KIND: &str = "live_evaluation";
/// The tag of the evaluators' own calls.
pub const TAG: &str = "live_evaluation";
/// Live evaluations that a project may have.
const MOST: u32 = 200;
const DAY_US: i64 = 86_400_000_000;

/// Pages and API.
pub fn routes() -> Vec<Route> {
    let mut routes = api::routes();
    routes.extend(pages::routes());
    routes
}

/// Live evaluations, as the catalog knows them.
pub fn kind() -> Kind {
    Kind {
        normal: |content| match LiveDocument::parse(content) {
            Ok(document) => document.to_value(),
            Err(_) => content.clone(),
        },
        references: |content| {
            LiveDocument::parse(content)
                .map(|document| document.references())
                .unwrap_or_default()
        },
        ..Kind::new(
            KIND,
            || json!(schemars::schema_for!(LiveDocument)),
            |content| LiveDocument::parse(content).map(drop),
        )
    }
}

/// An evaluator, as a live evaluation's reference means it now.
#[derive(Debug, Clone, PartialEq)]
pub struct Instrument {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: i64,
    /// Its content: what scores are told apart by.
    pub digest: Digest,
    /// What it says.
    pub document: EvaluatorDocument,
}

impl Instrument {
    /// How scores name it.
    pub fn author(&self) -> String {
        format!("evaluator:{}@{}", self.name, self.digest.short())
    }
}

/// A live evaluation as it is now.
#[derive(Debug, Clone)]
pub struct Found {
    /// Whose.
    pub project: ProjectId,
    /// Its name.
    pub name: Name,
    /// The version that counts.
    pub version: Version,
    /// What it says.
    pub document: LiveDocument,
    /// Who held it or let it go on, and why, if anybody did.
    pub held: Option<Held>,
    /// The evaluator, or why there is none that could work.
    pub instrument: std::result::Result<Instrument, String>,
}

/// Whether traces are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LiveState {
    /// They are.
    Running,
    /// Somebody holds it.
    Paused,
    /// Its document says that it does not work.
    Off,
    /// Its evaluator cannot work.
    Stuck,
}

impl LiveState {
    /// The word of the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Off => "off",
            Self::Stuck => "stuck",
        }
    }
}

impl Found {
    /// Whether traces are evaluated.
    pub fn state(&self) -> LiveState {
        if !self.document.enabled {
            LiveState::Off
        } else if self.held.as_ref().is_some_and(|held| held.paused) {
            LiveState::Paused
        } else if self.instrument.is_err() {
            LiveState::Stuck
        } else {
            LiveState::Running
        }
    }

    /// Traces that are stored from this moment on are looked at.
    pub fn since_us(&self) -> i64 {
        let held = self.held.as_ref().map_or(0, |held| held.at);
        self.version.created_at.max(held)
    }
}

/// A name that a caller typed.
///
/// # Errors
/// What is wrong with it.
pub fn parse_name(text: &str) -> Result<Name> {
    text.parse::<Name>().map_err(|problem| {
        AppError::invalid(problem.message)
            .code("bad_name")
            .at("name")
    })
}

fn not_found(name: &str) -> AppError {
    AppError::not_found(format!("there is no live evaluation {name:?}"))
        .code("live_evaluation_not_found")
}

/// A live evaluation.
///
/// # Errors
/// 404 when there is none.
pub async fn find(app: &App, scope: Scope, name: &Name) -> Result<Found> {
    let found = find_in(app, scope, name).await?;
    found.ok_or_else(|| not_found(name.as_str()))
}

async fn find_in(app: &App, scope: Scope, name: &Name) -> Result<Option<Found>> {
    let held = store::held(&app.db, scope.project, name.as_str()).await?;
    let catalog = &app.catalog;
    let newest = catalog
        .version(scope, KIND, name, &Selector::Latest)
        .await?;
    let Some(mut found) = newest else {
        return Ok(None);
    };
    // An older version that was saved again counts until a newer one is saved.
    if let Some(held) = &held
        && held.version > 0
        && held.newest == found.version.number
    {
        let selector = Selector::Number(held.version);
        if let Some(chosen) = catalog.version(scope, KIND, name, &selector).await? {
            found = chosen;
        }
    }
    let document = LiveDocument::parse(&found.content).map_err(db::CatalogError::Invalid)?;
    let instrument = instrument(app, scope, &document).await?;
    Ok(Some(Found {
        project: scope.project,
        name: name.clone(),
        version: found.version,
        document,
        held,
        instrument,
    }))
}

async fn instrument(
    app: &App,
    scope: Scope,
    document: &LiveDocument,
) -> Result<std::result::Result<Instrument, String>> {
    let Some((name, selector)) = document.evaluator() else {
        return Ok(Err(format!("{} names no evaluator", document.evaluator)));
    };
    let kind = crate::evaluators::KIND;
    let found = app.catalog.version(scope, kind, &name, &selector).await?;
    let Some(found) = found else {
        return Ok(Err(format!("there is no {}", document.evaluator)));
    };
    let Ok(parsed) = EvaluatorDocument::parse(&found.content) else {
        return Ok(Err(format!("{} cannot be read", document.evaluator)));
    };
    if parsed.is_pairwise() {
        let why = "a judge of pairs compares two answers; a trace has one";
        return Ok(Err(why.to_owned()));
    }
    Ok(Ok(Instrument {
        name: name.to_string(),
        version: found.version.number,
        digest: found.version.digest,
        document: parsed,
    }))
}

/// Every live evaluation of the project, by name.
///
/// # Errors
/// The database cannot be read.
pub async fn all(app: &App, scope: Scope) -> Result<Vec<Found>> {
    let page = PageRequest {
        cursor: None,
        limit: MOST,
    };
    let names = app
        .catalog
        .list_names(scope, KIND, &db::NameFilter::default(), &page)
        .await?;
    let mut found = Vec::new();
    for listed in names.items {
        found.extend(find_in(app, scope, &listed.latest.name).await?);
    }
    Ok(found)
}

/// Saves a version; it counts from now on, also where it is an older one word for word.
///
/// # Errors
/// The document is wrong, or its evaluator cannot work on traces.
pub async fn save(
    app: &App,
    scope: Scope,
    name: &Name,
    content: &Value,
    message: &str,
) -> Result<Found> {
    let document = LiveDocument::parse(content).map_err(db::CatalogError::Invalid)?;
    if let Err(why) = instrument(app, scope, &document).await? {
        return Err(AppError::invalid(why)
            .code("unusable_evaluator")
            .at("/evaluator"));
    }
    let new = NewVersion {
        kind: KIND,
        name,
        content,
        message,
    };
    let mut tx = app.db.begin_write().await?;
    let saved = app.catalog.save_version_in(&mut tx, scope, new).await?;
    let newest = app
        .catalog
        .version_in(&mut tx, scope, KIND, name, &Selector::Latest)
        .await?;
    let newest = newest.map_or(0, |found| found.version.number);
    if saved.version.number != newest {
        let chosen = store::Choice {
            version: saved.version.number,
            newest,
        };
        store::choose(&mut tx, scope, name.as_str(), chosen).await?;
        let detail = json!({"version": saved.version.number});
        audit(&mut tx, scope, "live_evaluation.choose", name, "", detail).await?;
    }
    if !document.enabled {
        store::forget_all(&mut tx, scope, name.as_str()).await?;
    }
    tx.commit().await?;
    find(app, scope, name).await
}

async fn audit(
    tx: &mut db::WriteTx,
    scope: Scope,
    action: &str,
    name: &Name,
    reason: &str,
    detail: Value,
) -> Result<()> {
    let line = db::audit::Line::new(scope, action, name.as_str());
    Ok(line.detail(detail).reason(reason).write(tx).await?)
}

/// Holds a live evaluation, or lets it go on with the traces that come from now on.
///
/// # Errors
/// There is none of this name, or it is held, or not held, already.
pub async fn hold(
    app: &App,
    scope: Scope,
    name: &Name,
    paused: bool,
    reason: &str,
) -> Result<Found> {
    let reason: String = reason.trim().chars().take(2000).collect();
    let now = find(app, scope, name).await?;
    if now.held.as_ref().is_some_and(|held| held.paused) == paused {
        let message = match paused {
            true => "the live evaluation is paused already",
            false => "the live evaluation is not paused",
        };
        return Err(AppError::conflict(message).code("wrong_state"));
    }
    let mut tx = app.db.begin_write().await?;
    tx.serialise().await?;
    store::set_paused(&mut tx, scope, name.as_str(), paused, &reason).await?;
    store::forget_all(&mut tx, scope, name.as_str()).await?;
    let action = match paused {
        true => "live_evaluation.pause",
        false => "live_evaluation.resume",
    };
    audit(&mut tx, scope, action, name, &reason, json!({})).await?;
    tx.commit().await?;
    find(app, scope, name).await
}

/// What became of the traces of a range.
///
/// # Errors
/// The database cannot be read.
pub async fn figures(
    app: &App,
    project: ProjectId,
    name: &str,
    range: (i64, i64),
) -> Result<Figures> {
    store::figures(&app.db, project, name, range).await
}

/// What a live evaluation has shown of a range, for other features' pages.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// The name of its scores.
    pub score: String,
    /// Whether it works.
    pub state: LiveState,
    /// What became of the traces.
    pub figures: Figures,
}

/// Every live evaluation of the project with what it has shown of a range.
///
/// # Errors
/// The database cannot be read.
pub async fn summaries(app: &App, scope: Scope, range: (i64, i64)) -> Result<Vec<Summary>> {
    let mut rows = Vec::new();
    for found in all(app, scope).await? {
        let figures = figures(app, scope.project, found.name.as_str(), range).await?;
        rows.push(Summary {
            state: found.state(),
            name: found.name.to_string(),
            score: found.document.score,
            figures,
        });
    }
    Ok(rows)
}
